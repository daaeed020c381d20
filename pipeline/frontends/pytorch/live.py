"""A module of the user's process as a source: torch.export runs there, the rest in the child.

What goes to the child is the exported program and what the module itself computes, so that the two
are compared as for any other model. Runs in the user's process; imports torch and turbine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from iree_pilot.models.traceable import EntryFunction
from iree_pilot.pipeline.errors import PilotError, UsageError
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.frontends.job import CANNOT_RUN, Job, TraceFailed
from iree_pilot.pipeline.frontends.pytorch import data_dependent, explicit, exporting, observed
from iree_pilot.pipeline.frontends.pytorch.observed import Observed
from iree_pilot.pipeline.frontends.reference import draws
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.store.store import Store, digest

KIND = "exported"
_OBSERVED = "observed.pt"
#: torch.export keeps its state in globals.
_EXPORTING = threading.Lock()


class ExampleCall(NamedTuple):
    """A call of a module, and which sizes of its tensors are open, as torch.export takes them."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dynamic_shapes: Any = None


def job_of(
    module: torch.nn.Module, call: ExampleCall, store: Store, *, seed: int, seeded: bool
) -> Job:
    """The job that makes a program of a module; its file is in the store.

    The module is run on copies of itself and of the arguments, without limits of time and memory.
    Raises TraceFailed where torch.export does not take it, and UsageError for what cannot be
    handed on.
    """
    kind = type(module).__name__
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        file, seen = Path(scratch, f"{kind}.pt2"), Path(scratch, _OBSERVED)
        with _EXPORTING, _without_logs():
            program, found = _exported(module, call, seed=seed, seeded=seeded)
            _check_results(program, kind)
            try:
                torch.export.save(program, file)
                observed.save(found, seen)
            except Exception as fault:  # whatever has no form in a file
                raise UsageError(
                    f"{kind}: its exported program cannot be written to a file: {fault}",
                    advice="Take and return tensors in tuples, lists and dicts, such as "
                    "tuple(torch.sort(x)).",
                ) from fault
        place = store.obtain(
            KIND,
            Store.key(kind, digest(file), digest(seen)),
            lambda entry: [one.rename(entry / one.name) for one in (file, seen)],
        )
    source = Source(text=kind, kind="pt2", path=str(place / file.name), trusted=True)
    return Job(source=source, seed=seed, observed=str(place / _OBSERVED))


def _exported(
    module: torch.nn.Module, call: ExampleCall, *, seed: int, seeded: bool
) -> tuple[ExportedProgram, Observed]:
    """(the program, what the module computes)."""
    started = time.monotonic()
    entry = EntryFunction(
        name="main",
        module=module,
        args=call.args,
        kwargs=dict(call.kwargs),
        dynamic_shapes=call.dynamic_shapes,
        strict=None,
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = exporting.with_state(
                entry, source=type(module).__name__, seeded=seeded, by_inputs=False
            )
            entry = made.entry
            given, others = (
                pytree.tree_map_only(torch.Tensor, _copied, (entry.args, dict(entry.kwargs)))
                for _ in range(2)
            )
            seen = observed.observe(entry, made.program, given, others, seed=seed)
    except PilotError:
        raise
    except Exception as fault:
        frames = [
            (frame.filename, frame.lineno or 0, frame.name)
            for frame in traceback.extract_tb(fault.__traceback__)
        ]
        failure = diagnostics.trace_failure(type(fault).__name__, str(fault), frames)
        args, kwargs = pytree.tree_map_only(torch.Tensor, _copied, (entry.args, dict(entry.kwargs)))
        copy = draws.copied(module)
        if running := observed.error(
            dataclasses.replace(entry, module=copy, args=args, kwargs=kwargs)
        ):
            failure = msgspec.structs.replace(failure, message=f"{CANNOT_RUN}: {running}")
        raise TraceFailed(failure, time.monotonic() - started) from fault
    for node in made.program.graph.nodes:
        node.meta.pop("from_node", None)  # addresses, so the file would differ each time
    notes = (*explicit.notes([entry], made.drawn), *data_dependent.notes(made.decided))
    return made.program, seen._replace(notes=notes)


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Keeps what torch writes of an export that fails, graphs among it, off the terminal: the error
    says it."""
    log = logging.getLogger("torch")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(before)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _check_results(program: ExportedProgram, kind: str) -> None:
    """Raises UsageError unless the program returns tensors, and nothing but None beside them."""
    specs = program.graph_signature.output_specs
    returned = [spec.arg for spec in specs if spec.kind.name == "USER_OUTPUT"]
    others = [
        repr(value)
        for arg in returned
        if (value := getattr(arg, "value", None)) is not None
        or type(arg).__name__ == "SymIntArgument"
    ]
    if others or not any(type(arg).__name__ == "TensorArgument" for arg in returned):
        what = f"returns {', '.join(others)}" if others else "returns no tensor"
        raise UsageError(
            f"{kind} {what}: a program's results are tensors",
            advice="Put a module around it whose forward() returns the tensors alone.",
        )
