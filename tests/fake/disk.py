"""A disk that fills up, or is read-only: mounted for a test where that is allowed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def tiny_disk(directory: Path, size: int) -> Iterator[Path]:
    """Mounts an empty file system of `size` bytes at `directory` until the block ends.

    Skips the test where nothing may be mounted: there is no other way to fill a disk for a child.
    """
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a file system: {mounted.stderr.decode().strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True, capture_output=True)


@contextlib.contextmanager
def read_only_disk(directory: Path) -> Iterator[Path]:
    """Mounts an empty file system at `directory` that not even root may write to."""
    with tiny_disk(directory, 1 << 20):
        subprocess.run(["mount", "-o", "remount,ro", directory], check=True, capture_output=True)
        yield directory
