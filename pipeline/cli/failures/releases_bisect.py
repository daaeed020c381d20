"""`iree-pilot releases bisect` and `ask`: since which release does it fail, and in which not?"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec
from rich.markup import escape

from iree_pilot.pipeline.cli import completing, reproducer, several
from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import (
    Common,
    SourceOptions,
    common,
    folder_option,
    source_options,
    targets_option,
    trust_option,
)
from iree_pilot.pipeline.plain import plain
from iree_pilot.pipeline.plural import count

if TYPE_CHECKING:
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.frontends.load import Loaded
    from iree_pilot.pipeline.toolchain.toolchain import Toolchain
    from iree_pilot.repro.since_release.question import Question
    from iree_pilot.repro.since_release.trials import Get, ReleasesFound

#: Weights up to this size are tried as constants where nothing else fails.
_INLINED_BYTES = 2**20
_STYLES = {
    "passes": "green",
    "same": "red",
    "different": "magenta",
    "unsupported": "yellow",
    "not-installable": "yellow",
}


@click.command(
    "bisect",
    epilog=examples(
        "iree-pilot releases bisect model.py -t llvm-cpu",
        "iree-pilot releases bisect repro-model-vulkan --from 3.8.0",
        "iree-pilot releases bisect model.mlir -t vulkan --toolchain build",
    ),
)
@source_options
@targets_option("Search for each")
@click.option(
    "--from",
    "first",
    metavar="VERSION",
    shell_complete=completing.versions,
    help="The oldest release to test.",
)
@click.option(
    "--to",
    "last",
    metavar="VERSION",
    shell_complete=completing.versions,
    help="The newest release to test.",
)
@click.option("--every", is_flag=True, help="Test every release, assume nothing.")
@click.option(
    "--toolchain",
    "toolchains",
    multiple=True,
    metavar="PATH",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Test this local build, or all wheels in this folder, in place of the releases; "
    "once for each, the oldest first.",
)
@folder_option("the scripts for git bisect", default="releases-SOURCE-TARGET here")
@common(
    limits=True,
    release="the newest that fails",
    to="Find the failure that SOURCE has with this release",
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def bisect(
    source_options: SourceOptions,
    target: str | None,
    first: str | None,
    last: str | None,
    every: bool,
    toolchains: tuple[Path, ...],
    output: str | None,
    common: Common,
    flags: tuple[str, ...],
    source: str,
) -> None:
    """Find the compiler releases between which a failure of SOURCE appears or disappears.

    SOURCE may be a reproducer's folder: the answer is added to it. For a program, the failure is
    the one with --release, or else the one with the newest release that fails. Each release
    compiles the program as it was traced and runs it with its own runtime. Verdicts: `same`
    failure, `different` failure, `passes`, `unsupported` (it lacks operations or flags of the
    program: no verdict on the failure), `not-installable`.

    A program with few weights that passes everywhere is tested once more with them as constants.

    If the oldest and the newest release differ, the change is found by bisection: at most 6
    compiles for one change among 16 releases. Releases between two that agree are assumed to agree
    with them, and are marked so; --every tests them too. If the ends agree, all are tested.

    DIR gets a script for `git bisect run` for each change. Verdicts are cached (--fresh ignores
    them). With several targets, --json prints `results`, each with its `target`. Exit code 0: the
    failure was found in a release; 1: in none, for any target.
    """
    from iree_pilot.pipeline.cli.boundary import Failed
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.frontends import source as sources
    from iree_pilot.pipeline.frontends.load import TraceFailed
    from iree_pilot.pipeline.targets import targets
    from iree_pilot.repro import deep
    from iree_pilot.repro.since_release import question as release_question

    if output:
        release_question.check_place(Path(output))
    else:
        several.check_default_place()
    console = out.console(stderr=common.json)
    wanted = [t.spec for t in targets.parse_list(target)] if target else [None]
    results: list[tuple[str, ReleasesFound]] = []
    with (
        Live.of(console, common) as live,
        several.finishing(results, targets=len(wanted)),
    ):
        if target is None and not reproducer.is_folder(source):
            sources.parse(source, source_options.settings, source_options.dtype)
            raise reproducer.no_target(source)
        session = Session(common, live)
        names, get = _asked(first, last, toolchains, live)
        asked = _ReleasesRequest(source, source_options, flags, names, get, every)
        whole = reproducer.is_folder(source) and not (first or last or toolchains or flags)
        for one in wanted:
            try:
                question, found = _find(session, asked, one, live)
            except TraceFailed as failed:
                live.note(f"{source} does not trace: {failed.failure.message}")
                live.note("The compiler has no part in that: iree-pilot bisect isolates it.")
                raise Failed(1) from None
            if reproducer.is_folder(source) and not whole and _fails(found):
                live.note(f"not added to {source}: only what is asked of all releases is")
            if whole and one is None and _fails(found):
                reproducer.keep(source, live.note, since_release=deep.since_release(found))
            if found.boundaries:
                place = _place(source, output, one, len(wanted))
                found = _scripts(question, found, place, default=output is None)
            live.close()
            if not common.json:
                several.heading(console, one, len(wanted))
                _tell(console, found)
            results.append((one or "", found))
    if common.json:
        out.emit(several.document(results, targets=len(wanted), took=live.took))
    else:
        live.summary()
    if output:
        for change in (change for _, found in results for change in found.boundaries):
            out.wrote(change.script, quiet=common.verbosity < 0)
    if not any(_fails(found) for _, found in results):
        raise Failed(1)


def names(live: Live) -> list[str]:
    """The releases that `of_reproducer` asks, the oldest first."""
    return _asked(None, None, (), live)[0]


def of_reproducer(
    session: Session, folder: Path, chosen: SourceOptions, live: Live
) -> ReleasesFound:
    """Verdicts of the available releases on a reproducer's folder; raises as `bisect`."""
    asked = _ReleasesRequest(str(folder), chosen, (), *_asked(None, None, (), live), every=False)
    return _find(session, asked, None, live)[1]


class _ReleasesRequest(NamedTuple):
    """Request of the user, for all targets. names: of the releases; get: gets one."""

    source: str
    chosen: SourceOptions
    flags: tuple[str, ...]
    names: list[str]
    get: Get
    every: bool


def _find(
    session: Session, asked: _ReleasesRequest, target: str | None, live: Live
) -> tuple[Question, ReleasesFound]:
    """(question, answer). Raises TraceFailed."""
    from iree_pilot.pipeline.cli.boundary import Interrupted
    from iree_pilot.pipeline.frontends.load import TraceFailed
    from iree_pilot.repro.since_release import question as release_question
    from iree_pilot.repro.since_release import trials as release_trials

    names, get, chosen = asked.names, asked.get, asked.chosen
    _check_flags(session, asked, target)
    question, loaded = _question(session, asked.source, target, chosen, asked.flags, live)

    answers: dict[str, str] = {}

    def progress(name: str, what: str) -> None:
        answers[name] = what
        live.note(f"  {name:<8} {what}")
        live.doing(f"asking at most {count(len(names), 'release')}, {len(answers)} answered")

    def ask(question: Question, loaded: Loaded | None) -> ReleasesFound:
        trials = release_question.trials(
            question,
            session.toolchain,
            get,
            loaded=loaded,
            fresh=chosen.fresh,
            on_progress=progress,
        )
        with live.working(f"trying {count(len(names), 'release')}", "try"):
            return release_trials.bisect(
                names,
                trials,
                wanted=question.failure,
                reference=_named(session.common.release),
                every=asked.every,
            )

    try:
        found = ask(question, loaded)
    except KeyboardInterrupt:
        raise Interrupted({"answers": answers}) from None
    if found.failure is None and (inlined := _inlined(question, loaded)):
        live.note("none fails; with the weights in the program as constants:")
        with contextlib.suppress(TraceFailed):
            again = ask(inlined, None)
            if again.failure is not None:
                compiles = found.compiles + again.compiles
                question = inlined
                found = msgspec.structs.replace(again, inline=True, compiles=compiles)
    return question, found


def _scripts(
    question: Question, found: ReleasesFound, place: Path, *, default: bool
) -> ReleasesFound:
    """The answer with a script in `place` for each change.

    default: nobody named it: where it is another failure's, the signature goes into the name.
    """
    from iree_pilot.repro.since_release import question as release_question

    question = msgspec.structs.replace(question, failure=found.failure)
    scripts = release_question.write(place, question, found.boundaries, default=default)
    return msgspec.structs.replace(found, boundaries=scripts)


def _fails(found: ReleasesFound) -> bool:
    return found.failure is not None and "same" in found.releases.values()


def _place(source: str, output: str | None, target: str | None, targets: int) -> Path:
    """Folder of the scripts: as the user said, or here."""
    if output is None:
        return several.place("releases", source, target or "")
    return Path(output, several.slug(target)) if target and targets > 1 else Path(output)


@click.command(
    "ask",
    epilog=examples(
        "iree-pilot releases ask releases-model-vulkan --toolchain build",
        "iree-pilot releases ask releases-model-vulkan --toolchain build --json",
    ),
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--toolchain", metavar="PATH", help="A local build.", required=True)
@trust_option
@common(release=True, to="Read the program in DIR with this release")
def ask(directory: Path, toolchain: str, trust: bool, common: Common) -> None:
    """Test one compiler as `releases bisect` does, and print its verdict.

    For scripts: DIR is a folder that `releases bisect` wrote.
    """
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.toolchain import releases
    from iree_pilot.repro.since_release import question as release_question

    one = releases.find(str(Path(toolchain).absolute()))
    reader = releases.find(common.release)
    said, why = release_question.ask(directory, one, reader, trust=trust)
    if common.json:
        out.emit({"verdict": said, "reason": why})
        return
    click.echo(said)
    if common.verbosity >= 0:
        click.echo(plain(why), err=True)


def _asked(
    first: str | None, last: str | None, toolchains: Sequence[Path], live: Live
) -> tuple[list[str], Get]:
    """(names, the oldest first; what gets the toolchain of one)."""
    from functools import partial

    from packaging.version import Version

    from iree_pilot.pipeline.errors import UsageError
    from iree_pilot.pipeline.toolchain import releases, toolchain

    for bound in filter(None, (first, last)):
        releases.normal(bound)
    if not toolchains:
        names = _between(releases.here_or_available(live.note), first, last)
        return names, lambda name: releases.find(name, live.note)
    if first or last:
        raise UsageError(
            "--from and --to name releases, --toolchain asks others in their place",
            advice="Give the toolchains to test, the oldest first.",
        )
    ways: dict[str, Get] = {}
    broken, whole = None, False
    for path in (path.absolute() for path in toolchains):
        if releases.has_wheels(path):
            versions = sorted(releases.available(wheels=path), key=Version)
            way: Get = partial(releases.install, tell=live.note, wheels=path)
            ways |= dict.fromkeys(versions, way)
            whole = True
        else:
            try:
                toolchain.compiler_in(path)
            except UsageError as fault:  # the answers tell of it, if there is another one to ask
                broken = fault
            else:
                whole = True
            ways[str(path)] = releases.find
    if broken is not None and not whole:
        raise broken
    return list(ways), lambda name: ways.get(name, releases.find)(name)


def _named(release: str | None) -> str | None:
    """The user's --release as releases are named here: a version, or an absolute path."""
    from iree_pilot.pipeline.toolchain import releases

    if release is None:
        return None
    if releases.is_directory(release):
        return str(Path(release).expanduser().absolute())
    return releases.normal(release)


def _between(names: list[str], first: str | None, last: str | None) -> list[str]:
    from iree_pilot.pipeline.errors import UsageError
    from iree_pilot.pipeline.toolchain import releases

    bounds = [releases.normal(bound) if bound else None for bound in (first, last)]
    for bound in bounds:
        if bound is not None and bound not in names:
            raise UsageError(
                f"there is no release {bound} to be asked", advice=f"There are: {', '.join(names)}."
            )
    begin = names.index(bounds[0]) if bounds[0] else 0
    end = names.index(bounds[1]) if bounds[1] else len(names) - 1
    if begin > end:
        raise UsageError(f"--from {first} is newer than --to {last}", advice="Swap them.")
    return names[begin : end + 1]


def _check_flags(session: Session, asked: _ReleasesRequest, target: str | None) -> None:
    """Raises UsageError for flags that no compiler at hand has: ours, the oldest, the newest."""
    from iree_pilot.pipeline.errors import PilotError
    from iree_pilot.pipeline.targets import targets
    from iree_pilot.pipeline.toolchain import flags
    from iree_pilot.pipeline.toolchain.compiler import check_flags

    check_flags(asked.flags)
    if reproducer.is_folder(asked.source):
        target, _ = reproducer.target(asked.source, target, ())
    if not asked.flags or target is None:
        return
    parsed = targets.parse(target)

    def refusal(toolchain: Toolchain) -> PilotError | None:
        plan = targets.plan(parsed, toolchain, None, user_flags=asked.flags)
        return flags.refusal(toolchain, plan.flags, asked.flags)

    fault = refusal(session.toolchain)
    for name in dict.fromkeys((asked.names[-1], asked.names[0])) if fault else ():
        with contextlib.suppress(PilotError):
            if refusal(asked.get(name)) is None:
                return
    if fault:
        raise fault


def _question(
    session: Session,
    source: str,
    target: str | None,
    chosen: SourceOptions,
    flags: tuple[str, ...],
    live: Live,
) -> tuple[Question, Loaded | None]:
    from iree_pilot.pipeline.targets import targets
    from iree_pilot.repro.since_release import question as release_question
    from iree_pilot.repro.since_release.question import Question
    from iree_pilot.repro.trust.trust import open_folder
    from iree_pilot.repro.workarounds import by_itself

    if reproducer.is_folder(source):
        reproducer.announce(open_folder(Path(source), trust=chosen.trust))
        question = release_question.of_reproducer(Path(source), session.limits, trust=chosen.trust)
        planned = targets.parse(target) if target else question.target
        flags = (*question.flags, *flags)
        return msgspec.structs.replace(question, target=planned, flags=flags), None
    if target is None:
        raise reproducer.no_target(source)
    parsed = targets.parse(target)
    plan = targets.plan(parsed, session.toolchain, None, user_flags=flags)
    loaded = session.program(source, chosen, live)
    live.program(loaded)
    loaded = by_itself.apply(loaded, plan, session.context)
    own = [one.note for one in loaded.program.decomposed if one.target]
    for label, texts in (("warning", plan.warnings), ("note", own)):
        for text in texts:
            live.note(f"  {label}: {text}")
    question = Question(
        job=session.job_with_inputs(source, chosen),
        target=plan.target,
        flags=flags,
        time_limit=session.limits.seconds,
        memory_limit=session.limits.memory_bytes,
        reader=_named(session.common.release),
    )
    return question, loaded


def _inlined(question: Question, loaded: Loaded | None) -> Question | None:
    """The question with the weights as constants, which some releases fail on; None where there
    are none or too many, or they are there already.
    """
    job = question.job
    if loaded is None or job.inline or job.weights or loaded.program.parameters is None:
        return None
    held = [Path(loaded.directory, name) for name in loaded.program.parameters.archives]
    if not held or sum(file.stat().st_size for file in held) > _INLINED_BYTES:
        return None
    return msgspec.structs.replace(question, job=msgspec.structs.replace(job, inline=True))


def _tell(console: Any, found: ReleasesFound) -> None:
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.repro.since_release.release_search import TELLING

    signature = found.failure.signature if found.failure else ""
    if signature:
        console.print(f"\n[bold]{escape(signature)}[/bold]", soft_wrap=True)
    table = out.table("release", "verdict", "commit", "details")
    for name, said in found.releases.items():
        style = _STYLES[said]
        inferred = name in found.assumed
        seen = "not tested: those around it agree" if inferred else found.reasons.get(name, "")
        table.add_row(
            escape(name),
            f"[{style}]{said}[/{style}]{' (assumed)' if inferred else ''}",
            found.revisions.get(name, "")[:12],
            escape("" if said == "same" and seen.startswith(f"{signature}:") else seen),
        )
    console.print(table)
    for change in found.boundaries:
        how = "appears" if change.came else "disappears"
        line = (
            f"\nit {how} between {change.older} ({change.older_verdict}) and "
            f"{change.newer} ({change.newer_verdict})"
        )
        if change.between:
            line += f"; no verdict from {', '.join(change.between)} in between"
        console.print(escape(line), soft_wrap=True)
        console.print(
            f"  commits {change.older_revision or 'unknown'} .. "
            f"{change.newer_revision or 'unknown'}",
            soft_wrap=True,
        )
        console.print(f"  git bisect run {escape(change.script)}", soft_wrap=True, no_wrap=True)
    if not set(TELLING) & set(found.releases.values()):
        console.print("\nno tested release gives a verdict")
    elif found.failure is None:
        console.print("\nno tested release fails: there is nothing to bisect")
    elif not _fails(found):
        console.print("\nno tested release reproduces it")
    elif not found.boundaries:
        console.print("\nall releases that give a verdict agree")
    if found.inline:
        console.print("\nonly with the weights as constants (--inline-parameters)")
    if found.assumed:
        console.print("\nassumed: nothing changes between two releases that agree (--every tests)")
    console.print(out.count(found.compiles, "compile"))
