"""When a verdict is not true beside what the stock tools say, and programs to ask about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bench_stock
import bench_verdicts
import pytest
from bench_stock import Call, Stock
from bench_verdicts import Given, Judged, Said
from dialects import write

from iree_pilot.pipeline.targets.targets import parse, plan
from iree_pilot.pipeline.toolchain.releases import find

CALLS = (Call("main", ()),)
RUNS = Stock(compiles=True, runs=True)
TAKEN = Stock(compiles=True, runs=False, said="no device")
REFUSED = Stock(compiles=False, runs=False, said="error: unknown op")


def said(verdict: str, kind: str = "", *blind: str) -> Said:
    return Said(verdict=verdict, exit_code=0, kind=kind, blind=blind)


def document(status: str, *verdicts: str) -> Any:
    outputs = [{"index": n, "verdict": verdict} for n, verdict in enumerate(verdicts)]
    comparison = {"outputs": outputs} if verdicts else None
    functions = [{"name": "main", "comparison": comparison}]
    return {"cases": [{"status": status, "why": "", "failure": None, "functions": functions}]}


@pytest.mark.parametrize(
    ("stock", "ours", "fault"),
    [
        (RUNS, said("ok"), None),
        (RUNS, said("ok", "", "main was not compared"), "blind ok"),
        (RUNS, said("ran", "", "main was not compared"), None),
        (RUNS, said("compiled"), "never run"),
        (TAKEN, said("compiled"), None),
        (RUNS, said("refused"), "refused"),
        (TAKEN, said("refused"), "refused"),
        (REFUSED, said("refused"), None),
        (REFUSED, said("failed", "diagnostic"), None),
        (REFUSED, said("ran"), "not failed"),
        (RUNS, said("failed", "runtime-error"), "failed"),
        (RUNS, said("failed", "mismatch"), "wrong numbers"),
        (TAKEN, said("failed", "runtime-error"), None),
    ],
)
def test_a_verdict_is_held_against_the_stock_tools(
    stock: Stock, ours: Said, fault: str | None
) -> None:
    assert bench_verdicts.fault(stock, ours) == fault


class TestDocument:
    def test_ok_rests_on_every_output_of_every_function(self) -> None:
        calls = (*CALLS, Call("other", ()))
        made = bench_verdicts.read(document("ok", "ok", "not-compared"), calls, 0, "")
        assert (made.verdict, len(made.blind)) == ("ok", 2)
        assert bench_verdicts.read(document("ok", "ok"), CALLS, 0, "").blind == ()
        assert bench_verdicts.read(document("ok"), CALLS, 0, "").blind == ("main was not compared",)

    def test_without_a_case_it_was_refused(self) -> None:
        made = bench_verdicts.read(None, CALLS, 2, "no such file\n")
        assert (made.verdict, made.exit_code, made.why) == ("refused", 2, "no such file")


def test_the_table_counts_a_dialects_verdicts_and_faults() -> None:
    common = {"dialect": "tosa", "stock": RUNS}
    judged = [
        Judged(name="a", said=said("ok"), fault=None, **common),  # type: ignore[arg-type]
        Judged(name="b", said=said("ran"), fault=None, **common),  # type: ignore[arg-type]
        Judged(name="c", said=said("compiled"), fault="never run", **common),  # type: ignore[arg-type]
    ]
    (row,) = bench_verdicts.rows(judged)
    assert (row.programs, row.taken, row.run) == (3, 3, 3)
    assert row.verdicts == {"ok": 1, "ran": 1, "compiled": 1}
    assert row.faults == {"never run": 1}


class TestPrograms:
    @pytest.mark.parametrize("dialect", write.DIALECTS)
    def test_a_seed_gives_one_program_and_all_forms_take_turns(self, dialect: str) -> None:
        made = [write.program(dialect, number, 0) for number in range(10)]
        assert made == [write.program(dialect, number, 0) for number in range(10)]
        assert made != [write.program(dialect, number, 1) for number in range(10)]
        assert {"plain", "dynamic", "functions"} <= {one.form for one in made}

    def test_inputs_are_as_large_as_their_types(self, tmp_path: Path) -> None:
        sizes = {"4x3xf32": 48, "3x3xi4": 5, "2xbf16": 4, "5xi1": 5, "2x2xf8E5M2": 4}
        for kind, size in sizes.items():
            given = bench_stock.given(kind, tmp_path / kind, 0)
            assert given == f"{kind}=@{tmp_path / kind}"
            assert (tmp_path / kind).stat().st_size == size
        assert bench_stock.given("i32", tmp_path / "scalar", 0) == "1"
        assert bench_stock.given("index", tmp_path / "scalar", 0) == "1"


@pytest.mark.real
def test_one_program_on_both_sides(tmp_path: Path) -> None:
    toolchain = find(None)
    flags = plan(parse("llvm-cpu"), toolchain).flags
    mlir = tmp_path / "sum.mlir"
    mlir.write_text(
        "func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {\n"
        "  %0 = arith.addf %a, %a : tensor<4xf32>\n  return %0 : tensor<4xf32>\n}\n"
    )
    calls = (Call("main", ("4xf32=1",)),)
    given = Given(name="sum", dialect="linalg", mlir=mlir, calls=calls)
    broken = Given(name="broken", dialect="linalg", mlir=tmp_path / "broken.mlir", calls=calls)
    broken.mlir.write_text("func.func @main( {\n")
    narrowed = tmp_path / "narrowed.mlir"
    narrowed.write_text(
        "func.func @main(%v: !hal.buffer_view) -> !hal.buffer_view {\n"
        '  %0 = hal.tensor.import %v "v" : !hal.buffer_view -> tensor<4xf64>\n'
        "  %1 = stablehlo.convert %0 : (tensor<4xf64>) -> tensor<4xi8>\n"
        '  %2 = hal.tensor.export %1 "w" : tensor<4xi8> -> !hal.buffer_view\n'
        "  return %2 : !hal.buffer_view\n}\n"
    )
    read = Given(
        name="narrowed", dialect="stablehlo", mlir=narrowed, calls=(Call("main", ("4xf64=1",)),)
    )
    asked = [given, broken, read]
    one, other, third = bench_verdicts.measure(asked, flags, toolchain, tmp_path / "stock")
    assert one.stock.runs and one.said.verdict in ("ok", "ran") and one.fault is None
    assert not other.stock.compiles and other.said.verdict == "refused" and other.fault is None
    assert (third.said.verdict, third.narrowed, third.fault) == ("failed", True, None)
