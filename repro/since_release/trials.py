"""Tries one program with many compiler releases: each compiles it, and its own runtime runs it."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import Settings
from iree_pilot.pipeline.case_result import DOES_NOT_COMPILE, CaseResult
from iree_pilot.pipeline.errors import EnvironmentFault, PilotError, UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.workers import side_by_side
from iree_pilot.pipeline.program import python_lines
from iree_pilot.pipeline.store.journal import Journal
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.targets.targets import Target
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.oracles.oracle import STOPPED
from iree_pilot.repro.since_release.release_search import Change, Verdict, assumed, changes, search

#: Checks of traced types, which compute nothing and which releases before 3.2 do not know.
_CHECK = re.compile(
    r'^[ \t]*(?:torch\.operator )?"?torch\.aten\._assert_tensor_metadata"?[ (].*\n', re.MULTILINE
)
#: First bytes of a program in bytecode.
BYTECODE = b"ML\xefR"
_JOURNAL = "tried.jsonl"
#: Number of downloads at a time.
_INSTALLS = 3

State = Literal["ok", "ran", "not-run", "does-not-compile", "does-not-run", "unsupported"]
_PASSED: dict[str, State] = {"ok": "ok", "ran": "ran", "compiled": "not-run"}
#: Steps whose failures a trial cannot exclude, by its state.
_SILENT_ON: dict[str, tuple[str, ...]] = {
    "ok": (),
    "ran": ("compare",),
    "not-run": ("load", "run", "compare"),
}


class ReleaseTrial(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a toolchain for the program, independent of the failure.

    name: the release, or the path of a local build. build: what tells one binary from another.
    """

    name: str
    version: str
    revision: str
    build: str
    state: State
    why: str = ""
    failure: Failure | None = None


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A release that cannot be had, and why."""

    name: str
    why: str


class ReleasesFound(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for a program. releases: name to verdict, the oldest first; assumed: those that
    were not tried, because the releases on both sides agree. revisions: name to commit, of those
    tried; reasons: name to what was seen. failure: the one that was looked for, None where none
    fails. compiles: how many it took. inline: the program fails with its weights as constants only.
    """

    releases: dict[str, Verdict]
    boundaries: tuple[Change, ...]
    assumed: tuple[str, ...]
    revisions: dict[str, str]
    reasons: dict[str, str]
    failure: Failure | None
    compiles: int
    inline: bool = False


Get = Callable[[str], Toolchain]
Tell = Callable[[str, str], None]


class CompiledProgram(NamedTuple):
    """A program and how it is compiled; limits: of each compile."""

    loaded: Loaded
    target: Target
    flags: tuple[str, ...]
    limits: process.Limits


class ReleaseTrials:
    """Tries the program with releases by name, and remembers in `directory` what came of it.

    get: the toolchain of a name; what it raises as a PilotError makes the release not installable.
    on_progress: hears of each trial: the release, and what came of it. compiles counts what was
    compiled. wanted: the failure looked for; wrong numbers get its signature.
    """

    wanted: Failure | None = None

    def __init__(
        self,
        compiled: CompiledProgram,
        get: Get,
        directory: Path,
        *,
        fresh: bool = False,
        on_progress: Tell = lambda name, what: None,
    ) -> None:
        self.compiles = 0
        self.tried: dict[str, ReleaseTrial | Missing] = {}
        self._loaded, self._target, self._flags, self._limits = compiled
        self._get, self._on_progress = get, on_progress
        self._fresh = fresh
        directory.mkdir(parents=True, exist_ok=True)
        self._scratch = directory / "asked"
        self._journal = Journal(directory / _JOURNAL, ReleaseTrial)
        if fresh:
            self._journal.clear()
        self._known = {trial.build: _as_now(trial) for trial in self._journal}

    def ask(self, names: Sequence[str]) -> None:
        """Tries what has not been tried; several are installed at once, compiled one by one."""
        fresh = [name for name in names if name not in self.tried]
        had = dict(zip(fresh, side_by_side(self._had, fresh, _INSTALLS), strict=True))
        for name, toolchain in had.items():
            if isinstance(toolchain, Missing):
                self.tried[name] = toolchain
                self._on_progress(name, f"cannot be installed: {toolchain.why}")
            else:
                trial = self._try(name, toolchain)
                self.tried[name] = trial
                self._on_progress(name, _seen(trial, self.wanted))

    def seen(self, name: str) -> str:
        """Result of a release, in words."""
        tried = self.tried[name]
        return tried.why if isinstance(tried, Missing) else _seen(tried, self.wanted)

    def _had(self, name: str) -> Toolchain | Missing:
        try:
            return self._get(name)
        except PilotError as fault:
            return Missing(name=name, why=fault.message)

    def _try(self, name: str, toolchain: Toolchain) -> ReleaseTrial:
        build = f"{toolchain.version} {toolchain.revision} {toolchain.compiler}"
        known = self._known.get(build)
        if known is not None:
            return msgspec.structs.replace(known, name=name)
        state, why, failure = self._outcome(toolchain)
        trial = ReleaseTrial(
            name=name,
            version=toolchain.version,
            revision=toolchain.revision,
            build=build,
            state=state,
            why=why,
            failure=failure,
        )
        if failure is None or not failure.passing:
            self._journal.append(trial)
        return trial

    def _outcome(self, toolchain: Toolchain) -> tuple[State, str, Failure | None]:
        try:
            plan = targets.plan(self._target, toolchain, user_flags=self._flags)
        except (UsageError, EnvironmentFault) as fault:
            return "unsupported", fault.message, None
        if why := self._unreadable(toolchain):
            return "unsupported", f"it cannot read the program: {why}", None
        settings = Settings(flags=self._flags, latency_budget=0, confirm=False, fresh=self._fresh)
        self.compiles += 1
        context = Context(toolchain=toolchain, limits=self._limits)
        return _state(case.run(self._loaded, plan, context, settings, case.Silent()))

    def _unreadable(self, toolchain: Toolchain) -> str:
        """Reason that the release cannot parse the program, or empty. A crash is a failure."""
        if toolchain.opt is None:
            return ""
        self._scratch.mkdir(exist_ok=True)
        try:
            stderr = self._scratch / "stderr.txt"
            outcome = process.run(
                [toolchain.opt, self._loaded.mlir, "-o", "/dev/null"],
                stdout=self._scratch / "stdout.txt",
                stderr=stderr,
                limits=self._limits,
            )
            if outcome.ok or outcome.ended_by != "exit":
                return ""
            lines = stderr.read_text(encoding="utf-8", errors="replace").splitlines()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
        said = (line.partition(" error: ")[2] for line in lines if " error: " in line)
        return next(said, f"exit code {outcome.exit_code}")


def bisect(
    releases: Sequence[str],
    trials: ReleaseTrials,
    *,
    wanted: Failure | None = None,
    reference: str | None = None,
    every: bool = False,
) -> ReleasesFound:
    """Finds the releases where a failure appears or disappears, the oldest first.

    wanted: the failure that is looked for; None: that of `reference`, one of them or another, and
    where it has none, that of the newest release that fails.
    """
    given = trials.wanted = wanted
    if given is None and reference is not None:
        trials.ask([reference])
        given = _failure(trials.tried[reference])

    def looked_for() -> Failure | None:
        return given or _newest_failure(releases, trials)

    def ask(names: Sequence[str]) -> list[Verdict]:
        trials.ask(names)
        return [verdict(trials.tried[name], looked_for()) for name in names]

    while True:
        # A newer release than those asked before may fail: then its failure is the one.
        before = looked_for()
        known = [name for name in releases if name in trials.tried]
        verdicts = search(releases, ask, every=every, known=known)
        if _signature(before) == _signature(looked_for()):
            break
    between = assumed(releases, verdicts)
    tried = {name: trials.tried[name] for name in releases if name in trials.tried}
    return ReleasesFound(
        releases={n: (verdicts | between)[n] for n in releases if n in verdicts or n in between},
        boundaries=tuple(
            msgspec.structs.replace(
                change,
                good_revision=_commit(tried[change.good]),
                bad_revision=_commit(tried[change.bad]),
            )
            for change in (changes(releases, verdicts) if "same" in verdicts.values() else ())
        ),
        assumed=tuple(between),
        revisions={n: _commit(t) for n, t in tried.items() if isinstance(t, ReleaseTrial)},
        reasons={n: trials.seen(n) for n in tried},
        failure=looked_for(),
        compiles=trials.compiles,
    )


def verdict(tried: ReleaseTrial | Missing, wanted: Failure | None) -> Verdict:
    """Verdict of a trial on the failure.

    A release that compiles and cannot run the module here says nothing of a failure to run, and
    one whose results were not compared nothing of wrong numbers.
    """
    if isinstance(tried, Missing):
        return "not-installable"
    if tried.state == "unsupported":
        return "unsupported"
    if tried.failure is not None:
        return "same" if wanted is not None and _alike(tried.failure, wanted) else "different"
    return (
        "unsupported"
        if wanted is not None and wanted.phase in _SILENT_ON[tried.state]
        else "passes"
    )


def _alike(failure: Failure, wanted: Failure) -> bool:
    """True if it is the same failure.

    The phase in which a limit stops a compile depends on its speed, and the kind of wrong numbers
    on the output with the largest error, so these failures are compared by kind only.
    """
    by_kind = (*STOPPED, "mismatch")
    return failure.shows(wanted.signature) or failure.kind == wanted.kind in by_kind


def portable(loaded: Loaded, toolchain: Toolchain, place: Path) -> Loaded:
    """The program as text without checks of traced types, for releases of any age.

    Lies in `place`, with the program's other files beside it as links. Raises EnvironmentFault
    where bytecode cannot be written as text.
    """
    original = loaded.mlir.read_bytes()
    text = original
    place.mkdir(parents=True, exist_ok=True)
    if original.startswith(BYTECODE):
        text = as_text(loaded.mlir, toolchain, place)
    text = _CHECK.sub("", text.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    if text == original:
        return loaded
    name = f"{Path(loaded.program.mlir).stem}.mlir"
    for file in Path(loaded.directory).iterdir():
        if file.name not in (name, python_lines.NAME) and not (place / file.name).is_symlink():
            (place / file.name).symlink_to(file.absolute())
    (place / name).write_bytes(text)
    digest = hashlib.sha256(text).hexdigest()
    program = msgspec.structs.replace(loaded.program, mlir=name, digest=digest)
    return msgspec.structs.replace(loaded, program=program, directory=str(place))


def as_text(mlir: Path, toolchain: Toolchain, place: Path) -> bytes:
    """A program in bytecode as text; raises EnvironmentFault where that cannot be done."""
    if toolchain.opt is None:
        raise EnvironmentFault(
            f"cannot write {mlir} as text: there is no iree-opt beside {toolchain.compiler}",
            advice="Give the program as text (.mlir), or use a release that has iree-opt.",
        )
    out = place / "text.mlir"
    stderr = place / "stderr.txt"
    outcome = process.run(
        [toolchain.opt, mlir, "-o", out], stdout=place / "stdout.txt", stderr=stderr
    )
    try:
        if not outcome.ok:
            said = stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise EnvironmentFault(f"cannot write {mlir} as text: {said[0] if said else outcome}")
        return out.read_bytes()
    finally:
        for file in (out, stderr, place / "stdout.txt"):
            file.unlink(missing_ok=True)


def _state(result: CaseResult) -> tuple[State, str, Failure | None]:
    failure = result.failure
    if failure is None:
        return _PASSED[result.status], result.why, None
    if result.why != DOES_NOT_COMPILE:
        return "does-not-run", result.why, failure
    if failure.kind == "diagnostic" and failure.phase is None:
        return "unsupported", f"it does not take the flags: {failure.message}", None
    return "does-not-compile", result.why, failure


def _seen(trial: ReleaseTrial, wanted: Failure | None = None) -> str:
    """wanted: a part with its wrong numbers may be wrong in another way, of integers say."""
    if trial.failure is None:
        return trial.why or ("works" if trial.state == "ok" else trial.state)
    others = ", ".join(other.signature for other in trial.failure.also)
    named = wanted if wanted and wanted.kind == trial.failure.kind == "mismatch" else trial.failure
    said = f"{named.signature}: {trial.failure.message}"
    return f"{said}; with it: {others}" if others else said


def _commit(tried: ReleaseTrial | Missing) -> str:
    """IREE's commit, without the fingerprint of a local build."""
    return tried.revision.partition("+")[0] if isinstance(tried, ReleaseTrial) else ""


def _failure(tried: ReleaseTrial | Missing) -> Failure | None:
    return tried.failure if isinstance(tried, ReleaseTrial) else None


def _newest_failure(releases: Sequence[str], trials: ReleaseTrials) -> Failure | None:
    found = (_failure(trials.tried[n]) for n in reversed(releases) if n in trials.tried)
    failures = [failure for failure in found if failure is not None]
    # A limit that was reached says the least of all failures.
    return next((f for f in failures if f.kind not in STOPPED), next(iter(failures), None))


def _signature(failure: Failure | None) -> str:
    return failure.signature if failure else ""


def _as_now(trial: ReleaseTrial) -> ReleaseTrial:
    """Once `ok` was also said of what had nothing to be compared with."""
    ran = trial.state == "ok" and trial.why
    return msgspec.structs.replace(trial, state="ran") if ran else trial
