"""`iree-pilot bisect`: the smallest program that fails in the same way, in a folder of its own."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from iree_pilot.pipeline.cli import recipes, several
from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import (
    TEXT,
    Common,
    SourceOptions,
    common,
    expected_option,
    folder_option,
    recipe_option,
    source_options,
    targets_option,
)

if TYPE_CHECKING:
    from iree_pilot.pipeline.case_result import CaseResult
    from iree_pilot.pipeline.cli.recipes import Cooking
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.frontends.load import Loaded, TraceFailed
    from iree_pilot.pipeline.targets.targets import Plan
    from iree_pilot.repro.bisect import Bisection, Reproducer
    from iree_pilot.repro.differential.against import Differential


#: A module that does not trace: up to so many of its operations are named, else counted.
_NAMED = 6


@click.command(
    "bisect",
    epilog=examples(
        "iree-pilot bisect model.py -t llvm-cpu",
        "iree-pilot bisect llama-fp8 -t vulkan --all -o failures",
        "iree-pilot bisect model.py -t vulkan --against llvm-cpu",
    ),
)
@source_options
@targets_option("Isolate what fails for each")
@click.option("--device", type=TEXT, metavar="URI", help="Run on this device (iree-pilot targets).")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Isolate every blocking failure: mask each and continue.",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Also find since which release it fails, and a workaround, for the issue. Takes minutes: "
    "the releases are downloaded once, and each compiles the reproducer.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="TARGET|FLAG",
    help="Compare dispatch by dispatch with another target, or with other iree-compile flags "
    "(--against=--iree-opt-level=O0); once for each.",
)
@expected_option
@recipe_option
@folder_option("the reproducer", default="repro-SOURCE-TARGET here")
@common(limits=True, release=True)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def command(
    source_options: SourceOptions,
    target: str | None,
    device: str | None,
    everything: bool,
    deep: bool,
    against: tuple[str, ...],
    expected: tuple[str, ...],
    recipe: str | None,
    output: str | None,
    common: Common,
    flags: tuple[str, ...],
    source: str,
) -> None:
    """Reduce the failure of SOURCE for each TARGET to a minimal, verified reproducer.

    Isolates failures to trace, compile, load and run, and wrong numbers: the first operation whose
    result is wrong given correct inputs.

    With --all, every blocking failure is isolated: each is masked in the whole program (the results
    of its operations become arguments) and the search continues until nothing fails. The failure
    that blocks most of the program is listed first; each has a folder of its own.

    With --against, SOURCE is compiled to flow for TARGET once, and from there for both sides. Each
    dispatch runs for TARGET with the values that the other side computes; the first one whose
    results differ is isolated. This needs no reference in PyTorch.

    With --deep, `releases bisect` and `workaround` then run on each reproducer; their answers go
    into its report.json, README.md and ISSUE.md. This takes minutes; an estimate is printed before
    it starts. An open question is noted there and does not change the exit code.

    FLAGS after -- go to iree-compile and are kept. Interrupted searches resume. For a failure that
    was isolated before, the existing reproducer is printed (--fresh isolates again). The
    reproducer's path is the last line printed. With several targets, --json prints `results`, each
    with its `target`. Exit code 0: every failure was isolated; 1: nothing fails, or something could
    not be isolated.
    """
    from iree_pilot.pipeline.cli import reproducer
    from iree_pilot.pipeline.cli.boundary import Failed
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.processes import fork_servers
    from iree_pilot.pipeline.store import outputs
    from iree_pilot.pipeline.toolchain.compiler import check_flags
    from iree_pilot.repro.bisect import Bisection

    if against and expected:
        raise click.UsageError("--against compares two sides: it takes no --expected-output")
    if against and device:
        raise click.UsageError("--against names both sides by their targets: it takes no --device")
    if against and recipe:
        raise click.UsageError("--against compares two sides: it takes no --recipe")
    if against and deep:
        raise click.UsageError("--against compares two sides: it takes no --deep")
    check_flags(flags)
    if output:
        outputs.directory(Path(output))
        outputs.check_writable(Path(output), replaced=True)
    else:
        several.check_default_place()
    if against and everything:
        raise click.UsageError("--against finds the first dispatch that differs: it takes no --all")
    flagged, named = target is None, source
    target, flags = reproducer.target(source, target, flags, trust=source_options.trust)
    source, source_options = reproducer.source(source, source_options, flagged=flagged)
    held, source_options = recipes.read(recipe, source_options)
    console = out.console(stderr=common.json)
    results: list[tuple[str, Bisection | Differential]] = []
    with Live.of(console, common) as live, fork_servers.serving():
        if not against:
            _start_loading(source)
        session = Session(common, live)
        plans = session.plans(target, device, flags)
        asked = Asked(source, source_options, flags, expected, against, everything, output)
        cooking = recipes.Cooking(
            source=source, chosen=source_options, flags=flags, device=device, recipe=held
        )
        if output:
            _check_places(asked, [spec for spec, _ in plans], named)
        further = functools.partial(_further, session, source_options, device) if deep else None
        with several.finishing(results, targets=len(plans)):
            for name, result in _each(session, asked, plans, live, cooking):
                live.close()
                results.append((name, result))
                if further is not None:
                    result = further(result, live)
                    results[-1] = (name, result)
                if not common.json and all(result is not before for _, before in results[:-1]):
                    several.heading(console, name, len(plans))
                    _tell_either(console, result)
    results = _named(results)
    if common.json:
        document = several.document(results, targets=len(plans), took=live.took)
        out.emit({**document, **cooking.document(plans)})
    else:
        live.summary()
        tell_elsewhere(
            console, [(name, one) for name, one in results if isinstance(one, Bisection)]
        )
        tell_next(console, [one for _, one in results if isinstance(one, Bisection)])
        tell_places(console, [result for _, result in results])
    if output and common.json:  # the folder is the last line otherwise
        made = [f.reproducer for _, one in results for f in one.failures if f.reproducer]
        for path in dict.fromkeys(one.path for one in made):
            out.wrote(path, quiet=common.verbosity < 0)
    said = {result.status for _, result in results}
    if "isolated" not in said or "gave-up" in said:
        raise Failed(1)


def _start_loading(source: str) -> None:
    """Makes servers load what an isolation needs, while the program is traced and compiled."""
    from iree_pilot.pipeline.processes import fork_servers
    from iree_pilot.repro.ir import bindings

    fork_servers.start(bindings.LOADED)
    if Path(source).suffix not in (".mlir", ".mlirbc"):  # of those, if they are of PyTorch
        fork_servers.start(fork_servers.TORCH)


def _named(
    results: list[tuple[str, Bisection | Differential]],
) -> list[tuple[str, Bisection | Differential]]:
    """The results, with those of several targets that are the same failure."""
    from iree_pilot.repro.bisect import Bisection
    from iree_pilot.repro.reproducer.known import alike

    found = [(name, one) for name, one in results if isinstance(one, Bisection)]
    return [*alike.named(found)] if len(found) == len(results) > 1 else results


class Asked(NamedTuple):
    """The user's request, for any target.

    flags: for the compile. everything: all that keeps it from working, each masked in turn. output:
    the folder; without one it is made where the user is.
    """

    source: str
    chosen: SourceOptions
    flags: tuple[str, ...]
    expected: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    everything: bool = False
    output: str | None = None

    def place(self, target: str, targets: int) -> str | None:
        """The folder that -o names, or of several targets that of one in it."""
        if self.output is None or targets == 1:
            return self.output
        return str(Path(self.output, several.slug(target)))


def _check_places(asked: Asked, targets: list[str], named: str) -> None:
    """Raises UsageError where a reproducer would take the place of what is read."""
    from iree_pilot.pipeline.cli import reading, reproducer
    from iree_pilot.pipeline.store import outputs

    read = reading.files(asked.source, asked.chosen, asked.expected, named=named)
    if asked.everything:  # folders in the one that is named
        read = [file for file in read if reproducer.is_folder(str(file.parent))]
    for place in {asked.place(target, len(targets)) for target in targets}:
        outputs.refuse_held(Path(place or ""), read)


def _each(
    session: Session, asked: Asked, plans: list[tuple[str, Plan]], live: Any, cooking: Cooking
) -> Iterator[tuple[str, Bisection | Differential]]:
    """Results for the targets, one after the other; a failure to trace is one for all of them."""
    from iree_pilot.pipeline.cli.failures import against as dispatches
    from iree_pilot.pipeline.frontends.load import TraceFailed
    from iree_pilot.repro.bisect import Bisection

    source, chosen, flags = asked.source, asked.chosen, asked.flags
    compared = [
        dispatches.sides(session, target, asked.against, flags)
        for target, _ in plans
        if asked.against
    ]
    try:
        loaded = session.program(source, chosen, live, expected=asked.expected)
    except TraceFailed as failed:
        untraceable = untraced(session, failed, asked, plans[0][0], live)
        yield from ((target, untraceable) for target, _ in plans)
        return
    for number, (target, plan) in enumerate(plans):
        place = asked.place(target, len(plans))
        if asked.against:
            sides = compared[number]
            folder = _place(source, place, target), place is None
            yield target, dispatches.bisect(session, loaded, sides, chosen, folder, live)
            continue
        if note := cooking.summary(target, plan):
            live.note(note)
        made = cooking.applied(session, loaded, plan)
        attempt = functools.partial(_case, session, made.plan, chosen, made.flags, live)
        settled, case = session.settled(made.loaded, attempt, live)
        placed = asked._replace(output=place, flags=made.flags)
        found = isolate(session, settled, case, made.plan, placed, live)
        if found is None and settled.program.decomposed:
            found = _gap(session, settled, plan, asked._replace(output=place), live)
        yield target, found or Bisection(status="passes", why=_passes(asked, target, case))


def _gap(session: Session, loaded: Loaded, plan: Plan, asked: Asked, live: Any) -> Bisection | None:
    """Isolates what IREE does not compile of a model that runs, as it was decomposed."""
    names = ", ".join(one.op for one in loaded.program.decomposed)
    live.note(f"nothing else fails: isolating what is decomposed, as IREE has it ({names})")
    chosen = msgspec.structs.replace(asked.chosen, leave=("all",))
    left = session.program(asked.source, chosen, live, expected=asked.expected)
    attempt = functools.partial(_case, session, plan, chosen, asked.flags, live)
    left, case = session.settled(left, attempt, live)
    return isolate(session, left, case, plan, asked._replace(chosen=chosen), live)


def _further(
    session: Session, chosen: SourceOptions, device: str | None, result: Any, live: Any
) -> Any:
    from iree_pilot.pipeline.cli.failures import deep

    return deep.ask(session, result, chosen, device, live)


def _tell_either(console: Any, result: Bisection | Differential) -> None:
    from iree_pilot.pipeline.cli.failures import against as dispatches
    from iree_pilot.repro.bisect import Bisection

    if isinstance(result, Bisection):
        tell(console, result)
    else:
        dispatches.tell(console, result)


def _passes(asked: Asked, target: str, case: CaseResult) -> str:
    from iree_pilot.pipeline.cli.failures import following
    from iree_pilot.pipeline.numerics import numerics

    source = asked.source
    if case.status == "compiled":
        return f"{source} compiles for {target} and is not run here ({case.steps[-1].why})"
    runs = f"{source} compiles and runs for {target}"
    if case.status == "ok":
        return f"{runs}, and agrees with its reference"
    compared = (f.comparison for f in case.functions if f.comparison)
    alone = "; no operation of it that can be compared is wrong by itself"
    return (
        f"{runs}, and its numbers were {case.why.removeprefix('ran, ')}"
        f"{alone if any(map(numerics.hides, compared)) else ''} "
        "(two targets, dispatch by dispatch: iree-pilot bisect "
        f"{shlex.join(following.source_words(source, asked.chosen))} -t {target} --against TARGET)"
    )


def _case(
    session: Session,
    plan: Plan,
    chosen: SourceOptions,
    flags: tuple[str, ...],
    live: Any,
    loaded: Loaded,
) -> CaseResult:
    from iree_pilot.pipeline import case
    from iree_pilot.pipeline.case import Settings

    settings = Settings(
        flags=flags, fresh=chosen.fresh, latency_budget=0, hasty=session.limits.default
    )
    live.program(loaded)
    return case.run(loaded, plan, session.context, settings, live)


def isolate(
    session: Session, loaded: Loaded, case: CaseResult, plan: Plan, asked: Asked, live: Any
) -> Bisection | None:
    """Isolates the failure of a case, as `asked`.

    Of one whose numbers could not be compared, an operation that is wrong by itself. None where
    there is nothing to isolate.
    """
    from iree_pilot.repro import failed
    from iree_pilot.repro.options import Listeners, Options

    act = failed.isolate if case.failure is not None else failed.isolate_hidden
    options = Options(
        place=_place(loaded.program.source, asked.output, case.target),
        default=asked.output is None,
        flags=asked.flags,
        seed=asked.chosen.seed,
        everything=asked.everything,
        fresh=asked.chosen.fresh,
    )
    listeners = Listeners(
        started=live.isolating,
        progress=live.progress,
        on_wait=lambda: live.note("another process is isolating the same; waiting"),
    )
    return act(loaded, case, plan, session.context, options, listeners)


def untraced(
    session: Session, refused: TraceFailed, asked: Asked, target: str, live: Any
) -> Bisection:
    """Isolates why the source does not trace."""
    from iree_pilot.repro import failed
    from iree_pilot.repro.options import Listeners, Options

    live.isolating(refused.failure)
    options = Options(
        place=_place(asked.source, asked.output),
        default=asked.output is None,
        seed=asked.chosen.seed,
        fresh=asked.chosen.fresh,
    )
    job, listeners = session.job(asked.source, asked.chosen), Listeners(progress=live.progress)
    return failed.isolate_trace(job, refused, target, session.context, options, listeners)


def _place(source: str, output: str | None, target: str = "") -> Path:
    """Folder of a reproducer: as the user said, or here, named after source and target.

    target: empty for a failure to trace, which is the same for all targets.
    """
    return Path(output) if output else several.place("repro", source, target)


def _pass(made: Reproducer) -> str:
    """The pass that fails, by both its names."""
    names = [name for name in (made.pass_name, made.pass_class) if name]
    label = f"{names[0]} ({names[1]})" if len(names) == 2 else "".join(names)
    return f"{label}, not confirmed by iree-opt" if label and "pass" not in made.levels else label


def _origin(made: Reproducer) -> list[tuple[str, str]]:
    """Pass and phase that wrong numbers come from."""
    if made.origin is None:
        return []
    phase = made.origin.phase
    return [
        ("pass", f"{phase.pass_name} ({phase.pass_class})" if phase.pass_name else ""),
        ("phase", phase.conclusion),
    ]


def tell(console: Any, result: Bisection) -> None:
    """Prints the result of a bisection, without the folders' paths."""
    from rich.markup import escape

    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.failures import following

    if result.status == "passes":
        console.print(f"{escape(result.why)}: there is nothing to isolate", soft_wrap=True)
        return
    for found in result.failures:
        console.print(f"\n[bold]{escape(found.failure.signature)}[/bold]")
        made = found.reproducer
        if made is None or made.whole:
            console.print(f"  not isolated: {escape(found.why)}", soft_wrap=True)
        if made is None:
            continue
        if found.known_since:
            copied = f", copied from {found.copied_from}" if found.copied_from else ""
            since = f"known since {found.known_since}: {made.path}{copied}"
            console.print(f"  {escape(since)}", soft_wrap=True)
        minimal = "minimal" if made.minimal else "not proved minimal"
        verified = "verified" if made.verified else "[red]NOT verified[/red]"
        traced = found.failure.phase == "trace"
        names = "" if made.whole or (traced and made.ops > _NAMED) else ", ".join(made.op_names)
        left = ": ".join(filter(None, (out.count(made.ops, "operation"), names)))
        if traced and made.ops > _NAMED:
            left = f"one module, which calls {left}"
        blocks = f"{out.count(found.blocks, 'operation')} in {out.count(found.places, 'place')}"
        asked = "trace" if traced else "compile"
        search = out.count(made.oracle_calls, asked)
        pairs = [
            ("where", "" if made.whole else found.why),
            ("line", escape(found.failure.location or "") if traced else ""),
            ("blocks", blocks if found.blocks else ""),
            ("not reduced" if made.whole else "reduced to", left),
            *(("also", escape(one.message)) for one in made.companions),
            ("pass", _pass(made)),
            *(("shows", escape(line)) for line in made.shows),
            *_origin(made),
            ("attribution", escape(made.attribution)),
            ("limitation", following.limitation(made.named_flags)),
            ("state", f"{minimal}, {verified}; levels: {', '.join(made.levels) or 'none'}"),
            ("rate", "" if found.rate is None else f"intermittent: {found.rate:.0%} of runs"),
            ("search", "" if found.known_since else search),
            ("releases", escape(made.since_release.said) if made.since_release else ""),
            ("workaround", escape(made.workarounds.said) if made.workarounds else ""),
            ("latest", escape(f"{made.path}; {found.beside}") if found.beside else ""),
        ]
        for label, text in pairs:
            if text:
                whole = label == "workaround"  # it ends in a command to be pasted
                console.print(f"  [dim]{label:<11}[/dim] {text}", soft_wrap=True, no_wrap=whole)
    if result.unblocked:
        console.print("\nwith these masked, nothing else fails")
    elif result.unblocked is False:
        console.print("\na failure that could not be isolated may hide later ones")
    for failure in result.seen:
        console.print(
            f"also seen: {escape(failure.kind)}: {escape(failure.message)}", soft_wrap=True
        )


def tell_elsewhere(console: Any, results: Sequence[tuple[str, Bisection]]) -> None:
    """Prints failures that several targets share, each pair once; of one that no target has a part
    in, which folder an issue is to be made of."""
    from rich.markup import escape

    from iree_pilot.repro.reproducer.folder import issue

    printed = set[frozenset[Path]]()
    for target, result in results:
        for found in result.failures:
            if (made := found.reproducer) is None:
                continue
            own = Path(made.path).absolute()
            alike = [one for one in made.elsewhere if one.signature]
            phase = issue.failing_phase(found.failure, made.origin)
            if alike and issue.shared(phase, target, [one.target for one in alike]):
                places = {own, *(Path(one.path).absolute() for one in alike)}
                if any(both <= places for both in printed):
                    continue
                printed |= {frozenset((a, b)) for a in places for b in places if a != b}
                names = ", ".join([target, *(one.target for one in alike)])
                line = f"the same failure, in phase {phase}, for {names}: one issue is enough, "
                console.print(escape(f"{line}for example of {made.path}"), soft_wrap=True)
            for one in made.elsewhere:
                place = Path(one.path)
                if (both := frozenset((own, place.absolute()))) in printed:
                    continue
                printed.add(both)
                beside = own.parent / place.name
                # As it was called when it was made, which may have been in another directory.
                shown = beside if not place.exists() and beside.exists() else place
                line = f"what fails on {target} also fails on {one.target} ({one.said}): "
                line += str(shown)
                console.print(escape(line), soft_wrap=True)


def tell_next(console: Any, results: Sequence[Bisection]) -> None:
    """Prints what to do with the first reproducer of which the releases were not asked yet.

    A remedy that the compiler names comes before that.
    """
    from rich.markup import escape

    from iree_pilot.pipeline.cli.display import output as out

    found = (one for result in results for one in result.failures if one.failure.phase != "trace")
    for made in (one.reproducer for one in found):
        if made is not None and made.verified and made.since_release is None:
            remedy = made.named_flags and made.workarounds is None
            asks = ("workaround",) if remedy else ("releases", "bisect")
            console.print(escape(f"report: {made.path}/ISSUE.md"), soft_wrap=True, no_wrap=True)
            out.print_next(console, "next", ("iree-pilot", *asks, made.path))
            return


def tell_places(console: Any, results: Sequence[Bisection | Differential]) -> None:
    """The paths of the reproducers' folders: the last lines."""
    paths = [f.reproducer.path for one in results for f in one.failures if f.reproducer]
    for path in dict.fromkeys(paths):
        console.print(path, markup=False, soft_wrap=True)
