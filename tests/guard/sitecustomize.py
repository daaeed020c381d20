"""Keeps torch and the binaries of IREE's wheels from unit tests and from each Python they start.

Those find this by PYTHONPATH, and load it when they start.
"""

from __future__ import annotations

import os
import sys
from typing import Any


class NoTorch:
    """A finder of modules that refuses torch."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        if name == "torch":
            raise ImportError("a unit test imports torch; is it to be marked `torch`?")


def no_binaries(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook that refuses to start what the wheels bring; stand-ins lie elsewhere."""
    if event != "subprocess.Popen":
        return
    program = os.fsdecode(arguments[0])
    name = program.rpartition("/")[2]
    if program.startswith(sys.prefix) and name.startswith("iree-") and name != "iree-pilot":
        raise RuntimeError(f"a unit test starts {name}; is it to be marked `real`?")


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, NoTorch)  # type: ignore[arg-type]
    sys.addaudithook(no_binaries)
