"""Other releases are installed whole or not at all, once, and by any number of processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake import STUB
from fake.wheels import add_release

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.processes.process import Outcome
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.toolchain import releases, toolchain
from iree_pilot.pipeline.toolchain.toolchain import ToolOutput

pytestmark = pytest.mark.real  # the installed compiler is asked whether it is the one

FIND = (
    "import sys; from iree_pilot.pipeline.toolchain import releases\n"
    "print(releases.find(sys.argv[1]).version)"
)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for all the packages in the world."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def root(cache: Path) -> Path:
    return cache / "releases"


def left_behind(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.name != ".locks")


@pytest.fixture
def quick(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the place of pip, which needs a second for each of its three starts."""

    def pip(*arguments: str, temporary: Path | None = None) -> ToolOutput:
        if arguments[0] == "index":
            name = arguments[2].replace("-", "_")
            found = [p.name.split("-")[1] for p in index.glob(f"{name}-*.whl")]
            return answer(f"Available versions: {', '.join(found)}\n" if found else "", found)
        target = Path(arguments[2])
        for pinned in (a for a in arguments if "==" in a):
            package, version = pinned.replace("-", "_").split("==")
            with zipfile.ZipFile(index / f"{package}-{version}-py3-none-any.whl") as archive:
                for entry in archive.infolist():
                    Path(archive.extract(entry, target)).chmod(entry.external_attr >> 16)
        return answer()

    def answer(stdout: str = "", ok: object = True) -> ToolOutput:
        said = "" if ok else "ERROR: No matching distribution found for it\n"
        return ToolOutput(outcome=ended(0 if ok else 1), stdout=stdout, stderr=said)

    monkeypatch.setattr(releases, "_pip", pip)


def ended(status: int) -> Outcome:
    return Outcome(
        argv=("pip",), ended_by="exit", exit_code=status, signal=None, seconds=0, peak_bytes=0
    )


def answers(**by_command: str) -> Callable[..., ToolOutput]:
    """A pip that says this on stderr, by its first argument, and fails."""

    def pip(*arguments: str, temporary: Path | None = None) -> ToolOutput:
        return ToolOutput(outcome=ended(1), stdout="", stderr=by_command[arguments[0]])

    return pip


def test_a_release_is_installed_with_its_runtime_and_found_again(index: Path, root: Path) -> None:
    add_release(index, "4.1.0")
    add_release(index, "4.2.0")
    told: list[str] = []
    found = releases.find("4.1.0", told.append)
    assert (found.version, found.revision) == ("4.1.0", "c" * 40)
    assert found.compiler == root / "4.1.0/iree/compiler/_mlir_libs/iree-compile"
    assert found.tool("iree-run-module").exists()
    assert told == ["downloading iree-base-compiler==4.1.0 and iree-base-runtime==4.1.0"]
    assert left_behind(root) == ["4.1.0"]
    for wheel in index.iterdir():
        wheel.unlink()
    assert releases.find("v4.1") == found, "nothing is downloaded twice"
    (only,) = releases.local()
    assert (only.version, only.directory) == ("4.1.0", root / "4.1.0")
    assert only.bytes > STUB.stat().st_size


def test_the_index_is_asked_for_releases_newest_first(index: Path) -> None:
    for version in ("4.9.0", "4.10.0", "4.2.0"):
        add_release(index, version, runtime=None)
    assert releases.available() == ["4.10.0", "4.9.0", "4.2.0"]


@pytest.mark.parametrize(
    ("compiler", "runtime"),
    [("3.6.0", "3.6.0"), ("3.7.1", "3.7.0"), ("3.8.0", None), ("3.10.2", "3.10.1")],
)
def test_a_compiler_gets_the_runtime_of_its_release(compiler: str, runtime: str | None) -> None:
    known = ["3.10.0", "3.10.1", "3.7.0", "3.6.0"]
    assert releases.matching_runtime(compiler, known) == runtime


def test_an_unknown_release_lists_those_that_there_are(
    quick: None, index: Path, root: Path
) -> None:
    add_release(index, "4.1.0")
    with pytest.raises(UsageError, match=r"no release 4\.7\.0 of iree-base-compiler for Py") as no:
        releases.find("4.7")
    assert no.value.advice == "There are: 4.1.0."
    assert left_behind(root) == []


@pytest.mark.parametrize("text", ["newest", "", "4.x"])
def test_a_release_is_a_version(text: str) -> None:
    with pytest.raises(UsageError, match="is not a release"):
        releases.find(text)


def test_a_path_is_a_local_build(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no iree-compile in"):
        releases.find(f"{tmp_path}/")


def test_a_release_that_calls_itself_another_is_refused(
    quick: None, index: Path, root: Path
) -> None:
    add_release(index, "4.1.0", says="4.0.0rc20250101")
    with pytest.raises(EnvironmentFault, match=r"wheel of release 4\.1\.0 says it is 4\.0\.0"):
        releases.find("4.1.0")
    assert left_behind(root) == []


def test_a_release_that_arrives_damaged_is_refused(index: Path, root: Path) -> None:
    add_release(index, "4.1.0", damaged=True)
    with pytest.raises(EnvironmentFault, match=r"arrived damaged: .*stub\.json \(1 file in all\)"):
        releases.find("4.1.0")
    assert left_behind(root) == []


def test_a_release_that_does_not_run_any_more_is_installed_again(
    quick: None, index: Path, root: Path
) -> None:
    add_release(index, "4.1.0")
    compiler = releases.find("4.1.0").compiler
    compiler.write_bytes(b"")
    assert releases.verify("4.1.0") == ["iree/compiler/_mlir_libs/iree-compile"]
    assert releases.find("4.1.0").compiler.read_bytes() == STUB.read_bytes()
    assert releases.verify("4.1.0") == []
    assert left_behind(root) == ["4.1.0"]


def test_of_two_processes_one_installs_and_both_find_it(index: Path, root: Path) -> None:
    add_release(index, "4.1.0")
    both = [
        subprocess.Popen([sys.executable, "-c", FIND, "4.1.0"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [p.communicate(timeout=120)[0] for p in both] == ["4.1.0\n", "4.1.0\n"]
    assert left_behind(root) == ["4.1.0"]


def test_an_interrupted_installation_leaves_nothing(
    quick: None, index: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_release(index, "4.1.0")
    real = releases._pip

    def interrupted(*arguments: str, temporary: Path | None = None) -> Any:
        if arguments[0] != "install":
            return real(*arguments, temporary=temporary)
        assert temporary is not None
        (temporary / "half.whl").write_bytes(b"half")
        assert left_behind(root) != []
        raise KeyboardInterrupt

    monkeypatch.setattr(releases, "_pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        releases.find("4.1.0")
    assert left_behind(root) == []


def test_what_a_killed_process_left_is_swept_but_not_what_is_under_way(
    quick: None, index: Path, root: Path
) -> None:
    add_release(index, "4.1.0")
    root.mkdir()
    for name in (".staging-4.1.0-dead1234", ".staging-4.0.0-dead1234", ".staging-4.2.0-alive123"):
        (root / name / "release").mkdir(parents=True)
    with Locks(root / ".locks").hold("4.2.0"):
        releases.find("4.1.0")
    assert left_behind(root) == [".staging-4.2.0-alive123", "4.1.0"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
            "ERROR: No matching distribution found for iree-base-compiler\n",
            "cannot install release 4.1.0: the package index does not answer (no network?)",
        ),
        (
            "/usr/bin/python3: No module named pip\n",
            "cannot install release 4.1.0: there is no pip in this Python environment",
        ),
        (
            "ERROR: Exception: the index is on fire\n",
            "cannot install release 4.1.0: Exception: the index is on fire",
        ),
    ],
)
def test_why_the_index_cannot_be_asked_is_told(
    said: str, message: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "_pip", answers(index=said))
    with pytest.raises(EnvironmentFault) as caught:
        releases.find("4.1.0")
    assert caught.value.message == message
    assert left_behind(root) == []


@pytest.mark.real
def test_without_network_the_releases_that_are_there_are_told(
    quick: None, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_release(index, "4.1.0")
    releases.find("4.1.0")
    monkeypatch.setattr(releases, "_pip", answers(index="SSLError"))
    with pytest.raises(EnvironmentFault, match=r"release 4\.2\.0") as caught:
        releases.find("4.2.0")
    assert caught.value.advice.endswith("4.1.0.")
    assert toolchain.installed().version in caught.value.advice


def test_a_full_disk_is_told_with_the_place(
    quick: None, index: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_release(index, "4.1.0")
    real, full = releases._pip, answers(install=f"ERROR: [Errno 28] {os.strerror(errno.ENOSPC)}\n")
    monkeypatch.setattr(
        releases, "_pip", lambda *a, **k: (full if a[0] == "install" else real)(*a, **k)
    )
    with pytest.raises(EnvironmentFault, match="the disk is full at") as caught:
        releases.find("4.1.0")
    assert "IREE_PILOT_CACHE" in caught.value.advice
    assert left_behind(root) == []


def test_a_removed_release_is_gone_and_cannot_be_removed_again(
    quick: None, index: Path, root: Path
) -> None:
    add_release(index, "4.1.0", runtime=None)
    assert releases.find("4.1.0").runtime is None
    releases.remove("4.1.0")
    assert left_behind(root) == []
    assert releases.local() == []
    with pytest.raises(UsageError, match=r"release 4\.1\.0: it is not installed"):
        releases.remove("4.1.0")


@pytest.mark.real
def test_the_release_of_this_environment_cannot_be_removed(root: Path) -> None:
    with pytest.raises(UsageError, match="it is that of this Python environment") as caught:
        releases.remove(toolchain.installed().version)
    assert "pip uninstall" in caught.value.advice


def test_a_directory_needs_no_slash_where_its_name_is_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("build", "4.1.0"):
        (tmp_path / name).mkdir()
    words = ("build", "4.1.0", "./4.1.0", "gone")
    assert [releases.is_directory(word) for word in words] == [True, False, True, False]


@pytest.mark.real
def test_the_release_of_this_environment_is_not_installed_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "_pip", lambda *a, **k: pytest.fail("pip was asked"))
    here = toolchain.installed()
    assert releases.find(None) == here
    assert releases.find(here.version) == here
