"""Search for a few operations that fail alone: each, with its producers, is a function.

One compile says of all of them at once whether any fails, and mostly names it. So where nothing
says what is at fault, a failure of one or a few operations is found in a few calls, however large
the program is. A child process makes the module, because the bindings can abort; it imports
`iree.compiler.ir`.
"""

from __future__ import annotations

import hashlib
import shutil
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.ir import bindings, edit
from iree_pilot.repro.ir.body import NO_DATA, Body, cloned
from iree_pilot.repro.ir.graph import Graph, with_makers
from iree_pilot.repro.reducer import kept, together
from iree_pilot.repro.reducer.locate import TREE

MODULE = "alone.mlir"
#: Rounds without the parts found so far, which may fail in another way and hide the wanted one.
_ROUNDS = 3
#: Number of named parts that are tried.
_NAMED = 3
#: Up to so many steps of data flow, makers come along.
_STEPS = 2

#: Real operations by position.
Part = tuple[int, ...]


class Parted(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of a function of the program in the file `mlir`; focus: as in `edit.Batch`."""

    mlir: str
    parts: tuple[Part, ...]
    focus: int = 0


class SinglePart(msgspec.Struct, frozen=True):
    """A part that is a function of its own; times: how many there are like it."""

    ops: Part
    times: int


class Last(msgspec.Struct, frozen=True):
    """Functions, by number, that one thread was at last."""

    numbers: tuple[int, ...]


class Finder:
    """Search for small parts of a function that fail alone."""

    def __init__(
        self,
        mlir: Path,
        focus: int,
        ask: together.Ask,
        said: together.Said,
        context: Context,
        flags: Sequence[str],
    ) -> None:
        self._mlir = mlir
        self._focus = focus
        self._ask = ask
        self._said = said
        #: Compiles that nobody was asked for, and those of them that were not done before.
        self.asked = 0
        self.calls = 0
        self._context = context
        self._flags = flags
        self._bindings = bindings.of(context.toolchain, context.limits)
        self._made = 0
        self._times: dict[Part, int] = {}
        #: True once a compile on one thread did not show where it crashed.
        self._mute = False

    def find(self, graph: Graph) -> Iterator[Part]:
        """Parts that are likely to be at fault, the likeliest first; at least one call for each
        size. Whoever asks says whether they are: those that were given are not looked at again."""
        for steps in range(_STEPS + 1):
            left = with_makers(graph, steps)
            for _ in range(_ROUNDS):
                found = self._among(left)[:_NAMED]
                if not found:
                    break
                yield from found
                left = tuple(part for part in left if part not in found)

    def _among(self, parts: tuple[Part, ...], fail: bool = False) -> tuple[Part, ...]:
        """Parts that are named when all are compiled together, or else one of them.

        fail: it is known that they fail. If none is named, the failing one is found by halving the
        parts in order of likelihood: those that occur once come before repeated ones.
        """
        module, alone = self._module(parts)
        if module is None:
            return ()
        if not fail:
            (answer,) = self._ask([module])
            if answer.verdict in ("passes", "invalid"):
                return ()
            numbers = together.named(module.read_text(encoding="utf-8"), self._said(module))
            crashed = answer.failure is not None and answer.failure.kind == "crash"
            if not numbers and crashed and not self._mute:
                numbers = self._last(module)
                self._mute = not numbers
            if numbers:
                return tuple(alone[n].ops for n in numbers if n < len(alone))
        if len(alone) == 1:
            return (alone[0].ops,)
        likely = sorted(alone, key=lambda one: one.times)
        sums = [*accumulate(1 / one.times for one in likely)]
        half = min(bisect_left(sums, sums[-1] / 2) + 1, len(likely) - 1)
        first, second = (tuple(one.ops for one in p) for p in (likely[:half], likely[half:]))
        return self._among(first) or self._among(second, fail=True)

    def _module(self, parts: tuple[Part, ...]) -> tuple[Path | None, tuple[SinglePart, ...]]:
        """(the module in which these are alone, what each of its functions is)."""
        self._made += 1
        place = self._context.directory / str(self._made)
        shutil.rmtree(place, ignore_errors=True)
        parted = Parted(mlir=str(self._mlir), parts=parts, focus=self._focus)
        done = self._bindings.call(f"{__name__}:separated", parted, tuple[SinglePart, ...], place)
        if done.reply is None:
            return None, ()
        alone = done.reply
        # Of parts of parts, those that are alike were left out before.
        for one in alone:
            self._times.setdefault(one.ops, one.times)
        alone = tuple(SinglePart(one.ops, self._times[one.ops]) for one in alone)
        return (place / MODULE if alone else None), alone

    def _last(self, module: Path) -> tuple[int, ...]:
        """The function that one thread was at when it crashed, as an earlier search has found out
        or by compiling."""
        if not set(TREE) <= self._context.toolchain.flags:
            return ()
        self.asked += 1
        digest = hashlib.sha256(module.read_bytes()).hexdigest()
        known = self._context.directory / f"last-{digest[:16]}.json"
        before = kept.recall(known, Last)
        if before is None:
            self.calls += 1
            before = Last(self._serial(module))
            kept.keep(known, before)
        return before.numbers

    def _serial(self, module: Path) -> tuple[int, ...]:
        tree, (before_all, at) = module.with_suffix(".passes"), TREE
        self._context.at(module.parent).run(
            [
                self._context.toolchain.compiler,
                module,
                *self._flags,
                diagnostics.SERIAL,
                f"--{before_all}",
                f"--{at}={tree}",
                "-o",
                "/dev/null",
            ],
            module.stem,
        )
        files = list(tree.rglob("*.mlir"))
        last = max(files, key=lambda file: file.stat().st_mtime_ns, default=tree)
        shutil.rmtree(tree, ignore_errors=True)
        return together.numbers(str(last.relative_to(tree)))


def separated(parted: Parted, directory: Path) -> tuple[SinglePart, ...]:
    """Writes a module of functions that hold one part each; what each of them holds."""
    text, alone = separate(Path(parted.mlir).read_bytes(), parted.parts, parted.focus)
    (directory / MODULE).write_text(text, encoding="utf-8")
    return alone


def separate(
    text: bytes, parts: Sequence[Part], focus: int = 0
) -> tuple[str, tuple[SinglePart, ...]]:
    """(a module of functions that hold one part each, what each of them holds).

    Of parts that are alike there is one; those that cannot be functions are left out.
    """
    with edit.context():
        module = edit.parse(text)
        body = Body(module, focus)
        alone: dict[Part, int] = {}
        seen: dict[str, Part] = {}
        for part in parts:
            function = _function(body, part, together.NAME.format(len(alone), "main"))
            if function is None:
                continue
            rest = function.get_asm(enable_debug_info=False).partition("(")[2]
            if rest in seen:
                function.erase()
                alone[seen[rest]] += 1
            else:
                seen[rest] = part
                alone[part] = 1
        body.function.erase()
        if not module.operation.verify():
            raise ValueError("the parts cannot be separated")
        return str(module.operation.get_asm(enable_debug_info=False)), tuple(
            SinglePart(part, times) for part, times in alone.items()
        )


def _function(body: Body, part: Part, name: str) -> Any:
    """A function at the end of the module that holds operations and the glue that they need.

    None where it would take or return what functions cannot.
    """
    from iree.compiler import ir

    members, taken = body.with_glue(part)
    ops = [body.ops[position] for position in members]
    used = {body.values[number] for op in ops for number in body.taken_by(op)}
    results = [result for op in ops for result in op.results if result not in used]
    given = [body.values[number] for number in taken]
    if any(NO_DATA.fullmatch(str(v.type)) for v in results):
        return None
    function, block = body.beside(name, given, results)
    known = dict(zip(given, block.arguments, strict=True))
    with ir.InsertionPoint(block) as point:
        cloned(ops, known, point)
        ir.Operation.create(body.ops[-1].name, operands=[known[result] for result in results])
    return function
