"""Judge what a device computed against PyTorch's result, by the program's own rounding noise.

No fixed tolerance fits every program, so each output is judged against the same program evaluated
in double precision, and PyTorch's own distance from it says how much rounding the program brings
with it (`pipeline.numerics.noise` has the floor). An output passes when, over its finite elements,

    rel_l2(got, precise)  <= 4 * rel_l2(torch, precise) + floor
    excess(got, precise)  <= 4 * largest excess(torch, precise) + floor * spread,  each element

The second keeps one wrong element among a million from drowning in the first. An element's excess
is its error beyond the rounding of the output's own type, relative to the element's size plus the
output's root mean square: cancellation near zero does not count, a lost value does.

NaN and Inf must be where PyTorch or the precise reference has them. Integers and booleans are
exact, but where PyTorch's integer differs from the precise one, either will do. No limit is above
0.1 (`noise.most`): what only a wider one would pass is not judged. What agrees with a reference
that tells nothing (`pipeline.numerics.blind`) is not taken for compared, but where the program
takes empty inputs only.

Three things are right in more than one way. Which of equal values is named first: indices are right
when what they point to is equal but for rounding (`pipeline.numerics.pointing`), and what hangs on
such a choice is judged by the nearest of a few choices, or not at all (`Reference.retied`). What is
below the smallest normal number of f32 may be 0, and what comes of that (`Reference.flushed`). And
of an output that depends on random numbers only the type is judged (`Reference.incomparable`).

numpy and ml_dtypes are imported when something is compared, torch never.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from iree_pilot.pipeline import html_table
from iree_pilot.pipeline.failures.diagnostics import Failure, mismatch
from iree_pilot.pipeline.numerics import blind, noise
from iree_pilot.pipeline.numerics.judging import OutputComparison as OutputComparison
from iree_pilot.pipeline.numerics.judging import Verdict as Verdict
from iree_pilot.pipeline.numerics.judging import judge
from iree_pilot.pipeline.numerics.noise import Noise
from iree_pilot.pipeline.numerics.pairs import Pair
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Call, Tensor


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All outputs of a function; the figures are those of the worst one, number `output`.

    verdict: `mismatch` where one output differs, else `not-compared` where one could not be
    compared; `ok` only where each was compared and agrees. refuted: who computes what the device
    gives wherever it differs from what the program expects of itself, so that this is wrong.
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
    refuted: str = ""

    @property
    def ok(self) -> bool:
        return self.verdict == "ok"

    @property
    def differs(self) -> bool:
        return self.verdict == "mismatch"

    def _repr_html_(self) -> str:
        """A table for notebooks: the verdict, and that of each output."""
        outputs = ((one.label, one.summary) for one in self.outputs)
        return html_table.table([("verdict", self.verdict), ("why", self.why), *outputs])


def compare(
    outputs: tuple[Tensor, ...],
    call: Call,
    *,
    outputs_directory: Path = Path(),
    program_noise: Noise | None = None,
) -> Comparison:
    """Compares what a call returned (files in `outputs_directory`) with its function's reference.

    program_noise: the program's rounding, None for what its text shows. Raises ValueError when the
    function has no reference.
    """
    directory, function, parameters = call.directory, call.function, call.program.parameters
    reference = function.reference
    if reference is None:
        raise ValueError(f"{function.name} has no reference to compare with")
    if len(outputs) != len(reference.outputs):
        return _summary(
            (), f"the device returned {len(outputs)} outputs, PyTorch {len(reference.outputs)}"
        )
    program_noise = program_noise or noise.scan(call.mlir)
    demoted = [got.dtype for got in outputs if got.stated]
    pairs = [
        Pair(outputs_directory, got, directory, reference, index)
        for index, got in enumerate(outputs)
    ]
    rounds = [
        noise.of_output(program_noise, reference.reached[index : index + 1], demoted)
        for index in range(len(pairs))
    ]
    judged = [
        judge(pair, kind, own, reference)
        for pair, kind, own in zip(pairs, function.outputs, rounds, strict=True)
    ]
    agree = [o for o in judged if o.ok]
    values = [reference.outputs[o.index] for o in agree]
    reasons = blind.empty(values)
    inputs = function.example or ()
    # Of nothing, and where somebody says so, one number throughout is what has to come out.
    expected = reference.stated or (bool(inputs) and not any(t.bytes for t in inputs))
    if not any(reasons):
        archives = parameters.archives if parameters else ()
        drawn = parameters is not None and not any(Path(file).is_absolute() for file in archives)
        reasons = blind.reasons(values, directory, drawn=drawn, expected=expected)
    for output, why in zip(agree, reasons, strict=True):
        why = why or (blind.UNSETTLED if pairs[output.index].unsettled else "")
        judged[output.index] = _blind(output, why) if why else output
    summary = _summary(tuple(judged), "")
    computed = reference.computed
    if computed is None or not summary.differs:
        return summary
    wrong = [o.index for o in judged if o.differs]
    pairs = [Pair(outputs_directory, outputs[at], directory, computed, at) for at in wrong]
    again = [
        judge(pair, function.outputs[pair.index], rounds[pair.index], computed) for pair in pairs
    ]
    if not all(output.ok for output in again):
        return summary
    why = f"{summary.why}; the device agrees with {computed.evaluator}: the expectation is wrong"
    return msgspec.structs.replace(summary, why=why, refuted=computed.evaluator)


def _blind(output: OutputComparison, why: str) -> OutputComparison:
    """An output that agrees with a reference that tells nothing."""
    how = "within the tolerance" if output.max_abs else "exactly"
    return msgspec.structs.replace(
        output, verdict="not-compared", why=f"{_AGREES} {how}, but {why}"
    )


def excused(comparison: Comparison, why: str) -> Comparison:
    """A comparison in which what differs is not the program's failure, and why."""
    outputs = tuple(
        msgspec.structs.replace(o, verdict="not-compared", why=f"{_AGREES} {why}")
        if o.differs
        else o
        for o in comparison.outputs
    )
    return _summary(outputs, "")


#: Kind of mismatch that does not show in the whole program's outputs.
HIDDEN = "hidden"
#: Kind of mismatch if the program does not compute what it expects itself.
EXPECTATION = "expectation"
_AGREES = "agrees"


def agrees(output: OutputComparison) -> bool:
    """True if an output agrees with its reference, even if that proves nothing."""
    return output.ok or output.why.startswith(_AGREES)


def hides(comparison: Comparison) -> bool:
    """True if wrong numbers inside of the program would not show: what it returns depends on random
    numbers, on a choice among equal values, or on more rounding than the reference can judge."""
    return any(
        output.verdict == "not-compared" and not agrees(output) for output in comparison.outputs
    )


def hidden(comparison: Comparison) -> Failure:
    """The failure to isolate in a program that hides wrong numbers: a wrong operation."""
    return mismatch(f"wrong numbers that do not show: {comparison.why}", what=HIDDEN)


def to_failure(comparison: Comparison) -> Failure:
    """A comparison that differs as a failure of kind `mismatch`.

    Its signature says in which way the worst output differs; how far changes with shapes.
    """
    if comparison.refuted:
        return mismatch(comparison.why, what=EXPECTATION)
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


def _summary(outputs: tuple[OutputComparison, ...], why: str) -> Comparison:
    def badness(o: OutputComparison) -> tuple[bool, bool, int, float]:
        ratio = o.rel_l2 / o.tolerance if o.tolerance else o.rel_l2
        return o.differs, not o.ok, o.mismatched, ratio

    worst = max(outputs, key=badness, default=None)
    verdict: Verdict = "mismatch" if why else worst.verdict if worst else "not-compared"
    if worst is None and not why:
        why = "it returns nothing that could be compared"
    if worst is not None and worst.differs:
        wrong = sum(o.differs for o in outputs)
        others = (
            f" (the worst of {wrong} wrong ones of {len(outputs)} outputs)" if wrong > 1 else ""
        )
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
    shape = "x".join(map(str, output.shape)) or "a number"
    return f"output {output.index} ({output.label}, {shape})"


def _not_compared(outputs: tuple[OutputComparison, ...]) -> str:
    """Outputs that were not compared, with the reasons, and that the others agree."""
    reasons: dict[str, list[OutputComparison]] = {}
    for output in outputs:
        if not output.ok:
            reasons.setdefault(output.why, []).append(output)
    left = sum(o.ok for o in outputs)
    if not left and len(reasons) == 1:
        return next(iter(reasons))
    parts = [
        f"{_named(same[0])}{f' and {len(same) - 1} more' if len(same) > 1 else ''}: {why}"
        for why, same in reasons.items()
    ]
    if left:
        parts.append("the other output agrees" if left == 1 else f"the other {left} outputs agree")
    return "; ".join(parts)
