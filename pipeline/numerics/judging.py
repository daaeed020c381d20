"""The verdict on one output: see `pipeline.numerics.numerics` for the rules.

numpy is imported when something is judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from iree_pilot.pipeline.numerics import noise, pointing
from iree_pilot.pipeline.numerics.deviations import Piece, measured
from iree_pilot.pipeline.numerics.noise import IMPRECISE, Noise, NoiseLimits, Spread
from iree_pilot.pipeline.numerics.pairs import Pair
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Indexed, Reference, TensorType

Verdict = Literal["ok", "mismatch", "not-compared"]

#: Of indices that may be others, not numbers that were compared.
POINTING = "are right where they point to equal values"
#: Of integers that are not those of PyTorch.
TIPPED = "are others, as roundings before them make them"


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
    finite in both. path: as in `TensorType`.
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
    path: str = ""

    @property
    def label(self) -> str:
        """The name for people."""
        return self.path or self.name

    @property
    def summary(self) -> str:
        """The verdict and its reason, or else the error, on one line."""
        return f"{self.verdict}: {self.why or f'relative L2 {self.rel_l2:.2e} ({self.limit})'}"

    @property
    def limit(self) -> str:
        """The tolerance, with the reason if it is a wide one."""
        why = f", {IMPRECISE}" if self.basis.endswith(IMPRECISE) else ""
        return f"tolerance {self.tolerance:.1e}{why}"

    @property
    def ok(self) -> bool:
        return self.verdict == "ok"

    @property
    def differs(self) -> bool:
        return self.verdict == "mismatch"


def judge(pair: Pair, kind: TensorType, program: Noise, reference: Reference) -> OutputComparison:
    """The verdict on an output of the function whose reference this is."""
    common: dict[str, Any] = {
        "index": pair.index,
        "name": kind.name,
        "path": kind.path,
        "dtype": pair.dtype,
        "shape": pair.type.shape,
    }
    if not pair.fits and pair.type.file:
        return OutputComparison(
            **common,
            verdict="mismatch",
            why=f"it is {pair.got_type} where {pair.type} is expected",
            compared=False,
            mismatched=pair.elements,
        )
    if why := reference.why_not(pair.index):
        return OutputComparison(**common, verdict="not-compared", why=why)
    if pair.family in ("int", "bool"):
        return _exact(pair, common, program, reference)
    judged = _rounded(pair, common, program)
    if judged.differs and _explained(pair, common, program):
        return msgspec.structs.replace(
            judged,
            verdict="not-compared",
            why=f"the reference cannot judge: roundings before it explain it ({judged.why})",
        )
    if not judged.differs or not pair.retied:
        return judged
    forgiven = _rounded(pair, common, program, forgiving=True)
    tied = sum(int(piece.tied.sum()) for piece in pair.pieces())
    # What one choice moved comes instead of what another one moved.
    excused = judged.mismatched - forgiven.mismatched
    if forgiven.differs and not 0 < forgiven.mismatched <= excused:
        return forgiven if tied else judged
    return msgspec.structs.replace(
        judged, verdict="not-compared", why=_depends(tied, pair.elements, reference)
    )


def _explained(pair: Pair, common: dict[str, Any], program: Noise) -> bool:
    """True if roundings before an output explain its error."""
    return bool(pair.jittered) and not _rounded(pair, common, program, excusing=True).differs


def _depends(tied: int, elements: int, reference: Reference) -> str:
    chosen = " or ".join(reference.ties)
    return (
        f"{tied} of {elements} elements depend on which of equal values {chosen} names first, "
        "and it differs there"
    )


def _exact(
    pair: Pair, common: dict[str, Any], program: Noise, reference: Reference
) -> OutputComparison:
    import numpy as np

    indexed = next((i for i in reference.indexed if i.output == pair.index), None)
    wrong, tied, unlike, tipped = 0, 0, 0, 0
    worst, max_abs, squares, norm = None, 0.0, 0.0, 0.0
    pointing_wrong = _pointing_wrong(pair, indexed, program)
    for start, got, own, others, between, depends in pair.integers():
        differs = got != own
        tipped += int((differs & between).sum())
        differs &= ~between
        if pointing_wrong is not None:
            differs &= pointing_wrong[start : start + differs.size]
        for other in others if indexed is None else ():
            differs &= got != other
        if indexed is not None and not indexed.tied:
            depends = np.zeros(own.shape, bool)
        where = np.flatnonzero(differs)
        wide = own.astype(np.float64)
        norm += float(np.square(wide).sum())
        tied += int(depends.sum())
        if not where.size:
            continue
        wrong += where.size
        unlike += int((~depends[where]).sum())
        error = np.abs(got[where].astype(np.float64) - wide[where])
        squares += float(np.square(error).sum())
        if float(error.max()) > max_abs or worst is None:
            at = int(where[error.argmax()])
            max_abs = float(error.max())
            worst = Worst(
                index=tensors.place(pair.type, start + at), got=str(got[at]), expected=str(own[at])
            )
    root = math.sqrt(norm / pair.elements) if norm else 1.0
    verdict: Verdict = "mismatch" if wrong else "ok"
    why = f"{wrong} of {pair.elements} elements differ, worst {worst}" if wrong else ""
    if wrong and tied and unlike <= tied:
        verdict, why = "not-compared", _depends(tied, pair.elements, reference)
    basis = "integers and booleans are exact"
    if tipped:
        basis = f"{tipped} of {pair.elements} integers {TIPPED}"
    if indexed is not None:
        basis = f"indices of {indexed.operation} {POINTING}"
    return OutputComparison(
        **common,
        verdict=verdict,
        why=why,
        max_abs=max_abs,
        max_rel=max_abs / root,
        rel_l2=math.sqrt(squares / norm) if norm else math.sqrt(squares),
        mismatched=wrong,
        worst=worst,
        basis=basis,
    )


def _pointing_wrong(pair: Pair, indexed: Indexed | None, program: Noise) -> Any:
    """Elements of an output that point to a wrong value; None if it is not an index."""
    if indexed is None or not pair.elements:
        return None
    got, own = pair.whole()
    return pointing.wrong(indexed, pair.directory, got, own, program)


def own_errors(reference: Reference, directory: Path) -> tuple[tuple[float, float], ...]:
    """Errors of each output against its precise one: relative L2, and the largest of an element."""
    found = []
    for index, own in enumerate(reference.outputs):
        pair = Pair(directory, own, directory, reference, index)
        if pair.family in ("int", "bool"):  # they are exact
            found.append((0.0, 0.0))
            continue
        if pair.precise is None:
            return ()
        sums, extremes = measured(pair.pieces, pair.type.dtype)
        found.append((sums.relative(sums.own_error), extremes.own_excess))
    return tuple(found)


def _rounded(
    pair: Pair,
    common: dict[str, Any],
    program: Noise,
    *,
    forgiving: bool = False,
    excusing: bool = False,
) -> OutputComparison:
    """forgiving, excusing: as in `Pair.pieces`."""

    def pieces() -> Iterator[Piece]:
        return pair.pieces(forgiving=forgiving, excusing=excusing)

    sums, extremes = measured(pieces, pair.dtype)
    rel_l2 = sums.relative(sums.error)
    own_error, own_excess = pair.own_errors or (None, 0.0)
    if pair.precise is not None:
        own_error, own_excess = sums.relative(sums.own_error), extremes.own_excess
    moved = (
        None
        if pair.perturbed is None
        else Spread(rel_l2=sums.relative(sums.perturbed_error), excess=extremes.perturbed_excess)
    )
    limits = noise.limits(pair.dtype, sums.elements, program, own_error, own_excess, moved)
    wrong = 0
    if extremes.excess > limits.excess:
        wrong = sum(extremes.over(piece, limits.excess) for piece in pieces())

    worst = _shown(pair, sums.first or extremes.worst)
    why = ""
    if sums.misplaced:
        why = f"{sums.misplaced} of {sums.elements} elements are NaN, Inf or finite where the "
        why += f"reference is not, first {worst}"
    elif wrong:
        why = f"{wrong} of {sums.elements} elements are wrong, worst {worst}"
    elif rel_l2 > limits.rel_l2:
        why = f"relative L2 error {rel_l2:.3g} over the limit {limits.rel_l2:.3g}, worst {worst}"
    measures = math.isfinite(sums.reference + limits.rel_l2 + limits.excess)
    if not sums.misplaced and (math.isnan(rel_l2) or not measures):
        why = "its numbers are so large that the sum of their squares is not finite"
        return OutputComparison(**common, verdict="not-compared", why=why)
    verdict: Verdict = "mismatch" if why else "ok"
    capped = NoiseLimits(
        rel_l2=min(limits.rel_l2, noise.MOST),
        excess=min(limits.excess, noise.most(program, pair.dtype)),
        basis=limits.basis,
    )
    if not why and (rel_l2 > capped.rel_l2 or extremes.excess > capped.excess):
        verdict = "not-compared"
        why = (
            f"the reference cannot judge: relative L2 error {rel_l2:.3g}, of an element "
            f"{extremes.excess:.3g}, where {limits.basis} would allow {limits.rel_l2:.3g} and "
            f"{limits.excess:.3g}"
        )
    return OutputComparison(
        **common,
        verdict=verdict,
        why=why,
        max_abs=extremes.max_abs,
        max_rel=extremes.max_rel,
        rel_l2=rel_l2,
        tolerance=capped.rel_l2,
        excess=extremes.excess,
        element_tolerance=capped.excess,
        reference_error=own_error,
        nan=sums.nan,
        inf=sums.inf,
        reference_nan=sums.own_nan,
        reference_inf=sums.own_inf,
        mismatched=sums.misplaced + wrong,
        worst=worst,
        basis=limits.basis,
    )


def _shown(pair: Pair, element: tuple[int, float, float] | None) -> Worst | None:
    if element is None:
        return None
    position, got, expected = element
    index = tensors.place(pair.type, position)
    if pair.dtype in ("f64", "complex<f64>"):  # what differs shows in all of its digits only
        return Worst(index=index, got=repr(got), expected=repr(expected))
    return Worst(index=index, got=f"{got:.9g}", expected=f"{expected:.9g}")
