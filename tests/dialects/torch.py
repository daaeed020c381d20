"""Steps of the torch dialect."""

from __future__ import annotations

from dialects.body import FLOATS, INTEGERS, Body, Maker, Shape, Value, number, signed, torch_type

#: PyTorch's numbers of element types.
_NUMBERS = {
    "i8": 1,
    "i16": 2,
    "i32": 3,
    "i64": 4,
    "f16": 5,
    "f32": 6,
    "f64": 7,
    "i1": 11,
    "bf16": 15,
    "f8E5M2": 23,
    "f8E4M3FN": 24,
    "f8E4M3FNUZ": 26,
}


def constant(body: Body, dtype: str, shape: tuple[int, ...]) -> Value:
    kind = torch_type(dtype, shape)
    sizes = "x".join([*map(str, shape), signed(dtype)])
    dense = f"dense<{number(body.draw, dtype)}> : tensor<{sizes}>"
    return body.value(f"torch.vtensor.literal({dense}) : {kind}", dtype, shape)


def _int(body: Body, number: int) -> str:
    return body.line(f"torch.constant.int {number}")


def _made(body: Body, op: str, operands: list[tuple[str, str]], dtype: str, shape: Shape) -> Value:
    names, kinds = (", ".join(one) for one in zip(*operands, strict=True))
    text = f"torch.aten.{op} {names} : {kinds} -> {body.words(dtype, shape)}"
    return body.value(text, dtype, shape)


def _arg(body: Body, value: Value) -> tuple[str, str]:
    return value.name, body.type(value)


def _other(body: Body, x: Value) -> Value:
    if x.static and body.draw.random() < 0.5:
        return constant(body, x.dtype, x.shape)  # type: ignore[arg-type]
    return x


def add(body: Body, x: Value, y: Value) -> Value | None:
    """The sum of two values of one type."""
    if x.dtype.startswith("f8") or x.dtype == "i1":
        return None
    operands = [_arg(body, x), _arg(body, y), (_int(body, 1), "!torch.int")]
    return _made(body, "add.Tensor", operands, x.dtype, x.shape)


def scaled(body: Body, x: Value, scalar: str) -> Value | None:
    """A value times a scalar argument, a float of Python's."""
    if x.dtype.startswith("f8") or not x.floating:
        return None
    operands = [_arg(body, x), (scalar, "!torch.float")]
    return _made(body, "mul.Scalar", operands, x.dtype, x.shape)


def _unary(body: Body, x: Value) -> Value | None:
    if x.dtype.startswith("f8"):
        return None
    if x.floating:
        op = body.one(
            ("tanh", "sigmoid", "relu", "abs", "neg", "cos", "sin", "silu", "floor", "exp")
        )
    elif x.dtype == "i1":
        op = "logical_not"
    else:
        op = body.one(("abs", "neg", "bitwise_not"))
    return _made(body, op, [_arg(body, x)], x.dtype, x.shape)


def _binary(body: Body, x: Value) -> Value | None:
    if x.dtype.startswith("f8") or x.dtype == "i1":
        return None
    op = body.one(("add.Tensor", "sub.Tensor", "mul.Tensor", "maximum", "minimum"))
    operands = [_arg(body, x), _arg(body, _other(body, x))]
    if op[:3] in ("add", "sub"):
        operands.append((_int(body, 1), "!torch.int"))
    return _made(body, op, operands, x.dtype, x.shape)


def _cast(body: Body, x: Value) -> Value | None:
    wanted = body.one((*FLOATS, *INTEGERS, "i1", "f8E4M3FN", "f8E5M2", "f8E4M3FNUZ"))
    if wanted == x.dtype or (x.dtype.startswith("f8") and wanted != "f32"):
        return None
    if wanted.startswith("f8") and not x.floating:
        return None
    code = _int(body, _NUMBERS[wanted])
    kinds = f"{body.type(x)}, !torch.int -> {body.words(wanted, x.shape)}"
    text = f"torch.prims.convert_element_type {x.name}, {code} : {kinds}"
    return body.value(text, wanted, x.shape)


def _matmul(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16", "bf16", "i32") or len(x.shape) != 2 or x.shape[1] is None:
        return None
    width = body.draw.choice((2, 4, 7))
    weight = constant(body, x.dtype, (x.shape[1], width))
    return _made(body, "mm", [_arg(body, x), _arg(body, weight)], x.dtype, (x.shape[0], width))


def _list(body: Body, *numbers: int) -> tuple[str, str]:
    names = ", ".join(_int(body, number) for number in numbers)
    kinds = ", ".join("!torch.int" for _ in numbers)
    text = f"torch.prim.ListConstruct {names} : ({kinds}) -> !torch.list<int>"
    return body.line(text), "!torch.list<int>"


def _reduce(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16", "bf16", "f64") or len(x.shape) != 2:
        return None
    op = body.one(("amax", "amin", "mean.dim", "sum.dim_IntList"))
    operands = [_arg(body, x), _list(body, 1)]
    operands.append((body.line("torch.constant.bool true"), "!torch.bool"))
    if "." in op:
        operands.append((body.line("torch.constant.none"), "!torch.none"))
    row = _made(body, op, operands, x.dtype, (x.shape[0], 1))
    last = (_int(body, 1), "!torch.int")
    return _made(body, "sub.Tensor", [_arg(body, x), _arg(body, row), last], x.dtype, x.shape)


def _transpose(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2:
        return None
    ints = [(_int(body, n), "!torch.int") for n in (0, 1)]
    return _made(body, "transpose.int", [_arg(body, x), *ints], x.dtype, x.shape[::-1])


def _softmax(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16", "bf16"):
        return None
    axis = (_int(body, len(x.shape) - 1), "!torch.int")
    half = (body.line("torch.constant.bool false"), "!torch.bool")
    return _made(body, "_softmax", [_arg(body, x), axis, half], x.dtype, x.shape)


def _choice(body: Body, x: Value) -> Value | None:
    if x.dtype.startswith("f8") or x.dtype == "i1":
        return None
    other = _other(body, x)
    op = body.one(("gt.Tensor", "le.Tensor", "eq.Tensor"))
    mask = _made(body, op, [_arg(body, x), _arg(body, other)], "i1", x.shape)
    if body.draw.random() < 0.2:
        return mask
    operands = [_arg(body, v) for v in (mask, x, other)]
    return _made(body, "where.self", operands, x.dtype, x.shape)


def _cat(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype == "i1":
        return None
    kinds = f"({body.type(x)}, {body.type(x)}) -> !torch.list<vtensor>"
    both = body.line(f"torch.prim.ListConstruct {x.name}, {x.name} : {kinds}")
    operands = [(both, "!torch.list<vtensor>"), (_int(body, 1), "!torch.int")]
    return _made(body, "cat", operands, x.dtype, (x.shape[0], 2 * (x.shape[1] or 0)))


def _view(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static:
        return None
    sizes = _list(body, x.shape[1] or 0, x.shape[0] or 0)
    return _made(body, "view", [_arg(body, x), sizes], x.dtype, x.shape[::-1])


def _cumsum(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "i64") or len(x.shape) != 2:
        return None
    operands = [_arg(body, x), (_int(body, 1), "!torch.int")]
    operands.append((body.line("torch.constant.none"), "!torch.none"))
    return _made(body, "cumsum", operands, x.dtype, x.shape)


MAKERS: tuple[Maker, ...] = (
    _unary,
    _unary,
    _binary,
    _binary,
    _cast,
    _matmul,
    _reduce,
    _transpose,
    _softmax,
    _choice,
    _cat,
    _view,
    _cumsum,
)
DTYPES = (*FLOATS, *INTEGERS, "i1", "f8E4M3FN", "f8E5M2")
