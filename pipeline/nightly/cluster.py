"""Has a night's jobs done by a dask.distributed cluster: each where its device is, traces once.

The cluster's own graph does the work: a case depends on its program's trace, whose result is the
traced program itself, so that workers need not share a disk. Devices are resources of workers:

    dask worker tcp://HOST:8786 --nthreads 1 --resources "vulkan=1"
    dask worker tcp://HOST:8786 --nthreads 1 --resources "hip-gfx942=1"
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline import targets
from pipeline.errors import EnvironmentFault
from pipeline.nightly import remote, worker
from pipeline.nightly.orders import Job, Watcher
from pipeline.nightly.records import Outcome
from pipeline.nightly.remote import Employ

if TYPE_CHECKING:
    from distributed import Client, Future

_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 2.0
#: A resource of workers, in bytes.
_MEMORY = "memory"


class Cluster:
    """A scheduler at `address` (`tcp://HOST:8786`).

    A job whose worker dies is done by another one, up to dask's `allowed-failures` (3) times; what
    a job returns is counted once, however often it was begun. Workers of another iree-pilot get
    no jobs.
    """

    here = False

    def __init__(
        self,
        address: str,
        *,
        employ: Employ = worker.employ,
        connect_seconds: float = _CONNECT_SECONDS,
    ) -> None:
        self.address = address
        self._employ = employ
        self._connect_seconds = connect_seconds

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> None:
        """See `Scheduler.run`. Ctrl-C and what a watcher raises end the jobs on all workers.

        Raises EnvironmentFault where no scheduler answers, it has no worker of this iree-pilot,
        or it goes away: what is not done then can be done by another night.
        """
        with self._connected() as client:
            offered = self._workers(client, watcher)
            night = _Night(client, self.address, offered, self._employ)
            try:
                night.submit(jobs, watcher)
                night.collect(watcher)
            finally:
                night.end()

    def _connected(self) -> Client:
        try:
            from distributed import Client
        except ImportError as fault:
            raise EnvironmentFault(
                f"cannot use the scheduler {self.address}: dask.distributed is not installed",
                advice="Install it: python -m pip install 'iree-pilot[distributed]'",
            ) from fault
        # What it would write of a lost connection is in our own errors.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        try:
            return Client(self.address, timeout=self._connect_seconds, set_as_default=False)
        except (OSError, ValueError) as fault:
            why = str(fault).strip().splitlines()[:1] or ["it does not answer"]
            raise EnvironmentFault(
                f"no scheduler answers at {self.address}: {why[0]}",
                advice="Start one (`dask scheduler`) and name the address that it prints, such as "
                "tcp://HOST:8786; without --scheduler this machine does the work.",
            ) from fault

    def _workers(self, client: Client, watcher: Watcher) -> dict[str, Mapping[str, float]]:
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
                watcher.told(f"worker {name} ({address}) gets no jobs: it has {has}, not {about}")
        if not usable:
            what = "only workers of other versions" if found else "no workers"
            raise EnvironmentFault(
                f"the scheduler {self.address} has {what}",
                advice=f"Start some where iree-pilot is installed: dask worker {self.address}",
            )
        return usable


class _Night:
    """The futures of one run, and what is heard of them, in threads of the client's, by a queue."""

    def __init__(
        self,
        client: Client,
        address: str,
        offered: dict[str, Mapping[str, float]],
        employ: Employ,
    ) -> None:
        self._client = client
        self._address = address
        self._offered = offered
        self._employ = employ
        self._id = uuid.uuid4().hex
        self._heard: SimpleQueue[Future | tuple[int, str]] = SimpleQueue()
        self._jobs: list[Job] = []
        self._futures: dict[Future, Job] = {}

    def submit(self, jobs: Sequence[Job], watcher: Watcher) -> None:
        devices = self._devices(jobs, watcher)
        everyone = len(self._offered) == len(self._client.scheduler_info()["workers"])
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
                workers=None if everyone else [*self._offered],
                resources=self._resources(job, devices) or None,
                priority=-number,
            )
            if order.what == "trace":
                traces[order.case.program] = future
                # The program itself stays with the workers.
                future = self._client.submit(remote.outcome, future, key=f"{future.key}-outcome")
            self._futures[future] = job
            future.add_done_callback(self._heard.put)

    def collect(self, watcher: Watcher) -> None:
        """Tells the watcher of each job as it ends."""
        while self._futures:
            try:
                heard = self._heard.get(timeout=_LOOK_SECONDS)
            except Empty:
                if self._client.status != "running":
                    raise self._gone() from None
                continue
            if isinstance(heard, tuple):
                number, where = heard
                watcher.began(self._jobs[number].order, where)
                continue
            job = self._futures[heard]
            if heard.status in ("pending", "lost"):
                # Its worker died before the result was fetched: it is done again.
                heard.add_done_callback(self._heard.put)
                continue
            outcome = self._ended(heard, job)
            del self._futures[heard]
            heard.release()
            if job.order.what == "trace":
                watcher.traced(job.order, outcome)
            else:
                watcher.done(outcome)

    def end(self) -> None:
        """Ends what is left on the workers."""
        if self._futures and self._client.status == "running":
            self._client.cancel([*self._futures], force=True)
            self._client.run(remote.stop, self._id, on_error="ignore")

    def _began(self, event: tuple[float, Any]) -> None:
        _, message = event
        if message["night"] == self._id:
            self._heard.put((message["job"], message["where"]))

    def _ended(self, future: Future, job: Job) -> Outcome:
        if future.status == "finished":
            return msgspec.json.decode(future.result()[0], type=Outcome)
        if future.status == "error":
            fault = future.exception()
            died = type(fault).__name__ == "KilledWorker"
            why = "its workers died, one after the other" if died else f"its worker failed: {fault}"
            return Outcome(case=job.order.case.name, result=None, why=why)
        raise self._gone()

    def _gone(self) -> EnvironmentFault:
        left = f"{len(self._futures)} job" + ("s" if len(self._futures) > 1 else "")
        return EnvironmentFault(
            f"the scheduler {self._address} has gone away with {left} not done",
            advice="Start it again: the nightly goes on where it stopped.",
        )

    def _devices(self, jobs: Sequence[Job], watcher: Watcher) -> dict[str, str]:
        """The resource that stands for each target's device; tells of targets that have none."""
        names = sorted({name for resources in self._offered.values() for name in resources})
        found: dict[str, str] = {}
        for target in dict.fromkeys(job.order.case.target for job in jobs):
            parsed = targets.parse(target)
            if (device := resource(parsed, names)) is not None:
                found[target] = device
            elif parsed.backend != "llvm-cpu":
                wanted = target.replace(":", "-")
                watcher.told(
                    f"no worker has a device for {target} (dask worker --resources {wanted}=1): "
                    "its cases go anywhere, and may be compiled only"
                )
        return found

    def _resources(self, job: Job, devices: Mapping[str, str]) -> dict[str, float]:
        """What the job takes of its worker: its device, and memory where all workers count it."""
        needed: dict[str, float] = {}
        target = job.order.case.target
        if job.order.what == "case" and target in devices:
            needed[devices[target]] = 1
        room = [resources.get(_MEMORY, 0.0) for resources in self._offered.values()]
        if min(room) > 0:
            needed[_MEMORY] = min(job.need.peak_bytes, *room)
        return needed


def resource(target: targets.Target, offered: Sequence[str]) -> str | None:
    """Which of the workers' resources is the device of a target; None where none is.

    `hip:gfx942` is `hip-gfx942`, else `hip`; `hip` is `hip`, else the first of `hip-...`.
    """
    if target.arch:
        names = [f"{target.backend}-{target.arch}", target.backend]
    else:
        own = [name for name in offered if name.startswith(f"{target.backend}-")]
        names = [target.backend, *own]
    return next((name for name in names if name in offered), None)
