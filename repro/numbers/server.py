"""An evaluator, loaded once for all evaluations of a search: a child that is asked over pipes.

Run as a module with MODULE, REQUESTS and ANSWERS, it reads the name of a directory from each line
of the pipe REQUESTS, has a fork of itself do what MODULE does there, and says so in a line of
ANSWERS. Loading PyTorch takes longer than anything that is asked of it here.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import sys
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread

from iree_pilot.pipeline import process

_REQUESTS, _ANSWERS = "requests", "answers"
_STDERR = "stderr.txt"
#: What the thread that waits for the child says when that has ended.
_ENDED = b"ended\n"


class Server:
    """The child, started when it is first asked; its pipes lie in `directory`.

    module: what it does the work with.

    Close it: it would wait for questions for as long as this process lives.
    """

    def __init__(self, directory: Path, module: str) -> None:
        self._directory = directory
        self._module = module
        self._thread: Thread | None = None
        self._stop = Event()
        self._to = self._from = -1

    def ask(self, directory: Path, seconds: float | None) -> str:
        """Has the work in `directory` done; what was printed if it did not end well, else nothing.

        seconds: how long that may take.
        """
        if self._thread is None:
            self._start()
        os.write(self._to, f"{directory}\n".encode())
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        if not poll.poll(None if seconds is None else seconds * 1000):
            self.close()
            return f"it was stopped after {seconds:g} s"
        answer = os.read(self._from, 4096)
        if answer.endswith(_ENDED):
            self.close()
        if answer == b"0\n":
            return ""
        printed = directory / _STDERR
        said = printed.read_text(errors="replace") if printed.is_file() else ""
        return said.strip().rpartition("\n")[2] or f"it ended with {answer.decode().strip()}"

    def close(self) -> None:
        """Ends the child; it is started again when it is asked again."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        os.close(self._to)
        os.close(self._from)

    def _start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        pipes = [self._directory / name for name in (_REQUESTS, _ANSWERS)]
        for pipe in pipes:
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe)
        # Open at both ends, so that neither side waits for the other one to open it.
        self._to, self._from = (os.open(pipe, os.O_RDWR) for pipe in pipes)
        self._stop = Event()
        self._thread = Thread(target=copy_context().run, args=(self._run, *pipes, self._stop))
        self._thread.start()

    def _run(self, requests: Path, answers: Path, stop: Event) -> None:
        process.STOP.set(stop)
        with contextlib.suppress(KeyboardInterrupt):
            process.run(
                process.python("iree_pilot.repro.numbers.server", self._module, requests, answers),
                stdout=self._directory / "server.stdout.txt",
                stderr=self._directory / "server.stderr.txt",
            )
        os.write(self._from, _ENDED)


def main(module: str, requests: Path, answers: Path) -> int:
    child = importlib.import_module(module)
    with requests.open() as asked, answers.open("wb", buffering=0) as answer:
        for line in asked:
            directory = Path(line.removesuffix("\n"))
            own = os.fork()
            if own == 0:
                _do(child.main, directory)
            _, status = os.waitpid(own, 0)
            answer.write(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return 0


def _do(work: object, directory: Path) -> None:
    """Does the work and ends this process, which is a fork."""
    assert callable(work)
    code = 1
    try:
        printed = os.open(directory / _STDERR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 2)
        code = work(directory)
    except BaseException as fault:  # noqa: BLE001 - the fork ends here, whatever it met
        os.write(2, f"{type(fault).__name__}: {fault}\n".encode())
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
