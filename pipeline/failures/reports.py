"""The errors of one compile, sorted: what failed, where, and what only repeats that it failed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from iree_pilot.pipeline.failures.stderr import Diagnostic, operation_in

#: IREE's report that the pipeline of an executable failed, without the reason.
_CONSEQUENCE = re.compile(
    r"failed to (?:run translation of source executable|serialize executables?\b)"
)
#: Line that the pass manager adds with a crash reproducer: its note names the pass.
_PIPELINE = re.compile(r"Failures? ha(?:s|ve) been detected while processing")
_PIPELINE_PASS = re.compile(r"`([^`]+)` on '[^']+' operation")
_TARGET_ATTRIBUTE = re.compile(r'#hal\.executable\.target<"([^"]+)".*', re.DOTALL)
_NAMED_OPERATION = re.compile(
    r"(?:^|\b(?:[Oo]peration|[Oo]p) )['\"`](?P<op>[A-Za-z_][\w$]*(?:\.[\w$]+)+)['\"`]"
)
_CURRENT = "see current operation:"
_LOCATION = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?::\d+)?$")


class CompilerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the compiler said went wrong.

    text: its message, targets by name. about: what its signature hangs on: the operation that the
    message names, or where the reason is lost, the pass or the operation at the location. op,
    location, pass_: as in `Failure`. closed: the compiler went on to say that this unit of work
    had failed.
    """

    text: str
    about: str
    op: str | None
    location: str | None
    pass_: str | None
    closed: bool


def read_reports(
    errors: Sequence[Diagnostic], arguments: Sequence[str], program_text: str | None
) -> tuple[CompilerReport, ...]:
    """All that the errors of one compile report, in their order.

    The errors of one executable come together and end with one that says that it failed. That one
    only tells where, unless nothing came before it: then the reason is lost and it must serve.
    arguments, program_text: the compiler's arguments and what it compiled, for source lines that
    it did not quote.
    """
    lines = _ReportLines(arguments, program_text)
    reports: list[CompilerReport] = []
    group: list[Diagnostic] = []
    for error in errors:
        group.append(error)
        if _CONSEQUENCE.match(error.text):
            reports.extend(_group(group, lines, closed=True))
            group = []
    reports.extend(_group(group, lines, closed=False))
    return tuple(reports)


class _ReportLines:
    """The program's lines by location."""

    def __init__(self, arguments: Sequence[str], text: str | None) -> None:
        self._files = {argument.rsplit("/", 1)[-1] for argument in arguments}
        self._lines = text.split("\n") if text else []

    def at(self, location: str | None) -> str:
        """The line at `file:line:column` if that file was compiled, else ""."""
        match = _LOCATION.match(location or "")
        if match is None or match["file"].rsplit("/", 1)[-1] not in self._files:
            return ""
        number = int(match["line"])
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""


def _group(
    group: Sequence[Diagnostic], lines: _ReportLines, *, closed: bool
) -> Iterator[CompilerReport]:
    """The reports of one unit of work: its errors but those that only say that it failed."""
    context = [e for e in group if _CONSEQUENCE.match(e.text) or _PIPELINE.match(e.text)]
    reasons = [e for e in group if e not in context] or context[-1:]
    pass_ = next((p for e in context for n in e.notes if (p := _pass_in(n.text))), None)
    for error in reasons:
        place = next((d for d in (error, *error.notes, *context) if d.location), None)
        location = place.location if place else None
        there = operation_in((place.source if place else "") or lines.at(location))
        text = _TARGET_ATTRIBUTE.sub(r"\1", error.text)
        named = _named_operation(error, there)
        about, op = named or "", named or _current_operation(error) or there
        if error in context:
            about, op = pass_ or there or "", there
            if _PIPELINE.match(text):
                text = f"{pass_ or 'a pass'} failed or crashed without a message"
        yield CompilerReport(
            text=text, about=about, op=op, location=location, pass_=pass_, closed=closed
        )


def _named_operation(error: Diagnostic, there: str | None) -> str | None:
    """The operation that the message names; `torch.operator` alone says too little."""
    match = _NAMED_OPERATION.search(error.text)
    if match is None:
        return None
    if match["op"] == "torch.operator":
        for candidate in (_current_operation(error), there):
            if candidate and candidate.startswith("torch.operator "):
                return candidate
    return match["op"]


def _current_operation(error: Diagnostic) -> str | None:
    for note in error.notes:
        if note.text.startswith(_CURRENT):
            return operation_in(note.text.removeprefix(_CURRENT).strip())
    return None


def _pass_in(note: str) -> str | None:
    """The innermost pass of `Pipeline failed while executing [...]`."""
    passes = _PIPELINE_PASS.findall(note) if "Pipeline failed" in note else []
    return passes[-1].split("::")[-1] if passes else None
