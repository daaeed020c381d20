"""A device that runs modules, as the runtime of a release tells of it."""

from __future__ import annotations

import functools
import hashlib
import platform
import re
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError

#: Drivers on the host's own processor; there is nothing to ask about them.
LOCAL = ("local-task", "local-sync")
#: Real GPUs first; a driver of software rendering is the last resort.
_TYPES = ("discrete-gpu", "integrated-gpu", "virtual-gpu", "other", "cpu")

_DEVICE = re.compile(r"^# --device=(\S+)\n((?:#.*\n)*)", re.MULTILINE)


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device: `uri` is what `--device=` takes, or several between commas, for a program for
    several devices.

    driver: `local-task`, `local-sync`, `vulkan`, `hip`. fingerprint: changes with the device and
    its driver's version; part of cache keys. properties: what the runtime tells, flat, in its own
    words (`features.shaderFloat16`: `yes`, `subgroup.size`: `8`, `gpu-arch-name`: `gfx942`);
    empty where the runtime tells nothing, as those up to 3.11 do of Vulkan devices.
    """

    uri: str
    driver: str
    name: str
    fingerprint: str
    properties: dict[str, str] = {}

    @property
    def unusable(self) -> str:
        """Reason that the runtime will not run on it; empty if it will."""
        if self.properties.get("feature_tier[vulkan-1.3]") != "unsupported":
            return ""
        missing = self.properties.get("missing", "")
        return f"{self.name} lacks what the runtime needs" + (f": {missing}" if missing else "")


class DevicesFound(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one driver, in its order; `why` and `advice` say why there is none."""

    devices: tuple[Device, ...] = ()
    why: str = ""
    advice: str = ""


def pick(uri: str, found: DevicesFound) -> Device:
    """The device that the user's `uri` names: as listed, or by driver alone or number.

    What follows `?` (options for the driver) is kept. Raises UsageError where there are others,
    EnvironmentFault where there is none at all.
    """
    bare, _, options = uri.partition("?")
    driver, _, path = bare.partition("://")
    for number, device in enumerate(found.devices):
        if device.driver == driver and (bare == device.uri or path in ("", str(number))):
            chosen = device.uri + (f"?{options}" if options else "")
            return msgspec.structs.replace(device, uri=chosen)
    if not found.devices:
        raise EnvironmentFault(f"there is no device {uri}: {found.why}", advice=found.advice)
    listed = ", ".join(d.uri for d in found.devices)
    raise UsageError(f"there is no device {uri}", advice=f"There are: {listed}.")


def options(uri: str) -> tuple[str, ...]:
    """Options of the runtime's tools for a device, or for several, comma-separated, in order."""
    return tuple(f"--device={one}" for one in uri.split(","))


def parse_dump(text: str, driver: str) -> tuple[Device, ...]:
    """The devices in what `iree-run-module --dump_devices=DRIVER` prints, in its order."""
    starts = list(_DEVICE.finditer(text))
    ends = [*(m.start() for m in starts[1:]), len(text)]
    return tuple(
        _device(m[1], m[2], text[m.end() : end], driver)
        for m, end in zip(starts, ends, strict=False)
    )


def by_preference(found: DevicesFound) -> list[Device]:
    """Devices to run on, the best first: usable ones, real GPUs, then software."""
    return sorted(found.devices, key=_preference)


def _device(uri: str, header: str, body: str, driver: str) -> Device:
    properties = _properties(body)
    label = header.split("\n")[0].lstrip("# ").strip()
    name = properties.get("name") or label or driver
    known = (properties.get(key, "") for key in ("driver", "driver_info", "api", "gpu-arch-name"))
    return Device(
        uri=uri,
        driver=driver,
        name=name,
        fingerprint=" | ".join(filter(None, (name, *known))),
        properties=properties,
    )


def _properties(body: str) -> dict[str, str]:
    """`key: value`, `- key: value`, and `key: a=1 b=2` as `key.a` and `key.b`."""
    properties: dict[str, str] = {}
    for line in body.splitlines():
        key, colon, value = line.removeprefix("- ").partition(": ")
        if line.startswith("  missing: "):
            seen = properties.get("missing")
            properties["missing"] = f"{seen}; {value}" if seen else value
        elif colon and not line.startswith((" ", "#")):
            words = value.split()
            if words and all("=" in word for word in words):
                pairs = (word.partition("=") for word in words)
                properties |= {f"{key}.{name}": setting for name, _, setting in pairs}
            else:
                properties[key] = value.strip()
    return properties


def _preference(device: Device) -> tuple[bool, int]:
    kind = device.properties.get("type", "other")
    return bool(device.unusable), _TYPES.index(kind) if kind in _TYPES else _TYPES.index("other")


@functools.cache
def processor(driver: str = LOCAL[0]) -> Device:
    """The host's processor; its feature flags are in the fingerprint, for code made for `host`."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        first = ""
    about = {k.strip(): v.strip() for k, _, v in (x.partition(":") for x in first.splitlines())}
    name = about.get("model name") or platform.machine()
    features = about.get("flags") or about.get("Features", "")
    parts = [about.get(k, "") for k in ("CPU implementer", "CPU part", "cpu family", "model")]
    digest = hashlib.sha256(" ".join([*parts, *sorted(features.split())]).encode()).hexdigest()
    return Device(
        uri=driver,
        driver=driver,
        name=name,
        fingerprint=f"{platform.machine()} | {name} | {digest[:16]}",
    )
