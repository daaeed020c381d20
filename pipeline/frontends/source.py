"""Parser of a SOURCE on the command line; imports nothing."""

from __future__ import annotations

import ast
import os
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal

import msgspec

from iree_pilot.pipeline import extras, links
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError, nearest
from iree_pilot.pipeline.frontends import switches
from iree_pilot.pipeline.program import substitutes

Kind = Literal["zoo", "library", "checkpoint", "file", "module", "pt2", "onnx", "mlir"]

_BY_SUFFIX: dict[str, Kind] = {
    ".py": "file",
    ".pt2": "pt2",
    ".onnx": "onnx",
    ".mlir": "mlir",
    ".mlirbc": "mlir",
}
#: Suffixes of files that hold weights.
_WEIGHTS = (".safetensors", ".gguf", ".irpa", ".bin")
#: Libraries whose models are sources by name; without one, its extra of the same name has it.
LIBRARIES = ("transformers", "timm", "torchvision", "diffusers")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+|[A-Za-z_]\w*")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A source, resolved as far as that goes without running anything.

    text: as the user wrote it. path: the file or the checkpoint's directory, absolute. factory:
    name of the callable that makes the model (`model` by default), or of a library's model. module:
    dotted module name, or the library. model, preset, part, fields: of a zoo model; of a
    checkpoint: the family, the part, and those fields that were set; elsewhere fields are the
    factory's keyword arguments, or a library's model's settings, as the user wrote them, and
    `switches`. trusted: the user says that code in the file may be run (a .pt2's).
    """

    text: str
    kind: Kind
    path: str | None = None
    module: str | None = None
    factory: str = "model"
    model: str | None = None
    preset: str | None = None
    part: str | None = None
    fields: dict[str, str | int | bool] = {}
    trusted: bool = False

    @property
    def name(self) -> str:
        """A short name for people and file names."""
        if self.path is None:
            return self.factory if self.kind == "library" else self.text
        whole = self.kind in ("checkpoint", "library")
        return Path(self.path).name if whole else Path(self.path).stem


def parse(text: str, settings: dict[str, str], dtype: str | None) -> Source:
    """Resolves a SOURCE; `settings` and `dtype` are fields of a zoo model's preset, of the model of
    a library, or keyword arguments of a factory.

    Raises UsageError for a file that is missing or empty, an unknown model, preset or field, a
    module that cannot be found, a checkpoint that is damaged or of an architecture that the zoo
    does not have, and for settings on a source that has no fields; EnvironmentFault for a library
    that is not installed.
    """
    if not text.strip():
        raise UsageError("SOURCE is empty", advice="Name a model (`iree-pilot models`) or a file.")
    path_text, factory = split(text)
    if not path_text.strip():
        raise UsageError(
            f"{text}: there is no name before the colon",
            advice="Name a model (`iree-pilot models`), a file or a module there.",
        )
    if path_text in LIBRARIES and factory:
        return _of_library(text, (path_text, factory), settings, dtype)
    if text.endswith(":") and not Path(text).exists():
        raise UsageError(
            f"{text}: there is no name behind the colon",
            advice="There stands a model of a library (timm:resnet18), a preset of the zoo's "
            "(llama:tiny), a part of a checkpoint, or the function that makes the model "
            "(model.py:model). Without the colon it is the usual one.",
        )
    links.check(Path(text))
    links.check(Path(path_text))
    kind = _BY_SUFFIX.get(Path(path_text).suffix.lower())
    if kind is None and Path(path_text).is_dir() and not _is_zoo(path_text):
        return _checkpoint(text, Path(path_text), factory, settings, dtype)
    if kind is None and (Path(text).exists() or "/" in path_text.rstrip("/")):
        kind = None if _is_zoo(path_text) else _refuse_path(Path(text))
    if kind is None and not _is_zoo(path_text) and _DOTTED.fullmatch(path_text) and factory:
        kind = "module"
    if kind is None and not _is_zoo(path_text):
        _check_beside(text, path_text)
    if kind is None:
        return _zoo(text, settings, dtype)
    if dtype or (settings and kind not in ("file", "module")):
        named = [*settings, *(["dtype"] if dtype else [])]
        raise UsageError(
            f"{text} has no fields to set, but {', '.join(named)} was given",
            advice="--set and --dtype apply to zoo models (`iree-pilot models`) and to models of "
            f"libraries ({', '.join(LIBRARIES)}), --set to factories in Python too.",
        )
    switches.check(settings)
    if factory and kind not in ("file", "module"):
        raise UsageError(
            f"{text}: a {kind} file has no factory to name after the colon",
            advice=f"Name the file alone: {path_text}",
        )
    if kind == "module":
        _check_module(path_text)
        return Source(text=text, kind=kind, module=path_text, factory=factory, fields={**settings})
    path = _existing_file(Path(path_text))
    factory = factory or "model"
    return Source(text=text, kind=kind, path=str(path), factory=factory, fields={**settings})


def _of_library(
    text: str,
    named: tuple[str, str],
    settings: dict[str, str],
    dtype: str | None,
    directory: str | None = None,
) -> Source:
    """The source of a model, (library, name); the library itself is not imported here.

    directory: of its checkpoint.
    """
    from iree_pilot.models.libraries import names

    library, name = named
    if PathFinder.find_spec(library, [str(Path.cwd()), *sys.path]) is None:
        raise EnvironmentFault(
            f"{text} is a model of {library}, which is not installed",
            advice=f"Install it: {extras.install(library)}",
        )
    names.check(text, library, name)
    if settings.get("dtype", dtype) != dtype and dtype:
        raise UsageError(
            f"--dtype {dtype} and --set dtype={settings['dtype']} contradict each other"
        )
    switches.check({k: v for k, v in settings.items() if k == switches.DATA_DEPENDENT})
    fields: dict[str, str | int | bool] = {**settings, **({"dtype": dtype} if dtype else {})}
    return Source(
        text=text, kind="library", path=directory, module=library, factory=name, fields=fields
    )


def literal(word: str) -> Any:
    """What a word of the user's stands for in Python: a literal, true, false, none, else a text."""
    plain = {"true": True, "false": False, "none": None}
    if word.lower() in plain:
        return plain[word.lower()]
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def split(text: str) -> tuple[str, str]:
    """(the file, folder, module or model, what is named behind its colon).

    A file's name may have colons of its own.
    """
    head, colon, tail = text.rpartition(":")
    for path, named in ((text, ""), (head, tail)) if colon else ():
        there = Path(path).exists() and not _is_zoo(path.partition(":")[0])
        if there or Path(path).suffix.lower() in _BY_SUFFIX:
            return path, named
    head, _, tail = text.partition(":")
    return head, tail


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a zoo model, the values that it may have instead of its own, what it is."""

    name: str
    values: tuple[str, ...]
    help: str


def alternatives(source: Source) -> list[Alternative]:
    """The fields of a zoo model that have a choice of values; none for other sources."""
    from iree_pilot.models.spec import registry

    if source.kind != "zoo":
        return []
    found = []
    for field in registry()[source.model or ""].fields:
        own = source.fields.get(field.name, field.default)
        values = field.choices or (("false", "true") if isinstance(field.default, bool) else ())
        others = tuple(value for value in values if field.parse(value) != own)
        if others:
            found.append(Alternative(name=field.name, values=others, help=field.help))
    return found


def _is_zoo(name: str) -> bool:
    from iree_pilot.models.spec import registry

    return name.split("/")[0] in registry()


def _check_beside(text: str, path: str) -> None:
    """Raises UsageError for a name that is that of a file without its suffix."""
    beside = [f"{path}{suffix}" for suffix in _BY_SUFFIX if Path(f"{path}{suffix}").is_file()]
    if beside:
        raise UsageError(
            f"{text} is no model of the zoo, and no file",
            advice=f"Did you mean {' or '.join(beside)}?",
        )


def _zoo(text: str, settings: dict[str, str], dtype: str | None) -> Source:
    from iree_pilot.models.spec import resolve

    choice = resolve(text, settings, dtype)
    return Source(
        text=text,
        kind="zoo",
        model=choice.spec.name,
        preset=choice.preset.name,
        part=choice.part,
        fields=choice.fields,
    )


def _checkpoint(
    text: str, path: Path, part: str, settings: dict[str, str], dtype: str | None
) -> Source:
    from iree_pilot.models.libraries import directories
    from iree_pilot.models.weights.checkpoints import chosen, read

    if found := directories.read(path.resolve()):
        if part:
            raise UsageError(
                f"{text}: {found.name} has no part {part!r}: it is one function",
                advice=f"Name the directory alone: {path}",
            )
        return _of_library(text, (found.library, found.name), settings, dtype, found.path)
    checkpoint = read(path.resolve())
    return Source(
        text=text,
        kind="checkpoint",
        path=checkpoint.path,
        model=checkpoint.family,
        part=part or None,
        fields=chosen(checkpoint, settings, dtype, part),
    )


def _refuse_path(path: Path) -> Kind:
    if path.is_file() and (path.name == "config.json" or path.suffix in _WEIGHTS):
        raise UsageError(f"{path} is a part of a model, and no source", advice=_whole(path))
    what = f"cannot tell what {path} is by its suffix" if path.exists() else f"no file {path}"
    raise UsageError(
        what,
        advice=f"Sources are {', '.join(_BY_SUFFIX)} files, directories of checkpoints, or "
        "`iree-pilot models`.",
    )


def _whole(part: Path) -> str:
    """Advice on a config or on weights that are named alone."""
    if (part.parent / "config.json").is_file():
        return f"Name the directory of the checkpoint: {part.parent}"
    if part.name == "config.json":
        return f"Fetch its weights; `iree-pilot models check {part}` checks it alone."
    return f"Give them to a model of the zoo: iree-pilot run MODEL --weights {part}"


def _existing_file(path: Path) -> Path:
    if not path.exists():
        here = [p.name for p in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
        raise UsageError(
            f"no file {path}",
            advice=nearest(path.name, here) if here else "Check the path.",
        )
    if not path.is_file():
        raise UsageError(f"{path} is not a file", advice="Name the file itself.")
    if not os.access(path, os.R_OK):
        raise UsageError(
            f"cannot read {path}: permission denied", advice=f"For example: chmod u+r {path}"
        )
    if path.stat().st_size == 0:
        raise UsageError(f"{path} is empty", advice="Was it written to the end?")
    with path.open("rb") as file:
        substitutes.refuse(path, file.read(substitutes.START_BYTES))
    return path.resolve()


def _check_module(name: str) -> None:
    """Raises unless the top package exists; a submodule cannot be found without importing that."""
    top = name.split(".")[0]
    places = [str(Path.cwd()), *sys.path]
    if top not in sys.builtin_module_names and PathFinder.find_spec(top, places) is None:
        raise no_module(name) if "." in name else _no_model(name)


def _no_model(name: str) -> UsageError:
    """The error for a name before a colon that is neither a model nor a module."""
    from iree_pilot.models.spec import registry

    return UsageError(
        f"the zoo has no model {name!r}, and no file, folder or Python module of that name can be "
        "found",
        advice=nearest(name, list(registry())),
    )


def no_module(name: str) -> UsageError:
    """The error for a dotted name that is no module, and no model of the zoo."""
    from difflib import get_close_matches

    from iree_pilot.models.spec import registry

    close = get_close_matches(name, registry(), n=3, cutoff=0.6)
    meant = f"Did you mean the zoo's {' or '.join(close)}? " if close else ""
    return UsageError(
        f"no Python module {name} can be found",
        advice=f"{meant}Run where it is importable, or put its directory on PYTHONPATH.",
    )
