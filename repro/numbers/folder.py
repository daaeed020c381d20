"""How a reproducer's folder shows wrong numbers: the run, what is right, and what compares them.

`iree-run-module` compares by itself what it knows how to: integers exactly, floats of 16 bits and
more within an absolute error. For other types the folder has a check.py, which needs numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from repro import bundle
from repro.bundle import Input
from repro.numbers.inputs import Settled
from repro.numbers.record import Wrong

CHECK = "check.py"
_FLOATS = ("f16", "bf16", "f32", "f64")
_COMPARED = (*_FLOATS, "i1", "i8", "i16", "i32", "i64")
#: The relative error that iree-run-module allows besides unless told.
_OWN_TOLERANCE = 1e-5


class Comparing(NamedTuple):
    """run: the command that runs the module; check: what compares its outputs, where that is
    another one. files: what both need besides the inputs."""

    run: tuple[str, ...]
    check: tuple[str, ...]
    files: dict[str, bytes]


def comparing(settled: Settled, device: str, inputs: Sequence[Input]) -> Comparing:
    """What a folder has to do and to hold to show that outputs are wrong."""
    run = bundle.run_command(settled.function, device, inputs)
    files = {}
    for one in settled.wrong:
        tensor = settled.expected[one.index]
        content = Path(tensor.file).read_bytes()
        files[bundle.tensor_file(f"expected{one.index}", tensor)] = bundle.tensor_content(
            tensor, content
        )
    if all(one.dtype in _COMPARED for one in settled.wrong):
        wrong = {one.index for one in settled.wrong}
        words = [
            bundle.tensor_words(f"expected{index}", tensor) if index in wrong else "(ignored)"
            for index, tensor in enumerate(settled.expected)
        ]
        expected = [f"--expected_output={word}" for word in words]
        return Comparing((*run, *expected, *_tolerances(settled.wrong)), (), files)
    got = {
        index: bundle.tensor_file(f"got{index}", tensor)
        for index, tensor in enumerate(settled.expected)
    }
    outputs = [
        (one.index, got[one.index], bundle.tensor_file(f"expected{one.index}", tensor), one)
        for one in settled.wrong
        for tensor in [settled.expected[one.index]]
    ]
    files[CHECK] = bundle.render("check.py.j2", outputs=outputs).encode()
    return Comparing(
        (*run, *(f"--output=@{name}" for name in got.values())), ("python", CHECK), files
    )


def _tolerances(wrong: Sequence[Wrong]) -> list[str]:
    """The absolute error that is allowed, for each type."""
    found: dict[str, float] = {}
    for one in wrong:
        if one.dtype in _FLOATS:
            found[one.dtype] = min(one.threshold, found.get(one.dtype, one.threshold))
    flags = [f"--expected_{dtype}_threshold={allowed:.4g}" for dtype, allowed in found.items()]
    near = any(one.threshold < 2 * _OWN_TOLERANCE * one.size for one in wrong if one.dtype in found)
    return [*flags, *(["--expected_rtol=0"] if near else [])]
