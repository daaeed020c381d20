"""The command line as a user runs it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

PROGRAM = Path(sys.executable).with_name("iree-pilot")
_DEADLINE_SECONDS = 900


class Done(msgspec.Struct, frozen=True):
    """How a command ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document that stdout is."""
        return msgspec.json.decode(self.out)


def start(
    *arguments: str | Path, env: Mapping[str, str | Path] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Starts `iree-pilot` with `env` added to this process's environment, outside any terminal.

    Should it crash, its stderr says where.
    """
    own = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    own |= {name: str(value) for name, value in (env or {}).items()}
    own.pop("COLUMNS", None)
    return subprocess.Popen(
        [PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=own,
        text=True,
        **options,
    )


def pilot(
    *arguments: str | Path, env: Mapping[str, str | Path] | None = None, **options: Any
) -> Done:
    """Runs `iree-pilot` to its end."""
    with start(*arguments, env=env, **options) as process:
        try:
            out, err = process.communicate(timeout=_DEADLINE_SECONDS)
        except BaseException:
            process.terminate()
            raise
    return Done(process.returncode, out, err)
