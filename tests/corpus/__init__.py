"""Real failures of real compilers: texts, how the processes ended, what is expected of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes.process import Outcome

HERE = Path(__file__).parent


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One failed process; its stderr is in NAME.txt.

    bug: entries of one bug have one signature. expect: fields of `Failure` by their JSON names;
    fields that must be empty are left out. frame: the innermost of the stack. also: the
    operations of the other failures.
    """

    name: str
    bug: str
    tool: Literal["iree-compile", "iree-run-module", "python"]
    argv: tuple[str, ...]
    ended_by: Literal["exit", "signal", "time-limit", "memory-limit", "output-limit"]
    exit_code: int | None
    signal: str | None
    expect: dict[str, Any]

    @property
    def text(self) -> str:
        return (HERE / f"{self.name}.txt").read_text()

    @property
    def outcome(self) -> Outcome:
        return Outcome(
            argv=self.argv,
            ended_by=self.ended_by,
            exit_code=self.exit_code,
            signal=self.signal,
            seconds=2.0,
            peak_bytes=100 * 2**20,
        )


def entries() -> list[Entry]:
    return msgspec.json.decode((HERE / "entries.json").read_bytes(), type=list[Entry])


def classify(entry: Entry, text: str | None = None) -> Failure:
    """What the product makes of an entry, or of its process with another text."""
    text = entry.text if text is None else text
    if entry.tool == "python":
        return diagnostics.trace_death(entry.outcome, text)
    if entry.tool == "iree-run-module":
        return diagnostics.runtime_failure(entry.outcome, text, "run")
    return diagnostics.compile_failure(entry.outcome, text, "some-phase")


def expectation(failure: Failure) -> dict[str, Any]:
    found = {
        "kind": failure.kind,
        "op": failure.op,
        "pass": failure.pass_,
        "location": failure.location,
        "signal": failure.signal,
        "message": failure.message,
        "frame": failure.stack[0] if failure.stack else None,
        "also": [other.op for other in failure.also],
    }
    return {field: value for field, value in found.items() if value}
