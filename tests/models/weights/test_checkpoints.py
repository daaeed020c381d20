"""A Hugging Face checkpoint is a source: loaded as transformers loads it, or refused with a reason.

What is refused is refused before anything is compiled, and nothing of it is loaded.
"""

from __future__ import annotations

import inspect
import json
import operator
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from driver import here, pilot, terminal
from fake import checkpoints
from places import ROOT
from safetensors.torch import load_file

from iree_pilot.models.fp8 import FP8Linear
from iree_pilot.models.spec import ModelSpec, referred, registry, resolve
from iree_pilot.models.traceable import Traceable
from iree_pilot.models.weights.checkpoints import (
    Checkpoint,
    CheckpointTensor,
    architectures,
    read,
    read_config,
)
from iree_pilot.models.weights.load import traceable
from iree_pilot.models.weights.plan import check
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.program.archive import ArchiveEntry

Q = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 4\n"


def load(directory: Path, part: str = "", **fields: Any) -> Traceable:
    return traceable(read(directory), fields, part, seed=0)


def logits(made: Traceable) -> torch.Tensor:
    entry = made.functions[0]
    with torch.no_grad():
        return entry.module(*entry.args)[0]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save("llama", tmp_path_factory.mktemp("checkpoint"))


class TestLoading:
    @pytest.mark.parametrize("model", ["llama", "vit", "bert", "resnet"])
    def test_a_checkpoint_gives_what_transformers_gives(self, model: str, tmp_path: Path) -> None:
        directory = checkpoints.save(model, tmp_path)
        made = load(directory)
        kind = getattr(transformers, read(directory).architecture)
        options = {} if model == "resnet" else {"attn_implementation": "eager"}
        untouched = kind.from_pretrained(directory, **options)
        (entry, *_) = made.functions
        names = [n.replace("tokens", "input_ids") for n in entry.input_names]
        with torch.no_grad():
            expected = untouched(**dict(zip(names, entry.args, strict=True))).logits
        assert torch.equal(logits(made), expected)
        assert expected.std() > 0

    @pytest.mark.parametrize("model", ["gemma", "gemma2", "gemma3"])
    def test_a_gemma_gives_what_transformers_gives(self, model: str, tmp_path: Path) -> None:
        made = load(checkpoints.save(model, tmp_path, gelu="fused"), gelu="fused")
        kind = getattr(transformers, read(tmp_path).architecture)
        untouched = kind.from_pretrained(tmp_path, attn_implementation="eager")
        with torch.no_grad():
            expected = untouched(made.functions[0].args[0]).logits
        torch.testing.assert_close(logits(made), expected, rtol=1e-5, atol=1e-5)
        written = logits(load(tmp_path))
        assert 0 < (written - expected).abs().max() < 1e-4

    @pytest.mark.parametrize("model", ["paligemma", "paligemma2"])
    def test_a_paligemma_gives_what_the_model_that_was_saved_gives(
        self, model: str, tmp_path: Path
    ) -> None:
        saved = resolve(model, {"gelu": "fused"}).build(seed=3)
        made = load(checkpoints.save(model, tmp_path, gelu="fused"), gelu="fused")
        assert read(tmp_path).family == model
        for ours, theirs in zip(made.functions, saved.functions, strict=True):
            with torch.no_grad():
                expected = theirs.module(*theirs.args)
                for got, want in zip(ours.module(*theirs.args), expected, strict=True):
                    torch.testing.assert_close(got, want)
                    assert want.std() > 0

    def test_a_paligemma_with_another_text_model_is_refused(self, tmp_path: Path) -> None:
        directory = checkpoints.save("paligemma", tmp_path)
        text = json.loads((directory / "config.json").read_text())["text_config"]
        checkpoints.config(directory, text_config={**text, "model_type": "llama"})
        with pytest.raises(UsageError, match=r"expected gemma or gemma2 for Pali\w+, found llama"):
            read(directory)

    @pytest.mark.parametrize("published", [False, True])
    def test_a_gemma_3_with_its_vision_tower_gives_what_transformers_gives(
        self, published: bool, tmp_path: Path
    ) -> None:
        directory = checkpoints.save("gemma3-multimodal", tmp_path, gelu="fused", layers="3")
        if published:  # with the names of the first release, which the hub has
            state = load_file(directory / checkpoints.WEIGHTS)
            tower = [name for name in state if name.startswith("vision_tower.")]
            older = {n.replace("tower.", "tower.vision_model.", 1): state[n] for n in tower}
            checkpoints.rewrite(directory, **dict.fromkeys(tower), **older)
        vision, prefill, decode = load(directory, gelu="fused").functions
        kind = transformers.Gemma3ForConditionalGeneration
        untouched: Any = kind.from_pretrained(directory, attn_implementation="eager")
        (pixels,), (tokens,) = vision.args, prefill.args
        with torch.no_grad():
            features = untouched.get_image_features(pixels).pooler_output
            assert torch.equal(vision.module(pixels)[0], features)
            first = untouched(tokens, use_cache=True)
            got, *cache = prefill.module(tokens)
            torch.testing.assert_close(got, first.logits, rtol=1e-5, atol=1e-5)
            token = decode.args[0]
            second = untouched(token, past_key_values=first.past_key_values)
            got, *_ = decode.module(token, *cache)
            torch.testing.assert_close(got, second.logits, rtol=1e-5, atol=1e-5)
        assert min(t.std() for t in (features, first.logits, second.logits)) > 0

    def test_shards_are_one_model(self, tmp_path: Path) -> None:
        whole = checkpoints.save("llama", tmp_path / "whole")
        parts = checkpoints.save("llama", tmp_path / "parts", shard="100KB")
        assert len(read(parts).files) > 2
        assert torch.equal(logits(load(parts)), logits(load(whole)))

    def test_tied_embeddings_are_one_parameter_though_stored_once(self, tmp_path: Path) -> None:
        directory = checkpoints.save("llama", tmp_path)
        checkpoints.config(directory, tie_word_embeddings=True)
        checkpoints.rewrite(directory, lm_head__weight=None)
        root: Any = load(directory).root
        assert root.lm_head.weight is root.model.embed_tokens.weight

    def test_the_config_decides_the_sizes_and_the_user_the_rest(self, tmp_path: Path) -> None:
        directory = checkpoints.save("llama", tmp_path, layers="3", kv_heads="4")
        prefill, decode = load(directory, length=5, batch=2).functions
        assert prefill.args[0].shape == (2, 5)
        assert decode.args[1].shape == (3, 2, 4, 5, 16)
        assert [f.name for f in load(directory, "decode").functions] == ["decode"]

    def test_a_dtype_that_was_asked_for_converts(self, tmp_path: Path) -> None:
        directory = checkpoints.save("vit", tmp_path)
        assert {t.dtype for t in load(directory, dtype="bf16").root.parameters()} == {
            torch.bfloat16
        }

    @pytest.mark.parametrize("said", ["float32", None])
    def test_weights_of_one_dtype_keep_it_whatever_the_config_says(
        self, said: str | None, good: Path, tmp_path: Path
    ) -> None:
        for file in good.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        checkpoints.config(tmp_path, dtype=said, torch_dtype=None)
        state = load_file(tmp_path / checkpoints.WEIGHTS)
        checkpoints.rewrite(
            tmp_path, **{n.replace(".", "__"): t.bfloat16() for n, t in state.items()}
        )
        made = load(tmp_path)
        assert logits(made).dtype == torch.bfloat16
        assert len(made.stored) == len(state), "they are used from the file"
        assert logits(load(tmp_path, dtype="f32")).dtype == torch.float32

    def test_a_dtype_with_less_range_than_the_weights_is_refused(self, tmp_path: Path) -> None:
        directory = checkpoints.save("vit", tmp_path)
        checkpoints.rewrite(directory, classifier__bias=torch.full((10,), 1e6))
        with pytest.raises(UsageError, match=r"classifier\.bias: values beyond the range"):
            load(directory, dtype="f16")

    def test_what_an_older_release_or_a_training_head_left_is_no_fault(
        self, tmp_path: Path
    ) -> None:
        directory = checkpoints.save("bert", tmp_path)
        before = logits(load(directory))
        state = load_file(directory / checkpoints.WEIGHTS)
        norm = "bert.embeddings.LayerNorm"
        checkpoints.rewrite(
            directory,
            **{
                f"{norm}.weight": None,
                f"{norm}.bias": None,
                f"{norm}.gamma": state[f"{norm}.weight"],
                f"{norm}.beta": state[f"{norm}.bias"],
                "bert.pooler.dense.weight": torch.ones(64, 64),
            },
        )
        assert torch.equal(logits(load(directory)), before)
        assert check(read(directory), {}).unused == ("bert.pooler.dense.weight",)


class TestFP8:
    @pytest.mark.parametrize("head", ["plain", "fp8"])
    def test_codes_and_scales_are_taken_as_they_are(self, head: str, tmp_path: Path) -> None:
        directory = checkpoints.save_fp8(tmp_path, head=head)
        if head == "fp8":
            checkpoints.config(directory, quantization_config={"quant_method": "fp8"})
        expected = resolve("llama-fp8", {"fp8": "e4m3fn", "head": head}).build(seed=3)
        made = load(directory)
        state = made.root.state_dict()
        assert state.keys() == expected.root.state_dict().keys()
        for name, value in expected.root.state_dict().items():
            assert state[name].dtype == value.dtype
            assert torch.equal(state[name].float(), value.float()), name
        (tokens,) = made.only("prefill").functions[0].args
        with torch.no_grad():
            want = expected.only("prefill").functions[0].module(tokens)[0]
        assert torch.equal(logits(made), want)

    def test_the_form_that_amd_has_stands_for_the_same_numbers(self, tmp_path: Path) -> None:
        directory = checkpoints.save_fp8(tmp_path)
        plain, amd = load(directory), load(directory, fp8="e4m3fnuz")
        for name, layer in plain.root.named_modules():
            if not isinstance(layer, FP8Linear):
                continue
            other: Any = amd.root.get_submodule(name)
            assert other.weight.dtype == torch.float8_e4m3fnuz
            assert other.input_scale == 2 * layer.input_scale
            real = other.weight.float() * other.weight_scale
            assert torch.equal(real, layer.weight.float() * layer.weight_scale)
        difference = (logits(amd) - logits(plain)).norm() / logits(plain).norm()
        assert 0 < difference < 0.05

    def test_every_code_but_nan_is_converted_exactly(self) -> None:
        from iree_pilot.models.fp8 import codes_to_fnuz

        codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
        codes = codes[~codes.float().isnan()]
        assert torch.equal(codes_to_fnuz(codes).float() * 2, codes.float())


def truncated(directory: Path) -> None:
    raw = (directory / checkpoints.WEIGHTS).read_bytes()
    (directory / checkpoints.WEIGHTS).write_bytes(raw[:-100])


def cut_in_its_header(directory: Path) -> None:
    (directory / checkpoints.WEIGHTS).write_bytes(b"\x00\x10")


def wrong_dtype(directory: Path) -> None:
    checkpoints.rewrite(directory, **{DOWN.replace(".", "__"): torch.ones(64, 128).half()})


def integers(directory: Path) -> None:
    checkpoints.rewrite(directory, model__norm__weight=torch.ones(64, dtype=torch.int32))


def wider(directory: Path) -> None:
    checkpoints.config(directory, hidden_size=128, max_position_embeddings=128)


def swapped_shape(directory: Path) -> None:
    checkpoints.rewrite(directory, **{DOWN.replace(".", "__"): torch.ones(128, 64)})


def key_value_heads(directory: Path) -> None:
    checkpoints.config(directory, num_key_value_heads=4)


def missing_tensor(directory: Path) -> None:
    checkpoints.rewrite(directory, model__norm__weight=None)


def more_layers(directory: Path) -> None:
    checkpoints.config(directory, num_hidden_layers=1)


def unsaid_layers(directory: Path) -> None:
    checkpoints.config(directory, num_hidden_layers=None)


def vision_layers(directory: Path) -> None:
    checkpoints.rewrite(
        directory, vision_tower__encoder__layers__0__mlp__fc1__weight=torch.ones(8, 4)
    )


def fused(rows: int) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        checkpoints.rewrite(
            directory, model__layers__0__self_attn__qkv_proj__weight=torch.ones(rows, 64)
        )

    return damage


def not_a_number(directory: Path) -> None:
    weight = load_file(directory / checkpoints.WEIGHTS)[DOWN]
    weight[3, 5] = torch.nan
    checkpoints.rewrite(directory, **{DOWN.replace(".", "__"): weight})


def untied(directory: Path) -> None:
    checkpoints.rewrite(directory, lm_head__weight=None)


def unknown(directory: Path) -> None:
    checkpoints.config(directory, architectures=["LamaForCausalLM"])


def nameless(directory: Path) -> None:
    checkpoints.config(directory, architectures=None)


def a_list(directory: Path) -> None:
    (directory / "config.json").write_text("[]")


def no_json(directory: Path) -> None:
    (directory / "config.json").write_text('{"architectures": [')


def binary(directory: Path) -> None:
    (directory / "config.json").write_bytes((directory / checkpoints.WEIGHTS).read_bytes())


def activation(directory: Path) -> None:
    checkpoints.config(directory, hidden_act="gelou")


def impossible(directory: Path) -> None:
    checkpoints.config(directory, num_attention_heads=3)


def empty(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()


def config_without_weights(directory: Path) -> None:
    (directory / checkpoints.WEIGHTS).unlink()


def weights_without_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def pickled(directory: Path) -> None:
    (directory / checkpoints.WEIGHTS).unlink()
    torch.save({}, directory / "pytorch_model.bin")


def unindexed(directory: Path) -> None:
    (directory / checkpoints.WEIGHTS).rename(directory / "part.safetensors")


def eight_bits(directory: Path) -> None:
    codes = torch.ones(64, 128).to(torch.float8_e4m3fn)
    checkpoints.rewrite(directory, **{DOWN.replace(".", "__"): codes})


def other_prefix(directory: Path) -> None:
    state = load_file(directory / checkpoints.WEIGHTS)
    checkpoints.rewrite(
        directory,
        **{Q.replace(".", "__"): None, f"wrapped.{Q}": state[Q]},
    )


def prefixed(directory: Path) -> None:
    state = load_file(directory / checkpoints.WEIGHTS)
    changes: dict[str, torch.Tensor | None] = {n.replace(".", "__"): None for n in state}
    checkpoints.rewrite(directory, **changes, **{f"module.{n}": t for n, t in state.items()})


def renamed_prefix(directory: Path) -> None:
    state = load_file(directory / checkpoints.WEIGHTS)
    rename = {n: n.replace("model.", "transformer.") for n in state if n.startswith("model.")}
    changes: dict[str, torch.Tensor | None] = {n.replace(".", "__"): None for n in rename}
    checkpoints.rewrite(directory, **changes, **{new: state[n] for n, new in rename.items()})


def renamed_linear(directory: Path) -> None:
    state = load_file(directory / checkpoints.WEIGHTS)
    checkpoints.rewrite(
        directory,
        **{Q.replace(".", "__"): None, "model.layers.0.attention.wq.weight": state[Q]},
    )


def renamed_linears_of_one_shape(directory: Path) -> None:
    state = load_file(directory / checkpoints.WEIGHTS)
    changes: dict[str, torch.Tensor | None] = {}
    for own, other in (("k_proj", "wk"), ("v_proj", "wv")):
        name = Q.replace("q_proj", own)
        changes[name.replace(".", "__")] = None
        changes[name.replace(f"self_attn.{own}", f"attention.{other}")] = state[name]
    checkpoints.rewrite(directory, **changes)


def all_renamed(directory: Path) -> None:
    state = load_file(directory / checkpoints.WEIGHTS)
    changes: dict[str, torch.Tensor | None] = {n.replace(".", "__"): None for n in state}
    checkpoints.rewrite(directory, **changes, **{f"t{i}": t for i, t in enumerate(state.values())})


def mixed(directory: Path) -> None:
    state = load_file(directory / checkpoints.WEIGHTS)
    halves = {n.replace(".", "__"): t.half() for n, t in state.items() if "mlp" in n}
    checkpoints.rewrite(directory, **halves)


def tied_to_another(directory: Path) -> None:
    checkpoints.config(directory, tie_word_embeddings=True)
    checkpoints.rewrite(directory, lm_head__weight=torch.ones(256, 64))


def utf_16(directory: Path) -> None:
    file = directory / "config.json"
    file.write_bytes(file.read_text().encode("utf-16"))


def emptied(directory: Path) -> None:
    (directory / checkpoints.WEIGHTS).write_bytes(b"")


def web_page(directory: Path) -> None:
    page = "<!doctype html>\n<html><body>Sign in</body></html>"
    (directory / checkpoints.WEIGHTS).write_text(page)


def pointer(directory: Path) -> None:
    (directory / "config.json").write_text(POINTER)


def pointer_to_an_index(directory: Path) -> None:
    (directory / checkpoints.WEIGHTS).unlink()
    (directory / "model.safetensors.index.json").write_text(POINTER)


#: What was done to a Llama, and what the one message must say: file, tensor, expected, found, why.
DAMAGE = {
    truncated: ["model.safetensors", "ends at byte", "but the file has"],
    cut_in_its_header: ["model.safetensors", "the file ends inside its header (2 bytes)"],
    wrong_dtype: [
        f"model.safetensors: {DOWN}: expected 64x128xf32, found 64x128xf16",
        "--dtype f32",
    ],
    integers: ["model.norm.weight: expected 64xf32, found 64xi32 (--dtype converts floats only"],
    wider: [
        f"{Q}: expected 64x128xf32, found 64x64xf32 (the config says hidden_size=128)",
        "model.norm.weight: expected 128xf32, found 64xf32 (the config says hidden_size=128)",
    ],
    swapped_shape: [f"{DOWN}: expected 64x128xf32, found 128x64xf32", "[out, in]"],
    key_value_heads: [
        "k_proj.weight: expected 64x64xf32, found 32x64xf32",
        "32 rows are 2 heads of head_dim=16; num_key_value_heads=4",
    ],
    prefixed: [
        "21 tensors of 21 are wrong:\n  model.safetensors: module.model.embed_tokens.weight and 20 "
        "more: expected model.embed_tokens.weight, found module.model.embed_tokens.weight (all have"
        " the prefix module.)\nNothing",
    ],
    renamed_prefix: [
        "20 tensors of 21 are wrong:\n  model.safetensors: transformer.embed_tokens.weight and 19 "
        "more: expected model.embed_tokens.weight, found transformer.embed_tokens.weight (all have "
        "the prefix transformer. in place of model.)\nNothing",
    ],
    renamed_linear: [
        f"{Q}: expected 64x64xf32, found nothing (there is model.layers.0.attention.wq.weight of "
        "the same type: is that its name?)",
        "model.layers.0.attention.wq.weight: expected nothing, found 64x64xf32 (the model lacks "
        f"{Q} of the same type: is that its name?)",
    ],
    renamed_linears_of_one_shape: [
        f"{Q.replace('q_proj', 'k_proj')}: expected 32x64xf32, found nothing\n",
        "model.layers.0.attention.wk.weight: expected nothing, found 32x64xf32\n",
    ],
    all_renamed: [
        "42 tensors of 42 are wrong",
        "model.embed_tokens.weight: expected 256x64xf32, found nothing\n",
        "\n  and 11 more\n  model.safetensors: t0: expected nothing, found ",
        "\n  and 11 more\nNothing",
    ],
    mixed: [
        "6 tensors of 21 are wrong:\n  model.safetensors: model.layers.0.mlp.",
        "_proj.weight and 5 more: expected f32, found f16 (the config says dtype=float32; --dtype "
        "f32 converts)\nNothing",
    ],
    tied_to_another: [
        "lm_head.weight: expected the values of model.embed_tokens.weight, with which it is tied,",
        "tie_word_embeddings, to false",
    ],
    utf_16: ["config.json is UTF-16", "UTF-8"],
    emptied: ["model.safetensors: it is empty"],
    web_page: ["model.safetensors", "it is a web page"],
    pointer: ["config.json: it is a pointer of Git LFS", "git lfs pull"],
    pointer_to_an_index: ["model.safetensors.index.json: it is a pointer of Git LFS"],
    missing_tensor: [
        "1 tensor of 21 is wrong:\n  model.norm.weight: expected 64xf32, found nothing"
    ],
    more_layers: [
        "9 tensors of 21 are wrong:\n  model.safetensors: model.layers.1.",
        "weight and 8 more: expected nothing, found tensors (num_hidden_layers=1, the checkpoint "
        "has 2 layers)\nNothing",
    ],
    unsaid_layers: [
        "270 tensors of 291 are wrong:\n  model.layers.2.self_attn.q_proj.weight and 269 more: "
        "expected tensors, found nothing (the config has no num_hidden_layers, which is 32 by "
        "default, the checkpoint has 2 layers)\nNothing",
    ],
    vision_layers: [
        "vision_tower.encoder.layers.0.mlp.fc1.weight: expected nothing, found 8x4xf32",
        "a vision-tower layer, but LlamaForCausalLM is text only",
    ],
    fused(96): [
        "qkv_proj.weight: expected nothing, found 96x64xf32",
        "heads * 3 * head_dim = 192 and (heads + 2*kv_heads) * head_dim = 128",
        "num_attention_heads=4, num_key_value_heads=2 or head_dim=16 disagrees",
    ],
    fused(128): ["found 128x64xf32", "keeps query, key and value apart"],
    not_a_number: [f"{DOWN}: expected finite numbers, found 1 NaN", "of 8192, first at [3, 5]"],
    untied: ["lm_head.weight: expected 256x64xf32, found nothing", "tie_word_embeddings is false"],
    unknown: ["config.json", "architecture LamaForCausalLM", "Did you mean LlamaForCausalLM?"],
    nameless: ["config.json", 'expected "architectures": [NAME], found no such key'],
    a_list: ["config.json", 'expected "architectures": [NAME], found a list in place of an object'],
    no_json: ["config.json is not JSON", "line 1 column 20"],
    binary: ["config.json is not text in UTF-8, as JSON is"],
    activation: ["cannot make a LlamaForCausalLM of the config: it does not know hidden_act=gelou"],
    impossible: ["LlamaConfig refuses the config", "(64)", "number of attention heads (3)"],
    empty: ["the directory is empty; expected config.json and model.safetensors"],
    config_without_weights: ["expected model.safetensors or", "found config.json"],
    weights_without_config: ["no config.json, only", "model.safetensors"],
    pickled: [
        "expected model.safetensors or model.safetensors.index.json, found only pickled weights",
        "pytorch_model.bin",
        "never read",
    ],
    unindexed: ["index.json, found part.safetensors without an index"],
    eight_bits: [f"{DOWN}: expected 64x128xf32, found 64x128xf8E4M3FN", "FP8 without scales"],
    other_prefix: [f"{Q}: expected 64x64xf32, found nothing", "only the prefix differs"],
}


class TestBadCheckpoints:
    @pytest.mark.parametrize(
        ("damage", "told"), DAMAGE.items(), ids=[f"{f.__name__}" for f in DAMAGE]
    )
    def test_a_message_names_file_tensor_expected_and_found(
        self, damage: Callable[[Path], None], told: list[str], good: Path, tmp_path: Path
    ) -> None:
        for file in good.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        damage(tmp_path)
        with pytest.raises(UsageError) as refused:
            load(tmp_path)
        message = str(refused.value)
        assert str(tmp_path) in message
        for words in told:
            assert words in message
        assert refused.value.advice

    @pytest.mark.parametrize(
        ("damage", "advised"),
        [
            (missing_tensor, ["What is missing: fetch"]),
            (swapped_shape, ["Other shapes: take the config"]),
            (wrong_dtype, ["Other dtypes: --dtype converts"]),
            (vision_layers, ["What is superfluous: take the config"]),
            (not_a_number, ["NaN and infinite values: fetch the file again"]),
            (other_prefix, ["What is missing: fetch", "What is superfluous: take the config"]),
            (prefixed, ["Other names: save"]),
            (tied_to_another, ["Tied tensors: set"]),
        ],
        ids=lambda given: getattr(given, "__name__", ""),
    )
    def test_the_advice_fits_what_is_wrong(
        self, damage: Callable[[Path], None], advised: list[str], good: Path, tmp_path: Path
    ) -> None:
        for file in good.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        damage(tmp_path)
        with pytest.raises(UsageError) as refused:
            load(tmp_path)
        nothing, *lines = refused.value.advice.splitlines()
        assert nothing == "Nothing was loaded."
        assert len(lines) == len(advised)
        for line, words in zip(lines, advised, strict=True):
            assert line.startswith(words)

    def test_a_shard_that_is_missing(self, tmp_path: Path) -> None:
        directory = checkpoints.save("llama", tmp_path, shard="100KB")
        lost = checkpoints.index(directory)[Q]
        (directory / lost).unlink()
        with pytest.raises(
            UsageError, match=rf"shard {lost} is missing.*expects \d+ tensors in it"
        ):
            load(directory)

    def test_an_index_that_is_not_of_these_shards(self, tmp_path: Path) -> None:
        directory = checkpoints.save("llama", tmp_path, shard="100KB")
        listed = checkpoints.index(directory)
        other = next(shard for shard in listed.values() if shard != listed[Q])
        stray = {"weight_map": {**listed, Q: other, "gone.weight": other}}
        (directory / checkpoints.INDEX).write_text(json.dumps(stray))
        with pytest.raises(UsageError) as refused:
            load(directory)
        assert f"{Q}: expected in {other}, found in {listed[Q]}" in refused.value.message
        assert f"gone.weight: expected in {other}, found nowhere" in refused.value.message

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            ("", "no JSON: Expecting value: line 1 column 1 (char 0)"),
            ("[]", "a list"),
            ("{}", "no weight_map"),
            ('{"weight_map": 1}', "a number for it"),
            ('{"weight_map": {}}', "an empty one"),
            ('{"weight_map": {"a": "../b"}}', "'../b', which is no file beside it, for a"),
            ('{"weight_map": {"a": null}}', "null, which is no file beside it, for a"),
        ],
    )
    def test_an_index_that_is_none(self, content: str, found: str, tmp_path: Path) -> None:
        directory = checkpoints.save("llama", tmp_path, shard="100KB")
        (directory / checkpoints.INDEX).write_text(content)
        with pytest.raises(UsageError) as refused:
            load(directory)
        expected = "index.json: expected a JSON object whose weight_map names each tensor's file"
        assert f"{expected}, found {found}" in refused.value.message

    @pytest.mark.parametrize(
        ("lost", "why"),
        [("weight_scale", "static weight scale"), ("input_scale", "static activation scale")],
    )
    def test_fp8_without_scales(self, lost: str, why: str, tmp_path: Path) -> None:
        directory = checkpoints.save_fp8(tmp_path)
        name = f"{DOWN.removesuffix('.weight')}.{lost}"
        checkpoints.rewrite(directory, **{name.replace(".", "__"): None})
        with pytest.raises(UsageError) as refused:
            load(directory)
        assert f"{name}: expected f32, found nothing (FP8 without scales" in refused.value.message
        assert why in refused.value.message

    def test_fp8_with_a_scale_for_each_channel(self, tmp_path: Path) -> None:
        directory = checkpoints.save_fp8(tmp_path)
        name = f"{DOWN}_scale"
        checkpoints.rewrite(directory, **{name.replace(".", "__"): torch.ones(64, 1)})
        with pytest.raises(UsageError, match=r"expected f32, found 64x1xf32 \(one scale a channel"):
            load(directory)

    def test_a_vision_tower_that_is_wrong_or_not_there(self, tmp_path: Path) -> None:
        directory = checkpoints.save("qwen2.5-vl", tmp_path)
        state = load_file(directory / checkpoints.WEIGHTS)
        name = next(n for n in state if n.endswith("visual.blocks.0.attn.qkv.weight"))
        rows, columns = state[name].shape
        checkpoints.rewrite(directory, **{name: torch.ones(rows - 8, columns)})
        with pytest.raises(UsageError) as refused:
            load(directory)
        found = f"{name}: expected {rows}x{columns}xf32, found {rows - 8}x{columns}xf32"
        assert f"{found} (fused QKV of length {rows - 8}, but" in refused.value.message
        tower = {n: None for n in state if n.startswith(name.partition("blocks")[0])}
        checkpoints.rewrite(directory, **tower)
        with pytest.raises(UsageError, match="the checkpoint holds the text part only"):
            load(directory)

    def test_a_gemma_3_without_a_layer_of_its_tower_or_of_its_decoder(self, tmp_path: Path) -> None:
        directory = checkpoints.save("gemma3-multimodal", tmp_path, vision_layers="3")
        text = "language_model.model.layers.1.mlp.up_proj.weight"
        tower = "vision_tower.encoder.layers.2."
        state = load_file(directory / checkpoints.WEIGHTS)
        lost = [name for name in state if name.startswith(tower)]
        checkpoints.rewrite(directory, **dict.fromkeys([text, *lost]))
        with pytest.raises(UsageError) as refused:
            load(directory, "prefill")
        told = refused.value.message
        count = len(lost) + 1
        assert f"does not fit Gemma3ForConditionalGeneration; {count} tensors of" in told
        up = "model.language_model.layers.1.mlp.up_proj.weight: expected 128x64xf32, found nothing"
        assert f"  {up}" in told.splitlines()
        more = f"and {len(lost) - 1} more: expected tensors, found nothing"
        (line,) = (line for line in told.splitlines() if more in line)
        assert line.startswith("  model.vision_tower.encoder.layers.2.")
        assert line.endswith("(num_hidden_layers=3, the checkpoint has 2 layers)")

    def test_a_vision_tower_is_too_much_for_gemma_3s_decoder_alone(self, tmp_path: Path) -> None:
        directory = checkpoints.save("gemma3", tmp_path)
        name = "vision_tower.encoder.layers.0.mlp.fc1.bias"
        checkpoints.rewrite(directory, **{name: torch.ones(128)})
        with pytest.raises(UsageError) as refused:
            load(directory)
        found = f"{checkpoints.WEIGHTS}: {name}: expected nothing, found 128xf32"
        why = "a vision-tower layer, but Gemma3ForCausalLM is text only"
        assert f"1 tensor of {len(read(directory).tensors)} is wrong" in refused.value.message
        assert f"{found} ({why})" in refused.value.message

    def test_tensors_that_transformers_would_merge(self) -> None:
        name = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
        config = transformers.MixtralConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            vocab_size=8,
        )
        checkpoint = Checkpoint(
            path="experts",
            config=config.to_dict(),
            architecture="MixtralForCausalLM",
            family="llama",
            tensors={
                name: CheckpointTensor(
                    file="experts/model.safetensors", name=name, entry=ArchiveEntry()
                )
            },
        )
        with pytest.raises(UsageError) as refused:
            check(checkpoint, {})
        assert f"experts/model.safetensors: {name}: transformers merges" in refused.value.message

    def test_another_way_of_quantising(self, tmp_path: Path) -> None:
        directory = checkpoints.save_fp8(tmp_path)
        checkpoints.config(directory, quantization_config={"quant_method": "gptq"})
        with pytest.raises(UsageError, match=r"expected compressed-tensors or fp8.*found gptq"):
            read(directory)


class TestSource:
    def test_a_directory_is_a_source_with_its_part_after_the_colon(self, tmp_path: Path) -> None:
        directory = checkpoints.save("llama", tmp_path / "c")
        source = sources.parse(f"{directory}:decode", {"length": "9"}, "bf16")
        assert (source.kind, source.model, source.part) == ("checkpoint", "llama", "decode")
        assert source.fields == {"length": 9, "dtype": "bf16"}

    def test_a_checkpoint_is_called_as_its_directory(self, tmp_path: Path) -> None:
        directory = checkpoints.save("vit", tmp_path / "ViT-1.5")
        assert sources.parse(str(directory), {}, None).name == "ViT-1.5"

    def test_what_the_config_decides_cannot_be_set(self, tmp_path: Path) -> None:
        directory = checkpoints.save("llama", tmp_path)
        with pytest.raises(UsageError, match=r"decides it \(num_hidden_layers in config\.json"):
            sources.parse(str(directory), {"layers": "9"}, None)
        with pytest.raises(UsageError, match="has no part 'prefil'"):
            sources.parse(f"{directory}:prefil", {}, None)

    def test_a_config_alone_is_checked(self, tmp_path: Path) -> None:
        directory = checkpoints.save("vit", tmp_path)
        plan = check(read_config(directory / "config.json"), {})
        assert plan.parameters == 81_226
        assert plan.fields["patch"] == 8
        checkpoints.config(directory, hidden_size=63)
        with pytest.raises(UsageError, match="63"):
            check(read_config(directory / "config.json"), {})


@pytest.mark.parametrize(
    "spec", [s for s in registry().values() if s.architectures], ids=lambda s: s.name
)
def test_a_family_with_architectures_can_be_given_their_models(spec: ModelSpec) -> None:
    assert "model" in inspect.signature(referred(spec.build)).parameters
    for architecture in spec.architectures:
        text = {"text_config": {"model_type": spec.text_model}} if spec.text_model else {}
        config = getattr(transformers, architecture).config_class(**text)
        for path in filter(None, (field.config for field in spec.fields)):
            assert operator.attrgetter(path)(config) is not None


def test_the_guide_names_the_architectures_that_families_load() -> None:
    guide = (ROOT / "docs" / "load-a-checkpoint.md").read_text()
    (listed,) = re.findall(r"load the architectures ([^.]*)\.", guide)
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(architectures())


def test_the_models_are_listed_by_that_word_too() -> None:
    assert pilot("models", "list").out == pilot("models").out


def test_a_model_is_listed_with_the_checkpoints_that_it_loads() -> None:
    assert "Loads FP8 checkpoints of LlamaForCausalLM." in pilot("models", "llama-fp8").out


def test_models_check_tells_what_fits_and_ends_with_2_where_it_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = checkpoints.save("vit", tmp_path)
    good = here(capsys, "models", "check", directory, "--json")
    assert (good.code, good.document["family"], good.document["tensors"]) == (0, "vit", 40)
    checkpoints.rewrite(directory, classifier__bias=torch.ones(7))
    bad = here(capsys, "models", "check", directory)
    assert bad.code == 2
    assert "model.safetensors: classifier.bias: expected 10xf32, found 7xf32" in bad.err
    checkpoints.rewrite(directory, classifier__bias=torch.ones(10).half())
    other = here(capsys, "models", "check", directory)
    assert (other.code, "--dtype f32 converts" in other.err) == (2, True)
    shown = terminal("models", "check", directory, "--dtype", "f32", cwd=tmp_path)
    told = " ".join(" ".join(shown.lines).split())  # a long path takes a line for itself
    assert (shown.code, f"{directory}: ViTForImageClassification" in told) == (0, True)
    assert "importing PyTorch and transformers" in "".join(shown.pieces), "it takes seconds"
    weights = here(capsys, "models", "check", directory / checkpoints.WEIGHTS)
    assert (weights.code, "Name config.json, or the directory" in weights.err) == (2, True)


@pytest.mark.real
def test_a_checkpoint_runs_and_agrees_and_a_changed_one_is_traced_anew(tmp_path: Path) -> None:
    directory = checkpoints.save("vit", tmp_path / "checkpoint")
    env = {"IREE_PILOT_CACHE": tmp_path / "cache"}
    done = pilot("run", directory, "-t", "llvm-cpu", "--json", env=env)
    (case,) = done.document["cases"]
    assert case["status"] == "ok", case["failure"]
    assert case["comparison"]["rel_l2"] < 1e-5
    name = "classifier__bias"
    checkpoints.rewrite(directory, **{name: torch.full((10,), torch.nan)})
    refused = pilot("run", directory, "-t", "llvm-cpu", env=env)
    assert refused.code == 2
    assert "classifier.bias: expected finite numbers, found 10 NaN" in refused.err


class TestFilesThatAreNone:
    """Pipes would hang a reader, and devices never end."""

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_pipe_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        (tmp_path / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name)
        with pytest.raises(UsageError, match=f"{name} is no regular file"):
            read(tmp_path)

    def test_a_device_behind_a_link_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").symlink_to("/dev/zero")
        with pytest.raises(UsageError, match="is no regular file"):
            read(tmp_path)

    def test_text_of_a_size_that_no_configuration_has_is_refused(self, tmp_path: Path) -> None:
        with (tmp_path / "config.json").open("wb") as file:
            file.truncate(2**30)
        with pytest.raises(UsageError, match=r"1,073,741,824 bytes, more than any"):
            read(tmp_path)
