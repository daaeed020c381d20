"""What `bisect` prints of a failure that it isolated."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
from fake.nights import failure
from fake.reports import CPU, report

from iree_pilot.pipeline.cli.display.screen import Screen
from iree_pilot.pipeline.cli.failures import bisect
from iree_pilot.repro.bisect import Bisection
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.further import WorkaroundSummary
from iree_pilot.repro.reproducer.known.found import Found, reproduced


def isolated(folder: Path, said: str = "") -> Bisection:
    level = bundle.level("mlir", CPU, verified=True)
    bundle.write(folder, report(failure("a/b/c"), level, verified=True), {"repro.mlir": "//\n"})
    made = reproduced(folder, bundle.read(folder))
    if said:
        made = msgspec.structs.replace(made, workarounds=WorkaroundSummary(said=said))
    found = Found(failure=failure("a/b/c"), reproducer=made)
    return Bisection(status="isolated", failures=(found,))


def terminal() -> Screen:
    return Screen(file=io.StringIO(), width=40, force_terminal=True, color_system=None)


def lines(console: Screen) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_next_command_is_whole_on_a_line_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "a folder whose name takes more than a line of it"
    console = terminal()
    bisect.tell_next(console, [isolated(folder)])
    assert lines(console) == [
        f"report: {folder}/ISSUE.md",
        f"next: iree-pilot releases bisect '{folder}'",
    ]


def test_so_is_that_of_a_workaround(tmp_path: Path) -> None:
    command = "iree-pilot run net.py -t llvm-cpu -- --iree-opt-level=O0"
    console = terminal()
    bisect.tell(console, isolated(tmp_path / "repro", said=f"O0 (slower): {command}"))
    assert any(line.endswith(command) for line in lines(console))
