"""What every model of the zoo promises: transformers' numbers, weights that matter, seeds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from iree_pilot.models.spec import registry, resolve
from iree_pilot.models.traceable import Traceable

MODELS = list(registry())
PRESETS = [f"{s.name}:{p.name}" for s in registry().values() for p in s.presets]
SMALL_ENOUGH = [f"{s.name}:{p.name}" for s in registry().values() for p in s.presets if p.weights]


def build(text: str, seed: int = 0, **settings: str) -> Traceable:
    return resolve(text, settings).build(seed)


def outputs(traceable: Traceable) -> dict[str, tuple[torch.Tensor, ...]]:
    with torch.no_grad():
        return {f.name: f.module(*f.args) for f in traceable.functions}


def same(one: Traceable, other: Traceable) -> bool:
    left, right = one.root.state_dict(), other.root.state_dict()
    weights = all(torch.equal(left[n].float(), right[n].float()) for n in left)
    pairs = zip(one.functions, other.functions, strict=True)
    return weights and all(torch.equal(a.args[0], b.args[0]) for a, b in pairs)


@pytest.mark.parametrize("text", PRESETS)
def test_a_preset_has_the_parameters_that_it_says(text: str) -> None:
    choice = resolve(text, {})
    found = sum(p.numel() for p in choice.build().root.parameters())
    assert found == choice.preset.parameters


@pytest.mark.parametrize("text", SMALL_ENOUGH)
def test_outputs_are_named_and_neither_constant_nor_broken(text: str) -> None:
    traceable = build(text)
    for function in traceable.functions:
        values = outputs(traceable)[function.name]
        assert len(values) == len(function.output_names)
        assert len(function.args) == len(function.input_names)
        for value in values:
            assert torch.isfinite(value).all()
            assert value.std() > 0


@pytest.mark.parametrize("name", MODELS)
def test_no_weight_has_a_value_that_hides_its_own_absence(name: str) -> None:
    for key, tensor in build(name).root.state_dict().items():
        if tensor.numel() > 1:
            assert tensor.float().flatten().unique().numel() > 1, f"{key} is constant"


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_decides_weights_and_inputs_and_nothing_else_does(name: str) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = build(name, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(456)
    assert same(first, build(name, seed=7))
    assert not same(first, build(name, seed=8))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_a_dtype_is_that_of_the_weights_and_the_results(name: str, dtype: str) -> None:
    wanted = {"f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    traceable = resolve(name, {}, dtype).build()
    floats = {t.dtype for t in traceable.root.parameters() if t.dtype.itemsize > 1}
    assert floats <= {wanted}
    assert {v.dtype for values in outputs(traceable).values() for v in values} == {wanted}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet", "ResNetForImageClassification"),
        ("vit", "ViTForImageClassification"),
        ("bert", "BertForMaskedLM"),
    ],
)
def test_a_classifier_gives_what_transformers_itself_gives(name: str, kind: str) -> None:
    traceable = build(f"{name}:small")
    model: Any = traceable.root
    untouched = getattr(transformers, kind)(model.config).eval()
    untouched.load_state_dict(model.state_dict())
    (main,) = traceable.functions
    with torch.no_grad():
        expected = untouched(**dict(zip(main.input_names, main.args, strict=True))).logits
    assert torch.equal(outputs(traceable)["main"][0], expected)


def test_berts_mask_is_what_transformers_makes_of_a_padding_mask() -> None:
    traceable = build("bert")
    tokens, types, mask = traceable.functions[0].args
    kept = (mask[:, 0, 0] == 0).long()
    assert kept.sum(-1).tolist() == [16, 13]
    with torch.no_grad():
        expected = traceable.root(
            input_ids=tokens, token_type_ids=types, attention_mask=kept
        ).logits
    torch.testing.assert_close(outputs(traceable)["main"][0], expected, rtol=1e-5, atol=1e-6)


def test_a_dynamic_length_is_traced_for_lengths_other_than_the_examples() -> None:
    (main,) = build("bert", dynamic="true").functions
    exported = torch.export.export(main.module, main.args, dynamic_shapes=main.dynamic_shapes)
    longer = build("bert", length="40").functions[0].args
    with torch.no_grad():
        expected = main.module(*longer)
        torch.testing.assert_close(exported.module()(*longer), expected, rtol=1e-5, atol=1e-6)
