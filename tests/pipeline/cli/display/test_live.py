"""The line at the bottom of a terminal."""

from __future__ import annotations

import io
import time

import pytest
from rich.cells import cell_len

from iree_pilot.pipeline.cli.display.live import Doing, shortened
from iree_pilot.pipeline.cli.display.screen import Screen
from iree_pilot.pipeline.cli.display.took import Took

LONG = "making the reproducer of 1 operation (torch.aten.abs) for llvm-cpu, {} of 4 levels made"


def test_what_is_too_long_loses_its_middle_and_keeps_what_changes() -> None:
    file = io.StringIO()
    doing = Doing(Took(time.monotonic()))
    for level in (1, 2):
        doing.begin(LONG.format(level))
        Screen(file=file, width=80, force_terminal=True, color_system=None).print(doing)
    first, second = file.getvalue().splitlines()
    assert "making the reproducer" in first
    assert ", 1 of 4 levels made  0 s" in first
    assert ", 2 of 4 levels made  0 s" in second
    assert cell_len(first) <= 80


@pytest.mark.parametrize("text", ["", "short", LONG, "\u6f22" * 60, "word " * 40])
def test_it_is_never_wider_than_there_is_room(text: str) -> None:
    for width in range(10, 90):
        made = shortened(text, width)
        assert cell_len(made) <= width
        assert (made == text) == (cell_len(text) <= width)
