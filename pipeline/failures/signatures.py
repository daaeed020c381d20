"""Signatures: a failure with everything accidental taken out, as one readable line.

    diagnostic/vector.bitcast/failed-to-legalize-operation/1f0c6a52
    crash/SIGSEGV/IntegerAttr.getInt/9b1de0c4

The words are for people; the hash at the end, over the whole canonical failure, tells bugs apart.
Shapes, SSA names, paths, addresses and numbers do not count; operations and element types do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

#: From 3.11 on, "failed to legalize" messages end with the operation itself.
_OPERATION = re.compile(
    r':\s+(?:%[\w$.#-]+(?::\d+)?(?:,\s*)?)*(?:\s*=\s*)?"[\w.$]+"\(.*', re.DOTALL
)
#: An operation that cannot be legalized is not named, but whichever constant it takes comes first.
_CONSTANT = re.compile(r"\btorch\.constant\.\w+")
#: Kinds whose signatures hold no more than what came of the program.
_CLASSES = ("mismatch", "timeout", "out-of-memory")
_SHAPED = ("tensor", "memref", "vector", "vtensor")
_TYPE = re.compile(r"[#!]?[A-Za-z_][\w$.]*<")
_DIMENSIONS = re.compile(r"^(?:\[[^\]]*\],)?(?:(?:\[?-?\d+\]?|\?|\*)(?:x(?=[^\s])|$))*")
_REPLACEMENTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\b0x[0-9a-fA-F]+\b", "ADDRESS"),
        (r"(?<![\w.)\]>])/(?:[\w.+@~$-]+/)*[\w.+@~$-]*", "PATH"),
        (
            r"[\w.+/~-]+\.(?:mlirbc|mlir|vmfb|irpa|safetensors|gguf|pyc?|onnx|pt2|so|bin|cc|cpp)\b",
            "PATH",
        ),
        (r"PATH(?::\d+)+", "PATH"),
        (r"\w*_dispatch_\d+\w*", "DISPATCH"),
        (r"%[\w$.#-]+", "%"),
        (r"@[\w$.]+", "@"),
        (r"\^bb\d+", "^bb"),
        (_CONSTANT.pattern, "torch.constant"),
        (r"\bt\d+\b", "tN"),  # a node of LLVM's selection graph
        (r"(?<![\w.])(?:(?:-?\d+|\?)x)+(?=[a-z])", ""),
        (r"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?:x(?:\d+|\?))*(?![\w])", "N"),
        (r"N(?:\s*,\s*N)+", "N"),
        (r"\s+", " "),
    )
)


def canonical(message: str) -> str:
    """`message` without what changes from run to run and from shape to shape.

    Types keep their kind and element type (`vector<4xf16>` -> `vector<f16>`),
    attributes and other types only their name.
    """
    text = _types(_OPERATION.sub("", message))
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text.strip()


def signature(kind: str, *, about: str, text: str = "", frames: Sequence[str] = ()) -> str:
    """The signature of a failure of `kind`.

    about: the one word that a person looks for (an operation, a signal, an error code); may be
    empty. text: its message, canonical or not. frames: short names of the stack's telling frames.
    """
    text, about = canonical(text), _CONSTANT.sub("torch.constant", about)
    digest = hashlib.sha256("\n".join([kind, about, text, *frames]).encode()).hexdigest()[:8]
    words = (
        frames[0].replace("::", ".")
        if frames
        else _words(text.replace(about, " ") if about else text)
    )
    parts = [kind, about, words, digest]
    return "/".join(re.sub(r"[^\w.+-]+", "-", p).strip("-") for p in parts if p)


_GUARD = "GuardOnDataDependentSymNode"


def is_specific(signature: str) -> bool:
    """True if a signature alone tells a failure from others.

    Wrong numbers, a limit that was met and a crash without a stack have one signature whatever
    their cause is, and so has Python that needs a value at the trace; a diagnostic may not name the
    operation that fails, or name a constant that is an operand of it.
    """
    kind, *words = signature.split("/")
    if kind == "trace-error" and words[:1] == [_GUARD]:
        return False
    if kind == "diagnostic":
        return len(words) > 2 and words[0] != "torch.constant"
    crashed = kind == "crash" or any(word.startswith("SIG") for word in words[:1])
    return kind not in _CLASSES and not (crashed and len(words) < 3)


def _words(text: str) -> str:
    """The first words of a message, up to 40 characters, joined by hyphens."""
    words = [w for w in re.findall(r"[a-z][a-z0-9]*", text.lower()) if w != "n"]
    line = ""
    for word in words:
        if len(line) + 1 + len(word) > 40:
            break
        line = f"{line}-{word}" if line else word
    return line


def _types(text: str) -> str:
    """Shaped types reduced to their element type, other types and attributes to their name."""
    out: list[str] = []
    position = 0
    while match := _TYPE.search(text, position):
        end = _closing(text, match.end() - 1)
        if end < 0:
            break
        name = match[0][:-1]
        inner = text[match.end() : end]
        out.append(text[position : match.start()])
        out.append(f"{name}<{_element(inner)}>" if name.endswith(_SHAPED) else name.lstrip("#!"))
        position = end + 1
    out.append(text[position:])
    return "".join(out)


def _element(inner: str) -> str:
    element = _DIMENSIONS.sub("", inner, count=1)
    match = re.match(r"[^,<]*", element)
    return match[0].strip() if match else ""


def _closing(text: str, opening: int) -> int:
    """Index of the `>` that closes the `<` at `opening`, or -1. `->` closes nothing."""
    depth = 0
    quoted = False
    for i in range(opening, len(text)):
        c = text[i]
        if c == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif c == "<":
            depth += 1
        elif c == ">" and text[i - 1] != "-":
            depth -= 1
            if depth == 0:
                return i
    return -1
