"""Names of the models of installed libraries are known without importing these."""

from __future__ import annotations

import pytest

from iree_pilot.models.libraries.names import alike, known


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
