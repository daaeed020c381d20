"""The hyper-parameters in a llama.cpp file's header beside those of a transformers model.

Rotary frequencies and the norms' epsilon change no tensor's shape, so a model can have those of the
file: it gets them. Everything else must agree. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy
import torch
from torch import nn

from iree_pilot.pipeline.errors import UsageError

Read = Callable[[str], Any]

#: Attributes that must agree, by the file's keys; keys that the file omits are not compared.
_SAME = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
#: Keys of what these models do not have, and the values that say so.
_WITHOUT: Mapping[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
}
_FREQUENCIES = "inv_freq"
#: llama.cpp's default base for layers with a window.
_BASE_OF_WINDOWS = 10000.0
_SLIDING = "sliding_attention"
#: Kinds of rotary embeddings that their frequencies alone determine.
_KINDS = {"default", "linear", "llama3"}
_CLOSE = 1e-6
#: Tolerance for frequencies, which are computed in f32 in more than one order.
_CLOSE_FREQUENCIES = 1e-5
#: A tensor of the file's, by whose numbers the rotary frequencies are divided.
FACTORS = "rope_freqs.weight"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Hyperparameters that a model takes from a file's header. frequencies: by the buffer's name;
    their text describes them. None and empty if the file does not have them."""

    epsilon: float | None = None
    frequencies: dict[str, tuple[float, ...]] = {}
    description: str = ""


def header(
    read: Read, model: Any, factors: tuple[float, ...], refuse: Callable[[list[str]], UsageError]
) -> Header:
    """Hyperparameters of the file for the model. read: returns the value of a key, without the
    architecture's name, or None. factors: those of `FACTORS`, if the file has them.

    Raises the error that `refuse` makes of the disagreements, each `KEY: expected X, found Y`.
    """
    wrong = [*_disagreements(read, model.config)]
    frequencies: dict[str, tuple[float, ...]] = {}
    description = ""
    base = read("rope.freq_base")
    if base is not None or factors:
        scaling = read("rope.scaling.type") or ("linear" if read("rope.scale_linear") else "none")
        scale = read("rope.scaling.factor") or read("rope.scale_linear") or 1.0
        if scaling not in ("none", "linear"):
            wrong.append(f"rope.scaling.type: expected none or linear, found {scaling}")
        for name, now in _rotary(model).items():
            size = 2 * len(now)
            found = read("rope.dimension_count") or size
            if found != size:
                wrong.append(f"rope.dimension_count: expected {size}, found {found}")
            if name.startswith(_SLIDING):
                own = read("rope.freq_base_swa") or _BASE_OF_WINDOWS
                frequencies[name] = _frequencies(own, size)
            else:
                scale = scale if scaling == "linear" else 1.0
                frequencies[name] = _frequencies(base or _BASE_OF_WINDOWS, size, scale, factors)
                description = f"base {base or _BASE_OF_WINDOWS:g}"
                description += f" divided by {scale:g}" if scale != 1 else ""
                description += f" and by {FACTORS}" if factors else ""
        wrong += [
            f"rope.scaling.type: expected {one}, found {scaling}" for one in _other_kinds(model)
        ]
    if wrong:
        raise refuse(wrong)
    epsilon = read("attention.layer_norm_rms_epsilon")
    return Header(
        # The file has it in f32: its shortest decimal is what was written.
        epsilon=None if epsilon is None else float(str(numpy.float32(epsilon))),
        frequencies=frequencies,
        description=description,
    )


def adopt(model: Any, given: Header, file: str) -> tuple[str, ...]:
    """Gives a model what a file's header says; returns what was not so before, as sentences."""
    changed = []
    epsilon = given.epsilon
    norms = [m for m in model.modules() if type(m).__name__.endswith("RMSNorm")]
    for norm in norms if epsilon is not None else ():
        name = "variance_epsilon" if hasattr(norm, "variance_epsilon") else "eps"
        if not math.isclose(getattr(norm, name), epsilon or 0.0, rel_tol=_CLOSE):
            changed.append(f"norm epsilon {epsilon:g} in place of {getattr(norm, name):g}")
            setattr(norm, name, epsilon)
            model.config.rms_norm_eps = epsilon
    for module in model.modules():
        for name, values in given.frequencies.items():
            now = getattr(module, name, None)
            if not isinstance(now, torch.Tensor):
                continue
            new = torch.tensor(values, dtype=torch.float32)
            if not torch.allclose(now.float(), new, rtol=_CLOSE_FREQUENCIES, atol=0):
                changed.append(f"rotary frequencies of {given.description}")
                stem = name.removesuffix(_FREQUENCIES)
                for own in (name, f"{stem}original_{_FREQUENCIES}"):
                    module.register_buffer(own, new.clone(), persistent=False)
    return tuple(f"{what}, as {file} says" for what in dict.fromkeys(changed))


def _disagreements(read: Read, config: Any) -> list[str]:
    wrong = []

    def differ(key: str, expected: Any, found: Any) -> None:
        wrong.append(f"{key}: expected {expected}, found {found}")

    for key, name in _SAME.items():
        own, found = getattr(config, name, None) or 0, read(key)
        values = found if isinstance(found, list) else [found]
        if found is not None and not all(math.isclose(own, v, rel_tol=_CLOSE) for v in values):
            differ(key, own or "none", found)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for key in ("attention.key_length", "attention.value_length"):
        if (found := read(key)) not in (None, size):
            differ(key, size, found)
    longest = config.max_position_embeddings
    if (found := read("context_length")) is not None and found < longest:
        differ("context_length", f"{longest} or more", found)
    window = getattr(config, "sliding_window", None) or 0
    found = read("attention.sliding_window")
    if found is not None and found != window and min(found or longest, window or longest) < longest:
        differ("attention.sliding_window", window or "none", found)
    scale = getattr(config, "query_pre_attn_scalar", None) or size
    found = read("attention.scale")
    if found and not math.isclose(found, scale**-0.5, rel_tol=_CLOSE):
        differ("attention.scale", scale**-0.5, found)
    for key, without in _WITHOUT.items():
        if (found := read(key)) is not None and found not in without:
            differ(key, "none", found)
    return wrong


def _rotary(model: Any) -> dict[str, torch.Tensor]:
    """The rotary frequencies by their buffers' names: of all layers, or of each type of layers."""
    found = {}
    for path, tensor in model.named_buffers():
        name = path.rpartition(".")[2]
        if name.endswith(_FREQUENCIES) and "original_" not in name:
            found[name] = tensor
    return found


def _other_kinds(model: nn.Module) -> list[str]:
    """The kinds of rotary embeddings that do more than multiply positions by frequencies."""
    kinds = [getattr(module, "rope_type", None) for module in model.modules()]
    flat = [k for kind in kinds for k in (kind.values() if isinstance(kind, dict) else [kind])]
    return sorted({str(kind) for kind in flat if kind} - _KINDS)


def _frequencies(
    base: float, size: int, scale: float = 1.0, factors: tuple[float, ...] = ()
) -> tuple[float, ...]:
    """Frequencies in f32, as transformers computes them."""
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    found = 1.0 / (base**exponents) / scale
    if factors:
        found = found / torch.tensor(factors)
    return tuple(found.tolist())
