"""The search for simpler shapes, types and constants of a program that is already small.

Like `repro.reducer.shrink` it sees no IR: a survey of what could be simpler, proposals as data, and
answers to them. Given the same answers it asks the same questions in the same order. Many
programs can be asked about in one module: what the answer names is likely to fail in the same way,
and is asked about alone before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

import msgspec

from iree_pilot.repro.reducer.shrink import Progress

#: In place of a unit: all sizes become 1.
ONES = 0
#: The units that sizes are made small multiples of, tried in this order: where code is generated
#: for vectors, eight elements are what most failures need, elsewhere any size shows them.
UNITS, ANYWHERE = (8, 32), (ONES, 1, 2, 8, 32)
#: Units that are tried last, below the one that was accepted.
_SMALLEST = (ONES, 1, 2)
#: Programs in one module, at most.
_MOST = 16

#: Aspects of a program that can be simplified, apart from sizes, each a field of `Proposal`.
Aspect = Literal["dynamic", "literals", "attributes", "types", "arguments"]


class _Trial(NamedTuple):
    """Trial of an aspect: its name in messages, and whether it comes alone, after the others.

    settled_by: aspects that leave nothing of it to simplify.
    """

    name: str
    later: bool = False
    settled_by: tuple[Aspect, ...] = ()


#: Each aspect once, in the order of messages; of those that come later the last is tried first.
_TRIALS: dict[Aspect, _Trial] = {
    "dynamic": _Trial("static shapes"),
    "literals": _Trial("splat constants"),
    "attributes": _Trial("fewer attributes"),
    "types": _Trial("f32", later=True),
    "arguments": _Trial("constants as arguments", later=True, settled_by=("literals",)),
}


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """Possible simplifications of a program: its sizes (of dimensions, ascending) and aspects.

    constants: it has tensor constants that are no splats.

    functions: the name and a line of each, those with most operations first.
    """

    sizes: tuple[int, ...] = ()
    aspects: tuple[Aspect, ...] = ()
    functions: tuple[tuple[str, int], ...] = ()
    constants: bool = False


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A simpler program, described as what to do with the one that was surveyed.

    sizes: what takes the place of a size, in types, literals and the constants that speak of it.
    dynamic: the size of what has none; 0 leaves it. literals: tensor constants with many numbers
    become splats. attributes: those that the compiler may ignore, and duplicate constants, are
    dropped. types: floating-point types become f32. arguments: tensor constants that are no splats
    become arguments.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    dynamic: int = 0
    literals: bool = False
    attributes: bool = False
    types: bool = False
    arguments: bool = False


class Simplified(msgspec.Struct, frozen=True, kw_only=True):
    """The simplest program that answered "same"; without any, the one it began with.

    done: the names of what was accepted. calls: how many programs were asked about.
    """

    path: str
    calls: int = 0
    done: tuple[str, ...] = ()


class _Answer(Protocol):
    @property
    def verdict(self) -> str: ...


#: A file for each proposal; None where there is no such program.
Render = Callable[[Sequence[Proposal]], Sequence[Path | None]]
#: Answers for several programs with one question, as `repro.reducer.together` gives them.
AllAtOnce = Callable[[Sequence[Path]], Sequence[str]]
_Step = int | Aspect
#: A change of what was accepted: a size and its new value, or an aspect.
_Move = tuple[int, int] | Aspect
T = TypeVar("T")


@dataclass(frozen=True)
class SimplifyOptions:
    """Options of a simplification: at most `budget` programs are tested, and once several that
    showed nothing.

    units: what sizes are made small multiples of, one after the other. ops: how many operations
    there are, for on_progress. together: tests several at the cost of one, where that can
    be done.
    """

    ask: Callable[[list[Path]], Sequence[_Answer]]
    render: Render
    budget: int
    units: Sequence[int] = UNITS
    ops: int = 0
    together: AllAtOnce | None = None
    on_progress: Callable[[Progress], None] = lambda _: None


def simplify(program: Path, survey: Survey, options: SimplifyOptions) -> Simplified:
    """The program with smaller shapes, fewer dynamic dimensions, simpler attributes and types.

    Everything at once first, which one call settles in most cases, and with the smallest sizes;
    then, while the budget lasts, coarser sizes, and halves of what was proposed. Last, each size
    becomes the smallest that still answers "same". A proposal that no program can be made of costs
    no call. Where several can be tested together, they are, until that tells nothing.
    """
    search = _Simplification(program, survey, options)
    sizes: list[_Step] = [size for size in reversed(survey.sizes) if size > 1]
    rest: list[_Step] = [
        aspect for aspect, trial in _TRIALS.items() if aspect in survey.aspects and not trial.later
    ]
    if not search.rounds([*sizes, *rest]):
        search.began = search.best.calls
        _one_by_one(search, sizes, rest, options.units)
    return search.best


def _one_by_one(
    search: _Simplification, sizes: list[_Step], rest: list[_Step], units: Sequence[int]
) -> None:
    for unit in filter(search.leaves_constants, units):
        search.unit = unit
        if search.accepts([*sizes, *rest]):
            break
    else:
        search.unit = max(units[0], 2)
        search.halves(rest, asked=not sizes)
        search.halves(sizes, asked=not rest)
    search.finer(sizes)
    for aspect in search.later():
        search.accepts([aspect])
    search.lower_each()


def scaled(
    sizes: Sequence[int], chosen: Iterable[int], unit: int, products: bool
) -> dict[int, int]:
    """Replacement of each size (ascending), if those of `chosen` are to be small.

    Sizes that differ stay different and in their order, so that what fails because two of them
    are not the same still does; but all are 1 for the unit `ONES`. products: a size that is the
    product of two others, one of them made smaller, stays their product; views and reshapes need
    it.
    """
    wanted = set(chosen)
    found: dict[int, int] = {}
    last = 0
    for size in sizes:
        factors = _factors(found, size) if products else None
        if factors is not None:
            found[size] = factors[0] * factors[1]
        elif size in wanted and unit == ONES:
            found[size] = min(size, 1)
        elif size in wanted and size > unit:
            found[size] = min(size, (last // unit + 1) * unit)
        else:
            found[size] = size
        last = max(last, found[size])
    return found


def lowered(new: Mapping[int, int], size: int, value: int, products: bool) -> dict[int, int]:
    """Replacements of sizes (ascending) with `value` for one of them; products as in `scaled`."""
    found: dict[int, int] = {}
    for other, replacement in new.items():
        factors = _factors(found, other) if products and other != size else None
        found[other] = value if other == size else replacement
        if factors is not None:
            found[other] = factors[0] * factors[1]
    return found


def _factors(found: Mapping[int, int], size: int) -> tuple[int, int] | None:
    """New values of two sizes whose product is another size, if either changed."""
    for factor in found:
        other = size // max(factor, 1)
        whole = factor > 1 and factor * other == size and other in found
        if whole and (found[factor], found[other]) != (factor, other):
            return found[factor], found[other]
    return None


class _Program(NamedTuple):
    proposal: Proposal
    file: Path


class _Simplification:
    """Simplifications accepted so far, and the calls that are left."""

    def __init__(self, program: Path, survey: Survey, options: SimplifyOptions) -> None:
        self.best = Simplified(path=str(program))
        self.unit = UNITS[0]
        #: Calls before sizes are made small one question after the other.
        self.began = 0
        self._survey, self._options, self._budget = survey, options, options.budget
        self._steps: list[_Step] = []
        self._kept = _Program(Proposal(), program)
        self._answered = {Proposal()}
        self._impossible: set[Proposal] = set()

    def accepts(self, steps: Sequence[_Step]) -> bool:
        """True if these steps, with those accepted before, answer "same"; then they are kept."""
        steps = [*self._steps, *steps]
        if self._any_same(self._with(steps, self.unit)):
            self._steps = steps
            return True
        return False

    def has(self, step: _Step) -> bool:
        return step in self._steps

    def later(self, proposal: Proposal | None = None) -> list[Aspect]:
        """The aspects tried last that a proposal (the accepted one) leaves as they are."""
        proposal = proposal or self._kept.proposal
        return [
            aspect
            for aspect, trial in reversed(_TRIALS.items())
            if trial.later
            and aspect in self._survey.aspects
            and not any(getattr(proposal, done) for done in (aspect, *trial.settled_by))
        ]

    def halves(self, steps: Sequence[_Step], asked: bool = False) -> None:
        """Accepts what it can of steps; asked: all of them together were refused already."""
        if not steps or (not asked and self.accepts(steps)) or len(steps) == 1:
            return
        middle = (len(steps) + 1) // 2
        self.halves(steps[:middle])
        self.halves(steps[middle:])

    def leaves_constants(self, unit: int) -> bool:
        """False if constants would become one number each, which the compiler folds."""
        only = sum(size > 1 for size in self._survey.sizes) == 1
        return unit > 1 or not (only and self._survey.constants)

    def finer(self, sizes: Sequence[_Step]) -> None:
        """Accepts all sizes with the smallest unit below the one that they were accepted with."""
        asked = self.best.calls > self.began
        if asked and not all(map(self.has, sizes)):
            return
        accepted = self.unit if asked else 1 + max(_SMALLEST)
        lower = (unit for unit in _SMALLEST if unit < accepted)
        for unit in filter(self.leaves_constants, lower):
            self.unit = unit
            if self.accepts(sizes):
                return
        self.unit = accepted

    def lower_each(self) -> None:
        """Lowers each size, the largest first, as far as the answer stays "same".

        1 is asked about first, then halves of what is between: that takes for granted that what
        fails with a size does with larger ones.
        """
        for size in sorted(self._survey.sizes, key=lambda size: -self._now[size]):
            refused = 0 if self.leaves_constants(ONES) else 1
            while between := range(refused + 1, self._now[size]):
                value = between[len(between) // 2] if refused else between[0]
                if not self._lowers(size, value):
                    refused = value

    def rounds(self, steps: Sequence[_Step]) -> bool:
        """True if programs tested together, round after round, lead to one that answers "same".

        First the steps with each unit; from the smallest that is likely to fail on, each size alone
        with several lower values, and the aspects that come later: what is likely of them is taken
        all at once, or else the first of it.
        """
        if self._options.together is None:
            return False
        units = [*filter(self.leaves_constants, sorted({*self._options.units, *_SMALLEST}))]
        self.unit = units[0]
        # The smallest settles most failures of those that it is tried first for: it needs no other.
        if units[0] in self._options.units and self.accepts(steps):
            best = self._kept
        else:
            made = self._made([self._with(steps, unit) for unit in units])
            smaller, _ = self._likely({one: one for one in made if one is not None})
            if not smaller:
                return False
            best = smaller[0]
        refused: set[_Move] = set()
        while moves := self._moves(best.proposal, refused)[:_MOST]:
            made = self._made([self._moved(best.proposal, [move]) for move in moves])
            found = {m: program for m, program in zip(moves, made, strict=True) if program}
            likely, others = self._likely(found, spare=best == self._kept)
            others |= {*moves} - {*found}
            if not likely and not others:
                break
            refused |= others
            if likely:
                best = self._all_of(best, likely) or found[likely[0]]
        return best == self._kept or self._is_same(best)

    def _likely(
        self, programs: Mapping[T, _Program], spare: bool = False
    ) -> tuple[list[T], set[T]]:
        """(the programs that are likely to answer "same", those that are not).

        Nothing is said of the others. spare: no call has to be left for what is likely already.
        """
        assert self._options.together is not None
        left, refused = dict(programs), set[T]()
        while left:
            if len(left) == 1 and self._left > (0 if spare else 1):
                ((name, program),) = left.items()
                same = self._is_same(program)
                return ([name], refused) if same else ([], {name, *refused})
            if self._left < 2:
                break
            self._count("smaller shapes in one module")
            verdicts = self._options.together([program.file for program in left.values()])
            judged = dict(zip(left, verdicts, strict=True))
            likely = [name for name, verdict in judged.items() if verdict == "likely"]
            named = [name for name, verdict in judged.items() if verdict in ("likely", "suspect")]
            clear = {name for name, verdict in judged.items() if verdict in ("passes", "invalid")}
            self._answered |= {left[name].proposal for name in clear}
            gone = clear | {*named}
            if likely:
                # A compiler that names two of them does not end at the first that fails.
                refused |= {*left} if len(named) > 1 else gone
                return likely, refused - {*likely}
            if not gone:
                # What is asked one by one then is as much as without it.
                self._budget = self._options.budget + 1
                break
            refused |= gone
            left = {name: program for name, program in left.items() if name not in gone}
        return [], refused

    def _moves(self, proposal: Proposal, refused: Collection[_Move]) -> list[_Move]:
        """Simpler values: of the largest size first, the lowest of each first; then later aspects.

        That takes for granted that what fails with a size does with larger ones.
        """
        sizes, found = self._sizes(proposal), list[_Move]()
        known = [move for move in refused if isinstance(move, tuple)]
        smallest = 0 if self.leaves_constants(ONES) else 1
        for size in sorted(sizes, key=lambda size: -sizes[size]):
            too_small = (value for other, value in known if other == size and value < sizes[size])
            least = max(too_small, default=smallest)
            below = range(least + 1, sizes[size])
            spans = [2**power for power in range(len(below).bit_length())]
            values = {*(least + span for span in spans), *(sizes[size] - span for span in spans)}
            found += ((size, value) for value in below if value in values or value == below[-1])
        return [*found, *(one for one in self.later(proposal) if one not in refused)]

    def _all_of(self, program: _Program, moves: Sequence[_Move]) -> _Program | None:
        """The program with all of these changes, of each size the lowest, if it answers "same"."""
        lowest = dict(sorted((m for m in moves if isinstance(m, tuple)), reverse=True))
        all_: list[_Move] = [*lowest.items(), *(m for m in moves if isinstance(m, str))]
        if len(all_) == 1 or (self._left < 2 and program != self._kept):
            return None
        (made,) = self._made([self._moved(program.proposal, all_)])
        return made if made is not None and self._is_same(made) else None

    def _lowers(self, size: int, value: int) -> bool:
        """True if the program with this value for a size answers "same"; then it is kept."""
        return self._any_same(self._moved(self._kept.proposal, [(size, value)]))

    def _moved(self, proposal: Proposal, moves: Sequence[_Move]) -> tuple[Proposal, Proposal]:
        """A proposal with changes, without and with products as in `lowered`."""
        aspects = {move: True for move in moves if isinstance(move, str)}

        def moved(products: bool) -> Proposal:
            sizes = self._sizes(proposal)
            for move in moves:
                if isinstance(move, tuple):
                    sizes = lowered(sizes, *move, products)
            return msgspec.structs.replace(proposal, sizes=_changed(sizes), **aspects)

        return moved(False), moved(True)

    @property
    def _now(self) -> dict[int, int]:
        return self._sizes(self._kept.proposal)

    def _sizes(self, proposal: Proposal) -> dict[int, int]:
        """Value of each size."""
        return {size: size for size in self._survey.sizes} | dict(proposal.sizes)

    def _made(self, choices: Sequence[tuple[Proposal, Proposal]]) -> list[_Program | None]:
        """Program of the first proposal of each pair that is one; None where it is not new."""
        found: list[_Program | None] = [None] * len(choices)
        open_ = {*range(len(choices))}
        for turn in zip(*choices, strict=True):
            open_ -= {n for n in open_ if turn[n] in self._answered}
            new = [n for n in sorted(open_) if turn[n] not in self._impossible]
            files = self._options.render([turn[n] for n in new])
            self._impossible |= {turn[n] for n, file in zip(new, files, strict=True) if not file}
            made = {n: _Program(turn[n], file) for n, file in zip(new, files, strict=True) if file}
            for n, program in made.items():
                found[n] = program
            open_ -= {*made}
        return found

    def _any_same(self, choice: tuple[Proposal, Proposal]) -> bool:
        """True if the first proposal that is new and a program answers "same"; then it is kept."""
        if self._left <= 0:
            return False
        (program,) = self._made([choice])
        return program is not None and self._is_same(program)

    def _is_same(self, program: _Program) -> bool:
        """True if a program answers "same" alone; then it is kept."""
        if self._left <= 0:
            return False
        self._answered.add(program.proposal)
        names = _names(program.proposal)
        self._count(", ".join(names))
        (answer,) = self._options.ask([program.file])
        if answer.verdict != "same":
            return False
        self._kept = program
        self.best = msgspec.structs.replace(self.best, path=str(program.file), done=names)
        return True

    @property
    def _left(self) -> int:
        """Calls that are left."""
        return self._budget - self.best.calls

    def _count(self, trying: str) -> None:
        asked = self.best.calls
        self._options.on_progress(Progress(trying=trying, ops=self._options.ops, asked=asked))
        self.best = msgspec.structs.replace(self.best, calls=asked + 1)

    def _with(self, steps: Sequence[_Step], unit: int) -> tuple[Proposal, Proposal]:
        """The steps proposed, without and with products as in `scaled`."""
        return self._proposal(steps, unit, False), self._proposal(steps, unit, True)

    def _proposal(self, steps: Sequence[_Step], unit: int, products: bool) -> Proposal:
        chosen = [step for step in steps if isinstance(step, int)]
        sizes = scaled(self._survey.sizes, chosen, unit, products)
        taken = max((sizes[size] for size in chosen), default=0)
        made = msgspec.structs.replace(
            Proposal(sizes=_changed(sizes)), **{one: True for one in steps if isinstance(one, str)}
        )
        if "dynamic" not in steps:
            return made
        return msgspec.structs.replace(made, dynamic=taken + max(unit, 1 - taken))


def _changed(sizes: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    """Sizes that change, with their new values."""
    return tuple((size, new) for size, new in sizes.items() if size != new)


def _names(proposal: Proposal) -> tuple[str, ...]:
    """Names of a proposal's changes, for messages."""
    changed = [trial.name for aspect, trial in _TRIALS.items() if getattr(proposal, aspect)]
    return (*(["smaller shapes"] if proposal.sizes else []), *changed)
