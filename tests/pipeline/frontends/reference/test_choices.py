"""What sort, top-k and their like point to, what ties change, what a device may flush to 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from traced_functions import Function  # noqa: E402

from iree_pilot.pipeline.frontends.reference import norms, reference  # noqa: E402
from iree_pilot.pipeline.frontends.reference.choices import Choices  # noqa: E402
from iree_pilot.pipeline.program import torch_tensors  # noqa: E402
from iree_pilot.pipeline.program.program import Jitter, Reference  # noqa: E402

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


def referenced(
    directory: Path, function: Callable[..., Any], *args: Any, jitter: Jitter = "none"
) -> Reference:
    program = torch.export.export(Function(function), args).run_decompositions({})
    evaluate, choices = reference.graph(program, args, {}), Choices()
    own = evaluate(None, choices)

    files = torch_tensors.TensorFiles(directory, "")
    made = Reference(outputs=files.save(own.outputs, "out"))
    return reference.with_precise(made, evaluate, files, own.points, choices, jitter=jitter)


def test_every_operation_that_chooses_points_to_what_it_gives(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        y = x * 2
        chosen = [
            y.topk(3, 0),
            y.sort(1, descending=True),
            y.max(1),
            y.min(0, keepdim=True),
            y.kthvalue(2, 1),
            y.median(0),
            y.cummax(1),
        ]
        more = [y.argmax(), y.argmin(1, keepdim=True)]
        return [v for values, _ in chosen for v in [values]], [i for _, i in chosen] + more, y

    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    found = referenced(tmp_path, function, x)
    *outputs, y = (torch_tensors.load(t, tmp_path) for t in found.outputs)
    given = [*outputs[:7], y.max(), y.min(1, keepdim=True).values]
    assert [i.output for i in found.indexed] == list(range(7, 16))
    for indexed, values in zip(found.indexed, given, strict=True):
        rows = torch_tensors.load(indexed.rows, tmp_path)
        held = torch_tensors.load(indexed.values, tmp_path).reshape(-1)
        assert torch.equal(held[rows + outputs[indexed.output]], values), indexed.operation
        assert not indexed.exact and indexed.precise is not None
    assert found.ties == ()


def test_indices_are_followed_through_what_only_moves_them(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        values, indices = x.transpose(0, 1).topk(3, -1)
        moved = indices[:, :2].t().unsqueeze(0).to(torch.int32)
        return moved, indices + 1, values

    found = referenced(tmp_path, function, torch.arange(20.0).reshape(4, 5) % 7)
    (indexed,) = found.indexed
    assert (indexed.output, indexed.operation, indexed.exact) == (0, "aten.topk", True)
    rows = torch_tensors.load(indexed.rows, tmp_path)
    moved, _, values = (torch_tensors.load(t, tmp_path) for t in found.outputs)
    held = torch_tensors.load(indexed.values, tmp_path).reshape(-1)
    assert torch.equal(held[rows + moved], values[:, :2].t().unsqueeze(0))


def retied(directory: Path, found: Reference, output: int) -> list[Any]:
    return [torch_tensors.load(once[output], directory).tolist() for once in found.retied]


def test_ties_are_broken_in_other_ways(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        y = torch.relu(x)
        values, indices = y.topk(2, -1)
        return indices, torch.zeros_like(y).scatter(-1, indices, 1.0), values, y.argmax(-1)

    found = referenced(tmp_path, function, torch.tensor([[-1.0, -2, -3, 5], [4, 3, -1, -1]]))
    assert found.ties == ("aten.topk",)
    first, last, _ = retied(tmp_path, found, 0)
    assert (first, last) == ([[3, 0], [0, 1]], [[3, 2], [0, 1]])
    assert retied(tmp_path, found, 1)[:2] == [
        [[1, 0, 0, 1], [1, 1, 0, 0]],
        [[0, 0, 1, 1], [1, 1, 0, 0]],
    ]
    assert retied(tmp_path, found, 2) == [[[5, 0], [4, 3]]] * 3
    assert retied(tmp_path, found, 3) == [[3, 0]] * 3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.bfloat16])
def test_equal_values_of_any_type_are_tied(tmp_path: Path, dtype: Any) -> None:
    x = torch.tensor([1, 0, 1, 1]).to(dtype)
    found = referenced(tmp_path, lambda x: x.sort(descending=True).indices, x)
    assert found.ties == ("aten.sort",)
    assert retied(tmp_path, found, 0)[:2] == [[0, 2, 3, 1], [3, 2, 0, 1]]
    assert found.indexed[0].exact


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sort(stable=True).indices,
        lambda x: x.argsort(stable=True, descending=True),
        lambda x: x.argmax(),
        lambda x: x.argmin(0),
        lambda x: x.max(0).indices,
        lambda x: x.min(0).indices,
    ],
)
def test_the_order_that_pytorch_promises_is_no_choice_among_what_is_given(
    tmp_path: Path, function: Callable[..., Any]
) -> None:
    x = torch.tensor([1.0, 0, 1, 1, 0])
    found = referenced(tmp_path, function, x)
    assert (found.ties, found.indexed, found.retied) == ((), (), ())
    computed = referenced(tmp_path, lambda x: function(x * 2), x)
    assert computed.ties and computed.indexed


def test_infinities_are_tied_too(tmp_path: Path) -> None:
    x = torch.tensor([-torch.inf, 2.0, -torch.inf, torch.inf, torch.inf])
    found = referenced(tmp_path, lambda x: (x * 1).argsort(), x)
    assert retied(tmp_path, found, 0)[:2] == [[0, 2, 1, 3, 4], [2, 0, 1, 4, 3]] or retied(
        tmp_path, found, 0
    )[:2] == [[2, 0, 1, 4, 3], [0, 2, 1, 3, 4]]


def test_nans_do_not_make_values_hang_on_ties_elsewhere(tmp_path: Path) -> None:
    x = torch.tensor([[1.0, torch.nan, -3.0, 7.0], [1.0, 5.0, 5.0, 0.0]])
    found = referenced(tmp_path, lambda x: (x * 1).argmax(-1), x)
    assert found.ties == ("aten.argmax",)
    assert not found.indexed[0].tied


def test_what_rounding_makes_equal_is_tied_where_it_is_computed(tmp_path: Path) -> None:
    x = torch.tensor([1.0, 1.0 + 2**-23, 0.5])
    computed = referenced(tmp_path, lambda x: (x * 3).argmax(), x)
    assert computed.ties == ("aten.argmax",)
    assert referenced(tmp_path, lambda x: x.argmax(), x).ties == ()


def test_values_that_hang_on_a_tie_are_marked(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        first = (x * 1).argmax(-1)
        return first, torch.tensor([3.0, 2.0, 5.0, 1.0])[first].sort().indices

    found = referenced(tmp_path, function, torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 2]]))
    assert [i.tied for i in found.indexed] == [False, True]


def test_what_is_flushed_is_followed(tmp_path: Path) -> None:
    x = torch.tensor([0.0, -95.0, -100.0])
    found = referenced(tmp_path, lambda x: (x.exp().log(), x.exp() * 1e30, x + 1), x)
    log, scaled, plain = (torch_tensors.load(t, tmp_path).tolist() for t in found.flushed)
    assert log == [0.0, -torch.inf, -torch.inf]
    assert scaled == [1e30, 0.0, 0.0]
    assert plain == [1.0, -94.0, -99.0]


def test_what_is_given_is_flushed_and_what_booleans_come_of_it(tmp_path: Path) -> None:
    x = torch.tensor([1.0, 1e-40, -2e-41])
    found = referenced(tmp_path, lambda x: (x > 0, (x != 0).sum(), x * 1e38), x)
    positive, count, scaled = (torch_tensors.load(t, tmp_path).tolist() for t in found.flushed)
    assert (positive, count) == ([True, False, False], 1)
    assert scaled == pytest.approx([1e38, 0.0, 0.0])


@pytest.mark.parametrize("x", [torch.tensor([0.0, -3.0]), torch.tensor([-95.0]).double()])
def test_nothing_is_flushed_without_need(tmp_path: Path, x: Any) -> None:
    assert referenced(tmp_path, lambda x: x.exp(), x).flushed == ()


def test_values_that_cancel_are_moved_and_others_are_not(tmp_path: Path) -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    made = referenced(tmp_path, lambda x: x.softmax(-1).sum(-1) - 1, x, jitter="values")
    moved = [torch_tensors.load(once[0], tmp_path) for once in made.jittered]
    assert len(moved) == 3
    assert all(0 < one.abs().max() < 1e-6 for one in moved)
    assert referenced(tmp_path, lambda x: x.softmax(-1), x, jitter="values").jittered == ()
    half = x.half()
    assert referenced(tmp_path, lambda x: torch.tanh(x), half, jitter="values").jittered == ()
    rows = (half[:, :1] * 8).expand(3, 8).clone()
    made = referenced(tmp_path, lambda x: torch.layer_norm(x, (8,)), rows, jitter="values")
    assert all(torch_tensors.load(once[0], tmp_path).abs().max() > 0.1 for once in made.jittered)


def test_the_mean_in_a_norm_may_round_each_of_its_steps(tmp_path: Path) -> None:
    """Of 100 equal values in f16: a right implementation of it is off by more than 1."""
    rows = torch.tensor([[0.3774], [-0.4351]]).half().expand(2, 100).clone()
    made = referenced(tmp_path, lambda x: torch.layer_norm(x, (100,)), rows, jitter="values")
    moved = [torch_tensors.load(once[0], tmp_path).abs().max() for once in made.jittered]
    assert all(0.15 < one < 2 for one in moved) and len(moved) == 3
    varied = torch.randn(2, 100, generator=torch.Generator().manual_seed(0)).half()
    made = referenced(tmp_path, lambda x: torch.layer_norm(x, (100,)), varied, jitter="values")
    assert made.jittered == ()
    wide = torch.randn(2, 1024).bfloat16()  # a tenth off in IREE, which sums squares up in bf16
    made = referenced(tmp_path, lambda x: torch.layer_norm(x, (1024,)), wide, jitter="values")
    right = torch_tensors.load(made.precise[0], tmp_path)
    offs = [(torch_tensors.load(o[0], tmp_path) / right - 1).abs().median() for o in made.jittered]
    assert all(1e-3 < one < 0.2 for one in offs) and len(offs) == 3


def test_a_sum_too_large_for_its_steps_loses_them(tmp_path: Path) -> None:
    """One that rounds each step of 2048 squares to bf16 makes the norm a quarter larger."""
    wide = torch.randn(16, 2048, generator=torch.Generator().manual_seed(0)).bfloat16()
    made = referenced(tmp_path, lambda x: torch.layer_norm(x, (2048,)), wide, jitter="values")
    right = torch_tensors.load(made.precise[0], tmp_path)
    offs = [(torch_tensors.load(o[0], tmp_path) / right - 1).abs() for o in made.jittered]
    assert all(8 * one.median(-1).values.max() > 0.4 for one in offs) and len(offs) == 3


def test_what_is_rounded_to_8_bits_is_moved_by_less_than_its_steps(tmp_path: Path) -> None:
    half = torch.randn(4, 100, generator=torch.Generator().manual_seed(0)).half() + 9

    def quantized(x: Any) -> Any:
        return torch.layer_norm(x, (100,)).to(torch.float8_e4m3fn).to(torch.float16)

    made = referenced(tmp_path, quantized, half, jitter="values")
    assert made.perturbed and made.jittered == ()


@pytest.mark.real
def test_what_iree_computes_within_pytorch_is_asked_in_f32(tmp_path: Path) -> None:
    from iree.turbine.ops import conv_fwd

    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(shape, generator=generator) for shape in ((1, 6, 6, 2), (4, 3, 3, 2)))
    made = referenced(tmp_path, lambda x: conv_fwd.conv_2d_nhwc_fhwc(x, w, [1, 1], [1, 1]), x)
    precise = torch_tensors.load(made.precise[0], tmp_path)
    nchw = torch.conv2d(x.double().permute(0, 3, 1, 2), w.double().permute(0, 3, 1, 2))
    assert torch.allclose(precise, nchw.permute(0, 2, 3, 1), atol=1e-5)


def test_the_steps_of_a_norm_alone(tmp_path: Path) -> None:
    """Of rows whose mean is twice what they vary by, in f16; compiled, 4 roundings off."""
    row = torch.randn(16, 31, generator=torch.Generator().manual_seed(0)) * 4 - 9
    made = referenced(tmp_path, lambda x: torch.layer_norm(x, (31,)), row.half(), jitter="sums")
    right = torch_tensors.load(made.precise[0], tmp_path)
    offs = [(torch_tensors.load(o[0], tmp_path) - right).abs().max() for o in made.jittered]
    assert all(2**-11 < one < 16 * 2**-11 for one in offs) and len(offs) == 3
    for other in (row, row.half().exp()):
        made = referenced(tmp_path, lambda x: (x * 3).sum(-1), other, jitter="sums")
        assert made.jittered == (), "in f32, or short"


@pytest.mark.parametrize(
    ("shape", "norm"),
    [
        ((3, 4, 5), lambda x, w: torch.layer_norm(x, (4, 5))),
        ((3, 4, 5), lambda x, w: torch.layer_norm(x, (5,), x[0, 0], x[1, 1], 1e-2)),
        ((3, 4, 5), lambda x, w: torch.group_norm(x, 2, w, w + 1, 1e-2)),
        (
            (3, 4, 5),
            lambda x, w: torch.instance_norm(x, w, w + 1, None, None, True, 0.1, 1e-2, False),
        ),
        ((3, 4), lambda x, w: torch.group_norm(x, 4, w)),
        ((3, 4, 5), lambda x, w: torch.native_layer_norm(x, (5,), None, None, 1e-2)[0]),
        ((3, 4, 5), lambda x, w: torch.native_group_norm(x, w, None, 3, 4, 5, 2, 1e-2)[0]),
    ],
)
def test_a_norm_with_its_own_moments_is_what_torch_computes(
    shape: tuple[int, ...], norm: Callable[..., Any]
) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(shape).double(), torch.randn(shape[1]).double()
    program = torch.export.export(Function(norm), (x, w))
    assert any(node.target in norms.NORMS for node in program.graph.nodes)

    class Own(torch.fx.Interpreter):  # type: ignore[misc, name-defined]
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            found = super().call_function(target, args, kwargs)
            if target not in norms.NORMS:
                return found
            made = norms.with_moments(target, args, kwargs, own, own)
            return (made, *found[1:]) if isinstance(found, tuple) else made

    def own(values: Any) -> Any:
        return values.mean(-1, keepdim=True)

    (found,) = Own(program.graph_module).run(x, w)
    assert torch.allclose(found, norm(x, w))


def test_a_long_sum_in_f16_may_round_each_of_its_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    long = torch.randn(3, 3000).half()
    made = referenced(tmp_path, lambda x: x.sum(-1), long, jitter="values")
    right = torch_tensors.load(made.precise[0], tmp_path)
    assert torch.allclose(right, long.double().sum(-1))
    moved = [torch_tensors.load(once[0], tmp_path) - right for once in made.jittered]
    size = right.square().mean().sqrt()
    assert all(2e-3 < off.abs().max() / size < 5e-2 for off in moved) and len(moved) == 3
    balanced = torch.cat((long, -long), -1)  # nothing is left, and the partial sums were as large
    made = referenced(tmp_path, lambda x: x.sum(-1), balanced, jitter="values")
    assert all(torch_tensors.load(o[0], tmp_path).abs().max() > 0.01 for o in made.jittered)
    assert len(made.jittered) == 3
    assert referenced(tmp_path, lambda x: x.sum(-1), long.float(), jitter="values").jittered == ()
    assert referenced(tmp_path, lambda x: x.sum(-1), long[:, :99], jitter="values").jittered == ()


def test_a_factor_below_the_smallest_normal_number_may_be_zero(tmp_path: Path) -> None:
    made = referenced(tmp_path, lambda x: x * 1e-38, torch.tensor([2.0, 3.0]))
    assert torch_tensors.load(made.flushed[0], tmp_path).tolist() == [0.0, 0.0]
