"""The console: on a terminal lines break between words, in a pipe they are whole."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from iree_pilot.pipeline.plain import plain

#: Lines and tables in a pipe are not wrapped: scripts and logs read them.
PIPE_WIDTH = 10_000
#: Word with the number before it: `191 MB` stays together.
_WORD = re.compile(r"(?:(?<!\S)\(?\d[\d.]* )?\S+\s*")
#: What has no room beside its label is indented so far under it.
_BELOW = 2
_GAP = re.compile(r" {2,}(?=\S)")


class Screen(Console):
    """A console whose text is wrapped between words on a terminal.

    What goes on in the next line begins below the text, not below its label. A word that is longer
    than a line (a path) stays whole, for the terminal to break; so does text that is printed with
    `no_wrap` (a command to paste). A table that a terminal is too narrow for is printed row by row,
    each column in a line of its own. In a pipe a table has the width that it needs.

    printed: when something was printed last (of `time.monotonic`), or else when it was made.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.printed = time.monotonic()

    def print(self, *objects: Any, **options: Any) -> None:
        self.printed = time.monotonic()
        first = objects[0] if len(objects) == 1 else None
        if isinstance(first, Table):
            self._table(first)
        elif isinstance(first, str) and self._wraps(options):
            text = self.render_str(first, markup=options.get("markup"), highlight=False)
            for line in text.split("\n", allow_blank=True):
                for part in _wrapped(line, self.width):
                    super().print(part, **{**options, "soft_wrap": True})
        else:
            if isinstance(first, str) and not self.is_terminal:
                options = {"soft_wrap": True, **options}  # whatever COLUMNS says
            super().print(*objects, **options)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        """Text to write, with rich's own control sequences and no others."""
        shown = (one if one.control else one._replace(text=plain(one.text)) for one in buffer)
        return super()._render_buffer(shown)

    def _wraps(self, options: dict[str, Any]) -> bool:
        return self.is_terminal and not options.get("no_wrap") and "end" not in options

    def _table(self, table: Table) -> None:
        if not self.is_terminal:
            for line in self.render_lines(table, pad=False):
                text = Text.assemble(*((part.text, part.style or "") for part in line))
                text.rstrip()
                super().print(text, soft_wrap=True)
        elif self._fits(table):
            super().print(table)
        else:
            self._records(table)

    def _fits(self, table: Table) -> bool:
        """True if the table fits with each word whole; its columns are narrowed for that.

        Rich's own narrowing considers the width of a column, not the length of its words.
        """
        least, widths = [], []
        for column in table.columns:
            measured = [self.measure(cell) for cell in (column.header, *column.cells)]
            widths.append(max(one.maximum for one in measured))
            least.append(widths[-1] if column.no_wrap else max(one.minimum for one in measured))
        room = self.width - (len(widths) - 1)
        if sum(least) > room:
            return False
        while sum(widths) > room:
            widest = max((n for n, w in enumerate(widths) if w > least[n]), key=widths.__getitem__)
            widths[widest] -= 1
            table.columns[widest].width = widths[widest]
        return True

    def _records(self, table: Table) -> None:
        """Each row as `column  cell` lines, an empty line between two rows."""
        names = [str(column.header) for column in table.columns]
        width = max(map(len, names))
        cells = [list(column.cells) for column in table.columns]
        for number, row in enumerate(zip(*cells, strict=True)):
            if number:
                super().print()
            for name, cell in zip(names, row, strict=True):
                if cell:
                    self.print(f"[bold]{name:<{width}}[/bold]  {cell}", soft_wrap=True)


def screen(*, stderr: bool = False) -> Screen:
    """Standard output, or stderr: colour on a terminal, plain lines in a pipe.

    COLUMNS counts on a terminal only: shells export it, and in a pipe nothing is to be cut.
    """
    made = Screen(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made = Screen(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    return made


def _wrapped(line: Text, width: int) -> Iterator[Text]:
    """The line in parts that fit where their words do; all but the first are indented.

    A word that has no room beside the label has a line of its own, below the label, where it fits
    there.
    """
    margin = len(line.plain) - len(line.plain.lstrip())
    hanging = _hanging(line.plain, width)
    cuts, indents, at = list[int](), [0], 0
    for word in _WORD.finditer(line.plain):
        begin = cell_len(line.plain[: word.start()])
        length = cell_len(word[0].rstrip())
        if begin - at + length <= width - indents[-1]:
            continue
        if word.start() > hanging or (hanging and length <= width):
            cuts.append(word.start())
            below = (hanging, min(hanging, margin + _BELOW), min(hanging, margin))
            indents.append(next((n for n in below if n + length <= width), below[-1]))
            at = begin
    for indent, part in zip(indents, line.divide(cuts), strict=True):
        part.rstrip()
        yield Text.assemble(" " * indent, part)


def _hanging(line: str, width: int) -> int:
    """The column where the text of a line begins: after its label, if it has one."""
    gaps = [gap.end() for gap in _GAP.finditer(line) if gap.end() <= width // 3]
    return gaps[-1] if gaps else 0
