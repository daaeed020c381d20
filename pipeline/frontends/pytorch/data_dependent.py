"""Values of tensors that Python needs while it is traced: `if mask.any():`, `int(length)`.

torch.export knows no values, and stops where Python has to choose by one. Here values are computed
beside the trace, so that one is known where it is asked for. One that no input has a part in (sizes
computed as tensors, buffers, constants) is the same in each run, and is taken. One that inputs
decide is only taken from the example inputs if the user says so: the program then asserts when it
runs what it took for granted.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import linecache
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import msgspec
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv, free_unbacked_symbols
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

from iree_pilot.models.traceable import EntryFunction
from iree_pilot.pipeline.frontends.reference import draws
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.program.program import Decided, holds_for

_aten = torch.ops.aten
#: Operations of whose first operand only the size matters.
_SHAPE_ONLY = (
    *(_aten.ones_like, _aten.zeros_like, _aten.full_like),
    *(_aten.new_ones, _aten.new_zeros, _aten.new_full, _aten.fill, _aten.copy),
)
#: How ShapeEnv begins the message of an assertion that a registered value led to.
_TAKEN = "propagate_real_tensors: "
#: Elements of a tensor that is computed beside the trace in case that Python asks for it.
_MOST = 2**20
#: Lines that a note names.
_FEW = 3
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_LIBRARY = os.path.dirname(torch.__file__) + os.sep  # noqa: PTH120 - compared with frames' names


def notes(decided: Sequence[Decided]) -> list[str]:
    """Lines for the user about what a trace took as given."""
    constants = list(dict.fromkeys(f"{Path(d.place).name}" for d in decided if not d.on_inputs))
    found = []
    if constants:
        few = ", ".join(constants[:_FEW]) + (", ..." if len(constants) > _FEW else "")
        found.append(
            f"values of tensors that no input has a part in, computed at the trace for "
            f"{count(len(constants), 'line')}: {few}"
        )
    return found + [holds_for(one) for one in decided if one.on_inputs]


class DataWatch:
    """The values that Python asked for in a trace. by_inputs: take those that inputs decide, too.

    buffers: names of those that constants were computed from.
    """

    def __init__(self, entry: EntryFunction, *, by_inputs: bool) -> None:
        self.by_inputs = by_inputs
        self.buffers: frozenset[str] = frozenset()
        self._entry = entry
        self._found: dict[tuple[str, str, bool], Decided] = {}

    @property
    def decided(self) -> tuple[Decided, ...]:
        """What was taken as given, once each line; of a loop, all that it took, and no Python to
        write, which would say one of them."""
        lines: dict[tuple[str, bool], list[Decided]] = {}
        for one in self._found.values():
            lines.setdefault((one.place, one.on_inputs), []).append(one)
        return tuple(
            msgspec.structs.replace(
                first, value=" and ".join(one.value for one in (first, *others)), write=""
            )
            if others and first.on_inputs
            else first
            for first, *others in lines.values()
        )

    def holds(self, program: ExportedProgram) -> bool:
        """False for a program that may be wrong without saying so: if a value that was taken as
        constant is of a buffer that the model changes, or nothing asserts what inputs decide."""
        if not self.buffers.isdisjoint(program.graph_signature.buffers_to_mutate.values()):
            return False
        asserts = any(n.target is _aten._assert_scalar.default for n in program.graph.nodes)
        return asserts or not any(one.on_inputs for one in self.decided)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Within, the entry's module is exported with what is known of values."""
        module, modes = self._entry.module, list[_Values]()
        held = [tensor.detach() for tensor in _held(module).values()]
        buffers = dict(module.named_buffers(remove_duplicate=False))
        values = pytree.tree_leaves((self._entry.args, dict(self._entry.kwargs)))
        own = vars(module).get("forward")
        forward = module.forward

        @functools.wraps(forward)
        def watched(*args: Any, **kwargs: Any) -> Any:
            mode = _Values(self)
            for (name, tensor), real in zip(_held(module).items(), held, strict=True):
                mode.know(tensor, real, frozenset([name]) if name in buffers else None)
            for tensor, real in zip(pytree.tree_leaves((args, kwargs)), values, strict=True):
                if isinstance(tensor, torch.Tensor):
                    mode.know(tensor, real, None)
            modes.append(mode)
            with mode:
                return forward(*args, **kwargs)

        asserting = ShapeEnv.guard_or_defer_runtime_assert

        def asserted(env: ShapeEnv, expression: Any, message: str, *args: Any, **kw: Any) -> bool:
            if message.startswith(_TAKEN):
                self._asserted(modes[-1], expression, message.removeprefix(_TAKEN))
            return asserting(env, expression, message, *args, **kw)

        logger = logging.getLogger(ShapeEnv.__module__)
        logger.addFilter(_unsaid)
        ShapeEnv.guard_or_defer_runtime_assert = asserted  # type: ignore[assignment, method-assign]
        module.forward = watched
        try:
            yield
        finally:
            ShapeEnv.guard_or_defer_runtime_assert = asserting  # type: ignore[method-assign]
            logger.removeFilter(_unsaid)
            if own is None:
                del module.forward
            else:
                module.forward = own

    def take(self, value: Any, buffers: frozenset[str]) -> None:
        """Records a constant that Python asked for."""
        self.buffers |= buffers
        line = _line()
        self._add(Decided(place=line.place, code=line.code, value=str(value), on_inputs=False))

    def _asserted(self, mode: _Values, expression: Any, message: str) -> None:
        """Records what the program will assert."""
        line, value = _line(), message.rpartition(" == ")[2]
        symbols = free_unbacked_symbols(expression)
        fixed = all(mode.symbols.get(symbol, _UNKNOWN).buffers is not None for symbol in symbols)
        if fixed:
            for symbol in symbols:
                self.buffers |= mode.symbols[symbol].buffers or frozenset()
        here = any(mode.symbols.get(s, _UNKNOWN).place == line.place for s in symbols)
        self._add(
            Decided(
                place=line.place,
                code=line.code,
                value=value,
                on_inputs=not fixed,
                write=_check(line.code, value, on_tensor=here),
            )
        )

    def _add(self, one: Decided) -> None:
        self._found.setdefault((one.place, one.value, one.on_inputs), one)


def _held(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _unsaid(record: logging.LogRecord) -> bool:
    """Filter of a logger: drops messages that `DataWatch.decided` replaces."""
    return not str(record.msg).startswith("propagate_real_tensors")


class _Origin:
    """What a tensor's memory was computed from; its views share it.

    buffers: names of the buffers, None where inputs (or draws) have a part in it. stale: its value
    is not known any more.
    """

    def __init__(self, buffers: frozenset[str] | None) -> None:
        self.buffers, self.stale = buffers, False


class _Known(NamedTuple):
    """A tensor's value in a run with the example inputs."""

    real: torch.Tensor
    origin: _Origin


class _Symbol(NamedTuple):
    """Origin of an unbacked symbol, and the line that asked for it."""

    buffers: frozenset[str] | None
    place: str


_UNKNOWN = _Symbol(None, "")


class _Values(TorchDispatchMode):
    """Computes what no input has a part in beside the trace, and if wanted all the rest.

    Values are computed as PyTorch does it, in the same order, so that views and operations that
    change a tensor mean the same.
    """

    def __init__(self, watched: DataWatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.symbols: dict[Any, _Symbol] = {}
        self._watched = watched
        self._known: Any = WeakTensorKeyDictionary()

    def know(
        self, tensor: torch.Tensor, real: torch.Tensor, buffers: frozenset[str] | None
    ) -> None:
        """Registers the value of an input or of what the module holds. buffers: see `_Origin`."""
        fake = _fake(tensor)
        if isinstance(real, FakeTensor) or real.is_meta:  # it has no value
            return
        before = self._known.get(fake)
        if before is None:
            if buffers is None and not self._watched.by_inputs:
                return
            self._known[fake] = _Known(_computed(torch.clone, real), _Origin(buffers))
        elif before.origin.buffers is not None and buffers is not None:
            before.origin.buffers |= buffers
        else:
            before.origin.buffers = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        buffers = self._buffers(func, tensors, pytree.tree_leaves((args, kwargs)))
        if func is _aten._local_scalar_dense.default and buffers is not None:
            value = _computed(torch.Tensor.item, self._value(args[0]).real)
            self._watched.take(value, buffers)
            return value
        made = func(*args, **kwargs)
        results = pytree.tree_leaves(made)
        small = sum(r.numel() for r in results if _static(r)) <= _MOST
        wanted = self._watched.by_inputs or (buffers is not None and small)
        reals = self._run(func, args, kwargs) if wanted else None
        changed = [self._known.get(t) for t in _written(func, args, kwargs)]
        for one in filter(None, changed):
            one.origin.stale |= reals is None
            one.origin.buffers = buffers
        if reals is not None:
            self._keep(results, reals, buffers, tensors)
        return made

    def _buffers(self, func: Any, tensors: Any, leaves: Any) -> frozenset[str] | None:
        """The buffers that a call's results are computed from; None where inputs have a part."""
        if draws.draws(func, leaves, {}) or draws.leaves_unwritten(func):
            return None
        found: frozenset[str] = frozenset()
        if getattr(func, "overloadpacket", None) in _SHAPE_ONLY and _static(tensors[0]):
            tensors = tensors[1:]
        for tensor in tensors:
            known = self._value(tensor)
            if known is None or known.origin.buffers is None:
                return None
            found |= known.origin.buffers
        for symbol in (s for leaf in leaves if isinstance(leaf, _SYMBOLIC) for s in _symbols(leaf)):
            own = self.symbols.get(symbol, _UNKNOWN).buffers
            if own is None:
                return None
            found |= own
        return found

    def _value(self, tensor: torch.Tensor) -> Any:
        """What is known of a tensor; None where nothing is."""
        if not isinstance(tensor, FakeTensor):
            return _Known(tensor, _Origin(frozenset()))
        if tensor not in self._known and tensor.constant is not None:
            self.know(tensor, tensor.constant, frozenset())
        known = self._known.get(tensor)
        return None if known is None or known.origin.stale else known

    def _run(self, func: Any, args: Any, kwargs: Any) -> list[Any] | None:
        """Results of a call with values; None where it cannot be made."""

        def real(leaf: Any) -> Any:
            if isinstance(leaf, torch.Tensor):
                known = self._value(leaf)
                if known is None and func.overloadpacket in _SHAPE_ONLY:
                    return torch.zeros((), dtype=leaf.dtype).expand(leaf.shape)
                return known.real
            if isinstance(leaf, _SYMBOLIC):
                env = leaf.node.shape_env
                known = leaf.node.expr.xreplace(env.real_tensor_prop_unbacked_vals)
                return leaf.node.pytype(known.xreplace(env.backed_var_to_val))
            return leaf

        if draws.draws(func, args, kwargs) or draws.leaves_unwritten(func):
            return None
        try:
            with _disable_current_modes(), torch.no_grad():
                args, kwargs = pytree.tree_map(real, (args, kwargs))
                return pytree.tree_leaves(func(*args, **kwargs))
        except Exception:  # noqa: BLE001 - whatever it is, the values are not known
            return None

    def _keep(
        self, results: Any, reals: list[Any], buffers: frozenset[str] | None, tensors: Any
    ) -> None:
        """Registers the values of a call's results, and of the symbols that they brought up."""
        given = {}
        for known in filter(None, map(self._value, tensors)):
            given[known.real.untyped_storage()._cdata] = known.origin
        for one, real in zip(results, reals, strict=True):
            if isinstance(one, FakeTensor):
                origin = given.get(real.untyped_storage()._cdata) or _Origin(buffers)
                self._known[one] = _Known(real, origin)
                pairs: list[tuple[Any, Any]] = [*zip(one.shape, real.shape, strict=True)]
            else:
                pairs = [(one, real)]
            for size, value in pairs:
                symbol = _symbol(size)
                if symbol is not None and symbol not in self.symbols:
                    number = int(value) if isinstance(value, bool) else value
                    size.node.shape_env.set_real_tensor_prop_unbacked_vals(symbol, number)
                    self.symbols[symbol] = _Symbol(buffers, _line().place)


def _static(result: Any) -> bool:
    """True for a tensor whose size is known."""
    return isinstance(result, torch.Tensor) and not any(
        isinstance(n, _SYMBOLIC) for n in result.shape
    )


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """Tensors that a call changes."""
    schema = getattr(func, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    named = {a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write}
    given = {**dict(zip((a.name for a in schema.arguments), args, strict=False)), **kwargs}
    leaves = pytree.tree_leaves([value for name, value in given.items() if name in named])
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _symbols(number: Any) -> set[Any]:
    return set(number.node.expr.free_symbols)


def _symbol(size: Any) -> Any:
    """The unbacked symbol that a symbolic number is, or the truth of which it is; else None."""
    if not isinstance(size, _SYMBOLIC):
        return None
    expression = size.node.expr
    if isinstance(size, torch.SymBool) and expression.is_Equality:
        expression = expression.args[0]
    return expression if expression.is_Symbol and free_unbacked_symbols(expression) else None


def _fake(tensor: torch.Tensor) -> torch.Tensor:
    """What functionalization works on in place of a tensor."""
    if isinstance(tensor, FunctionalTensor):
        return torch._from_functional_tensor(tensor.elem)
    return tensor


def _computed(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A call with real tensors, of which no trace knows."""
    with _disable_current_modes(), torch.no_grad():
        return func(*args, **kwargs)


class _SourceLine(NamedTuple):
    """A line of the model: `file.py:7` in full, and its text."""

    place: str
    code: str


def _line() -> _SourceLine:
    """The innermost line at work that is neither PyTorch's nor iree-pilot's own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_LIBRARY, "<")) and file != __file__:
            text = linecache.getline(file, frame.f_lineno).strip()
            return _SourceLine(f"{file}:{frame.f_lineno}", text)
        frame = frame.f_back
    return _SourceLine("", "")


def _check(code: str, value: str, *, on_tensor: bool) -> str:
    """Python in place of a line that branches, in which `torch._check` says how it does.

    on_tensor: the line itself makes a number of a tensor. "" for a line that is not understood.
    """
    if value not in ("True", "False"):
        return ""
    try:
        (parsed,) = ast.parse(f"{code.removeprefix('el')} pass").body
    except (SyntaxError, ValueError):
        return ""
    if not isinstance(parsed, ast.If) or code.startswith("el"):
        return ""
    test, negated = parsed.test, False
    while isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test, negated = test.operand, not negated
    if isinstance(test, ast.BoolOp):
        return ""
    text = ast.unparse(test)
    name = text if not on_tensor else "taken"
    check = name if value == "True" else f"torch.sym_not({name})"
    lines = [f"torch._check({check})"]
    if on_tensor:
        item = text if text.endswith(".item()") else f"({text}).item()"
        lines = [f"taken = {item}", *lines, f"if {'not ' * negated}taken:"]
    return "\n".join(lines)
