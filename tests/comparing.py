"""Outputs beside references as small arrays, and the verdict on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iree_pilot.pipeline.numerics import noise, numerics
from iree_pilot.pipeline.numerics.noise import Noise
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import (
    Call,
    Function,
    Indexed,
    Program,
    Reference,
    Tensor,
    TensorType,
)

Array = Any


def compare(
    directory: Path,
    got: list[tuple[str, Array]],
    torch: list[tuple[str, Array]],
    precise: list[Array] | None = None,
    *,
    mlir: str = "",
    inputs: tuple[int, ...] = (4,),
    incomparable: tuple[str, ...] = (),
    flushed: list[Array] | None = None,
    retied: tuple[list[Array], ...] = (),
    indexed: tuple[Indexed, ...] = (),
    jittered: tuple[list[Array], ...] = (),
    stated: bool = False,
    computed: Array | None = None,
    path: str = "",
) -> Comparison:
    """Compares outputs as (dtype, values); precise values are float64, or as they are."""

    def store(name: str, dtype: str, values: Array) -> Tensor:
        values = np.asarray(values)
        dense = values.astype(tensors.numpy_dtype(dtype))
        (directory / name).write_bytes(dense.tobytes())
        return Tensor(dtype=dtype, shape=values.shape, file=name)

    def wide(dtype: str) -> str:
        return "f64" if dtype in noise.UNIT else dtype

    def again(name: str, values: list[Array] | None) -> tuple[Tensor, ...]:
        pairs = zip(torch, values or [], strict=values is not None)
        return tuple(store(f"{name}{i}", wide(d), v) for i, ((d, _), v) in enumerate(pairs))

    reference = Reference(
        outputs=tuple(store(f"t{i}", d, v) for i, (d, v) in enumerate(torch)),
        precise=again("p", precise),
        flushed=again("f", flushed),
        retied=tuple(again(f"r{n}-", values) for n, values in enumerate(retied)),
        jittered=tuple(again(f"j{n}-", values) for n, values in enumerate(jittered)),
        ties=("aten.topk",) if retied else (),
        indexed=indexed,
        precise_dtype="f64" if precise is not None else None,
        incomparable=incomparable,
        stated=stated,
        computed=None
        if computed is None
        else Reference(
            outputs=tuple(store(f"c{i}", d, computed) for i, (d, _) in enumerate(torch)),
            evaluator="numpy",
        ),
    )
    function = Function(
        name="main",
        inputs=(TensorType(name="x", dtype="f32", shape=inputs),),
        outputs=tuple(
            TensorType(name=f"y{i}", dtype=d, shape=(), path=path) for i, (d, _) in enumerate(torch)
        ),
        example=(Tensor(dtype="f32", shape=inputs, file="x"),),
        reference=reference,
    )
    (directory / "program.mlir").write_text(mlir)
    program = Program(source="net.py", digest="", functions=(function,), parameters=None, origin={})
    outputs = tuple(store(f"g{i}", d, v) for i, (d, v) in enumerate(got))
    call = Call(program=program, directory=directory, function=function)
    return numerics.compare(outputs, call, outputs_directory=directory)


QUANTIZING = (
    "%1 = torch.prims.convert_element_type %0, %int24 : !torch.vtensor<[4,4],f32>, !torch.int"
    " -> !torch.vtensor<[4,4],f8E4M3FN>\n"
)


def text(noise_: Noise) -> str:
    """A program's text that shows this noise."""
    return (QUANTIZING if noise_.quantizes else "") + f"tensor<4x{noise_.computes}>"
