"""The search for simpler shapes, types and constants of a program that is already small.

Like `repro.reducer.shrink` it sees no IR: a survey of what could be simpler, proposals as data, and
answers to them. Given the same answers it asks the same questions in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from iree_pilot.repro.reducer.shrink import Progress

#: In place of a unit: all sizes become 1.
ONES = 0
#: The units that sizes are made small multiples of, tried in this order: where code is generated
#: for vectors, eight elements are what most failures need, elsewhere any size shows them.
UNITS, ANYWHERE = (8, 32), (ONES, 1, 2, 8, 32)
#: Units that are tried last, below the one that was accepted.
_SMALLEST = (ONES, 1, 2)

#: Aspects of a program that can be simplified, apart from sizes. dynamic: dimensions that are not
#: static. literals: tensor constants with many numbers. attributes: those that the compiler may
#: ignore, and duplicate constants. types: floating-point types other than f32. arguments: tensor
#: constants that are no splats.
Aspect = Literal["dynamic", "literals", "attributes", "types", "arguments"]
_TOGETHER: tuple[Aspect, ...] = ("dynamic", "literals", "attributes")
_LATER: tuple[Aspect, ...] = ("arguments", "types")


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
    """A simpler program, told as what to do with the one that was surveyed.

    sizes: what takes the place of a size, in types, literals and the constants that speak of it.
    dynamic: the size of what has none; 0 leaves it. literals: they become splats. attributes:
    those that may be dropped are. types: floating-point types become f32. arguments: tensor
    constants that are no splats become arguments.
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
_Step = int | Aspect


@dataclass(frozen=True)
class SimplifyOptions:
    """Options of a simplification: at most `budget` programs are tested.

    units: what sizes are made small multiples of, one after the other. ops: how many operations
    there are, for those who are told.
    """

    ask: Callable[[list[Path]], Sequence[_Answer]]
    render: Render
    budget: int
    units: Sequence[int] = UNITS
    ops: int = 0
    on_progress: Callable[[Progress], None] = lambda _: None


def simplify(program: Path, survey: Survey, options: SimplifyOptions) -> Simplified:
    """The program with smaller shapes, fewer dynamic dimensions, simpler attributes and types.

    Everything at once first, which one call settles in most cases, and with the smallest sizes;
    then, while the budget lasts, coarser sizes, and halves of what was proposed. Last, each size
    becomes the smallest that still answers "same". A proposal that no program can be made of costs
    no call.
    """
    search, units = _Search(program, survey, options), options.units
    sizes: list[_Step] = [size for size in reversed(survey.sizes) if size > 1]
    rest: list[_Step] = [aspect for aspect in _TOGETHER if aspect in survey.aspects]
    for unit in filter(search.leaves_constants, units):
        search.unit = unit
        if search.accepts([*sizes, *rest]):
            break
    else:
        search.unit = max(units[0], 2)
        search.halves(rest, asked=not sizes)
        search.halves(sizes, asked=not rest)
    search.finer(sizes)
    for aspect in _LATER:
        if aspect in survey.aspects and not (aspect == "arguments" and search.has("literals")):
            search.accepts([aspect])
    search.lower_each()
    return search.best


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


class _Search:
    """Simplifications accepted so far, and the calls that are left."""

    def __init__(self, program: Path, survey: Survey, options: SimplifyOptions) -> None:
        self.best = Simplified(path=str(program))
        self.unit = UNITS[0]
        self._survey, self._options = survey, options
        self._steps: list[_Step] = []
        self._accepted = Proposal()
        self._proposed = {self._accepted}

    def accepts(self, steps: Sequence[_Step]) -> bool:
        """True if these steps, with those accepted before, answer "same"; then they are kept."""
        together = [*self._steps, *steps]
        if self._is_same(self._proposal(together, products) for products in (False, True)):
            self._steps = together
            return True
        return False

    def has(self, step: _Step) -> bool:
        return step in self._steps

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
        if self.best.calls and not all(map(self.has, sizes)):
            return
        accepted = self.unit if self.best.calls else 1 + max(_SMALLEST)
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
        for size in sorted(self._survey.sizes, key=lambda size: -self._sizes()[size]):
            refused = 0 if self.leaves_constants(ONES) else 1
            while between := range(refused + 1, self._sizes()[size]):
                value = between[len(between) // 2] if refused else between[0]
                if not self._lowers(size, value):
                    refused = value

    def _lowers(self, size: int, value: int) -> bool:
        """True if the program with this value for a size answers "same"; then it is kept."""
        sizes = self._sizes()
        return self._is_same(
            msgspec.structs.replace(
                self._accepted, sizes=_changed(lowered(sizes, size, value, products))
            )
            for products in (False, True)
        )

    def _sizes(self) -> dict[int, int]:
        """Current value of each size."""
        return {size: size for size in self._survey.sizes} | dict(self._accepted.sizes)

    def _is_same(self, proposals: Iterable[Proposal]) -> bool:
        """True if the first proposal that is new and a program answers "same"; then it is kept."""
        if self.best.calls >= self._options.budget:
            return False
        for proposal in proposals:
            if proposal in self._proposed:
                continue
            self._proposed.add(proposal)
            (file,) = self._options.render([proposal])
            if file is not None:
                break
        else:
            return False
        names, asked = _names(proposal), self.best.calls
        self._options.on_progress(
            Progress(trying=", ".join(names), ops=self._options.ops, asked=asked)
        )
        self.best = msgspec.structs.replace(self.best, calls=asked + 1)
        (answer,) = self._options.ask([file])
        if answer.verdict != "same":
            return False
        self._accepted = proposal
        self.best = msgspec.structs.replace(self.best, path=str(file), done=names)
        return True

    def _proposal(self, steps: Sequence[_Step], products: bool) -> Proposal:
        chosen = [step for step in steps if isinstance(step, int)]
        sizes = scaled(self._survey.sizes, chosen, self.unit, products)
        taken = max((sizes[size] for size in chosen), default=0)
        return Proposal(
            sizes=_changed(sizes),
            dynamic=taken + max(self.unit, 1 - taken) if "dynamic" in steps else 0,
            literals="literals" in steps,
            attributes="attributes" in steps,
            types="types" in steps,
            arguments="arguments" in steps,
        )


def _changed(sizes: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    """Sizes that change, with their new values."""
    return tuple((size, new) for size, new in sizes.items() if size != new)


def _names(proposal: Proposal) -> tuple[str, ...]:
    """Names of a proposal's changes, for messages."""
    said = {
        "smaller shapes": proposal.sizes,
        "static shapes": proposal.dynamic,
        "splat constants": proposal.literals,
        "fewer attributes": proposal.attributes,
        "f32": proposal.types,
        "constants as arguments": proposal.arguments,
    }
    return tuple(name for name, there in said.items() if there)
