"""Side effects of flags in a folder from somebody else, besides compiling.

An allow-list by kind: iree-compile has 2,500 flags, most of them LLVM's, and each release others.
Known to do nothing else are IREE's own switches and numbers, its words for targets, modes and
strategies, and MLIR's printing to stderr; unless a name speaks of files or tools. The rest is
refused, with what it would do as far as its name says that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from iree_pilot.repro.trust import pipelines

#: Allowed names of a folder's own files in commands.
PLAIN = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)

_SWITCH = re.compile(r"(?:|true|false|[+-]?\d+(?:\.\d+)?|0x[\da-fA-F]+|O[0-3s])", re.ASCII)
#: Text without what a path, a quoted attribute or a list of files needs.
_TEXT = re.compile(r"[\w.,:;+=\[\]@-]*", re.ASCII)
_NAME = re.compile(r"iree-[a-z0-9-]+", re.ASCII)
#: Endings of IREE's flags whose value says what to compile for, or how.
_SAYS_HOW = re.compile(
    r"-(?:targets?|devices?|backends|cpu|features|abi|triple|layout|levels?|strategy|mode|model"
    r"|favor|format|type|ukernels|operations|ops|range|resolver|platform|sanitize|along|stages"
    r"|dispatch|math-f32)$"
)
_RUNS = re.compile(r"linker|ptxas|tool|executables?-with|command(?!-buffers)|debugger")
_LOADS = re.compile(r"plugin")
_WRITES = re.compile(
    r"dump|output(?!-format)|export(?!-benchmark)|splat|listing|save|keep|dot\b|graph|-to$|print-ir-tree|reproducer|remarks"
)
_READS = re.compile(
    r"file|path|dir\b|library|-from$|import|(?<!ukernel-)bitcode|substitute|object|spec\b|replay|profile"
)
#: Flags of MLIR and of the driver that print to stderr, check, or name a phase.
_OTHERS = re.compile(
    r"mlir-(?:disable-threading|elide-[\w-]+|pass-statistics|pretty-debuginfo|timing"
    r"|print-(?!ir-tree)[\w-]+|use-nameloc-as-prefix)|verify(?:-each)?|compile-(?:mode|from|to)"
    r"|O[0-3s]"
)
_PIPELINES = ("iree-preprocessing-pass-pipeline", "pass-pipeline")
_EMBEDDED = "iree-llvmcpu-link-embedded"

#: Endings of what commands read and write: nothing that a step makes is a program for the next.
_PROGRAMS = (".mlir",)
_MODULES = (".vmfb",)
_VALUES_FILES = (".npy", ".bin")

_DEVICE = re.compile(r"[\w-]+(?:://[\w.,?=&:-]*)?", re.ASCII)
_VALUES = re.compile(r"[&*]?[\w<>,.+=?\[\]() -]*", re.ASCII)
_MARKED = re.compile(r"[&*]?[\w<>,?]*=?", re.ASCII)
_NUMBERS = re.compile(r"expected_(?:\w+_threshold|rtol)", re.ASCII)


def refused(flag: str) -> str:
    """Side effect of a flag of iree-compile besides compiling; empty if it has none."""
    if flag.startswith("@"):
        return f"reads more flags out of the file {flag[1:]}"
    if not flag.startswith("-"):
        return "is no flag: the compiler would read a file of that name"
    name, equals, value = flag.lstrip("-").partition("=")
    if name in _PIPELINES:
        return pipelines.refused(value, _does)
    if name == _EMBEDDED and value.lower() not in ("", "true", "1"):
        return "runs the system's linker, and what it links may call any library"
    if name.endswith("-triple") and value.lower().startswith("wasm"):
        return "runs the system's linker, the only one that the compiler has for it"
    if _OTHERS.fullmatch(name):
        return "" if _TEXT.fullmatch(value) else _unknown(value)
    if does := _does(name, value):
        return does
    if not _NAME.fullmatch(name):
        return "is none of IREE's own: what it does is not known here"
    if _SWITCH.fullmatch(value) or (_SAYS_HOW.search(name) and _TEXT.fullmatch(value)):
        return ""
    return _unknown(value) if equals else "is not known to do nothing else"


def refused_words(command: Sequence[str]) -> list[tuple[str, str]]:
    """(word, what it does) of those in a command of a folder that reach beyond its directory.

    The command's tool is known to be IREE's.
    """
    tool, *words = command
    check = _of_run if tool == "iree-run-module" else _of_compile
    return [(word, does) for word, does in check(words) if does]


def _does(name: str, value: str) -> str:
    """Effect of a flag, judged by its name, if it involves tools or files."""
    if _LOADS.search(name):
        return f"loads code{f': {value}' if value else ''}"
    if _WRITES.search(name):
        return f"writes files{f': {value}' if value else ''}"
    if _RUNS.search(name):
        return f"runs a program{f': {value}' if value else ''}"
    if _READS.search(name):
        return f"reads files{f': {value}' if value else ''}"
    return ""


def _unknown(value: str) -> str:
    return f"may take {value} for the name of a file"


def _of_compile(words: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    rest = iter(words)
    for word in rest:
        if word == "-o":
            output = next(rest, "")
            if output != "/dev/null" and not _of_kind(output, _MODULES):
                found.append((f"-o {output}", f"writes what is no {_MODULES[0]} file beside it"))
        elif word.startswith(("-", "@")):
            found.append((word, refused(word)))
        elif not _of_kind(word, _PROGRAMS):
            found.append((word, f"is no plain name of a {_PROGRAMS[0]} file"))
    return found


def _of_kind(name: str, endings: tuple[str, ...]) -> bool:
    """True if it is a plain name with one of these endings."""
    return PLAIN.fullmatch(name) is not None and name.endswith(endings)


def _of_run(words: Sequence[str]) -> list[tuple[str, str]]:
    return [(word, _of_run_word(word)) for word in words]


def _of_run_word(word: str) -> str:
    """Effect of an argument of iree-run-module beyond running the folder's module."""
    name, _, value = word.removeprefix("--").partition("=")
    if not word.startswith("--"):
        return "is no option of iree-run-module"
    fits: object
    if name == "module":
        fits = _of_kind(value, _MODULES)
    elif name == "device":
        fits = _DEVICE.fullmatch(value)
    elif name == "function":
        fits = re.fullmatch(r"[\w.$-]+", value)
    elif name == "parameters":
        fits = PLAIN.fullmatch(value.rpartition("=")[2])
    elif _NUMBERS.fullmatch(name):
        fits = re.fullmatch(r"[\d.e+-]+", value)
    elif name in ("input", "output", "expected_output"):
        before, marked, file = value.rpartition("@")
        if marked:
            kept = _of_kind(file, _VALUES_FILES) if name == "output" else PLAIN.fullmatch(file)
            fits = _MARKED.fullmatch(before) and kept
        else:
            fits = None if name == "output" else _VALUES.fullmatch(value)
    else:
        return "is not known to do nothing but run the module"
    return "" if fits else "names something that is no plain file of the folder"
