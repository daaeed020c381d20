"""Printed IR made for one target turned into the same IR for another one.

From phase `preprocessing` on the IR names its device and how to make code for it. As long as no
executable is configured that is only an attribute: nothing else in the IR depends on it.
"""

from __future__ import annotations

import re

import msgspec

_ATTRIBUTE = re.compile(r"#hal\.(?P<what>device|executable)\.target<")
_OPENING, _CLOSING = "<([{", ">)]}"


class DeviceAttributes(msgspec.Struct, frozen=True):
    """The attributes of a device, and of the one kind of executables made for it."""

    device: str
    executable: str


def read(text: str) -> DeviceAttributes | None:
    """The targets in IR printed with `--mlir-print-local-scope`; None without one of each."""
    named: dict[str, set[str]] = {"device": set(), "executable": set()}
    for found in _ATTRIBUTE.finditer(text):
        named[found["what"]].add(whole(text, found))
    if any(len(found) != 1 for found in named.values()):
        return None
    return DeviceAttributes(**{what: found.pop() for what, found in named.items()})


def retarget(text: str, targets: DeviceAttributes) -> str:
    """The IR with its targets replaced; IR without any stays as it is."""
    made: list[str] = []
    done = 0
    for found in _ATTRIBUTE.finditer(text):
        if found.start() >= done:
            made += [text[done : found.start()], getattr(targets, found["what"])]
            done = found.start() + len(whole(text, found))
    return "".join(made) + text[done:]


def whole(text: str, found: re.Match[str]) -> str:
    """An attribute up to the bracket that closes it."""
    depth, quoted = 1, False
    for i in range(found.end(), len(text)):
        c = text[i]
        if c == '"':
            quoted = not quoted
        elif not quoted and c in _OPENING:
            depth += 1
        elif not quoted and c in _CLOSING and not (c == ">" and text[i - 1] == "-"):
            depth -= 1
            if not depth:
                return text[found.start() : i + 1]
    return text[found.start() :]
