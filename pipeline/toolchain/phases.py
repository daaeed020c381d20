"""Compilation phases in the dumps of one compile: which were reached, how long, how large."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import msgspec

#: An operation at the start of a line of printed IR, in the custom or the generic form.
_OPERATION = re.compile(
    rb"^[ \t]*(?:%[^=\n]*= )?(?:([a-z_][a-z0-9_]*)\.[a-zA-Z_]"
    rb'|"([a-z_][a-z0-9_]*)\.[\w.$]+"\('
    rb"|(module|return|unrealized_conversion_cast)\b)",
    re.MULTILINE,
)
#: Operations that MLIR prints without their dialect.
_BARE = {b"module": "builtin", b"return": "func", b"unrealized_conversion_cast": "builtin"}
#: End of the operations: after it, a printed file lists the contents of its resources.
_RESOURCES = b"\n{-#"
#: Phases before the first one that names a target: what they make of a program is the same for all.
UNTARGETED = ("start", "input", "abi")
#: Phases after them that have no code of a target yet: many failures there are the same for all.
WHOLE_PROGRAM = ("preprocessing", "global-optimization", "dispatch-creation", "flow")
_DUMP = re.compile(r".*\.(\d+)\.([a-z-]+)\.mlir")


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One phase that a compile finished.

    seconds: wall time since the end of the phase before it, its dump included. bytes: size of the
    printed IR after it. ops: operations by dialect, as printed (terminators and regions that the
    custom form leaves out are not counted). The last phase (`end`) leaves a module, not IR, so
    its bytes are the module's and its ops are empty.
    """

    name: str
    seconds: float
    bytes: int
    ops: dict[str, int]

    @property
    def op_count(self) -> int:
        return sum(self.ops.values())


def count_operations(ir: bytes) -> dict[str, int]:
    """Operations by dialect in printed IR, most frequent first."""
    counts: Counter[str] = Counter()
    end = ir.rfind(_RESOURCES)
    for custom, generic, bare in _OPERATION.findall(ir, 0, len(ir) if end < 0 else end):
        counts[_BARE[bare] if bare else (custom or generic).decode()] += 1
    return dict(counts.most_common())


class DumpReader:
    """Reads the dumps of a running compile as they appear.

    A dump is complete once a later one exists or the compiler has ended, so `read` leaves the
    newest alone until `final`. Each dump is read once.
    """

    def __init__(self, directory: Path, begun_ns: int) -> None:
        self._directory = directory
        self._previous_ns = begun_ns
        self._seen = 0
        self.phases: list[Phase] = []
        self.last_dump: Path | None = None

    @property
    def end_ns(self) -> int:
        """Time at which the last dump read was complete (nanoseconds since the epoch)."""
        return self._previous_ns

    def read(self, *, final: bool = False) -> list[Phase]:
        """Phases whose dumps became complete since the last call, in order."""
        dumps = dump_files(self._directory)
        fresh = dumps[self._seen : None if final else max(self._seen, len(dumps) - 1)]
        phases = [self._phase(name, path) for name, path in fresh]
        self._seen += len(fresh)
        self.phases += phases
        return phases

    def _phase(self, name: str, path: Path) -> Phase:
        content = path.read_bytes()
        written_ns = path.stat().st_mtime_ns
        seconds = max(0, written_ns - self._previous_ns) / 1e9
        self._previous_ns = written_ns
        self.last_dump = path
        return Phase(name=name, seconds=seconds, bytes=len(content), ops=count_operations(content))


def dump_files(directory: Path) -> list[tuple[str, Path]]:
    """(phase, file) of `MODULE.N.PHASE.mlir` in a dump directory, in the order of N."""
    if not directory.is_dir():
        return []
    found = []
    for path in directory.iterdir():
        match = _DUMP.fullmatch(path.name)
        if match:
            found.append((int(match[1]), match[2], path))
    return [(phase, path) for _, phase, path in sorted(found)]
