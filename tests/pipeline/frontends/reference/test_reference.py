"""The reference of a traced program: its own types' limits, what reaches an output, the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from traced_functions import Function  # noqa: E402

from iree_pilot.pipeline.frontends.reference import reference  # noqa: E402
from iree_pilot.pipeline.frontends.reference.choices import Choices  # noqa: E402
from iree_pilot.pipeline.numerics import judging, noise  # noqa: E402
from iree_pilot.pipeline.numerics.noise import Noise  # noqa: E402
from iree_pilot.pipeline.numerics.pairs import Pair  # noqa: E402
from iree_pilot.pipeline.program import torch_tensors  # noqa: E402
from iree_pilot.pipeline.program.program import Jitter, Reference, TensorType  # noqa: E402

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


class Made:
    """A function's program and its reference."""

    def __init__(
        self, directory: Path, function: Callable[..., Any], *args: Any, jitter: Jitter = "none"
    ) -> None:
        self.directory, self.function, self.args = directory, function, args
        self.program = torch.export.export(Function(function), args).run_decompositions({})
        evaluate, choices = reference.graph(self.program, args, {}), Choices()
        self.traced = evaluate(None, choices)
        files = torch_tensors.TensorFiles(directory, "")
        made = Reference(outputs=files.save(self.traced.outputs, "out"))
        points = self.traced.points
        self.reference = reference.with_precise(
            made, evaluate, files, points, choices, jitter=jitter
        )

    def unlike(self) -> list[str]:
        own = reference.eager(Function(self.function), self.args, {})
        return reference.unlike(own, self.traced, self.reference, self.directory)

    def verdict(self, off: Callable[[Any], Any]) -> judging.OutputComparison:
        got = torch_tensors.save(off(self.traced.outputs[0].clone()), self.directory, "got.bin")
        pair = Pair(self.directory, got, self.directory, self.reference, 0)
        kind = TensorType(name="result0", dtype=got.dtype, shape=got.shape)
        return judging.judge(pair, kind, Noise(), self.reference)


def zeroed(values: Any) -> Any:
    values[-4:] = 0
    return values


def test_infinity_is_made_the_largest_number_of_the_programs_own_type(tmp_path: Path) -> None:
    mask = torch.full((8,), -1e9)
    made = Made(tmp_path, lambda x: torch.cat([torch.nan_to_num(x / 0), mask]), torch.ones(4))
    assert made.verdict(lambda values: values).verdict == "ok"
    found = made.verdict(zeroed)
    assert (found.verdict, found.mismatched) == ("mismatch", 4)


def test_what_no_number_of_the_type_holds_is_no_scale_for_the_others(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        return torch.cat([torch.exp(x * 100), x])  # infinite in f32, 1e130 in f64

    made = Made(tmp_path, function, torch.tensor([3.0, 1.0, 2.0, 1.0]))
    assert made.verdict(lambda values: values).verdict == "ok"
    assert made.verdict(zeroed).verdict == "mismatch"


def test_numbers_whose_squares_overflow_are_not_compared(tmp_path: Path) -> None:
    x = torch.tensor([1e200, 3e200], dtype=torch.float64)
    found = Made(tmp_path, lambda x: x * 2, x).verdict(lambda values: values * 0.5)
    assert (found.verdict, "squares" in found.why) == ("not-compared", True)


def test_a_large_element_with_its_own_error_does_not_hide_the_others(tmp_path: Path) -> None:
    made = Made(tmp_path, lambda x: torch.exp(x * 1.7), torch.tensor([20.1237, 3.0, 2.0, 1, 0.5]))
    assert made.verdict(lambda values: values).verdict == "ok"
    assert made.verdict(zeroed).verdict == "mismatch"


def test_an_output_has_the_noise_of_what_it_is_computed_from(tmp_path: Path) -> None:
    def function(x: Any, half: Any) -> Any:
        return x * 2, half + half, (x.half() + half).float(), x.to(torch.int32)

    x, half = torch.randn(4), torch.randn(4).half()
    made = Made(tmp_path, function, x, half)
    assert reference.reached(made.program) == (("f32",), ("f16",), ("f16", "f32"), ("f32",))
    program = Noise(computes="f16", quantizes="f8E4M3FN")
    assert noise.of_output(program, [("f32",)], []) == Noise(computes="f32")
    assert noise.of_output(program, [("f16", "f32")], []) == Noise(computes="f16")
    assert noise.of_output(program, [("f32", "f8E4M3FN")], []) == Noise(
        computes="f32", quantizes="f8E4M3FN"
    )
    assert noise.of_output(program, [], []) == program, "nothing is known of it"
    assert noise.of_output(program, [("f32",)], ["bf16"]).computes == "bf16"


def test_sizes_that_depend_on_values_need_not_be_the_same_twice(tmp_path: Path) -> None:
    """What roundings make of them is then no reference for the others."""

    def function(x: Any) -> Any:
        y = (x * 1.1).softmax(0).sum() - 1  # of roundings alone
        return x[(x * 1e8 * y > 0.3) | (x > 0.9)], x + 1

    made = Made(tmp_path, function, torch.linspace(-1, 1, 32), jitter="values")
    shapes = {tensors[0].shape for tensors in made.reference.jittered}
    assert shapes <= {made.reference.precise[0].shape}


def test_a_program_that_is_not_the_model_is_told(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        factor = 2 if torch.compiler.is_exporting() else 3
        return x * factor, (x * 10 * factor).round().to(torch.int32), x + 1

    one, other, right = Made(tmp_path, function, torch.randn(64)).unlike()
    assert one.startswith(f"{reference.NOT_THE_MODEL} 0.")
    assert other.startswith(reference.NOT_THE_MODEL)
    assert right == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_roundings_do_not_make_it_another(tmp_path: Path, dtype: Any) -> None:
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval().to(dtype)
    x = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        assert Made(tmp_path, lambda x: (layer(x), x.argmax(-1)), x).unlike() == ["", ""]
