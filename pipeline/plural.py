"""Numbers of things in words."""

from __future__ import annotations


def count(number: int, what: str, several: str = "") -> str:
    """`1 dispatch`, `2 dispatches`; several: the plural where it is not made with an s."""
    return f"1 {what}" if number == 1 else f"{number} {several or what + 's'}"
