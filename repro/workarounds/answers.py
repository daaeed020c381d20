"""Answers of a workaround search: a command to paste, and its cost."""

from __future__ import annotations

import glob
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.execution import runtime
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Tensor
from iree_pilot.pipeline.store import outputs
from iree_pilot.repro.workarounds import rewrites
from iree_pilot.repro.workarounds.candidate import PRICES, Price
from iree_pilot.repro.workarounds.combination_search import ANSWERS, Combination, State, Tried
from iree_pilot.repro.workarounds.combination_trial import Trials, judge
from iree_pilot.repro.workarounds.rewrites import Unusable
from iree_pilot.repro.workarounds.table import TABLE

#: Options of a source that say how it is called, not how it is traced.
_OF_CALL = ("--seed", "--function")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of a case: seconds to compile it and to run it once, dispatches, the module's bytes.

    None where it is not known: nothing ran, or the compiler did not get so far.
    """

    compile_seconds: float | None = None
    latency_seconds: float | None = None
    dispatches: int | None = None
    module_bytes: int | None = None


class WorkaroundAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A workaround. names, reasons: of the candidates. state `compiles`: it was NOT run here.

    price: what is lost with it. flags: for iree-compile, those of the target and the user's among
    them. command: `iree-pilot run`, to be pasted; compile: the iree-compile command that it stands
    for. program: the file that was written, where the program is another one. drift: how far the
    outputs of that program's reference are from the original's, relative; None where it is the
    original's. other_inputs: the command makes up inputs, as the program has several functions:
    they are not those that were judged.
    """

    names: tuple[str, ...]
    reasons: tuple[str, ...]
    state: State
    price: Price
    target: str
    flags: tuple[str, ...]
    settings: dict[str, str]
    command: tuple[str, ...]
    compile: tuple[str, ...]
    cost: Cost
    program: str = ""
    comparison: Comparison | None = None
    drift: float | None = None
    why: str = ""
    other_inputs: bool = False


def confirmed(
    one: Tried, trials: Trials, phases: Sequence[str], words: tuple[str, ...], place: Path | None
) -> WorkaroundAnswer | None:
    """The answer that a trial is, seen a second time and timed; None where it came and went.

    phases: the compiler's. words: the source and its options as the user gave them. place: where
    programs that were rewritten go; None leaves them where they are.
    """
    combination = one.candidates
    try:
        loaded = trials.program(combination)
        result = trials.run(combination, latency_budget=runtime.LATENCY_BUDGET)
    except (Unusable, PilotError):
        return None
    outcome = judge(result, trials.subject.failure, phases)
    if outcome.state not in ANSWERS:
        return None
    fields = {k: v for c in combination for k, v in c.fields.items()}
    edited = any(c.edit for c in combination)
    program = _placed(loaded, combination, place) if edited else ""
    plan = trials.plan(combination)
    compile_command, last = result.command, _last_words(combination, result.target, trials)
    if program:
        compile_command = (compile_command[0], program, *compile_command[2:])
        source = _rewritten_source(program, loaded, words, place)
    else:
        source = _source(combination, words)
    return WorkaroundAnswer(
        names=tuple(c.name for c in combination),
        reasons=tuple(c.reason for c in combination),
        state=outcome.state,
        price=max((c.price for c in combination), key=PRICES.index),
        target=result.target,
        flags=(*plan.flags, *trials.flags(combination)),
        settings=fields,
        command=("iree-pilot", "run", *source, *last),
        compile=compile_command,
        cost=cost(result),
        program=program,
        comparison=result.comparison,
        drift=rewrites.drift(trials.subject.loaded, loaded) if fields else None,
        why=outcome.why,
        other_inputs=bool(program) and not _can_be_given(loaded) and not _is_mlir(loaded),
    )


def _source(combination: Combination, given: tuple[str, ...]) -> tuple[str, ...]:
    """The source and its options with the fields of the combination."""
    fields = {k: v for c in combination for k, v in c.fields.items()}
    words = given[:1]
    rest = iter(given[1:])
    for word in rest:  # the user's own fields give way
        value = next(rest) if word == "--set" else ""
        if word == "--set" and value.partition("=")[0] in fields:
            continue
        words = (*words, word, value) if value else (*words, word)
    for name, value in fields.items():
        words = (*words, "--set", f"{name}={value}")
    inline = next((c.inline for c in combination if c.inline is not None), None)
    if inline is False:
        words = tuple(w for w in words if w != "--inline-parameters")
    elif inline:
        words = (*words, "--inline-parameters")
    return words


def _rewritten_source(
    program: str, loaded: Loaded, given: tuple[str, ...], place: Path | None
) -> tuple[str, ...]:
    """A rewritten program with its weights, the inputs that were judged, and what the user gave
    that is not for the trace: a type alone, or no input, means other values for MLIR."""
    words = [program]
    parameters = loaded.program.parameters
    for scope, archives in parameters.by_scope.items() if parameters else ():
        for archive in archives:
            own = Path(program).with_name(archive)
            file = own if own.is_file() else Path(loaded.directory, archive).resolve()
            words += ["--weights", f"{scope}={file}" if scope else str(file)]
    for option, value in itertools.pairwise(given[1:]):
        if option in _OF_CALL:
            words += [option, value]
    if _can_be_given(loaded):
        for word in _inputs(program, loaded, place):
            words += ["--input", word]
    return tuple(words)


def _can_be_given(loaded: Loaded) -> bool:
    """True if `--input` can name all that the program was called with: it is for one function."""
    return sum(bool(one.example) for one in loaded.program.functions) <= 1


def _is_mlir(loaded: Loaded) -> bool:
    """True if the source is MLIR: for what is made of that, inputs are made up alike."""
    return "file" in loaded.program.origin


def _inputs(program: str, loaded: Loaded, place: Path | None) -> Iterator[str]:
    """The inputs that a program was judged with, as `--input` takes them; their files are copied
    beside it where it was copied to `place`."""
    example = next((one.example for one in loaded.program.functions if one.example), None)
    for index, tensor in enumerate(example or ()):
        file = Path(loaded.directory, tensor.file).resolve()
        if place is not None and tensor.passed in ("view", "buffer"):
            outputs.write(copy := Path(program).with_suffix(f".input{index}.bin"), file)
            file = copy
        yield _word(tensor, file)


def _word(tensor: Tensor, file: Path) -> str:
    """The value of `--input` for a tensor in a file: a number on its own is written out."""
    if tensor.passed == "null":
        return "(null)"
    if tensor.passed == "scalar":
        value = tensors.decoded(file.read_bytes(), tensor.dtype)[0]
        is_float = ELEMENT_TYPES[tensor.dtype].family == "float"
        return repr(float(value)) if is_float else str(int(value))
    return f"{'&' if tensor.passed == 'buffer' else ''}{tensor}=@{file}"


def _last_words(combination: Combination, target: str, trials: Trials) -> tuple[str, ...]:
    """Target, device and flags of the combination."""
    named = trials.subject.device
    device = ("--device", named) if named else ()
    flags = trials.flags(combination)
    return ("-t", target, *device, *(("--", *flags) if flags else ()))


def _placed(loaded: Loaded, combination: Combination, place: Path | None) -> str:
    """The rewritten program's file, copied to where the user wants it."""
    if place is None:
        return str(loaded.mlir)
    place = outputs.directory(place)
    with outputs.writing(place):
        place.mkdir(parents=True, exist_ok=True)
    file = place / _name(tuple(c for c in combination if c.edit))
    outputs.write(file, loaded.mlir)
    own = Path(loaded.directory, rewrites.FNUZ_WEIGHTS)
    if own.is_file():
        outputs.write(place / own.name, own)
    return str(file)


def _name(edits: Combination) -> str:
    """File name of a rewritten program."""
    return f"{'-'.join(rewrites.in_words(one.name) for one in edits)}.mlir"


def check_place(place: Path, read: Sequence[Path]) -> None:
    """Raises UsageError where a rewritten program, its weights or inputs, would take the place of
    a file that is read, should that rewrite turn out to help."""
    edits = [one for one in TABLE if one.edit]
    names = {_name(some) for count in (1, 2) for some in itertools.permutations(edits, count)}
    for name in sorted(names | {rewrites.FNUZ_WEIGHTS}) if place.is_dir() else ():
        inputs = place.glob(f"{glob.escape(Path(name).stem)}.input*.bin")
        for file in (place / name, *inputs):
            outputs.check(file, read)


def cost(result: CaseResult) -> Cost:
    """Cost of a case that compiled; latencies of several functions are added up."""
    latencies = [f.latency.median_seconds for f in result.functions if f.latency]
    return Cost(
        compile_seconds=result.compile_seconds if result.output else None,
        latency_seconds=math.fsum(latencies) if latencies else None,
        dispatches=result.dispatches.dispatches if result.dispatches else None,
        module_bytes=result.output_bytes or None,
    )


def rank(answer: WorkaroundAnswer) -> tuple[int, int, int, float, float]:
    """The best first: seen to agree, nothing lost, one thing changed, fast, few dispatches."""
    return (
        ANSWERS.index(answer.state),
        PRICES.index(answer.price),
        len(answer.names),
        answer.cost.latency_seconds or 0.0,
        answer.cost.dispatches or 0,
    )
