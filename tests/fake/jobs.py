"""Jobs for schedulers that take no compiler, and a watcher that remembers what it heard."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fake.processes import wait_until
from iree_pilot.pipeline.case_result import CaseResult, Step
from iree_pilot.pipeline.nightly.history.history import Usual
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome
from iree_pilot.pipeline.nightly.workers.orders import NightJob, Order, jobs
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Outcome as Ended

HANG = "import os, signal; open('pid', 'w').write(str(os.getpid())); signal.pause()"


def case(source: str, target: str = "llvm-cpu", **more: object) -> Case:
    return Case(source=source, target=target, **more)  # type: ignore[arg-type]


def jobs_of(
    cases: Sequence[Case],
    directory: Path,
    *,
    usual: dict[str, Usual] | None = None,
    traced: bool = True,
) -> tuple[NightJob, ...]:
    """The jobs for cases; traced: none of them waits for a trace."""
    orders = [Order(what="case", case=c, directory=str(directory)) for c in cases]
    return jobs(orders, usual or {}, [c.program for c in cases] if traced else [])


def outcome(order: Order, *, status: str = "ok", why: str = "") -> CaseOutcome:
    result = CaseResult(
        target=order.case.target,
        release="1.0",
        device=None,
        arch=None,
        status=status,  # type: ignore[arg-type]
        why=why,
        steps=(Step(name="trace", status=status, seconds=7.0),),  # type: ignore[arg-type]
    )
    return CaseOutcome(case=order.case.name, result=result)


def mark(order: Order) -> None:
    """Leaves a line with the process, for each time that an order is begun."""
    with Path(order.directory, "begun").open("a") as marks:
        marks.write(f"{os.getpid()} {order.name}\n")


def marks(directory: Path) -> list[tuple[int, str]]:
    """(process, order) of everything that was begun, in order."""
    file = directory / "begun"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]


def light(order: Order) -> CaseOutcome:
    """Does nothing, at once. A trace of `bad...` fails; a case of `once...` waits
    for ever the first time."""
    earlier = [name for _, name in marks(Path(order.directory))]
    mark(order)
    if order.name.startswith("once") and order.name not in earlier:
        wait_until(lambda: False, seconds=60.0)  # until this process is killed
    if order.what == "trace" and order.case.source.startswith("bad"):
        return outcome(order, status="failed", why="does not trace")
    return outcome(order)


def posted(order: Order) -> CaseOutcome:
    """A trace sends a text with its program; a case tells the text that it got."""
    parcel = Path(order.parcel)
    if order.what == "trace":
        parcel.write_text(f"the program of {order.case.source}")
        return outcome(order)
    return outcome(order, why=parcel.read_text() if parcel.exists() else "nothing")


def hanging(order: Order) -> CaseOutcome:
    """Waits for a child that waits for ever, whose number is in the file `pid`."""
    mark(order)
    place = Path(order.directory)
    ended: Ended = process.run(
        [sys.executable, "-I", "-S", "-c", HANG],
        stdout=place / "out",
        stderr=place / "err",
        cwd=place,
    )
    return outcome(order, why=str(ended.signal))


class Heard:
    """A watcher. on_done: what it does when a case is done."""

    def __init__(self, on_done: Callable[[CaseOutcome], None] = lambda outcome: None) -> None:
        self.began_at: list[tuple[str, str]] = []
        self.traces: list[CaseOutcome] = []
        self.outcomes: list[CaseOutcome] = []
        self.texts: list[str] = []
        self._on_done = on_done

    def began(self, order: Order, worker: str) -> None:
        self.began_at.append((order.name, worker))

    def traced(self, order: Order, outcome: CaseOutcome) -> None:
        self.traces.append(outcome)

    def done(self, outcome: CaseOutcome) -> None:
        self.outcomes.append(outcome)
        self._on_done(outcome)

    def note(self, text: str) -> None:
        self.texts.append(text)

    @property
    def names(self) -> list[str]:
        return [outcome.case for outcome in self.outcomes]
