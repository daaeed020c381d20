"""Records of the nightly: cases of a matrix, outcomes of a night."""

from __future__ import annotations

import shlex
from typing import Any, Literal

import msgspec

from iree_pilot.pipeline.case_result import CaseResult, Status
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.nightly import identity
from iree_pilot.pipeline.program.source_lines import SourceLines
from iree_pilot.pipeline.quantities import DEFAULT_SECONDS
from iree_pilot.repro.bringup.recipe import RecipeStep

#: The release of the environment that the nightly runs in, whatever it is that night.
INSTALLED = "installed"
#: The newest release that can be installed, whatever it is that night.
LATEST = "latest"

Verdict = Literal[
    "pass",
    "ran",
    "compiled",
    "fail",
    "comparison lost",
    "new failure",
    "same failure",
    "changed failure",
    "fixed",
    "flaky",
    "slower",
    "bigger",
    "not run",
]

#: Verdicts that need attention; `fail` is a failure that is expected, and `comparison lost`
#: a case that agreed with its reference and now can only be run or compiled.
NEWS: tuple[Verdict, ...] = (
    "new failure",
    "changed failure",
    "fixed",
    "flaky",
    "comparison lost",
    "slower",
    "bigger",
)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One case of the matrix: what to trace, for which target, with which compiler.

    source, target: as on the command line. release: a version, `installed`, `latest`, or the
    directory of a local toolchain. fields: as `--set`. flags: for iree-compile. time_limit: seconds
    for each step. memory_limit: bytes for each step, or None for what the machine has. repeats:
    how often the whole case is run in a night; outcomes that differ make it flaky. bisect: whether
    a new failure of it is looked into. recipe: file of one, as the configuration names it; steps:
    what it holds for the target. leave: operations that are not decomposed. seeded: what the model
    draws is an input.
    """

    source: str
    target: str
    release: str = INSTALLED
    dtype: str | None = None
    fields: dict[str, str] = {}
    flags: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    seed: int = 0
    time_limit: float = DEFAULT_SECONDS
    memory_limit: int | None = None
    repeats: int = 1
    bisect: bool = True
    recipe: str = ""
    steps: tuple[RecipeStep, ...] = ()
    leave: tuple[str, ...] = ()
    seeded: bool = False

    @property
    def program(self) -> str:
        """The program's text: cases with equal texts share one trace."""
        settings = [f"--set {key}={self.fields[key]}" for key in sorted(self.fields)]
        dtype = [f"--dtype {self.dtype}"] if self.dtype else []
        seed = [f"--seed {self.seed}"] if self.seed else []
        leave = [f"--no-decompose={op}" for op in self.leave]
        seeded = ["--seeded"] if self.seeded else []
        return " ".join([self.source, *settings, *dtype, *seed, *leave, *seeded])

    @property
    def name(self) -> str:
        """Name of the case in all nights, independent of its limits and tags."""
        recipe = f" --recipe {self.recipe}" if self.recipe else ""
        flags = f" -- {shlex.join(self.flags)}" if self.flags else ""
        return f"{self.program} | {self.target} | {self.release}{recipe}{flags}"


class CaseOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One case on one night, as the process that ran it sends it back.

    case: its `Case.name`. key: of all that decides the result (program, flags, toolchain, device
    and driver, our own code): equal keys, equal results; empty where it could not be known.
    result: None where the case did not come to be run, `why` says why then. metrics: see
    `pipeline.nightly.metrics`. machine: class of the machine, for comparing metrics. begun: ISO
    8601 with the offset from UTC. seconds: wall time. peak_bytes: of the largest process.
    reused: an earlier night's result under the same key, not run again. attempts: every status
    that it had this night, in order, where it was run more than once. program: digest of the MLIR,
    empty where it is not known. files: what the model was made of, by path (relative to the
    configuration's directory where it lies in it), each with a digest. source: the lines that its
    failure is about, as they were then; None where they were not kept.
    """

    case: str
    result: CaseResult | None
    why: str = ""
    key: str = ""
    metrics: dict[str, float] = {}
    machine: str = ""
    worker: str = ""
    begun: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    reused: bool = False
    attempts: tuple[str, ...] = ()
    program: str = ""
    files: dict[str, str] = {}
    source: SourceLines | None = None

    @property
    def model(self) -> str:
        """Fingerprint of the model's state, see `identity.model`."""
        return identity.model(self.program, self.files)

    @property
    def status(self) -> Status | Literal["not-run"]:
        """The result's; `not-run` where there is none: nothing of the case came to be."""
        return self.result.status if self.result else "not-run"

    @property
    def failure(self) -> Failure | None:
        return self.result.failure if self.result else None


#: Questions on a new failure, in this order; isolating it gives the attribution.
Question = Literal["isolate", "attribution", "releases", "workaround"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Result of investigating a failure.

    said: in words, on one line. done: False where time ended it, and the next night goes on, unless
    the configuration keeps it from that: `off`. note: what kept the answer from being a better one,
    for the people who keep the nightly. details: as what was asked gives it
    (`repro.since_release.trials.Found`).
    """

    question: Question
    said: str
    done: bool = True
    off: bool = False
    note: str = ""
    details: dict[str, Any] = {}


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Classification of one outcome, against earlier nights and expectations.

    why: in words, for people ("compile 3.2 s, usually 1.1 s (12 nights)"). since: the night (its
    run's begin) on which this failure, or this level of a metric, was first seen. reproducer: the
    folder that shows the failure, if there is one. findings: of the failure, tonight or before.
    """

    case: str
    verdict: Verdict
    why: str = ""
    signature: str = ""
    since: str = ""
    reproducer: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def news(self) -> bool:
        return self.verdict in NEWS
