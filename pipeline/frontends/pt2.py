"""Reads an exported program (`torch.export.save`) as data: what it would run is looked for before.

torch's reader unpickles tensors and objects, evaluates the sizes' expressions, compiles the guards
on the inputs, looks operators up by dotted names below `torch`, and loads native code that lies in
the archive. A file that torch.export.save wrote for a model of tensors needs none of that but
arithmetic, so all else is refused unless the user trusts it.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive import _package

from iree_pilot.pipeline.errors import UsageError

#: Operators that compute: of torch's and of others' libraries, and Python's on sizes.
_OPERATOR = re.compile(
    r"torch\.ops\.(?!debugprims\.|inductor\.|prim\.|c10d|\w*symm_mem)[A-Za-z]\w*"
    r"\.(?!from_file\b|\w*triton|call_torchbind)\w+(?:\.\w+)?"
    r"|_operator\.(?:add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|ge|gt|le|lt|eq|ne|and_|or_|xor"
    r"|not_|invert|lshift|rshift|getitem|truth|index|matmul)"
    r"|math\.[a-z]\w*|torch\._?sym_\w+|torch\._check\w*|torch\._C\._set_grad_enabled"
    r"|torch\.amp\.autocast_mode\._(?:enter|exit)_autocast",
    re.ASCII,
)
#: What is looked up as an operator, and not taken for a plain text.
_LOOKED_UP = ("torch", "_operator", "math", "#")
#: Names of what builds expressions in sympy and in torch's extension of it.
_BUILDERS = re.compile(
    r"Symbol|Dummy|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Abs|Mod|Equality|Eq|Unequality|Ne"
    r"|GreaterThan|LessThan|StrictGreaterThan|StrictLessThan|Ge|Le|Gt|Lt|And|Or|Not|ITE|Piecewise"
    r"|ExprCondPair|Tuple|floor|ceiling|sign|sqrt|log|exp|FloorDiv|ModularIndexing|Where|PythonMod"
    r"|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv"
    r"|IntTrueDiv|IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt|RoundToInt"
    r"|RoundDecimal|ToFloat|Identity|BitwiseFn_bitwise_\w+|OpaqueUnaryFn_\w+|int|float|abs|min|max"
    r"|round|bool"
)
_NAMES = frozenset(
    {"L", "math", "inf", "oo", "int_oo", "true", "false", "True", "False", "zoo", "nan"}
)
#: What guards ask tensors.
_ASKED = frozenset({"size", "stride", "storage_offset", "numel", "dim", "shape"})
#: A text that no generated code has to escape.
_PLAIN = re.compile(r"[^'\"\\\x00-\x1f]*")
_ARITHMETIC = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.Subscript,
    ast.Tuple,
    ast.Load,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.keyword,
)
_NATIVE = re.compile(r"(?:^|/)aotinductor/|\.(?:so|cubin|hsaco|o|py|pyc)$")


class _Code(Exception):
    """The file holds what would be run; the message says what."""


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
    except _Code as fault:
        raise UsageError(
            f"{path} runs code when it is read: it {fault}",
            advice="If you trust whom it comes from, add --trust; a nightly, which has no such "
            "option, takes only files that run no code.",
        ) from fault
    except Exception as fault:  # whatever torch's reader says of a damaged file
        raise UsageError(
            f"{path} cannot be read as an exported program: {str(fault).splitlines()[0]}",
            advice="Write it with torch.export.save of the torch release in use.",
        ) from fault


def _check(path: Path) -> None:
    """Raises _Code where an archive holds what would be run."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len({*names}) < len(names):
            raise _Code("has two files of one name, of which torch may read the other")
        for entry in entries:
            if _NATIVE.search(entry.filename):
                raise _Code(f"holds {entry.filename}, which is code")
            if entry.filename.endswith(".json"):
                _check_json(json.loads(archive.read(entry)))


def _check_json(value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            _check_json(one)
    if not isinstance(value, dict):
        return
    for key, held in value.items():
        if key == "target" and isinstance(held, str):
            _check_operator(held)
        elif key == "expr_str" and isinstance(held, str):
            _check_expression(held)
        elif key == "guards_code":
            for guard in held or ():
                _check_expression(guard)
        elif key == "constant_input":
            _check_constant(held)
        _check_json(held)


def _check_operator(name: str) -> None:
    if name.startswith(_LOOKED_UP) and not _OPERATOR.fullmatch(name):
        raise _Code(f"calls {name}, which is no operator on tensors or sizes")


def _check_constant(value: Any) -> None:
    """Texts among the inputs are written into the guards."""
    text = json.dumps(value, ensure_ascii=False)
    texts = re.findall(r'"as_string": ("(?:[^"\\]|\\.)*")', text)
    if any(not re.fullmatch(r'"[^\'"\\]*"', one) for one in texts):
        raise _Code("has an input whose text would be taken for code")


def _check_expression(text: str) -> None:
    """Raises _Code for an expression that does more than arithmetic on sizes: it is evaluated."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError) as fault:
        raise _Code(f"evaluates {text[:80]!r}, which is no expression") from fault
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not _is_arithmetic(node, called):
            raise _Code(f"evaluates {text[:80]!r}, which is more than arithmetic on sizes")


def _is_arithmetic(node: ast.AST, called: set[int]) -> bool:
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or bool(_PLAIN.fullmatch(node.value))
    if isinstance(node, ast.Name):
        known = node.id in _NAMES or re.fullmatch(r"[a-z]\d+", node.id)
        return bool(known or (id(node) in called and _BUILDERS.fullmatch(node.id)))
    if isinstance(node, ast.Attribute):
        of_math = isinstance(node.value, ast.Name) and node.value.id == "math"
        return node.attr in _ASKED or (of_math and not node.attr.startswith("_"))
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name | ast.Attribute)
    return isinstance(node, _ARITHMETIC)


@contextlib.contextmanager
def _data_only() -> Iterator[None]:
    """torch reads tensors and plain containers only: no objects, whose pickles are code."""
    read = torch.load

    def load(*arguments: Any, **options: Any) -> Any:
        try:
            return read(*arguments, **(options | {"weights_only": True}))
        except Exception as fault:
            if "weights_only" in str(fault) or "Weights only" in str(fault):
                raise _Code(f"unpickles objects: {_named(fault)}") from fault
            raise

    def refuse(*_: Any, **__: Any) -> Any:
        raise _Code("unpickles objects of its own types")

    changes = (
        (torch, "load", load),
        (torch._C, "_pickle_load_obj", refuse),
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
