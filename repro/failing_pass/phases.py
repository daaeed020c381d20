"""The first wrong phase and pass: where the IR stops giving correct results.

The IR after each phase is compiled to the end by a reference path: another backend, nothing
optimised. The first phase after which the results are wrong is at fault; the same is tested for the
IR after each of its passes that changes something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from iree_pilot.pipeline.plural import count
from iree_pilot.repro.attribution.variant_trial import VariantTried, Verdict
from iree_pilot.repro.failing_pass.dumps import Dump
from iree_pilot.repro.failing_pass.find_pass import diff
from iree_pilot.repro.failing_pass.narrow import narrow

State = Literal["earliest", "later", "everywhere", "unknown"]
#: A pass is looked for with so many compiles at most.
_PASS_QUESTIONS = 14
#: The target's own code generation, with its default pipeline.
PLAIN = "the default pipeline"


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """IR after a phase (of `pass_name`: after that pass in it), finished by a reference path."""

    phase: str
    path: str
    verdict: Verdict
    why: str = ""
    pass_name: str = ""


class WrongPhase(msgspec.Struct, frozen=True, kw_only=True):
    """The first wrong phase.

    state: `earliest`: from `phase` on, and not yet after `since`; `later`: they are right after
    `phase`, the last one whose result another path can finish; `everywhere`: wrong on every path
    from the source on; `unknown`: that cannot be asked. conclusion: the same in one sentence. path:
    the reference path. pass_name, pass_class: the pass in the phase that makes them wrong, "" where
    that is not known; changed: what it did, as a unified diff. finished: all that was asked.
    """

    state: State
    conclusion: str
    phase: str = ""
    since: str = ""
    path: str = ""
    pass_name: str = ""
    pass_class: str = ""
    changed: str = ""
    finished: tuple[Finished, ...] = ()


class Bench(Protocol):
    """The program compiled for its target, phase by phase, and reference paths that finish it.

    phases: those after which there is IR that they can finish, in order, the source first.
    generated: the phase after which only code generation is left, and that; None where the path
    PLAIN cannot do that in another way.
    """

    paths: Sequence[str]
    phases: Sequence[str]
    generated: tuple[str, str] | None

    def finish(self, phase: str, path: str) -> VariantTried:
        """The numbers from the IR after a phase."""
        ...

    def changes(self, since: str, phase: str) -> Sequence[Dump]:
        """The program after phase `since`, and then after each pass of `phase` that changed it."""
        ...

    def finish_change(self, change: Dump, since: str, path: str) -> VariantTried:
        """The numbers from one of those."""
        ...


def find(bench: Bench, on_progress: Callable[[str], None] = lambda _: None) -> WrongPhase:
    """The first wrong phase, by the first reference path that is correct for the whole program.

    on_progress: hears what is tried, with how many were before.
    """
    return _PhaseSearch(bench, on_progress).run()


class _PhaseSearch:
    def __init__(self, bench: Bench, on_progress: Callable[[str], None]) -> None:
        self._bench, self._on_progress = bench, on_progress
        self._asked: list[Finished] = []

    def run(self) -> WrongPhase:
        source, phases = self._bench.phases[0], self._bench.phases
        verdicts = {}
        path = ""
        for path in self._bench.paths:
            verdicts[path] = self._finish(source, path)
            if verdicts[path] == "right":
                break
        else:
            return self._nowhere(verdicts)
        last = len(phases) - 1
        while last > 0 and (verdict := self._finish(phases[last], path)) != "wrong":
            if verdict == "right":
                return self._later(phases[last], path)
            last -= 1
        if not last:
            return self._concluded("unknown", f"{path} can finish the IR of no phase", path=path)
        right, wrong = narrow(last, lambda i: self._wrong(self._finish(phases[i], path)))
        found = self._concluded(
            "earliest",
            f"first wrong phase: {phases[wrong]} (the IR after {phases[right]} is correct "
            f"with {path})",
            phase=phases[wrong],
            since=phases[right],
            path=path,
        )
        return self._with_pass(found)

    def _later(self, phase: str, path: str) -> WrongPhase:
        """A step after `phase` is wrong: code generation, if its default pipeline is correct."""
        if self._bench.generated and phase == self._bench.phases[-1]:
            configured, generated = self._bench.generated
            if self._finish(configured, PLAIN) == "right":
                return self._with_pass(
                    self._concluded(
                        "earliest",
                        f"first wrong phase: {generated} (the IR after {configured} is correct "
                        f"with {PLAIN} of this target)",
                        phase=generated,
                        since=configured,
                        path=PLAIN,
                    )
                )
        return self._concluded(
            "later",
            f"the IR after {phase} is correct with {path}: a later step for this target is wrong",
            phase=phase,
            path=path,
        )

    def _with_pass(self, found: WrongPhase) -> WrongPhase:
        """Adds the first wrong pass, if the phase can be split."""
        changes = self._bench.changes(found.since, found.phase)

        def wrong(index: int) -> bool | None:
            self._report(f"pass {changes[index].name or 'none'} of {found.phase}")
            tried = self._bench.finish_change(changes[index], found.since, found.path)
            self._note(found.phase, found.path, tried, changes[index].name)
            return self._wrong(tried.verdict)

        last = len(changes) - 1
        if last < 1 or not wrong(last):
            return msgspec.structs.replace(found, finished=tuple(self._asked))
        right, bad = narrow(last, wrong, most=_PASS_QUESTIONS)
        found = msgspec.structs.replace(found, finished=tuple(self._asked))
        change = changes[bad]
        if bad - right > 1:
            names = ", ".join(dict.fromkeys(one.name for one in changes[right + 1 : bad + 1]))
            said = f"{found.conclusion}; first wrong pass: one of {names}"
            return msgspec.structs.replace(found, conclusion=said)
        return msgspec.structs.replace(
            found,
            conclusion=f"{found.conclusion}; first wrong pass: {change.name}",
            pass_name=change.name,
            pass_class=change.pass_class,
            changed=diff(changes[right], change),
        )

    def _nowhere(self, verdicts: dict[str, Verdict]) -> WrongPhase:
        wrong = [path for path, verdict in verdicts.items() if verdict == "wrong"]
        if not wrong:
            return self._concluded("unknown", "no reference path compiles and runs the program")
        shared = f"up to {self._bench.phases[-1]}" if len(self._bench.phases) > 1 else "all phases"
        return self._concluded(
            "everywhere",
            f"wrong on every path from the source on ({', '.join(wrong)}): either a step that "
            f"they share ({shared}) or the reference is wrong",
        )

    def _finish(self, phase: str, path: str) -> Verdict:
        self._report(f"phase {phase}")
        return self._note(phase, path, self._bench.finish(phase, path))

    def _report(self, trying: str) -> None:
        self._on_progress(f"{trying}, {count(len(self._asked), 'trial')} before")

    def _note(self, phase: str, path: str, tried: VariantTried, pass_name: str = "") -> Verdict:
        self._asked.append(
            Finished(
                phase=phase, path=path, verdict=tried.verdict, why=tried.why, pass_name=pass_name
            )
        )
        return tried.verdict

    @staticmethod
    def _wrong(verdict: Verdict) -> bool | None:
        return None if verdict == "fails" else verdict == "wrong"

    def _concluded(
        self, state: State, conclusion: str, phase: str = "", since: str = "", path: str = ""
    ) -> WrongPhase:
        return WrongPhase(
            state=state,
            conclusion=conclusion,
            phase=phase,
            since=since,
            path=path,
            finished=tuple(self._asked),
        )
