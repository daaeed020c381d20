"""Mends the MLIR bindings and the FX importer where tracing needs it.

From iree-base-compiler 3.11 on, the classes of `iree.compiler.ir` have no `isinstance` of their own
(IREE issue 24222). iree-turbine up to 3.9 calls it where it expands its own operations and where it
writes an `aot.CompiledModule`, and then raises AttributeError.

The importer of iree-base-compiler 3.13.0 writes the complex types as c10::ScalarType + 1: complex64
as complex128. An assertion on such a tensor's dtype then fails to compile, and what is made with
`dtype=torch.complex64` is of another type than the operation's result. Imports `iree.compiler.ir`.
"""

from __future__ import annotations

from typing import Any


def restore() -> None:
    """Gives `isinstance` to every class of the bindings that lacks it, and complex types their own
    numbers. Imports torch."""
    import torch
    from iree.compiler.extras import fx_importer

    for kind in _lacking():
        kind.isinstance = classmethod(_is_instance)
    complex_types = {torch.complex32: 8, torch.complex64: 9, torch.complex128: 10}
    fx_importer.TORCH_DTYPE_TO_INT.update(complex_types)


def lacks() -> bool:
    """True if these bindings are without the names that turbine uses."""
    return bool(_lacking())


def _lacking() -> list[Any]:
    from iree.compiler import ir

    classes = [value for value in vars(ir).values() if isinstance(value, type)]
    return [kind for kind in classes if not hasattr(kind, "isinstance")]


def _is_instance(kind: type, value: object) -> bool:
    return isinstance(value, kind)
