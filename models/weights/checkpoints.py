"""Reader of a checkpoint's config and of the tensors' places; no framework is loaded.

Only headers are read, and only of safetensors, .irpa and .gguf: a pickle can run code when it is
read, so it never is.
"""

from __future__ import annotations

import codecs
import difflib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.models.spec import ModelSpec, Value, registry
from iree_pilot.pipeline.errors import UsageError, nearest
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.program import archive, substitutes

CONFIG = "config.json"
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: Names in checkpoints of the FP8 methods with one static scale for each tensor.
FP8_METHODS = ("compressed-tensors", "fp8")

#: config.json and the index are text; those of the largest models have some MB.
_MOST_TEXT_BYTES = 256 * 2**20


class CheckpointTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of a checkpoint: the file and the name it lies under, its type by that header."""

    file: str
    name: str
    entry: archive.ArchiveEntry


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A Hugging Face checkpoint directory, or its config.json alone (then without tensors).

    config: config.json as it is. family: the zoo's model that can load it.
    """

    path: str
    config: dict[str, Any]
    architecture: str
    family: str
    tensors: dict[str, CheckpointTensor]

    @property
    def spec(self) -> ModelSpec:
        return registry()[self.family]

    @property
    def quantization(self) -> dict[str, Any]:
        """The config's words on quantised weights; empty if it has none."""
        return dict(self.config.get("quantization_config") or {})

    @property
    def files(self) -> tuple[str, ...]:
        """The files that hold tensors, in order."""
        return tuple(sorted({held.file for held in self.tensors.values()}))


def read(path: Path) -> Checkpoint:
    """The checkpoint in a directory.

    Raises UsageError, naming the file and the tensor, for a directory that is empty, that lacks its
    config or its weights or a shard, whose index and shards contradict each other, whose files are
    cut short, and for an architecture that the zoo does not have.
    """
    if not path.is_dir():
        what = "is a file, not a checkpoint directory" if path.exists() else "does not exist"
        raise UsageError(f"checkpoint {path}: {what}", advice="Name the directory of config.json.")
    names = sorted(p.name for p in path.iterdir())
    if not names:
        raise UsageError(
            f"checkpoint {path}: the directory is empty; expected {CONFIG} and {WHOLE}",
            advice="Was the download finished?",
        )
    check_regular(path)
    if CONFIG not in names and "report.json" in names:
        programs = [name for name in ("repro.mlir", "repro.py") if name in names]
        raise UsageError(
            f"{path} is the folder of a reproducer, not of a checkpoint",
            advice=f"Name the program in it: {path / programs[0]}"
            if programs
            else "It has no program: name the source that its report.json names.",
        )
    if CONFIG not in names:
        raise UsageError(
            f"checkpoint {path}: no {CONFIG}, only {_listed(names)}",
            advice=f"A model is built from {CONFIG}: put it beside the weights, or give the "
            "weights to a model of the zoo: iree-pilot run MODEL --weights FILE.",
        )
    config = read_config(path / CONFIG)
    return msgspec.structs.replace(config, path=str(path), tensors=tensors(path))


def check_regular(path: Path) -> None:
    """Raises UsageError where a file of a directory that would be read is none (a device, a pipe),
    or is text of a size that no configuration has. Links are followed: Hugging Face's cache is
    made of them."""
    for file in path.iterdir():
        if file.suffix not in (".json", ".safetensors") or not file.exists() or file.is_dir():
            continue
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(
                f"checkpoint {path}: {file.name} is no regular file", advice="Fetch it again."
            )
        if file.suffix == ".json" and found.st_size > _MOST_TEXT_BYTES:
            raise UsageError(
                f"checkpoint {path}: {file.name} has {found.st_size:,} bytes, more than any "
                "configuration or index",
                advice="Fetch it again.",
            )


def read_config(path: Path) -> Checkpoint:
    """Reads a config.json alone. Raises UsageError as `read` does."""
    try:
        config = _json(path)
    except OSError as fault:
        raise UsageError(f"cannot read {path}: {fault.strerror}", advice="Check the path.") from (
            fault
        )
    except UnicodeDecodeError as fault:
        wide = fault.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "is UTF-16; JSON is UTF-8" if wide else "is not text in UTF-8, as JSON is"
        advice = f"Name {CONFIG}, or the directory where it lies beside its weights."
        if path.name == CONFIG:
            advice = "Save it as UTF-8." if wide else "Fetch it again."
        raise UsageError(f"{path} {what}", advice=advice) from fault
    except (ValueError, RecursionError) as fault:
        raise UsageError(
            f"{path} is not JSON: {fault}", advice="Was the download finished?"
        ) from fault
    named = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        found = json.dumps(named)
        if not isinstance(config, dict):
            found = f"{_kind(config)} in place of an object"
        elif "architectures" not in config:
            found = "no such key"
        raise UsageError(
            f'{path}: expected "architectures": [NAME], found {found}',
            advice=f"Known: {', '.join(architectures())}.",
        )
    quantization = config.get("quantization_config") or {}
    family = _family(path, named[0], config, quantized=bool(quantization))
    method = quantization.get("quant_method", "?") if quantization else ""
    if quantization and method not in FP8_METHODS:
        raise UsageError(
            f"{path}: quantization_config.quant_method: expected {' or '.join(FP8_METHODS)} (FP8 "
            f"with static per-tensor scales), found {method}",
            advice="Take a checkpoint that is not quantised, or one of these.",
        )
    return Checkpoint(
        path=str(path), config=config, architecture=named[0], family=family.name, tensors={}
    )


def chosen(
    checkpoint: Checkpoint, settings: Mapping[str, str], dtype: str | None, part: str
) -> dict[str, Value]:
    """The fields that the user sets for a checkpoint, typed.

    Raises UsageError for an unknown field, value or part, and for a field that the config decides.
    """
    spec = checkpoint.spec
    if part and part not in spec.parts:
        advice = nearest(part, list(spec.parts)) or f"{spec.name} is one function."
        raise UsageError(f"{checkpoint.path}: {spec.name} has no part {part!r}", advice=advice)
    fields: dict[str, Value] = {}
    for name, text in {**settings, **({"dtype": dtype} if dtype else {})}.items():
        field = spec.field(name)
        if field.config:
            raise UsageError(
                f"{name}={text}: {checkpoint.path} decides it ({field.config} in {CONFIG})",
                advice="Leave it out; these can be set: "
                f"{', '.join(f.name for f in spec.fields if not f.config)}.",
            )
        fields[name] = field.parse(text)
    return fields


def architectures() -> dict[str, list[str]]:
    """The architectures that the zoo's families can load, with those families' names."""
    known: dict[str, list[str]] = {}
    for spec in registry().values():
        for architecture in spec.architectures:
            known.setdefault(architecture, []).append(spec.name)
    return known


def _family(
    path: Path, architecture: str, config: Mapping[str, Any], *, quantized: bool
) -> ModelSpec:
    zoo, known = registry(), architectures()
    if architecture not in known:
        raise UsageError(
            f"{path}: no family of the zoo loads the architecture {architecture}",
            advice=f"{_nearest(architecture, list(known))} Or write model.py with model() and "
            "inputs(), and name that file.",
        )
    fitting = [zoo[name] for name in known[architecture] if zoo[name].fp8 == quantized]
    text = (config.get("text_config") or {}).get("model_type")
    for spec in fitting:
        if spec.text_model in ("", text):
            return spec
    if fitting:
        raise UsageError(
            f"{path}: text_config.model_type: expected "
            f"{' or '.join(spec.text_model for spec in fitting)} for {architecture}, found {text}",
            advice="Take a checkpoint with one of these text models.",
        )
    form = "quantised weights" if quantized else "weights that are not quantised"
    raise UsageError(
        f"{path}: {architecture} has no family in the zoo for {form}",
        advice="Take the checkpoint in the other form.",
    )


def _nearest(architecture: str, known: list[str]) -> str:
    """Advice on a misspelt architecture: by the model's name, as many share the rest."""
    stems = {name.partition("For")[0] for name in known}
    close = difflib.get_close_matches(architecture.partition("For")[0], stems, cutoff=0.6)
    fitting = [name for name in known if name.partition("For")[0] in close]
    return f"Did you mean {' or '.join(fitting)}?" if fitting else f"Known: {', '.join(known)}."


def tensors(path: Path) -> dict[str, CheckpointTensor]:
    """The tensors of an archive or of a directory's safetensors, by name. Raises UsageError."""
    if not path.is_dir():
        return {
            n: CheckpointTensor(file=str(path), name=n, entry=e)
            for n, e in archive.read(path).items()
        }
    if (path / WHOLE).exists():
        return tensors(path / WHOLE)
    if (path / INDEX).exists():
        return indexed(path)
    names = sorted(p.name for p in path.iterdir())
    pickles = [n for n in names if Path(n).suffix in _PICKLES]
    loose = [n for n in names if n.endswith(".safetensors")]
    found = f"found {_listed(names)}" if names else "the directory is empty"
    advice = "Fetch the weights, or check the config alone: iree-pilot models check CONFIG."
    if pickles:
        found = (
            f"found only pickled weights ({_listed(pickles)}), which are never read: they can run "
            "code"
        )
        advice = "Write them as safetensors: model.save_pretrained(DIRECTORY)."
    elif loose:
        found = f"found {_listed(loose)} without an index that says which tensor lies where"
        advice = f"Fetch {INDEX}, or name a single file {WHOLE}."
    raise UsageError(f"checkpoint {path}: expected {WHOLE} or {INDEX}, {found}", advice=advice)


def indexed(path: Path, name: str = INDEX) -> dict[str, CheckpointTensor]:
    """The tensors of a directory's shards by name, as an index lists them. Raises UsageError."""
    index = path / name
    listed = _weight_map(index)
    shards = dict.fromkeys(sorted(listed.values()))
    for shard in shards:
        if not (path / shard).is_file():
            lost = sorted(name for name, file in listed.items() if file == shard)
            raise UsageError(
                f"checkpoint {path}: shard {shard} is missing; {name} expects "
                f"{count(len(lost), 'tensor')} in it (first {lost[0]}), found "
                f"{_listed([s for s in shards if s != shard])}",
                advice="Fetch the shard.",
            )
    found: dict[str, CheckpointTensor] = {}
    for shard in shards:
        found |= tensors(path / shard)
    wrong = [
        f"{name}: expected in {shard}, found "
        + (f"in {Path(found[name].file).name}" if name in found else "nowhere")
        for name, shard in sorted(listed.items())
        if name not in found or Path(found[name].file).name != shard
    ]
    wrong += [
        f"{name}: expected nowhere (not in the index), found in {Path(held.file).name}"
        for name, held in sorted(found.items())
        if name not in listed
    ]
    if wrong:
        raise UsageError(
            f"{index} does not fit its shards; {count(len(wrong), 'tensor')}:\n  "
            f"{shortened(wrong)}",
            advice="Index and shards must be of one download; fetch both again.",
        )
    return found


def _json(path: Path) -> Any:
    """Content of a JSON file. Raises UsageError where something else lies in its place."""
    content = path.read_bytes()
    substitutes.refuse(path, content[: substitutes.START_BYTES])
    return json.loads(content.decode())


def _weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor, by an index. Raises UsageError."""
    try:
        held = _json(index)
        listed = held.get("weight_map") if isinstance(held, dict) else None
        if not isinstance(held, dict):
            found = _kind(held)
        elif listed is None:
            found = "no weight_map"
        elif not isinstance(listed, dict):
            found = f"{_kind(listed)} for it"
        elif not listed:
            found = "an empty one"
        else:
            for name, file in listed.items():
                if not isinstance(file, str) or not file or Path(file).name != file:
                    shown = repr(file) if isinstance(file, str) else json.dumps(file)
                    found = f"{shown}, which is no file beside it, for {name}"
                    break
            else:
                return listed
    except (ValueError, RecursionError) as fault:
        found = f"no JSON: {fault}"
    raise UsageError(
        f"{index}: expected a JSON object whose weight_map names each tensor's file, found {found}",
        advice="Fetch the index again.",
    )


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return "null" if value is None else kinds.get(type(value), "a number")


def shortened(lines: list[str], most: int = 20) -> str:
    """The lines, indented by two, the first `most` of them and how many more there are."""
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n  ".join([*lines[:most], *more])


def _listed(names: list[str]) -> str:
    return ", ".join([*names[:5], *([f"and {len(names) - 5} more"] if len(names) > 5 else [])]) or (
        "nothing"
    )
