"""Keeps the promise that no step is silent: in a pipe, a line whenever nothing else was printed."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Thread

from iree_pilot.pipeline.cli.display.screen import Screen

#: No command is silent for longer than 5 s in a pipe; the rest is for its start.
SECONDS = 4.0


class Heartbeat:
    """Prints `line()` on a console after each `SECONDS` in which nothing was printed on it.

    It beats in a thread of its own from `start` to `stop`; after `stop` it prints nothing.
    """

    def __init__(self, console: Screen, line: Callable[[], str]) -> None:
        self._console = console
        self._line = line
        self._stop = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._stop.clear()
            self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def _beat(self) -> None:
        while not self._stop.wait(max(0.0, self._console.printed + SECONDS - time.monotonic())):
            if time.monotonic() - self._console.printed < SECONDS:
                continue
            try:
                # Not through the console: where nobody reads any more, it would go quiet, and the
                # command would work on unheard. Its own next line is to find that out.
                self._console.file.write(f"{self._line()}\n")
                self._console.file.flush()
            except (OSError, ValueError):
                return
            self._console.printed = time.monotonic()
