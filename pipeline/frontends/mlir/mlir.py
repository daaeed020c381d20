"""MLIR files as programs: the file as it is; its signature read by the toolchain's own parser.

What can be evaluated gets a reference to compare with (`pipeline.evaluate.references`).
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.evaluate import checks, references
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.frontends.inputs import examples, fitting, fitting_inputs
from iree_pilot.pipeline.frontends.job import Job, TraceFailed
from iree_pilot.pipeline.frontends.mlir import constraints, mlir_signature, mlir_text
from iree_pilot.pipeline.frontends.mlir import generic as generic_form
from iree_pilot.pipeline.frontends.mlir.generic import GenericFunction
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program import archive
from iree_pilot.pipeline.program.program import Function, MadeUp, Parameters, Program
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

#: After phase `stream` and before `hal`: 3.13 compiles such IR from the start, and the module gives
#: zeros.
_LOWERED = re.compile(r'"stream\.cmd\.dispatch"')
ELIDE = "--mlir-elide-elementsattrs-if-larger=8", "--mlir-elide-resource-strings-if-larger=8"


def build(job: Job, context: Context) -> Program:
    """Copies the file to `directory` and describes it.

    A program without inputs of the user's gets made-up ones. Functions that PyTorch can evaluate
    get its results as their reference, if the job wants that; a note says why others have none. A
    file that crashes the parser is a program too, of which nothing is known: the compiler will
    tell more. Raises UsageError for a file that the toolchain cannot parse, TraceFailed where
    parsing meets a limit.
    """
    original = Path(job.source.path or "")
    copy = context.directory / original.name
    shutil.copyfile(original, copy)
    checked = (
        checks.rewrite(copy, context.directory, context.limits)
        if job.evaluate
        else checks.CheckRewritten()
    )
    generic = context.directory / "generic.txt"
    stderr = context.directory / "stderr.txt"
    notes = list(checked.left)
    if checked.added:
        notes.append(checks.NOTE)
    if context.toolchain.opt is not None:
        outcome, said = context.run(
            [context.toolchain.opt, copy, "--mlir-print-op-generic", *ELIDE, "-o", generic]
        )
        if outcome.ended_by == "signal":
            notes.append(
                f"what it takes is not known: {context.toolchain.opt.name} met {outcome.signal}"
            )
            generic.unlink(missing_ok=True)
        elif outcome.ended_by != "exit":
            raise TraceFailed(diagnostics.trace_death(outcome, said), outcome.seconds)
        elif not outcome.ok:
            process.check_disk(stderr)
            raise _unreadable(original, context.toolchain, outcome, said)
    text = generic.read_text(encoding="utf-8", errors="replace") if generic.is_file() else ""
    if _LOWERED.search(text):
        notes.append(
            "its dispatches are lowered already: compile it with --from PHASE, for iree-compile "
            "makes a module that computes other numbers of it from the start"
        )
    bodies = generic_form.functions(text)
    signatures = mlir_signature.of_bodies(bodies)
    functions, others = fitting.chosen(
        signatures.functions, signatures.others, job.function, job.source.text
    )
    functions = checks.named(functions, checked)
    if functions and job.inputs is not None:
        fed = fitting.fed(functions, job.inputs, job.source.text, context.directory)
        left = [f.name for f in functions if f.name != fed.name]
        if left:
            notes.append(f"the inputs fit {fed.name} only: not run: {', '.join(left)}")
        functions, others = (fed,), {}
    else:
        functions = tuple(_made_up(f, bodies, job.seed, context.directory) for f in functions)
        notes += _told(functions, job.seed)
    notes += [f"{name} is not run: {why}" for name, why in others.items()]
    parameters = _with_weights(_parameters(text), job)
    for scratch in (generic, stderr, context.directory / "stdout.txt"):
        scratch.unlink(missing_ok=True)
    program = Program(
        source=job.source.text,
        mlir=copy.name,
        digest=hashlib.sha256(copy.read_bytes()).hexdigest(),
        functions=functions,
        parameters=parameters,
        origin={"file": original.name},
        notes=tuple(notes),
        others=others,
    )
    if job.evaluate:
        program = references.with_references(program, context, text)
        program = fitting_inputs.settle(program, context, text)
        return checks.expect(program, context.directory, checked)
    return program


def _made_up(
    function: Function, bodies: dict[str, GenericFunction], seed: int, directory: Path
) -> Function:
    """The function with inputs that satisfy what it states about them, as far as that is read."""
    if any(t.passed == "opaque" for t in function.inputs):
        return function
    made_up, body = MadeUp(seed=seed), constraints.stated(bodies, function.name)
    if body is not None:
        made_up = constraints.solve(body, function, made_up) or made_up
        limit = constraints.index_limit(body)
        integers = max(1, min(made_up.integers, limit)) if limit else made_up.integers
        made_up = msgspec.structs.replace(made_up, integers=integers)
    example = examples.random(function, seed, directory, made_up)
    return msgspec.structs.replace(function, example=example, made_up=made_up)


def _told(functions: tuple[Function, ...], seed: int) -> list[str]:
    """Notes for the user on inputs that are made up, or cannot be."""
    notes = [
        f"{f.name} has no inputs: {', '.join(unknown)} is a buffer view of no stated type; "
        "give its inputs with --input"
        for f in functions
        if (unknown := [t.name for t in f.inputs if t.passed == "opaque"])
    ]
    if any(f.example for f in functions):
        adopted = {
            name: value
            for f in functions
            if f.made_up
            for name, value in (f.made_up.sizes | f.made_up.numbers).items()
        }
        sizes = ", ".join(f"{name} = {value}" for name, value in adopted.items())
        but = f"; as the program demands: {sizes}" if sizes else ""
        notes.append(
            f"inputs are made up (seed {seed}, dynamic dimensions {examples.DYNAMIC}{but}); "
            "give your own with --input"
        )
    return notes


def _parameters(text: str) -> Parameters | None:
    """The parameters of a program; of one of a late phase only their scopes."""
    named = mlir_text.parameters(text)
    if named is None:
        scopes = mlir_text.loaded_scopes(text)
        named = Parameters(scope=scopes[0], tensors=()) if scopes else None
    else:
        scopes = tuple(dict.fromkeys(p.scope for p in named.tensors if p.scope is not None))
    if named is None or len(scopes) < 2:
        return named
    return msgspec.structs.replace(named, scopes=dict.fromkeys(scopes, ()))


def _with_weights(parameters: Parameters | None, job: Job) -> Parameters | None:
    """The parameters with the user's archives: those of a scope, else those that fit any."""
    if parameters is None:
        return None
    scoped = {
        scope: _archives(tuple(path for name, path in job.scoped if name == scope))
        for scope in parameters.by_scope
    }
    general = _archives(job.weights)
    archives = {
        scope: scoped[scope] or _fitting(parameters, scope, general)
        for scope in parameters.by_scope
    }
    held = tuple(dict.fromkeys(file for files in archives.values() for file in files))
    several = archives if len(archives) > 1 else {}
    return msgspec.structs.replace(parameters, archives=held, scopes=several)


def _fitting(parameters: Parameters, scope: str, general: tuple[str, ...]) -> tuple[str, ...]:
    """Archives that are given for no scope: of several, those scopes take them that they hold."""
    if len(parameters.by_scope) == 1 or not general:
        return general
    held = {name for file in general for name in archive.read(Path(file))}
    wanted = {p.name for p in parameters.tensors if p.scope == scope}
    return general if wanted <= held else ()


def _archives(weights: tuple[str, ...]) -> tuple[str, ...]:
    """The files of the user's weights, a directory's shards among them."""
    from iree_pilot.models.weights import checkpoints

    paths = [Path(given).resolve() for given in weights]
    files = [
        sorted({held.file for held in checkpoints.tensors(path).values()})
        if path.is_dir()
        else [str(path)]
        for path in paths
    ]
    return tuple(file for group in files for file in group)


def _unreadable(
    path: Path, toolchain: Toolchain, outcome: process.Outcome, stderr: str
) -> UsageError:
    lines = [line for line in stderr.splitlines() if " error: " in line]
    first = lines[0] if lines else f"exit code {outcome.exit_code}"
    where = first.replace(str(path), path.name)
    for prefix in (path.name, f"{path.parent}/"):
        if prefix in where:
            where = where[where.index(prefix) :]
            break
    return UsageError(
        f"{path} cannot be read as MLIR by IREE {toolchain.version}: {where}",
        advice="Is it a whole MLIR file (text or bytecode), written for this release? "
        "--release picks another one.",
    )
