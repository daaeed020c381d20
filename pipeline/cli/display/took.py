"""Duration of a command, by part: each second since its start belongs to one of them."""

from __future__ import annotations

import time

import click

from iree_pilot.pipeline.cli.display.output import MINUTES, seconds

#: Parts shorter than this share of the whole are shown in `other`, and that only where it is more
#: than three digits are rounded by.
_LEAST, _ROUNDED = 0.01, 0.005
#: Names of parts for people, if their keys in `--json` say too little.
_NAMES = {"try": "releases", "search": "workarounds"}
#: Part of what belongs to no other.
OTHER = "other"
#: Parts that are shown in this order, whenever they ended; the others follow.
_FIRST = ("start", "install", "trace", "compile", "confirm", "load", "run", "benchmark", "compare")


class Took:
    """Wall time since `started` (of `time.monotonic`), by what was being done.

    It begins with the part `start`: Python, the compiler and the devices are looked for. `count`
    takes what a step measured itself, so that a label has one value on the screen.
    """

    def __init__(self, started: float) -> None:
        self._started = self._since = started
        self._part = "start"
        self._parts: dict[str, float] = {}

    def enter(self, part: str) -> str:
        """From now on time belongs to `part`. Returns the part until now."""
        now, before = time.monotonic(), self._part
        self._parts[before] = self._parts.get(before, 0.0) + now - self._since
        self._since, self._part = now, part
        return before

    def count(self, part: str, spent: float) -> None:
        """So many of the seconds that went to `other` until now were those of `part`."""
        self.enter(OTHER)
        spent = min(spent, self._parts.get(OTHER, 0.0))
        self._parts[part] = self._parts.get(part, 0.0) + spent
        self._parts[OTHER] = self._parts.get(OTHER, 0.0) - spent

    @property
    def seconds(self) -> float:
        """Since the command was started."""
        return time.monotonic() - self._started

    @property
    def document(self) -> dict[str, object]:
        """`took` of `--json`: the seconds of the parts add up to those of the whole."""
        self.enter(self._part)
        return {"seconds": self._since - self._started, "parts": {**self._parts}}

    def __str__(self) -> str:
        """`took 106 s: trace 53 s, compile 23 s, isolate 28 s, other 2 s`: they add up.

        Where the whole is printed in minutes, so is each part that has one.
        """
        self.enter(self._part)
        whole = self._since - self._started
        shown = {name: t for name, t in self._parts.items() if t >= _LEAST * whole}
        shown.pop(OTHER, None)
        rest = whole - sum(shown.values())
        if rest > _ROUNDED * whole:
            shown[OTHER] = rest
        minutes = 60 if round(whole) >= MINUTES else MINUTES
        parts = [
            f"{_NAMES.get(name, name)} {seconds(spent, minutes=minutes)}"
            for name, spent in sorted(shown.items(), key=_place)
        ]
        return f"took {seconds(whole)}: {', '.join(parts)}"


def _place(part: tuple[str, float]) -> tuple[bool, int]:
    name = part[0]
    return name == OTHER, _FIRST.index(name) if name in _FIRST else len(_FIRST)


def of_command() -> Took:
    """Times of the running command, whose start `boundary.guarded` records."""
    context = click.get_current_context(silent=True)
    started = context.find_object(float) if context else None
    return Took(time.monotonic() if started is None else started)
