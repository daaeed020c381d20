"""Torch-dialect MLIR written back as a Python file: a module that iree-turbine traces to it again.

In a child process: it loads torch, whose registry says how an operation is called, and the
compiler's bindings, which may abort.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.pipeline.toolchain import dialects
from iree_pilot.pipeline.torch_dialect import calls as calls
from iree_pilot.pipeline.torch_dialect import literals
from iree_pilot.pipeline.torch_dialect import text as python
from iree_pilot.pipeline.torch_dialect import trial as trial
from iree_pilot.pipeline.torch_dialect.calls import CannotWrite
from iree_pilot.pipeline.torch_dialect.text import Code, Dimension
from iree_pilot.pipeline.torch_dialect.walk import TENSOR, VIEWS, TorchTensorType, Walk, symbol

__all__ = ["CannotWrite", "write"]

#: More numbers than a person would read: floats beyond this are random, like weights.
_LONGEST_CONSTANT = 256
#: Sizes that are tried for dynamic dimensions until the program can be evaluated.
_SIZES = (7, 8, 14)
_MOST_TRIES = 3**5
_UNBOUNDED = sys.maxsize // 4
#: Operations with effects, which return nothing.
_EFFECTS = {"util.global.store", "torch.overwrite.tensor.contents"}


def write(mlir: str, flags: Sequence[str] = ()) -> str:
    """The source of a Python file with `model()` and `inputs()` that is traced to this program.

    mlir: a module in the torch dialect with one public `func.func`, whose body is a flat list of
    operations. flags: those of iree-compile that the file's head tells to compile with. Inputs and
    parameters become seeded random tensors: no weights are taken over. Dynamic dimensions go to
    `dynamic_shapes`, named and bounded where the program says so.

    Raises CannotWrite for an operation, type or constant that has no counterpart.
    """
    from iree.compiler import ir

    dialects.complete()
    with ir.Context():
        try:
            module = ir.Module.parse(mlir)
        except ir.MLIRError as fault:
            raise CannotWrite("the program", f"it does not parse: {fault}") from fault
        writer = _Writer(literals.resources(mlir))
        writer.read(module)
    if not writer.dynamic:
        source, _ = _viewed(writer, {}, flags)
        return source
    tries = itertools.product(_SIZES, repeat=len(writer.dynamic))
    for sizes in itertools.islice(tries, _MOST_TRIES):
        chosen = {d.name: _within(d, s) for d, s in zip(writer.dynamic, sizes, strict=True)}
        source, evaluates = _viewed(writer, chosen, flags)
        if evaluates:
            return source
    raise CannotWrite("the program", "no sizes of its dynamic dimensions were found that fit")


class _Writer(Walk):
    """Collects the parts of the file while it walks over the module.

    Its values are Code, or what is known of them now.
    """

    def __init__(self, blobs: dict[str, bytes]) -> None:
        from torch.nn import Module

        super().__init__(blobs)
        self.locals = {"self": 1, "torch": 1, "float": 1}
        self.attributes = dict.fromkeys(dir(Module()), 1)
        self.globals: dict[str, Code] = {}
        self.stored: set[str] = set()
        self.buffers: list[str] = []
        self.inputs: list[tuple[str, TorchTensorType]] = []
        self.lines: list[str] = []
        #: Lines with a view, and each with its operand copied before.
        self.copied: dict[str, str] = {}
        self.operations = 0
        self.named: dict[tuple[int, int], Dimension] = {}
        #: Integers that may be positions stay below this.
        self.below: int | None = None

    def read(self, module: Any) -> None:
        functions = []
        for op in module.body.operations:
            name = op.operation.name
            if name == "func.func":
                functions.append(op)
            elif name != "util.global":
                raise CannotWrite(name, "beside a function only parameters are expected")
        if len(functions) != 1:
            raise CannotWrite("the program", f"it has {len(functions)} functions, not one")
        blocks = list(functions[0].regions[0].blocks)
        if len(blocks) != 1:
            raise CannotWrite("the program", "its function is not one block of operations")
        body = [op.operation for op in blocks[0].operations]
        self.stored = {symbol(op) for op in body if op.name == "util.global.store"}
        for argument in blocks[0].arguments:
            self.argument(argument)
        for op in body:
            self.operation(op)

    def argument(self, argument: Any) -> None:
        position, uses = len(self.inputs), [use.owner.operation for use in argument.uses]
        name = python.unique(f"arg{position}", self.locals)
        self.values[argument] = Code(name)
        casts = [op.results[0] for op in uses if op.name == "torch_c.from_builtin_tensor"]
        self.inputs.append((name, self.tensor([*casts, argument][0].type)))
        for op in uses:
            if op.name == "torch.bind_symbolic_shape":
                self.named |= {(position, axis): d for axis, d in _named(op)}

    def device(self, name: str) -> Code:
        return Code(f'torch.device("{name}")')

    def store(self, op: Any, value: Any) -> None:
        self.lines.append(f"{self.parameter(op).text} = {calls.argument(value)}")

    def overwrite(self, target: Any, value: Any) -> None:
        self.lines.append(f"{calls.argument(self.values[target])}.copy_({calls.argument(value)})")

    def scalar(self, op: Any, name: str, operands: list[Any]) -> None:
        text = calls.scalar(name, operands)
        (result,) = self.results(op, [name.split(".")[2].lower()])
        self.lines.append(f"{result} = {text}")

    def give_back(self, op: Any) -> None:
        for value in op.operands:
            if not str(value.type).startswith(("!torch.vtensor", "!torch.tensor", "tensor")):
                raise CannotWrite(f"a result of type {value.type}", "only tensors are returned")
        texts = [calls.argument(self.values[v]) for v in op.operands]
        if not texts:
            texts = [f"{name}.unsqueeze(0)" for name in self.unused(op)]
        self.lines.append(
            f"return {texts[0]}" if len(texts) == 1 else f"return ({', '.join(texts)})"
        )

    def unused(self, end: Any) -> list[str]:
        """The tensors that a function without any effect makes for nobody.

        The tracer drops them unless they are returned, and those of a list are not returned as
        they are: the compiler fails at that.
        """
        body = [op.operation for op in end.operation.block.operations]
        if any(op.name in _EFFECTS for op in body):
            return []
        return [
            self.values[result].text
            for op in body
            for result in op.results
            if TENSOR.fullmatch(str(result.type)) and not list(result.uses)
        ]

    def unpack(self, op: Any, packed: Any) -> None:
        if isinstance(packed, Code):
            names = self.results(op, [packed.text] * len(op.results))
            self.lines.append(f"{', '.join(names)}{',' * (len(names) == 1)} = {packed.text}")
        else:
            self.values.update(zip(op.results, packed, strict=True))

    def call(self, op: Any, name: str, operator: Any, operands: list[Any]) -> None:
        schema = operator._schema
        shapes = [_shape(v.type) for v in op.operands]
        for size in calls.positions(operator, operands, shapes):
            smallest = size or min(_SIZES)
            self.below = min(self.below or smallest, smallest)
        text = calls.call(operator, operands, self.constant)
        base = schema.name.partition("::")[2]
        names = self.results(op, [r.name or base for r in schema.returns])
        left = f"{', '.join(names)} = " if names else ""
        types = ", ".join(
            f"[{m[1]}] {m[2]}" for r in op.results if (m := TENSOR.match(str(r.type)))
        )
        comment = f"  # {types}" if types else ""
        self.lines.append(f"{left}{text}{comment}")
        if name in VIEWS and isinstance(operands[0], Code):
            copy = Code(f"{operands[0].text}.contiguous()")
            text = calls.call(operator, [copy, *operands[1:]], self.constant)
            self.copied[self.lines[-1]] = f"{left}{text}{comment}"
        self.operations += 1

    def results(self, op: Any, wanted: Sequence[str]) -> list[str]:
        """Names for the results of an operation, which are known by them from now on."""
        names = [python.unique(w, self.locals) for w in wanted]
        self.values.update(zip(op.results, map(Code, names), strict=True))
        return names

    def load(self, op: Any) -> Code:
        code = self.parameter(op)
        if symbol(op) not in self.stored:
            return code
        # What was loaded is used on after the next store.
        name = python.unique(code.text.removeprefix("self."), self.locals)
        self.lines.append(f"{name} = {code.text}")
        return Code(name)

    def parameter(self, op: Any) -> Code:
        """The buffer that stands for the global that is loaded or stored."""
        name = symbol(op)
        if name not in self.globals:
            if op.name == "util.global.load":
                value = op.results[0]
                users = [use.owner.operation for use in value.uses]
                typed = [u.results[0] for u in users if u.name == "torch_c.from_builtin_tensor"]
            else:
                value = op.operands[0]
                typed = list(getattr(value.owner, "operands", ()))  # of an argument: none
            tensor = self.tensor([*typed, value][0].type)
            text = python.parameter([d or 0 for d in tensor.shape], tensor.dtype)
            self.globals[name] = self.buffer(name.removeprefix("__auto."), text)
        return self.globals[name]

    def buffer(self, name: str, text: str) -> Code:
        attribute = python.unique(name, self.attributes)
        self.buffers.append(f'self.register_buffer("{attribute}", {text})')
        return Code(f"self.{attribute}")

    def constant(self, text: str) -> Code:
        """A buffer that is no parameter: the tracer writes it into the program."""
        attribute = python.unique("constant", self.attributes)
        self.buffers.append(f'self.register_buffer("{attribute}", {text}, persistent=False)')
        return Code(f"self.{attribute}")

    def literal(self, op: Any) -> Code:
        tensor, attribute = self.tensor(op.results[0].type), op.attributes["value"]
        shape, dtype = [d or 0 for d in tensor.shape], tensor.dtype
        what, count = f"a constant {attribute.type}", math.prod(shape)
        if dtype.is_complex:
            raise CannotWrite(what, "complex numbers are not read")
        if (one := literals.splat(attribute)) is not None:
            text = python.full(shape, one, dtype)
        elif count > _LONGEST_CONSTANT and dtype.is_floating_point:
            text = python.parameter(shape, dtype)
        elif count > _LONGEST_CONSTANT:
            raise CannotWrite(what, f"its {count} integers mean something and are too many")
        else:
            try:
                text = python.listed(shape, literals.numbers(attribute, dtype, self.blobs), dtype)
            except KeyError as fault:
                raise CannotWrite(what, "its values are not in the file") from fault
        return self.constant(text)

    @property
    def dynamic(self) -> list[Dimension]:
        """The dynamic dimensions of the inputs, each once."""
        found = [
            self.dimension(position, axis)
            for position, (_, tensor) in enumerate(self.inputs)
            for axis, size in enumerate(tensor.shape)
            if size is None
        ]
        return list({d.name: d for d in found}.values())

    def dimension(self, position: int, axis: int) -> Dimension:
        return self.named.get((position, axis), Dimension(f"{position}:{axis}", 2, None))

    def source(self, sizes: dict[str, int], flags: Sequence[str]) -> str:
        """The file, with inputs of these sizes in the dynamic dimensions, by their names."""
        inputs, dynamic = [], []
        for position, (_, tensor) in enumerate(self.inputs):
            shape, dims = [], []
            for axis, size in enumerate(tensor.shape):
                if size is None:
                    size = sizes[self.dimension(position, axis).name]
                    named = self.named.get((position, axis))
                    dims.append(f"{axis}: {named.name if named else 'torch.export.Dim.DYNAMIC'}")
                shape.append(size)
            dynamic.append(f"{{{', '.join(dims)}}},")
            inputs.append(
                python.random(shape, tensor.dtype, below=self.below, positive=not tensor.shape)
            )
        defined = {d.name: d.text for d in self.named.values()}
        shapes = [*defined.values(), f"dynamic_shapes = ({' '.join(dynamic)})", ""] if sizes else []
        return python.file(
            python.WrittenModule(
                arguments=tuple(name for name, _ in self.inputs),
                buffers=tuple(self.buffers),
                body=tuple(self.lines),
                inputs=tuple(inputs),
                dimensions=tuple(shapes),
                operations=self.operations,
                flags=tuple(flags),
            )
        )


def _named(bind: Any) -> Iterator[tuple[int, Dimension]]:
    """The axes of a bound shape that are a symbol, not a number or computed of symbols."""
    inside = str(bind.attributes["shape_expressions"]).partition("-> (")[2].removesuffix(")>")
    for axis, text in enumerate(inside.split(", ")):
        if match := re.fullmatch(r"s(\d+)", text):
            known = bind.operands[int(match[1]) + 1].owner.attributes
            most = known["max_val"].value
            name, least = known["symbol_name"].value, known["min_val"].value
            yield axis, Dimension(name, least, most if most < _UNBOUNDED else None)


def _shape(type_: Any) -> tuple[int | None, ...] | None:
    match = TENSOR.fullmatch(str(type_))
    if not match:
        return None
    return tuple(None if size == "?" else int(size) for size in match[1].split(",") if size)


def _within(dimension: Dimension, size: int) -> int:
    most = size if dimension.most is None else dimension.most
    return max(dimension.least, min(size, most))


def _viewed(writer: _Writer, sizes: dict[str, int], flags: Sequence[str]) -> tuple[str, bool]:
    """(the file, whether its model takes its inputs), with copies where PyTorch has no view."""
    for _ in range(len(writer.copied) + 1):
        source = writer.source(sizes, flags)
        if not writer.copied and not writer.dynamic:
            return source, True
        failing = trial.failing(source)
        if failing is None:
            return source, True
        if failing not in writer.copied:
            break
        copied = writer.copied.pop(failing)
        writer.lines[writer.lines.index(failing)] = copied
    return source, False


class Writing(msgspec.Struct, frozen=True):
    """The program in the file `mlir`, compiled with `flags`, to write as Python to `output`."""

    mlir: str
    flags: tuple[str, ...]
    output: str


def written(writing: Writing, directory: Path) -> None:
    """Writes the file. Raises CannotWrite."""
    Path(writing.output).write_text(
        write(Path(writing.mlir).read_text(encoding="utf-8"), writing.flags), encoding="utf-8"
    )
