"""References for programs whose types the compiler changed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from iree_pilot.pipeline.evaluate import references
from iree_pilot.pipeline.execution import runtime
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program.program import Call, Function, Tensor
from iree_pilot.pipeline.toolchain.context import Context

_MLIR = "changed.mlir"


def judged(
    comparison: Comparison, ran: runtime.RunResult, job: runtime.Run, context: Context
) -> Comparison:
    """The verdict on outputs that differ from the program's reference, which is in its own types.

    They are wrong where they also differ from what the program computes in the types of the module,
    for the inputs that it was given in these: the compiler's own pass changes them. Outputs that
    the user expects are not judged again. Files go to `workdir`.
    """
    reference, changed = job.function.reference, ran.changed
    if reference is None or changed is None or reference.users:
        return comparison
    file = _in_its_types(job, changed, context)
    if file is not None:
        program = msgspec.structs.replace(job.program, mlir=str(file.absolute()))
        call = Call(program=program, directory=job.directory, function=changed)
        again = references.of_call(call, context)
    if file is None or again is None:
        return numerics.excused(
            comparison,
            "with nothing that was evaluated: the compiler changed the types that the program "
            "computes in, and in these it was not",
        )
    found = numerics.compare(
        tuple(map(_own, ran.outputs)),
        call.expecting(again.placed(context.directory.absolute())),
        outputs_directory=context.directory,
    )
    if found.differs:
        return found
    return numerics.excused(
        comparison,
        "with the program in the types of the module, which gives something else than in its own",
    )


def _in_its_types(job: runtime.Run, changed: Function, context: Context) -> Path | None:
    """The program in the types of the module, by the passes that the compiler changes them with."""
    if context.toolchain.opt is None:
        return None
    before = (*job.function.inputs, *job.function.outputs)
    after = (*changed.inputs, *changed.outputs)
    pairs = {(_float(b.dtype), _float(a.dtype)) for b, a in zip(before, after, strict=True)}
    passes = [
        f"iree-input-conversion-{'demote' if int(a[1:]) < int(b.lstrip('b')[1:]) else 'promote'}"
        f"-{b}-to-{a}"
        for b, a in sorted(pairs)
        if a != b
    ]
    done, _ = context.run(
        [
            context.toolchain.opt,
            job.directory / job.program.mlir,
            f"--pass-pipeline=builtin.module({','.join(passes)})",
            "-o",
            context.directory / _MLIR,
        ],
        "opt",
    )
    return context.directory / _MLIR if done.ok else None


def _float(dtype: str) -> str:
    """The type of the numbers of a complex one."""
    return dtype.removeprefix("complex<").removesuffix(">")


def _own(output: Tensor) -> Tensor:
    return msgspec.structs.replace(output, stated="")
