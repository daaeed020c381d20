"""Types that the compiler changes at the border of a function.

By default IREE makes f32 of f64, and flags narrow or widen other types (`--iree-input-demote-*`,
`--iree-input-promote-*`). A caller has to pass what the module states, not what the program does;
iree-compile warns of it. numpy is imported when something is converted.
"""

from __future__ import annotations

import contextlib
import mmap
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.mlir import mlir_signature, mlir_text
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Function, Tensor, TensorType
from iree_pilot.pipeline.store import sealed
from iree_pilot.pipeline.store.store import Store

KIND = "border"
_OTHERWISE = re.compile(
    r"NOT_FOUND; no function `|INVALID_ARGUMENT; input list and function mismatch"
)

#: Types that a type may be converted to by the flags of iree-compile for function borders.
BECOMES = {
    "f64": ("f32",),
    "complex<f64>": ("complex<f32>",),
    "f32": ("f16",),
    "f16": ("f32",),
    "bf16": ("f32",),
    "i64": ("i32",),
}


def of_module(module: Path, function: Function) -> Function:
    """The function with the types that `module` states for it in its reflection.

    What states nothing of it, or something else than `BECOMES` has, changes nothing.
    """
    inputs, outputs = _reflected(module, function.name)
    changed = msgspec.structs.replace(
        function,
        inputs=tuple(_changed(t, inputs, i) for i, t in enumerate(function.inputs)),
        outputs=tuple(_changed(t, outputs, i) for i, t in enumerate(function.outputs)),
    )
    return function if changed == function else changed


def given(function: Function, want: Function, directory: Path, place: Path) -> Function:
    """`want`, which is `function` in other types, with the example inputs in these.

    directory: where the inputs' files are; new ones are written to `place`, where they are not
    there already. Raises UsageError for
    an integer that the other type cannot hold.
    """
    example = tuple(
        tensor
        if tensor.passed in ("null", "opaque") or tensor.dtype == kind.dtype
        else _rounded(tensor, kind, function, directory, place)
        for tensor, kind in zip(function.example or (), want.inputs, strict=True)
    )
    return msgspec.structs.replace(want, example=example)


def uncallable(failure: Failure, flags: Sequence[str]) -> str:
    """Reason that a module cannot be called as its program states, if the user's flags determine
    its exports and how they are called; empty for any other failure."""
    if not flags or not _OTHERWISE.match(failure.message):
        return ""
    return (
        f"with {shlex.join(flags)} the module cannot be called as the program states: "
        f"{failure.message}"
    )


def stored(function: Function, want: Function, directory: Path, store: Store) -> Function:
    """Same as `given`, with files that stay, so that a command with them can be typed again."""
    sources = [sealed.state(directory / t.file) for t in function.example or ()]
    key = Store.key(function.name, sources, [(t.name, t.dtype) for t in want.inputs])
    entry = store.obtain(KIND, key, lambda place: given(function, want, directory, place))
    return given(function, want, directory, entry)


def describe(function: Function, changed: Function) -> str:
    """Note for the user on types that were changed."""
    pairs = [
        f"{before.label} {after.dtype} where the program has {before.dtype}"
        for before, after in zip(
            (*function.inputs, *function.outputs),
            (*changed.inputs, *changed.outputs),
            strict=True,
        )
        if before.dtype != after.dtype
    ]
    return f"given and compared in the types of the compiled module: {', '.join(pairs)}"


def fitting(want: TensorType, got: Tensor, directory: Path, place: Path) -> Tensor:
    """A value in the program's type that is given in the one which the compiler may make of it.

    Any other value, and one that the program's type cannot hold, is returned as it is.
    """
    if got.dtype not in BECOMES.get(want.dtype, ()):
        return got
    values = tensors.load(directory, got)
    kept = values.astype(tensors.numpy_dtype(want.dtype))
    if kept.astype(values.dtype).tobytes() != values.tobytes():
        return got
    file = place / f"{want.name}.{want.dtype}.bin"
    file.write_bytes(tensors.encoded(kept, want.dtype))
    return msgspec.structs.replace(got, dtype=want.dtype, file=str(file.absolute()))


def _rounded(
    tensor: Tensor, kind: TensorType, function: Function, directory: Path, place: Path
) -> Tensor:
    import numpy as np

    values = tensors.load(directory, tensor)
    with np.errstate(over="ignore"):
        kept = values.astype(tensors.numpy_dtype(kind.dtype))
    if ELEMENT_TYPES[kind.dtype].family == "int" and (kept != values).any():
        raise UsageError(
            f"{kind.name} of {function.name} has a number that does not fit into {kind.dtype}, "
            f"which the compiled module takes in place of {tensor.dtype}",
            advice="Give smaller numbers with --input, or compile without the flag that changes "
            "the type.",
        )
    file = place / f"{function.name}.{kind.name}.{kind.dtype}.bin"
    raw = tensors.encoded(kept, kind.dtype)
    if not file.is_file() or file.read_bytes() != raw:
        file.write_bytes(raw)
    return msgspec.structs.replace(tensor, dtype=kind.dtype, file=str(file.absolute()))


def _changed(kind: TensorType, stated: list[str], index: int) -> TensorType:
    if index >= len(stated) or kind.passed not in ("view", "scalar"):
        return kind
    found = mlir_text.scalar(stated[index], kind.name)
    if found is None:
        try:
            found = mlir_text.parse_type(stated[index], kind.name)
        except ValueError:
            return kind
    alike = found.passed == kind.passed and len(found.shape) == len(kind.shape)
    if not alike or found.dtype not in BECOMES.get(kind.dtype, ()):
        return kind
    return msgspec.structs.replace(kind, dtype=found.dtype)


def _reflected(module: Path, name: str) -> tuple[list[str], list[str]]:
    """The types that the module's reflection states for a function: taken, returned."""
    if not module.is_file() or not module.stat().st_size:
        return [], []
    with module.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        for form in ("", "$async"):
            start = held.find(f"sync func @{name}{form}(".encode())
            end = held.find(b"\0", start)
            if start >= 0 and end >= 0:
                text = held[start:end].decode(errors="replace")
                with contextlib.suppress(ValueError):
                    return mlir_signature.declared(text[text.index("(") :])
    return [], []
