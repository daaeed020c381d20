"""A compile that does not end: the executable it is about, and limits that nobody chose."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from fake import stub_toolchain

from iree_pilot.pipeline.case_result import DOES_NOT_COMPILE, CaseResult
from iree_pilot.pipeline.failures.diagnostics import Failure, Stopped
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.phases import Phase
from iree_pilot.pipeline.toolchain.releases import find
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro import failed, isolate
from iree_pilot.repro.isolate import GaveUp
from iree_pilot.repro.oracles.oracle import Answer
from iree_pilot.repro.reducer import locate

FAILURE = Failure(
    kind="timeout", message="stopped", signature="timeout", phase="executable-targets"
)
DEFAULT = Stopped(seconds=600, default=True, processor_seconds=590)
SOON = Limits(seconds=3, of_processor=True)
PROGRAM = """func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %0 = arith.addf %a, %a : tensor<4xf32>
  return %0 : tensor<4xf32>
}
// stub: executable copy
// stub: executable add HOW
"""


def stopped(at: Stopped) -> Failure:
    return msgspec.structs.replace(FAILURE, stopped=at)


@pytest.fixture
def located(tmp_path: Path) -> Any:
    toolchain = stub_toolchain(tmp_path / "release")

    def made(failure: Failure) -> locate.Located:
        program = tmp_path / "program.mlir"
        program.write_text(PROGRAM.replace("HOW", "hang-at executable-targets"))
        context = Context(toolchain=toolchain, limits=SOON, directory=tmp_path)
        return locate.Locator(program, failure, context, (), width=1).located()

    return made


class TestLocate:
    def test_the_one_that_is_named_is_not_tried_again(self, located: Any) -> None:
        found = located(stopped(Stopped(seconds=10, executable="copy")))
        assert Path(found.executable).name == "program_copy.mlir"
        assert (found.confirmed, found.calls) == (True, 1)

    @pytest.mark.slow
    def test_else_each_is_compiled_alone(self, located: Any) -> None:
        found = located(FAILURE)
        assert Path(found.executable).name == "program_add.mlir"
        assert (found.confirmed, found.calls) == (True, 3)


@pytest.mark.real
def test_a_program_that_is_slow_as_a_whole_is_not_accused(tmp_path: Path) -> None:
    program = tmp_path / "program.mlir"
    program.write_text(PROGRAM.replace("HOW", ""))
    toolchain: Toolchain = stub_toolchain(tmp_path / "release")
    job = isolate.IsolationJob(
        mlir=program,
        failure=stopped(DEFAULT),
        context=Context(
            toolchain=toolchain,
            limits=Limits(seconds=10, of_processor=True),
            directory=tmp_path,
        ),
        flags=(),
    )
    from iree_pilot.repro.oracles.oracle import CompileOracle

    oracle = CompileOracle(job.context, (), job.failure)
    outcome = isolate.isolate(job, oracle)
    assert isinstance(outcome, GaveUp)
    assert outcome.why == (
        "no executable takes 10 s of processor time alone, so the program is slow as a whole: "
        "stopped"
    )


class _Fused:
    """Oracle of a failure of an absolute value that is fused with the multiplication before it."""

    calls = 0
    others: ClassVar[dict[str, Failure]] = {}

    def ask(self, candidates: list[Path]) -> list[Answer]:
        self.calls += len(candidates)
        texts = [one.read_text(encoding="utf-8") for one in candidates]
        fails = [{"arith.mulf", "math.absf"} <= set(re.findall(r"\w+\.\w+", t)) for t in texts]
        return [Answer(verdict="same" if one else "passes") for one in fails]

    def again(self, program: Path) -> Failure | None:
        raise AssertionError("the whole program was compiled")

    def shows(self, failure: Failure | None) -> bool:
        return True

    def said(self, candidate: Path) -> str:
        return ""


@pytest.mark.real
def test_what_is_fused_before_the_named_operation_is_tried_without_the_whole_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.mlir"
    body = ["arith.mulf %a, %a", *["arith.addf %0, %a", "math.absf %1"], "math.exp %2"]
    lines = [f"  %{i} = {op} : tensor<4xf32>" for i, op in enumerate(body)]
    head = "func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {"
    program.write_text("\n".join([head, *lines, "  return %3 : tensor<4xf32>", "}", ""]))
    context = Context(toolchain=find(None), limits=Limits(), directory=tmp_path / "state")
    context.directory.mkdir()
    named = Failure(
        kind="diagnostic",
        message="cannot",
        signature="diagnostic/cannot",
        phase="executable-targets",
        location=f"{program}:4:8",
    )
    monkeypatch.setattr(locate, "Locator", None)
    job = isolate.IsolationJob(mlir=program, failure=named, context=context, flags=())
    found = isolate.isolate(job, _Fused())
    assert isinstance(found, isolate.Isolated)
    assert (found.ops, found.minimal) == (("arith.mulf", "math.absf"), True)


class TestLimits:
    """What candidates are judged at."""

    CASE = CaseResult(
        target="vulkan",
        release="3.13.0",
        device=None,
        arch=None,
        status="failed",
        why=DOES_NOT_COMPILE,
        steps=(),
        phases=(Phase(name="input", seconds=7, bytes=0, ops={}),),
    )
    GIVEN = Limits(seconds=600, memory_bytes=1, default=True)

    def limits(self, failure: Failure) -> Limits:
        return failed._limits(self.CASE, failure, self.GIVEN)

    def test_the_users_own_are_kept(self) -> None:
        assert self.limits(FAILURE) == self.GIVEN
        assert self.limits(stopped(Stopped(seconds=90))) == self.GIVEN

    def test_that_which_an_executable_was_seen_to_exceed(self) -> None:
        limits = self.limits(stopped(Stopped(seconds=25, executable="matmul")))
        assert (limits.seconds, limits.of_processor, limits.default) == (25, True, False)
        assert limits.memory_bytes == 1

    def test_of_the_default_no_part_has_all(self) -> None:
        assert self.limits(stopped(DEFAULT)).seconds == 10
        early = msgspec.structs.replace(stopped(DEFAULT), phase="flow")
        assert self.limits(early).seconds == 60 + 2 * 7


class TestBusy:
    @pytest.fixture(autouse=True)
    def load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cores = len(os.sched_getaffinity(0))
        monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 3.0 * cores, 0.0))

    def test_the_default_limit_on_a_busy_machine_is_no_finding(self) -> None:
        starved = Stopped(seconds=600, default=True, processor_seconds=200)
        why = failed._too_busy(stopped(starved))
        assert why.startswith("stopped: other processes keep this machine busy (load ")

    @pytest.mark.parametrize(
        "at",
        [
            DEFAULT,
            Stopped(seconds=600, processor_seconds=200),
            Stopped(seconds=10, executable="matmul"),
        ],
    )
    def test_one_that_had_its_time_is(self, at: Stopped) -> None:
        assert failed._too_busy(stopped(at)) == ""

    def test_nor_is_a_machine_blamed_that_has_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
        starved = Stopped(seconds=600, default=True, processor_seconds=200)
        assert failed._too_busy(stopped(starved)) == ""
