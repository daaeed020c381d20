"""Programs of linalg, StableHLO, TOSA and ONNX operations come out as in PyTorch and numpy."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iree_pilot.pipeline.evaluate.arrays import contraction
from iree_pilot.pipeline.evaluate.interpreter import Interpreter
from iree_pilot.pipeline.evaluate.machine.elements import Unknown
from iree_pilot.pipeline.evaluate.machine.machine import Mode
from iree_pilot.pipeline.toolchain import toolchain

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((3, 4)).astype(np.float32)
Y = RANDOM.standard_normal((4, 5)).astype(np.float32)
IMAGE = RANDOM.standard_normal((1, 7, 6, 2)).astype(np.float32)
KERNEL = RANDOM.standard_normal((3, 2, 2, 4)).astype(np.float32)


def evaluated(text: str, directory: Path, *inputs: Any, wide: bool = False) -> list[Any]:
    """What `main` returns."""
    (directory / "p.mlir").write_text(text)
    made = Interpreter(directory / "p.mlir").run("main", inputs, Mode(wide=wide))
    return made.outputs


def agree(found: Sequence[Any], wanted: Sequence[Any], tolerance: float = 1e-5) -> None:
    assert len(found) == len(wanted)
    for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
        other = np.asarray(other)
        assert one.shape == other.shape, index
        close = np.allclose(
            one.astype(np.float64), other.astype(np.float64), tolerance, tolerance, equal_nan=True
        )
        assert close, f"{index}: {one} where {other} is expected"


class Many:
    """Functions of PyTorch that reach every way in which linalg reduces, gathers and converts."""

    @staticmethod
    def functions() -> list[Any]:
        import torch
        from torch.nn import functional as f

        return [
            lambda x, n, i: x @ x.transpose(-1, -2),
            lambda x, n, i: x.half() @ x.half().transpose(-1, -2),
            lambda x, n, i: torch.bmm(x.bfloat16(), x.bfloat16().transpose(-1, -2)),
            lambda x, n, i: f.conv2d(n, n[:, :, :3, :3], stride=2, padding=1),
            lambda x, n, i: f.conv2d(n, n[:1, :1, :3, :3].expand(2, 1, 3, 3), groups=2, dilation=2),
            lambda x, n, i: f.max_pool2d(n, 2, 1),
            lambda x, n, i: f.avg_pool2d(n, 2, 2),
            lambda x, n, i: f.softmax(x, -1),
            lambda x, n, i: f.layer_norm(x, (5,)),
            lambda x, n, i: f.gelu(x),
            lambda x, n, i: x.sum(1),
            lambda x, n, i: x.half().sum(),
            lambda x, n, i: x.var(1),
            lambda x, n, i: x.prod(2),
            lambda x, n, i: x.argmax(1),
            lambda x, n, i: torch.min(x, 1).values,
            lambda x, n, i: x.cumsum(1),
            lambda x, n, i: torch.sort(x, -1).values,
            lambda x, n, i: torch.topk(x, 3).indices,
            lambda x, n, i: torch.gather(x[0], 1, i),
            lambda x, n, i: x[0][:, i[0]],
            lambda x, n, i: x[0].scatter(1, i[:, :1], 2.0),
            lambda x, n, i: torch.cat([x, x], 1),
            lambda x, n, i: f.pad(x, (1, 2), value=3.0),
            lambda x, n, i: x[:, 1:3, ::2].flip(1),
            lambda x, n, i: torch.where(x > 0, x, x.exp()).permute(2, 0, 1).reshape(5, -1),
            lambda x, n, i: x.to(torch.int32),
            lambda x, n, i: x.to(torch.float8_e4m3fn).float(),
            lambda x, n, i: torch.div(i - 2, 3, rounding_mode="floor") + i % 3,
            lambda x, n, i: (x > 0).any(1),
            lambda x, n, i: f.scaled_dot_product_attention(n, n, n),
            lambda x, n, i: f.interpolate(n, scale_factor=2),
            lambda x, n, i: torch.tril(x) + torch.arange(5),
            lambda x, n, i: torch.round(x * 4) + torch.floor(x) + torch.trunc(x) + torch.sign(x),
        ]


@pytest.mark.real
def test_what_iree_converts_from_torch_comes_out_as_in_pytorch(tmp_path: Path) -> None:
    """Also where IREE has optimised it, and where dispatches are formed."""
    import torch
    from iree.turbine import aot

    functions = Many.functions()

    class Model(torch.nn.Module):
        def forward(self, x: Any, n: Any, i: Any) -> Any:
            return tuple(function(x, n, i) for function in functions)

    torch.manual_seed(0)
    inputs = torch.randn(2, 4, 5), torch.randn(2, 2, 6, 6), torch.randint(0, 4, (4, 3))
    wanted = Model()(*inputs)
    exported = torch.export.export(Model().eval(), inputs)
    aot.export(exported).save_mlir(tmp_path / "torch.mlir")
    for phase in ("input", "global-optimization", "flow"):
        made = tmp_path / f"{phase}.mlir"
        flags = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=vmvx")
        tool = toolchain.installed().compiler
        argv = [tool, tmp_path / "torch.mlir", *flags, f"--compile-to={phase}", "-o", made]
        subprocess.run(argv, check=True, capture_output=True, timeout=120)
        given = [v.numpy() for v in inputs]
        found = Interpreter(made).run("main", given).outputs
        wide = Interpreter(made).run("main", given, Mode(wide=True))
        assert wide.rounded
        for index, (want, got, precise) in enumerate(zip(wanted, found, wide.outputs, strict=True)):
            narrow = {torch.float16: 4e-3, torch.bfloat16: 3e-2}.get(want.dtype, 1e-5)
            message = f"{phase}, output {index}"
            own = want.double().numpy()
            assert np.allclose(got.astype(np.float64), own, narrow, narrow), message
            assert np.allclose(precise.astype(np.float64), own, 3e-2, 3e-2), message


STABLEHLO = """
func.func @main(%x: tensor<3x4xf32>, %y: tensor<4x5xf32>, %n: tensor<1x7x6x2xf32>,
    %k: tensor<3x2x2x4xf32>, %i: tensor<2x1xi32>, %u: tensor<3xui8>) -> (tensor<3x5xf32>,
    tensor<1x4x2x4xf32>, tensor<3xf32>, tensor<2x4xf32>, tensor<3x4xi1>, tensor<1x3x3x2xf32>,
    tensor<3x4xf32>, tensor<3x4xf32>, tensor<5x4xf32>, tensor<3xui8>, tensor<3xi32>, tensor<f32>) {
  %dot = stablehlo.dot_general %x, %y, contracting_dims = [1] x [0]
    : (tensor<3x4xf32>, tensor<4x5xf32>) -> tensor<3x5xf32>
  %conv = stablehlo.convolution(%n, %k) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {stride = [2, 2], pad = [[1, 1], [0, 0]], lhs_dilate = [1, 1], rhs_dilate = [1, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x7x6x2xf32>, tensor<3x2x2x4xf32>) -> tensor<1x4x2x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %sum = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [1]
    : (tensor<3x4xf32>, tensor<f32>) -> tensor<3xf32>
  %rows = "stablehlo.gather"(%x, %i) <{dimension_numbers = #stablehlo.gather<offset_dims = [1],
    collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>,
    slice_sizes = array<i64: 1, 4>}> : (tensor<3x4xf32>, tensor<2x1xi32>) -> tensor<2x4xf32>
  %more = stablehlo.exponential %x : tensor<3x4xf32>
  %less = stablehlo.compare LT, %x, %more, FLOAT
    : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xi1>
  %pool = "stablehlo.reduce_window"(%n, %zero) <{window_dimensions = array<i64: 1, 2, 2, 1>,
    window_strides = array<i64: 1, 2, 2, 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %m = stablehlo.maximum %a, %b : tensor<f32>
    stablehlo.return %m : tensor<f32>
  }) : (tensor<1x7x6x2xf32>, tensor<f32>) -> tensor<1x3x3x2xf32>
  %sorted = "stablehlo.sort"(%x) <{dimension = 1 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %m = stablehlo.compare GT, %a, %b : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %m : tensor<i1>
  }) : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %added = "stablehlo.scatter"(%x, %i, %rows) <{scatter_dimension_numbers =
    #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0],
    scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %m = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %m : tensor<f32>
  }) : (tensor<3x4xf32>, tensor<2x1xi32>, tensor<2x4xf32>) -> tensor<3x4xf32>
  %pad = stablehlo.pad %x, %one, low = [1, -1], high = [-1, 1], interior = [1, 0]
    : (tensor<3x4xf32>, tensor<f32>) -> tensor<5x4xf32>
  %half = stablehlo.divide %u, %u : tensor<3xui8>
  %low = stablehlo.add %u, %u : tensor<3xui8>
  %wide = stablehlo.convert %u : (tensor<3xui8>) -> tensor<3xi32>
  %steps = stablehlo.constant dense<5> : tensor<i32>
  %from = stablehlo.constant dense<0> : tensor<i32>
  %loop:2 = stablehlo.while(%c = %from, %v = %one) : tensor<i32>, tensor<f32>
    cond {
      %go = stablehlo.compare LT, %c, %steps : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %go : tensor<i1>
    } do {
      %1 = stablehlo.constant dense<1> : tensor<i32>
      %next = stablehlo.add %c, %1 : tensor<i32>
      %double = stablehlo.add %v, %v : tensor<f32>
      stablehlo.return %next, %double : tensor<i32>, tensor<f32>
    }
  return %dot, %conv, %sum, %rows, %less, %pool, %sorted, %added, %pad, %low, %wide, %loop#1
    : tensor<3x5xf32>, tensor<1x4x2x4xf32>, tensor<3xf32>, tensor<2x4xf32>, tensor<3x4xi1>,
      tensor<1x3x3x2xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<5x4xf32>, tensor<3xui8>,
      tensor<3xi32>, tensor<f32>
}
"""


def convolved(image: Any, kernel: Any, **options: Any) -> Any:
    """What PyTorch makes of [batch, rows, columns, channels] and [rows, columns, in, out]."""
    import torch

    made = torch.nn.functional.conv2d(
        torch.from_numpy(image).permute(0, 3, 1, 2),
        torch.from_numpy(kernel).permute(3, 2, 0, 1),
        **options,
    )
    return made.permute(0, 2, 3, 1).numpy()


@pytest.mark.torch
def test_stablehlo_is_evaluated(tmp_path: Path) -> None:
    index, bytes_ = np.array([[2], [2]], np.int32), np.array([3, 200, 255], np.uint8)
    found = evaluated(STABLEHLO, tmp_path, X, Y, IMAGE, KERNEL, index, bytes_)
    added = X.copy()
    added[2] *= 3
    padded = np.ones((5, 4), np.float32)
    padded[1::2, :3] = X[:2, 1:]
    pools = IMAGE[:, :6].reshape(1, 3, 2, 3, 2, 2).max((2, 4))
    wanted = [
        X @ Y,
        convolved(IMAGE, KERNEL, stride=2, padding=(1, 0), dilation=(1, 2)),
        X.sum(1),
        X[[2, 2]],
        np.exp(X) > X,
        np.maximum(pools, 0),
        -np.sort(-X, 1),
        added,
        padded,
        bytes_ + bytes_,
        bytes_.astype(np.int32),
        np.float32(32),
    ]
    agree(found, wanted)
    assert found[9].dtype == np.uint8
    wide = evaluated(STABLEHLO, tmp_path, X, Y, IMAGE, KERNEL, index, bytes_, wide=True)
    assert wide[0].dtype == np.float64 and np.array_equal(wide[0], X.astype(float) @ Y)


TOSA = """
func.func @main(%n: tensor<1x7x6x2xf32>, %w: tensor<4x3x2x2xf32>, %q: tensor<1x7x6x2xi8>,
    %v: tensor<4x3x2x2xi8>) -> (tensor<1x5x5x4xf32>, tensor<1x5x5x4xi8>, tensor<1x7x6x1xf32>,
    tensor<1x3x3x2xi8>, tensor<1x7x6x2xi8>, tensor<1x7x6xi32>) {
  %z = "tosa.const"() <{values = dense<0.0> : tensor<1xf32>}> : () -> tensor<1xf32>
  %b = "tosa.const"() <{values = dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>}> : () -> tensor<4xf32>
  %conv = "tosa.conv2d"(%n, %w, %b, %z, %z) <{pad = array<i64: 0, 0, 0, 0>,
    stride = array<i64: 1, 1>, dilation = array<i64: 1, 1>, acc_type = f32}> : (tensor<1x7x6x2xf32>,
    tensor<4x3x2x2xf32>, tensor<4xf32>, tensor<1xf32>, tensor<1xf32>) -> tensor<1x5x5x4xf32>
  %zi = "tosa.const"() <{values = dense<5> : tensor<1xi8>}> : () -> tensor<1xi8>
  %zw = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
  %bi = "tosa.const"() <{values = dense<7> : tensor<4xi32>}> : () -> tensor<4xi32>
  %whole = "tosa.conv2d"(%q, %v, %bi, %zi, %zw) <{pad = array<i64: 0, 0, 0, 0>,
    stride = array<i64: 1, 1>, dilation = array<i64: 1, 1>, acc_type = i32}> : (tensor<1x7x6x2xi8>,
    tensor<4x3x2x2xi8>, tensor<4xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x5x5x4xi32>
  %m = "tosa.const"() <{values = dense<1431655766> : tensor<1xi32>}> : () -> tensor<1xi32>
  %s = "tosa.const"() <{values = dense<41> : tensor<1xi8>}> : () -> tensor<1xi8>
  %z32 = "tosa.const"() <{values = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
  %scaled = "tosa.rescale"(%whole, %m, %s, %z32, %zi)
    <{scale32 = true, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>,
    per_channel = false, input_unsigned = false, output_unsigned = false}> : (tensor<1x5x5x4xi32>,
    tensor<1xi32>, tensor<1xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x5x5x4xi8>
  %sum = "tosa.reduce_sum"(%n) <{axis = 3 : i32}> : (tensor<1x7x6x2xf32>) -> tensor<1x7x6x1xf32>
  %start = "tosa.const_shape"() <{values = dense<0> : tensor<4xindex>}>
    : () -> !tosa.shape<4>
  %size = "tosa.const_shape"() <{values = dense<[1, 6, 6, 2]> : tensor<4xindex>}>
    : () -> !tosa.shape<4>
  %part = tosa.slice %q, %start, %size : (tensor<1x7x6x2xi8>, !tosa.shape<4>, !tosa.shape<4>)
    -> tensor<1x6x6x2xi8>
  %mean = "tosa.avg_pool2d"(%part, %zw, %zw) <{kernel = array<i64: 2, 2>, stride = array<i64: 2, 2>,
    pad = array<i64: 0, 0, 0, 0>, acc_type = i32}> : (tensor<1x6x6x2xi8>, tensor<1xi8>,
    tensor<1xi8>) -> tensor<1x3x3x2xi8>
  %hundred = "tosa.const"() <{values = dense<100.0> : tensor<1x1x1x1xf32>}> : ()
    -> tensor<1x1x1x1xf32>
  %no = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
  %large = tosa.mul %n, %hundred, %no : (tensor<1x7x6x2xf32>, tensor<1x1x1x1xf32>, tensor<1xi8>)
    -> tensor<1x7x6x2xf32>
  %cast = tosa.cast %large : (tensor<1x7x6x2xf32>) -> tensor<1x7x6x2xi8>
  %most = "tosa.argmax"(%n) <{axis = 3 : i32}> : (tensor<1x7x6x2xf32>) -> tensor<1x7x6xi32>
  return %conv, %scaled, %sum, %mean, %cast, %most : tensor<1x5x5x4xf32>, tensor<1x5x5x4xi8>,
    tensor<1x7x6x1xf32>, tensor<1x3x3x2xi8>, tensor<1x7x6x2xi8>, tensor<1x7x6xi32>
}
"""


@pytest.mark.torch
def test_tosa_is_evaluated(tmp_path: Path) -> None:
    image = RANDOM.integers(-128, 128, IMAGE.shape).astype(np.int8)
    kernel = RANDOM.integers(-128, 128, KERNEL.shape).astype(np.int8)
    weights, whole = (np.ascontiguousarray(k.transpose(3, 0, 1, 2)) for k in (KERNEL, kernel))
    found = evaluated(TOSA, tmp_path, IMAGE, weights, image, whole)
    sums = convolved(image.astype(np.float64) - 5, kernel.astype(np.float64)) + 7
    scaled = np.floor(sums * (1431655766 / 2**41) + 0.5) + 5
    means = image[:, :6].astype(np.float64).reshape(1, 3, 2, 3, 2, 2).mean((2, 4))
    wanted = [
        convolved(IMAGE, KERNEL) + np.array([1, 2, 3, 4]),
        np.clip(scaled, -128, 127),
        IMAGE.sum(3, keepdims=True),
        np.trunc(means + np.copysign(0.5, means)),
        np.clip(np.rint(IMAGE * np.float32(100)), -128, 127),
        IMAGE.argmax(3),
    ]
    agree(found, wanted)


ONNX = """
func.func @main(%x: !torch.vtensor<[3,4],f32>) -> (!torch.vtensor<[3,4],f32>,
    !torch.vtensor<[3,2],si64>) attributes {torch.onnx_meta.opset_version = 17 : si64} {
  %none = torch.constant.none
  %k = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2> : tensor<1xsi64>}
    : () -> !torch.vtensor<[1],si64>
  %top = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.5> : tensor<f32>}
    : () -> !torch.vtensor<[],f32>
  %0 = torch.operator "onnx.Clip"(%x, %none, %top)
    : (!torch.vtensor<[3,4],f32>, !torch.none, !torch.vtensor<[],f32>) -> !torch.vtensor<[3,4],f32>
  %1 = torch.operator "onnx.Softmax"(%0) {torch.onnx.axis = -1 : si64}
    : (!torch.vtensor<[3,4],f32>) -> !torch.vtensor<[3,4],f32>
  %2:2 = torch.operator "onnx.TopK"(%x, %k) : (!torch.vtensor<[3,4],f32>, !torch.vtensor<[1],si64>)
    -> (!torch.vtensor<[3,2],f32>, !torch.vtensor<[3,2],si64>)
  return %1, %2#1 : !torch.vtensor<[3,4],f32>, !torch.vtensor<[3,2],si64>
}
"""


def test_operations_of_onnx_are_evaluated_by_onnx(tmp_path: Path) -> None:
    (tmp_path / "p.mlir").write_text(ONNX)
    made = Interpreter(tmp_path / "p.mlir").run("main", [X])
    powers = np.exp(np.minimum(X, 0.5))
    agree(made.outputs, [powers / powers.sum(1, keepdims=True), np.argsort(-X, 1)[:, :2]])
    assert any(name.startswith("onnx") for name in made.used)
    (wide, _) = evaluated(ONNX, tmp_path, X, wide=True)
    powers = np.exp(np.minimum(X.astype(np.float64), 0.5))
    assert np.allclose(wide, powers / powers.sum(1, keepdims=True), 1e-12)


def test_what_onnx_draws_at_random_is_refused(tmp_path: Path) -> None:
    text = ONNX.replace('"onnx.Softmax"(%0) {torch.onnx.axis = -1 : si64}', '"onnx.Bernoulli"(%0)')
    with pytest.raises(Unknown, match="random"):
        evaluated(text, tmp_path, X)


LOOPS = """
func.func private @twice(%x: tensor<3x4xf32>) -> tensor<3x4xf32> {
  %0 = arith.addf %x, %x : tensor<3x4xf32>
  return %0 : tensor<3x4xf32>
}
util.global private mutable @count = dense<3> : tensor<i32>
func.func @main(%x: tensor<3x4xf32>, %n: index, %yes: i1) -> (tensor<3x4xf32>, tensor<i32>, f32) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %0 = scf.for %i = %c0 to %n step %c1 iter_args(%a = %x) -> tensor<3x4xf32> {
    %1 = func.call @twice(%a) : (tensor<3x4xf32>) -> tensor<3x4xf32>
    scf.yield %1 : tensor<3x4xf32>
  }
  %g = util.global.load @count : tensor<i32>
  %h = arith.addi %g, %g : tensor<i32>
  util.global.store %h, @count : tensor<i32>
  %k = util.global.load @count : tensor<i32>
  %v = tensor.extract %0[%c0, %c1] : tensor<3x4xf32>
  cf.cond_br %yes, ^end(%v : f32), ^other
^other:
  %w = arith.negf %v : f32
  cf.br ^end(%w : f32)
^end(%e: f32):
  return %0, %k, %e : tensor<3x4xf32>, tensor<i32>, f32
}
"""


@pytest.mark.parametrize("yes", [True, False])
def test_functions_call_loop_branch_and_keep_state(tmp_path: Path, yes: bool) -> None:
    found = evaluated(LOOPS, tmp_path, X, np.int64(3), np.bool_(yes))
    agree(found, [X * 8, 6, X[0, 1] * (8 if yes else -8)])


FILLED = """
func.func @main(%x: tensor<3x4xf32>, %y: tensor<4x5xf32>) -> tensor<3x5xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<3x5xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<3x5xf32>) -> tensor<3x5xf32>
  %m = linalg.matmul ins(%x, %y : tensor<3x4xf32>, tensor<4x5xf32>)
    outs(%f : tensor<3x5xf32>) -> tensor<3x5xf32>
  return %m : tensor<3x5xf32>
}
"""


def test_long_sums_in_narrow_floats_are_rounded_a_few_steps_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FILLED.replace("f32", "f16").replace("4x5", "64x5").replace("3x4", "3x64")
    x, y = (RANDOM.standard_normal(s).astype(np.float16) for s in ((3, 64), (64, 5)))
    (each,) = evaluated(text, tmp_path, x, y)
    monkeypatch.setattr(contraction, "_EACH_STEP", 0)
    monkeypatch.setattr(contraction, "_ROUNDINGS", 3 * 64 * 5 // 8)
    (few,) = evaluated(text, tmp_path, x, y)
    exact = x.astype(np.float64) @ y.astype(np.float64)
    assert few.dtype == np.float16 and not np.array_equal(each, few)
    agree([each, few], [exact, exact], 0.05)
    monkeypatch.setattr(contraction, "_ROUNDINGS", 1)
    with pytest.raises(Unknown, match="too much to evaluate"):
        evaluated(text, tmp_path, x, y)


UNDEFINED = """
func.func @main(%x: tensor<4xi32>, %y: tensor<4xi32>) -> tensor<4xi32> {
  %q = arith.divsi %x, %y : tensor<4xi32>
  %zero = arith.constant dense<0> : tensor<4xi32>
  %bad = arith.cmpi eq, %y, %zero : tensor<4xi32>
  %r = arith.select %bad, %zero, %q : tensor<4xi1>, tensor<4xi32>
  return %RESULT : tensor<4xi32>
}
"""


def test_what_depends_on_the_undefined_is_refused_and_nothing_else(tmp_path: Path) -> None:
    x, y = np.array([7, -7, 5, 1], np.int32), np.array([2, 2, 0, 1], np.int32)
    agree(evaluated(UNDEFINED.replace("RESULT", "r"), tmp_path, x, y), [[3, -3, 0, 1]])
    with pytest.raises(Unknown, match="undefined: a division by 0"):
        evaluated(UNDEFINED.replace("RESULT", "q"), tmp_path, x, y)


def test_what_is_overwritten_whole_is_not_undefined(tmp_path: Path) -> None:
    """Else each program with a tensor.empty would be evaluated twice."""
    (tmp_path / "p.mlir").write_text(FILLED)
    module = Interpreter(tmp_path / "p.mlir")
    machine, outputs = module.once("main", [X, Y], Mode(), None)
    assert not machine.unclear
    agree(outputs, [X @ Y])


#: What is left of f64 at a program's border once its functions compute in f32.
BORDER = """util.func public @main(%x: !hal.buffer_view) -> !hal.buffer_view {
  %0 = hal.tensor.import %x : !hal.buffer_view -> tensor<4xf64> as tensor<4xf32>
  %1 = hal.tensor.export %0 : tensor<4xEXPORTED> as tensor<4xf32> -> !hal.buffer_view
  util.return %1 : !hal.buffer_view
}"""


def test_the_border_of_a_program_reads_bytes_and_converts_nothing(tmp_path: Path) -> None:
    """So does IREE, whose f64 read as f32 must not be taken for right."""
    x = np.array([1.0, 2.5, -3.0, 4.0])
    text = BORDER.replace("EXPORTED", "i32")
    agree(evaluated(text, tmp_path, x), [x.view(np.int32)[:4]])
    text = BORDER.replace("EXPORTED", "f32")
    agree(evaluated(text, tmp_path, x, wide=True), [x.view(np.float32)[:4]])
    with pytest.raises(Unknown, match="reads 32 bytes where there are 16"):
        evaluated(BORDER.replace("EXPORTED", "f64"), tmp_path, x)


def test_what_is_too_much_is_refused_before_it_is_tried(tmp_path: Path) -> None:
    text = """func.func @main(%x: tensor<1xf32>) -> tensor<1000000x1000000xf32> {
      %e = tensor.empty() : tensor<1000000x1000000xf32>
      return %e : tensor<1000000x1000000xf32>
    }"""
    with pytest.raises(Unknown, match="too much to evaluate"):
        evaluated(text, tmp_path, np.zeros(1, np.float32))
    endless = LOOPS.replace("step %c1", "step %c1 ")
    (tmp_path / "p.mlir").write_text(endless)
    with pytest.raises(Unknown, match="too much to evaluate: it takes more than"):
        Interpreter(tmp_path / "p.mlir", seconds=0.2).run(
            "main", [X, np.int64(1 << 19), np.bool_(True)]
        )


def test_a_constant_that_is_a_parameter_is_not_evaluated(tmp_path: Path) -> None:
    text = """util.func public @main() -> tensor<3x2xf32> {
      %w = flow.tensor.constant #flow.parameter.named<"model"::"w"> : tensor<3x2xf32>
      util.return %w : tensor<3x2xf32>
    }"""
    with pytest.raises(Unknown, match=r"the constant #flow\.parameter\.named"):
        evaluated(text, tmp_path)
