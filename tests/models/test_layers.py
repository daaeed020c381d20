"""Single layers and small blocks of the zoo give transformers' numbers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaModel,
    MambaModel,
    MixtralConfig,
    WhisperModel,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from iree_pilot.models.fp8 import FP8Linear
from iree_pilot.models.spec import resolve
from iree_pilot.models.traceable import Traceable
from iree_pilot.pipeline.errors import UsageError


def build(text: str, **settings: str) -> Traceable:
    return resolve(text, settings).build()


@torch.no_grad()
def outputs(traceable: Traceable) -> tuple[torch.Tensor, ...]:
    (main,) = traceable.functions
    return main.module(*main.args)


class TestNumbers:
    @pytest.mark.parametrize("preset", ["tiny", "mha", "mqa", "sdpa"])
    def test_attention_is_that_inside_an_untouched_llama(self, preset: str) -> None:
        traceable = build(f"attention:{preset}", batch="2")
        fields = resolve(f"attention:{preset}", {}).fields
        llama = LlamaModel(
            LlamaConfig(
                num_hidden_layers=1,
                hidden_size=64,
                intermediate_size=8,
                vocab_size=8,
                num_attention_heads=4,
                num_key_value_heads=fields["kv_heads"],
                attn_implementation="eager",
            )
        ).eval()
        layer: Any = llama.layers[0]
        layer.self_attn.load_state_dict(traceable.root.state_dict())
        seen: list[torch.Tensor] = []
        layer.input_layernorm.register_forward_hook(lambda *_: traceable.functions[0].args[0])
        layer.self_attn.register_forward_hook(lambda *call: seen.append(call[2][0]))
        with torch.no_grad():
            llama(inputs_embeds=traceable.functions[0].args[0])
        torch.testing.assert_close(outputs(traceable)[0], seen[0], rtol=1e-5, atol=1e-6)

    def test_rotary_embedding_turns_pairs_by_their_positions_angle(self) -> None:
        traceable = build("rope", batch="2")
        queries, keys, positions = traceable.functions[0].args
        angles = positions[:, None, :, None] / 10000.0 ** (torch.arange(0, 16, 2) / 16)

        def turned(x: torch.Tensor) -> torch.Tensor:
            z = torch.complex(x[..., :8], x[..., 8:]) * torch.polar(torch.ones(()), angles)
            return torch.cat([z.real, z.imag], -1)

        for found, given in zip(outputs(traceable), (queries, keys), strict=True):
            torch.testing.assert_close(found, turned(given), rtol=1e-4, atol=1e-5)

    def test_rms_norm_is_transformers_own(self) -> None:
        traceable = build("rms-norm")
        norm = LlamaRMSNorm(64)
        norm.load_state_dict(traceable.root.state_dict())
        assert torch.equal(outputs(traceable)[0], norm(traceable.functions[0].args[0]))

    @pytest.mark.parametrize("fp8", ["e4m3fn", "e4m3fnuz"])
    def test_an_fp8_linear_is_near_the_linear_of_its_real_weights(self, fp8: str) -> None:
        traceable = build("fp8-linear", fp8=fp8)
        layer = traceable.root
        assert isinstance(layer, FP8Linear)
        real = layer.weight.float() * layer.weight_scale
        expected = traceable.functions[0].args[0] @ real.t()
        error = (outputs(traceable)[0] - expected).norm() / expected.norm()
        assert 0 < error < 0.04

    def test_the_encoder_is_that_of_an_untouched_whisper(self) -> None:
        traceable = build("whisper-encoder")
        model: Any = traceable.root
        config = copy.deepcopy(model.config)
        config.decoder_layers, config.decoder_attention_heads = 1, 4
        whisper = WhisperModel(config).eval()
        whisper.encoder.load_state_dict(model.state_dict())
        with torch.no_grad():
            expected = whisper.encoder(traceable.functions[0].args[0]).last_hidden_state
        assert torch.equal(outputs(traceable)[0], expected)

    def test_gathered_experts_give_what_transformers_loop_over_experts_gives(self) -> None:
        traceable = build("mixtral-moe", batch="2")
        config = MixtralConfig(
            hidden_size=32,
            intermediate_size=64,
            num_local_experts=4,
            num_experts_per_tok=2,
            experts_implementation="eager",
        )
        block = MixtralSparseMoeBlock(config).eval()
        block.load_state_dict(traceable.root.state_dict())
        with torch.no_grad():
            expected = block(traceable.functions[0].args[0])
        torch.testing.assert_close(outputs(traceable)[0], expected, rtol=1e-5, atol=1e-6)

    def test_every_expert_is_used(self) -> None:
        traceable = build("mixtral-moe")
        block: Any = traceable.root
        _, _, chosen = block.gate(traceable.functions[0].args[0])
        assert set(chosen.flatten().tolist()) == {0, 1, 2, 3}

    def test_mamba_is_transformers_own_and_its_state_reaches_the_last_token(self) -> None:
        traceable = build("mamba")
        model: Any = traceable.root
        untouched = MambaModel(model.config).eval()
        untouched.load_state_dict(model.state_dict())
        (tokens,) = traceable.functions[0].args
        with torch.no_grad():
            expected = untouched(input_ids=tokens).last_hidden_state
            other = tokens.clone()
            other[0, 0] = (other[0, 0] + 1) % 256
            changed = untouched(input_ids=other).last_hidden_state
        assert torch.equal(outputs(traceable)[0], expected)
        # Two layers' convolutions reach six tokens back; from the first to the eighth, the state.
        assert not torch.equal(changed[0, -1], expected[0, -1])

    def test_attention_is_traced_for_lengths_other_than_the_examples(self) -> None:
        (main,) = build("attention", dynamic="true").functions
        exported = torch.export.export(main.module, main.args, dynamic_shapes=main.dynamic_shapes)
        longer = build("attention", length="33").functions[0].args
        with torch.no_grad():
            expected = main.module(*longer)
            torch.testing.assert_close(exported.module()(*longer), expected)


@pytest.mark.parametrize(
    ("text", "settings", "reason"),
    [
        ("attention", {"heads": "3"}, "width=64 is no even multiple of heads=3"),
        ("attention", {"kv_heads": "3"}, "heads=4 is no multiple of kv_heads=3"),
        ("attention", {"length": "129"}, "length=129 does not fit context=128"),
        ("attention", {"length": "1", "dynamic": "true"}, "length 2 or more"),
        ("rope", {"head": "15"}, "head=15 is odd"),
        ("rope", {"length": "129"}, "length=129 does not fit context=128"),
        ("whisper-encoder", {"heads": "5"}, "width=64 is no multiple of heads=5"),
        ("whisper-encoder", {"width": "65", "heads": "5"}, "width=65 is odd"),
        ("mixtral-moe", {"chosen": "5"}, "chosen=5 is more than experts=4"),
    ],
)
def test_values_that_do_not_go_together_are_told(
    text: str, settings: dict[str, str], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        resolve(text, settings)
