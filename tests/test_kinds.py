"""A unit test has no torch, no compiler and no runtime, and nor has what it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kinds
import pytest

COMPILER = Path(sys.prefix) / "bin" / "iree-compile"


def said_by(code: str) -> str:
    """What a Python that is started here writes to stderr before it fails."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    return done.stderr


def test_importing_torch_fails() -> None:
    # Here others may have loaded it before; a child loads it anew.
    assert "is it to be marked `torch`" in said_by("import torch")


def test_the_compiler_cannot_be_started() -> None:
    with pytest.raises(RuntimeError, match="is it to be marked `real`"):
        subprocess.run([COMPILER, "--version"])
    code = f"import subprocess; subprocess.run([{str(COMPILER)!r}, '--version'])"
    assert "is it to be marked `real`" in said_by(code)


@pytest.mark.real
@pytest.mark.torch
def test_others_have_both() -> None:
    code = f"import subprocess, torch; subprocess.run([{str(COMPILER)!r}, '--version'])"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("code", "torch"),
    [
        ("import torch.nn", True),
        ("from iree.turbine import aot", True),
        ("from iree_pilot.pipeline.frontends.pytorch import torch_export", True),
        ("from fake import checkpoints", True),
        ("def model():\n    import torch", False),
        ("TEXT = 'import torch'", False),
        ("from dialects import torch", False),
        ("from iree_pilot.pipeline import cli", False),
    ],
)
def test_a_file_says_whether_it_needs_torch(tmp_path: Path, code: str, torch: bool) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(code)
    assert kinds.is_torch(file) == torch
