"""A draft of an issue has a short title, and long things in it are folded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake.reports import CPU, report

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.targets.devices import Device
from iree_pilot.repro.attribution.attribution import Attribution
from iree_pilot.repro.attribution.origin import Origin
from iree_pilot.repro.failing_pass.phases import WrongPhase
from iree_pilot.repro.reproducer.folder import bundle, environment, issue
from iree_pilot.repro.wrong_results.wrong_record import Wrong, WrongElement

BITCAST = (
    "failed to legalize operation 'vector.bitcast': "
    '%320 = "vector.bitcast"(%319) : (vector<2xf32>) -> vector<4xf16>'
)


def failure(kind: Any, message: str, **fields: Any) -> Failure:
    return Failure(kind=kind, message=message, signature=f"{kind}/x", **fields)


class TestTitle:
    @pytest.mark.parametrize(
        ("failing", "target", "ops", "tool", "title"),
        [
            (
                failure("diagnostic", BITCAST, phase="executable-targets"),
                "vulkan:vp_android_baseline_2022",
                ["torch.aten.mm"],
                "iree-compile",
                "[vulkan] iree-compile: failed to legalize operation 'vector.bitcast' "
                "(torch.aten.mm)",
            ),
            (
                failure("crash", "unimplemented (then SIGSEGV in mlir::MulIOp::build)"),
                "llvm-cpu",
                ["torch.aten.sub.Scalar"] * 2,
                "iree-compile",
                "[llvm-cpu] iree-compile: SIGSEGV in mlir::MulIOp::build (torch.aten.sub.Scalar)",
            ),
            (
                failure("mismatch", "output 0: 2 of 8 elements are wrong"),
                "hip:gfx942",
                ["a.x", "b.y", "c.z"],
                "python",
                "[hip] wrong results (a.x, b.y, ...)",
            ),
            (
                failure("timeout", "still compiling", phase="hal"),
                "hip:gfx942",
                ["torch.aten.softmax.int"],
                "iree-compile",
                "[hip] iree-compile: does not terminate in hal (torch.aten.softmax.int)",
            ),
        ],
    )
    def test_says_what_fails_on_what_backend(
        self, failing: Failure, target: str, ops: list[str], tool: str, title: str
    ) -> None:
        assert issue.title(failing, target, ops, tool) == title

    def test_of_a_failure_to_trace_names_no_backend(self) -> None:
        failing = failure("trace-error", "ValueError: no. (Size-like symbols: none)", phase="trace")
        said = issue.title(failing, "llvm-cpu", ["torch.aten.mean"], "python")
        assert said == "iree-turbine: ValueError: no (torch.aten.mean)"

    @pytest.mark.parametrize(
        ("message", "end"), [("word " * 200, "word word…"), ("no " + "x" * 200, "xxx…")]
    )
    def test_is_short_and_ends_with_a_word(self, message: str, end: str) -> None:
        said = issue.title(failure("diagnostic", message), "llvm-cpu", [], "iree-compile")
        assert len(said) < 110 and said.endswith(end)


@pytest.mark.parametrize(
    ("text", "folded"),
    [("line\n" * 40, False), ("line\n" * 41, True), ("x" * 500, False), ("x" * 501, True)],
)
def test_what_is_long_or_wide_is_folded(text: str, folded: bool) -> None:
    assert issue.is_long(text) == folded


class TestNamedFlags:
    TOLD = (
        "F8E4M3FN types are not supported on gfx942; use "
        "--iree-llvmgpu-enable-small-float-emulation."
    )

    def test_a_flag_that_the_message_asks_for_is_said(self, tmp_path: Path) -> None:
        failing = failure("diagnostic", self.TOLD)
        assert issue.named_flags(failing, CPU) == ["--iree-llvmgpu-enable-small-float-emulation"]
        bundle.write(tmp_path / "folder", report(failing), {"repro.mlir": "// a"})
        draft = (tmp_path / "folder" / "ISSUE.md").read_text()
        top, _, rest = draft.partition("### Steps to reproduce")
        assert "The message names `--iree-llvmgpu-enable-small-float-emulation`, which" in top
        assert "`iree-pilot workaround .`" in top.partition("-->")[0]
        assert "Expected: it compiles without `--iree-llvmgpu-enable-small-float-emulation`." in top
        assert "\n\n\n" not in top and "small-float" not in rest

    def test_one_that_was_given_is_not(self) -> None:
        given = ["--iree-llvmgpu-enable-small-float-emulation=true"]
        assert issue.named_flags(failure("diagnostic", self.TOLD), given) == []
        assert issue.named_flags(failure("diagnostic", "no flag"), given) == []
        assert issue.named_flags(failure("crash", self.TOLD), CPU) == [], "no limitation"


class TestWrongNumbers:
    def draft(self, directory: Path, *wrong: Wrong, changed: str = "") -> str:
        phase = WrongPhase(
            state="earliest", conclusion="first wrong pass: tile", pass_name="tile", changed=changed
        )
        why = Attribution(culprit="compiler", conclusion="tile")
        origin = Origin(phase=phase, attribution=why, calls=1)
        failing = failure("mismatch", "output 0: wrong", phase="compare")
        bundle.write(directory, report(failing, wrong=wrong, origin=origin), {"repro.mlir": "//"})
        return (directory / "ISSUE.md").read_text()

    def wrong(self, dtype: str, own: float | None, **fields: Any) -> Wrong:
        plain = Wrong(
            index=0,
            dtype=dtype,
            shape=(1,),
            error=0.75,
            own_error=own,
            threshold=0.5,
            size=1.0,
            wrong=1,
            count=1,
            limit="the relative L2 error",
            elements=(),
        )
        return msgspec.structs.replace(plain, **fields)

    def test_a_misplaced_infinity_has_no_tolerance(self, tmp_path: Path) -> None:
        elements = (WrongElement((0,), "-inf", "-100.0"),)
        alone = self.draft(tmp_path / "a", self.wrong("f32", 0.0, error=0.0, elements=elements))
        said = (
            "1 of 1 element is wrong, -inf where -100.0 is expected; NaN and Inf count without a "
        )
        assert f"{said}tolerance.\n" in alone
        assert "olerance:" not in alone and "Max absolute error" not in alone
        assert alone.startswith("# [llvm-cpu] wrong results: -inf instead of -100.0 (")
        beside = self.draft(tmp_path / "b", self.wrong("f32", 0.0, count=9, elements=elements))
        assert "1 of 9 elements is wrong, -inf where -100.0 is expected; NaN and Inf" in beside
        assert "Of the elements that are finite in both: Max absolute error: 0.75" in beside

    def test_the_title_names_the_worst_element(self, tmp_path: Path) -> None:
        elements = (WrongElement((0,), "1.0", "1.75"),)
        draft = self.draft(tmp_path / "a", self.wrong("f32", 0.0, elements=elements))
        assert draft.startswith("# [llvm-cpu] wrong results: 1.0 instead of 1.75 (")
        assert "1 of 1 element exceeds the tolerance. Max absolute error: 0.75" in draft

    @pytest.mark.parametrize(("lines", "said"), [(3, ":\n\n```diff"), (2000, ", attached.\n")])
    def test_the_diff_of_the_wrong_pass_is_named_however_long_it_is(
        self, lines: int, said: str, tmp_path: Path
    ) -> None:
        draft = self.draft(tmp_path / "folder", self.wrong("f32", 0.0), changed="+line\n" * lines)
        assert f"Changes made by that pass: `pass.diff`, {lines} lines{said}" in draft
        assert (tmp_path / "folder" / "pass.diff").is_file()

    def test_the_tolerance_of_the_commands_is_told_from_that_of_the_judgement(
        self, tmp_path: Path
    ) -> None:
        told = "The commands below compare each element instead, with an absolute tolerance"
        assert told in self.draft(tmp_path / "float", self.wrong("f32", 0.0))
        assert told not in self.draft(tmp_path / "integer", self.wrong("i32", None))

    def test_integers_are_expected_to_agree_exactly(self, tmp_path: Path) -> None:
        rounded, whole = self.wrong("f32", 0.0), self.wrong("i32", None)
        assert "it agrees with PyTorch up to rounding." in self.draft(tmp_path / "a", rounded)
        assert "it agrees with PyTorch exactly." in self.draft(tmp_path / "b", whole)
        assert "up to rounding" in self.draft(tmp_path / "c", whole, rounded)

    def test_the_time_is_of_the_reduction(self, tmp_path: Path) -> None:
        draft = self.draft(tmp_path / "folder", self.wrong("f32", 0.0))
        assert "(5 compiles, 2 s for the reduction alone)" in draft


class TestFolded:
    def draft(self, directory: Path, failing: Failure, mlir: str) -> str:
        bundle.write(directory, report(failing, bundle.level("mlir", CPU)), {"repro.mlir": mlir})
        return (directory / "ISSUE.md").read_text()

    def test_long_programs_and_stacks_are(self, tmp_path: Path) -> None:
        failing = failure("crash", "SIGSEGV in f", stack=("f()", "g()"), signal="SIGSEGV")
        draft = self.draft(tmp_path / "long", failing, "// line\n" * 50)
        folded = re.findall(r"<details>\n *<summary>(.*)</summary>\n\n", draft)
        assert folded == ["Stack, innermost frame first", "repro.mlir, 50 lines"]
        assert draft.count("</details>") == 2
        before, _, _ = draft.partition("<details>")
        assert "SIGSEGV in f" in before, "the essential message stays visible"

    def test_short_ones_are_not(self, tmp_path: Path) -> None:
        draft = self.draft(tmp_path / "short", failure("diagnostic", BITCAST), "// line\n")
        assert "<details>" not in draft

    def test_of_a_long_message_the_beginning_is_visible(self, tmp_path: Path) -> None:
        message = "\n".join(["an error", *(f"note {n}" for n in range(100))])
        draft = self.draft(tmp_path / "long", failure("diagnostic", message), "//\n")
        before, _, after = draft.partition("<details>")
        assert "an error\n" in before and "note 99" not in before
        assert "Full message, 101 lines" in after and "note 99" in after


class TestEnvironment:
    GPU = Device(
        uri="vulkan://0",
        driver="vulkan",
        name="Navi",
        fingerprint="",
        properties={"driver": "RADV", "driver_info": "Mesa 25", "api": "1.4"},
    )

    def test_names_the_device_and_its_driver(self) -> None:
        said = environment.describe("vulkan:rdna3", self.GPU, "run")
        assert said["Device"] == "Navi"
        assert (said["Driver"], said["Vulkan API"]) == ("RADV, Mesa 25", "1.4")
        assert said["OS"] and said["CPU"]

    def test_says_that_a_compile_that_fails_used_none(self) -> None:
        said = environment.describe("vulkan:rdna3", self.GPU, "executable-targets")
        assert said["Device"] == "Navi (compiled for, not used: the compile fails)"
        assert "none was used" in environment.describe("hip:gfx942", None, "hal")["Device"]

    def test_of_the_processor_says_no_more(self) -> None:
        assert [*environment.describe("llvm-cpu", None, "input")] == ["OS", "CPU"]
