"""Candidates get what the failing run took, and as many run at once as there is room for."""

from __future__ import annotations

import pytest

from iree_pilot.pipeline.failures.diagnostics import Failure, Kind
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.repro.reducer.effort import Effort, estimate

GIB = 2**30
SESSION = Limits(seconds=600, memory_bytes=18 * GIB)


def of(kind: Kind, seconds: float, peak: int, given: Limits = SESSION) -> Effort:
    failure = Failure(kind=kind, message="", signature=kind)
    return estimate(failure, seconds, peak, given, cores=4, available_bytes=20 * GIB)


@pytest.mark.parametrize(("first", "allowed"), [(0.3, 60), (5, 60), (40, 200), (300, 600)])
def test_a_candidate_gets_several_times_as_long_as_the_first_run(
    first: float, allowed: float
) -> None:
    assert of("crash", first, GIB).limits.seconds == allowed


def test_the_users_limit_stays_a_limit() -> None:
    assert of("diagnostic", 5, GIB, Limits(seconds=7)).limits.seconds == 7
    assert of("diagnostic", 5, GIB, Limits()).limits.seconds == 60
    assert of("diagnostic", 5, GIB, Limits(memory_bytes=GIB)).limits.memory_bytes == GIB


def test_a_hang_is_as_long_as_the_first_one_and_a_shortage_of_memory_as_large() -> None:
    assert of("timeout", 600, GIB).limits == SESSION
    assert of("out-of-memory", 12, 18 * GIB).limits == SESSION


@pytest.mark.parametrize(("peak", "width"), [(GIB // 4, 4), (5 * GIB, 2), (18 * GIB, 1), (0, 4)])
def test_so_many_at_once_as_fit_into_memory(peak: int, width: int) -> None:
    found = of("crash", 5, peak)
    assert found.width == width
    assert found.limits.memory_bytes is not None
    assert found.width * found.limits.memory_bytes <= 18 * GIB


def test_this_machine_is_asked_where_nothing_is_told() -> None:
    failure = Failure(kind="crash", message="", signature="crash")
    assert estimate(failure, 1, 2**20, Limits()).width >= 1
