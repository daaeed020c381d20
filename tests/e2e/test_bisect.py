"""`iree-pilot bisect` and `verify`, end to end with the real compiler."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from driver import Done, pilot
from places import CASES

from iree_pilot.repro.reproducer.folder import bundle

VULKAN = "vulkan:vp_android_baseline_2022"
SDPA = "torch.aten.scaled_dot_product_attention"
LINEAR = ["torch.aten.matmul", "torch.prims.convert_element_type"]

pytestmark = pytest.mark.real


@pytest.fixture
def bisect(shared_cache: Path, tmp_path: Path) -> Any:
    def ran(source: str | Path, target: str, *options: str) -> Done:
        return pilot(
            "bisect", source, "-t", target, "-o", tmp_path / "out", *options,
            env={"IREE_PILOT_CACHE": shared_cache}, cwd=tmp_path,
        )  # fmt: skip

    return ran


@pytest.mark.parametrize(
    ("model", "target", "ops", "most_calls"),
    [
        ("fp8_attention.py", VULKAN, LINEAR, 12),
        ("argsort.py", VULKAN, ["torch.aten.argsort"], 12),
        ("f16_matmul.py", VULKAN, ["torch.aten.matmul"], 12),
        ("i8_sub.py", "llvm-cpu", ["torch.aten.sub.Scalar"], 12),
        ("prelu.py", "llvm-cpu", ["torch.aten.prelu"], 12),
        ("f8_half.py", "llvm-cpu", ["torch.prims.convert_element_type"], 12),
        ("fp8_llama.py:layers16", VULKAN, LINEAR, 12),
        ("f64.py", "llvm-cpu", ["torch.aten.matmul"], 12),
    ],
)
def test_a_failure_is_isolated_in_a_handful_of_compiles(
    bisect: Any, model: str, target: str, ops: list[str], most_calls: int
) -> None:
    done = bisect(CASES / model if ":" not in model else f"{CASES / model}", target, "--json")
    assert done.code == 0, done.err
    assert done.document["status"] == "isolated"
    (found,) = done.document["failures"]
    made = found["reproducer"]
    assert made["op_names"] == ops
    assert made["ops"] == len(ops)
    assert made["minimal"] and made["verified"]
    assert made["oracle_calls"] <= most_calls
    assert "mlir" in made["levels"] and "pytorch" in made["levels"]
    if found["failure"]["phase"] != "run":
        assert "pass" in made["levels"] and made["pass_name"] and made["pass_class"]
        assert found["failure"]["pass"] in (made["pass_name"], made["pass_class"])


#: Two functions, the smaller of which crashes the compiler in a pass that says nothing of where.
FUNCTIONS = """
func.func @decode(%a: !torch.vtensor<[4,8],si8>) -> !torch.vtensor<[4,8],si8> {
  %int8 = torch.constant.int 8
  %int1 = torch.constant.int 1
  %0 = torch.aten.sub.Scalar %a, %int8, %int1
      : !torch.vtensor<[4,8],si8>, !torch.int, !torch.int -> !torch.vtensor<[4,8],si8>
  return %0 : !torch.vtensor<[4,8],si8>
}
func.func @prefill(%a: !torch.vtensor<[4,8],f32>) -> !torch.vtensor<[4,8],f32> {
  %0 = torch.aten.sin %a : !torch.vtensor<[4,8],f32> -> !torch.vtensor<[4,8],f32>
  %1 = torch.aten.cos %0 : !torch.vtensor<[4,8],f32> -> !torch.vtensor<[4,8],f32>
  %2 = torch.aten.tanh %1 : !torch.vtensor<[4,8],f32> -> !torch.vtensor<[4,8],f32>
  return %2 : !torch.vtensor<[4,8],f32>
}
"""


def test_a_crash_is_looked_for_in_every_function(bisect: Any, tmp_path: Path) -> None:
    (tmp_path / "two.mlir").write_text(FUNCTIONS)
    (found,) = bisect(tmp_path / "two.mlir", "llvm-cpu", "--json").document["failures"]
    made = found["reproducer"]
    assert made["op_names"] == ["torch.aten.sub.Scalar"]
    assert made["minimal"] and made["verified"] and made["oracle_calls"] <= 12


def test_what_is_made_and_verified_is_said_meanwhile(bisect: Any, tmp_path: Path) -> None:
    (tmp_path / "two.mlir").write_text(FUNCTIONS)
    said = bisect(tmp_path / "two.mlir", "llvm-cpu", "-v", "--fresh").out
    about = "the reproducer of 1 operation (torch.aten.sub.Scalar) for llvm-cpu"
    assert f"\n  making {about}; " in said
    assert f"\n  verifying {about}: running copies of repro.mlir, " in said


def test_the_folders_path_is_the_last_line_printed(bisect: Any, tmp_path: Path) -> None:
    done = bisect(CASES / "prelu.py", "llvm-cpu")
    assert done.out.splitlines()[-1] == str(tmp_path / "out")


def test_a_program_that_compiles_leaves_nothing_and_says_so(bisect: Any, tmp_path: Path) -> None:
    done = bisect(CASES / "chunk.py", "llvm-cpu")
    assert done.code == 1
    assert "there is nothing to isolate" in done.out
    assert not (tmp_path / "out").exists()


def test_a_failure_to_run_is_handed_on_with_the_run_and_its_inputs(
    bisect: Any, tmp_path: Path
) -> None:
    bisect(CASES / "f64.py", "llvm-cpu")
    report = bundle.read(tmp_path / "out")
    assert report.failure.kind == "runtime-error" and report.failure.phase == "run"
    held = [level for level in report.levels if level.verified]
    assert [level.name for level in held] == ["mlir", "pytorch"]
    for level in held:
        assert level.command[0] == "iree-run-module"
        assert level.command[-2:] == ("--input=@input0.npy", "--input=@input1.npy")
    assert all("at run time" in level.why for level in report.levels if level not in held)


def test_a_second_search_goes_on_from_what_was_asked_and_reports_all_of_it(
    bisect: Any, tmp_path: Path
) -> None:
    first = bisect(CASES / "i8_sub.py", "llvm-cpu", "--json").document
    shutil.rmtree(tmp_path / "out")
    second = bisect(CASES / "i8_sub.py", "llvm-cpu", "--json").document
    assert second["oracle_calls"] == first["oracle_calls"], "nothing was asked again"
    (before,), (after,) = first["failures"], second["failures"]
    assert after["reproducer"]["oracle_calls"] == before["reproducer"]["oracle_calls"] > 0
    assert after["reproducer"]["seconds"] > before["reproducer"]["seconds"]


def test_a_known_failure_is_told_at_once_unless_asked_anew(bisect: Any, tmp_path: Path) -> None:
    bisect(CASES / "prelu.py", "llvm-cpu")
    folder = tmp_path / "out"
    told = bisect(CASES / "prelu.py", "llvm-cpu")
    assert told.code == 0
    assert f"known since {datetime.now(UTC):%Y-%m-%d}: {folder}" in told.out
    assert told.out.splitlines()[-1] == str(folder)
    document = bisect(CASES / "prelu.py", "llvm-cpu", "--json").document
    assert (document["status"], document["oracle_calls"]) == ("isolated", 0)
    anew = bisect(CASES / "prelu.py", "llvm-cpu", "--fresh", "--json").document
    assert anew["oracle_calls"] > 0


def test_verify_says_when_the_failure_is_gone(bisect: Any, tmp_path: Path) -> None:
    bisect(CASES / "prelu.py", "llvm-cpu")
    repro = tmp_path / "out" / "repro.mlir"
    repro.write_text(repro.read_text().replace("<[2],f32>", "<[1],f32>"))
    done = pilot("verify", tmp_path / "out")
    assert done.code == 1
    assert "repro.mlir" in done.out and "passes" in done.out


@pytest.mark.slow
def test_the_current_release_is_asked_too(bisect: Any, tmp_path: Path) -> None:
    done = bisect(CASES / "zero_rows.py", "llvm-cpu", "--release", "3.12.0")
    assert done.code == 0, done.err
    report = bundle.read(tmp_path / "out")
    assert report.release == "3.12.0" and report.verified
    assert report.current is not None
    release, why = report.current
    assert "it passes" in why
    assert (
        f"With IREE compiler {release} it does not fail" in (tmp_path / "out/ISSUE.md").read_text()
    )
    done = pilot("verify", tmp_path / "out", "--json")
    assert (done.code, done.document["same"], done.document["current"]["same"]) == (1, True, False)


def test_flags_of_the_user_that_make_it_fail_are_kept(bisect: Any, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text((CASES / "chunk.py").read_text())
    flag = "--iree-llvmcpu-target-triple=nothing-at-all"
    assert bisect("model.py", "llvm-cpu").code == 1
    done = bisect("model.py", "llvm-cpu", "--", flag)
    assert done.code == 0, done.out + done.err
    assert flag in (tmp_path / "out" / "run.sh").read_text()
    assert flag in bundle.read(tmp_path / "out").flags
    assert bisect("model.py", "llvm-cpu").code == 1
