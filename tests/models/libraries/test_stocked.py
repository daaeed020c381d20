"""Checkpoint directories of any class of transformers, of timm and of diffusers, checked first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from iree_pilot.models.libraries import directories
from iree_pilot.models.libraries.make import traceable
from iree_pilot.models.traceable import Traceable
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import libraries
from iree_pilot.pipeline.frontends.source import parse


@pytest.fixture(scope="module", autouse=True)
def operators() -> None:
    libraries.declare_operators()


def made(source: str) -> Any:
    library, _, name = source.partition(":")
    return traceable(source, (library, name), {}, 3).root


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gpt2")
    made("transformers:GPT2LMHeadModel").save_pretrained(place)
    return place


@pytest.fixture
def copy(gpt2: Path, tmp_path: Path) -> Path:
    for file in gpt2.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def load(path: Path, **settings: str) -> Traceable:
    source = parse(str(path), settings, None)
    assert source.kind == "library"
    named = (source.module or "", source.factory)
    return traceable(str(path), named, source.fields, 0, (), source.path)


def same(one: Any, other: Any) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_a_class_that_the_zoo_has_not_gets_the_checkpoints_weights(gpt2: Path) -> None:
    found = load(gpt2)
    assert same(found.root, made("transformers:GPT2LMHeadModel"))
    assert "of its checkpoint" in found.notes[0]


def test_tensors_that_transformers_merges_are_loaded_too(tmp_path: Path) -> None:
    model = made("transformers:MixtralForCausalLM")
    model.save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    assert any("experts.0" in name for name in held)
    # The zoo's family of this architecture is another name: its own class loads it.
    assert same(load(tmp_path).root, model)


@pytest.mark.parametrize("source", ["timm:resnet10t", "diffusers:UNet2DModel"])
def test_timms_and_diffusers_directories_are_loaded(source: str, tmp_path: Path) -> None:
    model = made(source)
    if source.startswith("diffusers"):
        model.save_pretrained(tmp_path)
    else:
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        config = {"architecture": "resnet10t", "num_classes": 1000, "pretrained_cfg": {}}
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert same(load(tmp_path).root, model)


def test_a_dtype_converts_what_was_loaded(gpt2: Path) -> None:
    assert load(gpt2, dtype="bf16").root.dtype == torch.bfloat16
    assert load(gpt2).root.dtype == torch.float32


def broken(path: Path, change: Any) -> None:
    file = path / "model.safetensors"
    held = load_file(file)
    change(held)
    save_file(held, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.pop("transformer.ln_f.weight"), "transformer.ln_f.weight: expected"),
        (lambda held: held["transformer.ln_f.weight"].fill_(torch.nan), "64 NaN"),
        (
            lambda held: held.update({"transformer.ln_f.weight": torch.ones(3)}),
            "expected 64xf32, found 3xf32",
        ),
        (lambda held: held.update(other=torch.ones(3)), "other: expected nothing"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(
    copy: Path, change: Any, message: str
) -> None:
    broken(copy, change)
    with pytest.raises(UsageError, match="Nothing was loaded") as caught:
        load(copy)
    assert message in caught.value.message


def test_weights_that_are_not_there_are_missed_before_anything_is_imported(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"expected model\.safetensors"):
        parse(str(copy), {}, None)


def rewritten(path: Path, **values: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


def test_code_of_a_checkpoint_is_never_run(copy: Path) -> None:
    (copy / "modeling.py").write_text("raise SystemExit('it ran')")
    rewritten(
        copy, architectures=["OwnForCausalLM"], auto_map={"AutoModel": "modeling.OwnForCausalLM"}
    )
    with pytest.raises(UsageError, match=r"auto_map.*never run"):
        parse(str(copy), {}, None)
    rewritten(copy, architectures=["GPT2LMHeadModel"])
    assert load(copy).root.config.n_embd == 64


def test_quantised_weights_are_refused_as_such(copy: Path) -> None:
    rewritten(copy, quantization_config={"quant_method": "awq"})
    with pytest.raises(UsageError, match=r"quantised weights \(awq\)"):
        parse(str(copy), {}, None)


def test_what_a_family_of_the_zoo_loads_stays_the_zoos(copy: Path) -> None:
    rewritten(copy, architectures=["LlamaForCausalLM"])
    assert directories.read(copy) is None


def test_a_part_is_refused(gpt2: Path) -> None:
    with pytest.raises(UsageError, match="has no part 'decode'"):
        parse(f"{gpt2}:decode", {}, None)
