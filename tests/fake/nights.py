"""Cases, results and whole nights as a nightly would find them, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from iree_pilot.pipeline.case_result import CaseResult, Step
from iree_pilot.pipeline.failures.diagnostics import Failure, Kind
from iree_pilot.pipeline.nightly.history.history import History, NightRun
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome, Judgement
from iree_pilot.pipeline.toolchain.phases import Phase

FIRST = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)


def case(name: str = "llama:tiny", target: str = "llvm-cpu", **fields: Any) -> Case:
    return Case(source=name, target=target, **fields)


def failure(signature: str, *also: str, phase: str = "flow", kind: Kind = "diagnostic") -> Failure:
    return Failure(
        kind=kind,
        message=f"what {signature} says",
        signature=signature,
        phase=phase,
        also=tuple(failure(other, phase=phase, kind=kind) for other in also),
    )


def result(why: Failure | str = "", **fields: Any) -> CaseResult:
    """A result: failed with a Failure, compiled only with a text, else ok."""
    failed = isinstance(why, Failure)
    given: dict[str, Any] = {
        "target": "llvm-cpu",
        "release": "3.13.0",
        "device": "local-task",
        "arch": "host",
        "status": "failed" if failed else "compiled" if why else "ok",
        "why": "does not compile" if failed else why,
        "failure": why if failed else None,
        "steps": (
            Step(name="trace", status="ok", seconds=0.5, cached=True),
            Step(name="compile", status="failed" if failed else "ok", seconds=1.5, why="!"),
        ),
        "phases": (
            Phase(name="input", seconds=0.25, bytes=1000, ops={"linalg": 7, "tensor": 2}),
            Phase(name="flow", seconds=0.5, bytes=900, ops={"flow": 3}),
        ),
    }
    return CaseResult(**(given | fields))


def outcome(of: Case | None = None, why: Failure | str = "", **fields: Any) -> CaseOutcome:
    """An outcome of a case, of the usual one if none is given."""
    given: dict[str, Any] = {
        "case": (of or case()).name,
        "result": result(why),
        "machine": "m",
        "seconds": 2.0,
    }
    return CaseOutcome(**(given | fields))


def night(
    history: History,
    outcomes: Sequence[CaseOutcome] = (),
    *,
    number: int = 0,
    cases: Sequence[Case] | None = None,
    judgements: Sequence[Judgement] = (),
    finish: bool = True,
    machine: str = "m",
    config: str = "config",
) -> NightRun:
    """One night of the history, `number` days after the first."""
    run = history.begin(
        [case()] if cases is None else cases,
        config=config,
        title="zoo",
        machine=machine,
        revision={"iree": "3.13.0"},
        started=FIRST + timedelta(days=number),
    )
    for one in outcomes:
        history.record(run.id, one)
    if finish:
        history.finish(run.id, judgements)
    return history.run(run.id)
