"""Pass pipelines as MLIR spells them, `builtin.module(func.func(cse,sccp))`, cut to size."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

_OPENING, _CLOSING = "({[<", ")}]>"


class PipelineElement(msgspec.Struct, frozen=True):
    """A pass, or the operation (`inside` is not None) that the passes in it run on.

    name: `canonicalize`, or `builtin.module`. options: of a pass, with their braces.
    """

    name: str
    options: str = ""
    inside: tuple[PipelineElement, ...] | None = None

    def __str__(self) -> str:
        nested = "" if self.inside is None else f"({','.join(map(str, self.inside))})"
        return f"{self.name}{self.options}{nested}"

    @property
    def passes(self) -> tuple[PipelineElement, ...]:
        """The passes in the order in which they run."""
        if self.inside is None:
            return (self,)
        return tuple(one for element in self.inside for one in element.passes)

    def between(self, first: int, last: int) -> PipelineElement:
        """The pipeline of only the passes with numbers first <= i < last."""
        kept = self._between(first, last)
        return kept if kept is not None else PipelineElement(self.name, self.options, ())

    def _between(self, first: int, last: int) -> PipelineElement | None:
        if self.inside is None:
            return self if first <= 0 < last else None
        kept = []
        for element in self.inside:
            inner = element._between(first, last)
            if inner is not None:
                kept.append(inner)
            count = len(element.passes)
            first, last = first - count, last - count
        return PipelineElement(self.name, self.options, tuple(kept)) if kept else None


def parse(text: str) -> PipelineElement:
    """Reads a pipeline with one operation at its root; raises ValueError for anything else."""
    elements = tuple(_elements(text.strip()))
    if len(elements) != 1 or elements[0].inside is None:
        raise ValueError(f"no pass pipeline: {text!r}")
    return elements[0]


def _elements(text: str) -> Iterator[PipelineElement]:
    for part in _split(text):
        paren, brace = part.find("("), part.find("{")
        if brace >= 0 and (paren < 0 or brace < paren):
            yield PipelineElement(part[:brace], part[brace:])
        elif paren < 0:
            yield PipelineElement(part)
        elif part.endswith(")"):
            yield PipelineElement(part[:paren], inside=tuple(_elements(part[paren + 1 : -1])))
        else:
            raise ValueError(f"no part of a pass pipeline: {part!r}")


def _split(text: str) -> Iterator[str]:
    """The parts between the commas that no bracket and no quotation marks enclose."""
    depth, quoted, started = 0, "", 0
    for i, c in enumerate(text):
        if quoted:
            quoted = "" if c == quoted and text[i - 1] != "\\" else quoted
        elif c in "\"'":
            quoted = c
        elif c in _OPENING:
            depth += 1
        elif c in _CLOSING and not (c == ">" and text[i - 1] == "-"):
            depth -= 1
        elif c == "," and not depth:
            yield text[started:i].strip()
            started = i + 1
        if depth < 0:
            raise ValueError(f"brackets do not match in {text!r}")
    if depth or quoted:
        raise ValueError(f"brackets do not match in {text!r}")
    if last := text[started:].strip():
        yield last
