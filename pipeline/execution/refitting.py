"""Made-up inputs that do not fit: recognised, as no failure of the program, and replaced.

Nobody's inputs prove nothing. A run with them that ends in an assertion about the inputs, or in a
shape that the compiled function checks, says that they do not fit; it is repeated with inputs that
satisfy what it says. Whatever does not depend on them is the program's failure.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.evaluate import checks
from iree_pilot.pipeline.execution.engine import Engine, Values
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends import load
from iree_pilot.pipeline.frontends.inputs import examples, fitting, fitting_inputs
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.frontends.mlir import constraints, generic, mlir
from iree_pilot.pipeline.program import program as programs
from iree_pilot.pipeline.program.program import Call, Dim, Function, MadeUp, Program
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.toolchain.context import Context

T = TypeVar("T")

_SHAPE = re.compile(
    r"(?P<name>\S+) shape .*expected shape `(?P<expected>[\dx?]*)`, "
    r"actual shape `(?P<actual>[\dx]*)`"
)
_NUMBER = re.compile(r"\d+$")
#: Sizes and offsets that come out of made-up numbers or sizes end so, in the runtime's own checks.
_RANGE = ("OUT_OF_RANGE", "INVALID_ARGUMENT")
_ROUNDS = 6


class Misfit(UsageError):
    """The inputs that were made up do not fit; better: some that may, None where none are known."""

    def __init__(self, source: str, function: Function, why: str, better: MadeUp | None):
        super().__init__(
            f"{source}: the inputs that were made up for {function.name} do not fit: {why}",
            advice=f"Give some that do, with --input for each of {fitting.signature(function)}.",
        )
        self.function = function.name
        self.why = why
        self.better = better


def settled(
    loaded: Loaded,
    attempt: Callable[[Loaded], T],
    context: Context,
    *,
    on_change: Callable[[Loaded], None] = lambda _: None,
) -> tuple[Loaded, T]:
    """(the program with inputs that fit, what `attempt` gives for it).

    on_change: hears of a program with other inputs, before it is tried.

    Raises Misfit where the inputs are made up and none are found that fit.
    """
    for _ in range(_ROUNDS):
        try:
            return loaded, attempt(loaded)
        except Misfit as misfit:
            if misfit.better is None or _fixed(loaded.program, misfit.function):
                raise
            loaded = _refitted(loaded, misfit, context)
            on_change(loaded)
    return loaded, attempt(loaded)


def _fixed(program: Program, name: str) -> bool:
    """True if a function's reference is given, and not computed from its inputs."""
    reference = program.function(name).reference
    own = reference is not None and reference.users
    return own or checks.rewritten(program)


def judge(
    failure: Failure,
    function: Function,
    texts: Callable[[], Iterator[str]],
    trial: Callable[[MadeUp], bool] = lambda _: False,
) -> tuple[bool, MadeUp | None]:
    """(True if the made-up inputs cause the failed run, inputs that may fit).

    texts: the program in generic form, as it is and as IREE lowers it; asked for only if need be.
    trial: whether the function runs with other inputs.
    """
    made_up = function.made_up
    if made_up is None or failure.kind != "runtime-error":
        return False, None
    shape = _SHAPE.search(failure.message)
    if shape is not None and "hal.buffer_view.assert" in failure.message:
        return _shaped(function, made_up, shape)
    code = failure.message.partition(";")[0]
    asserted = _asserted(failure, function, made_up, texts)
    if asserted is not None:
        return asserted
    if code in _RANGE and "element type" not in failure.message:
        shifts = fitting_inputs.constants(texts())
        others = fitting_inputs.alternatives(function, made_up, shifts)
        better = next((one for one in others if trial(one)), None)
        return better is not None or fitting_inputs.leads_outside(function), better
    return False, None


def _shaped(
    function: Function, made_up: MadeUp, shape: re.Match[str]
) -> tuple[bool, MadeUp | None]:
    """(True if the failed check is of dimensions that may be chosen, inputs of those sizes)."""
    expected = shape["expected"].split("x")
    number = _NUMBER.search(shape["name"])
    sizes: dict[str, int] = {}
    for index, (want, got) in enumerate(zip(function.inputs, function.example or (), strict=True)):
        meant = int(number[0]) == index if number else True
        if not meant or "x".join(map(str, got.shape)) != shape["actual"]:
            continue
        for dim, wanted, size in zip(want.shape, expected, got.shape, strict=False):
            if wanted == "?" or int(wanted) == size:
                continue
            if not isinstance(dim, Dim):
                return False, None
            sizes[dim.symbol] = int(wanted)
    if not sizes:
        return False, None
    return True, msgspec.structs.replace(made_up, sizes=made_up.sizes | sizes)


def _asserted(
    failure: Failure, function: Function, made_up: MadeUp, texts: Callable[[], Iterator[str]]
) -> tuple[bool, MadeUp | None] | None:
    """(True if the failed assertion depends on inputs, better ones); None if not the program's."""
    found = False
    for text in texts():
        body = constraints.stated(generic.functions(text), function.name)
        if body is None:
            continue
        failed = [
            d for d in constraints.demands(body) if d.message and d.message in failure.message
        ]
        found = found or bool(failed)
        if not any(d.unknowns for d in failed):
            continue
        better = constraints.solve(body, function, made_up)
        if better is None and fitting_inputs.has_integers(function) and made_up.integers > 1:
            # It depends on what is in the tensors.
            smaller = 2 if made_up.integers > 2 else 1
            better = msgspec.structs.replace(made_up, integers=smaller)
        return True, better
    return (False, None) if found else None


def _refitted(loaded: Loaded, misfit: Misfit, context: Context) -> Loaded:
    """The program with other made-up inputs of a function, and its reference for them."""
    old, program = Path(loaded.directory), loaded.program
    name, made_up = misfit.function, misfit.better
    assert made_up is not None

    def make(place: Path) -> None:
        shutil.copytree(old, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest*"))
        evaluated = fitting_inputs.with_inputs(
            program, program.function(name), made_up, context.at(place)
        )
        (function,) = evaluated.functions
        functions = tuple(function if f.name == name else f for f in program.functions)
        kept = [n for n in program.notes if not n.startswith(f"{name} has nothing to be compared")]
        note = fitting_inputs.made_again(function, misfit.why)
        programs.save(
            msgspec.structs.replace(
                program, functions=functions, notes=(*kept, *evaluated.notes, note)
            ),
            place,
        )

    key = Store.key(loaded.directory, program.digest, name, msgspec.json.encode(made_up).decode())
    entry = context.store.obtain(load.KIND, key, make)
    return msgspec.structs.replace(
        loaded, program=programs.load(entry), directory=str(entry), cached=False
    )


def refuse(source: str, function: Function) -> None:
    """Raises Misfit where the evaluator says that the inputs that were made up do not fit."""
    if fitting_inputs.complains(function):
        raise Misfit(source, function, function.unevaluated, None)


def check(
    call: Call,
    failure: Failure,
    context: Context,
    *,
    by: Engine | None = None,
    phases: Path | None = None,
) -> None:
    """Raises Misfit where a run failed because its inputs were made up.

    by: runs the call with others to find out; without, nothing is run again. phases: where the
    compile's dumps are.
    """

    def texts() -> Iterator[str]:
        lowered = sorted(phases.glob("*.1.input.mlir")) if phases else []
        for file in (call.mlir, *lowered):
            yield _generic(file, context)

    def runs(made_up: MadeUp) -> bool:
        with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
            place = Path(scratch)
            given = examples.random(call.function, made_up.seed, place, made_up)
            other = call.given(tuple(tensor.placed(place) for tensor in given))
            return by is not None and isinstance(by.run(other, place), Values)

    misfit, better = judge(failure, call.function, texts, runs)
    if misfit:
        raise Misfit(call.program.source, call.function, failure.message, better)


def _generic(file: Path, context: Context) -> str:
    """A file of MLIR in generic form; empty where it cannot be read so."""
    if context.toolchain.opt is None:
        return ""
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        out = Path(scratch) / "generic.mlir"
        done, _ = context.at(Path(scratch)).run(
            [context.toolchain.opt, file, "--mlir-print-op-generic", *mlir.ELIDE, "-o", out]
        )
        return out.read_text(encoding="utf-8", errors="replace") if done.ok else ""
