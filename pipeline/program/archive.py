"""Contents of parameter archives, from their headers, and lookup of a program's parameters.

The formats are those that IREE's runtime reads, distinguished by the file's name as it does:
`.safetensors`, `.gguf` and `.irpa`. Only headers are read, however large the archive.

The runtime's ParameterIndex reads `.irpa`. Of the other two it tells no types and no shapes, and
knows not all of GGUF's types; safetensors' own reader tells no offsets, and takes all values at
once to write them; gguf is an optional extra, and its reader makes an array of each of the header's
strings.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from iree_pilot.pipeline import plural
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.program import substitutes
from iree_pilot.pipeline.program.program import (
    ELEMENT_TYPES,
    TORCH_ELEMENT_TYPES,
    Parameter,
    Program,
    scopes_text,
)

_SAFETENSORS = {
    "F64": "f64",
    "F32": "f32",
    "F16": "f16",
    "BF16": "bf16",
    "F8_E4M3": "f8E4M3FN",
    "F8_E4M3FNUZ": "f8E4M3FNUZ",
    "F8_E5M2": "f8E5M2",
    "F8_E5M2FNUZ": "f8E5M2FNUZ",
    "I64": "i64",
    "I32": "i32",
    "I16": "i16",
    "I8": "i8",
    "U64": "ui64",
    "U32": "ui32",
    "U16": "ui16",
    "U8": "ui8",
    "BOOL": "i1",
}
_GGUF = {0: "f32", 1: "f16", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64", 30: "bf16"}
#: llama.cpp's names of the types whose numbers are packed in blocks.
_GGUF_PACKED = {2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1"} | {
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
}
#: Struct formats of GGUF's metadata values by type number; 8 is a string, 9 an array.
_GGUF_VALUES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"} | {
    10: "Q",
    11: "q",
    12: "d",
}
#: iree-turbine writes each tensor's type into its entry's metadata, behind this word.
_IRPA_TENSOR = b"PYTORCH:"


class ArchiveEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of an archive. dtype (IREE's name), shape and bytes where the format tells.

    offset: where its bytes begin in the file; None where they are not written out.
    """

    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    bytes: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.bytes} bytes"
        return "x".join([*(str(d) for d in self.shape), self.dtype or "?"])


class _Malformed(Exception):
    """The header is not what the format says; the message is the reason."""


def check_parameters(program: Program, directory: Path) -> None:
    """Raises UsageError unless the program's archives hold all its parameters as it needs them.

    `directory` is the program's. The message names the tensors that lack or do not fit, with both
    types. An 8-bit float may be stored as bytes (i8, ui8): older formats have no name for some.
    One number may have dimensions of size 1.
    """
    wanted = program.parameters
    if wanted is None:
        return
    if wanted.missing:
        several = "" if len(wanted.by_scope) == 1 else f" of scope {scopes_text(wanted.missing)}"
        scope = "" if len(wanted.by_scope) == 1 else f"{wanted.missing[0]}="
        count = sum(p.scope in (None, *wanted.missing) for p in wanted.tensors)
        its = f"its {plural.count(count, 'parameter')}" if count else "its parameters"
        raise UsageError(
            f"{program.source}: there are no values for {its}{several}",
            advice=f"Give an archive: --weights {scope}FILE.irpa, .safetensors or .gguf.",
        )
    for scope, archives in wanted.by_scope.items():
        tensors = tuple(p for p in wanted.tensors if p.scope in (None, scope))
        _check(program.source, tensors, [directory / file for file in archives])


def _check(source: str, tensors: tuple[Parameter, ...], archives: list[Path]) -> None:
    held = {n: e for file in archives for n, e in read(file).items()}
    faults = [fault for p in tensors if (fault := _misfit(p, held.get(p.name)))]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UsageError(
            f"{', '.join(map(str, archives))} "
            f"{'does' if len(archives) == 1 else 'do'} not fit {source}: "
            f"{faults[0]}{more}",
            advice=f"The program loads {plural.count(len(tensors), 'tensor')}, "
            f"{'the archive has' if len(archives) == 1 else 'the archives have'} "
            f"{len(held)}; names, shapes and dtypes must be the program's own.",
        )


def _misfit(want: Parameter, got: ArchiveEntry | None) -> str:
    if got is None:
        return f"it lacks the tensor {want.name}, which the program loads as {_type(want)}"
    element = ELEMENT_TYPES.get(want.dtype)
    if element is None:
        return ""
    size = element.bytes(math.prod(want.shape))
    if got.shape is None:
        fits = got.bytes == size
    elif element.bits:
        # No format has a name for it: what counts is how many bytes there are.
        fits = got.bytes == size
    else:
        raw = element.size == 1 and got.dtype in ("i8", "ui8")
        one = math.prod(want.shape) == math.prod(got.shape) == 1
        fits = (one or got.shape == want.shape) and (got.dtype == want.dtype or raw)
    return "" if fits else f"its tensor {want.name} is {got}, but {_type(want)} in the program"


def _type(parameter: Parameter) -> str:
    return str(ArchiveEntry(dtype=parameter.dtype, shape=parameter.shape))


def read(path: Path) -> dict[str, ArchiveEntry]:
    """The tensors of an archive by name.

    Raises UsageError for a missing, damaged or unknown kind of file.
    """
    readers = {".safetensors": _safetensors, ".gguf": _gguf, ".irpa": _irpa}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"cannot read parameters from {path}: its name ends in none of {', '.join(readers)}",
            advice="IREE's runtime recognises the formats by these suffixes.",
        )
    try:
        with path.open("rb") as file:
            start = file.read(substitutes.START_BYTES)
            if not start:
                raise _Malformed("it is empty")
            substitutes.refuse(path, start)
            file.seek(0)
            return reader(file, path.stat().st_size)
    except OSError as fault:
        raise UsageError(
            f"cannot read parameters from {path}: {fault.strerror}",
            advice="Check the path and its permissions.",
        ) from fault
    except RecursionError as fault:
        raise UsageError(
            f"cannot read parameters from {path}: its header is nested too deeply",
            advice="No tool writes such a file; fetch or write it again.",
        ) from fault
    except (_Malformed, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as fault:
        raise UsageError(
            f"cannot read parameters from {path}: {fault}",
            advice="The file may be cut short or of another format; fetch or write it again.",
        ) from fault


def write(path: Path, tensors: Mapping[str, tuple[ArchiveEntry, Callable[[], bytes]]]) -> None:
    """Writes a safetensors file, one tensor's bytes after the other, as each is asked for.

    8-bit floats and packed integers are written as bytes: the format has no name for some.
    """
    names = {element: name for name, element in _SAFETENSORS.items()}
    header: dict[str, Any] = {}
    end = 0
    for tensor, (entry, _) in tensors.items():
        element = ELEMENT_TYPES[entry.dtype or "ui8"]
        begin, end = end, end + element.bytes(math.prod(entry.shape or ()))
        raw = element.name.startswith("f8") or element.bits
        header[tensor] = {
            "dtype": "U8" if raw else names[element.name],
            "shape": (end - begin,) if element.bits else entry.shape or (),
            "data_offsets": (begin, end),
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, value in tensors.values():
            file.write(value())


def _take(file: BinaryIO, count: int, size: int) -> bytes:
    if count > size - file.tell():
        raise _Malformed(f"the file ends inside its header ({size} bytes)")
    return file.read(count)


def _unpack(file: BinaryIO, layout: str, size: int) -> tuple[Any, ...]:
    return struct.unpack("<" + layout, _take(file, struct.calcsize("<" + layout), size))


def _within(name: str, end: int, size: int) -> None:
    if end > size:
        raise _Malformed(f"{name} ends at byte {end}, but the file has {size}")


def _safetensors(file: BinaryIO, size: int) -> dict[str, ArchiveEntry]:
    (length,) = _unpack(file, "Q", size)
    header = json.loads(_take(file, length, size))
    data = 8 + length
    entries = {}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        _within(name, data + end, size)
        entries[name] = ArchiveEntry(
            dtype=_SAFETENSORS.get(tensor["dtype"], tensor["dtype"]),
            shape=tuple(tensor["shape"]),
            bytes=end - begin,
            offset=data + begin,
        )
    _gapless(entries, data, size)
    return entries


def _gapless(entries: Mapping[str, ArchiveEntry], data: int, size: int) -> None:
    """Raises _Malformed unless the tensors fill the file from byte `data` to its end, each with the
    bytes of its type: safetensors' own reader refuses any other file."""
    at = data
    spans = sorted((entry.offset or 0, entry.bytes or 0, name) for name, entry in entries.items())
    for begin, count, name in spans:
        if begin != at:
            raise _Malformed(
                f"{name} begins at byte {begin}, expected {at}: safetensors has neither gaps nor "
                "overlaps between tensors"
            )
        entry, at = entries[name], begin + count
        element = ELEMENT_TYPES.get(entry.dtype or "")
        if element and count != element.bytes(math.prod(entry.shape or ())):
            raise _Malformed(f"{name} is {entry}, but its offsets span {count} bytes")
    if at != size:
        raise _Malformed(f"the tensors end at byte {at}, but the file has {size}")


def _gguf(file: BinaryIO, size: int) -> dict[str, ArchiveEntry]:
    magic, version, tensors, values = _unpack(file, "4sIQQ", size)
    if magic != b"GGUF" or version not in (2, 3):
        raise _Malformed("it is not GGUF version 2 or 3")

    def text() -> str:
        (length,) = _unpack(file, "Q", size)
        return _take(file, length, size).decode()

    def value(kind: int) -> Any:
        if kind == 8:
            return text()
        if kind == 9:
            of, count = _unpack(file, "IQ", size)
            for _ in range(count):
                value(of)
            return None
        return _unpack(file, _GGUF_VALUES[kind], size)[0]

    metadata = {text(): value(*_unpack(file, "I", size)) for _ in range(values)}
    entries, ends, offsets = {}, {}, {}
    for _ in range(tensors):
        name = text()
        (rank,) = _unpack(file, "I", size)
        # GGUF lists dimensions from the innermost.
        shape = tuple(reversed(_unpack(file, f"{rank}Q", size)))
        kind, offset = _unpack(file, "IQ", size)
        dtype = _GGUF.get(kind) or f"ggml-{_GGUF_PACKED.get(kind, f'type-{kind}')}"
        count = math.prod(shape) * ELEMENT_TYPES[dtype].size if kind in _GGUF else None
        offsets[name], ends[name] = offset, offset + (count or 0)
        entries[name] = ArchiveEntry(dtype=dtype, shape=shape, bytes=count)
    begin = file.tell()
    begin += -begin % int(metadata.get("general.alignment", 32))
    for name, end in ends.items():
        _within(name, begin + end, size)
    return {
        name: msgspec.structs.replace(entry, offset=begin + offsets[name])
        for name, entry in entries.items()
    }


def _irpa(file: BinaryIO, size: int) -> dict[str, ArchiveEntry]:
    from iree.runtime import ParameterIndex

    index = ParameterIndex()
    try:
        index.load(file.name)
        stored = index.items()
    except (LookupError, RuntimeError, ValueError) as fault:
        # Behind the runtime's own file and line.
        raise _Malformed(str(fault).partition("; ")[2] or str(fault)) from fault
    entries = {}
    for name, one in stored:
        entry = _irpa_entry(bytes(one.metadata), one.length)
        offset = one.file_storage[1] if one.is_file else None
        entries[name] = msgspec.structs.replace(entry, offset=offset)
    return entries


def _irpa_entry(metadata: bytes, count: int) -> ArchiveEntry:
    if not metadata.startswith(_IRPA_TENSOR):
        return ArchiveEntry(bytes=count)
    tensor = json.loads(metadata.removeprefix(_IRPA_TENSOR))
    return ArchiveEntry(
        dtype=TORCH_ELEMENT_TYPES.get(tensor["dtype"], tensor["dtype"]),
        shape=tuple(tensor["shape"]),
        bytes=count,
    )
