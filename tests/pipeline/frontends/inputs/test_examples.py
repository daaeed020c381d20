"""Example inputs fit the signature and come again with the seed; the user's own are checked."""

from __future__ import annotations

import math
from pathlib import Path

import ml_dtypes
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.inputs import examples
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import (
    ELEMENT_TYPES,
    Dim,
    Function,
    TensorType,
    check_inputs,
)


@st.composite
def functions(draw: st.DrawFn) -> Function:
    inputs = []
    for index in range(draw(st.integers(0, 4))):
        shape: list[int | Dim] = []
        for axis in range(draw(st.integers(0, 3))):
            if draw(st.booleans()):
                shape.append(draw(st.integers(0, 5)))
                continue
            low = draw(st.integers(0, 9))
            high = draw(st.none() | st.integers(low, 12))
            shape.append(Dim(symbol=f"s{index}{axis}", min=low, max=high))
        dtype = draw(st.sampled_from(sorted(ELEMENT_TYPES)))
        inputs.append(TensorType(name=f"x{index}", dtype=dtype, shape=tuple(shape)))
    return Function(name="main", inputs=tuple(inputs), outputs=())


class TestRandom:
    @given(functions(), st.integers(0, 2**32))
    def test_they_fit_the_function_and_the_seed_gives_them_again(
        self, tmp_path_factory: pytest.TempPathFactory, function: Function, seed: int
    ) -> None:
        one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
        made = examples.random(function, seed, one)
        check_inputs(function, made, "a model")
        assert examples.random(function, seed, two) == made
        for tensor in made:
            raw = (one / tensor.file).read_bytes()
            assert len(raw) == tensor.bytes
            assert raw == (two / tensor.file).read_bytes()

    def test_another_seed_gives_others(self, tmp_path: Path) -> None:
        x = TensorType(name="x", dtype="f32", shape=(64,))
        function = Function(name="main", inputs=(x,), outputs=())
        contents = []
        for seed in (0, 1):
            (tensor,) = examples.random(function, seed, tmp_path)
            contents.append((tmp_path / tensor.file).read_bytes())
        assert contents[0] != contents[1]

    @pytest.mark.parametrize("dtype", sorted(ELEMENT_TYPES))
    def test_values_are_of_their_type_and_harmless(self, tmp_path: Path, dtype: str) -> None:
        x = TensorType(name="x", dtype=dtype, shape=(200,))
        (tensor,) = examples.random(Function(name="f", inputs=(x,), outputs=()), 0, tmp_path)
        values = tensors.load(tmp_path, tensor)
        family = ELEMENT_TYPES[dtype].family
        if family == "int":
            assert 0 <= values.min() <= values.max() < 8, "they may be indices"
        elif family == "bool":
            assert set(values.tolist()) == {False, True}
        else:
            assert numpy.isfinite(values.astype(numpy.complex128)).all()
            # f8E8M0FNU has powers of two only.
            assert len(set(values.tolist())) > (4 if dtype == "f8E8M0FNU" else 20)
        if family == "complex":
            assert numpy.abs(values.imag).max() > 0

    @pytest.mark.parametrize(
        ("dim", "size"),
        [
            (Dim(symbol="s"), 4),
            (Dim(symbol="s", min=1, max=2), 2),
            (Dim(symbol="s", min=7), 7),
            (Dim(symbol="s", min=0, max=0), 0),
        ],
    )
    def test_dynamic_dimensions_are_small_but_not_degenerate(
        self, tmp_path: Path, dim: Dim, size: int
    ) -> None:
        x = TensorType(name="x", dtype="f32", shape=(dim,))
        (tensor,) = examples.random(Function(name="f", inputs=(x,), outputs=()), 0, tmp_path)
        assert tensor.shape == (size,)

    def test_a_symbol_has_one_size_everywhere(self, tmp_path: Path) -> None:
        narrow = Dim(symbol="n", min=1, max=3)
        function = Function(
            name="f",
            inputs=(
                TensorType(name="a", dtype="f32", shape=(narrow, 2)),
                TensorType(name="b", dtype="f32", shape=(narrow,)),
            ),
            outputs=(),
        )
        check_inputs(function, examples.random(function, 0, tmp_path), "a model")


class TestFromFiles:
    def test_npy_keeps_shape_dtype_and_values(self, tmp_path: Path) -> None:
        values = numpy.arange(6, dtype=numpy.float16).reshape(2, 3)
        numpy.save(tmp_path / "x.npy", values)
        for spec in (f"{tmp_path}/x.npy", f"@{tmp_path}/x.npy"):
            (tensor,) = examples.from_files((spec,), tmp_path)
            assert (tensor.dtype, tensor.shape) == ("f16", (2, 3))
            assert Path(tensor.file).read_bytes() == values.tobytes()

    @pytest.mark.parametrize(
        "layout",
        [
            numpy.arange(6, dtype=">i4").reshape(2, 3),
            numpy.asfortranarray(numpy.arange(6, dtype="<i4").reshape(2, 3)),
            numpy.arange(12, dtype="<i4").reshape(2, 6)[:, ::2],
        ],
        ids=["big endian", "Fortran order", "strided"],
    )
    def test_values_are_written_row_major_and_little_endian(
        self, tmp_path: Path, layout: numpy.ndarray
    ) -> None:
        numpy.save(tmp_path / "x.npy", layout)
        (tensor,) = examples.from_files((f"{tmp_path}/x.npy",), tmp_path)
        read = numpy.frombuffer(Path(tensor.file).read_bytes(), "<i4").reshape(tensor.shape)
        assert tensor.dtype == "i32"
        assert (read == layout).all()

    def test_raw_bytes_of_a_type_that_npy_cannot_say(self, tmp_path: Path) -> None:
        values = numpy.array([1.5, -2.0], dtype=ml_dtypes.bfloat16)
        (tmp_path / "x.bin").write_bytes(values.tobytes())
        (tensor,) = examples.from_files((f"2x1xbf16=@{tmp_path}/x.bin",), tmp_path)
        assert (tensor.dtype, tensor.shape) == ("bf16", (2, 1))
        assert Path(tensor.file) == tmp_path / "x.bin"

    def test_a_scalar_and_a_complex_type(self, tmp_path: Path) -> None:
        (tmp_path / "s").write_bytes(bytes(4))
        (tmp_path / "c").write_bytes(bytes(16))
        scalar, complex_ = examples.from_files(
            (f"f32=@{tmp_path}/s", f"2xcomplex<f32>=@{tmp_path}/c"), tmp_path
        )
        assert (scalar.shape, scalar.dtype) == ((), "f32")
        assert (complex_.shape, complex_.dtype) == ((2,), "complex<f32>")

    def test_one_number_throughout(self, tmp_path: Path) -> None:
        half, flags = examples.from_files(("2x1xbf16=-1.5", "3xi1=1"), tmp_path)
        values = numpy.frombuffer(Path(half.file).read_bytes(), ml_dtypes.bfloat16)
        assert (half.dtype, half.shape, values.tolist()) == ("bf16", (2, 1), [-1.5, -1.5])
        assert (flags.dtype, Path(flags.file).read_bytes()) == ("i1", b"\1\1\1")

    @pytest.mark.parametrize(
        ("spec", "values"),
        [("4xi4=[[1 -2][3 -8]]", [1, -2, 3, -8]), ("4xui2=3,0 1 2", [3, 0, 1, 2])],
    )
    def test_all_the_numbers_and_packed_ones(
        self, tmp_path: Path, spec: str, values: list[int]
    ) -> None:
        (tensor,) = examples.from_files((spec,), tmp_path)
        assert Path(tensor.file).stat().st_size == tensor.bytes < 4
        assert tensors.load(tmp_path, tensor).tolist() == values

    @pytest.mark.parametrize(
        ("spec", "values"),
        [
            ("4xf32=nan inf -0.0 1", [math.nan, math.inf, -0.0, 1]),
            ("2xf32=inf", [math.inf] * 2),
            ("4xf32=0x1p3 1e-3 +1 -INF", [8, float(numpy.float32(1e-3)), 1, -math.inf]),
            ("2xf32=-nan [.5]", [-math.nan, 0.5]),
            ("2xi32=+1 010", [1, 10]),
            ("1xf32=-0", [-0.0]),
            ("2xi32", [0, 0]),
            ("1x2xf32=", [[0, 0]]),
            ("0xf32", []),
            ("0x2xi64=", []),
        ],
    )
    def test_numbers_as_iree_run_module_takes_them(
        self, tmp_path: Path, spec: str, values: list[float]
    ) -> None:
        (tensor,) = examples.from_files((spec,), tmp_path)
        assert tensor.passed == "view"
        held = tensors.load(tmp_path, tensor)
        numpy.testing.assert_array_equal(held, numpy.reshape(values, tensor.shape))
        assert (numpy.signbit(held) == numpy.signbit(numpy.reshape(values, tensor.shape))).all()

    def test_numbers_on_their_own_bare_buffers_and_null(self, tmp_path: Path) -> None:
        alone = ("-5", "0x10", "1e-3", "true", "+1", "0x1p3", "-inf")
        given = examples.from_files((*alone, "&2xf32=1", "(null)"), tmp_path)
        assert [t.passed for t in given] == [*["scalar"] * len(alone), "buffer", "null"]
        values = [tensors.load(tmp_path, t).item() for t in given[: len(alone)]]
        assert values == [-5, 16, 1e-3, 1, 1, 8, -math.inf]

    @pytest.mark.parametrize(
        ("spec", "content", "message"),
        [
            ("3xi32=1 2", b"", "2 numbers where 3 are needed"),
            ("3xi4=16", b"", "i4 cannot hold 16"),
            ("3xi32=1.5", b"", "1.5 is not of type i32"),
            ("x.txt", b"", "neither an .npy file, nor SHAPExDTYPE=@FILE"),
            ("2xf32=1e", b"", "1e is not a number"),
            ("2xf32=1_0", b"", "1_0 is not a number"),
            ("2xf32=x", b"", "x is not a number"),
            ("2xf99", b"", "unknown element type f99"),
            (f"{1 << 64}", b"", "does not fit into 64 bits"),
            (f"{1 << 63}", b"", "does not fit into 64 bits"),
            ("f32", b"", "neither an .npy file"),
            ("9999999999x9999999999xf32", b"", "has 399,999,999,920,000,000,004 bytes, and "),
            ("99999999x99999xbf16=1", b"", "bytes of memory are available here"),
            ("4611686018427387904x4xf32", b"", "no array has such a shape"),
            ("1x" * 65 + "f32", b"", "no array has such a shape"),
            ("2x3=@x.bin", b"", "neither"),
            ("2x3xf99=@x.bin", bytes(24), "unknown element type f99"),
            ("2x3xf32=@x.bin", bytes(23), "x.bin has 23 bytes, 2x3xf32 needs 24"),
            ("x.npy", b"not numpy", "not a readable .npy file"),
            ("x.npy", b"\x93NUMPY\x01\x00", "not a readable .npy file"),
            ("x.npy", b"", "not a readable .npy file"),
        ],
    )
    def test_what_cannot_be_read_is_the_users_mistake(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        spec: str,
        content: bytes,
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / spec.rpartition("@")[2]).write_bytes(content)
        with pytest.raises(UsageError) as caught:
            examples.from_files((spec,), tmp_path)
        assert message in caught.value.message
        assert spec[:80] in caught.value.message

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        for spec in ("gone.npy", "2xf32=@gone.bin"):
            with pytest.raises(UsageError, match="no file gone"):
                examples.from_files((spec,), tmp_path)

    def test_a_dtype_without_an_element_type_is_named(self, tmp_path: Path) -> None:
        numpy.save(tmp_path / "x.npy", numpy.array(["a"]))
        with pytest.raises(UsageError, match="dtype <U1 has no IREE element type"):
            examples.from_files((f"{tmp_path}/x.npy",), tmp_path)
