"""Reads a `Failure` out of a child's exit status and stderr, and gives it its signature."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from iree_pilot.pipeline.failures import stderr as compiler_stderr
from iree_pilot.pipeline.failures.reports import CompilerReport, read_reports
from iree_pilot.pipeline.failures.signatures import signature
from iree_pilot.pipeline.failures.stacks import (
    brief,
    failing_pass,
    key_frames,
    read_stack,
    recursion,
)
from iree_pilot.pipeline.failures.stderr import Stderr
from iree_pilot.pipeline.processes.process import Outcome

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


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """The time limit that a failure is about.

    seconds: the limit; default: nobody chose it. processor_seconds: what the child used until then.
    executable: the one that did not end within the limit when it was compiled alone, "" where that
    was not asked; `seconds` is then processor time.
    """

    seconds: float
    default: bool = False
    processor_seconds: float = 0.0
    executable: str = ""


#: Kinds of failures that may be gone the next time, on the same input.
PASSING = ("timeout", "out-of-memory", "tool-missing")


class Failure(msgspec.Struct, frozen=True, kw_only=True, rename={"pass_": "pass"}):
    """Failure of a step.

    phase: compilation phase that failed. pass_: pass that failed, where known. op: operation the
    failure is about (`torch.aten.matmul`, `vector.bitcast`). location: `file:line:column` in the
    program. signal and stack (innermost frame first, demangled function names) for crashes.
    signature: equal for two runs of one bug. also: other, distinct failures of the same run.
    stopped: of what did not end, and only there.
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
    stopped: Stopped | msgspec.UnsetType = msgspec.UNSET

    @property
    def passing(self) -> bool:
        """True if it may not recur on the same input: a limit was reached, or it was killed."""
        return self.kind in PASSING or self.signal == "SIGKILL"

    @property
    def operation(self) -> str:
        """`op` for people: the own name of an operation that torch-mlir has no class for."""
        return (self.op or "").removeprefix("torch.operator ")

    def shows(self, signature: str) -> bool:
        """True if this is the failure with a signature, or that one is among the others."""
        return signature in {self.signature, *(other.signature for other in self.also)}


#: Several threads that crash at once print nothing: a crash without a stack is worth a second
#: compile with this flag.
SERIAL = "--mlir-disable-threading"
_MESSAGE_CHARACTERS = 500
#: Start of the message if another process killed it.
KILLED = "killed"
KILLED_BY_OTHERS = f"{KILLED} by somebody else"

_OUT_OF_MEMORY = re.compile(
    r"LLVM ERROR: out of memory|std::bad_alloc|^MemoryError\b"
    r"|std::system_error|pthread_create failed|Resource temporarily unavailable"
    r"|can't allocate memory|Cannot allocate memory|(?:CUDA|HIP) out of memory",
    re.MULTILINE,
)
_UNKNOWN_FLAG = re.compile(
    r"^\S+: Unknown command line argument '(?P<flag>-+[\w-]+)(?P<value>[^']*)'\."
    r"(?:.*\n\S+: Did you mean '(?P<meant>[^']+)'\?)?",
    re.MULTILINE,
)
_UNKNOWN = "unknown command line argument"
#: The compiler's errors about its command line, before it reads the program.
_COMMAND_LINE = re.compile(r"for the -\S+ option: |Too many positional arguments|Not enough pos")
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
#: Files of Python, of what traces, and of ours; those of libraries of models are a model's.
_LIBRARY = re.compile(
    r"/(?:site|dist)-packages/(?:torch|torchgen|functorch|iree|numpy|sympy|onnx\w*)/"
    r"|/lib/python3\.\d+/(?!(?:site|dist)-packages/)|^<|"
    + re.escape(str(Path(__file__).parents[1]))
)
#: Names of parameters, functions and flags in a runtime status.
_QUOTED_NAME = re.compile(r"(['`])[^'`\n]*\1")
_QUOTED_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
#: Start of the dump of a graph node's attributes in an exception.
_DUMP = re.compile(r",? *\{'\w+': .*")
#: Python's own function in which a file that does not parse is imported.
_IMPORTING = "_call_with_frames_removed"
#: The symbols of torch.export's symbolic shapes.
_SYMBOL = re.compile(r"\b[us]\d+\b")
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
    reports = read_reports(said.errors, outcome.argv[1:], program_text)
    reported = [_reported(r, phase) for r in reports]
    if stopped := _stopped(outcome, stderr, phase):
        return _with_others(stopped, reported)
    stack = read_stack(stderr)
    if outcome.ended_by == "signal" or said.fatal or stack:
        return _crash(outcome, said, stack, phase, reports)
    if match := _TOOL_MISSING.search(stderr):
        text = f"{match['tool']}: not found" if match["tool"] else match[0]
        tool = (match["tool"] or "linker").rsplit("/", 1)[-1]
        return _failure("tool-missing", text, about=tool, phase=phase)
    failures = reported or _undiagnosed(outcome, stderr, said, phase)
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
    return Failure(
        kind=kind,
        message=_shorten(message),
        signature=signature(kind, about=status.code, text=_QUOTED_NAME.sub("NAME", message)),
        phase=step,
    )


def trace_failure(
    exception: str, message: str, frames: Sequence[tuple[str, int, str]] = ()
) -> Failure:
    """The failure of a trace that raised.

    exception: the type's name. frames: (file, line, function) of its traceback, outermost first,
    as `traceback.extract_tb` gives them. The location is the innermost line that belongs to the
    model rather than to PyTorch, turbine or Python.
    """
    text = message.strip() or exception
    summary = _summary(text)
    exhausted = exception == "MemoryError" or _OUT_OF_MEMORY.search(text)
    kind: Kind = "out-of-memory" if exhausted else "trace-error"
    op = _TORCH_OP.search(text)
    raised_in = frames[-1][2] if frames else ""
    return Failure(
        kind=kind,
        message=_shorten(f"{exception}: {summary}" if summary != exception else exception),
        signature=signature(
            kind, about=exception, text=f"{_SYMBOL.sub('s', summary)} {raised_in}".strip()
        ),
        phase="trace",
        op=op["op"].replace("::", ".") if op else None,
        location=_model_line(text, frames),
        stack=_python_stack(frames),
    )


def trace_death(outcome: Outcome, stderr: str) -> Failure:
    """The failure of a tracing child that ended without saying what it raised.

    A signal is a `trace-error` with the signal's name and stack: the tracer crashed, not the
    compiler.
    """
    raised = compiler_stderr.read_traceback(stderr) if outcome.ended_by == "exit" else None
    if raised:
        return trace_failure(raised.exception, raised.message, raised.frames)
    if stopped := _stopped(outcome, stderr, "trace"):
        return stopped
    if outcome.ended_by != "signal":
        return _failure("trace-error", _last_line(stderr) or _silence(outcome), phase="trace")
    name = outcome.signal or "a signal"
    native = read_stack(stderr)
    python = compiler_stderr.read_fault(stderr)
    inner = [brief(f) for f in native[:1]] or [function for _, _, function in python[-1:]]
    where = f" in {inner[0]}" if inner else ""
    return Failure(
        kind="trace-error",
        message=f"the tracer crashed: {name}{where}",
        signature=signature("trace-error", about=name, frames=key_frames(native) or inner),
        phase="trace",
        location=_model_line("", python),
        signal=outcome.signal,
        stack=(*native, *_python_stack(python)),
    )


def mismatch(message: str, *, what: str) -> Failure:
    """A program that runs and gives other numbers than its reference.

    what: the class of the difference, which is all that its signature holds: outputs, places and
    sizes change with shapes (`values`, `nan`, `inf`, `integers`, `shape`, `dtype`).
    """
    return Failure(
        kind="mismatch",
        message=_shorten(message),
        signature=signature("mismatch", about=what),
        phase="compare",
    )


def _reported(report: CompilerReport, phase: str | None) -> Failure:
    return Failure(
        kind="diagnostic",
        message=_shorten(report.text),
        signature=signature("diagnostic", about=report.about, text=report.text),
        phase=phase,
        pass_=report.pass_,
        op=report.op,
        location=report.location,
    )


def _crash(
    outcome: Outcome,
    said: Stderr,
    stack: tuple[str, ...],
    phase: str | None,
    reports: Sequence[CompilerReport],
) -> Failure:
    """A crash, with the one error that led to it: one whose unit of work never ended."""
    pending = [r for r in reports if not r.closed]
    cause = pending[0] if len({r.text for r in pending}) == 1 else None
    explanation = next((line for line in said.other if _EXPLANATION.match(line)), "")
    reason = said.fatal or (cause.text if cause else explanation)
    # Threads keep their errors back until they end: a crash may come without the one before it.
    telling = said.fatal or explanation if stack else reason
    name = outcome.signal or "crash"
    if stack:
        where = f"{name} in {brief(stack[0])}{', a stack overflow' if recursion(stack) else ''}"
    else:
        where = f"{name} without a stack; {SERIAL} may show it"
    if said.fatal:
        message = f"{said.fatal} ({explanation})" if explanation else said.fatal
    else:
        message = f"{reason} (then {where})" if reason else where
    failure = Failure(
        kind="crash",
        message=_shorten(message),
        signature=signature(
            "crash",
            about="fatal" if said.fatal else name,
            text=telling,
            frames=key_frames(stack),
        ),
        phase=phase,
        pass_=failing_pass(stack) or (cause.pass_ if cause else None),
        op=cause.op if cause else None,
        location=cause.location if cause else None,
        signal=outcome.signal,
        stack=stack,
    )
    return _with_others(failure, (_reported(r, phase) for r in reports if r is not cause))


def _stopped(outcome: Outcome, stderr: str, phase: str | None) -> Failure | None:
    """The failure of a child that met a limit: ours, the machine's, or none (None)."""
    kind: Kind = "out-of-memory"
    used = f"{outcome.peak_bytes / 2**20:.0f} MiB resident at most"
    stopped: Stopped | msgspec.UnsetType = msgspec.UNSET
    if outcome.ended_by == "time-limit":
        kind, message = "timeout", _at_time_limit(outcome)
        stopped = Stopped(
            seconds=outcome.seconds,
            default=outcome.default_limit,
            processor_seconds=outcome.processor_seconds,
        )
    elif outcome.ended_by == "output-limit":
        kind = "timeout"
        message = f"stopped at the output limit, after {outcome.seconds:.0f} s of writing"
    elif outcome.ended_by == "memory-limit":
        message = f"stopped at the memory limit ({used})"
    elif outcome.killed:
        kind = "trace-error" if phase == "trace" else "crash"
        message = f"{KILLED_BY_OTHERS}: the system did not, for lack of memory ({used})"
    elif outcome.memory_ran_out and outcome.near:
        message = f"{KILLED}, as memory ran out in its control group ({used})"
    elif outcome.memory_ran_out:
        message = (
            f"{KILLED}; the kernel killed a process of this machine for lack of memory at that "
            f"time ({used})"
        )
    elif outcome.signal == "SIGKILL":
        message = f"{KILLED}, as the system does when memory runs out ({used})"
    elif match := _OUT_OF_MEMORY.search(stderr):
        message = f"{match[0]} ({used})"
    else:
        return None
    about = "SIGKILL" if outcome.killed else phase or ""
    return Failure(
        kind=kind,
        message=message,
        signature=signature(
            kind, about=about, text="output" if outcome.ended_by == "output-limit" else ""
        ),
        phase=phase,
        signal=None if kind == "timeout" else outcome.signal,
        stack=read_stack(stderr),
        stopped=stopped,
    )


def _at_time_limit(outcome: Outcome) -> str:
    after = f"after {outcome.seconds:.0f} s"
    if not outcome.default_limit:
        return f"stopped at the time limit, {after}"
    return (
        f"stopped at the default time limit, {after} ({outcome.processor_seconds:.0f} s of "
        "processor time); --time-limit changes it"
    )


def of_command_line(failure: Failure) -> bool:
    """True if the compiler refused its flags, and did not look at the program."""
    refused = failure.message.startswith(_UNKNOWN) or _COMMAND_LINE.match(failure.message)
    return failure.kind == "diagnostic" and failure.phase is None and bool(refused)


def _undiagnosed(outcome: Outcome, stderr: str, said: Stderr, phase: str | None) -> list[Failure]:
    """The failures of a compile that ended with an exit code and no diagnostic."""
    flags = []
    for match in _UNKNOWN_FLAG.finditer(stderr):
        text = f"{_UNKNOWN} '{match['flag']}{match['value']}'"
        if match["meant"]:
            text += f" (did you mean '{match['meant']}'?)"
        flags.append(
            Failure(
                kind="diagnostic",
                message=_shorten(text),
                signature=signature("diagnostic", about=match["flag"], text=_UNKNOWN),
            )
        )
    if flags:
        return flags
    remarks = [line for line in said.other if not _NOISE.match(line)] or list(said.other)
    text = _PROGRAM_PREFIX.sub("", remarks[-1]) if remarks else _silence(outcome)
    return [_failure("diagnostic", text, phase=None if _COMMAND_LINE.match(text) else phase)]


def _summary(message: str) -> str:
    """First line of a Python exception, with PyTorch's explanation if there is one."""
    lines = [line.strip() for line in message.split("\n") if line.strip()]
    lines[:1] = [_DUMP.sub("", line) or line for line in lines[:1]]
    reasons = [line for line in lines[1:] if line.startswith("Explanation: ")]
    return ". ".join([*lines[:1], *reasons[:1]])


def _python_stack(frames: Sequence[tuple[str, int, str]]) -> tuple[str, ...]:
    own = (frame for frame in reversed(frames) if frame[2] != _IMPORTING)
    return tuple(f"{function} ({file}:{line})" for file, line, function in own)


def _model_line(message: str, frames: Sequence[tuple[str, int, str]]) -> str | None:
    """`file:line` of the innermost model code; PyTorch quotes it where it interprets the model."""
    places = [(m["file"], m["line"]) for m in _QUOTED_FRAME.finditer(message)]
    raised = [(file, str(line)) for file, line, _ in frames]
    own = [":".join(p) for p in (*raised, *places) if not _LIBRARY.search(p[0])]
    return own[-1] if own else None


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
