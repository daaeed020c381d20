"""A crash's stack: read it, name the failing pass, pick the frames that tell bugs apart.

LLVM's signal handler prints one line a frame, innermost first, in one of three forms:

     #4 0x00007f64445b37c3 mlir::IntegerAttr::getInt() const BuiltinAttributes.cpp:0:0
     #4 0x00007f64445b37c3 mlir::IntegerAttr::getInt() const (/.../libIREECompiler.so+0x5826fe8)
     #3 0x00007f643e65a050 (/lib/x86_64-linux-gnu/libc.so.6+0x3c050)

Releases before 3.10 use the second form for exported functions; the third has no name at all.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

_FRAME = re.compile(r"#(\d+) 0x[0-9a-f]+ (.*)")
_MODULE = re.compile(r"\s*\((?P<path>[^()\s]+)\+(?P<offset>0x[0-9a-f]+)\)$")
_SOURCE = re.compile(r"\s+[^\s:]+:\d+(?::\d+)?$")

#: libc's frames between the handler and the function that asked for the abort.
_ABORT = re.compile(
    r"^(?:__pthread_kill\w*|pthread_kill|__libc_message|raise|gsignal|abort|__GI_\w+"
    r"|__assert_fail\w*|__restore_rt|std::terminate|__cxxabiv1::|__gnu_cxx::__verbose_terminate)"
)
#: Frames that many unrelated bugs have in common, and that releases rearrange.
_PLUMBING = re.compile(
    r"^(?:llvm|std|__gnu_cxx|absl)::"
    r"|^mlir::(?:detail|Pass|PassManager|OpPassManager|OpBuilder|RewriterBase|PatternRewriter"
    r"|ConversionPatternRewriter|Operation|OperationName|PatternApplicator|ConversionPattern"
    r"|OperationConverter|ImplicitLocOpBuilder|MLIRContext|StorageUniquer)::"
    r"|^mlir::(?:apply\w*(?:Conversion|Patterns?)\w*|walk|failableParallelForEach\w*)$"
    r"|^(?:apply\w*(?:Conversion|Patterns?)\w*)$"
    r"|(?:^|::)(?:GreedyPatternRewriteDriver|RegionPatternRewriteDriver|OperationLegalizer)::"
    r"|::(?:build|create|get|getChecked|classof|fold|foldHook|verifyInvariants\w*)$"
    r"|::(?:Model|FallbackModel|Concept)::"
)
_PASS = re.compile(r"(\w+)::runOnOperation\(")
_RECURSION = 8


def read_stack(text: str) -> tuple[str, ...]:
    """Function names of the first stack in `text`, innermost first, demangled, without addresses.

    The frames of the signal handler and of libc's abort are left out. A frame without a name is
    `LIBRARY+0xOFFSET`. Empty when there is no stack.
    """
    frames: list[str] = []
    for match in _FRAME.finditer(text):
        if int(match[1]) == len(frames):  # another thread's stack may be interleaved
            frames.append(_function(match[2]))
    return tuple(_without_handler(frames))


def failing_pass(stack: Iterable[str]) -> str | None:
    """The class of the innermost pass on the stack: passes that run pipelines lie further out."""
    for frame in stack:
        if match := _PASS.search(frame):
            return match[1]
    return None


def key_frames(stack: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """The short names of up to `count` innermost frames that tell this crash from others.

    Template arguments, parameters, outer namespaces and frames that releases rearrange (builders,
    pattern drivers, callbacks) do not count. Nothing outside the failing pass counts, as pipelines
    are put together differently from target to target. A stack overflow gives the names of its
    cycle, sorted, since it can be cut anywhere.
    """
    frames = tuple(stack)
    if cycle := recursion(frames):
        return cycle
    chosen: list[str] = []
    for frame in frames:
        name = _qualified(frame)
        inside = bool(name) and "(" in frame
        if inside and (not _PLUMBING.search(name) or (not chosen and name.startswith("mlir::"))):
            short = _short(name)
            if short not in chosen:
                chosen.append(short)
        if len(chosen) == count or _PASS.search(frame):
            break
    return tuple(chosen) or frames[:count]


def recursion(stack: Iterable[str]) -> tuple[str, ...]:
    """The short names of the functions that call each other without end, sorted; () if none do.

    Pass managers nest too, so the recursion must reach the innermost frames.
    """
    names = [_qualified(f) for f in stack]
    repeated = Counter(names)
    cycle = {n for n in names if n and repeated[n] >= _RECURSION}
    return tuple(sorted(map(_short, cycle))) if cycle.intersection(names[:4]) else ()


def brief(frame: str) -> str:
    """A frame's function as a sentence can hold it: qualified, without parameters."""
    return _qualified(frame) or frame


def _function(rest: str) -> str:
    """The part of a frame's line after the address, as a function's name or `LIBRARY+OFFSET`."""
    module = _MODULE.search(rest)
    name = rest[: module.start()] if module else _SOURCE.sub("", rest)
    name = name.strip()
    if name:
        return demangle(name)
    return f"{PurePosixPath(module['path']).name}+{module['offset']}" if module else "?"


def _without_handler(frames: list[str]) -> list[str]:
    for i, frame in enumerate(frames[:6]):
        if frame.startswith("SignalHandler("):
            frames = frames[i + 2 :]  # the next one is the kernel's return trampoline in libc
            break
    while frames and _ABORT.match(frames[0]):
        frames = frames[1:]
    return frames


def demangle(name: str) -> str:
    """The C++ name behind an Itanium-mangled one; any other text as it is.

    LLVM demangles what it prints, other handlers (glibc, faulthandler of extension modules) do not.
    libstdc++ does it, which torch and IREE need anyway; where it is absent the name stays as it is.
    """
    return _demangled(name) if name.startswith("_Z") else name


@functools.lru_cache(maxsize=4096)
def _demangled(name: str) -> str:
    try:
        function = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    except (OSError, AttributeError):
        return name
    function.restype = ctypes.c_void_p
    status = ctypes.c_int()
    result = function(name.encode(), None, None, ctypes.byref(status))
    if status.value != 0 or not result:
        return name
    text = ctypes.string_at(result).decode(errors="replace")
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    free(result)
    return text


@functools.lru_cache(maxsize=4096)
def _qualified(frame: str) -> str:
    """`ns::Class::function` of a frame; of a callback, that of the function that made it."""
    for wrapper in ("::callback_fn<", "std::_Function_handler<"):
        start = frame.find(wrapper)
        if start >= 0:
            inner = _bracketed(frame, start + len(wrapper) - 1)
            return _qualified(_last_argument(inner) if "handler" in wrapper else inner)
    name = frame.replace("(anonymous namespace)::", "").replace("[abi:cxx11]", "")
    name = _without_brackets(name)
    name = re.sub(r"::(?:\$_\d+|'lambda\d*').*", "", name)
    return name.split(" ")[-1] if " " in name else name


def _short(name: str) -> str:
    return "::".join(name.split("::")[-2:])


def _bracketed(text: str, opening: int) -> str:
    """Text between the `<` at `opening` and its `>`."""
    depth = 0
    for i in range(opening, len(text)):
        if text[i] == "<":
            depth += 1
        elif text[i] == ">" and text[i - 1] != "-":
            depth -= 1
            if depth == 0:
                return text[opening + 1 : i]
    return text[opening + 1 :]


def _last_argument(arguments: str) -> str:
    depth = 0
    for i in range(len(arguments) - 1, -1, -1):
        if arguments[i] in ")>":
            depth += 1
        elif arguments[i] in "(<":
            depth -= 1
        elif arguments[i] == "," and depth == 0:
            return arguments[i + 1 :].strip()
    return arguments


def _without_brackets(name: str) -> str:
    """Drops template arguments, and everything from the parameter list on."""
    kept: list[str] = []
    depth = 0
    for i, c in enumerate(name):
        if c == "<":
            depth += 1
        elif c == ">" and name[i - 1] != "-":
            depth -= 1
        elif depth == 0:
            if c == "(":
                break
            kept.append(c)
    return "".join(kept).strip()
