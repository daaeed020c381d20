"""Parts of an issue's draft: its title, components, attribution, and what is folded."""

from __future__ import annotations

import re
from collections.abc import Sequence

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.toolchain.phases import UNTARGETED, WHOLE_PROGRAM
from iree_pilot.repro.attribution.origin import Origin
from iree_pilot.repro.wrong_results.wrong_record import Wrong

#: Limit of the message in the title; GitHub shows some 70 characters of a title in its lists.
_MESSAGE_CHARACTERS = 80
_OPERATIONS = 2
#: PyTorch's error if the model reads values while it is traced.
_DATA_DEPENDENT = re.compile(r"data-dependent|DataDependent|Dynamic control flow", re.IGNORECASE)
#: Limits beyond which code, and lines of the compiler's message, are folded.
_LINES, _LINE_CHARACTERS, _CHARACTERS = 40, 500, 4_000
_MESSAGE_LINES, _MESSAGE_SHOWN = 12, 1_500
#: End of a message that prints the operation itself, which is in the program.
_OPERATION = re.compile(r": (?:%\S+(?:, %\S+)* = )?\"[\w.]+\"\(.*", re.DOTALL)
_FLAG = re.compile(r"--iree-[a-z0-9-]+[a-z0-9]")
_CRASH = re.compile(r"SIG[A-Z]+ in [^\s()]+")


def title(
    failure: Failure, target: str, ops: Sequence[str], tool: str, wrong: Sequence[Wrong] = ()
) -> str:
    """`[vulkan] iree-compile: failed to legalize operation 'vector.bitcast' (torch.aten.mm)`, or
    `[vulkan] wrong results: -inf instead of -100.0 (torch.aten.log_sigmoid)`.

    target: empty where all of them fail so. tool: whose command fails. ops: of the program. wrong:
    outputs, the one that the failure is about first.
    """
    names = [*dict.fromkeys(ops)]
    about = names[:_OPERATIONS] + ["..."] * (len(names) > _OPERATIONS)
    of = f" ({', '.join(about)})" if about else ""
    if failure.phase == "trace":  # the same for all backends
        return f"iree-turbine: {_essential(failure).partition('. ')[0]}{of}"
    backend = f"[{target.partition(':')[0]}] " if target else ""
    if failure.kind == "mismatch":
        worst = next((element for one in wrong[:1] for element in one.elements), None)
        values = f": {worst.got} instead of {worst.expected}" if worst else ""
        return f"{backend}wrong results{values}{of}"
    return f"{backend}{tool}: {_essential(failure)}{of}"


def failing_phase(failure: Failure, origin: Origin | None) -> str | None:
    """The phase that fails: of wrong numbers, the first wrong one where that is known."""
    first = origin.phase if origin is not None and origin.phase.state == "earliest" else None
    return first.phase if first else failure.phase


def shared(phase: str | None, target: str, elsewhere: Sequence[str]) -> bool:
    """True if a failure in a phase is the same for all targets: the phase comes before anything of
    one, or before any code of one, and other backends show it too (`elsewhere`: their targets)."""
    backend = target.partition(":")[0]
    others = any(other.partition(":")[0] != backend for other in elsewhere)
    return phase in UNTARGETED or (phase in WHOLE_PROGRAM and others)


def not_iree(failure: Failure, *, exported: bool) -> str:
    """Attribution of a failure to trace that IREE has no part in, with a remedy; else "".

    exported: torch.export has passed, or was not asked.
    """
    raised = failure.kind == "trace-error" and failure.signal is None and failure.stack
    if exported or not raised or any("iree/turbine/" in frame for frame in failure.stack):
        return ""
    said = "PyTorch, not IREE: torch.export alone rejects the model"
    if _DATA_DEPENDENT.search(failure.message):
        return (
            f"{said}, whose control flow depends on values that are known only at run time "
            "(data-dependent): use torch.where, or state the assumption with torch._check"
        )
    return f"{said}: change it, or report this to https://github.com/pytorch/pytorch/issues"


def _essential(failure: Failure) -> str:
    if failure.kind == "timeout":
        phase = f" in {failure.phase}" if failure.phase else ""
        return f"does not terminate{phase}"
    if failure.kind == "out-of-memory":
        return "out of memory"
    text = " ".join(failure.message.split())
    if failure.kind == "crash" and (crash := _CRASH.search(text)):
        text = crash[0]
    text = _OPERATION.sub("", text)
    if len(text) <= _MESSAGE_CHARACTERS:
        return text
    cut = text[: _MESSAGE_CHARACTERS - 1]
    words = cut.rpartition(" ")[0]
    return f"{words if len(words) > _MESSAGE_CHARACTERS // 2 else cut}…"


def named_flags(failure: Failure, flags: Sequence[str]) -> list[str]:
    """Flags that the compiler's message mentions and the command does not pass: often the remedy
    of a limitation that the compiler knows of."""
    if failure.kind != "diagnostic":
        return []
    given = {flag.lstrip("-").partition("=")[0] for flag in flags}
    found = dict.fromkeys(_FLAG.findall(failure.message))
    return [flag for flag in found if flag.lstrip("-") not in given]


def is_long(text: str) -> bool:
    """True if a file is folded in the draft."""
    lines = text.splitlines()
    widest = max(map(len, lines), default=0)
    return len(lines) > _LINES or widest > _LINE_CHARACTERS or len(text) > _CHARACTERS


def shown(message: str) -> tuple[str, str]:
    """(shown part of a message, the whole to be folded: empty if nothing is left out)."""
    lines = message.splitlines()
    if len(lines) <= _MESSAGE_LINES and len(message) <= _MESSAGE_SHOWN:
        return message, ""
    return "\n".join(lines[:_MESSAGE_LINES])[:_MESSAGE_SHOWN] + "\n...", message


def size(text: str) -> str:
    """`57 lines`."""
    return count(len(text.splitlines()), "line")


def fence(text: str) -> str:
    """A code fence that nothing in the text ends."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)


def components(phase: str | None) -> str:
    """Components, as IREE's form lists them, that the failing step belongs to."""
    if phase == "trace":
        return "Frontends, Python"
    if phase in ("load", "run"):
        return "Runtime"
    return "Frontends, Compiler" if phase in ("start", "input") else "Compiler"
