"""Record of a compile target, which each file of `backends` fills in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.targets import architectures
from iree_pilot.pipeline.targets.architectures import Probe
from iree_pilot.pipeline.targets.devices import LOCAL, Device, DevicesFound
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

#: Flags of iree-compile that select the target.
DEVICE_FLAG = "iree-hal-target-device"
BACKENDS_FLAG = "iree-hal-target-backends"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A backend and what it compiles for: `llvm-cpu:host`, `vulkan:rdna3`, `hip:gfx942`.

    arch None leaves the choice to `plan`, which asks the device.
    """

    spec: str
    backend: str
    arch: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Plan of a target for one toolchain on this machine.

    target: with its arch resolved, where there is one. flags: for iree-compile. device: where the
    module can run; None where nothing can run it, and why_not_run says so in a few words, advice
    how to mend that. warnings: how target and device do not fit, or what was chosen for lack of
    knowledge; to be printed before the run. named: the user's word for the target, if known.
    """

    target: Target
    flags: tuple[str, ...]
    device: Device | None = None
    why_not_run: str = ""
    advice: str = ""
    warnings: tuple[str, ...] = ()
    named: str = ""

    @property
    def name(self) -> str:
        """The target as the user named it."""
        return self.named or self.target.spec


class FlagWorkaround(msgspec.Struct, frozen=True):
    """A flag of a code generator that may get a program past a failure, and what is lost with it.

    reason: in one line. helps: a pattern of the failures that it is made for.
    """

    flag: str
    reason: str
    helps: str
    price: Literal["free", "slower", "precision"] = "slower"


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one compile target: other code reads it here and compares no names.

    name, title: as users type it, as people write it (`hip`, `HIP`). takes: its architectures, for
    people. architectures: those to offer; a release may know fewer, and others. always: those that
    need no asking. otherwise: what to do where a release does not know one.

    hal_backends: iree-compile's names of the code generators that its devices run, its own first.
    hal_device: likewise of the device. arch_flags: take the architecture; of the spellings of
    several releases the one that the release lists is used. more_flags: go with each compile.

    drivers: the runtime's, the usual one first. no_device: (part of what the runtime prints where
    there is none, what to do). plan: chooses an architecture, unless one is named, and a device.
    code: how what is in a module is inspected.

    Attribution and workarounds: neighbours are the targets that a program with wrong numbers is
    compiled for as well; plain_pipelines: the strategies that neither tile for caches nor
    vectorise, each with what is in the IR of the releases that spell it so; alternatives: other
    architectures to try, "" the device's own; level_flag: its code generator's optimisation level.
    """

    name: str
    title: str
    takes: str
    architectures: tuple[str, ...]
    always: tuple[str, ...] = ()
    otherwise: str = ""

    hal_backends: tuple[str, ...]
    hal_device: str
    arch_flags: tuple[str, ...]
    more_flags: tuple[str, ...] = ()

    drivers: tuple[str, ...]
    no_device: tuple[tuple[str, str], ...] = ()
    plan: Callable[[str | None, Planner], Plan]
    code: Literal["", "amdgpu", "spirv"] = ""

    neighbours: tuple[str, ...] = ()
    plain_pipelines: tuple[tuple[str, str], ...] = ()
    alternatives: tuple[str, ...] = ()
    level_flag: str = ""
    workarounds: tuple[FlagWorkaround, ...] = ()

    @property
    def on_host(self) -> bool:
        """True if its code runs on the host's own processor, which each machine has."""
        return self.drivers == LOCAL

    def target(self, arch: str) -> Target:
        """The target with an architecture."""
        return Target(spec=f"{self.name}:{arch}", backend=self.name, arch=arch)

    def flags(self, arch: str, toolchain: Toolchain) -> tuple[str, ...]:
        """iree-compile's flags, by those that the toolchain lists.

        Raises EnvironmentFault where it cannot compile for the backend.
        """
        arch_flag = next((f for f in self.arch_flags if f in toolchain.flags), None)
        if arch_flag is None or DEVICE_FLAG not in toolchain.flags:
            lacking = self.arch_flags if arch_flag is None else (DEVICE_FLAG,)
            wanted = " or ".join(f"--{f}" for f in lacking)
            raise EnvironmentFault(
                f"iree-compile {toolchain.version} cannot compile for {self.name}: "
                f"its help lists no {wanted}",
                advice="It is built without that backend: use a release that has it (--release).",
            )
        return (f"--{DEVICE_FLAG}={self.hal_device}", *self.more_flags, f"--{arch_flag}={arch}")

    def probe(self, arch: str, toolchain: Toolchain, *, host: str = "") -> Probe:
        """The compiler's answer for an architecture; host: see `architectures.probe`."""
        return architectures.probe(toolchain, self.flags(arch, toolchain), host=host)


def table(*backends: Backend) -> dict[str, Backend]:
    """Backends by name. Raises ValueError where flags and devices would not tell them apart.

    That is where two share a name of a field below, or where one has none.
    """
    owners: dict[tuple[str, str], Backend] = {}
    for one in backends:
        for field in ("name", "hal_backends", "hal_device", "arch_flags", "drivers"):
            value = getattr(one, field)
            names = (value,) if isinstance(value, str) else value
            if not any(names):
                raise ValueError(f"the target {one.name} has no {field}")
            for name in names:
                owner = owners.setdefault((field, name), one)
                if owner is not one:
                    raise ValueError(
                        f"the targets {owner.name} and {one.name} share {field} {name}"
                    )
    return {one.name: one for one in backends}


class Planner(msgspec.Struct, frozen=True, kw_only=True):
    """Choices for planning a target: a toolchain, and the devices that its runtime finds.

    found: one of them where the user names it. installed: the devices that the installed runtime
    finds, which may tell more of them.
    """

    backend: Backend
    toolchain: Toolchain
    found: DevicesFound
    installed: Callable[[], DevicesFound]

    def probe(self, arch: str, *, host: str = "") -> Probe:
        """The compiler's answer for an architecture."""
        return self.backend.probe(arch, self.toolchain, host=host)

    def plan(
        self,
        arch: str,
        device: Device | None = None,
        *,
        why_not_run: str = "",
        advice: str = "",
        warnings: tuple[str, ...] = (),
    ) -> Plan:
        """The plan for an architecture, on a device if the runtime will run on it."""
        return Plan(
            target=self.backend.target(arch),
            flags=self.backend.flags(arch, self.toolchain),
            device=None if device is None or device.unusable else device,
            why_not_run=why_not_run if device is None else device.unusable,
            advice=advice,
            warnings=warnings,
        )
