"""A compiler with a fault: IREE's own, behind a script that changes one operation of what it reads.

Each operation of a kind with results of one type is compiled to another, wherever it is met: in a
model, in a part of it, alone. So what is run is wrong, the reference is of the right program, and
the operation is what isolating has to find.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.toolchain.toolchain import Toolchain, from_directory

#: Operations of one signature: the one is compiled as the other.
SWAPS = {
    "aten.tanh": "aten.sin",
    "aten.sigmoid": "aten.tanh",
    "aten.relu": "aten.neg",
    "aten.silu": "aten.sigmoid",
    "aten.exp": "aten.cos",
    "aten.cos": "aten.sin",
    "aten.sin": "aten.cos",
    "aten.erf": "aten.sin",
    "aten.neg": "aten.abs",
    "aten.abs": "aten.neg",
    "aten.rsqrt": "aten.sqrt",
    "aten.sqrt": "aten.rsqrt",
    "aten.log1p": "aten.sqrt",
    "aten.maximum": "aten.minimum",
    "aten.minimum": "aten.maximum",
    "aten.amax": "aten.amin",
    "aten.amin": "aten.amax",
    "aten.add.Tensor": "aten.sub.Tensor",
    "aten.sub.Tensor": "aten.add.Tensor",
    "aten.gt.Scalar": "aten.lt.Scalar",
    "aten.gt.Tensor": "aten.lt.Tensor",
    "aten.lt.Scalar": "aten.gt.Scalar",
}
#: Operations whose result comes out a little too large.
SCALED = (
    "aten.mm",
    "aten.bmm",
    "aten.matmul",
    "aten.linear",
    "aten.addmm",
    "aten.convolution",
    "aten.layer_norm",
    "aten.mean.dim",
    "aten.softmax.int",
    "aten._softmax",
    "aten.cumsum",
    "aten.mul.Tensor",
    "aten.div.Tensor",
    "aten.gelu",
    "aten.elu",
    "aten.softplus",
)
#: A choice that picks the other value.
CHOICES = ("aten.where.self",)
_FACTOR = "1.05"
#: An operation of the torch dialect with one result, on a line of its own.
_LINE = re.compile(
    r"^(?P<indent> *)(?P<name>%[\w#]+) = torch\.(?P<op>[\w.]+) (?P<operands>[^:]*?) : "
    r"(?P<types>.*) -> (?P<result>!torch\.vtensor<[^>]*>)(?P<location> loc\(.*\))?$"
)
_FLOATING = ("f32>", "f16>", "bf16>")


class Fault(msgspec.Struct, frozen=True):
    """Each `op` (`aten.tanh`) whose result is a `result` is compiled wrongly, by `how`."""

    op: str
    result: str
    how: str

    @property
    def name(self) -> str:
        return f"torch.{self.op}"

    def __str__(self) -> str:
        return f"{self.name} -> {self.result}: {self.how}"


def faults(mlir: str) -> list[Fault]:
    """Faults that can be planted in a program, each once, in the order of its operations."""
    found: dict[Fault, None] = {}
    for line in mlir.splitlines():
        match = _LINE.match(line)
        if match is None or (how := _how(match["op"], match["result"])) is None:
            continue
        found[Fault(match["op"], match["result"], how)] = None
    return list(found)


def _how(op: str, result: str) -> str | None:
    if op in SWAPS:
        return f"as {SWAPS[op]}"
    if op in CHOICES:
        return "the other choice"
    if op in SCALED and result.endswith(_FLOATING):
        return f"times {_FACTOR}"
    return None


def chosen(mlir: str, seed: str) -> Fault | None:
    """One of them: the kinds of operation are equally likely."""
    own = faults(mlir)
    if not own:
        return None
    draw = random.Random(seed)
    op = draw.choice(sorted({fault.op for fault in own}))
    return draw.choice([fault for fault in own if fault.op == op])


def planted(mlir: str, fault: Fault) -> str:
    """The program as the faulty compiler reads it."""
    return "\n".join(part for line in mlir.split("\n") for part in _planted(line, fault))


def _planted(line: str, fault: Fault) -> Iterator[str]:
    match = _LINE.match(line)
    if match is None or (match["op"], match["result"]) != (fault.op, fault.result):
        yield line
        return
    indent, name, operands, types = (
        match["indent"],
        match["name"],
        match["operands"],
        match["types"],
    )
    result, location = match["result"], match["location"] or ""
    if fault.op in SWAPS:
        as_ = SWAPS[fault.op]
        yield f"{indent}{name} = torch.{as_} {operands} : {types} -> {result}{location}"
    elif fault.op in CHOICES:
        mask, one, other = operands.split(", ")
        first, second, third = _types(types)
        swapped = f"{mask}, {other}, {one} : {first}, {third}, {second}"
        yield f"{indent}{name} = torch.{fault.op} {swapped} -> {result}{location}"
    else:
        right, factor = f"%right{name[1:]}", f"%factor{name[1:]}"
        yield f"{indent}{right} = torch.{fault.op} {operands} : {types} -> {result}{location}"
        yield f"{indent}{factor} = torch.constant.float {_FACTOR}"
        kinds = f"{result}, !torch.float -> {result}"
        yield f"{indent}{name} = torch.aten.mul.Scalar {right}, {factor} : {kinds}{location}"


def _types(text: str) -> Sequence[str]:
    return re.findall(r"!torch\.[\w.]+(?:<[^>]*>)?", text)


_SCRIPT = '''#!{python} -S
"""{fault}"""
import os, sys, tempfile

sys.path[:0] = {paths!r}
arguments = sys.argv[1:]
for at, given in enumerate(arguments):
    if given.endswith(".mlir") and os.path.isfile(given):
        with open(given, "rb") as file:
            text = file.read()
        if {mark!r} in text:
            import bench_plant

            fault = bench_plant.Fault({op!r}, {result!r}, {how!r})
            read = bench_plant.planted(text.decode(), fault)
            place = tempfile.mkdtemp(dir={scratch!r})
            arguments[at] = os.path.join(place, os.path.basename(given))
            with open(arguments[at], "w") as file:
                file.write(read)
os.execv({compiler!r}, [{compiler!r}, *arguments])
'''


def faulty(toolchain: Toolchain, fault: Fault, directory: Path) -> Toolchain:
    """A toolchain in `directory` whose compiler has the fault; all else is the toolchain's own."""
    scratch = directory / "read"
    scratch.mkdir(parents=True)
    assert toolchain.runtime is not None
    own = [*toolchain.compiler.parent.iterdir(), *toolchain.runtime.iterdir()]
    for file in own:
        if file.name != toolchain.compiler.name and not (directory / file.name).exists():
            (directory / file.name).symlink_to(file)
    script = directory / toolchain.compiler.name
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), *sys.path]
    script.write_text(
        _SCRIPT.format(
            python=sys.executable,
            fault=fault,
            paths=paths,
            mark=f"torch.{fault.op} ".encode(),
            op=fault.op,
            result=fault.result,
            how=fault.how,
            scratch=str(scratch),
            compiler=str(toolchain.compiler),
        )
    )
    script.chmod(0o755)
    return from_directory(directory)
