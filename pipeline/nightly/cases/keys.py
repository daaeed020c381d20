"""The key of a case: a digest of all that decides its result, found without running it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path

import msgspec

from iree_pilot.pipeline import case as cases
from iree_pilot.pipeline.errors import EnvironmentFault, PilotError
from iree_pilot.pipeline.execution import generation
from iree_pilot.pipeline.frontends import load, source
from iree_pilot.pipeline.frontends.job import DEPENDENCIES, Job
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.nightly import metrics
from iree_pilot.pipeline.nightly.records import INSTALLED, LATEST, Case, CaseOutcome
from iree_pilot.pipeline.processes import task
from iree_pilot.pipeline.store import sealed
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets.targets import Plan, parse, plan
from iree_pilot.pipeline.toolchain import releases
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.bringup import applying
from iree_pilot.repro.trust import sources as code
from iree_pilot.repro.workarounds import by_itself
from iree_pilot.repro.workarounds.applied import Applied, Unchanged

#: The rooms of the code that compiles, runs and compares.
_CORE = (
    "execution",
    "failures",
    "inspect",
    "numerics",
    "processes",
    "program",
    "store",
    "targets",
    "toolchain",
)
#: Files of a program's directory that tell how it was made, not what it is.
_HOW_MADE = (*task.FILES, DEPENDENCIES, sealed.MANIFEST)


class Keys:
    """Finds the keys of cases whose sources are relative to `directory`.

    Programs and toolchains are looked at once: an object of this class serves one night. It
    changes the working directory while it reads a source, so it is for one thread.
    """

    def __init__(self, directory: Path, store: Store | None = None) -> None:
        self._directory = directory
        self._store = store or Store()
        self._loaded: dict[tuple[str, str], Loaded | None] = {}
        self._released: dict[str, str] = {}

    def program(self, case: Case) -> Loaded | None:
        """The case's program where the store has it, as it would be traced now.

        None also where the source does not fit: tracing it tells why.
        """
        release = self.release(case)
        known = case.program, release
        if known not in self._loaded:
            found = None
            with contextlib.suppress(PilotError), contextlib.chdir(self._directory):
                wanted = job(case)
                reader = _present(release) if wanted.source.kind == "mlir" else None
                found = load.find(wanted, self._store, reader)
            self._loaded[known] = found
        return self._loaded[known]

    def release(self, case: Case) -> str:
        """The version of the case's release tonight; `latest` if that cannot be looked up."""
        if case.release not in self._released:
            self._released[case.release] = case.release
            with contextlib.suppress(EnvironmentFault):
                self._released[case.release] = released(case.release)
        return self._released[case.release]

    def key(self, case: Case) -> str:
        """The case's key; empty where its program or its release is not here yet."""
        loaded = self.program(case)
        if loaded is None:
            return ""
        try:
            with contextlib.chdir(self._directory):
                toolchain = _present(self.release(case))
                return key(case, loaded, toolchain, planned(case, toolchain)) if toolchain else ""
        except PilotError:
            return ""


def job(case: Case) -> Job:
    """The tracing job; raises UsageError as `source.parse`, and for code that somebody else sent.

    Files are relative to where we are.
    """
    parsed = source.parse(case.source, case.fields, case.dtype)
    code.check(parsed, trust=False)
    return Job(source=parsed, seed=case.seed, leave=case.leave, seeded=case.seeded)


def _present(release: str) -> Toolchain | None:
    return releases.present(None if release == INSTALLED else release)


def planned(case: Case, toolchain: Toolchain) -> Plan:
    """The plan of the case's target; raises as `targets.plan`."""
    return plan(parse(case.target), toolchain, user_flags=case.flags)


def applied(case: Case, loaded: Loaded, plan: Plan, context: Context) -> Applied:
    """The program, the plan and the flags with what the case's recipe holds for the target, and
    what the program gets by itself for it.

    Raises UsageError where that does not fit.
    """
    subject = Unchanged(
        loaded=loaded,
        job=job(case),
        settings=case.fields | ({"dtype": case.dtype} if case.dtype else {}),
        plan=plan,
        flags=case.flags,
        device=None,
    )
    return applying.apply(case.steps, subject, context)


def released(release: str) -> str:
    """The release itself; for `latest` the newest that can be installed.

    Raises EnvironmentFault where that cannot be looked up.
    """
    if release != LATEST:
        return release
    known = releases.available()
    if not known:
        raise EnvironmentFault(
            "cannot tell the latest release: the package index has none for this Python",
            advice="Name a version, or `installed`.",
        )
    return known[0]


def key(case: Case, loaded: Loaded, toolchain: Toolchain, plan: Plan) -> str:
    """Digest of program, flags, toolchain, device with its driver, and our code; see `job`."""
    flags = (*plan.flags, *case.flags)
    return Store.key(
        "nightly case",
        _contents(Path(loaded.directory)),
        flags,
        cases.files_named(flags),
        toolchain.version,
        toolchain.revision,
        toolchain.runtime is not None,
        *(msgspec.json.encode(one).decode() for one in case.steps),
        plan.device.fingerprint if plan.device else plan.why_not_run,
        # What PyTorch generates is not among the program's contents; its entry's name tells.
        Path(loaded.directory).name if generation.usual(job(case), toolchain) else "",
        _own_code(),
        by_itself.code(),
    )


def lasting(outcome: CaseOutcome) -> bool:
    """True if the outcome's key decides it: limits and what else was running did not."""
    failure = outcome.failure
    return outcome.result is not None and not (failure and failure.passing)


def _contents(directory: Path) -> list[tuple[str, str]]:
    """(path, SHA-256) of what a program consists of, by the manifest of its store entry."""
    recorded = msgspec.json.decode((directory / sealed.MANIFEST).read_bytes(), type=sealed.Manifest)
    return sorted((f.path, f.sha256) for f in recorded.files if f.path not in _HOW_MADE)


@functools.cache
def _own_code() -> str:
    """A digest of the code that compiles, runs, compares and measures."""
    hashed = hashlib.sha256()
    core = Path(cases.__file__).parent
    rooms = [f for room in _CORE for f in (core / room).rglob("*.py")]
    for file in sorted([*core.glob("*.py"), *rooms, Path(metrics.__file__)]):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()
