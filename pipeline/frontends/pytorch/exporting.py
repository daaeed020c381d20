"""Exports a model's entry with torch.export, in the mode that takes it.

Runs in the tracing child; imports torch and turbine.
"""

from __future__ import annotations

import contextlib
import sys
from typing import NamedTuple

import torch
from iree.turbine.aot.decompositions import current_aot_decompositions
from torch.export import ExportedProgram

from iree_pilot.models.traceable import EntryFunction
from iree_pilot.pipeline.frontends.pytorch import data_dependent, explicit
from iree_pilot.pipeline.program.program import Decided


class Exported(NamedTuple):
    """An entry as a decomposed program. strict: it took torch.export's strict mode. decided: values
    of tensors that were taken as given."""

    program: ExportedProgram
    strict: bool
    decided: tuple[Decided, ...] = ()


class WithState(NamedTuple):
    """An entry with what it changes as outputs, exported. drawn: the functions that it drew from,
    whose random numbers are inputs."""

    entry: EntryFunction
    program: ExportedProgram
    decided: tuple[Decided, ...]
    drawn: tuple[str, ...]


def with_state(
    entry: EntryFunction, *, source: str, seeded: bool, by_inputs: bool, stateful: bool = True
) -> WithState:
    """Exports an entry with what it changes as outputs, if `stateful`, and what it draws as inputs,
    if `seeded`; by_inputs as for `export`.

    Raises UsageError for what it draws and cannot be an input, with the source's name.
    """
    drawn: list[str] = []
    if seeded:
        entry, drawn = explicit.seeded(entry)
    made = export(entry, by_inputs=by_inputs)
    if seeded:
        explicit.refuse_left(made.program, source)
    if stateful:
        changing = explicit.stateful(entry, made.program)
        if changing is not entry:
            # Where that fails, what changes is not compared, and the verdict says so.
            with contextlib.suppress(Exception):
                entry, made = changing, export(changing, by_inputs=by_inputs)
    return WithState(entry, made.program, made.decided, tuple(drawn))


def export(entry: EntryFunction, *, by_inputs: bool = False) -> Exported:
    """Exports an entry.

    A value that Python needs and no input has a part in is computed, see `data_dependent`;
    by_inputs: those that the example inputs decide, too.
    """
    if "transformers.cache_utils" in sys.modules:  # the model is made
        from iree_pilot.pipeline.frontends.pytorch import caches

        caches.register()
    if entry.strict:
        return Exported(_export_once(entry, strict=True), strict=True)
    fault: Exception | None = None
    program: ExportedProgram | None = None
    try:
        program = _export_once(entry, strict=False)
    except Exception as raised:  # noqa: BLE001 - of which one is raised again
        fault = raised
    if program is not None and not _depends_on_data(program):
        return Exported(program, strict=False)
    if program is not None or _on_data(fault):
        watched = data_dependent.DataWatch(entry, by_inputs=by_inputs)
        try:
            with watched.watching():
                made = _export_once(entry, strict=False)
            if watched.decided and watched.holds(made):
                return Exported(made, strict=False, decided=watched.decided)
        except Exception as further:  # noqa: BLE001 - of which one is raised again
            fault = further if watched.decided and _on_data(further) else fault
    if program is not None:
        return Exported(program, strict=False)
    assert fault is not None
    if entry.strict is None:
        # What Dynamo refuses usually traces in the interpreter, and the other way round.
        with contextlib.suppress(Exception):
            return Exported(_export_once(entry, strict=True), strict=True)
    raise fault from None


def _depends_on_data(program: ExportedProgram) -> bool:
    """True if a program has sizes or numbers that depend on the values of tensors."""
    return any(node.meta.get("unbacked_bindings") for node in program.graph.nodes)


def _on_data(fault: BaseException | None) -> bool:
    """True if torch.export says that the value of a tensor would decide."""
    return "data-dependent" in str(fault) or "DataDependent" in type(fault).__name__


def _export_once(entry: EntryFunction, *, strict: bool) -> ExportedProgram:
    program: ExportedProgram = torch.export.export(
        entry.module,
        entry.args,
        dict(entry.kwargs),
        dynamic_shapes=entry.dynamic_shapes,
        strict=strict,
    )
    # turbine does not decompose an ExportedProgram that it is given.
    decomposed: ExportedProgram = program.run_decompositions(current_aot_decompositions())
    return decomposed
