"""Programs in the generic form, written operation by operation."""

from __future__ import annotations

from iree_pilot.pipeline.program.program import Dim, Function, TensorType

MATRIX = "tensor<?x?xf32>"
CONSTANTS = [
    '%c0 = "arith.constant"() <{value = 0 : index}> : () -> index',
    '%c1 = "arith.constant"() <{value = 1 : index}> : () -> index',
    '%c2 = "arith.constant"() <{value = 2 : index}> : () -> index',
    '%c24 = "arith.constant"() <{value = 24 : index}> : () -> index',
]


def dim(value: str, argument: str, axis: int) -> str:
    """The size of an argument along an axis."""
    return f'{value} = "tensor.dim"({argument}, %c{axis}) : ({MATRIX}, index) -> index'


def compare(value: str, predicate: int, left: str, right: str) -> str:
    """A comparison of two sizes."""
    words = f"<{{predicate = {predicate} : i64}}> : (index, index) -> i1"
    return f'{value} = "arith.cmpi"({left}, {right}) {words}'


def module(*functions: str) -> str:
    """A module with these functions."""
    return '"builtin.module"() ({\n' + "".join(functions) + "}) : () -> ()\n"


def func(
    name: str, types: str, arguments: str, body: list[str], tail: str = "", op: str = "util.func"
) -> str:
    """A function with these operations in its body."""
    lines = "".join(f"    {line}\n" for line in body)
    return (
        f'  "{op}"() <{{function_type = {types}, sym_name = "{name}"}}> ({{\n'
        f"  ^bb0({arguments}):\n{lines}  }}){tail} : () -> ()\n"
    )


def check(value: str, message: str = "no") -> str:
    """An assertion."""
    return f'"cf.assert"({value}) <{{msg = "{message}"}}> : (i1) -> ()'


def matrix(name: str) -> TensorType:
    """A matrix whose sizes are not known."""
    shape = tuple(Dim(symbol=f"{name}_d{axis}") for axis in range(2))
    return TensorType(name=name, dtype="f32", shape=shape)


F = Function(
    name="f",
    inputs=(
        matrix("arg0"),
        matrix("arg1"),
        TensorType(name="arg2", dtype="i64", shape=(), passed="scalar"),
    ),
    outputs=(),
)
