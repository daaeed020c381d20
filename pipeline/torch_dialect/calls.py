"""An operation of the torch dialect as a call of PyTorch's, by what torch's registry says of it.

As a line of Python (`call`, `scalar`), or carried out (`arguments`, `compute`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from iree_pilot.pipeline.torch_dialect import text as python
from iree_pilot.pipeline.torch_dialect.text import Code

_SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floordiv": "//",
    "fmod": "%",
    "remainder": "%",
    "lt": "<",
    "le": "<=",
    "ge": ">=",
    "gt": ">",
    "eq": "==",
    "ne": "!=",
}
#: Calls for the operations that the tracer uses for sizes and Python's own operators.
SCALAR = {
    "torch.aten.size.int": "torch.ops.aten.sym_size.int({}, {})",
    "torch.aten.size": "torch.ops.aten.sym_size.default({})",
    "torch.aten.numel": "torch.ops.aten.sym_numel.default({})",
    "torch.aten.stride.int": "torch.ops.aten.sym_stride.int({}, {})",
    "torch.aten.__getitem__.t": "{}[{}]",
    "torch.aten.Int.Tensor": "{}.item()",
    "torch.aten.Float.Tensor": "{}.item()",
    "torch.aten.neg.int": "-{}",
    "torch.aten.neg.float": "-{}",
    **{
        f"torch.aten.{name}.{kind}": f"{{}} {sign} {{}}"
        for name, sign in _SIGNS.items()
        for kind in ("int", "float", "float_int")
    },
}

#: Operations that only the tracer makes, and what it makes them of, with the same operands.
_TRACED_FROM = {
    "torch.prims.squeeze": "torch.aten.squeeze.dims",
    "torch.aten._unsafe_index_put.hacked_twin": "torch.aten._unsafe_index_put",
}


class CannotWrite(Exception):
    """Something in the MLIR that PyTorch cannot say, or that would not be traced to the same."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} cannot be written as PyTorch: {why}")
        self.what = what
        self.why = why
        self.why = why


def overload(name: str) -> Any:
    """torch's operator for the MLIR operation `torch.NAMESPACE.NAME[.OVERLOAD]`.

    Raises CannotWrite where this release of torch has none.
    """
    import torch

    _, namespace, base, *rest = _TRACED_FROM.get(name, name).split(".")
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), base), (rest or ["default"])[0])
    except (AttributeError, ValueError) as fault:
        raise CannotWrite(name, "this release of torch has no such operator") from fault
    if namespace != "aten" and any(r.alias_info for r in found._schema.returns):
        raise CannotWrite(name, "torch.export takes no views from outside aten")
    return found


def scalar(name: str, operands: Sequence[Any]) -> str:
    """A computation on sizes and numbers, one of SCALAR."""
    texts = [f"({t})" if " " in t else t for t in map(argument, operands)]
    return SCALAR[name].format(*texts)


def compute(name: str, operands: Sequence[Any]) -> Any:
    """Computes an operation of SCALAR, on sizes and numbers, for these values."""
    import torch

    names = [f"x{index}" for index in range(len(operands))]
    known = {"torch": torch, **dict(zip(names, operands, strict=True))}
    return eval(_compiled(SCALAR[name].format(*names)), known)


@cache
def _compiled(expression: str) -> Any:
    return compile(expression, "<scalar>", "eval")


def arguments(operator: Any, operands: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments, by position and by name, to call an operator with these operands.

    operands: as `call` takes them, with tensors in place of Code.
    """
    import torch

    placed: list[Any] = []
    named: dict[str, Any] = {}
    for declared, value in zip(operator._schema.arguments, operands, strict=True):
        kind = str(declared.real_type)
        if "Tensor" in kind and _is_number(value) and not _takes_numbers(operator):
            value = torch.tensor(value)
        if declared.kwarg_only:
            named[declared.name] = resolved(value, kind)
        else:
            placed.append(resolved(value, kind))
    return placed, named


def call(operator: Any, operands: Sequence[Any], constant: Callable[[str], Code]) -> str:
    """A call with these operands, which follow the schema; defaults are left out where they can be.

    operands: Code, or numbers, None, text and lists of these. constant: makes a tensor of its own
    of an expression, for operators that take no number for a tensor.
    """
    given = []
    for declared, value in zip(operator._schema.arguments, operands, strict=True):
        kind = str(declared.real_type)
        if "Tensor" in kind and _is_number(value) and not _takes_numbers(operator):
            value = constant(f"torch.tensor({python.number(value)})")
        default = declared.has_default_value() and _same(value, declared.default_value)
        given.append((declared, argument(value, kind), default))
    placed = [not declared.kwarg_only and not default for declared, _, default in given]
    last = max((i for i, must in enumerate(placed) if must), default=-1)
    return f"torch.ops.{operator}({', '.join(_arguments(given, last))})"


def _arguments(given: Sequence[tuple[Any, str, bool]], last: int) -> Iterator[str]:
    for index, (declared, text, default) in enumerate(given):
        if not declared.kwarg_only and index <= last:
            yield text
        elif not default:
            yield f"{declared.name}={text}"


def argument(value: Any, kind: str = "") -> str:
    """A value as the text of an argument of a schema's type."""
    value = resolved(value, kind)
    if isinstance(value, Code):
        return value.text
    if isinstance(value, list):
        return f"[{', '.join(map(argument, value))}]"
    known = value is None or isinstance(value, bool | int | float | str)
    return python.number(value) if known else str(value)


def resolved(value: Any, kind: str) -> Any:
    """A value as an argument of a schema's type, such as `Optional[List[int]]` or `ScalarType`.

    Numbers that stand for a dtype, layout or memory format become what torch has for them.
    """
    if kind.startswith("Optional["):
        kind = kind[len("Optional[") : -1]
    if isinstance(value, list):
        return [resolved(v, kind[len("List[") : -1]) for v in value]
    known = _enumerations().get(kind)
    if known is None or value is None or isinstance(value, Code):
        return value
    if value not in known:
        raise CannotWrite(f"{kind} number {value}", "this release of torch has none such")
    return known[value]


def positions(
    operator: Any, operands: Sequence[Any], shapes: Sequence[tuple[int | None, ...] | None]
) -> tuple[int | None, ...]:
    """The sizes that integers among the operands are positions in; empty if they are none.

    shapes: of the operands that are tensors.
    """
    names = [a.name for a in operator._schema.arguments]
    index = next((n for n in ("index", "indices") if n in names), None)
    table = next((n for n in ("weight", "self") if n in names), None)
    if index is None or table is None:
        return ()
    sizes = shapes[names.index(table)] or ()
    taken = operands[names.index(index)]
    dim = operands[names.index("dim")] if "dim" in names else None
    if isinstance(taken, list):
        return tuple(s for s, v in zip(sizes, taken, strict=False) if v is not None)
    if "embedding" in operator._schema.name:
        return sizes[:1]
    return (sizes[dim],) if isinstance(dim, int) and sizes else sizes


@cache
def _enumerations() -> Mapping[str, Mapping[int, Any]]:
    """The tracer's numbers of the enumerations of schemas."""
    from iree.compiler.extras import fx_importer as tracer

    return {
        "ScalarType": {n: d for d, n in tracer.TORCH_DTYPE_TO_INT.items()},
        "Layout": {n: d for d, n in tracer.TORCH_LAYOUT_TO_INT.items()},
        "MemoryFormat": {n: d for d, n in tracer.TORCH_MEMORY_FORMAT_TO_INT.items()},
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _takes_numbers(operator: Any) -> bool:
    from torch._C import _should_allow_numbers_as_tensors

    return bool(_should_allow_numbers_as_tensors(operator._schema.name.partition("::")[2]))


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, list):
        return isinstance(default, list) and value == default
    return type(value) is type(default) and bool(value == default)
