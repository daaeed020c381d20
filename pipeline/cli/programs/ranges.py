"""`iree-pilot ranges`: what overflows and underflows in a low-precision program, and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from iree_pilot.pipeline.cli import completing, several
from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import (
    TEXT,
    Common,
    SourceOptions,
    common,
    joined,
    source_options,
)
from iree_pilot.pipeline.toolchain.context import Context

if TYPE_CHECKING:
    from iree_pilot.pipeline.targets.targets import Plan
    from iree_pilot.repro.ranges.find_ranges import Ranges, Reading
    from iree_pilot.repro.ranges.measure import Counts

_WORDS = {
    "saturated": "saturate",
    "infinite": "become infinite",
    "nan": "become NaN",
    "flushed": "become 0",
    "subnormal": "are subnormal",
}


@click.command(
    "ranges",
    epilog=examples(
        "iree-pilot ranges llama-fp8", "iree-pilot ranges model.py -t llvm-cpu --check"
    ),
)
@source_options
@click.option(
    "-t",
    "--target",
    multiple=True,
    callback=joined,
    metavar="TARGET[,TARGET...]",
    shell_complete=completing.targets,
    help="Check on this target's device too; several are checked one after the other.",
)
@click.option("--device", type=TEXT, metavar="URI", help="Run on this device (iree-pilot targets).")
@click.option(
    "--check",
    is_flag=True,
    help="Exit with 1 if anything leaves its range or cannot be checked.",
)
@common(limits=True, release=True)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def command(
    source_options: SourceOptions,
    target: str | None,
    device: str | None,
    check: bool,
    common: Common,
    flags: tuple[str, ...],
    source: str,
) -> None:
    """Find intermediates of SOURCE that overflow or underflow in 8-bit and 16-bit floats.

    PyTorch evaluates the program in its own types and in double precision, operation by operation.
    FLAGS after -- go to iree-compile. With several targets, --json prints `results`, each with its
    `target`.
    """
    from iree_pilot.pipeline.cli import reproducer
    from iree_pilot.pipeline.cli.boundary import Failed
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.frontends.load import TraceFailed
    from iree_pilot.pipeline.toolchain.compiler import check_flags
    from iree_pilot.repro.ranges.find_ranges import find
    from iree_pilot.repro.workarounds import by_itself

    if target is None and (device or flags):
        raise click.UsageError("--device and FLAGS go with a target: -t TARGET")
    source, source_options = reproducer.source(source, source_options, flagged=False)
    console = out.console(stderr=common.json)
    plans: list[tuple[str, Plan | None]] = [("", None)]
    if target is not None:
        check_flags(flags)
    results: list[tuple[str, Ranges]] = []
    live = Live.of(console, common)
    with live:
        session = Session(common, live)
        if target is not None:
            plans = [*session.plans(target, device, flags)]
    with live, several.finishing(results, targets=len(plans)):
        try:
            loaded = session.program(source, source_options, live, evaluate=False)
        except TraceFailed as failed:
            live.close()
            if common.json:
                out.emit({"failure": failed.failure, "took": live.took.document})
            else:
                console.print(f"[bold red]{escape(source)} does not trace[/bold red]")
                lines = out.failure_lines(failed.failure, verbose=common.verbosity > 0)
                out.print_pairs(console, lines)
                live.summary()
            raise Failed(1) from failed
        for named, plan in plans:
            live.doing("evaluating each operation", "evaluate")
            found = find(
                by_itself.apply(loaded, plan, session.context) if plan else loaded,
                Context(toolchain=session.toolchain, limits=session.limits),
                plan,
                flags,
                on_progress=live.note,
            )
            live.close()
            if not common.json:
                several.heading(console, named, len(plans))
                tell(console, found, everything=common.verbosity > 0)
            results.append((named, found))
    if common.json:
        out.emit(several.document(results, targets=len(plans), took=live.took))
    else:
        live.summary()
    if check and any(
        found.found or found.checked < found.watched or found.unseen for _, found in results
    ):
        raise Failed(1)


def tell(console: Any, found: Ranges, *, everything: bool) -> None:
    """Prints values out of range, in the program's order; everything: inherited ones too."""
    for note in found.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
    shown = [r for r in found.found if everything or not r.inherited]
    for reading in shown:
        _tell(console, reading, found.device)
    left = len(found.found) - len(shown)
    if left:
        console.print(f"\n{left} more hold infinities or NaN of these (-v)")
    where = " in the torch dialect" if found.unseen else ""
    those = f"intermediates of low precision{where}"
    if found.watched == 0:
        console.print(f"nothing is computed in 8-bit or 16-bit floats{where}")
    elif found.checked < found.watched and not found.found:
        unknown = found.watched - found.checked
        console.print(
            f"{unknown} of {found.watched} {those} could not be checked, for want of values"
        )
    elif not found.found:
        console.print(f"all {found.watched} {those} are in range")
    else:
        console.print(
            f"\n{len(found.found)} of {found.watched} {those} leave the range of their type, in "
            f"{escape(found.program)}",
            soft_wrap=True,
        )


def _tell(console: Any, reading: Reading, device: str | None) -> None:
    from iree_pilot.pipeline.cli.display.output import print_pairs

    shape = "x".join([*map(str, reading.shape), reading.dtype])
    where = escape(f"{reading.function}, line {reading.location.rpartition(':')[2]}")
    console.print(f"\n[bold]{escape(reading.name)}[/bold]  {shape}  {where}", soft_wrap=True)
    pairs = [("PyTorch", _counted(reading.reference))]
    if reading.device is not None:
        pairs.append((device or "device", _counted(reading.device)))
    pairs.append(("holds", f"{reading.normal:.3g} to {reading.limit:.6g}"))
    pairs.append(("wanted", f"{reading.smallest:.6g} to {reading.largest:.6g}"))
    pairs.append(("remedy", _remedy(reading)))
    print_pairs(console, pairs)


def _counted(counts: Counts) -> str:
    counted = [f"{number} {_WORDS[name]}" for name, number in counts.named.items() if number]
    return ", ".join(counted) or "in range"


def _remedy(reading: Reading) -> str:
    scale = reading.scale
    if scale is None:
        return "none of its own: its numbers are in range, those that it is made of are not"
    power = f"multiplied by {scale.factor:g} (2^{_exponent(scale.factor)})"
    if scale.fits:
        return f"{power} it is in range"
    below = f"{scale.left} of the others stay below the smallest normal number"
    largest = "as it is" if scale.factor == 1 else power
    return f"no single scale holds all of it: {largest}, the largest fits, and {below}"


def _exponent(power: float) -> int:
    import math

    return math.frexp(power)[1] - 1
