"""Switches of transformers' models: other ways to compute the same, set on a model that is made.

Imports nothing that is slow: a source's options are checked with the table alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from iree_pilot.pipeline.errors import UsageError, nearest


class Switch(NamedTuple):
    """A switch: its values, the line of Python that sets one of them, and what it decides."""

    values: tuple[str, ...]
    line: str
    decides: str


#: By the name that `--set` takes.
SWITCHES: Mapping[str, Switch] = {
    "attn_implementation": Switch(
        ("eager", "sdpa"),
        'model.set_attn_implementation("{}")',
        "attention is matmuls and a softmax (eager), or scaled_dot_product_attention (sdpa)",
    ),
    "experts_implementation": Switch(
        ("batched_mm", "grouped_mm", "eager"),
        'model.set_experts_implementation("{}")',
        "experts are a batch of matmuls, a grouped matmul, or a loop over those that are used",
    ),
    "use_cache": Switch(
        ("false", "true"),
        "model.config.use_cache = {}",
        "the model returns its keys and values beside the logits, or does not",
    ),
}


#: The setting that is no model's: values of tensors by which Python chooses are taken from the
#: example inputs at the trace.
DATA_DEPENDENT, EXAMPLE = "data_dependent", "example"
#: Settings that are no arguments of a factory, unless it takes one of such a name itself.
NAMES = (*SWITCHES, DATA_DEPENDENT)


def by_inputs(fields: Mapping[str, Any]) -> bool:
    """True if fields of a source have `data_dependent=example`."""
    return fields.get(DATA_DEPENDENT) == EXAMPLE


def check(settings: Mapping[str, str]) -> None:
    """Raises UsageError for a value that a switch does not have."""
    known = {DATA_DEPENDENT: (EXAMPLE,), **{name: one.values for name, one in SWITCHES.items()}}
    for name, value in settings.items():
        if name in known and value not in known[name]:
            raise UsageError(
                f"--set {name}={value}: it is none of {', '.join(known[name])}",
                advice=nearest(value, [*known[name]]),
            )


def line(name: str, value: str) -> str:
    """The line of Python that sets a switch of `model`."""
    return SWITCHES[name].line.format(value.capitalize() if name == "use_cache" else value)


def held(root: Any) -> dict[str, str]:
    """Switches of a model, or of the models in it, as they are set."""
    found: dict[str, str] = {}
    for model in _models(root):
        config = model.config
        if getattr(type(model), "_supports_sdpa", False) and model._can_set_attn_implementation():
            found.setdefault("attn_implementation", str(config._attn_implementation))
        if model._can_set_experts_implementation():
            found.setdefault("experts_implementation", str(config._experts_implementation))
        if (use := getattr(config, "use_cache", None)) is not None:
            found.setdefault("use_cache", str(bool(use)).lower())
    return found


def apply(root: Any, settings: Mapping[str, str | int | bool], source: str) -> None:
    """Sets switches of a model. Raises UsageError for one that it does not have."""
    known = held(root) if settings else {}
    for name, value in settings.items():
        if name not in known:
            has = f"It has {', '.join(known)}." if known else "Leave --set out."
            raise UsageError(f"the model of {source} has no switch {name}", advice=has)
        for model in _models(root):
            if name == "attn_implementation":
                model.set_attn_implementation(str(value))
            elif name == "experts_implementation":
                if model._can_set_experts_implementation():
                    model.set_experts_implementation(str(value))
            elif getattr(model.config, name, None) is not None:
                setattr(model.config, name, value == "true")
        if held(root)[name] != value:
            raise UsageError(
                f"the model of {source} does not take {name}={value}",
                advice=f"It is {held(root)[name]}.",
            )


def _models(root: Any) -> Iterator[Any]:
    """transformers' models in a module, without those that are parts of another."""
    if "transformers" not in sys.modules or root is None:
        return
    from transformers import PreTrainedModel

    if isinstance(root, PreTrainedModel):
        yield root
        return
    for child in root.children():
        yield from _models(child)
