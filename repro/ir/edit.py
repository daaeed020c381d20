"""IR as a graph, and cuts carried out on IR: what `repro.ir.editor` has done.

In a child process, because the bindings can abort on IR that they do not like; what was made
before that is kept. Imports `iree.compiler.ir`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.pipeline.toolchain import dialects
from iree_pilot.repro.ir import feeds
from iree_pilot.repro.ir import simpler as simplify_ir
from iree_pilot.repro.ir.body import Body
from iree_pilot.repro.ir.feeds import Feeds
from iree_pilot.repro.ir.graph import Cut, Graph
from iree_pilot.repro.reducer.simplify import Proposal, Survey

#: The beginning of the reason where the bindings cannot read the program.
UNREADABLE = "it does not parse"


class EditBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of edits of the program in the file `mlir`.

    focus: a line of the text; the function it is in is meant, else the one with most operations.
    cuts: to carry out; whole: the program's other functions stay too. proposals: simpler programs,
    made of the whole program.
    """

    mlir: str
    cuts: tuple[Cut, ...] = ()
    focus: int = 0
    whole: bool = False
    proposals: tuple[Proposal, ...] = ()


class EditedProgram(msgspec.Struct, frozen=True):
    """A program in a file of the directory; why: it cannot be made."""

    file: str = ""
    why: str = ""


def described(batch: EditBatch, directory: Path) -> Graph:
    """The graph of the function that is meant. Raises ValueError if there is none."""
    return describe(Path(batch.mlir).read_bytes(), batch.focus)


def surveyed(batch: EditBatch, directory: Path) -> Survey:
    """Surveys what could be simpler in the program. Raises ValueError."""
    return survey(Path(batch.mlir).read_bytes())


def made(batch: EditBatch, directory: Path) -> Iterator[EditedProgram]:
    """Each cut and proposal, carried out."""
    from iree.compiler import ir

    impossible = (ValueError, IndexError, KeyError, RuntimeError, TypeError, ir.MLIRError)
    text = Path(batch.mlir).read_bytes()
    jobs: tuple[Cut | Proposal, ...] = (*batch.cuts, *batch.proposals)
    for number, job in enumerate(jobs):
        fed: tuple[Feeds, ...]
        try:
            if isinstance(job, Cut):
                result, own = carried_out(text, job, batch.focus, batch.whole, base=batch.mlir)
                fed = (own,)
            else:
                result, fed = made_simpler(text, job, base=batch.mlir)
        except impossible as fault:
            yield EditedProgram(why=f"{type(fault).__name__}: {fault}")
        else:
            file = directory / f"{number}.mlir"
            feeds.write(file, fed)
            file.write_text(result, encoding="utf-8")
            yield EditedProgram(file=file.name)


def describe(text: bytes, focus: int = 0) -> Graph:
    """The graph of the function that is meant. Raises ValueError if there is none."""
    with context():
        return Body(parse(text), focus).graph()


def apply(text: bytes, cut: Cut, focus: int = 0, whole: bool = False) -> str:
    """The program that a cut leaves; whole: with the other functions of the module.

    Raises ValueError when there is no such program.
    """
    return carried_out(text, cut, focus, whole)[0]


def carried_out(
    text: bytes, cut: Cut, focus: int = 0, whole: bool = False, *, base: str = ""
) -> tuple[str, Feeds]:
    """Same as `apply`, with the values of the program in `base` that the cut function takes."""
    with context():
        module = parse(text)
        body = Body(module, focus)
        body.cut(cut, whole)
        return _printed(module), body.feeds(base)


def survey(text: bytes) -> Survey:
    """Surveys what could be simpler in a program."""
    with context():
        return simplify_ir.survey(parse(text))


def simpler(text: bytes, proposal: Proposal) -> str:
    """The program that a proposal leaves. Raises ValueError when there is no such program."""
    return made_simpler(text, proposal)[0]


def made_simpler(
    text: bytes, proposal: Proposal, *, base: str = ""
) -> tuple[str, tuple[Feeds, ...]]:
    """Same as `simpler`, with the values of the program in `base` that the largest function takes.

    No values if it takes more than before.
    """
    with context():
        module = parse(text)
        simplify_ir.carry_out(module, proposal)
        return _printed(module), () if proposal.arguments else (Body(module, 0).feeds(base),)


def _printed(module: Any) -> str:
    from iree.compiler import ir

    try:
        module.operation.verify()
    except ir.MLIRError as fault:
        raise ValueError(f"the result does not verify: {fault}") from fault
    return str(module.operation.get_asm(enable_debug_info=False))


def context() -> Any:
    from iree.compiler import ir

    dialects.complete()
    context = ir.Context()
    context.allow_unregistered_dialects = True
    location = ir.Location.unknown(context)

    class Both:
        def __enter__(self) -> None:
            context.__enter__()
            location.__enter__()

        def __exit__(self, *fault: Any) -> None:
            location.__exit__(*fault)
            context.__exit__(*fault)

    return Both()


def parse(text: bytes) -> Any:
    from iree.compiler import ir

    try:
        return ir.Module.parse(text)
    except ir.MLIRError as fault:
        raise ValueError(f"{UNREADABLE}: {fault}") from fault
