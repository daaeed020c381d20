"""Python text for numbers, tensors and whole files of PyTorch: nothing here knows of MLIR."""

from __future__ import annotations

import importlib.metadata
import keyword
import re
import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from iree_pilot.pipeline.plural import count

#: Integers are small, so that they can be positions; bytes have all values.
_SMALL = 8


class Code(msgspec.Struct, frozen=True):
    """Python text for a value, as against a value known when the program is written."""

    text: str


class Dimension(msgspec.Struct, frozen=True):
    """A named dynamic dimension with its least and largest size (None: any)."""

    name: str
    least: int
    most: int | None

    @property
    def text(self) -> str:
        return f"{self.name} = {self.made}"

    @property
    def made(self) -> str:
        """The expression alone."""
        most = "" if self.most is None else f", max={self.most}"
        return f'torch.export.Dim("{self.name}", min={self.least}{most})'


class WrittenModule(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a file, each a line of Python.

    buffers: statements for `__init__`. body: statements of `forward`. inputs: expressions.
    dimensions: statements that define dynamic_shapes, none if all is static. operations: how many
    the body calls. flags: of iree-compile.
    """

    arguments: tuple[str, ...]
    buffers: tuple[str, ...]
    body: tuple[str, ...]
    inputs: tuple[str, ...]
    dimensions: tuple[str, ...]
    operations: int
    flags: tuple[str, ...]


def number(value: Any) -> str:
    """None, a bool, int, float or str as Python reads it back."""
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return f'float("{value}")'
    return repr(value)


def unique(wanted: str, taken: dict[str, int]) -> str:
    """A Python name like `wanted` that is not yet `taken`; takes it."""
    base = re.sub(r"\W", "_", wanted).strip("_") or "value"
    base = f"_{base}" if base[0].isdigit() or keyword.iskeyword(base) else base
    name = base
    while name in taken:
        name = f"{base}_{taken[base]}"
        taken[base] += 1
    taken[name] = 1
    return name


def parameter(shape: Sequence[int], dtype: Any) -> str:
    """A random weight: small, so that deep programs stay finite; a scale or shift is not near 0."""
    if len(shape) < 2 or not dtype.is_floating_point:
        return random(shape, dtype, positive=True)
    return _converted(f"torch.randn({_sizes(shape)}) * 0.05", dtype)


def random(
    shape: Sequence[int], dtype: Any, *, below: int | None = None, positive: bool = False
) -> str:
    """A random tensor; integers are non-negative and less than `below`, floats normal.

    positive: floats are between 0.5 and 1.5 instead.
    """
    sizes, name = _sizes(shape), str(dtype).removeprefix("torch.")
    if name == "bool":
        return f"torch.rand({sizes}) < 0.5"
    if not dtype.is_floating_point and not dtype.is_complex:
        most = min(n for n in (256 if name == "uint8" else _SMALL, below) if n is not None)
        # Not every integer type can be drawn itself.
        own = name in ("uint8", "int8", "int16", "int32", "int64")
        made = f"torch.randint({most}, {tuple(shape)}"
        return f"{made}, dtype={dtype})" if own else f"{made}).to({dtype})"
    if positive or name == "float8_e8m0fnu":
        return _converted(f"torch.rand({sizes}) + 0.5", dtype)
    return f"torch.randn({sizes}){_cast(dtype)}"


def full(shape: Sequence[int], value: Any, dtype: Any) -> str:
    """A tensor of one number."""
    own = "" if _narrow(dtype) else f", dtype={dtype}"
    return f"torch.full({tuple(shape)}, {number(value)}{own}){_cast(dtype) * _narrow(dtype)}"


def listed(shape: Sequence[int], values: Sequence[Any], dtype: Any) -> str:
    """A tensor of these numbers, row-major."""
    own = "" if _narrow(dtype) else f", dtype={dtype}"
    text = f"torch.tensor([{', '.join(map(number, values))}]{own}){_cast(dtype) * _narrow(dtype)}"
    return text if len(shape) == 1 else f"{text}.reshape({tuple(shape)})"


def file(module: WrittenModule) -> str:
    """The whole file; as a program of its own it writes the MLIR that iree-turbine makes of it."""
    torch, turbine = (importlib.metadata.version(n) for n in ("torch", "iree-turbine"))
    shapes = ", dynamic_shapes=dynamic_shapes" if module.dimensions else ""
    lines = [
        f"# {count(module.operations, 'operation')}, written for torch {torch} and "
        f"iree-turbine {turbine}.",
        "# To compile:",
        "#",
        "#     python repro.py traced.mlir",
        f"#     {shlex.join(['iree-compile', 'traced.mlir', '-o', 'traced.vmfb', *module.flags])}",
        "",
        "import argparse",
        "",
        "import torch",
        "",
        "",
        "class Model(torch.nn.Module):",
    ]
    if module.buffers:
        lines += ["    def __init__(self):", "        super().__init__()"]
        lines += [*_indented(module.buffers, 8), ""]
    lines += [
        f"    def forward({', '.join(['self', *module.arguments])}):",
        *_indented(module.body, 8),
        "",
        "",
        "def model():",
        "    torch.manual_seed(0)",
        "    return Model()",
        "",
        "",
        "def inputs():",
        "    torch.manual_seed(1)",
        "    return (",
        *_indented([f"{text}," for text in module.inputs], 8),
        "    )",
        "",
        "",
        *module.dimensions,
        *([""] if module.dimensions else []),
        'if __name__ == "__main__":',
        *_indented(usage(), 4),
        "",
        "    from iree.turbine import aot",
        "",
        "    module = model()",
        '    aot.externalize_module_parameters(module, external_scope="model")',
        f"    program = aot.export(module, args=inputs(){shapes}, strict_export=False)",
        "    program.save_mlir(options.file)",
        "",
    ]
    return "\n".join(lines)


def usage(default: str = "") -> list[str]:
    """Statements that read the file to write from the command line, or say how that is used.

    default: the file where none is named; without it one has to be.
    """
    optional = f'nargs="?", default="{default}", ' if default else ""
    return [
        'parser = argparse.ArgumentParser(description="Trace the model with iree-turbine.")',
        f'parser.add_argument("file", metavar="FILE.mlir", {optional}help="where the MLIR goes")',
        "options = parser.parse_args()",
    ]


def _indented(lines: Sequence[str], by: int) -> list[str]:
    return [" " * by + line for line in lines]


def _sizes(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape)) if shape else "()"


def _cast(dtype: Any) -> str:
    """Code that converts a tensor of torch's default type to `dtype`."""
    return "" if str(dtype) == "torch.float32" else f".to({dtype})"


def _converted(text: str, dtype: Any) -> str:
    cast = _cast(dtype)
    return f"({text}){cast}" if cast else text


def _narrow(dtype: Any) -> bool:
    """Types that PyTorch fills only by conversion."""
    return bool(dtype.is_floating_point and dtype.itemsize == 1)
