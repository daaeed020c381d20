"""Rounding noise of a program, and the tolerances that follow from it.

The limits of an output follow PyTorch's own error against the precise reference, plus a floor for
noise that this one sample does not show:

- 64 roundings of f32 arithmetic: another order of summation, another exp;
- divided by sqrt(n), as few elements may have come out right by luck, 4 roundings of the narrowest
  type that the program computes in, or 512 of f32 arithmetic if that is more;
- where computed values are rounded to an 8-bit float, twice what a perturbation of them moves the
  result by, as it was measured when the program was traced; or one such rounding where it was not:
  a difference in the last bit of a wider value can flip it, and a flip feeds those after it.

Where a program computes in f16 or bf16, an element may be off by 8 of its roundings, and all of
them together by 2, or by less where PyTorch's own error is below an eighth of one: then that type
does not reach the output, or hardly. PyTorch sums up in f32 (cumsum, norms) and rounds once,
another implementation may round each step to the program's type. Of 30 random cumsums
over up to 33 elements each, with no error of PyTorch's beyond that last rounding, elements of IREE
3.13.0's lie up to 4.4 roundings off in f16 and 4.8 in bf16, and 9 and 10 of them were accused
without; a group_norm in f16 lies 1.9 roundings off in all, 4.4 times as far as PyTorch's.

Without a precise reference half of the narrowest type's digits must agree with PyTorch's.

The numbers were chosen on 20,000 comparisons of right results of simulated programs (of the kind
in `tests/pipeline/numerics/test_numerics.py`) in other orders of summation, with other roundings
between operations and other approximations of exp, tanh and rsqrt: 9 fail, of ill-conditioned
programs a few elements wide; without a precise reference 66 do. That 8-bit floats need a floor
shows in a two-layer Llama with FP8 linears: PyTorch's f32 result happens to flip nothing and is
2e-7 off, IREE's flips a few values and is 3e-3 off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

FACTOR = 4.0
#: Why a tolerance is wide.
IMPRECISE = "as there is no precise reference"
#: A perturbation moves far more 8-bit roundings than another implementation does.
_MOVED = 2.0
_F32_ROUNDINGS = 64
_LUCKY_ROUNDINGS = 4
_LUCKY_F32_ROUNDINGS = 512
#: Roundings of the program's own type, if it is narrower than f32: in each element, and in all.
_STEPS, _STEPS_IN_ALL = 8, 2
#: PyTorch's own error is at least this share of a rounding of that type where it reaches an output.
_REACHES = 1 / 8
#: Half the distance from 1 to the next number, by element type: the relative error of a rounding.
UNIT = {
    "f64": 2.0**-53,
    "f32": 2.0**-24,
    "f16": 2.0**-11,
    "bf16": 2.0**-8,
    "f8E4M3FN": 2.0**-4,
    "f8E4M3FNUZ": 2.0**-4,
    "f8E5M2": 2.0**-3,
    "f8E5M2FNUZ": 2.0**-3,
    "complex<f32>": 2.0**-24,
    "complex<f64>": 2.0**-53,
}
#: No wider limit is ever enough: of the whole output, and of an element unless what the program
#: rounds to 8 bits has larger steps.
MOST = 0.1
_FLOAT = re.compile(
    rb"(?<![A-Za-z0-9_])(?:[0-9?]+x)*(bf16|f16|f32|f64|f8E[0-9]M[0-9](?:FNUZ|FN)?)\b"
)
_OF_ARGUMENT = re.compile(rb"= [\w.\"]+[ (]%arg\d")
#: A longer line is an inlined constant.
_LONGEST_LINE = 1 << 16


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """The rounding that a program's text shows.

    computes: the narrowest type of at least 16 bits in it. quantizes: the narrowest 8-bit float
    that it rounds computed values to, None where it only holds or converts given ones.
    """

    computes: str = "f32"
    quantizes: str | None = None

    @property
    def narrowest(self) -> str:
        return self.quantizes or self.computes


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Change of an output when operands of 8-bit roundings are perturbed: see `Reference`."""

    rel_l2: float
    excess: float


class NoiseLimits(msgspec.Struct, frozen=True, kw_only=True):
    """rel_l2: of the error's norm over the reference's. excess: of each element's error beyond
    the rounding of the output's type, over its size plus the root mean square. basis: in words.
    """

    rel_l2: float
    excess: float
    basis: str


def scan(mlir: Path) -> Noise:
    """Reads from a program's text what it rounds to; bytecode shows nothing and counts as f32."""
    wide: set[str] = set()
    quantizes = None
    with mlir.open("rb") as file:
        for line in file:
            if len(line) > _LONGEST_LINE:
                continue
            wide.update(n.decode() for n in _FLOAT.findall(line) if not n.startswith(b"f8"))
            if b"f8E" in line and (name := _quantizes(line)):
                quantizes = max(quantizes or name, name, key=unit)
    return Noise(computes=max(wide, key=unit, default="f32"), quantizes=quantizes)


def of_output(program: Noise, reached: Sequence[Sequence[str]], demoted: Sequence[str]) -> Noise:
    """The rounding in what an output is computed from.

    reached: the types of floats in it, none where they are not known: it may be all of the
    program's. demoted: types that the compiler computes in instead of the program's.
    """
    computes, quantizes = [program.computes], program.quantizes
    for types in reached:
        wide = [name for name in types if not name.startswith("f8")]
        computes = [max(wide, key=unit, default="f32")]
        quantizes = quantizes if len(wide) < len(types) else None
    return Noise(computes=max([*computes, *demoted], key=unit), quantizes=quantizes)


def smallest(dtype: str) -> float:
    """The smallest normal number of the type that a device computes values of a type in: what is
    below it may be 0 there. Narrow types hold nothing that is as small, but for bf16."""
    return 2.0**-1022 if dtype in ("f64", "complex<f64>") else 2.0**-126


def most(noise: Noise, dtype: str) -> float:
    """The largest relative error that an element of a right result may have."""
    quantizes = noise.quantizes or (dtype if dtype.startswith("f8") else None)
    return max(MOST, 2 * unit(quantizes)) if quantizes else MOST


def unit(dtype: str) -> float:
    """The relative error of one rounding to an element type; 0 for those that do not round."""
    return UNIT.get(dtype, 0.0)


def _quantizes(line: bytes) -> str | None:
    """The 8-bit float that an operation on one line rounds a computed wider float to, if any."""
    operation, colon, types = line.partition(b" : ")
    before, arrow, after = types.rpartition(b"->" if b"->" in types else b" to ")
    result = _FLOAT.search(after)
    if not colon or not arrow or result is None or not result[1].startswith(b"f8"):
        return None
    wide = any(not name.startswith(b"f8") for name in _FLOAT.findall(before))
    return result[1].decode() if wide and not _OF_ARGUMENT.search(operation) else None


def limits(
    dtype: str,
    elements: int,
    noise: Noise,
    own_error: float | None,
    own_excess: float,
    moved: Spread | None = None,
) -> NoiseLimits:
    """Tolerances of an output of `dtype`.

    own_error, own_excess: PyTorch's rel_l2 and largest excess against the precise reference;
    own_error None where there is none. moved: measured for programs that round to 8 bits; without
    it one such rounding is allowed for.
    """
    count = max(elements, 1)
    # How far out the largest of so many normally distributed errors lies.
    spread = 1 + math.sqrt(2 * math.log(2 * count))
    narrowest = max(noise.narrowest, dtype, key=unit)
    if own_error is None:
        half = math.sqrt(unit(narrowest))
        basis = f"half the digits of {narrowest}, {IMPRECISE}"
        return NoiseLimits(rel_l2=half, excess=half * spread, basis=basis)
    shown, floor = own_error, _F32_ROUNDINGS * unit("f32")
    basis = f"the reference's own error {own_error:.3g}"
    if moved is not None:
        basis += f" and {moved.rel_l2:.3g} by which a perturbation before 8-bit roundings moves it"
        narrowest = max(noise.computes, dtype, key=unit)
        own_error = max(own_error, moved.rel_l2 * _MOVED / FACTOR)
        own_excess = max(own_excess, moved.excess * _MOVED / FACTOR)
    elif noise.quantizes:
        floor += unit(noise.quantizes)
        basis += f" and the noise of rounding to {noise.quantizes}"
    lucky = noise.computes if moved is not None else noise.narrowest
    step = unit(noise.computes) if unit(noise.computes) > unit("f32") else 0.0
    step = min(step, shown / _REACHES)
    return NoiseLimits(
        rel_l2=FACTOR * own_error + floor + max(_luck(narrowest, count), _STEPS_IN_ALL * step),
        # The excess leaves out the output's own rounding.
        excess=FACTOR * own_excess + max(spread * (floor + _luck(lucky, count)), _STEPS * step),
        basis=basis,
    )


def _luck(narrowest: str, count: int) -> float:
    roundings = max(_LUCKY_ROUNDINGS * unit(narrowest), _LUCKY_F32_ROUNDINGS * unit("f32"))
    return roundings / math.sqrt(count)
