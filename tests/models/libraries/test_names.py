"""Names of the models of installed libraries are known without importing these."""

from __future__ import annotations

import pytest

from iree_pilot.models.libraries.names import alike, check, known
from iree_pilot.pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("library", "some", "least"),
    [
        ("transformers", {"Qwen3ForCausalLM", "bert", "qwen3", "ViTModel"}, 800),
        ("timm", {"efficientnet_b0", "resnet18", "vit_tiny_patch16_224"}, 1000),
        ("torchvision", {"resnet18", "raft_small", "vit_b_16"}, 80),
        ("diffusers", {"UNet2DModel", "AutoencoderKL", "FluxTransformer2DModel"}, 50),
    ],
)
def test_each_library_names_its_models(library: str, some: set[str], least: int) -> None:
    found = known(library)
    assert some <= {*found}
    assert len(found) >= least
    assert [*found] == sorted(found)


def test_a_slip_is_told_and_another_architecture_is_none() -> None:
    assert "Qwen3ForCausalLM" in alike("transformers", "Qwen3ForCausalLm")
    assert "efficientnet_b0" in alike("timm", "eficientnet_b0")
    assert alike("transformers", "Qwen9ForCausalLM") == ""
    assert alike("transformers", "ChatGlmForCausalLM") == ""
    assert alike("torchvision", "resnet19") == ""
    assert alike("timm", "a_model_of_mine") == ""


@pytest.mark.parametrize(
    ("library", "name", "meant"),
    [
        ("timm", "mobilenetv3_small_05", "mobilenetv3_small_050"),
        ("timm", "mobilenetv3_small", "mobilenetv3_small_100"),
        ("transformers", "Qwen33ForCausalLM", "Qwen3ForCausalLM"),
        ("transformers", "qwen3forcausallm", "Qwen3ForCausalLM"),
        ("torchvision", "resnet188", "resnet18"),
        ("diffusers", "UNet2DModell", "UNet2DModel"),
    ],
)
def test_a_name_that_is_none_is_refused_at_once_with_those_that_are_near(
    library: str, name: str, meant: str
) -> None:
    with pytest.raises(UsageError) as refused:
        check(f"{library}:{name}", library, name)
    assert f"has no model {name!r}" in refused.value.message
    assert meant in (refused.value.advice or "")
    assert "upgrade" not in (refused.value.advice or "")


def test_an_upgrade_is_advised_where_nothing_is_near() -> None:
    with pytest.raises(UsageError) as refused:
        check("timm:a_model_of_mine", "timm", "a_model_of_mine")
    assert "pip install --upgrade timm" in (refused.value.advice or "")


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("timm", "resnet18"),
        ("timm", "resnet18.a1_in1k"),
        ("timm", "vit_tiny_patch16_224_in21k"),  # an old name, which timm still takes
        ("transformers", "CLIPTextModel"),  # none that has a model type to itself
        ("transformers", "xlm-roberta"),
        ("transformers", "AutoModel"),  # no model, which transformers is to say
        ("diffusers", "DiffusionPipeline"),
        ("torchvision", "raft_small"),
    ],
)
def test_what_a_library_may_have_is_left_to_it(library: str, name: str) -> None:
    check(f"{library}:{name}", library, name)
