"""Construction of the user's model in a reproducer: files beside it, and their use."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.torch_dialect.calls import CannotWrite
from iree_pilot.repro.tracing.writing import SourceOrigin

#: Names of files that would stand in the way of others.
_RESERVED = ("iree_pilot", "repro", "torch", "iree", "numpy", "inspect", "sys")


def origin(job: Job, entry: str, needed: Iterable[str]) -> tuple[SourceOrigin, dict[str, str]]:
    """(where the model comes from, the files that go beside repro.py by their names there).

    entry: the function of the model. needed: the files that Python read while the model was made.
    Raises CannotWrite for a source that is not Python text.
    """
    source = job.source
    if job.weights:
        raise CannotWrite("the model", "its weights come from a file")
    python = [Path(file) for file in needed if file.endswith(".py")]
    if source.kind == "file":
        own = Path(source.path or "")
        stem = own.stem if own.stem.isidentifier() and own.stem not in _RESERVED else "source"
        beside = dict(_placed([f for f in python if f != own.resolve()], own.parent))
        return _factory(f"import {stem} as source", source.factory, job.seed), {
            f"{stem}.py": str(own),
            **beside,
        }
    if source.kind == "module":
        imported = f"import {source.module} as source" if source.module else ""
        beside = dict(_placed(python, Path.cwd()))
        return _factory(imported, source.factory, job.seed), beside
    if source.kind == "zoo":
        return _zoo(job, entry), _zoo_files()
    if source.kind == "library":
        raise CannotWrite("the model", f"iree-pilot makes it of {source.module}'s {source.factory}")
    raise CannotWrite("the model", f"a {source.kind} file holds no Python text")


def _factory(imported: str, factory: str, seed: int) -> SourceOrigin:
    return SourceOrigin(
        imports=(imported,),
        body=(
            f"torch.manual_seed({seed})",
            f"model, given = source.{factory}(), source.inputs()",
            'shapes = getattr(source, "dynamic_shapes", None)',
            "if isinstance(given, torch.Tensor):",
            "    given = (given,)",
            "return model, given, shapes() if callable(shapes) else shapes",
        ),
    )


def _zoo(job: Job, entry: str) -> SourceOrigin:
    source = job.source
    return SourceOrigin(
        imports=("from iree_pilot.models.spec import Choice, registry",),
        body=(
            f"torch.manual_seed({job.seed})",
            f"spec = registry()[{source.model!r}]",
            f"preset, fields = spec.preset({source.preset!r}), {dict(source.fields)!r}",
            f"chosen = Choice(spec=spec, preset=preset, fields=fields, part={source.part!r})",
            f"functions = chosen.build({job.seed}).functions",
            f"entry = next(one for one in functions if one.name == {entry!r})",
            "return entry.module, dict(entry.kwargs) or entry.args, entry.dynamic_shapes",
        ),
    )


def _zoo_files() -> dict[str, str]:
    """The zoo's own modules, and what they use of the driver's, by the names to import them by."""
    used = ("iree_pilot", "iree_pilot.pipeline", "iree_pilot.pipeline.errors", "iree_pilot.models")
    files = {}
    for name, module in sys.modules.items():
        file = getattr(module, "__file__", None)
        if file and (name in used or name.startswith("iree_pilot.models.")):
            suffix = "/__init__.py" if hasattr(module, "__path__") else ".py"
            files[name.replace(".", "/") + suffix] = file
    return files


def _placed(files: Iterable[Path], root: Path) -> Iterator[tuple[str, str]]:
    """Each file under the name that it is imported by."""
    roots = [root.resolve(), *(Path(p).resolve() for p in sys.path if p)]
    for file in files:
        for place in roots:
            if file.is_relative_to(place):
                yield str(file.relative_to(place)), str(file)
                break
