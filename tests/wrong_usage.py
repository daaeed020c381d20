"""A row of wrong usage: what is typed, and how it is refused; and the check of one."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import msgspec
import pytest

from iree_pilot.pipeline.cli import boundary, cli

#: What a message must never have.
NEVER = ("bug of iree-pilot", "Traceback", "[Errno")
MLIR = """func.func @main(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = arith.addf %x, %x : tensor<2x3xf32>
  return %0 : tensor<2x3xf32>
}
"""
NET = "import torch\ndef model():\n    return torch.nn.Linear(1, 1)\n"
INPUTS = "def inputs():\n    return (torch.ones(1, 1),)\n"


class Wrong(msgspec.Struct, frozen=True):
    """What is typed after `iree-pilot`; words that are said of it; the exit code; out: those words
    are on stdout, as of a program that fails; torch: it may be imported to find this out."""

    typed: str
    says: tuple[str, ...]
    code: int = 2
    out: bool = False
    torch: bool = False


def rows(*wrong: Wrong) -> pytest.MarkDecorator:
    """The rows as parameters of a test, named after what is typed."""
    marked = [pytest.param(one, marks=[pytest.mark.torch] if one.torch else []) for one in wrong]
    return pytest.mark.parametrize("wrong", marked, ids=[one.typed[:70] for one in wrong])


#: What a step says in a pipe when it begins, and while it goes on.
PROGRESS = re.compile(r"^(?:  still .*|(?:reading|tracing|installing IREE) .*)\n", re.MULTILINE)


def desk(directory: Path, files: dict[str, str | bytes]) -> None:
    """Writes files; a name that ends in / is an empty folder."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


class Refusals:
    """Refuses rows in a directory, in this process; torch is poisoned here and in children."""

    def __init__(
        self,
        directory: Path,
        cache: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self._directory, self._cache, self._capsys = directory, cache, capsys
        self._patch = monkeypatch
        monkeypatch.chdir(directory)
        monkeypatch.setenv("COLUMNS", "300")
        monkeypatch.setattr(boundary, "_hear_signals", lambda: None)

    def check(self, wrong: Wrong) -> None:
        """Asserts that what is typed is refused as the row has it, in good words."""
        if not wrong.torch:
            self._poison()
        before = self._state()
        code = boundary.guarded(cli, shlex.split(wrong.typed))
        said = self._capsys.readouterr()
        text = said.out if wrong.out else said.err
        assert code == wrong.code, said.out + said.err
        for words in wrong.says:
            assert words in text
        for words in NEVER:
            assert words not in said.out + said.err
        if not wrong.out:
            assert PROGRESS.sub("", said.out) == ""
            self._check_form(said.err)
        assert self._state() == before, "nothing is left half-written"
        assert list(self._cache.glob("store/.tmp/*")) == []

    def _check_form(self, said: str) -> None:
        """One error, and what to do next: the advice below it, or where the usage is told."""
        lines = said.strip().splitlines()
        (at,) = [n for n, line in enumerate(lines) if line.lower().startswith("error: ")]
        if lines[at].startswith("Error: "):  # click's
            assert any(line.startswith("Try 'iree-pilot") for line in lines[:at])
        else:
            assert len(lines) > at + 1, "there is no advice"

    def _poison(self) -> None:
        poison = self._cache / "poison"
        poison.mkdir(exist_ok=True)
        (poison / "torch.py").write_text("raise SystemExit('torch is loaded')\n")
        paths = (str(poison), os.environ.get("PYTHONPATH", ""))
        self._patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        self._patch.setitem(sys.modules, "torch", None)

    def _state(self) -> dict[Path, bytes | None]:
        return {
            path: path.read_bytes() if path.is_file() else None
            for path in self._directory.rglob("*")
        }
