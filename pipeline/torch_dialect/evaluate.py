"""Evaluates programs in the torch dialect with PyTorch: references, and values of intermediates.

Every operation is carried out by the operator of PyTorch that it stands for, with the program's
real inputs and parameters: in the program's own dtypes, and once more in float64 by the rules of
`pipeline.frontends.reference.reference`. That takes torch and the compiler's bindings, so a child
does it: `pipeline.torch_dialect.torch_child`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.processes.task import Done
from iree_pilot.pipeline.program.program import Call, Jitter, Reference, Tensor

#: The evaluator: a function for `task.call` from `list[Work]` to `Stage`.
TORCH = "iree_pilot.pipeline.torch_dialect.torch_child:evaluated"
#: Note of a reference until its double-precision part is complete.
UNFINISHED = "no double-precision reference: computing it was ended"


class EvaluationWork(msgspec.Struct, frozen=True, kw_only=True):
    """A function to evaluate. All paths are absolute.

    mlir: the file, text or bytecode. archives: hold the parameters that it loads. place: the
    directory to write to: outputs to `data/`, values to `values/`, both made if need be. values:
    the tensors inside the function whose value is wanted too, as (position of the operation in the
    function's body, number of its result); None: all of them. outputs: the element types of the
    results, for IR whose integers have no sign. scopes: the archives of each scope of parameters,
    where there are several. jitter: by PyTorch; other evaluators
    do not.
    """

    mlir: str
    function: str
    inputs: tuple[Tensor, ...]
    place: str
    archives: tuple[str, ...] = ()
    values: tuple[tuple[int, int], ...] | None = ()
    outputs: tuple[str, ...] = ()
    scopes: dict[str, tuple[str, ...]] = {}
    jitter: Jitter = "none"


class EvaluatedValue(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor inside a function: in the program's own dtype, and in double precision.

    op: the position of the operation that makes it in the function's body, as in `repro.ir.graph`.
    result: the number of its result. precise: None where that could not be evaluated.
    """

    op: int
    result: int
    own: Tensor
    precise: Tensor | None = None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a `Work`. Files are relative to its place.

    reference: None where the function cannot be evaluated; why then says the reason. Where all
    values are wanted those are there that do not depend on what cannot be evaluated; skipped: the
    operations that cannot, by position. cut_off: a limit ended it, more would have let it go on.
    """

    reference: Reference | None = None
    values: tuple[EvaluatedValue, ...] = ()
    why: str = ""
    skipped: tuple[int, ...] = ()
    cut_off: bool = False


class Stage(msgspec.Struct, frozen=True):
    """Interim result of the work of a number."""

    number: int
    evaluation: Evaluation


def work(
    call: Call,
    place: Path,
    *,
    values: tuple[tuple[int, int], ...] | None = (),
    jitter: Jitter = "none",
) -> EvaluationWork:
    """The work of a call; `place`, `values` and `jitter` as in the record."""
    root, parameters = call.directory.absolute(), call.program.parameters
    return EvaluationWork(
        mlir=str(call.mlir.absolute()),
        function=call.function.name,
        inputs=call.inputs,
        place=str(place.absolute()),
        archives=tuple(str(root / a) for a in (parameters.archives if parameters else ())),
        values=values,
        outputs=tuple(kind.dtype for kind in call.function.outputs),
        scopes={
            scope: tuple(str(root / a) for a in files)
            for scope, files in (parameters.scopes if parameters else {}).items()
        },
        jitter=jitter,
    )


def made_place(work: EvaluationWork) -> Path:
    """Directory that an evaluator writes to, created if necessary."""
    made = Path(work.place)
    for name in ("data", *(["values"] if work.values != () else [])):
        (made / name).mkdir(parents=True, exist_ok=True)
    return made


def paired(
    own: Mapping[tuple[int, int], Tensor], precise: Mapping[tuple[int, int], Tensor]
) -> tuple[EvaluatedValue, ...]:
    """Values in their own types, by operation and result, with what is known in float64."""
    return tuple(
        EvaluatedValue(op=key[0], result=key[1], own=value, precise=precise.get(key))
        for key, value in own.items()
    )


def evaluate(
    works: Sequence[EvaluationWork], *, limits: process.Limits | None = None, by: str = TORCH
) -> tuple[Evaluation, ...]:
    """Evaluates functions one after the other, in one child as long as that lives.

    limits: of each child. by: what it calls; this one evaluates with PyTorch. What cannot be
    evaluated, or ends the child, says so in its evaluation; those after it are evaluated all the
    same. Raises OSError where the disk is full.
    """

    def ask(left: list[EvaluationWork]) -> Done[Stage]:
        with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
            return task.call(by, left, Stage, Path(scratch), limits=limits)

    return settled(works, ask)


def settled(
    works: Sequence[EvaluationWork], ask: Callable[[list[EvaluationWork]], Done[Stage]]
) -> tuple[Evaluation, ...]:
    """Results of all works; `ask` has a child do some, and is asked again when that has died."""
    done: list[Evaluation] = []
    while len(done) < len(works):
        left = list(works[len(done) :])
        ended = ask(left)
        latest = {stage.number: stage.evaluation for stage in ended.replies}
        found = [latest[number] for number in range(len(latest))]
        cut_off = ended.outcome.ended_by in ("time-limit", "memory-limit")
        last = found[-1].reference if found else None
        unfinished = last is not None and last.note == UNFINISHED
        if unfinished:
            found[-1] = msgspec.structs.replace(found[-1], cut_off=cut_off)
        elif len(found) < len(left):
            failure = diagnostics.trace_death(ended.outcome, ended.stderr)
            why = f"evaluating it failed: {failure.message}"
            found.append(Evaluation(why=why, cut_off=cut_off))
        done += found
    return tuple(done)
