"""Rewrites torch-dialect programs, in a child process.

The bindings can abort on IR that they do not like. Each rewrite leaves the
functions' signatures as they are, so that the original's inputs and reference serve it too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.pipeline.program import python_lines
from iree_pilot.repro.ir import edit as ir_edit
from iree_pilot.repro.ir import symbols
from iree_pilot.repro.workarounds.build import (
    CODES,
    After,
    Before,
    NotPossible,
    element_of,
    literal,
    maker_of,
    tensor,
    vtensor,
)
from iree_pilot.repro.workarounds.candidate import Edit

#: Pattern of the programs that each rewrite applies to.
NEEDS: dict[Edit, re.Pattern[bytes]] = {
    "attention": re.compile(rb"scaled_dot_product_attention"),
    "prelu": re.compile(rb"aten\.prelu"),
    "fnuz": re.compile(rb"torch.*f8E"),
    "fp8-subnormals": re.compile(rb"torch.*f8E"),
    "matmul-in-f32": re.compile(rb"torch\.vtensor.*b?f16>"),
    "f16-in-f32": re.compile(rb"torch\.vtensor.*b?f16>"),
    "narrow-in-i32": re.compile(rb"torch\.vtensor.*(?:[su]i8|si16)>"),
}
FNUZ = {"f8E4M3FN": "f8E4M3FNUZ", "f8E5M2": "f8E5M2FNUZ"}
_FN = re.compile(r"\bf8E(?:4M3FN|5M2)\b")
#: Exponents of each FP8 type's smallest normal and smallest subnormal number.
_SMALLEST = {
    "f8E4M3FN": (-6, -9),
    "f8E4M3FNUZ": (-7, -10),
    "f8E5M2": (-14, -16),
    "f8E5M2FNUZ": (-15, -17),
}
#: FP8 element of a type, which its dimensions precede: `16x32xf8E4M3FN`.
_FN_ANYWHERE = re.compile(r"f8E(?:4M3FN|5M2)\b")
_CONVERTS = ("torch.prims.convert_element_type", "torch.aten.to.dtype")
_CHECK = "torch.aten._assert_tensor_metadata"
_MOVES = re.compile(
    r"torch\.aten\.(view|reshape|_unsafe_view|transpose\.int|permute|t|slice\.Tensor|select\.int"
    r"|expand|unsqueeze|squeeze|squeeze\.dim|clone|contiguous|alias|detach|cat|flatten\.using_ints"
    r"|split\w*\.?\w*|chunk|narrow|index_select|index\.Tensor|embedding)"
)
_PRODUCTS = re.compile(
    r"torch\.aten\.(matmul|mm|bmm|linear|addmm|baddbmm|convolution|conv\dd\w*|einsum)"
)
_SDPA = "torch.aten.scaled_dot_product_attention"
_PRELU = "torch.aten.prelu"
#: Operations whose result type is given by arguments, so that changing an operand has no effect.
_TYPED = re.compile(
    r"torch\.(prims\.convert_element_type|aten\.(to\.\w+|type_as|\w*(empty|zeros|ones|full|rand\w*)"
    r"(_like)?\b.*|_to_copy|bitwise.*|__\w+__.*|embedding|index\.Tensor|index_select|gather))"
)
#: Exponent biases differ by one: a code stands for half as much.
_HALVES = 0.5


class Rewriting(msgspec.Struct, frozen=True, kw_only=True):
    """Rewrite the program in `mlir` and write it to `output`."""

    mlir: str
    edit: Edit
    output: str


class Rewritten(msgspec.Struct, frozen=True, kw_only=True):
    """changes: how many places were rewritten; why: there was nothing, or it is not possible.

    renamed: parameters that need other bytes, old name -> new name. left: why places were left as
    they are, once each.
    """

    changes: int = 0
    why: str = ""
    renamed: dict[str, str] = {}
    left: tuple[str, ...] = ()


def rewritten(rewriting: Rewriting, directory: Path) -> Rewritten:
    """Writes the rewritten program, where there is one."""
    original, output = Path(rewriting.mlir), Path(rewriting.output)
    try:
        done, text, located = _rewrite(original.read_bytes(), rewriting.edit)
    except (NotPossible, ValueError) as fault:
        return Rewritten(why=str(fault))
    if text:
        output.write_text(text, encoding="utf-8")
        if not done.renamed:
            python_lines.carry(original, output, located)
    return done


def _rewrite(text: bytes, edit: Edit) -> tuple[Rewritten, str, str]:
    """(summary of the changes, the new program, that with locations in the old one); no text if
    nothing changed."""
    renamed: dict[str, str] = {}
    with ir_edit.context():
        module = ir_edit.parse(text)
        if edit == "fnuz":
            _check_fnuz(module)
            retyped, renamed = _retype(str(module.operation.get_asm(enable_debug_info=False)))
            module = ir_edit.parse(retyped.encode())
        changes = 0
        left: dict[str, None] = {}
        for op in _torch_operations(module):
            try:
                changes += _EDITS[edit](op)
            except NotPossible as fault:
                left[str(fault)] = None
        if edit == "fnuz" and renamed:
            changes = max(changes, 1)
        if not changes:
            why = next(iter(left), "there is nothing in the program that it is for")
            return Rewritten(why=why), "", ""
        printed = ir_edit._printed(module)
        located = module.operation.get_asm(
            enable_debug_info=True, large_elements_limit=8, large_resource_limit=8
        )
        return Rewritten(changes=changes, renamed=renamed, left=tuple(left)), printed, str(located)


def _torch_operations(module: Any) -> list[Any]:
    return [op for op in symbols.walk(module.operation) if op.name.startswith("torch.")]


def _attention(op: Any) -> int:
    """`softmax(q k^T * scale + mask) v` in f32 at least; 0 in a row without keys.

    Matches PyTorch's CPU kernel: a boolean mask is added as 0 and -inf (a NaN score stays NaN), and
    causal masking replaces scores by -inf.
    """
    if op.name != _SDPA:
        return 0
    query, key, value, mask, dropout, causal, scale, *rest = op.operands
    if literal(dropout):
        raise NotPossible("an attention has dropout")
    build = Before(op)
    shape, element = tensor(query)
    if rest and literal(rest[0]):
        key, value = (_repeated(build, one, shape) for one in (key, value))
    keys, _ = tensor(key)
    factor = literal(scale)
    if factor is None:
        if shape[-1] in ("?", "0"):
            raise NotPossible("the size of an attention's heads is not known, or 0")
        factor = int(shape[-1]) ** -0.5
    wide = element if element == "f64" else "f32"
    query, key, value = (build.convert(one, wide) for one in (query, key, value))
    turned = [*keys[:-2], keys[-1], keys[-2]]
    dims = [build.integer(-2), build.integer(-1)]
    transposed = build.make("aten.transpose.int", [key, *dims], vtensor(turned, wide))
    kind = vtensor([*tensor(op.results[0])[0][:-1], keys[-2]], wide)
    scores = build.times(build.make("aten.matmul", [query, transposed], kind), float(factor))
    if str(mask.type) != "!torch.none":
        added = _added(build, mask, wide)
        scores = build.make("aten.add.Tensor", [scores, added, build.integer(1)], kind)
    if literal(causal):
        operands = [_lower_triangle(build, query, key), scores, build.number(-math.inf)]
        scores = build.make("aten.where.ScalarOther", operands, kind)
    weights = build.make("aten.softmax.int", [scores, build.integer(-1), build.none()], kind)
    operands = [_has_keys(build, scores), weights, build.number(0.0)]
    weights = build.make("aten.where.ScalarOther", operands, kind)
    sizes, element = tensor(op.results[0])
    result = build.make("aten.matmul", [weights, value], vtensor(sizes, wide))
    build.replace(build.convert(result, element))
    return 1


def _added(build: Before, mask: Any, element: str) -> Any:
    """The mask as numbers to add: 0 and -inf for booleans."""
    sizes, own = tensor(mask)
    if own != "i1":
        return build.convert(mask, element)
    operands = [mask, build.number(0.0), build.number(-math.inf)]
    added = build.make("aten.where.Scalar", operands, vtensor(sizes, "f32"))
    return build.convert(added, element)


def _repeated(build: Before, value: Any, query: list[str]) -> Any:
    """Keys or values [..., heads, rows, size] for as many heads as the query has."""
    shape, element = tensor(value)
    if "?" in (query[-3], shape[-3]):
        raise NotPossible("an attention shares keys among heads of unknown number")
    times = int(query[-3]) // int(shape[-3])
    single, several = ([*shape[:-2], n, *shape[-2:]] for n in ("1", str(times)))
    lifted = build.make("aten.unsqueeze", [value, build.integer(-3)], vtensor(single, element))
    sizes = [build.integer(times if n == len(shape) - 2 else -1) for n in range(len(several))]
    listed = build.make("prim.ListConstruct", sizes, "!torch.list<int>")
    operands = [lifted, listed, build.boolean(False)]
    expanded = build.make("aten.expand", operands, vtensor(several, element))
    operands = [expanded, build.integer(-4), build.integer(-3)]
    flat = vtensor([*shape[:-3], query[-3], *shape[-2:]], element)
    return build.make("aten.flatten.using_ints", operands, flat)


def _has_keys(build: Before, scores: Any) -> Any:
    """[..., rows, 1] i1: whether a row of scores has one that is more than -inf, or a NaN."""
    sizes, _ = tensor(scores)
    # Not by the largest score: on some devices the maximum of a NaN and a number is the number.
    operands = [scores, build.number(-math.inf)]
    some = build.make("aten.ne.Scalar", operands, vtensor(sizes, "i1"))
    operands = [some, build.number(1.0), build.number(0.0)]
    counted = build.make("aten.where.Scalar", operands, vtensor(sizes, "f32"))
    dims = build.make("prim.ListConstruct", [build.integer(-1)], "!torch.list<int>")
    single = [*sizes[:-1], "1"]
    operands = [counted, dims, build.boolean(True)]
    largest = build.make("aten.amax", operands, vtensor(single, "f32"))
    return build.make("aten.gt.Scalar", [largest, build.number(0.0)], vtensor(single, "i1"))


def _lower_triangle(build: Before, query: Any, key: Any) -> Any:
    """[rows, columns] i1: whether a column is no later than its row."""

    def counted(value: Any, dim: int) -> tuple[Any, str]:
        size, none = tensor(value)[0][-2], build.none()
        end = build.make("aten.size.int", [value, build.integer(-2)], "!torch.int")
        line = build.make("aten.arange", [end, none, none, none, none], vtensor([size], "si64"))
        shape = [size, "1"] if dim == 1 else ["1", size]
        column = build.make("aten.unsqueeze", [line, build.integer(dim)], vtensor(shape, "si64"))
        return column, size

    (down, rows), (across, columns) = counted(query, 1), counted(key, 0)
    return build.make("aten.ge.Tensor", [down, across], vtensor([rows, columns], "i1"))


def _prelu(op: Any) -> int:
    """`where(x > 0, x, x * weight)`, the weight along dimension 1."""
    if op.name != _PRELU:
        return 0
    x, weight = op.operands
    build = Before(op)
    shape, element = tensor(x)
    (channels,), _ = tensor(weight)
    if channels != "1" and len(shape) > 1:
        aligned = ["1", channels, *("1" for _ in shape[2:])]
        dims = [build.integer(int(d)) for d in aligned]
        listed = build.make("prim.ListConstruct", dims, "!torch.list<int>")
        weight = build.make("aten.view", [weight, listed], vtensor(aligned, element))
    scaled = build.make("aten.mul.Tensor", [x, weight], vtensor(shape, element))
    positive = build.make("aten.gt.Scalar", [x, build.integer(0)], vtensor(shape, "i1"))
    build.replace(build.make("aten.where.self", [positive, x, scaled], vtensor(shape, element)))
    return 1


def _products_in_f32(op: Any) -> int:
    return _widened(op, {"f16": "f32", "bf16": "f32"}) if _PRODUCTS.fullmatch(op.name) else 0


def _halves_in_f32(op: Any) -> int:
    if _TYPED.fullmatch(op.name) or _MOVES.fullmatch(op.name):
        return _through_f32(op)
    return _widened(op, {"f16": "f32", "bf16": "f32"})


def _narrow_in_i32(op: Any) -> int:
    if _TYPED.fullmatch(op.name) or _MOVES.fullmatch(op.name):
        return 0
    return _widened(op, dict.fromkeys(("si8", "ui8", "si16"), "si32"))


def _through_f32(op: Any) -> int:
    """A cast between FP8 and 16 bits in two steps, by way of f32."""
    if op.name not in _CONVERTS:
        return 0
    value, result = op.operands[0], op.results[0]
    if {element_of(value)[:2], element_of(result)[:2]} != {"f8", _half(value) or _half(result)}:
        return 0
    build = Before(op)
    wide = build.convert(value, "f32")
    op.operands[0] = wide
    return 1


def _half(value: Any) -> str:
    return element_of(value)[:2] if element_of(value) in ("f16", "bf16") else ""


def _widened(op: Any, to: dict[str, str]) -> int:
    """Computes one operation in wider element types, and casts its results back.

    An operand that was cast from a float is cast from that instead: FP8 directly to f32.
    """
    if not any(element_of(value) in to for value in op.operands) or not op.results:
        return 0
    build = Before(op)
    for index, value in enumerate(op.operands):
        wide = to.get(element_of(value))
        if wide is None:
            continue
        maker = maker_of(value)
        if (
            maker is not None
            and maker.name in _CONVERTS
            and element_of(maker.operands[0])[:2] == "f8"
        ):
            value = maker.operands[0]
        op.operands[index] = build.convert(value, wide)
    after = After(op)
    for result in list(op.results):
        own = element_of(result)
        if own in to:
            after.cast(result, own, to[own])
    return 1


def _check_fnuz(module: Any) -> None:
    """Raises NotPossible for a program that cannot be written in the other encodings."""
    text = str(module.operation.get_asm(large_elements_limit=8, enable_debug_info=False))
    if "FNUZ" in text:
        raise NotPossible("the program has FNUZ types already")
    if not _FN_ANYWHERE.search(text):
        raise NotPossible("the program has no e4m3fn and no e5m2")
    for line in text.splitlines():
        if re.search(r"\b(func|util)\.func\b", line) and _FN_ANYWHERE.search(line):
            raise NotPossible(
                "the program takes or returns FP8, which callers would have to change"
            )
    for op in _torch_operations(module):
        narrow = [v for v in (*op.operands, *op.results) if _FN.fullmatch(element_of(v))]
        if not narrow or op.name in (*_CONVERTS, _CHECK) or _MOVES.fullmatch(op.name):
            continue
        raise NotPossible(f"{op.name} computes with FP8 itself")


def _retype(text: str) -> tuple[str, dict[str, str]]:
    """The text with the other types, and the parameters that got another name for it."""
    renamed: dict[str, str] = {}

    def parameter(line: str) -> str:
        match = re.search(r'named<"[^"]*"::"([^"]*)">', line)
        if match and _FN_ANYWHERE.search(line):
            renamed[match[1]] = f"{match[1]}.fnuz"
            line = line.replace(f'"{match[1]}"', f'"{match[1]}.fnuz"')
        return line

    lines = [parameter(line) for line in text.splitlines()]
    retyped = _FN_ANYWHERE.sub(lambda found: FNUZ[found[0]], "\n".join(lines))
    return retyped + "\n", renamed


def _to_fnuz(op: Any) -> int:
    """Values are halved before they are cast to FP8, and doubled after they are cast from it."""
    if op.name == _CHECK:
        op.erase()
        return 0
    if op.name not in _CONVERTS:
        return 0
    value, result = op.operands[0], op.results[0]
    made, given = element_of(result), element_of(value)
    if made.endswith("FNUZ") == given.endswith("FNUZ"):
        return 0
    build = Before(op)
    if made.endswith("FNUZ"):
        op.operands[0] = build.times(value, _HALVES)
        op.operands[1] = build.integer(CODES[made])
        return 1
    after = After(op)
    uses = list(result.uses)
    doubled = after.times(result, 1 / _HALVES)
    for use in uses:
        use.owner.operands[use.operand_number] = doubled
    return 1


def _subnormals(op: Any) -> int:
    """Rounds values below FP8's normal numbers to its subnormal ones before the cast."""
    if op.name not in _CONVERTS:
        return 0
    value, made = op.operands[0], element_of(op.results[0])
    if made not in _SMALLEST or element_of(value) not in ("f16", "bf16", "f32", "f64"):
        return 0
    build = Before(op)
    normal, step = _SMALLEST[made]
    shape, element = tensor(value)
    own, truth = vtensor(shape, element), vtensor(shape, "i1")
    steps = build.make("aten.round", [build.times(value, 2.0**-step)], own)
    rounded = build.times(steps, 2.0**step)
    size = build.make("aten.abs", [value], own)
    small = build.make("aten.lt.Scalar", [size, build.number(2.0**normal)], truth)
    op.operands[0] = build.make("aten.where.self", [small, rounded, value], own)
    return 1


_EDITS: dict[Edit, Callable[[Any], int]] = {
    "attention": _attention,
    "prelu": _prelu,
    "fnuz": _to_fnuz,
    "matmul-in-f32": _products_in_f32,
    "f16-in-f32": _halves_in_f32,
    "narrow-in-i32": _narrow_in_i32,
    "fp8-subnormals": _subnormals,
}
