"""Environment of a failure: the facts about the machine that an issue needs."""

from __future__ import annotations

import platform

from iree_pilot.pipeline.targets import devices
from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.pipeline.targets.devices import Device

#: Phases in which a device is used.
_ON_DEVICE = ("load", "run", "compare")


def describe(target: str, device: Device | None, phase: str | None) -> dict[str, str]:
    """The operating system, the processor, and of a GPU's backend the device with its driver.

    device: that the program is compiled for, or runs on; None where there is none. phase: in which
    it fails.
    """
    described = {
        "OS": f"{_system()}, {platform.system()} {platform.release()}, {platform.machine()}",
        "CPU": devices.processor().name,
    }
    backend = BACKENDS.get(target.partition(":")[0])
    if phase == "trace" or backend is None or backend.on_host:
        return described
    if device is None:
        return described | {"Device": "none was used: the program was compiled only"}
    about = device.properties
    driver = ", ".join(filter(None, (about.get("driver"), about.get("driver_info"))))
    versions = {
        "Driver": driver,
        "Vulkan API": about.get("api", ""),
        "Architecture": about.get("gpu-arch-name", ""),
    }
    used = "" if phase in _ON_DEVICE else " (compiled for, not used: the compile fails)"
    described["Device"] = f"{device.name}{used}"
    return described | {key: value for key, value in versions.items() if value}


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
