"""A worker does one case in a process of its own, and whatever happens there is an outcome."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest
from fake.disk import tiny_disk
from fake.jobs import case

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.failures.diagnostics import PASSING, Failure
from iree_pilot.pipeline.nightly.cases import keys
from iree_pilot.pipeline.nightly.cases.keys import Keys
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome
from iree_pilot.pipeline.nightly.workers import worker
from iree_pilot.pipeline.nightly.workers.orders import Order
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.targets.devices import Device
from iree_pilot.pipeline.toolchain import releases

ADD = """\
func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %0 = arith.addf %a, %a : tensor<4xf32>
  return %0 : tensor<4xf32>
}
"""
BROKEN = ADD.replace("arith.addf", "arith.no_such_op")
HOST = socket.gethostname()
PROCESSOR = Device(uri="local-task", driver="local-task", name="a processor", fingerprint="p")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "add.mlir").write_text(ADD)
    (tmp_path / "broken.mlir").write_text(BROKEN)
    return tmp_path


def order(one: Case, directory: Path, what: str = "case", **more: object) -> Order:
    return Order(what=what, case=one, directory=str(directory), **more)  # type: ignore[arg-type]


@pytest.mark.real
class TestACase:
    def test_its_outcome_has_result_key_metrics_and_machine(self, directory: Path) -> None:
        done = worker.employ(order(case("add.mlir"), directory))
        assert done.status == "ok"
        assert done.metrics["module_bytes"] > 0 and done.metrics["latency_seconds"] > 0
        assert done.machine.endswith(f"{len(os.sched_getaffinity(0))} cores")
        assert done.seconds > 0 and done.peak_bytes > 0 and done.worker and done.begun

    def test_its_key_is_found_without_running_it(self, directory: Path) -> None:
        one = case("add.mlir")
        assert Keys(directory).key(one) == ""
        done = worker.employ(order(one, directory))
        assert Keys(directory).key(one) == done.key != ""
        again = worker.employ(order(one, directory, known=(done.key,)))
        assert (again.reused, again.result, again.key) == (True, None, done.key)
        fresh = worker.employ(order(one, directory, known=(done.key,), fresh=True))
        assert fresh.result is not None
        assert not any(step.cached for step in fresh.result.steps if step.name == "compile")

    def test_its_key_changes_with_what_decides_its_result(self, directory: Path) -> None:
        one = case("add.mlir")
        worker.employ(order(one, directory, "trace"))
        found = {
            Keys(directory).key(one),
            Keys(directory).key(msgspec.structs.replace(one, target="vulkan")),
            Keys(directory).key(msgspec.structs.replace(one, flags=("--iree-opt-level=O3",))),
        }
        assert len(found) == 3 and "" not in found
        same = msgspec.structs.replace(one, tags=("t",), time_limit=1.0, memory_limit=1)
        assert Keys(directory).key(same) in found
        (directory / "add.mlir").write_text(ADD.replace("addf", "mulf"))
        assert Keys(directory).key(one) == ""
        worker.employ(order(one, directory, "trace"))
        assert Keys(directory).key(one) not in found

    def test_repeats_are_attempts(self, directory: Path) -> None:
        done = worker.employ(order(case("add.mlir", repeats=2), directory))
        assert done.attempts == ("ok", "ok")

    def test_a_directory_that_is_not_there_is_told_by_the_file(self, directory: Path) -> None:
        done = worker.employ(order(case("add.mlir"), directory / "not here"))
        assert (done.status, done.result) == ("not-run", None)
        assert "no file add.mlir" in done.why

    def test_what_cannot_be_read_is_told(self, directory: Path) -> None:
        done = worker.employ(order(case("broken.mlir"), directory, "trace"))
        assert (done.status, done.result) == ("not-run", None)
        assert "no_such_op" in done.why

    def test_an_unknown_release_is_told(self, directory: Path) -> None:
        done = worker.employ(order(case("add.mlir", release="./build"), directory))
        assert (done.status, done.result) == ("not-run", None)
        assert "no iree-compile in build" in done.why


@pytest.mark.real
def test_a_program_goes_to_a_machine_with_another_store(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, parcel = case("add.mlir"), str(tmp_path / "program.tar")
    worker.employ(order(one, directory, "trace", parcel=parcel))
    monkeypatch.setenv("IREE_PILOT_CACHE", str(tmp_path / "other cache"))
    assert Keys(directory).program(one) is None
    done = worker.employ(order(one, directory, parcel=parcel))
    assert done.result is not None
    assert [step.cached for step in done.result.steps if step.name == "trace"] == [True]


class TestWhatGoesWrong:
    def test_a_worker_that_dies_is_an_outcome(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.executable", "/bin/false")
        done = worker.employ(order(case("add.mlir"), directory))
        assert (done.result, done.why) == (None, "its worker ended with exit status 1")

    def test_a_worker_that_hangs_is_killed(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = directory / "hang"
        program.write_text("#!/bin/sh\nexec tail -f /dev/null\n")
        program.chmod(0o755)
        monkeypatch.setattr("sys.executable", str(program))
        done = worker.employ(order(case("add.mlir", time_limit=0.01), directory))
        assert done.why == "its worker ended with SIGKILL at its time-limit"

    @pytest.mark.parametrize(
        ("fault", "why"),
        [
            (UsageError("no such thing", advice="Mend it."), "no such thing. Mend it."),
            (EnvironmentFault("no compiler"), "no compiler."),
            (OSError(13, "Permission denied", "/x"), "Permission denied (/x)"),
            (KeyError("oops"), "a bug of iree-pilot: KeyError: 'oops' (test_worker.py:"),
        ],
    )
    def test_any_error_is_an_outcome(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, why: str
    ) -> None:
        def fail(order: Order) -> CaseOutcome:
            raise fault

        monkeypatch.setattr(worker, "_case", fail)
        done = worker.do(order(case("add.mlir"), directory))
        assert done.result is None
        assert done.why.startswith(why)
        assert done.worker and done.machine

    @pytest.mark.real
    def test_a_full_disk_is_no_outcome_of_a_case(
        self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with tiny_disk(tmp_path / "disk", 64 * 1024) as disk:
            (disk / "filled").write_bytes(bytes(40 * 1024))
            monkeypatch.setenv("IREE_PILOT_CACHE", str(disk / "cache"))
            with pytest.raises(EnvironmentFault, match="No space left on device") as told:
                worker.employ(order(case("add.mlir"), directory))
        assert "Free some space" in told.value.advice

    def test_latest_is_the_newest_that_can_be_had(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(releases, "available", lambda: ["9.1.0", "9.0.0"])
        assert keys.released("latest") == "9.1.0"
        assert keys.released("installed") == "installed"
        monkeypatch.setattr(releases, "available", list)
        with pytest.raises(EnvironmentFault, match="latest release"):
            keys.released("latest")

    @pytest.mark.parametrize("kind", ["crash", *PASSING])
    def test_what_a_limit_decided_does_not_last(self, kind: str) -> None:
        failure = Failure(kind=kind, message="m", signature="s")  # type: ignore[arg-type]
        from fake.jobs import outcome

        done = outcome(Order(what="case", case=case("x"), directory="/"))
        assert done.result is not None
        failed = msgspec.structs.replace(done.result, status="failed", failure=failure)
        assert keys.lasting(done)
        lasting = keys.lasting(msgspec.structs.replace(done, result=failed))
        assert lasting == (kind == "crash")


class TestDevices:
    def test_the_processor_is_one_device_however_it_is_reached(self, cache: Path) -> None:
        llvmpipe = Device(
            uri="vulkan://0", driver="vulkan", name="", fingerprint="", properties={"type": "cpu"}
        )
        locks = Locks(cache / "nightly" / ".devices")
        for device in (PROCESSOR, llvmpipe):
            with worker.alone(device), locks.try_hold(f"{HOST}/processor") as free:
                assert not free
        with locks.try_hold(f"{HOST}/processor") as free:
            assert free

    def test_a_gpu_is_held_beside_the_processor(self, cache: Path) -> None:
        gpu = Device(uri="hip://0?x=1", driver="hip", name="", fingerprint="")
        locks = Locks(cache / "nightly" / ".devices")
        with worker.alone(gpu), worker.alone(PROCESSOR), locks.try_hold(f"{HOST}/hip://0") as free:
            assert not free

    def test_a_gpu_is_part_of_the_class_of_a_machine(self) -> None:
        gpu = Device(uri="hip://0", driver="hip", name="MI300X", fingerprint="f")
        assert worker.machine(gpu) == f"{worker.machine()} | MI300X"
        assert worker.machine(PROCESSOR) == worker.machine()
