"""Reads an exported program (`torch.export.save`) as data: what it would run is looked for before.

torch's reader unpickles tensors and objects, evaluates the sizes' expressions, compiles the guards
on the inputs, looks operators up by dotted names below `torch`, and loads native code that lies in
the archive. A file that torch.export.save wrote for a model of tensors needs none of that but
arithmetic, so all else is refused unless the user trusts it; `pt2_data.py` knows what its
descriptions may hold.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch._export.serde import serialize
from torch.export import ExportedProgram
from torch.export.pt2_archive import _package

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.pytorch import pt2_data
from iree_pilot.pipeline.frontends.pytorch.pt2_data import CodeFound

_NATIVE = re.compile(r"(?:^|/)aotinductor/|\.(?:so|cubin|hsaco|o|py|pyc)$")


def load(path: Path, *, trusted: bool) -> ExportedProgram:
    """The program in a .pt2 file.

    Raises UsageError for a file that torch cannot read, and for one that, while it is read or used,
    would run more than its operators, unless `trusted`.
    """
    try:
        if trusted:
            return torch.export.load(path)
        _check(path)
        with _data_only():
            return torch.export.load(path)
    except CodeFound as fault:
        raise UsageError(
            f"{path} runs code when it is read: it {fault}",
            advice="If you trust its author, add --trust; a nightly, which has no such "
            "option, takes only files that run no code.",
        ) from fault
    except Exception as fault:  # whatever torch's reader says of a damaged file
        raise UsageError(
            f"{path} cannot be read as an exported program: {_first_line(fault)}",
            advice="Write it with torch.export.save of the torch release in use.",
        ) from fault


def _first_line(fault: Exception) -> str:
    return next(iter(str(fault).splitlines()), type(fault).__name__)


def _check(path: Path) -> None:
    """Raises CodeFound where an archive holds machine code, or is not what it seems."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename.casefold() for entry in entries]  # as torch's reader looks them up
        if len({*names}) < len(names):
            raise CodeFound("has two files of one name, of which torch may read the other")
        for entry in entries:
            if _NATIVE.search(entry.filename):
                raise CodeFound(f"holds {entry.filename}, which is code")


@contextlib.contextmanager
def _data_only() -> Iterator[None]:
    """torch reads tensors and plain containers only: no objects, whose pickles are code.

    Its descriptions are looked at where torch parses them: what is checked is what is used.
    """
    read = torch.load
    parse: Callable[..., Any] = vars(serialize)["_bytes_to_dataclass"]
    make: Callable[..., Any] = vars(_package)["_dict_to_dataclass"]

    def parse_checked(schema: Any, content: bytes) -> Any:
        pt2_data.check(json.loads(content))
        return parse(schema, content)

    def make_checked(schema: Any, description: Any) -> Any:
        pt2_data.check(description)
        return make(schema, description)

    def load(*arguments: Any, **options: Any) -> Any:
        try:
            return read(*arguments, **(options | {"weights_only": True}))
        except Exception as fault:
            if "weights_only" in str(fault) or "Weights only" in str(fault):
                raise CodeFound(f"unpickles objects: {_named(fault)}") from fault
            raise

    def refuse(*_: Any, **__: Any) -> Any:
        raise CodeFound("unpickles objects of its own types")

    def refuse_native(*_: Any, **__: Any) -> Any:
        raise CodeFound("holds native code")

    changes = (
        (torch, "load", load),
        (serialize, "_bytes_to_dataclass", parse_checked),
        (_package, "_dict_to_dataclass", make_checked),
        (torch._C, "_pickle_load_obj", refuse),
        (_package, "_load_aoti", refuse_native),
        (_package, "pickle", SimpleNamespace(loads=refuse, load=refuse)),
    )
    kept = [vars(module)[name] for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(changes, kept, strict=True):
            setattr(module, name, value)


def _named(fault: Exception) -> str:
    """The object that a restricted unpickler refused, as it names it."""
    found = re.search(r"(?:GLOBAL|global|class) ([\w.]+)", str(fault))
    return found[1] if found else "not only tensors"
