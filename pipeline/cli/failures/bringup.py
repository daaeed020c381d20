"""`iree-pilot bringup`: past one failure after the other, until the model runs, and a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import click
import msgspec

from iree_pilot.pipeline.cli import several
from iree_pilot.pipeline.cli.failures.following import Typed
from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import (
    TEXT,
    Common,
    Place,
    SourceOptions,
    budget_option,
    common,
    folder_option,
    source_options,
    targets_option,
)
from iree_pilot.pipeline.cli.recipes import Cooking

if TYPE_CHECKING:
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.frontends.load import Loaded, TraceFailed
    from iree_pilot.pipeline.targets.targets import Plan
    from iree_pilot.repro.bringup.bringup import BroughtUp, Obstacle
    from iree_pilot.repro.bringup.recipe import Recipe, RecipeStep
    from iree_pilot.repro.workarounds.applied import Unchanged

#: The recipe's name in the folder.
RECIPE = "recipe.toml"
#: What is printed where nothing fails, by the verdict: nothing works that was not compared.
_VERDICTS = {
    "ok": "[green]works[/green]: it compiles, runs and agrees with PyTorch",
    "ran": "[yellow]runs[/yellow]: it compiles and runs; whether it is right is not known",
    "compiled": "[yellow]compiles[/yellow]: it was not run here",
}


@click.command(
    "bringup",
    epilog=examples(
        "iree-pilot bringup model.py -t llvm-cpu,vulkan",
        "iree-pilot bringup model.py -t vulkan --budget 10min -o bringup",
        "iree-pilot bringup model.py -t vulkan --recheck bringup-model/recipe.toml",
    ),
)
@source_options
@targets_option("Bring it up for each")
@click.option("--device", type=TEXT, metavar="URI", help="Run on this device (iree-pilot targets).")
@budget_option("Time limit for each target.")
@click.option(
    "--deep",
    is_flag=True,
    help="Also find since which release each failure occurs. Takes minutes: the releases are "
    "downloaded once, and each compiles the reproducers.",
)
@click.option(
    "--recheck",
    type=Place(dir_okay=False),
    metavar="FILE",
    help="Drop from this recipe what the compiler needs no more; it is written anew.",
)
@folder_option("the recipe and the reproducers", default="bringup-SOURCE here")
@common(limits=True, release=True)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def command(
    source_options: SourceOptions,
    target: str | None,
    device: str | None,
    budget: float | None,
    deep: bool,
    recheck: str | None,
    output: str | None,
    common: Common,
    flags: tuple[str, ...],
    source: str,
) -> None:
    """Get SOURCE past all that keeps it from running on each TARGET, and write a recipe.

    What fails is isolated into a verified reproducer; flags, rewrites of the program and switches
    of the model are tried on that, and what works is applied to the whole model. This is repeated
    until the model compiles, runs and agrees with PyTorch, or nothing is known that helps: what
    remains is then isolated and listed.

    The recipe (recipe.toml) holds what was applied, each with the failure that it answers and its
    price; `run`, `compile` and `bisect` take it with --recipe. What is done while the model is
    traced needs no recipe: it is listed there as `decomposed`.

    Interrupted searches resume. FLAGS after -- go to iree-compile. With several targets, --json
    prints `results`, each with its `target`. Exit code 0: the model works on each target; 1:
    something remains.
    """
    from rich.markup import escape

    from iree_pilot.pipeline.cli.boundary import Failed
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.processes import fork_servers
    from iree_pilot.pipeline.store import outputs
    from iree_pilot.pipeline.toolchain.compiler import check_flags
    from iree_pilot.repro.bringup import recipe as recipes

    check_flags(flags)
    if target is None:
        from iree_pilot.pipeline.cli import reproducer

        raise reproducer.no_target(source)
    place = Path(output) if output else several.place("bringup", source)
    if output:
        outputs.directory(place)
        outputs.check_writable(place)
    else:
        several.check_default_place()
    console = out.console(stderr=common.json)
    given = recipes.read(Path(recheck), trust=source_options.trust) if recheck else None
    results: list[tuple[str, BroughtUp]] = []
    with Live.of(console, common) as live, fork_servers.serving():
        session = Session(common, live)
        plans = session.plans(target, device, flags)
        asked = _BringupRequest(
            source=source,
            chosen=source_options,
            common=common,
            flags=flags,
            device=device,
            place=place,
            budget=budget,
            deep=deep,
        )
        course = _BringupCommand(asked, session, live)
        with several.finishing(results, targets=len(plans)):
            if given is not None:
                course.recheck(given, plans, results)
            else:
                course.bring_up(plans, results)
        recipe = course.recipe()
        if recipe is not None and not recipe.step and not recheck:
            recipe = None
    file = Path(recheck) if recheck else place / RECIPE
    if recipe is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        recipes.write(recipe, file)
    if common.json:
        more = {"recipe": recipe, "recipe_file": str(file) if recipe else None}
        out.emit({**several.document(results, targets=len(plans), took=live.took), **more})
    else:
        live.summary()
        for name, result in results:
            several.heading(console, name, len(plans))
            _tell(console, result)
        if course.loaded is not None:
            _tell_decided(console, course.loaded)
            for line in _ending(recipe, results, asked, file):
                console.print(escape(line), soft_wrap=True, no_wrap=True)
    if not results or any(one.status != "works" for _, one in results):
        raise Failed(1)


class _BringupRequest(Typed, frozen=True, kw_only=True):
    """The request. place: the folder; budget: seconds for each target; deep: releases are asked."""

    place: Path
    budget: float | None = None
    deep: bool = False


class _BringupCommand:
    """One command: the program as it traces, and what was found for each target."""

    def __init__(self, asked: _BringupRequest, session: Session, live: Live) -> None:
        self._asked, self._session, self._live = asked, session, live
        self.loaded: Loaded | None = None
        self._steps: list[RecipeStep] = []
        self._source = asked.source

    def bring_up(self, plans: list[tuple[str, Plan]], results: list[tuple[str, BroughtUp]]) -> None:
        """Brings the source up for each target."""
        from iree_pilot.repro.bringup import bringup as search
        from iree_pilot.repro.bringup import recipe as recipes
        from iree_pilot.repro.options import Listeners

        loaded = self._traced(plans[0][0])
        if loaded is None:
            return
        self._live.program(loaded)
        heard = search.Heard(
            watcher=self._live,
            listeners=Listeners(started=self._live.isolating, progress=self._live.progress),
            note=self._searching,
            tried=self._counting,
        )
        for name, plan in plans:
            folder = self._asked.place
            bounds = search.Bounds(
                place=folder / several.slug(name) if len(plans) > 1 else folder,
                seconds=self._asked.budget,
                seed=self._asked.chosen.seed,
                fresh=self._asked.chosen.fresh,
            )
            result, answered = search.bring_up(
                self._subject(loaded, plan), self._session.context, bounds, heard
            )
            if result.status == "remains":
                instead = self._seeded(loaded, name, plan)
                result = msgspec.structs.replace(result, instead=instead)
            self._live.close()
            results.append((name, result))
            self._steps += [
                recipes.step(
                    one.candidate, plan.target.backend, one.failure.signature, one.operation
                )
                for one in answered
            ]
            if self._asked.deep:
                past, remaining = (
                    tuple(map(self._dated, some)) for some in (result.past, result.remaining)
                )
                results[-1] = (
                    name,
                    msgspec.structs.replace(result, past=past, remaining=remaining),
                )
                self._live.close()

    def _seeded(self, loaded: Loaded, name: str, plan: Plan) -> tuple[str, ...]:
        """The command with which nothing fails, since what the program draws are inputs; () if
        there is none."""
        from iree_pilot.pipeline import case
        from iree_pilot.pipeline.case import Settings
        from iree_pilot.pipeline.cli.failures import following
        from iree_pilot.pipeline.errors import PilotError
        from iree_pilot.pipeline.frontends.load import TraceFailed
        from iree_pilot.pipeline.frontends.reference import drawing
        from iree_pilot.repro.workarounds import by_itself

        references = [one.reference for one in loaded.program.functions if one.reference]
        reasons = [why for one in references for why in one.incomparable]
        if not (following.can_be_seeded(self._asked) and drawing.can_all_be_inputs(reasons)):
            return ()
        asked = following.seeded(self._asked)
        self._live.note("trying --seeded: what the program draws are inputs")
        try:
            made = self._session.program(asked.source, asked.chosen, self._live)
        except (TraceFailed, PilotError):
            return ()
        made = by_itself.apply(made, plan, self._session.context)
        settings = Settings(flags=asked.flags, latency_budget=0)
        result = case.run(made, plan, self._session.context, settings, self._live)
        more = ("--device", asked.device) if asked.device else ()
        return () if result.failure else asked.command("run", name, *more)

    def _dated(self, one: Obstacle) -> Obstacle:
        """The obstacle, with the release since which it fails."""
        from iree_pilot.pipeline.cli.failures import deep

        if not one.verified or one.failure.phase == "trace":
            return one
        folder = Path(one.reproducer)
        known = deep.since_release(self._session, folder, self._asked.chosen, self._live)
        return msgspec.structs.replace(one, since=known.said)

    def _searching(self, text: str) -> None:
        self._live.close()
        self._live.note(text)
        self._live.doing("looking for a way past it", "search")

    def _counting(self, count: int, total: int) -> None:
        self._live.doing(f"looking for a way past it, {count} of {total} candidates tried")

    def recheck(
        self,
        given: Recipe,
        plans: list[tuple[str, Plan]],
        results: list[tuple[str, BroughtUp]],
    ) -> None:
        """Keeps of a recipe what is still needed for the targets, and all that is for others."""
        from iree_pilot.repro.bringup import recheck
        from iree_pilot.repro.bringup.bringup import BroughtUp

        own = self._asked
        named = {plan.target.backend for _, plan in plans}
        self._set(given.settings, own)
        loaded = self._session.program(self._asked.source, self._asked.chosen, self._live)
        self._live.program(loaded)
        traced = given.of("")
        if {one.backend for one in given.step} <= {"", *named}:  # what is for all, all are asked
            for one in given.of(""):
                without = tuple(other for other in traced if other is not one)
                if then := self._works_without(one, without, given, plans, own):
                    traced, loaded = without, then
        self._set(_fields(traced), own)
        self.loaded = loaded
        self._steps = [*traced, *(one for one in given.step if one.backend not in ("", *named))]
        for name, plan in plans:
            subject = self._subject(loaded, plan)
            steps = given.of(plan.target.backend)
            kept, result = recheck.needed(
                steps, subject, self._session.context, self._live, self._live.note
            )
            self._live.close()
            self._steps += kept
            made = BroughtUp(
                status="remains" if result.failure else "works",
                result=result,
                kept=tuple(one.name for one in (*traced, *kept)),
                dropped=tuple(
                    one.name for one in (*given.of(""), *steps) if one not in (*traced, *kept)
                ),
            )
            results.append((name, made))

    def _works_without(
        self,
        one: RecipeStep,
        others: tuple[RecipeStep, ...],
        given: Recipe,
        plans: list[tuple[str, Plan]],
        own: _BringupRequest,
    ) -> Loaded | None:
        """The program that the source traces to without a step at the trace, if all its targets
        work with the other steps; else None. own: the request without the recipe."""
        from iree_pilot.pipeline.frontends.load import TraceFailed
        from iree_pilot.repro.bringup import recheck

        self._set(_fields(others), own)
        self._live.note(f"trying without {one.name}")
        try:
            loaded = self._session.program(own.source, self._asked.chosen, self._live)
        except TraceFailed:
            return None
        for _, plan in plans:
            steps, subject = given.of(plan.target.backend), self._subject(loaded, plan)
            if not recheck.works(steps, subject, self._session.context, self._live):
                return None
        self._live.note(f"needed no more: {one.name} ({one.answers})")
        return loaded

    def _set(self, fields: Mapping[str, str], own: _BringupRequest) -> None:
        """Asks for the source as `own` does, with fields set at the trace."""
        settings = {**own.chosen.settings, **fields}
        chosen = msgspec.structs.replace(own.chosen, settings=settings)
        self._asked = msgspec.structs.replace(own, chosen=chosen)

    def recipe(self) -> Recipe | None:
        """The recipe of what was found; None where the source does not trace."""
        from iree_pilot.repro.bringup import recipe as recipes

        if self.loaded is None:
            return None
        return recipes.Recipe(
            source=self._source,
            iree=self._session.toolchain.version,
            decomposed=recipes.gaps(self.loaded.program.decomposed),
            step=tuple(one for n, one in enumerate(self._steps) if one not in self._steps[:n]),
        )

    def _traced(self, target: str) -> Loaded | None:
        """The program, with a switch set if only that lets it trace; None where nothing does."""
        from iree_pilot.pipeline.frontends.load import TraceFailed

        asked = self._asked
        try:
            self.loaded = self._session.program(asked.source, asked.chosen, self._live)
        except TraceFailed as failed:
            self.loaded = self._switched(failed)
            if self.loaded is None:
                self._untraced(failed, target)
        return self.loaded

    def _switched(self, failed: TraceFailed) -> Loaded | None:
        from iree_pilot.pipeline.errors import PilotError
        from iree_pilot.pipeline.frontends.load import TraceFailed
        from iree_pilot.repro.bringup import recipe as recipes
        from iree_pilot.repro.workarounds import rewrites

        asked, live = self._asked, self._live
        job = self._session.job(asked.source, asked.chosen)
        live.note(f"{asked.source} does not trace: {failed.failure.message}")
        for one in rewrites.at_trace(job, failed.failure):
            live.note(f"  trying {one.name}")
            settings = {**asked.chosen.settings, **one.fields}
            chosen = msgspec.structs.replace(asked.chosen, settings=settings)
            try:
                loaded = self._session.program(asked.source, chosen, live)
            except (TraceFailed, PilotError):
                continue
            one = rewrites.limited(one, loaded.program.decided)
            live.note(f"  it traces with {one.name}")
            self._asked = msgspec.structs.replace(asked, chosen=chosen)
            self._steps.append(recipes.step(one, "", failed.failure.signature, ""))
            return loaded
        return None

    def _untraced(self, failed: TraceFailed, target: str) -> None:
        """Isolates why the source does not trace, and prints that."""
        from iree_pilot.pipeline.cli.failures import bisect

        asked = self._asked
        request = bisect.Asked(
            asked.source, asked.chosen, asked.flags, output=str(asked.place / "gap-1")
        )
        asked.place.mkdir(parents=True, exist_ok=True)
        found = bisect.untraced(self._session, failed, request, target, self._live)
        self._live.close()
        bisect.tell(self._live.console, found)
        bisect.tell_places(self._live.console, [found])

    def _subject(self, loaded: Loaded, plan: Plan) -> Unchanged:
        asked = self._asked
        cooking = Cooking(
            source=asked.source, chosen=asked.chosen, flags=asked.flags, device=asked.device
        )
        return cooking.unchanged(self._session, loaded, plan)


def _fields(steps: Sequence[RecipeStep]) -> dict[str, str]:
    """Fields that steps set at the trace."""
    return {k: v for one in steps for k, v in one.fields.items()}


def _tell(console: Any, result: BroughtUp) -> None:
    """Prints what was in the way, what gets past it, and the verdict."""
    from rich.markup import escape

    from iree_pilot.pipeline.cli.display import output as out

    for one in (*result.past, *result.remaining):
        console.print(f"\n[bold]{escape(one.failure.signature)}[/bold]", soft_wrap=True)
        known = " + ".join(one.names)
        pairs = [
            ("operation", ", ".join(one.op_names) or one.why),
            ("past it with", known or _nothing(one, result)),
            ("which", "\n".join(one.reasons)),
            ("price", "none" if one.price == "free" else one.price),
            ("since", one.since),
            ("to report", one.reproducer + ("" if one.verified else " (NOT verified)")),
        ]
        if not one.reproducer:
            pairs = pairs[:-1]
        out.print_pairs(console, [(label, text) for label, text in pairs if text])
    verdict = result.result.status
    console.print()
    if result.result.decomposed:
        own = ", ".join(one.op for one in result.result.decomposed)
        console.print(escape(f"decomposed for this target: {own}"), soft_wrap=True)
    for label, names in (("kept", result.kept), ("dropped", result.dropped)):
        if names:
            console.print(escape(f"{label}: {', '.join(names)}"), soft_wrap=True)
    if result.status == "works":
        why = f" ({escape(result.result.why)})" if verdict != "ok" else ""
        console.print(_VERDICTS[verdict] + why, soft_wrap=True)
    else:
        left = "time is up" if result.status == "budget" else "something remains"
        console.print(f"[red]{left}[/red]: {escape(result.result.why)}", soft_wrap=True)
    if result.drift is not None:
        drift = f"{result.drift:.1e} (relative L2)"
        console.print(f"PyTorch's own result with what is set differs by {drift}", soft_wrap=True)


def _untried(result: BroughtUp) -> tuple[Obstacle, ...]:
    """What remains behind the first failure that nothing gets past."""
    return tuple(one for one in result.remaining[1:] if not one.tried)


def _nothing(one: Obstacle, result: BroughtUp) -> str:
    if one in _untried(result):
        return "nothing was tried: another failure blocks it"
    return f"nothing that is known; {one.tried} tried"


def _tell_decided(console: Any, loaded: Loaded) -> None:
    """Prints what the trace did by itself."""
    from rich.markup import escape

    from iree_pilot.pipeline.program.program import holds_for

    if loaded.program.decomposed:
        names = ", ".join(one.op for one in loaded.program.decomposed)
        console.print(escape(f"decomposed at the trace, by itself: {names}"), soft_wrap=True)
    for one in loaded.program.decided:
        if one.on_inputs:
            console.print(escape(holds_for(one)), soft_wrap=True)
            if one.write:
                console.print(escape(f"  in Python, at {one.place}:"), soft_wrap=True)
                console.print(escape(indent(one.write, "    ")), soft_wrap=True)


def _ending(
    recipe: Recipe | None,
    results: Sequence[tuple[str, BroughtUp]],
    asked: _BringupRequest,
    file: Path,
) -> Iterator[str]:
    """The last lines: the command that uses the recipe, or why there is none, and what to read."""
    from iree_pilot.pipeline.cli.display import output as out

    failing = [(name, one) for name, one in results if one.status != "works"]
    targets = ",".join(name for name, _ in results)
    left = [f"{o.reproducer}/ISSUE.md" for _, one in failing for o in one.remaining if o.reproducer]
    if recipe is None or not recipe.step:
        why = "none is needed"
        if any(one.status == "budget" for _, one in failing):
            why = "nothing helped until time was up"
        elif failing:
            why = "nothing that is known helps"
            if any(_untried(result) for _, result in failing):
                why += " against the first of these failures"
        yield f"no recipe: {why}"
    elif failing:
        names = ", ".join(name for name, _ in failing)
        yield f"{asked.source} still fails with the recipe {file} for {names}"
    for name, one in failing:
        if one.instead:
            yield f"{name} works if what the program draws are inputs: {out.command(one.instead)}"
    if left:
        yield f"next: read {', '.join(dict.fromkeys(left))}"
    if recipe is not None and recipe.step:
        device = ("--device", asked.device) if asked.device else ()
        yield out.command(asked.command("run", targets, *device, "--recipe", str(file)))
