"""A target as the user names it: its compiler flags for a toolchain, and a device to run on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError, nearest
from iree_pilot.pipeline.targets import architectures, devices, target_devices
from iree_pilot.pipeline.targets.architectures import DEFAULT_VULKAN, Choice, Probe
from iree_pilot.pipeline.targets.devices import Device, Found
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, installed

__all__ = [
    "BACKENDS",
    "Backend",
    "Device",
    "Plan",
    "Target",
    "parse",
    "parse_list",
    "plan",
    "split_flags",
]

Backend = Literal["llvm-cpu", "vulkan", "hip"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

#: What HIP code is made for where there is no AMD GPU to ask: MI300.
DEFAULT_HIP = "gfx942"
_ARCH_FLAGS = {
    "llvm-cpu": ("iree-llvmcpu-target-cpu",),
    "vulkan": ("iree-vulkan-target",),
    "hip": ("iree-rocm-target", "iree-hip-target"),  # the second in releases up to 3.11
}
_DEVICE_FLAG = "iree-hal-target-device"
_HAL = {"llvm-cpu": "local"}
_LOCAL_FLAG = "iree-hal-local-target-device-backends"
_BACKENDS_FLAG = "iree-hal-target-backends"
#: Runtime drivers for what the user gives to those flags, where the names differ.
_DRIVERS = {
    "local": "local-task",
    "llvm-cpu": "local-task",
    "vmvx": "local-task",
    "rocm": "hip",
    "vulkan-spirv": "vulkan",
}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A backend and what it compiles for: `llvm-cpu:host`, `vulkan:rdna3`, `hip:gfx942`.

    arch None leaves the choice to `plan`, which asks the device.
    """

    spec: str
    backend: Backend
    arch: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a target means for one toolchain on this machine.

    target: with its arch resolved, where there is one. flags: for iree-compile. device: where the
    module can run; None where nothing can run it, and why_not_run says so in a few words, advice
    how to mend that. warnings: how target and device do not fit, or what was chosen for lack of
    knowledge; to be told before the run. named: the user's word for the target, where it is known.
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


def parse(text: str) -> Target:
    """`BACKEND[:ARCH]`; raises UsageError for another backend or an empty arch."""
    name, colon, arch = text.strip().partition(":")
    backend = next((b for b in BACKENDS if b == name), None)
    if backend is None:
        raise UsageError(
            f"unknown target {text!r}",
            advice=f"{nearest(name, list(BACKENDS))} What else iree-compile has is reached by "
            f"its own flags: -t llvm-cpu -- --{_DEVICE_FLAG}=...".strip(),
        )
    if (colon and not arch) or any(c.isspace() for c in arch):
        raise UsageError(
            f"target {text!r} names no architecture after the colon",
            advice=f"Write {backend}, or {backend}:ARCH.",
        )
    return Target(spec=text.strip(), backend=backend, arch=arch or None)


def parse_list(text: str) -> tuple[Target, ...]:
    """Targets between commas, each once, in their order; raises UsageError as `parse` does."""
    found = dict.fromkeys(parse(part) for part in text.split(",") if part.strip())
    if not found:
        raise UsageError("no target is named", advice=f"Known: {', '.join(BACKENDS)}.")
    return tuple(found)


def split_flags(target: Target, flags: Sequence[str]) -> tuple[Target, tuple[str, ...]]:
    """A compile's flags as the target with the architecture they name, and the flags besides.

    So another toolchain, which may spell a target's flags differently, can plan the target anew.
    """
    hal = _HAL.get(target.backend, target.backend)
    own = {_DEVICE_FLAG: hal, _LOCAL_FLAG: "llvm-cpu"}
    given = [(flag, *_split(flag)) for flag in flags]
    archs = [value for _, name, value in given if name in _ARCH_FLAGS[target.backend]]
    others = tuple(
        flag
        for flag, name, value in given
        if name not in _ARCH_FLAGS[target.backend] and own.get(name) != value
    )
    arch = archs[-1] if archs else target.arch
    return (_target(target.backend, arch) if arch else target), others


def plan(
    target: Target,
    toolchain: Toolchain,
    device: str | None = None,
    *,
    user_flags: Sequence[str] = (),
) -> Plan:
    """Resolves the target for a toolchain: flags by what it lists, the device by asking.

    device: the user's `--device` (`vulkan://GPU-...`, `hip://1`, `local-sync`). user_flags: the
    user's own iree-compile flags; those here give way to them, and an architecture among them
    counts as named.

    Raises UsageError where the compiler does not know the architecture or there is no such
    device, EnvironmentFault where the toolchain cannot compile for the backend.
    """
    made = _resolved(target, toolchain, device, user_flags)
    return msgspec.structs.replace(made, named=target.spec)


def _resolved(
    target: Target, toolchain: Toolchain, device: str | None, user_flags: Sequence[str]
) -> Plan:
    given = dict(_split(flag) for flag in user_flags)
    asked = tuple(value for name, value in map(_split, user_flags) if name == _DEVICE_FLAG)
    counts = target_devices.counts(asked)
    own = {_HAL.get(backend, backend): backend for backend in BACKENDS}
    if _BACKENDS_FLAG in given or (asked and not counts.keys() <= own.keys()):
        return _plan_by_flags(target, toolchain, device, given)
    backends = [own[name] for name in counts] or [target.backend]
    uris = device.split(",") if device else []
    plans = [
        _plan_for(backend, target, given, toolchain, _for_backend(uris, backend, len(backends)))
        for backend in backends
    ]
    flags = dict.fromkeys(f for p in plans for f in p.flags if _split(f)[0] not in given)
    if not asked:
        return msgspec.structs.replace(plans[0], flags=tuple(flags))
    lacking = next((p for p in plans if p.device is None), None)
    return Plan(
        target=plans[0].target,
        flags=tuple(flags),
        device=None if lacking else _several(plans, tuple(counts.values()), uris, toolchain),
        why_not_run=lacking.why_not_run if lacking else "",
        advice=lacking.advice if lacking else "",
        warnings=tuple(dict.fromkeys(w for p in plans for w in p.warnings)),
    )


def _plan_for(
    backend: Backend,
    target: Target,
    given: dict[str, str],
    toolchain: Toolchain,
    uri: str | None,
) -> Plan:
    """The plan of a backend, for the architecture that the user names."""
    arch = target.arch if backend == target.backend else None
    named = next((given[f] for f in _ARCH_FLAGS[backend] if given.get(f)), arch)
    return _PLANNERS[backend](named, toolchain, uri)


def _several(
    plans: Sequence[Plan], counts: Sequence[int], uris: Sequence[str], toolchain: Toolchain
) -> Device:
    """So many devices for each plan, or those that the user lists, as one."""
    if len(uris) > 1:
        drivers = [uri.partition("://")[0].partition("?")[0] for uri in uris]
        named = zip(uris, drivers, strict=True)
        return target_devices.joined(
            [devices.pick(u, devices.find(d, toolchain)) for u, d in named]
        )
    found = [
        one
        for planned, count in zip(plans, counts, strict=True)
        if planned.device is not None
        for one in target_devices.several(planned.device, count, toolchain)
    ]
    return target_devices.joined(found)


def _for_backend(uris: Sequence[str], backend: Backend, backends: int) -> str | None:
    """Of the user's devices the one for a backend; of a program for one backend the first."""
    if backends == 1:
        return next(iter(uris), None)
    drivers = devices.LOCAL if backend == "llvm-cpu" else (backend,)
    return next((u for u in uris if u.partition("://")[0] in drivers), None)


def _plan_cpu(arch: str | None, toolchain: Toolchain, uri: str | None) -> Plan:
    arch = arch or "host"
    device = _pick(uri, devices.LOCAL, toolchain)
    device = device or devices.find(devices.LOCAL[0], toolchain).devices[0]
    warnings: tuple[str, ...] = ()
    if arch not in ("host", "generic"):
        wanted = _known("llvm-cpu", arch, toolchain).assumptions
        host_flags = _flags("llvm-cpu", "host", toolchain)
        host = architectures.probe(toolchain, host_flags, host=device.fingerprint).assumptions
        lacking = architectures.missing_features(wanted, host) if wanted and host else []
        if lacking:
            warnings = (
                f"llvm-cpu:{arch} may use what this processor ({device.name}) lacks, and then ends "
                f"with an illegal instruction: {', '.join(lacking)}",
            )
    return _plan_on(device, "llvm-cpu", arch, toolchain, warnings)


def _plan_vulkan(arch: str | None, toolchain: Toolchain, uri: str | None) -> Plan:
    if arch:
        _known("vulkan", arch, toolchain)
    picked = _pick(uri, ("vulkan",), toolchain)
    found = devices.find("vulkan", toolchain)
    present = [picked] if picked else devices.by_preference(found)
    # What this release's runtime hides can still be compiled for.
    known = present or devices.by_preference(_installed_devices())
    if not known:
        note = f"no Vulkan device to ask: compiling for {DEFAULT_VULKAN}, the compiler's default"
        return Plan(
            target=_target("vulkan", arch or DEFAULT_VULKAN),
            flags=_flags("vulkan", arch or DEFAULT_VULKAN, toolchain),
            why_not_run=found.why,
            advice=found.advice,
            warnings=() if arch else (note,),
        )
    device, choice = _first_fitting(known, arch, toolchain)
    warnings = tuple(filter(None, (_misfit(choice, device, arch, toolchain), choice.note)))
    made = _plan_on(device, "vulkan", choice.arch, toolchain, warnings)
    if present:
        return made
    return msgspec.structs.replace(
        made,
        device=None,
        why_not_run=f"no Vulkan device for runtime {toolchain.version}",
        advice=f"A newer runtime finds {device.name}; those up to 3.11 hide Mesa's llvmpipe.",
        warnings=(),
    )


def _first_fitting(
    known: Sequence[Device], arch: str | None, toolchain: Toolchain
) -> tuple[Device, Choice]:
    """The first device that fits `arch` (None: its own best), else the first with its misfits."""
    first = None
    for device in known:
        told = _described(device)
        choice = (
            architectures.judge(arch, told, _asker(toolchain))
            if arch
            else architectures.choose(told, _asker(toolchain))
        )
        if not choice.misfits:
            return device, choice
        first = first or (device, choice)
    assert first is not None, "there is at least one device"
    return first


def _misfit(choice: Choice, device: Device, arch: str | None, toolchain: Toolchain) -> str:
    """What the user is told of a compile target that does not fit; empty where it fits."""
    if not choice.misfits:
        return ""
    better = architectures.choose(_described(device), _asker(toolchain))
    if arch and not better.misfits:
        advice = f" vulkan:{better.arch} fits."
    elif device.name.startswith("llvmpipe"):
        # Mesa's shader cache does not tell the widths apart.
        advice = (
            " With LP_NATIVE_VECTOR_WIDTH=256 and MESA_SHADER_CACHE_DISABLE=true in the "
            "environment vulkan:llvmpipe fits."
        )
    else:
        advice = ""
    return (
        f"vulkan:{choice.arch} does not fit {device.name}: {'; '.join(choice.misfits)}. "
        f"Programs can compile, run and give wrong numbers.{advice}"
    )


def _plan_hip(arch: str | None, toolchain: Toolchain, uri: str | None) -> Plan:
    picked = _pick(uri, ("hip",), toolchain)
    found = devices.find("hip", toolchain)
    present = (picked,) if picked else found.devices
    warnings: tuple[str, ...] = ()
    if arch:
        assumed = _known("hip", arch, toolchain).assumptions
        wanted = (assumed.arch if assumed else "") or arch
    else:
        wanted = arch = next(filter(None, map(_gfx, present)), DEFAULT_HIP)
        if not present:
            warnings = (f"no HIP device to ask: compiling for {arch}",)
    for device in present:
        if _gfx(device) in (wanted, ""):
            return _plan_on(device, "hip", arch, toolchain, warnings)
    others = ", ".join(dict.fromkeys(map(_gfx, present)))
    return Plan(
        target=_target("hip", arch),
        flags=_flags("hip", arch, toolchain),
        why_not_run=f"no {wanted} HIP device, only {others}" if present else found.why,
        advice=f"Compile for what is there: hip:{_gfx(present[0])}." if present else found.advice,
        warnings=warnings,
    )


def _plan_by_flags(
    target: Target, toolchain: Toolchain, uri: str | None, given: dict[str, str]
) -> Plan:
    """The user's own flags say what to compile for; `target` is only its name."""
    named = given.get(_DEVICE_FLAG)
    value = target_devices.alias(named) if named else given.get(_BACKENDS_FLAG, "")
    driver = uri.partition("://")[0] if uri else _DRIVERS.get(value, value)
    found = devices.find(driver, toolchain)
    device = devices.pick(uri, found) if uri else next(iter(found.devices), None)
    return Plan(target=target, flags=(), device=device, why_not_run=found.why, advice=found.advice)


_PLANNERS: dict[Backend, Callable[[str | None, Toolchain, str | None], Plan]] = {
    "llvm-cpu": _plan_cpu,
    "vulkan": _plan_vulkan,
    "hip": _plan_hip,
}


def _plan_on(
    device: Device,
    backend: Backend,
    arch: str,
    toolchain: Toolchain,
    warnings: tuple[str, ...] = (),
) -> Plan:
    return Plan(
        target=_target(backend, arch),
        flags=_flags(backend, arch, toolchain),
        device=None if device.unusable else device,
        why_not_run=device.unusable,
        warnings=warnings,
    )


def _flags(backend: Backend, arch: str, toolchain: Toolchain) -> tuple[str, ...]:
    """iree-compile's flags for a backend, by those that the toolchain lists."""
    hal = _HAL.get(backend, backend)
    arch_flag = next((f for f in _ARCH_FLAGS[backend] if f in toolchain.flags), None)
    if arch_flag is None or _DEVICE_FLAG not in toolchain.flags:
        wanted = " or ".join(f"--{f}" for f in (*_ARCH_FLAGS[backend], _DEVICE_FLAG))
        raise EnvironmentFault(
            f"iree-compile {toolchain.version} cannot compile for {backend}: "
            f"its help lists no {wanted}",
            advice="It is built without that backend: use a release that has it (--release).",
        )
    local = (f"--{_LOCAL_FLAG}=llvm-cpu",) if backend == "llvm-cpu" else ()
    return (f"--{_DEVICE_FLAG}={hal}", *local, f"--{arch_flag}={arch}")


def _known(backend: Backend, arch: str, toolchain: Toolchain) -> Probe:
    """The compiler's answer for an architecture; raises UsageError where it does not know it."""
    answer = architectures.probe(toolchain, _flags(backend, arch, toolchain))
    if answer.rejected:
        names = {
            "vulkan": "rdna3, ampere, ada, valhall4, adreno, llvmpipe",
            "hip": "gfx942, gfx1100",
        }
        advice = f"It knows, among others, {names[backend]}." if backend in names else ""
        raise UsageError(
            f"iree-compile {toolchain.version} does not know the target {backend}:{arch}: "
            f"{answer.rejected}",
            advice=advice or "llvm-cpu:host and llvm-cpu:generic always work.",
        )
    return answer


def _asker(toolchain: Toolchain) -> Callable[[str], Probe]:
    return lambda arch: architectures.probe(toolchain, _flags("vulkan", arch, toolchain))


def _target(backend: Backend, arch: str) -> Target:
    return Target(spec=f"{backend}:{arch}", backend=backend, arch=arch)


def _pick(uri: str | None, drivers: Sequence[str], toolchain: Toolchain) -> Device | None:
    """The device that the user names, which must be one of `drivers`; None where none is named."""
    if uri is None:
        return None
    driver = uri.partition("://")[0].partition("?")[0]
    if driver not in drivers:
        raise UsageError(
            f"--device {uri} cannot run what is compiled for this target",
            advice=f"It takes a device of {' or '.join(drivers)} (`iree-pilot targets`).",
        )
    return devices.pick(uri, devices.find(driver, toolchain))


def _described(device: Device) -> Device:
    """A Vulkan device with what the installed runtime tells of it, where its own tells nothing."""
    if "subgroup.size" not in device.properties:
        bare = device.uri.partition("?")[0]
        for other in _installed_devices().devices:
            if other.uri == bare:
                return msgspec.structs.replace(device, properties=other.properties)
    return device


def _installed_devices() -> Found:
    try:
        return devices.find("vulkan", installed())
    except EnvironmentFault:
        return Found()


def _gfx(device: Device) -> str:
    """A HIP device's architecture without its feature suffixes (`gfx942:sramecc+:xnack-`)."""
    return device.properties.get("gpu-arch-name", "").partition(":")[0]


def _split(flag: str) -> tuple[str, str]:
    name, _, value = flag.lstrip("-").partition("=")
    return name, value
