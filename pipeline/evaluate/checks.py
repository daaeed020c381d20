"""`check.expect_*`: what a program expects of its own numbers, as outputs with references.

`iree-run-module` does not know these operations and skips them. A copy of the program is made that
returns what they check instead, and the rest is as with any program: it is compiled, run, and its
outputs are compared with what is expected. So the device computes what is judged.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.evaluate import references
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.program.program import Function, Program, Reference, Tensor

_CHECKS = re.compile(rb"\bcheck\.expect_\w+")
_RETURNING = "iree_pilot.pipeline.evaluate.checks_child:returning"
NOTE = "a copy is compiled that returns what its check operations check"
_SECONDS = 60.0


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """An output that was added to a function.

    name: with the number of the check. value: what it must be, where that is a constant; its file
    is relative to the program's directory. everywhere: it is a condition that must hold in each
    element.
    """

    name: str
    value: Tensor | None = None
    everywhere: bool = False


class CheckRewriting(msgspec.Struct, frozen=True, kw_only=True):
    """The file to rewrite, and the directory of its program."""

    mlir: str
    directory: str


class CheckRewritten(msgspec.Struct, frozen=True, kw_only=True):
    """Checks added to the results of each function, and reasons why some were not."""

    added: dict[str, tuple[Expected, ...]] = {}
    left: tuple[str, ...] = ()


def rewrite(mlir: Path, directory: Path, limits: process.Limits | None) -> CheckRewritten:
    """Makes `mlir`, a file of a program in `directory`, return what it checks.

    It is as it was where nothing is checked, or that cannot be returned; `left` says why.
    """
    if not _CHECKS.search(mlir.read_bytes()):
        return CheckRewritten()
    (directory / "data").mkdir(exist_ok=True)
    limits = limits or process.Limits()
    limits = msgspec.structs.replace(limits, seconds=min(limits.seconds or _SECONDS, _SECONDS))
    rewriting = CheckRewriting(mlir=str(mlir.absolute()), directory=str(directory.absolute()))
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        done = task.call(_RETURNING, rewriting, CheckRewritten, Path(scratch), limits=limits)
    if done.reply is None:
        return CheckRewritten(left=(f"what it checks is not compared: {done.why}",))
    return done.reply


def rewritten(program: Program) -> bool:
    """True if a program's references say what it expects of itself."""
    return NOTE in program.notes


def named(functions: Sequence[Function], found: CheckRewritten) -> tuple[Function, ...]:
    """The functions with names for the outputs that were added."""
    made = []
    for function in functions:
        added = found.added.get(function.name, ())
        first = len(function.outputs) - len(added)
        outputs = list(function.outputs)
        for index, one in enumerate(added):
            outputs[first + index] = msgspec.structs.replace(outputs[first + index], name=one.name)
        made.append(msgspec.structs.replace(function, outputs=tuple(outputs)))
    return tuple(made)


def expect(program: Program, directory: Path, found: CheckRewritten) -> Program:
    """The program whose references say what is expected, wherever a check does."""
    functions = tuple(
        _expecting(f, directory, found.added[f.name]) if f.name in found.added else f
        for f in program.functions
    )
    return msgspec.structs.replace(program, functions=functions)


def _expecting(function: Function, directory: Path, added: Sequence[Expected]) -> Function:
    """Function that expects these values; its other outputs keep their own reference, if any."""
    own = function.reference
    first = len(function.outputs) - len(added)
    outputs: list[Tensor] = []
    precise: list[Tensor] = []
    flushed: list[Tensor] = []
    reasons: list[str] = []
    for index, kind in enumerate(function.outputs):
        expected = added[index - first] if index >= first else None
        shape = tuple(d for d in kind.shape if isinstance(d, int))
        known = own.outputs[index].shape if own else shape
        value = None
        if expected is not None and expected.value is not None:
            value = expected.value
        elif expected is not None and expected.everywhere and len(known) == len(kind.shape):
            value = _everywhere(directory, f"{function.name}.{index}", known)
        if value is not None:
            outputs.append(value)
            precise.append(value)
            flushed.append(value)
            reasons.append("")
        elif own is not None:
            outputs.append(own.outputs[index])
            precise.append(own.precise[index] if own.precise else own.outputs[index])
            flushed.append(own.flushed[index] if own.flushed else precise[index])
            reasons.append(own.why_not(index))
        else:
            file = f"data/{function.name}.{index}.unknown.bin"
            tensor = Tensor(dtype=kind.dtype, shape=shape, file=file)
            (directory / file).write_bytes(bytes(tensor.bytes))
            outputs.append(tensor)
            reasons.append(function.unevaluated or "nothing is known of it")
    evaluator = "the program's own check operations"
    if own is not None:
        evaluator += f", and {own.evaluator}"
    # Whoever takes the compiler's word cannot say that it is right.
    independent = own is not None and not own.evaluator.endswith(references.TRUSTING)
    reference = Reference(
        outputs=tuple(outputs),
        computed=own if independent else None,
        precise=tuple(precise) if own is not None and own.precise else (),
        flushed=tuple(flushed) if own is not None and own.flushed else (),
        precise_dtype=own.precise_dtype if own else None,
        evaluator=evaluator,
        stated=not first,
        note=own.note if own else "",
        incomparable=tuple(reasons) if any(reasons) else (),
    )
    return msgspec.structs.replace(function, reference=reference, unevaluated="")


def _everywhere(directory: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    tensor = Tensor(dtype="i1", shape=shape, file=f"data/{name}.holds.bin")
    (directory / tensor.file).write_bytes(b"\1" * tensor.bytes)
    return tensor
