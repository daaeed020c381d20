"""Selection of a matrix's cases: `--only EXPR` and `--shard i/n`.

An expression has words as those of pytest's `-k`, whose parser is private; boolean.py and pyparsing
would want a tokenizer and messages of ours all the same, for patterns and quotes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.nightly.records import Case

Test = Callable[[Case], bool]

_TOKEN = re.compile(r"""\s*(?:([()])|"([^"]*)"|'([^']*)'|([^\s()"']+))""")
_WORDS = ("and", "or", "not")
#: Brackets and `not`s, which may each be in the one before, in one expression.
_MOST_NESTED = 100
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")
#: More machines than this are a slip of the pen.
_MOST_SHARDS = 10_000


def select(
    cases: Sequence[Case], *, only: str | None = None, shard: str | None = None
) -> tuple[Case, ...]:
    """The cases that `only` fits, and of those the ones in `shard`, in their order.

    only: words with `and`, `or`, `not` and brackets. A word fits a case that it is a part of the
    name of, or a tag; with `*`, `?` or `[` it is a pattern for a whole source, target, release,
    dtype or tag. Quotes hold words with spaces together.

    shard: `2/5`, the second of five. Cases of one program are in one shard, so that it is traced
    once; shards differ by no more than the cases of one program, and one that is added to the
    matrix moves few others.

    Raises UsageError for an expression that cannot be read or fits no case, and a shard that is
    none.
    """
    chosen = tuple(cases)
    if only is not None:
        test = parse(only)
        chosen = tuple(filter(test, cases))
        if not chosen:
            words = sorted({part for case in cases for part in _parts(case) if part})
            close = get_close_matches(only, words, cutoff=0.5)
            raise UsageError(
                f"--only {only!r} fits none of {len(cases)} cases",
                advice=f"Did you mean {' or '.join(close)}?" if close else "--dry-run lists them.",
            )
    if shard is None:
        return chosen
    number, count = _shard(shard)
    place = shards(chosen, count)
    return tuple(case for case in chosen if place[case.program] == number - 1)


def parse(text: str) -> Test:
    """The test that an expression stands for; raises UsageError where it cannot be read."""
    return _Parser(text).parsed()


def shards(cases: Sequence[Case], count: int) -> dict[str, int]:
    """The shard, from 0, of each program.

    Each program ranks the shards by a hash and goes to the first that has room (rendezvous hashing
    with bounded loads).
    """
    sizes = Counter(case.program for case in cases)
    room = max(-(-len(cases) // count), max(sizes.values(), default=0))
    loads = [0] * count
    found: dict[str, int] = {}
    for program in sorted(sizes, key=_hash):
        ranked = sorted(range(count), key=lambda shard: _hash(f"{shard} {program}"))
        fitting = (shard for shard in ranked if loads[shard] + sizes[program] <= room)
        shard = next(fitting, min(ranked, key=lambda shard: loads[shard]))
        loads[shard] += sizes[program]
        found[program] = shard
    return found


def _shard(text: str) -> tuple[int, int]:
    match = _SHARD.fullmatch(text.strip())
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count <= _MOST_SHARDS:
        raise UsageError(
            f"--shard {text}: no such shard",
            advice=f"Shards are 1/5, 2/5, ... 5/5 of five; there are at most {_MOST_SHARDS:,}.",
        )
    return number, count


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _parts(case: Case) -> tuple[str, ...]:
    return (case.source, case.target, case.release, case.dtype or "", *case.tags)


class _Parser:
    """or: and ("or" and)*   and: not ("and" not)*   not: "not" not | "(" or ")" | WORD"""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, bool]] = []  # (text, whether it is no word)
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._refused("a quote is not closed")
            bracket, double, single, bare = match.groups()
            plain = bracket or (bare if bare in _WORDS else "")
            self._tokens.append((plain or double or single or bare or "", bool(plain)))
            at = match.end()

    def parsed(self) -> Test:
        if sum(text in ("(", "not") for text, _ in self._tokens) > _MOST_NESTED:
            raise self._refused(f"there are more than {_MOST_NESTED} brackets and `not`s")
        test = self._or()
        if self._tokens:
            raise self._refused(f"{self._tokens[0][0]!r} stands where `and` or `or` would")
        return test

    def _or(self) -> Test:
        tests = [self._and()]
        while self._take("or"):
            tests.append(self._and())
        return lambda case: any(test(case) for test in tests)

    def _and(self) -> Test:
        tests = [self._not()]
        while self._take("and"):
            tests.append(self._not())
        return lambda case: all(test(case) for test in tests)

    def _not(self) -> Test:
        if self._take("not"):
            test = self._not()
            return lambda case: not test(case)
        if self._take("("):
            test = self._or()
            if not self._take(")"):
                raise self._refused("a bracket is not closed")
            return test
        if not self._tokens or self._tokens[0][1]:
            before = f" before {self._tokens[0][0]!r}" if self._tokens else " at the end"
            raise self._refused(f"a word is missing{before}")
        return _word(self._tokens.pop(0)[0])

    def _take(self, token: str) -> bool:
        found = self._tokens[:1] == [(token, True)]
        if found:
            self._tokens.pop(0)
        return found

    def _refused(self, why: str) -> UsageError:
        return UsageError(
            f"--only {self._text!r}: {why}",
            advice="An example: --only 'llama and not (hip or 3.12.0)'.",
        )


def _word(word: str) -> Test:
    if any(c in word for c in "*?["):
        return lambda case: any(fnmatchcase(part, word) for part in _parts(case))
    return lambda case: word.lower() in case.name.lower() or word in case.tags
