"""Oracle for the runtime: does a candidate's module still fail to load or run in the same way?"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.execution import refitting
from iree_pilot.pipeline.execution.engine import Iree, Unsupported, Values
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.job import Job, TraceFailed
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.frontends.mlir import mlir
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program.program import Call
from iree_pilot.pipeline.toolchain.compiler import MODULE
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.oracles.oracle import NotAProgram, RememberingOracle


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The run of the program at fault.

    loaded: the program, with inputs of its own. function: that which failed. device: as
    `--device=` takes it; elsewhere: the same on another machine. command: the run that failed.
    seed: for the inputs of parts of the program, which are made up. comparison: of what it
    computed, where that was wrong.
    """

    loaded: Loaded
    function: str
    device: str
    elsewhere: str
    command: tuple[str, ...]
    seed: int = 0
    comparison: Comparison | None = None

    @property
    def is_users_word(self) -> bool:
        """True if only the outputs that the user expects say that it is wrong."""
        reference = self.loaded.program.function(self.function).reference
        return reference is not None and reference.users

    @property
    def weights(self) -> tuple[tuple[str, str], ...]:
        """The archives that the program and its parts load their parameters from, by scope."""
        parameters = self.loaded.program.parameters
        place = Path(self.loaded.directory).absolute()
        return tuple(
            (scope, str(place / file))
            for scope, archives in (parameters.by_scope if parameters else {}).items()
            for file in archives
        )

    @property
    def parameters(self) -> tuple[str, ...]:
        """The words that load them, for the tools of the runtime."""
        return tuple(
            f"--parameters={f'{scope}=' if scope else ''}{file}" for scope, file in self.weights
        )

    def line(self, program: Path) -> int:
        """A line of a program inside the function that failed, 0 where that is not to be seen."""
        lines = program.read_text(encoding="utf-8", errors="replace").splitlines()
        header = re.compile(rf"\s*\w+\.func\b[^@]*@\"?{re.escape(self.function)}\"?\(")
        for number, line in enumerate(lines, 1):
            if header.match(line):
                return number + 1
        return 0


def describe(candidate: Path, running: Running | None, context: Context) -> Loaded:
    """The candidate in the new directory of the context, with inputs that are the same each time.

    running: what it is a part of, where its inputs are to be like that one's. Raises NotAProgram
    for one that has no function that can be run.
    """
    shutil.rmtree(context.directory, ignore_errors=True)
    context.directory.mkdir(parents=True)
    job = Job(source=Source(text=candidate.name, kind="mlir", path=str(candidate)))
    if running is not None:
        job = msgspec.structs.replace(
            job, seed=running.seed, scoped=running.weights, evaluate=False
        )
    try:
        program = mlir.build(job, context)
    except (UsageError, TraceFailed) as fault:
        raise NotAProgram(str(fault)) from fault
    if not program.functions:
        raise NotAProgram(f"{candidate} has no function that takes and returns tensors")
    return Loaded(program=program, directory=str(context.directory))


class RunOracle(RememberingOracle):
    """The real compiler, then the real runtime: each function of the candidate is run once."""

    def __init__(
        self,
        context: Context,
        flags: tuple[str, ...],
        wanted: Failure,
        running: Running,
        *,
        width: int = 1,
    ) -> None:
        super().__init__(context, flags, wanted, width=width)
        self._running = running

    def _failure(self, candidate: Path, digest: str) -> Failure | None:
        with self._place(digest) as place:
            loaded = self._running.loaded
            if candidate != loaded.mlir:
                loaded = describe(candidate, self._running, self.context.at(place))
            module = place / MODULE
            failure = self._module(candidate, digest, module)
            if failure is not None:
                return failure
            found: dict[str, Failure] = {}
            for function in loaded.program.functions:
                failure = self._ran(loaded.call(function), module, place / "run")
                if failure is not None:
                    found.setdefault(failure.signature, failure)
        if not found:
            return None
        first, *others = found.values()
        return msgspec.structs.replace(first, also=(*first.also, *others))

    def _ran(self, call: Call, module: Path, work: Path) -> Failure | None:
        """Failure of a call, if it fails. Raises NotAProgram if it cannot be judged."""
        ran = Iree(module, self._running.device, self.context).run(call, work)
        if isinstance(ran, Unsupported):
            raise NotAProgram(str(ran))
        if isinstance(ran, Values):
            return None
        try:
            refitting.check(call, ran, self.context)
        except refitting.Misfit as misfit:
            raise NotAProgram(misfit.message) from misfit
        return ran
