"""Computing in float64 what a program computes in narrower types, and what roundings move it by.

Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from iree_pilot.pipeline.frontends.reference import choices as choosing
from iree_pilot.pipeline.frontends.reference import norms
from iree_pilot.pipeline.numerics import noise
from iree_pilot.pipeline.program.program import TORCH_ELEMENT_TYPES

_WIDENED = (torch.float32, torch.float16, torch.bfloat16)
#: Element types that a program rounds to on purpose.
NARROW = (
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
)


_PERTURBATION = 2.0**-12
SMALLEST = noise.smallest("f32")
_MEANS = (torch.ops.aten.mean.default, torch.ops.aten.mean.dim)
_SUMS = (
    torch.ops.aten.sum.default,
    torch.ops.aten.sum.dim_IntList,
    torch.ops.aten.cumsum.default,
    *_MEANS,
)
#: The largest number of each type, by a rounding of it: what `nan_to_num` makes of infinity.
_LARGEST = {
    noise.unit(name): torch.finfo(dtype).max
    for name, dtype in (
        ("f64", torch.float64),
        ("f32", torch.float32),
        ("f16", torch.float16),
        ("bf16", torch.bfloat16),
    )
}
#: Operations of iree-turbine, which IREE itself computes: of f64 it makes f32, wrongly here.
_COMPILED = ("iree", "turbine")
#: A sum of so many steps is long; a step's error as a share of `unit`, its standard deviation; what
#: a sum moves by as a share of what is lost of it once it is too large for its steps.
_LONG_SUM, _STEP, _LOST = 256, 0.4, 1 / 8


class NotEvaluable(Exception):
    """The program cannot be evaluated in double precision; the message says why."""


class Widening:
    """Carries operations out in float64, whatever type their floating-point tensors have.

    Casts to 8-bit floats are part of what a program means, so they still round; casts to f16, bf16
    and f32 are not carried out. Raises NotEvaluable with the reason when an operation has no
    double-precision form or reads a tensor's bits.

    perturbed: what is rounded to 8 bits is first moved by a relative 2**-12 at random. An 8-bit
    float has few values, so a difference far below the program's own precision can tip an element
    to the next one (6% to 12% away); two right implementations differ by as much. flushing: what is
    below the smallest normal f32 becomes 0. jitter: each value is moved by a rounding of its type,
    `unit`, at random from this seed, a long sum in 16 bits and the mean in a norm by one for each
    step. sums: nothing but these is. rounded: whether something was rounded to an 8-bit float so
    far; small: whether something was as small, where that is watched; summed: whether such a sum
    was met; steps: whether a sum or a norm in 16 bits was. doubles: the program computes in f64
    itself, where such numbers are not small.
    """

    def __init__(
        self,
        *,
        perturbed: bool = False,
        flushing: bool = False,
        watching: bool = False,
        jitter: int | None = None,
        sums: bool = False,
    ) -> None:
        self.rounded = self.small = self.summed = self.steps = self.doubles = False
        self._perturbation = _PERTURBATION if perturbed else 0.0
        self._flushing, self._watching = flushing, watching
        self._generator = torch.Generator().manual_seed(jitter or 0)
        self._jittering, self._sums = jitter is not None, sums
        self.unit = noise.unit("f32")

    def __call__(self, run: Callable[..., Any], target: Any, args: Any, kwargs: Any) -> Any:
        """`run(*args, **kwargs)` so, where it carries out `target`."""
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return None  # export's note of the dtypes it saw, which are widened here
        if target in (torch.ops.aten.view.dtype, torch.ops.aten._scaled_mm.default):
            raise NotEvaluable(f"{target} depends on the tensor's own dtype")
        if args and _narrow_cast(args[1:], kwargs):
            self.rounded = True
            if self._perturbation:
                args = (self._perturb(args[0], self._perturbation), *args[1:])
        args, kwargs = pytree.tree_map(self._argument, (args, kwargs))
        if getattr(target, "namespace", "") in _COMPILED:
            args, kwargs = pytree.tree_map(_single, (args, kwargs))
        if target is torch.ops.aten.nan_to_num.default:
            args = self._finite(*args, **kwargs)
            kwargs = {}
        results = run(*args, **kwargs)
        if self.unit > noise.unit("f32") and target in (*_SUMS, *norms.NORMS):
            self.steps = True
        if self._jittering and target in _SUMS:
            results = self._summed(results, args, target)
        if self._jittering and target in norms.NORMS:
            moved = norms.with_moments(target, args, kwargs, self._mean, self._variance)
            results = (moved, *results[1:]) if isinstance(results, tuple) else moved
        hold = widen if choosing.moves(target) else partial(self.held, unit=self.unit)
        return pytree.tree_map(hold, results)

    def _finite(self, values: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Any:
        """Arguments of nan_to_num, with the limits of the program's own type."""
        largest = _LARGEST.get(self.unit)
        if largest is None or not isinstance(values, torch.Tensor) or values.dtype != torch.float64:
            return values, nan, posinf, neginf
        return (
            values,
            nan,
            largest if posinf is None else posinf,
            -largest if neginf is None else neginf,
        )

    def _argument(self, value: Any) -> Any:
        """An argument that is no tensor, or was held before."""
        if isinstance(value, float) and 0 < abs(value) < SMALLEST and not self.doubles:
            self.small = True
            return 0.0 if self._flushing else value
        return _wide_dtype(value)

    def held(self, value: Any, unit: float | None = None) -> Any:
        """A value as it is computed with. unit: a rounding of it; None: of its own type."""
        unit = unit_of(value) if unit is None else unit
        value = widen(value)
        if not isinstance(value, torch.Tensor) or value.dtype is not torch.float64:
            return value
        if self._jittering:
            return value if self._sums else self._perturb(value, unit)
        return self._flushed(value)

    def moved(self, value: Any) -> Any:
        """An input in its own type; in float64 where it is moved."""
        return self.held(value) if self._jittering and not self._sums else value

    def given(self, value: Any) -> Any:
        """A value of the program's own types that is given to an operation."""
        wide = widen(value)
        fresh = wide is not value and wide.dtype is torch.float64
        return self._flushed(wide) if fresh else wide

    def _flushed(self, value: torch.Tensor) -> torch.Tensor:
        """A value in float64, watched for what a device may flush to 0."""
        if self._flushing:
            return value.masked_fill(value.abs() < SMALLEST, 0.0)
        if self._watching and not (self.small or self.doubles):
            self.small = bool(((value.abs() < SMALLEST) & (value != 0)).any())
        return value

    def _summed(self, total: Any, args: Any, target: Any) -> Any:
        """A sum moved by what rounding each of its steps comes to, where that is much.

        PyTorch sums 16-bit floats up in f32 and rounds once; compiled code may round each partial
        sum. Those grow as the root of their number where values cancel, and so do the roundings.
        """
        values = args[0]
        if not isinstance(total, torch.Tensor):
            return total
        running = target is torch.ops.aten.cumsum.default
        steps = values.numel() / max(total.numel(), 1)
        if running:
            steps = values.shape[args[1]] if values.ndim else 1
        if total.dtype is not torch.float64:
            return total
        step = values.square().mean().sqrt() / (steps if target in _MEANS else 1)
        return self._long(total, steps, step, step * steps**0.5)

    def _mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of the last dimension, moved by the roundings of its steps."""
        steps = values.shape[-1]
        step = values.square().mean(-1, keepdim=True).sqrt() / steps
        return self._off(values.mean(-1, keepdim=True), steps, step)

    def _variance(self, squares: torch.Tensor) -> torch.Tensor:
        """The mean of what is never negative in the last dimension, moved where it is long."""
        mean, steps = squares.mean(-1, keepdim=True), squares.shape[-1]
        return self._long(mean, steps, mean / steps)

    def _long(
        self, total: torch.Tensor, steps: float, step: torch.Tensor, beside: Any = 0.0
    ) -> torch.Tensor:
        """Same as `_off`, if a sum is long enough in a type that is narrow enough."""
        if steps < _LONG_SUM or self.unit <= noise.unit("f32"):
            return total
        self.summed = True
        return self._off(total, steps, step, beside)

    def _off(
        self, total: torch.Tensor, steps: float, step: torch.Tensor, beside: Any = 0.0
    ) -> torch.Tensor:
        """A sum or mean moved by the roundings of its steps, and by what is lost where it grows so
        large that a step does not change it. beside: what cancelled in it."""
        moved = torch.randn(total.shape, generator=self._generator, dtype=torch.float64)
        by: torch.Tensor = (total.abs() + beside) * (_STEP * self.unit * steps**0.5)
        lost = (total.abs() - step / self.unit).clamp(min=0.0)
        by += lost * _LOST
        return total + moved * by

    def _perturb(self, value: torch.Tensor, by: float) -> torch.Tensor:
        moved = torch.randn(value.shape, generator=self._generator, dtype=torch.float64)
        return value * (1 + by * moved)


class Precisely(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, what PyTorch computes it computes in float64, as `Widening` does.

    perturbed: as there. rounded: whether something was rounded to an 8-bit float so far. Raises
    NotEvaluable out of what is computed, also where a narrower tensor would have to be changed.
    """

    def __init__(self, *, perturbed: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._widening = Widening(perturbed=perturbed)

    @property
    def rounded(self) -> bool:
        return self._widening.rounded

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        written = [a for a, s in zip(args, func._schema.arguments, strict=False) if s.is_write]
        if any(isinstance(a, torch.Tensor) and a.dtype in _WIDENED for a in written):
            raise NotEvaluable(f"{func} writes into a tensor of {written[0].dtype}")
        return self._widening(func, func, *pytree.tree_map(widen, (args, kwargs or {})))


def widen(value: Any) -> Any:
    """A floating-point tensor in float64; any other value as it is."""
    if isinstance(value, torch.Tensor) and value.dtype in (*_WIDENED, *NARROW):
        return value.detach().to(torch.float64)
    return value


def _single(value: Any) -> Any:
    wide = isinstance(value, torch.Tensor) and value.dtype is torch.float64
    return value.float() if wide else value


def _wide_dtype(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _WIDENED else value


def unit_of(value: Any) -> float:
    """A rounding of the type of a value, or of the first of several; f32's where it has none."""
    first = next((v for v in pytree.tree_leaves(value) if isinstance(v, torch.Tensor)), None)
    return rounding(None if first is None else first.dtype)


def rounding(dtype: torch.dtype | None) -> float:
    """The relative error of one in this type; f32's where it does not round, or there is none."""
    return noise.unit(TORCH_ELEMENT_TYPES.get(str(dtype)[6:], "")) or noise.unit("f32")


def _narrow_cast(args: Any, kwargs: Any) -> bool:
    return any(leaf in NARROW for leaf in pytree.tree_leaves((args, kwargs)) if _is_dtype(leaf))


def _is_dtype(value: Any) -> bool:
    return isinstance(value, torch.dtype)
