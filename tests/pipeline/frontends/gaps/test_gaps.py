"""Operations that IREE cannot compile are decomposed by PyTorch, and only those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from exported_functions import exported, operations
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.toolchain import toolchain

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


def applied(op: str, *args: Any, **kwargs: Any) -> Any:
    """What the decomposition of our own makes of such a call; NotImplemented where it is for none
    such."""
    from iree_pilot.pipeline.frontends.gaps import gaps

    own = gaps._made_for(op, args, kwargs)
    return own.decompose(*args, **kwargs) if own else NotImplemented


def masked_steps(x: Any, y: Any) -> Any:
    import torch

    return torch.diff((x > 0).__and__(y > 0).to(x.dtype))


def grid(x: Any, y: Any) -> Any:
    import torch

    rows, columns = torch.meshgrid(x[0], y[0], indexing="xy")
    return rows + columns


def spectrum(x: Any, y: Any) -> Any:
    import torch

    return torch.fft.fft2(x).real + y


def plain(x: Any, y: Any) -> Any:
    import torch

    return torch.nn.functional.layer_norm(x @ y.T, (2,)).softmax(-1)


@pytest.fixture
def given_values() -> tuple[Any, Any]:
    import torch

    return torch.randn(2, 8), torch.randn(2, 8)


@pytest.mark.parametrize(
    ("function", "decomposed"),
    [
        (
            masked_steps,
            {
                "aten.__and__.Tensor": "does not lower it",
                "aten.diff": "the torch dialect has no such operation",
            },
        ),
        (grid, {"aten.meshgrid.indexing": "does not lower it"}),
        (plain, {}),
    ],
)
def test_exactly_what_the_compiler_cannot_take_is_decomposed(
    given_values: tuple[Any, Any], function: Callable[..., Any], decomposed: dict[str, str]
) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import gaps
    from iree_pilot.pipeline.frontends.pytorch import torch_export

    before = exported(function, *given_values)
    after, found = gaps.closed(before)
    assert {one.op: one.reason.partition("3.13.0 ")[2] or one.reason for one in found} == decomposed
    assert operations(before) - operations(after) == set(decomposed)
    text = torch_export.to_mlir(after)
    assert "torch.operator" not in text
    assert all(f"torch.{op}" not in text for op in decomposed)
    (program,) = after.values()
    assert torch.equal(program.module()(*given_values), function(*given_values))
    if not decomposed:
        assert text == torch_export.to_mlir(before)


def test_what_the_importer_does_not_take_is_decomposed_too() -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import gaps
    from iree_pilot.pipeline.frontends.pytorch import torch_export

    def folded(x: Any) -> Any:
        return torch.nn.functional.fold(x, (4, 5), (2, 2), stride=(2, 1))

    x = torch.randn(1, 12, 8)
    after, found = gaps.closed(exported(folded, x))
    assert {one.op: one.reason for one in found} == {
        "aten.col2im": "IREE 3.13.0 does not lower it",
        "aten._unsafe_index_put": "IREE's importer does not take it",
    }, "and nothing else is suspected for it"
    assert "torch.aten.index_put" in torch_export.to_mlir(after)
    assert torch.equal(after["main"].module()(x), folded(x))


def test_what_a_decomposition_ends_in_must_compile(given_values: tuple[Any, Any]) -> None:
    from iree_pilot.pipeline.frontends.gaps import gaps

    before = exported(spectrum, *given_values)
    after, found = gaps.closed(before)
    assert found == (), "fft2 leads to _fft_c2c, which is a gap as well and has no decomposition"
    assert "aten.fft_fft2" in operations(after)


def test_a_decomposition_that_fails_leaves_the_operation(
    monkeypatch: pytest.MonkeyPatch, given_values: tuple[Any, Any]
) -> None:
    from iree_pilot.pipeline.frontends.gaps import gaps

    own = gaps._decomposition

    def broken(*values: Any) -> Any:
        raise RuntimeError("not for such values")

    monkeypatch.setattr(
        gaps,
        "_decomposition",
        lambda op, how: broken if gaps.name(op) == "aten.diff" else own(op, how),
    )
    before = exported(masked_steps, *given_values)
    after, found = gaps.closed(before)
    assert [one.op for one in found] == ["aten.__and__.Tensor"]
    assert "aten.diff" in operations(after)


def test_the_user_may_leave_operations_as_they_are(given_values: tuple[Any, Any]) -> None:
    from iree_pilot.pipeline.frontends.gaps import gaps

    before = exported(masked_steps, *given_values)
    after, found = gaps.closed(before, ["aten.diff"])
    assert [one.op for one in found] == ["aten.__and__.Tensor"]
    assert "aten.diff" in operations(after)
    _, found = gaps.closed(before, ["aten.__and__"])
    assert [one.op for one in found] == ["aten.diff"]
    assert gaps.closed(before, ["all"]) == (before, ())


def test_an_operation_that_the_model_does_not_have_is_named(given_values: tuple[Any, Any]) -> None:
    from iree_pilot.pipeline.frontends.gaps import gaps

    with pytest.raises(UsageError, match=r"no operation aten\.and") as refused:
        gaps.closed(exported(masked_steps, *given_values), ["aten.and"])
    assert "aten.__and__.Tensor" in str(refused.value)


def test_a_crash_of_the_compiler_is_traced_to_the_operations_that_cause_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from iree_pilot.pipeline.frontends.gaps import gaps
    from iree_pilot.pipeline.targets import probing

    functions = tuple(f"op{number}" for number in range(9))
    text = "\n".join(
        ["module {", *(f"  func.func @{f}() {{\n    return\n  }}" for f in functions), "}"]
    )

    some = st.sets(st.sampled_from(functions))

    @given(some, some, some)
    def holds(named: set[str], crashing: set[str], endless: set[str]) -> None:
        def answer(lines: Sequence[str], release: Any) -> dict[str, str] | None:
            there = {f for f in functions if any(f"@{f}(" in line for line in lines)}
            if there & endless:
                raise probing.TooLong
            if there & crashing:
                return {}
            return dict.fromkeys(there & named, "refused") or None

        monkeypatch.setattr(gaps, "_named", answer)
        found = gaps._refused(text, functions, toolchain.installed())
        assert set(found) == named | crashing | endless

    holds()


@pytest.mark.parametrize("kind", ["any", "whole", "edges"])
@pytest.mark.parametrize("whole_bounds", [True, False])
def test_histc_counts_as_pytorch_does(kind: str, whole_bounds: bool) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps.decompositions import histc

    for seed in range(40):
        torch.manual_seed(seed)
        bins, low = int(torch.randint(1, 20, ())), float(torch.randint(-5, 3, ()))
        width = float(torch.randint(1, 9, ())) if whole_bounds else float(torch.rand(())) * 7 + 0.1
        x = torch.randn(500) * 4
        values = {
            "any": x,
            "whole": x.round(),
            "edges": torch.linspace(low, low + width, bins + 1).repeat(4),
        }
        counted = histc(values[kind], bins, low, low + width)
        assert torch.equal(counted, torch.histc(values[kind], bins, low, low + width))
    assert applied("aten.histc", torch.ones(4), 4) is NotImplemented, "bounds of the values"


def test_experts_multiply_the_rows_of_their_group() -> None:
    import torch
    import transformers.integrations.moe  # noqa: F401 - registers the operation

    from iree_pilot.pipeline.frontends.gaps import gaps
    from iree_pilot.pipeline.frontends.gaps.decompositions import grouped_mm

    own = torch.ops.transformers.grouped_mm_fallback
    torch.manual_seed(0)
    rows, weight = torch.randn(9, 4), torch.randn(3, 4, 5)
    for ends in ([2, 5, 9], [0, 9, 9], [1, 1, 7], [0, 0, 0]):
        offs = torch.tensor(ends, dtype=torch.int32)
        torch.testing.assert_close(grouped_mm(rows, weight, offs), own(rows, weight, offs))
    before = exported(lambda x, w, o: own(x, w, o), rows, weight, offs)
    after, found = gaps.closed(before)
    assert [(one.op, one.by) for one in found] == [
        ("transformers.grouped_mm_fallback", "iree-pilot")
    ]
    assert found[0].note.endswith("; each expert computes all rows")
    assert "transformers.grouped_mm_fallback" not in operations(after)


def shifted(x: Any, y: Any) -> Any:
    import torch

    return torch.nn.functional.pad(x, (1, -1)), torch.nn.functional.pad(y, (2, 1))


def test_what_is_computed_wrong_is_decomposed_and_no_other_call(
    given_values: tuple[Any, Any],
) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import gaps

    after, (found,) = gaps.closed(exported(shifted, *given_values))
    assert found.op == "aten.pad"
    assert found.reason == "IREE 3.13.0 computes wrong numbers for negative padding"
    assert "[FAILED]" in found.message, "what iree-run-module says of the probe"
    (program,) = after.values()
    padded = [node for node in gaps._calls(program) if gaps.name(node.target) == "aten.pad"]
    assert [list(node.args[1]) for node in padded] == [[1, 0], [2, 1]]
    for made, own in zip(program.module()(*given_values), shifted(*given_values), strict=True):
        assert torch.equal(made, own)
    assert gaps.closed(exported(shifted, *given_values), ("aten.pad",))[1] == ()


@given(
    pads=st.lists(st.tuples(st.integers(-2, 3), st.integers(-2, 3)), min_size=1, max_size=3),
    value=st.sampled_from([0.0, 1.5, float("inf")]),
)
def test_negative_padding_is_that_of_pytorch(pads: list[tuple[int, int]], value: float) -> None:
    import torch

    x, flat = torch.randn(5, 5, 5), [one for pair in pads for one in pair]
    for made in (
        applied("aten.pad", x, flat, "constant", value),
        applied("aten.constant_pad_nd", x, flat, value),
    ):
        if min(flat) >= 0:
            assert made is NotImplemented, "PyTorch's own"
        else:
            assert torch.equal(made, torch.nn.functional.pad(x, flat, value=value))


def test_a_release_that_computes_it_right_needs_no_decomposition(
    monkeypatch: pytest.MonkeyPatch, given_values: tuple[Any, Any]
) -> None:
    from iree_pilot.pipeline.frontends.gaps import gaps
    from iree_pilot.pipeline.targets import probing

    monkeypatch.setattr(probing, "fault", lambda *given: None)
    assert gaps.closed(exported(shifted, *given_values))[1] == ()


@given(values=st.lists(st.booleans(), max_size=4))
def test_truths_of_all_and_of_any_are_those_of_pytorch(values: list[bool]) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import decompositions

    x = torch.tensor(values, dtype=torch.bool)
    assert torch.equal(decompositions.is_all_true(x), torch._is_all_true(x))
    assert torch.equal(decompositions.is_any_true(x), torch._is_any_true(x))


def written(x: Any, y: Any) -> Any:
    import torch

    return torch.select_scatter(x, y[:, 0], 1, -2), torch.select_scatter(x, y[:, 0], 1, 0)


def test_an_index_from_the_back_becomes_one_from_the_front(given_values: tuple[Any, Any]) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import gaps

    after, (found,) = gaps.closed(exported(written, *given_values))
    assert found.op == "aten.select_scatter"
    assert found.reason == "IREE 3.13.0 computes wrong numbers for an index from the back"
    (program,) = after.values()
    calls = [n for n in gaps._calls(program) if gaps.name(n.target) == "aten.select_scatter"]
    assert [n.args[3] for n in calls] == [6, 0]
    assert all(map(torch.equal, program.module()(*given_values), written(*given_values)))


def turned(x: Any, y: Any) -> Any:
    import torch

    angles = torch.polar(torch.ones_like(x), x) * 0.5
    pairs = torch.view_as_complex(torch.stack([x, y], -1)) * angles.to(torch.complex64)
    return torch.view_as_real(pairs)


def test_complex_numbers_are_scaled_and_keep_their_type(given_values: tuple[Any, Any]) -> None:
    from iree_pilot.pipeline.frontends.gaps import gaps
    from iree_pilot.pipeline.frontends.pytorch import torch_export

    after, (found,) = gaps.closed(exported(turned, *given_values))
    assert found.op == "aten.mul.Tensor"
    assert found.reason == "IREE 3.13.0 does not lower it for complex numbers times a real one"
    text = torch_export.to_mlir(after)
    assert "torch.aten._assert_tensor_metadata" in text
    compiled = toolchain.installed()
    assert gaps._named(text.splitlines(), compiled) is None, "its types are those it asserts"


@given(
    real=st.floats(width=32),
    imaginary=st.floats(width=32),
    scale=st.one_of(st.floats(width=32), st.integers(-3, 3)),
    double=st.booleans(),
)
def test_complex_numbers_times_a_real_one_are_those_of_pytorch(
    real: float, imaginary: float, scale: float, double: bool
) -> None:
    import torch

    x = torch.tensor([complex(real, imaginary)], dtype=[torch.complex64, torch.complex128][double])
    made, own = (torch.view_as_real(y) for y in (applied("aten.mul.Tensor", x, scale), x * scale))
    assert torch.equal(made.nan_to_num(7), own.nan_to_num(7))
    assert torch.equal(made.signbit() | made.isnan(), own.signbit() | own.isnan())


def windows(x: Any, y: Any) -> Any:
    import torch

    image = (x + 1).reshape(1, 1, 4, 4)
    pooled = torch.nn.functional.max_pool2d(image, 1, 2)
    return image, pooled, torch.nn.functional.max_pool2d(y.reshape(1, 1, 4, 4) + 1, 2)


def test_what_windows_leave_out_of_a_computed_value_is_cut_off(
    given_values: tuple[Any, Any],
) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import gaps

    after, (found,) = gaps.closed(exported(windows, *given_values))
    assert found.op == "aten.max_pool2d"
    assert found.reason.endswith("for a value of which windows leave out some")
    (program,) = after.values()
    calls = [n for n in gaps._calls(program) if gaps.name(n.target) == "aten.max_pool2d"]
    assert [list(n.args[1]) for n in calls] == [[1, 1], [2, 2]]
    assert [str(n.args[0].target) for n in calls] == ["aten.slice.Tensor", "aten.add.Tensor"]
    assert all(map(torch.equal, program.module()(*given_values), windows(*given_values)))


def activated(x: Any, y: Any) -> Any:
    import torch

    return torch.nn.functional.gelu(x, approximate="tanh"), torch.nn.functional.gelu(y)


def test_gelu_with_tanh_is_written_out(given_values: tuple[Any, Any]) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import gaps

    after, (found,) = gaps.closed(exported(activated, *given_values))
    assert (found.op, found.reason) == (
        "aten.gelu",
        "IREE 3.13.0 computes wrong numbers for gelu with tanh",
    )
    (program,) = after.values()
    assert "aten.tanh" in operations(after)
    for made, own in zip(program.module()(*given_values), activated(*given_values), strict=True):
        torch.testing.assert_close(made, own, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_gelu_written_out_is_that_of_pytorch(dtype: str) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import decompositions

    x = torch.linspace(-9, 9, 10001).to(getattr(torch, dtype))
    own = torch.nn.functional.gelu(x, approximate="tanh")
    made = decompositions.gelu(x, "tanh")
    rounding = torch.finfo(torch.float64 if dtype == "float64" else torch.float32).eps
    limits = {"rtol": torch.finfo(own.dtype).eps, "atol": 8 * rounding}
    torch.testing.assert_close(made, own, **limits)


def sampled(x: Any, y: Any) -> Any:
    import torch

    places = (9 * y).reshape(1, 2, 4, 2)
    return torch.nn.functional.grid_sample(x.reshape(1, 1, 4, 4), places, align_corners=True)


def test_samples_from_outside_of_an_image_are_taken_apart(given_values: tuple[Any, Any]) -> None:
    import torch

    from iree_pilot.pipeline.frontends.gaps import gaps

    before = exported(sampled, *given_values)
    after, (found,) = gaps.closed(before)
    assert (found.op, found.reason) == (
        "aten.grid_sampler",
        "IREE 3.13.0 computes wrong numbers for samples from outside of an image",
    )
    (program,) = after.values()
    torch.testing.assert_close(program.module()(*given_values), sampled(*given_values))
