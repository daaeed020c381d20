"""What is known of a failure, line by line, for people."""

from __future__ import annotations

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.program import source_lines
from iree_pilot.pipeline.program.source_lines import SourceLines


def failure_lines(
    failure: Failure, *, verbose: bool, source: SourceLines | None = None
) -> list[tuple[str, str]]:
    """(label, text) of each thing known about a failure, in the order people ask for them.

    source: the lines that it is about; None for those that its files have now.
    """
    lines: list[tuple[str, str]] = [("kind", failure.kind)]
    source = source or source_lines.at(failure.location)
    named = {
        "signal": failure.signal,
        "phase": failure.phase,
        "pass": failure.pass_,
        "op": failure.operation,
        "location": failure.location,
        "": source.text,
        "python": source.python,
        " ": source.python_text,
        "message": failure.message,
    }
    lines += [(label, text) for label, text in named.items() if text]
    shown = failure.stack if verbose else failure.stack[:4]
    lines += [("stack" if i == 0 else "", frame) for i, frame in enumerate(shown)]
    if len(shown) < len(failure.stack):
        lines.append(("", f"... {len(failure.stack) - len(shown)} more frames (-v)"))
    lines += [("also", f"{other.kind}: {other.message}") for other in failure.also]
    lines.append(("signature", failure.signature))
    return lines
