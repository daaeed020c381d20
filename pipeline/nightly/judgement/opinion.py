"""Classification of tonight's outcomes against the history and the expectations.

Failures. Compared are finished nights on the same class of machine (any, where there is none on
this one) in which the case was run and was not flaky. A failure is *new* after a pass, *the same*
if it was seen since the last pass, and *changed* if only another one was. Timeouts and exhausted
memory are the same in all phases of a step, for where they strike is chance. With an expectation a
failure is a *fail*, which is no news; another failure than the expected one is *changed*. Where the
signature does not tell failures apart (wrong numbers, see `identity`), that of another
program is another failure, also than the one that was accepted. *Fixed*
is a case that failed last and does so no more, or passes the first time though it is expected by
its name to fail. A night in which it was only run or compiled ends no failure that it says nothing
of: none on the device, or no wrong numbers. Such a case is *ran* or *compiled*, and no pass; the
first such night after one in which it was compared and agreed, the *comparison* is *lost*.

Of a verdict that changed it is said whether the model did too: its program, and which of its files.
Of a failure that did not, it is said where the model did: since the last night, or since the
failure was accepted.

Metrics. Only nights in which the case was run and passed count, with the same program and on the
same class of machine. A shift is reported once, in the night that makes it certain (see
`pipeline.nightly.judgement.baseline`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec

from iree_pilot.pipeline.case_result import tells
from iree_pilot.pipeline.failures.signatures import is_specific
from iree_pilot.pipeline.nightly.history.history import Past
from iree_pilot.pipeline.nightly.judgement.baseline import Rule, Shift, shifts, suspected
from iree_pilot.pipeline.nightly.judgement.expectations import Expectation
from iree_pilot.pipeline.nightly.metrics import TIMES
from iree_pilot.pipeline.nightly.records import CaseOutcome, Judgement, Verdict

_MIB = 2.0**20
#: Counts and sizes, unless they are named here: any change by 2% tells.
_EXACT = Rule(least=0.02)
RULES = {
    "compile_seconds": Rule(least=0.1, floor=0.05, nights=3),
    "trace_seconds": Rule(least=0.1, floor=0.1, nights=3),
    "latency_seconds": Rule(least=0.1, floor=10e-6, nights=3),
    "peak_bytes": Rule(least=0.1, floor=16 * _MIB, nights=3),
    "module_bytes": Rule(least=0.05, floor=1024),
    "transient_bytes": Rule(least=0.05, floor=1024),
    "registers": Rule(least=0.1),
}
_LABELS = {
    "compile_seconds": "compile",
    "trace_seconds": "trace",
    "latency_seconds": "latency",
    "peak_bytes": "peak memory",
    "module_bytes": "module",
    "transient_bytes": "transient memory",
}
_VERDICTS: dict[str, Verdict] = {"ok": "pass", "ran": "ran", "compiled": "compiled"}
_DID = {"ok": "passed", "ran": "ran", "compiled": "compiled"}
_DOES = {"ok": "passes", "ran": "runs", "compiled": "compiles"}
#: Failures that strike wherever a limit happens to be met.
_ANYWHERE = ("timeout", "out-of-memory")
_ON_DEVICE = ("load", "run", "compare")
_FILES = msgspec.json.Decoder(dict[str, str])
_MOST_NAMES = 3
_SECONDS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))
_BYTES = (("GiB", 2.0**30), ("MiB", _MIB), ("KiB", 1024.0), ("bytes", 1.0))


class _Trouble(NamedTuple):
    """A failure as far as it is compared. signatures: its own, then those beside it. model: that
    it is of, see `identity.model`."""

    kind: str
    phase: str
    signatures: tuple[str, ...]
    model: str = ""

    @property
    def signature(self) -> str:
        return self.signatures[0] if self.signatures else ""

    @property
    def step(self) -> str:
        return self.phase if self.phase in ("trace", *_ON_DEVICE) else "compile"

    def is_like(self, other: _Trouble) -> bool:
        """True if both are one failure; which of several comes first may differ."""
        if not self.may_be_of(other.model):
            return False
        if self.kind in _ANYWHERE:
            return (self.kind, self.step) == (other.kind, other.step)
        return self.signature == other.signature or self.signature in other.signatures

    def may_be_of(self, model: str) -> bool:
        """True if an equal signature of that state of the model (empty: any) is this failure."""
        return is_specific(self.signature) or not _differ(self.model, model)

    def is_covered(self, expectation: Expectation) -> bool:
        if self.kind in _ANYWHERE:
            return expectation.signature.startswith((f"{self.kind}/", "*"))
        return expectation.covers(self.signature)


def judge(
    outcome: CaseOutcome, past: Sequence[Past], expected: Sequence[Expectation], night: str
) -> Judgement:
    """The judgement of one outcome.

    past: of this case, newest first. expected: all expectations; those of other cases are left
    out. night: when tonight's run began, ISO 8601.
    """
    mine = [e for e in expected if e.is_of(outcome.case)]
    today = date.fromisoformat(night[:10])
    holding = [e for e in mine if e.holds(today)]
    nights = [p for p in _here(past, outcome.machine) if p.ran and p.verdict != "flaky"]
    if len(set(outcome.attempts)) > 1:
        return _flaky(outcome, nights, holding, night)
    if outcome.result is None:
        return _said(outcome, "not run", outcome.why)
    if outcome.status == "failed":
        over = [e for e in mine if e not in holding]
        return _failed(outcome, nights, holding, over, night)
    return _with_metrics(_passed(outcome, nights, holding, night), outcome, nights, night)


def outdated(
    outcome: CaseOutcome,
    judgement: Judgement,
    past: Sequence[Past],
    expected: Sequence[Expectation],
    night: str,
) -> str:
    """Expectations of exactly this case that have not held for some nights; empty where all
    is as expected, or where it is news. The arguments are those of `judge`, with its judgement."""
    today = date.fromisoformat(night[:10])
    holding = [e for e in expected if e.case == outcome.case and e.holds(today)]
    if judgement.verdict == "same failure":
        known = next((e for e in holding if not e.flaky), None)
        if known is None:
            return ""
        other = " of another program" if known.covers(judgement.signature) else ""
        fails = f"fails with {judgement.signature} since {judgement.since[:10]}"
        return f"expected to fail with {known.signature}{other}, but {fails}"
    if judgement.verdict in ("fixed", "flaky"):
        return ""
    known = next((e for e in holding if e.is_outlived(outcome.case, outcome.status)), None)
    nights = [p for p in _here(past, outcome.machine) if p.ran and p.verdict != "flaky"]
    return _outlived(outcome, known, nights, night) if known else ""


def _outlived(outcome: CaseOutcome, known: Expectation, nights: Sequence[Past], night: str) -> str:
    """Sentence on an expectation that no longer holds, with the night since when."""
    ended = itertools.takewhile(lambda p: known.is_outlived(outcome.case, p.status), nights)
    since = [night, *(past.begun for past in ended)][-1]
    return f"expected to fail, but {_DOES[outcome.status]} since {since[:10]}"


def unsettled(past: Sequence[Past]) -> bool:
    """True if a metric was last measured beyond its baseline, too seldom to tell noise from change.

    Such a case is worth running anew, compile included, though nothing has changed. past: newest
    first, on any machine; those on the machine of the newest count.
    """
    here = _here(past, past[0].machine) if past else []
    here = [p for p in here if p.program in ("", here[0].program)]
    return any(suspected([value for _, value in series], rule) for _, rule, series in _series(here))


def _flaky(
    outcome: CaseOutcome, nights: Sequence[Past], holding: Sequence[Expectation], night: str
) -> Judgement:
    tried = f"{len(outcome.attempts)} attempts: {', '.join(outcome.attempts)}"
    known = next((e for e in holding if e.flaky), None)
    if known is None:
        return _said(outcome, "flaky", tried, since=night)
    if changed := _since_accepted(outcome, known, nights):
        before = f"known to be intermittent of another program: {known.reason_and_link}{changed}"
        return _said(outcome, "flaky", f"{tried}; {before}", since=night)
    verdict: Verdict = "fail" if outcome.status == "failed" else _VERDICTS[outcome.status]
    return _said(outcome, verdict, f"{tried}; known to be intermittent: {known.reason_and_link}")


def _failed(
    outcome: CaseOutcome,
    nights: Sequence[Past],
    holding: Sequence[Expectation],
    over: Sequence[Expectation],
    night: str,
) -> Judgement:
    failure = outcome.failure
    also = (failure, *failure.also) if failure else ()
    now = _Trouble(
        failure.kind if failure else "",
        (failure.phase or "") if failure else "",
        tuple(f.signature for f in also),
        outcome.model,
    )
    comparable = [p for p in nights if tells(p.status, now.step)]
    streak = _streak(comparable)
    alike = [p for p in streak if now.is_like(_trouble(p))]
    since = alike[-1].begun if alike else night
    known = _expectation(now, holding, alike)
    if known is not None and now.may_be_of(known.model):
        why = f"expected: {known.reason_and_link}{_since_accepted(outcome, known, nights)}"
        return _said(outcome, "fail", why, since=since)
    ended = next((e for e in over if now.is_covered(e)), None)
    note = f"expected until {ended.expires}: {ended.reason_and_link}" if ended else ""
    other = next((e for e in holding if not e.flaky), None)
    if alike and alike[0].verdict != "fail":
        if not note and _differ(outcome.model, alike[0].model):
            note = f"it failed so on {alike[0].begun[:10]}{_since(outcome, alike[0])}"
        return _said(outcome, "same failure", note, since=since)
    if known is not None:
        why = f"expected is {known.signature} of another program: {known.reason_and_link}"
        why += _since_accepted(outcome, known, nights)
        return _said(outcome, "changed failure", why, since=since)
    if alike:
        return _said(outcome, "new failure", note or "not expected any more", since=since)
    if streak:
        why = f"last night it was {_trouble(streak[0]).signature}{_since(outcome, streak[0])}"
        return _said(outcome, "changed failure", why, since=since)
    if other is not None:
        why = f"expected is {other.signature}: {other.reason_and_link}"
        return _said(outcome, "changed failure", why, since=since)
    why = "it was never run before"
    if comparable:
        before = comparable[0]
        why = f"it {_DID[before.status]} on {before.begun[:10]}{_since(outcome, before)}"
    return _said(outcome, "new failure", note or why, since=since)


def _passed(
    outcome: CaseOutcome, nights: Sequence[Past], holding: Sequence[Expectation], night: str
) -> Judgement:
    verdict = _VERDICTS[outcome.status]
    note = outcome.result.why if outcome.result else ""
    last = _last_failure(nights)
    if last is not None:
        signature, since = _trouble(last).signature, _streak_from(nights, last)[-1].begun
        if not tells(outcome.status, last.phase):
            where = (
                "its numbers were wrong" if outcome.status == "ran" else "on the device it failed"
            )
            why = f"{note}; {where} last"
            return _said(outcome, verdict, why, signature=signature, since=since)
        ended = f"it failed from {since[:10]} on{_since(outcome, last)}"
        why = "; ".join(filter(None, [ended, note]))
        return _said(outcome, "fixed", why, signature=signature, since=since)
    before = next((p for p in nights if p.status != "failed"), None)
    if verdict != "pass" and before is not None and before.status == "ok":
        when = f"it passed on {before.begun[:10]}{_since(outcome, before)}"
        return _said(outcome, "comparison lost", f"{when}; {note}")
    known = next((e for e in holding if e.is_outlived(outcome.case, outcome.status)), None)
    if known is None:
        return _said(outcome, verdict, note)
    if not nights:
        why = "; ".join(filter(None, [f"it was expected to fail: {known.reason_and_link}", note]))
        return _said(outcome, "fixed", why, signature=known.signature)
    listed = f"{_outlived(outcome, known, nights, night)}: {known.reason_and_link}"
    return _said(outcome, verdict, "; ".join(filter(None, [listed, note])))


def _since(outcome: CaseOutcome, before: Past) -> str:
    """Clause on the files of the model that changed since an earlier night.

    Empty if that is not known: for a night of an older version, or a program that does not trace.
    """
    then = _FILES.decode(before.files)
    changed = {file for file, state in outcome.files.items() if then.get(file, state) != state}
    if outcome.program and before.program:
        changed |= then.keys() ^ outcome.files.keys()
    names = [Path(file).name for file in sorted(changed)]
    if len(names) > _MOST_NAMES:
        names[_MOST_NAMES:] = [f"{len(names) - _MOST_NAMES} more"]
    same = outcome.program == before.program
    if not outcome.program or not before.program:
        return f"; since then the model changed ({', '.join(names)})" if names else ""
    if not same:
        alone = "" if names else ", none of its files"
        return f"; since then the model changed ({', '.join([*names, 'program'])}{alone})"
    if names:
        return f"; since then the model changed ({', '.join(names)}), its program did not"
    return "; the program is the same"


def _since_accepted(outcome: CaseOutcome, known: Expectation, nights: Sequence[Past]) -> str:
    """Clause on the files of the model that changed since a failure was accepted; empty if none is
    known."""
    if not _differ(outcome.model, known.model):
        return ""
    then = next((past for past in nights if past.model == known.model), None)
    return (then and _since(outcome, then)) or "; since then the model changed"


def _differ(one: str, other: str) -> bool:
    """True if these are two states of a model; an unknown one, empty, may be any."""
    return bool(one and other) and one != other


def _is_comparable(outcome: CaseOutcome, before: Past) -> bool:
    """True if metrics of an earlier night are of the same program on the same class of machine."""
    same = before.program in ("", outcome.program) or not outcome.program
    return same and before.machine == outcome.machine


def _here(past: Sequence[Past], machine: str) -> Sequence[Past]:
    return [p for p in past if p.machine == machine] or past


def _trouble(past: Past) -> _Trouble:
    return _Trouble(past.kind, past.phase, past.signatures, past.model)


def _streak(nights: Sequence[Past]) -> list[Past]:
    """The latest nights, up to the first in which it did not fail."""
    return list(itertools.takewhile(lambda p: p.status == "failed", nights))


def _streak_from(nights: Sequence[Past], last: Past) -> list[Past]:
    return _streak(nights[nights.index(last) :])


def _last_failure(nights: Sequence[Past]) -> Past | None:
    """The latest failure that no night since then has ended; nights end what they tell of."""
    for index, past in enumerate(nights):
        if past.status == "failed":
            ended = any(tells(later.status, past.phase) for later in nights[:index])
            return None if ended else past
    return None


def _expectation(
    now: _Trouble, holding: Sequence[Expectation], alike: Sequence[Past]
) -> Expectation | None:
    """Expectation of this failure, or of one that it came with when that was expected.

    One that was accepted for another program, and so may be of another failure, comes last.
    """
    own = [e for e in holding if now.is_covered(e)]
    if own or not alike or alike[0].verdict != "fail":
        return next((e for e in own if now.may_be_of(e.model)), own[0] if own else None)
    return next((e for e in holding if any(e.covers(s) for s in now.signatures)), None)


_Series = list[tuple[Past, float]]


def _series(nights: Iterable[Past]) -> Iterator[tuple[str, Rule, _Series]]:
    """(metric, its rule, its values by night, oldest first) of what was measured in these nights.

    Not where it failed or was flaky. A time that is equal to the last digit was not measured again:
    it is that of a compile from the store.
    """
    found: dict[str, _Series] = {}
    for past in reversed(list(nights)):
        if past.status == "failed" or past.reused or not past.ran or past.verdict == "flaky":
            continue
        for name, value in past.metrics.items():
            series = found.setdefault(name, [])
            if _rule(name).exact or not series or series[-1][1] != value:
                series.append((past, value))
    for name, series in found.items():
        yield name, _rule(name), series


def _with_metrics(
    judgement: Judgement, outcome: CaseOutcome, nights: Sequence[Past], night: str
) -> Judgement:
    """The judgement with what the metrics of tonight show."""
    if outcome.reused:
        return judgement
    tonight = Past(
        run=0,
        begun=night,
        status=outcome.status,
        machine=outcome.machine,
        metrics=outcome.metrics,
        program=outcome.program,
    )
    here = [p for p in nights if _is_comparable(outcome, p)]
    worse, changes, since = set(), [], ""
    for name, rule, series in _series([tonight, *here]):
        moved = shifts([value for _, value in series], rule)
        if not moved or series[-1][0] is not tonight or moved[-1].found != len(series) - 1:
            continue
        shift = moved[-1]
        changes.append(_telling(name, shift))
        if shift.up:
            worse.add(name)
            since = min(since or night, series[shift.start][0].begun)
    if not changes:
        return judgement
    why = "; ".join(filter(None, [judgement.why, *changes]))
    if judgement.verdict not in _VERDICTS.values() or not worse:
        return msgspec.structs.replace(judgement, why=why)
    verdict: Verdict = "slower" if worse & set(TIMES) else "bigger"
    return msgspec.structs.replace(judgement, verdict=verdict, why=why, since=since)


def _telling(name: str, shift: Shift) -> str:
    label = _LABELS.get(name, name.replace("_", " "))
    now, usual = _quantity(name, shift.after), _quantity(name, shift.before)
    if shift.values == 1:
        return f"{label} {now}, {usual} the one time before"
    return f"{label} {now}, usually {usual} ({shift.values} nights)"


def _quantity(name: str, value: float) -> str:
    if name.endswith("_seconds"):
        unit, size = next((u for u in _SECONDS if abs(value) >= u[1]), _SECONDS[-1])
        return f"{value / size:.3g} {unit}"
    if name.endswith("_bytes"):
        unit, size = next((u for u in _BYTES if abs(value) >= u[1]), _BYTES[-1])
        return f"{value / size:.4g} {unit}"
    return f"{value:g}"


def _rule(name: str) -> Rule:
    return RULES.get(name, _EXACT)


def _said(
    outcome: CaseOutcome, verdict: Verdict, why: str, *, signature: str = "", since: str = ""
) -> Judgement:
    failure = outcome.failure
    return Judgement(
        case=outcome.case,
        verdict=verdict,
        why=why,
        signature=signature or (failure.signature if failure else ""),
        since=since,
    )
