"""Isolates a failure to trace, in a child process.

It traces the source once more, then the operation that was at work, alone; where that does not
fail, the module that was, with the inputs that it has in the whole model, and the modules in it.
Where the child dies, it died in the journal's last question.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends import switches, trace_child
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.pytorch import exporting, torch_sources
from iree_pilot.pipeline.frontends.pytorch.observed import no_kernel
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.program.program import holds_for
from iree_pilot.pipeline.torch_dialect.calls import CannotWrite
from iree_pilot.repro.tracing import origins, writing
from iree_pilot.repro.tracing.journal import Ask, Result, TraceAnswer, TraceCandidate, Traces
from iree_pilot.repro.tracing.probe import (
    attempt,
    failure_of,
    module_at_work,
    operations_at_work,
)
from iree_pilot.repro.tracing.trace_record import Recording
from iree_pilot.repro.tracing.writing import Manner

_FLAKY_RUNS = 5
_NEEDED = "dependencies.json"
_PROGRAM = "repro.py"


def isolated(ask: Ask, directory: Path) -> Result:
    """Result of the search."""
    warnings.simplefilter("ignore")
    opened, variables = trace_child.watch_files(), trace_child.watch_variables(directory)
    return _TraceSearch(ask, directory, opened, variables).run()


class _TraceSearch:
    def __init__(
        self, ask: Ask, directory: Path, opened: set[str], variables: Mapping[str, str]
    ) -> None:
        self.job = ask.job
        self.wanted = ask.failure.signature
        self.directory = directory
        self.opened, self.variables = opened, variables
        self.traces = Traces(directory)

    def run(self) -> Result:
        torch.manual_seed(self.job.seed)
        source = self.job.source
        try:
            self.traceable, self.read = torch_sources.traceable(self.job)
            self.traceable = torch_sources.with_weights(
                self.traceable, self.job.weights, source.text
            )
        except PilotError as error:
            return Result(why=error.message)
        except (Exception, SystemExit) as fault:  # noqa: BLE001 - it may raise anything
            return Result(why=_own_fault("the model cannot be made", failure_of(fault)))
        self._check_needed()
        with self.traceable.tracing():
            return self._isolate()

    def _check_needed(self) -> None:
        """Begins anew where a file, or a variable, that the model is made of is not what it was."""
        record = self.directory / _NEEDED
        files = trace_child.dependencies(self.opened, self.directory)
        now = msgspec.json.encode(files | dict(self.variables))
        if not record.is_file() or record.read_bytes() != now:
            self.traces.forget()
            record.write_bytes(now)

    def _isolate(self) -> Result:
        whole = self._confirm()
        if isinstance(whole, Result):
            return whole
        entry, seen = whole
        manner = Manner(inline=self.job.inline, strict=seen.strict)
        recording = None if seen.exported else self._record(entry)
        if isinstance(recording, Result):
            return recording
        for candidate in seen.operations:
            file = self.directory / candidate.file
            answer = self._ask_file(file, candidate.ops[0])
            if self._same(answer):
                return Result(
                    file=candidate.file,
                    failure=answer.failure,
                    ops=candidate.ops,
                    subject=f"an operation of {_named(entry.module, seen.module or '')}",
                    tried=(f"It is an operation of {_named(entry.module, seen.module or '')}",),
                    exported=answer.exported,
                    minimal=True,
                )
        recording = recording or self._record(entry)
        if isinstance(recording, Result):
            return recording
        found = self._modules(entry, seen, recording, manner)
        return msgspec.structs.replace(found, tried=(*found.tried, *self._ways(entry)))

    def _ways(self, entry: Any) -> tuple[str, ...]:
        """Sentences on what values of the example inputs do for a trace that needs values."""
        if "data-dependent" not in self.wanted:
            return ()

        def trace() -> TraceAnswer:
            try:
                made = exporting.export(entry, by_inputs=True)
            except (Exception, SystemExit) as fault:  # noqa: BLE001 - it may raise anything
                return TraceAnswer(failure=failure_of(fault))
            return TraceAnswer(failure=None, decided=made.decided)

        answer = self.traces.ask("tracing with values of the example inputs", trace)
        taken = [one for one in answer.decided if one.on_inputs]
        if answer.failure is not None or not taken:
            return ("Values taken from the example inputs do not let it trace",)
        return (
            f"With `--set {switches.DATA_DEPENDENT}={switches.EXAMPLE}` it traces, but holds for "
            f"fewer inputs: {'; '.join(map(holds_for, taken))}",
            *(
                f"The same in Python, at {Path(one.place).name}: `{_in_a_line(one.write)}`"
                for one in taken
                if one.write
            ),
        )

    def _confirm(self) -> tuple[Any, TraceAnswer] | Result:
        """The entry function that fails, and how; each is tried a few times if none does."""
        answers: list[TraceAnswer] = []
        for run in range(_FLAKY_RUNS):
            for entry in self.traceable.functions:
                probe = f"tracing {entry.name}{' again' * bool(run)}{' and again' * (run - 1)}"
                answer = self.traces.ask(probe, partial(self._trace, entry))
                answers.append(answer)
                if self._same(answer) and run == 0:
                    return entry, answer
            if run == 0:
                first = next((a.failure for a in answers if a.failure), None)
        seen = sum(map(self._same, answers))
        if seen:
            return Result(why=f"the failure is intermittent: {seen} of {_FLAKY_RUNS} traces had it")
        if first is not None:
            return Result(why=f"it now fails in another way: {first.message}")
        return Result(why="the failure did not appear again")

    def _same(self, answer: TraceAnswer) -> bool:
        return answer.failure is not None and answer.failure.signature == self.wanted

    def _trace(self, entry: Any, *, locate: bool = True) -> TraceAnswer:
        read = self.read.get(entry.name)
        outcome = attempt(entry, self.traceable.root, inline=self.job.inline, read=read)
        if outcome.fault is None or not locate:
            return TraceAnswer(
                failure=outcome.failure, exported=outcome.exported, strict=outcome.strict
            )
        manner = Manner(inline=self.job.inline, strict=outcome.strict)
        return TraceAnswer(
            failure=outcome.failure,
            exported=outcome.exported,
            strict=outcome.strict,
            module=module_at_work(outcome.fault, entry.module),
            operations=tuple(self._candidates(outcome.fault, manner)),
        )

    def _candidates(self, fault: BaseException, manner: Manner) -> Iterator[TraceCandidate]:
        texts: dict[str, str] = {}
        for call in operations_at_work(fault):
            for holds in (self.job.inline, not self.job.inline):
                try:
                    texts.setdefault(writing.operation(call, manner, holds=holds), call.name)
                except CannotWrite:
                    continue
        for number, (text, name) in enumerate(texts.items()):
            place = self.directory / f"operation{number}" / _PROGRAM
            place.parent.mkdir(exist_ok=True)
            place.write_text(text, encoding="utf-8")
            yield TraceCandidate(file=str(place.relative_to(self.directory)), ops=(name,))

    def _ask_file(self, file: Path, operation: str) -> TraceAnswer:
        """Answer to tracing a program of one operation, which was written here."""

        def trace() -> TraceAnswer:
            source = Source(text=file.name, kind="file", path=str(file), factory="model")
            try:
                made, _ = torch_sources.traceable(Job(source=source, seed=self.job.seed))
            except (Exception, SystemExit) as fault:  # noqa: BLE001 - it may raise anything
                return TraceAnswer(failure=failure_of(fault))
            (entry,) = made.functions
            outcome = attempt(entry, made.root, inline=self.job.inline)
            return TraceAnswer(failure=outcome.failure, exported=outcome.exported)

        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
        return self.traces.ask(f"tracing {operation} alone ({digest})", trace)

    def _record(self, entry: Any) -> Recording | Result:
        """Inputs of each module when PyTorch runs the model."""
        recording = Recording()

        def run() -> TraceAnswer:
            try:
                recording.run(entry)
            except (Exception, SystemExit) as fault:  # noqa: BLE001 - it may raise anything
                return TraceAnswer(failure=failure_of(fault))
            return TraceAnswer(failure=None)

        known = "running the model" in self.traces.known
        answer = self.traces.ask("running the model", run)
        if answer.failure is not None and not no_kernel(answer.failure.message):
            return Result(why=_own_fault("PyTorch itself cannot run the model", answer.failure))
        if known:
            run()
        return recording

    def _modules(
        self, entry: Any, seen: TraceAnswer, recording: Recording, manner: Manner
    ) -> Result:
        """The smallest module that fails alone."""
        path, shapes, asked_all = self._descend(entry, seen, recording)
        answer, inputs = seen, None
        if path:
            answer = self._ask_module(entry, path, recording, shapes=shapes)
            inputs = self._made_up(entry, path, recording, shapes)
        else:
            shapes = "whole()[2]" if entry.dynamic_shapes is not None else ""
        place = self.directory / "module" / _PROGRAM
        place.parent.mkdir(exist_ok=True)
        what = _named(entry.module, path)
        try:
            origin, beside = origins.origin(
                self.job, entry.name, trace_child.dependencies(self.opened, self.directory)
            )
        except CannotWrite as fault:
            return Result(why=f"the smallest module that fails is {what}; {fault}")
        kept = tuple(recording.given[path].kept) if path else ()
        takes = writing.ModuleInputs(inputs, shapes, kept)
        place.write_text(writing.submodule(origin, path, what, takes, manner), encoding="utf-8")
        return Result(
            file=str(place.relative_to(self.directory)),
            beside=beside,
            failure=answer.failure,
            ops=recording.operations(entry.module, path),
            subject=what,
            tried=(f"The smallest module that does not trace alone is {what}",),
            exported=answer.exported,
            minimal=asked_all,
        )

    def _descend(
        self, entry: Any, seen: TraceAnswer, recording: Recording
    ) -> tuple[str, str, bool]:
        """(the path of the smallest module that fails, its dynamic shapes, nothing in it is left
        to ask)."""
        current, shapes = "", ""
        for path in _upwards(seen.module or ""):
            if (found := self._fails(entry, path, recording)) is not None:
                current, shapes = path, found
                break
        while True:
            inner = [
                (path, found)
                for path in recording.inside(entry.module, current)
                if (found := self._fails(entry, path, recording)) is not None
            ][:1]
            if not inner:
                return current, shapes, bool(recording.given)
            ((current, shapes),) = inner

    def _fails(self, entry: Any, path: str, recording: Recording) -> str | None:
        """The dynamic shapes with which a module fails in the same way, "" for none; else None."""
        if path not in recording.given:
            return None
        if self._same(self._ask_module(entry, path, recording)):
            return ""
        if entry.dynamic_shapes is None:
            return None
        shapes = recording.shapes(path, entry)
        if shapes and self._same(self._ask_module(entry, path, recording, shapes=shapes)):
            return shapes
        return None

    def _ask_module(
        self,
        entry: Any,
        path: str,
        recording: Recording,
        *,
        shapes: str = "",
        made_up: Any = None,
    ) -> TraceAnswer:
        """Answer to tracing the module at `path` alone, with the inputs it has in the model."""
        args, kwargs = recording.given[path].args, recording.given[path].kwargs
        if made_up is not None:
            args, kwargs = ((), made_up) if isinstance(made_up, dict) else (made_up, {})
        alone = dataclasses.replace(
            entry,
            module=recording.alone(entry.module, path),
            args=args,
            kwargs=kwargs,
            dynamic_shapes=eval(shapes, {"torch": torch}) if shapes else None,
        )
        probe = f"tracing {path}{' with dynamic shapes' * bool(shapes)}"
        return self.traces.ask(
            f"{probe}{' with made-up inputs' * (made_up is not None)}",
            lambda: self._trace(alone, locate=False),
        )

    def _made_up(
        self, entry: Any, path: str, recording: Recording, shapes: str
    ) -> list[str] | dict[str, str] | None:
        """Expressions for inputs with which the module fails in the same way."""
        given = recording.given[path]
        if given.kept:
            return None
        try:
            texts: Any = {name: writing.expression(v) for name, v in given.kwargs.items()} or [
                writing.expression(v) for v in given.args
            ]
        except CannotWrite:
            return None
        made: Any
        if isinstance(texts, dict):
            made = {name: eval(text, {"torch": torch}) for name, text in texts.items()}
        else:
            made = tuple(eval(text, {"torch": torch}) for text in texts)
        answer = self._ask_module(entry, path, recording, shapes=shapes, made_up=made)
        return texts if self._same(answer) else None


def _in_a_line(lines: str) -> str:
    return "; ".join(lines.splitlines())


def _upwards(path: str) -> Iterator[str]:
    """A path and those around it, without that of the whole model."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _named(root: torch.nn.Module, path: str) -> str:
    kind = type(root.get_submodule(path)).__name__
    return f"`{path}`, a `{kind}`" if path else f"the model, a `{kind}`"


def _own_fault(what: str, failure: Failure) -> str:
    where = f" (at {failure.location})" if failure.location else ""
    return f"{what}: {failure.message}{where}; that is an error of the source, not of the tracer"
