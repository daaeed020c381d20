"""The likely reason why a tensor is missing, superfluous or of another type than a model's.

Reasons are guesses from names, shapes and the config; each says what it concludes from. They stand
beside what was expected and found, never instead of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from iree_pilot.models.weights.checkpoints import CheckpointTensor
from iree_pilot.pipeline.program.archive import ArchiveEntry

_FUSED = re.compile(r"(^|[._])(w?qkv|qkv_proj|query_key_value|c_attn|in_proj)([._]|$)", re.I)
_ONE = re.compile(r"(^|[._])([qkv])_proj\.weight$")
_LAYER = re.compile(r"(^|\.)(?:layers?|blocks?|h|blk)\.(\d+)\.")
_VISION = re.compile(r"(^|\.)(vision|visual|vit|image|mm_|multi_modal)\w*\.")
_TEXT = re.compile(r"(^|\.)(language_model|lm_head|embed_tokens|word_embeddings)(\.|$)")
_SCALES = (".weight_scale", ".input_scale")
#: Names of tensors in llama.cpp.
LLAMA_CPP = re.compile(r"^(blk\.\d+\.|token_embd\.|output_norm\.)")
_TRANSLATE = (
    "load it with transformers, from_pretrained(DIRECTORY, gguf_file=FILE), and save it again, "
    "save_pretrained(NEW)"
)


#: Types of weights that --dtype converts into each other.
CONVERTIBLE = frozenset({"f64", "f32", "f16", "bf16"})
_DTYPES = ("f32", "f16", "bf16")


def _unknown(path: tuple[str, ...], value: int) -> Mapping[str, ArchiveEntry]:
    return {}


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Values of a config.json. remade: the tensors of its model if the key at a path had another
    value; none if there is no such model."""

    values: Mapping[str, Any] = field(default_factory=dict)
    remade: Callable[[tuple[str, ...], int], Mapping[str, ArchiveEntry]] = _unknown


@dataclass(frozen=True, kw_only=True)
class Load:
    """A load: tensors of the file and of the model, by the model's names, and the config if any.

    what: the model, where: the checkpoint, for messages.
    """

    what: str
    where: str
    wanted: Mapping[str, ArchiveEntry]
    tensors: Mapping[str, CheckpointTensor]
    said: CheckpointConfig = CheckpointConfig()

    @cached_property
    def held(self) -> Mapping[str, ArchiveEntry]:
        """The types of the checkpoint's tensors."""
        return {name: tensor.entry for name, tensor in self.tensors.items()}

    @property
    def config(self) -> Mapping[str, Any]:
        """Values of the config."""
        return self.said.values

    def sizes(self, name: str) -> tuple[int, int, int] | None:
        """(attention heads, key-value heads, head size) of the part that a tensor is of."""
        config = self.part(name)
        heads = config.get("num_attention_heads") or config.get("num_heads")
        hidden = config.get("hidden_size")
        if not heads or not (config.get("head_dim") or hidden):
            return None
        size = config.get("head_dim") or hidden // heads
        return heads, config.get("num_key_value_heads") or heads, size

    def part(self, name: str) -> Mapping[str, Any]:
        """The config of the part that a tensor is of."""
        return self.config.get(_part(name)) or self.config

    def decides(self, name: str, dimension: int, want: int, got: int) -> str:
        """The config's key that makes a tensor's dimension `want`, and `got` with that value.

        "" where none is found: an equal number alone is no reason.
        """
        inner = self.config.get(_part(name)) or {}
        paths = [*((_part(name), key) for key in inner), *((key,) for key in self.config)]
        for path in paths:
            value = inner[path[1]] if path[1:] else self.config[path[0]]
            if type(value) is int and value == want:
                other = self.said.remade(path, got).get(name)
                shape = other.shape if other and other.shape else ()
                if shape[dimension : dimension + 1] == (got,):
                    return path[-1]
        return ""

    def lacks(self, name: str, key: str, value: int) -> bool:
        """True if the config of a tensor's part lacks a key, and that value of it decides whether
        the model has the tensor."""
        if not self.config or key in self.part(name):
            return False
        path = (_part(name), key) if _part(name) in self.config else (key,)
        other = self.said.remade(path, value)
        return bool(other) and (name in other) != (name in self.wanted)

    @cached_property
    def renamed(self) -> Mapping[str, str]:
        """A missing name to the superfluous one that may be the same tensor, and back: the only
        two of their type in a layer that end alike."""
        groups: dict[object, tuple[list[str], list[str]]] = {}
        for at, (side, other) in enumerate(((self.wanted, self.held), (self.held, self.wanted))):
            for name in side.keys() - other.keys():
                parts = name.split(".")
                key = (*filter(str.isdigit, parts), parts[-1]), side[name].dtype, side[name].shape
                if side[name].shape is not None:
                    groups.setdefault(key, ([], []))[at].append(name)
        pairs = [
            (ours[0], theirs[0])
            for ours, theirs in groups.values()
            if len(ours + theirs) == 2 and ours and theirs
        ]
        return {name: other for pair in pairs for name, other in (pair, pair[::-1])}

    def any(self, pattern: re.Pattern[str], side: Mapping[str, ArchiveEntry]) -> bool:
        """True if one of a side's names matches."""
        return any(pattern.search(name) for name in side)

    @cached_property
    def layers(self) -> tuple[Counter[str], Counter[str]]:
        """Numbers of layers wanted and held in each stack, as their names count them."""

        def count(side: Mapping[str, ArchiveEntry]) -> Counter[str]:
            counts = Counter[str]()
            for layer in filter(None, map(_LAYER.search, side)):
                stack = layer.string[: layer.start(2)]
                counts[stack] = max(counts[stack], int(layer[2]) + 1)
            return counts

        return count(self.wanted), count(self.held)


def missing(name: str, load: Load) -> str:
    """Likely reason that a tensor that the model needs is missing; "" if there is none."""
    stem, _, last = name.rpartition(".")
    if f".{last}" in _SCALES:
        weight = load.held.get(f"{stem}.weight")
        if weight is not None and weight.dtype and weight.dtype.startswith("f8"):
            dynamic = "activation" if last == "input_scale" else "weight"
            return f"FP8 without scales: this family needs a static {dynamic} scale for each linear"
        if weight is not None:
            return "this linear is not quantised in the checkpoint: is it in the config's ignore?"
    if load.any(LLAMA_CPP, load.held) and not load.held.keys() & load.wanted.keys():
        return f"the file has llama.cpp's names, not those of transformers: {_TRANSLATE}"
    if _VISION.search(name) and not load.any(_VISION, load.held):
        return f"the checkpoint holds the text part only, {load.what} has a vision tower"
    if _TEXT.search(name) and load.any(_VISION, load.held) and not load.any(_TEXT, load.held):
        return f"the checkpoint holds the vision part only, {load.what} has a text model"
    if (many := _count(name, load)) is not None:
        return many
    if name == "lm_head.weight" and any(n.endswith("embed_tokens.weight") for n in load.held):
        return (
            "tied embeddings: the checkpoint may share embed_tokens.weight, but its config says "
            "tie_word_embeddings is false"
        )
    if _prefixed(name, load.held):
        return f"there is {_prefixed(name, load.held)}: only the prefix differs"
    if name in load.renamed:
        return f"there is {load.renamed[name]} of the same type: is that its name?"
    return ""


def superfluous(name: str, got: ArchiveEntry, load: Load) -> str:
    """Likely reason that the checkpoint has a tensor that the model does not need."""
    if _FUSED.search(name):
        return _fused(name, got, load, apart=True)
    if name.endswith(_SCALES) or name.endswith("_scale_inv"):
        return "a scale of FP8 weights, but the model's layer is not in FP8"
    if re.search(r"\.[kv]_scale$", name):
        return "a scale of a KV cache in FP8; this family keeps the cache in the model's dtype"
    if LLAMA_CPP.search(name):
        return f"llama.cpp's name of a tensor that {load.what} does not have"
    if _VISION.search(name) and not load.any(_VISION, load.wanted):
        return f"a vision-tower layer, but {load.what} is text only"
    if _TEXT.search(name) and load.any(_VISION, load.wanted) and not load.any(_TEXT, load.wanted):
        return f"a text layer, but {load.what} is a vision model only"
    if (many := _count(name, load)) is not None:
        return many
    if _prefixed(name, load.wanted):
        return f"the model has {_prefixed(name, load.wanted)}: only the prefix differs"
    if name in load.renamed:
        return f"the model lacks {load.renamed[name]} of the same type: is that its name?"
    return ""


def shape(name: str, want: tuple[int, ...], got: tuple[int, ...], load: Load) -> str:
    """Likely reason that a tensor has another shape than the model's."""
    if _FUSED.search(name):
        return _fused(name, ArchiveEntry(shape=got), load, apart=False)
    if name.endswith(_SCALES):
        return "one scale a channel, not a tensor: this family takes per-tensor scales"
    one, sizes = _ONE.search(name), load.sizes(name)
    if one and sizes and len(want) == len(got) == 2 and want[1] == got[1] and not got[0] % sizes[2]:
        field = "num_attention_heads" if one[2] == "q" else "num_key_value_heads"
        says = sizes[0] if one[2] == "q" else sizes[1]
        return (
            f"{got[0]} rows are {got[0] // sizes[2]} heads of head_dim={sizes[2]}; {field}={says}"
        )
    if len(want) == len(got) == 2 and want == got[::-1]:
        return "transposed: a linear's weight is [out, in]"
    if sorted(want) == sorted(got):
        return "the dimensions are swapped"
    fields = {
        f"{key}={w}": None
        for at, (w, g) in enumerate(zip(want, got, strict=False))
        if w != g and (key := load.decides(name, at, w, g))
    }
    return f"the config says {', '.join(fields)}" if fields else ""


def dtype(name: str, want: str | None, got: str | None, load: Load) -> str:
    """Likely reason that a tensor has another dtype than the model's."""
    if got and got.startswith("f8") and not (want or "").startswith("f8"):
        scaled = f"{name.rpartition('.')[0]}.weight_scale" in load.held
        return "FP8 weights, but the config has no quantization_config" + (
            "" if scaled else "; FP8 without scales"
        )
    if want and want.startswith("f8") and not load.config:
        return "FP8 of another form, or not in FP8 at all: --set fp8 chooses the form"
    if want and want.startswith("f8"):
        return "the config says that this linear is in FP8 (quantization_config.ignore)"
    if got and got.startswith("ggml"):
        return f"quantised, which no model here takes: {_TRANSLATE}"
    if not {want, got} <= CONVERTIBLE:
        return f"--dtype converts floats only: write the tensor as {want}"
    said = load.config.get("dtype") or load.config.get("torch_dtype")
    if load.config and want in _DTYPES:
        says = f"the config says dtype={said}" if said else "the config says no dtype"
        return f"{says}; --dtype {want} converts"
    return f"a model of the zoo takes it with --dtype {got}" if got in _DTYPES else ""


def _fused(name: str, got: ArchiveEntry, load: Load, *, apart: bool) -> str:
    sizes = load.sizes(name)
    if sizes is None or not got.shape:
        return "query, key and value in one tensor"
    heads, kv, size = sizes
    lengths = {3 * heads * size: "heads * 3 * head_dim"}
    lengths[(heads + 2 * kv) * size] = "(heads + 2*kv_heads) * head_dim"
    if got.shape[0] in lengths and apart:
        return f"fused QKV: {load.what} keeps query, key and value apart"
    wanted = " and ".join(f"{formula} = {length}" for length, formula in lengths.items())
    return (
        f"fused QKV of length {got.shape[0]}, but {wanted}: num_attention_heads={heads}, "
        f"num_key_value_heads={kv} or head_dim={size} disagrees with it"
    )


def _count(name: str, load: Load) -> str | None:
    if (layer := _LAYER.search(name)) is None:
        return None
    wanted, held = (counts[name[: layer.start(2)]] for counts in load.layers)
    if not held or int(layer[2]) < min(wanted, held):
        return None
    config = f"the model has {wanted} layers"
    if said := load.part(name).get("num_hidden_layers"):
        config = f"num_hidden_layers={said}"
    elif load.lacks(name, "num_hidden_layers", held):
        config = f"the config has no num_hidden_layers, which is {wanted} by default"
    return f"{config}, the checkpoint has {held} layers"


def _prefixed(name: str, side: Mapping[str, ArchiveEntry]) -> str:
    ends = (n for n in side if n.endswith(f".{name}") or name.endswith(f".{n}"))
    return next(ends, "")


def _part(name: str) -> str:
    """The config's key for the part that a tensor is of, where it has parts."""
    return "vision_config" if _VISION.search(name) else "text_config"
