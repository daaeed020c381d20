"""Many parts of a function in one module, each with arguments of its own for what it takes.

So one compile and a few runs tell which parts are wrong, given right inputs. It is a hint: a part
that is alone in a module may be compiled in another way. A child process makes the module, because
the bindings can abort; it imports `iree.compiler.ir`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.repro.ir import edit, feeds
from iree_pilot.repro.ir.body import Body, cloned
from iree_pilot.repro.ir.feeds import Feeds
from iree_pilot.repro.ir.graph import is_number, is_tensor

MODULE = "windows.mlir"
_NAME = "windows_{}"

#: Real operations by position.
Part = tuple[int, ...]


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of a function of the program in the file `mlir`; focus: as in `edit.Batch`.

    functions: so many hold the parts, in turn.
    """

    mlir: str
    parts: tuple[Part, ...]
    focus: int
    functions: int


class WindowPart(msgspec.Struct, frozen=True):
    """Place of a part: the function, by its index in the feeds, and the first and the number of
    its results there."""

    part: int
    function: int
    first: int
    results: int


def written(windows: Windows, directory: Path) -> tuple[WindowPart, ...]:
    """Writes the module; where each part is that could be taken along. Raises ValueError."""
    text, fed, held = make(Path(windows.mlir).read_bytes(), windows)
    module = directory / MODULE
    feeds.write(module, fed)
    module.write_text(text, encoding="utf-8")
    return held


def make(text: bytes, job: Windows) -> tuple[str, tuple[Feeds, ...], tuple[WindowPart, ...]]:
    """(the module, what its functions take, where each part is that could be taken along)."""
    with edit.context():
        body = Body(edit.parse(text), job.focus)
        groups = [range(first, len(job.parts), job.functions) for first in range(job.functions)]
        made = [_function(body, job, group, number) for number, group in enumerate(groups) if group]
        body.function.erase()
        module = body.module.operation
        if not module.verify():
            raise ValueError("the parts cannot be put into one module")
        return (
            str(module.get_asm(enable_debug_info=False)),
            tuple(fed for fed, _ in made),
            tuple(one for _, held in made for one in held),
        )


class _Taken(msgspec.Struct, frozen=True):
    """A part with the glue that it needs, the values that it takes, what it gives."""

    part: int
    ops: tuple[int, ...]
    values: tuple[int, ...]
    results: tuple[Any, ...]


def _function(
    body: Body, job: Windows, group: Sequence[int], number: int
) -> tuple[Feeds, tuple[WindowPart, ...]]:
    from iree.compiler import ir

    parts = [one for index in group if (one := _taken(body, index, job.parts[index]))]
    values = [value for one in parts for value in one.values]
    results = [result for one in parts for result in one.results]
    name = _NAME.format(number)
    _, block = body.beside(name, [body.values[value] for value in values], results)
    arguments = iter(block.arguments)
    given: list[Any] = []
    held: list[WindowPart] = []
    with ir.InsertionPoint(block) as point:
        for one in parts:
            known = {body.values[value]: next(arguments) for value in one.values}
            cloned((body.ops[index] for index in one.ops), known, point)
            held.append(WindowPart(one.part, number, len(given), len(one.results)))
            given += [known[result] for result in one.results]
        ir.Operation.create(body.ops[-1].name, operands=given)
    fed = Feeds(
        function=name,
        base=job.mlir,
        origin=body.name,
        values=tuple(body.places[value] for value in values),
        types=tuple(str(body.values[value].type) for value in values),
        results=tuple(str(result.type) for result in results),
    )
    return fed, tuple(held)


def _taken(body: Body, index: int, part: Part) -> _Taken | None:
    """Operands and results of a part; None if it takes values other than data, or gives none."""
    members, taken = body.with_glue(part)
    ops = [body.ops[position] for position in members]
    used = {operand for op in ops for operand in op.operands}
    results = [r for op in ops for r in op.results if r not in used]
    results = [r for r in results if is_tensor(str(r.type))]
    # What the program never looks at may be anything: the places of equal values in a top-k.
    results = [r for r in results if list(r.uses)] or results
    kinds = [str(body.values[value].type) for value in taken]
    if not results or not all(is_tensor(kind) or is_number(kind) for kind in kinds):
        return None
    return _Taken(index, members, taken, tuple(results))
