"""Right programs that a judge of numbers easily takes for wrong ones, each with a reason to be.

Ties, subnormals, cancellations, norms of what hardly varies, long sums in 16 bits, random numbers
beside what is compared, wide ranges, rows masked whole, no elements, wrapped integers, casts at the
borders of types. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from right.steps import Chain, Draw, Right, Step, Tensor

#: What a program computes, from its input to its outputs; its parts are attributes of the first.
Call = Callable[[Any, Tensor], tuple[Tensor, ...]]
#: (what it is about, what it computes, its input, constants that it holds).
Made = tuple[str, Call, Tensor, dict[str, Tensor]]


class Single(Chain):
    """One step with several results."""

    def __init__(self, step: Step) -> None:
        super().__init__([step], [])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.steps[0](x)


def _floats(draw: Draw) -> torch.dtype:
    return draw.one((torch.float32, torch.float32, torch.float16, torch.bfloat16))


def _few(draw: Draw, *shape: int) -> Tensor:
    """Values of which many are equal."""
    return draw.whole(0, draw.one((1, 2, 3, 5)), *shape).float() * 0.5


def _topk(draw: Draw) -> Made:
    width = draw.one((7, 16, 33))
    k = draw.one((1, 2, width // 2))
    x = _few(draw, draw.size(8), width).to(_floats(draw))
    return f"topk {k} of {width}", lambda _, x: tuple(torch.topk(x, k, -1)), x, {}


def _sort(draw: Draw) -> Made:
    down = draw.chance(0.5)
    x = _few(draw, draw.size(8), draw.one((5, 16, 31))).to(_floats(draw))
    return f"sort {down}", lambda _, x: tuple(torch.sort(x, -1, descending=down)), x, {}


def _argmax(draw: Draw) -> Made:
    name, axis = draw.one(("argmax", "argmin")), draw.one((0, 1))
    x = _few(draw, draw.size(), draw.size()).to(_floats(draw))
    return f"{name} {axis}", lambda _, x: (getattr(torch, name)(x, axis), x * 2), x, {}


def _largest(draw: Draw) -> Made:
    name = draw.one(("max", "min"))
    x = F.relu(_few(draw, draw.size(), draw.size(17)) - 0.5).to(_floats(draw))
    return f"{name} with its place", lambda _, x: tuple(getattr(x, name)(-1)), x, {}


def _rounded_tie(draw: Draw) -> Made:
    """Two columns that are equal but for the order of their sums."""
    inner, width, dtype = draw.one((16, 33, 64)), draw.one((4, 8)), _floats(draw)
    half = draw.normal(inner, width)
    weight = torch.cat([half, half.flip(0)], -1).to(dtype)
    x = draw.normal(draw.size(8), inner)
    x = ((x + x.flip(-1)) / 2).to(dtype)

    def call(m: Any, x: Tensor) -> tuple[Tensor, ...]:
        scores = x @ m.weight
        return scores, scores.argmax(-1)

    return f"argmax of equal columns {dtype}", call, x, {"weight": weight}


def _router(draw: Draw) -> Made:
    experts, k = draw.one((4, 8)), draw.one((1, 2))
    column = draw.normal(32, 1)
    weight = torch.cat([column] * experts, -1)
    x = draw.normal(draw.size(8), 32)

    def call(m: Any, x: Tensor) -> tuple[Tensor, ...]:
        values, indices = torch.topk(F.softmax(x @ m.weight, -1), k, -1)
        return values / values.sum(-1, keepdim=True), indices

    return f"router of {experts} equal experts", call, x, {"weight": weight}


def _picked(draw: Draw) -> Made:
    """What ties pick is equal, whichever they name."""
    x = _few(draw, draw.size(8), draw.one((8, 16)))

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        order = torch.argsort(x, -1)
        return x.gather(-1, order), order

    return "gather what argsort names", call, x, {}


def _tiny(draw: Draw) -> Made:
    scale = draw.one((1e-36, 1e-38, 1e-40, 1e-43))
    x, add = draw.normal(draw.size(), draw.size()), draw.chance(0.5)

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        small = x * scale
        return (small, small + small if add else x * 2, small > 0)

    return f"products of {scale}", call, x, {}


def _tails(draw: Draw) -> Made:
    gain, x = draw.one((20.0, 60.0)), draw.normal(draw.size(8), draw.one((16, 64)))
    return f"softmax of {gain} x", lambda _, x: (F.softmax(x * gain, -1),), x, {}


def _tiny_squares(draw: Draw) -> Made:
    scale, x = draw.one((1e-19, 1e-21)), draw.normal(draw.size(), draw.size(17))

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        small = x * scale
        return small.square(), small * torch.rsqrt(small.square().mean(-1, keepdim=True) + 1e-5)

    return f"squares of {scale}", call, x, {}


def _gauss(draw: Draw) -> Made:
    x = draw.normal(draw.size(), draw.size()) * draw.one((5.0, 9.0))
    return "exp(-x^2)", lambda _, x: (torch.exp(-x.square()), torch.erf(x)), x, {}


def _offset(draw: Draw) -> Made:
    big, dtype = draw.one((100.0, 1000.0)), _floats(draw)
    x = draw.normal(draw.size(), draw.size()).to(dtype)
    return f"(x + {big}) - {big} {dtype}", lambda _, x: ((x + big) - big, x), x, {}


def _variance(draw: Draw) -> Made:
    big = draw.one((10.0, 300.0))
    x = draw.normal(draw.size(8), draw.one((32, 257))) + big
    return f"variance about {big}", lambda _, x: (x.var(-1), x - x.mean(-1, keepdim=True)), x, {}


def _no_difference(draw: Draw) -> Made:
    x, dtype = draw.normal(draw.size(8), draw.one((8, 33))), _floats(draw)

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        return F.softmax(x, -1).sum(-1) - 1, x.square()

    return f"sum of a softmax less 1 {dtype}", call, x.to(dtype), {}


def _small_angle(draw: Draw) -> Made:
    x = draw.normal(draw.size(), draw.size()) * draw.one((1e-2, 1e-3))
    return "1 - cos x, exp x - 1", lambda _, x: (1 - torch.cos(x), torch.exp(x) - 1), x, {}


def _commuted(draw: Draw) -> Made:
    size, dtype = draw.one((8, 17, 32)), _floats(draw)
    weight, x = draw.normal(size, size).to(dtype), draw.normal(size, size).to(dtype)

    def call(m: Any, x: Tensor) -> tuple[Tensor, ...]:
        one = x @ m.weight
        return one - (m.weight.transpose(0, 1) @ x.transpose(0, 1)).transpose(0, 1), one

    return f"x w - (w^T x^T)^T {dtype}", call, x, {"weight": weight}


def _near_constant(draw: Draw, *shape: int) -> Tensor:
    noise = draw.one((0.0, 1e-7, 1e-5, 1e-3))
    rows = draw.normal(shape[0], *[1] * (len(shape) - 1)) * draw.one((1.0, 10.0))
    return rows + draw.normal(*shape) * noise


def _layer_norm(draw: Draw) -> Made:
    width, dtype = draw.one((16, 64, 100)), _floats(draw)
    x = _near_constant(draw, draw.size(8) + 1, width)
    x[0] = draw.normal(width)  # one row that varies
    weight = (1 + draw.normal(width, scale=0.2)).to(dtype)

    def call(m: Any, x: Tensor) -> tuple[Tensor, ...]:
        return (F.layer_norm(x, (width,), m.weight, None, 1e-5),)

    return f"layer_norm of equal values {dtype}", call, x.to(dtype), {"weight": weight}


def _group_norm(draw: Draw) -> Made:
    x = _near_constant(draw, 2, 4, draw.one((4, 7)), 5)
    return "group_norm of equal values", lambda _, x: (F.group_norm(x, 2), x * 3), x, {}


def _rms_norm(draw: Draw) -> Made:
    x = draw.normal(draw.size(8), 32) * draw.one((1e-4, 1e-8, 1e-20))

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6),)

    return "rms_norm of next to nothing", call, x, {}


def _normalized(draw: Draw) -> Made:
    x = _near_constant(draw, draw.size(8) + 1, 16)

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.norm(dim=-1, keepdim=True) + 1e-6), x

    return "rows about their mean over their norm", call, x, {}


def _sixteen(draw: Draw) -> torch.dtype:
    return draw.one((torch.float16, torch.bfloat16))


def _long_sum(draw: Draw) -> Made:
    dtype, name = _sixteen(draw), draw.one(("sum", "mean"))
    x = (draw.normal(draw.one((1, 3)), draw.one((1024, 4096))) * 0.5).to(dtype)
    return f"{name} of {x.shape[-1]} {dtype}", lambda _, x: (getattr(x, name)(-1),), x, {}


def _long_product(draw: Draw) -> Made:
    dtype, inner = _sixteen(draw), draw.one((512, 2048))
    weight = draw.normal(inner, 8, scale=inner**-0.5).to(dtype)
    x = draw.normal(draw.one((2, 5)), inner).to(dtype)
    return f"product over {inner} {dtype}", lambda m, x: (x @ m.weight,), x, {"weight": weight}


def _long_norm(draw: Draw) -> Made:
    dtype, width = _sixteen(draw), draw.one((1024, 2048))
    x = draw.normal(3, width).to(dtype)
    kind = draw.one(("softmax", "layer_norm"))

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        if kind == "softmax":
            return (F.softmax(x, -1),)
        return (F.layer_norm(x, (width,)),)

    return f"{kind} over {width} {dtype}", call, x, {}


def _running_sum(draw: Draw) -> Made:
    dtype = _sixteen(draw)
    x = draw.normal(2, draw.one((64, 256))).abs().to(dtype)
    return f"cumsum {dtype}", lambda _, x: (torch.cumsum(x, -1),), x, {}


def _noise(draw: Draw) -> Made:
    """A random output beside one that is not."""
    x, kind = draw.normal(draw.size(), draw.size()), draw.one(("randn", "rand", "dropout"))
    weight = draw.normal(x.shape[-1], 8)

    def call(m: Any, x: Tensor) -> tuple[Tensor, ...]:
        right = torch.tanh(x @ m.weight)
        if kind == "randn":
            return right, x + torch.randn_like(x)
        if kind == "rand":
            return right, (torch.rand_like(x) < 0.5).to(x.dtype) * x
        return right, F.dropout(x, 0.5, training=True)

    return f"{kind} beside a linear", call, x, {"weight": weight}


def _range(draw: Draw) -> Made:
    width = draw.one((16, 31))
    scale = 10.0 ** torch.linspace(-draw.one((8.0, 15.0)), draw.one((8.0, 15.0)), width)
    x = draw.normal(draw.size(8), width)

    def call(m: Any, x: Tensor) -> tuple[Tensor, ...]:
        return x * m.scale, (x * m.scale).sum(-1)

    return "columns of all sizes", call, x, {"scale": scale}


def _saturated(draw: Draw) -> Made:
    gain = draw.one((1e2, 1e4))
    x = draw.normal(draw.size(), draw.size()) * gain

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        return torch.tanh(x), torch.sigmoid(x), F.softplus(x), F.silu(x)

    return f"activations of {gain}", call, x, {}


def _exponential(draw: Draw) -> Made:
    x = draw.normal(draw.size(), draw.size()) * 10
    return "exp of 10 x", lambda _, x: (torch.exp(x), torch.log(torch.exp(x).sum(-1))), x, {}


def _masked(draw: Draw) -> Made:
    """Rows without anything to attend to are NaN in PyTorch as well, or made 0."""
    size, mended, dtype = draw.one((5, 8, 17)), draw.chance(0.5), _floats(draw)
    keep = draw.whole(0, 2, size, size).bool()
    keep[draw.one(range(size))] = False
    keep[0] = True
    x = draw.normal(2, size, size).to(dtype)

    def call(m: Any, x: Tensor) -> tuple[Tensor, ...]:
        shares = F.softmax(x.masked_fill(~m.keep, float("-inf")), -1)
        if mended:
            shares = shares.masked_fill(~m.keep.any(-1, keepdim=True), 0.0)
        return (shares,)

    return f"softmax of rows masked whole {dtype}", call, x, {"keep": keep}


def _minus_infinity(draw: Draw) -> Made:
    x = draw.normal(draw.size(8), 16)
    x[0, :5] = float("-inf")

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        return F.softmax(x, -1), torch.exp(x), torch.maximum(x, x.flip(-1))

    return "-inf among values", call, x, {}


def _nothing(draw: Draw) -> Made:
    x = draw.normal(draw.size(8), draw.size())
    kind = draw.one(("cat", "slice", "sum"))

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        if kind == "cat":
            return (torch.cat([x[:, :0], x * 2], -1),)
        if kind == "slice":
            return x[:0] * 2, x + 1
        return x[:, :0].sum(-1), x + 1

    return f"{kind} of nothing", call, x, {}


def _wrapped(draw: Draw) -> Made:
    dtype = draw.one((torch.int32, torch.int64, torch.int8, torch.int16))
    most = torch.iinfo(dtype).max
    x = draw.whole(-(2**30), 2**30, draw.size(), draw.size()) * (most // 2**29 or 1)
    x = x.to(dtype)
    kind = draw.one(("product", "sum", "shift", "abs"))

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        if kind == "product":
            return (x * x,)
        if kind == "sum":
            return x + x, x * 3 + most
        if kind == "shift":
            return (x << 3, x >> 2)
        return (torch.full_like(x, -most - 1) + x - x).abs(), 0 - x  # known.NEGATED

    return f"{kind} of {dtype} beyond its range", call, x, {}


def _half_steps(draw: Draw) -> Made:
    x = draw.whole(-40, 40, draw.size(), draw.size()).float() / 2

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        return torch.round(x), torch.floor(x), torch.trunc(x), x.to(torch.int32)

    return "rounding of halves", call, x, {}


def _narrowed(draw: Draw) -> Made:
    """f32 between two neighbours of a 16-bit type, and at its largest."""
    dtype = _sixteen(draw)
    steps = draw.whole(-200, 200, draw.size(), draw.size()).float()
    x = steps * (1 + torch.finfo(dtype).eps / 2)
    x[0, 0] = 65504.0
    if draw.chance(0.5):
        x[-1, -1] = 65519.0

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        return x.to(dtype), x.to(dtype).float() * 2

    return f"casts between two {dtype}", call, x, {}


def _large_integers(draw: Draw) -> Made:
    base = 2 ** draw.one((24, 30))
    x = draw.whole(base - 50, base + 50, draw.size(), draw.size())

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        return x.to(torch.float32), x.to(torch.float32).to(torch.int64), x % 7

    return f"int64 about {base} as f32", call, x, {}


def _compared(draw: Draw) -> Made:
    """Booleans that hang on the last bit."""
    x = draw.whole(1, 100, draw.size(), draw.size()).float()

    def call(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        return (x / 3) * 3 >= x, x

    return "x / 3 * 3 >= x", call, x, {}


FAMILIES = (
    _topk,
    _sort,
    _argmax,
    _largest,
    _rounded_tie,
    _router,
    _picked,
    _tiny,
    _tails,
    _tiny_squares,
    _gauss,
    _offset,
    _variance,
    _no_difference,
    _small_angle,
    _commuted,
    _layer_norm,
    _group_norm,
    _rms_norm,
    _normalized,
    _long_sum,
    _long_product,
    _long_norm,
    _running_sum,
    _noise,
    _range,
    _saturated,
    _exponential,
    _masked,
    _minus_infinity,
    _nothing,
    _wrapped,
    _half_steps,
    _narrowed,
    _large_integers,
    _compared,
)


def family(number: int) -> str:
    """What program `number` is about, in one word."""
    return FAMILIES[number % len(FAMILIES)].__name__.strip("_")


def program(draw: Draw, number: int) -> Right:
    """Program `number`; the families take turns."""
    name, call, x, parts = FAMILIES[number % len(FAMILIES)](draw)
    step = Step(f"{family(number)}: {name}", call, **parts)
    return Right(Single(step).eval().requires_grad_(False), (x,))
