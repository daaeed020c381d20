"""Failure fingerprint for run.sh: exit status, and fixed strings in the output.

A signature needs our own reading of a stack and of a message. A script that needs nothing of ours
looks for the same things with grep: the parts of the message that no shape, name, path or number
can change, and the names of the stack's telling frames.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Literal

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.failures.stacks import brief, key_frames

#: Errors of the compiler that follow the actual one for an executable, or stand alone.
CONSEQUENCES = (
    "failed to run translation of source executable",
    "failed to serialize executable",
)
_PIPELINE = ("detected while processing an MLIR pass pipeline", "failed or crashed without")
#: Messages of a process that reached its memory limit.
MEMORY = ("out of memory", "bad_alloc", "llocate memory", "MemoryError")
#: Begins each line of iree-run-module's comparison, and of check.py, about an output that differs.
DIFFERS = "[FAILED] result["
#: In those of them that are about a number. Others are about its type: these say nothing of wrong
#: numbers, and a right program would get them too.
NUMBER = "]: element "
_TYPES = ("]: metadata is ", "]: variant types mismatch")
#: The first line of a native stack.
STACK = "#0 0x"

_CUT = "\0"
_ARROW = "\1"
_FEWEST_LETTERS = 4
_MOST = 8
_TYPE = re.compile(r"[#!]?[A-Za-z_][\w$.]*<[^<>]*>")
_OPEN_TYPE = re.compile(r"[#!]?[A-Za-z_][\w$.]*<(?!.*>).*")
_OPERATION = re.compile(r':\s+(?:%\S+\s*=\s*)?"[\w.$]+"\(.*', re.DOTALL)
_VOLATILE = re.compile(
    r"(?<=\btorch\.constant)\.\w+|\b0x[0-9a-fA-F]+\b|%[\w$.#-]+|@[\w$.]+|\^bb\d+|\w*_dispatch_\d+\w*"
    r"|(?<![\w.)\]>])/(?:[\w.+@~$-]+/)*[\w.+@~$-]*"
    r"|[\w.+/~-]+\.(?:mlirbc|mlir|vmfb|irpa|safetensors|gguf|pyc?|onnx|pt2|so|bin|cc|cpp|c|h)\b"
    r"|\bt\d+\b|(?<![\w.])(?:(?:-?\d+|\?)x)+(?=[a-z])"
    r"|(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?:x(?:\d+|\?))*(?!\w)"
)
_SYMBOL = re.compile(r"\b[us]\d+\b")
_QUOTED_NAME = re.compile(r"(['`])[^'`\n]*\1")
#: Words of ours around what a tool printed.
_THEN = re.compile(r" \(then (?:SIG\w+|crash) (?:in|without a stack).*\)$")
_ONLY_SIGNAL = re.compile(r"^(?:SIG\w+|crash) (?:in |without a stack)")
_EXPLAINED = re.compile(r" \((?=[^()]*\)$)|\)$")
_NATIVE = re.compile(r" \(in (?P<function>[\w.$]+)\)$")
_UNKNOWN_FLAG = re.compile(r"^unknown command line argument '(?P<flag>-+[\w-]+)")
_SILENT_EXIT = re.compile(r"^[\w.-]+ ended with exit code \d+ and no message$")
_NO_PASS_MESSAGE = re.compile(r"^.* failed or crashed without a message$")
_TRACER = re.compile(r"^the tracer crashed: \w+(?: in (?P<function>.+))?$")


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """Fingerprint that the output of a failing process must match for the same failure.

    signal: its number, 0 for a process that ends with an exit status. needles: strings that must
    all be there, where runs of white space count as one space and anonymous namespaces do not
    count. only: where given, each line with an error must hold one of these. never: strings that
    must not be there. limit: the failure is that this limit is reached.
    """

    signal: int = 0
    needles: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    limit: Literal["", "time", "memory"] = ""


def marks(failure: Failure) -> Marks:
    """The marks of a failure: coarser than its signature, never finer."""
    if failure.kind == "mismatch":
        return Marks(needles=(DIFFERS, NUMBER), never=_TYPES)
    if failure.kind == "timeout":
        return Marks(limit="time")
    if failure.kind == "out-of-memory":
        return Marks(limit="memory")
    number = signal.Signals[failure.signal].value if failure.signal else 0
    if match := _TRACER.match(failure.message):
        function = match["function"] or ""
        inside = brief(function) if "::" in function else f"in {function}"
        return Marks(signal=number, needles=(inside,) if function else ())
    if failure.kind == "crash":
        # An error before a crash is not always printed; the stack tells more.
        mute = _ONLY_SIGNAL.match(failure.message) or (
            failure.stack and _THEN.search(failure.message)
        )
        reason = "" if mute else _THEN.sub("", failure.message)
        needles = (*_literals(_EXPLAINED.sub(_CUT, reason)), *_frames(failure.stack))
        never = () if failure.stack or reason else (STACK,)
        return Marks(signal=number, needles=_distinct(needles), never=never)
    if match := _UNKNOWN_FLAG.match(failure.message):
        return Marks(needles=(f"nknown command line argument '{match['flag']}",))
    if _SILENT_EXIT.match(failure.message):
        return Marks(never=("error:",))
    if failure.kind == "tool-missing" and failure.message.endswith(": not found"):
        return Marks(needles=(failure.message.rsplit("/", 1)[-1],))
    return Marks(signal=number, needles=_said(failure), only=_only(failure))


def compared_types(output: str) -> str:
    """The first line of a comparison of outputs that is about something else than a number."""
    lines = (line.strip() for line in output.splitlines() if DIFFERS in line)
    return next((line for line in lines if NUMBER not in line), "")


def _said(failure: Failure) -> tuple[str, ...]:
    """The literal parts of a message that is the tool's own, and the names that belong to it."""
    text, more = failure.message, []
    if failure.phase in ("load", "run"):
        if match := _NATIVE.search(text):
            text, more = text[: match.start()], [f"native function {match['function']}"]
        text = _QUOTED_NAME.sub(_CUT, text)
    elif failure.kind == "trace-error":
        text = _SYMBOL.sub(_CUT, text.replace(". Explanation: ", _CUT))
    elif _NO_PASS_MESSAGE.match(text):
        text, more = "", [failure.pass_ or ""]
    elif text.startswith(CONSEQUENCES):  # the target's whole attribute stands for its name
        text, _, backend = text.partition(" for backend ")
        more = [backend, failure.op or "", failure.pass_ or ""]
    elif failure.op and " " in failure.op:  # torch.operator onnx.Foo
        more = [f'"{failure.op.split()[-1]}"']
    return _distinct((*_literals(text), *(m for m in more if m)))


def _only(failure: Failure) -> tuple[str, ...]:
    """Texts that may stand beside a failure without a reason; others show one that has a reason."""
    companions = tuple(max(_literals(one.message), key=len, default="") for one in failure.also)
    allowed = tuple(dict.fromkeys(one for one in companions if one))
    if _NO_PASS_MESSAGE.match(failure.message):
        return (*CONSEQUENCES, *_PIPELINE, *allowed)
    return (*CONSEQUENCES, *allowed) if failure.message.startswith(CONSEQUENCES) else ()


def _literals(text: str) -> tuple[str, ...]:
    """The parts of a message that stay the same: up to `_MOST` of the longest, in their order."""
    cut = text.endswith("...")
    text = _OPERATION.sub("", text.removesuffix("...")).replace("->", _ARROW)
    while (reduced := _TYPE.sub(_CUT, text)) != text:
        text = reduced
    text = _OPEN_TYPE.sub(_CUT, text).replace(_ARROW, "->")
    text = re.sub(r": (?=UNREACHABLE executed)", _CUT, text)
    parts = [p.strip() for p in _VOLATILE.sub(_CUT, text).split(_CUT)]
    if cut and parts:
        parts[-1] = parts[-1].rpartition(" ")[0]
    telling = [p for p in parts if len(re.findall(r"[A-Za-z]", p)) >= _FEWEST_LETTERS]
    longest = sorted(telling or parts, key=len, reverse=True)[:_MOST]
    return tuple(p for p in telling or parts if p and p in longest)


def _frames(stack: tuple[str, ...]) -> Iterator[str]:
    """The key frames' names as the stack spells them; those that are only an offset change."""
    spelled = " ".join(stack).replace("(anonymous namespace)::", "")
    for name in key_frames(stack):
        if "+0x" not in name:
            yield name if name in spelled else f"::{name.rpartition('::')[2]}"


def _distinct(needles: tuple[str, ...]) -> tuple[str, ...]:
    """Without repetitions and without what another one holds."""
    unique = tuple(dict.fromkeys(needles))
    return tuple(n for n in unique if not any(n != o and n in o for o in unique))
