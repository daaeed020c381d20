"""Work that waits for children, several at once: what ends one of them early ends all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from threading import Event
from typing import TypeVar

from iree_pilot.pipeline.processes import process

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[[T], R], items: Iterable[T], width: int) -> list[R]:
    """Results of `work` for each item, in their order, `width` of them at a time in threads.

    When one raises or the wait is interrupted, the others' children are killed, what has not
    begun does not begin, and the first exception passes through: only this thread hears of
    Ctrl-C, and the others would see their children to the end.
    """
    waiting = list(items)
    if width <= 1 or len(waiting) <= 1:
        return [work(item) for item in waiting]
    stop = Event()
    faults: list[BaseException] = []

    def stoppable(item: T) -> R:
        process.STOP.set(stop)
        if stop.is_set():
            raise KeyboardInterrupt
        try:
            return work(item)
        except BaseException as fault:
            faults.append(fault)
            stop.set()
            raise

    pool = ThreadPoolExecutor(max_workers=min(width, len(waiting)))
    try:
        futures = [pool.submit(copy_context().run, stoppable, item) for item in waiting]
        wait(futures, return_when=FIRST_EXCEPTION)
        if faults:
            raise faults[0]
        return [future.result() for future in futures]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
