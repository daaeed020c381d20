"""Models of libraries by name: small, seeded, with inputs that fit, or refused with the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT

from iree_pilot.models.libraries.make import _not_given as not_given
from iree_pilot.models.libraries.make import traceable
from iree_pilot.models.traceable import Traceable
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import libraries


@pytest.fixture(autouse=True)
def operators() -> None:
    libraries.declare_operators()


def make(
    source: str, seed: int = 0, given: tuple[torch.Tensor, ...] = (), **fields: Any
) -> Traceable:
    library, _, name = source.partition(":")
    return traceable(source, (library, name), fields, seed, given)


def ran(made: Traceable) -> Any:
    (entry,) = made.functions
    with torch.no_grad():
        return entry.module(*entry.args, **entry.kwargs)


def inputs(made: Traceable) -> dict[str, Any]:
    (entry,) = made.functions
    return dict(entry.kwargs)


#: A decoder, one with layers that share weights, an encoder with types of tokens, both sides, an
#: image, sound, an image and its words, an image before words, boxes on a page; the other
#: libraries: an image, tokens of a video, one vector, two prompts.
SMALL = [
    "transformers:Qwen3ForCausalLM",
    "transformers:ZambaForCausalLM",
    "transformers:bert",
    "transformers:T5ForConditionalGeneration",
    "transformers:ConvNextForImageClassification",
    "transformers:WhisperForConditionalGeneration",
    "transformers:CLIPModel",
    "transformers:Blip2ForConditionalGeneration",
    "transformers:LayoutLMModel",
    "torchvision:squeezenet1_0",
    "timm:mobilenetv3_small_050",
    "diffusers:UNet2DModel",
    "diffusers:LTXVideoTransformer3DModel",
    "diffusers:PriorTransformer",
    "diffusers:HunyuanDiT2DModel",
]


@pytest.mark.parametrize("source", SMALL)
def test_a_model_is_small_in_eval_mode_and_runs(source: str) -> None:
    made = make(source)
    assert sum(p.numel() for p in made.root.parameters()) < 4_000_000
    assert not any(module.training for module in made.root.modules())
    assert not any(p.requires_grad for p in made.root.parameters())
    tensors = [t for t in torch.utils._pytree.tree_leaves(ran(made)) if isinstance(t, torch.Tensor)]
    assert tensors
    assert all(torch.isfinite(t).all() for t in tensors if t.is_floating_point())
    assert "seeded random weights" in made.notes[0]


def test_the_seed_decides_weights_and_inputs() -> None:
    one, same, other = (make("transformers:GPT2LMHeadModel", seed) for seed in (1, 1, 2))
    assert torch.equal(ran(one).logits, ran(same).logits)
    assert not torch.equal(ran(one).logits, ran(other).logits)


def test_one_row_of_a_text_is_padded_on_the_right() -> None:
    given = inputs(make("transformers:bert"))
    assert given["attention_mask"].tolist() == [[1] * 16, [1] * 13 + [0] * 3]
    assert (given["input_ids"][1, 13:] == 0).all()
    assert set(given["token_type_ids"][0].tolist()) == {0, 1}


def test_both_sides_of_an_encoder_decoder_have_inputs() -> None:
    assert {"input_ids", "attention_mask", "decoder_input_ids"} == {
        *inputs(make("transformers:BartForConditionalGeneration"))
    }


def test_an_image_among_words_has_as_many_tokens_as_embeddings() -> None:
    made = make("transformers:LlavaForConditionalGeneration")
    given = inputs(made)
    tokens = int((given["input_ids"] == made.root.config.image_token_id).sum())
    assert given["pixel_values"].dim() == 4
    assert tokens == 16


def test_a_causal_model_returns_no_cache() -> None:
    assert ran(make("transformers:qwen3")).past_key_values is None


def test_a_size_may_be_set_and_full_is_the_librarys_own() -> None:
    made = make("transformers:Qwen3ForCausalLM", hidden_size="128", length="8")
    assert made.root.config.hidden_size == 128
    assert inputs(made)["input_ids"].shape == (2, 8)
    full = make("transformers:ResNetForImageClassification", size="full")
    assert full.root.config.hidden_sizes == [256, 512, 1024, 2048]
    assert "full size" in full.notes[0]


def test_a_field_of_a_part_is_named_with_it() -> None:
    made = make("transformers:CLIPModel", **{"text_config.hidden_size": "32"})
    assert made.root.config.text_config.hidden_size == 32


def test_the_users_inputs_take_the_place_of_the_models_own() -> None:
    image = torch.randn(1, 3, 80, 96)
    assert inputs(make("torchvision:squeezenet1_0", given=(image,)))["x"] is image


def test_sizes_beside_the_users_inputs_stay() -> None:
    source = "diffusers:LTXVideoTransformer3DModel"
    own = inputs(make(source))
    given = tuple(v + 1 for v in own.values() if isinstance(v, torch.Tensor))
    made = inputs(make(source, given=given))
    assert made.keys() == own.keys()
    assert (made["num_frames"], made["height"], made["width"]) == (5, 4, 4)
    assert made["hidden_states"] is given[0]


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_a_dtype_is_that_of_weights_and_inputs(dtype: str) -> None:
    made = make("torchvision:squeezenet1_0", dtype=dtype)
    wanted = {"f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert ran(made).dtype == inputs(made)["x"].dtype == wanted


@pytest.mark.parametrize(
    ("source", "fields", "message", "advice"),
    [
        ("transformers:Qwen9ForCausalLM", {}, "has no model 'Qwen9ForCausalLM'", "newer release"),
        ("transformers:BertForMaskedLm", {}, "has no model", "Did you mean BertForMaskedLM"),
        ("transformers:BertTokenizer", {}, "is no PreTrainedModel", ""),
        ("timm:resnet19", {}, "has no model 'resnet19'", "newer release"),
        ("diffusers:DDPMScheduler", {}, "it is no ModelMixin", ""),
        ("transformers:bert", {"hiden_size": "3"}, "has no field 'hiden_size'", "hidden_size"),
        ("transformers:bert", {"size": "huge"}, "size=huge", "small|full"),
        ("torchvision:resnet18", {"num_clases": "3"}, "no field 'num_clases'", "num_classes"),
        ("timm:resnet18", {"num_clases": "3"}, "no field 'num_clases'", "num_classes"),
        ("diffusers:UNet2DModel", {"sampel_size": "3"}, "no field 'sampel_size'", "sample_size"),
        ("transformers:bert", {"length": "x"}, "length=x", "a number"),
    ],
)
def test_what_is_not_there_is_refused_with_the_reason(
    source: str, fields: dict[str, str], message: str, advice: str
) -> None:
    with pytest.raises(UsageError) as caught:
        make(source, **fields)
    assert message in caught.value.message
    assert advice in caught.value.advice


def test_a_torchvision_built_for_another_pytorch_can_be_imported(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "_C.so").write_bytes(b"built for CUDA")
    (package / "__init__.py").write_text(
        "import torch\n"
        "for name in ('nms', 'qnms'):\n"
        "    torch.library.register_fake(f'torchvision::{name}', lambda *given: given[0])\n"
    )
    declared = "from iree_pilot.pipeline.frontends import libraries as l; l.declare_operators(); "
    for first, code in (("", 1), (declared, 0)):
        done = subprocess.run(
            [sys.executable, "-c", f"{first}import torchvision"],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, done.stderr
        assert ("torchvision::nms does not exist" in done.stderr) == bool(code)


def test_inputs_that_do_not_fit_are_refused_with_pytorchs_words() -> None:
    with pytest.raises(UsageError, match="does not run squeezenet1_0 with the inputs given"):
        make("torchvision:squeezenet1_0", given=(torch.randn(1, 5, 64, 64),))


@pytest.mark.parametrize(
    ("given", "left"),
    [({"input_ids": 1}, "pixel_values, audio_values"), ({"input_ids": 1, "pixel_values": 2}, "")],
)
def test_images_that_no_inputs_were_made_for_are_told(given: dict[str, Any], left: str) -> None:
    class Both(torch.nn.Module):
        def forward(
            self, input_ids: Any, pixel_values: Any = None, audio_values: Any = None
        ) -> Any:
            return input_ids

    said = not_given(Both(), given)
    assert said == ([f"run without {left}: {WITHOUT}"] if left else [])


WITHOUT = "what takes them is not in the program; give them in a model.py"
