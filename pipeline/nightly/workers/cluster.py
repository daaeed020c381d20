"""Runs a night's jobs on a dask.distributed cluster: each where its device is, traces once.

The cluster's own graph does the work: a case depends on its program's trace, whose result is the
traced program itself, so that workers need not share a disk. Devices are resources of workers:

    dask worker tcp://HOST:8786 --nthreads 1 --resources "vulkan=1"
    dask worker tcp://HOST:8786 --nthreads 1 --resources "hip-gfx942=1"
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import msgspec

from iree_pilot.pipeline import extras
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.nightly.records import CaseOutcome
from iree_pilot.pipeline.nightly.workers import remote, worker
from iree_pilot.pipeline.nightly.workers.orders import JobWatcher, NightJob
from iree_pilot.pipeline.nightly.workers.remote import Employ
from iree_pilot.pipeline.targets import targets

if TYPE_CHECKING:
    from distributed import Client, Future

_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 2.0
#: Time that jobs wait for a worker that can do them.
_PATIENCE_SECONDS = 600.0
#: A resource of workers, in bytes.
_MEMORY = "memory"


class Cluster:
    """A scheduler at `address` (`tcp://HOST:8786`).

    A job whose worker dies is done by another one, up to dask's `allowed-failures` (3) times; what
    a job returns is counted once, however often it was started. Workers of another iree-pilot get
    no jobs. patience: seconds until a job is given up whose device has left with its last worker.
    Raises UsageError for what is no address, EnvironmentFault where dask is not installed.
    """

    here = False

    def __init__(
        self,
        address: str,
        *,
        employ: Employ = worker.employ,
        connect_seconds: float = _CONNECT_SECONDS,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        _check(address)
        self.address = address
        self._employ = employ
        self._connect_seconds = connect_seconds
        self._patience = patience

    def run(self, jobs: Sequence[NightJob], watcher: JobWatcher) -> None:
        """See `Scheduler.run`. Ctrl-C and what a watcher raises end the jobs on all workers.

        Raises EnvironmentFault where no scheduler answers, it has no worker of this iree-pilot, or
        it goes away: what is not done then can be done by another night.
        """
        with self._connected() as client:
            offered = self._workers(client, watcher)
            night = _Night(client, self.address, offered, self._employ, self._patience)
            try:
                night.submit(jobs, watcher)
                night.collect(watcher)
            finally:
                night.end()

    def _connected(self) -> Client:
        from distributed import Client

        # What it would write of a lost connection is in our own errors.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        try:
            return Client(self.address, timeout=self._connect_seconds, set_as_default=False)
        except OSError as fault:
            why = str(fault).strip().splitlines()[:1] or ["it does not answer"]
            raise EnvironmentFault(
                f"no scheduler answers at {self.address}: {why[0]}",
                advice="Start one (`dask scheduler`) and name the address that it prints, such as "
                "tcp://HOST:8786; without --scheduler this machine does the work.",
            ) from fault

    def _workers(self, client: Client, watcher: JobWatcher) -> dict[str, Mapping[str, float]]:
        """The resources of each worker that runs the same iree-pilot as we do, by address."""
        about, found = remote.code(), client.scheduler_info()["workers"]
        said: dict[str, Any] = client.run(remote.code, on_error="return") if found else {}
        usable = {}
        for address, details in found.items():
            theirs = said.get(address)
            if theirs == about:
                usable[address] = details["resources"]
            else:
                has = theirs if isinstance(theirs, str) else f"no iree-pilot ({theirs})"
                name = details.get("name", address)
                watcher.note(f"worker {name} ({address}) gets no jobs: it has {has}, not {about}")
        if not usable:
            what = "only workers of other versions" if found else "no workers"
            raise EnvironmentFault(
                f"the scheduler {self.address} has {what}",
                advice=f"Start some where iree-pilot is installed: dask worker {self.address}",
            )
        return usable


def _check(address: str) -> None:
    try:
        from distributed import comm
    except ImportError as fault:
        raise EnvironmentFault(
            f"cannot use the scheduler {address}: dask.distributed is not installed",
            advice=f"Install it: {extras.install('distributed')}",
        ) from fault
    try:  # a client that is made with one that cannot be read takes 20 s to go away
        comm.get_address_host_port(address)
    except ValueError as fault:
        raise UsageError(
            f"{address!r} is no address of a scheduler: {fault}",
            advice="`dask scheduler` prints it, such as tcp://HOST:8786.",
        ) from fault


class _Night:
    """The futures of one run, and what is heard of them, in threads of the client's, by a queue."""

    def __init__(
        self,
        client: Client,
        address: str,
        offered: dict[str, Mapping[str, float]],
        employ: Employ,
        patience: float,
    ) -> None:
        self._client = client
        self._address = address
        self._offered = offered
        self._employ = employ
        self._patience = patience
        self._id = uuid.uuid4().hex
        self._heard: SimpleQueue[Future | tuple[int, str]] = SimpleQueue()
        self._jobs: list[NightJob] = []
        self._everyone = True
        self._futures: dict[Future, NightJob] = {}
        self._devices: dict[str, str] = {}  # by target
        self._missed: dict[str, float] = {}  # when a device, or "" for any worker, was missed

    def submit(self, jobs: Sequence[NightJob], watcher: JobWatcher) -> None:
        self._devices = self._find_devices(jobs, watcher)
        self._everyone = len(self._offered) == len(self._client.scheduler_info()["workers"])
        self._client.subscribe_topic(remote.TOPIC, self._began)
        traces: dict[str, Future] = {}
        self._jobs = sorted(jobs, key=lambda job: (job.order.what == "case", -job.need.seconds))
        for number, job in enumerate(self._jobs):
            order = job.order
            future = self._client.submit(
                remote.work,
                msgspec.json.encode(order),
                traces.get(job.after),
                self._employ,
                self._id,
                number,
                key=f"iree-pilot-{order.what}-{number}-{self._id}",
                # Late workers get jobs too, unless there are some that must not.
                workers=None if self._everyone else [*self._offered],
                resources=needs(job, self._device(job), self._offered.values()) or None,
                priority=-number,
            )
            if order.what == "trace":
                traces[order.case.program] = future
                # The program itself stays with the workers.
                future = self._client.submit(remote.outcome, future, key=f"{future.key}-outcome")
            self._futures[future] = job
            future.add_done_callback(self._heard.put)

    def collect(self, watcher: JobWatcher) -> None:
        """Reports each job to the watcher as it ends."""
        while self._futures:
            try:
                heard = self._heard.get(timeout=_LOOK_SECONDS)
            except Empty:
                if self._client.status != "running":
                    raise self._gone() from None
                self._give_up(watcher)
                continue
            if isinstance(heard, tuple):
                number, where = heard
                watcher.began(self._jobs[number].order, where)
                continue
            job = self._futures.get(heard)
            if job is None:  # given up
                continue
            if heard.status in ("pending", "lost"):
                # Its worker died before the result was fetched: it is done again.
                heard.add_done_callback(self._heard.put)
                continue
            outcome = self._ended(heard, job)
            del self._futures[heard]
            heard.release()
            _tell(watcher, job, outcome)

    def _give_up(self, watcher: JobWatcher) -> None:
        """Ends jobs whose device, or every worker, has been gone for as long as we wait."""
        workers = self._client.scheduler_info()["workers"]
        usable = [w for address, w in workers.items() if self._everyone or address in self._offered]
        present = {name for w in usable for name in w["resources"]} | ({""} if usable else set())
        needed = {self._device(job) for job in self._futures.values()}
        now = time.monotonic()
        for device in [name for name in self._missed if name in present]:
            del self._missed[device]
        for device in needed - present - self._missed.keys():
            self._missed[device] = now
            watcher.note(f"{_none_left(device)}: waiting {self._patience:.0f} s for one")
        late = {name for name, since in self._missed.items() if now - since >= self._patience}
        given_up = {f: job for f, job in self._futures.items() if self._device(job) in late}
        if given_up:
            self._client.cancel([*given_up], force=True)
        for future, job in given_up.items():
            del self._futures[future]
            why = _none_left(self._device(job))
            _tell(watcher, job, CaseOutcome(case=job.order.case.name, result=None, why=why))

    def end(self) -> None:
        """Ends what is left on the workers."""
        if self._futures and self._client.status == "running":
            self._client.cancel([*self._futures], force=True)
            self._client.run(remote.stop, self._id, on_error="ignore")

    def _began(self, event: tuple[float, Any]) -> None:
        _, message = event
        if message["night"] == self._id:
            self._heard.put((message["job"], message["where"]))

    def _ended(self, future: Future, job: NightJob) -> CaseOutcome:
        if future.status == "finished":
            return msgspec.json.decode(future.result()[0], type=CaseOutcome)
        if future.status == "error":
            fault = future.exception()
            died = type(fault).__name__ == "KilledWorker"
            why = "its workers died, one after the other" if died else f"its worker failed: {fault}"
            return CaseOutcome(case=job.order.case.name, result=None, why=why)
        raise self._gone()

    def _gone(self) -> EnvironmentFault:
        left = f"{len(self._futures)} job" + ("s" if len(self._futures) > 1 else "")
        return EnvironmentFault(
            f"the scheduler {self._address} has gone away with {left} not done",
            advice="Start it again: the nightly resumes where it stopped.",
        )

    def _find_devices(self, jobs: Sequence[NightJob], watcher: JobWatcher) -> dict[str, str]:
        """The resource that stands for each target's device; tells of targets that have none."""
        names = sorted({name for resources in self._offered.values() for name in resources})
        found: dict[str, str] = {}
        for target in dict.fromkeys(job.order.case.target for job in jobs):
            parsed = targets.parse(target)
            if (device := resource(parsed, names)) is not None:
                found[target] = device
            elif not targets.BACKENDS[parsed.backend].on_host:
                wanted = target.replace(":", "-")
                watcher.note(
                    f"no worker has a device for {target} (dask worker --resources {wanted}=1): "
                    "its cases go anywhere, and may be compiled only"
                )
        return found

    def _device(self, job: NightJob) -> str:
        """The resource that the job needs; empty where any worker can do it."""
        return self._devices.get(job.order.case.target, "") if job.order.what == "case" else ""


def needs(job: NightJob, device: str, offers: Collection[Mapping[str, float]]) -> dict[str, float]:
    """Resources of a job on its worker: its device, and memory if all workers count theirs."""
    needed: dict[str, float] = {device: 1} if device else {}
    room = [resources.get(_MEMORY, 0.0) for resources in offers]
    if min(room) > 0:
        needed[_MEMORY] = min(job.need.peak_bytes, *room)
    return needed


def _tell(watcher: JobWatcher, job: NightJob, outcome: CaseOutcome) -> None:
    if job.order.what == "trace":
        watcher.traced(job.order, outcome)
    else:
        watcher.done(outcome)


def _none_left(device: str) -> str:
    return f"no worker with {device} is left" if device else "no worker is left"


def resource(target: targets.Target, offered: Sequence[str]) -> str | None:
    """The workers' resource that is the device of a target; None if there is none.

    `hip:gfx942` is `hip-gfx942`, else `hip`; `hip` is `hip`, else the first of `hip-...`.
    """
    if target.arch:
        names = [f"{target.backend}-{target.arch}", target.backend]
    else:
        own = [name for name in offered if name.startswith(f"{target.backend}-")]
        names = [target.backend, *own]
    return next((name for name in names if name in offered), None)
