"""The pass that fails is found, alone, by few runs, and has failed when `iree-opt` ran it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import TESTS

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain import compiler, toolchain
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.flags import silent
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.failing_pass import dumps, find_pass, pipeline
from iree_pilot.repro.failing_pass.find_pass import FoundPass, NoPass
from iree_pilot.repro.failing_pass.narrow import narrow
from iree_pilot.repro.failing_pass.pipeline import PipelineElement
from iree_pilot.repro.reproducer.folder import bundle

TOOLS = TESTS / "fake" / "pass-tools"
PASSES = ("fold", "tile", "fuse", "lower", "bufferize", "emit")
PROGRAM = "module {\n  func.func @main()\n}\n"
ENDED = process.Outcome(
    argv=("iree-compile",), ended_by="exit", exit_code=1, signal=None, seconds=0.1, peak_bytes=0
)
LEGALIZE = diagnostics.compile_failure(
    ENDED, "model.mlir:2:3: error: failed to legalize operation 'a.lower'\n", "input"
)


# -- pipelines ------------------------------------------------------------------------------------

NAMES = st.sampled_from(["cse", "canonicalize", "convert-torch-to-linalg", "iree-x.y"])
OPTIONS = st.sampled_from(["", "{a=1 b=x}", "{ops={func.func,scf.for} f=g(h)}", "{m=<a, b> t=->}"])
LEAVES = st.builds(PipelineElement, NAMES, OPTIONS)
ANCHORS = st.sampled_from(["func.func", "hal.executable", "any"])
ELEMENTS: st.SearchStrategy[PipelineElement] = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda name, inside: PipelineElement(name, inside=tuple(inside)),
        ANCHORS,
        st.lists(inner, min_size=1, max_size=4),
    ),
    max_leaves=12,
)
PIPELINES = st.builds(
    lambda inside: PipelineElement("builtin.module", inside=tuple(inside)),
    st.lists(ELEMENTS, min_size=1, max_size=4),
)


@given(PIPELINES)
def test_what_is_printed_is_read_again(whole: PipelineElement) -> None:
    assert pipeline.parse(str(whole)) == whole


@given(PIPELINES, st.integers(0, 20), st.integers(0, 20))
def test_a_part_of_a_pipeline_has_these_passes_where_they_were(
    whole: PipelineElement, first: int, last: int
) -> None:
    part = whole.between(first, last)
    assert part.passes == whole.passes[first:last]
    assert part.name == whole.name
    assert whole.between(0, len(whole.passes)) == whole


@pytest.mark.parametrize("text", ["", "cse", "a(b", "a(b))", "a(b),c(d)", "a(b{c)", "a(b)c"])
def test_what_is_no_pipeline_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        pipeline.parse(text)


# -- the binary search ----------------------------------------------------------------------------


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_the_first_that_makes_it_wrong_is_found(row: tuple[int, int]) -> None:
    count, bad = row
    asked: list[int] = []

    def wrong(number: int) -> bool:
        asked.append(number)
        return number > bad

    assert narrow(count, wrong) == (bad, bad + 1)
    assert len(asked) <= (count - 1).bit_length()
    assert all(0 < number < count for number in asked)


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=100))
def test_where_right_and_wrong_alternate_a_place_between_them_is_found(
    answers: list[bool | None],
) -> None:
    row = [False, *answers[1:], True]
    right, wrong = narrow(len(answers), lambda number: row[number])
    assert row[right] is False and row[wrong] is True and right < wrong
    assert all(answer is None for answer in row[right + 1 : wrong])


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=100), st.integers(0, 9))
def test_no_more_is_asked_than_allowed(answers: list[bool | None], most: int) -> None:
    row = [False, *answers[1:], True]
    asked: list[int] = []

    def wrong(number: int) -> bool | None:
        asked.append(number)
        return row[number]

    right, bad = narrow(len(answers), wrong, most)
    assert len(asked) <= most and row[right] is False and row[bad] is True


def test_nothing_has_no_such_place() -> None:
    assert narrow(0, lambda number: True) == (0, 0)


# -- what the compiler prints ---------------------------------------------------------------------

PRINTED = """\
// -----// IR Dump Before CSEPass: cse ('func.func' operation: @main) //----- //
#map = affine_map<(d0) -> (d0)>
module {
  func.func @main() {
    return
  }
}

{-#
  dialect_resources: { }
#-}

a.mlir:1:2: error: 'a.b' op is wrong
}
// -----// IR Dump After mlir::(anonymous) Failed //----- //
// -----// IR Dump After LowerPass Failed: lower{a=1} //----- //
"module"() ({
}) {a = 1} : () -> ()
more
"""


def test_dumps_are_read_without_what_comes_after_them() -> None:
    before, after = dumps.read(PRINTED)
    assert (before.before, before.failed, before.pass_class) == (True, False, "CSEPass")
    assert (before.spelled, before.operation, before.symbol) == ("cse", "func.func", "@main")
    assert before.text.startswith("#map") and before.text.endswith("#-}")
    assert (after.before, after.failed, after.name) == (False, True, "lower")
    assert after.text.splitlines()[-1] == "}) {a = 1} : () -> ()"


def test_what_the_user_has_printed_is_not_read_as_ours() -> None:
    given = ("--mlir-print-ir-after-failure", "--iree-opt-level=O2", "-mlir-print-ir-before=cse")
    assert silent(given) == ("--iree-opt-level=O2",)


def test_what_failed_is_held_against_the_same_operation() -> None:
    said = (
        "// -----// IR Dump Before LowerPass: lower //----- //\n"
        "util.func public @main$async(%a: i32) {\n}\n"
        "// -----// IR Dump Before LowerPass: lower //----- //\n"
        "util.func public @main(%a: i32) {\n  util.call @main$async()\n}\n"
        "// -----// IR Dump After LowerPass Failed: lower //----- //\n"
        "util.func public @main$async(%a: i64) {\n}\n"
    )
    failed = dumps.failing(said)
    assert failed is not None
    before = dumps.before(said, failed)
    assert before is not None and before.text.startswith("util.func public @main$async(%a: i32)")


def test_dumps_of_older_releases_are_read() -> None:
    (dump,) = dumps.read("// -----// IR Dump Before ConvertX (convert-x) //----- //\nmodule {\n}\n")
    assert (dump.pass_class, dump.spelled, dump.text) == ("ConvertX", "convert-x", "module {\n}")


def test_the_last_pass_begun_is_the_one_that_was_running() -> None:
    last = dumps.last(PRINTED)
    assert last is not None and last.spelled == "cse"
    assert dumps.last("error: nothing was printed\n") is None
    assert dumps.failing("error: nothing was printed\n") is None


# -- the failing pass -----------------------------------------------------------------------------


@pytest.fixture
def looked_for(tmp_path: Path) -> Any:
    """What is found of a compile that fails in `lower`, and how often a tool was started."""

    def found(failure: Failure = LEGALIZE, **settings: Any) -> tuple[FoundPass | NoPass, int]:
        tools = tmp_path / "tools"
        tools.mkdir()
        for name in ("iree-compile", "iree-opt"):
            shutil.copy(TOOLS, tools / name)
        known = {"passes": PASSES, "bad": "lower"} | settings
        (tools / "passes.json").write_text(json.dumps(known))
        (tmp_path / "repro.mlir").write_text(PROGRAM)
        release = Toolchain(
            version="9.9.0",
            revision="0" * 40,
            compiler=tools / "iree-compile",
            opt=tools / "iree-opt",
            runtime=None,
            phases=("start", "input", "end"),
            flags=frozenset(),
        )
        made = find_pass.find(
            tmp_path / "repro.mlir",
            failure,
            Context(
                toolchain=release,
                limits=process.Limits(seconds=2.0 if settings.get("hangs") else 60.0),
                directory=tmp_path / "out",
            ),
            ("--flag",),
        )
        return made, len((tools / "starts").read_text().splitlines())

    return found


@pytest.mark.slow
def test_a_long_pipeline_is_cut_to_the_pass_that_fails_and_the_ir_before_it(
    looked_for: Any,
) -> None:
    found, starts = looked_for(reproducer="whole")
    assert isinstance(found, FoundPass)
    assert (found.name, found.pass_class) == ("lower", "LowerPass")
    assert found.pipeline == "builtin.module(func.func(lower))"
    assert Path(found.file).read_text().splitlines()[2:-1] == [
        "  // fold",
        "  // tile",
        "  // fuse",
    ]
    assert found.runs == starts <= 8


@pytest.mark.slow
def test_a_pass_that_changes_the_ir_before_it_fails_has_a_diff(looked_for: Any) -> None:
    found, _ = looked_for(reproducer="whole")
    assert "--- before LowerPass\n+++ after LowerPass until it failed\n" in found.changed
    assert [line for line in found.changed.splitlines() if line.startswith("+ ")] == ["+  // lower"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"reproducer": "unreadable"}, {"generic": True}])
def test_without_a_reproducer_that_can_be_run_the_printed_ir_serves(
    looked_for: Any, settings: dict[str, Any]
) -> None:
    found, _ = looked_for(**settings)
    assert isinstance(found, FoundPass)
    assert (found.name, found.pipeline) == ("lower", "builtin.module(func.func(lower))")
    assert "// fuse" in Path(found.file).read_text()


@pytest.mark.slow
def test_a_pass_that_runs_others_is_named_and_not_the_last_of_those(looked_for: Any) -> None:
    """Constants are evaluated by a pass that compiles and runs a program of its own."""
    found, _ = looked_for(nested=["fold", "emit"])
    assert isinstance(found, FoundPass)
    assert (found.name, found.pass_class) == ("lower", "LowerPass")
    assert found.changed == "" or "module {" not in found.changed.splitlines()[3]


@pytest.mark.slow
def test_a_pass_that_is_named_by_the_compiler_is_named_where_it_cannot_be_run(
    looked_for: Any,
) -> None:
    other = Failure(kind="diagnostic", message="", signature="diagnostic/other", phase="input")
    found, _ = looked_for(other, nested=["emit"])
    assert isinstance(found, NoPass)
    assert found.named == "lower" and "lower, the pass that fails" in found.why


@pytest.mark.slow
def test_a_pass_that_only_fails_with_a_flag_gets_it(looked_for: Any) -> None:
    found, _ = looked_for(needs="--flag")
    assert isinstance(found, FoundPass)
    assert (found.name, found.flags) == ("lower", ("--flag",))


@pytest.mark.slow
def test_of_what_never_ends_the_pass_that_runs_is_named(looked_for: Any) -> None:
    endless = Failure(kind="timeout", message="stopped", signature="timeout/input", phase="input")
    found, starts = looked_for(endless, hangs=True)
    assert isinstance(found, FoundPass)
    assert (found.name, found.pass_class, found.changed) == ("lower", "LowerPass", "")
    assert starts == 2


@pytest.mark.slow
def test_a_pass_that_fails_in_another_way_is_named_and_not_taken(looked_for: Any) -> None:
    other = Failure(kind="diagnostic", message="", signature="diagnostic/other", phase="input")
    found, _ = looked_for(other, reproducer="whole")
    assert isinstance(found, NoPass)
    assert found.named == "lower" and "does not fail in the same way" in found.why


def test_a_diff_is_as_long_as_somebody_reads() -> None:
    def dump(text: str, failed: bool = False) -> dumps.Dump:
        header = f"IR Dump {'After' if failed else 'Before'} XPass{' Failed' if failed else ''}: x"
        return next(dumps.read(f"// -----// {header} //----- //\n{text}\n"))

    long = "\n".join(f"line {i} {'x' * 5000}" for i in range(1000))
    lines = find_pass.diff(dump("module {\n}"), dump(f"module {{\n{long}\n}}", True)).splitlines()
    assert len(lines) < 300 and lines[-1].endswith("more lines")
    assert max(map(len, lines)) < 2100
    assert find_pass.diff(dump("module {\n}"), dump("module {\n}", True)) == ""


PRELU = """
func.func @main(%x: !torch.vtensor<[2,8,16],f32>, %w: !torch.vtensor<[8],f32>)
    -> !torch.vtensor<[2,8,16],f32> {
  %0 = torch.aten.prelu %x, %w
      : !torch.vtensor<[2,8,16],f32>, !torch.vtensor<[8],f32> -> !torch.vtensor<[2,8,16],f32>
  return %0 : !torch.vtensor<[2,8,16],f32>
}
"""
FLAGS = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=generic",
)


@pytest.mark.real
@pytest.mark.parametrize("printed", [False, True])
def test_the_compilers_own_pass_is_found_by_its_reproducer_and_by_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: bool
) -> None:
    (tmp_path / "repro.mlir").write_text(PRELU)
    release = toolchain.installed()
    limits = process.Limits(seconds=60)
    job = compiler.Compile(mlir=tmp_path / "repro.mlir", flags=FLAGS)
    failure = compiler.compile(
        job, Context(toolchain=release, limits=limits, directory=tmp_path)
    ).failure
    assert failure is not None
    if printed:
        monkeypatch.setattr(find_pass._PassFinder, "_reproduced", lambda *_: None)
    found = find_pass.find(
        tmp_path / "repro.mlir",
        failure,
        Context(toolchain=release, limits=limits, directory=tmp_path / "out"),
        FLAGS,
    )
    assert isinstance(found, FoundPass)
    assert found.name == "convert-torch-to-linalg"
    assert found.pass_class == "ConvertTorchToLinalg"
    assert found.pipeline.startswith("builtin.module(func.func(convert-torch-to-linalg{")
    assert "+" in found.changed and "linalg.generic" in found.changed
    level = bundle.level("pass", pipeline=found.pipeline, pass_name=found.name)
    assert level.command[2] == f"--pass-pipeline={found.pipeline}"


#: A sum of constants, which the compiler computes; a flag adds a function that it does not expect.
SUM = """
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %a = arith.constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>
  %b = arith.constant dense<[5.0, 6.0, 7.0, 8.0]> : tensor<4xf32>
  %s = tosa.add %a, %b : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %0 = tosa.sub %s, %x : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
"""


@pytest.mark.real
@pytest.mark.parametrize("printed", [False, True])
def test_the_evaluation_of_constants_is_named_and_no_pass_inside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: bool
) -> None:
    (tmp_path / "repro.mlir").write_text(SUM)
    flags = (*FLAGS, "--iree-flow-export-benchmark-funcs")
    release, limits = toolchain.installed(), process.Limits(seconds=60)
    job = compiler.Compile(mlir=tmp_path / "repro.mlir", flags=flags)
    failure = compiler.compile(
        job, Context(toolchain=release, limits=limits, directory=tmp_path)
    ).failure
    assert failure is not None and "evaling constant" in failure.message
    if printed:
        monkeypatch.setattr(find_pass._PassFinder, "_reproduced", lambda *_: None)
    found = find_pass.find(
        tmp_path / "repro.mlir",
        failure,
        Context(toolchain=release, limits=limits, directory=tmp_path / "out"),
        flags,
    )
    assert isinstance(found, FoundPass)
    assert (found.name, found.pass_class) == ("iree-consteval-jit-globals", "JitGlobalsPass")
    assert found.flags == flags
