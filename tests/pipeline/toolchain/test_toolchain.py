"""A release is found where it is installed, and asked what it knows, once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fake import STUB, stub_release, stub_toolchain

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.toolchain import toolchain


def test_version_revision_phases_and_flags_are_what_the_binary_says(tmp_path: Path) -> None:
    found = stub_toolchain(
        tmp_path,
        version="4.0.0",
        revision="ab" * 20,
        phases=["start", "input", "middle", "end"],
        flags=["compile-from", "compile-to", "iree-new-flag"],
    )
    assert found.version == "4.0.0"
    assert found.revision.startswith("ab" * 20)
    assert found.phases == ("start", "input", "middle", "end")
    assert found.flags == {"compile-from", "compile-to", "iree-new-flag"}
    assert found.compiler == tmp_path / "iree/compiler/_mlir_libs/iree-compile"
    assert found.opt == tmp_path / "iree/compiler/_mlir_libs/iree-opt"
    assert found.tool("iree-run-module") == tmp_path / "iree/_runtime_libs/iree-run-module"


def test_a_binary_is_asked_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stub_toolchain(tmp_path)
    monkeypatch.setattr(toolchain, "ask", lambda *a, **k: pytest.fail("it was asked again"))
    assert toolchain.from_directory(tmp_path) == first


def test_a_rebuilt_binary_is_asked_again_and_has_another_revision(tmp_path: Path) -> None:
    first = stub_toolchain(tmp_path, phases=["start", "end"])
    compiler = stub_release(tmp_path, phases=["start", "new", "end"])
    with compiler.open("a") as file:
        file.write("# rebuilt\n")
    second = toolchain.from_directory(tmp_path)
    assert second.phases == ("start", "new", "end")
    assert second.revision != first.revision, "the caches of a local build must not be mixed up"


def test_what_was_remembered_wrongly_is_asked_again(tmp_path: Path, cache: Path) -> None:
    first = stub_toolchain(tmp_path)
    kept = list(cache.rglob("value.json"))
    assert kept
    for file in kept:
        file.chmod(0o644)
        file.write_bytes(file.read_bytes()[:20])
    assert toolchain.from_directory(tmp_path) == first


@pytest.mark.parametrize("layout", ["tools", "bin", "."])
def test_a_local_build_is_found_with_its_runtime_tools(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / layout
    folder.mkdir(exist_ok=True)
    for name in ("iree-compile", "iree-run-module"):
        (folder / name).write_bytes(STUB.read_bytes())
        (folder / name).chmod(0o755)
    found = toolchain.from_directory(tmp_path)
    assert found.compiler.parent.resolve() == folder.resolve()
    assert found.tool("iree-run-module").exists()
    assert found.opt is None


def test_a_directory_without_a_compiler_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no iree-compile in") as caught:
        toolchain.from_directory(tmp_path)
    assert "_mlir_libs" in caught.value.advice


def test_a_compiler_that_is_not_executable_is_named_with_the_cure(tmp_path: Path) -> None:
    compiler = stub_release(tmp_path)
    toolchain.from_directory(tmp_path)
    compiler.chmod(0o644)
    with pytest.raises(EnvironmentFault, match="iree-compile: it is not executable") as caught:
        toolchain.from_directory(tmp_path)
    assert f"chmod +x {compiler}" in caught.value.advice


def test_a_compiler_that_cannot_start_is_damaged(tmp_path: Path) -> None:
    stub_release(tmp_path, **{"version-status": 127})
    with pytest.raises(EnvironmentFault, match=r"--version failed with exit status 127") as caught:
        toolchain.from_directory(tmp_path)
    assert "reinstall" in caught.value.advice


def test_a_program_that_is_no_iree_compiler_is_refused(tmp_path: Path) -> None:
    (tmp_path / "iree-compile").write_text("#!/bin/sh\necho clang version 19\n")
    (tmp_path / "iree-compile").chmod(0o755)
    with pytest.raises(EnvironmentFault, match="does not say an IREE compiler version"):
        toolchain.from_directory(tmp_path)


def test_a_release_without_phases_is_refused(tmp_path: Path) -> None:
    stub_release(tmp_path, flags=["iree-hal-target-device"])
    with pytest.raises(EnvironmentFault, match="lists no compilation phases"):
        toolchain.from_directory(tmp_path)


def test_a_missing_runtime_tool_is_told_when_it_is_needed(tmp_path: Path) -> None:
    found = stub_toolchain(tmp_path)
    with pytest.raises(EnvironmentFault, match=r"iree-benchmark-module: there is no such file"):
        found.tool("iree-benchmark-module")
    stub_release(tmp_path / "other")
    (tmp_path / "other/iree/_runtime_libs/iree-run-module").unlink()
    with pytest.raises(EnvironmentFault, match="there is no IREE runtime for compiler"):
        toolchain.from_directory(tmp_path / "other").tool("iree-run-module")


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub_release(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("IREE_PILOT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EnvironmentFault) as caught:
        toolchain.from_directory(tmp_path)
    assert "IREE_PILOT_CACHE" in caught.value.advice


def test_no_room_for_temporary_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    with pytest.raises(EnvironmentFault, match=r"cannot keep what .*iree-compile prints") as caught:
        stub_toolchain(tmp_path)
    assert "TMPDIR" in caught.value.advice


@pytest.mark.real
def test_the_installed_release_is_found_without_importing_it() -> None:
    script = (
        "import sys; from iree_pilot.pipeline.toolchain import toolchain\n"
        "t = toolchain.installed(); "
        "heavy = [m for m in sys.modules if m.startswith(('iree.', 'torch', 'numpy'))]; "
        "print(t.version, t.compiler.name, *heavy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [toolchain.installed().version, "iree-compile"]


@pytest.mark.real
def test_the_installed_release_lists_what_iree_has() -> None:
    found = toolchain.installed()
    assert found.phases[0] == "start"
    assert found.phases[-1] == "end"
    assert {"input", "flow", "stream", "hal", "vm"} < set(found.phases)
    assert {"compile-from", "dump-compilation-phases-to", "iree-hal-target-device"} < found.flags
    assert len(found.flags) > 1000
    assert len(found.revision) == 40
    assert found.compiler.read_bytes()[:4] == b"\x7fELF", "the native binary, not the wrapper"
    assert found.tool("iree-run-module").exists()
