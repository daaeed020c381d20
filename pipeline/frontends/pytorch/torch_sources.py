"""PyTorch sources to trace: models of the zoo and of libraries, Python, .pt2; their weights.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import torch
from iree.turbine import aot
from iree.turbine.aot.decompositions import current_aot_decompositions
from torch.export import ExportedProgram

from iree_pilot.models.spec import ModelChoice, registry
from iree_pilot.models.traceable import EntryFunction, Traceable
from iree_pilot.models.weights import checkpoints
from iree_pilot.pipeline.errors import UsageError, nearest
from iree_pilot.pipeline.frontends import libraries, outline, switches
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.pytorch import bindings, observed
from iree_pilot.pipeline.frontends.source import Source, literal, no_module
from iree_pilot.pipeline.program import torch_tensors


class HoldsCompiledModule(UsageError):
    """A source's model is an `aot.CompiledModule`, which no export has to trace.

    module: the class, or an instance of it. inputs: what the source's `inputs()` gave, else None.
    """

    def __init__(self, module: Any, inputs: Any, source: str) -> None:
        super().__init__(
            f"{source}: the model is an aot.CompiledModule, of which PyTorch can do nothing here",
            advice="It can be traced, compiled and run; what asks PyTorch for its parts needs a "
            "torch.nn.Module.",
        )
        self.module = module
        self.inputs = inputs


def traceable(job: Job) -> tuple[Traceable, dict[str, ExportedProgram]]:
    """The model, and those of its entries that are exported already.

    The job's inputs are the examples of a model of a library, and of a factory whose module has
    none. Raises Compiled for an `aot.CompiledModule`, and UsageError for a source that does not
    fit.
    """
    source, seed = job.source, job.seed
    given = tuple(torch_tensors.load(one) for one in job.inputs or ())
    bindings.restore()
    libraries.declare_operators()
    if source.kind == "library":
        from iree_pilot.models.libraries import make

        named, own = (source.module or "", source.factory), _own_fields(source)
        made = make.traceable(source.text, named, own, seed, given, source.path)
        return _switched(made, source, own), {}
    if source.kind == "zoo":
        spec = registry()[source.model or ""]
        preset = spec.preset(source.preset)
        choice = ModelChoice(spec=spec, preset=preset, fields=source.fields, part=source.part)
        return choice.build(seed), {}
    if source.kind == "checkpoint":
        from iree_pilot.models.weights import (
            load,  # and with it transformers, which most sources do not need
        )

        checkpoint = checkpoints.read(Path(source.path or ""))
        return load.traceable(checkpoint, source.fields, source.part or "", seed), {}
    if source.kind == "pt2":
        return _from_pt2(source, job.observed)
    module = _python_module(source.path, source.module)
    taken = _own_fields(source, getattr(module, source.factory, None))
    made = _from_factory(module, msgspec.structs.replace(source, fields=taken), given)
    return _switched(made, source, taken), {}


def _own_fields(source: Source, factory: Any = None) -> dict[str, str | int | bool]:
    """The source's fields without switches, unless the factory takes one of such a name itself."""
    with contextlib.suppress(TypeError, ValueError):
        taken = inspect.signature(factory).parameters if factory else {}
        return {k: v for k, v in source.fields.items() if k not in switches.NAMES or k in taken}
    return {k: v for k, v in source.fields.items() if k not in switches.NAMES}


def _switched(made: Traceable, source: Source, own: Mapping[str, Any]) -> Traceable:
    """The model with those of the source's fields set that are switches."""
    left = {k: v for k, v in source.fields.items() if k not in own and k != switches.DATA_DEPENDENT}
    switches.apply(made.root, left, source.text)
    return made


def _from_pt2(source: Source, seen: str) -> tuple[Traceable, dict[str, ExportedProgram]]:
    from iree_pilot.pipeline.frontends.pytorch import pt2

    path = Path(source.path or "")
    program = pt2.load(path, trusted=source.trusted)
    if program.example_inputs is None:
        raise UsageError(
            f"{path} carries no example inputs",
            advice="Export it with example inputs (torch.export.export keeps them).",
        )
    args, kwargs = program.example_inputs
    module = program.module()
    known = observed.load(Path(seen)) if seen else None
    entry = EntryFunction(
        name="main",
        module=module,
        args=tuple(args),
        kwargs=dict(kwargs),
        labels=known.labels if known else (),
    )
    decomposed = program.run_decompositions(current_aot_decompositions())
    notes = known.notes if known else ()
    return Traceable(root=module, functions=(entry,), notes=notes), {"main": decomposed}


def with_weights(made: Traceable, weights: tuple[str, ...], source: str) -> Traceable:
    """The model with the weights of archives or a directory instead of its own, all or none.

    A model that has no values uses them from their files. Raises UsageError with every tensor that
    does not fit.
    """
    if not weights:
        return made
    from iree_pilot.models.weights import load

    if not made.weights:
        return load.referenced(made, weights, source)
    notes = load.replace(made.root, weights, source)
    return dataclasses.replace(made, notes=(*made.notes, *notes))


def _python_module(path: str | None, name: str | None) -> ModuleType:
    """Imports a file under a name of its own (strict export imports it by that name again)."""
    if name is not None:
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as fault:
            if f"{name}.".startswith(f"{fault.name}."):
                raise no_module(name) from fault
            raise
    file = Path(path or "")
    # Nothing is left beside the user's file. A reproducer's folder stays as it was written to the
    # end: modules that come to it may be of others.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    reproducer = (file.parent / "report.json").is_file()
    unique = f"source_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}_{file.stem}"
    unique = unique.replace("-", "_")
    loader = SourceFileLoader(unique, str(file))  # whatever case the suffix has
    spec = importlib.util.spec_from_file_location(unique, file, loader=loader)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes or reproducer
    return module


def _from_factory(module: ModuleType, source: Source, given: tuple[torch.Tensor, ...]) -> Traceable:
    factory, text = source.factory, source.text
    _check_callable(module, factory, "the model", text)
    made = getattr(module, factory)
    if not _is_compiled(made):
        made = _called(made, source)
    if _is_compiled(made):
        raise HoldsCompiledModule(
            made, module.inputs() if hasattr(module, "inputs") else None, text
        )
    if not given:
        _check_callable(module, "inputs", "its example inputs", text)
    if not isinstance(made, torch.nn.Module):
        raise UsageError(
            f"{text}: {factory}() returned {type(made).__name__}, not a torch.nn.Module",
            advice="Return the module; put a function into one with a forward() of its own.",
        )
    if not callable(getattr(module, "inputs", None)):
        # A library's factory, whose models are made as for training.
        entry = EntryFunction(name="main", module=made.eval(), args=given, strict=None)
        return Traceable(root=made, functions=(entry,))
    values: Any = module.inputs()
    kwargs: dict[str, Any] = {}
    if isinstance(values, dict):
        kwargs, values = values, ()
    elif isinstance(values, torch.Tensor):
        values = (values,)
    elif not isinstance(values, tuple | list):
        raise UsageError(
            f"{text}: inputs() returned {type(values).__name__}",
            advice="Return a tuple of tensors, or a dict of them by argument name.",
        )
    shapes = getattr(module, "dynamic_shapes", None)
    entry = EntryFunction(
        name="main",
        module=made,
        args=tuple(values),
        kwargs=kwargs,
        dynamic_shapes=shapes() if callable(shapes) else shapes,
        strict=None,
    )
    return Traceable(root=made, functions=(entry,))


def _called(factory: Any, source: Source) -> Any:
    """What a factory makes of the keyword arguments that the user set.

    Raises UsageError for one that it does not take.
    """
    arguments = {name: literal(str(word)) for name, word in source.fields.items()}
    with contextlib.suppress(ValueError):  # it has no signature to be read
        # Not of what it wraps: a decorator may give that its arguments.
        taken = inspect.signature(factory, follow_wrapped=False).parameters
        several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        known = [n for n, p in taken.items() if p.kind not in several]
        needed = [n for n in known if taken[n].default is inspect.Parameter.empty]
        any_name = any(p.kind == p.VAR_KEYWORD for p in taken.values())
        of = f"{source.text}: {source.factory}()"
        outline.check_arguments(arguments, needed, None if any_name else known, of)
    try:
        return factory(**arguments)
    except TypeError as fault:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(fault))
        if unknown is None or unknown[1] not in arguments:
            raise
        known = []
        with contextlib.suppress(ValueError):
            whole = inspect.signature(factory).parameters
            known = [n for n, p in whole.items() if p.kind != p.VAR_KEYWORD]
        raise UsageError(
            f"{source.text}: {source.factory}() takes no argument {unknown[1]!r}",
            advice=nearest(unknown[1], known) or "It takes none.",
        ) from fault


def _check_callable(module: ModuleType, name: str, what: str, text: str) -> None:
    if not callable(getattr(module, name, None)):
        raise outline.no_function(text, name, what)


def _is_compiled(made: Any) -> bool:
    """True if it is a class that turbine compiles, or an instance of one."""
    kind = made if isinstance(made, type) else type(made)
    return issubclass(kind, aot.CompiledModule)
