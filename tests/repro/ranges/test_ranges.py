"""What a low-precision type cannot hold is found, counted and mended by the scale that is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from driver import pilot

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.load import load
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.pipeline.targets.targets import parse, plan
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.ir.graph import Graph, Op
from iree_pilot.repro.ranges import measure
from iree_pilot.repro.ranges.find_ranges import INSTRUMENTED, Ranges, find
from iree_pilot.repro.ranges.measure import Counts, Scale
from iree_pilot.repro.ranges.watch import choose

INF, NAN = float("inf"), float("nan")


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    """Writes an array to a file of its own."""

    def keep(values: Any, dtype: Any) -> tuple[Path, Tensor]:
        name = f"{len(list(tmp_path.iterdir()))}.bin"
        return tmp_path / name, tensors.save(np.array(values).astype(dtype), tmp_path, name)

    return keep


class TestCounts:
    @pytest.mark.parametrize(
        ("dtype", "held", "wanted", "counts"),
        [
            (np.float16, [1, -2], [1.0001, -2], Counts()),
            (np.float16, [INF, -INF, INF], [7e4, -7e4, INF], Counts(infinite=2)),
            (np.float16, [NAN, NAN], [1, NAN], Counts(nan=1)),
            (np.float16, [0, 0, 0], [1e-9, 0, 3], Counts(flushed=1)),
            (np.float16, [3e-5, -3e-5, 0], [3e-5, -3e-5, 0], Counts(subnormal=2)),
            (ml_dtypes.bfloat16, [INF, 1e38], [3.4e38 * 1.01, 1e38], Counts(infinite=1)),
            (
                ml_dtypes.float8_e4m3fn,
                [448, -448, 448, 448],
                [500, -1e5, 448, 463],
                Counts(saturated=2),
            ),
            (ml_dtypes.float8_e4m3fn, [NAN, 2**-9], [500, 2**-9], Counts(nan=1, subnormal=1)),
            (ml_dtypes.float8_e4m3fnuz, [240, 0], [250, 1e-4], Counts(saturated=1, flushed=1)),
            (ml_dtypes.float8_e5m2, [57344, INF], [60000, 70000], Counts(infinite=1)),
        ],
    )
    def test_what_is_not_held_and_why(
        self, dtype: Any, held: Any, wanted: Any, counts: Counts, kept: Any
    ) -> None:
        assert measure.counts(*kept(held, dtype), *kept(wanted, np.float64)) == counts
        assert counts.any == (counts != Counts())


class TestScale:
    @pytest.mark.parametrize(
        ("dtype", "wanted", "scale"),
        [
            ("f16", [1.0, 0.0, -65504.0], None),
            ("f16", [65510.0], None),  # rounds to the largest
            ("f16", [65536.0, 2.0], Scale(factor=0.5, fits=True)),
            ("f16", [1e6, INF], Scale(factor=2.0**-4, fits=True)),
            ("f16", [1e-6, -1e-5], Scale(factor=64.0, fits=True)),
            ("f16", [1e6, 1e-4, 1.0], Scale(factor=2.0**-4, fits=False, left=1)),
            ("f8E4M3FN", [448.0, 0.001], Scale(factor=1.0, fits=False, left=1)),
            ("f8E4M3FNUZ", [448.0], Scale(factor=0.5, fits=True)),
            ("f16", [0.0, NAN], None),
        ],
    )
    def test_it_is_the_power_of_two_nearest_to_one_that_does(
        self, dtype: str, wanted: Any, scale: Scale | None, kept: Any
    ) -> None:
        found = measure.scale(*kept(wanted, np.float64), dtype)
        assert found == scale
        if found and found.fits:
            known = measure.limits(dtype)
            size = np.abs(np.array(wanted)[np.isfinite(wanted)] * found.factor)
            assert (size < known.over).all() and (size >= known.normal).all()


def vtensor(dtype: str) -> str:
    return f"!torch.vtensor<[2],{dtype}>"


class TestChoice:
    def test_a_cast_holds_what_came_before_the_clamp(self) -> None:
        ops = [
            Op(index=0, name="torch.aten.div.Tensor", operands=(0, 0), results=(1,)),
            Op(index=1, name="torch.aten.clamp", operands=(1,), results=(2,)),
            Op(index=2, name="torch.prims.convert_element_type", operands=(2,), results=(3,)),
            Op(index=3, name="torch.aten.view", operands=(3,), results=(4,)),
            Op(index=4, name="torch.prims.convert_element_type", operands=(4,), results=(5,)),
            Op(index=5, name="torch.aten.mul.Tensor", operands=(5, 5), results=(6,)),
            Op(index=6, name="func.return", operands=(6,), results=(), pinned=True),
        ]
        types = ["f32", "f32", "f32", "f8E4M3FN", "f8E4M3FN", "f16", "f16"]
        graph = Graph(
            function="main",
            arguments=(0,),
            ops=tuple(ops),
            returned=(6,),
            types=tuple(map(vtensor, types)),
        )
        cast, widened, product = choose(graph)
        assert (cast.op, cast.truth, cast.dtype, cast.fed) == (2, (0, 0), "f8E4M3FN", ())
        assert (widened.op, widened.truth, widened.fed) == (4, (3, 0), (0,))
        assert (product.op, product.truth, product.fed) == (5, (5, 0), (0, 1))


A, B = "!torch.vtensor<[2,4],f16>", "!torch.vtensor<[4,3],f16>"
C, ONE = "!torch.vtensor<[2,3],f16>", "!torch.vtensor<[],f16>"
#: A matmul of halves, its first factor multiplied by a number, then rooted.
PRODUCT = f"""func.func @main(%a: {A}, %b: {B}, %s: {ONE}) -> {C} {{
  %x = torch.aten.mul.Tensor %a, %s : {A}, {ONE} -> {A}
  %y = torch.aten.mm %x, %b : {A}, {B} -> {C}
  %z = torch.aten.neg %y : {C} -> {C}
  return %z : {C}
}}
"""
X, X8 = "!torch.vtensor<[6],f32>", "!torch.vtensor<[6],f8E4M3FN>"
#: Negated, and quantized to 8 bits as models do it: clamped before; and back.
QUANTIZED = f"""func.func @main(%x: {X}) -> {X} {{
  %i6 = torch.constant.int 6
  %i24 = torch.constant.int 24
  %least = torch.constant.float -4.480000e+02
  %most = torch.constant.float 4.480000e+02
  %n = torch.aten.neg %x : {X} -> {X}
  %c = torch.aten.clamp %n, %least, %most : {X}, !torch.float, !torch.float -> {X}
  %e = torch.prims.convert_element_type %c, %i24 : {X}, !torch.int -> {X8}
  %y = torch.prims.convert_element_type %e, %i6 : {X8}, !torch.int -> {X}
  return %y : {X}
}}
"""


def looked_at(here: Path, mlir: str, *inputs: Any, target: str | None = None) -> Ranges:
    (here / "program.mlir").write_text(mlir)
    given = []
    for index, values in enumerate(inputs):
        tensor = tensors.save(values, here, f"{index}.bin")
        given.append(Tensor(dtype=tensor.dtype, shape=tensor.shape, file=str(here / tensor.file)))
    tools = toolchain.installed()
    source = sources.parse(str(here / "program.mlir"), {}, None)
    job = Job(source=source, inputs=tuple(given) or None, evaluate=False)
    loaded = load(job, Context(toolchain=tools))
    planned = plan(parse(target), tools) if target else None
    return find(loaded, Context(toolchain=tools, limits=Limits(seconds=120)), planned)


def half(*values: float) -> Any:
    return np.array(values, np.float16)


@pytest.mark.real
class TestPrograms:
    def test_a_matmul_that_overflows_is_mended_by_the_scale(self, tmp_path: Path) -> None:
        a, b = half(*range(200, 208)).reshape(2, 4), half(*range(300, 312)).reshape(4, 3)
        found = looked_at(tmp_path, PRODUCT, a, b, np.array(1, np.float16))
        product, negated = found.found
        assert (product.name, product.dtype, product.shape) == ("torch.aten.mm", "f16", (2, 3))
        assert product.location.endswith("program.mlir:3")
        assert product.reference == Counts(infinite=6)
        assert product.limit == 65504 < product.largest
        assert not product.inherited and product.device is None
        assert (negated.name, negated.reference) == ("torch.aten.neg", Counts(infinite=6))
        assert product.scale is not None and product.scale.fits
        factor = np.array(product.scale.factor, np.float16)
        mended = looked_at(tmp_path, PRODUCT, a, b, factor)
        assert (mended.watched, mended.found, mended.notes) == (3, (), ())

    def test_what_is_lost_in_a_cast_is_seen_in_pytorch_and_on_the_device(
        self, tmp_path: Path
    ) -> None:
        # The fourth rounds to the smallest normal number, 2**-6; the device makes 0 of it.
        values = np.array([500.0, -1.0, 1e-7, 2**-7 * 1.9, 3.0, -1000.0], np.float32)
        found = looked_at(tmp_path, QUANTIZED, values, target="llvm-cpu")
        (cast,) = found.found
        assert cast.name == "torch.prims.convert_element_type"
        assert cast.reference == Counts(saturated=2, flushed=1)
        assert cast.device == Counts(saturated=2, flushed=2)
        assert cast.largest == 1000
        assert cast.scale == Scale(factor=0.25, fits=False, left=2)
        assert INSTRUMENTED in found.notes
        assert found.device

    def test_a_clean_program_has_nothing_to_tell(self, tmp_path: Path) -> None:
        values = np.array([1, 2, 3, 4, 5, -6], np.float32)
        found = looked_at(tmp_path, QUANTIZED, values, target="llvm-cpu")
        assert (found.watched, found.found) == (1, ())

    def test_what_pytorch_cannot_evaluate_is_noted(self, tmp_path: Path) -> None:
        mlir = PRODUCT.replace("mm %x, %b", "mm %b, %x").replace(f"{A}, {B} ->", f"{B}, {A} ->")
        found = looked_at(tmp_path, mlir)
        assert found.found == ()
        (note,) = found.notes
        assert note.startswith("main cannot be evaluated: torch.aten.mm: PyTorch ")
        assert (found.watched, found.checked) == (3, 0)
        (tmp_path / "unknown.mlir").write_text(mlir)
        done = pilot("ranges", "unknown.mlir", "--check", cwd=tmp_path)
        assert done.code == 1, "what is not known is not in range"
        assert "3 of 3 intermediates of low precision could not be checked" in done.out

    def test_the_command_tells_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "product.mlir").write_text(PRODUCT)
        for name, values in (
            ("a", np.full((2, 4), 200, np.float16)),
            ("b", np.full((4, 3), 300, np.float16)),
            ("s", np.array(1, np.float16)),
        ):
            np.save(tmp_path / f"{name}.npy", values)
        inputs = [word for name in "abs" for word in ("--input", f"{name}.npy")]
        told = pilot("ranges", "product.mlir", *inputs, cwd=tmp_path)
        assert told.code == 0, told.err
        assert "torch.aten.mm  2x3xf16  main, line 3" in told.out
        assert "PyTorch  6 become infinite" in told.out
        assert "remedy   multiplied by 0.25 (2^-2) it is in range" in told.out
        assert "2 of 3 intermediates of low precision leave the range" in told.out
        assert told.out.splitlines()[-1].startswith("took ")
        checked = pilot("ranges", "product.mlir", *inputs, "--check", "--json", cwd=tmp_path)
        assert (checked.code, len(checked.document["found"])) == (1, 2)
        assert "evaluate" in checked.document["took"]["parts"]

    def test_another_dialect_is_not_said_to_be_in_range(self, tmp_path: Path) -> None:
        mlir = (
            "func.func @main(%x: tensor<2xf16>) -> tensor<2xf16> {\n"
            "  %y = arith.addf %x, %x : tensor<2xf16>\n  return %y : tensor<2xf16>\n}\n"
        )
        with pytest.raises(UsageError, match="floats in other dialects than torch") as caught:
            looked_at(tmp_path, mlir)
        assert "torch dialect" in caught.value.advice
        assert looked_at(tmp_path, mlir.replace("f16", "f32")).watched == 0

    def test_what_is_computed_in_other_dialects_beside_torch_is_named(self, tmp_path: Path) -> None:
        taken = "  %a = torch_c.to_builtin_tensor %x : !torch.vtensor<[6],f32> -> tensor<6xf32>\n"
        mixed = QUANTIZED.replace(
            "  %n = torch.aten.neg %x",
            f"{taken}  %h = arith.truncf %a : tensor<6xf32> to tensor<6xf16>\n"
            "  %s = arith.addf %h, %h : tensor<6xf16>\n  %n = torch.aten.neg %x",
        )
        (tmp_path / "mixed.mlir").write_text(mixed)
        done = pilot("ranges", "mixed.mlir", cwd=tmp_path)
        assert done.code == 0, done.err
        told = "2 operations of others (arith.truncf, arith.addf) compute in 8-bit or 16-bit floats"
        assert f"note: only the torch dialect is watched: {told}, too" in done.out
        assert "intermediates of low precision in the torch dialect" in done.out
        checked = pilot("ranges", "mixed.mlir", "--check", "--json", cwd=tmp_path)
        assert (checked.code, checked.document["unseen"]) == (1, 2)

    def test_weights_without_values_are_asked_for(self, tmp_path: Path) -> None:
        mlir = (
            'util.global private @w = #flow.parameter.named<"model"::"w"> : tensor<2xf16>\n'
            "func.func @main() -> tensor<2xf16> {\n"
            "  %w = util.global.load @w : tensor<2xf16>\n  return %w : tensor<2xf16>\n}\n"
        )
        with pytest.raises(UsageError, match="only the names of its weights are known") as caught:
            looked_at(tmp_path, mlir)
        assert "--weights" in caught.value.advice
