"""Search for executables that are slow to compile: each is compiled alone.

While a compile generates code it does not say what it is at, and one executable may keep it busy
for hours. Compiled alone, most are done in an instant: what is left is what it waits for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread

import msgspec

from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.phases import dump_files

#: Compiles one dumped executable.
MODE = "--compile-mode=hal-executable"
#: Processor time after which an executable counts as one that does not end, unless others of the
#: program take nearly as long.
UNENDING_SECONDS = 10.0
#: Factor over the slowest other executable at which one counts as not ending.
_TIMES = 10.0
#: Processor time for each at first: most take less, and what does not is looked at again.
_QUICK_SECONDS = 3.0
#: Wall time of code generation after which a compile is looked into.
WAIT_SECONDS = 30.0
#: Shorter wait for a caller that does not want to wait for an endless compile.
HASTY_SECONDS = 5.0
#: Wall time of code generation after which a compile is given up for an executable's sake.
_HOPELESS_SECONDS = 45.0
#: Limit for dumping the executables, which repeats the earlier phases.
_DUMP_SECONDS = 600.0
_DUMPED_AFTER, _READY = "stream", "executable-configurations"
#: Phases that generate code, each executable for itself.
GENERATING = ("executable-targets", "hal")
_WATCHED_AFTER = (_READY, "executable-targets")
_LOOK_SECONDS = 0.5
_NICE = ("nice", "-n", "19")
_EXPORT = re.compile(r"hal\.executable\.export \w+ @\"?([^\s\"]+)")


class Compiling(msgspec.Struct, frozen=True, kw_only=True):
    """Interim result of compiling a program's executables one by one.

    total: how many there are. ended: how many came to their end alone, in at most `slowest_seconds`
    of processor time. unending: the first that had not ended after `limit_seconds`; slow: others
    that were still compiling after a few seconds.
    """

    total: int
    ended: int = 0
    slowest_seconds: float = 0.0
    slow: tuple[str, ...] = ()
    unending: str = ""
    limit_seconds: float = 0.0

    def __str__(self) -> str:
        """The executables still compiling, for a reader."""
        if not self.unending:
            return f"{self.ended} of {count(self.total, 'executable')} compiled alone"
        text = self.waits_for
        if self.total > 1:
            others = count(self.total - 1, "other")
            text += f"; {self.ended} of {others} took at most {self.slowest_seconds:.1f} s"
        if self.slow:
            text += f", {len(self.slow)} more than {_QUICK_SECONDS:.0f} s"
        return text

    @property
    def waits_for(self) -> str:
        """The executables that the compile waits for; empty if none is known."""
        if not self.unending:
            return ""
        return (
            f"executable {self.unending} was still compiling after {self.limit_seconds:.0f} s of "
            "processor time, alone"
        )


def dump(mlir: Path, resume: str | None, context: Context, flags: Sequence[str]) -> list[Path]:
    """The sources of a program's executables, each in a file of its own in `directory`.

    Their debug locations are lines of `mlir`: the program, or with `resume` its IR after that
    phase. Empty where that does not compile so far.
    """
    context.directory.mkdir(parents=True, exist_ok=True)
    context.run(
        [
            context.toolchain.compiler,
            mlir,
            *flags,
            *([f"--compile-from={resume}"] if resume else []),
            "--mlir-print-debuginfo",
            f"--iree-hal-dump-executable-sources-to={context.directory}",
            f"--compile-to={_READY}",
            "-o",
            "/dev/null",
        ],
        limits=msgspec.structs.replace(context.limits, seconds=_DUMP_SECONDS, of_processor=False),
    )
    return sorted(context.directory.glob("*.mlir"))


def name(source: Path) -> str:
    """Name of the function in a dumped executable."""
    found = _EXPORT.search(source.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else source.stem


class ExecutableSurvey:
    """Compiles executables alone, one by one; files go to `directory`.

    Each is given `limit_seconds` of processor time, or ten times what the slowest of the others
    takes where that is more; once one has not ended, the rest only so much that it is seen whether
    they are alike. nice: other processes go first.
    """

    def __init__(
        self,
        context: Context,
        flags: Sequence[str],
        *,
        limit_seconds: float | None = None,
        nice: bool = False,
    ) -> None:
        self._context = context
        self._flags = flags
        self._limit_seconds = UNENDING_SECONDS if limit_seconds is None else limit_seconds
        self._command = (*(_NICE if nice else ()), str(context.toolchain.compiler))
        self.calls = 0
        self.found: Path | None = None
        self.state: Compiling | None = None

    def dumped(self, stream: Path) -> list[Path]:
        """The executables of a program, of which `stream` is the IR after that phase."""
        place = self._context.directory / "executables"
        return dump(stream, _DUMPED_AFTER, self._context.at(place), self._flags)

    def run(self, sources: Sequence[Path]) -> Path | None:
        """The source of the first executable that does not end; `state` says how far it is."""
        self.state = Compiling(total=len(sources))
        for source in sources:
            self._try(source)
        while self.found and self.state.limit_seconds < self._limit:
            again, self.found = self.found, None
            self._know(unending="")
            self._try(again)
        return self.found

    @property
    def _limit(self) -> float:
        """Time limit for an executable of this program, derived from the slowest one so far."""
        slowest = self.state.slowest_seconds if self.state else 0.0
        return max(self._limit_seconds, _TIMES * slowest)

    def _try(self, source: Path) -> None:
        limit = _QUICK_SECONDS if self.found else self._limit
        if not self._ends(source, limit) and not self.found:
            self.found = source
            self._know(unending=name(source), limit_seconds=limit)

    def _ends(self, source: Path, seconds: float) -> bool:
        self.calls += 1
        outcome = process.run(
            [*self._command, source, MODE, *self._flags, "-o", "/dev/null"],
            stdout=self._context.directory / "alone.stdout.txt",
            stderr=self._context.directory / "alone.stderr.txt",
            limits=msgspec.structs.replace(
                self._context.limits, seconds=seconds, of_processor=True
            ),
        )
        state = self.state
        assert state is not None
        if outcome.ended_by == "time-limit":
            if self.found:
                self._know(slow=(*state.slow, name(source)))
            return False
        self._know(
            ended=state.ended + 1,
            slowest_seconds=max(state.slowest_seconds, outcome.processor_seconds),
        )
        return True

    def _know(self, **changes: object) -> None:
        assert self.state is not None
        self.state = msgspec.structs.replace(self.state, **changes)


class Watch:
    """Inspects a running compile once it has generated code for `wait_seconds`.

    dumps: where its phases appear. on_compiling hears of each change, in the thread that calls
    `look`; the survey is made in one of its own, which `close` ends.
    """

    def __init__(
        self,
        survey: ExecutableSurvey,
        dumps: Path,
        on_compiling: Callable[[Compiling], None],
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._survey = survey
        self._dumps = dumps
        self._on_compiling = on_compiling
        self._wait_seconds = wait_seconds
        self._stop = Event()
        self._thread: Thread | None = None
        self._looked = 0.0
        self._since = 0.0
        self._reported = ("", 0)

    @property
    def state(self) -> Compiling | None:
        return self._survey.state

    @property
    def hopeless(self) -> bool:
        """True if an executable does not end, and the compile has been at it for long enough.

        It may be about to fail with something else: what is slow must not hide that.
        """
        return self._reported[0] != "" and time.time() - self._since > _HOPELESS_SECONDS

    def look(self) -> None:
        """Starts the survey when it is time to; tells what it has found since."""
        if self._thread is None and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._begin()
        state = self.state
        if state is not None and (state.unending, len(state.slow)) != self._reported:
            self._reported = (state.unending, len(state.slow))
            self._on_compiling(state)

    def close(self) -> None:
        """Ends the survey."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _begin(self) -> None:
        files = dump_files(self._dumps)
        if not files or files[-1][0] not in _WATCHED_AFTER:
            return
        at = dict(files)
        ready = at.get(_READY)
        if ready is None or _DUMPED_AFTER not in at:
            return
        self._since = ready.stat().st_mtime
        if time.time() - self._since > self._wait_seconds:
            context = copy_context()
            self._thread = Thread(target=context.run, args=(self._look_into, at[_DUMPED_AFTER]))
            self._thread.start()

    def _look_into(self, stream: Path) -> None:
        process.STOP.set(self._stop)
        try:
            self._survey.run(self._survey.dumped(stream))
        except (KeyboardInterrupt, OSError, PilotError):
            return  # the compile is over, or the disk is full: nothing is known, nothing is lost
