"""The program that a candidate's rewrite leaves: with the original's inputs and reference.

What a rewrite computes must be what the program computes, so it is judged by the original's
reference. Only a model of the zoo that is made anew, of other fields, brings a reference of its
own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends import switches
from iree_pilot.pipeline.frontends.job import Job, TraceFailed
from iree_pilot.pipeline.frontends.load import Loaded, load
from iree_pilot.pipeline.frontends.switches import DATA_DEPENDENT, EXAMPLE, SWITCHES
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.program import archive, python_lines, tensors
from iree_pilot.pipeline.program.program import Decided, Parameter, Parameters, holds_for
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.workarounds import edit_ir
from iree_pilot.repro.workarounds.candidate import Candidate, Edit, made_for

#: The archive of a rewritten program's own weights.
FNUZ_WEIGHTS = "fnuz.safetensors"
#: Weights up to this size are tried as constants.
_INLINED_BYTES = 2**20
#: Fields of the zoo that say how something is computed, not how large it is.
_WAYS = {
    "attention": "attention written out in place of scaled_dot_product_attention, or the reverse",
    "compute": "FP8 codes are multiplied in another type",
    "fp8": "the other encoding of FP8: gfx94x has e4m3fnuz only, checkpoints are e4m3fn",
    "dtype": "weights and activations of another type",
    "dynamic": "sizes that are known, or not known, when it is compiled: other lowerings",
    "head": "the output head in another type",
    "dispatch": "a mixture's experts computed in another way",
}
_TYPES = ("dtype", "head", "fp8", "compute")
_HELPS = {
    "attn_implementation": r"attention|online_|GuardOnDataDependent|sdpa",
    "experts_implementation": r"grouped_mm|experts|histc|nonzero|GuardOnDataDependent|moe",
    "use_cache": r"[Cc]ache|past_key_values",
    "attention": r"attention|online_|GuardOnDataDependent",
    "compute": r"f8E|F8E|f16|bitcast|extf|truncf|float",
    "fp8": r"F8E4M3FN|f8E4M3FN|FP8|fp8",
    "dtype": r"f16|bf16|bitcast|extf|truncf",
    "dynamic": r"bitcast|mismatch|dynamic|shape|vector",
}


_BY_EXAMPLE = Candidate(
    name=f"--set {DATA_DEPENDENT}={EXAMPLE}",
    reason="values by which Python chooses are taken from the example inputs, and asserted",
    group="rewrite",
    price="inputs",
    fields={DATA_DEPENDENT: EXAMPLE},
    early=True,
    helps=r"DataDependent|data-dependent",
)


class Unusable(Exception):
    """The rewrite leaves no program; the message says why."""


def of_zoo(job: Job) -> list[Candidate]:
    """The other values of a zoo model's fields, as candidates."""
    return [
        Candidate(
            name=f"--set {field.name}={value}",
            reason=f"{_WAYS[field.name]} ({field.help})",
            group="types" if field.name in _TYPES else "rewrite",
            price="precision" if field.name in ("dtype", "head") else "free",
            fields={field.name: value},
            early=True,
            helps=_HELPS.get(field.name, ""),
        )
        for field in sources.alternatives(job.source)
        if field.name in _WAYS
        for value in field.values
    ]


def of_library(held: Mapping[str, str]) -> list[Candidate]:
    """The other values of a transformers model's switches, as candidates. held: as they are set.

    use_cache is only switched off: what it returns then is less.
    """
    found = []
    for name, switch in SWITCHES.items():
        caches = name == "use_cache"
        for value in ("false",) if caches else switch.values:
            if name in held and held[name] != value:
                candidate = Candidate(
                    name=f"--set {name}={value}",
                    reason=f"{switch.decides}; in Python: {switches.line(name, value)}",
                    group="rewrite",
                    price="signature" if caches else "free",
                    fields={name: value},
                    early=True,
                    helps=_HELPS[name],
                )
                found.append(candidate)
    return found


def at_trace(job: Job, failure: Failure) -> list[Candidate]:
    """What may let a source trace, what is made for the failure first.

    What narrows the inputs comes last. Which switches a model has is not known before it is made:
    those that it lacks are refused then.
    """
    if job.source.kind in ("file", "module", "library"):
        text = " ".join((failure.message, *failure.stack))
        assumed = dict.fromkeys(SWITCHES, "") if "transformers" in text else {}
        found = [
            one
            for one in (*of_library(assumed), _BY_EXAMPLE)
            if one.fields.items() - job.source.fields.items()
        ]
    else:
        found = of_zoo(job)
    likely = [one for one in found if one.price != "inputs" or made_for(one, failure)]
    return sorted(likely, key=lambda one: (one.price == "inputs", not made_for(one, failure)))


def limited(candidate: Candidate, decided: Sequence[Decided]) -> Candidate:
    """A candidate that let a source trace; its reason says for which inputs the program holds."""
    own = [one for one in decided if one.on_inputs]
    if not own:
        return candidate
    return msgspec.structs.replace(candidate, reason="; ".join(map(holds_for, own)))


def of_weights(job: Job, loaded: Loaded) -> list[Candidate]:
    """Weights as constants where they are in an archive and small, or the reverse."""
    if job.source.kind in ("mlir", "onnx") or job.weights:
        return []
    if job.inline:
        return [
            Candidate(
                name="weights in an archive",
                reason="weights are loaded at run time: the compiler does not see their values",
                group="rewrite",
                inline=False,
                early=True,
                helps=r"const|resource|out-of-memory",
            )
        ]
    parameters = loaded.program.parameters
    held = [Path(loaded.directory, name) for name in (parameters.archives if parameters else ())]
    if not held or sum(file.stat().st_size for file in held) > _INLINED_BYTES:
        return []
    return [
        Candidate(
            name="weights as constants",
            reason="weights are in the program: what is done with them can be done by the compiler",
            group="rewrite",
            inline=True,
            early=True,
            helps=r"global|parameter",
        )
    ]


def job_of(job: Job, settings: Mapping[str, str], combination: Sequence[Candidate]) -> Job:
    """The job of the program that a combination asks for. settings: the user's own.

    Raises Unusable where the fields cannot be had together.
    """
    fields = {name: value for one in combination for name, value in one.fields.items()}
    inline = next((one.inline for one in combination if one.inline is not None), job.inline)
    source = job.source
    if fields:
        try:
            source = sources.parse(source.text, {**settings, **fields}, None)
        except PilotError as fault:
            raise Unusable(fault.message) from fault
    return msgspec.structs.replace(job, source=source, inline=inline)


def traced(
    loaded: Loaded,
    job: Job,
    settings: Mapping[str, str],
    combination: Sequence[Candidate],
    context: Context,
) -> Loaded:
    """The program of a combination's fields: itself where nothing is traced otherwise.

    Raises Unusable where there is no such program.
    """
    if not any(one.fields or one.inline is not None for one in combination):
        return loaded
    try:
        return load(job_of(job, settings, combination), context)
    except (TraceFailed, PilotError) as fault:
        message = fault.message if isinstance(fault, PilotError) else str(fault)
        raise Unusable(f"it cannot be traced so: {message.splitlines()[0]}") from fault


def edited(loaded: Loaded, combination: Sequence[Candidate], context: Context) -> Loaded:
    """The program with a combination's edits, in context.directory; itself where there are none.

    Raises Unusable where one of them cannot be made.
    """
    for one in combination:
        if one.edit is not None:
            loaded = _edited(loaded, one.edit, context.directory, context.limits)
    return loaded


def _edited(loaded: Loaded, kind: Edit, directory: Path, limits: process.Limits) -> Loaded:
    """The program with an edit, in a folder with links to the files of the original."""
    digest = hashlib.sha256(f"{loaded.directory} {loaded.program.digest}".encode()).hexdigest()
    place = directory / f"{kind}-{digest[:12]}"
    place.mkdir(parents=True, exist_ok=True)
    output = place / f"{Path(loaded.program.mlir).stem}.{kind}.mlir"
    mlir = str(loaded.mlir.absolute())
    done = _rewritten(edit_ir.Rewriting(mlir=mlir, edit=kind, output=str(output)), limits)
    if done.why:
        raise Unusable(done.why)
    original = Path(loaded.directory).absolute()
    for file in original.iterdir():
        target = place / file.name
        own = (loaded.program.mlir, output.name, python_lines.NAME)
        if file.name not in own and not target.is_symlink():
            target.symlink_to(file)
    program = msgspec.structs.replace(
        loaded.program,
        mlir=output.name,
        digest=hashlib.sha256(output.read_bytes()).hexdigest(),
        parameters=_parameters(loaded, done.renamed, place),
    )
    return msgspec.structs.replace(loaded, program=program, directory=str(place))


def _rewritten(rewriting: edit_ir.Rewriting, limits: process.Limits) -> edit_ir.Rewritten:
    place = Path(rewriting.output).with_suffix(".rewriting")
    function = f"{edit_ir.__name__}:rewritten"
    done = task.call(function, rewriting, edit_ir.Rewritten, place, limits=limits)
    if done.reply is None:
        raise Unusable(f"it cannot be rewritten: {done.why}")
    return done.reply


def _parameters(loaded: Loaded, renamed: Mapping[str, str], place: Path) -> Parameters | None:
    """The parameters with those that need other bytes in an archive of their own."""
    parameters = loaded.program.parameters
    if parameters is None or not renamed:
        return parameters
    tensors = tuple(
        msgspec.structs.replace(
            one, name=renamed[one.name], dtype=edit_ir.FNUZ.get(one.dtype, one.dtype)
        )
        if one.name in renamed
        else one
        for one in parameters.tensors
    )
    if not parameters.archives:
        return msgspec.structs.replace(parameters, tensors=tensors)
    archives = tuple(
        name if Path(name).is_absolute() else str(Path(loaded.directory, name).absolute())
        for name in parameters.archives
    )
    own = place / FNUZ_WEIGHTS
    old_types = {one.name: one.dtype for one in parameters.tensors}
    values = {
        new: (_entry(loaded, old), partial(_converted, archives, old, old_types[old]))
        for old, new in renamed.items()
    }
    archive.write(own, values)
    return msgspec.structs.replace(parameters, tensors=tensors, archives=(*archives, own.name))


def _entry(loaded: Loaded, name: str) -> archive.ArchiveEntry:
    assert loaded.program.parameters is not None
    held: Parameter = next(p for p in loaded.program.parameters.tensors if p.name == name)
    return archive.ArchiveEntry(dtype=edit_ir.FNUZ[held.dtype], shape=held.shape)


def _converted(archives: Sequence[str], name: str, dtype: str) -> bytes:
    for file in archives:
        entry = archive.read(Path(file)).get(name)
        if entry is not None and entry.offset is not None and entry.bytes is not None:
            with Path(file).open("rb") as stream:
                stream.seek(entry.offset)
                return fnuz_codes(stream.read(entry.bytes), dtype)
    raise Unusable(f"the archives do not hold the values of {name}")


def fnuz_codes(codes: bytes, dtype: str) -> bytes:
    """Codes of f8E4M3FN or f8E5M2 in the FNUZ encoding, where each stands for half as much.

    -0, which is NaN there, becomes 0; NaN and the infinities of e5m2, numbers there, become NaN.
    """
    nan = 0x7F if dtype == "f8E4M3FN" else 0x7C
    table = (0 if c == 0x80 else 0x80 if c & nan == nan else c for c in range(256))
    return codes.translate(bytes(table))


def drift(original: Loaded, other: Loaded) -> float | None:
    """Difference of the other program's reference from the original's, relative L2 of the farthest
    output; None where the two cannot be compared.
    """
    import numpy as np

    farthest: float | None = None
    twins = {f.name: f.reference for f in other.program.functions}
    for function in original.program.functions:
        mine, theirs = function.reference, twins.get(function.name)
        if mine is None or theirs is None:
            return None
        for a, b in zip(mine.outputs, theirs.outputs, strict=False):
            if a.shape != b.shape:
                return None
            own = tensors.load(Path(original.directory), a).astype(np.float64)
            new = tensors.load(Path(other.directory), b).astype(np.float64)
            size = float(np.linalg.norm(own)) or 1.0
            farthest = max(farthest or 0.0, float(np.linalg.norm(new - own)) / size)
    return farthest


def in_words(name: str) -> str:
    """A candidate's name for files."""
    return re.sub(r"[^\w.=-]+", "-", name).strip("-")
