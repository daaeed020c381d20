"""A compile target's assumptions are read from the compiler and held against the device."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fake import dumps, stub_toolchain

from iree_pilot.pipeline.processes.process import Limits, run
from iree_pilot.pipeline.targets import architectures, devices
from iree_pilot.pipeline.targets.architectures import Assumptions, Probe
from iree_pilot.pipeline.targets.backends import llvm_cpu, vulkan
from iree_pilot.pipeline.targets.devices import Device
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

#: As the releases print them.
AMPERE_290 = (
    'module attributes {#hal.executable.target<"vulkan-spirv", "vulkan-spirv-fb", {iree.gpu.target '
    '= #iree_gpu.target<arch = "sm_80", features = "spirv:v1.6,cap:Shader", wgp = <compute =  fp64'
    "|fp32|fp16|int64|int32|int16|int8, storage =  b64|b32|b16|b8, subgroup =  shuffle|arithmetic, "
    "dot =  dp4xi8toi32, mma = [<WMMA_F32_16x16x16_F16>], subgroup_size_choices = [32], "
    "max_workgroup_sizes = [1024, 1024, 1024]>>}>"
)
DEFAULT_290 = (
    '#hal.executable.target<"vulkan-spirv", "vulkan-spirv-fb", {iree.gpu.target = #iree_gpu.target<'
    'arch = "vp_android_baseline_2022", features = "spirv:v1.3,cap:Shader", wgp = <compute =  fp32|'
    "int32, storage =  b32, subgroup =  none, dot =  none, mma = [], subgroup_size_choices = [64]>>"
)
RDNA3_3130 = (
    '#hal.executable.target<"vulkan-spirv", "vulkan-spirv-fb", {iree_codegen.target_info = '
    '#iree_gpu.target<arch = "rdna3", features = "spirv:v1.6,cap:Shader", wgp = <compute = fp64|'
    "fp32|fp16|int64|int32|int16|int8, storage = b64|b32|b16|b8, subgroup = shuffle|arithmetic, "
    "dot = dp4xi8toi32, mma = [<WMMAR3_F32_16x16x16_F16>], subgroup_size_choices = [32, 64]>>}>"
)
CPU_3130 = (
    '#hal.executable.target<"llvm-cpu", "embedded-elf-x86_64", {cpu = "znver5", cpu_features = '
    '"+avx2,+movdir64b,+avx512f,+64bit,-amx-tile,-movdir64b", data_layout = "e-m:e"}>'
)
RDNA3 = Assumptions(
    arch="rdna3",
    compute=("fp32", "fp16", "int8"),
    storage=("b32", "b16", "b8"),
    subgroup=("shuffle", "arithmetic"),
    subgroup_sizes=(32, 64),
    dot=True,
    mma=True,
)
WIDTHS = {"valhall4": (16,), "adreno": (64,), "llvmpipe": (8,), "pascal": (32,)}


def device(dump: str) -> Device:
    (only,) = devices.parse_dump(dump, "vulkan")
    return only


def about(arch: str) -> Probe:
    """A compiler that knows rdna3 and the generic targets."""
    if arch == "rdna3":
        return Probe(assumptions=RDNA3)
    if arch in WIDTHS or arch == vulkan.DEFAULT:
        sizes = WIDTHS.get(arch, (64,))
        return Probe(assumptions=Assumptions(arch=arch, subgroup_sizes=sizes))
    return Probe(rejected=f"Unknown Vulkan target '{arch}'")


def test_assumptions_are_read_from_the_ir_of_old_and_new_releases() -> None:
    ampere = architectures.parse_assumptions(AMPERE_290)
    assert ampere is not None
    assert (ampere.arch, ampere.subgroup_sizes, ampere.dot, ampere.mma) == (
        "sm_80",
        (32,),
        True,
        True,
    )
    assert {"fp16", "int8"} < set(ampere.compute)
    assert {"b8", "b16"} < set(ampere.storage)
    assert architectures.parse_assumptions(DEFAULT_290) == Assumptions(
        arch="vp_android_baseline_2022",
        compute=("fp32", "int32"),
        storage=("b32",),
        subgroup_sizes=(64,),
        features=("spirv:v1.3", "cap:Shader"),
    )
    rdna3 = architectures.parse_assumptions(RDNA3_3130)
    assert rdna3 is not None
    assert (rdna3.subgroup_sizes, rdna3.subgroup) == ((32, 64), ("shuffle", "arithmetic"))
    assert architectures.parse_assumptions("module {}") is None


def test_of_a_processors_features_the_last_word_counts() -> None:
    cpu = architectures.parse_assumptions(CPU_3130)
    assert cpu == Assumptions(arch="znver5", features=("64bit", "avx2", "avx512f"))


def test_a_device_that_has_all_fits() -> None:
    assert vulkan.misfits(RDNA3, device(dumps.vulkan("AMD Radeon"))) == []


@pytest.mark.parametrize(
    ("dump", "misfit"),
    [
        (
            dumps.vulkan("GPU", subgroup=(8, 8, 8)),
            "it assumes subgroups of 32 or 64, the device has 8",
        ),
        (
            dumps.vulkan("GPU", subgroup=(64, 64, 64)),
            "it assumes subgroups of 32 or 64, the device has 64",
        ),
        (
            dumps.vulkan("GPU", subgroup=(32, 8, 32)),
            "it assumes subgroups of 32 or 64, the device has 8 to 32",
        ),
        (
            dumps.vulkan("GPU", control=False),
            "it assumes subgroups of 32 or 64, the device has 64 and no way to ask for another "
            "size",
        ),
        (
            dumps.vulkan("GPU", stages=0x10),
            "it assumes subgroups of 32 or 64, the device has 64 and no way to ask for another "
            "size",
        ),
        (
            dumps.vulkan("GPU", operations=0x10),
            "it uses subgroup arithmetic operations, which the device lacks",
        ),
        (
            dumps.vulkan("GPU", lacks=("storageBuffer16BitAccess",)),
            "it uses 16-bit storage, which the device lacks",
        ),
        (
            dumps.vulkan("GPU", lacks=("storageBuffer8BitAccess",)),
            "it uses 8-bit storage, which the device lacks",
        ),
        (
            dumps.vulkan("GPU", lacks=("shaderFloat16",)),
            "it uses float16 arithmetic, which the device lacks",
        ),
        (
            dumps.vulkan("GPU", lacks=("shaderInt8",)),
            "it uses int8 arithmetic, which the device lacks",
        ),
        (
            dumps.vulkan("GPU", lacks=("shaderIntegerDotProduct",)),
            "it uses integer dot products, which the device lacks",
        ),
        (
            dumps.vulkan("GPU", lacks=("cooperativeMatrix",)),
            "it uses cooperative matrices, which the device lacks",
        ),
    ],
)
def test_each_thing_that_the_device_lacks_is_told(dump: str, misfit: str) -> None:
    assert vulkan.misfits(RDNA3, device(dump)) == [misfit]


def test_what_a_device_has_beyond_the_assumptions_is_no_misfit() -> None:
    modest = Assumptions(arch="default", compute=("fp32",), storage=("b32",), subgroup_sizes=(64,))
    assert vulkan.misfits(modest, device(dumps.vulkan("AMD Radeon"))) == []


def test_what_the_runtime_does_not_tell_is_no_misfit() -> None:
    assert vulkan.misfits(RDNA3, device(dumps.vulkan("GPU", silent=True))) == []


def test_only_features_that_kernels_use_are_missed() -> None:
    wanted = Assumptions(arch="a", features=("avx2", "avx512f", "pku", "rdpru"))
    assert llvm_cpu.missing_features(wanted, Assumptions(arch="b", features=("avx2",))) == [
        "avx512f"
    ]


@pytest.mark.parametrize(
    ("vendor", "name", "first"),
    [
        ("0x10005", "llvmpipe (LLVM 15.0.6, 256 bits)", "llvmpipe"),
        ("0x1002", "AMD Radeon RX 7900 XTX (RADV NAVI31)", "rx7900xtx"),
        ("0x1002", "AMD Radeon RX 7600 (RADV NAVI33)", "rx7600"),
        ("0x1002", "AMD Radeon RX 6800 XT (RADV NAVI21)", "rdna2"),
        ("0x1002", "AMD Radeon Graphics (RADV RAPHAEL_MENDOCINO)", "rdna2"),
        ("0x1002", "AMD Radeon Graphics (RADV GFX1103_R1)", "rdna3"),
        ("0x1002", "AMD Radeon 890M Graphics (RADV GFX1150)", "rdna3"),
        ("0x1002", "AMD Radeon PRO W7900 Dual Slot (RADV GFX1100)", "w7900"),
        ("0x1002", "AMD Instinct MI300X (RADV GFX942)", "mi300x"),
        ("0x10de", "NVIDIA GeForce RTX 4090", "rtx4090"),
        ("0x10de", "NVIDIA GeForce RTX 3080 Ti", "rtx3080ti"),
        ("0x10de", "NVIDIA RTX 6000 Ada Generation", "ada"),
        ("0x10de", "NVIDIA RTX 5000 Ada Generation", "ada"),
        ("0x10de", "NVIDIA RTX A6000", "ampere"),
        ("0x10de", "NVIDIA A100-SXM4-80GB", "a100"),
        ("0x10de", "Tesla T4", "turing"),
        ("0x10de", "Quadro RTX 5000", "turing"),
        ("0x10de", "Tesla V100-SXM2-16GB", "volta"),
        ("0x10de", "NVIDIA GeForce GTX 1080 Ti", "pascal"),
        ("0x10de", "NVIDIA H100 80GB HBM3", "sm_90"),
        ("0x10de", "NVIDIA GeForce RTX 5090", "sm_120"),
        ("0x13b5", "Mali-G715-Immortalis", "valhall4"),
        ("0x13b5", "Mali-G610 (Panfrost)", "valhall3"),
        ("0x13b5", "Immortalis-G720", "arm5gen"),
        ("0x5143", "Turnip Adreno (TM) 740", "adreno"),
        ("0x14e4", "V3D 7.1.7.0", "videocore_vii"),
    ],
)
def test_a_device_is_known_by_its_name(vendor: str, name: str, first: str) -> None:
    assert vulkan.candidates(device(dumps.vulkan(name, vendor=vendor)))[0] == first
    assert vulkan.candidates(device(dumps.vulkan(name, silent=True)))[0] == first


@pytest.mark.parametrize(
    ("vendor", "name"),
    [
        ("0x8086", "Intel(R) Arc(tm) A770 Graphics (DG2)"),
        ("0x1ae0", "SwiftShader Device (Subzero)"),
        ("0x106b", "Apple M1"),
        ("0x13b5", "Mali-G52 (Panfrost)"),
    ],
)
def test_some_devices_have_no_target_of_their_own(vendor: str, name: str) -> None:
    assert vulkan.candidates(device(dumps.vulkan(name, vendor=vendor))) == ()


def test_the_best_target_that_the_compiler_knows_is_chosen() -> None:
    radeon = device(dumps.vulkan("AMD Radeon RX 7900 XTX (RADV NAVI31)"))
    choice = vulkan.choose(radeon, about)
    assert (choice.arch, choice.misfits, choice.note) == ("rdna3", (), "")


def test_a_target_of_its_own_that_does_not_fit_gives_way_to_one_that_does() -> None:
    choice = vulkan.choose(device(dumps.llvmpipe(16)), about)
    assert (choice.arch, choice.misfits) == ("valhall4", ())
    assert "no compile target of its own that fits; valhall4 does" in choice.note


def test_where_nothing_fits_it_is_the_default_with_its_misfits() -> None:
    choice = vulkan.choose(device(dumps.llvmpipe(4)), about)
    assert choice.arch == vulkan.DEFAULT
    assert choice.misfits == ("it assumes subgroups of 64, the device has 4",)


def test_of_an_unknown_device_that_is_not_described_nothing_is_guessed() -> None:
    choice = vulkan.choose(device(dumps.vulkan("Some GPU", silent=True)), about)
    assert choice.arch == vulkan.DEFAULT
    assert "its fit is unknown" in choice.note


@pytest.mark.slow
def test_a_compiler_is_asked_once_for_each_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = stub_toolchain(tmp_path, targets={"rdna3": RDNA3_3130})
    flags = ("--iree-hal-target-device=vulkan", "--iree-vulkan-target=rdna3")
    first = architectures.probe(tools, flags)
    assert first.assumptions is not None
    assert first.assumptions.subgroup_sizes == (32, 64)
    monkeypatch.setattr(architectures, "ask", lambda *a, **k: pytest.fail("it was asked again"))
    assert architectures.probe(tools, flags) == first


def test_a_target_that_the_compiler_rejects_is_remembered_as_such(tmp_path: Path) -> None:
    tools = stub_toolchain(tmp_path, targets={})
    answer = architectures.probe(tools, ("--iree-vulkan-target=nosuch",))
    assert answer == Probe(rejected="Unknown Vulkan target 'nosuch'")


def test_a_compiler_that_fails_otherwise_is_asked_again(tmp_path: Path) -> None:
    tools = stub_toolchain(tmp_path, targets={"rdna3": RDNA3_3130})
    compiler = tools.compiler
    good = compiler.read_text()
    compiler.write_text("#!/bin/sh\nexit 1\n")
    assert architectures.probe(tools, ("--iree-vulkan-target=rdna3",)) == Probe()
    compiler.write_text(good)
    assert architectures.probe(tools, ("--iree-vulkan-target=rdna3",)).assumptions is not None


REDUCTION = """func.func @sum(%a: tensor<16x512xf32>) -> tensor<16xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<16xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<16xf32>) -> tensor<16xf32>
  %sum = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
    iterator_types = ["parallel", "reduction"]
  } ins(%a : tensor<16x512xf32>) outs(%init : tensor<16xf32>) {
  ^bb0(%x: f32, %y: f32):
    %s = arith.addf %x, %y : f32
    linalg.yield %s : f32
  } -> tensor<16xf32>
  return %sum : tensor<16xf32>
}
"""


@pytest.mark.real
@pytest.mark.parametrize("width", [4, 8, 16])
def test_a_misfit_is_what_makes_a_sum_wrong(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = toolchain.installed()
    monkeypatch.setenv("LP_NATIVE_VECTOR_WIDTH", str(width * 32))
    monkeypatch.setenv("MESA_SHADER_CACHE_DISABLE", "true")  # it does not tell the widths apart
    printed = toolchain.ask([here.tool("iree-run-module"), "--dump_devices=vulkan"]).stdout
    found = [d for d in devices.parse_dump(printed, "vulkan") if d.name.startswith("llvmpipe")]
    if not found:
        pytest.skip("there is no llvmpipe to set a subgroup size on")
    assumed = architectures.probe(
        here, ("--iree-hal-target-device=vulkan", "--iree-vulkan-target=valhall4")
    ).assumptions
    assert assumed is not None
    fits = not vulkan.misfits(assumed, found[0])
    assert fits == (width == 16)
    right = sum_on(here, "valhall4", found[0], tmp_path) == ["512"] * 16
    assert right == fits


def sum_on(here: Toolchain, arch: str, where: Device, tmp_path: Path) -> list[str]:
    program, module = tmp_path / "sum.mlir", tmp_path / "sum.vmfb"
    program.write_text(REDUCTION)
    flags = ["--iree-hal-target-device=vulkan", f"--iree-vulkan-target={arch}", "-o", str(module)]
    log = tmp_path / "log"
    assert run([here.compiler, program, *flags], stdout=log, stderr=log, limits=Limits()).ok
    done = toolchain.ask(
        [
            here.tool("iree-run-module"),
            f"--device={where.uri}",
            f"--module={module}",
            "--function=sum",
            "--input=16x512xf32=1",
        ]
    )
    assert done.ok, done.stderr
    return done.stdout.strip().splitlines()[-1].removeprefix("16xf32=").split()


@pytest.mark.real
def test_the_installed_compiler_tells_what_its_targets_assume() -> None:
    here = toolchain.installed()
    flags = ("--iree-hal-target-device=vulkan", "--iree-vulkan-target=llvmpipe")
    assumed = architectures.probe(here, flags).assumptions
    assert assumed is not None
    assert assumed.subgroup_sizes == (8,)
    assert {"fp16", "int8"} < set(assumed.compute)
    rejected = architectures.probe(here, (flags[0], "--iree-vulkan-target=nosuch"))
    assert rejected.rejected == "Unknown Vulkan target 'nosuch'"
    assert msgspec.json.decode(msgspec.json.encode(assumed), type=Assumptions) == assumed


@pytest.mark.real
def test_the_installed_compiler_knows_all_generic_targets() -> None:
    here = toolchain.installed()
    for arch in vulkan.GENERIC:
        flags = ("--iree-hal-target-device=vulkan", f"--iree-vulkan-target={arch}")
        assert architectures.probe(here, flags).assumptions is not None, arch
