"""References of MLIR programs: each function's from the first evaluator that can give one.

PyTorch evaluates what is in its dialect; numpy (`interpreter`) whatever else is known there. Where
that does not know an operation of an input dialect, what IREE's own conversion to linalg makes of
the program is evaluated: then that conversion is trusted, and the evaluator's name says so.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec

from iree_pilot.pipeline.evaluate import evaluation
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program.program import Call, Function, Program, Reference
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.pipeline.torch_dialect import evaluate
from iree_pilot.pipeline.torch_dialect.evaluate import Evaluation, EvaluationWork

_OF_TORCH = re.compile(r"\btorch\.(?:aten|prims|prim)\.|torch\.vtensor\.literal")
#: Dialects that IREE converts to linalg.
_CONVERTED = {"stablehlo", "chlo", "tosa", "torch", "tm_tensor"}
_DIALECT = re.compile(r'(?:^|[\s"])(\w+)\.\w')
#: Operations that draw random numbers: what IREE converts them to draws numbers of its own.
DRAWS = re.compile(
    r"\b(?:torch\.aten\.(?:rand|bernoulli|multinomial|normal|uniform|exponential|native_dropout)"
    r"|stablehlo\.rng|mhlo\.rng|onnx\.(?:Random|Bernoulli|Multinomial))\w*"
)
#: All evaluations of a program's functions together, and one conversion.
_SECONDS, _CONVERSION_SECONDS = 180.0, 60.0
#: End of the name of an evaluator that trusts IREE's conversion.
TRUSTING = "that conversion is trusted"
#: Share of the free memory that may be used.
_SHARE = 0.5

Evaluator = Callable[[Sequence[EvaluationWork]], tuple[Evaluation, ...]]


def with_references(program: Program, context: Context, text: str = "") -> Program:
    """The program in `directory` with what its functions compute for their example inputs.

    Without the values of its parameters it stays as it is: it cannot be run either. Functions that
    cannot be evaluated say why, and so do notes. text: the program's, where it is read already.
    """
    parameters = program.parameters
    if parameters is not None and parameters.missing:
        return program
    text = text or (context.directory / program.mlir).read_text(encoding="utf-8", errors="replace")
    context = context.bounded(_limits(context.limits))
    functions = {f.name: f for f in program.functions}
    open_ = [f for f in program.functions if f.example is not None and f.outputs]
    for evaluator in _evaluators(context, text):
        calls = [Call(program=program, directory=context.directory, function=f) for f in open_]
        works = [evaluate.work(call, context.directory, jitter="values") for call in calls]
        for function, found in zip(open_, evaluator(works) if works else (), strict=True):
            made = _with(functions[function.name], _fitting(function, found))
            if found.cut_off:
                made = msgspec.structs.replace(made, cut_off=_allowed(context.limits))
            functions[function.name] = made
        open_ = [f for f in open_ if functions[f.name].reference is None]
    notes = [
        f"{f.name} has nothing to be compared with: {f.unevaluated}"
        for f in functions.values()
        if f.unevaluated
    ]
    return msgspec.structs.replace(
        program, functions=tuple(functions.values()), notes=(*program.notes, *notes)
    )


def of_call(call: Call, context: Context) -> Reference | None:
    """Results of a call; None if it cannot be evaluated. Files go to the context's
    directory."""
    works = [evaluate.work(call, context.directory, jitter="values")]
    context, text = (
        context.bounded(_limits(context.limits)),
        call.mlir.read_text(encoding="utf-8", errors="replace"),
    )
    for evaluator in _evaluators(context, text):
        (found,) = evaluator(works)
        if found.reference is not None:
            return found.reference
    return None


def first(
    program: Program, functions: Sequence[Function], context: Context, text: str
) -> int | None:
    """The first of `functions`, one of the program's with several inputs, that can be evaluated.

    The inputs' files are absolute.
    """
    context = context.bounded(_limits(context.limits))
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        places = [Path(scratch) / str(number) for number in range(len(functions))]
        works = [
            evaluate.work(Call(program=program, directory=context.directory, function=f), place)
            for f, place in zip(functions, places, strict=True)
        ]
        for evaluator in _evaluators(context, text) if works else ():
            for number, found in enumerate(evaluator(works)):
                if _fitting(functions[number], found).reference is not None:
                    return number
    return None


def goes_further(program: Program, limits: process.Limits | None) -> bool:
    """True if an evaluation that was cut off would have more time now, or twice the memory."""
    seconds, memory = _allowed(_limits(limits))
    ends = [f.cut_off for f in program.functions if f.cut_off is not None]
    return any(seconds > end[0] or memory > 2 * end[1] for end in ends)


def _allowed(limits: process.Limits) -> tuple[float, int]:
    assert limits.seconds is not None and limits.memory_bytes is not None
    return limits.seconds, limits.memory_bytes


def _with(function: Function, found: Evaluation) -> Function:
    """The function with what an evaluator found. The first reason that one gives stays."""
    if found.reference is not None:
        return msgspec.structs.replace(function, reference=found.reference, unevaluated="")
    return msgspec.structs.replace(function, unevaluated=function.unevaluated or found.why)


def _fitting(function: Function, found: Evaluation) -> Evaluation:
    """Evaluation without its reference if that has other shapes than the function states."""
    outputs = found.reference.outputs if found.reference is not None else ()
    for want, got in zip(function.outputs, outputs, strict=False):
        pairs = zip(want.shape, got.shape, strict=False)
        alike = all(not isinstance(size, int) or size == own for size, own in pairs)
        if len(want.shape) != len(got.shape) or not alike:
            why = f"the inputs do not fit: {want.name} comes out as {got}, it is {want}"
            return msgspec.structs.replace(found, reference=None, why=why)
    return found


def _limits(limits: process.Limits | None) -> process.Limits:
    """The user's, but never without: what is compared must not be what a run waits for."""
    limits = limits or process.Limits()
    free = int(process.available_bytes() * _SHARE)
    return msgspec.structs.replace(
        limits,
        seconds=min(limits.seconds or _SECONDS, _SECONDS),
        memory_bytes=min(limits.memory_bytes or free, free),
    )


def _evaluators(context: Context, text: str) -> Sequence[Evaluator]:
    found: list[Evaluator] = []
    if _OF_TORCH.search(text):
        found.append(partial(evaluate.evaluate, limits=context.limits))
    found.append(partial(evaluation.evaluate, limits=context.limits))
    if context.toolchain.version != version("iree-base-compiler"):
        found.append(partial(_aside, _printed, context))
    if _CONVERTED & set(_DIALECT.findall(text)) and not DRAWS.search(text):
        found.append(partial(_aside, _converted, context))
    return found


def _aside(
    evaluator: Callable[[Sequence[EvaluationWork], Context], tuple[Evaluation, ...]],
    context: Context,
    works: Sequence[EvaluationWork],
) -> tuple[Evaluation, ...]:
    """Runs an evaluator in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        return evaluator(works, context.at(Path(scratch)))


def _printed(works: Sequence[EvaluationWork], context: Context) -> tuple[Evaluation, ...]:
    """Evaluates programs in the syntax of another release, printed by that in the generic form."""
    generic = context.directory / "generic.mlir"
    if context.toolchain.opt is None:
        return tuple(Evaluation(why="the release has no iree-opt") for _ in works)
    argv = (context.toolchain.opt, works[0].mlir, "--mlir-print-op-generic", "-o", generic)
    if not _ran(argv, context):
        return tuple(Evaluation(why="iree-opt does not print it") for _ in works)
    given = [msgspec.structs.replace(work, mlir=str(generic)) for work in works]
    return evaluation.evaluate(given, limits=context.limits)


def _ran(argv: tuple[str | Path, ...], context: Context) -> bool:
    limits = msgspec.structs.replace(context.limits, seconds=_CONVERSION_SECONDS)
    return context.run(argv, limits=limits)[0].ok


def _converted(works: Sequence[EvaluationWork], context: Context) -> tuple[Evaluation, ...]:
    """Evaluates what the compiler's own conversion makes of the programs."""
    linalg = context.directory / "linalg.mlir"
    argv = (context.toolchain.compiler, works[0].mlir, "--compile-to=input", "-o", linalg)
    if not _ran(argv, context):
        return tuple(Evaluation(why="IREE does not convert it to linalg") for _ in works)
    given = [msgspec.structs.replace(work, mlir=str(linalg)) for work in works]
    return tuple(
        _trusting(found, context.toolchain)
        for found in evaluation.evaluate(given, limits=context.limits)
    )


def _trusting(found: Evaluation, toolchain: Toolchain) -> Evaluation:
    if found.reference is None:
        return found
    said = f"{found.reference.evaluator}, on what IREE {toolchain.version} converts it to: "
    said += TRUSTING
    reference = msgspec.structs.replace(found.reference, evaluator=said)
    return msgspec.structs.replace(found, reference=reference)
