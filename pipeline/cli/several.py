"""Commands that take several targets: one after the other, and one document of them all."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape

from iree_pilot.pipeline.cli.boundary import Interrupted
from iree_pilot.pipeline.cli.display.took import Took
from iree_pilot.pipeline.errors import EnvironmentFault

#: (target, its result).
Results = Sequence[tuple[str, Any]]


def document(results: Results, *, targets: int, took: Took | None = None) -> Any:
    """The `--json` document of results for so many targets.

    That of the only one is as it is; those of several are in `results`, each with its `target`.
    took: what the command took, all of it.
    """
    whole = msgspec.to_builtins(results[0][1]) if targets == 1 else {"results": labelled(results)}
    return {**whole, "took": took.document} if took else whole


def labelled(results: Results) -> list[dict[str, Any]]:
    """The results, each with its `target`."""
    return [{"target": one, **msgspec.to_builtins(made)} for one, made in results]


@contextlib.contextmanager
def finishing(results: Results, *, targets: int) -> Iterator[None]:
    """An interruption of the block leaves the results so far to be printed.

    Of the only target that is what the block was interrupted with, if it has no result yet.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if results or targets > 1:
            raise Interrupted(document(results, targets=targets)) from None
        raise Interrupted(stop.finished if isinstance(stop, Interrupted) else {}) from None


def slug(target: str) -> str:
    """A target in the name of a folder."""
    return target.replace(":", "-")


def place(kind: str, source: str, target: str = "") -> Path:
    """The folder where the user is that gets what is made of a source for a target.

    A reproducer's program is named after its folder, which it does not take the place of.
    """
    name = Path(source.replace(":", "-").rstrip("/")).name
    name = re.sub(r"(?i)\.(py|mlir|mlirbc|pt2|onnx)$", "", name)
    folder = Path(source).parent
    of_reproducer = (folder / "report.json").is_file()
    if of_reproducer:
        name = folder.resolve().name.removeprefix(f"{kind}-").removesuffix(f"-{slug(target)}")
    made = Path("-".join(filter(None, (kind, name, slug(target)))))
    if of_reproducer and made.exists() and made.samefile(folder):
        made = Path(f"{made}-again")
    return made


def check_default_place() -> None:
    """Raises EnvironmentFault where no folder can be made where the user is: before the work."""
    from iree_pilot.pipeline.store import outputs

    here = Path()
    try:
        outputs.check_writable(here)
    except EnvironmentFault as fault:
        raise EnvironmentFault(
            f"the result goes to a folder in the current directory, but: {fault.message}",
            advice="Name a place for it with -o DIR, or change to another directory.",
        ) from fault


def heading(console: Any, target: str | None, targets: int) -> None:
    """Prints the target as a heading, where there are several."""
    if targets > 1 and target:
        console.print(f"\n[bold]{escape(target)}[/bold]")
