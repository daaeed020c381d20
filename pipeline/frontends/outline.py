"""Definitions of a Python source, read from its text: missing ones are found without running it.

Only what is certain is refused: a file that may get names in another way is left to be run.
"""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TypeVar

from iree_pilot.models.spec import registry
from iree_pilot.pipeline.errors import UsageError, nearest
from iree_pilot.pipeline.frontends import switches
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
#: Values that are no function, nor anything else that can be called.
_NO_CALL = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.JoinedStr, ast.ListComp)
_LARGEST_BYTES = 2**20


def check(
    file: Path,
    factory: str,
    text: str,
    *,
    given: bool = False,
    settings: Collection[str] | None = None,
) -> None:
    """Raises UsageError where the Python file has no function `factory`, or none for its inputs, or
    where the function does not take the arguments that the user set.

    text: the source as the user named it. given: the user gives the inputs. settings: the names of
    the arguments; None: they are not to be looked at.
    """
    if (tree := _parsed(file)) is None:
        return
    words = set(_words(tree))
    names = set(_bound(tree.body)) | {n for one in _of(tree, ast.Global) for n in one.names}
    if words & _HIDDEN or "*" in names:
        return
    made = _made_once(tree, factory)
    if factory not in names or (isinstance(made, ast.Assign) and isinstance(made.value, _NO_CALL)):
        raise no_function(text, factory, "the model", sorted(_functions(tree)))
    if "inputs" not in names and not given and _is_plain(tree):
        raise no_function(text, "inputs", "its example inputs")
    if settings is not None and isinstance(made, ast.FunctionDef) and not made.decorator_list:
        _check_definition(made, settings, text)


def _made_once(tree: ast.Module, name: str) -> ast.stmt | None:
    """The definition, or the assignment to the name alone, that nothing else takes the place of."""
    bound = [node for node in tree.body if name in _bound([node])]
    if len(bound) != 1 or any(name in one.names for one in _of(tree, ast.Global)):
        return None
    (made,) = bound
    several = isinstance(made, ast.Assign) and not all(
        isinstance(t, ast.Name) for t in made.targets
    )
    return None if several else made


def _check_definition(made: ast.FunctionDef, settings: Collection[str], text: str) -> None:
    own = made.args
    named = [*own.posonlyargs, *own.args]
    needed = [a.arg for a in named[: len(named) - len(own.defaults)]]
    needed += [
        a.arg for a, default in zip(own.kwonlyargs, own.kw_defaults, strict=True) if default is None
    ]
    known = [a.arg for a in (*own.args, *own.kwonlyargs)]
    passed = [n for n in settings if n in known or n not in switches.NAMES]
    check_arguments(passed, needed, None if own.kwarg else known, f"{text}: {made.name}()")


def check_arguments(
    given: Iterable[str], needed: Iterable[str], known: Sequence[str] | None, of: str
) -> None:
    """Raises UsageError for an argument that a factory does not take, or that is not given.

    needed: those without a default. known: those that it takes; None: any. of: the factory.
    """
    given = [*given]
    for name in given:
        if known is not None and name not in known:
            advice = nearest(name, [*known]) or "It takes none."
            raise UsageError(f"{of} takes no argument {name!r}", advice=advice)
    if left := [name for name in needed if name not in given]:
        raise UsageError(
            f"{of} needs a value for {', '.join(left)}",
            advice=f"Give it: {' '.join(f'--kwargs {name}=VALUE' for name in left)}",
        )


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
    own = [*source.fields]
    if source.kind == "file":
        check(Path(source.path or ""), source.factory, source.text, given=given, settings=own)
    elif source.kind == "module" and (file := module_file(source.module or "")):
        check(file, source.factory, source.text, given=given, settings=own)


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
