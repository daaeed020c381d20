"""Operations that choose among values by their size: what they point to, and what ties change.

Sort, top-k and their like name one of equal values; which, nobody promises. Of argmax, argmin and
the maximum or minimum along a dimension PyTorch promises the first, of a stable sort the order:
that has to come out where the values are given, so the same on each device.

A program is evaluated in its own types first and in double precision then, which shows what
rounding makes equal; if something is, it is evaluated again with the ties broken otherwise.
Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch

from iree_pilot.pipeline.frontends.reference.conversions import Roundings
from iree_pilot.pipeline.numerics import noise
from iree_pilot.pipeline.program import torch_tensors
from iree_pilot.pipeline.program.program import TORCH_ELEMENT_TYPES, Indexed
from iree_pilot.pipeline.program.torch_tensors import TensorFiles

Way = Literal["first", "last", "shuffled"]
WAYS: tuple[Way, ...] = ("first", "last", "shuffled")

#: The result that is the indices, and the one that is the values there; None: not returned.
_CHOOSING: dict[str, tuple[int, int | None]] = {
    "aten::topk": (1, 0),
    "aten::sort": (1, 0),
    "aten::argsort": (0, None),
    "aten::argmax": (0, None),
    "aten::argmin": (0, None),
    "aten::max.dim": (1, 0),
    "aten::min.dim": (1, 0),
    "aten::kthvalue": (1, 0),
    "aten::median.dim": (1, 0),
    "aten::nanmedian.dim": (1, 0),
    "aten::mode": (1, 0),
    "aten::cummax": (1, 0),
    "aten::cummin": (1, 0),
}
_OF_DIM = ("aten::max", "aten::min", "aten::median", "aten::nanmedian")
#: Choose the first of equal values, as PyTorch's documentation of each says.
_FIRST = ("aten::argmax", "aten::argmin", "aten::max.dim", "aten::min.dim")
#: Keep the order of equal values if they are `stable`.
_SORTS = ("aten::sort", "aten::argsort")
#: Counts equal values, so that they must stay equal.
_COUNTS = "aten::mode"
#: Operators that only move elements, by name; the first operand is what they move.
_MOVED_BY = """
    view _unsafe_view reshape permute transpose t unsqueeze squeeze expand slice select alias clone
    detach contiguous flip narrow flatten movedim numpy_T lift_fresh_copy
"""
_MOVES = frozenset(f"aten::{name}" for name in _MOVED_BY.split())
#: Operators that change only the type of the elements.
_CASTS = ("aten::_to_copy", "aten::to", "prims::convert_element_type")
#: Two values that lie so many roundings of their type apart, relatively, may be one.
_ROUNDINGS = 8
#: Smaller distance, for values that are given and not computed.
_GIVEN = 2.0**-30


class Pointing(NamedTuple):
    """Target of the elements of an index tensor: see `pipeline.program.program.Indexed`.

    number: of the operation that chose, among those of an evaluation that do.
    """

    operation: str
    number: int
    rows: torch.Tensor
    values: torch.Tensor
    exact: bool


class OperatorCall(NamedTuple):
    """A call of an operator; run carries it out with other arguments too."""

    target: Any
    run: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Any

    def results(self, values: torch.Tensor | None = None) -> Any:
        """Results for other values in place of the first operand."""
        args = self.args if values is None else (values, *self.args[1:])
        return self.run(*args, **self.kwargs)

    @property
    def name(self) -> str:
        """Name in the operator's schema, with the overload if that makes another operator."""
        schema = self.target._schema
        of_dim = schema.name in _OF_DIM and schema.overload_name == "dim"
        return f"{schema.name}.dim" if of_dim else str(schema.name)

    @property
    def promised(self) -> bool:
        """True if PyTorch's documentation says which of equal values it names."""
        return self.name in _FIRST or (self.name in _SORTS and bool(self.given("stable")))

    def given(self, name: str) -> Any:
        """The argument of this name."""
        for position, declared in enumerate(self.target._schema.arguments):
            if declared.name == name:
                if position < len(self.args):
                    return self.args[position]
                default = declared.default_value if declared.has_default_value() else None
                return self.kwargs.get(name, default)
        return None


class Choices:
    """Follows choices through evaluations of one program: in its own types, then in float64, then
    in float64 with ties broken in a way of one's own.

    ties: the operations that had any in float64. roundings: what is rounded is followed, too.
    """

    def __init__(self) -> None:
        self.ties: list[str] = []
        self.roundings = Roundings()
        self._own: list[torch.Tensor] = []
        self._precise: list[torch.Tensor] = []
        self._changed: set[int] = set()
        self._wide, self._met = False, 0
        self._way: Way | None = None
        self._tilt = 0

    def start(self, *, wide: bool, way: Way | None = None, tilt: int = 0) -> None:
        """Begins an evaluation. way: how ties are broken in it, None: as PyTorch does. tilt: see
        `Roundings`."""
        self._wide, self._way, self._tilt, self._met = wide, way, tilt, 0
        self.roundings.start(wide=wide, tilt=tilt)

    def changed(self, pointing: Pointing) -> bool:
        """True if ties change the values that are pointed to."""
        return pointing.number in self._changed

    def carried_out(self, call: OperatorCall, *, given: bool) -> tuple[Any, dict[int, Pointing]]:
        """(results of a call, the targets of those that are indices).

        given: its first operand is not computed by the program.
        """
        if not chooses(call):
            if self._way is not None:
                return call.results(), {}
            run, args = call.run, call.args
            return self.roundings.carried_out(call.target, run, args, call.kwargs), {}
        if self._tilt or (given and call.promised):
            return call.results(), {}
        at, _ = _CHOOSING[call.name]
        values, number = call.args[0], self._met
        self._met += 1
        exact = given or not values.is_floating_point()
        results = call.results()
        if not self._wide:
            self._own.append(values)
        elif self._way is None:
            self._precise.append(values)
            indices = _nth(results, at)
            others = (self._otherwise(call, exact, way, number) for way in WAYS[:2])
            if any(not torch.equal(indices, _nth(other, at)) for other in others):
                self.ties.append(call.name.replace("::", "."))
        else:
            if number >= len(self._precise) or not _equal(values, self._precise[number]):
                self._changed.add(number)
            results = self._otherwise(call, exact, self._way, number)
        held, rows = _rows(values, call.given("dim"), _nth(results, at))
        return results, {at: Pointing(call.name.replace("::", "."), number, rows, held, exact)}

    def _otherwise(self, call: OperatorCall, exact: bool, way: Way, number: int) -> Any:
        """The results where values that may be equal are told apart by their places."""
        if call.name == _COUNTS:
            return call.results()
        values, dim = call.args[0], call.given("dim")
        flat = values.reshape(-1) if dim is None else values
        axis = 0 if dim is None else dim
        near = _GIVEN if exact else self._near(values, number)
        apart = _apart(flat, axis, near, way).reshape(values.shape)
        at, held = _CHOOSING[call.name]
        results = call.results(apart)
        if held is None:
            return results
        indices = _nth(results, at)
        kept = indices if indices.dim() == values.dim() else indices.unsqueeze(axis)
        taken = values.gather(axis, kept).reshape(indices.shape)
        return [taken if place == held else indices for place in range(2)]

    def _near(self, values: torch.Tensor, number: int) -> float:
        """Largest relative distance of values that rounding may make equal."""
        if number >= len(self._own) or self._own[number].shape != values.shape:
            return _ROUNDINGS * noise.unit("f32")
        own = self._own[number]
        dtype = TORCH_ELEMENT_TYPES[str(own.dtype).removeprefix("torch.")]
        error = (own.to(values.dtype) - values).abs() / _size(values)
        worst = float(error.nan_to_num(0.0, 0.0, 0.0).max()) if error.numel() else 0.0
        return min(max(_ROUNDINGS * noise.unit(dtype), noise.FACTOR * worst), noise.MOST)


def chooses(call: OperatorCall) -> bool:
    """True if a call names places of values by their size."""
    if not hasattr(call.target, "_schema") or call.name not in _CHOOSING:
        return False
    values = call.args[0]
    return isinstance(values, torch.Tensor) and bool(values.dim())


def moves(target: Any) -> bool:
    """True if an operator only moves the elements of its first operand."""
    return getattr(getattr(target, "_schema", None), "name", "") in _MOVES


def passed_on(call: OperatorCall, pointing: Pointing | None) -> Pointing | None:
    """Pointing of the result of a call, given that of its first operand; None if it has none."""
    name = getattr(getattr(call.target, "_schema", None), "name", "")
    if pointing is None or any(isinstance(a, torch.Tensor) for a in call.args[1:]):
        return None
    if name in _CASTS:
        return pointing
    return pointing._replace(rows=call.results(pointing.rows)) if name in _MOVES else None


def save(
    output: int, pair: tuple[Pointing, Pointing], files: TensorFiles, *, tied: bool
) -> Indexed:
    """Writes what an output points to, in its own types and in float64, to files."""
    own, precise = pair
    directory, stem = files.directory, f"{files.stem}{output}"
    wide = precise.values if precise.values.is_floating_point() else None
    return Indexed(
        output=output,
        operation=own.operation,
        values=torch_tensors.save(own.values, directory, f"{stem}.values.bin"),
        rows=torch_tensors.save(own.rows, directory, f"{stem}.rows.bin"),
        precise=None if wide is None else torch_tensors.save(wide, directory, f"{stem}.wide.bin"),
        exact=own.exact,
        tied=tied,
    )


def _equal(values: torch.Tensor, others: torch.Tensor) -> bool:
    """True if all elements are equal, or both NaN."""
    if values.shape != others.shape:
        return False
    return bool(((values == others) | ((values != values) & (others != others))).all())


def _nth(results: Any, place: int) -> torch.Tensor:
    found: torch.Tensor = results[place] if isinstance(results, tuple | list) else results
    return found


def _rows(
    values: torch.Tensor, dim: int | None, indices: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the values with the axis last that is pointed along, where each index's row begins)."""
    if dim is None:
        return values.reshape(-1), torch.zeros(indices.shape, dtype=torch.int64)
    held = values.movedim(dim, -1).contiguous()
    length = held.shape[-1]
    begins = torch.arange(held[..., 0].numel() if length else 0, dtype=torch.int64) * length
    begins = begins.reshape(held.shape[:-1])
    if indices.dim() == values.dim():
        return held, begins.unsqueeze(dim).expand(indices.shape).contiguous()
    return held, begins


def _size(values: torch.Tensor) -> torch.Tensor:
    """Each element's size plus the root mean square, of what is finite."""
    size = values.abs().nan_to_num(0.0, 0.0, 0.0)
    root = size.square().mean().sqrt() if size.numel() else size.new_zeros(())
    return size + torch.where(root > 0, root, 1.0)


def _apart(values: torch.Tensor, dim: int, near: float, way: Way) -> torch.Tensor:
    """The values in float64, those that lie near each other told apart by their places."""
    wide = values.to(torch.float64)
    length = wide.shape[dim]
    if way == "shuffled":
        generator = torch.Generator().manual_seed(0)
        ramp = torch.rand(wide.shape, generator=generator, dtype=torch.float64) * 2 - 1
    else:
        ramp = torch.linspace(-1, 1, length, dtype=torch.float64)
        shape = [length if axis == dim % wide.dim() else 1 for axis in range(wide.dim())]
        ramp = (-ramp if way == "first" else ramp).reshape(shape)
    if not values.is_floating_point():
        return wide + ramp / 4
    finite = wide.masked_fill(~wide.isfinite(), 0.0)
    beyond = 2 * finite.abs().max() + 1 if finite.numel() else 1.0
    held = torch.where(wide.isinf(), wide.sign() * beyond, wide)
    return held + near * _size(wide) * ramp
