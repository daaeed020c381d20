"""Tiny Hugging Face checkpoints, written by transformers itself, and ways to damage them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from iree_pilot.models.spec import resolve

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def save(model: str, directory: Path, shard: str = "5GB", **settings: str) -> Path:
    """The zoo's seeded model of that name as transformers saves it."""
    root: Any = resolve(model, settings).build(seed=3).root
    root.save_pretrained(directory, max_shard_size=shard)
    return directory


def save_fp8(directory: Path, **settings: str) -> Path:
    """An FP8 Llama as published ones are: codes, scales of shape [1], a quantization_config."""
    root: Any = resolve("llama-fp8", {"fp8": "e4m3fn", **settings}).build(seed=3).root
    root.config.save_pretrained(directory)
    state = {n: t.reshape(1) if "_scale" in n else t for n, t in root.state_dict().items()}
    save_file(state, directory / WEIGHTS, metadata={"format": "pt"})
    config(
        directory,
        architectures=["LlamaForCausalLM"],
        quantization_config={"quant_method": "compressed-tensors", "ignore": ["lm_head"]},
    )
    return directory


def config(directory: Path, **changes: Any) -> None:
    """Changes fields of a checkpoint's config.json; None takes one away."""
    file = directory / "config.json"
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def index(directory: Path) -> dict[str, str]:
    """Which tensor lies in which shard, by the checkpoint's index."""
    listed: dict[str, str] = json.loads((directory / INDEX).read_text())["weight_map"]
    return listed


def rewrite(directory: Path, **changes: torch.Tensor | None) -> None:
    """Replaces tensors of a checkpoint, by name with `__` for `.`; None takes one away."""
    file = directory / WEIGHTS
    state: dict[str, torch.Tensor | None] = {**load_file(file)}
    state |= {name.replace("__", "."): value for name, value in changes.items()}
    kept = {name: value for name, value in state.items() if value is not None}
    save_file(kept, file, metadata={"format": "pt"})
