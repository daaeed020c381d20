"""Judge what a device computed against PyTorch's result, by the program's own rounding noise.

No fixed tolerance fits every program, so each output is judged against the same program evaluated
in double precision, and PyTorch's own distance from it says how much rounding the program brings
with it (`pipeline.noise` has the floor). An output passes when, over its finite elements,

    rel_l2(got, precise)  <= 4 * rel_l2(torch, precise) + floor
    excess(got, precise)  <= 4 * largest excess(torch, precise) + floor * spread,  each element

The second keeps one wrong element among a million from drowning in the first. An element's excess
is its error beyond the rounding of the output's own type, relative to the element's size plus the
output's root mean square: cancellation near zero does not count, a lost value does.

NaN and Inf must be where PyTorch or the precise reference has them. Integers and booleans are
exact, but where PyTorch's integer differs from the precise one, either will do. What agrees with a
reference that tells nothing (`pipeline.blind`) is not taken for compared, but where the program
takes empty inputs only. Of an output that depends on random numbers only the type is judged
(`Reference.incomparable`).

numpy and ml_dtypes are imported when something is compared, torch never.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline import blind, noise, tensors
from pipeline.deviations import Extremes, Piece, Sums
from pipeline.diagnostics import Failure, mismatch
from pipeline.noise import Noise, Spread
from pipeline.program import ELEMENT_TYPES, Function, Program, Reference, Tensor

Verdict = Literal["ok", "mismatch", "not-compared"]


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """The element that is farthest off: its index, what the device gave, what was expected."""

    index: tuple[int, ...]
    got: str
    expected: str

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.index))}]: {self.got} where {self.expected} is expected"


class OutputComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One output against its reference. verdict `not-compared`: `why` says why nothing is known.

    dtype, shape: the reference's. compared: whether the device's were the same. max_abs: largest
    absolute error. max_rel: largest error relative to the element's size plus the output's root
    mean square. rel_l2: norm of the error over the norm of the reference (absolute where that is
    all zero), and tolerance its limit; excess: the largest of an element, and element_tolerance
    its limit (both as `noise.Limits` has them).
    reference_error: PyTorch's own rel_l2 against the precise reference, None where there is none.
    nan, inf: how many the device returned, and the reference has. mismatched: elements that are
    wrong by themselves. basis: what the tolerance rests on. Errors are over elements that are
    finite in both.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    verdict: Verdict
    why: str = ""
    compared: bool = True
    max_abs: float = 0.0
    max_rel: float = 0.0
    rel_l2: float = 0.0
    tolerance: float = 0.0
    excess: float = 0.0
    element_tolerance: float = 0.0
    reference_error: float | None = None
    nan: int = 0
    inf: int = 0
    reference_nan: int = 0
    reference_inf: int = 0
    mismatched: int = 0
    worst: Worst | None = None
    basis: str = ""

    @property
    def ok(self) -> bool:
        return self.verdict == "ok"

    @property
    def differs(self) -> bool:
        return self.verdict == "mismatch"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All outputs of a function; the figures are those of the worst one, number `output`.

    verdict: `mismatch` where one output differs, else `not-compared` where one could not be
    compared; `ok` only where each was compared and agrees.
    """

    verdict: Verdict
    why: str
    output: int | None
    max_abs: float
    max_rel: float
    rel_l2: float
    tolerance: float
    nan: int
    inf: int
    outputs: tuple[OutputComparison, ...]

    @property
    def ok(self) -> bool:
        return self.verdict == "ok"

    @property
    def differs(self) -> bool:
        return self.verdict == "mismatch"


def compare(
    outputs: tuple[Tensor, ...],
    program: Program,
    function: Function,
    *,
    directory: Path,
    outputs_directory: Path,
    program_noise: Noise | None = None,
) -> Comparison:
    """Compares `outputs` (files in `outputs_directory`) with the function's reference.

    `directory` is the program's; program_noise: its rounding, None for what its text shows.
    Raises ValueError when the function has no reference.
    """
    reference = function.reference
    if reference is None:
        raise ValueError(f"{function.name} has no reference to compare with")
    if len(outputs) != len(reference.outputs):
        return _summary(
            (), f"the device returned {len(outputs)} outputs, PyTorch {len(reference.outputs)}"
        )
    program_noise = program_noise or noise.scan(directory / program.mlir)
    judged = []
    for index, got in enumerate(outputs):
        pair = _Pair(outputs_directory, got, directory, reference, index)
        name = function.outputs[index].name
        judged.append(_judge(pair, name, program_noise, reference.why_not(index)))
    inputs = function.example or ()
    if not inputs or any(t.bytes for t in inputs):
        agree = [o for o in judged if o.ok]
        reasons = blind.reasons([reference.outputs[o.index] for o in agree], directory)
        for output, why in zip(agree, reasons, strict=True):
            judged[output.index] = _blind(output, why) if why else output
    return _summary(tuple(judged), "")


def _blind(output: OutputComparison, why: str) -> OutputComparison:
    """An output that agrees with a reference that tells nothing."""
    how = "within the tolerance" if output.max_abs else "exactly"
    return msgspec.structs.replace(output, verdict="not-compared", why=f"agrees {how}, but {why}")


def to_failure(comparison: Comparison) -> Failure:
    """A comparison that differs as a failure of kind `mismatch`.

    Its signature says in which way the worst output differs; how far changes with shapes.
    """
    worst = None if comparison.output is None else comparison.outputs[comparison.output]
    return mismatched(worst, comparison.why)


def mismatched(output: OutputComparison | None, message: str) -> Failure:
    """A failure of kind `mismatch` in the way that `output` differs (None: in their number)."""
    return mismatch(message, what=_manner(output) if output else "outputs")


def _manner(output: OutputComparison) -> str:
    if not output.compared:
        return "type"
    if output.dtype == "i1":
        return "booleans"
    if ELEMENT_TYPES[output.dtype].family == "int":
        return "integers"
    if output.nan > output.reference_nan:
        return "nan"
    return "inf" if output.inf > output.reference_inf else "values"


class _Pair:
    """One output and its references on disk, read in pieces (see `pipeline.tensors`)."""

    def __init__(
        self, got_in: Path, got: Tensor, directory: Path, reference: Reference, index: int
    ) -> None:
        self.index = index
        self.got_type = got
        self.type = reference.outputs[index]
        self.family = ELEMENT_TYPES[self.type.dtype].family
        self.got_file = got_in / got.file
        self.own_file = directory / self.type.file
        precise = reference.precise[index] if reference.precise else None
        wider = precise is not None and (
            self.family in ("int", "bool")
            or noise.unit(precise.dtype) < noise.unit(self.type.dtype)
        )
        self.precise = precise if wider else None
        self.perturbed = reference.perturbed[index] if wider and reference.perturbed else None
        self.directory = directory

    @property
    def fits(self) -> bool:
        return (self.got_type.dtype, self.got_type.shape) == (self.type.dtype, self.type.shape)

    def pieces(self) -> Iterator[Piece]:
        for start in range(0, tensors.length(self.type), tensors.PIECE):
            yield Piece(
                start,
                tensors.read(self.got_file, self.got_type, start),
                tensors.read(self.own_file, self.type, start),
                self._read(self.precise, start),
                self._read(self.perturbed, start),
            )

    def _read(self, tensor: Tensor | None, start: int) -> Any:
        if tensor is None:
            return None
        return tensors.read(self.directory / tensor.file, tensor, start)


def _judge(pair: _Pair, name: str, program: Noise, why_not: str) -> OutputComparison:
    common: dict[str, Any] = {
        "index": pair.index,
        "name": name,
        "dtype": pair.type.dtype,
        "shape": pair.type.shape,
    }
    if not pair.fits and pair.type.file:
        return OutputComparison(
            **common,
            verdict="mismatch",
            why=f"it is {pair.got_type} where {pair.type} is expected",
            compared=False,
            mismatched=math.prod(pair.type.shape),
        )
    if why_not:
        return OutputComparison(**common, verdict="not-compared", why=why_not)
    judge = _exact if pair.family in ("int", "bool") else _rounded
    return judge(pair, common, program)


def _exact(pair: _Pair, common: dict[str, Any], _program: Noise) -> OutputComparison:
    import numpy as np

    wrong, worst, max_abs, squares, norm = 0, None, 0.0, 0.0, 0.0
    for start, got, own, precise, _ in pair.pieces():
        differs = got != own
        if precise is not None:
            differs &= got != precise
        where = np.flatnonzero(differs)
        wide = own.astype(np.float64)
        norm += float(np.square(wide).sum())
        if not where.size:
            continue
        wrong += where.size
        error = np.abs(got[where].astype(np.float64) - wide[where])
        squares += float(np.square(error).sum())
        if float(error.max()) > max_abs or worst is None:
            at = int(where[error.argmax()])
            max_abs = float(error.max())
            worst = Worst(
                index=tensors.place(pair.type, start + at), got=str(got[at]), expected=str(own[at])
            )
    count = math.prod(pair.type.shape)
    root = math.sqrt(norm / count) if norm else 1.0
    why = f"{wrong} of {count} elements differ, worst {worst}" if wrong else ""
    return OutputComparison(
        **common,
        verdict="mismatch" if wrong else "ok",
        why=why,
        max_abs=max_abs,
        max_rel=max_abs / root,
        rel_l2=math.sqrt(squares / norm) if norm else math.sqrt(squares),
        mismatched=wrong,
        worst=worst,
        basis="integers and booleans are exact",
    )


def _rounded(pair: _Pair, common: dict[str, Any], program: Noise) -> OutputComparison:
    sums = Sums()
    for piece in pair.pieces():
        sums.add(piece)
    extremes = Extremes(pair.type.dtype, sums.root_mean_square)
    for piece in pair.pieces():
        extremes.add(piece)
    rel_l2 = sums.relative(sums.error)
    own_error = None if pair.precise is None else sums.relative(sums.own_error)
    moved = (
        None
        if pair.perturbed is None
        else Spread(rel_l2=sums.relative(sums.perturbed_error), excess=extremes.perturbed_excess)
    )
    limits = noise.limits(
        pair.type.dtype, sums.elements, program, own_error, extremes.own_excess, moved
    )
    wrong = 0
    if extremes.excess > limits.excess:
        wrong = sum(extremes.over(piece, limits.excess) for piece in pair.pieces())

    worst = _shown(pair, sums.first or extremes.worst)
    why = ""
    if sums.misplaced:
        why = f"{sums.misplaced} of {sums.elements} elements are NaN, Inf or finite where the "
        why += f"reference is not, first {worst}"
    elif wrong:
        why = f"{wrong} of {sums.elements} elements are wrong, worst {worst}"
    elif rel_l2 > limits.rel_l2:
        why = f"relative L2 error {rel_l2:.3g} over the limit {limits.rel_l2:.3g}, worst {worst}"
    return OutputComparison(
        **common,
        verdict="mismatch" if why else "ok",
        why=why,
        max_abs=extremes.max_abs,
        max_rel=extremes.max_rel,
        rel_l2=rel_l2,
        tolerance=limits.rel_l2,
        excess=extremes.excess,
        element_tolerance=limits.excess,
        reference_error=own_error,
        nan=sums.nan,
        inf=sums.inf,
        reference_nan=sums.own_nan,
        reference_inf=sums.own_inf,
        mismatched=sums.misplaced + wrong,
        worst=worst,
        basis=limits.basis,
    )


def _shown(pair: _Pair, element: tuple[int, float, float] | None) -> Worst | None:
    if element is None:
        return None
    position, got, expected = element
    index = tensors.place(pair.type, position)
    return Worst(index=index, got=f"{got:.9g}", expected=f"{expected:.9g}")


def _summary(outputs: tuple[OutputComparison, ...], why: str) -> Comparison:
    def badness(o: OutputComparison) -> tuple[bool, bool, int, float]:
        ratio = o.rel_l2 / o.tolerance if o.tolerance else o.rel_l2
        return o.differs, not o.ok, o.mismatched, ratio

    worst = max(outputs, key=badness, default=None)
    verdict: Verdict = "mismatch" if why else worst.verdict if worst else "ok"
    if worst is not None and worst.differs:
        wrong = sum(o.differs for o in outputs)
        others = f" ({wrong} of {len(outputs)} outputs are wrong)" if wrong > 1 else ""
        why = f"{_named(worst)}: {worst.why}{others}"
    elif worst is not None and not worst.ok:
        why = _not_compared(outputs)
    return Comparison(
        verdict=verdict,
        why=why,
        output=worst.index if worst is not None else None,
        max_abs=worst.max_abs if worst is not None else 0.0,
        max_rel=worst.max_rel if worst is not None else 0.0,
        rel_l2=worst.rel_l2 if worst is not None else 0.0,
        tolerance=worst.tolerance if worst is not None else 0.0,
        nan=worst.nan if worst is not None else 0,
        inf=worst.inf if worst is not None else 0,
        outputs=outputs,
    )


def _named(output: OutputComparison) -> str:
    return f"output {output.index} ({output.name}, {'x'.join(map(str, output.shape))})"


def _not_compared(outputs: tuple[OutputComparison, ...]) -> str:
    """Which outputs were not compared and why, and that the others agree."""
    reasons: dict[str, list[OutputComparison]] = {}
    for output in outputs:
        if not output.ok:
            reasons.setdefault(output.why, []).append(output)
    left = sum(o.ok for o in outputs)
    if not left and len(reasons) == 1:
        return next(iter(reasons))
    told = [
        f"{_named(same[0])}{f' and {len(same) - 1} more' if len(same) > 1 else ''}: {why}"
        for why, same in reasons.items()
    ]
    if left:
        told.append("the other output agrees" if left == 1 else f"the other {left} outputs agree")
    return "; ".join(told)
