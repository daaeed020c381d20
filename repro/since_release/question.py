"""The test for releases: a program, its flags, a failure; kept for `git bisect run`."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.inputs import examples
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.load import Loaded, load
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.pipeline.store import outputs
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.store.store import Store, data_directory
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.targets.targets import Target
from iree_pilot.pipeline.toolchain import releases
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.reducer import kept
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import FILES
from iree_pilot.repro.reproducer.known import places
from iree_pilot.repro.since_release.release_search import Change, Verdict
from iree_pilot.repro.since_release.trials import (
    CompiledProgram,
    Get,
    ReleaseTrials,
    Tell,
    portable,
    verdict,
)
from iree_pilot.repro.trust import own
from iree_pilot.repro.trust.trust import open_folder
from iree_pilot.repro.workarounds import by_itself

QUESTION = "question.json"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """job: the program. target: with its architecture, the same for all releases. flags: the
    user's. failure: the one that is looked for; None for whatever failure there is. time_limit in
    seconds and memory_limit in bytes, of each step. reader: the release that the program is written
    for, as `releases.find` takes it, where that is not the one here.
    """

    job: Job
    target: Target
    flags: tuple[str, ...] = ()
    failure: Failure | None = None
    time_limit: float | None = None
    memory_limit: int | None = None
    reader: str | None = None

    @property
    def limits(self) -> process.Limits:
        return process.Limits(seconds=self.time_limit, memory_bytes=self.memory_limit)


def of_reproducer(directory: Path, limits: process.Limits, *, trust: bool = False) -> Question:
    """The question of a reproducer's folder: its program, target, user's flags and failure.

    Raises UsageError for one whose program does not trace: that is not the compiler's doing; and as
    `open_folder` does.
    """
    report = open_folder(directory, trust=trust).report
    if report.failure.phase == "trace":
        raise UsageError(
            f"{directory} shows a failure to trace, in which the compiler has no part",
            advice="Only a failure to compile or to run can be bisected over its releases.",
        )
    target, flags = targets.split_flags(targets.parse(report.target), report.flags)
    file = directory / FILES["mlir"]
    if not file.is_file():
        raise UsageError(
            f"{directory} has no {file.name}, which would travel between the releases",
            advice=f"Name the source it was made of: {report.source}",
        )
    given = inputs(bundle.inputs_of(report, directory))
    job = Job(source=sources.parse(str(file.absolute()), {}, None), inputs=given)
    return Question(
        job=job,
        target=target,
        flags=flags,
        failure=report.failure,
        time_limit=limits.seconds,
        memory_limit=limits.memory_bytes,
        reader=report.release,
    )


def trials(
    question: Question,
    toolchain: Toolchain,
    get: Get,
    *,
    loaded: Loaded | None = None,
    fresh: bool = False,
    on_progress: Tell = lambda name, what: None,
) -> ReleaseTrials:
    """The question's program, ready to be tried with the releases that `get` gives.

    toolchain: reads the program, unless it is `loaded` already or only the question's own reader
    can. What was tried before for the same program, target and flags is not tried again, unless
    `fresh`.
    """
    if loaded is None:
        loaded, toolchain = _read(question, toolchain)
    context = Context(toolchain=toolchain, limits=question.limits)
    plan = targets.plan(question.target, toolchain, None, user_flags=question.flags)
    loaded = by_itself.apply(loaded, plan, context)
    root = data_directory() / "releases"
    # True: once there were questions whose modules were not to be run.
    key = Store.key(str(loaded.mlir), loaded.directory, question.target, question.flags, True)[:16]
    with Locks(root / "locks").hold(key):
        made = portable(loaded, toolchain, root / key / "program")
    compiled = CompiledProgram(made, question.target, question.flags, question.limits)
    return ReleaseTrials(compiled, get, root / key, fresh=fresh, on_progress=on_progress)


def _read(question: Question, toolchain: Toolchain) -> tuple[Loaded, Toolchain]:
    """(the program, what has read it): the text of IR may be readable by its own release only."""
    try:
        return load(question.job, Context(toolchain=toolchain, limits=question.limits)), toolchain
    except UsageError:
        if question.reader in (None, toolchain.version):
            raise
        own = releases.find(question.reader)
        return load(question.job, Context(toolchain=own, limits=question.limits)), own


def ask(
    directory: Path, toolchain: Toolchain, reader: Toolchain, *, trust: bool = False
) -> tuple[Verdict, str]:
    """(verdict, what was seen) of one toolchain, for the question kept in a folder.

    Raises UsageError where there is none, or, without `trust`, one that was not written here: it
    names a program, which may be code, and flags.
    """
    file = directory / QUESTION
    question = kept.recall(file, Question)
    if question is None:
        raise UsageError(
            f"there is no {QUESTION} in {directory}",
            advice="Name a folder that `iree-pilot releases bisect` has written.",
        )
    if not trust and not own.wrote(file.read_bytes()):
        raise UsageError(
            f"{file} was not written by your iree-pilot, and what it names would be compiled and "
            f"run: {shlex.join((question.job.source.text, *question.flags))}",
            advice="If you trust its author, add --trust.",
        )
    name = str(toolchain.compiler)
    asked = trials(question, reader, lambda _: toolchain)
    asked.wanted = question.failure
    asked.ask([name])
    return verdict(asked.tried[name], question.failure), asked.seen(name)


def write(
    directory: Path, question: Question, changes: Sequence[Change], *, default: bool = False
) -> tuple[Change, ...]:
    """Keeps the question in a folder, with a script for each change; the changes, with the paths.

    A folder that was written so before for this failure is written again. default: nobody named
    it, and where it asks about another failure one beside it is taken. Raises UsageError for
    another one that is not empty, EnvironmentFault where it cannot be written.
    """
    with bundle.placing():
        place = free(directory, question) if default else directory
        return _write(place, question, changes)


def _write(directory: Path, question: Question, changes: Sequence[Change]) -> tuple[Change, ...]:
    directory = check_place(directory)
    if asks_of_another(directory, question):
        raise UsageError(
            f"{directory} has the scripts of another failure",
            advice="Choose another folder with -o DIR, or move that one away.",
        )
    with outputs.writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("git-bisect-*.sh"):
            old.unlink()
        kept.keep(directory / QUESTION, question)
        own.remember((directory / QUESTION).read_bytes())
        return tuple(_written(directory, question, change) for change in changes)


def check_place(directory: Path) -> Path:
    """The folder that the question may be kept in; raises UsageError for one that holds others."""
    place = outputs.directory(directory)
    if place.is_dir() and any(place.iterdir()) and not (place / QUESTION).is_file():
        raise UsageError(
            f"{directory} is there already and was not written by `releases bisect`",
            advice="Choose another folder with -o DIR.",
        )
    return place


def free(directory: Path, question: Question) -> Path:
    """The folder, or one beside it where nobody named it and it asks about another failure."""
    failure = question.failure
    names = places.names(directory, failure) if failure else iter((directory,))
    return next(one for one in names if not asks_of_another(one, question))


def asks_of_another(directory: Path, question: Question) -> bool:
    """True if a folder is there that asks about another failure."""
    there = kept.recall(directory / QUESTION, Question)
    if there is None or there.failure is None or question.failure is None:
        return False
    shown, wanted = there.failure.signature, question.failure.signature
    return (shown, there.target.spec) != (wanted, question.target.spec)


def _written(directory: Path, question: Question, change: Change) -> Change:
    name = "-".join(Path(one).name for one in (change.older, change.newer))
    file = directory / f"git-bisect-{name}.sh"
    facts = {"change": change, "failure": question.failure, "script": str(file.absolute())}
    file.write_text(bundle.render("git-bisect.sh.j2", **facts), encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return msgspec.structs.replace(change, script=str(file.absolute()))


def inputs(words: Sequence[str], seed: int | None = None) -> tuple[Tensor, ...] | None:
    """Inputs as a job takes them, from what the user gives; None where there are none.

    words, seed: as `examples.from_files` takes them. Their files are kept: the question is asked
    again later.
    """
    if not words:
        return None
    key = Store.key(str(Path.cwd()), *words, *([] if seed is None else [seed]))
    kept_in = data_directory() / "releases" / "inputs" / key[:16]
    kept_in.mkdir(parents=True, exist_ok=True)
    return examples.from_files(tuple(words), kept_in, seed)
