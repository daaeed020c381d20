"""Checked tensors into a model: all of them, as transformers would load them, or none.

Imports torch, and transformers for a model of its; runs where models are made.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from iree_pilot.models.fp8 import FORMATS
from iree_pilot.models.spec import Value, referred
from iree_pilot.models.traceable import DTYPES, Traceable, valueless
from iree_pilot.models.weights import compare, hyperparameters, reasons
from iree_pilot.models.weights.checkpoints import Checkpoint, CheckpointTensor, tensors
from iree_pilot.models.weights.hyperparameters import Header
from iree_pilot.models.weights.plan import (
    CheckpointPlan,
    as_scalar,
    check,
    config_of,
    empty,
    kind_of,
    renamed,
    to_fp8,
    wanted_by,
)
from iree_pilot.models.weights.read import not_finite, untied
from iree_pilot.models.weights.stored import StoredValues
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.program.archive import ArchiveEntry
from iree_pilot.pipeline.program.program import ELEMENT_TYPES

#: Module of transformers with the class that all of its models are of.
_BASE = "transformers.modeling_utils"
_FN, _FNUZ = "f8E4M3FN", "f8E4M3FNUZ"


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
    compare.refuse(
        (*not_finite(checkpoint.tensors), *untied(plan.held, plan.ties)),
        checkpoint.architecture,
        checkpoint.path,
        len(checkpoint.tensors),
    )
    values = _values(plan)
    stored = values.stored()
    needed, free = 2 * _bytes(plan), free_bytes()
    notes: tuple[str, ...] = ()
    if needed > free:
        model = _without_values(plan)
        notes = (_too_large(f"{plan.parameters:,} parameters", needed, free),)
    else:
        model = (_load_fp8 if spec.fp8 else _load)(plan).eval().requires_grad_(False)
    made: Traceable = referred(spec.build)(plan.fields, seed, model=model)
    made = dataclasses.replace(
        made,
        notes=(*made.notes, *notes),
        stored=stored,
        made={n: functools.partial(values, n) for n in plan.wanted if n not in stored},
    )
    return made.only(part) if part else made


def free_bytes() -> int:
    """Memory that may be taken without swapping."""
    return int(psutil.virtual_memory().available)


def _too_large(what: str, needed: int, free: int) -> str:
    return (
        f"{what}: loading them takes {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB is "
        "free, so PyTorch does not run it and there is nothing to compare with; the weights are "
        "used from their files"
    )


def _bytes(plan: CheckpointPlan) -> int:
    """Memory that a model's weights take."""
    return sum(
        math.prod(want.shape or ()) * ELEMENT_TYPES[want.dtype or "f32"].size
        for want in plan.wanted.values()
    )


def _values(plan: CheckpointPlan) -> StoredValues:
    recoded = plan.fields.get("fp8") == "e4m3fnuz"
    codes = [name for name, want in plan.wanted.items() if recoded and want.dtype == _FN]
    return StoredValues(plan.wanted, plan.held, plan.ties, codes)


def _without_values(plan: CheckpointPlan) -> Any:
    checkpoint, fields = plan.checkpoint, plan.fields
    config = config_of(checkpoint)
    config._attn_implementation = fields.get("attention", "eager")
    model, mode = valueless(kind_of(checkpoint), config, DTYPES[str(fields["dtype"])])
    if checkpoint.spec.fp8:
        compute, fp8 = DTYPES[str(fields["compute"])], FORMATS[str(fields["fp8"])]
        with mode:
            to_fp8(model, plan.keep, compute, fp8)
    return model


def _load(plan: CheckpointPlan) -> Any:
    checkpoint = plan.checkpoint
    kind = kind_of(checkpoint)
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


def _load_fp8(plan: CheckpointPlan) -> Any:
    checkpoint, fields = plan.checkpoint, plan.fields
    config = config_of(checkpoint)
    config._attn_implementation = fields["attention"]
    model = empty(checkpoint, config, DTYPES[str(fields["dtype"])])
    to_fp8(model, plan.keep, DTYPES[str(fields["compute"])], FORMATS[str(fields["fp8"])])
    values = _values(plan)
    state = {name: values(name) for name in plan.wanted}
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    return model


def _check_converted(model: nn.Module, checkpoint: Checkpoint) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.dtype in DTYPES.values() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(
                f"{checkpoint.path}: {name}: values beyond the range of {tensor.dtype}",
                advice="Choose a --dtype with more range (bf16, f32).",
            )


def replace(root: nn.Module, paths: tuple[str, ...], source: str) -> tuple[str, ...]:
    """Replaces a model's weights by those of archives or of a directory's safetensors, all or none.

    Returns what else of the model is the file's then, as sentences. Raises UsageError with every
    tensor that does not fit.
    """
    values, _, header = _fitting(root, paths, source)
    own, stored = root.state_dict(keep_vars=True), values.stored()
    # What must be converted may yet be refused, so it comes before anything is replaced.
    converted = {name: values(name) for name in own if name not in stored}
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(converted[name] if name in converted else values(name))
    return hyperparameters.adopt(root, header, Path(paths[0]).name)


def referenced(made: Traceable, paths: tuple[str, ...], source: str) -> Traceable:
    """A model without values that uses the weights of archives, or of a directory's safetensors.

    Raises UsageError with every tensor that does not fit.
    """
    values, wanted, header = _fitting(made.root, paths, source)
    stored = values.stored()
    return dataclasses.replace(
        made,
        stored=stored,
        made={n: functools.partial(values, n) for n in wanted if n not in stored},
        notes=(
            *made.notes,
            *hyperparameters.adopt(made.root, header, Path(paths[0]).name),
            f"{source} is traced without values, so PyTorch does not run it and "
            "there is nothing to compare with",
        ),
    )


def _fitting(
    root: nn.Module, paths: tuple[str, ...], source: str
) -> tuple[StoredValues, dict[str, ArchiveEntry], Header]:
    held: dict[str, CheckpointTensor] = {}
    for path in paths:
        held |= tensors(Path(path))
    where = ", ".join(paths)
    option = "" if Path(source).is_dir() else "--weights "  # else it is a checkpoint
    wanted, ties = wanted_by(root)
    made: dict[str, Callable[[], torch.Tensor]] = {}
    header = Header()
    of_transformers = any(one.__module__ == _BASE for one in type(root).__mro__)
    if of_transformers:
        from iree_pilot.models.weights import llama_cpp  # and with it transformers
    if not of_transformers:
        names = {name: name for name in held}
    elif llama_cpp.is_one(held):
        translated = llama_cpp.translate(root, held, source)
        names, held, header = translated.names, translated.held, translated.header
        made = {name: translated.made[own] for name, own in names.items()}
    else:
        names = renamed(root, held, wanted)
        # What older releases saved beside the weights, by transformers' own rules.
        unused = [*(getattr(root, "_keys_to_ignore_on_load_unexpected", None) or ())]
        names = {
            name: own
            for name, own in names.items()
            if name in wanted or not any(re.search(rule, name) for rule in unused)
        }
    by_name = {name: held[own] for name, own in names.items()}
    # What published checkpoints have is converted to the form that AMD's devices have.
    codes = [
        name
        for name, want in wanted.items()
        if want.dtype == _FNUZ and name in by_name and by_name[name].entry.dtype == _FN
    ]
    wanted |= {name: ArchiveEntry(dtype=_FN, shape=wanted[name].shape) for name in codes}
    faults = compare.compare(
        reasons.Load(
            what=source,
            where=where,
            wanted=wanted,
            tensors={name: as_scalar(name, one) for name, one in by_name.items()},
        ),
        ties=ties,
        names=names,
        convert=bool(made),
    )
    compare.refuse(faults, source, f"{option}{where}", len(held))
    if not made:  # else as they are unpacked
        faults = (*not_finite(held), *untied(by_name, ties))
        compare.refuse(faults, source, f"{option}{where}", len(held))
    return StoredValues(wanted, by_name, ties, codes, made), wanted, header
