"""Steps of the linalg, tensor, arith and math dialects."""

from __future__ import annotations

from dialects.body import FLOATS, INTEGERS, Body, Maker, Value, builtin, number

_MAP = "affine_map<(d0, d1) -> (d0, d1)>"
_ROW = "affine_map<(d0, d1) -> (d0)>"


def constant(body: Body, dtype: str, shape: tuple[int, ...]) -> Value:
    kind = builtin(dtype, shape)
    return body.value(f"arith.constant dense<{number(body.draw, dtype)}> : {kind}", dtype, shape)


def _other(body: Body, x: Value) -> Value:
    if x.static and body.draw.random() < 0.5:
        return constant(body, x.dtype, x.shape)  # type: ignore[arg-type]
    return x


def add(body: Body, x: Value, y: Value) -> Value | None:
    """The sum of two values of one type."""
    if x.dtype.startswith("f8") or x.dtype in ("i1", "i4"):
        return None
    op = "addf" if x.floating else "addi"
    return body.value(f"arith.{op} {x.name}, {y.name} : {body.type(x)}", x.dtype, x.shape)


def _unary(body: Body, x: Value) -> Value | None:
    kind = body.type(x)
    if not x.floating or x.dtype.startswith("f8"):
        return None
    op = body.one(("math.tanh", "math.absf", "arith.negf", "math.sin", "math.cos", "math.floor"))
    return body.value(f"{op} {x.name} : {kind}", x.dtype, x.shape)


def _binary(body: Body, x: Value) -> Value | None:
    if x.dtype.startswith("f8"):
        return None
    kind = body.type(x)
    if x.floating:
        op = body.one(("addf", "subf", "mulf", "maximumf", "minimumf"))
    elif x.dtype == "i1":
        op = body.one(("andi", "ori", "xori"))
    else:
        op = body.one(("addi", "subi", "muli", "maxsi", "minsi", "andi", "xori", "maxui"))
    return body.value(f"arith.{op} {x.name}, {_other(body, x).name} : {kind}", x.dtype, x.shape)


def _cast(body: Body, x: Value) -> Value | None:
    if x.dtype in ("f32", "f16", "bf16", "f64"):
        wanted = body.one((*FLOATS, "f8E4M3FN", "f8E5M2", "f8E4M3FNUZ", "i32", "i8"))
    elif x.floating:
        wanted = body.one(("f32", "f16"))
    elif x.dtype == "i1":
        wanted = body.one(INTEGERS)
    else:
        wanted = body.one((*INTEGERS, "i4", "f32", "f16"))
    if wanted == x.dtype:
        return None
    widths = {name: _bits(name) for name in (x.dtype, wanted)}
    wider = widths[wanted] > widths[x.dtype]
    if x.floating and wanted[0] == "i":
        op = "fptosi"
    elif x.floating:
        if widths[wanted] == widths[x.dtype]:
            return None
        op = "extf" if wider else "truncf"
    elif wanted[0] in "fb":
        op = "sitofp"
    else:
        op = ("extui" if x.dtype == "i1" else "extsi") if wider else "trunci"
    kinds = f"{body.type(x)} to {body.words(wanted, x.shape)}"
    return body.value(f"arith.{op} {x.name} : {kinds}", wanted, x.shape)


def _bits(dtype: str) -> int:
    return {"bf16": 16, "f8E4M3FN": 8, "f8E4M3FNUZ": 8, "f8E5M2": 8}.get(dtype) or int(dtype[1:])


def _empty(body: Body, x: Value, dtype: str, shape: tuple[int | None, ...]) -> str:
    """A tensor to write to, with the dynamic first size of `x` where it has one."""
    sizes = ""
    if None in shape:
        at = body.line("arith.constant 0 : index")
        sizes = body.line(f"tensor.dim {x.name}, {at} : {body.type(x)}")
    return body.line(f"tensor.empty({sizes}) : {body.words(dtype, shape)}")


def _filled(body: Body, x: Value, dtype: str, shape: tuple[int | None, ...]) -> str:
    zero = body.line(f"arith.constant {'0' if dtype[0] == 'i' else '0.0'} : {dtype}")
    into, kind = _empty(body, x, dtype, shape), body.words(dtype, shape)
    return body.line(f"linalg.fill ins({zero} : {dtype}) outs({into} : {kind}) -> {kind}")


def _matmul(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("f32", "f16", "i32", "i8") or len(x.shape) != 2 or x.shape[1] is None:
        return None
    result = "i32" if x.integer else "f32"
    width = body.draw.choice((2, 4, 7))
    weight = constant(body, x.dtype, (x.shape[1], width))
    into = _filled(body, x, result, (x.shape[0], width))
    kind = body.words(result, (x.shape[0], width))
    text = f"linalg.matmul ins({x.name}, {weight.name} : {body.type(x)}, {body.type(weight)}) "
    return body.value(f"{text}outs({into} : {kind}) -> {kind}", result, (x.shape[0], width))


def _reduce(body: Body, x: Value) -> Value | None:
    if x.dtype.startswith("f8") or x.dtype == "i1" or len(x.shape) != 2:
        return None
    into, kind = _filled(body, x, x.dtype, x.shape[:1]), body.words(x.dtype, x.shape[:1])
    add = "addf" if x.floating else "addi"
    maps = f'indexing_maps = [{_MAP}, {_ROW}], iterator_types = ["parallel", "reduction"]'
    text = f"""linalg.generic {{{maps}}} ins({x.name} : {body.type(x)}) outs({into} : {kind}) {{
  ^bb0(%in: {x.dtype}, %out: {x.dtype}):
    %sum = arith.{add} %in, %out : {x.dtype}
    linalg.yield %sum : {x.dtype}
  }} -> {kind}"""
    row = body.value(text, x.dtype, x.shape[:1])
    return _broadcast(body, x, row)


def _broadcast(body: Body, x: Value, row: Value) -> Value:
    """What was reduced, as wide as before."""
    into, kind = _empty(body, x, x.dtype, x.shape), body.type(x)
    text = f"linalg.broadcast ins({row.name} : {body.type(row)}) outs({into} : {kind})"
    return body.value(f"{text} dimensions = [1]", x.dtype, x.shape)


def _transpose(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype == "i4":
        return None
    shape = x.shape[::-1]
    into, kind = _empty(body, x, x.dtype, shape), body.words(x.dtype, shape)
    text = f"linalg.transpose ins({x.name} : {body.type(x)}) outs({into} : {kind})"
    return body.value(f"{text} permutation = [1, 0]", x.dtype, shape)


def _slice(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype == "i4" or (x.shape[1] or 0) < 3:
        return None
    shape = (x.shape[0], (x.shape[1] or 0) - 1)
    text = f"tensor.extract_slice {x.name}[0, 1] [{shape[0]}, {shape[1]}] [1, 1]"
    kinds = f"{body.type(x)} to {body.words(x.dtype, shape)}"
    return body.value(f"{text} : {kinds}", x.dtype, shape)


def _pad(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype in ("i4", "i1") or x.dtype.startswith("f8"):
        return None
    shape = (x.shape[0], (x.shape[1] or 0) + 2)
    zero = body.line(f"arith.constant {number(body.draw, x.dtype)} : {x.dtype}")
    text = f"""tensor.pad {x.name} low[0, 1] high[0, 1] {{
  ^bb0(%i: index, %j: index):
    tensor.yield {zero} : {x.dtype}
  }} : {body.type(x)} to {body.words(x.dtype, shape)}"""
    return body.value(text, x.dtype, shape)


def _choice(body: Body, x: Value) -> Value | None:
    if x.dtype.startswith("f8") or x.dtype in ("i1", "i4") or not x.static:
        return None
    other = constant(body, x.dtype, x.shape)  # type: ignore[arg-type]
    kind = body.type(x)
    compare = "cmpf ogt" if x.floating else "cmpi sgt"
    mask = body.line(f"arith.{compare}, {x.name}, {other.name} : {kind}")
    if body.draw.random() < 0.2:
        return Value(mask, "i1", x.shape)
    masks = body.words("i1", x.shape)
    text = f"arith.select {mask}, {x.name}, {other.name} : {masks}, {kind}"
    return body.value(text, x.dtype, x.shape)


def _indexed(body: Body, x: Value) -> Value | None:
    if x.dtype not in ("i32", "i64", "f32") or len(x.shape) != 2:
        return None
    into, kind = _empty(body, x, x.dtype, x.shape), body.type(x)
    add = "addf" if x.floating else "addi"
    turned = "arith.sitofp %m : i64 to f32" if x.floating else ""
    if not turned:
        turned = "arith.addi %m, %m : i64" if x.dtype == "i64" else "arith.trunci %m : i64 to i32"
    maps = f'indexing_maps = [{_MAP}, {_MAP}], iterator_types = ["parallel", "parallel"]'
    text = f"""linalg.generic {{{maps}}} ins({x.name} : {kind}) outs({into} : {kind}) {{
  ^bb0(%in: {x.dtype}, %out: {x.dtype}):
    %k = linalg.index 1 : index
    %m = arith.index_cast %k : index to i64
    %n = {turned}
    %sum = arith.{add} %in, %n : {x.dtype}
    linalg.yield %sum : {x.dtype}
  }} -> {kind}"""
    return body.value(text, x.dtype, x.shape)


def _reshape(body: Body, x: Value) -> Value | None:
    if len(x.shape) != 2 or not x.static or x.dtype == "i4":
        return None
    flat = ((x.shape[0] or 0) * (x.shape[1] or 0),)
    kinds = f"{body.type(x)} into {body.words(x.dtype, flat)}"
    one = body.value(f"tensor.collapse_shape {x.name} [[0, 1]] : {kinds}", x.dtype, flat)
    shape = (x.shape[1], x.shape[0])
    text = f"tensor.expand_shape {one.name} [[0, 1]] output_shape [{shape[0]}, {shape[1]}]"
    kinds = f"{body.type(one)} into {body.words(x.dtype, shape)}"
    return body.value(f"{text} : {kinds}", x.dtype, shape)


MAKERS: tuple[Maker, ...] = (
    _unary,
    _binary,
    _binary,
    _cast,
    _cast,
    _matmul,
    _reduce,
    _transpose,
    _slice,
    _pad,
    _choice,
    _indexed,
    _reshape,
)
DTYPES = (*FLOATS, *INTEGERS, "i4", "i1", "f8E4M3FN", "f8E5M2")
