"""GGUF files as llama.cpp writes them give a transformers model the weights that they were made of.

The files are written with the package gguf: its table of names, its quantisation.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from fake.archives import write_gguf
from numpy.typing import NDArray

from iree_pilot.models.spec import resolve
from iree_pilot.models.weights.load import referenced, replace
from iree_pilot.pipeline import extras
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError

Arrays = dict[str, NDArray[Any]]
F32, F16 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16
Q8_0 = gguf.GGMLQuantizationType.Q8_0
YARN = gguf.RopeScalingType.YARN
Q = "blk.0.attn_q.weight"


def model(name: str, seed: int = 0) -> Any:
    if name != "qwen2":
        return resolve(name, {}).build(seed=seed).root
    config = transformers.Qwen2Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
    )
    torch.manual_seed(seed)
    return transformers.Qwen2ForCausalLM(config).requires_grad_(False)


def as_llama_cpp(root: Any, architecture: str) -> Arrays:
    """The tensors that llama.cpp's converter makes of a model."""
    kind = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture)
    config = root.config
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    arrays = {}
    for name, tensor in root.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        value = tensor.float().numpy()
        part = name.split("_proj.")[0][-1]
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            # Each head's halves become pairs.
            halves = value.reshape(heads[part], 2, -1, value.shape[1])
            value = halves.swapaxes(1, 2).reshape(value.shape)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            value = value + 1
        arrays[names.get_name(name, try_suffixes=(".weight", ".bias"))] = value
    return arrays


def write(
    path: Path,
    architecture: str,
    arrays: Mapping[str, NDArray[Any]],
    types: Mapping[str, gguf.GGMLQuantizationType] | None = None,
    heads: int = 4,
    header: Callable[[gguf.GGUFWriter], object] = lambda writer: None,
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_head_count(heads)
    header(writer)
    for name, array in arrays.items():
        kind = (types or {}).get(name, F32)
        packed = gguf.quants.quantize(np.ascontiguousarray(array), kind)
        writer.add_tensor(name, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "qwen2"])
def test_a_model_gets_the_weights_that_the_file_was_made_of(name: str, tmp_path: Path) -> None:
    saved, root = model(name, seed=1), model(name)
    file = write(tmp_path / "w.gguf", name, as_llama_cpp(saved, name))
    replace(root, (str(file),), name)
    state = saved.state_dict()
    for key, value in root.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=1e-6, atol=1e-6, msg=key)
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        torch.testing.assert_close(root(tokens).logits, saved(tokens).logits)


def test_packed_and_half_tensors_are_the_numbers_that_they_stand_for(tmp_path: Path) -> None:
    saved, root = model("llama", seed=1), model("llama")
    types = {"blk.1.ffn_up.weight": Q8_0, "blk.1.ffn_gate.weight": F16}
    file = write(tmp_path / "w.gguf", "llama", as_llama_cpp(saved, "llama"), types)
    replace(root, (str(file),), "llama")
    (old, new) = (m.model.layers[1].mlp for m in (saved, root))
    up = gguf.dequantize(gguf.quants.quantize(old.up_proj.weight.numpy(), Q8_0), Q8_0)
    assert torch.equal(new.up_proj.weight, torch.tensor(up))
    assert 0 < (new.up_proj.weight - old.up_proj.weight).abs().max() < 0.01
    assert torch.equal(new.gate_proj.weight, old.gate_proj.weight.half().float())


def test_a_model_of_full_size_has_values_made_when_they_are_wanted(tmp_path: Path) -> None:
    saved = model("llama", seed=1)
    config = saved.config
    sizes = {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "hidden": config.intermediate_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "vocabulary": config.vocab_size,
        "context": config.max_position_embeddings,
    }
    file = write(tmp_path / "w.gguf", "llama", as_llama_cpp(saved, "llama"))
    made = resolve("llama:8b", {k: str(v) for k, v in sizes.items()} | {"length": "8"}).build()
    taken = referenced(made, (str(file),), "llama:8b")
    assert not taken.stored
    dtype = made.root.get_parameter("lm_head.weight").dtype
    for name, value in saved.state_dict().items():
        assert torch.equal(taken.made[name](), value.to(dtype)), name


def told(root: Any, file: Path, name: str = "llama") -> str:
    before = {k: v.clone() for k, v in root.state_dict().items()}
    with pytest.raises(UsageError) as refused:
        replace(root, (str(file),), name)
    assert all(torch.equal(v, before[k]) for k, v in root.state_dict().items())
    return str(refused.value)


def test_missing_odd_and_superfluous_tensors_are_told_by_their_names(tmp_path: Path) -> None:
    arrays = as_llama_cpp(model("llama"), "llama")
    arrays[Q] = arrays[Q][:32]
    arrays["blk.2.attn_q.weight"] = arrays["blk.1.attn_q.weight"]
    del arrays["blk.1.ffn_down.weight"]
    message = told(model("llama"), write(tmp_path / "w.gguf", "llama", arrays))
    assert "3 tensors of" in message
    assert f"w.gguf: {Q}: expected 64x64xf32, found 32x64xf32" in message
    lost = "  model.layers.1.mlp.down_proj.weight: expected 64x128xf32, found nothing"
    assert lost in message.splitlines()[2]
    extra = "w.gguf: blk.2.attn_q.weight: expected nothing, found 64x64xf32"
    assert f"{extra} (llama.cpp's name of a tensor that llama does not have)" in message


def test_numbers_that_are_none_are_told_and_nothing_is_loaded(tmp_path: Path) -> None:
    arrays = as_llama_cpp(model("llama"), "llama")
    arrays["output_norm.weight"] = np.full_like(arrays["output_norm.weight"], np.nan)
    message = told(model("llama"), write(tmp_path / "w.gguf", "llama", arrays))
    assert "w.gguf: output_norm.weight: expected finite numbers, found NaN" in message


@pytest.mark.parametrize(
    ("name", "architecture", "expected"),
    [
        ("llama", "gemma2", "expected llama for llama (llama), found gemma2"),
        ("gemma", "gemma", "expected none that is known for gemma (gemma), found gemma"),
    ],
)
def test_a_file_of_another_architecture_is_refused(
    name: str, architecture: str, expected: str, tmp_path: Path
) -> None:
    arrays = {"token_embd.weight": np.zeros((256, 64), np.float32)}
    message = told(model(name), write(tmp_path / "w.gguf", architecture, arrays), name)
    assert f"w.gguf: general.architecture: {expected}" in message


def test_another_count_of_heads_is_told_though_all_shapes_fit(tmp_path: Path) -> None:
    arrays = as_llama_cpp(model("llama"), "llama")
    message = told(model("llama"), write(tmp_path / "w.gguf", "llama", arrays, heads=8))
    assert "w.gguf: llama.attention.head_count: expected 4, found 8" in message


class TestHeader:
    """Hyper-parameters that no tensor's shape shows."""

    def logits(self, root: Any) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = root(torch.arange(6)[None]).logits
        return found

    def other(self, **changes: Any) -> Any:
        """A Llama with weights, and hyper-parameters, of its own."""
        config = transformers.LlamaConfig(**{**model("llama").config.to_dict(), **changes})
        torch.manual_seed(1)
        return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)

    def test_the_files_rope_base_and_norm_epsilon_are_used(self, tmp_path: Path) -> None:
        rope = {"rope_type": "default", "rope_theta": 10000.0}
        saved = self.other(rope_parameters=rope, rms_norm_eps=1e-3)

        def header(writer: gguf.GGUFWriter) -> None:
            writer.add_rope_freq_base(10000.0)
            writer.add_layer_norm_rms_eps(1e-3)

        root = model("llama")
        arrays = as_llama_cpp(saved, "llama")
        notes = replace(
            root, (str(write(tmp_path / "w.gguf", "llama", arrays, header=header)),), "llama"
        )
        torch.testing.assert_close(self.logits(root), self.logits(saved))
        assert notes == (
            "norm epsilon 0.001 in place of 1e-05, as w.gguf says",
            "rotary frequencies of base 10000, as w.gguf says",
        )

    def test_so_are_its_factors_and_its_linear_scaling(self, tmp_path: Path) -> None:
        rope = {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
        saved = self.other(rope_parameters=rope)
        plain = model("llama").model.rotary_emb.inv_freq
        arrays = as_llama_cpp(saved, "llama")
        arrays["rope_freqs.weight"] = (plain / saved.model.rotary_emb.inv_freq).numpy()
        file = write(
            tmp_path / "w.gguf", "llama", arrays, header=lambda w: w.add_rope_freq_base(500000.0)
        )
        root = model("llama")
        (note,) = replace(root, (str(file),), "llama")
        assert note.startswith("rotary frequencies of base 500000 and by rope_freqs.weight")
        torch.testing.assert_close(self.logits(root), self.logits(saved))

        def header(writer: gguf.GGUFWriter) -> None:
            writer.add_rope_freq_base(500000.0)
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(4.0)

        root = model("llama")
        file = write(tmp_path / "s.gguf", "llama", as_llama_cpp(saved, "llama"), header=header)
        replace(root, (str(file),), "llama")
        torch.testing.assert_close(root.model.rotary_emb.inv_freq, plain / 4)

    def test_of_gemma3_the_layers_with_a_window_have_their_own(self, tmp_path: Path) -> None:
        def header(writer: gguf.GGUFWriter) -> None:
            writer.add_rope_freq_base(1e6)
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(8.0)

        saved, root = model("gemma3", seed=1), model("gemma3")
        file = write(tmp_path / "w.gguf", "gemma3", as_llama_cpp(saved, "gemma3"), header=header)
        assert replace(root, (str(file),), "gemma3") == (), "all of it is so already"
        torch.testing.assert_close(self.logits(root), self.logits(saved))

    def test_a_model_without_values_gets_them_too(self, tmp_path: Path) -> None:
        saved = model("llama", seed=1)
        made = resolve("llama", {"layers": "2"}).build(0)
        file = write(
            tmp_path / "w.gguf",
            "llama",
            as_llama_cpp(saved, "llama"),
            header=lambda writer: writer.add_rope_freq_base(10000.0),
        )
        taken = referenced(made, (str(file),), "llama")
        assert "rotary frequencies of base 10000, as w.gguf says" in taken.notes

    @pytest.mark.parametrize(
        ("name", "header", "message"),
        [
            (
                "llama",
                lambda w: (w.add_rope_freq_base(1e4), w.add_rope_scaling_type(YARN)),
                "llama.rope.scaling.type: expected none or linear, found yarn",
            ),
            (
                "llama",
                lambda w: (w.add_rope_freq_base(1e4), w.add_rope_dimension_count(8)),
                "llama.rope.dimension_count: expected 16, found 8",
            ),
            (
                "llama",
                lambda w: w.add_context_length(8),
                "llama.context_length: expected 128 or more, found 8",
            ),
            (
                "llama",
                lambda w: w.add_sliding_window(4),
                "llama.attention.sliding_window: expected none, found 4",
            ),
            (
                "llama",
                lambda w: w.add_head_count_kv([2, 1]),
                "llama.attention.head_count_kv: expected 2, found [2, 1]",
            ),
            (
                "llama",
                lambda w: w.add_expert_count(8),
                "llama.expert_count: expected none, found 8",
            ),
            (
                "gemma2",
                lambda w: w.add_final_logit_softcapping(20.0),
                "gemma2.final_logit_softcapping: expected 2.0, found 20.0",
            ),
        ],
    )
    def test_what_the_model_cannot_have_is_refused(
        self, name: str, header: Any, message: str, tmp_path: Path
    ) -> None:
        arrays = as_llama_cpp(model(name), name)
        file = write(tmp_path / "w.gguf", name, arrays, header=header)
        assert message in told(model(name), file, name)


class TestTied:
    """A head that is the embedding."""

    def test_a_file_without_a_head_gives_its_embedding(self, tmp_path: Path) -> None:
        saved, root = model("llama", seed=1), model("llama")
        arrays = as_llama_cpp(saved, "llama")
        del arrays["output.weight"]
        replace(root, (str(write(tmp_path / "w.gguf", "llama", arrays)),), "llama")
        assert torch.equal(root.lm_head.weight, saved.model.embed_tokens.weight)
        assert torch.equal(root.model.embed_tokens.weight, saved.model.embed_tokens.weight)

    def test_a_head_of_its_own_is_refused_where_the_model_has_none(self, tmp_path: Path) -> None:
        arrays = as_llama_cpp(model("gemma2"), "gemma2")
        arrays["output.weight"] = arrays["token_embd.weight"] + 1
        message = told(model("gemma2"), write(tmp_path / "w.gguf", "gemma2", arrays), "gemma2")
        assert "w.gguf: output.weight: expected token_embd.weight, found other numbers" in message


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    arrays = as_llama_cpp(model("llama"), "llama")
    file = write(tmp_path / "w.gguf", "llama", arrays, {list(arrays)[-1]: Q8_0})
    file.write_bytes(file.read_bytes()[:-4000])
    assert str(file) in told(model("llama"), file)


def test_without_the_package_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tmp_path / "w.gguf", {Q: ("Q4_K", (64, 64))})
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "gguf" else find(n, *a)
    )
    with pytest.raises(EnvironmentFault) as refused:
        replace(model("llama"), (str(file),), "llama")
    assert f"w.gguf: {Q}: 64x64xggml-Q4_K by llama.cpp: reading it needs" in refused.value.message
    assert refused.value.advice == extras.install("gguf")
