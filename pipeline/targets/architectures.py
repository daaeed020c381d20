"""What a compile target assumes of the device it compiles for, and whether a device meets it.

The compiler writes its assumptions into the IR (`#iree_gpu.target<...>`), so it is asked by
compiling a one-operation program. Code made under assumptions that the device does not meet mostly
compiles and runs, and gives wrong numbers: subgroup reductions, for one, are laid out for the
assumed size.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

import msgspec

from iree_pilot.pipeline.targets.devices import Device
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, ask, remember

_PROGRAM = """func.func @add(%arg0: tensor<4xf32>) -> tensor<4xf32> {
  %0 = arith.addf %arg0, %arg0 : tensor<4xf32>
  return %0 : tensor<4xf32>
}
"""
_PROBE_PHASE = "executable-sources"
_REJECTED = re.compile(r"(Unknown \w+ target '[^']*'|'[^']*' is not a recognized processor)")
#: CPU features with instructions that kernels use; not those of the operating system (`pku`), which
#: virtual machines often hide.
_KERNEL_FEATURES = re.compile(
    r"avx|amx|s?sse|fma|f16c|bmi|lzcnt|popcnt|movbe|adx|gfni|vaes|vpclmul"
    r"|neon|sve|sme|dotprod|i8mm|bf16|fullfp16|lse|zv|v$"
)
#: Vulkan's default, for the devices of a 2022 Android profile.
DEFAULT_VULKAN = "vp_android_baseline_2022"
#: For devices that no name fits, in order: modest ones, whose memory (32 KiB a workgroup) and
#: element types most devices have. The first that the device meets is taken.
GENERIC_VULKAN = ("valhall4", "adreno", "videocore_vii", DEFAULT_VULKAN, "pascal", "llvmpipe")
#: By Vulkan vendor: (pattern of a device's name, its compile targets in order of preference).
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
#: What an assumed bit width needs: (in `storage`/`compute`, the device's feature).
_FEATURES = (
    ("storage", "b16", "features.storageBuffer16BitAccess", "16-bit storage"),
    ("storage", "b8", "features.storageBuffer8BitAccess", "8-bit storage"),
    ("compute", "fp16", "features.shaderFloat16", "float16 arithmetic"),
    ("compute", "int8", "features.shaderInt8", "int8 arithmetic"),
)


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """What code for a compile target assumes; empty or 0 where the compiler does not say.

    arch: the compiler's own name for it (`gfx942` for `mi300x`). compute and storage: element
    types and widths (`fp16`, `b8`). subgroup_sizes: any of these may be chosen. subgroup:
    operations across a subgroup. dot, mma: it uses 8-bit dot products, cooperative matrices.
    features: CPU features that are on, or the SPIR-V environment.
    """

    arch: str
    compute: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()
    subgroup: tuple[str, ...] = ()
    subgroup_sizes: tuple[int, ...] = ()
    dot: bool = False
    mma: bool = False
    features: tuple[str, ...] = ()


class _NoAnswer(Exception):
    """The compiler failed for a reason of its own, which must not be remembered."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The compiler's answer for some target flags.

    `rejected` is its message where it does not know the target. `assumptions` is None where it is
    rejected or says nothing that is understood here.
    """

    rejected: str = ""
    assumptions: Assumptions | None = None


def probe(toolchain: Toolchain, flags: tuple[str, ...], *, host: str = "") -> Probe:
    """Asks the compiler what it assumes under `flags`: 50 ms, then from the cache.

    host: the host's fingerprint, where the answer depends on the host.
    """
    key = (toolchain.revision, flags, host)
    try:
        return remember("compile-target", key, lambda: _probe(toolchain, flags), Probe)
    except _NoAnswer:
        return Probe()


def parse_assumptions(ir: str) -> Assumptions | None:
    """The assumptions in the first executable target of printed IR, of releases 2.9 to 3.13."""
    start = ir.find("#hal.executable.target<")
    if start < 0:
        return None
    text = ir[start:].split("\n", 1)[0]
    cpu = re.search(r'\bcpu = "([^"]*)", cpu_features = "([^"]*)"', text)
    if cpu:
        return Assumptions(arch=cpu[1], features=_enabled(cpu[2].split(",")))
    gpu = re.search(r'#iree_gpu\.target<arch = "([^"]*)", features = "([^"]*)"', text)
    if gpu is None:
        return None
    return Assumptions(
        arch=gpu[1],
        compute=_alternatives(text, "compute"),
        storage=_alternatives(text, "storage"),
        subgroup=_alternatives(text, "subgroup"),
        subgroup_sizes=tuple(sorted(map(int, _listed(text, "subgroup_size_choices")))),
        dot=bool(_alternatives(text, "dot")),
        mma="mma = [<" in text,
        features=tuple(filter(None, gpu[2].split(","))),
    )


def misfits(assumptions: Assumptions, device: Device) -> list[str]:
    """How a Vulkan device fails what is assumed of it; empty where it is not known to fail."""
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


def choose(device: Device, ask_about: Callable[[str], Probe]) -> Choice:
    """The compile target for a Vulkan device: the best of its own that fits, else a generic one.

    Where none fits it is the compiler's default, with its misfits. `ask_about` probes one target.
    """
    own = candidates(device)
    told = "subgroup.size" in device.properties
    for arch in (*own, *(GENERIC_VULKAN if told else ())):
        answer = ask_about(arch)
        if not answer.rejected and not _probed_misfits(answer, device):
            note = f"{device.name} has no compile target of its own that fits; {arch} does"
            return Choice(arch=arch, note="" if arch in own else note)
    if not told:
        note = f"this runtime tells nothing of {device.name}: its fit is not known"
        return Choice(arch=DEFAULT_VULKAN, note=note)
    return Choice(
        arch=DEFAULT_VULKAN, misfits=tuple(_probed_misfits(ask_about(DEFAULT_VULKAN), device))
    )


def judge(arch: str, device: Device, ask_about: Callable[[str], Probe]) -> Choice:
    """The compile target that the user named, and how it does not fit the device."""
    return Choice(arch=arch, misfits=tuple(_probed_misfits(ask_about(arch), device)))


def _probed_misfits(answer: Probe, device: Device) -> list[str]:
    return misfits(answer.assumptions, device) if answer.assumptions else []


def missing_features(wanted: Assumptions, host: Assumptions) -> list[str]:
    """CPU features that kernels for `wanted` may use and the host lacks."""
    lacking = set(wanted.features) - set(host.features)
    return sorted(f for f in lacking if _KERNEL_FEATURES.match(f))


def _probe(toolchain: Toolchain, flags: tuple[str, ...]) -> Probe:
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        program = Path(scratch, "probe.mlir")
        program.write_text(_PROGRAM)
        answer = ask([toolchain.compiler, program, *flags, f"--compile-to={_PROBE_PHASE}"])
    rejected = _REJECTED.search(answer.stderr)
    if rejected:
        return Probe(rejected=rejected[1])
    if not answer.ok:
        raise _NoAnswer
    return Probe(assumptions=parse_assumptions(answer.stdout))


def _enabled(features: Iterable[str]) -> tuple[str, ...]:
    """Of `+a,-b,...` the names that end up on; a later one overrules an earlier one."""
    state = {f[1:]: f[0] == "+" for f in features if f}
    return tuple(sorted(name for name, on in state.items() if on))


def _alternatives(text: str, field: str) -> tuple[str, ...]:
    match = re.search(rf"\b{field} = *([\w|]+)", text)
    return tuple(x for x in match[1].split("|") if x != "none") if match else ()


def _listed(text: str, field: str) -> list[str]:
    match = re.search(rf"\b{field} = \[([\d, ]*)\]", text)
    return match[1].replace(",", " ").split() if match else []


def _number(device: Device, key: str) -> int:
    return int(device.properties.get(key, "0"), 0)
