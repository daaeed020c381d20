"""repro.py for what does not trace: one operation, or one module of the user's own model.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.fx import Node

from iree_pilot.pipeline.torch_dialect import text as python
from iree_pilot.pipeline.torch_dialect.calls import CannotWrite

#: Operators that every installation of PyTorch has.
_NAMESPACES = ("aten", "prims")


@dataclass(frozen=True, kw_only=True)
class WrittenCall:
    """An operation as it was met: operands are tensors, or the graph's nodes that stand for them.

    held: nodes that are parameters, buffers or constants, and the names they have in the model.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name as MLIR spells it."""
        return f"torch.{self.target}".removesuffix(".default")


@dataclass(frozen=True, kw_only=True)
class Manner:
    """Options of a trace, as the source was traced."""

    inline: bool
    strict: bool


def operation(call: WrittenCall, manner: Manner, *, holds: bool) -> str:
    """A program of one operation with random operands of the same types.

    holds: what the model holds is held by the program too; else it becomes an argument. Raises
    CannotWrite for an operation, or an operand, that has no text of its own.
    """
    if not isinstance(call.target, torch._ops.OpOverload):
        raise CannotWrite(str(call.target), "it holds code of the model")
    if call.target.namespace not in _NAMESPACES:
        raise CannotWrite(str(call.target), "it is not one of PyTorch's own")
    writer = _Operands(call.held if holds else {})
    words = [writer.text(value) for value in call.args]
    words += [f"{name}={writer.text(value)}" for name, value in call.kwargs.items()]
    body = f"return torch.ops.{call.target}({', '.join(words)})"
    lines = [*_head("1 operation"), "import torch", "", "", "class Model(torch.nn.Module):"]
    if writer.buffers:
        lines += ["    def __init__(self):", "        super().__init__()"]
        lines += [
            f'        self.register_buffer("{name}", {text})'
            for name, text in writer.buffers.items()
        ]
        lines += [""]
    lines += [
        f"    def forward({', '.join(['self', *writer.inputs])}):",
        f"        {body}",
        "",
        "",
        "def model():",
        "    torch.manual_seed(0)",
        "    return Model()",
        "",
        "",
        *_inputs(writer.inputs.values()),
        "",
        "",
        *_main(manner),
    ]
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class SourceOrigin:
    """Origin of a program's model: `imports`, and the `body` of a function whole() that
    returns the model, its example inputs (a tuple, or a dict by name) and its dynamic shapes."""

    imports: tuple[str, ...]
    body: tuple[str, ...]


class ModuleInputs(NamedTuple):
    """Inputs that a module is traced with.

    given: expressions, by position or name; None for what the module is given when the whole model
    runs. shapes: an expression for dynamic_shapes. kept: arguments of the module, by name, that are
    no inputs and stay what they are when the whole model runs.
    """

    given: Sequence[str] | Mapping[str, str] | None
    shapes: str = ""
    kept: Sequence[str] = ()


def submodule(
    origin: SourceOrigin, path: str, what: str, takes: ModuleInputs, manner: Manner
) -> str:
    """A program that traces the module at `path` of a model. what: says what it is."""
    inputs, shapes, kept = takes
    pick = f".get_submodule({path!r})" if path else ""
    recorded = inputs is None and bool(path)
    lines = _head(what)
    if recorded:
        lines += ["import copy", "import inspect", ""]
    lines += [*origin.imports, "import torch", "", ""]
    lines += ["def whole():", *(f"    {line}" for line in origin.body), "", ""]
    if recorded:
        named = _NAMED if kept else ["if kwargs:", *(f"    {line}" for line in _NAMED)]
        text = "\n".join(f"        {line}" for line in named)
        lines += _RECORDED.replace("PICK", pick).replace("NAMED", text).split("\n")
    if kept:
        lines += _ALONE.replace("KEPT", repr(tuple(kept))).split("\n")
    else:
        lines += ["def model():", f"    return whole()[0]{pick}", "", ""]
    if recorded:
        lines += ["def inputs():", "    _, args, kwargs = recorded()"]
        if kept:
            lines += [f"    kept = {tuple(kept)!r}"]
            lines += ["    return {name: kwargs[name] for name in kwargs if name not in kept}"]
        else:
            lines += ["    return kwargs or args"]
    elif inputs is None:
        lines += ["def inputs():", "    return whole()[1]"]
    elif isinstance(inputs, Mapping):
        lines += ["def inputs():", "    torch.manual_seed(1)", "    return {"]
        lines += [f"        {python.number(name)}: {text}," for name, text in inputs.items()]
        lines += ["    }"]
    else:
        lines += _inputs(inputs)
    lines += ["", "", *([f"dynamic_shapes = {shapes}", "", ""] if shapes else []), *_main(manner)]
    return "\n".join(lines)


_NAMED = [
    "names = inspect.signature(module.forward).parameters",
    "args, kwargs = (), dict(zip(names, args)) | kwargs",
]
_RECORDED = '''def recorded():
    """The module, and what it is given when the whole model runs."""
    outer, given, _ = whole()
    module, seen = outerPICK, []

    def keep(module, args, kwargs):
NAMED
        seen.append(copy.deepcopy((args, kwargs)))

    hook = module.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        outer(**given) if isinstance(given, dict) else outer(*given)
    hook.remove()
    return module, *seen[0]

'''
_ALONE = '''class Alone(torch.nn.Module):
    """The module with those of its arguments that cannot be inputs."""

    def __init__(self, module, kept):
        super().__init__()
        self.module, self.kept = module, kept

    def forward(self, **given):
        return self.module(**given, **self.kept)


def model():
    module, _, kwargs = recorded()
    return Alone(module, {name: kwargs[name] for name in KEPT})

'''


def expression(value: Any) -> str:
    """Python text for a value like this one: tensors are random, of the same type and shape.

    Raises CannotWrite for what is not made of tensors, numbers, text and plain containers.
    """
    return _Expression().text(value)


class _Expression:
    def text(self, value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            return python.number(_known(value))
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return str(value)
        if isinstance(value, torch.device):
            return f"torch.{value!r}" if not repr(value).startswith("torch.") else repr(value)
        if value is None or isinstance(value, bool | int | float | str):
            return python.number(value)
        if type(value) is list:
            return f"[{', '.join(map(self.text, value))}]"
        if type(value) is tuple:
            return f"({', '.join(map(self.text, value))}{',' * (len(value) == 1)})"
        if type(value) is dict:
            pairs = (f"{self.text(k)}: {self.text(v)}" for k, v in value.items())
            return f"{{{', '.join(pairs)}}}"
        raise CannotWrite(type(value).__name__, "it is neither a tensor nor a plain value")

    def tensor(self, value: torch.Tensor) -> str:
        if value.is_quantized:
            raise CannotWrite("a quantised tensor", "it has a scale of its own")
        shape = [int(_known(size)) for size in value.shape]
        dense = python.random(shape, value.dtype)
        if value.layout is torch.strided:
            return dense
        if value.layout is torch.sparse_coo:
            return f"({dense}).to_sparse()"
        raise CannotWrite(f"a tensor in {value.layout}", "only strided and COO ones are made")


class _Operands(_Expression):
    """Operands of an operation; tensors become arguments or buffers, once each."""

    def __init__(self, held: Mapping[str, str]) -> None:
        self.inputs: dict[str, str] = {}
        self.buffers: dict[str, str] = {}
        self._held = held
        self._taken: dict[str, int] = {"self": 1, "torch": 1}
        self._named: dict[int, str] = {}

    def text(self, value: Any) -> str:
        if not isinstance(value, Node):
            return super().text(value)
        known = value.meta.get("val")
        if isinstance(known, torch.Tensor):
            name = self._held.get(value.name, value.name).rpartition(".")[2]
            return self._named_tensor(value, known, name)
        return super().text(known)

    def tensor(self, value: torch.Tensor) -> str:
        return self._named_tensor(value, value, "x")

    def _named_tensor(self, leaf: Any, value: torch.Tensor, wanted: str) -> str:
        if id(leaf) not in self._named:
            name = python.unique(wanted, self._taken)
            made = super().tensor(value)
            if isinstance(leaf, Node) and leaf.name in self._held:
                self.buffers[name], name = made, f"self.{name}"
            else:
                self.inputs[name] = made
            self._named[id(leaf)] = name
        return self._named[id(leaf)]


def _known(value: Any) -> Any:
    """The size that a symbol stands for in the example."""
    if not isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return value
    hint = value.node.hint
    if hint is None:
        raise CannotWrite(str(value), "its value is only known when the program runs")
    return hint


def _head(what: str) -> list[str]:
    torch_release, turbine = (importlib.metadata.version(n) for n in ("torch", "iree-turbine"))
    return [
        f"# {what}, which torch {torch_release} and iree-turbine {turbine} do not trace:",
        "#",
        "#     python repro.py",
        "",
    ]


def _inputs(texts: Any) -> list[str]:
    given = [f"        {text}," for text in texts]
    if not given:
        return ["def inputs():", "    return ()"]
    return ["def inputs():", "    torch.manual_seed(1)", "    return (", *given, "    )"]


_MAIN = """
if __name__ == "__main__":
    import argparse

    USAGE

    from iree.turbine import aot
    from iree.turbine.aot.decompositions import current_aot_decompositions

    module, given = model(), inputs()
    args, kwargs = ((), given) if isinstance(given, dict) else (given, {})
    EXTERNALIZE
    program = torch.export.export(
        module,
        args,
        kwargs,
        dynamic_shapes=globals().get("dynamic_shapes"),
        strict=STRICT,
    )
    program = program.run_decompositions(current_aot_decompositions())
    aot.export(program).save_mlir(options.file)
"""


def _main(manner: Manner) -> list[str]:
    externalize = 'aot.externalize_module_parameters(module, external_scope="model")\n    '
    text = inspect.cleandoc(_MAIN) + "\n"
    text = text.replace("USAGE", "\n    ".join(python.usage("/dev/null")))
    text = text.replace("EXTERNALIZE\n    ", "" if manner.inline else externalize)
    return text.replace("STRICT", str(manner.strict)).split("\n")
