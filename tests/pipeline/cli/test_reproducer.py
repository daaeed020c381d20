"""A reproducer's folder is a SOURCE like any other, and brings its inputs, target and flags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from driver import pilot
from fake import stub_release
from fake.reports import report

from iree_pilot.pipeline.cli import reproducer, several
from iree_pilot.pipeline.cli.options import SourceOptions
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Input, Report
from iree_pilot.repro.reproducer.folder.further import SinceRelease

CPU = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=generic",
)
X = "!torch.vtensor<[2],f32>"
PROGRAM = f"""func.func @main(%x: {X}, %y: {X}) -> {X} {{
  %i1 = torch.constant.int 1
  %z = torch.aten.sub.Tensor %x, %y, %i1 : {X}, {X}, !torch.int -> {X}
  return %z : {X}
}}
"""
CHOSEN = SourceOptions(
    settings={}, dtype=None, seed=0, weights=None, inputs=(), inline=False, fresh=False
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As `bisect` writes it for a failure at run time, of which an input is ones throughout."""
    tensor = Tensor(dtype="f32", shape=(2,), file="x.bin")
    (tmp_path / "x.bin").write_bytes(np.array([5, 7], np.float32).tobytes())
    inputs = [Input(tensor, tmp_path / "x.bin"), Input(tensor, None)]
    flags = (*CPU, "--iree-opt-level=O2")
    run = bundle.run_command("main", "local-sync", inputs)
    report = Report(
        failure=Failure(kind="runtime-error", message="it failed", signature="a/b/c", phase="run"),
        target="llvm-cpu:generic",
        flags=flags,
        release="9.9.0",
        revision="0" * 40,
        source="model.py",
        command=("iree-compile", "/home/user/full.mlir", "-o", "module.vmfb"),
        program="/home/user/program",
        ops=1,
        op_names=("torch.aten.sub.Tensor",),
        oracle_calls=1,
        seconds=1,
        minimal=True,
        verified=True,
        time_limit=20,
        levels=(bundle.level("mlir", flags, run=run), bundle.level("pytorch", flags)),
    )
    made = tmp_path / "repro"
    bundle.write(made, report, {"repro.mlir": PROGRAM, "repro.py": "import torch\n"}, inputs)
    return made


class TestSource:
    def test_is_the_program_with_its_inputs(self, folder: Path) -> None:
        source, chosen = reproducer.source(str(folder), CHOSEN)
        assert source == str(folder / "repro.mlir")
        assert chosen.inputs == (f"@{folder / 'input0.npy'}", "2xf32=1")

    def test_the_users_inputs_go_before(self, folder: Path) -> None:
        import msgspec

        own = msgspec.structs.replace(CHOSEN, inputs=("a.npy", "b.npy"))
        assert reproducer.source(str(folder), own)[1] == own

    def test_is_the_one_in_pytorch_where_there_is_no_other(self, folder: Path) -> None:
        (folder / "repro.mlir").unlink()
        assert reproducer.source(str(folder), CHOSEN) == (str(folder / "repro.py"), CHOSEN)
        (folder / "repro.py").unlink()
        with pytest.raises(UsageError, match="holds no program") as caught:
            reproducer.source(str(folder), CHOSEN)
        assert "model.py" in caught.value.advice

    def test_anything_else_stays_what_it_is(self, tmp_path: Path) -> None:
        assert reproducer.source("llama:tiny", CHOSEN) == ("llama:tiny", CHOSEN)
        assert reproducer.source(str(tmp_path), CHOSEN) == (str(tmp_path), CHOSEN)


class TestPlace:
    """What is made of a reproducer's program is named after its folder."""

    def test_it_is_beside_the_folder_that_it_is_made_of(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = folder.rename(folder.with_name("repro-net-vulkan"))
        program = str(folder / "repro.mlir")
        assert several.place("repro", program, "hip:gfx942") == Path("repro-net-vulkan-hip-gfx942")
        assert several.place("repro", program, "vulkan") == Path("repro-net-vulkan")
        monkeypatch.chdir(folder.parent)
        assert several.place("repro", program, "vulkan") == Path("repro-net-vulkan-again")

    def test_it_is_seen_from_inside(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder.rename(folder.with_name("net")))
        assert several.place("repro", "repro.mlir", "vulkan") == Path("repro-net-vulkan")


class TestTarget:
    def test_is_the_folders_with_its_flags_before_the_users(self, folder: Path) -> None:
        found = reproducer.target(str(folder), None, ("--mlir-timing",))
        assert found == ("llvm-cpu:generic", ("--iree-opt-level=O2", "--mlir-timing"))

    def test_another_one_has_flags_of_its_own(self, folder: Path) -> None:
        assert reproducer.target(str(folder), "vulkan", ()) == ("vulkan", ())

    def test_has_to_be_named_for_other_sources(self) -> None:
        with pytest.raises(UsageError, match="no target is named for llama:tiny"):
            reproducer.target("llama:tiny", None, ())


def test_a_folder_without_a_program_cannot_be_verified(folder: Path, tmp_path: Path) -> None:
    for name in ("repro.mlir", "repro.py"):
        (folder / name).unlink()
    stub_release(tmp_path / "release")
    done = pilot("verify", folder, "--release", tmp_path / "release")
    assert done.code == 2
    assert "has no program to run: none of repro.mlir, repro.py is there" in done.err
    assert "iree-pilot bisect model.py -t llvm-cpu:generic" in done.err


@pytest.mark.real
def test_a_folder_is_run_and_compared(folder: Path) -> None:
    done = pilot("run", folder, "--json")
    assert done.code == 0, done.err
    (case,) = done.document["cases"]
    assert case["target"] == "llvm-cpu:generic"
    assert case["comparison"]["verdict"] == "ok"
    assert "--iree-opt-level=O2" in case["command"]
    (function,) = done.document["program"]["functions"]
    (place,) = function["reference"]["outputs"]
    raw = (Path(done.document["program"]["directory"]) / place["file"]).read_bytes()
    assert np.frombuffer(raw, np.float32).tolist() == [4, 6]


def test_an_answer_is_added_to_a_folder_of_ones_own_only(tmp_path: Path) -> None:
    failing = Failure(kind="crash", message="SIGSEGV", signature="crash/x", phase="flow")
    bundle.write(tmp_path / "own", report(failing), {"repro.mlir": "//"})
    since = SinceRelease(said="since 3.12.0", releases={"3.12.0": "same"})
    said: list[str] = []
    reproducer.keep(str(tmp_path / "own"), said.append, since_release=since)
    assert said == [f"added to {tmp_path / 'own/ISSUE.md'}"]
    assert "Since 3.12.0." in (tmp_path / "own/ISSUE.md").read_text()
    assert bundle.read(tmp_path / "own").since_release == since
    (tmp_path / "own/repro.mlir").write_text("// changed")
    reproducer.keep(str(tmp_path / "own"), said.append, since_release=since)
    assert said[1].startswith(f"not added to {tmp_path / 'own/ISSUE.md'}: ")
    file = tmp_path / "own/report.json"
    file.write_text(file.read_text() + " ")  # it came from somebody else
    reproducer.keep(str(tmp_path / "own"), said.append, since_release=since)
    assert len(said) == 2
