"""The user's own outputs as the reference (`--expected-output`), as iree-run-module takes them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.inputs import examples, fitting
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics import judging
from iree_pilot.pipeline.program.program import Function, Reference, Tensor, TensorType
from iree_pilot.pipeline.store.store import Store

OPTION = "--expected-output"
#: An output that is not to be compared.
IGNORED = "(ignored)"
KIND = "expected"


def check(specs: tuple[str, ...]) -> None:
    """Raises UsageError for outputs that cannot be read, whatever the program is."""
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        for number, spec in enumerate(specs):
            _read(spec, number, Path(scratch))


def with_outputs(loaded: Loaded, specs: tuple[str, ...], store: Store) -> Loaded:
    """The program with these outputs as the reference of its function, in place of any other.

    Each is given as an input is, or is `(ignored)`. Raises UsageError where they do not fit the
    function in number, types or shapes, or cannot be read, and where there are several functions.
    """
    program = loaded.program
    if len(program.functions) != 1:
        names = ", ".join(f.name for f in program.functions)
        raise UsageError(
            f"{OPTION} is for one function, {program.source} has {names or 'none'}",
            advice="Name it: --function NAME." if names else "",
        )
    (function,) = program.functions
    signature = f"{function.name} -> ({', '.join(f'{t.label}: {t}' for t in function.outputs)})"
    if len(specs) != len(function.outputs):
        raise UsageError(
            f"{program.source}: {function.name} has {len(function.outputs)} outputs, {OPTION} is "
            f"given {len(specs)} times",
            advice=f"Give each in order, or {IGNORED}. They are {signature}.",
        )
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        place = Path(scratch)
        (place / "data").mkdir()
        read = [_read(spec, number, place) for number, spec in enumerate(specs)]
        given = [
            got and fitting.passed(want, got, f"{program.source}: {OPTION} {number}", place)
            for number, (want, got) in enumerate(zip(function.outputs, read, strict=True))
        ]
        function = _stated(function, given)
        for number, (want, got) in enumerate(zip(function.outputs, given, strict=True)):
            why = "" if got is None else _misfit(want, got)
            if why:
                raise UsageError(
                    f"{program.source}: {OPTION} {number} does not fit {want.label} of "
                    f"{function.name}: {why}",
                    advice=f"It is {want}, given is {got}. The outputs are {signature}.",
                )
        outputs = _stored(function, given, store)
    evaluated = function.reference
    reference = Reference(
        outputs=outputs,
        own_errors=judging.own_errors(evaluated, Path(loaded.directory)) if evaluated else (),
        evaluator=f"the user's {OPTION}",
        stated=True,
        users=True,
        incomparable=tuple(f"it is {IGNORED} by the user" if g is None else "" for g in given),
    )
    function = msgspec.structs.replace(function, reference=reference)
    program = msgspec.structs.replace(program, functions=(function,))
    return msgspec.structs.replace(loaded, program=program)


def _stated(function: Function, given: list[Tensor | None]) -> Function:
    """The function with the types of what the user gives where it states none."""
    outputs = tuple(
        TensorType(name=want.name, dtype=got.dtype, shape=got.shape)
        if got and want.passed == "opaque"
        else want
        for want, got in zip(function.outputs, given, strict=True)
    )
    return msgspec.structs.replace(function, outputs=outputs)


def _read(spec: str, number: int, scratch: Path) -> Tensor | None:
    if spec == IGNORED:
        return None
    place = scratch / str(number)
    place.mkdir()
    try:
        (tensor,) = examples.from_files((spec,), place)
    except UsageError as fault:
        # They are read as inputs are, and speak of the option for those.
        said = (text.replace("--input", OPTION) for text in (fault.message, fault.advice))
        message, advice = said
        raise UsageError(message, advice=advice) from fault
    return tensor


def _misfit(want: TensorType, got: Tensor) -> str:
    if got.dtype != want.dtype:
        return f"dtype {got.dtype} where {want.dtype} is returned"
    if len(got.shape) != len(want.shape):
        return f"{len(got.shape)} dimensions where {len(want.shape)} are returned"
    for axis, (dim, size) in enumerate(zip(want.shape, got.shape, strict=True)):
        if isinstance(dim, int) and dim != size:
            return f"dimension {axis} is {size} where {dim} is returned"
    return ""


def _stored(function: Function, given: list[Tensor | None], store: Store) -> tuple[Tensor, ...]:
    """The outputs in files of the store, which a bisection that goes on later finds again."""
    contents = [None if g is None else Path(g.file) for g in given]
    digests = [hashlib.sha256(f.read_bytes()).hexdigest() if f else "" for f in contents]

    def make(place: Path) -> None:
        for number, file in enumerate(contents):
            if file is not None:
                shutil.copyfile(file, place / f"{number}.bin")

    entry = store.obtain(KIND, Store.key(digests), make)
    return tuple(
        Tensor(dtype=want.dtype, shape=(), file="")
        if got is None
        else msgspec.structs.replace(got, file=str(entry / f"{number}.bin"))
        for number, (want, got) in enumerate(zip(function.outputs, given, strict=True))
    )
