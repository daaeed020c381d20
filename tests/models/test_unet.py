"""The zoo's UNet and its block: diffusers' numbers, sizes, and what is said without diffusers."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D
from driver import pilot
from places import ROOT
from torch._subclasses.fake_tensor import FakeTensor

from iree_pilot.models.spec import resolve
from iree_pilot.models.traceable import Traceable
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError

NAMES = ["unet", "unet-block"]


def build(text: str, **settings: str) -> Traceable:
    return resolve(text, settings).build()


@torch.no_grad()
def outputs(traceable: Traceable) -> tuple[torch.Tensor, ...]:
    (main,) = traceable.functions
    return main.module(*main.args)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("size", [{}, {"stages": "3", "layers": "2", "image": "32", "batch": "2"}])
def test_the_whole_is_diffusers_own(attention: str, size: dict[str, str]) -> None:
    traceable = build("unet", attention=attention, **size)
    own: Any = traceable.root
    untouched = diffusers.UNet2DConditionModel.from_config(own.config).eval()
    untouched.load_state_dict(own.state_dict())
    with torch.no_grad():
        expected = untouched(*traceable.functions[0].args).sample
    assert_near(outputs(traceable)[0], expected)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_block_is_diffusers_own(attention: str) -> None:
    traceable = build("unet-block", attention=attention, layers="2", batch="2")
    untouched = CrossAttnDownBlock2D(
        32,
        32,
        128,
        num_layers=2,
        num_attention_heads=4,
        cross_attention_dim=32,
        resnet_groups=8,
        resnet_eps=1e-5,
    ).eval()
    untouched.load_state_dict(traceable.root.state_dict())
    with torch.no_grad():
        halved, skips = untouched(*traceable.functions[0].args)
    found = outputs(traceable)
    assert [tuple(x.shape) for x in found] == [(2, 32, 8, 8), (2, 32, 8, 8), (2, 32, 4, 4)]
    for mine, theirs in zip(found, (*skips[:-1], halved), strict=True):
        assert_near(mine, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_every_input_matters(name: str) -> None:
    (main,) = build(name).functions
    with torch.no_grad():
        whole = main.module(*main.args)[-1]
        for index, value in enumerate(main.args):
            other = (*main.args[:index], value + 1, *main.args[index + 1 :])
            changed = main.module(*other)[-1]
            assert (changed - whole).norm() / whole.norm() > 1e-3, main.input_names[index]


@pytest.mark.parametrize("name", NAMES)
def test_the_full_size_has_names_and_no_values(name: str) -> None:
    traceable = build(f"{name}:sd1.5")
    assert not traceable.weights
    assert all(isinstance(p, FakeTensor) for p in traceable.root.parameters())


@pytest.mark.parametrize(
    ("text", "settings", "reason"),
    [
        ("unet", {"groups": "5"}, "width=32 is no multiple of groups=5"),
        ("unet-block", {"heads": "5"}, "width=32 is no multiple of heads=5"),
        ("unet", {"stages": "3", "image": "18"}, "image=18 cannot be halved 2 times"),
    ],
)
def test_values_that_do_not_go_together_are_told(
    text: str, settings: dict[str, str], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        resolve(text, settings)


@pytest.mark.parametrize("name", NAMES)
def test_without_diffusers_the_command_that_installs_it_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(package: str) -> str:
        if package == "diffusers":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr("iree_pilot.models.versions.version", without)
    with pytest.raises(EnvironmentFault) as caught:
        build(name)
    assert caught.value.message == f"{name} is made by diffusers, which is not installed"
    assert caught.value.advice == 'pip install "diffusers>=0.42,<0.43"'


@pytest.mark.real
def test_a_release_that_does_not_fit_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    metadata = tmp_path / "diffusers-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: diffusers\nVersion: 0.1.0\n")
    done = pilot("run", "unet", "-t", "llvm-cpu", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.code == 3
    assert "unet was traced with diffusers >=0.42,<0.43; 0.1.0 is installed" in done.err
    assert 'pip install "diffusers>=0.42,<0.43"' in done.err
