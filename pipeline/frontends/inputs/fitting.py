"""Choice of the function of an MLIR program, and the user's inputs in the form that it takes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import msgspec

from iree_pilot.pipeline import plural
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.execution import border
from iree_pilot.pipeline.frontends.inputs import examples
from iree_pilot.pipeline.frontends.outline import unknown
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import (
    ELEMENT_TYPES,
    Function,
    Tensor,
    TensorType,
    check_inputs,
)


def chosen(
    functions: tuple[Function, ...], others: dict[str, str], name: str, source: str
) -> tuple[tuple[Function, ...], dict[str, str]]:
    """(functions that are wanted, those that are too and cannot be called, and why).

    All of them where none is named. Raises UsageError for a name that there is not.
    """
    if not name:
        return functions, others
    if name in others:
        return (), {name: others[name]}
    return (named(functions, name, source, tuple(others)),), {}


def named(
    functions: tuple[Function, ...], name: str, source: str, others: tuple[str, ...] = ()
) -> Function:
    """The function of that name. Raises UsageError where there is none."""
    for function in functions:
        if function.name == name:
            return function
    raise unknown(source, name, (*(f.name for f in functions), *others))


def fed(
    functions: tuple[Function, ...], inputs: tuple[Tensor, ...], source: str, directory: Path
) -> Function:
    """The only function that the user's inputs fit, with these, copied into `directory`.

    One that takes their very types goes before one whose types the compiler may make these of.
    Raises UsageError where they fit none or several.
    """
    (directory / "data").mkdir(exist_ok=True)
    for either in (False, True):
        fitting, faults = [], []
        for function in functions:
            try:
                given = _fitted(function, inputs, source, directory, either=either)
            except UsageError as fault:
                faults.append(fault)
            else:
                fitting.append(msgspec.structs.replace(function, example=given))
        if fitting:
            break
    if len(fitting) == 1:
        return fitting[0]
    if len(functions) == 1:
        raise faults[0]
    signatures = "; ".join(signature(f) for f in fitting or functions)
    count = plural.count(len(inputs), "input")
    raise UsageError(
        f"{source}: the {count} given fit {'several functions' if fitting else 'no function'}: "
        f"{signatures}",
        advice="Name the function: --function NAME.",
    )


def signature(function: Function) -> str:
    """`decode(arg0: 1x1xi64, arg1: 4xf32)`."""
    return f"{function.name}({', '.join(f'{t.name}: {t}' for t in function.inputs)})"


def _fitted(
    function: Function,
    inputs: tuple[Tensor, ...],
    source: str,
    directory: Path,
    *,
    either: bool,
) -> tuple[Tensor, ...]:
    """The inputs as the function takes them. Raises UsageError where they do not fit.

    either: they may have the types that the compiler makes of the function's.
    """
    fences = [i for i, want in enumerate(function.inputs) if want.passed == "null"]
    given = list(inputs)
    if len(given) == len(function.inputs) - len(fences):
        for index in fences:
            given.insert(index, examples.null(directory / "data"))
    if len(given) == len(function.inputs):
        given = [
            passed(want, got, f"{source}: input {index} ({want.name})", directory, either=either)
            for index, (want, got) in enumerate(zip(function.inputs, given, strict=True))
        ]
    check_inputs(function, tuple(given), source)
    return tuple(
        _kept(tensor, f"data/{function.name}.input{index}.bin", directory)
        for index, tensor in enumerate(given)
    )


def _kept(tensor: Tensor, file: str, directory: Path) -> Tensor:
    shutil.copyfile(directory / tensor.file, directory / file)
    return msgspec.structs.replace(tensor, file=file)


def passed(
    want: TensorType, got: Tensor, what: str, directory: Path, *, either: bool = True
) -> Tensor:
    """A value in the way that a function passes it: a number on its own, in its type; a tensor in
    the program's type where it is given in the one that the compiler makes of that.

    what: for messages. New values are written to `directory`/data. Raises UsageError for a number
    that the type cannot hold.
    """
    if want.passed in ("null", "opaque") or got.passed == "null":
        return got
    if want.shape or got.shape or "scalar" not in (want.passed, got.passed):
        if either:
            got = border.fitting(want, got, directory, directory / "data")
        if got.passed == want.passed == "buffer":
            got = msgspec.structs.replace(got, shape=_shaped(want, got))
        return msgspec.structs.replace(got, passed=want.passed)
    import numpy

    value = tensors.load(directory, got)
    with numpy.errstate(invalid="ignore"):
        kept = numpy.asarray(value).astype(examples.numpy_dtype(want.dtype))
    exact = ELEMENT_TYPES[want.dtype].family in ("int", "bool")
    if exact and (not numpy.isfinite(value) or kept.astype(value.dtype) != value):
        raise UsageError(
            f"{what} is {value}, which {want.dtype} cannot hold",
            advice="Give a number of the type that the function has.",
        )
    file = directory / "data" / f"{want.name}.number.bin"
    file.write_bytes(tensors.encoded(kept, want.dtype))
    return Tensor(dtype=want.dtype, shape=(), file=str(file.resolve()), passed=want.passed)


def _shaped(want: TensorType, got: Tensor) -> tuple[int, ...]:
    """The shape that a buffer, which has none, is read in: the function's, where that has as many
    elements."""
    total, known = math.prod(got.shape), math.prod(d for d in want.shape if isinstance(d, int))
    free = sum(not isinstance(d, int) for d in want.shape)
    if free > 1 or not known or total % known or (not free and total != known):
        return got.shape
    return tuple(d if isinstance(d, int) else total // known for d in want.shape)
