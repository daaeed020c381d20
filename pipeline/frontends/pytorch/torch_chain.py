"""Generation of tokens in PyTorch, with a model's functions chained as they are on a device.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from iree_pilot.models.chains import greedy
from iree_pilot.models.spec import referred
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.job import Chained, Generated, Job
from iree_pilot.pipeline.frontends.pytorch import torch_sources
from iree_pilot.pipeline.frontends.reference import widening
from iree_pilot.pipeline.program import program as programs
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import TORCH_ELEMENT_TYPES, Reference, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Modules:
    """A model's functions as PyTorch runs them; values are torch's tensors."""

    def __init__(
        self,
        functions: Mapping[str, nn.Module],
        mode: contextlib.AbstractContextManager[Any] | None = None,
    ) -> None:
        self._functions = functions
        self._mode = mode or contextlib.nullcontext()

    def call(self, function: str, *values: Any) -> Sequence[Any]:
        """The module's results."""
        given = [v if isinstance(v, torch.Tensor) else _tensor(v) for v in values]
        with torch.no_grad(), self._mode:
            results: Sequence[Any] = self._functions[function](*given)
        return results

    def read(self, value: torch.Tensor) -> NDArray[Any]:
        """The tensor as an array of its own type."""
        dtype = tensors.numpy_dtype(TORCH_ELEMENT_TYPES[str(value.dtype).removeprefix("torch.")])
        raw = value.contiguous().reshape(-1).view(torch.uint8).numpy()
        return raw.view(dtype).reshape(value.shape)


def _tensor(values: NDArray[Any]) -> torch.Tensor:
    dtype = next(e.torch for e in programs.ELEMENT_TYPES.values() if e.numpy == values.dtype.name)
    raw = torch.from_numpy(np.frombuffer(bytearray(values.tobytes()), np.uint8))
    return raw.view(getattr(torch, dtype)).reshape(values.shape)


def build(job: Job, directory: Path, doing: Callable[[str], None]) -> Generated:
    """Makes the job's model, chains its functions, and writes each step's logits to `directory`.

    What is generated in double precision goes on with the tokens that PyTorch picks in the model's
    own dtypes. Whatever the model raises passes through.
    """
    chained = job.chained
    assert chained is not None
    torch.manual_seed(job.seed)
    doing("making the model")
    traceable, _ = torch_sources.traceable(job)
    traceable = torch_sources.with_weights(traceable, job.weights, job.source.text)
    if not traceable.weights:
        raise UsageError(
            f"{job.source.text}: PyTorch cannot generate tokens to compare with: its weights are "
            "not loaded, as memory does not hold them",
            advice="Run it without --generate and without --set dynamic=true.",
        )
    functions = {entry.name: entry.module for entry in traceable.functions}
    doing("generating tokens with PyTorch")
    tokens, own = _generate(Modules(functions), chained, directory, "own")
    wide: tuple[Tensor, ...] = ()
    perturbed: tuple[Tensor, ...] = ()
    note = ""
    try:
        mode = widening.Precisely()
        _, wide = _generate(Modules(functions, mode), chained, directory, "precise", tokens)
        if mode.rounded:
            moved = Modules(functions, widening.Precisely(perturbed=True))
            _, perturbed = _generate(moved, chained, directory, "perturbed", tokens)
    except widening.NotEvaluable as fault:
        note = f"no double-precision reference: {fault}"
    return Generated(
        tokens=tokens,
        reference=Reference(
            outputs=own,
            precise=wide,
            precise_dtype="f64" if wide else None,
            perturbed=perturbed,
            evaluator=f"torch {torch.__version__} eager",
            note=note,
        ),
    )


def _generate(
    modules: Modules,
    chained: Chained,
    directory: Path,
    name: str,
    forced: tuple[tuple[int, ...], ...] = (),
) -> tuple[tuple[tuple[int, ...], ...], tuple[Tensor, ...]]:
    """(the greedy tokens of each step, its logits)."""
    program = Path(chained.directory)
    inputs = tensors.examples(programs.load(program), program)
    steps = greedy(referred(chained.chain), modules, inputs, chained.steps, forced)
    picked, saved = [], []
    for step, (logits, tokens) in enumerate(steps, start=1):
        picked.append(tuple(tokens))
        saved.append(tensors.save(logits, directory, f"{name}{step}.bin"))
    return tuple(picked), tuple(saved)
