"""The wheel in a team's repository that has `models`, `pipeline` and `repro` folders of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).parent.parent
FAILS = """\
func.func @main(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = arith.negf %x : tensor<4x4xf32>
  %1 = util.optimization_barrier %0 : tensor<4x4xf32>
  %2 = stablehlo.custom_call @nosuch(%1) : (tensor<4x4xf32>) -> tensor<4x4xf32>
  return %2 : tensor<4x4xf32>
}
"""
MODEL = """\
import torch
from models.net import Net


def model():
    return Net().eval()


def inputs():
    return (torch.randn(2, 4),)
"""
NET = """\
import torch


class Net(torch.nn.Module):
    def forward(self, x):
        return x * 2 + 1
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is installed to; the environment has everything else."""
    place = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", place, ROOT]
    subprocess.run([*pip, *build], check=True, timeout=300)
    (wheel,) = place.glob("iree_pilot-*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", place / "site", wheel], check=True, timeout=300
    )
    return place / "site"


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """A repository of somebody's model, whose folders are called like ours."""
    for room in ("models", "pipeline", "repro"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f"print('the {room} of the team')\n")
        (tmp_path / room / "cli.py").write_text("raise SystemExit('not this one')\n")
    (tmp_path / "models" / "__init__.py").write_text("")
    (tmp_path / "models" / "net.py").write_text(NET)
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "fails.mlir").write_text(FAILS)
    (tmp_path / "nightly.toml").write_text(
        '[matrix]\nmodels = ["net.py"]\ntargets = ["llvm-cpu"]\n'
    )
    return tmp_path


def pilot(site: Path, team: Path, python_path: str, *words: str) -> tuple[int, Any]:
    """(exit code, the JSON document) of the installed command."""
    path = os.pathsep.join(filter(None, (python_path, str(site))))
    done = subprocess.run(
        [sys.executable, site / "bin" / "iree-pilot", *words, "--json"],
        cwd=team,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "of the team" not in done.stdout + done.stderr
    assert done.stdout, done.stderr
    return done.returncode, msgspec.json.decode(done.stdout)


def test_only_one_name_is_installed(site: Path) -> None:
    (wheel,) = site.parent.glob("*.whl")
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"iree_pilot"}


@pytest.mark.real
@pytest.mark.parametrize("python_path", ["", "."])
def test_commands_work_beside_folders_of_the_same_names(
    site: Path, team: Path, cache: Path, data: Path, python_path: str
) -> None:
    def run(*words: str) -> tuple[int, Any]:
        return pilot(site, team, python_path, *words)

    code, document = run("run", "net.py", "-t", "llvm-cpu")
    assert (code, document["cases"][0]["status"]) == (0, "ok"), document
    code, document = run("bisect", "fails.mlir", "-t", "llvm-cpu", "-o", "folder")
    assert (code, document["status"]) == (0, "isolated"), document
    code, document = run("verify", "folder")
    assert code == 0, document
    code, document = run("nightly", "run", "-c", "nightly.toml", "--database", "nights.db")
    assert code == 0, document
    code, document = run("run", "rms-norm:tiny", "-t", "llvm-cpu")
    assert (code, document["cases"][0]["status"]) == (0, "ok"), document
