"""Runs a night's jobs on this machine: processes by cores and memory, traces first."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event

import msgspec

from iree_pilot.pipeline.nightly.records import CaseOutcome
from iree_pilot.pipeline.nightly.workers import worker
from iree_pilot.pipeline.nightly.workers.orders import (
    JobWatcher,
    NightJob,
    Order,
    untraced,
    with_trace,
)
from iree_pilot.pipeline.processes import process

#: Memory of a worker without its children: Python, and the outputs that it compares.
_WORKER_BYTES = 200 * 2**20


class Pool:
    """A scheduler on this machine. Devices are held by the workers, see `worker.alone`.

    width: jobs at a time, 0 for one a core. memory_bytes: what all jobs together may take by
    their needs, None for 90% of what is available; a job that needs more runs by itself.
    """

    here = True

    def __init__(
        self,
        width: int = 0,
        memory_bytes: int | None = None,
        employ: Callable[[Order], CaseOutcome] = worker.employ,
    ) -> None:
        import psutil

        self.width = width or len(os.sched_getaffinity(0))
        self.memory_bytes = memory_bytes or int(0.9 * psutil.virtual_memory().available)
        self._employ = employ

    def run(self, jobs: Sequence[NightJob], watcher: JobWatcher) -> None:
        """See `Scheduler.run`. Ctrl-C and what a watcher raises kill all that runs.

        Traces go first, then what takes longest, so that no long job is left over at the end. Of
        cases that never ran, those take longest whose traces did.
        """
        waiting = list(jobs)
        running: dict[Future[CaseOutcome], NightJob] = {}
        traces: dict[str, CaseOutcome | None] = {
            job.order.case.program: None for job in jobs if job.order.what == "trace"
        }
        stop = Event()
        threads = ThreadPoolExecutor(max_workers=self.width)
        try:
            while waiting or running:
                while (job := self._next(waiting, [*running.values()], traces)) is not None:
                    waiting.remove(job)
                    watcher.began(job.order, socket.gethostname())
                    running[threads.submit(self._work, self._limited(job.order), stop)] = job
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    job, outcome = running.pop(future), future.result()
                    if job.order.what == "case":
                        watcher.done(with_trace(outcome, traces.get(job.after)))
                        continue
                    traces[job.order.case.program] = outcome
                    watcher.traced(job.order, outcome)
                    if outcome.status != "ok":
                        for late in [j for j in waiting if j.after == job.order.case.program]:
                            waiting.remove(late)
                            watcher.done(untraced(late.order, outcome))
        finally:
            stop.set()
            threads.shutdown(cancel_futures=True)

    def _next(
        self,
        waiting: Sequence[NightJob],
        running: Sequence[NightJob],
        traces: dict[str, CaseOutcome | None],
    ) -> NightJob | None:
        """The most urgent job that can begin now."""
        if len(running) >= self.width:
            return None
        room = self.memory_bytes - sum(_bytes(job) for job in running)
        ready = [
            job
            for job in waiting
            if (not job.after or traces[job.after]) and (_bytes(job) <= room or not running)
        ]
        return min(ready, key=lambda job: _urgency(job, traces.get(job.after)), default=None)

    def _limited(self, order: Order) -> Order:
        limit = order.memory_limit or self.memory_bytes
        return msgspec.structs.replace(order, memory_limit=limit)

    def _work(self, order: Order, stop: Event) -> CaseOutcome:
        process.STOP.set(stop)
        if stop.is_set():
            raise KeyboardInterrupt
        return self._employ(order)


def _urgency(job: NightJob, trace: CaseOutcome | None) -> tuple[bool, float]:
    seconds = trace.seconds if trace is not None and job.guessed else job.need.seconds
    return job.order.what == "case", -seconds


def _bytes(job: NightJob) -> int:
    return job.need.peak_bytes + _WORKER_BYTES
