"""Description of a failure, line by line, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.program import source_lines
from iree_pilot.pipeline.program.source_lines import SourceLines

#: (label, text) of each line.
Lines = Sequence[tuple[str, str]]
#: Fields of a failure that take the most lines.
_LONG = {"location", "message"}


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


def without_repeated(
    lines: list[tuple[str, str]], before: Iterable[tuple[str, Failure]]
) -> list[tuple[str, str]]:
    """The lines of a failure without what those of an earlier target say as well.

    before: (target, failure) of what was printed.
    """
    for target, failure in before:
        left, labels = shown_before(lines, failure_lines(failure, verbose=False))
        if _LONG.intersection(labels):
            return [*left, ("as for", f"{target}: {', '.join(labels)}")]
    return lines


def shown_before(lines: Lines, before: Lines) -> tuple[list[tuple[str, str]], list[str]]:
    """(the lines of a failure that are not among those of another, the labels of the others)."""
    known = [*_facts(before)]
    left, labels = list[tuple[str, str]](), list[str]()
    for fact in _facts(lines):
        if fact in known:
            labels.append(fact[0][0])
        else:
            left += fact
    return left, [*dict.fromkeys(labels)]


def _facts(lines: Lines) -> Iterator[list[tuple[str, str]]]:
    """The lines with those below them that have no label of their own."""
    fact: list[tuple[str, str]] = []
    for line in lines:
        if line[0].strip() and fact:
            yield fact
            fact = []
        fact.append(line)
    if fact:
        yield fact
