"""One failure at the four levels that people work on: PyTorch, input MLIR, dispatch, pass.

Each level's file is made here; whether it shows the failure is for `repro.reproducer.verify` to
say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.inspect.executables import MODE
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.processes.fork_servers import TORCH
from iree_pilot.pipeline.processes.workers import side_by_side
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.torch_dialect import writer
from iree_pilot.repro.failing_pass import find_pass
from iree_pilot.repro.failing_pass.find_pass import NoPass
from iree_pilot.repro.oracles.oracle import STOPPED
from iree_pilot.repro.reproducer import dispatch
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Level, LevelName

_DEBUG = re.compile(r"\s+loc\((?:unknown|\"[^\"]*\":\d+:\d+)\)")

_OF_TORCH = re.compile(r"\btorch\.(?:aten|prims|operator)\b")
_COMPILES = "compilation succeeds, the failure is at run time"
_WRONG = "compilation succeeds, the wrong results are those of the whole module"
_WHOLE = "the program was not reduced"
#: The writer of PyTorch loads torch and compiles nothing: a compile's limit is not for it.
_WRITER_SECONDS = 600.0


def has_torch(program: Path) -> bool:
    """True if a program has operations of PyTorch."""
    return _OF_TORCH.search(program.read_text(encoding="utf-8", errors="replace")) is not None


class MadeLevels(msgspec.Struct, frozen=True, kw_only=True):
    """The levels, those left out among them, and their files' places by name."""

    levels: tuple[Level, ...]
    files: dict[str, str]

    def plus(self, part: tuple[Level, Path | None], most: int) -> MadeLevels:
        """With one more, and its file if it has one of `most` bytes."""
        level, file = part
        size = file.stat().st_size if file is not None else 0
        if size > most:  # IR that grows without end, say
            why = f"it is too large: {size:,} bytes, over the limit of {most:,}"
            level, file = msgspec.structs.replace(level, why=why, changed=""), None
        more = {level.file: str(file)} if file is not None else {}
        return MadeLevels(levels=(*self.levels, level), files=self.files | more)


class Maker:
    """Makes the levels of a failing program in `directory`.

    run: the command that fails, if it is not the compile; check: what judges its outputs, where
    that is another one.
    """

    def __init__(
        self,
        program: Path,
        failure: Failure,
        context: Context,
        flags: tuple[str, ...],
        run: tuple[str, ...] = (),
        check: tuple[str, ...] = (),
    ) -> None:
        self._run_command = run
        self._check_command = check
        self._program = program
        self._failure = failure
        self._context = context
        self._flags = flags
        context.directory.mkdir(parents=True, exist_ok=True)

    def make(
        self,
        whole: bool = False,
        steady: bool = True,
        ready: Callable[[MadeLevels], object] = lambda made: None,
        on_level: Callable[[int, int], None] = lambda done, total: None,
    ) -> MadeLevels:
        """whole: it is all of a program, whose PyTorch is the user's own model. steady: it fails in
        all runs. ready: gets the levels MLIR and PyTorch, in a thread, while the others are made.
        on_level: hears there how many levels of how many are made.
        """
        made = MadeLevels(levels=(self._level("mlir"),), files={"repro.mlir": str(self._program)})
        most = bundle.LARGEST_WHOLE_BYTES if whole else bundle.LARGEST_BYTES

        def pytorch() -> tuple[Level, Path | None]:
            part = self._level_without_file(_WHOLE) if whole else self._pytorch()
            ready(made.plus(part, most))
            return part

        makers: list[Callable[[], tuple[Level, Path | None]]] = [pytorch]
        if steady and not (whole and self._failure.kind in STOPPED):
            # Each executable, each pass would be waited for until it met the limit.
            makers += [self._dispatch, self._pass]
        # One more than there are processors: what writes PyTorch mostly waits for it to load.
        width = 1 if self._failure.kind == "out-of-memory" else len(os.sched_getaffinity(0)) + 1
        left = [*makers]

        def level(make: Callable[[], tuple[Level, Path | None]]) -> tuple[Level, Path | None]:
            part = make()
            left.remove(make)
            on_level(1 + len(makers) - len(left), 1 + len(makers))
            return part

        for part in side_by_side(level, makers, width):
            made = made.plus(part, most)
        return made

    def _pytorch(self) -> tuple[Level, Path | None]:
        if not has_torch(self._program):
            return self._level("pytorch", "the program has no torch operations"), None
        made = self._context.directory / "repro.py"
        writing = writer.Writing(str(self._program.absolute()), self._flags, str(made.absolute()))
        function, limits = f"{writer.__name__}:written", process.Limits(seconds=_WRITER_SECONDS)
        place = self._context.directory / "writer"
        done = task.call(function, writing, type(None), place, limits=limits, loaded=TORCH)
        return self._level("pytorch", done.why), None if done.why else made

    def _level_without_file(self, why: str) -> tuple[Level, Path | None]:
        return self._level("pytorch", why), None

    def _level(self, name: LevelName, why: str = "") -> Level:
        run, check = self._run_command, self._check_command
        return bundle.level(name, self._flags, run=run, check=check, why=why)

    @property
    def _why_run(self) -> str:
        return _WRONG if self._failure.kind == "mismatch" else _COMPILES

    def _dispatch(self) -> tuple[Level, Path | None]:
        if self._run_command:
            return bundle.level("dispatch", self._flags, why=self._why_run), None
        order = self._context.toolchain.phases
        source = "executable-sources"
        phase = self._failure.phase
        if source not in order or phase not in order[order.index(source) + 1 :]:
            why = f"it fails in phase {phase}, before dispatches are formed"
            return bundle.level("dispatch", self._flags, why=why), None
        dumps = self._context.directory / "executables"
        dumps.mkdir(exist_ok=True)
        self._run(
            [
                self._context.toolchain.compiler,
                self._program,
                *self._flags,
                f"--iree-hal-dump-executable-sources-to={dumps}",
                f"--compile-to={source}",
                "-o",
                "/dev/null",
            ],
            "dump",
        )
        for dump in sorted(dumps.glob("*.mlir")):
            made = self._context.directory / "dispatch.mlir"
            made.write_text(_DEBUG.sub("", dump.read_text(encoding="utf-8", errors="replace")))
            outcome, said = self._run(
                [self._context.toolchain.compiler, made, MODE, *self._flags, "-o", "/dev/null"],
                "dispatch",
            )
            if not outcome.ok and self._same(outcome, said):
                return self._reduced(made)
        why = "none of the program's executables fails in the same way when compiled alone"
        return bundle.level("dispatch", self._flags, why=why), None

    def _reduced(self, made: Path) -> tuple[Level, Path]:
        found = dispatch.reduced(made, self._failure, self._context.within("dispatch"), self._flags)
        level = bundle.level("dispatch", self._flags, ops=found.ops, calls=found.calls)
        return level, Path(found.path)

    def _pass(self) -> tuple[Level, Path | None]:
        if self._run_command:
            return bundle.level("pass", why=self._why_run), None
        found = find_pass.find(
            self._program, self._failure, self._context.within("pass"), self._flags
        )
        if isinstance(found, NoPass):
            return bundle.level("pass", pass_name=found.named, why=found.why), None
        level = bundle.level(
            "pass",
            found.flags,
            pipeline=found.pipeline,
            pass_name=found.name,
            pass_class=found.pass_class,
            changed=found.changed,
            calls=found.runs,
        )
        return level, Path(found.file)

    def _same(self, outcome: process.Outcome, said: str) -> bool:
        found = diagnostics.compile_failure(outcome, said, self._failure.phase)
        return found.shows(self._failure.signature)

    def _run(
        self, argv: list[str | Path], name: str, limits: process.Limits | None = None
    ) -> tuple[process.Outcome, str]:
        return self._context.run(argv, name, limits)
