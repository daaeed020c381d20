"""Several candidate programs as one module: what compiles there need not be compiled one by one.

A child process writes the module, because the bindings can abort on IR that they do not like; it
imports `iree.compiler.ir`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from iree_pilot.repro.ir import feeds
from iree_pilot.repro.ir.bindings import Bindings
from iree_pilot.repro.oracles.oracle import Answer

_FUNCTION = re.compile(r"\s*(?:func|util)\.func\b[^@]*@\"?(?P<name>[\w$.-]+)")
#: Answers for candidates in files.
Ask = Callable[[list[Path]], list[Answer]]
#: Output of the compile of a candidate.
Said = Callable[[Path], str]
#: New name of a symbol of one candidate.
NAME = "candidate_{}_{}"
_NUMBERED = re.compile(r"(?:\b|_)candidate_(\d+)_")
_PLACE = re.compile(r":(\d+):\d+\)?: error:")


def cleared(
    candidates: Sequence[Path | None],
    place: Path,
    ask: Ask,
    said: Said,
    bindings: Bindings,
    about: str = "",
) -> list[str]:
    """Answer of one compile for each candidate: "passes", "invalid", "likely", "suspect", or
    nothing.

    They are asked about as one module in the new file `place`. Where it passes, all do: their
    functions have nothing to do with each other. Where it does not, those that are named are the
    suspects, likely ones where it is for what the failure is `about`, and nothing is known of the
    others. None is a candidate that could not be made.
    """
    made = [number for number, file in enumerate(candidates) if file is not None]
    verdicts = ["" if file is not None else "invalid" for file in candidates]
    if not made:
        return verdicts
    joining = Joining(sources=tuple(str(candidates[n]) for n in made), target=str(place))
    done = bindings.call(f"{__name__}:joined", joining, type(None), place.with_suffix(".joining"))
    if not done.outcome.ok:
        return verdicts
    fed = [
        msgspec.structs.replace(one, function=NAME.format(at, one.function))
        for at, number in enumerate(made)
        for one in feeds.of(candidates[number] or Path())
    ]
    feeds.write(place, tuple(fed))
    (answer,) = ask([place])
    if answer.verdict == "passes":
        return [verdict or "passes" for verdict in verdicts]
    module, text = place.read_text(encoding="utf-8"), said(place)
    # A file's own name may have that in it too.
    errors = [line for line in text.splitlines() if about in line.partition("error:")[2]]
    likely = named(module, "\n".join(errors))
    for number in named(module, text):
        if number < len(made):
            verdicts[made[number]] = "likely" if about and number in likely else "suspect"
    return verdicts


class Joining(msgspec.Struct, frozen=True, kw_only=True):
    """Programs in files, and the file for the module of all."""

    sources: tuple[str, ...]
    target: str


def joined(joining: Joining, directory: Path) -> None:
    """Writes one module with all that the programs hold. Raises ValueError."""
    texts = [Path(source).read_bytes() for source in joining.sources]
    Path(joining.target).write_text(join(texts), encoding="utf-8")


def join(texts: Sequence[bytes]) -> str:
    """One module with all that the modules hold; the symbols of number N begin `candidate_N_`.

    Raises ValueError where they do not fit into one.
    """
    from iree.compiler import ir

    with ir.Context() as context, ir.Location.unknown():
        context.allow_unregistered_dialects = True
        joined = ir.Module.create()
        for number, text in enumerate(texts):
            module = ir.Module.parse(text)
            operation = module.operation
            symbols = ir.SymbolTable(operation)
            top = [op.operation for op in module.body.operations]
            for op in top:
                if "sym_name" in op.attributes:
                    old = op.attributes["sym_name"].value
                    new = NAME.format(number, old)
                    symbols.replace_all_symbol_uses(old, new, operation)
                    symbols.set_symbol_name(op, new)
            for op in top:
                joined.body.append(op)
            for name in operation.attributes:
                joined.operation.attributes[name] = operation.attributes[name]
        if not joined.operation.verify():
            raise ValueError("the candidates do not fit into one module")
        return str(joined.operation.get_asm(enable_debug_info=False))


def named(joined: str, said: str) -> tuple[int, ...]:
    """The numbers of the candidates that a compiler names as being at fault, in its order.

    joined: the module. said: what the compiler printed: an error's place, or the name of a
    function or of a dispatch made of one.
    """
    functions: list[str] = []
    inside = ""
    for line in joined.splitlines():
        if match := _FUNCTION.match(line):
            inside = match["name"]
        functions.append(inside)
    found: dict[int, None] = {}
    for line in said.splitlines():
        if match := _PLACE.search(line):
            number = int(match[1]) - 1
            line = functions[number] if number < len(functions) else ""
        elif "operation:" not in line and "on function" not in line and "on module" not in line:
            continue
        found |= dict.fromkeys(numbers(line))
    return tuple(found)


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of the candidates whose symbols appear in a text, in its order."""
    return tuple(dict.fromkeys(int(n) for n in _NUMBERED.findall(text)))
