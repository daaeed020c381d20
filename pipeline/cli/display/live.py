"""Live display of a command: each step and phase as it passes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live as Bottom
from rich.markup import escape
from rich.spinner import Spinner
from rich.text import Text

from iree_pilot.pipeline.case_result import Step, Work
from iree_pilot.pipeline.cli.display import took
from iree_pilot.pipeline.cli.display.heartbeat import Heartbeat
from iree_pilot.pipeline.cli.display.output import seconds, size
from iree_pilot.pipeline.cli.display.screen import Screen
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.inspect.executables import Compiling
from iree_pilot.pipeline.program.program import Function, Program, scopes_text
from iree_pilot.pipeline.toolchain.phases import Phase

if TYPE_CHECKING:
    from iree_pilot.pipeline.cli.options import Common
    from iree_pilot.repro.reducer.shrink import Progress

_DIALECTS_SHOWN = 4
#: Columns of a phase's line before its dialects.
_PHASE_WIDTH = 60
#: What is being done, and the part that its time is counted under; a step's is moved to its own
#: when it has ended.
_DOING: dict[Work, tuple[str, str]] = {
    "compile": ("compiling", took.OTHER),
    "confirm": ("confirming the phase that fails", "confirm"),
    "run": ("running", took.OTHER),
    "benchmark": ("measuring the latency", "benchmark"),
    "compare": ("comparing", took.OTHER),
    "generate": ("generating tokens", took.OTHER),
}
#: What begins with a line of its own in a pipe.
_ANNOUNCED: tuple[Work, ...] = ("run", "generate")


#: Seconds before the present step from which on the time in all is shown, too.
_MORE = 2.0


class Doing:
    """The line at the bottom of a terminal: what is going on, since when, and since the start."""

    def __init__(self, since_start: took.Took) -> None:
        self._took = since_start
        self._spinner = Spinner("dots")
        self._started = time.monotonic()
        self.what = ""

    def begin(self, what: str) -> None:
        self.what, self._started = what, time.monotonic()

    @property
    def line(self) -> str:
        """Line for a pipe: `  vulkan: still compiling (12 s, 40 s in all)`; of what has just
        started `(40 s in all)`."""
        target, colon, what = self.what.partition(": ")
        if not colon or " " in target:
            target, colon, what = "", "", self.what
        clock = self._clock
        if time.monotonic() - self._started < 1:
            clock = f"{clock_of(self._took.seconds)} in all"
        return f"  {target}{colon}still {what} ({clock})"

    @property
    def _clock(self) -> str:
        spent, whole = time.monotonic() - self._started, self._took.seconds
        # The difference stays while one thing is done: it does not come and go with a rounding.
        more = f", {clock_of(int(whole))} in all" if whole - spent > _MORE else ""
        return clock_of(int(spent)) + more

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        clock = f"  {self._clock}"
        what = shortened(self.what, max(10, options.max_width - cell_len(clock) - 3))
        frame = self._spinner.render(console.get_time())
        yield Text.assemble(frame if isinstance(frame, Text) else "", " ", what, (clock, "dim"))


def shortened(text: str, width: int) -> str:
    """Text of at most so many columns, without its middle: what changes stands at the end."""
    if cell_len(text) <= width:
        return text
    start = width // 3
    end = width - start - 1
    head, tail = set_cell_size(text, start), set_cell_size(text[::-1], end)[::-1]
    return f"{head.rstrip()}\u2026{tail.lstrip()}"


def clock_of(spent: float) -> str:
    """Whole seconds, for what is shown while they pass."""
    return seconds(int(spent)) if spent >= 1 else "0 s"


class Live:
    """Prints to `console`; `quiet` prints nothing but what is asked for directly.

    `brief` says no more than what is going on: beside a document on stdout.

    On a terminal the line at the bottom says what is going on and for how long, from the start to
    `close`; in a pipe a line is printed when a step begins, and every few seconds while it goes on.
    `took` has the time of each part.
    """

    def __init__(self, console: Screen, *, quiet: bool, verbose: bool, brief: bool = False) -> None:
        self.console = console
        self.took = took.of_command()
        self._quiet = quiet
        self._brief = quiet or brief
        self._verbose = verbose
        self._doing = Doing(self.took)
        self._bottom: Bottom | None = None
        self._heartbeat = Heartbeat(console, lambda: self._doing.line)
        self._step: Work | None = None
        self._unending = ""
        self._program: Program | None = None

    @classmethod
    def of(cls, console: Screen, common: Common) -> Live:
        """Makes that of a command with these options."""
        quiet, verbose = common.verbosity < 0, common.verbosity > 0
        return cls(console, quiet=quiet, verbose=verbose, brief=common.json)

    def __enter__(self) -> Live:
        self.doing("checking the compiler and the devices")
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def doing(self, what: str, part: str = "") -> None:
        """Shows `what` at the bottom of the terminal until something else is being done; in a pipe,
        where that takes long.

        part: the name that its time is counted under.
        """
        if part:
            self.took.enter(part)
        if self._quiet:
            return
        self._doing.begin(what)
        if not self.console.is_interactive:
            self._heartbeat.start()
        elif self._bottom is None:
            self._bottom = Bottom(
                self._doing,
                console=self.console,
                transient=True,
                refresh_per_second=8,
                redirect_stdout=not self.console.stderr,
            )
            self._bottom.start()

    @contextlib.contextmanager
    def working(self, what: str, part: str = "") -> Iterator[None]:
        """Shows `what` until the block ends; in a pipe a line."""
        if not self.console.is_interactive:
            self.note(what)
        self.doing(what, part)
        yield
        self.close()

    @contextlib.contextmanager
    def between(self, what: str, part: str) -> Iterator[None]:
        """Same as `working`; then what was being done before goes on."""
        before, doing = self.took.enter(part), self._doing.what
        try:
            with self.working(what):
                yield
        finally:
            self.doing(doing, before)

    def note(self, text: str) -> None:
        """A line of its own."""
        if not self._brief:
            self.console.print(escape(text), soft_wrap=True)

    def isolating(self, failure: Failure) -> None:
        """The failure whose smallest program is looked for from now on."""
        self.note(f"\nisolating {failure.signature}")
        self.doing("isolating", "isolate")

    def progress(self, progress: Progress) -> None:
        """Shows the current step of a search; verbose, on a line of its own."""
        if self._verbose:
            self.note(f"  {progress}")
        self.doing(str(progress))

    def program(self, loaded: Loaded) -> None:
        """The program that all targets share; nothing where it was the last one shown."""
        program = loaded.program
        if program == self._program:
            return
        self._program = program
        makers = ", ".join(f"{name} {version}" for name, version in program.origin.items())
        verb = "read" if "file" in program.origin else "traced"
        made = f"{verb} in {seconds(loaded.seconds)} ({makers})"
        if loaded.cached:
            made = f"{verb} before; taken from the cache"
        self._print(f"[bold]{escape(program.source)}[/bold]  {escape(made)}")
        for function in program.functions:
            self._print(f"  {escape(_signature(function))}")
        if program.parameters is not None:
            held = program.parameters.archives
            where = f"in {_some(held)}" if held else "named only: there are no weights"
            if held and program.parameters.missing:
                where += f"; none for scope {scopes_text(program.parameters.missing)}"
            count = len(program.parameters.tensors)
            parts = f"{count} parameter{'' if count == 1 else 's'}" if count else "parameters"
            self._print(f"  {parts}, {escape(where)}")
        for note in program.notes:
            self._print(f"  note: {escape(note)}")

    def planned(
        self, target: str, arch: str | None, warnings: tuple[str, ...], notes: tuple[str, ...]
    ) -> None:
        resolved = f"  for {arch}" if arch and not target.endswith(f":{arch}") else ""
        self._print(f"\n[bold]{escape(target)}[/bold]{escape(resolved)}")
        for warning in warnings:
            self._print(f"  [yellow]warning:[/yellow] {escape(warning)}")
        for note in notes:
            self._print(f"  note: {escape(note)}")

    def began(self, target: str, work: Work) -> None:
        what, part = _DOING[work]
        if work in _ANNOUNCED and work != self._step and not self.console.is_interactive:
            self.note(f"  {what}")
        self.doing(f"{target}: {what}", part)
        if work in ("compile", *_ANNOUNCED):
            self._step, self._unending = work, ""

    def phase(self, target: str, phase: Phase) -> None:
        line = f"  {phase.name:<26}{seconds(phase.seconds):>8}  {size(phase.bytes):>8} "
        if phase.ops:
            line += f"{phase.op_count:>7} ops  [dim]{self._dialects(phase)}[/dim]"
        else:
            line += "        module"
        self._print(line)
        self.doing(f"{target}: compiling, {phase.name} is done")

    def _dialects(self, phase: Phase) -> str:
        """The operations by dialect: on a terminal as many as a line has room for (-v has all)."""
        parts = [f"{name}:{count}" for name, count in phase.ops.items()]
        if self._verbose or not self.console.is_terminal:
            return " ".join(parts)
        shown = parts[:_DIALECTS_SHOWN]
        while shown and len(" ".join([*shown, "..."])) > self.console.width - _PHASE_WIDTH:
            shown.pop()
        return " ".join([*shown, *["..."] * (len(shown) < len(parts))])

    def compiling(self, target: str, state: Compiling) -> None:
        """Shows the executable that a compile waits for; at the bottom how the others do."""
        if state.unending != self._unending:
            self._unending = state.unending
            self.note(f"  {target}: {state.waits_for}")
        alone = f"{state.ended} of {state.total - 1} other executables compile alone"
        self.doing(f"{target}: compiling, {alone}")

    def ended(self, target: str, step: Step) -> None:
        self.took.count(step.name, 0.0 if step.cached else step.seconds)
        self.doing(f"{target}: finishing")
        if step.status in ("ran", "compiled"):
            done = "compared" if step.status == "ran" else "run"
            self._print(f"  {step.name:<10} not {done}: {escape(step.why)}")
            return
        mark = "[green]ok[/green]" if step.status == "ok" else "[red]failed[/red]"
        took = "from the cache" if step.cached else seconds(step.seconds)
        self._print(f"  {step.name:<10} {mark} {took}")

    def waiting(self, target: str) -> None:
        self.note(f"{target}: another process is compiling the same; waiting")

    def summary(self) -> None:
        """Prints the times of the parts at the end."""
        self.close()
        if not self._brief:
            self.console.print(str(self.took), soft_wrap=True)

    def close(self) -> None:
        """Takes the line at the bottom away, and ends the lines that a pipe gets."""
        self._heartbeat.stop()
        if self._bottom is not None:
            self._bottom.stop()
            self._bottom = None

    def _print(self, text: str) -> None:
        if not self._brief:
            self.console.print(text, soft_wrap=True)


def _some(archives: tuple[str, ...]) -> str:
    more = len(archives) - 1
    return f"{archives[0]}{f' and {more} more file' if more else ''}{'s' if more > 1 else ''}"


def _signature(function: Function) -> str:
    inputs = ", ".join(f"{t.name}: {t}" for t in function.inputs)
    outputs = ", ".join(f"{t.label}: {t}" for t in function.outputs)
    return f"{function.name}({inputs}) -> ({outputs})"
