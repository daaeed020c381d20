"""MLIR files as programs: the file as it is; its signature read by the toolchain's own parser.

What is in the torch dialect is evaluated with PyTorch, so that there is something to compare with.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec

from pipeline import diagnostics, process
from pipeline.errors import UsageError
from pipeline.frontends import examples, mlir_text
from pipeline.frontends.job import Job, TraceFailed
from pipeline.program import Program, Tensor, check_inputs
from pipeline.toolchain import Toolchain
from pipeline.torch_dialect import evaluate

_OF_TORCH = '"torch.'
_ELIDE = "--mlir-elide-elementsattrs-if-larger=8", "--mlir-elide-resource-strings-if-larger=8"


def build(
    job: Job, directory: Path, toolchain: Toolchain, limits: process.Limits | None
) -> Program:
    """Copies the file to `directory` and describes it.

    A program without inputs of the user's gets made-up ones. Functions that PyTorch can evaluate
    get its results as their reference, if the job wants that; a note says why others have none. A
    file that crashes the parser is a program too, of which nothing is known: the compiler will
    tell more. Raises UsageError for a file that the toolchain cannot parse, TraceFailed where
    parsing meets a limit.
    """
    original = Path(job.source.path or "")
    copy = directory / original.name
    shutil.copyfile(original, copy)
    generic = directory / "generic.txt"
    stderr = directory / "stderr.txt"
    notes: list[str] = []
    if toolchain.opt is not None:
        outcome = process.run(
            [toolchain.opt, copy, "--mlir-print-op-generic", *_ELIDE, "-o", generic],
            stdout=directory / "stdout.txt",
            stderr=stderr,
            limits=limits,
        )
        said = stderr.read_text(errors="replace")
        if outcome.ended_by == "signal":
            notes.append(f"what it takes is not known: {toolchain.opt.name} met {outcome.signal}")
            generic.unlink(missing_ok=True)
        elif outcome.ended_by != "exit":
            raise TraceFailed(diagnostics.trace_death(outcome, said), outcome.seconds)
        elif not outcome.ok:
            process.check_disk(stderr)
            raise _unreadable(original, toolchain, outcome, said)
    text = generic.read_text(errors="replace") if generic.is_file() else ""
    functions, other = mlir_text.functions(text)
    notes += [f"{name} takes or returns more than tensors: compiled, never run" for name in other]
    if functions and job.inputs is not None:
        check_inputs(functions[0], job.inputs, job.source.text)
        functions = (msgspec.structs.replace(functions[0], example=_own(job.inputs, directory)),)
    elif functions:
        functions = tuple(
            msgspec.structs.replace(f, example=examples.random(f, job.seed, directory))
            for f in functions
        )
        notes.append(
            f"inputs are made up (seed {job.seed}, dynamic dimensions {examples.DYNAMIC}); "
            "give your own with --input"
        )
    try:
        parameters = mlir_text.parameters(text)
    except ValueError as fault:
        raise UsageError(
            f"{original}: {fault}", advice="Use one scope and static parameter types."
        ) from fault
    if parameters is not None and job.weights:
        parameters = msgspec.structs.replace(parameters, archives=_archives(job.weights))
    for scratch in (generic, stderr, directory / "stdout.txt"):
        scratch.unlink(missing_ok=True)
    program = Program(
        source=job.source.text,
        mlir=copy.name,
        digest=hashlib.sha256(copy.read_bytes()).hexdigest(),
        functions=functions,
        parameters=parameters,
        origin={"file": original.name},
        notes=tuple(notes),
    )
    if job.evaluate and _OF_TORCH in text:
        return with_references(program, directory, limits)
    return program


def with_references(
    program: Program, directory: Path, limits: process.Limits | None = None
) -> Program:
    """The program in `directory` with what PyTorch computes for its example inputs.

    Without the values of its parameters it stays as it is: it cannot be run either.
    """
    parameters = program.parameters
    if parameters is not None and not parameters.archives:
        return program
    works = [evaluate.work(program, directory, f, directory) for f in program.functions]
    functions, notes = [], []
    for function, found in zip(
        program.functions, evaluate.evaluate(works, limits=limits), strict=True
    ):
        functions.append(msgspec.structs.replace(function, reference=found.reference))
        if found.reference is None:
            notes.append(f"{function.name} has nothing to be compared with: {found.why}")
    return msgspec.structs.replace(
        program, functions=tuple(functions), notes=(*program.notes, *notes)
    )


def _archives(weights: tuple[str, ...]) -> tuple[str, ...]:
    """The files of the user's weights, a directory's shards among them."""
    from models.weights import checkpoints

    paths = [Path(given).resolve() for given in weights]
    files = [
        sorted({held.file for held in checkpoints.tensors(path).values()})
        if path.is_dir()
        else [str(path)]
        for path in paths
    ]
    return tuple(file for group in files for file in group)


def _own(inputs: tuple[Tensor, ...], directory: Path) -> tuple[Tensor, ...]:
    """The user's inputs, copied into the program's directory."""
    (directory / "data").mkdir(exist_ok=True)
    kept = []
    for index, tensor in enumerate(inputs):
        file = f"data/input{index}.bin"
        shutil.copyfile(tensor.file, directory / file)
        kept.append(msgspec.structs.replace(tensor, file=file))
    return tuple(kept)


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
