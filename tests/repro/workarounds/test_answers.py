"""The command of a rewritten program: what it is run with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Function, Program, Tensor
from iree_pilot.repro.workarounds import answers


def loaded(directory: Path, *examples: tuple[Tensor, ...], **origin: str) -> Loaded:
    functions = tuple(
        Function(name=f"f{n}", inputs=(), outputs=(), example=one) for n, one in enumerate(examples)
    )
    program = Program(
        source="net:Net",
        mlir="program.mlir",
        digest="",
        functions=functions,
        parameters=None,
        origin=origin,
    )
    return Loaded(program=program, directory=str(directory), seconds=0.0, cached=True)


def test_the_inputs_are_those_that_were_judged(tmp_path: Path) -> None:
    held, place = tmp_path / "held", tmp_path / "out"
    held.mkdir()
    place.mkdir()
    view = tensors.save(np.float32([[1, 2]]), held, "0.bin")
    (held / "1.bin").write_bytes(np.float16(0.5).tobytes())
    number = Tensor(dtype="f16", shape=(), file="1.bin", passed="scalar")
    null = Tensor(dtype="i1", shape=(0,), file="null.bin", passed="null")
    made = loaded(held, (view, number, null))
    given = ("net:Net", "--seed", "3", "--input", "1x2xf32", "--input", "0.5")
    program = str(place / "rewritten.mlir")
    copied = f"1x2xf32=@{place / 'rewritten.input0.bin'}"
    kept = ("--input", "0.5", "--input", "(null)")
    words = answers._rewritten_source(program, made, given, place)
    assert words == (program, "--seed", "3", "--input", copied, *kept)
    assert (place / "rewritten.input0.bin").read_bytes() == (held / "0.bin").read_bytes()
    words = answers._rewritten_source(program, made, given, None)
    assert words == (program, "--seed", "3", "--input", f"1x2xf32=@{held / '0.bin'}", *kept)


def test_inputs_of_several_functions_cannot_be_given(tmp_path: Path) -> None:
    view = tensors.save(np.float32([1, 2]), tmp_path, "0.bin")
    made = loaded(tmp_path, (view,), (view,))
    assert not answers._can_be_given(made)
    assert answers._rewritten_source("a.mlir", made, ("net:Net",), None) == ("a.mlir",)
    assert answers._can_be_given(loaded(tmp_path, (view,), ()))
