"""Other inputs where those that were made up are not what a function needs.

The evaluators know when sizes do not go together, or an index is out of range: then other sizes
are tried, those that the signature has first, and other integers: all alike, off by what the
program adds to them or takes away.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.evaluate import references
from iree_pilot.pipeline.frontends.inputs import examples
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Dim, Function, MadeUp, Program
from iree_pilot.pipeline.toolchain.context import Context

#: Errors of evaluators for inputs that are inconsistent, or index outside of a tensor.
_COMPLAINTS = re.compile(
    r"must match|do not fit|size mismatch|shapes? .*(?:mismatch|not aligned|incompatible)"
    r"|cannot be multiplied|could not be broadcast|out of (?:range|bounds)|indexes? outside"
    r"|a slice from -?\d+ to -?\d+ of a dimension"
    r"|invalid for input of size|incorrect (?:batch|matrix) size"
    r"|expected .* to (?:have|be) .*size",
    re.IGNORECASE,
)
#: Errors that the inputs may cause: others are tried, and if none helps the program is run.
_DOUBTS = re.compile(r"cannot reshape array of size")
#: Error of evaluators for an index outside of a tensor, which may be the program's fault.
_OUTSIDE = "outside of a tensor"
#: Sizes that a program names: in the types of its tensors, constants, lists of sizes.
_SIZE = re.compile(
    r"(?<![\w.%#@-])(\d{1,4})(?=x[\dfibuc?]|\]?\s*[,\])>]|(?: : (?:index|i64|i32)\b))"
)
_CONSTANT = re.compile(r"(?:\bvalue = |\bdense<)(-?\d{1,4})(?=>? : )")
_MOST = 32
_MOST_CONSTANTS = 6
_MOST_SIZES = 8


def complains(function: Function) -> bool:
    """True if an evaluator refuses the inputs of a function, which nobody gave."""
    return _chooses(function) and bool(_COMPLAINTS.search(function.unevaluated))


def leads_outside(function: Function) -> bool:
    """True if integers that nobody gave lead out of a tensor, so that results are undefined."""
    return (
        function.made_up is not None and has_integers(function) and _OUTSIDE in function.unevaluated
    )


def constants(texts: Iterable[str]) -> tuple[int, ...]:
    """Small numbers of a program in generic form, which its indices may be off by; 1 first."""
    found = (abs(int(match[1])) for text in texts for match in _CONSTANT.finditer(text))
    several = dict.fromkeys((1, *sorted({number for number in found if number > 1})))
    return tuple(several)[:_MOST_CONSTANTS]


def sizes(text: str) -> tuple[int, ...]:
    """Small sizes that a program names, those first that it names most often."""
    named = Counter(int(match[1]) for match in _SIZE.finditer(text))
    return tuple(size for size, _ in named.most_common() if size > 1)[:_MOST_SIZES]


def settle(program: Program, context: Context, text: str) -> Program:
    """The program in `directory` whose made-up inputs go together, as far as evaluators know."""
    functions, notes = list(program.functions), list(program.notes)
    for index, function in enumerate(functions):
        doubted = _chooses(function) and bool(_DOUBTS.search(function.unevaluated))
        if not (doubted or complains(function) or leads_outside(function)):
            continue
        functions[index] = again = _settled(program, function, context, text)
        if again.made_up != function.made_up:
            notes = [n for n in notes if function.unevaluated not in n]
            notes.append(made_again(again, function.unevaluated))
    return msgspec.structs.replace(program, functions=tuple(functions), notes=tuple(notes))


def made_again(function: Function, why: str) -> str:
    """Note for the user on inputs that were made up a second time."""
    made_up = function.made_up or MadeUp()
    values = _chosen(made_up, integers=has_integers(function))
    chosen = ", ".join(f"{name} = {value}" for name, value in values)
    return f"the inputs of {function.name} were made up again ({chosen}): {why}"


def _chosen(made_up: MadeUp, *, integers: bool) -> Iterator[tuple[str, int]]:
    yield from made_up.sizes.items()
    yield from made_up.numbers.items()
    if not integers:
        return
    if made_up.integers != MadeUp().integers:
        yield "integers below", made_up.least + made_up.integers
    if made_up.least:
        yield "integers from", made_up.least


def alternatives(
    function: Function, made_up: MadeUp, shifts: Sequence[int] = (), named: Sequence[int] = ()
) -> Iterator[MadeUp]:
    """Other inputs, where there is something to choose, the likelier ones first.

    shifts: numbers that integers may be off by. named: sizes that the program names.
    """
    symbols = list({d.symbol: None for t in function.inputs for d in t.shape if isinstance(d, Dim)})
    # What the program states stays, as long as there is something else to choose.
    symbols = [symbol for symbol in symbols if symbol not in made_up.sizes] or symbols
    numbers = [
        t.name
        for t in function.inputs
        if t.passed == "scalar"
        and ELEMENT_TYPES[t.dtype].family == "int"
        and t.name not in made_up.numbers
    ]
    if not _is_free(function):
        return
    stated = {d for t in function.inputs for d in t.shape if isinstance(d, int) and d}
    own = sorted(stated | {*made_up.sizes.values(), *made_up.numbers.values()})
    static = [*dict.fromkeys((*own, *named))]
    tried = dict.fromkeys((*static, 1, 2, 8, 64))
    alike = [dict.fromkeys(symbols, size) for size in tried] if symbols else []
    each = [{symbol: size} for size in static for symbol in symbols]
    pairs = [
        {one: a, two: b}
        for one, two in itertools.combinations(symbols, 2)
        for a, b in itertools.product(static, repeat=2)
    ]

    def chosen(sizes: dict[str, int], number: int) -> MadeUp:
        return msgspec.structs.replace(
            made_up,
            sizes=made_up.sizes | sizes,
            numbers=made_up.numbers | dict.fromkeys(numbers, number),
            integers=1,
            least=number,
        )

    yield chosen({}, 0)
    if has_integers(function):
        yield from (chosen({}, number) for shift in shifts for number in (shift, -shift))
    for sizes in [*each, *alike, *pairs]:
        for number in (0, 1) if numbers else (0,):
            yield chosen(sizes, number)


def has_integers(function: Function) -> bool:
    """True if it takes integers, which may be indices."""
    return any(ELEMENT_TYPES[t.dtype].family == "int" for t in function.inputs)


def _chooses(function: Function) -> bool:
    """True if its inputs were made up, and others may be chosen."""
    return function.made_up is not None and _is_free(function)


def _is_free(function: Function) -> bool:
    return has_integers(function) or any(
        isinstance(d, Dim) for t in function.inputs for d in t.shape
    )


def _settled(program: Program, function: Function, context: Context, text: str) -> Function:
    """The function with the first other inputs that can be evaluated; as it is without."""
    assert function.made_up is not None
    bare = msgspec.structs.replace(function, reference=None, unevaluated="")
    others = alternatives(function, function.made_up, constants([text]), sizes(text))
    chosen = list(itertools.islice(others, _MOST))
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        tried = []
        for number, made_up in enumerate(chosen):
            place = Path(scratch) / str(number)
            place.mkdir()
            given = examples.random(bare, made_up.seed, place, made_up)
            given = tuple(tensor.placed(place) for tensor in given)
            tried.append(msgspec.structs.replace(bare, example=given, made_up=made_up))
        found = references.first(program, tried, context, text)
    if found is None:
        return function
    return with_inputs(program, function, chosen[found], context, text).functions[0]


def with_inputs(
    program: Program, function: Function, made_up: MadeUp, context: Context, text: str = ""
) -> Program:
    """The program with nothing but that function, its inputs made up so, and their reference.

    Files go to the context's directory. text: the program's, where it is read already.
    """
    example = examples.random(function, made_up.seed, context.directory, made_up)
    again = msgspec.structs.replace(
        function, example=example, made_up=made_up, reference=None, unevaluated=""
    )
    only = msgspec.structs.replace(program, functions=(again,), notes=())
    return references.with_references(only, context, text)
