"""What a person sees while a command works: each step and phase as it passes by."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from pipeline.case import Step, StepName
from pipeline.cli.output import command, seconds, size
from pipeline.executables import Compiling
from pipeline.frontends.load import Loaded
from pipeline.phases import Phase
from pipeline.program import Function, scopes_text

if TYPE_CHECKING:
    from repro.shrink import Progress

_DIALECTS_SHOWN = 4


class Live:
    """Prints to `console`; `quiet` prints nothing but what is asked for directly.

    On a terminal the line at the bottom says what is going on; in a pipe there is no such line.
    """

    def __init__(self, console: Console, *, quiet: bool, verbose: bool) -> None:
        self.console = console
        self._quiet = quiet
        self._verbose = verbose
        self._doing = contextlib.ExitStack()

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Shows `what` at the bottom of the terminal until the block ends."""
        if self._quiet or not self.console.is_terminal:
            yield
            return
        with self.console.status(escape(what)):
            yield

    def note(self, text: str) -> None:
        """A line of its own."""
        if not self._quiet:
            self.console.print(escape(text), soft_wrap=True)

    def progress(self, progress: Progress) -> None:
        """What a search does now: at the bottom of the terminal; in a pipe, or verbose, a line."""
        left = "" if not progress.ops else f", of {progress.ops} operations that are left"
        text = f"  {progress.trying}{left} ({progress.asked} asked)"
        if self._verbose or not self.console.is_terminal:
            self.note(text)
            return
        self._doing.close()
        self._doing.enter_context(self.working(text.strip()))

    def program(self, loaded: Loaded) -> None:
        """The program that all targets share."""
        program = loaded.program
        makers = ", ".join(f"{name} {version}" for name, version in program.origin.items())
        verb = "read" if "file" in program.origin else "traced"
        made = f"{verb} in {seconds(loaded.seconds)} ({makers})"
        if loaded.cached:
            made = f"{verb} before; taken from the cache"
        self._print(f"[bold]{escape(program.source)}[/bold]  {escape(made)}")
        for function in program.functions:
            self._print(f"  {escape(_signature(function))}")
        if program.parameters is not None:
            held = program.parameters.archives
            where = f"in {_some(held)}" if held else "named only: there are no weights"
            if held and program.parameters.missing:
                where += f"; none for scope {scopes_text(program.parameters.missing)}"
            count = len(program.parameters.tensors)
            told = f"{count} parameter{'' if count == 1 else 's'}" if count else "parameters"
            self._print(f"  {told}, {where}")
        for note in program.notes:
            self._print(f"  note: {escape(note)}")

    def planned(self, target: str, arch: str | None, warnings: tuple[str, ...]) -> None:
        resolved = f"  for {arch}" if arch and not target.endswith(f":{arch}") else ""
        self._print(f"\n[bold]{escape(target)}[/bold]{escape(resolved)}")
        for warning in warnings:
            self._print(f"  [yellow]warning:[/yellow] {escape(warning)}")

    def began(self, target: str, step: StepName) -> None:
        self._doing.close()
        self._doing.enter_context(self.working(f"{target}: {step}"))

    def phase(self, target: str, phase: Phase) -> None:
        if phase.ops:
            shown = list(phase.ops.items())[: None if self._verbose else _DIALECTS_SHOWN]
            dialects = " ".join(f"{name}:{count}" for name, count in shown)
            more = " ..." if len(shown) < len(phase.ops) else ""
            content = f"{phase.op_count:>7} ops  [dim]{dialects}{more}[/dim]"
        else:
            content = "        module"
        self._print(
            f"  {phase.name:<26}{seconds(phase.seconds):>8}  {size(phase.bytes):>8} {content}"
        )

    def compiling(self, target: str, state: Compiling) -> None:
        """The executables that a compile takes long for: at the bottom, in a pipe a line."""
        told = f"{target}: {state}"
        if not self.console.is_terminal:
            self.note(f"  {told}")
            return
        self._doing.close()
        self._doing.enter_context(self.working(told))

    def ended(self, target: str, step: Step) -> None:
        self._doing.close()
        if step.status in ("ran", "compiled"):
            done = "compared" if step.status == "ran" else "run"
            self._print(f"  {step.name:<10} not {done}: {escape(step.why)}")
            return
        mark = "[green]ok[/green]" if step.status == "ok" else "[red]failed[/red]"
        source = " (from the cache)" if step.cached else ""
        self._print(f"  {step.name:<10} {mark} {seconds(step.seconds)}{source}")

    def waiting(self, target: str) -> None:
        self.note(f"{target}: another process is compiling the same; waiting")

    def command(self, argv: tuple[str, ...]) -> None:
        self._print(f"  [dim]$ {escape(command(argv))}[/dim]")

    def close(self) -> None:
        """Takes the line at the bottom away."""
        self._doing.close()

    def _print(self, text: str) -> None:
        if not self._quiet:
            self.console.print(text, soft_wrap=True)


def _some(archives: tuple[str, ...]) -> str:
    more = len(archives) - 1
    return f"{archives[0]}{f' and {more} more file' if more else ''}{'s' if more > 1 else ''}"


def _signature(function: Function) -> str:
    inputs = ", ".join(f"{t.name}: {t}" for t in function.inputs)
    outputs = ", ".join(f"{t.name}: {t}" for t in function.outputs)
    return f"{function.name}({inputs}) -> ({outputs})"
