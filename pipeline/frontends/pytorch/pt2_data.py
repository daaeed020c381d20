"""Checks on an exported program's description: it may only have plain names and arithmetic.

torch makes Python of it. The names of nodes, arguments, inputs and weights are written into the
source of `forward`, sizes go through sympy, which evaluates them, guards are compiled, operators
are looked up by dotted names, and the containers of inputs name modules to import. So each text
must be a plain name unless its field is known for something else, and what that is has a rule of
its own here.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any

import torch

#: Operators that compute: of torch's and of others' libraries, and Python's on sizes.
_OPERATOR = re.compile(
    r"torch\.ops\.higher_order\.\w+"
    r"|torch\.ops\.(?!debugprims\.|inductor\.|prim\.|c10d|\w*symm_mem|image\.|video|torchaudio"
    r"|torchcodec|higher_order\.)[A-Za-z]\w*\.(?!from_file\b|save\b|\w*triton)\w+\.\w+"
    r"|_operator\.(?:add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|ge|gt|le|lt|eq|ne|and_|or_|xor"
    r"|not_|invert|lshift|rshift|getitem|truth|index|matmul)"
    r"|math\.[a-z]\w*|torch\._?sym_\w+|torch\._check\w*|torch\._C\._set_grad_enabled"
    r"|torch\.amp\.autocast_mode\._(?:enter|exit)_autocast",
    re.ASCII,
)
#: Operators on graphs that only run them.
_OVER_GRAPHS = re.compile(
    r"associative_scan|auto_functionalized(?:_v2)?|cond|flex_attention(?:_backward)?|foreach_map"
    r"|hints_wrapper|invoke_quant(?:_packed)?|invoke_subgraph|map|map_impl|out_dtype"
    r"|run_const_graph|scan|strict_mode|tag_activation_checkpoint|while_loop(?:_stack_output)?"
    r"|with_effects|wrap|wrap_activation_checkpoint|wrap_with_autocast|wrap_with_set_grad_enabled"
    r"|_export_tracepoint"
)
#: Prefixes of names that are looked up as operators, and not taken as text.
_LOOKED_UP = ("torch", "_operator", "math", "#")
#: Names of what builds expressions in sympy and in torch's extension of it.
_BUILDERS = re.compile(
    r"Symbol|Dummy|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Abs|Mod|Equality|Eq|Unequality|Ne"
    r"|GreaterThan|LessThan|StrictGreaterThan|StrictLessThan|Ge|Le|Gt|Lt|And|Or|Not|ITE|Piecewise"
    r"|ExprCondPair|Tuple|floor|ceiling|sign|sqrt|log|exp|FloorDiv|ModularIndexing|Where|PythonMod"
    r"|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv"
    r"|IntTrueDiv|IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt|RoundToInt"
    r"|RoundDecimal|ToFloat|Identity|BitwiseFn_bitwise_\w+|OpaqueUnaryFn_\w+|int|float|abs|min|max"
    r"|round|bool",
    re.ASCII,
)
_NAMES = frozenset(
    {"L", "math", "inf", "oo", "int_oo", "true", "false", "True", "False", "zoo", "nan"}
)
#: Properties of tensors in guards.
_ASKED = frozenset({"size", "stride", "storage_offset", "numel", "dim", "shape"})
#: A text that no generated code has to escape.
_PLAIN = re.compile(r"[^'\"\\\x00-\x1f]*")
#: A text that stands for a symbol or a number where sympy evaluates it.
_SYMBOL = re.compile(r"[A-Za-z_]\w*|[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?", re.ASCII)
#: Characters of an expression in sympy's notation: no line ends, comments or escapes.
_SYMPY = re.compile(r"[\w \t.,()'*+/<>=!&|~%-]*", re.ASCII)
_ARITHMETIC = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.Tuple,
    ast.Load,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.keyword,
)
#: Types of the values that a `defaultdict` may make.
_MADE = frozenset({"list", "dict", "int", "float", "bool", "set", "tuple", "str"})


class CodeFound(Exception):
    """The file holds what would be run; the message says what, after "it"."""


def check(value: Any, field: str = "") -> None:
    """Checks a description, decoded from JSON, that torch is about to read.

    Raises CodeFound for anything beyond names, operators and arithmetic on sizes.
    """
    if isinstance(value, dict) and field in _MAPS:
        for key, held in value.items():
            _MAPS[field](key, f"a key of {field}")
            check(held)
    elif isinstance(value, dict):
        for key, held in value.items():
            _name(key, f"a key of {field}" if field else "a key")
            if key in _RULES:
                for text in held if isinstance(held, list) else [held]:
                    _RULES[key](text, key)
            else:
                check(held, key)
    elif isinstance(value, list):
        for one in value:
            check(one, field)
    elif isinstance(value, str):
        _name(value, field)


def _name(text: Any, field: str) -> None:
    """Checks an identifier of generated code."""
    if text and not (isinstance(text, str) and text.isidentifier()):
        raise CodeFound(f"has {_shown(text)} as {field}, which is no name but would be code")


def _path(text: Any, field: str) -> None:
    """The name of a weight, a module or a class: looked up, or written between quotes."""
    _plain(text, field)
    if not isinstance(text, str) or re.search(r"(?:^|\.)__", text.removeprefix("__torch__.")):
        raise CodeFound(f"has {_shown(text)} as {field}, which is no name")


def _plain(text: Any, field: str) -> None:
    if isinstance(text, str) and not _PLAIN.fullmatch(text):
        raise CodeFound(f"has {_shown(text)} as {field}, which would be taken for code")


def _operator(name: Any, field: str) -> None:
    if not isinstance(name, str) or not name.startswith(_LOOKED_UP):
        _name(name, field)
    elif not _OPERATOR.fullmatch(name) or not _is_operator(name):
        raise CodeFound(f"calls {name} ({field}), which is no operator on tensors or sizes")


def _is_operator(name: str) -> bool:
    """True if torch finds an operator, or nothing, by that name."""
    if not name.startswith("torch.ops."):
        return "__" not in name
    parts = name.split(".")[2:]
    if parts[0] == "higher_order":
        return bool(_OVER_GRAPHS.fullmatch(parts[1]))
    found: Any = torch.ops
    for part in parts:
        if not hasattr(found, part):
            return True  # of a library that is not there, which torch says
        found = getattr(found, part)
    return isinstance(found, torch._ops.OpOverload)


def _size(text: Any, field: str) -> None:
    """An expression that sympy evaluates: calls of what builds one, and arithmetic."""
    tree = _parsed(text, field)
    named = {
        id(one)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        for one in node.args
    }
    called = _called(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            fits = id(node) in named and bool(_SYMBOL.fullmatch(node.value))
        elif isinstance(node, ast.Call):
            fits = isinstance(node.func, ast.Name)
        else:
            fits = _is_arithmetic(node, called)
        if not fits or not _SYMPY.fullmatch(text):
            raise CodeFound(_evaluates(text, field, "more than arithmetic on sizes"))


def _guard(text: Any, field: str) -> None:
    """A condition on the inputs, which is compiled: arithmetic on the sizes that tensors have."""
    tree = _parsed(text, field)
    called = _called(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            fits = bool(_PLAIN.fullmatch(node.value))
        elif isinstance(node, ast.Call):
            fits = isinstance(node.func, ast.Name | ast.Attribute)
        elif isinstance(node, ast.Attribute):
            of_math = isinstance(node.value, ast.Name) and node.value.id == "math"
            fits = node.attr in _ASKED or (of_math and not node.attr.startswith("_"))
        else:
            fits = isinstance(node, ast.Subscript) or _is_arithmetic(node, called)
        if not fits:
            raise CodeFound(_evaluates(text, field, "more than arithmetic on sizes"))


def _parsed(text: str, field: str) -> ast.Expression:
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as fault:
        raise CodeFound(_evaluates(text, field, "no expression")) from fault


def _evaluates(text: Any, field: str, what: str) -> str:
    return f"evaluates {_shown(text)} ({field}), which is {what}"


def _shown(text: Any) -> str:
    return repr(text if len(str(text)) <= 80 else f"{str(text)[:80]}...")


def _called(tree: ast.AST) -> set[int]:
    return {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def _is_arithmetic(node: ast.AST, called: set[int]) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float | None)
    if isinstance(node, ast.Name):
        if id(node) in called:
            return bool(_BUILDERS.fullmatch(node.id))
        return node.id in _NAMES or bool(re.fullmatch(r"[a-z]+\d+", node.id, re.ASCII))
    return isinstance(node, _ARITHMETIC)


def _containers(text: Any, field: str) -> None:
    """Checks the containers of inputs or outputs, in the form of pytree."""
    try:
        _, tree = json.loads(text)
        arguments = [one["type"] for one in tree["children_spec"][:1]] == ["builtins.tuple"]
    except (ValueError, TypeError, KeyError, RecursionError) as fault:
        raise CodeFound(f"has {_shown(text)} as {field}, which is no tree of containers") from fault
    _container(tree, field)
    if field == "in_spec" and arguments:
        for keywords in tree["children_spec"][1:]:  # written into the signature of `forward`
            for key in _context(keywords, field) or ():
                _name(key, f"a key of {field}")


def _container(tree: Any, field: str) -> None:
    _path(tree["type"] or "", f"a type of {field}")
    context = _context(tree, field)
    if isinstance(context, dict) and "default_factory_name" in context:
        made = (context.get("default_factory_module"), context["default_factory_name"])
        if made[0] != "builtins" or made[1] not in _MADE:
            raise CodeFound(f"would call {_shown('.'.join(map(str, made)))} ({field})")
    _context_texts(context, field)
    for child in tree["children_spec"]:
        _container(child, field)


def _context(tree: Any, field: str) -> Any:
    """The keys of a dictionary, the length of a queue: JSON, mostly once more within a text."""
    context = tree.get("context")
    try:
        return json.loads(context) if isinstance(context, str) else context
    except (ValueError, RecursionError):
        return context


def _context_texts(context: Any, field: str) -> None:
    if isinstance(context, dict):
        if "__enum__" in context:
            raise CodeFound(f"imports {_shown(context.get('fqn'))} ({field}), for an enumeration")
        _context_texts([*context, *context.values()], field)
    elif isinstance(context, list):
        for one in context:
            _context_texts(one, field)
    else:
        _plain(context, f"a key of {field}")


def _constant(value: Any, field: str) -> None:
    """An input that is no tensor; its text is written into the guards."""
    _name(value.get("name"), f"the name of {field}")
    for text in (value.get("value") or {}).values():
        _plain(text, field)


def _anything(text: Any, field: str) -> None:
    """Shown, or given to an operator as the text that it is; no code is made of it."""


Rule = Callable[[Any, str], None]

#: Rules for fields that hold other things than identifiers.
_RULES: dict[str, Rule] = {
    "target": _operator,
    "as_operator": _operator,
    "expr_str": _size,
    "guards_code": _guard,
    "in_spec": _containers,
    "out_spec": _containers,
    "constant_input": _constant,
    "as_string": _anything,
    "as_strings": _anything,
    "metadata": _anything,
    "torch_version": _anything,
    "fqn": _path,
    "class_fqn": _path,
    "parameter_name": _path,
    "buffer_name": _path,
    "tensor_constant_name": _path,
    "custom_obj_name": _path,
    "path_name": _path,
}
#: Fields whose keys are data, and what those are.
_MAPS: dict[str, Rule] = {
    "tensor_values": _name,
    "sym_int_values": _name,
    "sym_bool_values": _name,
    "sym_float_values": _name,
    "custom_obj_values": _name,
    "range_constraints": _size,
    "config": _path,
    "treespec_namedtuple_fields": _path,
    "opset_version": _path,
    "as_string_to_argument": _plain,
}
