"""Decompositions of iree-pilot's own compute what PyTorch does, for the calls they are made for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


def applied(op: str, *args: Any) -> Any:
    """What a decomposition makes of such a call; None where there is none for it."""
    from iree_pilot.pipeline.frontends.gaps import gaps

    own = gaps._made_for(op, args, {})
    return own.decompose(*args) if own else None


def same(made: Any, expected: Any) -> None:
    """Asserts that values, types and sizes are the same but for the last bits of sums."""
    import torch

    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


windows = st.lists(
    st.tuples(
        st.integers(1, 7),
        st.integers(1, 4),
        st.integers(1, 4),
        st.integers(0, 2),
        st.integers(1, 2),
    ),
    min_size=1,
    max_size=3,
)


class TestWindows:
    @given(windows=windows, groups=st.sampled_from([1, 2]), batch=st.booleans())
    def test_convolutions(self, windows: list[Any], groups: int, batch: bool) -> None:
        import torch

        sizes, kernel, stride, padding, dilation = (list(one) for one in zip(*windows, strict=True))
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        outs = [
            (n + 2 * p - s) // step + 1
            for n, p, s, step in zip(sizes, padding, spans, stride, strict=True)
        ]
        if min(outs) < 1:
            return
        x = torch.randn(*([2] if batch else []), 4, *sizes)
        args = (x, torch.randn(6, 4 // groups, *kernel), torch.randn(6))
        args += (stride, padding, dilation, groups)
        op = getattr(torch.ops.aten, f"conv{len(sizes)}d").default
        made = applied(f"aten.conv{len(sizes)}d", *args)
        left = [
            o == 1 and n + 2 * p > s for o, n, p, s in zip(outs, sizes, padding, spans, strict=True)
        ]
        if made is not None:
            same(made, op(*args))
        else:
            assert batch
            assert not any(left)

    @given(
        windows=st.lists(
            st.tuples(st.integers(4, 7), st.integers(1, 3), st.integers(1, 2)),
            min_size=1,
            max_size=3,
        ),
        padding=st.sampled_from(["same", "valid"]),
        batch=st.booleans(),
    )
    def test_padding_in_words(self, windows: list[Any], padding: str, batch: bool) -> None:
        import torch

        sizes, kernel, dilation = (list(one) for one in zip(*windows, strict=True))
        dims, x = len(sizes), torch.randn(*([2] if batch else []), 4, *sizes)
        if any((k - 1) * d >= n for n, k, d in windows):
            return
        args = (x, torch.randn(4, 2, *kernel), None, [1] * dims, padding, dilation, 2)
        made = applied(f"aten.conv{dims}d.padding", *args)
        same(made, getattr(torch.ops.aten, f"conv{dims}d").padding(*args))

    def test_padding_in_words_without_other_options(self) -> None:
        import torch
        from iree.turbine.aot.decompositions import current_aot_decompositions

        from iree_pilot.pipeline.frontends.gaps import gaps

        class Module(torch.nn.Module):
            def forward(self, x: Any, weight: Any) -> Any:
                return torch.nn.functional.conv3d(x, weight, padding="same", groups=4)

        values = torch.randn(4, 5, 6, 7), torch.randn(4, 1, 3, 3, 3)
        program = torch.export.export(Module(), values, strict=False)
        program = program.run_decompositions(current_aot_decompositions())
        after, found = gaps.closed({"main": program})
        assert {"aten.conv3d.padding": "iree-pilot"}.items() <= {o.op: o.by for o in found}.items()
        same(after["main"].module()(*values), Module()(*values))

    @given(windows=windows, ceil=st.booleans(), counted=st.booleans(), batch=st.booleans())
    def test_poolings(self, windows: list[Any], ceil: bool, counted: bool, batch: bool) -> None:
        import torch

        sizes, kernel, stride, padding, dilation = (list(one) for one in zip(*windows, strict=True))
        padding = [min(p, k // 2) for p, k in zip(padding, kernel, strict=True)]
        x = torch.randn(*([2] if batch else []), 4, *sizes) - 3
        dims = len(sizes)
        largest = (x, kernel, stride, padding, dilation, ceil)
        mean = (x, kernel, stride, padding, ceil, counted)
        for name, args in (("max_pool", largest), ("avg_pool", mean)):
            op = getattr(torch.ops.aten, f"{name}{dims}d").default
            try:
                expected = op(*args)
            except RuntimeError:  # a window that fits nowhere
                continue
            made = applied(f"aten.{name}{dims}d", *args)
            if made is not None:
                same(made, expected)
            else:
                assert batch

    def test_a_window_larger_than_the_input_counts_what_is_inside(self) -> None:
        import torch

        x = torch.randn(1, 3, 2, 4)
        same(applied("aten.avg_pool2d", x, [9], [9], [0], True), x.mean((2, 3), keepdim=True))
        assert applied("aten.avg_pool2d", x, [1, 3], [1, 2], [0], True) is None, "one is cut"

    @pytest.mark.parametrize("kernel", [1, 2])
    def test_options_of_one_number_for_all_dimensions(self, kernel: int) -> None:
        import torch

        x = torch.randn(1, 2, 6, 7)
        for options in ([[2], [0]], [[4, 5]], [[], [0, 0]], [[3, 4], [0]]):
            for op in ("max_pool2d", "avg_pool2d"):
                made = applied(f"aten.{op}", x, [kernel], *options)
                expected = getattr(torch.ops.aten, op).default(x, [kernel], *options)
                if made is not None:
                    same(made, expected)
        same(applied("aten.max_pool2d", x, [1], [2], [0]), torch.nn.functional.max_pool2d(x, 1, 2))

    def test_what_is_left_behind_the_only_window_is_cut_off(self) -> None:
        import torch

        from iree_pilot.pipeline.frontends.gaps import windowed

        def weighs(size: int, **kwargs: int) -> bool:
            given = {"stride": 2, "padding": 0, **kwargs}
            x, w = torch.zeros(1, 1, size), torch.zeros(1, 1, 3)
            return windowed.leaves_a_rest(x, w, None, [given["stride"]], [given["padding"]])

        assert weighs(4) and weighs(2, padding=1)
        assert not weighs(3), "nothing is left"
        assert not weighs(5), "it fits twice"
        assert not weighs(4, stride=1)

    @given(
        multiple=st.integers(1, 2),
        stride=st.integers(1, 2),
        padding=st.integers(0, 1),
        bias=st.booleans(),
    )
    def test_a_3d_convolution_of_each_channel(
        self, multiple: int, stride: int, padding: int, bias: bool
    ) -> None:
        import torch

        x, w = torch.randn(2, 3, 5, 4, 6), torch.randn(3 * multiple, 1, 3, 2, 3)
        x[0, 0, 0, 0, 0], b = float("inf"), torch.randn(3 * multiple) if bias else None
        args = (x, w, b, [stride] * 3, [padding] * 3, [1] * 3, 3)
        made, own = applied("aten.conv3d", *args), torch.ops.aten.conv3d.default(*args)
        torch.testing.assert_close(made, own, equal_nan=True, rtol=1e-5, atol=1e-5)

    @given(
        sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
        stride=st.integers(1, 3),
        padding=st.integers(0, 1),
        batch=st.booleans(),
    )
    def test_a_transposed_convolution_of_each_channel(
        self, sizes: list[int], stride: int, padding: int, batch: bool
    ) -> None:
        import torch

        dims = len(sizes)
        x, w = torch.randn(*([2] if batch else []), 3, *sizes), torch.randn(3, 1, *[3] * dims)
        options = ([stride] * dims, [padding] * dims, [stride - 1] * dims, 3, [1] * dims)
        args = (x, w, torch.randn(3), *options)
        op = f"conv_transpose{dims}d"
        own = getattr(getattr(torch.ops.aten, op), "default" if dims == 1 else "input")
        same(applied(f"aten.{op}{'' if dims == 1 else '.input'}", *args), own(*args))


@given(
    shape=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    pads=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=2),
)
def test_reflection(shape: list[int], pads: list[tuple[int, int]]) -> None:
    import torch

    flat = [one for pair in pads for one in pair]
    if any(max(pair) >= shape[-n] for n, pair in enumerate(pads, start=1)):
        return
    x = torch.randn(*([1] if len(pads) == 2 else []), *shape)
    made = applied("aten.pad", x, flat, "reflect")
    assert (made is None) == (max(flat) < 2)
    if made is not None:
        assert torch.equal(made, torch.nn.functional.pad(x, flat, mode="reflect"))


@given(masks=st.lists(st.sampled_from(["row", "both", "none", "places"]), min_size=1, max_size=2))
def test_masks_take_what_their_places_take(masks: list[str]) -> None:
    import torch

    x = torch.randn(3, 3, 3, 3)
    kinds = {
        "row": torch.tensor([True, False, True]),
        "both": torch.tensor([[True, False, False], [False, True, False], [False, False, False]]),
        "none": None,
        "places": torch.tensor([2, 0]),
    }
    indices = [kinds[one] for one in masks]
    made = applied("aten.index.Tensor", x, indices)
    assert (made is not None) == bool({"row", "both"} & {*masks})
    if made is not None:
        assert torch.equal(made, torch.ops.aten.index.Tensor(x, indices))


@given(
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    how=st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()),
    far=st.sampled_from([0.5, 1e9, float("nan"), float("inf"), float("-inf")]),
    first=st.sampled_from([1.0, float("nan"), float("inf")]),
)
def test_samples_of_images(sizes: Any, how: Any, far: float, first: float) -> None:
    import torch

    for dtype in (torch.float32, torch.float64):
        x, places = torch.randn(1, 2, *sizes, dtype=dtype), torch.randn(1, 2, 3, 2, dtype=dtype)
        x[0, 0, 0, 0], places[0, 1, 1, 0] = first, far
        made, own = applied("aten.grid_sampler", x, places, *how), torch.ops.aten.grid_sampler
        torch.testing.assert_close(made, own(x, places, *how), equal_nan=True)


def test_samples_of_images_of_any_size_compile() -> None:
    import torch
    from iree.turbine.aot.decompositions import current_aot_decompositions

    from iree_pilot.pipeline.frontends.gaps import gaps

    class Module(torch.nn.Module):
        def forward(self, x: Any, places: Any) -> Any:
            return torch.nn.functional.grid_sample(x, places, align_corners=False)

    values = (torch.randn(2, 2, 5, 4), torch.randn(2, 3, 3, 2))
    auto = torch.export.Dim.AUTO
    shapes = ({0: auto, 2: auto, 3: auto}, {0: auto, 1: auto})
    program = torch.export.export(Module(), values, dynamic_shapes=shapes, strict=False)
    program = program.run_decompositions(current_aot_decompositions())
    assert "aten.grid_sampler" in {one.op for one in gaps.closed({"main": program})[1]}


@given(how=st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()))
def test_samples_of_narrow_types_are_rounded_as_the_kernel_does(how: Any) -> None:
    import torch

    for dtype in (torch.float16, torch.bfloat16):
        args = (torch.randn(1, 2, 5, 6).to(dtype), torch.randn(1, 4, 3, 2).to(dtype), *how)
        assert torch.equal(applied("aten.grid_sampler", *args), torch.ops.aten.grid_sampler(*args))


def test_masks_of_the_old_kind_are_left_alone() -> None:
    import torch

    old, mask = torch.ones(2, dtype=torch.uint8), torch.ones(3, dtype=torch.bool)
    assert applied("aten.index.Tensor", torch.randn(2, 3), [old, mask]) is None


@given(first=st.integers(0, 2), count=st.integers(2, 3), size=st.integers(0, 4))
def test_several_indices_become_one(first: int, count: int, size: int) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import decompositions

    x = torch.randn(2, 3, 4, 5, 6)
    indices = [None] * first + [
        torch.randint(-n, n, (size,)) for n in x.shape[first : first + count]
    ]
    made = decompositions.index_by_one(x, indices)
    assert torch.equal(made, torch.ops.aten.index.Tensor(x, indices))
    assert applied("aten.index.Tensor", x, indices) is None, "their size is known"


@pytest.mark.parametrize("dim", [-1, -2, 0])
def test_scattering_along_a_dimension_from_the_back(dim: int) -> None:
    import torch

    x, source = torch.randn(4, 4), torch.randn(4, 4)
    places = torch.stack([torch.randperm(4) for _ in range(4)], dim)
    for op, args in {
        "scatter.value": (1.5,),
        "scatter.src": (source,),
        "scatter_add": (source,),
        "scatter_reduce.two": (source, "amax"),
    }.items():
        name, _, overload = op.partition(".")
        own = getattr(getattr(torch.ops.aten, name), overload or "default")
        made = applied(f"aten.{op}", x, dim, places, *args)
        assert (made is not None) == (dim < 0)
        assert made is None or torch.equal(made, own(x, dim, places, *args))


def test_the_largest_in_any_order_are_sorted() -> None:
    import torch

    x = torch.randn(3, 9)
    for largest in (True, False):
        made = applied("aten.topk", x, 4, -1, largest, False)
        for one, own in zip(made, torch.topk(x, 4, -1, largest, True), strict=True):
            assert torch.equal(one, own)
    assert applied("aten.topk", x, 4) is None


@given(data=st.data())
def test_windows_over_what_they_read_are_those_of_pytorch(data: Any) -> None:
    import torch
    from torch.nn import functional

    def number(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    kernel = [number(1, 3), number(1, 3)]
    stride = [number(1, 4), number(1, 4)]
    padding = [number(0, k // 2) for k in kernel]
    x = torch.randint(-9, 10, (2, 4, number(5, 9), number(5, 9))).double()
    groups, dilation = data.draw(st.sampled_from([1, 2, 4])), [number(1, 2), number(1, 2)]
    weight = torch.randint(-9, 10, (4, 4 // groups, *kernel)).double()
    pooled = (x, kernel, stride, padding)
    calls = [
        ("aten.conv2d", functional.conv2d, (x, weight, None, stride, padding, dilation, groups)),
        ("aten.max_pool2d", functional.max_pool2d, (*pooled, dilation)),
        ("aten.max_pool2d", functional.max_pool2d, (x, kernel)),
        ("aten.avg_pool2d", functional.avg_pool2d, pooled),
    ]
    for op, own, args in calls:
        result = applied(op, *args)
        assert result is None or torch.equal(result, own(*args))
    assert applied("aten.max_pool2d", x, kernel, stride, padding, dilation, True) is None
    assert applied("aten.avg_pool2d", x, [1, 1]) is None, "each is read"
    result = applied("aten.conv2d", x, weight[..., :1, :1], None, [2, 2], [0, 0], [1, 1], groups)
    if groups < 4:
        assert result is None, "a product of matrices"
    else:
        whole = functional.conv2d(x, weight[..., :1, :1], None, 2, groups=groups)
        assert torch.equal(result, whole)


@given(count=st.integers(0, 6), wide=st.booleans())
def test_what_is_scattered_by_a_mask(count: int, wide: bool) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import decompositions

    x, places = torch.randn(2, 3, 4), torch.randperm(6)[:count]
    mask = torch.zeros(6, dtype=torch.bool)
    mask[places] = True
    mask = mask.reshape(2, 3, 1)
    mask = mask.expand(2, 3, 4) if wide else mask
    source = torch.randn(count, 4)
    made = decompositions.masked_scatter(x, mask, source)
    assert torch.equal(made, x.masked_scatter(mask, source))


def chosen(x: Any, mask: Any, rows: Any, keep: Any) -> Any:
    import torch

    kept = rows[keep]
    (all_of_it,) = torch.split(kept, [kept.shape[0]])
    return x.masked_scatter(mask, all_of_it)


def test_rows_that_a_mask_chooses_are_scattered_by_another() -> None:
    import torch
    from iree.turbine.aot.decompositions import current_aot_decompositions

    from iree_pilot.pipeline.frontends.gaps import gaps
    from iree_pilot.pipeline.frontends.pytorch import torch_export
    from iree_pilot.pipeline.toolchain import toolchain

    class Module(torch.nn.Module):
        def forward(self, *values: Any) -> Any:
            return chosen(*values)

    mask, keep = torch.rand(1, 6, 1) > 0.5, torch.ones(6, dtype=torch.bool)
    values = (torch.randn(1, 6, 4), mask, torch.randn(6, 4), keep)
    program = torch.export.export(Module(), values, strict=False)
    programs = {"main": program.run_decompositions(current_aot_decompositions())}
    after, found = gaps.closed(programs)
    assert {"aten.index.Tensor", "aten.masked_scatter"} <= {one.op for one in found}
    assert torch.equal(after["main"].module()(*values), chosen(*values))
    text = torch_export.to_mlir(after)
    assert gaps._named(text.splitlines(), toolchain.installed()) is None


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), dim=st.sampled_from([0, 1, -1]))
def test_parts_of_any_size_are_those_of_pytorch(sizes: list[int], dim: int) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import decompositions

    x = torch.randn(sum(sizes), 3).movedim(0, dim)
    made, right = decompositions.split_open(x, sizes, dim), torch.split(x, sizes, dim)
    assert all(map(torch.equal, made, right)) and len(made) == len(right)


def _bytes_and(other: str) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    x = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    beside = {
        "bytes": x.flip(0).clamp(min=1),
        "f32": torch.randn(16, 16) + 2,
        "f16": (torch.rand(16, 16) + 0.5).half(),
        "i64": torch.arange(1, 257).reshape(16, 16),
        "byte": torch.tensor(3, dtype=torch.uint8),
        "long": torch.tensor(5),
        "number": 7,
        "fraction": 0.7,
    }
    return x, beside[other]


@pytest.mark.parametrize(
    "other", ["bytes", "f32", "f16", "i64", "byte", "long", "number", "fraction"]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_bytes_in_32_bits_are_what_pytorch_computes(other: str, swapped: bool) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import unsigned

    checked = 0
    for name, applies in unsigned.CALLS.items():
        packet, _, overload = name.removeprefix("aten.").partition(".")
        op = getattr(getattr(torch.ops.aten, packet), overload or "default")
        x, beside = _bytes_and(other)
        number = not isinstance(beside, torch.Tensor)
        if applies is unsigned.alone:
            args = (x, [1]) if overload == "dim_IntList" else (x, 1) if overload else (x,)
        elif number != overload.startswith("Scalar") or (number and swapped):
            continue
        else:
            args = (beside, x) if swapped else (x, beside)
        modes = [{"rounding_mode": m} for m in ("floor", "trunc")] if "mode" in overload else [{}]
        # No number is divided by 0: PyTorch raises, as the model does.
        args = tuple(a.clamp(min=1) if a is x else a for a in args)
        for more in modes if applies(*args) else ():
            made, right = unsigned.in_32_bits(op)(*args, **more), op(*args, **more)
            assert made.dtype == right.dtype, name
            assert torch.equal(made, right) or torch.allclose(made, right, equal_nan=True), name
            checked += 1
    assert checked >= 6


def test_numbers_that_bytes_do_not_hold_are_left_alone() -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import unsigned

    x = torch.zeros(2, dtype=torch.uint8)
    for number in (-1, 256, True):
        assert not unsigned.binary(x, number)
    for beside in (x.bool(), x.to(torch.int8), x.to(torch.int16)):
        assert not unsigned.binary(x, beside)
    assert not unsigned.unlike(x, x) and not unsigned.with_fraction(x, 2)
