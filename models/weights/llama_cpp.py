"""llama.cpp's GGUF files as weights of a transformers model: names, layouts and packed numbers.

llama.cpp names tensors its own way, permutes Llama's queries and keys, adds one to Gemma's gains
and packs numbers in blocks. transformers has the tables and undoes the changes, the package gguf
unpacks. Imports torch and transformers.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import torch
from transformers import modeling_gguf_pytorch_utils as tables

from iree_pilot.models import versions
from iree_pilot.models.weights.checkpoints import CheckpointTensor
from iree_pilot.models.weights.hyperparameters import FACTORS, Header, header
from iree_pilot.models.weights.reasons import LLAMA_CPP
from iree_pilot.pipeline import extras
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.program.archive import ArchiveEntry

#: llama.cpp's name of each transformers model type that transformers has tables for.
_ARCHITECTURES = {
    "llama": "llama",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "qwen2": "qwen2",
}
_EMBEDDING, _HEAD, _OWN_HEAD = "token_embd.weight", "output.weight", "lm_head.weight"
_NEEDS = (
    versions.Signature(
        function="transformers.modeling_gguf_pytorch_utils:get_gguf_hf_weights_map",
        parameters=("hf_model", "processor"),
        release="5.23",
    ),
    versions.Signature(
        function="transformers.modeling_gguf_pytorch_utils:TensorProcessor.process",
        parameters=("weights", "name"),
        release="5.23",
    ),
)


class Translated(msgspec.Struct, frozen=True, kw_only=True):
    """A file's tensors for a model. names: the model's names to the file's, those that it has no
    name for under the file's. held: the file's tensors, of the types that they have when unpacked.
    made: gives a tensor's value by the file's name, in f32, as the model has it. header: what the
    model is to have besides.
    """

    names: dict[str, str]
    held: dict[str, CheckpointTensor]
    made: dict[str, Callable[[], torch.Tensor]]
    header: Header


def is_one(held: Mapping[str, CheckpointTensor]) -> bool:
    """True if tensors are of a file by llama.cpp: by their file's kind and their names."""
    return any(h.file.endswith(".gguf") and LLAMA_CPP.match(name) for name, h in held.items())


def translate(model: Any, held: Mapping[str, CheckpointTensor], what: str) -> Translated:
    """The tensors of one GGUF file for a transformers model, without reading values.

    what: the model, for messages. Raises EnvironmentFault without the package gguf, and UsageError
    for several files, one that is cut short, one of another architecture than the model's, and one
    whose header says what the model cannot have.
    """
    path, *more = sorted({one.file for one in held.values()})
    if more:
        raise UsageError(
            f"--weights {path}: a llama.cpp file together with {', '.join(more)}",
            advice="Give one file that holds all tensors: llama-gguf-split --merge joins splits.",
        )
    if importlib.util.find_spec("gguf") is None:
        name, one = next(((n, h) for n, h in held.items() if _packed(h)), next(iter(held.items())))
        raise EnvironmentFault(
            f"{path}: {name}: {one.entry} by llama.cpp: reading it needs the package gguf",
            advice=extras.install("gguf"),
        )
    versions.check("--weights FILE.gguf", "gguf", ">=0.17", _NEEDS)
    reader, found = _opened(path)
    tensors, config = {tensor.name: tensor for tensor in reader.tensors}, model.config
    expected = _ARCHITECTURES.get(config.model_type)
    if found != expected:
        raise UsageError(
            f"{path}: general.architecture: expected {expected or 'none that is known'} for {what} "
            f"({config.model_type}), found {found}",
            advice="Known: " + ", ".join(f"{own} as {g}" for own, g in _ARCHITECTURES.items()),
        )
    given = header(
        functools.partial(_read, reader, found),
        model,
        _factors(tensors),
        functools.partial(_disagreement, path, found),
    )
    held = {name: one for name, one in held.items() if name != FACTORS}
    kind = tables.TENSOR_PROCESSORS.get(found, tables.TensorProcessor)
    processor = kind(config=config.to_dict())
    known = tables.get_gguf_hf_weights_map(model, processor)
    names = {known.get(name, name): name for name in held}
    if config.tie_word_embeddings:
        _check_tied(path, tensors)
    elif _HEAD not in held and _EMBEDDING in held:
        names[_OWN_HEAD] = _EMBEDDING  # llama.cpp leaves out a head that is the embedding
    return Translated(
        names=names,
        held={
            name: msgspec.structs.replace(
                one, entry=ArchiveEntry(dtype="f32", shape=one.entry.shape)
            )
            if _packed(one)
            else one
            for name, one in held.items()
        },
        made={
            name: functools.partial(_value, path, name, tensors[name], processor) for name in held
        },
        header=given,
    )


def _packed(one: CheckpointTensor) -> bool:
    return bool(one.entry.dtype and one.entry.dtype.startswith("ggml-"))


def _opened(path: str) -> tuple[Any, str]:
    """A file, whose tensors stay in it, and the architecture that it says it is of."""
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        (architecture,) = tables.read_field(reader, "general.architecture") or ("nothing",)
    except Exception as fault:  # NumPy's, where the file ends too early
        raise UsageError(
            f"{path}: the package gguf cannot read it: {' '.join(str(fault).split())}",
            advice="Was the download finished?",
        ) from fault
    return reader, architecture


def _read(reader: Any, architecture: str, key: str) -> Any:
    """A value of the file's metadata; a list where it has several, None where there is none."""
    found = tables.read_field(reader, f"{architecture}.{key}")
    return None if not found else found[0] if len(found) == 1 else list(found)


def _factors(tensors: Mapping[str, Any]) -> tuple[float, ...]:
    found = tensors.get(FACTORS)
    return () if found is None else tuple(float(value) for value in found.data.reshape(-1))


def _disagreement(path: str, architecture: str, wrong: list[str]) -> UsageError:
    return UsageError(
        f"{path}: {'; '.join(f'{architecture}.{one}' for one in wrong)}",
        advice="Nothing was loaded. Choose the preset, or --set the fields, that belong to it.",
    )


def _check_tied(path: str, tensors: Mapping[str, Any]) -> None:
    """Raises UsageError where the model's head is the embedding, and the file's another tensor."""
    head, embedding = tensors.get(_HEAD), tensors.get(_EMBEDDING)
    if head is None or embedding is None or np.array_equal(head.data, embedding.data):
        return
    raise UsageError(
        f"{path}: {_HEAD}: expected {_EMBEDDING}, found other numbers (the model's output head is "
        "its embedding)",
        advice="Nothing was loaded. Take a model with tie_word_embeddings=False.",
    )


def _value(path: str, name: str, tensor: Any, processor: Any) -> torch.Tensor:
    import gguf

    try:
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as fault:
        raise UsageError(
            f"{path}: {name}: the package gguf cannot unpack {tensor.tensor_type.name}",
            advice="Take a file of another type: llama-quantize --allow-requantize FILE NEW f16.",
        ) from fault
    value = torch.tensor(processor.process(numbers, name).weights)
    if not bool(torch.isfinite(value).all()):
        raise UsageError(
            f"{path}: {name}: expected finite numbers, found NaN or infinite ones",
            advice="Nothing was loaded. Fetch the file again.",
        )
    return value
