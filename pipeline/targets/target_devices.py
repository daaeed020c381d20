"""The devices that `--iree-hal-target-device` names, once for each: `NAME=DEVICE[ORDINAL]`.

A module for several devices asks the runtime for the first, second, ... device of a kind: it is
run with as many `--device` options, in that order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from iree_pilot.pipeline.targets import discovery
from iree_pilot.pipeline.targets.devices import Device
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

_NAMED = re.compile(r"(?:[\w$.-]+=)?([\w-]+)(?:\[(\d{1,4})\])?")


def alias(value: str) -> str:
    """The kind of device in a value of the flag: `local` of `device_a=local[0]`."""
    match = _NAMED.fullmatch(value)
    return match[1] if match else value


def counts(values: Sequence[str]) -> dict[str, int]:
    """Number of devices of each kind in the flag's values, in their order.

    Those without an ordinal are the first one that fits.
    """
    found: dict[str, int] = {}
    for value in values:
        match = _NAMED.fullmatch(value)
        kind, ordinal = (match[1], int(match[2] or 0)) if match else (value, 0)
        found[kind] = max(found.get(kind, 0), ordinal + 1)
    return found


def several(first: Device, count: int, toolchain: Toolchain) -> list[Device]:
    """List of `count` devices of the driver of `first`; they repeat if there are too few."""
    others = [d for d in discovery.find(first.driver, toolchain).devices if d.uri != first.uri]
    available = [first, *others]
    return [available[i % len(available)] for i in range(count)]


def joined(parts: Sequence[Device]) -> Device:
    """The devices of one program as one."""
    if len(parts) == 1:
        return parts[0]
    names = {d.name: sum(d.name == other.name for other in parts) for d in parts}
    return msgspec.structs.replace(
        parts[0],
        uri=",".join(d.uri for d in parts),
        name=" + ".join(f"{n} x {name}" if n > 1 else name for name, n in names.items()),
        fingerprint=" + ".join(d.fingerprint for d in parts),
    )
