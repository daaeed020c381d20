"""transformers' models by class or model type; imports torch and transformers."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from iree_pilot.models.libraries import rules, samples, trial
from iree_pilot.models.libraries.directories import Directory
from iree_pilot.models.libraries.request import Attempts, ModelRequest
from iree_pilot.models.traceable import unsettle, valueless
from iree_pilot.models.weights.load import free_bytes
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.source import literal

#: Mappings of model types to classes, the one with the head that a type is known by first.
_HEADS = (
    *("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM"),
    *("SPEECH_SEQ_2_SEQ", "CTC", "IMAGE_CLASSIFICATION", "OBJECT_DETECTION"),
    *("SEMANTIC_SEGMENTATION", "UNIVERSAL_SEGMENTATION", "DEPTH_ESTIMATION"),
    *("VIDEO_CLASSIFICATION", "AUDIO_CLASSIFICATION", "ZERO_SHOT_OBJECT_DETECTION"),
    *("MASK_GENERATION", "TIME_SERIES_PREDICTION"),
)
#: Ways of computing the same that `from_pretrained` takes beside the configuration.
_SWITCHES = ("attn_implementation", "experts_implementation")


def attempts(request: ModelRequest) -> tuple[str, Attempts]:
    """(the class's name, ways to make the model). Raises UsageError for what it does not have."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    kind = _class(request)
    usual = _usual(kind, request) if request.directory is None else _stored(kind, request.directory)
    if request.full:
        return kind.__name__, iter([partial(_attempt, kind, request, _full(usual, request))])
    return kind.__name__, _small(kind, usual, request)


def _small(kind: Any, usual: Any, request: ModelRequest) -> Attempts:
    for size in rules.SIZES:
        yield partial(_attempt_small, kind, usual, request, size)


def _class(request: ModelRequest) -> Any:
    name = request.name
    kind: Any = getattr(transformers, name, None) if name.isidentifier() else None
    model = isinstance(kind, type) and issubclass(kind, PreTrainedModel)
    if model:
        if kind.config_class is None:
            raise request.unknown(": it is a base class, which has no configuration of its own")
        return kind
    if kind is not None and name[0].isupper():
        raise request.unknown(": there is something of that name, but it is no PreTrainedModel")
    for mapping in (*(f"MODEL_FOR_{head}" for head in _HEADS), "MODEL"):
        known = getattr(modeling_auto, f"{mapping}_MAPPING_NAMES")
        for spelt in (name, name.replace("-", "_"), name.replace("_", "-")):
            if found := known.get(spelt):
                return getattr(transformers, found[0] if isinstance(found, tuple) else found)
    raise request.unknown()


def _usual(kind: Any, request: ModelRequest) -> Any:
    """The class's own configuration."""
    try:
        return kind.config_class()
    except Exception as fault:  # a composite of configurations that have to be given
        raise UsageError(
            f"{request.text}: {kind.config_class.__name__} has no configuration of its own: "
            f"{' '.join(str(fault).split())[:200]}",
            advice="Write model.py with model() and inputs(), and name that file.",
        ) from fault


def _stored(kind: Any, held: Directory) -> Any:
    """The configuration of a checkpoint. Raises UsageError where its class refuses it."""
    try:
        return kind.config_class.from_dict(held.config)
    except Exception as fault:  # whatever its validation raises
        raise UsageError(
            f"{held.path}: transformers' {kind.config_class.__name__} refuses the config: "
            f"{' '.join(str(fault).split())}",
            advice="Mend config.json.",
        ) from fault


def small(config: Any, size: rules.Size, ids: dict[int, int]) -> Any:
    """A configuration of the same class with the sizes of a small model; see `rules.small`."""
    values = _values(config)
    parts = {n: v for n, v in values.items() if isinstance(v, PretrainedConfig)}
    plain = {n: v for n, v in values.items() if n not in parts}
    usual = _values(type(config)())
    changed = {n: v for n, v in plain.items() if v != usual.get(n)}
    changed |= rules.small(plain, ids, size)
    changed |= {n: small(v, size, ids) for n, v in parts.items()}
    if "use_cache" in plain:
        changed["use_cache"] = False
    return type(config)(**changed)


def _values(config: Any) -> dict[str, Any]:
    values = {}
    for one in dataclasses.fields(config):
        with contextlib.suppress(Exception):  # what layers have of their own is refused for all
            values[one.name] = getattr(config, one.name, None)
    if getattr(config, "out_indices", None):  # of a backbone
        values["out_indices"] = list(config.out_indices)
    return values


def _full(config: Any, request: ModelRequest) -> Any:
    for part in _parts(config):
        if hasattr(part, "use_cache"):
            part.use_cache = False
    return _set(config, request)


def _parts(config: Any) -> Iterator[Any]:
    yield config
    for part in _values(config).values():
        if isinstance(part, PretrainedConfig):
            yield from _parts(part)


def _set(config: Any, request: ModelRequest) -> Any:
    """The configuration with the user's fields; `text_config.hidden_size` names one of a part.

    Raises UsageError for a field that it does not have, and for a value that its class refuses.
    """
    if not request.fields:
        return config
    changed = config.to_dict()
    for name, word in request.fields.items():
        if name in _SWITCHES:
            continue
        *parts, last = name.split(".")
        owner, held = config, changed
        for index, part in enumerate(parts):
            if not isinstance(getattr(owner, part, None), PretrainedConfig):
                raise request.no_field(".".join(parts[: index + 1]), _names(config))
            owner, held = getattr(owner, part), held[part]
        last = owner.attribute_map.get(last, last)
        if last not in _values(owner):
            raise request.no_field(name, _names(config))
        held[last] = literal(word)
    try:
        return type(config).from_dict(changed)
    except Exception as fault:  # whatever its validation raises
        raise UsageError(
            f"{request.text}: {type(config).__name__} refuses the fields that are set: "
            f"{' '.join(str(fault).split())[:300]}",
            advice="Change one of them with --set.",
        ) from fault


def _names(config: Any, before: str = "") -> list[str]:
    found = []
    for name, held in _values(config).items():
        found.append(f"{before}{name}")
        if isinstance(held, PretrainedConfig):
            found += _names(held, f"{before}{name}.")
    return [*found, *_SWITCHES]


def _attempt_small(
    kind: Any, usual: Any, request: ModelRequest, size: rules.Size
) -> trial.ModelTrial:
    config = _set(small(usual, size, {}), request)
    with torch.device("meta"):
        count = sum(p.numel() for p in kind._from_config(config).parameters())
    if count > trial.MOST_PARAMETERS:
        raise ValueError(f"a configuration of {count:,} parameters is not small")
    return _attempt(kind, request, config)


def _attempt(kind: Any, request: ModelRequest, config: Any) -> trial.ModelTrial:
    switches = {n: request.fields[n] for n in _SWITCHES if n in request.fields}
    lengths = samples.Lengths(batch=request.batch, length=request.length)
    for name, word in switches.items():
        setattr(config, f"_{name}", word)
    if request.full and _bytes(kind, config, request.made_in) * 2 > free_bytes():
        model, mode = valueless(kind, config, request.made_in)
        return trial.ModelTrial(model, samples.candidates(model, config, lengths), mode)
    model = kind._from_config(config, dtype=request.made_in).eval().requires_grad_(False)
    unsettle(model)
    return trial.ModelTrial(model, samples.candidates(model, config, lengths))


def _bytes(kind: Any, config: Any, dtype: torch.dtype) -> int:
    with torch.device("meta"):
        made = kind._from_config(config, dtype=dtype)
    return sum(p.numel() * p.element_size() for p in made.parameters())
