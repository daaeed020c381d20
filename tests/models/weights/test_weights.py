"""A zoo model takes weights from safetensors, .irpa and GGUF files: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake.archives import write_gguf
from iree.turbine import aot
from safetensors.torch import save_file
from torch import nn

from iree_pilot.models.spec import resolve
from iree_pilot.models.weights import reasons
from iree_pilot.models.weights.checkpoints import CheckpointTensor
from iree_pilot.models.weights.load import replace
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.program.archive import ArchiveEntry

State = dict[str, torch.Tensor]


def model() -> nn.Module:
    return resolve("vit", {}).build(seed=0).root


def others() -> State:
    return resolve("vit", {}).build(seed=1).root.state_dict()


def safetensors(path: Path, state: State) -> Path:
    save_file(state, path / "w.safetensors")
    return path / "w.safetensors"


def irpa(path: Path, state: State) -> Path:
    builder = aot.ParameterArchiveBuilder()
    for name, value in state.items():
        builder.add_tensor(name, value)
    builder.save(path / "w.irpa")
    return path / "w.irpa"


def gguf(path: Path, state: State) -> Path:
    types = {name: ("f32", tuple(value.shape)) for name, value in state.items()}
    file = write_gguf(path / "w.gguf", types)
    raw = [value.contiguous().numpy().tobytes() for value in state.values()]
    data = b"".join(r + bytes(-len(r) % 32) for r in raw)
    header = file.read_bytes()[: -len(data)]
    file.write_bytes(header + data)
    return file


def shards(path: Path, state: State) -> Path:
    root: Any = model()
    root.load_state_dict(state)
    root.save_pretrained(path / "shards", max_shard_size="50KB", save_original_format=False)
    return path / "shards"


@pytest.mark.parametrize("write", [safetensors, irpa, gguf, shards])
def test_every_format_gives_the_model_its_weights(
    write: Callable[[Path, State], Path], tmp_path: Path
) -> None:
    root, state = model(), others()
    replace(root, (str(write(tmp_path, state)),), "vit")
    for name, value in root.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("write", [safetensors, irpa, gguf])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "expected 10xf32, found nothing"),
        (torch.ones(9), "classifier.bias"),
        (torch.full((10,), torch.inf), "expected finite numbers, found 10 NaN or infinite"),
    ],
)
def test_what_does_not_fit_leaves_the_model_as_it_was(
    write: Callable[[Path, State], Path],
    value: torch.Tensor | None,
    told: str,
    tmp_path: Path,
) -> None:
    root, state = model(), others()
    state.pop("classifier.bias")
    if value is not None:
        state["classifier.bias"] = value
    with pytest.raises(UsageError) as refused:
        replace(root, (str(write(tmp_path, state)),), "vit")
    assert "does not fit vit" in refused.value.message
    assert told in refused.value.message
    assert all(torch.equal(v, model().state_dict()[n]) for n, v in root.state_dict().items())


def test_names_of_llama_cpp_in_a_model_of_ones_own_are_told_as_such(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "w.gguf", {"blk.0.attn_q.weight": ("f32", (64, 64))})
    with pytest.raises(UsageError) as refused:
        replace(nn.Linear(64, 64), (str(file),), "model.py")
    assert "the file has llama.cpp's names, not those of transformers" in refused.value.message
    assert "from_pretrained(DIRECTORY, gguf_file=FILE)" in refused.value.message


def test_a_quantised_tensor_is_named_with_its_type_and_what_to_do(tmp_path: Path) -> None:
    root = resolve("llama", {}).build().root
    file = write_gguf(tmp_path / "w.gguf", {"model.embed_tokens.weight": ("Q4_K", (256, 64))})
    with pytest.raises(UsageError) as refused:
        replace(root, (str(file),), "llama")
    told = "embed_tokens.weight: expected 256x64xf32, found 256x64xggml-Q4_K (quantised, which no"
    assert told in refused.value.message
    assert "save_pretrained(NEW)" in refused.value.message


QWEN = {"vision_config": {"num_heads": 4, "hidden_size": 64}, "num_attention_heads": 8}


def entry(*shape: int, dtype: str = "f32") -> ArchiveEntry:
    return ArchiveEntry(dtype=dtype, shape=shape)


def load(wanted: list[str], held: list[str], **config: Any) -> reasons.Load:
    return reasons.Load(
        what="Model",
        where="checkpoint",
        wanted={name: entry(1) for name in wanted},
        tensors={name: CheckpointTensor(file="f", name=name, entry=entry(1)) for name in held},
        said=reasons.CheckpointConfig(values=config, remade=remade),
    )


def remade(path: tuple[str, ...], value: int) -> dict[str, ArchiveEntry]:
    shapes = {("vocab_size",): (value, 64), ("text_config", "hidden_size"): (256, value)}
    return {"embed": entry(*shapes[path])} if path in shapes else {}


class TestReasons:
    def test_a_fused_weight_that_the_model_has_names_the_fields_that_disagree(self) -> None:
        name = "model.visual.blocks.0.attn.qkv.weight"
        why = reasons.shape(name, (192, 64), (96, 64), load([name], [name], **QWEN))
        assert "fused QKV of length 96, but (heads + 2*kv_heads) * head_dim = 192:" in why
        assert "num_attention_heads=4, num_key_value_heads=4 or head_dim=16 disagrees" in why

    def test_a_model_with_a_vision_tower_says_that_the_checkpoint_is_text_only(self) -> None:
        tower, text = "model.vision_tower.layers.0.fc.weight", "model.language_model.norm.weight"
        why = reasons.missing(tower, load([tower, text], [text]))
        assert why == "the checkpoint holds the text part only, Model has a vision tower"

    def test_a_vision_model_says_that_a_layer_is_of_the_text_model(self) -> None:
        tower, text = "vision_model.encoder.fc.weight", "language_model.norm.weight"
        assert "a text layer, but Model is a vision model only" in reasons.superfluous(
            text, entry(1), load([tower], [tower, text])
        )

    def test_a_cache_in_fp8_and_scales_of_layers_that_are_not(self) -> None:
        nothing = load([], [])
        assert "KV cache in FP8" in reasons.superfluous("l.0.attn.k_scale", entry(1), nothing)
        assert "not in FP8" in reasons.superfluous("l.0.q_proj.weight_scale", entry(1), nothing)

    def test_the_field_of_a_size_is_named(self) -> None:
        config = {"context": 256, "vocab_size": 256, "more": 256}
        why = reasons.shape("embed", (256, 64), (260, 64), load([], [], **config))
        assert why == "the config says vocab_size=256"

    def test_one_of_a_part_is_named_too(self) -> None:
        config = {"text_config": {"heads": 64, "hidden_size": 64}}
        why = reasons.shape("embed", (256, 64), (256, 32), load([], [], **config))
        assert why == "the config says hidden_size=64"

    def test_an_equal_number_alone_is_no_reason(self) -> None:
        assert reasons.shape("embed", (256, 64), (260, 64), load([], [], context=256)) == ""
