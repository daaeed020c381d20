"""Checkpoint directories that a library loads itself, known by config.json; imports none.

Code that lies in a directory (`auto_map`) is never run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.models.libraries import names
from iree_pilot.models.weights import checkpoints
from iree_pilot.pipeline.errors import UsageError

#: Names of a single file of weights and of an index of several, as diffusers writes them.
_DIFFUSERS = "diffusion_pytorch_model.safetensors"


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that a library loads: its class or model there, config.json as it is.

    files: what holds its tensors, absolute.
    """

    path: str
    library: str
    name: str
    config: dict[str, Any]
    files: tuple[str, ...] = ()


def read(path: Path) -> Directory | None:
    """The checkpoint in a directory; None where it is no library's, or one that the zoo loads.

    Raises UsageError where its weights are not all there, and for code of its own.
    """
    checkpoints.check_regular(path)
    config = _config(path)
    named = _named(path, config)
    if named is None:
        return None
    library, name = named
    held = _of_diffusers(path) if library == "diffusers" else checkpoints.tensors(path)
    files = tuple(dict.fromkeys(one.file for one in held.values()))
    return Directory(path=str(path), library=library, name=name, config=config, files=files)


def _config(path: Path) -> dict[str, Any]:
    """Content of config.json; {} where it cannot be read, which `checkpoints.read` reports."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads((path / checkpoints.CONFIG).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            # Names of implementations may stand for code of others, to be fetched and run.
            return {k: v for k, v in found.items() if not k.endswith("_implementation")}
    return {}


def _named(path: Path, config: Mapping[str, Any]) -> tuple[str, str] | None:
    if isinstance(config.get("_class_name"), str):
        return "diffusers", config["_class_name"]
    if isinstance(config.get("architecture"), str) and not config.get("architectures"):
        return "timm", config["architecture"]
    listed = config.get("architectures")
    first = listed[0] if isinstance(listed, list) and listed else None
    if not isinstance(first, str) or first in checkpoints.architectures():
        return None
    if first in names.known("transformers"):
        if quantization := config.get("quantization_config"):
            raise UsageError(
                f"{path / checkpoints.CONFIG}: {first} with quantised weights "
                f"({quantization.get('quant_method', '?')}), which only families of the zoo load",
                advice="Take a checkpoint that is not quantised.",
            )
        return "transformers", first
    if config.get("auto_map"):
        raise UsageError(
            f"{path / checkpoints.CONFIG}: {first} is made by code in the checkpoint (auto_map), "
            "which is never run",
            advice="Write model.py with model() and inputs(), and name that file.",
        )
    return None


def _of_diffusers(path: Path) -> dict[str, checkpoints.CheckpointTensor]:
    index = path / f"{_DIFFUSERS}.index.json"
    if not index.is_file():
        if not (path / _DIFFUSERS).is_file():
            raise UsageError(
                f"checkpoint {path}: expected {_DIFFUSERS} or its index, found "
                f"{', '.join(sorted(p.name for p in path.iterdir())[:5])}",
                advice="Write the weights as safetensors: model.save_pretrained(DIRECTORY).",
            )
        return checkpoints.tensors(path / _DIFFUSERS)
    return checkpoints.indexed(path, index.name)
