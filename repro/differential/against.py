"""Comparison of a program on two sides, prepared: flow IR, inputs, origins, state."""

from __future__ import annotations

import functools
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.execution import engine
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.failures.stderr import operation_in
from iree_pilot.pipeline.frontends.inputs import examples
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.program.program import Function, Program, Tensor
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.store.store import Store, data_directory
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.bisect import Found, reproduced
from iree_pilot.repro.differential import flow_editor, reproducer, smaller
from iree_pilot.repro.differential.compare import Compared, Comparer, Dispatched
from iree_pilot.repro.differential.flow import Flow
from iree_pilot.repro.differential.side import FLOW_PHASE, Broken, Side, check, typed
from iree_pilot.repro.differential.smaller import Small
from iree_pilot.repro.options import Options
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.known import places
from iree_pilot.repro.reproducer.known.places import Identity

_LOCATIONS = "--mlir-print-debuginfo"
_OPERATION = re.compile(r"(?:= |^\s*)\"?([a-z]\w*(?:\.\w+)+)")
#: Lines of a program that only bring values, which many dispatches share.
_BRINGS = re.compile(
    r"torch\.(constant\..*|vtensor\.literal|prim\.ListConstruct)|torch_c\..*|util\.global\.load"
    r"|(arith|tosa|stablehlo)\.const\w*|tensor\.empty"
)
#: Lines that say little beside others: functions, and what is inside of an operation.
_INSIDE = re.compile(r"(func|util)\.func|\w+\.(yield|return)|(arith|math)\..*")
_FLOW_IR = re.compile(rb"^\s*flow\.executable\b", re.MULTILINE)


class Differential(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a comparison, as a bisection: `isolated` if a dispatch was found.

    failures: what makes the first dispatch that differs, and its reproducer. compared: everything
    that was found out.
    """

    status: Literal["isolated", "passes", "gave-up"]
    compared: Compared
    failures: tuple[Found, ...] = ()
    oracle_calls: int = 0
    seconds: float = 0.0
    why: str = ""


def bisect(
    loaded: Loaded,
    sides: tuple[Side, Side],
    context: Context,
    options: Options,
    on_progress: Callable[[str], None] = lambda _: None,
    on_wait: Callable[[], None] | None = None,
) -> Differential:
    """Isolates the first dispatch that differs into the folder `options.place`; see `compare`."""
    started = time.monotonic()
    usual = options.place
    if not options.default:
        bundle.check_place(usual)
    compared, comparer = compare(loaded, sides, context, options, on_progress, on_wait)
    failures: tuple[Found, ...] = ()
    calls = compared.compiles
    if comparer is not None and comparer.culprit is not None:
        on_progress(f"making {comparer.culprit.differing.name} smaller")
        small = smaller.smaller(comparer.culprit, comparer, sides)
        calls += small.calls
        wanted = Identity(
            failure=numerics.to_failure(small.comparison),
            source=loaded.program.source,
            target=sides[0].name,
            flags=(*sides[0].flags, *small.flags),
            program=str(loaded.mlir),
        )
        settle = functools.partial(places.settled, usual, wanted, default=options.default)
        found = _found(small, comparer, loaded, sides, context, settle)
        if found.reproducer and Path(found.reproducer.path) != usual:
            found = msgspec.structs.replace(found, beside=places.beside(usual))
        failures = (found,)
    status: Literal["isolated", "passes", "gave-up"] = "gave-up"
    if compared.status == "agrees":
        status = "passes"
    elif failures:
        status = "isolated"
    return Differential(
        status=status,
        compared=compared,
        failures=failures,
        oracle_calls=calls,
        seconds=time.monotonic() - started,
        why=compared.why or ("no dispatch differs" if status == "passes" else ""),
    )


def _found(
    small: Small,
    comparer: Comparer,
    loaded: Loaded,
    sides: tuple[Side, Side],
    context: Context,
    settle: Callable[[], Path],
) -> Found:
    assert comparer.culprit is not None
    failure = numerics.to_failure(small.comparison)
    if not reproducer.fits(small):
        why = "its inputs are too large for a reproducer, and it agrees on made-up values"
        return Found(failure=failure, why=why)
    place, report = reproducer.write(
        small,
        comparer.culprit.differing,
        loaded,
        sides,
        context.at(comparer.context.directory / "folder"),
        settle,
    )
    return Found(failure=report.failure, reproducer=reproduced(place, report))


def compare(
    loaded: Loaded,
    sides: tuple[Side, Side],
    context: Context,
    options: Options,
    on_progress: Callable[[str], None] = lambda _: None,
    on_wait: Callable[[], None] | None = None,
) -> tuple[Compared, Comparer | None]:
    """Compares a program on two sides, dispatch by dispatch.

    What was compiled is kept, so that the same call goes on where an earlier one was stopped; it
    waits for another process that does the same (`on_wait` is called once before).

    Raises UsageError for a side that cannot be run here and for a program without its weights.
    """
    check(sides)
    side, against = sides
    _check_weights(loaded)
    key = Store.key(
        loaded.program.digest, side.flags, against.flags, context.toolchain.revision, options.seed
    )
    place = data_directory() / "sides" / key[:16]
    with Locks(place.parent / "locks").hold(key, on_wait=on_wait):
        if options.fresh:
            shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        names = (side.name, against.name)
        on_progress("compiling to flow")
        try:
            flow, compiles = _flow(loaded, side, context.at(place))
            described = _wanted(flow_editor.describe(flow, place / "described"), loaded.program)
        except Broken as fault:
            return Compared(status="gave-up", sides=names, compiles=1, why=str(fault)), None
        except flow_editor.NotEditable as fault:
            return Compared(status="gave-up", sides=names, compiles=1, why=str(fault)), None
        compiled = Dispatched(
            flow, described, _examples(loaded, described, place, options.seed), compiles
        )
        comparer = Comparer(
            compiled, loaded, sides, context.at(place), Origins(loaded.mlir), on_progress
        )
        return comparer.run(), comparer


class Origins:
    """Operations by the lines of a program: `file:line: operation`."""

    def __init__(self, program: Path) -> None:
        self._name = program.name
        self._lines = program.read_text(encoding="utf-8", errors="replace").splitlines()

    def __call__(self, places: Sequence[tuple[str, int]]) -> tuple[str, ...]:
        named = {(Path(file).name, line): self._operation(file, line) for file, line in places}
        computing = {place: name for place, name in named.items() if not _BRINGS.fullmatch(name)}
        outer = {place: name for place, name in computing.items() if not _INSIDE.fullmatch(name)}
        return tuple(
            f"{file}:{line}" + (f": {name}" if name else "")
            for (file, line), name in (outer or computing).items()
        )

    def _operation(self, file: str, line: int) -> str:
        if Path(file).name != self._name or not 0 < line <= len(self._lines):
            return ""
        text = self._lines[line - 1].strip()
        match = _OPERATION.search(text)
        return (operation_in(text) or (match[1] if match else "")).removeprefix("torch.operator ")


def _check_weights(loaded: Loaded) -> None:
    parameters = loaded.program.parameters
    if parameters is not None and parameters.missing:
        raise UsageError(
            f"{loaded.program.source} cannot be run: only the names of its weights are known",
            advice="Give an archive with --weights.",
        )


def _flow(loaded: Loaded, side: Side, context: Context) -> tuple[Path, int]:
    """(the program's flow IR with locations, as `side` makes it, how many compiles it took).

    Raises Broken.
    """
    if _FLOW_IR.search(loaded.mlir.read_bytes()):
        return loaded.mlir, 0
    made = context.directory / f"{FLOW_PHASE}.mlir"
    if made.is_file():
        return made, 0
    scratch = context.directory / "flow"
    shutil.rmtree(scratch, ignore_errors=True)
    job = Compile(mlir=loaded.mlir, flags=(*side.flags, _LOCATIONS), to=FLOW_PHASE)
    result = engine.compiled(job, context.at(scratch))
    if isinstance(result, Failure):
        raise Broken(side.name, "the program does not compile to flow", result)
    result.rename(made)
    return made, 1


def _wanted(flow: Flow, program: Program) -> Flow:
    """Without the functions that the program has beside those that are wanted (`--function`)."""
    names = {function.name for function in program.functions}
    if names.isdisjoint(body.name for body in flow.bodies):
        return flow
    bodies = tuple(body for body in flow.bodies if body.initializer or body.name in names)
    return msgspec.structs.replace(flow, bodies=bodies)


def _examples(loaded: Loaded, flow: Flow, place: Path, seed: int) -> dict[str, tuple[Tensor, ...]]:
    """The inputs of each function, in files with absolute paths; made up where there are none."""
    given = {f.name: f.example for f in loaded.program.functions if f.example is not None}
    found = {}
    for body in flow.bodies:
        directory, tensors = Path(loaded.directory), given.get(body.name)
        if tensors is None:
            directory = place / "inputs"
            directory.mkdir(exist_ok=True)
            inputs = tuple(typed(value) for value in body.arguments)
            described = Function(name=body.name, inputs=inputs, outputs=())
            tensors = examples.random(described, seed, directory)
        found[body.name] = tuple(tensor.placed(directory.absolute()) for tensor in tensors)
    return found
