"""Commands that take several targets, one after the other, and where what they write goes.

The compiler is mostly a stand-in that fails on one operation; the IR is edited by real bindings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from driver import Done, pilot
from fake import stub_release

VULKAN = "vulkan:vp_android_baseline_2022"
LOCAL = "--iree-hal-target-device=local"
#: Those of the targets, and those of compiling phase by phase.
OWN_FLAGS = [
    *("iree-hal-target-device", "iree-hal-local-target-device-backends"),
    *("iree-llvmcpu-target-cpu", "iree-vulkan-target"),
    *("compile-from", "compile-to", "dump-compilation-phases-to"),
]
PROGRAM = """module {
  func.func @main(%0: tensor<4xf32>) -> tensor<4xf32> {
    %1 = "test.one"(%0) : (tensor<4xf32>) -> tensor<4xf32>
    %2 = "test.bad"(%1) : (tensor<4xf32>) -> tensor<4xf32>
    return %2 : tensor<4xf32>
  }
}
"""

pytestmark = pytest.mark.real


class Desk:
    """A directory with a program and a release that does not compile it for some targets."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "a.mlir").write_text(PROGRAM)
        self.says("'test.bad' op is not supported")

    def says(self, message: str, *, but: str = "--none") -> None:
        """What the compiler says of test.bad, but not where that argument is given."""
        stub_release(
            self.directory / "release",
            when={'"test.bad"': f"// stub: error-at flow {message}"},
            mends=[{"given": [but]}],
        )

    def pilot(self, *words: str) -> Done:
        end = words.index("--") if "--" in words else len(words)
        release = ("--release", str(self.directory / "release"))
        return pilot(*words[:end], *release, *words[end:], cwd=self.directory)

    def document(self, *words: str) -> Any:
        return self.pilot(*words, "--json").document


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


class TestSeveralTargets:
    def test_bisect_isolates_each_that_fails(self, desk: Desk) -> None:
        desk.says("'test.bad' op is not supported", but=LOCAL)
        done = desk.pilot("bisect", "a.mlir", "-t", f"llvm-cpu,{VULKAN}", "-o", "out", "--json")
        assert done.code == 0, done.err
        passes, found = done.document["results"]
        assert (passes["target"], passes["status"]) == ("llvm-cpu", "passes")
        assert (found["target"], found["status"]) == (VULKAN, "isolated")
        made = found["failures"][0]["reproducer"]
        assert made["op_names"] == ["test.bad"]
        assert [p.name for p in (desk.directory / "out").iterdir()] == [Path(made["path"]).name]

    def test_bisect_fails_where_nothing_does(self, desk: Desk) -> None:
        desk.says("nothing", but=LOCAL)
        done = desk.pilot("bisect", "a.mlir", "-t", "llvm-cpu:generic,llvm-cpu:host")
        assert done.code == 1
        assert done.out.count("there is nothing to isolate") == 2

    def test_a_target_that_is_misspelt_is_refused_before_the_first_one(self, desk: Desk) -> None:
        done = desk.pilot("bisect", "a.mlir", "-t", "llvm-cpu,vulcan")
        assert done.code == 2
        assert "vulcan" in done.err
        assert not list(desk.directory.glob("repro-*"))

    def test_workaround_looks_for_each(self, desk: Desk) -> None:
        flag = "--iree-opt-level=O0"
        stub_release(
            desk.directory / "release",
            flags=[*OWN_FLAGS, "iree-opt-level"],
            when={'"test.bad"': "// stub: error-at flow 'test.bad' op is not supported"},
            mends=[{"given": [flag]}],
        )
        done = desk.pilot("workaround", "a.mlir", "-t", f"llvm-cpu,{VULKAN}", "--json")
        assert done.code == 0, done.err
        assert [(r["target"], r["status"]) for r in done.document["results"]] == [
            ("llvm-cpu", "found"),
            (VULKAN, "found"),
        ]
        for result in done.document["results"]:
            assert flag in result["answers"][0]["command"]
            assert result["target"] in result["answers"][0]["command"]

    def test_releases_bisect_asks_for_each(self, desk: Desk) -> None:
        stub_release(desk.directory / "old", revision="1" * 40)
        words = ["--toolchain", "old", "--toolchain", "release"]
        done = desk.pilot(
            "releases", "bisect", "a.mlir", "-t", f"llvm-cpu,{VULKAN}", *words, "--json"
        )
        assert done.code == 0, done.err
        assert [r["target"] for r in done.document["results"]] == ["llvm-cpu", VULKAN]
        scripts = [change["script"] for r in done.document["results"] for change in r["boundaries"]]
        assert len(set(scripts)) == 2 and all(Path(script).is_file() for script in scripts)

    def test_run_isolates_each_that_fails_and_keeps_the_first_where_it_was(
        self, desk: Desk
    ) -> None:
        done = desk.pilot("run", "a.mlir", "-t", f"llvm-cpu,{VULKAN}", "--bisect", "--json")
        assert done.code == 1, done.err
        both = done.document["bisections"]
        assert [one["target"] for one in both] == ["llvm-cpu", VULKAN]
        places = [one["failures"][0]["reproducer"]["path"] for one in both]
        assert places == ["repro-a-llvm-cpu", f"repro-a-{VULKAN.replace(':', '-')}"]
        assert all((desk.directory / place / "run.sh").is_file() for place in places)
        assert {"target": "llvm-cpu"} | done.document["bisect"] == both[0]
        assert done.document["next"] == [], "it has been done"


def test_a_folder_is_named_after_the_target_and_keeps_what_it_shows(desk: Desk) -> None:
    usual = desk.directory / "repro-a-llvm-cpu"
    first = desk.pilot("bisect", "a.mlir", "-t", "llvm-cpu")
    assert first.out.splitlines()[-1] == usual.name
    kept = {file.name: file.read_bytes() for file in usual.iterdir()}
    known = desk.pilot("bisect", "a.mlir", "-t", "llvm-cpu", "-o", "mine")
    assert known.code == 0, known.err
    assert f": mine, copied from {usual}" in known.out
    assert {f.name: f.read_bytes() for f in (desk.directory / "mine").iterdir()} == kept
    desk.says("'test.bad' op is something else")
    refused = desk.pilot("bisect", "a.mlir", "-t", "llvm-cpu", "-o", "mine")
    assert refused.code == 2
    assert "mine holds the reproducer of another failure: diagnostic/" in refused.err
    other = desk.pilot("bisect", "a.mlir", "-t", "llvm-cpu")
    latest = other.out.splitlines()[-1]
    assert latest.startswith("repro-a-llvm-cpu-")
    assert f"latest      {latest}; {usual.name} shows diagnostic/" in other.out
    assert {file.name: file.read_bytes() for file in usual.iterdir()} == kept


ADD = """func.func @add(%a: tensor<4xf32>) -> tensor<4xf32> {
  %0 = arith.addf %a, %a : tensor<4xf32>
  return %0 : tensor<4xf32>
}
"""
EMPTY = '#hal.device.target<"cuda", [#hal.executable.target<"cuda", "cuda-nvptx-fb">]>'


def test_cuda_and_metal_are_compiled_to_a_module_without_a_device(tmp_path: Path) -> None:
    (tmp_path / "add.mlir").write_text(ADD)
    done = pilot("compile", "add.mlir", "-t", "cuda:sm_80,metal", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    code = {"cuda:sm_80": b".target sm_80", "metal": b"#include <metal_stdlib>"}
    for case in done.document["cases"]:
        assert case["status"] == "compiled"
        assert case["output"].endswith(".vmfb")
        assert code[case["target"]] in Path(case["output"]).read_bytes()


@pytest.mark.parametrize(
    ("target", "flag", "message", "advice"),
    [
        (
            "llvm-cpu",
            "--iree-hal-target-backends=rocm",
            "ROCM target not set",
            "Name an architecture: -t hip:ARCH, or --iree-rocm-target=ARCH; of gfx942, gfx950, ",
        ),
        (
            "cuda:sm_80",
            f"--iree-hal-target-device={EMPTY}",
            "missing GPU target in #hal.executable.target",
            "Name an architecture: -t cuda:ARCH, or --iree-cuda-target=ARCH; of sm_60, sm_61, ",
        ),
    ],
)
def test_a_compile_that_lacks_an_architecture_is_told_those_that_the_compiler_knows(
    tmp_path: Path, target: str, flag: str, message: str, advice: str
) -> None:
    (tmp_path / "add.mlir").write_text(ADD)
    words = ("compile", "add.mlir", "-t", target)
    done = pilot(*words, "--json", "--", flag, cwd=tmp_path)
    assert done.code == 1, done.err
    (case,) = done.document["cases"]
    assert message in case["failure"]["message"]
    assert case["advice"].startswith(advice)
    assert advice in " ".join(pilot(*words, "--", flag, cwd=tmp_path).out.split())
