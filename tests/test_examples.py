"""The files in `examples/`: each does what the page that shows it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

import iree_pilot

EXAMPLES = ROOT / "examples"
#: Verdicts on llvm-cpu; the kind of the failure where it is not one of those.
SOURCES = {
    "chunk.py": "ok",
    "fp8_attention.py": "ok",
    "gate.py": "trace-error",
    "i8_sub.py": "crash",
    "linear.py": "ok",
    "matmul.mlir": "ok",
    "mlp.py": "ok",
    "model.py": "ok",
    "overflow.py": "ran",
    "segment_mask.py": "mismatch",
    "two_devices.mlir": "diagnostic",
    "two_gaps.py": "crash",
    "two_outputs.mlir": "ok",
}
#: What other tests run.
OTHERS = {"test_mlp.py", "use_the_api.py", "nightly.toml"}


@pytest.fixture(autouse=True)
def one_cache(shared_cache: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IREE_PILOT_CACHE", str(shared_cache))


def test_each_is_known() -> None:
    files = {file.name for file in EXAMPLES.iterdir() if file.is_file()}
    assert files == {*SOURCES, *OTHERS}


@pytest.mark.real
@pytest.mark.torch
@pytest.mark.parametrize("name", SOURCES)
def test_a_source_has_its_verdict(name: str) -> None:
    try:
        result = iree_pilot.run(iree_pilot.trace(EXAMPLES / name), "llvm-cpu")
    except iree_pilot.TraceFailed as failed:
        assert failed.failure.kind == SOURCES[name]
        return
    assert (result.failure.kind if result.failure else result.status) == SOURCES[name]


@pytest.mark.real
def test_the_night_is_planned() -> None:
    words = ["-P", "-m", "iree_pilot", "nightly", "run", "-c", EXAMPLES / "nightly.toml"]
    done = subprocess.run(
        [sys.executable, *words, "--dry-run"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "model.py | llvm-cpu | " in done.stdout
