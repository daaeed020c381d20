"""The first dispatch whose results differ between two sides though it is given the same.

A program is compiled to flow once, for the side that is asked about: there its dispatches are
fixed, so that taking their results out changes none of them. The other side computes every value of
the program. Then the side that is asked about computes each dispatch apart, given the other side's
values, so that no error accumulates. What differs so is judged as everything is
(`pipeline.numerics.numerics`), by the rules where there is no precise reference.

Where the programs differ as wholes and no dispatch does alone, the fault is in how they go
together: more and more of the last dispatches are run as one until it shows.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.program.program import Call, Function, Reference, Tensor
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.differential import flow_editor
from iree_pilot.repro.differential.flow import (
    MADE,
    Flow,
    FlowBody,
    FlowCut,
    FlowStep,
    FlowValue,
    Interface,
)
from iree_pilot.repro.differential.side import Broken, Runner, Side, pick, typed

#: Limit of a call's inputs and outputs together; each call computes the program anew.
_CHUNK_BYTES = 256 * 2**20
_CHUNK_STEPS = 64
#: Levels of dispatches that are run as one at most.
_MOST_LEVELS = 1024


class Differing(msgspec.Struct, frozen=True, kw_only=True):
    """A dispatch whose results differ: what it is, in which function, and by how much.

    number: among the program's dispatches, from 0. levels: 0 where it shows alone; else it is the
    last of so many levels of dispatches that show it together. sources: what it was made of, as
    `file:line: operation`.
    """

    number: int
    name: str
    function: str
    operations: tuple[str, ...]
    sources: tuple[str, ...]
    comparison: Comparison
    levels: int = 0


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a comparison. sides: the tested one, then the one it is compared with.

    status `gave-up`: why says what kept it. differing: in the order of the program. whole: the
    program's own results, function by function. unseen: dispatches whose results cannot be taken
    out (they are seen with those that take them).
    """

    status: Literal["differs", "agrees", "gave-up"]
    sides: tuple[str, str]
    dispatches: int = 0
    unseen: int = 0
    differing: tuple[Differing, ...] = ()
    whole: tuple[tuple[str, Comparison], ...] = ()
    notes: tuple[str, ...] = ()
    compiles: int = 0
    runs: int = 0
    seconds: float = 0.0
    why: str = ""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Dispatches of one body whose values are computed by one call."""

    body: FlowBody
    steps: tuple[FlowStep, ...]

    @property
    def results(self) -> tuple[int, ...]:
        return tuple(n for step in self.steps for n in step.results)

    @property
    def values(self) -> tuple[int, ...]:
        """Operands and results of its dispatches, without repeats."""
        return tuple(dict.fromkeys(n for s in self.steps for n in (*s.rests_on, *s.results)))


def chunks(flow: Flow) -> list[Chunk]:
    """All dispatches whose results can be taken out, in calls of a sensible size."""
    made = []
    for body in flow.bodies:
        sizes = {value.number: value.bytes for value in body.values}
        steps: list[FlowStep] = []
        total = 0
        for step in body.steps:
            if not step.results:
                continue
            size = sum(sizes[n] for n in (*step.rests_on, *step.results))
            if steps and (total + size > _CHUNK_BYTES or len(steps) == _CHUNK_STEPS):
                made.append(Chunk(body=body, steps=tuple(steps)))
                steps, total = [], 0
            steps.append(step)
            total += size
        if steps:
            made.append(Chunk(body=body, steps=tuple(steps)))
    return made


class Culprit(msgspec.Struct, frozen=True, kw_only=True):
    """Data that reproduces a difference alone.

    cut: a function of the body that shows it; index: of the dispatch. mlir: flow IR of nothing but
    that function. values: those that are fed, by number. inputs: what the function is called with;
    expected: what the other side returns.
    """

    differing: Differing
    cut: FlowCut
    index: int
    mlir: str
    values: dict[int, Tensor]
    inputs: tuple[Tensor, ...]
    expected: tuple[Tensor, ...]


class Dispatched(NamedTuple):
    """A program as its dispatches: its flow IR in a file, and what that is.

    examples: the inputs of each function by its name. compiles: what it took to get there.
    """

    mlir: Path
    flow: Flow
    examples: Mapping[str, tuple[Tensor, ...]]
    compiles: int = 0


class Comparer:
    """Compares two sides of a program, dispatch by dispatch.

    The context's directory holds what is compiled (kept) and computed (thrown away as soon as it is
    compared), and the description, in `described`. origins: what a place in a file is.
    """

    def __init__(
        self,
        dispatched: Dispatched,
        loaded: Loaded,
        sides: tuple[Side, Side],
        context: Context,
        origins: Callable[[Sequence[tuple[str, int]]], tuple[str, ...]],
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._mlir, self._flow, self._examples, self._compiles = dispatched
        side, against = sides
        self.context = context
        self._origins = origins
        self._on_progress = on_progress
        self._program = loaded.program
        self._side = Runner(side, loaded, context.within("side"))
        self._against = Runner(against, loaded, context.within("against"))
        self._interfaces: dict[str, Interface] = {}
        self.culprit: Culprit | None = None

    def run(self) -> Compared:
        """Raises UsageError and EnvironmentFault as compiling and running do."""
        started = time.monotonic()
        result = Compared(status="gave-up", sides=(self._side.side.name, self._against.side.name))
        try:
            result = self._compared(result)
        except (Broken, flow_editor.NotEditable) as fault:
            result = msgspec.structs.replace(result, why=str(fault))
        return msgspec.structs.replace(
            result,
            dispatches=self._flow.dispatches,
            unseen=sum(not step.results for body in self._flow.bodies for step in body.steps),
            notes=self._flow.notes,
            compiles=self._compiles + self._side.compiles + self._against.compiles,
            runs=self._side.runs + self._against.runs,
            seconds=time.monotonic() - started,
        )

    def _compared(self, result: Compared) -> Compared:
        if not self._flow.bodies:
            return msgspec.structs.replace(result, why="the program has no dispatches")
        parts = chunks(self._flow)
        wholes = [body for body in self._flow.bodies if body.returned]
        plain = [_whole(body) for body in wholes]
        every = [
            FlowCut(name=f"values{i}", body=c.body.position, groups=(c.values,))
            for i, c in enumerate(parts)
        ]
        apart = [
            FlowCut(
                name=f"apart{i}",
                body=c.body.position,
                groups=tuple(step.results for step in c.steps),
                fed=tuple(v.number for v in c.body.values),
            )
            for i, c in enumerate(parts)
        ]
        # Both are made before either is compiled: what cannot be made is said at once.
        values_ir = self._made([*plain, *every], "values")
        apart_ir = self._made([*plain, *apart], "apart")
        self._on_progress(
            f"compiling {count(self._flow.dispatches, 'dispatch', 'dispatches')} for both"
        )
        theirs = self._against.compile(values_ir, "values")
        ours = self._side.compile(apart_ir, "apart")
        whole = tuple(
            (body.name, self._judged_whole(body, cut, ours, theirs))
            for body, cut in zip(wholes, plain, strict=True)
        )
        differing = []
        for chunk, values, alone in zip(parts, every, apart, strict=True):
            self._on_progress(f"dispatch {self._number(chunk.body, chunk.steps[0])} and after")
            differing += list(self._apart(chunk, values, alone, ours, theirs))
        if not differing and any(c.differs for _, c in whole):
            differing = self._together(whole, list(zip(parts, every, strict=True)), theirs)
            if not differing:
                why = "the programs' results differ, and no part of them that was tried does"
                return msgspec.structs.replace(result, whole=whole, why=why)
        status: Literal["differs", "agrees"] = "differs" if differing else "agrees"
        return msgspec.structs.replace(
            result, status=status, whole=whole, differing=tuple(differing)
        )

    @property
    def _text(self) -> Path:
        """The program without its device, whose features have names of element types in them."""
        return self.context.directory / "values" / MADE

    def _module(self, runner: Runner, cuts: Sequence[FlowCut], name: str) -> Path:
        return runner.compile(self._made(cuts, name), name)

    def _made(self, cuts: Sequence[FlowCut], name: str) -> Path:
        """A module of flow IR with a function for each cut."""
        mlir, interfaces = flow_editor.make(self._mlir, cuts, self.context.directory / name)
        self._interfaces |= dict(zip((c.name for c in cuts), interfaces, strict=True))
        return mlir

    def _judged_whole(self, body: FlowBody, cut: FlowCut, ours: Path, theirs: Path) -> Comparison:
        """Comparison of a function's results on both sides, each with its own values throughout."""
        inputs = self._inputs(cut, body, {})
        place = self.context.directory / "whole"
        expected = self._against.run(theirs, cut.name, inputs, body.returned, place / "against")
        got = self._side.run(ours, cut.name, inputs, body.returned, place / "side")
        return self._judge(self._text, body.returned, got, expected)

    def _apart(
        self, chunk: Chunk, values: FlowCut, alone: FlowCut, ours: Path, theirs: Path
    ) -> Iterator[Differing]:
        """The dispatches of a chunk that differ, each given the other side's values."""
        kinds = {value.number: value for value in chunk.body.values}
        place = self.context.directory / "chunk"
        shutil.rmtree(place, ignore_errors=True)
        expected = self._against.run(
            theirs,
            values.name,
            self._inputs(values, chunk.body, {}),
            [kinds[n] for n in chunk.values],
            place / "against",
        )
        got = self._side.run(
            ours,
            alone.name,
            self._inputs(alone, chunk.body, expected),
            [kinds[n] for n in chunk.results],
            place / "side",
        )
        for step in chunk.steps:
            outputs = [kinds[n] for n in step.results]
            compared = self._judge(
                self.context.directory / "described" / step.text, outputs, got, expected
            )
            if not compared.differs:
                continue
            differing = self._differing(chunk.body, [step], compared, 0)
            if self.culprit is None:
                cut = FlowCut(
                    name="main", body=chunk.body.position, groups=(step.results,), fed=alone.fed
                )
                self._keep(differing, cut, chunk.body, step.index, step.results, expected)
            yield differing

    def _together(
        self,
        whole: Sequence[tuple[str, Comparison]],
        values: Sequence[tuple[Chunk, FlowCut]],
        theirs: Path,
    ) -> list[Differing]:
        """The smallest end of the program, by levels of its dispatches, that differs as one."""
        wrong = {name for name, compared in whole if compared.differs}
        body = next(b for b in self._flow.bodies if b.returned and b.name in wrong)
        every = {value.number: value for value in body.values}
        place = self.context.directory / "chunk"
        shutil.rmtree(place, ignore_errors=True)
        expected: dict[int, Tensor] = {}
        for chunk, cut in values:
            if chunk.body == body:
                inputs = self._inputs(cut, body, {})
                kinds = [every[n] for n in chunk.values]
                expected |= self._against.run(theirs, cut.name, inputs, kinds, place / cut.name)
        returned = [value.number for value in body.returned]
        plain = _whole(body)
        inputs = self._inputs(plain, body, {})
        expected |= self._against.run(theirs, plain.name, inputs, body.returned, place / "whole")
        steps, levels = _end(body, 1), 1
        while levels <= _MOST_LEVELS and steps:
            self._on_progress(f"the last {levels} levels of dispatches of {body.name}")
            inside = {n for step in steps for n in step.results}
            cut = FlowCut(
                name="main",
                body=body.position,
                groups=(tuple(returned),),
                fed=tuple(n for n in every if n not in inside),
            )
            ours = self._module(self._side, [cut], f"levels{levels}")
            inputs = self._inputs(cut, body, expected)
            got = self._side.run(ours, cut.name, inputs, body.returned, place / "side")
            compared = self._judge(self._text, body.returned, got, expected)
            if compared.differs:
                differing = self._differing(body, steps, compared, levels)
                self._keep(differing, cut, body, steps[-1].index, returned, expected)
                return [differing]
            more = _end(body, levels * 2)
            if len(more) == len(steps):
                break
            steps, levels = more, levels * 2
        return []

    def _keep(
        self,
        differing: Differing,
        cut: FlowCut,
        body: FlowBody,
        index: int,
        returned: Sequence[int],
        expected: Mapping[int, Tensor],
    ) -> None:
        """Puts the values of the first dispatch that differs where they stay."""
        place = self.context.directory / "culprit"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        mlir, (interface,) = flow_editor.make(self._mlir, [cut], place / "made", alone=True)
        self._interfaces[cut.name] = interface
        values = {n: _copied(expected[n], place / f"{n}.bin") for n in interface.fed}
        self.culprit = Culprit(
            differing=differing,
            cut=cut,
            index=index,
            mlir=str(mlir),
            values=values,
            inputs=tuple(self._inputs(cut, body, values)),
            expected=tuple(_copied(expected[n], place / f"out{n}.bin") for n in returned),
        )

    def lifted(self, culprit: Culprit) -> tuple[Path, tuple[Tensor, ...]]:
        """(the dispatch as a program on tensors, what it is called with).

        Raises NotEditable for a dispatch that is none, Broken where its operands cannot be had.
        """
        place = self.context.directory / "lifted"
        cut = culprit.cut
        mlir, made = flow_editor.lift(self._mlir, cut.body, culprit.index, place)
        values = dict(culprit.values)
        more = [v for v in {v.number: v for v in made.operands}.values() if v.number not in values]
        if more:
            body = next(b for b in self._flow.bodies if b.position == cut.body)
            numbers = tuple(value.number for value in more)
            operands = FlowCut(name="operands", body=cut.body, groups=(numbers,), fed=cut.fed)
            module = self._module(self._against, [operands], "operands")
            inputs = self._inputs(operands, body, values)
            values |= self._against.run(module, "operands", inputs, more, place / "run")
        return mlir, tuple(pick([v.number for v in made.operands], values))

    def _inputs(self, cut: FlowCut, body: FlowBody, values: Mapping[int, Tensor]) -> list[Tensor]:
        interface = self._interfaces[cut.name]
        examples = self._examples.get(body.name, ())
        return [*(examples[p] for p in interface.arguments), *pick(interface.fed, values)]

    def _judge(
        self,
        text: Path,
        outputs: Sequence[FlowValue],
        got: Mapping[int, Tensor],
        expected: Mapping[int, Tensor],
    ) -> Comparison:
        """Comparison by the rules for references without a precise one; `text` shows roundings."""
        numbers = [value.number for value in outputs]
        reference = Reference(
            outputs=tuple(pick(numbers, expected)), evaluator=self._against.side.name
        )
        function = Function(
            name="", inputs=(), outputs=tuple(map(typed, outputs)), reference=reference
        )
        program = msgspec.structs.replace(self._program, mlir=str(text.absolute()))
        call = Call(program=program, directory=self.context.directory, function=function)
        return numerics.compare(tuple(pick(numbers, got)), call)

    def _differing(
        self, body: FlowBody, steps: Sequence[FlowStep], compared: Comparison, levels: int
    ) -> Differing:
        return Differing(
            number=self._number(body, steps[-1]),
            name=steps[-1].name,
            function=body.name,
            operations=tuple(o for step in steps for o in step.operations),
            sources=self._origins([place for step in steps for place in step.places]),
            comparison=compared,
            levels=levels,
        )

    def _number(self, body: FlowBody, step: FlowStep) -> int:
        before = self._flow.bodies[: self._flow.bodies.index(body)]
        return sum(len(b.steps) for b in before) + body.steps.index(step)


def _whole(body: FlowBody) -> FlowCut:
    return FlowCut(
        name=f"whole{body.position}",
        body=body.position,
        groups=(tuple(value.number for value in body.returned),),
    )


def _end(body: FlowBody, levels: int) -> list[FlowStep]:
    """The dispatches that a function's results come from, so many levels of them, in order."""
    makers = {n: s for s in body.steps for n in s.results}
    found: dict[int, FlowStep] = {}
    edge = body.ends
    for _ in range(levels):
        steps = [makers[n] for n in edge if n in makers]
        found |= {step.index: step for step in steps}
        edge = tuple(n for step in steps for n in step.rests_on)
    return [found[index] for index in sorted(found)]


def _copied(tensor: Tensor, file: Path) -> Tensor:
    shutil.copyfile(tensor.file, file)
    return msgspec.structs.replace(tensor, file=str(file.absolute()))
