"""Orders for workers: which jobs cases become, and what a dry run tells of them."""

from __future__ import annotations

import msgspec
from fake.jobs import case, outcome

from iree_pilot.pipeline.nightly.history.history import Usual
from iree_pilot.pipeline.nightly.workers.orders import (
    CASE_SECONDS,
    TRACE_SECONDS,
    Order,
    Preview,
    jobs,
    preview,
    shared_out,
    untraced,
    with_trace,
)

CASES = tuple(case(s, t) for s in ("a", "b") for t in ("llvm-cpu", "vulkan"))
ORDERS = tuple(Order(what="case", case=c, directory="/") for c in CASES)
USUAL = {CASES[0].name: Usual(seconds=60.0, peak_bytes=5)}


def test_each_program_is_traced_unless_it_is_in_the_store() -> None:
    made = jobs(ORDERS, USUAL, traced={"b"})
    assert [job.order.name for job in made] == ["trace a", *(c.name for c in CASES)]
    assert [job.after for job in made] == ["", "a", "a", "", ""]
    assert [job.guessed for job in made] == [False, False, True, True, True]
    assert [job.need.seconds for job in made] == [TRACE_SECONDS, 60.0, *[CASE_SECONDS] * 3]


def test_a_case_has_the_trace_that_was_made_for_it() -> None:
    trace, done = outcome(ORDERS[0]), outcome(ORDERS[0])
    assert with_trace(done, trace).metrics == {"trace_seconds": 7.0}
    assert with_trace(outcome(ORDERS[1]), trace).metrics == {}
    assert with_trace(done, None) is done
    reused = msgspec.structs.replace(done, result=None, reused=True)
    assert with_trace(reused, trace) is reused


def test_a_trace_that_came_to_nothing_is_told_of_each_case() -> None:
    trace = msgspec.structs.replace(outcome(ORDERS[0]), result=None, why="no such file")
    told = untraced(ORDERS[1], trace)
    assert (told.case, told.result, told.why) == (CASES[1].name, None, "no such file")


def test_a_dry_run_tells_what_is_cached_and_how_long_the_rest_takes() -> None:
    assert preview(CASES[:3], {CASES[1].name}, USUAL) == (
        Preview(case=CASES[0].name, cached=False, seconds=60.0),
        Preview(case=CASES[1].name, cached=True, seconds=0.0),
        Preview(case=CASES[2].name, cached=False, seconds=None),
    )


def test_a_night_takes_its_share_of_the_work_and_no_less_than_its_longest_job() -> None:
    assert shared_out([60.0, 10.0, 10.0, 10.0], 1) == 90.0
    assert shared_out([60.0, 10.0, 10.0, 10.0], 2) == 60.0
    assert shared_out([20.0, 20.0, 20.0], 2) == 30.0
    assert shared_out([], 2) == 0.0
