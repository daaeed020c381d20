"""Reproducer folders for wrong numbers: the run, the expected outputs, the comparison.

`iree-run-module` compares by itself what it knows how to: integers exactly, floats of 16 bits and
more within an absolute error. For other types the folder has a check.py, which needs numpy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Tensor
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Input, Level
from iree_pilot.repro.wrong_results.inputs import Settled
from iree_pilot.repro.wrong_results.wrong_record import Wrong

CHECK = "check.py"
_EXPECTED, _EAGER = "expected", "eager"
#: A traced program's function has this name, whatever its original name.
_FUNCTION = "--function="
_TRACED = f"{_FUNCTION}main"
#: Lines of repro.py.
_INPUTS = "def inputs():\n"
_MAIN = 'if __name__ == "__main__":\n'
_FLOATS = ("f16", "bf16", "f32", "f64")
_COMPARED = (*_FLOATS, "i1", "i8", "i16", "i32", "i64")
#: The relative error that iree-run-module allows besides by default.
_OWN_TOLERANCE = 1e-5


_OUTPUT = re.compile(
    r'^    \((?P<index>\d+), "(?P<got>[\w.]+)", "(?P<expected>[\w.]+)", "(?P<dtype>[\w<>]+)", '
    r"(?P<threshold>[\d.e+-]+)\),$",
    re.MULTILINE | re.ASCII,
)
#: Lines of check.py, and what earlier releases wrote in their place.
_EARLIER = (
    "        if allowed:  # integers are exact, and the size of -128 is none in i8\n    ",
    "",
)


class _OutputLine(NamedTuple):
    """An output's line in check.py."""

    dtype: str
    threshold: float


class ComparedFiles(NamedTuple):
    """Files: what the device gave, and what is right."""

    got: str
    expected: str


class Comparing(NamedTuple):
    """run: the command that runs the module; check: what compares its outputs, where that is
    another one. files: what both need besides the inputs."""

    run: tuple[str, ...]
    check: tuple[str, ...]
    files: dict[str, bytes]


def comparing(
    settled: Settled, device: str, inputs: Sequence[Input], weights: tuple[str, ...] = ()
) -> Comparing:
    """Commands and files of a folder that show that outputs are wrong.

    weights: the words that load parameters.
    """
    run = bundle.run_command(settled.function, device, inputs, weights)
    files = {}
    # A comparison that knows nothing of ties would call right indices wrong.
    compared = [one for one in settled.wrong if not one.ties] or settled.wrong
    for one in compared:
        tensor = settled.expected[one.index]
        content = Path(tensor.file).read_bytes()
        files[bundle.tensor_file(f"{_EXPECTED}{one.index}", tensor)] = bundle.tensor_content(
            tensor, content
        )
    if all(_signless(one.dtype) in _COMPARED for one in compared):
        wrong = {one.index for one in compared}
        words = [
            bundle.tensor_words(f"{_EXPECTED}{index}", tensor) if index in wrong else "(ignored)"
            for index, tensor in enumerate(settled.expected)
        ]
        expected = [f"{bundle.EXPECTED}{word}" for word in words]
        return Comparing((*run, *expected, *_tolerances(compared)), (), files)
    got = {
        index: bundle.tensor_file(f"got{index}", tensor)
        for index, tensor in enumerate(settled.expected)
    }
    outputs = [
        (one.index, got[one.index], bundle.tensor_file(f"{_EXPECTED}{one.index}", tensor), line)
        for one in compared
        for tensor in [settled.expected[one.index]]
        for line in [_OutputLine(_signless(one.dtype), one.threshold)]
    ]
    files[CHECK] = bundle.render("check.py.j2", outputs=outputs).encode()
    return Comparing(
        (*run, *(f"--output=@{name}" for name in got.values())), ("python", CHECK), files
    )


def _signless(dtype: str) -> str:
    """Type as the device names it: its integers have no sign."""
    return dtype.removeprefix("u")


def only_compares(text: str) -> bool:
    """True if a check.py is what `comparing` writes for some outputs: it runs nothing else."""
    outputs = [
        (int(m["index"]), m["got"], m["expected"], _OutputLine(m["dtype"], float(m["threshold"])))
        for m in _OUTPUT.finditer(text)
    ]
    written = bundle.render("check.py.j2", outputs=outputs)
    return text in (written, written.replace(*_EARLIER))


def compared(directory: Path) -> dict[int, ComparedFiles]:
    """Files that check.py of a folder compares, by the index of the output; empty without one."""
    file = directory / CHECK
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return {int(m["index"]): ComparedFiles(m["got"], m["expected"]) for m in _OUTPUT.finditer(text)}


def eager(level: Level) -> Level:
    """The level of repro.py, which compares with what PyTorch gives there (`with_inputs`)."""

    def own(command: tuple[str, ...]) -> tuple[str, ...]:
        words = (word.replace(f"@{_EXPECTED}", f"@{_EAGER}") for word in command)
        return tuple(_TRACED if word.startswith(_FUNCTION) else word for word in words)

    command = own(level.command)
    if command == ("python", CHECK):
        command = (*command, _EAGER)
    before = tuple(map(own, level.before))
    return msgspec.structs.replace(level, command=command, before=before)


def with_inputs(source: str, settled: Settled, inputs: Sequence[Input]) -> str:
    """The text of repro.py with the folder's inputs in place of random ones.

    As a program it also writes what PyTorch gives for them, in the form of the `expected` files.
    """
    head, _, rest = source.partition(_INPUTS)
    _, end, main = rest.partition(_MAIN)
    if not end:
        return source
    given = [f"        {_read(index, one)},\n" for index, one in enumerate(inputs)]
    written = [_written(one, settled.expected[one.index]) for one in settled.wrong]
    head = head.replace(
        "import argparse\n\nimport torch\n",
        "import argparse\nfrom pathlib import Path\n\nimport numpy\nimport torch\n",
        1,
    )
    eager = "    results = module(*inputs())\n"
    eager += "    results = results if isinstance(results, tuple) else (results,)\n"
    body = f"{_INPUTS}    return (\n{''.join(given)}    )\n\n\n"
    dynamic = rest.partition("    )\n")[2].partition(_MAIN)[0].strip("\n")
    shapes = f"{dynamic}\n\n\n" if dynamic else ""
    return f"{head}{body}{shapes}{end}{main.rstrip()}\n{eager}{''.join(written)}"


def _read(index: int, given: Input) -> str:
    tensor = given.tensor
    shape, dtype = tuple(tensor.shape), f"torch.{ELEMENT_TYPES[tensor.dtype].torch}"
    if given.data is None:
        return f"torch.ones({shape}).to({dtype})"
    file = bundle.tensor_file(f"input{index}", tensor)
    place = f'Path(__file__).with_name("{file}")'
    if file.endswith(".npy"):
        return f"torch.from_numpy(numpy.load({place}))"
    return f'torch.from_numpy(numpy.fromfile({place}, "u1")).view({dtype}).reshape({shape})'


def _written(wrong: Wrong, expected: Tensor) -> str:
    value, file = f"results[{wrong.index}]", bundle.tensor_file(f"{_EAGER}{wrong.index}", expected)
    if file.endswith(".npy"):
        kind = ELEMENT_TYPES[expected.dtype].numpy
        return f'    numpy.save("{file}", {value}.contiguous().numpy().view("{kind}"))\n'
    raw = f"{value}.contiguous().reshape(-1).view(torch.uint8)"
    return f'    {raw}.numpy().tofile("{file}")\n'


def _tolerances(wrong: Sequence[Wrong]) -> list[str]:
    """The absolute error that is allowed, for each type."""
    found: dict[str, float] = {}
    for one in wrong:
        if one.dtype in _FLOATS:
            found[one.dtype] = min(one.threshold, found.get(one.dtype, one.threshold))
    flags = [f"--expected_{dtype}_threshold={allowed:.4g}" for dtype, allowed in found.items()]
    near = any(one.threshold < 2 * _OWN_TOLERANCE * one.size for one in wrong if one.dtype in found)
    return [*flags, *(["--expected_rtol=0"] if near else [])]
