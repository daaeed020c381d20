"""A target becomes flags that this compiler has and a device that can run the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake import dumps, stub_toolchain

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.targets import devices, targets
from iree_pilot.pipeline.targets.backend import Backend, table
from iree_pilot.pipeline.targets.targets import Plan, Target
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.toolchain import Toolchain


def gpu(arch: str, *sizes: int) -> str:
    return (
        f'#hal.executable.target<"b", "f", {{i = #iree_gpu.target<arch = "{arch}", features = "", '
        f"wgp = <compute = fp32, storage = b32, subgroup = shuffle, "
        f"subgroup_size_choices = [{', '.join(map(str, sizes))}]>>}}>"
    )


def cpu(name: str, features: str) -> str:
    return f'#hal.executable.target<"llvm-cpu", "e", {{cpu = "{name}", cpu_features = "{features}"'


KNOWN = {
    "llvmpipe": gpu("llvmpipe", 8),
    "rdna3": gpu("rdna3", 32, 64),
    "ampere": gpu("sm_80", 32),
    "valhall4": gpu("valhall4", 16),
    "vp_android_baseline_2022": gpu("vp_android_baseline_2022", 64),
    "gfx942": gpu("gfx942", 64),
    "mi300x": gpu("gfx942", 64),
    "gfx1100": gpu("gfx1100", 32, 64),
    "sm_80": gpu("sm_80", 32),
    "sm_89": gpu("sm_89", 32),
    "sm_90": '#hal.executable.target<"cuda", "cuda-nvptx-fb">',
    "a100": gpu("sm_80", 32),
    "host": cpu("mine", "+avx2"),
    "big": cpu("big", "+avx2,+avx512f"),
}
RADEON = dumps.vulkan("AMD Radeon RX 7900 XTX (RADV NAVI31)", uri="vulkan://GPU-1")
MI300 = dumps.hip("AMD Instinct MI300X", "gfx942:sramecc+:xnack-", "hip://GPU-a")
NAVI = dumps.hip("AMD Radeon RX 7900 XTX", "gfx1100", "hip://GPU-b")
H100 = dumps.cuda("NVIDIA H100 80GB HBM3", "9.0", "cuda://GPU-c")
A100 = dumps.cuda("NVIDIA A100-SXM4-80GB", "8.0", "cuda://GPU-d")
NO_HIP = {"stderr": dumps.NO_HIP, "status": 1}
NO_CUDA = {"stderr": dumps.NO_CUDA, "status": 1}
NO_VULKAN = {"stderr": dumps.NO_VULKAN_DRIVER, "status": 1}


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps this machine's devices out of the tests with made-up ones."""
    monkeypatch.setattr(targets, "_installed_devices", lambda driver: devices.DevicesFound())


def tools(
    directory: Path, vulkan: Any = None, hip: Any = None, cuda: Any = None, **settings: Any
) -> Toolchain:
    """A toolchain whose runtime finds these devices."""
    listed = {
        "cuda": {"stdout": cuda} if isinstance(cuda, str) else NO_CUDA,
        "vulkan": {"stdout": vulkan} if isinstance(vulkan, str) else NO_VULKAN,
        "hip": {"stdout": hip} if isinstance(hip, str) else NO_HIP,
    }
    return stub_toolchain(directory, targets=KNOWN, devices=listed, **settings)


def failure(message: str) -> Failure:
    return Failure(kind="diagnostic", message=message, signature="")


def plan(text: str, chain: Toolchain, device: str | None = None, **more: Any) -> Plan:
    return targets.plan(targets.parse(text), chain, device, **more)


def test_a_target_is_a_backend_and_perhaps_an_architecture() -> None:
    assert targets.parse("vulkan") == Target(spec="vulkan", backend="vulkan")
    assert targets.parse("hip:gfx942") == Target(spec="hip:gfx942", backend="hip", arch="gfx942")


@pytest.mark.parametrize("backend", targets.BACKENDS.values(), ids=targets.BACKENDS)
def test_the_neighbours_of_a_target_are_targets(backend: Backend) -> None:
    assert all(targets.parse(spec).backend in targets.BACKENDS for spec in backend.neighbours)


@pytest.mark.parametrize("field", ["name", "hal_backends", "hal_device", "arch_flags", "drivers"])
def test_a_target_that_flags_or_devices_would_not_tell_apart_is_refused(field: str) -> None:
    """The second of two would be planned in place of the first."""
    one, other = list(targets.BACKENDS.values())[:2]
    with pytest.raises(ValueError, match=f"{one.name} .*share {field} "):
        table(one, msgspec.structs.replace(other, **{field: getattr(one, field)}))


@pytest.mark.parametrize("field", ["hal_backends", "arch_flags", "drivers"])
def test_a_target_without_a_name_for_its_tools_is_refused(field: str) -> None:
    """Its compiles would fail as if the release were built without it."""
    one = next(iter(targets.BACKENDS.values()))
    with pytest.raises(ValueError, match=f"the target {one.name} has no {field}"):
        table(msgspec.structs.replace(one, **{field: ()}))


def test_targets_between_commas_keep_their_order_and_come_once() -> None:
    found = targets.parse_list("hip:gfx942, llvm-cpu,hip:gfx942,vulkan")
    assert [t.spec for t in found] == ["hip:gfx942", "llvm-cpu", "vulkan"]


@pytest.mark.parametrize(
    ("text", "message", "advice"),
    [
        ("vulcan", "unknown target 'vulcan'", "Did you mean vulkan?"),
        ("webgpu", "unknown target 'webgpu'", "--iree-hal-target-device="),
        ("rocm:gfx942", "unknown target 'rocm:gfx942'", "Did you mean hip?"),
        ("metal-spirv", "unknown target 'metal-spirv'", "Did you mean metal?"),
        ("vulkan:", "names no architecture", "Write vulkan, or vulkan:ARCH."),
        ("vulkan,,hip", "'vulkan,,hip' names no target", "For example: vulkan,hip."),
        ("vulkan,", "'vulkan,' names no target", "For example: vulkan."),
        (" , ", "no target is named", f"Known: {', '.join(targets.BACKENDS)}."),
    ],
)
def test_what_is_no_target_is_refused_with_advice(text: str, message: str, advice: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        targets.parse_list(text)
    assert advice in caught.value.advice


def test_the_processor_compiles_for_itself(tmp_path: Path) -> None:
    made = plan("llvm-cpu", tools(tmp_path))
    assert made.flags == (
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-cpu=host",
    )
    assert made.target == Target(spec="llvm-cpu:host", backend="llvm-cpu", arch="host")
    assert made.device is not None
    assert made.device.uri == "local-task"
    assert (made.why_not_run, made.warnings) == ("", ())


@pytest.mark.slow
def test_another_processor_that_has_more_is_warned_of(tmp_path: Path) -> None:
    made = plan("llvm-cpu:big", tools(tmp_path))
    assert made.flags[-1] == "--iree-llvmcpu-target-cpu=big"
    (warning,) = made.warnings
    assert warning.endswith("ends with an illegal instruction: avx512f")


def test_the_sync_driver_may_be_asked_for(tmp_path: Path) -> None:
    made = plan("llvm-cpu", tools(tmp_path), "local-sync")
    assert made.device is not None
    assert made.device.uri == "local-sync"


def test_a_device_of_another_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device hip://0 cannot run what is compiled for this"):
        plan("llvm-cpu", tools(tmp_path), "hip://0")


@pytest.mark.slow
def test_vulkan_without_an_architecture_takes_the_one_that_fits_the_device(tmp_path: Path) -> None:
    made = plan("vulkan", tools(tmp_path, vulkan=dumps.llvmpipe()))
    assert made.target == Target(spec="vulkan:llvmpipe", backend="vulkan", arch="llvmpipe")
    assert made.flags == ("--iree-hal-target-device=vulkan", "--iree-vulkan-target=llvmpipe")
    assert made.device is not None
    assert made.warnings == ()


@pytest.mark.slow
def test_vulkan_takes_a_real_gpu_before_the_software_driver(tmp_path: Path) -> None:
    made = plan("vulkan", tools(tmp_path, vulkan=dumps.llvmpipe() + RADEON))
    assert made.target.arch == "rdna3"
    assert made.device is not None
    assert made.device.uri == "vulkan://GPU-1"


@pytest.mark.slow
def test_vulkan_with_an_architecture_takes_the_first_device_that_it_fits(tmp_path: Path) -> None:
    made = plan("vulkan:llvmpipe", tools(tmp_path, vulkan=RADEON + dumps.llvmpipe()))
    assert made.device is not None
    assert made.device.name.startswith("llvmpipe")
    assert made.warnings == ()


@pytest.mark.slow
def test_the_users_device_decides_the_architecture(tmp_path: Path) -> None:
    chain = tools(tmp_path, vulkan=RADEON + dumps.llvmpipe())
    assert plan("vulkan", chain, "vulkan://1").target.arch == "llvmpipe"
    assert plan("vulkan", chain, "vulkan://GPU-1").target.arch == "rdna3"


@pytest.mark.slow
def test_a_named_architecture_that_does_not_fit_is_shown_before_the_run(tmp_path: Path) -> None:
    made = plan("vulkan:ampere", tools(tmp_path, vulkan=dumps.llvmpipe()))
    assert made.target.arch == "ampere"
    assert made.device is not None
    (warning,) = made.warnings
    assert warning == (
        "vulkan:ampere does not fit llvmpipe (LLVM 15.0.6, 256 bits): it assumes subgroups of 32, "
        "the device has 8. Programs can compile, run and give wrong numbers. vulkan:llvmpipe fits."
    )


@pytest.mark.slow
def test_llvmpipe_on_a_narrow_processor_fits_no_target_and_the_cure_is_told(tmp_path: Path) -> None:
    made = plan("vulkan", tools(tmp_path, vulkan=dumps.llvmpipe(4)))
    assert made.target.arch == "vp_android_baseline_2022"
    (warning,) = made.warnings
    assert "it assumes subgroups of 64, the device has 4" in warning
    assert "LP_NATIVE_VECTOR_WIDTH=256" in warning


def test_a_device_without_a_target_of_its_own_gets_one_that_fits_and_it_is_said(
    tmp_path: Path,
) -> None:
    arc = dumps.vulkan("Intel Arc A770", vendor="0x8086", subgroup=(32, 8, 32))
    made = plan("vulkan", tools(tmp_path, vulkan=arc))
    assert made.target.arch == "valhall4"
    assert made.warnings == (
        "Intel Arc A770 has no compile target of its own that fits; valhall4 does",
    )


@pytest.mark.slow
def test_without_a_vulkan_device_it_compiles_for_the_default_and_says_so(tmp_path: Path) -> None:
    made = plan("vulkan", tools(tmp_path))
    assert made.flags[-1] == "--iree-vulkan-target=vp_android_baseline_2022"
    assert (made.device, made.why_not_run) == (None, "no Vulkan device")
    assert "mesa-vulkan-drivers" in made.advice
    assert "no Vulkan device to ask" in made.warnings[0]
    assert plan("vulkan:rdna3", tools(tmp_path)).warnings == ()


@pytest.mark.slow
def test_a_vulkan_device_below_the_runtimes_needs_is_compiled_for_and_not_run(
    tmp_path: Path,
) -> None:
    old = dumps.vulkan("AMD Radeon RX 7900 XTX", tier="unsupported")
    made = plan("vulkan", tools(tmp_path, vulkan=old))
    assert made.target.arch == "rdna3"
    assert made.device is None
    assert "lacks what the runtime needs: Vulkan API 1.3" in made.why_not_run


@pytest.mark.slow
def test_what_an_old_runtime_does_not_tell_is_asked_of_the_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = devices.parse_dump(RADEON.replace("minSubgroupSize=32", "minSubgroupSize=64"), "vulkan")
    monkeypatch.setattr(
        targets, "_installed_devices", lambda driver: devices.DevicesFound(devices=told)
    )
    silent = dumps.vulkan("AMD Radeon RX 7900 XTX", uri="vulkan://GPU-1", silent=True)
    made = plan("vulkan:rdna3", tools(tmp_path, vulkan=silent))
    assert made.device is not None
    assert "it assumes subgroups of 32 or 64, the device has 64" in made.warnings[0]


def test_a_device_that_an_old_runtime_hides_is_still_compiled_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = devices.parse_dump(dumps.llvmpipe(), "vulkan")
    monkeypatch.setattr(
        targets, "_installed_devices", lambda driver: devices.DevicesFound(devices=hidden)
    )
    made = plan("vulkan", tools(tmp_path, vulkan=""))
    assert made.target.arch == "llvmpipe"
    assert (made.device, made.why_not_run) == (None, "no Vulkan device for runtime 9.9.0")
    assert "llvmpipe" in made.advice


def test_hip_takes_the_architecture_of_the_gpu(tmp_path: Path) -> None:
    made = plan("hip", tools(tmp_path, hip=NAVI))
    assert made.flags == ("--iree-hal-target-device=hip", "--iree-rocm-target=gfx1100")
    assert made.device is not None
    assert made.device.uri == "hip://GPU-b"
    assert made.warnings == ()


@pytest.mark.slow
def test_hip_without_a_gpu_compiles_for_mi300_and_says_so(tmp_path: Path) -> None:
    made = plan("hip", tools(tmp_path))
    assert made.target.spec == "hip:gfx942"
    assert (made.device, made.why_not_run) == (None, "no HIP device")
    assert made.warnings == ("no HIP device to ask: compiling for gfx942",)
    assert plan("hip:gfx1100", tools(tmp_path)).warnings == ()


@pytest.mark.slow
def test_hip_takes_the_gpu_of_the_named_architecture(tmp_path: Path) -> None:
    chain = tools(tmp_path, hip=NAVI + MI300)
    for name in ("hip:gfx942", "hip:mi300x"):
        made = plan(name, chain)
        assert made.device is not None
        assert made.device.uri == "hip://GPU-a"


def test_hip_code_for_another_gpu_is_compiled_and_not_run(tmp_path: Path) -> None:
    made = plan("hip:gfx942", tools(tmp_path, hip=NAVI))
    assert (made.device, made.why_not_run) == (None, "no gfx942 HIP device, only gfx1100")
    assert made.advice == "Compile for what is there: hip:gfx1100."


@pytest.mark.slow
@pytest.mark.parametrize("listed", ["iree-rocm-target", "iree-hip-target"])
def test_hip_flags_are_those_that_the_release_lists(tmp_path: Path, listed: str) -> None:
    flags = ["compile-to", "iree-hal-target-device", listed]
    made = plan("hip:gfx942", tools(tmp_path, flags=flags))
    assert made.flags[-1] == f"--{listed}=gfx942"


def test_a_compiler_without_the_backend_is_told(tmp_path: Path) -> None:
    chain = tools(tmp_path, flags=["compile-to", "iree-hal-target-device"])
    for text in ("hip:gfx942", "cuda:sm_80", "metal"):
        with pytest.raises(
            EnvironmentFault,
            match=rf"9\.9\.0 cannot compile for {text.partition(':')[0]}: its help lists",
        ):
            plan(text, chain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "why", "known"),
    [
        ("vulkan:rdna9", "Unknown Vulkan target", "valhall4, vp_android_baseline_2022, llvmpipe,"),
        ("hip:gfx1", "Unknown ROCM target", "It knows gfx942, gfx1100, mi300x."),
        ("cuda:h100", "Unknown CUDA target", "It knows sm_80, sm_89, ampere, a100. PTX for an old"),
        ("cuda:sm_90", "missing GPU target in #hal.executable.target", "It knows sm_80, sm_89,"),
    ],
)
def test_an_architecture_that_the_compiler_does_not_know_is_refused_with_those_that_it_knows(
    tmp_path: Path, text: str, why: str, known: str
) -> None:
    message = f"iree-compile 9.9.0 does not know the target {text}: {why}"
    with pytest.raises(UsageError, match=message) as caught:
        plan(text, tools(tmp_path))
    assert known in caught.value.advice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        (
            ["--iree-hal-target-backends=rocm"],
            "Name an architecture: -t hip:ARCH, or --iree-rocm-target=ARCH; of gfx942, gfx1100, "
            "mi300x.",
        ),
        (["--iree-hal-target-device=a=cuda[0]"], "-t cuda:ARCH, or --iree-cuda-target=ARCH; of sm"),
        ([], ""),
    ],
)
def test_a_compile_that_lacks_an_architecture_is_told_those_that_the_compiler_knows(
    tmp_path: Path, flags: list[str], advice: str
) -> None:
    chain, cpu = tools(tmp_path), targets.parse("llvm-cpu")
    other = failure("'test.bad' op is not supported")
    for message in ("missing GPU target in #hal.executable.target", "ROCM target not set; did you"):
        for one in (failure(message), msgspec.structs.replace(other, also=(failure(message),))):
            told = targets.advice(one, cpu, flags, chain)
            assert advice in told and bool(advice) == bool(told)
    assert targets.advice(other, cpu, flags, chain) == ""
    assert targets.advice(None, cpu, flags, chain) == ""


@pytest.mark.slow
def test_cuda_without_a_gpu_compiles_for_a100_and_says_so(tmp_path: Path) -> None:
    made = plan("cuda", tools(tmp_path))
    assert made.flags == ("--iree-hal-target-device=cuda", "--iree-cuda-target=sm_80")
    assert (made.device, made.why_not_run) == (None, "no CUDA device")
    assert made.advice == "libcuda.so is not installed: an NVIDIA GPU needs its driver."
    assert made.warnings == ("no CUDA device to ask: compiling for sm_80",)
    assert plan("cuda:sm_89", tools(tmp_path)).warnings == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "flag", "uri"),
    [
        ("cuda", "sm_89", "cuda://GPU-c"),  # of sm_90 this compiler knows nothing
        ("cuda:a100", "a100", "cuda://GPU-c"),
        ("cuda:sm_80", "sm_80", "cuda://GPU-c"),
    ],
)
def test_cuda_code_runs_on_its_gpu_and_on_newer_ones(
    tmp_path: Path, text: str, flag: str, uri: str
) -> None:
    made = plan(text, tools(tmp_path, cuda=H100 + A100))
    assert made.flags[-1] == f"--iree-cuda-target={flag}"
    assert made.device is not None
    assert (made.device.uri, made.warnings) == (uri, ())


@pytest.mark.slow
def test_cuda_code_for_a_newer_gpu_is_compiled_and_not_run(tmp_path: Path) -> None:
    made = plan("cuda:sm_89", tools(tmp_path, cuda=A100))
    assert (made.device, made.why_not_run) == (None, "no sm_89 CUDA device, only sm_80")
    assert made.advice == "Compile for what is there: cuda:sm_80."
    both = plan("cuda:sm_89", tools(tmp_path / "both", cuda=A100 + H100))
    assert both.device is not None
    assert both.device.uri == "cuda://GPU-c"


@pytest.mark.slow
def test_metal_compiles_for_macos_or_another_platform(tmp_path: Path) -> None:
    made = plan("metal", tools(tmp_path))
    assert made.target == Target(spec="metal:macos", backend="metal", arch="macos")
    assert made.flags == ("--iree-hal-target-device=metal", "--iree-metal-target-platform=macos")
    assert (made.device, made.why_not_run, made.warnings) == (None, "no Metal device", ())
    assert plan("metal:ios", tools(tmp_path)).flags[-1] == "--iree-metal-target-platform=ios"


@pytest.mark.slow
def test_the_users_flags_count_as_named_and_are_not_repeated(tmp_path: Path) -> None:
    chain = tools(tmp_path, vulkan=dumps.llvmpipe())
    made = plan("vulkan", chain, user_flags=["--iree-vulkan-target=ampere", "--other"])
    assert made.flags == ("--iree-hal-target-device=vulkan",)
    assert made.target.arch == "ampere"
    assert "vulkan:ampere does not fit" in made.warnings[0]


@pytest.mark.slow
def test_other_backends_are_reached_by_the_users_own_flags(tmp_path: Path) -> None:
    made = plan("llvm-cpu", tools(tmp_path), user_flags=["--iree-hal-target-device=webgpu"])
    assert (made.flags, made.device, made.why_not_run) == ((), None, "no webgpu device")
    rocm = plan("llvm-cpu", tools(tmp_path), user_flags=["--iree-hal-target-backends=rocm"])
    assert (rocm.flags, rocm.device, rocm.why_not_run) == ((), None, "no HIP device")
    local = plan("llvm-cpu", tools(tmp_path), user_flags=["--iree-hal-target-backends=vmvx"])
    assert local.device is not None
    assert local.device.uri == "local-task"


class TestSeveralDevices:
    """A program names its devices by flags, one for each; those are not ours to swallow."""

    def test_our_own_flags_are_kept_and_each_device_is_given(self, tmp_path: Path) -> None:
        named = [f"--iree-hal-target-device=device_{x}=local[{i}]" for i, x in enumerate("ab")]
        made = plan("llvm-cpu:generic", tools(tmp_path), user_flags=named)
        assert made.flags == (
            "--iree-hal-local-target-device-backends=llvm-cpu",
            "--iree-llvmcpu-target-cpu=generic",
        )
        assert made.device is not None
        assert made.device.uri == "local-task,local-task"
        assert devices.options(made.device.uri) == ("--device=local-task", "--device=local-task")

    def test_one_without_an_ordinal_is_the_first_of_its_kind(self, tmp_path: Path) -> None:
        named = [f"--iree-hal-target-device={x}=local" for x in "ab"]
        made = plan("llvm-cpu", tools(tmp_path), user_flags=named)
        assert made.device is not None
        assert made.device.uri == "local-task"

    def test_other_gpus_come_before_the_same_again(self, tmp_path: Path) -> None:
        named = [f"--iree-hal-target-device=d{i}=vulkan[{i}]" for i in range(3)]
        chain = tools(tmp_path, vulkan=RADEON + dumps.llvmpipe())
        made = plan("vulkan:rdna3", chain, user_flags=named)
        assert made.device is not None
        gpu, software, again = made.device.uri.split(",")
        assert gpu == again != software
        assert made.device.name.startswith("2 x ")

    @pytest.mark.slow
    def test_kinds_may_be_mixed(self, tmp_path: Path) -> None:
        named = ["--iree-hal-target-device=a=vulkan", "--iree-hal-target-device=b=local[1]"]
        made = plan("llvm-cpu", tools(tmp_path, vulkan=dumps.llvmpipe()), user_flags=named)
        assert "--iree-vulkan-target=llvmpipe" in made.flags
        assert "--iree-hal-local-target-device-backends=llvm-cpu" in made.flags
        assert made.device is not None
        assert [u.partition(":")[0] for u in made.device.uri.split(",")] == [
            "vulkan",
            "local-task",
            "local-task",
        ]

    def test_the_users_own_list_is_taken_as_it_is(self, tmp_path: Path) -> None:
        named = [f"--iree-hal-target-device=d{i}=local[{i}]" for i in range(2)]
        both = "local-sync,local-task"
        made = plan("llvm-cpu", tools(tmp_path), both, user_flags=named)
        assert made.device is not None
        assert made.device.uri == both

    def test_where_one_kind_lacks_it_is_compiled_only(self, tmp_path: Path) -> None:
        named = ["--iree-hal-target-device=a=local", "--iree-hal-target-device=b=hip"]
        made = plan("llvm-cpu", tools(tmp_path), user_flags=named)
        assert made.device is None
        assert "HIP" in made.why_not_run


@pytest.mark.slow
def test_a_plan_is_what_json_says(tmp_path: Path) -> None:
    made = plan("vulkan", tools(tmp_path, vulkan=dumps.llvmpipe()))
    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


@pytest.mark.real
@pytest.mark.parametrize(
    "text",
    [
        *targets.BACKENDS,
        *("llvm-cpu:generic", "vulkan:rdna3", "hip:gfx942"),
        *("cuda:sm_80", "cuda:rtx4090", "metal:ios"),
    ],
)
def test_the_installed_compiler_takes_the_flags(text: str, tmp_path: Path) -> None:
    here = toolchain.installed()
    program = tmp_path / "add.mlir"
    program.write_text(
        "func.func @add(%a: tensor<4xf32>) -> tensor<4xf32> {\n"
        "  %0 = arith.addf %a, %a : tensor<4xf32>\n  return %0 : tensor<4xf32>\n}\n"
    )
    made = plan(text, here)
    done = toolchain.ask([here.compiler, program, *made.flags, "-o", tmp_path / "add.vmfb"])
    assert done.ok, done.stderr
    assert "warning" not in done.stderr
    assert (made.device is None) == bool(made.why_not_run)


@pytest.mark.real
@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("llvm-cpu:znver44", "Did you mean znver"),
        ("vulkan:nosuch", "It knows valhall4, adreno, videocore_vii, "),
        ("hip:nosuch", "It knows gfx942, gfx950, "),
        ("cuda:nosuch", "It knows sm_60, "),
        ("metal:nosuch", "It knows macos, ios, ios-simulator."),
    ],
)
def test_the_installed_compilers_refusal_is_understood(text: str, known: str) -> None:
    with pytest.raises(UsageError, match=f"does not know the target {text}") as caught:
        plan(text, toolchain.installed())
    assert known in caught.value.advice


@pytest.mark.real
def test_the_installed_compiler_knows_what_is_offered() -> None:
    here = toolchain.installed()
    unknown = {
        f"{backend.name}:{arch}"
        for backend in targets.BACKENDS.values()
        for arch in backend.architectures
        if backend.probe(arch, here).rejected
    }
    assert unknown == {f"cuda:sm_{number}" for number in (90, 100, 103, 110)}
