"""Checked tensors into a model: all of them, as transformers would load them, or none.

Imports torch and transformers; runs where models are made.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers
from torch import nn

from models import versions, weights
from models.checkpoints import Checkpoint, Held, tensors
from models.fp8 import FP8Linear, to_fnuz
from models.spec import Value, referred
from models.traceable import DTYPES, Traceable
from models.weights_read import not_finite, read
from pipeline.archive import Entry
from pipeline.errors import UsageError
from pipeline.program import ELEMENT_TYPES, TORCH_ELEMENT_TYPES

_FP8_STORED = torch.float8_e4m3fn
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


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint against the model that it is for. fields: every field of the family. decided:
    those that the config gave a value to.

    parameters: how many numbers the model has. names: the model's name of each tensor to the
    checkpoint's. unused: the checkpoint's tensors that the architecture has no use for. keep:
    linears that stay in the model's dtype (FP8). convert: whether the user asked for a dtype, so
    that floats are converted.
    """

    checkpoint: Checkpoint
    fields: dict[str, Value]
    decided: tuple[str, ...]
    parameters: int
    names: dict[str, str]
    unused: tuple[str, ...]
    keep: tuple[str, ...]
    convert: bool
    faults: tuple[weights.Fault, ...]

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
        weights.refuse(self.faults, checkpoint.architecture, checkpoint.path, total)


def traceable(
    checkpoint: Checkpoint, given: Mapping[str, Value], part: str, seed: int
) -> Traceable:
    """The checkpoint's model as its family makes it, with the checkpoint's own weights.

    given: the fields that the user set. part: one function of it, or "". Raises UsageError where
    the checkpoint does not fit, EnvironmentFault where transformers does not.
    """
    plan = check(checkpoint, given)
    plan.refuse()
    spec = checkpoint.spec
    weights.refuse(
        not_finite(checkpoint.tensors),
        checkpoint.architecture,
        checkpoint.path,
        len(checkpoint.tensors),
    )
    model = (_load_fp8 if spec.fp8 else _load)(plan).eval().requires_grad_(False)
    made: Traceable = referred(spec.build)(plan.fields, seed, model=model)
    return made.only(part) if part else made


def check(checkpoint: Checkpoint, given: Mapping[str, Value]) -> Plan:
    """Compares a checkpoint's headers with transformers' model of its config on the meta device.

    Without tensors (a config alone) only the config is checked. Raises UsageError for a config that
    transformers or the family refuses.
    """
    spec = checkpoint.spec
    versions.check(spec.name, spec.library, spec.releases, (*_NEEDS, *spec.needs))
    kind = getattr(transformers, checkpoint.architecture)
    config = _config(checkpoint, kind)
    decided = _decided(checkpoint, config)
    fields = spec.values(spec.presets[0]) | decided | dict(given)
    problem = referred(spec.check)(fields) if spec.check else ""
    if problem:
        raise UsageError(
            f"{checkpoint.path}: the config does not fit {spec.name}: {problem}",
            advice="Mend config.json, or the --set fields.",
        )
    model = _empty(kind, config, DTYPES[str(fields["dtype"])], checkpoint)
    keep = _kept(model, checkpoint) if spec.fp8 else ()
    if spec.fp8:
        _to_fp8(model, keep, DTYPES[str(fields["compute"])])
    wanted, ties = _wanted(model)
    names = _renamed(model, checkpoint.tensors, wanted)
    unused = tuple(
        own
        for name, own in names.items()
        if name not in wanted and any(re.search(rule, own) for rule in spec.unused)
    )
    names = {name: own for name, own in names.items() if own not in unused}
    held = {name: checkpoint.tensors[own] for name, own in names.items()}
    if spec.fp8:
        held = {name: _as_scalar(name, h) for name, h in held.items()}
    convert = "dtype" in given
    faults = (
        weights.compare(
            wanted,
            held,
            what=checkpoint.architecture,
            where=checkpoint.path,
            config=checkpoint.config,
            ties=ties,
            names=names,
            convert=convert,
        )
        if checkpoint.tensors
        else ()
    )
    return Plan(
        checkpoint=checkpoint,
        fields=fields,
        decided=tuple(decided),
        parameters=sum(p.numel() for p in model.parameters()),
        names=names,
        unused=unused,
        keep=keep,
        convert=convert,
        faults=faults,
    )


def _config(checkpoint: Checkpoint, kind: Any) -> Any:
    raw = {k: v for k, v in checkpoint.config.items() if k != "quantization_config"}
    try:
        return kind.config_class.from_dict(raw)
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
    decided["dtype"] = known.get(said, "f32")
    if checkpoint.spec.fp8:
        decided["fp8"] = "e4m3fn"
    return decided


def _empty(kind: Any, config: Any, dtype: torch.dtype, checkpoint: Checkpoint) -> Any:
    try:
        with torch.device("meta"):
            return kind._from_config(config, dtype=dtype)
    except Exception as fault:  # sizes that do not go together fail anywhere in its constructor
        raise UsageError(
            f"{checkpoint.path}: transformers cannot make a {kind.__name__} of the config: "
            f"{' '.join(str(fault).split())}",
            advice="Mend config.json.",
        ) from fault


def _wanted(model: nn.Module) -> tuple[dict[str, Entry], list[list[str]]]:
    """The types of a model's saved tensors by name, and the groups of names of one tensor."""
    wanted, groups = {}, dict[int, list[str]]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        wanted[name] = Entry(dtype=_element(tensor.dtype), shape=tuple(tensor.shape))
        groups.setdefault(id(tensor), []).append(name)
    return wanted, [group for group in groups.values() if len(group) > 1]


def _element(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return TORCH_ELEMENT_TYPES.get(name, name)


def _renamed(model: Any, held: Mapping[str, Held], wanted: Mapping[str, Entry]) -> dict[str, str]:
    """The model's name of each tensor to the checkpoint's, as transformers itself renames them.

    Raises UsageError for an architecture whose tensors transformers also merges or splits.
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
            raise UsageError(
                f"{held[own].file}: {own}: transformers merges or splits this tensor for "
                f"{type(model).__name__}, which is not known how to check",
                advice="Load it with transformers and write it anew: model.save_pretrained(DIR).",
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


def _to_fp8(model: nn.Module, keep: tuple[str, ...], compute: torch.dtype) -> None:
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name, linear in linears.items():
        if name in keep:
            continue
        parent, _, attribute = name.rpartition(".")
        empty = torch.empty(linear.weight.shape, dtype=_FP8_STORED, device="meta")
        weight_scale, input_scale = torch.empty(2, device="meta").unbind()
        setattr(
            model.get_submodule(parent),
            attribute,
            FP8Linear(empty, weight_scale, input_scale, compute),
        )


def _as_scalar(name: str, held: Held) -> Held:
    """Scales come as [] or [1], in any float dtype; they are used as f32 of shape []."""
    entry = held.entry
    if not name.endswith(("weight_scale", "input_scale")) or entry.shape not in ((), (1,)):
        return held
    if entry.dtype not in ("f32", "f16", "bf16"):
        return held
    return Held(file=held.file, entry=Entry(dtype="f32", shape=()))


def _load(plan: Plan) -> Any:
    checkpoint = plan.checkpoint
    kind = getattr(transformers, checkpoint.architecture)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    model, info = kind.from_pretrained(
        checkpoint.path,
        dtype=DTYPES[str(plan.fields["dtype"])],
        attn_implementation=plan.fields.get("attention", "eager"),
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    left = [name for key in ("missing_keys", "mismatched_keys") for name in info[key]]
    if left:
        raise UsageError(
            f"{checkpoint.path}: transformers did not load {', '.join(map(str, left))}",
            advice="The checkpoint does not fit its config.",
        )
    if plan.convert:
        _check_converted(model, checkpoint)
    return model


def _load_fp8(plan: Plan) -> Any:
    checkpoint, fields = plan.checkpoint, plan.fields
    kind = getattr(transformers, checkpoint.architecture)
    config = _config(checkpoint, kind)
    config._attn_implementation = fields["attention"]
    dtype = DTYPES[str(fields["dtype"])]
    model = _empty(kind, config, dtype, checkpoint)
    _to_fp8(model, plan.keep, DTYPES[str(fields["compute"])])
    wanted, ties = _wanted(model)
    own = {name: checkpoint.tensors[plan.names[name]] for name in plan.names}
    values = dict(read({plan.names[name]: held for name, held in own.items()}))
    state = {name: values[stored] for name, stored in plan.names.items()}
    for name, want in wanted.items():
        if name not in state:
            state[name] = next(
                state[t] for group in ties if name in group for t in group if t in state
            )
        value = state[name].reshape(want.shape or ())
        state[name] = value.to(getattr(torch, ELEMENT_TYPES[want.dtype or "f32"].torch))
    if fields["fp8"] == "e4m3fnuz":
        for name, module in model.named_modules():
            if isinstance(module, FP8Linear):
                keys = [f"{name}.{k}" for k in ("weight", "weight_scale", "input_scale")]
                state |= zip(keys, to_fnuz(*(state[k] for k in keys)), strict=True)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    if plan.convert:
        _check_converted(model, checkpoint)
    return model


def _check_converted(model: nn.Module, checkpoint: Checkpoint) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.dtype in DTYPES.values() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(
                f"{checkpoint.path}: {name}: values beyond the range of {tensor.dtype}",
                advice="Choose a --dtype with more range (bf16, f32).",
            )


def replace(root: nn.Module, path: Path, source: str) -> None:
    """Replaces a model's weights by those of an archive or a directory of safetensors, all or none.

    Raises UsageError with every tensor that does not fit.
    """
    held = tensors(path)
    wanted, ties = _wanted(root)
    weights.refuse(
        weights.compare(wanted, held, what=source, where=str(path), ties=ties),
        source,
        f"--weights {path}",
        len(held),
    )
    weights.refuse(not_finite(held), source, f"--weights {path}", len(held))
    own = root.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, value in read(held):
            own[name].copy_(value.view(own[name].dtype).reshape(own[name].shape))
