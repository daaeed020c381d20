"""From a child's exit status and stderr to a `Failure`, and from a failure to its signature."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from pipeline import stderr as compiler_stderr
from pipeline.process import Outcome
from pipeline.signatures import signature
from pipeline.stacks import brief, failing_pass, key_frames, read_stack
from pipeline.stderr import Diagnostic, Stderr, operation_in

Kind = Literal[
    "trace-error",
    "diagnostic",
    "crash",
    "timeout",
    "out-of-memory",
    "runtime-error",
    "mismatch",
    "tool-missing",
]


class Failure(msgspec.Struct, frozen=True, kw_only=True, rename={"pass_": "pass"}):
    """Why a step ended.

    phase: compilation phase that failed. pass_: pass that failed, where known. op: operation the
    failure is about (`torch.aten.matmul`, `vector.bitcast`). location: `file:line:column` in the
    program. signal and stack (innermost frame first, demangled function names) for crashes.
    signature: equal for two runs of one bug. also: other, distinct failures of the same run.
    """

    kind: Kind
    message: str
    signature: str
    phase: str | None = None
    pass_: str | None = None
    op: str | None = None
    location: str | None = None
    signal: str | None = None
    stack: tuple[str, ...] = ()
    also: tuple[Failure, ...] = ()


_MESSAGE_CHARACTERS = 500

#: What IREE reports of an executable whose pipeline failed: says that, not why.
_CONSEQUENCE = re.compile(
    r"failed to (?:run translation of source executable|serialize executables?\b)"
)
#: What the pass manager adds when it was asked for a crash reproducer: its note names the pass.
_PIPELINE = re.compile(r"Failures? ha(?:s|ve) been detected while processing")
_PIPELINE_PASS = re.compile(r"`([^`]+)` on '[^']+' operation")
_TARGET_ATTRIBUTE = re.compile(r'#hal\.executable\.target<"([^"]+)".*', re.DOTALL)
_MESSAGE_OP = re.compile(
    r"(?:^|\b(?:[Oo]peration|[Oo]p) )['\"`](?P<op>[A-Za-z_][\w$]*(?:\.[\w$]+)+)['\"`]"
)
_OUT_OF_MEMORY = re.compile(
    r"LLVM ERROR: out of memory|std::bad_alloc|Allocation failed|^MemoryError\b"
    r"|can't allocate memory|Cannot allocate memory|out of memory",
    re.MULTILINE,
)
_UNKNOWN_FLAG = re.compile(
    r"^\S+: Unknown command line argument '(?P<flag>-+[\w-]+)(?P<value>[^']*)'\."
    r"(?:.*\n\S+: Did you mean '(?P<meant>[^']+)'\?)?",
    re.MULTILINE,
)
_TOOL_MISSING = re.compile(
    r"^sh: (?:\d+: )?(?P<tool>\S+): (?:not found|Permission denied)|"
    r"required (?:embedded )?linker tool .* not found",
    re.MULTILINE,
)
#: Lines outside diagnostics that explain the crash that follows them.
_EXPLANATION = re.compile(
    r"Default target backend not registered: .*|'[^']*' is not a recognized processor for this "
    r"target|Unknown CPU for target .*"
)
#: Lines outside diagnostics that say less than those around them.
_NOISE = re.compile(
    r"failed to translate executables|error opening input file: failed to generate bytecode"
    r"|.*(?:ignoring processor|ignoring feature)"
)
_PROGRAM_PREFIX = re.compile(r"^(?:[\w.-]*iree-[\w-]+: |error opening input file: )")
_LOCATION = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?::\d+)?$")
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib/python3\.\d+/|^<|/torch/|/iree/")
_USER_CODE = re.compile(r'from user code:\s+File "(?P<file>[^"]+)", line (?P<line>\d+)')
_TORCH_OP = re.compile(
    r"\b(?:torch\.ops\.)?(?P<op>(?:aten|prims|higher_order|quantized|torchvision)(?:\.|::)\w+(?:\.\w+)?)"
)


def compile_failure(
    outcome: Outcome, stderr: str, phase: str | None, program_text: str | None = None
) -> Failure:
    """The failure of an `iree-compile` that did not end with exit code 0.

    The exit status decides the kind, the text only where it leaves a choice. phase: the phase that
    failed, where known. program_text: what was compiled; it gives the operation at a location
    whose source line the compiler could not quote.
    """
    said = compiler_stderr.read(stderr)
    reports = _reports(said.errors, phase, _Program(outcome, program_text))
    if stopped := _stopped(outcome, stderr, phase):
        return _with_others(stopped, (r.failure for r in reports))
    stack = read_stack(stderr)
    if outcome.ended_by == "signal" or said.fatal or stack:
        return _crash(outcome, said, stack, phase, reports)
    if match := _TOOL_MISSING.search(stderr):
        text = f"{match['tool']}: not found" if match["tool"] else match[0]
        tool = (match["tool"] or "linker").rsplit("/", 1)[-1]
        return _failure("tool-missing", text, about=tool, phase=phase)
    failures = [r.failure for r in reports] or _undiagnosed(outcome, stderr, said, phase)
    return _with_others(failures[0], failures[1:])


def runtime_failure(outcome: Outcome, stderr: str, step: Literal["load", "run"]) -> Failure:
    """The failure of a module that did not load or run; `phase` is the step.

    IREE's runtime ends with `FILE.c:LINE: CODE; message; context; ...`. The message keeps the
    code, what went wrong and the native function that said so.
    """
    if stopped := _stopped(outcome, stderr, step):
        return stopped
    stack = read_stack(stderr)
    status = compiler_stderr.read_status(stderr)
    if outcome.ended_by == "signal":
        said = compiler_stderr.read(stderr)
        if status is not None:
            said = msgspec.structs.replace(said, fatal=said.fatal or status.text)
        return _crash(outcome, said, stack, step, ())
    if status is None:
        return _failure("runtime-error", _last_line(stderr) or _silence(outcome), phase=step)
    kind: Kind = "runtime-error"
    if status.code == "RESOURCE_EXHAUSTED":
        kind = "out-of-memory"
    elif status.code == "UNAVAILABLE" and "library" in status.text:
        kind = "tool-missing"
    message = f"{status.code}; {status.text}"
    if status.function:
        message += f" (in {status.function})"
    return _failure(kind, message, about=status.code, phase=step)


def trace_failure(
    exception: str, message: str, frames: Sequence[tuple[str, int, str]] = ()
) -> Failure:
    """The failure of a trace that raised.

    exception: the type's name. frames: (file, line, function) of its traceback, outermost first,
    as `traceback.extract_tb` gives them. The location is the innermost line that belongs to the
    model rather than to PyTorch, turbine or Python.
    """
    own = [f for f in frames if not _LIBRARY.search(f[0])]
    place = f"{own[-1][0]}:{own[-1][1]}" if own else None
    if place is None and (quoted := _USER_CODE.search(message)):
        place = f"{quoted['file']}:{quoted['line']}"
    text = message.strip() or exception
    op = match["op"].replace("::", ".") if (match := _TORCH_OP.search(text)) else None
    exhausted = exception == "MemoryError" or _OUT_OF_MEMORY.search(text)
    first = next((line for line in text.split("\n") if line.strip()), "")
    raised_in = (frames[-1][2],) if frames else ()
    return Failure(
        kind="out-of-memory" if exhausted else "trace-error",
        message=_shorten(f"{exception}: {first}" if first != exception else exception),
        signature=signature(
            "out-of-memory" if exhausted else "trace-error",
            about=exception,
            text=f"{first} {' '.join(raised_in)}",
        ),
        op=op,
        location=place,
        stack=tuple(f"{function} ({file}:{line})" for file, line, function in reversed(frames)),
    )


def trace_death(outcome: Outcome, stderr: str) -> Failure:
    """The failure of a tracing child that ended without saying what it raised.

    A signal is a `trace-error` with the signal's name and stack: the tracer crashed, not the
    compiler.
    """
    if stopped := _stopped(outcome, stderr, "trace"):
        return stopped
    if raised := compiler_stderr.read_traceback(stderr):
        return trace_failure(raised.exception, raised.message, raised.frames)
    said = compiler_stderr.read(stderr)
    if outcome.ended_by == "signal" or said.fatal:
        crash = _crash(outcome, said, read_stack(stderr), None, ())
        return msgspec.structs.replace(
            crash,
            kind="trace-error",
            signature="trace-error" + crash.signature.removeprefix("crash"),
        )
    return _failure("trace-error", _last_line(stderr) or _silence(outcome))


def mismatch(
    message: str, *, what: str, op: str | None = None, location: str | None = None
) -> Failure:
    """A program that runs and gives other numbers than its reference.

    what: the class of the difference, which is all that its signature holds: outputs, places and
    sizes change with shapes (`values`, `nan`, `inf`, `integers`, `shape`, `dtype`).
    """
    return Failure(
        kind="mismatch",
        message=_shorten(message),
        signature=signature("mismatch", about=what),
        phase="compare",
        op=op,
        location=location,
    )


class _Program:
    """The program's lines by location, for source lines that the compiler did not quote."""

    def __init__(self, outcome: Outcome, text: str | None) -> None:
        self._files = {argument.rsplit("/", 1)[-1] for argument in outcome.argv[1:]}
        self._lines = text.split("\n") if text else []

    def at(self, location: str | None) -> str:
        """The line at `file:line:column` if that file was compiled, else ""."""
        match = _LOCATION.match(location or "")
        if match is None or match["file"].rsplit("/", 1)[-1] not in self._files:
            return ""
        number = int(match["line"])
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """A failure that the compiler reported. closed: it then said that this unit of work failed."""

    failure: Failure
    closed: bool


def _reports(
    errors: Sequence[Diagnostic], phase: str | None, lines: _Program
) -> tuple[_Report, ...]:
    """Every distinct failure among the errors of one compile, in their order.

    The errors of one executable come together and end with one that says that it failed. That one
    only tells where, unless nothing came before it: then the reason is lost and it must serve.
    """
    reports: list[_Report] = []
    group: list[Diagnostic] = []
    for error in [*errors, None]:
        consequence = error is not None and _CONSEQUENCE.match(error.text)
        if error is not None:
            group.append(error)
        if consequence or error is None:
            for failure in _group(group, phase, lines):
                reports.append(_Report(failure=failure, closed=bool(consequence)))
            group = []
    return tuple(reports)


def _group(group: Sequence[Diagnostic], phase: str | None, lines: _Program) -> Iterable[Failure]:
    """The failures of one unit of work: its errors but those that only say that it failed."""
    context = [e for e in group if _CONSEQUENCE.match(e.text) or _PIPELINE.match(e.text)]
    reasons = [e for e in group if e not in context] or context[-1:]
    pass_ = next((p for e in context for n in e.notes if (p := _pass_in(n.text))), None)
    for error in reasons:
        yield _diagnosed(error, context, pass_, phase, lines)


def _diagnosed(
    error: Diagnostic,
    context: Sequence[Diagnostic],
    pass_: str | None,
    phase: str | None,
    lines: _Program,
) -> Failure:
    places = [error, *error.notes, *context]
    place = next((d for d in places if d.location), None)
    location = place.location if place else None
    source = place.source if place and place.source else lines.at(location)
    there = operation_in(source)
    text = _TARGET_ATTRIBUTE.sub(r"\1", error.text)
    named = _named_op(error, there)
    about = named or ""
    if error in context:  # the reason is lost: what failed and where is all there is
        about = pass_ or there or ""
        if _PIPELINE.match(text):
            text = f"{pass_ or 'a pass'} failed or crashed without a message"
    return Failure(
        kind="diagnostic",
        message=_shorten(text),
        signature=signature("diagnostic", about=about, text=text),
        phase=phase,
        pass_=pass_,
        op=there if error in context else named or _current_op(error) or there,
        location=location,
    )


def _named_op(error: Diagnostic, there: str | None) -> str | None:
    """The operation that the message names; `torch.operator` alone says too little."""
    match = _MESSAGE_OP.search(error.text)
    if match is None:
        return None
    if match["op"] == "torch.operator":
        for candidate in (_current_op(error), there):
            if candidate and candidate.startswith("torch.operator "):
                return candidate
    return match["op"]


def _current_op(error: Diagnostic) -> str | None:
    for note in error.notes:
        if note.text.startswith("see current operation:"):
            return operation_in(note.text.removeprefix("see current operation:").strip())
    return None


def _pass_in(note: str) -> str | None:
    """The innermost pass of `Pipeline failed while executing [...]`."""
    passes = _PIPELINE_PASS.findall(note) if "Pipeline failed" in note else []
    return passes[-1].split("::")[-1] if passes else None


def _crash(
    outcome: Outcome,
    said: Stderr,
    stack: tuple[str, ...],
    phase: str | None,
    reports: Sequence[_Report],
) -> Failure:
    """A crash, with the one error that led to it: one whose unit of work never ended."""
    pending = [r.failure for r in reports if not r.closed]
    cause = pending[0] if len(pending) == 1 else None
    explanation = next((line for line in said.other if _EXPLANATION.match(line)), "")
    reason = said.fatal or (cause.message if cause else explanation)
    name = outcome.signal or "crash"
    where = f"{name} in {brief(stack[0])}" if stack else name
    frames = key_frames(stack)
    if said.fatal:
        message = f"{said.fatal} ({explanation})" if explanation else said.fatal
    else:
        message = f"{reason} (then {where})" if reason else where
    failure = Failure(
        kind="crash",
        message=_shorten(message),
        signature=signature(
            "crash", about="fatal" if said.fatal else name, text=reason, frames=frames
        ),
        phase=phase,
        pass_=failing_pass(stack) or (cause.pass_ if cause else None),
        op=cause.op if cause else None,
        location=cause.location if cause else None,
        signal=outcome.signal,
        stack=stack,
    )
    return _with_others(failure, (r.failure for r in reports if r.failure is not cause))


def _stopped(outcome: Outcome, stderr: str, phase: str | None) -> Failure | None:
    """The failure of a child that met a limit: ours, the machine's, or none (None)."""
    kind: Kind = "out-of-memory"
    used = f"{outcome.peak_bytes / 2**20:.0f} MiB resident at most"
    if outcome.ended_by == "time-limit":
        kind, message = "timeout", f"stopped at the time limit, after {outcome.seconds:.0f} s"
    elif outcome.ended_by == "output-limit":
        kind = "timeout"
        message = f"stopped at the output limit, after {outcome.seconds:.0f} s of writing"
    elif outcome.ended_by == "memory-limit":
        message = f"stopped at the memory limit ({used})"
    elif outcome.signal == "SIGKILL":
        message = f"killed, as the system does when memory runs out ({used})"
    elif match := _OUT_OF_MEMORY.search(stderr):
        message = f"{match[0]} ({used})"
    else:
        return None
    return Failure(
        kind=kind,
        message=message,
        signature=signature(
            kind, about=phase or "", text="output" if outcome.ended_by == "output-limit" else ""
        ),
        phase=phase,
        signal=outcome.signal if kind == "out-of-memory" else None,
        stack=read_stack(stderr),
    )


def _undiagnosed(outcome: Outcome, stderr: str, said: Stderr, phase: str | None) -> list[Failure]:
    """The failures of a compile that ended with an exit code and no diagnostic."""
    flags = []
    for match in _UNKNOWN_FLAG.finditer(stderr):
        text = f"unknown command line argument '{match['flag']}{match['value']}'"
        if match["meant"]:
            text += f" (did you mean '{match['meant']}'?)"
        flags.append(
            Failure(
                kind="diagnostic",
                message=_shorten(text),
                signature=signature(
                    "diagnostic", about=match["flag"], text="unknown command line argument"
                ),
            )
        )
    if flags:
        return flags
    remarks = [line for line in said.other if not _NOISE.match(line)] or list(said.other)
    text = _PROGRAM_PREFIX.sub("", remarks[-1]) if remarks else _silence(outcome)
    return [_failure("diagnostic", text, phase=phase)]


def _failure(kind: Kind, text: str, *, about: str = "", phase: str | None = None) -> Failure:
    return Failure(
        kind=kind,
        message=_shorten(text),
        signature=signature(kind, about=about, text=text),
        phase=phase,
    )


def _with_others(failure: Failure, others: Iterable[Failure]) -> Failure:
    """`failure` with those of `others` whose signatures have not been seen yet."""
    seen = {failure.signature}
    also = []
    for other in others:
        if other.signature not in seen:
            seen.add(other.signature)
            also.append(other)
    return msgspec.structs.replace(failure, also=tuple(also))


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")


def _silence(outcome: Outcome) -> str:
    program = outcome.argv[0].rsplit("/", 1)[-1]
    return f"{program} ended with exit code {outcome.exit_code} and no message"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_CHARACTERS else line[: _MESSAGE_CHARACTERS - 3] + "..."
