"""A compiler with a fault planted, and what the table says of what was isolated."""

from __future__ import annotations

from pathlib import Path

import bench_delicate
import bench_plant
import bench_wrong
import pytest
import torch
from bench_plant import Fault
from bench_wrong import Judged
from right import delicate, wrong
from right.steps import Draw

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain.toolchain import installed

F32 = "!torch.vtensor<[4],f32>"
MASK = "!torch.vtensor<[4],i1>"
TANH = f"  %1 = torch.aten.tanh %0 : {F32} -> {F32}"
OTHER = "  %2 = torch.aten.tanh %1 : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>"
WHERE = f"  %3 = torch.aten.where.self %2, %1, %0 : {MASK}, {F32}, {F32} -> {F32}"
MM = f"  %4 = torch.aten.mm %1, %0 : {F32}, {F32} -> {F32} loc(#loc)"


class TestPlanted:
    def test_an_operation_with_that_result_becomes_another(self) -> None:
        fault = Fault("aten.tanh", F32, "as aten.sin")
        made = bench_plant.planted("\n".join((TANH, OTHER)), fault).splitlines()
        assert made == [TANH.replace("tanh", "sin"), OTHER]

    def test_a_choice_picks_the_other_value(self) -> None:
        (fault,) = bench_plant.faults(WHERE)
        assert bench_plant.planted(WHERE, fault) == WHERE.replace("%1, %0", "%0, %1")

    def test_a_product_comes_out_larger(self) -> None:
        (fault,) = bench_plant.faults(MM)
        right, factor, product = bench_plant.planted(MM, fault).splitlines()
        assert right == MM.replace("%4", "%right4")
        assert factor == "  %factor4 = torch.constant.float 1.05"
        assert product.startswith("  %4 = torch.aten.mul.Scalar %right4, %factor4 : ")

    def test_what_can_be_planted_is_found_once_each(self) -> None:
        text = "\n".join((TANH, TANH, OTHER, WHERE, MM))
        assert [f.op for f in bench_plant.faults(text)] == [
            "aten.tanh",
            "aten.tanh",
            "aten.where.self",
            "aten.mm",
        ]
        assert bench_plant.chosen(text, "a") == bench_plant.chosen(text, "a")
        assert bench_plant.chosen("", "a") is None


def test_each_family_of_delicate_programs_computes_on_both_targets() -> None:
    turns = len(delicate.FAMILIES)
    for number in range(turns):
        right = delicate.program(Draw(f"{number}"), number)
        assert all(isinstance(o, torch.Tensor) for o in right.module(*right.inputs))
    assert delicate.family(turns) == delicate.family(0)


def test_the_delicate_table_has_a_row_for_each_family_and_target() -> None:
    def judged(number: int, verdict: str, target: str = "llvm-cpu") -> bench_delicate.Judged:
        return bench_delicate.Judged(
            number=number,
            family="topk",
            target=target,
            verdict=verdict,  # type: ignore[arg-type]
        )

    found = [judged(0, "right"), judged(1, "accused"), judged(2, "does not run", "vulkan")]
    one, other = bench_delicate.rows(found)
    assert (one.programs, one.right, one.accused, one.lost) == (2, 1, 1, 0)
    assert (other.target, other.programs, other.lost) == ("vulkan", 1, 1)
    assert bench_delicate.total([one, other], "vulkan").programs == 1


def test_the_table_of_wrong_programs_counts_what_is_seen_and_isolated() -> None:
    def judged(outcome: str, calls: int = 0) -> Judged:
        return Judged(
            number=0,
            kind="planted",
            fault="",
            operations=60,
            noisy=False,
            said="failed",
            outcome=outcome,  # type: ignore[arg-type]
            calls=calls,
        )

    found = [judged("isolated", 4), judged("isolated", 8), judged("elsewhere"), judged("not seen")]
    (row,) = bench_wrong.rows(found)
    assert (row.programs, row.seen, row.isolated, row.elsewhere) == (4, 3, 2, 1)
    assert row.calls == (6, 8)


def test_wrong_models_hold_the_fault_whose_operation_is_expected() -> None:
    for number in range(wrong.KNOWN, wrong.KNOWN + len(wrong.FAULTS)):
        right = wrong.program(Draw(f"{number}"), number)
        assert wrong.expected(number)
        assert all(output.isfinite().all() for output in right.module(*right.inputs))
    assert wrong.expected(0) == ()


@pytest.mark.real
def test_a_compiler_with_a_fault_compiles_another_operation(tmp_path: Path) -> None:
    mlir = tmp_path / "program.mlir"
    mlir.write_text(f"func.func @main(%0: {F32}) -> {F32} {{\n{TANH}\n  return %1 : {F32}\n}}\n")
    fault = Fault("aten.tanh", F32, "as aten.sin")
    faulty = bench_plant.faulty(installed(), fault, tmp_path / "faulty")
    assert faulty.revision != installed().revision
    out = tmp_path / "input.mlir"
    outcome = process.run(
        [faulty.compiler, mlir, "--compile-to=input", "-o", out],
        stdout=tmp_path / "out",
        stderr=tmp_path / "err",
    )
    assert outcome.ok, (tmp_path / "err").read_text()
    assert "math.sin" in out.read_text() and "math.tanh" not in out.read_text()
