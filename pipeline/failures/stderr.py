"""Parser of a compiler's stderr: diagnostics with their notes, fatal errors, the rest.

A diagnostic is a header line, then what MLIR prints under it:

    model.mlir:3:10: error: failed to legalize operation 'vector.bitcast'
        %0 = torch.aten.matmul %a, %b : ...        the source line, where the file can be read
             ^
    model.mlir:3:10: note: see current operation: %320 = "vector.bitcast"(%319) : ...
"""

from __future__ import annotations

import re

import msgspec

_HEADER = re.compile(
    r"^(?:(?P<file>[^\s:](?:[^:\n]*[^\s:])?):(?P<line>\d+)(?::(?P<column>\d+))?: )?"
    r"(?P<severity>error|warning|remark|note): (?P<text>.*)$"
)
#: Diagnostics that a parallel section still held when the process crashed.
_IN_FLIGHT = re.compile(
    r"^ {4}(?:loc\((?P<loc>.*?)\): )?(?P<severity>error|warning): (?P<text>.*)$"
)
_LOCATED_TEXT = re.compile(r"^loc\((?P<loc>.*?)\): (?P<text>.*)$")
_FILE_LOCATION = re.compile(r'"(?P<file>[^"]+)":(?P<line>\d+):(?P<column>\d+)')
_CRASH = re.compile(
    r"^(?:Please report issues to|Stack dump|PLEASE submit a bug|\d+\.\t| *#\d+ 0x)"
)
_FATAL = re.compile(
    r"^(?P<text>LLVM ERROR: .*|.*\bAssertion .* failed\.?$|UNREACHABLE executed.*"
    r"|terminate called .*|Fatal Python error: .*)"
)
_OPERATION_NAME = re.compile(
    r"^\s*(?:%[\w$.-]+(?::\d+)?(?:\s*,\s*%[\w$.-]+(?::\d+)?)*\s*=\s*)?"
    r'"?(?P<name>[a-z_][\w$]*(?:\.[\w$]+)+)"?(?P<rest>.*)'
)
_CUSTOM = re.compile(r'^\s*"(?P<a>[\w.:]+)"|name = "(?P<b>[\w.:]+)"')


class Diagnostic(msgspec.Struct, frozen=True, kw_only=True):
    """One diagnostic: severity, message, `file:line:column` (None: unknown), quoted source line."""

    severity: str
    text: str
    location: str | None = None
    source: str = ""
    notes: tuple[Diagnostic, ...] = ()
    in_flight: bool = False


class Stderr(msgspec.Struct, frozen=True, kw_only=True):
    """All of a stderr text but the stack.

    fatal: the text of the first fatal error (`LLVM ERROR: ...`, a failed assertion), or "".
    other: lines that belong to no diagnostic, up to a crash's stack dump.
    """

    diagnostics: tuple[Diagnostic, ...]
    fatal: str
    other: tuple[str, ...]

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.diagnostics if d.severity == "error")


class _OpenDiagnostic:
    """A diagnostic whose lines are still being read."""

    def __init__(self, severity: str, text: str, location: str | None, in_flight: bool) -> None:
        self.severity, self.text, self.location = severity, text, location
        self.in_flight = in_flight
        self.lines: list[str] = []
        self.notes: list[_OpenDiagnostic] = []

    def close(self) -> Diagnostic:
        source = ""
        body = self.lines
        if len(body) >= 2 and body[-1].strip() and not body[-1].strip(" ^~\t"):
            source, body = body[-2], body[:-2]
        text = self.text if self.severity != "note" else "\n".join([self.text, *body[:1]])
        return Diagnostic(
            severity=self.severity,
            text=text.strip(),
            location=self.location,
            source=source.strip(),
            notes=tuple(n.close() for n in self.notes),
            in_flight=self.in_flight,
        )


def read(text: str) -> Stderr:
    """Takes a stderr text apart."""
    top: list[_OpenDiagnostic] = []
    current: _OpenDiagnostic | None = None
    other: list[str] = []
    fatal = ""
    for line in text.split("\n"):
        if match := _HEADER.match(line) or _IN_FLIGHT.match(line):
            opened = _opened(match)
            if opened.severity == "note" and top:
                top[-1].notes.append(opened)
            else:
                top.append(opened)
            current = opened
        elif match := _FATAL.match(line):
            fatal = fatal or _fatal(match["text"], other)
            current = None
        elif _CRASH.match(line):
            current = None
        elif current is not None and not _ends(current, line):
            current.lines.append(line)
        elif line.strip():
            current = None
            other.append(line.strip())
    return Stderr(diagnostics=tuple(o.close() for o in top), fatal=fatal, other=tuple(other))


def operation_in(line: str) -> str | None:
    """The operation that a line of MLIR holds: `torch.aten.matmul`, `torch.operator onnx.Foo`."""
    match = _OPERATION_NAME.match(line)
    if match is None:
        return None
    name = match["name"]
    if name == "torch.operator" and (custom := _CUSTOM.search(match["rest"])):
        return f"{name} {custom['a'] or custom['b']}"
    return name


def _opened(match: re.Match[str]) -> _OpenDiagnostic:
    groups = match.groupdict()
    text, location = groups["text"], None
    if groups.get("file") and groups["file"] != "<unknown>" and groups["line"] != "0":
        place = [groups["file"], groups["line"], groups["column"]]
        location = ":".join(p for p in place if p is not None)
    inner = groups.get("loc")
    if inner is None and (located := _LOCATED_TEXT.match(text)):
        inner, text = located["loc"], located["text"]
    if inner is not None and (place_match := _FILE_LOCATION.search(inner)):
        location = ":".join(place_match.group("file", "line", "column"))
    return _OpenDiagnostic(groups["severity"], text, location, match.re is _IN_FLIGHT)


def _ends(current: _OpenDiagnostic, line: str) -> bool:
    """True if `line` is not part of the open diagnostic, which ended with its quoted source."""
    closed = bool(current.lines) and not current.lines[-1].strip(" ^~\t")
    closed = closed and bool(current.lines[-1].strip())
    return closed or line.startswith(
        ("error opening input file", "failed to translate executables")
    )


def _fatal(text: str, before: list[str]) -> str:
    """An `UNREACHABLE executed` line has its reason on the line before."""
    if text.startswith("UNREACHABLE") and before:
        return f"{before[-1]}: {text}"
    return text


_STATUS = re.compile(
    r"(?:^|[\s:])(?:[\w./+-]+\.(?:c|cc|cpp|h|m|mm)|<vm>):\d+: (?P<code>[A-Z][A-Z_]+);"
    r" ?(?P<rest>.*)",
    re.DOTALL,
)
#: The runtime's annotations of an error status with what it was doing.
_DOING = re.compile(
    r"^(?:while |invoking |loading |looking |resolving |calling |creating |parsing |reading "
    r"|opening |verifying |preparing |importing |registering |\[ *\d+\])"
)
_NATIVE = re.compile(r"while invoking native function (?P<name>[\w.$]+)")


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """An IREE runtime status: code (`OUT_OF_RANGE`), what went wrong, the native function or ""."""

    code: str
    text: str
    function: str


def read_status(text: str) -> Status | None:
    """The first status in what a runtime tool wrote: `buffer.c:47: OUT_OF_RANGE; ...; ...`."""
    match = _STATUS.search(text)
    if match is None:
        return None
    parts = [p.strip() for p in match["rest"].split(";")]
    said: list[str] = []
    for part in parts:
        if _DOING.match(part):
            break
        said.append(part)
    native = _NATIVE.search(match["rest"])
    return Status(
        code=match["code"],
        text="; ".join(p for p in said if p),
        function=native["name"] if native else "",
    )


_FAULT = re.compile(
    r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE
)
_TRACEBACK = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)$')
_RAISED = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")


class Raised(msgspec.Struct, frozen=True, kw_only=True):
    """A Python exception: type, message, frames (file, line, function), outermost first."""

    exception: str
    message: str
    frames: tuple[tuple[str, int, str], ...]


def read_traceback(text: str) -> Raised | None:
    """The last Python traceback in `text`: of chained ones, the one that ended the process."""
    start = text.rfind("Traceback (most recent call last):")
    if start < 0:
        return None
    frames: list[tuple[str, int, str]] = []
    lines = text[start:].split("\n")
    for number, line in enumerate(lines[1:], start=1):
        if match := _TRACEBACK.match(line):
            frames.append((match["file"], int(match["line"]), match["function"]))
        elif line and not line.startswith(" ") and (match := _RAISED.match(line)):
            name = match["type"].rsplit(".", 1)[-1]
            message = "\n".join([match["message"] or "", *lines[number + 1 :]]).strip()
            return Raised(exception=name, message=message, frames=tuple(frames))
    return None


def read_fault(text: str) -> tuple[tuple[str, int, str], ...]:
    """The Python frames (outermost first) that faulthandler printed at a fatal signal, or none."""
    mark = "(most recent call first):"
    # Of several threads the one that the signal met is not always the first to be printed.
    start = text.find(mark, max(0, text.find("Current thread ")))
    if start < 0:
        return ()
    dump = text[start:].split("\n\n")[0]
    frames = [(m["file"], int(m["line"]), m["function"]) for m in _FAULT.finditer(dump)]
    return tuple(reversed(frames))
