"""Count of processes that the kernel killed for lack of memory, near ours if it counts them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

_GROUPS = Path("/proc/self/cgroup")
_MOUNTED = Path("/sys/fs/cgroup")
_MACHINE = Path("/proc/vmstat")


class Kills(NamedTuple):
    """A count that only rises. near: of this process's control group, which its children are in
    too; else of the whole machine."""

    processes: int
    near: bool


def counted() -> Kills | None:
    """The count by now; None where the kernel does not say."""
    for file in _events():
        if (count := _count(file)) is not None:
            return Kills(count, near=True)
    count = _count(_MACHINE)
    return None if count is None else Kills(count, near=False)


def _events() -> list[Path]:
    """The files that may count the kills of this process's control group, of either version.

    In a container the group's path may be that on its host, with the group itself mounted.
    """
    found = []
    with contextlib.suppress(OSError):
        for line in _GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                root, name = _MOUNTED, "memory.events"
            elif "memory" in controllers.split(","):
                root, name = _MOUNTED / "memory", "memory.oom_control"
            else:
                continue
            found += [root / group.lstrip("/") / name, root / name]
    return found


def _count(file: Path) -> int | None:
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
