"""Right programs are not accused, wrong results of them are; and what the table says of both."""

from __future__ import annotations

from pathlib import Path

import bench_right
import pytest
import torch
from bench_right import Judged
from right import floats, fp8, integers, known
from right.steps import Draw, Right

from iree_pilot.pipeline.toolchain.toolchain import installed

SAMPLE, LEVELS = 3, ("O0", "O3")


def judged(number: int, level: str = "O0", **more: object) -> Judged:
    fields = {"kind": "f32", "steps": "relu", "verdict": "right", **more}
    return Judged(number=number, level=level, **fields)  # type: ignore[arg-type]


class TestTable:
    def test_a_kind_has_its_programs_comparisons_and_ratios(self) -> None:
        found = [judged(n, level, ratio=n / 100) for n in range(1, 101) for level in LEVELS]
        (row,) = bench_right.rows(found)
        assert (row.programs, row.comparisons, row.accused, row.lost) == (100, 200, 0, 0)
        assert row.ratio == (0.505, 0.95, 1.0)

    def test_what_is_accused_or_not_compared_is_counted(self) -> None:
        found = [
            judged(1, ratio=2.0, verdict="accused"),
            judged(2, verdict="not compared"),
            judged(3, verdict="does not compile"),
            judged(4, verdict="does not run"),
        ]
        (row,) = bench_right.rows(found)
        assert (row.programs, row.comparisons, row.accused, row.lost) == (2, 2, 2, 2)

    def test_a_program_that_fails_at_one_level_is_still_compared_at_the_other(self) -> None:
        found = [judged(1, "O0"), judged(1, "O3", verdict="does not compile"), judged(2)]
        (row,) = bench_right.rows(found)
        assert (row.programs, row.comparisons, row.lost) == (2, 2, 0)


class TestPrograms:
    MAKERS = (
        lambda draw: floats.program(draw, torch.float32),
        lambda draw: floats.program(draw, torch.bfloat16),
        fp8.program,
        integers.program,
    )

    @pytest.mark.parametrize("make", MAKERS)
    def test_a_seed_gives_one_program(self, make: object) -> None:
        def made(seed: str) -> Right:
            return make(Draw(seed))  # type: ignore[operator,no-any-return]

        once, again, other = made("a"), made("a"), made("b")
        assert repr(once.module) == repr(again.module)
        assert repr(once.module) != repr(other.module)
        for one, same in zip(once.module(*once.inputs), again.module(*again.inputs), strict=True):
            assert torch.equal(one, same)

    def test_values_stay_where_nothing_overflows(self) -> None:
        for number in range(20):
            right = floats.program(Draw(f"{number}"), torch.float16)
            for output in right.module(*right.inputs):
                assert output.isfinite().all()
                assert 0.05 < output.double().square().mean().sqrt() < 50

    def test_each_fp8_program_rounds_to_8_bits(self) -> None:
        assert all("float8" in repr(fp8.program(Draw(f"{n}")).module) for n in range(20))


@pytest.mark.slow
@pytest.mark.real
def test_no_right_program_is_accused_and_each_wrong_one_is(tmp_path: Path) -> None:
    found = [*bench_right.measure(bench_right.KINDS, SAMPLE, 0, LEVELS, 0, installed(), tmp_path)]
    assert [j for j in found if j.verdict in ("accused", "not compared")] == []
    rows = bench_right.rows(found)
    assert [row.kind for row in rows] == [*bench_right.KINDS]
    assert all(row.programs >= SAMPLE for row in rows)
    # The same programs with a value lost are.
    assert all(row.caught == row.programs for row in rows)


@pytest.mark.real
def test_what_right_programs_do_not_hold_is_still_wrong(tmp_path: Path) -> None:
    count = len(known.WRONG)
    found = [*bench_right.measure(["known"], count, 0, ["O1"], 0, installed(), tmp_path)]
    told = {known.WRONG[j.number]: j.verdict for j in found}
    assert told == dict.fromkeys(known.WRONG, "accused")


@pytest.mark.real
def test_no_operation_of_a_right_program_is_accused_and_a_wrong_one_is(tmp_path: Path) -> None:
    kinds, numbers = ("f16", "known"), (known.WRONG.index(known.UNSIGNED),)
    right, wrong = bench_right.measure_operations(kinds, numbers, 0, installed(), tmp_path)
    assert (right.accused, right.lost) == ((), ())
    assert right.count > 5
    assert set(wrong.accused) == {"torch.aten.sort"}
