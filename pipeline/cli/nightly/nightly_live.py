"""Live display of a night: a table on a terminal, a line per case in a pipe."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from iree_pilot.pipeline.cli.display import took
from iree_pilot.pipeline.cli.display.heartbeat import Heartbeat
from iree_pilot.pipeline.cli.display.live import Doing, clock_of
from iree_pilot.pipeline.cli.display.output import seconds, table
from iree_pilot.pipeline.cli.display.screen import Screen
from iree_pilot.pipeline.nightly.workers.orders import TRACE
from iree_pilot.pipeline.plural import count

if TYPE_CHECKING:
    from iree_pilot.pipeline.cli.options import Common
    from iree_pilot.pipeline.nightly.history.history import NightRun
    from iree_pilot.pipeline.nightly.records import Case, CaseOutcome, Finding, Question
    from iree_pilot.repro.bisect import Bisection

_STYLES = {
    "ok": "green",
    "ran": "yellow",
    "compiled": "yellow",
    "failed": "red",
    "not-run": "yellow",
}
_ASKING: dict[Question, str] = {
    "releases": "searching the releases",
    "workaround": "searching for a workaround",
}
_RUNNING_SHOWN = 16
#: Characters of a failure's message on a terminal; the verdicts show all of it.
_MESSAGE_SHOWN = 120


class NightLive:
    """Shows the progress of a night on `console`, as `Live` does for a command.

    verbose: shows reused cases too.
    """

    def __init__(self, console: Screen, common: Common) -> None:
        self.console = console
        self._quiet, self._verbose = common.verbosity < 0, common.verbosity > 0
        self._brief = self._quiet or common.json
        self._running: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._started = time.monotonic()
        self._seen: set[str] = set()
        self._done = self._total = self._reused = 0
        self.took = took.of_command()
        self._looking = Doing(self.took)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("cases", total=None, left="")
        self._live: Live | None = None
        self._heartbeat = Heartbeat(console, self._line)

    def __enter__(self) -> NightLive:
        if self.console.is_terminal and not self._quiet:
            self._live = Live(
                console=self.console,
                get_renderable=self._shown,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=not self.console.stderr,
            )
            self._live.__enter__()
        elif not self._quiet:
            self._heartbeat.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._heartbeat.stop()
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None

    def night_started(self, run: NightRun, cases: Sequence[Case], done: int) -> None:
        self.took.enter("cases")
        self._total, self._done = len(cases) + done, done
        goes_on = f", resumed from {run.begun[:16]}: {done} are done" if done else ""
        self._say(f"[bold]{escape(run.title)}[/bold]  {count(self._total, 'case')}{goes_on}")

    def started(self, name: str, worker: str) -> None:
        self._running[name] = time.monotonic()
        if name.startswith(TRACE) and not self.console.is_terminal:
            self._say(f"tracing {escape(name.removeprefix(TRACE))}")

    def traced(self, name: str, outcome: CaseOutcome) -> None:
        self._running.pop(name, None)
        if self._verbose:
            self._say(f"{'':>{self._width}} {escape(name)}  {seconds(outcome.seconds)}")

    def ended(self, outcome: CaseOutcome) -> None:
        self._running.pop(outcome.case, None)
        first = len(outcome.attempts) < 2 or outcome.case not in self._seen
        self._seen.add(outcome.case)
        if first:
            self._counts[outcome.status] += 1
            self._reused += outcome.reused
            self._done += 1
        if outcome.reused and not self._verbose:
            return
        taken = "unchanged" if outcome.reused else seconds(outcome.seconds)
        times = len(outcome.attempts)
        again = f" [dim](run {times} times)[/dim]" if times > 1 else ""
        why = f"  [dim]{escape(self._why(outcome))}[/dim]" if self._why(outcome) else ""
        style = _STYLES[outcome.status]
        place = f"{self._done:>{self._width}}/{self._total}"
        if not first:  # it was counted before
            place = " " * len(place)
        self._say(
            f"{place} [{style}]{outcome.status:<7}[/] {escape(outcome.case)}  {taken}{again}{why}"
        )

    def again(self, cases: Sequence[Case]) -> None:
        self._seen.update(case.name for case in cases)  # also by a night that this one resumes
        self._say(
            f"{count(len(cases), 'case')} run again, to see whether the failure is intermittent"
        )

    def note(self, text: str) -> None:
        self._say(escape(text))

    def isolating(self, case: Case, signature: str) -> None:
        self._say(f"isolating {escape(case.name)}\n  {escape(signature)}", whole=True)
        self._look(f"isolating what fails in {case.name}", "isolate")

    def isolated(self, case: Case, found: Bisection) -> None:
        for one in found.failures:
            if one.reproducer:
                made = one.reproducer
                self._say(f"  {count(made.ops, 'operation')}: {escape(made.path)}", whole=True)
        self._look("", took.OTHER)
        if found.status != "isolated":
            self._say(f"  not isolated: {escape(found.why)}")

    def asking(self, case: Case, signature: str, question: Question) -> None:
        self._say(f"{question} of {escape(case.name)}\n  {escape(signature)}", whole=True)
        self._look(f"{_ASKING.get(question, question)} of what fails in {case.name}", "findings")

    def answered(self, case: Case, finding: Finding) -> None:
        self._say(f"  {escape(finding.said)}", whole=True)
        self._look("", took.OTHER)

    def _look(self, what: str, part: str) -> None:
        self._looking.begin(what)
        self.took.enter(part)

    def summary(self) -> None:
        """Prints the times of the parts at the end."""
        self._say(str(self.took))

    @property
    def _width(self) -> int:
        return len(str(self._total))

    def _why(self, outcome: CaseOutcome) -> str:
        """Reason that it did not pass: whole in a pipe, cut to its line on a terminal."""
        failure = outcome.failure
        if failure is None:
            return outcome.why or (outcome.result.why if outcome.result else "")
        message = " ".join(failure.message.split())
        if self.console.is_terminal and len(message) > _MESSAGE_SHOWN:
            message = f"{message[:_MESSAGE_SHOWN]}..."
        return f"{failure.kind}: {message}"

    def _say(self, text: str, *, whole: bool = False) -> None:
        """Prints a line; whole: the terminal breaks it, so that a path or a command is one word."""
        if not self._brief:
            self.console.print(text, soft_wrap=True, no_wrap=whole)

    def _line(self) -> str:
        """Line for a pipe if nothing ends for a while."""
        if self._looking.what:
            return self._looking.line
        now = time.monotonic()
        running = [f"{name} ({clock_of(now - at)})" for name, at in list(self._running.items())]
        if not running:
            return f"  {self._done} of {count(self._total, 'case')} done, none is running"
        return f"  running {', '.join(running[:_RUNNING_SHOWN])}"  # no line said that it began

    def _shown(self) -> Group:
        now = time.monotonic()
        if self._looking.what:
            return Group(self._looking)
        running: Table = table("running", "for", right=("for",))
        for name, since in list(self._running.items())[:_RUNNING_SHOWN]:
            running.add_row(escape(name), clock_of(now - since))
        counts = "  ".join(f"{count} {status}" for status, count in self._counts.items())
        self._bar.update(
            self._task, total=self._total or None, completed=self._done, left=self._left(now)
        )
        bar = [self._bar] if self._total else []
        return Group(running, *bar, f"{counts}  {self._reused} unchanged")

    def _left(self, now: float) -> str:
        """Remaining time, by the share that is done."""
        ran = self._done - self._reused
        if ran < 3 or self._done >= self._total:
            return ""
        each = (now - self._started) / ran
        return f"about {seconds(each * (self._total - self._done))} left"
