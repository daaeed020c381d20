"""Validation of the shaders in a Vulkan module by `spirv-val`.

A module holds the SPIR-V of its executables as words with their count before them, as FlatBuffers
keeps vectors. They are judged by the newest Vulkan that the installed validator knows, so that what
is only too new for an older one is no error.
"""

from __future__ import annotations

import functools
import mmap
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.workers import side_by_side

TOOL = "spirv-val"
#: Command that installs it on Debian and Ubuntu.
MEND = "apt-get install spirv-tools"
_MAGIC = b"\x03\x02\x23\x07"
_HEADER_WORDS = 5
_ENTRY_POINT = 15
_NAME_WORD = 3
_SECONDS = 60.0
_VULKAN = re.compile(r"under Vulkan (\d+)\.(\d+) semantics")
_RELEASE = re.compile(r"SPIRV-Tools (v\S+)")
_ERROR = re.compile(r"error: (?:line \d+: )?(.*)")
_IDS = re.compile(r"%\d+|'\d+\[%[^\]]*\]'|\b\d+\[%[^\]]*\]")
#: Error of a validator that is older than the features of the shader.
_TOO_OLD = re.compile(r"Invalid capability operand: \d+")


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """An error in some shaders, by their entry points; ids and lines are left out."""

    message: str
    shaders: tuple[str, ...]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a validator of a release (`v2023.1`) for so many shaders.

    invalid: errors. unknown: what this validator is too old to judge.
    """

    validator: str
    shaders: int
    invalid: tuple[Complaint, ...] = ()
    unknown: tuple[Complaint, ...] = ()

    @property
    def errors(self) -> int:
        """Number of invalid shaders."""
        return sum(len(complaint.shaders) for complaint in self.invalid)


class Validator(msgspec.Struct, frozen=True, kw_only=True):
    """An installed spirv-val: where it is, its release, what `--target-env` it is called with."""

    path: str
    release: str
    environment: str


def validator() -> Validator | None:
    """The `spirv-val` on PATH; None where there is none, or none that knows Vulkan."""
    found = shutil.which(TOOL)
    return _validator(found) if found else None


@functools.cache
def _validator(path: str) -> Validator | None:
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        _, output = _run([path, "--version"], Path(scratch))
    known = sorted((int(major), int(minor)) for major, minor in _VULKAN.findall(output))
    release = _RELEASE.search(output)
    if not known:
        return None
    major, minor = known[-1]
    return Validator(
        path=path,
        release=release[1] if release else "unknown",
        environment=f"vulkan{major}.{minor}",
    )


def check(module: Path) -> Checked | None:
    """Validates a module's shaders; None without a validator, or without shaders.

    Raises OSError where the module cannot be read.
    """
    tool = validator()
    if tool is None:
        return None
    found = shaders(module)
    if not found:
        return None
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:

        def judged(numbered: tuple[int, bytes]) -> str:
            number, code = numbered
            place = Path(scratch, str(number))
            place.mkdir()
            (place / "shader.spv").write_bytes(code)
            argv = [tool.path, "--target-env", tool.environment, "shader.spv"]
            failed, output = _run(argv, place)
            return _complaint(output) if failed else ""

        codes = list(enumerate(code for _, code in found))
        said = side_by_side(judged, codes, os.cpu_count() or 1)
    named = [(name, message) for (name, _), message in zip(found, said, strict=True) if message]
    complaints = [
        Complaint(message=message, shaders=tuple(name for name, other in named if other == message))
        for message in dict.fromkeys(message for _, message in named)
    ]
    return Checked(
        validator=tool.release,
        shaders=len(found),
        invalid=tuple(c for c in complaints if not _TOO_OLD.fullmatch(c.message)),
        unknown=tuple(c for c in complaints if _TOO_OLD.fullmatch(c.message)),
    )


def shaders(module: Path) -> list[tuple[str, bytes]]:
    """(entry point, SPIR-V) of each shader in a compiled module, in its order."""
    if module.stat().st_size == 0:
        return []
    with (
        module.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return list(_shaders(data))


def _shaders(data: mmap.mmap) -> Iterator[tuple[str, bytes]]:
    start = data.find(_MAGIC)
    while start >= 0:
        words = struct.unpack_from("<I", data, start - 4)[0] if start >= 4 else 0
        if words > _HEADER_WORDS and start + 4 * words <= len(data):
            code = data[start : start + 4 * words]
            yield _entry_point(code), code
        start = data.find(_MAGIC, start + 1)


def _entry_point(code: bytes) -> str:
    """The name of the first entry point; empty where the words lead nowhere."""
    at = 4 * _HEADER_WORDS
    while at + 4 <= len(code):
        word = struct.unpack_from("<I", code, at)[0]
        opcode, count = word & 0xFFFF, word >> 16
        if opcode == _ENTRY_POINT:
            name = code[at + 4 * _NAME_WORD : at + 4 * count]
            return name.split(b"\0", 1)[0].decode(errors="replace")
        if count == 0:
            break
        at += 4 * count
    return ""


def _complaint(output: str) -> str:
    found = _ERROR.search(output)
    lines = output.strip().splitlines()
    text = found[1] if found else lines[0] if lines else "it failed without a word"
    return _IDS.sub("%", text).strip()


def _run(argv: list[str], place: Path) -> tuple[bool, str]:
    """(True if it failed, its output)."""
    stdout, stderr = place / "stdout.txt", place / "stderr.txt"
    limits = process.Limits(seconds=_SECONDS)
    outcome = process.run(argv, stdout=stdout, stderr=stderr, cwd=place, limits=limits)
    output = stderr.read_text(encoding="utf-8", errors="replace") + stdout.read_text(
        encoding="utf-8", errors="replace"
    )
    return not outcome.ok, output
