"""Text of others, as it is shown: what would steer a terminal, or turn the text around, is spelled.

A model's message, a folder's name or a compiler's line may hold escape sequences, which a terminal
obeys, and marks of direction, which make a text read as another one.
"""

from __future__ import annotations

import re

_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    r"""The text with control and direction characters as `\x1b`, `\u202e`; lines and tabs stay."""
    return _STEERS.sub(lambda one: one[0].encode("unicode_escape").decode(), text)
