"""Durations and sizes as people write them: `90s`, `10min`, `512MB`, `4GiB`.

humanfriendly, which had its last release in 2021, takes `5m garbage` for a size; pytimeparse knows
no sizes.
"""

from __future__ import annotations

import re
from decimal import Decimal

#: A step that takes longer than this is taken to hang, where the user sets no limit.
DEFAULT_SECONDS = 600.0
#: No compiler, and no Python, starts with less.
LEAST_MEMORY = 16 * 2**20
#: Largest duration and size: more than any step takes, and a number that every format holds.
MOST_SECONDS, MOST_BYTES = 1e12, 9e18
_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_BYTES = {"": 1.0, "b": 1.0}
for _power, _letter in enumerate("kmgt", start=1):
    _BYTES |= {_letter: 1e3**_power, f"{_letter}b": 1e3**_power, f"{_letter}ib": 1024.0**_power}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)")


def duration(text: str) -> float:
    """Seconds; raises ValueError, with an example, for what is none, is zero or beyond all use."""
    return _parse(text, _SECONDS, MOST_SECONDS, "duration", "90s, 10min")


def size(text: str) -> float:
    """Bytes, in powers of 1000 (`MB`) or 1024 (`MiB`); raises ValueError as `duration` does."""
    return _parse(text, _BYTES, MOST_BYTES, "size", "512MB, 4GiB")


def memory(value: str | float) -> float:
    """Bytes that a step may use; raises ValueError as `size` does, and for what no step runs in."""
    found = size(value) if isinstance(value, str) else value
    if found < LEAST_MEMORY:
        raise ValueError(f"{value!r} is less memory than any step needs (16MiB; for example 4GiB)")
    return found


def duration_text(seconds: float) -> str:
    """The duration in the largest unit that it is a whole number of: `duration` reads it again."""
    return _text(seconds, {"h": 3600, "min": 60}, "s")


def size_text(size_bytes: float) -> str:
    """The size in the largest unit that it is a whole number of: `size` reads it again."""
    powers = {"TiB": 2**40, "TB": 10**12, "GiB": 2**30, "GB": 10**9, "MiB": 2**20, "MB": 10**6}
    return _text(size_bytes, {**powers, "KiB": 2**10, "KB": 10**3}, "B")


def _text(amount: float, units: dict[str, int], least: str) -> str:
    for unit, worth in units.items():
        if amount and amount % worth == 0:
            return f"{int(amount // worth)}{unit}"
    shown = f"{Decimal(str(amount)):f}"  # no exponent
    return f"{shown.removesuffix('.0')}{least}"


def _parse(text: str, units: dict[str, float], most: float, what: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    if not match or match[2].lower() not in units or float(match[1]) == 0:
        raise ValueError(f"{text!r} is not a {what} (for example {example})")
    found = float(match[1]) * units[match[2].lower()]
    if found > most:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise ValueError(f"{shown} is too large for a {what} (for example {example})")
    return found
