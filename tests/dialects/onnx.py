"""Steps of ONNX's operators as the importer writes them: `torch.operator "onnx.Add"`."""

from __future__ import annotations

from dialects.body import Body, Maker, Shape, Value, number, signed, torch_type

#: ONNX's numbers of element types.
_NUMBERS = {
    "f32": 1,
    "i8": 3,
    "i16": 5,
    "i32": 6,
    "i64": 7,
    "i1": 9,
    "f16": 10,
    "f64": 11,
    "bf16": 16,
}
ATTRIBUTES = (
    "torch.onnx_meta.ir_version = 8 : si64, torch.onnx_meta.opset_version = 17 : si64, "
    'torch.onnx_meta.producer_name = "", torch.onnx_meta.producer_version = ""'
)


def constant(body: Body, dtype: str, shape: tuple[int, ...]) -> Value:
    sizes = "x".join([*map(str, shape), signed(dtype)])
    dense = f"dense<{number(body.draw, dtype)}> : tensor<{sizes}>"
    return _made(body, "Constant", (), dtype, shape, f"torch.onnx.value = {dense}")


def _made(
    body: Body, op: str, operands: tuple[Value, ...], dtype: str, shape: Shape, attributes: str = ""
) -> Value:
    names = ", ".join(o.name for o in operands)
    kinds = ", ".join(body.type(o) for o in operands)
    extra = f" {{{attributes}}}" if attributes else ""
    result = torch_type(dtype, shape)
    text = f'torch.operator "onnx.{op}"({names}){extra} : ({kinds}) -> {result}'
    return body.value(text, dtype, shape)


def _other(body: Body, x: Value) -> Value:
    if x.static and body.draw.random() < 0.5:
        return constant(body, x.dtype, x.shape)  # type: ignore[arg-type]
    return x


def add(body: Body, x: Value, y: Value) -> Value | None:
    """The sum of two values of one type."""
    return _made(body, "Add", (x, y), x.dtype, x.shape) if x.dtype != "i1" else None


def _unary(body: Body, x: Value) -> Value | None:
    if x.floating:
        op = body.one(
            ("Tanh", "Sigmoid", "Relu", "Abs", "Neg", "Cos", "Sin", "Floor", "Exp", "Elu")
        )
    elif x.dtype == "i1":
        op = "Not"
    else:
        op = body.one(("Abs", "Neg"))
    return _made(body, op, (x,), x.dtype, x.shape)


def _binary(body: Body, x: Value) -> Value | None:
    if x.dtype == "i1":
        op = body.one(("And", "Or", "Xor"))
    else:
        op = body.one(("Add", "Sub", "Mul", "Max", "Min"))
    return _made(body, op, (x, _other(body, x)), x.dtype, x.shape)


def _cast(body: Body, x: Value) -> Value | None:
    wanted = body.one(("f32", "f16", "i32", "i64", "i8", "i1", "f64", "bf16"))
    if wanted == x.dtype:
        return None
    attributes = f"torch.onnx.to = {_NUMBERS[wanted]} : si64"
    return _made(body, "Cast", (x,), wanted, x.shape, attributes)


def _matmul(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16") or len(x.shape) != 2 or x.shape[1] is None:
        return None
    width = body.draw.choice((2, 4, 7))
    weight = constant(body, x.dtype, (x.shape[1], width))
    return _made(body, "MatMul", (x, weight), x.dtype, (x.shape[0], width))


def _gemm(body: Body, x: Value) -> Value | None:
    if x.dtype != "f32" or len(x.shape) != 2 or x.shape[1] is None:
        return None
    weight, bias = constant(body, "f32", (3, x.shape[1])), constant(body, "f32", (3,))
    return _made(
        body, "Gemm", (x, weight, bias), "f32", (x.shape[0], 3), "torch.onnx.transB = 1 : si64"
    )


def _reduce(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "i32") or len(x.shape) != 2:
        return None
    op = body.one(("ReduceMax", "ReduceMin") if x.integer else ("ReduceMean", "ReduceMax"))
    attributes = "torch.onnx.axes = [1 : si64], torch.onnx.keepdims = 1 : si64"
    row = _made(body, op, (x,), x.dtype, (x.shape[0], 1), attributes)
    return _made(body, "Sub", (x, row), x.dtype, x.shape)


def _softmax(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16"):
        return None
    return _made(body, "Softmax", (x,), x.dtype, x.shape, "torch.onnx.axis = -1 : si64")


def _transpose(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2:
        return None
    attributes = "torch.onnx.perm = [1 : si64, 0 : si64]"
    return _made(body, "Transpose", (x,), x.dtype, x.shape[::-1], attributes)


def _concat(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype == "i1":
        return None
    shape = (x.shape[0], 2 * (x.shape[1] or 0))
    return _made(body, "Concat", (x, x), x.dtype, shape, "torch.onnx.axis = 1 : si64")


def _choice(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "i32", "i64", "f16"):
        return None
    other = _other(body, x)
    mask = _made(body, body.one(("Greater", "Less", "Equal")), (x, other), "i1", x.shape)
    if body.draw.random() < 0.2:
        return mask
    return _made(body, "Where", (mask, x, other), x.dtype, x.shape)


MAKERS: tuple[Maker, ...] = (
    _unary,
    _unary,
    _binary,
    _binary,
    _cast,
    _matmul,
    _gemm,
    _reduce,
    _softmax,
    _transpose,
    _concat,
    _choice,
)
DTYPES = ("f32", "f32", "f16", "f64", "i32", "i64", "i8", "i1", "bf16")
