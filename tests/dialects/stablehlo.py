"""Steps of the StableHLO dialect."""

from __future__ import annotations

from dialects.body import FLOATS, INTEGERS, Body, Maker, Value, builtin, number


def constant(body: Body, dtype: str, shape: tuple[int, ...]) -> Value:
    kind = builtin(dtype, shape)
    text = f"stablehlo.constant dense<{number(body.draw, dtype)}> : {kind}"
    return body.value(text, dtype, shape)


def _other(body: Body, x: Value) -> Value:
    if x.static and body.draw.random() < 0.5:
        return constant(body, x.dtype, x.shape)  # type: ignore[arg-type]
    return x


def add(body: Body, x: Value, y: Value) -> Value | None:
    """The sum of two values of one type."""
    if x.dtype.startswith("f8") or x.dtype in ("i1", "i4"):
        return None
    return body.value(f"stablehlo.add {x.name}, {y.name} : {body.type(x)}", x.dtype, x.shape)


def _unary(body: Body, x: Value) -> Value | None:
    if x.dtype.startswith("f8"):
        return None
    if x.floating:
        op = body.one(
            ("tanh", "abs", "negate", "logistic", "floor", "cosine", "sine", "exponential")
        )
    elif x.dtype == "i1":
        op = "not"
    else:
        op = body.one(("abs", "negate", "not", "sign"))
    return body.value(f"stablehlo.{op} {x.name} : {body.type(x)}", x.dtype, x.shape)


def _binary(body: Body, x: Value) -> Value | None:
    if x.dtype.startswith("f8"):
        return None
    if x.floating:
        op = body.one(("add", "subtract", "multiply", "maximum", "minimum"))
    elif x.dtype == "i1":
        op = body.one(("and", "or", "xor"))
    else:
        op = body.one(("add", "subtract", "multiply", "maximum", "minimum", "and", "xor"))
    text = f"stablehlo.{op} {x.name}, {_other(body, x).name} : {body.type(x)}"
    return body.value(text, x.dtype, x.shape)


def _convert(body: Body, x: Value) -> Value | None:
    wanted = body.one((*FLOATS, *INTEGERS, "i1", "f8E4M3FN", "f8E5M2", "i4"))
    if wanted == x.dtype or (x.dtype.startswith("f8") and wanted != "f32"):
        return None
    if wanted.startswith("f8") and x.dtype not in ("f32", "f16"):
        return None
    kinds = f"({body.type(x)}) -> {body.words(wanted, x.shape)}"
    return body.value(f"stablehlo.convert {x.name} : {kinds}", wanted, x.shape)


def _dot(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16", "bf16", "i32") or len(x.shape) != 2 or x.shape[1] is None:
        return None
    width = body.draw.choice((2, 4, 7))
    weight = constant(body, x.dtype, (x.shape[1], width))
    shape = (x.shape[0], width)
    text = f"stablehlo.dot_general {x.name}, {weight.name}, contracting_dims = [1] x [0] : "
    kinds = f"({body.type(x)}, {body.type(weight)}) -> {body.words(x.dtype, shape)}"
    return body.value(text + kinds, x.dtype, shape)


def _reduce(body: Body, x: Value) -> Value | None:
    if x.dtype.startswith("f8") or x.dtype in ("i4", "i1") or len(x.shape) != 2 or not x.static:
        return None
    scalar = f"tensor<{x.dtype}>"
    start = body.line(f"stablehlo.constant dense<{number(body.draw, x.dtype)}> : {scalar}")
    op = body.one(("add", "maximum", "minimum"))
    text = f"stablehlo.reduce({x.name} init: {start}) applies stablehlo.{op} across dimensions = "
    kinds = f"[1] : ({body.type(x)}, {scalar}) -> {body.words(x.dtype, x.shape[:1])}"
    row = body.value(text + kinds, x.dtype, x.shape[:1])
    kinds = f"({body.type(row)}) -> {body.type(x)}"
    text = f"stablehlo.broadcast_in_dim {row.name}, dims = [0] : {kinds}"
    return body.value(text, x.dtype, x.shape)


def _transpose(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype == "i4":
        return None
    shape = x.shape[::-1]
    kinds = f"({body.type(x)}) -> {body.words(x.dtype, shape)}"
    return body.value(f"stablehlo.transpose {x.name}, dims = [1, 0] : {kinds}", x.dtype, shape)


def _slice(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype == "i4" or (x.shape[1] or 0) < 3:
        return None
    shape = (x.shape[0], (x.shape[1] or 0) - 1)
    kinds = f"({body.type(x)}) -> {body.words(x.dtype, shape)}"
    text = f"stablehlo.slice {x.name} [0:{x.shape[0]}, 1:{x.shape[1]}] : {kinds}"
    return body.value(text, x.dtype, shape)


def _concatenate(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype == "i4":
        return None
    shape = (x.shape[0], 2 * (x.shape[1] or 0))
    kinds = f"({body.type(x)}, {body.type(x)}) -> {body.words(x.dtype, shape)}"
    text = f"stablehlo.concatenate {x.name}, {x.name}, dim = 1 : {kinds}"
    return body.value(text, x.dtype, shape)


def _choice(body: Body, x: Value) -> Value | None:
    if x.dtype.startswith("f8") or x.dtype in ("i1", "i4") or not x.static:
        return None
    other, masks = _other(body, x), body.words("i1", x.shape)
    how = body.one(("LT", "GE", "EQ", "NE"))
    kind = "FLOAT" if x.floating else "SIGNED"
    kinds = f"({body.type(x)}, {body.type(x)}) -> {masks}"
    mask = body.line(f"stablehlo.compare {how}, {x.name}, {other.name}, {kind} : {kinds}")
    if body.draw.random() < 0.2:
        return Value(mask, "i1", x.shape)
    text = f"stablehlo.select {mask}, {x.name}, {other.name} : {masks}, {body.type(x)}"
    return body.value(text, x.dtype, x.shape)


def _iota(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "i32", "i64") or not x.static:
        return None
    kind = body.type(x)
    count = body.line(f"stablehlo.iota dim = {len(x.shape) - 1} : {kind}")
    return body.value(f"stablehlo.add {x.name}, {count} : {kind}", x.dtype, x.shape)


def _reshape(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype == "i4":
        return None
    shape = x.shape[::-1]
    kinds = f"({body.type(x)}) -> {body.words(x.dtype, shape)}"
    return body.value(f"stablehlo.reshape {x.name} : {kinds}", x.dtype, shape)


def _pad(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype in ("i4", "i1") or x.dtype.startswith("f8"):
        return None
    scalar = f"tensor<{x.dtype}>"
    with_ = body.line(f"stablehlo.constant dense<{number(body.draw, x.dtype)}> : {scalar}")
    shape = (x.shape[0], (x.shape[1] or 0) + 2)
    text = f"stablehlo.pad {x.name}, {with_}, low = [0, 1], high = [0, 1], interior = [0, 0] : "
    kinds = f"({body.type(x)}, {scalar}) -> {body.words(x.dtype, shape)}"
    return body.value(text + kinds, x.dtype, shape)


MAKERS: tuple[Maker, ...] = (
    _unary,
    _unary,
    _binary,
    _binary,
    _convert,
    _dot,
    _reduce,
    _transpose,
    _slice,
    _concatenate,
    _choice,
    _iota,
    _reshape,
    _pad,
)
DTYPES = (*FLOATS, *INTEGERS, "i4", "i1", "f8E4M3FN", "f8E5M2")
