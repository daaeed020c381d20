"""The sdist has what git has; the wheel works beside `models`, `pipeline` and `repro` of others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from places import ROOT

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


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git says what belongs to it")


def tracked() -> list[str]:
    """The files that git has, and those that it would offer for a commit."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    return [name for name in done.stdout.split("\0") if name and os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh checkout: setuptools also takes what earlier builds left in the one we are in."""
    place = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name, follow_symlinks=False)
    return place


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sdist")
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(place)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=checkout, check=True, timeout=300)
    (made,) = place.glob("*.tar.gz")
    return made


def wheel_of(source: Path, place: Path) -> Path:
    """The wheel that pip makes of a checkout or an sdist, without a look at dependencies."""
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", place, source]
    subprocess.run([*PIP, *build], check=True, timeout=300)
    (wheel,) = place.glob("iree_pilot-*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is installed to; the environment has everything else."""
    place = tmp_path_factory.mktemp("site")
    subprocess.run(
        [*PIP, "install", "--no-deps", "--target", place, wheel], check=True, timeout=300
    )
    return place


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


def test_only_one_name_is_installed(wheel: Path) -> None:
    names = {name.split("/")[0] for name in contents(wheel)}
    assert {name for name in names if not name.endswith(".dist-info")} == {"iree_pilot"}


def test_an_sdist_has_what_git_has(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = {m.name.partition("/")[2]: m for m in archive if not m.isdir()}
    made = {name for name in members if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert members.keys() - made == set(tracked())
    assert all(members[f"iree_pilot/{room}"].issym() for room in ("models", "pipeline", "repro"))
    assert members["scripts/setup"].mode & 0o100


def test_a_wheel_of_the_sdist_is_that_of_the_checkout(
    sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    assert contents(wheel_of(sdist, tmp_path)) == contents(wheel)


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


def _without_pytests_own() -> dict[str, str]:
    """The environment without what tells pytest how these tests are run, such as --basetemp."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


@pytest.mark.parametrize("words", [(), ("-p", "iree_pilot.pytest_plugin")])
def test_pytest_finds_the_plugin(site: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "test_net.py").write_text(
        "from iree_pilot import pytest_plugin\n"
        "def test_it(iree, request):\n"
        "    print('FROM', pytest_plugin.__file__)\n"
        "    assert request.config.option.iree_target == ['llvm-cpu']\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "--iree-target=llvm-cpu", *words],
        cwd=tmp_path,
        env=_without_pytests_own() | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"FROM {site}/iree_pilot/pytest_plugin.py" in done.stdout
