"""Wrong numbers of which nothing smaller is found: the whole program is handed on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from driver import pilot
from places import CASES

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import Settings
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.load import load
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import installed
from iree_pilot.repro import failed
from iree_pilot.repro.options import Options
from iree_pilot.repro.reproducer.folder.bundle import Report
from iree_pilot.repro.wrong_results import part_search

CASE = CASES / "u8_sort.py"
RIGHT = """func.func @main(%a: tensor<4xf32>, %b: tensor<4xf32>) -> tensor<4xf32> {
  %0 = arith.addf %a, %b : tensor<4xf32>
  %1 = arith.mulf %0, %b : tensor<4xf32>
  return %1 : tensor<4xf32>
}
"""

pytestmark = pytest.mark.real


def test_the_whole_program_shows_them(
    tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IREE_PILOT_CACHE", str(shared_cache))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(part_search, "find", lambda *_, **__: part_search.WrongPart(part=None))
    toolchain = installed()
    context = Context(toolchain=toolchain, limits=Limits(seconds=120))
    loaded = load(Job(source=sources.parse(str(CASE), {}, None)), context)
    plan = targets.plan(targets.parse("llvm-cpu"), toolchain)
    result = case.run(loaded, plan, context, Settings(latency_budget=0), case.Silent())
    assert result.failure is not None and result.failure.kind == "mismatch"
    options = Options(place=tmp_path / "out")
    bisection = failed.isolate(loaded, result, plan, context, options)
    assert bisection.status == "gave-up"
    made = bisection.failures[0].reproducer
    assert made is not None and made.whole and made.verified and not made.minimal
    report = msgspec.json.decode((tmp_path / "out" / "report.json").read_bytes(), type=Report)
    (wrong,) = (one for one in report.wrong if one.index == 0)
    assert wrong.wrong and wrong.elements


def test_what_only_the_user_calls_wrong_is_no_issue_of_the_compilers(tmp_path: Path) -> None:
    (tmp_path / "p.mlir").write_text(RIGHT)
    given = ("--input", "4xf32=1", "--input", "4xf32=1 2 3 4", "--expected-output", "4xf32=9")
    done = pilot("bisect", "p.mlir", "-t", "llvm-cpu:generic", *given, cwd=tmp_path)
    assert done.code == 1, done.err
    assert "check what --expected-output says" in done.out
    assert not list(tmp_path.glob("repro-*"))
