"""Models of transformers that take or return key-value caches become programs of tensors."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


@pytest.fixture(autouse=True)
def _registered() -> None:
    from iree_pilot.pipeline.frontends.pytorch import caches

    caches.register()
    caches.register()


def decoder() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    size = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 32, "n_positions": 32}
    return GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).eval()


def names(model: Any, **inputs: Any) -> tuple[list[str], Any]:
    """Paths of the outputs of the exported model, and the program."""
    import torch

    from iree_pilot.models.traceable import EntryFunction
    from iree_pilot.pipeline.frontends.pytorch import exporting, output_paths

    entry = EntryFunction(name="main", module=model, args=(), kwargs=inputs, strict=None)
    program = exporting.export(entry).program
    assert isinstance(program, torch.export.ExportedProgram)
    return output_paths.paths(program.call_spec.out_spec), program


def test_a_returned_cache_is_its_keys_and_values() -> None:
    import torch

    found, program = names(decoder(), input_ids=torch.arange(6)[None])
    assert found == ["logits", "past_key_values.key_cache[0]", "past_key_values.value_cache[0]"]
    own = decoder()(input_ids=torch.arange(6)[None])
    again = program.module()(input_ids=torch.arange(6)[None])
    assert torch.equal(own.past_key_values.layers[0].keys, again.past_key_values.layers[0].keys)


def test_a_step_goes_on_from_the_cache_that_it_is_given() -> None:
    import torch
    from transformers import DynamicCache

    def filled() -> DynamicCache:
        cache = DynamicCache()
        torch.manual_seed(1)
        cache.update(torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8), 0)
        return cache

    token = torch.tensor([[3]])
    _, program = names(decoder(), input_ids=token, past_key_values=filled())
    own = decoder()(input_ids=token, past_key_values=filled())
    again = program.module()(input_ids=token, past_key_values=filled())
    assert own.past_key_values.layers[0].keys.shape == (1, 2, 6, 8)
    torch.testing.assert_close(again.logits, own.logits)
    torch.testing.assert_close(
        again.past_key_values.layers[0].keys, own.past_key_values.layers[0].keys
    )


def test_caches_of_an_encoder_and_decoder() -> None:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    size = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(**size, vocab_size=32)).eval()
    ids = torch.arange(4)[None]
    found, _ = names(model, input_ids=ids, decoder_input_ids=ids)
    assert [name for name in found if "cache" in name] == [
        f"past_key_values.{side}_attention_cache.{part}_cache[0]"
        for side in ("self", "cross")
        for part in ("key", "value")
    ]


def test_a_sliding_window_is_kept() -> None:
    import torch
    from torch.utils import _pytree as pytree
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicSlidingWindowLayer

    cache = DynamicCache()
    cache.layers.append(DynamicSlidingWindowLayer(4))
    cache.layers.append(DynamicSlidingWindowLayer(4))
    cache.update(torch.ones(1, 2, 3, 8), torch.ones(1, 2, 3, 8), 0)
    leaves, spec = pytree.tree_flatten(cache)
    again = pytree.tree_unflatten(leaves, spec)
    assert len(leaves) == 2, "the second layer holds nothing yet"
    assert [layer.sliding_window for layer in again.layers] == [4, 4]
    assert [layer.get_seq_length() for layer in again.layers] == [3, 0]


def test_layers_with_more_state_are_refused() -> None:
    from torch.utils import _pytree as pytree
    from transformers import DynamicCache
    from transformers.cache_utils import StaticLayer

    cache = DynamicCache()
    cache.layers.append(StaticLayer(max_cache_len=8))
    with pytest.raises(RuntimeError, match="layers of StaticLayer cannot be taken apart"):
        pytree.tree_flatten(cache)
