"""Names of older MLIR bindings that iree-turbine still uses, put back where they are gone.

From iree-base-compiler 3.11 on, the classes of `iree.compiler.ir` have no `isinstance` of their own
(IREE issue 24222). iree-turbine up to 3.9 calls it where it expands its own operations and where it
writes an `aot.CompiledModule`, and then raises AttributeError. Imports `iree.compiler.ir`.
"""

from __future__ import annotations

from typing import Any


def restore() -> None:
    """Gives `isinstance` to every class of the bindings that lacks it."""
    for kind in _lacking():
        kind.isinstance = classmethod(_is_instance)


def lacks() -> bool:
    """True if these bindings are without the names that turbine uses."""
    return bool(_lacking())


def _lacking() -> list[Any]:
    from iree.compiler import ir

    classes = [value for value in vars(ir).values() if isinstance(value, type)]
    return [kind for kind in classes if not hasattr(kind, "isinstance")]


def _is_instance(kind: type, value: object) -> bool:
    return isinstance(value, kind)
