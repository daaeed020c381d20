"""The command line as a user runs it, in a process of its own."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from iree_pilot.pipeline.cli import boundary, cli

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


def here(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Done:
    """Runs `iree-pilot` in this process: what imports much that the tests have imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundary, "_hear_signals", lambda: None)
        code = boundary.guarded(cli, [str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return Done(code, out, err)


class Shown(msgspec.Struct, frozen=True):
    """How a command on a terminal ended: exit code, what stands there at the end, and all that it
    wrote, in pieces as they came."""

    code: int
    lines: list[str]
    pieces: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def terminal(
    *arguments: str | Path,
    columns: int = 80,
    env: Mapping[str, str | Path] | None = None,
    cwd: Path,
) -> Shown:
    """Runs `iree-pilot` on a terminal of so many columns to its end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    own = {**os.environ, "TERM": "xterm-256color"} | {k: str(v) for k, v in (env or {}).items()}
    own.pop("COLUMNS", None)
    with subprocess.Popen(
        [PROGRAM, *arguments], stdin=slave, stdout=slave, stderr=slave, env=own, cwd=cwd
    ) as process:
        os.close(slave)
        pieces = []
        with open(master, "rb", buffering=0) as reader:  # noqa: PTH123 - a descriptor
            while piece := _read(reader):
                pieces.append(piece)
    whole = b"".join(pieces).decode()
    return Shown(process.returncode, _screen(whole), [p.decode(errors="replace") for p in pieces])


def _read(reader: io.FileIO) -> bytes:
    try:
        return reader.read(65536) or b""
    except OSError:  # what Linux says when nobody has the other end
        return b""


_CODE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


def _screen(written: str) -> list[str]:
    """The lines that stand on a terminal after this: what Rich writes, and no more, is understood.

    Lines are not wrapped: one that is longer than the terminal is seen as it is.
    """
    lines, row, at = [""], 0, 0
    while at < len(written):
        code = _CODE.match(written, at)
        end = code.end() if code else at + 1
        if code and code[2] == "A":
            row -= int(code[1] or 1)
        elif code and code[2] == "K":
            lines[row] = ""
        elif written[at] == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif not code and written[at] != "\r":
            lines[row] += written[at]
        at = end
    return [line.rstrip() for line in lines]
