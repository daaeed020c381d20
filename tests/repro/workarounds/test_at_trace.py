"""What may let a source trace: ways that compute the same first, those that narrow inputs last."""

from __future__ import annotations

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.program.program import Decided
from iree_pilot.repro.workarounds import rewrites

GUARD = diagnostics.trace_failure(
    "GuardOnDataDependentSymNode", "Could not guard on data-dependent expression Eq(u0, 1)"
)
OTHER = diagnostics.trace_failure("NotImplementedError", "there is no kernel for transformers")
EXAMPLE = "--set data_dependent=example"


def job(**fields: str) -> Job:
    return Job(source=Source(text="m.py", kind="file", path="m.py", fields={**fields}))


def test_values_of_the_example_inputs_are_tried_last_and_against_guards_only() -> None:
    assert [one.name for one in rewrites.at_trace(job(), GUARD)] == [EXAMPLE]
    names = [one.name for one in rewrites.at_trace(job(), OTHER)]
    assert names
    assert EXAMPLE not in names
    assert rewrites.at_trace(job(data_dependent="example"), GUARD) == []


def test_the_reason_says_for_which_inputs_the_program_holds() -> None:
    (candidate,) = rewrites.at_trace(job(), GUARD)
    constant = Decided(place="/a/m.py:3", code="if n > 2:", value="True", on_inputs=False)
    branch = Decided(place="/a/m.py:7", code="if mask.any():", value="False", on_inputs=True)
    assert rewrites.limited(candidate, (constant,)) == candidate
    assert rewrites.limited(candidate, (constant, branch)).reason == (
        "only for inputs for which `if mask.any():` (m.py:7) takes False; "
        "others are refused when it runs"
    )
