"""A target as the user names it: its compiler flags for a toolchain, and a device to run on."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError, nearest
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.targets import devices, discovery, target_devices
from iree_pilot.pipeline.targets.backend import (
    BACKENDS_FLAG,
    DEVICE_FLAG,
    Backend,
    Plan,
    Planner,
    Target,
)
from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.pipeline.targets.devices import Device, DevicesFound
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, installed

__all__ = [
    "BACKENDS",
    "Device",
    "Plan",
    "Target",
    "advice",
    "parse",
    "parse_list",
    "plan",
    "split_flags",
]

#: Error of iree-compile if a program needs an architecture and has none.
_NO_ARCHITECTURE = re.compile(r"missing GPU target|target not set")


def parse(text: str) -> Target:
    """`BACKEND[:ARCH]`; raises UsageError for another backend or an empty arch."""
    name, colon, arch = text.strip().partition(":")
    if name not in BACKENDS:
        own = next((b.name for b in BACKENDS.values() if b.hal_backends[0] == name), name)
        raise UsageError(
            f"unknown target {text!r}",
            advice=f"{nearest(own, list(BACKENDS))} What else iree-compile has is reached by "
            f"its own flags: -t llvm-cpu -- --{DEVICE_FLAG}=...".strip(),
        )
    if (colon and not arch) or any(c.isspace() for c in arch):
        raise UsageError(
            f"target {text!r} names no architecture after the colon",
            advice=f"Write {name}, or {name}:ARCH.",
        )
    return Target(spec=text.strip(), backend=name, arch=arch or None)


def parse_list(text: str) -> tuple[Target, ...]:
    """Targets between commas, each once, in their order; raises UsageError as `parse` does.

    Where none is between two commas, a variable of a script was empty: one target less would go
    unnoticed.
    """
    parts = text.split(",")
    if not any(map(str.strip, parts)):
        raise UsageError("no target is named", advice=f"Known: {', '.join(BACKENDS)}.")
    if not all(map(str.strip, parts)):
        raise UsageError(
            f"{text!r} names no target before or behind a comma",
            advice=f"For example: {','.join(part for part in parts if part.strip())}.",
        )
    return tuple(dict.fromkeys(map(parse, parts)))


def split_flags(target: Target, flags: Sequence[str]) -> tuple[Target, tuple[str, ...]]:
    """A compile's flags as the target with the architecture they name, and the flags besides.

    So another toolchain, which may spell a target's flags differently, can plan the target anew.
    """
    backend = BACKENDS[target.backend]
    own = dict(_split(flag) for one in BACKENDS.values() for flag in one.more_flags)
    own[DEVICE_FLAG] = backend.hal_device
    given = [(flag, *_split(flag)) for flag in flags]
    archs = [value for _, name, value in given if name in backend.arch_flags]
    others = tuple(
        flag
        for flag, name, value in given
        if name not in backend.arch_flags and own.get(name) != value
    )
    arch = archs[-1] if archs else target.arch
    return (backend.target(arch) if arch else target), others


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
    asked = tuple(value for name, value in map(_split, user_flags) if name == DEVICE_FLAG)
    counts = target_devices.counts(asked)
    own = {backend.hal_device: backend for backend in BACKENDS.values()}
    if BACKENDS_FLAG in given or (asked and not counts.keys() <= own.keys()):
        return _plan_by_flags(target, toolchain, device, given)
    backends = [own[name] for name in counts] or [BACKENDS[target.backend]]
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
    arch = target.arch if backend.name == target.backend else None
    named = next((given[f] for f in backend.arch_flags if given.get(f)), arch)
    if named and named not in backend.always:
        _check(backend, named, toolchain)
    found = _found(uri, backend.drivers, toolchain)
    here = functools.partial(_installed_devices, backend.drivers[0])
    planner = Planner(backend=backend, toolchain=toolchain, found=found, installed=here)
    return backend.plan(named, planner)


def _several(
    plans: Sequence[Plan], counts: Sequence[int], uris: Sequence[str], toolchain: Toolchain
) -> Device:
    """Devices for all plans, by their counts, or those that the user lists, joined to one."""
    if len(uris) > 1:
        drivers = [uri.partition("://")[0].partition("?")[0] for uri in uris]
        named = zip(uris, drivers, strict=True)
        return target_devices.joined(
            [devices.pick(u, discovery.find(d, toolchain)) for u, d in named]
        )
    found = [
        one
        for planned, count in zip(plans, counts, strict=True)
        if planned.device is not None
        for one in target_devices.several(planned.device, count, toolchain)
    ]
    return target_devices.joined(found)


def _for_backend(uris: Sequence[str], backend: Backend, backends: int) -> str | None:
    """The user's device for a backend; the first one if the program is for one backend."""
    if backends == 1:
        return next(iter(uris), None)
    return next((u for u in uris if u.partition("://")[0] in backend.drivers), None)


def _plan_by_flags(
    target: Target, toolchain: Toolchain, uri: str | None, given: dict[str, str]
) -> Plan:
    """The user's own flags say what to compile for; `target` is only its name."""
    named = given.get(DEVICE_FLAG)
    value = target_devices.alias(named) if named else given.get(BACKENDS_FLAG, "")
    owner = _owner(value)
    driver = uri.partition("://")[0] if uri else owner.drivers[0] if owner else value
    found = discovery.find(driver, toolchain)
    device = devices.pick(uri, found) if uri else next(iter(found.devices), None)
    return Plan(target=target, flags=(), device=device, why_not_run=found.why, advice=found.advice)


def advice(
    failure: Failure | None, target: Target, flags: Sequence[str], toolchain: Toolchain
) -> str:
    """Advice for a failure that lacks an architecture; empty for other failures.

    flags: the user's, which may name another backend than the target's.
    """
    said = (failure, *failure.also) if failure else ()
    if not any(_NO_ARCHITECTURE.search(one.message) for one in said):
        return ""
    named = [value for name, value in map(_split, flags) if name in (DEVICE_FLAG, BACKENDS_FLAG)]
    owners = filter(None, (_owner(target_devices.alias(value)) for value in named))
    backend = next(owners, BACKENDS[target.backend])
    if backend.on_host:
        return ""
    flag = next((f for f in backend.arch_flags if f in toolchain.flags), backend.arch_flags[0])
    known = ", ".join(_known(backend, toolchain))
    return f"Name an architecture: -t {backend.name}:ARCH, or --{flag}=ARCH; of {known}."


def _known(backend: Backend, toolchain: Toolchain) -> list[str]:
    """Architectures of the backend that the toolchain knows."""
    return [a for a in backend.architectures if not backend.probe(a, toolchain).rejected]


def _check(backend: Backend, arch: str, toolchain: Toolchain) -> None:
    """Raises UsageError where the compiler does not know the architecture."""
    answer = backend.probe(arch, toolchain)
    if answer.rejected:
        known = (
            nearest(arch, list(answer.accepted))
            if answer.accepted
            else f"It knows {', '.join(_known(backend, toolchain))}."
        )
        raise UsageError(
            f"iree-compile {toolchain.version} does not know the target {backend.name}:{arch}: "
            f"{answer.rejected}",
            advice=f"{known} {backend.otherwise}".rstrip(),
        )


def _owner(name: str) -> Backend | None:
    """The backend of a device or a code generator, in iree-compile's words."""
    known = BACKENDS.values()
    return next((b for b in known if name in (b.name, b.hal_device, *b.hal_backends)), None)


def _found(uri: str | None, drivers: Sequence[str], toolchain: Toolchain) -> DevicesFound:
    """The device that the user names, which must be one of `drivers`; all where none is named."""
    if uri is None:
        return discovery.find(drivers[0], toolchain)
    driver = uri.partition("://")[0].partition("?")[0]
    if driver not in drivers:
        raise UsageError(
            f"--device {uri} cannot run what is compiled for this target",
            advice=f"It takes a device of {' or '.join(drivers)} (`iree-pilot targets`).",
        )
    return DevicesFound(devices=(devices.pick(uri, discovery.find(driver, toolchain)),))


def _installed_devices(driver: str) -> DevicesFound:
    try:
        return discovery.find(driver, installed())
    except EnvironmentFault:
        return DevicesFound()


def _split(flag: str) -> tuple[str, str]:
    name, _, value = flag.lstrip("-").partition("=")
    return name, value
