"""`iree-pilot workaround`: what gets SOURCE past its failure today, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from iree_pilot.pipeline.cli import reproducer, several
from iree_pilot.pipeline.cli.failures.following import source_words
from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import (
    TEXT,
    Common,
    SourceOptions,
    budget_option,
    common,
    folder_option,
    source_options,
    targets_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.frontends.load import Loaded
    from iree_pilot.pipeline.targets.targets import Plan
    from iree_pilot.repro.workarounds.answers import Cost, WorkaroundAnswer
    from iree_pilot.repro.workarounds.find_workarounds import SearchOptions, Workarounds
    from iree_pilot.repro.workarounds.search_progress import CombinationProgress

_STYLES = {
    "works": "green",
    "runs": "yellow",
    "compiles": "yellow",
    "further": "cyan",
    "same": "dim",
    "other": "magenta",
}
_SAID = {"works": "works", "runs": "runs, not compared", "compiles": "compiles, not run here"}
#: Lines before the outcomes of a round, and words for it at the bottom of a terminal.
_ROUNDS = {
    "reproducer": "first on the reproducer of this failure, for the order to try them in",
    "program": "now on the whole program",
    "pairs": "none works alone: two at a time",
    "longer": "with more time, what took too long",
}
_WITH = {"reproducer": " on its reproducer", "pairs": " in pairs", "longer": " with more time"}
#: Number of candidates that did not work which are listed without -v.
_LISTED = 8


@click.command(
    "workaround",
    epilog=examples(
        "iree-pilot workaround attention:sdpa -t vulkan",
        "iree-pilot workaround repro-model-vulkan --budget 10min",
    ),
)
@source_options
@targets_option("Search for each")
@click.option("--device", type=TEXT, metavar="URI", help="Run on this device (iree-pilot targets).")
@click.option(
    "--all", "everything", is_flag=True, help="Try every candidate; do not stop at three."
)
@budget_option("Time limit of the whole search.")
@folder_option("rewritten programs", default="workaround-SOURCE-TARGET here")
@common(limits=True, release=True)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def command(
    source_options: SourceOptions,
    target: str | None,
    device: str | None,
    everything: bool,
    budget: float | None,
    output: str | None,
    common: Common,
    flags: tuple[str, ...],
    source: str,
) -> None:
    """Find flags or rewrites with which SOURCE compiles, runs and agrees with PyTorch.

    Candidates are compiler flags that its help lists, other architectures of the target that suit
    the device, other fields of a zoo model, and rewrites of the program. Those meant for such a
    failure are tried first, then the cheap ones; pairs only if no single one works. SOURCE may be a
    reproducer's folder: the answer is added to it.

    Each answer is confirmed by a second run and printed with its cost: what is lost, seconds to
    compile, latency, dispatches. For a target that cannot run here, an answer only compiles, and
    says so. The command to paste is the last line. FLAGS after -- go to iree-compile.

    Interrupted searches resume. With several targets, --json prints `results`, each with its
    `target`. Exit code 0: found for each target that fails; 1: none found for a target, or nothing
    fails.
    """
    from iree_pilot.pipeline.cli import reading
    from iree_pilot.pipeline.cli.boundary import Failed
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.frontends.load import TraceFailed
    from iree_pilot.pipeline.store import outputs
    from iree_pilot.pipeline.toolchain.compiler import check_flags
    from iree_pilot.repro import deep
    from iree_pilot.repro.trust.trust import open_folder
    from iree_pilot.repro.workarounds import answers, find_workarounds

    console = out.console(stderr=common.json)
    check_flags(flags)
    if output:
        outputs.directory(Path(output))
    name = source
    as_it_is = target is None and not (device or flags or source_options.inputs)
    if reproducer.is_folder(source):
        reproducer.announce(open_folder(Path(source), trust=source_options.trust))
        held = find_workarounds.of_reproducer(Path(source), trust=source_options.trust)
        source, target, flags = held.source, target or held.target, (*held.flags, *flags)
        inputs = source_options.inputs or held.inputs
        source_options = msgspec.structs.replace(source_options, inputs=inputs)
    if target is None:
        raise reproducer.no_target(source)
    read = reading.files(source, source_options)
    if output and reproducer.is_folder(output):  # which stays as it was written
        outputs.refuse_held(Path(output), read)
    results: list[tuple[str, Workarounds]] = []
    live = Live.of(console, common)
    with live:
        session = Session(common, live)
        plans = session.plans(target, device, flags)
        for place in {_place(name, output, named, len(plans)) for named, _ in plans}:
            answers.check_place(place, read)
    with live, several.finishing(results, targets=len(plans)):
        try:
            loaded = session.program(source, source_options, live)
        except TraceFailed as failed:
            live.note(f"{source} does not trace: {failed.failure.message}")
            live.note("The compiler has no part in that: iree-pilot bisect isolates it.")
            for way in _other_ways(session, source, source_options):
                live.note(f"The zoo makes it in another way, too: {way}")
            raise Failed(1) from None
        live.program(loaded)
        options = _search_options(session, source, source_options, flags, device)
        options = msgspec.structs.replace(options, enough=None if everything else 3, seconds=budget)
        for named, plan in plans:
            place = _place(name, output, named, len(plans))
            own = msgspec.structs.replace(options, place=place)
            result = _find(session, loaded, (named, plan), own, live)
            live.close()
            if not common.json:
                several.heading(console, named, len(plans))
                tell(console, result, verbose=common.verbosity > 0)
            results.append((named, result))
            if as_it_is and reproducer.is_folder(name) and result.tried:
                reproducer.keep(name, live.note, workarounds=deep.workarounds(result))
    if common.json:
        out.emit(several.document(results, targets=len(plans), took=live.took))
    else:
        _summary(live, results)
    if output:
        for program in (a.program for _, one in results for a in one.answers if a.program):
            out.wrote(program, quiet=common.verbosity < 0)
    said = {result.status for _, result in results}
    if "found" not in said or said - {"found", "passes"}:
        raise Failed(1)


def _place(source: str, output: str | None, target: str, targets: int) -> Path:
    """Folder of the programs that are rewritten for a target; targets: their number."""
    if output is None:
        return several.place("workaround", source, target)
    return Path(output, several.slug(target)) if targets > 1 else Path(output)


def of_reproducer(
    session: Session, folder: Path, chosen: SourceOptions, device: str | None, live: Live
) -> Workarounds:
    """Workarounds for the program of a reproducer's folder.

    chosen: of these options those that hold for any source. Raises TraceFailed, UsageError as
    `find.of_reproducer`.
    """
    from iree_pilot.repro.workarounds import find_workarounds

    held = find_workarounds.of_reproducer(folder, trust=chosen.trust)
    chosen = SourceOptions(
        settings={},
        dtype=None,
        seed=chosen.seed,
        weights=(),
        inputs=held.inputs,
        inline=False,
        fresh=chosen.fresh,
        trust=chosen.trust,
    )
    planned = session.plan(held.target, device, held.flags)
    loaded = session.program(held.source, chosen, live)
    options = _search_options(session, held.source, chosen, held.flags, device)
    place = several.place("workaround", str(folder))
    return _find(session, loaded, planned, msgspec.structs.replace(options, place=place), live)


def _search_options(
    session: Session, source: str, chosen: SourceOptions, flags: tuple[str, ...], device: str | None
) -> SearchOptions:
    from iree_pilot.repro.workarounds import find_workarounds

    return find_workarounds.SearchOptions(
        job=session.job_with_inputs(source, chosen),
        words=source_words(source, chosen),
        settings=chosen.settings | ({"dtype": chosen.dtype} if chosen.dtype else {}),
        flags=flags,
        device=device,
        limits=session.limits,
        fresh=chosen.fresh,
    )


def _find(
    session: Session, loaded: Loaded, target: tuple[str, Plan], options: SearchOptions, live: Live
) -> Workarounds:
    from iree_pilot.pipeline import case
    from iree_pilot.pipeline.case import Settings
    from iree_pilot.pipeline.cli.boundary import Interrupted
    from iree_pilot.repro.workarounds import by_itself, find_workarounds

    _, plan = target
    loaded = by_itself.apply(loaded, plan, session.context)
    settings = Settings(flags=options.flags, fresh=options.fresh, latency_budget=0)
    loaded, result = session.settled(
        loaded, lambda program: case.run(program, plan, session.context, settings, live), live
    )
    if result.failure:
        live.note(f"\nlooking for a way around {result.failure.signature}")
        live.doing("looking for a way around it", "search")

    tried: list[dict[str, Any]] = []
    rounds = ["program"]

    def progressed(progress: CombinationProgress) -> None:
        outcome = progress.outcome
        failure = outcome.failure
        tried.append(
            {
                "round": progress.round,
                "names": progress.names,
                "state": outcome.state,
                "signature": failure.signature if failure else "",
                "phase": failure.phase if failure else None,
                "why": outcome.why,
            }
        )
        if progress.round != rounds[-1]:
            rounds.append(progress.round)
            live.note(_ROUNDS[progress.round])
        label = f"[{progress.count}/{progress.total}]"
        live.note(f"  {label:>9} {outcome.state:<12} {' + '.join(progress.names)}")
        live.doing(
            f"looking for a way around it, {progress.count} of {progress.total} candidates tried"
            f"{_WITH.get(progress.round, '')}"
        )

    waiting = "another process is looking for the same; waiting"
    try:
        return find_workarounds.find(
            loaded,
            result,
            plan,
            session.toolchain,
            msgspec.structs.replace(options, on_wait=lambda: live.note(waiting)),
            on_progress=progressed,
        )
    except KeyboardInterrupt:
        failure = msgspec.to_builtins(result.failure)
        raise Interrupted({"failure": failure, "tried": tried}) from None


def _other_ways(session: Session, source: str, chosen: SourceOptions) -> list[str]:
    """Fields of a zoo model that does not trace with other values to try."""
    from iree_pilot.repro.workarounds import rewrites

    return [f"{one.name}: {one.reason}" for one in rewrites.of_zoo(session.job(source, chosen))]


def tell(console: Console, result: Workarounds, *, verbose: bool) -> None:
    """Prints the answers and the candidates tried, without the answers' commands."""
    from rich.markup import escape

    from iree_pilot.pipeline.cli.display import output as out

    if result.status == "passes":
        console.print(f"{escape(result.why)}: there is nothing to work around")
        return
    _tell_tried(console, result, verbose)
    search = out.count(result.compiles, "compile")
    if not result.answers:
        console.print(f"\nno workaround was found ({search}): {escape(result.why)}", soft_wrap=True)
        return
    console.print()
    table = out.table(
        "workaround",
        "",
        "loses",
        "compile",
        "latency",
        "dispatches",
        "relative L2",
        right=("compile", "latency", "dispatches", "relative L2"),
    )
    table.add_row("[dim]as it is[/dim]", "[red]fails[/red]", "", *_cost(result.default), "")
    for answer in result.answers:
        table.add_row(
            escape(" + ".join(answer.names)),
            f"[{_STYLES[answer.state]}]{_SAID[answer.state]}[/]",
            "" if answer.price == "free" else escape(answer.price),
            *_cost(answer.cost),
            f"{answer.comparison.rel_l2:.1e}" if answer.comparison else "",
        )
    console.print(table)
    console.print(search)


def _summary(live: Live, results: list[tuple[str, Workarounds]]) -> None:
    """Prints the times, then the answers, the best one last."""
    live.summary()
    for target, result in results:
        if not result.answers:
            continue
        several.heading(live.console, target, len(results))
        live.console.print()
        for answer in reversed(result.answers):
            _tell_answer(live.console, answer)


def _tell_tried(console: Console, result: Workarounds, verbose: bool) -> None:
    from rich.markup import escape

    from iree_pilot.pipeline.cli.display import output as out

    console.print(f"\n[bold]{escape(result.failure.signature if result.failure else '')}[/bold]")
    counts: dict[str, int] = {}
    for one in result.tried:
        counts[one.state] = counts.get(one.state, 0) + 1
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    console.print(f"tried {len(result.tried)}: {said}")
    shown = [
        one for one in result.tried if verbose or one.state in ("further", "other", "unresolved")
    ]
    if not shown:
        return
    table = out.table("tried", "", "details")
    for one in shown[: None if verbose else _LISTED]:
        style = _STYLES.get(one.state, "yellow")
        table.add_row(
            escape(" + ".join(one.names)),
            f"[{style}]{one.state}[/{style}]",
            escape(one.signature or one.why) + (f" in {one.phase}" if one.phase else ""),
        )
    console.print(table)
    if not verbose and len(shown) > _LISTED:
        console.print(f"... {len(shown) - _LISTED} more (-v)")


def _tell_answer(console: Console, answer: WorkaroundAnswer) -> None:
    from rich.markup import escape

    from iree_pilot.pipeline.cli.display import output as out

    for name, reason in zip(answer.names, answer.reasons, strict=True):
        console.print(f"[bold]{escape(name)}[/bold]: {escape(reason)}", soft_wrap=True)
    if answer.state in ("runs", "compiles"):
        console.print(f"  [yellow]{escape(answer.why)}[/yellow]: whether it agrees is not known")
    if answer.drift is not None:
        judged = "judged by" if answer.comparison else "to be judged by"
        console.print(
            f"  {judged} the reference of the program that it makes, which is "
            f"{answer.drift:.1e} (relative L2) from the original's"
        )
    if answer.program:
        console.print(f"  the rewritten program: {escape(answer.program)}", soft_wrap=True)
    if answer.other_inputs:
        console.print(
            "  the command makes up inputs: --input is for one function, and this program has "
            "several",
            soft_wrap=True,
        )
    console.print(f"{escape(out.command(answer.command))}\n", soft_wrap=True, no_wrap=True)


def _cost(cost: Cost) -> tuple[str, str, str]:
    from iree_pilot.pipeline.cli.display import output as out

    return (
        "-" if cost.compile_seconds is None else out.seconds(cost.compile_seconds),
        "-" if cost.latency_seconds is None else out.seconds(cost.latency_seconds),
        "-" if cost.dispatches is None else str(cost.dispatches),
    )
