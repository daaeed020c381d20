"""What is said of a failure, line by line, and not said twice."""

from __future__ import annotations

from iree_pilot.pipeline import failure_lines


def test_facts_that_another_failure_has_too_are_named_by_their_labels() -> None:
    location = [("location", "a.mlir:3:1"), ("", "%1 = torch.aten.mm"), ("python", "net.py:7")]
    first = [("kind", "crash"), *location, (" ", "x @ y"), ("signature", "crash/a")]
    second = [("kind", "crash"), *location, (" ", "x @ z"), ("signature", "crash/b")]
    left, labels = failure_lines.shown_before(second, first)
    assert left == [("python", "net.py:7"), (" ", "x @ z"), ("signature", "crash/b")]
    assert labels == ["kind", "location"]
    assert failure_lines.shown_before(first, first) == (
        [],
        ["kind", "location", "python", "signature"],
    )
