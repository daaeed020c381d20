"""Devices are told apart, described and named as the runtime tells of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake import dumps, stub_release, stub_toolchain

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.targets import devices, discovery
from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.pipeline.targets.devices import DevicesFound
from iree_pilot.pipeline.toolchain import toolchain

TWO = dumps.llvmpipe() + dumps.vulkan("AMD Radeon RX 7900 XTX (RADV NAVI31)", uri="vulkan://GPU-1")


def test_a_vulkan_device_is_described_in_the_runtimes_own_words() -> None:
    (device,) = devices.parse_dump(dumps.llvmpipe(), "vulkan")
    assert device.uri == "vulkan://GPU-6d65736132352e302e372d327e627000"
    assert device.name == "llvmpipe (LLVM 15.0.6, 256 bits)"
    assert device.properties["subgroup.size"] == "8"
    assert device.properties["features.shaderFloat16"] == "yes"
    assert device.properties["features.cooperativeMatrix"] == "no"
    assert device.properties["driver_info"] == "Mesa 25.0.7"
    assert not any("VK_KHR" in key for key in device.properties)


def test_an_older_runtime_tells_only_the_name() -> None:
    (device,) = devices.parse_dump(dumps.vulkan("NVIDIA A100", silent=True), "vulkan")
    assert (device.name, device.properties) == ("NVIDIA A100", {})


def test_a_hip_device_has_its_architecture() -> None:
    (device,) = devices.parse_dump(dumps.hip("AMD Instinct MI300X", "gfx942:sramecc+"), "hip")
    assert device.name == "AMD Instinct MI300X"
    assert device.properties["gpu-arch-name"] == "gfx942:sramecc+"
    assert "gfx942" in device.fingerprint


def test_the_fingerprint_changes_with_the_drivers_version() -> None:
    (old,) = devices.parse_dump(dumps.llvmpipe(), "vulkan")
    (new,) = devices.parse_dump(dumps.llvmpipe().replace("25.0.7", "25.1.0"), "vulkan")
    assert old.fingerprint != new.fingerprint


def test_nothing_listed_is_no_device() -> None:
    assert devices.parse_dump("# Enumerated devices for driver 'vulkan'\n\n", "vulkan") == ()


def test_gpus_are_preferred_and_unusable_devices_come_last() -> None:
    old = dumps.vulkan("Old GPU", uri="vulkan://GPU-2", tier="unsupported")
    found = DevicesFound(devices=devices.parse_dump(old + TWO, "vulkan"))
    assert [d.name[:8] for d in found.devices] == ["Old GPU", "llvmpipe", "AMD Rade"]
    assert [d.name[:8] for d in devices.by_preference(found)] == ["AMD Rade", "llvmpipe", "Old GPU"]


def test_an_unusable_device_says_what_it_lacks() -> None:
    (old,) = devices.parse_dump(dumps.vulkan("Old GPU", tier="unsupported"), "vulkan")
    assert old.unusable == (
        "Old GPU lacks what the runtime needs: Vulkan API 1.3; timelineSemaphore"
    )


@pytest.mark.parametrize(
    ("uri", "picked"),
    [
        ("vulkan", "vulkan://GPU-6d65736132352e302e372d327e627000"),
        ("vulkan://", "vulkan://GPU-6d65736132352e302e372d327e627000"),
        ("vulkan://1", "vulkan://GPU-1"),
        ("vulkan://GPU-1", "vulkan://GPU-1"),
        ("vulkan://GPU-1?queues=2", "vulkan://GPU-1?queues=2"),
    ],
)
def test_a_device_is_picked_as_the_runtime_names_it(uri: str, picked: str) -> None:
    found = DevicesFound(devices=devices.parse_dump(TWO, "vulkan"))
    assert devices.pick(uri, found).uri == picked


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    found = DevicesFound(devices=devices.parse_dump(TWO, "vulkan"))
    with pytest.raises(UsageError, match="there is no device vulkan://7") as caught:
        devices.pick("vulkan://7", found)
    assert "vulkan://GPU-1" in caught.value.advice
    with pytest.raises(EnvironmentFault, match="no device hip://0: no HIP device"):
        devices.pick("hip://0", DevicesFound(why="no HIP device"))


@pytest.mark.slow
def test_a_driver_is_asked_once(tmp_path: Path) -> None:
    tools = stub_toolchain(tmp_path, devices={"vulkan": {"stdout": TWO}})
    first = discovery.find("vulkan", tools)
    assert len(first.devices) == 2
    stub_release(tmp_path, devices={})
    assert discovery.find("vulkan", tools) is first


@pytest.mark.parametrize(
    ("driver", "stderr", "why", "advice"),
    [
        ("hip", dumps.NO_HIP, "no HIP device", "libamdhip64.so is not installed"),
        ("cuda", dumps.NO_CUDA, "no CUDA device", "libcuda.so is not installed"),
        ("vulkan", dumps.NO_VULKAN_DRIVER, "no Vulkan device", "apt-get install mesa-vulkan-dr"),
        (
            "vulkan",
            "c/libvulkan.c:600: UNAVAILABLE; Vulkan not found\n  Tried: libvulkan.so.1\n",
            "no Vulkan device",
            "The Vulkan loader is not installed",
        ),
        (
            "metal",
            "c/driver_registry.c:319: NOT_FOUND; no driver 'metal' registered\n",
            "no Metal device",
            "This runtime is built without the metal driver",
        ),
    ],
)
def test_why_there_is_no_device_and_what_to_do(
    tmp_path: Path, driver: str, stderr: str, why: str, advice: str
) -> None:
    tools = stub_toolchain(tmp_path, devices={driver: {"stderr": stderr, "status": 1}})
    found = discovery.find(driver, tools)
    assert (found.devices, found.why) == ((), why)
    assert advice in found.advice


def test_a_compiler_without_its_runtime_has_no_devices_but_the_processor(tmp_path: Path) -> None:
    stub_release(tmp_path)
    (tmp_path / "iree/_runtime_libs/iree-run-module").unlink()
    tools = toolchain.from_directory(tmp_path)
    assert discovery.find("vulkan", tools).why == "no IREE runtime for compiler 9.9.0"


def test_the_processor_needs_no_asking(tmp_path: Path) -> None:
    tools = stub_toolchain(tmp_path)
    (device,) = discovery.find("local-task", tools).devices
    assert (device.uri, device.driver) == ("local-task", "local-task")
    assert device.name
    assert device.fingerprint == discovery.find("local-sync", tools).devices[0].fingerprint


@pytest.mark.real
def test_the_installed_runtime_answers_for_each_driver() -> None:
    here = toolchain.installed()
    for backend in BACKENDS.values():
        driver = backend.drivers[0]
        found = discovery.find(driver, here)
        if found.devices:
            scheme = driver if backend.on_host else f"{driver}://"
            assert all(d.uri.startswith(scheme) and d.name for d in found.devices)
        else:
            assert found.why == f"no {backend.title} device"
            assert found.advice
