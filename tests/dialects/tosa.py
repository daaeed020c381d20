"""Steps of the TOSA dialect, in the generic form: it changes least between releases."""

from __future__ import annotations

from dialects.body import Body, Maker, Shape, Value, builtin, number


def constant(body: Body, dtype: str, shape: tuple[int, ...]) -> Value:
    kind = builtin(dtype, shape)
    text = (
        f'"tosa.const"() <{{values = dense<{number(body.draw, dtype)}> : {kind}}}> : () -> {kind}'
    )
    return body.value(text, dtype, shape)


def _zero(body: Body, dtype: str) -> Value:
    kind = builtin(dtype, (1,))
    zero = "0" if dtype[0] == "i" else "0.0"
    text = f'"tosa.const"() <{{values = dense<{zero}> : {kind}}}> : () -> {kind}'
    return body.value(text, dtype, (1,))


def _made(
    body: Body, op: str, operands: tuple[Value, ...], dtype: str, shape: Shape, attributes: str = ""
) -> Value:
    names = ", ".join(o.name for o in operands)
    kinds = ", ".join(body.type(o) for o in operands)
    extra = f" <{{{attributes}}}>" if attributes else ""
    text = f'"tosa.{op}"({names}){extra} : ({kinds}) -> {body.words(dtype, shape)}'
    return body.value(text, dtype, shape)


def _other(body: Body, x: Value) -> Value:
    if x.static and body.draw.random() < 0.5:
        return constant(body, x.dtype, x.shape)  # type: ignore[arg-type]
    return x


def add(body: Body, x: Value, y: Value) -> Value | None:
    """The sum of two values of one type."""
    if x.dtype not in ("f32", "f16", "bf16", "i32"):
        return None
    return _made(body, "add", (x, y), x.dtype, x.shape)


def _unary(body: Body, x: Value) -> Value | None:
    if x.floating:
        op = body.one(("tanh", "abs", "sigmoid", "floor", "exp", "sin", "cos", "ceil"))
    elif x.dtype == "i1":
        op = "logical_not"
    elif x.dtype == "i32":
        op = body.one(("abs", "bitwise_not"))
    else:
        return None
    return _made(body, op, (x,), x.dtype, x.shape)


def _negate(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16", "i8", "i32"):
        return None
    zero = _zero(body, x.dtype)
    return _made(body, "negate", (x, zero, zero), x.dtype, x.shape)


def _binary(body: Body, x: Value) -> Value | None:
    if x.floating:
        op = body.one(("add", "sub", "maximum", "minimum"))
    elif x.dtype == "i1":
        op = body.one(("logical_and", "logical_or", "logical_xor"))
    elif x.dtype == "i32":
        op = body.one(("add", "sub", "maximum", "minimum", "bitwise_and", "bitwise_xor"))
    else:
        return None
    return _made(body, op, (x, _other(body, x)), x.dtype, x.shape)


def _mul(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16", "bf16", "i32"):
        return None
    return _made(body, "mul", (x, _other(body, x), _zero(body, "i8")), x.dtype, x.shape)


def _cast(body: Body, x: Value) -> Value | None:
    to = {
        "f32": ("f16", "bf16", "i32", "i8", "i16"),
        "f16": ("f32", "i32", "i8"),
        "bf16": ("f32", "i32"),
        "i32": ("f32", "i8", "i16", "i1", "f16"),
        "i16": ("i32", "f32", "i8"),
        "i8": ("i32", "f32", "i16", "i1"),
        "i1": ("i32", "i8"),
    }
    wanted = body.one(to[x.dtype]) if x.dtype in to else None
    return _made(body, "cast", (x,), wanted, x.shape) if wanted else None


def _reduce(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16", "bf16", "i32"):
        return None
    op, axis = body.one(("sum", "max", "min")), len(x.shape) - 1
    more = f"axis = {axis} : i32"
    row = _made(body, f"reduce_{op}", (x,), x.dtype, (*x.shape[:-1], 1), more)
    return _made(body, "sub", (x, row), x.dtype, x.shape)


def _transpose(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static:
        return None
    return _made(body, "transpose", (x,), x.dtype, x.shape[::-1], "perms = array<i32: 1, 0>")


def _reshape(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static:
        return None
    shape = x.shape[::-1]
    kind = f"!tosa.shape<{len(shape)}>"
    values = f"dense<[{', '.join(map(str, shape))}]> : tensor<{len(shape)}xindex>"
    into = body.line(f'"tosa.const_shape"() <{{values = {values}}}> : () -> {kind}')
    kinds = f"({body.type(x)}, {kind}) -> {body.words(x.dtype, shape)}"
    return body.value(f'"tosa.reshape"({x.name}, {into}) : {kinds}', x.dtype, shape)


def _concat(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static:
        return None
    shape = (x.shape[0], 2 * (x.shape[1] or 0))
    return _made(body, "concat", (x, x), x.dtype, shape, "axis = 1 : i32")


def _matmul(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "i8") or len(x.shape) != 2 or not x.static:
        return None
    rows, columns, width = x.shape[0] or 0, x.shape[1] or 0, body.draw.choice((2, 4, 7))
    one = _reshaped(body, x, (1, rows, columns))
    weight = constant(body, x.dtype, (1, columns, width))
    zero = _zero(body, x.dtype)
    result = "i32" if x.dtype == "i8" else "f32"
    made = _made(body, "matmul", (one, weight, zero, zero), result, (1, rows, width))
    return _reshaped(body, made, (rows, width))


def _reshaped(body: Body, x: Value, shape: tuple[int, ...]) -> Value:
    kind = f"!tosa.shape<{len(shape)}>"
    values = f"dense<[{', '.join(map(str, shape))}]> : tensor<{len(shape)}xindex>"
    into = body.line(f'"tosa.const_shape"() <{{values = {values}}}> : () -> {kind}')
    kinds = f"({body.type(x)}, {kind}) -> {body.words(x.dtype, shape)}"
    return body.value(f'"tosa.reshape"({x.name}, {into}) : {kinds}', x.dtype, shape)


def _choice(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16", "bf16", "i32"):
        return None
    other, op = _other(body, x), body.one(("greater", "greater_equal", "equal"))
    mask = _made(body, op, (x, other), "i1", x.shape)
    if body.draw.random() < 0.2:
        return mask
    return _made(body, "select", (mask, x, other), x.dtype, x.shape)


def _clamp(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16", "i8"):
        return None
    low, high = ("-1.0", "0.75") if x.floating else ("-2", "3")
    more = f"min_val = {low} : {x.dtype}, max_val = {high} : {x.dtype}"
    return _made(body, "clamp", (x,), x.dtype, x.shape, more)


MAKERS: tuple[Maker, ...] = (
    _unary,
    _unary,
    _negate,
    _binary,
    _binary,
    _mul,
    _cast,
    _reduce,
    _transpose,
    _reshape,
    _concat,
    _matmul,
    _choice,
    _clamp,
)
DTYPES = ("f32", "f32", "f16", "bf16", "i32", "i8", "i16", "i1")
