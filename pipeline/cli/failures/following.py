"""The next commands after a failure, ready to paste."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline import quantities
from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.cli import reproducer
from iree_pilot.pipeline.cli.options import Common, SourceOptions
from iree_pilot.pipeline.failures.stderr import operation_in
from iree_pilot.pipeline.frontends.reference import drawing
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program import python_lines
from iree_pilot.pipeline.program.source_lines import place, quoted

#: Characters of a message that stand for it in the table of verdicts.
_BRIEF = 80
#: Sources that hold a program already: what they draw cannot be made an input.
_NOT_TRACED = (".pt2", ".onnx", ".mlir", ".mlirbc")
#: Start of a message that says which step of a trace failed.
_WHILE = re.compile(r"^while [^:]+: ")


class Typed(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the user's command line that the next command has to repeat.

    flags: of iree-compile, with those that a reproducer's folder brings. resume: a phase that the
    program is compiled from. recipe: the file of one.
    """

    source: str
    chosen: SourceOptions
    common: Common
    flags: tuple[str, ...] = ()
    device: str | None = None
    expected: tuple[str, ...] = ()
    resume: str | None = None
    recipe: str | None = None

    def command(self, verb: str, target: str, *more: str) -> tuple[str, ...]:
        """Command line of another command for the same case."""
        words = ["iree-pilot", verb, *source_words(self.source, self.chosen), "-t", target]
        words += [*more]
        if self.recipe:
            words += ["--recipe", self.recipe]
        if self.common.release:
            words += ["--release", self.common.release]
        if not self.common.default_limit:
            words += ["--time-limit", quantities.duration_text(self.common.time_limit)]
        if self.common.memory_limit:
            words += ["--memory-limit", quantities.size_text(self.common.memory_limit)]
        return (*words, *(("--", *self.flags) if self.flags else ()))


def source_words(source: str, chosen: SourceOptions) -> tuple[str, ...]:
    """The source and its options as they are typed; the dtype as the field that it is."""
    words = [source]
    for key, value in chosen.settings.items():
        words += ["--set", f"{key}={value}"]
    if chosen.dtype:
        words += ["--set", f"dtype={chosen.dtype}"]
    if chosen.seed:
        words += ["--seed", str(chosen.seed)]
    for given in chosen.weights:
        words += ["--weights", given]
    if chosen.function:
        words += ["--function", chosen.function]
    for given in chosen.inputs:
        words += ["--input", given]
    if chosen.inline:
        words.append("--inline-parameters")
    for op in chosen.leave:
        words.append("--no-decompose" if op == "all" else f"--no-decompose={op}")
    if chosen.seeded:
        words.append("--seeded")
    if chosen.trust:
        words.append("--trust")
    return tuple(words)


def bisecting(typed: Typed, results: Sequence[CaseResult]) -> tuple[str, ...]:
    """The command that isolates what failed; none where it would isolate nothing.

    A source that does not trace does so for all targets: the first one is enough.
    """
    failing = [r for r in results if r.failure is not None]
    if typed.resume or not failing:
        return ()

    from iree_pilot.repro import failed  # much to load for what passes

    left = [r for r in failing if not failed.why_not(r)]
    if not left:
        return ()
    if left[0].steps[0].status == "failed":
        left = left[:1]
    return typed.command("bisect", ",".join(r.target for r in left), *_judged_by(typed))


def getting_past(typed: Typed, results: Sequence[CaseResult]) -> tuple[str, ...]:
    """The command that gets a model past a value that Python needs of its inputs; none for what
    fails otherwise."""
    first = next((one for one in results if one.steps and one.steps[0].status == "failed"), None)
    if first is None or first.failure is None or "data-dependent" not in first.failure.message:
        return ()
    return typed.command("bringup", ",".join(one.target for one in results))


def _judged_by(typed: Typed) -> tuple[str, ...]:
    """Options that say what was compared, and where it ran."""
    expected = (word for one in typed.expected for word in ("--expected-output", one))
    return (*expected, *(("--device", typed.device) if typed.device else ()))


def remedying(typed: Typed, results: Sequence[CaseResult]) -> tuple[str, ...]:
    """The command that tests the flags that the compiler's own messages name; none where no message
    names one, or where `workaround` cannot repeat what was typed."""
    if typed.resume or typed.recipe or typed.expected:
        return ()
    left = [one.target for one in results if named_flags(one)]
    more = ("--device", typed.device) if typed.device and left else ()
    return typed.command("workaround", ",".join(left), *more) if left else ()


def named_flags(result: CaseResult) -> tuple[str, ...]:
    """Flags that a failure's message names and its compile was not given."""
    if result.failure is None:
        return ()
    from iree_pilot.repro.reproducer.folder import issue

    return tuple(issue.named_flags(result.failure, result.command or ()))


def limitation(flags: Sequence[str]) -> str:
    """Words for a failure whose message names flags that were not given; empty without any."""
    if not flags:
        return ""
    return f"the message names {', '.join(flags)}: perhaps a stated limitation, not a bug"


def seeding(typed: Typed, results: Sequence[CaseResult]) -> tuple[str, ...]:
    """The command that compares what draws random numbers, which are then inputs; none where
    nothing was left uncompared for that, or what draws them cannot be an input."""
    if typed.expected or not can_be_seeded(typed):
        return ()
    left = []
    for result in results if not any(one.failure for one in results) else ():
        compared = [f.comparison.outputs for f in result.functions if f.comparison]
        if drawing.can_all_be_inputs([o.why for outputs in compared for o in outputs]):
            left.append(result.target)
    more = ("--device", typed.device) if typed.device else ()
    return seeded(typed).command("run", ",".join(left), *more) if left else ()


def can_be_seeded(typed: Typed) -> bool:
    """True if `--seeded` means something for the source, and was not typed."""
    if Path(typed.source).suffix.lower() in _NOT_TRACED or reproducer.is_folder(typed.source):
        return False
    return not (typed.chosen.seeded or typed.resume)


def seeded(typed: Typed) -> Typed:
    """The same, with `--seeded`."""
    chosen = msgspec.structs.replace(typed.chosen, seeded=True)
    return msgspec.structs.replace(typed, chosen=chosen)


def judging(typed: Typed, results: Sequence[CaseResult]) -> tuple[str, ...]:
    """The command that judges the operations of what was not compared because wrong numbers would
    not show in it; none where there is no such result."""
    judged = {r.target: [f.comparison for f in r.functions] for r in results if not r.failure}
    left = [
        target
        for target, found in judged.items()
        if any(one is not None and numerics.hides(one) for one in found)
    ]
    if not left or typed.resume:
        return ()
    return typed.command("bisect", ",".join(left), *_judged_by(typed))


def comparing(typed: Typed, results: Sequence[CaseResult]) -> Iterator[tuple[str, ...]]:
    """The commands that compare what two targets do differently, dispatch by dispatch."""
    for result in results:
        pairs = [a for f in result.functions for a in f.against if a.comparison.differs]
        for one in pairs[:1]:
            yield typed.command("bisect", result.target, "--against", one.target)


def compared(result: CaseResult) -> Comparison | None:
    """Comparison that a failure is about, else that of the function with the largest error."""
    comparisons = (
        f.comparison for f in result.functions if f.failure and f.failure == result.failure
    )
    return next(comparisons, None) or result.comparison


def why(result: CaseResult, *, brief: bool = False) -> str:
    """Reason of a case's verdict, with the operation (without one, the message) and the line that
    it is about, or the output that its failure names and how that differs.

    brief: the message is cut, where all of it is shown elsewhere.
    """
    failure = result.failure
    if failure is None:
        return result.why
    file, line = place(failure.location)
    where = f"{Path(file).name}:{line}" if file else ""
    written = (
        operation_in(quoted(failure.location) or "") if file.lower().endswith(".mlir") else None
    )
    written = (written or "").removeprefix("torch.operator ")
    named = failure.operation
    of = f"of {written}" if written and named and written != named else ""
    python = python_lines.of(failure.location)
    source = f"({Path(python).name})" if python else ""
    about = " ".join(filter(None, (named or written, of, where and f"at {where}", source)))
    said = " ".join(_WHILE.sub("", failure.message).split())
    said = textwrap.shorten(said, _BRIEF, placeholder=" ...") if brief else said
    if about and not (named or written):
        about = f"{said} {about}"
    comparison = compared(result)
    if not about and comparison and comparison.differs and comparison.output is not None:
        output = comparison.outputs[comparison.output]
        about = f"{output.label}{output.worst or f': {output.why}'}"
    if not about:  # an error that names neither operation nor line: what it says
        about = said
    return f"{result.why}: {about}" if about else result.why
