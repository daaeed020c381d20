"""Request and response of the child that generates on a device."""

from __future__ import annotations

import msgspec

from iree_pilot.pipeline.program.program import Tensor

#: A function for `task.call`, from `Job` to a `Step` for each that was made.
GENERATED = "iree_pilot.pipeline.execution.chained_child:generated"


class ChainJob(msgspec.Struct, frozen=True, kw_only=True):
    """Generate with `module`, compiled from the program in `directory`, on `device` (a URI).

    chain: `module:function`, see `models.chains`. tokens: what to go on with after each step,
    [step][sequence].
    """

    chain: str
    steps: int
    directory: str
    module: str
    device: str
    tokens: tuple[tuple[int, ...], ...]


class GenerationStep(msgspec.Struct, frozen=True):
    """Its greedy tokens, its last logits, and the wall time of all that it called."""

    tokens: tuple[int, ...]
    logits: Tensor
    seconds: float
