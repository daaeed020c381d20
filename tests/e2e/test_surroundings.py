"""Commands where the surroundings lack something: the current directory, characters, columns."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from driver import PROGRAM, pilot
from fake import stub_release
from wrong_usage import MLIR

GONE = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'


def in_no_directory(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", GONE, "sh", PROGRAM, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "typed",
    ["bisect net.py -t llvm-cpu", "nightly status", "doctor", "run a.mlir -t hip -- --help"],
)
def test_a_directory_that_is_gone_is_told(tmp_path: Path, typed: str) -> None:
    done = in_no_directory(tmp_path, *typed.split())
    assert (done.returncode, done.stdout) == (3, "")
    told = "error: the current directory is gone\nChange to another one: cd DIRECTORY.\n"
    assert done.stderr == told


@pytest.mark.parametrize("typed", ["--version", "run --help"])
def test_help_needs_no_directory(tmp_path: Path, typed: str) -> None:
    done = in_no_directory(tmp_path, *typed.split())
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.real
@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["stdio", "locale"],
)
def test_what_the_encoding_lacks_loses_no_answer(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "a.mlir").write_text(MLIR)
    done = pilot("run", "a.mlir", "-t", "llvm-cpu", "-q", env=env, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^llvm-cpu +ok .* (us|ms) ", done.out, re.MULTILINE), done.out


@pytest.mark.parametrize("columns", ["1", "20"])
def test_columns_cut_nothing_in_a_pipe(tmp_path: Path, columns: str) -> None:
    stub_release(tmp_path / "release")
    (tmp_path / "a.mlir").write_text("module {\n}\n")
    words = ("compile", "a.mlir", "-t", "llvm-cpu", "-q", "--release", "release")
    done = subprocess.run(
        [PROGRAM, *words],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": columns},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "llvm-cpu" in done.stdout
