"""Tries combinations on the whole program: compiled, run and compared as `iree-pilot run` does.

A compile that fails stops at the phase that fails, and one that gets past it has to be done to the
end anyway, so there is no cheaper question to ask first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

import msgspec

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import Settings
from iree_pilot.pipeline.case_result import DOES_NOT_COMPILE, CaseResult, tells
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.processes.workers import side_by_side
from iree_pilot.pipeline.store.journal import Journal
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets.targets import Plan
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.oracles.oracle import STOPPED
from iree_pilot.repro.workarounds import applied
from iree_pilot.repro.workarounds.applied import Applied, Unchanged
from iree_pilot.repro.workarounds.combination_search import Combination, CombinationOutcome, State
from iree_pilot.repro.workarounds.rewrites import Unusable

_JOURNAL = "tried.jsonl"
_AFTER = ("load", "run", "compare")


class FailingCase(Unchanged, frozen=True, kw_only=True):
    """The failing case. target: the user's word for it. failure: what is to be got past."""

    target: str
    failure: Failure


class _TrialEntry(msgspec.Struct, frozen=True):
    """One line of the journal."""

    key: str
    outcome: CombinationOutcome


class Trials:
    """Answers for combinations, `width` at once; what was tried before is in the
    context's directory.

    compiles counts the cases that were compiled. on_progress: hears of each combination as it is
    answered.
    """

    def __init__(
        self,
        subject: FailingCase,
        context: Context,
        *,
        width: int = 1,
        fresh: bool = False,
        on_progress: Callable[
            [Combination, CombinationOutcome], None
        ] = lambda combination, outcome: None,
    ) -> None:
        self.compiles = 0
        self.subject = subject
        self._context, self.width = context, width
        self._on_progress, self._fresh = on_progress, fresh
        self._store = Store()
        self._programs = context.directory / "programs"
        context.directory.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(context.directory / _JOURNAL, _TrialEntry)
        if fresh:
            self._journal.clear()
        self._known = {entry.key: entry.outcome for entry in self._journal}
        self._writing, self._making = Lock(), Lock()

    def ask(self, combinations: Sequence[Combination]) -> list[CombinationOutcome]:
        """Outcomes of the combinations."""
        return side_by_side(self._one, combinations, self.width)

    def _one(self, combination: Combination) -> CombinationOutcome:
        key = Store.key(*(msgspec.json.encode(one).decode() for one in combination))
        outcome = self._known.get(key)
        if outcome is None:
            outcome = self._outcome(combination)
            if outcome.state != "unresolved":
                self._journal.append(_TrialEntry(key, outcome))
        with self._writing:
            self._on_progress(combination, outcome)
        return outcome

    def _outcome(self, combination: Combination) -> CombinationOutcome:
        try:
            result = self.run(combination, latency_budget=0)
        except Unusable as why:
            return CombinationOutcome(state="inapplicable", why=str(why))
        except (UsageError, EnvironmentFault) as fault:
            return CombinationOutcome(state="unsupported", why=fault.message)
        return judge(result, self.subject.failure, self._context.toolchain.phases)

    def program(self, combination: Combination) -> Loaded:
        """The program of a combination. Raises Unusable where there is none."""
        return self._applied(combination).loaded

    def plan(self, combination: Combination) -> Plan:
        """The target's plan with the combination's architecture, if it names one."""
        return applied.plan_of(combination, self.subject, self._context)

    def flags(self, combination: Combination) -> tuple[str, ...]:
        """The user's flags and those of the combination."""
        return applied.flags_of(combination, self.subject)

    def _applied(self, combination: Combination) -> Applied:
        with self._making:
            return applied.apply(combination, self.subject, self._context.at(self._programs))

    def run(self, combination: Combination, *, latency_budget: float) -> CaseResult:
        """The case of a combination. Raises Unusable where it leaves no program."""
        made = self._applied(combination)
        with self._writing:
            self.compiles += 1
        settings = Settings(
            flags=made.flags,
            latency_budget=latency_budget,
            confirm=False,
            fresh=self._fresh,
        )
        return case.run(made.loaded, made.plan, self._context, settings, case.Silent())


def judge(result: CaseResult, wanted: Failure, phases: Sequence[str]) -> CombinationOutcome:
    """Outcome of a case with respect to the failure to avoid."""
    failure = result.failure
    if failure is None:
        last = len(phases) + len(_AFTER)
        if not tells(result.status, wanted.phase):
            return CombinationOutcome(state="inconclusive", rank=last, why=result.why)
        if result.status == "compiled":
            return CombinationOutcome(state="compiles", rank=last, why=result.why)
        if result.status == "ran":
            return CombinationOutcome(state="runs", rank=last, why=result.why)
        assert result.comparison is not None
        why = f"relative L2 {result.comparison.rel_l2:.1e}, {result.comparison.tolerance:.1e} is ok"
        return CombinationOutcome(state="works", rank=last, why=why)
    at = rank(failure, phases)
    why = f"{failure.signature}: {failure.message.splitlines()[0] if failure.message else ''}"
    if result.why == DOES_NOT_COMPILE and failure.kind == "diagnostic" and failure.phase is None:
        return CombinationOutcome(state="unsupported", why=failure.message, failure=failure)
    if failure.kind in STOPPED:
        same = failure.kind == wanted.kind
        return CombinationOutcome(
            state="same" if same else "unresolved", rank=at, why=why, failure=failure
        )
    seen = {failure.signature, *(other.signature for other in failure.also)}
    before = {wanted.signature, *(other.signature for other in wanted.also)}
    further = seen < before or (wanted.signature not in seen and at > rank(wanted, phases))
    state: State = "further" if further else "same" if wanted.signature in seen else "other"
    return CombinationOutcome(state=state, rank=at, why=why, failure=failure)


def rank(failure: Failure, phases: Sequence[str]) -> int:
    """Progress of the program before it failed: phases, then loading, running and comparing."""
    order = [*phases, *_AFTER]
    return order.index(failure.phase) if failure.phase in order else 0
