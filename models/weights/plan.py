"""A checkpoint against the model that it is for, from its config and its headers.

Imports torch, and transformers for a model of its; runs where models are made.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import torch
from torch import nn

from iree_pilot.models import versions
from iree_pilot.models.fp8 import FP8Linear
from iree_pilot.models.spec import Value, referred
from iree_pilot.models.traceable import DTYPES
from iree_pilot.models.weights import compare, reasons
from iree_pilot.models.weights.checkpoints import Checkpoint, CheckpointTensor
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.program.archive import ArchiveEntry
from iree_pilot.pipeline.program.program import TORCH_ELEMENT_TYPES

#: The only form of FP8 that published checkpoints have.
_PUBLISHED = torch.float8_e4m3fn
_NEEDS = (
    versions.Signature(
        function="transformers.conversion_mapping:get_model_conversion_mapping",
        parameters=("model",),
        release="5.23",
    ),
    versions.Signature(
        function="transformers.core_model_loading:rename_source_key",
        parameters=(
            "source_key",
            "weight_renamings",
            "weight_converters",
            "base_model_prefix",
            "meta_state_dict",
        ),
        release="5.23",
    ),
)


class MergedTensors(UsageError):
    """A checkpoint's tensors become a model's by more than another name."""


class CheckpointPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint against the model that it is for. fields: every field of the family. decided:
    those that the config gave a value to.

    parameters: how many numbers the model has. wanted: the types of its tensors, ties: groups of
    names that are one tensor. names: the model's name of each tensor to the checkpoint's. unused:
    the checkpoint's tensors that the architecture has no use for. keep: linears that stay in the
    model's dtype (FP8). convert: whether the user asked for a dtype, so that floats are converted.
    """

    checkpoint: Checkpoint
    fields: dict[str, Value]
    decided: tuple[str, ...]
    parameters: int
    wanted: dict[str, ArchiveEntry]
    ties: list[list[str]]
    names: dict[str, str]
    unused: tuple[str, ...]
    keep: tuple[str, ...]
    convert: bool
    faults: tuple[compare.TensorFault, ...]

    @property
    def held(self) -> dict[str, CheckpointTensor]:
        """The checkpoint's tensors by the model's names."""
        return {name: self.checkpoint.tensors[own] for name, own in self.names.items()}

    @property
    def shown(self) -> dict[str, Value]:
        """The fields that tell something: not those whose place in the config is no one value."""
        spec = self.checkpoint.spec
        own = {f.name for f in spec.fields if not f.config}
        return {n: v for n, v in self.fields.items() if n in own or n in self.decided}

    def refuse(self) -> None:
        """Raises UsageError if anything does not fit."""
        checkpoint = self.checkpoint
        total = len(checkpoint.tensors)
        compare.refuse(self.faults, checkpoint.architecture, checkpoint.path, total)


def check(checkpoint: Checkpoint, given: Mapping[str, Value]) -> CheckpointPlan:
    """Compares a checkpoint's headers with transformers' model of its config on the meta device.

    Without tensors (a config alone) only the config is checked. Raises UsageError for a config that
    transformers or the family refuses.
    """
    spec = checkpoint.spec
    versions.check(spec.name, spec.library, spec.releases, (*_NEEDS, *spec.needs))
    config = config_of(checkpoint)
    decided = _decided(checkpoint, config)
    fields = spec.values(spec.presets[0]) | decided | dict(given)
    problem = referred(spec.check)(fields) if spec.check else ""
    if problem:
        raise UsageError(
            f"{checkpoint.path}: the config does not fit {spec.name}: {problem}",
            advice="Mend config.json, or the --set fields.",
        )
    model = empty(checkpoint, config, DTYPES[str(fields["dtype"])])
    keep = _kept(model, checkpoint) if spec.fp8 else ()
    if spec.fp8:
        to_fp8(model, keep, DTYPES[str(fields["compute"])], _PUBLISHED)
    wanted, ties = wanted_by(model)
    names = renamed(model, checkpoint.tensors, wanted)
    unused = tuple(
        own
        for name, own in names.items()
        if name not in wanted and any(re.search(rule, own) for rule in spec.unused)
    )
    names = {name: own for name, own in names.items() if own not in unused}
    held = {name: checkpoint.tensors[own] for name, own in names.items()}
    if spec.fp8:
        held = {name: as_scalar(name, h) for name, h in held.items()}
    convert = "dtype" in given
    faults = (
        compare.compare(
            reasons.Load(
                what=checkpoint.architecture,
                where=checkpoint.path,
                wanted=wanted,
                tensors=held,
                said=reasons.CheckpointConfig(values=checkpoint.config, remade=_remade(checkpoint)),
            ),
            ties=ties,
            names=names,
            convert=convert,
        )
        if checkpoint.tensors
        else ()
    )
    return CheckpointPlan(
        checkpoint=checkpoint,
        fields=fields,
        decided=tuple(decided),
        parameters=sum(p.numel() for p in model.parameters()),
        wanted=wanted,
        ties=ties,
        names=names,
        unused=unused,
        keep=keep,
        convert=convert,
        faults=faults,
    )


def kind_of(checkpoint: Checkpoint) -> Any:
    """transformers' class of a checkpoint's architecture."""
    import transformers

    return getattr(transformers, checkpoint.architecture)


def config_of(checkpoint: Checkpoint) -> Any:
    """transformers' config of a checkpoint, without its quantisation. Raises UsageError."""
    # The code below reports what matters of a config; transformers would warn of it as well.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    kind = kind_of(checkpoint)
    raw = {k: v for k, v in checkpoint.config.items() if k != "quantization_config"}
    try:
        held = {k: v for k, v in raw.items() if not k.endswith("_implementation")}
        return kind.config_class.from_dict(held)
    except Exception as fault:  # whatever its validation raises
        raise UsageError(
            f"{checkpoint.path}: transformers' {kind.config_class.__name__} refuses the config: "
            f"{' '.join(str(fault).split())}",
            advice="Mend config.json.",
        ) from fault


def _decided(checkpoint: Checkpoint, config: Any) -> dict[str, Value]:
    """The fields that the config decides."""
    decided: dict[str, Value] = {}
    for field in checkpoint.spec.fields:
        value = config
        for part in field.config.split(".") if field.config else ():
            value = getattr(value, part, None)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool | int | str):
            decided[field.name] = value
    said = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    known = {str(dtype).removeprefix("torch."): name for name, dtype in DTYPES.items()}
    # Weights that are all of one dtype keep it, whatever the config says: many say nothing, or what
    # the model was trained in.
    floats = {one.entry.dtype for one in checkpoint.tensors.values()} & reasons.CONVERTIBLE
    kept = next(iter(floats)) if len(floats) == 1 and not checkpoint.spec.fp8 else None
    decided["dtype"] = kept if kept in DTYPES else known.get(said, "f32")
    if checkpoint.spec.fp8:
        decided["fp8"] = "e4m3fn"
    return decided


def empty(checkpoint: Checkpoint, config: Any, dtype: torch.dtype) -> Any:
    """A checkpoint's model on the meta device. Raises UsageError where its sizes do not fit."""
    kind = kind_of(checkpoint)
    try:
        with torch.device("meta"):
            return kind._from_config(config, dtype=dtype)
    except Exception as fault:  # sizes that do not go together fail anywhere in its constructor
        said = ", ".join(_keys(checkpoint.config, fault)) or " ".join(str(fault).split())
        raise UsageError(
            f"{checkpoint.path}: transformers cannot make a {kind.__name__} of the config: {said}",
            advice="Mend config.json.",
        ) from fault


def _keys(config: Mapping[str, Any], fault: Exception) -> list[str]:
    """Values in the config that transformers looked up and does not know."""
    if not isinstance(fault, KeyError):
        return []
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    said = [(key, value) for part in parts for key, value in part.items()]
    return [f"it does not know {key}={value}" for key, value in said if [value] == [*fault.args]]


def _remade(checkpoint: Checkpoint) -> Callable[[tuple[str, ...], int], Mapping[str, ArchiveEntry]]:
    """Function that gives the tensors of the config's model with another value of a key."""

    @functools.cache
    def remade(path: tuple[str, ...], value: int) -> Mapping[str, ArchiveEntry]:
        changed: dict[str, Any] = {**checkpoint.config}
        inner = changed
        for key in path[:-1]:
            inner[key] = {**inner[key]}
            inner = inner[key]
        inner[path[-1]] = value
        other = msgspec.structs.replace(checkpoint, config=changed)
        try:
            return wanted_by(empty(other, config_of(other), torch.float32))[0]
        except UsageError:
            return {}

    return remade


def wanted_by(model: nn.Module) -> tuple[dict[str, ArchiveEntry], list[list[str]]]:
    """The types of a model's saved tensors by name, and the groups of names of one tensor."""
    wanted, groups = {}, dict[int, list[str]]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        wanted[name] = ArchiveEntry(dtype=_element(tensor.dtype), shape=tuple(tensor.shape))
        groups.setdefault(id(tensor), []).append(name)
    return wanted, [group for group in groups.values() if len(group) > 1]


def _element(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return TORCH_ELEMENT_TYPES.get(name, name)


def renamed(
    model: Any, held: Mapping[str, CheckpointTensor], wanted: Mapping[str, ArchiveEntry]
) -> dict[str, str]:
    """The model's name of each tensor to the checkpoint's, as transformers itself renames them.

    Raises MergedTensors for an architecture whose tensors transformers also merges or splits.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    names = {}
    state = model.state_dict()
    for own in held:
        name, merged = rename_source_key(own, renamings, converters, model.base_model_prefix, state)
        if merged is not None:
            raise MergedTensors(
                f"{held[own].file}: {own}: transformers merges or splits this tensor for "
                f"{type(model).__name__}, which is not known how to check",
                advice="Load it with transformers and save it again: model.save_pretrained(DIR).",
            )
        names[name if name in wanted else own] = own
    return names


def _kept(model: nn.Module, checkpoint: Checkpoint) -> tuple[str, ...]:
    """The linears that the config leaves out of FP8."""
    said = checkpoint.quantization
    listed = [
        n for k in ("ignore", "ignored_layers", "modules_to_not_convert") for n in said.get(k) or ()
    ]

    def left(name: str) -> bool:
        return any(
            re.match(rule[3:], name) if rule.startswith("re:") else rule == name for rule in listed
        )

    return tuple(n for n, m in model.named_modules() if isinstance(m, nn.Linear) and left(n))


def to_fp8(model: nn.Module, keep: tuple[str, ...], compute: torch.dtype, fp8: torch.dtype) -> None:
    """Replaces the linears of a model without values, except those in `keep`, by FP8 ones."""
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name, linear in linears.items():
        if name in keep:
            continue
        parent, _, attribute = name.rpartition(".")
        device = linear.weight.device
        weight = torch.empty(linear.weight.shape, dtype=fp8, device=device)
        scales = (torch.empty((), device=device), torch.empty((), device=device))
        setattr(model.get_submodule(parent), attribute, FP8Linear(weight, *scales, compute))


def as_scalar(name: str, held: CheckpointTensor) -> CheckpointTensor:
    """Scales come as [] or [1], in any float dtype; they are used as f32 of shape []."""
    entry = held.entry
    if not name.endswith(("weight_scale", "input_scale")) or entry.shape not in ((), (1,)):
        return held
    if entry.dtype not in ("f32", "f16", "bf16"):
        return held
    return msgspec.structs.replace(held, entry=ArchiveEntry(dtype="f32", shape=()))
