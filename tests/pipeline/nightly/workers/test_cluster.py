"""A night on a cluster: a scheduler and workers as processes of their own, on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake import jobs
from fake.jobs import Heard, case, jobs_of, marks
from fake.processes import alive, wait_until
from places import ROOT, TESTS

from iree_pilot.pipeline import extras
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.nightly.history.history import Usual
from iree_pilot.pipeline.nightly.records import CaseOutcome
from iree_pilot.pipeline.nightly.workers.cluster import Cluster, needs, resource
from iree_pilot.pipeline.nightly.workers.orders import Order
from iree_pilot.pipeline.targets import targets


@contextlib.contextmanager
def running(place: Path, workers: dict[str, str]) -> Iterator[Dask]:
    """A scheduler, and a worker for each name with these resources."""
    with contextlib.ExitStack() as stack:
        dask = Dask(place, stack)
        for name, resources in workers.items():
            dask.worker(name, resources)
        if workers:
            dask.wait_for(len(workers))
        yield dask


class Dask:
    """The processes of a cluster."""

    def __init__(self, place: Path, stack: contextlib.ExitStack) -> None:
        self._place, self._stack = place, stack
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        file = place / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)
        )
        wait_until(lambda: file.exists() and file.read_text().strip().endswith("}"))
        self.address: str = json.loads(file.read_text())["address"]

    def worker(self, name: str, resources: str = "", *, code: Path = ROOT) -> None:
        offers = ["--resources", resources] if resources else []
        self.workers[name] = self._start(
            "worker", self.address, "--name", name, "--no-nanny", "--nthreads", "1",
            "--no-dashboard", *offers, code=code,
        )  # fmt: skip

    def wait_for(self, count: int) -> None:
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=60)

    def _start(self, what: str, *arguments: str, code: Path = ROOT) -> subprocess.Popen[bytes]:
        env = os.environ | {"PYTHONPATH": f"{code}{os.pathsep}{TESTS}"}
        log = (self._place / f"{what}-{len(self.workers)}.log").open("wb")
        argv = [sys.executable, "-P", "-m", f"distributed.cli.dask_{what}", *arguments]
        started = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd=self._place)
        self._stack.callback(started.wait)
        self._stack.callback(started.kill)
        log.close()
        return started


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    """A cluster that all tests here may use but not damage."""
    with running(tmp_path_factory.mktemp("dask"), {"one": "vulkan=1", "two": ""}) as cluster:
        yield cluster


class TestWhenAWorkerDies:
    @pytest.mark.slow
    def test_each_case_has_one_result_from_a_worker_that_has_its_device(
        self, tmp_path: Path
    ) -> None:
        offers = {"a": {"vulkan"}, "b": {"vulkan", "hip-gfx942"}, "c": {"hip-gfx942"}}
        given = {name: ",".join(f"{r}=1" for r in sorted(offer)) for name, offer in offers.items()}
        sources = [f"model{n}" for n in range(4)]
        cases = [case(s, t) for s in sources for t in ("llvm-cpu", "vulkan", "hip:gfx942")]
        killed: list[str] = []
        with running(tmp_path, given) as dask:

            def kill_the_one_that_waits(outcome: CaseOutcome) -> None:
                waiting = {pid for pid, name in marks(tmp_path) if name.startswith("once")}
                for name, worker in dask.workers.items():
                    if worker.pid in waiting and not killed:
                        os.kill(worker.pid, signal.SIGKILL)
                        killed.append(name)

            heard = Heard(kill_the_one_that_waits)
            cases.insert(0, case("once", "vulkan"))
            Cluster(dask.address, employ=jobs.light).run(
                jobs_of(cases, tmp_path, traced=False), heard
            )
        assert sorted(heard.names) == sorted(c.name for c in cases)
        assert {o.status for o in heard.outcomes} == {"ok"}
        assert len(killed) == 1
        started = [name for _, name in marks(tmp_path)]
        assert started.count(cases[0].name) == 2
        for one, outcome in ((c, o) for c in cases for o in heard.outcomes if o.case == c.name):
            device = {"llvm-cpu": None, "vulkan": "vulkan", "hip:gfx942": "hip-gfx942"}[one.target]
            assert device is None or device in offers[outcome.worker]

    @pytest.mark.slow
    def test_a_job_is_given_up_when_its_device_stays_away(self, tmp_path: Path) -> None:
        with running(tmp_path, {"gpu": "vulkan=1", "other": ""}) as dask:

            class Killing(Heard):
                def began(self, order: Order, worker: str) -> None:
                    dask.workers[worker].kill()

            heard = Killing()
            cases = [case("once", "vulkan"), case("more", "vulkan")]
            Cluster(dask.address, employ=jobs.light, patience=0).run(
                jobs_of(cases, tmp_path), heard
            )
        assert [(o.case, o.why) for o in heard.outcomes] == [
            (c.name, "no worker with vulkan is left") for c in cases
        ]
        assert heard.texts == ["no worker with vulkan is left: waiting 0 s for one"]


class TestWhatGoesBetweenWorkers:
    @pytest.mark.slow
    def test_a_program_is_traced_once_and_sent_to_its_cases(
        self, dask: Dask, tmp_path: Path
    ) -> None:
        cases = [case(s, t) for s in ("x", "y") for t in ("llvm-cpu", "vulkan")]
        heard = Heard()
        Cluster(dask.address, employ=jobs.posted).run(jobs_of(cases, tmp_path, traced=False), heard)
        assert len(heard.traces) == 2
        assert {o.case: o.result and o.result.why for o in heard.outcomes} == {
            c.name: f"the program of {c.source}" for c in cases
        }
        traced = [o.case for o in heard.outcomes if "trace_seconds" in o.metrics]
        assert sorted(traced) == sorted(c.name for c in cases if c.target == "llvm-cpu")

    def test_a_trace_that_fails_is_the_outcome_of_all_its_cases(
        self, dask: Dask, tmp_path: Path
    ) -> None:
        cases = [case(s, t) for s in ("bad", "good") for t in ("llvm-cpu", "vulkan")]
        heard = Heard()
        Cluster(dask.address, employ=jobs.light).run(jobs_of(cases, tmp_path, traced=False), heard)
        started = [name for _, name in marks(tmp_path)]
        assert not [name for name in started if name.startswith("bad")]
        failed = {o.case: o.result for o in heard.outcomes if o.status == "failed"}
        assert sorted(failed) == ["bad | llvm-cpu | installed", "bad | vulkan | installed"]
        assert {r.target for r in failed.values() if r} == {"llvm-cpu", "vulkan"}

    def test_a_target_without_a_device_is_told_and_done_anywhere(
        self, dask: Dask, tmp_path: Path
    ) -> None:
        heard = Heard()
        Cluster(dask.address, employ=jobs.light).run(
            jobs_of([case("x", "hip:gfx942")], tmp_path), heard
        )
        assert heard.names == ["x | hip:gfx942 | installed"]
        assert ["hip-gfx942=1" in text for text in heard.texts] == [True]


class TestWhatEndsEarly:
    def test_what_the_watcher_raises_ends_the_jobs_on_the_workers(
        self, dask: Dask, tmp_path: Path
    ) -> None:
        class Failing(Heard):
            def began(self, order: Order, worker: str) -> None:
                super().began(order, worker)
                wait_until(lambda: file.exists() and file.read_text() != "")
                raise OSError("the disk is full")

        file, failing = tmp_path / "pid", Failing()
        with pytest.raises(OSError, match="the disk is full"):
            Cluster(dask.address, employ=jobs.hanging).run(
                jobs_of([case("x", "vulkan")], tmp_path), failing
            )
        assert failing.began_at == [("x | vulkan | installed", "one")]
        wait_until(lambda: not alive(int(file.read_text())))
        heard = Heard()
        Cluster(dask.address, employ=jobs.light).run(jobs_of([case("y")], tmp_path), heard)
        assert heard.names == ["y | llvm-cpu | installed"]

    @pytest.mark.slow
    def test_a_scheduler_that_goes_away_is_told(self, tmp_path: Path) -> None:
        with running(tmp_path, {"one": ""}) as dask:

            class Killing(Heard):
                def began(self, order: Order, worker: str) -> None:
                    dask.scheduler.kill()

            with pytest.raises(EnvironmentFault, match="gone away with 1 job") as told:
                Cluster(dask.address, employ=jobs.hanging).run(
                    jobs_of([case("x")], tmp_path), Killing()
                )
        assert "resumes where it stopped" in told.value.advice


class TestWhoWorks:
    @pytest.mark.slow
    def test_a_worker_of_another_iree_pilot_gets_no_jobs_and_is_told(self, tmp_path: Path) -> None:
        other = tmp_path / "other"  # the links to the rooms become the rooms themselves
        shutil.copytree(ROOT / "iree_pilot", other / "iree_pilot")
        with (other / "iree_pilot" / "pipeline" / "case.py").open("a") as code:
            code.write("# another version\n")
        with running(tmp_path, {"own": "", "own too": ""}) as dask:
            dask.worker("other", code=other)
            dask.wait_for(3)
            heard = Heard()
            cases = [case(f"model{n}") for n in range(6)]
            Cluster(dask.address, employ=jobs.light).run(jobs_of(cases, tmp_path), heard)
        assert len(heard.outcomes) == 6
        assert {o.worker for o in heard.outcomes} <= {"own", "own too"}
        assert ["worker other" in text for text in heard.texts] == [True]

    def test_a_scheduler_without_workers_is_told(self, tmp_path: Path) -> None:
        with running(tmp_path, {}) as dask, pytest.raises(EnvironmentFault) as told:
            Cluster(dask.address).run(jobs_of([case("x")], tmp_path), Heard())
        assert "has no workers" in told.value.message
        assert f"dask worker {dask.address}" in told.value.advice

    @pytest.mark.parametrize("address", ["not an address", "host", "tcp://host", "zzz://host:1"])
    def test_what_is_no_address_is_refused_before_a_job_is_given(self, address: str) -> None:
        with pytest.raises(UsageError, match="is no address of a scheduler"):
            Cluster(address)

    @pytest.mark.slow
    def test_a_scheduler_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentFault, match="no scheduler answers") as told:
            Cluster("tcp://127.0.0.1:1", connect_seconds=0.5).run(
                jobs_of([case("x")], tmp_path), Heard()
            )
        assert "dask scheduler" in told.value.advice

    def test_a_missing_dask_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "distributed", None)
        with pytest.raises(EnvironmentFault, match="not installed") as told:
            Cluster("tcp://host:8786")
        assert extras.install("distributed") in told.value.advice


@pytest.mark.parametrize(
    ("target", "offered", "expected"),
    [
        ("vulkan", ["vulkan"], "vulkan"),
        ("vulkan:rdna3", ["vulkan", "vulkan-rdna3"], "vulkan-rdna3"),
        ("vulkan:rdna3", ["vulkan"], "vulkan"),
        ("hip", ["hip-gfx1100", "hip-gfx942"], "hip-gfx1100"),
        ("hip:gfx942", ["hip-gfx1100"], None),
        ("llvm-cpu", ["vulkan"], None),
    ],
)
def test_a_targets_device_is_found_among_the_resources(
    target: str, offered: list[str], expected: str | None
) -> None:
    assert resource(targets.parse(target), offered) == expected


@pytest.mark.parametrize(
    ("device", "offers", "expected"),
    [
        ("", [{}], {}),
        ("vulkan", [{"vulkan": 1}, {}], {"vulkan": 1}),
        ("", [{"memory": 1000}, {"memory": 2000}], {"memory": 600}),
        ("hip", [{"memory": 500, "hip": 1}], {"memory": 500, "hip": 1}),
        ("", [{"memory": 1000}, {}], {}),
    ],
)
def test_a_job_takes_its_device_and_the_memory_that_it_needs(
    tmp_path: Path, device: str, offers: list[dict[str, float]], expected: dict[str, float]
) -> None:
    usual = {"a | llvm-cpu | installed": Usual(seconds=1.0, peak_bytes=600)}
    (job,) = jobs_of([case("a")], tmp_path, usual=usual)
    assert needs(job, device, offers) == expected
