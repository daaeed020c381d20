"""Vulkan devices: `vulkan:rdna3`.

Code made under assumptions that the device does not meet mostly compiles and runs, and gives wrong
numbers: subgroup reductions, for one, are laid out for the assumed size. So the architecture is
chosen by what the device tells of itself and the compiler of what it assumes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain

import msgspec

from iree_pilot.pipeline.targets.architectures import Assumptions, Probe
from iree_pilot.pipeline.targets.backend import Backend, FlagWorkaround, Plan, Planner
from iree_pilot.pipeline.targets.devices import Device, by_preference

#: Vulkan's default, for the devices of a 2022 Android profile.
DEFAULT = "vp_android_baseline_2022"
#: Targets of devices that no name fits, in order: with memory (32 KiB for a workgroup) and
#: element types that most devices have. The first one that fits the device is taken.
GENERIC = ("valhall4", "adreno", "videocore_vii", DEFAULT, "pascal", "llvmpipe")
#: Devices by Vulkan vendor: (pattern of the name, compile targets in order of preference).
#: `{0}` is the pattern's group, in lower case without spaces. Specific patterns come first.
_NAMES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "0x10005": ((r"^llvmpipe", ("llvmpipe",)),),
    "0x1002": (  # AMD: product names, then the chips as RADV names them
        (r"\b(RX 9\d{3} ?(?:XTX|XT)?)\b", ("{0}", "rdna4")),
        (r"\b(RX 7\d{3} ?(?:XTX|XT)?)\b", ("{0}", "rdna3")),
        (r"\b(R9700)\b", ("{0}", "rdna4")),
        (r"\b(W7\d00|V710)\b", ("{0}", "rdna3")),
        (r"\b(?:RX 6\d{3}|W6\d00|6[68]0M|V620)\b", ("rdna2",)),
        (r"\b(?:RX 5[3-7]00|W5\d00)\b", ("rdna1",)),
        (r"\b(?:7[468]0M|8[4689]0M|80[456]0S)\b", ("rdna3",)),
        (r"\b(MI\d{3}[XA]?)\b", ("{0}",)),
        (r"\b(?:NAVI4|GFX12)", ("rdna4",)),
        (r"\b(?:NAVI3|GFX11|PHOENIX|STRIX|HAWK)", ("rdna3",)),
        (r"\b(?:NAVI2|GFX103|VANGOGH|REMBRANDT|RAPHAEL|MENDOCINO)", ("rdna2",)),
        (r"\b(?:NAVI1|GFX101)", ("rdna1",)),
    ),
    "0x10de": (  # NVIDIA: series. Where the compiler lacks the newest, an older one serves.
        (r"\b(?:Quadro RTX|RTX 20\d\d|GTX 16\d\d|TITAN RTX|T4G?)\b", ("turing",)),
        (r"\bAda\b|\bL(?:4|20|40|40S)\b", ("ada",)),
        (r"\bRTX 50\d\d\b|\bBlackwell\b", ("sm_120", "ada", "ampere")),
        (r"\bGB10\b", ("sm_121", "sm_120", "ada", "ampere")),
        (r"\b(?:H20|G?H[12]00|G?B[123]00)\b", ("sm_90", "ampere")),
        (r"\b(RTX 40\d\d)\b", ("{0}", "ada")),
        (r"\b(RTX 30\d\d(?: Ti)?)\b", ("{0}", "ampere")),
        (r"\bA100\b", ("a100", "ampere")),
        (r"\bRTX A\d{4}\b|\bA(?:2|10|10G|16|30|40|800)\b|\bOrin\b", ("ampere",)),
        (r"\b(?:V100S?|TITAN V|GV100)\b", ("volta",)),
        (r"\b(?:GTX 10\d\d|TITAN Xp?|P(?:4|6|40|100)|P\d{3,4})\b", ("pascal",)),
    ),
    "0x13b5": (  # ARM, by generation
        (r"-(?:G620|G625|G720|G725|G925|G1)\b", ("arm5gen", "valhall4")),
        (r"-(?:G615|G715)\b", ("valhall4",)),
        (r"-G(?:310|510|610|710)\b", ("valhall3",)),
        (r"-G(?:68|78)\b", ("valhall2",)),
        (r"-G(?:57|77)\b", ("valhall1",)),
    ),
    "0x5143": ((r"\bAdreno\b", ("adreno",)),),
    "0x14e4": ((r"\bV3D 7\.", ("videocore_vii",)),),
}
_SUBGROUP_OPERATIONS = {"arithmetic": 0x4, "shuffle": 0x10}  # VkSubgroupFeatureFlagBits
_COMPUTE_STAGE = 0x20  # VK_SHADER_STAGE_COMPUTE_BIT
#: Features that assumed bit widths need: (`storage` or `compute`, width, feature, title).
_FEATURES = (
    ("storage", "b16", "features.storageBuffer16BitAccess", "16-bit storage"),
    ("storage", "b8", "features.storageBuffer8BitAccess", "8-bit storage"),
    ("compute", "fp16", "features.shaderFloat16", "float16 arithmetic"),
    ("compute", "int8", "features.shaderInt8", "int8 arithmetic"),
)


def _plan(named: str | None, planner: Planner) -> Plan:
    found = planner.found
    present = by_preference(found)
    # What this release's runtime hides can still be compiled for.
    known = present or by_preference(planner.installed())
    if not known:
        note = f"no Vulkan device to ask: compiling for {DEFAULT}, the compiler's default"
        return planner.plan(
            named or DEFAULT,
            why_not_run=found.why,
            advice=found.advice,
            warnings=() if named else (note,),
        )
    device, choice = _first_fitting(known, named, planner)
    if present:
        warnings = filter(None, (_misfit(choice, device, named, planner), choice.note))
        return planner.plan(choice.arch, device, warnings=tuple(warnings))
    return planner.plan(
        choice.arch,
        why_not_run=f"no Vulkan device for runtime {planner.toolchain.version}",
        advice=f"A newer runtime finds {device.name}; those up to 3.11 hide Mesa's llvmpipe.",
    )


def _first_fitting(
    known: Sequence[Device], arch: str | None, planner: Planner
) -> tuple[Device, Choice]:
    """The first device that fits `arch` (None: its own best), else the first with its misfits."""
    first = None
    for device in known:
        described = _described(device, planner)
        choice = choose(described, planner.probe, arch)
        if not choice.misfits:
            return device, choice
        first = first or (device, choice)
    assert first is not None, "there is at least one device"
    return first


def _misfit(choice: Choice, device: Device, arch: str | None, planner: Planner) -> str:
    """Warning for a compile target that does not fit the device; empty where it fits."""
    if not choice.misfits:
        return ""
    better = choose(_described(device, planner), planner.probe)
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


def _described(device: Device, planner: Planner) -> Device:
    """A Vulkan device with what the installed runtime tells of it, where its own tells nothing."""
    if "subgroup.size" not in device.properties:
        bare = device.uri.partition("?")[0]
        for other in planner.installed().devices:
            if other.uri == bare:
                return msgspec.structs.replace(device, properties=other.properties)
    return device


def misfits(assumptions: Assumptions, device: Device) -> list[str]:
    """Assumptions that a Vulkan device is known not to meet."""
    found = _subgroup_misfits(assumptions, device)
    for group, width, feature, title in _FEATURES:
        if width in getattr(assumptions, group) and device.properties.get(feature) == "no":
            found.append(f"it uses {title}, which the device lacks")
    if assumptions.dot and device.properties.get("features.shaderIntegerDotProduct") == "no":
        found.append("it uses integer dot products, which the device lacks")
    if assumptions.mma and device.properties.get("features.cooperativeMatrix") == "no":
        found.append("it uses cooperative matrices, which the device lacks")
    return found


def _subgroup_misfits(assumptions: Assumptions, device: Device) -> list[str]:
    smallest = _number(device, "subgroup.minSubgroupSize")
    largest = _number(device, "subgroup.maxSubgroupSize")
    default = _number(device, "subgroup.size")
    found = []
    if assumptions.subgroup_sizes and smallest and largest:
        assumed = " or ".join(map(str, assumptions.subgroup_sizes))
        chosen = device.properties.get("features.subgroupSizeControl") == "yes" and bool(
            _number(device, "subgroup.requiredSubgroupSizeStages") & _COMPUTE_STAGE
        )
        if any(not smallest <= size <= largest for size in assumptions.subgroup_sizes):
            has = str(smallest) if smallest == largest else f"{smallest} to {largest}"
            found.append(f"it assumes subgroups of {assumed}, the device has {has}")
        elif not chosen and assumptions.subgroup_sizes != (default,):
            found.append(
                f"it assumes subgroups of {assumed}, the device has {default} "
                "and no way to ask for another size"
            )
    operations = device.properties.get("subgroup.operations")
    for name in assumptions.subgroup if operations else ():
        if not _number(device, "subgroup.operations") & _SUBGROUP_OPERATIONS.get(name, -1):
            found.append(f"it uses subgroup {name} operations, which the device lacks")
    return found


def candidates(device: Device) -> tuple[str, ...]:
    """Compile targets for a Vulkan device by its name, the best first; the compiler may lack some.

    Empty for the devices that it has none for: Intel's, Apple's, SwiftShader.
    """
    vendor = device.properties.get("vendor_id")
    known = _NAMES.get(vendor, ()) if vendor else chain.from_iterable(_NAMES.values())
    for pattern, names in known:
        match = re.search(pattern, device.name, re.IGNORECASE)
        if match:
            product = match[1].lower().replace(" ", "") if match.groups() else ""
            return tuple(name.format(product) for name in names)
    return ()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A compile target for a device: `misfits` if it does not fit, `note` if it is a guess."""

    arch: str
    misfits: tuple[str, ...] = ()
    note: str = ""


def choose(device: Device, ask_about: Callable[[str], Probe], named: str | None = None) -> Choice:
    """The compile target for a Vulkan device: the best of its own that fits, else a generic one.

    Where none fits it is the compiler's default, with its misfits; where one is `named` it is that.
    `ask_about` probes one target.
    """
    if named:
        return Choice(arch=named, misfits=tuple(_probed_misfits(ask_about(named), device)))
    own = candidates(device)
    is_described = "subgroup.size" in device.properties
    for arch in (*own, *(GENERIC if is_described else ())):
        answer = ask_about(arch)
        if not answer.rejected and not _probed_misfits(answer, device):
            note = f"{device.name} has no compile target of its own that fits; {arch} does"
            return Choice(arch=arch, note="" if arch in own else note)
    if not is_described:
        note = f"this runtime reports nothing about {device.name}: its fit is unknown"
        return Choice(arch=DEFAULT, note=note)
    return Choice(arch=DEFAULT, misfits=tuple(_probed_misfits(ask_about(DEFAULT), device)))


def _probed_misfits(answer: Probe, device: Device) -> list[str]:
    return misfits(answer.assumptions, device) if answer.assumptions else []


def _number(device: Device, key: str) -> int:
    return int(device.properties.get(key, "0"), 0)


BACKEND = Backend(
    name="vulkan",
    title="Vulkan",
    takes="asks the device (default), or an architecture or product (rdna3, ampere, adreno)",
    architectures=(
        *GENERIC,
        *("rdna1", "rdna2", "rdna3", "rdna4", "turing", "ampere", "ada", "arm5gen"),
    ),
    hal_backends=("vulkan-spirv",),
    hal_device="vulkan",
    arch_flags=("iree-vulkan-target",),
    drivers=("vulkan",),
    no_device=(
        (
            "libvulkan",
            "The Vulkan loader is not installed. Debian/Ubuntu: "
            "apt-get install libvulkan1 mesa-vulkan-drivers.",
        ),
        (
            "",
            "No Vulkan driver offers a device. Install the GPU's driver, or Mesa's software one "
            "(Debian/Ubuntu: apt-get install mesa-vulkan-drivers).",
        ),
    ),
    plan=_plan,
    code="spirv",
    neighbours=("vulkan:llvmpipe", f"vulkan:{DEFAULT}", "llvm-cpu"),
    alternatives=("", *GENERIC),
    workarounds=(
        FlagWorkaround("iree-spirv-index-bits=64", "64-bit indices in shaders", r"index|i64"),
    ),
)
