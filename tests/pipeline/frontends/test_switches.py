"""Switches of transformers' models, as `--set` takes them."""

from __future__ import annotations

from typing import Any

import pytest

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import switches


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attn_implementation": "flash"}, "it is none of eager, sdpa"),
        ({"use_cache": "False"}, "it is none of false, true"),
        ({"data_dependent": "examples"}, "it is none of example"),
    ],
)
def test_others_are_refused_before_the_source_is_run(settings: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        switches.check(settings)
    assert said in refused.value.message
    assert refused.value.advice


def test_the_line_to_write() -> None:
    assert switches.line("attn_implementation", "eager") == (
        'model.set_attn_implementation("eager")'
    )
    assert switches.line("use_cache", "false") == "model.config.use_cache = False"


@pytest.fixture(scope="module")
def mixtral() -> Any:
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
    )
    return MixtralForCausalLM(config).eval()


@pytest.mark.real
class TestModels:
    def test_each_is_set_and_computes_the_same(self, mixtral: Any) -> None:
        import torch

        class Wrapped(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = mixtral

            def forward(self, ids: Any) -> Any:
                return self.inner(ids).logits

        model, ids = Wrapped(), torch.arange(6)[None]
        with torch.no_grad():
            before = model(ids)
            held = switches.held(model)
            assert held["use_cache"] == "true"
            for name, switch in switches.SWITCHES.items():
                for value in switch.values:
                    switches.apply(model, {name: value}, "net.py")
                    assert switches.held(model)[name] == value
                    assert torch.allclose(before, model(ids), atol=1e-5)
            switches.apply(model, held, "net.py")

    def test_a_model_without_it_says_what_it_has(self) -> None:
        import torch
        import transformers  # noqa: F401 - else nothing has switches

        with pytest.raises(UsageError, match="has no switch use_cache"):
            switches.apply(torch.nn.Linear(2, 2), {"use_cache": "false"}, "net.py")
