"""Results of `scripts/bench bisect`: records of reducers on one program, judged and reported."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import msgspec
from bench_base import Spread, span
from bench_peers import Attempt

from iree_pilot.pipeline.cli.display import output as out

#: A failing program is to be isolated within this many of its full compiles, and so many seconds.
_COMPILES, _SECONDS = 2.0, 10.0


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A program that fails to compile, and what its bisection should not exceed.

    about: what the failure's operation or message holds, where one compile reports several.
    seconds: limit of one compile. compiles_at_most: limit of the whole command, in failing
    compiles of the same round.
    """

    name: str
    source: str
    target: str
    about: str = ""
    calls_at_most: int | None = None
    ops_at_most: int | None = None
    compiles_at_most: float | None = None
    seconds: float = 600.0


class Isolation(Attempt, frozen=True, kw_only=True):
    """Result of `iree-pilot bisect` on a program.

    search_seconds: of the search alone, from the known failure. command_seconds: of all that the
    command did. levels: those that were verified.
    """

    search_seconds: float = 0.0
    command_seconds: float = 0.0
    minimal: bool = False
    verified: bool = False
    levels: tuple[str, ...] = ()


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One time through all reducers. compile_seconds: of one full compile that fails."""

    trace_seconds: float
    compile_seconds: float
    signature: str
    isolation: Isolation
    peers: Mapping[str, Attempt]


class Reducer(msgspec.Struct, frozen=True, kw_only=True):
    """A reducer's attempts; the spreads leave out those that failed."""

    what: str
    attempts: tuple[Attempt, ...]
    calls: Spread | None
    seconds: Spread | None
    ops: Spread | None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Check that the median of a figure stays within its limit."""

    what: str
    figure: float | None
    at_most: float
    met: bool


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison with a peer: no more operations left, fewer calls, less time.

    By the medians. A peer that was cut would have taken more calls and time; its operations are
    those left when it was cut. One that failed with nothing left to compare is behind.
    """

    peer: str
    ops: bool
    calls: bool
    seconds: bool


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """One program and all reducers on it; `bisect` comes first."""

    program: Program
    signature: str
    trace_seconds: Spread
    compile_seconds: Spread
    reducers: tuple[Reducer, ...]
    verdicts: tuple[Verdict, ...]
    ahead: tuple[Ahead, ...]


def judged(program: Program, rounds: Sequence[Round]) -> Contest:
    """The figures of all rounds."""
    ours = reduced("iree-pilot bisect", [r.isolation for r in rounds])
    peers = [reduced(name, [r.peers[name] for r in rounds]) for name in rounds[0].peers]
    within = [
        r.isolation.seconds / (_COMPILES * r.compile_seconds + _SECONDS)
        for r in rounds
        if r.isolation.ended == "done"
    ]
    commands = [
        r.isolation.command_seconds / r.compile_seconds
        for r in rounds
        if r.isolation.ended == "done"
    ]
    verdicts = [
        _verdict("oracle calls", _median(ours.calls), program.calls_at_most),
        _verdict("operations", _median(ours.ops), program.ops_at_most),
        _verdict(
            f"share of {_COMPILES:g} full compiles + {_SECONDS:g} s",
            statistics.median(within) if within else None,
            1.0,
        ),
        _verdict(
            "the whole command in full compiles",
            statistics.median(commands) if commands else None,
            program.compiles_at_most,
        ),
    ]
    return Contest(
        program=program,
        signature=rounds[0].signature,
        trace_seconds=Spread.of([r.trace_seconds for r in rounds]),
        compile_seconds=Spread.of([r.compile_seconds for r in rounds]),
        reducers=(ours, *peers),
        verdicts=tuple(v for v in verdicts if v is not None),
        ahead=tuple(_ahead(ours, peer) for peer in peers),
    )


def reduced(what: str, attempts: Sequence[Attempt]) -> Reducer:
    """A reducer's medians."""
    finished = [a for a in attempts if a.ended != "failed"]
    left = [a.ops for a in finished if a.ops is not None]
    return Reducer(
        what=what,
        attempts=tuple(attempts),
        calls=Spread.of([a.calls for a in finished]) if finished else None,
        seconds=Spread.of([a.seconds for a in finished]) if finished else None,
        ops=Spread.of(left) if left else None,
    )


def _median(spread: Spread | None) -> float | None:
    return spread.median if spread else None


def _verdict(what: str, figure: float | None, at_most: float | None) -> Verdict | None:
    if at_most is None:
        return None
    met = figure is not None and figure <= at_most
    return Verdict(what=what, figure=figure, at_most=at_most, met=met)


def _ahead(ours: Reducer, peer: Reducer) -> Ahead:
    def before(own: Spread | None, other: Spread | None, *, equal: bool = False) -> bool:
        if own is None or other is None:
            return own is not None
        return own.median < other.median or (equal and own.median == other.median)

    return Ahead(
        peer=peer.what,
        ops=before(ours.ops, peer.ops, equal=True),
        calls=before(ours.calls, peer.calls),
        seconds=before(ours.seconds, peer.seconds),
    )


def tell(found: Contest) -> None:
    """One program's figures for people."""
    console, program = out.console(), found.program
    count = len(found.reducers[0].attempts)
    console.print(
        f"\n[bold]{program.name}[/bold] for {program.target}: {found.signature}; "
        f"{count} round{'' if count == 1 else 's'}: medians\n"
        f"traced in {span(found.trace_seconds, out.seconds)}; "
        f"one full compile that fails: {span(found.compile_seconds, out.seconds)}",
        soft_wrap=True,
    )
    columns = ("calls", "time", "operations left", "")
    table = out.table("", *columns, right=columns[:-1])
    for reducer in found.reducers:
        table.add_row(
            reducer.what,
            span(reducer.calls, "{:g}".format) if reducer.calls else "",
            span(reducer.seconds, out.seconds) if reducer.seconds else "",
            _left(reducer),
            _remark(reducer.attempts[-1]),
        )
    console.print(table)
    for verdict in found.verdicts:
        figure = "nothing" if verdict.figure is None else f"{verdict.figure:.3g}"
        text = f"{verdict.what}: {figure}, at most {verdict.at_most:g}"
        console.print(f"  {_coloured(text, verdict.met, 'met', 'MISSED')}")
    for ahead in found.ahead:
        behind = [name for name in ("ops", "calls", "seconds") if not getattr(ahead, name)]
        no = f"NOT in {', '.join(behind)}"
        console.print(f"  {_coloured(f'against {ahead.peer}', not behind, 'ahead', no)}")


def _left(reducer: Reducer) -> str:
    whole = reducer.attempts[-1].of
    return f"{span(reducer.ops, '{:g}'.format)} of {whole}" if reducer.ops else ""


def _remark(attempt: Attempt) -> str:
    if isinstance(attempt, Isolation) and attempt.ended == "done":
        state = "minimal" if attempt.minimal else "not proved minimal"
        verified = "verified" if attempt.verified else "NOT verified"
        search, whole = out.seconds(attempt.search_seconds), out.seconds(attempt.command_seconds)
        levels = ", ".join(attempt.levels)
        return f"{state}, {verified}: {levels}; the search {search}, the command {whole}"
    return f"{attempt.ended}: {attempt.why}" if attempt.why else attempt.ended


def _coloured(text: str, good: bool, yes: str, no: str) -> str:
    return f"[green]{text}: {yes}[/green]" if good else f"[red]{text}: {no}[/red]"
