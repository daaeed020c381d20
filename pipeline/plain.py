"""Text of others, as it is shown: what would steer a terminal, or turn the text around, is spelled.

A model's message, a folder's name or a compiler's line may hold escape sequences, which a terminal
obeys, and marks of direction, which make a text read as another one.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import TextIO

_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


#: How characters are spelled that an encoding lacks; others as escapes.
_ASCII = {"\N{MICRO SIGN}": "u", "\N{HORIZONTAL ELLIPSIS}": "..."}
_ERRORS = "iree_pilot_spelled"


def plain(text: str) -> str:
    r"""The text with control and direction characters as `\x1b`, `\u202e`; lines and tabs stay."""
    return _STEERS.sub(lambda one: one[0].encode("unicode_escape").decode(), text)


def spell(stream: TextIO | None) -> None:
    r"""Makes a stream spell what its encoding lacks (`us`, `\xe9`), instead of refusing a text."""
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error(_ERRORS, _spelled)
        stream.reconfigure(errors=_ERRORS)


def _spelled(fault: UnicodeError) -> tuple[str, int]:
    if not isinstance(fault, UnicodeEncodeError):
        raise fault
    lacking = fault.object[fault.start : fault.end]
    made = "".join(_ASCII.get(one, one) for one in lacking)
    return made.encode("ascii", "backslashreplace").decode("ascii"), fault.end
