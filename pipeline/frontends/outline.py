"""Definitions of a Python source, read from its text: missing ones are found without running it.

Only what is certain is refused: a file that may get names in another way is left to be run.
"""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TypeVar

from iree_pilot.models.spec import registry
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.source import Source, split

T = TypeVar("T", bound=ast.AST)

#: Name of the only function of a program.
MAIN = "main"

#: Names and attributes that may bind names of a module in ways that its text does not show.
_HIDDEN = frozenset(
    {
        *("globals", "locals", "vars", "setattr", "exec", "eval", "__getattr__"),
        *(".__dict__", ".modules", ".f_globals", ".currentframe", "._getframe"),
    }
)
#: Names that a compiled module needs, or may need.
_COMPILED = frozenset({"CompiledModule", ".CompiledModule", ".import_module", "__import__"})
#: Packages that have no `aot.CompiledModule`, which needs no `inputs()`, to offer.
_PLAIN = frozenset(
    {*sys.stdlib_module_names, "torch", "torchvision", "transformers", "numpy", "safetensors"}
)
_LARGEST_BYTES = 2**20


def check(file: Path, factory: str, text: str, *, given: bool = False) -> None:
    """Raises UsageError where the Python file has no function `factory`, or none for its inputs.

    text: the source as the user named it. given: the user gives the inputs.
    """
    if (tree := _parsed(file)) is None:
        return
    words = set(_words(tree))
    names = set(_bound(tree.body)) | {n for one in _of(tree, ast.Global) for n in one.names}
    if words & _HIDDEN or "*" in names:
        return
    if factory not in names:
        raise no_function(text, factory, "the model", sorted(_functions(tree)))
    if "inputs" not in names and not given and _is_plain(tree):
        raise no_function(text, "inputs", "its example inputs")


def _parsed(file: Path) -> ast.Module | None:
    """Syntax tree; None for a file that is not Python or too large: running it shows the error."""
    try:
        return None if file.stat().st_size > _LARGEST_BYTES else ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def _is_plain(tree: ast.Module) -> bool:
    """True if the model cannot be an `aot.CompiledModule`."""
    return not set(_words(tree)) & _COMPILED and _packages(tree) <= _PLAIN


def check_function(source: Source, name: str) -> None:
    """Raises UsageError where the program of a source that PyTorch traces will not have a function
    of that name, as far as it is known before; "" names all."""
    known = _traced(source)
    if name and known and name not in known:
        raise unknown(source.text, name, known)


def _traced(source: Source) -> tuple[str, ...]:
    """The functions that a source is traced to; () where that is not known."""
    if source.kind in ("zoo", "checkpoint"):
        return (source.part,) if source.part else registry()[source.model or ""].parts or (MAIN,)
    if source.kind in ("pt2", "library"):
        return (MAIN,)
    file = Path(source.path or "") if source.kind == "file" else None
    if source.kind == "module":
        file = module_file(source.module or "")
    tree = _parsed(file) if file else None
    plain = tree and _is_plain(tree) and not set(_words(tree)) & _HIDDEN
    return (MAIN,) if plain else ()


def unknown(source: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a function that a program does not have; known: those that it has."""
    return UsageError(
        f"{source} has no function {name!r}", advice=f"Its functions: {', '.join(known)}."
    )


def check_source(source: Source, *, given: bool = False) -> None:
    """`check` of a source that is a Python file or a module; nothing is imported.

    given: the user gives the inputs.

    Raises UsageError, too, for a .pt2 that is no archive.
    """
    if source.kind == "pt2" and not zipfile.is_zipfile(source.path or ""):
        raise UsageError(
            f"{source.text} cannot be read as an exported program: it is no zip archive",
            advice="Write it with torch.export.save, and copy it as a binary file.",
        )
    if source.kind == "file":
        check(Path(source.path or ""), source.factory, source.text, given=given)
    elif source.kind == "module" and (file := module_file(source.module or "")):
        check(file, source.factory, source.text, given=given)


def module_file(name: str) -> Path | None:
    """The file of a module, found without importing its package; None where it has none."""
    places: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), places)
        if spec is None or (spec.submodule_search_locations is None and count < len(parts)):
            return None
        places = list(spec.submodule_search_locations or ())
    origin = Path(spec.origin) if spec and spec.origin else None
    return origin if origin and origin.suffix == ".py" else None


def no_function(text: str, name: str, what: str, known: list[str] | None = None) -> UsageError:
    """The error for a source without a function that makes `what`; known: those that it has."""
    close = get_close_matches(name, known or (), n=1, cutoff=0.6)
    meant = f"Did you mean {split(text)[0]}:{close[0]}? " if close else ""
    instead = ", or give them with --input" if name == "inputs" else ""
    return UsageError(
        f"{text}: there is no function {name}() that makes {what}",
        advice=f"{meant}A source defines model() -> torch.nn.Module and inputs() -> tuple of "
        f"tensors{instead}; FILE.py:NAME picks another factory than model().",
    )


def _of(tree: ast.AST, kind: type[T]) -> Iterator[T]:
    return (node for node in ast.walk(tree) if isinstance(node, kind))


def _words(tree: ast.AST) -> Iterator[str]:
    """All names that the code says; attributes with their dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield f".{node.attr}"
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    """The names that statements of a module bind, whichever of them are run; `*` for any."""
    for statement in body:
        waiting: list[ast.AST] = [statement]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name
                continue
            if isinstance(node, ast.Lambda):
                continue
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.alias):
                yield node.asname or node.name.partition(".")[0]
            elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.ExceptHandler) and node.name:
                yield node.name
            elif isinstance(node, ast.MatchMapping) and node.rest:
                yield node.rest
            waiting += ast.iter_child_nodes(node)


def _functions(tree: ast.Module) -> Iterator[str]:
    return (n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef))


def _packages(tree: ast.AST) -> set[str]:
    """The packages that are imported; those of the source's own by a name that no package has."""
    found = {alias.name.partition(".")[0] for one in _of(tree, ast.Import) for alias in one.names}
    for one in _of(tree, ast.ImportFrom):
        found.add("." if one.level or one.module is None else one.module.partition(".")[0])
    return found
