"""Decomposes operations of an exported program that IREE cannot compile, or computes wrong.

iree-turbine's table of decompositions leaves operations alone that the torch dialect does not have,
or that torch-mlir does not lower. Which ones is not listed here: the installed compiler is asked
about each operation of the program, with its own types, up to the end of phase `input`.

Runs in the tracing child; imports torch and the compiler's bindings.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from iree.compiler import ir
from iree.compiler.extras.fx_importer import FxImporter
from iree.turbine.aot.decompositions import current_aot_decompositions
from torch._decomp import core_aten_decompositions
from torch._export.utils import _get_decomp_for_cia, _is_cia_op
from torch._ops import OpOverload
from torch.export import ExportedProgram

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.failures import stderr
from iree_pilot.pipeline.frontends.gaps import constant_calls, symbolic_scalars
from iree_pilot.pipeline.frontends.gaps.own import OWN, Own
from iree_pilot.pipeline.frontends.job import ALL
from iree_pilot.pipeline.program.program import Decomposed
from iree_pilot.pipeline.targets import devices, probing
from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.pipeline.targets.probing import Fault, ProbeProgram
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

PYTORCH, OURSELVES = "PyTorch", "iree-pilot"
#: Decompositions may bring up operations that need one themselves; so often in a row.
_ROUNDS = 4
#: A hundred times what a question takes.
_ASK_SECONDS = 30.0
_DEVICE = "local-sync"
Decompositions = Mapping[OpOverload, Callable[..., Any]]


class Refused(msgspec.Struct, frozen=True):
    """Functions of a module that do not compile up to the end of phase `input`, with a message."""

    functions: dict[str, str]


def closed(
    programs: Mapping[str, ExportedProgram], leave: Collection[str] = ()
) -> tuple[dict[str, ExportedProgram], tuple[Decomposed, ...]]:
    """The programs with their gaps decomposed by PyTorch, and what was, once each.

    programs: decomposed by iree-turbine's table; their operations on scalars are rewritten in
    place where the importer does not know them. leave: names of operations to leave as they are,
    with overload or without (`aten.diff`), or `all`. Raises UsageError for one that is in no
    program.
    """
    if ALL in leave:
        return dict(programs), ()
    known = {name(op) for program in programs.values() for op in _operations(program)}
    known |= {op for program in programs.values() for op in symbolic_scalars.names(program)}
    for one in leave:
        if not any(_names(one, op) for op in known):
            word = one.removeprefix("aten.")
            near = sorted(op for op in known if word and word in op)
            raise UsageError(
                f"the model has no operation {one} that could be left as it is",
                advice=f"It has {', '.join(near)}." if near else "Name one as `aten.diff`.",
            )
    made: dict[str, ExportedProgram] = {}
    found: dict[str, Decomposed] = {}
    for function, program in programs.items():
        made[function], decomposed = _closed(program, leave)
        scalars = symbolic_scalars.rewritten(
            made[function], lambda op: any(_names(one, op) for one in leave)
        )
        found.update((one.op, one) for one in (*decomposed, *scalars))
    return made, tuple(found.values())


def _names(wanted: str, op: str) -> bool:
    return op == wanted or op.startswith(f"{wanted}.")


def _closed(
    program: ExportedProgram, leave: Collection[str]
) -> tuple[ExportedProgram, tuple[Decomposed, ...]]:
    """`closed` for one program."""
    gaps = _Gaps(program)
    for _ in range(_ROUNDS):
        found = {
            op: why
            for op, why in gaps.found().items()
            if not any(_names(one, name(op)) for one in leave)
        }
        if not found:
            break
        if not gaps.close(found):
            for op, why in found.items():
                gaps.close({op: why})
    return gaps.program, (*gaps.done.values(), *gaps.compute(leave))


class _Gaps:
    """A program whose gaps are being decomposed; done: those that are, and why."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.done: dict[OpOverload, Decomposed] = {}
        self._table = current_aot_decompositions()
        self._release = toolchain.installed()
        self._stuck: set[OpOverload] = set()

    def found(self) -> dict[OpOverload, Decomposed]:
        """Operations that the compiler refuses, or computes wrong, and that can be decomposed, in
        the program's order."""
        known = {*self.done, *self._stuck}
        nodes = [
            node
            for node in _calls(self.program)
            if node.target not in known and self._decomposes(node)
        ]
        return {**_failing_later(nodes, self._release), **_refusals(nodes, self._release)}

    def close(self, found: Mapping[OpOverload, Decomposed]) -> bool:
        """Decomposes these, unless that fails or leads to operations that are refused for good."""
        decomposed = {**self.done, **found}
        wanted = {op: _decomposition(op, how) for op, how in decomposed.items()}
        try:
            after = self.program.run_decompositions({**self._table, **wanted})
        except Exception:  # noqa: BLE001 - the model traces without it
            self._stuck |= found.keys()
            return False
        before = _operations(self.program)
        left = {
            node.target
            for node in _calls(after)
            if node.target in found and (_own(node) or found[node.target].by == PYTORCH)
        }
        new = [
            node
            for node in _calls(after)
            if node.target not in before and not self._decomposes(node)
        ]
        if left or _refusals(new, self._release):
            self._stuck |= left or found.keys()
            return False
        self.program = after
        self.done |= found
        self._stuck -= found.keys()
        return True

    def compute(self, leave: Collection[str]) -> tuple[Decomposed, ...]:
        """Computes calls on constants that are refused still, in place."""
        calls = [
            node
            for node in constant_calls.calls(self.program)
            if not any(_names(one, name(cast(OpOverload, node.target))) for one in leave)
            and (node.target in self._stuck or not self._decomposes(node))
        ]
        refused = _refusals(calls, self._release)
        constant_calls.compute(self.program, [node for node in calls if node.target in refused])
        return tuple(
            msgspec.structs.replace(one, by=OURSELVES, price=constant_calls.PRICE)
            for one in refused.values()
        )

    def _decomposes(self, node: torch.fx.Node) -> bool:
        op = cast(OpOverload, node.target)
        if _own(node):
            return True
        return op not in self._table and (op in _core() or _is_cia_op(op))


def name(op: OpOverload) -> str:
    """An operation as the torch dialect calls it, without `torch.`: `aten.diff`."""
    overload = "" if op._overloadname in ("", "default") else f".{op._overloadname}"
    return op._schema.name.replace("::", ".") + overload


def _refusals(nodes: Sequence[torch.fx.Node], release: Toolchain) -> dict[OpOverload, Decomposed]:
    """Operations of these calls that do not compile, and why, in their order."""
    text, asked, refused = _module(list({_kind(node): node for node in nodes}.values()))
    compiled = tuple(function for function in asked if function not in refused)
    with contextlib.suppress(probing.Undecided):
        if compiled:
            refused |= toolchain.remember(
                "lowering",
                (release.version, release.revision, text),
                lambda: Refused(_refused(text, compiled, release)),
                Refused,
            ).functions
    found: dict[OpOverload, Decomposed] = {}
    for function, node in asked.items():
        if function in refused:
            op, own = cast(OpOverload, node.target), _own(node)
            reason = f"IREE {release.version} does not lower it"
            if own and own.what:
                reason += f" for {own.what}"
            if function not in compiled:
                reason = "IREE's importer does not take it"
            elif f'name = "torch.{name(op)}"' in refused[function]:
                reason = "the torch dialect has no such operation"
            made = Decomposed(
                op=name(op),
                by=OURSELVES if own else PYTORCH,
                reason=reason,
                price=own.price if own else "",
                message=refused[function],
            )
            found.setdefault(op, made)
    return found


def _failing_later(
    nodes: Sequence[torch.fx.Node], release: Toolchain
) -> dict[OpOverload, Decomposed]:
    """Operations whose numbers this release computes wrong in such a call, or that it fails to
    compile behind phase `input`."""
    found: dict[OpOverload, Decomposed] = {}
    for node in nodes:
        op, own = cast(OpOverload, node.target), _own(node)
        if own is None or own.probe is None or op in found:
            continue
        if fault := _fault(own.probe, release):
            reason = f"IREE {release.version} {fault.does} {own.what}"
            found[op] = Decomposed(
                op=name(op), by=OURSELVES, reason=reason, price=own.price, message=fault.message
            )
    return found


def _fault(probe: ProbeProgram, release: Toolchain) -> Fault | None:
    """What is wrong with a probe on the CPU; None too where that cannot be found out."""
    flags = BACKENDS["llvm-cpu"].flags("host", release)
    with contextlib.suppress(probing.Undecided):
        return probing.fault(probe, release, flags, devices.processor(_DEVICE))
    return None


def _own(node: torch.fx.Node) -> Own | None:
    """The decomposition of our own that is made for such a call."""
    if name(cast(OpOverload, node.target)) not in OWN:
        return None
    values = torch.fx.node.map_arg((node.args, node.kwargs), lambda given: given.meta.get("val"))
    args, kwargs = cast(tuple[Sequence[Any], Mapping[str, Any]], values)
    return _made_for(name(cast(OpOverload, node.target)), args, kwargs)


def _made_for(op: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Own | None:
    return next((own for own in OWN.get(op, ()) if own.applies(*args, **kwargs)), None)


def _operations(program: ExportedProgram) -> set[OpOverload]:
    return {node.target for node in _calls(program)}


def _calls(program: ExportedProgram) -> Iterator[Any]:
    """Nodes that call an operation, also those of branches and loops."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                if isinstance(node.target, OpOverload):
                    yield node


def _decomposition(op: OpOverload, how: Decomposed) -> Callable[..., Any]:
    """What decomposes a call: our own where one is made for it; PyTorch's for others if `how` says
    so."""
    others: Callable[..., Any] | None = None
    if how.by == PYTORCH:
        others = _get_decomp_for_cia(op) if _is_cia_op(op) else _core()[op]

    def decompose(*args: Any, **kwargs: Any) -> Any:
        own = _made_for(name(op), args, kwargs)
        made = own.decompose if own else others
        return made(*args, **kwargs) if made else NotImplemented

    return decompose


@functools.cache
def _core() -> Decompositions:
    """PyTorch's decompositions into the core of ATen, which the torch dialect has."""
    return cast(Decompositions, core_aten_decompositions())


def _kind(node: torch.fx.Node) -> str:
    """Text that is the same for calls that compile alike: the operation, types and other values."""

    def described(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            made = value.meta.get("val")
            if isinstance(made, torch.Tensor):
                return made.dtype, tuple(map(str, made.shape))
            return type(made)
        return value

    return repr((node.target, *torch.fx.node.map_aggregate((node.args, node.kwargs), described)))


def _module(
    nodes: Sequence[torch.fx.Node],
) -> tuple[str, dict[str, torch.fx.Node], dict[str, str]]:
    """A module of one function for each call; the call that each is of; the message about each that
    the importer does not take, of which the module has no function."""
    asked: dict[str, torch.fx.Node] = {}
    refused: dict[str, str] = {}
    with ir.Context() as context:
        importer = FxImporter(context=context)
        for number, node in enumerate(nodes):
            function = f"op{number}"
            graph = _alone(node)
            if graph is None:
                continue
            asked[function] = node
            try:
                importer.import_stateless_graph(graph, func_name=function)
            except Exception as error:  # noqa: BLE001 - of any kind, asserts among them
                refused[function] = f"{type(error).__name__}: {error}"
                for half in list(importer.module.body.operations)[len(asked) - len(refused) :]:
                    half.operation.erase()
        return str(importer.module.operation.get_asm()), asked, refused


def _alone(node: torch.fx.Node) -> torch.fx.Graph | None:
    """A graph of this call alone; None where it returns something else than tensors."""
    graph = torch.fx.Graph()
    inputs: dict[torch.fx.Node, torch.fx.Node] = {}
    for number, source in enumerate(node.all_input_nodes):
        inputs[source] = graph.placeholder(f"x{number}")
        inputs[source].meta = {"val": source.meta.get("val")}
    call = graph.node_copy(node, inputs.__getitem__)
    made = node.meta.get("val")
    if isinstance(made, torch.Tensor):
        graph.output((call,))
        return graph
    if not isinstance(made, tuple | list) or not all(isinstance(m, torch.Tensor) for m in made):
        return None
    results = []
    for number, result in enumerate(made):
        results.append(graph.call_function(operator.getitem, (call, number)))
        results[-1].meta = {"val": result}
    graph.output(tuple(results))
    return graph


def _refused(text: str, functions: tuple[str, ...], release: Toolchain) -> dict[str, str]:
    """The functions that do not compile, with the first message about each.

    A compile names those that one pass refuses; the others are asked about again without them.
    Where it names none (it crashed, or does not end), halves are asked about.
    """
    refused: dict[str, str] = {}
    left = functions
    while left:
        try:
            named = _named(_only(text, left), release)
        except probing.TooLong:
            if len(left) == 1:
                return {**refused, left[0]: "the compiler does not end"}
            named = {}
        if named is None:
            return refused
        if not named:
            if len(left) == 1:
                return {**refused, left[0]: probing.ABNORMALLY}
            middle = len(left) // 2
            parts = (left[:middle], left[middle:])
            return refused | _refused(text, parts[0], release) | _refused(text, parts[1], release)
        refused |= named
        left = tuple(one for one in left if one not in named)
    return refused


def _only(text: str, functions: Collection[str]) -> list[str]:
    """Lines of the module with these functions alone."""
    kept, keeping = [], True
    for line in text.splitlines():
        if line.startswith("  func.func @"):
            keeping = _function(line) in functions
        elif line == "}":
            keeping = True
        if keeping:
            kept.append(line)
    return kept


def _function(line: str) -> str:
    return line.removeprefix("  func.func @").partition("(")[0]


def _named(lines: Sequence[str], release: Toolchain) -> dict[str, str] | None:
    """Functions that the compiler complains of; none where it fails otherwise, None where it
    compiles all of them. Raises TooLong, and Undecided."""
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        file = Path(scratch, "operations.mlir")
        file.write_text("\n".join(lines))
        out = Path(scratch, "out")
        command: list[str | Path] = [release.compiler, file, "--compile-to=input", "-o", out]
        done = probing.decided(toolchain.ask(command, seconds=_ASK_SECONDS))
    if done.ok:
        return None
    owner, owners = "", []
    for line in lines:
        owner = _function(line) if line.startswith("  func.func @") else owner
        owners.append(owner)
    found: dict[str, str] = {}
    for error in stderr.read(done.stderr).errors:
        _, _, place = (error.location or "").rpartition(f"{file.name}:")
        line = place.partition(":")[0]
        if line.isdigit() and owners[int(line) - 1]:
            found.setdefault(owners[int(line) - 1], error.text)
    return found
