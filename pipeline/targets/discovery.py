"""The devices that can run modules here, as the runtime of a release lists them."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.targets.backend import Backend
from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.pipeline.targets.devices import LOCAL, DevicesFound, parse_dump, processor
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, ask

_QUERY_SECONDS = 30.0
_STATUS = re.compile(r"^\S+\.(?:c|cc|h):\d+: (.+)", re.MULTILINE)


def find(driver: str, toolchain: Toolchain) -> DevicesFound:
    """The devices that the toolchain's runtime finds; asked once in a process.

    Takes 0.04 to 0.2 s for Vulkan (the driver is loaded), 3 ms where a driver is missing.
    """
    if driver in LOCAL:
        return DevicesFound(devices=(processor(driver),))
    if toolchain.runtime is None:
        return DevicesFound(
            why=f"no IREE runtime for compiler {toolchain.version}",
            advice="A module needs the runtime of its compiler's release.",
        )
    try:
        tool = toolchain.tool("iree-run-module")
    except EnvironmentFault as fault:
        return DevicesFound(why=fault.message, advice=fault.advice)
    return _query(tool, driver)


@functools.cache
def _query(tool: Path, driver: str) -> DevicesFound:
    answer = ask([tool, f"--dump_devices={driver}"], seconds=_QUERY_SECONDS)
    owner = next((one for one in BACKENDS.values() if driver in one.drivers), None)
    why = f"no {owner.title if owner else driver} device"
    if answer.outcome.ended_by == "time-limit":
        return DevicesFound(
            why=why, advice=f"{driver} did not answer within {_QUERY_SECONDS:.0f} s."
        )
    found = parse_dump(answer.stdout, driver)
    if found:
        return DevicesFound(devices=found)
    return DevicesFound(
        why=why, advice=_advice(driver, owner, answer.stderr, answer.outcome.signal)
    )


def _advice(driver: str, owner: Backend | None, stderr: str, signal: str | None) -> str:
    status = _STATUS.search(stderr)
    detail = status[1].strip().rstrip(":") if status else ""
    if signal:
        return f"The {driver} driver crashed with {signal} when it was asked for devices."
    if "no driver" in detail:
        return f"This runtime is built without the {driver} driver."
    for part, advice in owner.no_device if owner else ():
        if part in stderr:
            return advice
    return detail
