"""Evaluation, in a child, of functions that are not in the torch dialect.

Requests and results have the same form as for PyTorch's evaluations
(`pipeline.torch_dialect.evaluate`): outputs in the program's own types and in float64, and the
values inside the function by the position of the operation in its body.
"""

from __future__ import annotations

from collections.abc import Sequence

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.torch_dialect import evaluate as by_torch
from iree_pilot.pipeline.torch_dialect.evaluate import Evaluation, EvaluationWork

#: Same as `by_torch.TORCH`, for numpy.
NUMPY = "iree_pilot.pipeline.evaluate.evaluator_child:evaluated"


def evaluate(
    works: Sequence[EvaluationWork], *, limits: process.Limits | None = None
) -> tuple[Evaluation, ...]:
    """Evaluates functions in a child, with its limits; an evaluation says why there is none."""
    return by_torch.evaluate(works, limits=limits, by=NUMPY)
