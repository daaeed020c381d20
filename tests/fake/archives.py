"""Write parameter archives whose tensors are all zero."""

from __future__ import annotations

import json
import struct
from pathlib import Path

_BYTES = {"Q4_K": 1, "f32": 4, "bf16": 2, "f8E4M3FN": 1, "f8E4M3FNUZ": 1, "ui8": 1}
_SAFETENSORS = {"f32": "F32", "bf16": "BF16", "f8E4M3FN": "F8_E4M3", "ui8": "U8"}
_GGUF = {"f32": 0, "Q4_K": 12, "bf16": 30}


def size(dtype: str, shape: tuple[int, ...]) -> int:
    size = _BYTES[dtype]
    for d in shape:
        size *= d
    return size


def write_safetensors(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Path:
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + size(dtype, shape)
        header[name] = {
            "dtype": _SAFETENSORS[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps({"__metadata__": {"made": "here"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    return path


def write_gguf(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Path:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    values = [
        text("general.alignment") + struct.pack("<II", 4, 32),
        text("names") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
    ]
    out = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values)) + b"".join(values)
    offset = 0
    for name, (dtype, shape) in tensors.items():
        out += text(name) + struct.pack("<I", len(shape))
        out += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        out += struct.pack("<IQ", _GGUF[dtype], offset)
        offset += -(-size(dtype, shape) // 32) * 32
    out += bytes(-len(out) % 32)
    path.write_bytes(out + bytes(offset))
    return path
