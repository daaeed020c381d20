"""The cases of a source for `run` and `compile`: shown live, then side by side."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.markup import escape

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import Settings
from iree_pilot.pipeline.case_result import CaseResult, FunctionResult, Step
from iree_pilot.pipeline.case_result import commands as commands_of
from iree_pilot.pipeline.cli import reading, recipes, reproducer, several
from iree_pilot.pipeline.cli.boundary import Failed, Interrupted
from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.cli.display.live import Live
from iree_pilot.pipeline.cli.failures import following
from iree_pilot.pipeline.cli.failures.bisect import (
    Asked,
    isolate,
    tell,
    tell_elsewhere,
    tell_next,
    tell_places,
    untraced,
)
from iree_pilot.pipeline.cli.failures.following import Typed
from iree_pilot.pipeline.cli.options import Common, SourceOptions
from iree_pilot.pipeline.cli.programs import code
from iree_pilot.pipeline.cli.session import Session
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.execution import generation
from iree_pilot.pipeline.execution.generation import Generation, Token, Wanted
from iree_pilot.pipeline.failure_lines import without_repeated
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.load import Loaded, TraceFailed, made_of
from iree_pilot.pipeline.numerics import between
from iree_pilot.pipeline.numerics.judging import POINTING, TIPPED
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.store import outputs
from iree_pilot.pipeline.targets.targets import Plan
from iree_pilot.pipeline.toolchain.compiler import check_flags, check_phases
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

if TYPE_CHECKING:
    from iree_pilot.repro.bisect import Bisection
    from iree_pilot.repro.workarounds.applied import Applied

_STYLES = {"ok": "green", "ran": "yellow", "compiled": "yellow", "failed": "red"}
#: From so many columns on the table of verdicts has room for their reasons.
_WIDE = 120
#: Latencies of so many functions stand in one cell of it.
_LATENCIES_SHOWN = 3
_MARKS = {
    "ok": "[green]ok[/green]",
    "mismatch": "[red]differs[/red]",
    "not-compared": "[yellow]not compared[/yellow]",
}


class Request(Typed, frozen=True, kw_only=True):
    """The request of a `run` or `compile`.

    targets: as typed. run: also load, run and compare; generate: so many tokens. bisect: isolate
    each target that fails. to: the phase to stop after. output: where the module goes.
    """

    targets: str | None
    run: bool = True
    bisect: bool = False
    generate: int | None = None
    to: str | None = None
    output: str | None = None

    @property
    def to_file(self) -> bool:
        return self.output not in (None, "-")


def cases(typed: Request) -> None:
    """Runs a source's cases one after the other, prints them, and fails if one of them did."""
    common, flagged = typed.common, typed.targets is None
    if common.json and typed.output == "-":
        raise UsageError(
            "--json and -o - cannot both have stdout", advice="Write the output to a file: -o FILE."
        )
    targets, flags = reproducer.target(
        typed.source, typed.targets, typed.flags, trust=typed.chosen.trust
    )
    typed = msgspec.structs.replace(typed, targets=targets, flags=flags)
    source, chosen = reproducer.source(typed.source, typed.chosen, flagged=flagged)
    request = msgspec.structs.replace(typed, source=source, chosen=chosen)
    if typed.bisect:
        several.check_default_place()
    console = out.console(stderr=common.json or typed.output == "-")
    with Live.of(console, common) as live:
        course = _CasesCommand(request, live, named=typed.source)
        try:
            course.judge()
            live.close()
            if not common.json:
                _summary(live, course.results, course.request.source)
            if typed.bisect:
                course.isolate()
        except KeyboardInterrupt:
            raise Interrupted(course.document()) from None
    if typed.source == source:
        typed = course.request
    found, results = course.found or [], course.results
    after = () if typed.bisect else following.bisecting(typed, results)
    remedy = () if typed.bisect else following.remedying(typed, results)
    seeding = () if typed.bisect or after else following.seeding(typed, results)
    judging = () if typed.bisect or after else following.judging(typed, results)
    if not common.json:
        live.summary()
        for argv in following.comparing(typed, results):
            out.print_next(console, "Which dispatch differs", argv)
        if remedy:
            named = dict.fromkeys(f for one in results for f in following.named_flags(one))
            console.print(following.limitation([*named]), soft_wrap=True)
        for argv in filter(None, (remedy, after, seeding)):
            out.print_next(console, "next", argv)
        if past := () if typed.bisect else following.getting_past(typed, results):
            out.print_next(console, "to get past it", past)
        if judging:
            out.print_next(console, "what was not compared, operation by operation", judging)
        tell_elsewhere(console, found)
        tell_next(console, [one for _, one in found])
        tell_places(console, [one for _, one in found])
    ok = all(r.status != "failed" for r in results)
    if typed.output and ok:
        _deliver(Path(results[0].output or ""), typed.output, quiet=common.verbosity < 0)
    if common.json:
        more = {"next": remedy or after or seeding or judging, "took": live.took.document}
        out.emit(course.document() | more)
    if not ok or any(one.status == "isolated" for _, one in found):
        raise Failed(1)


class _CasesCommand:
    """One command from its plans to what was isolated.

    request: with the source that a reproducer's folder holds, where the user `named` that. found:
    None where nothing was to be isolated.
    """

    def __init__(self, request: Request, live: Live, *, named: str) -> None:
        self.live = live
        self.session = Session(request.common, live)
        check_flags(request.flags, phases=not request.run)
        assert request.targets is not None, "chosen before"
        self.plans = self.session.plans(request.targets, request.device, request.flags)
        _check(request, self.plans, self.session.toolchain)
        if request.to_file:
            read = reading.files(request.source, request.chosen, named=named)
            outputs.check(Path(request.output or ""), read)
        recipe, chosen = recipes.read(request.recipe, request.chosen)
        request = msgspec.structs.replace(request, chosen=chosen)
        self._generated = None
        if request.run:
            chosen, self._generated = _generated(request, self.session)
        self.request = msgspec.structs.replace(request, chosen=chosen)
        self._cooking = recipes.Cooking(
            source=request.source,
            chosen=chosen,
            flags=request.flags,
            device=request.device,
            recipe=recipe,
        )
        self.loaded: Loaded | None = None
        self.refused: TraceFailed | None = None
        self.results: list[CaseResult] = []
        self.found: list[tuple[str, Bisection]] | None = None
        self._made: list[Applied] = []

    def judge(self) -> None:
        """Traces the source, and compiles, runs and compares it for each target."""
        request, live = self.request, self.live
        try:
            loaded = self.loaded = self.session.program(
                request.source,
                request.chosen,
                live,
                evaluate=request.run,
                expected=request.expected,
            )
            if request.to_file:  # what a Python source has read is known by now
                source = self.session.job(request.source, request.chosen).source
                outputs.check(Path(request.output or ""), map(Path, made_of(loaded, source)))
            live.program(loaded)
            for target, plan in self.plans:
                if note := self._cooking.summary(target, plan):
                    live.note(note)
            if self._generated:
                generation.check(loaded.program, self._generated.steps)
            self.loaded = self.session.settled(loaded, self._judged, live)[0]
            self.results = between.agreed(self.results)
        except TraceFailed as failed:
            self.refused = failed
            self.results = [_untraced(plan, self.session, failed) for _, plan in self.plans]
            self._tell(self.results[0], (), alone=True)

    def _judged(self, loaded: Loaded) -> None:
        """The cases one after the other; several are compared with each other."""
        request, several_ = self.request, len(self.plans) > 1
        self.results.clear()
        self._made = [self._cooking.applied(self.session, loaded, plan) for _, plan in self.plans]
        settings = Settings(
            flags=request.flags,
            to=request.to,
            resume=request.resume,
            fresh=request.chosen.fresh,
            run=request.run,
            generate=self._generated,
        )
        with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
            targets = between.TargetOutputs(loaded, Path(scratch))
            for (target, _), made in zip(self.plans, self._made, strict=True):
                keep = targets.place(target) if several_ else ""
                given = msgspec.structs.replace(settings, keep=keep, flags=made.flags)
                result = case.run(made.loaded, made.plan, self.session.context, given, self.live)
                self.results.append(targets.compared(result))
                self.live.close()
                self._tell(self.results[-1], self.results[:-1], alone=not several_)

    def _tell(self, result: CaseResult, before: Sequence[CaseResult], *, alone: bool) -> None:
        if not self.request.common.json:
            common, subject = self.request.common, _subject(result, self.request.source)
            _tell(self.live, result, common, before=before, alone=alone, subject=subject)

    def isolate(self) -> None:
        """Isolates each target that fails, or that hides wrong numbers."""
        from iree_pilot.repro.reproducer.known import alike

        self.found = []
        for target, one in self._isolated():
            self.found.append((target, one))
            self.live.close()
            if not self.request.common.json:
                about = self.request.source if self.refused else target
                several.heading(self.live.console, about, len(self.plans))
                tell(self.live.console, one)
        self.found = alike.named(self.found)

    def _isolated(self) -> Iterator[tuple[str, Bisection]]:
        asked = Asked(self.request.source, self.request.chosen, ())
        if self.refused is not None:
            target = self.plans[0][0]
            yield target, untraced(self.session, self.refused, asked, target, self.live)
        if self.loaded is None:
            return
        for made, result in zip(self._made, self.results, strict=True):
            generated = result.generation
            if generated and generated.failure and generated.failure == result.failure:
                self.live.note(
                    f"{result.target}: what shows in a chain of functions only is not isolated"
                )
            elif found := isolate(
                self.session,
                made.loaded,
                result,
                made.plan,
                asked._replace(flags=made.flags),
                self.live,
            ):
                yield result.target, found

    def document(self) -> dict[str, Any]:
        """Document of --json.

        With --bisect, its first result is in `bisect`, all in `bisections`; with a recipe, the
        names of its steps for each target in `recipe`.
        """
        program = _program(self.loaded) if self.loaded else None
        document = {"program": program, "cases": self.results, **self._cooking.document(self.plans)}
        if self.found is None:
            return document
        first = self.found[0][1] if self.found else None
        return document | {"bisect": first, "bisections": several.labelled(self.found)}


def _generated(request: Request, session: Session) -> tuple[SourceOptions, Wanted | None]:
    """(options to trace with, tokens to generate, if any)."""
    chosen = request.chosen
    source = sources.parse(request.source, chosen.settings, chosen.dtype)
    steps, settings = generation.chosen(
        source, request.generate, chosen.settings, session.toolchain, inputs=bool(chosen.inputs)
    )
    if not steps:
        return chosen, None
    chosen = msgspec.structs.replace(chosen, settings=settings)
    return chosen, generation.wanted(session.job(request.source, chosen), steps)


def _check(request: Request, plans: list[tuple[str, Plan]], toolchain: Toolchain) -> None:
    check_phases(toolchain, resume=request.resume, to=request.to)
    text, chosen = request.source, request.chosen
    kind = sources.parse(text, chosen.settings, chosen.dtype).kind
    if request.resume and kind != "mlir":
        phase = request.resume
        words = following.source_words(text, chosen)
        first = ("iree-pilot", "compile", *words, "-t", plans[0][0])
        raise UsageError(
            f"--from {phase}: {text} is not MLIR of that phase",
            advice=f"First: {shlex.join(first)} --to {phase} -o FILE.mlir",
        )
    if request.output and len(plans) > 1:
        raise UsageError(
            f"-o {request.output} goes with one target, {len(plans)} are named",
            advice="Compile the targets one by one.",
        )


def _program(loaded: Loaded) -> dict[str, object]:
    record = msgspec.to_builtins(loaded.program)
    return {**record, "directory": loaded.directory, "cached": loaded.cached}


def _untraced(plan: Plan, session: Session, failed: TraceFailed) -> CaseResult:
    return CaseResult(
        target=plan.name,
        release=session.toolchain.version,
        device=plan.device.uri if plan.device else None,
        device_name=plan.device.name if plan.device else "",
        arch=plan.target.arch,
        status="failed",
        why="does not trace",
        steps=(Step(name="trace", status="failed", seconds=failed.seconds),),
        failure=failed.failure,
        warnings=plan.warnings,
    )


def _subject(result: CaseResult, source: str) -> str:
    """What fails: the source where it does not trace, which no target has a part in."""
    untraced = any(one.name == "trace" and one.status == "failed" for one in result.steps)
    return source if untraced else result.target


def _tell(
    live: Live,
    result: CaseResult,
    common: Common,
    *,
    before: Sequence[CaseResult],
    alone: bool,
    subject: str,
) -> None:
    """The outcome of one case, below its phases. before: of other targets, already printed.

    alone: it is the only target. With several, a failure's lines are shortened (-v has all).
    subject: what failed.
    """
    console, quiet, everything = live.console, common.verbosity < 0, common.verbosity > 0
    shortened = bool(result.failure) and not alone and not everything
    if not quiet and result.dispatches:
        d = result.dispatches
        console.print(
            f"  {out.count(d.dispatches, 'dispatch', 'dispatches')} of "
            f"{out.count(d.executables, 'executable')}, "
            f"{out.size(d.transient_bytes)} transient; compiler's peak memory "
            f"{out.size(result.peak_bytes)}",
            soft_wrap=True,
        )
    if not quiet and result.output:
        what = escape(f"{Path(result.output).name}, {out.size(result.output_bytes)}")
        console.print(
            f"  {what}, with the phases' dumps beside it: {escape(result.output)}", soft_wrap=True
        )
    if not quiet:
        code.tell(console, result, verbose=everything)
    if result.messages and not quiet and not shortened:
        wrote = out.size(Path(result.messages).stat().st_size)
        console.print(
            f"  {wrote} of messages of the compiler: {escape(result.messages)}", soft_wrap=True
        )
    if not quiet:
        for function in result.functions:
            _tell_function(live, function)
        if result.generation:
            _tell_generation(live, result.generation)
    for failure in _failures(result):
        console.print(f"\n  [bold red]{escape(subject)} {escape(result.why)}[/bold red]")
        lines = out.failure_lines(failure, verbose=everything)
        if shortened:
            lines = without_repeated(lines, [(o.target, f) for o in before for f in _failures(o)])
        out.print_pairs(console, lines, indent="    ")
    if result.advice:
        console.print(f"    {escape(result.advice)}", soft_wrap=True)
    signatures = {failure.signature for one in before for failure in _failures(one)}
    known = shortened and signatures.issuperset(f.signature for f in _failures(result))
    if known and result.phase_confirmed is not False:
        return
    if result.failure and result.failure.phase and result.phase_confirmed is not None:
        how = "is confirmed" if result.phase_confirmed else "was NOT confirmed"
        console.print(f"    the phase {how} by resuming from the one before it")
    commands = [*commands_of(result, everything=everything)]
    for label, argv in commands[-1:] if shortened else commands:
        out.print_command(console, label, argv, indent="    ")


def _failures(result: CaseResult) -> list[Failure]:
    """Failures: of functions and of generating tokens, or of the steps before they run."""
    failed = [f.failure for f in result.functions if f.failure]
    if result.generation and result.generation.failure:
        failed.append(result.generation.failure)
    return failed or ([result.failure] if result.failure else [])


def _tell_function(live: Live, function: FunctionResult) -> None:
    if function.failure and not (function.comparison or function.against):
        return
    latency = function.latency
    took = (
        f"{out.seconds(latency.median_seconds)} "
        f"({out.seconds(latency.min_seconds)} to {out.seconds(latency.max_seconds)}, "
        f"{latency.repeats} repeats)"
        if latency
        else f"latency not measured: {function.latency_note}"
    )
    line = f"  {function.name}: {took}, peak memory {out.size(function.peak_bytes)}"
    if function.comparison and not function.evaluator.endswith("eager"):
        line += f", compared with {function.evaluator}"
    live.console.print(escape(line), soft_wrap=True)
    if function.border:
        live.console.print(escape(f"    {function.border}"), soft_wrap=True)
    for one in function.against:
        verdict = _MARKS[one.comparison.verdict]
        compared = one.comparison
        said = f"relative L2 {compared.rel_l2:.2e} (tolerance {compared.tolerance:.1e})"
        live.console.print(f"    against {escape(one.target)}: {verdict}  {said}", soft_wrap=True)
    if function.comparison:
        for output in function.comparison.outputs:
            said = (
                f"relative L2 {output.rel_l2:.2e} ({output.limit}), "
                f"max abs {output.max_abs:.2e}, NaN {output.nan}, Inf {output.inf}"
            )
            if output.verdict == "not-compared":
                said = output.why
            elif output.basis.endswith((POINTING, TIPPED)) and not output.differs:
                said = output.basis
            elif output.differs:
                said = f"{output.why}; {said}"
            mark = _MARKS[output.verdict]
            live.console.print(
                f"    {escape(output.label)}: {mark}  {escape(said)}", soft_wrap=True
            )


def _tell_generation(live: Live, generation: Generation) -> None:
    tokens = generation.tokens
    if not tokens:
        return
    took = out.seconds(sum(t.seconds for t in tokens))
    live.console.print(f"  {out.count(len(tokens), 'token')} generated in one session in {took}")
    for token in tokens:
        mark = _MARKS[token.verdict]
        live.console.print(
            f"    {token.step:>3}: {mark}  {escape(_picked(token))}, relative L2 of the logits "
            f"{token.rel_l2:.2e} (tolerance {token.tolerance:.1e})",
            soft_wrap=True,
        )


def _picked(token: Token) -> str:
    own, reference = (", ".join(map(str, t)) for t in (token.token, token.reference_token))
    return f"token {own}" + ("" if own == reference else f" where PyTorch picks {reference}")


def _summary(live: Live, results: list[CaseResult], source: str) -> None:
    """The verdicts side by side; on a narrow terminal their reasons are below, that of a source
    that does not trace once.

    On a terminal long messages are cut: the details stand above.
    """
    wide, brief = live.console.width >= _WIDE, live.console.is_terminal
    measured = ("latency", "relative L2", "tolerance") if any(r.functions for r in results) else ()
    columns = ["target", "verdict", "compile", "device", *measured, *["why"] * wide]
    table = out.table(*columns, right=("compile", *measured))
    for result in results:
        compiled = next((s for s in result.steps if s.name == "compile"), None)
        device = result.device_name or result.device or "-"
        table.add_row(
            escape(result.target),
            f"[{_STYLES[result.status]}]{result.status}[/]",
            _compile_seconds(result, compiled),
            escape(device if wide else device.partition(" (")[0]),
            *(_measured(result) if measured else ()),
            *[escape(following.why(result, brief=brief))] * wide,
        )
    live.console.print()
    live.console.print(table)
    reasons = (
        f"{_subject(one, source)}: {following.why(one, brief=brief)}" for one in results if one.why
    )
    for line in dict.fromkeys(reasons) if not wide else ():
        live.console.print(escape(line), soft_wrap=True)


def _measured(result: CaseResult) -> tuple[str, str, str]:
    """Latency, relative L2 and tolerance, `-` for what is not known."""
    latencies = [
        out.seconds(f.latency.median_seconds) if f.latency else "-" for f in result.functions
    ]
    took = " + ".join(latencies) if any(f.latency for f in result.functions) else "-"
    if len(latencies) > _LATENCIES_SHOWN and took != "-":
        took = count(len(latencies), "function")
    compared = following.compared(result)
    if compared is None or compared.verdict == "not-compared":
        return took, "-", "-"
    return took, f"{compared.rel_l2:.2e}", f"{compared.tolerance:.1e}"


def _compile_seconds(result: CaseResult, step: Step | None) -> str:
    if step is None:
        return "-"
    return f"{out.seconds(result.compile_seconds)}{' cached' if step.cached else ''}"


def _deliver(source: Path, target: str, *, quiet: bool) -> None:
    """Copies the output to where the user wants it."""
    if target == "-":
        with source.open("rb") as stream:
            shutil.copyfileobj(stream, sys.stdout.buffer)
        sys.stdout.flush()
        return
    out.deliver(target, source, quiet=quiet)
