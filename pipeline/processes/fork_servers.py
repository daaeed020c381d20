"""Fork servers: Python commands as forks of a process that has imported what they need.

Importing torch and iree-turbine takes seconds, a fork of a process that has them milliseconds.
Whoever does much (a bisection, say) holds `Servers` in `serving()`, and `process.run` has them
start the commands that say what they need loaded; elsewhere these start as any other does.

multiprocessing's own fork server tells neither what a fork took (peak memory, processor time) nor
hands out a descriptor of it, and its forks have no group or streams of their own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, NamedTuple

from iree_pilot.pipeline.processes import orphans

if TYPE_CHECKING:
    import socket

#: Names of modules that a server imports before it forks, in order.
Modules = tuple[str, ...]
#: Modules for tracing and for written PyTorch scripts. None of ours: a script must not find them.
#: The last one, with 390 more, is what PyTorch's own export imports when it is first called.
TORCH: Modules = ("torch", "iree.turbine.aot", "torch.export._trace")

_PROGRAM = Path(__file__).with_name("forked.py")
#: Variable that names the socket of servers of another process, see `shared_forks`.
SHARED = "IREE_PILOT_FORK_SERVER"
_TICK_SECONDS = 0.05
#: Variable with a different value in each child: a directory of its own.
_OWN = "TMPDIR"


class Command(NamedTuple):
    """Command of a child. streams: descriptors for its stdout and stderr."""

    argv: tuple[str, ...]
    streams: tuple[int, int]
    cwd: Path | None
    env: Mapping[str, str]


class Fork:
    """A child of a server, in a group of its own. pidfd: readable once it has ended. connection: to
    a server that is there for this fork alone, and ends with it."""

    def __init__(self, pid: int, pidfd: int, answer: socket.socket) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.connection: socket.socket | None = None
        self._answer = answer

    def reap(self) -> tuple[int, int, float]:
        """Waits for its end: (wait status, peak bytes, seconds of processor time)."""
        import json

        with self._answer, self.connection or contextlib.nullcontext():
            reply = self._answer.recv(256)
        if not reply:  # the server has died, and this with it
            return signal.SIGKILL, 0, 0.0
        status, kilobytes, seconds = json.loads(reply)
        return status, kilobytes * 1024, seconds


class _Server:
    """One process with modules loaded. It ends with this one, and when it is closed."""

    def __init__(self, modules: Modules) -> None:
        import socket

        self._environment = dict(os.environ)
        self._asking, self._asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._modules = modules
        self._pid = 0
        started = Event()
        # The system ends it with the thread that has started it.
        self._thread = Thread(target=self._attend, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    def _attend(self, started: Event) -> None:
        descriptor = self._asked.fileno()
        command = [sys.executable, "-P", str(_PROGRAM), str(descriptor), *self._modules]
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[descriptor],
                start_new_session=True,
                preexec_fn=orphans.die_with_parent,
                env=self._environment,
            )
        except OSError:  # a command that is started in the usual way says why
            started.set()
            return
        finally:
            self._asked.close()
        with orphans.kept(child.pid):
            self._pid = child.pid
            started.set()
            child.wait()

    def fork(
        self, command: Command, tick: Callable[[], object], seconds: float | None
    ) -> Fork | None:
        """See `Servers.fork`."""
        if not _alike(command.env, self._environment):
            return None
        return asked(self._asking, command, tick, seconds)

    def close(self) -> None:
        self._asking.close()
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
        self._thread.join()


def asked(
    asking: socket.socket, command: Command, tick: Callable[[], object], seconds: float | None
) -> Fork | None:
    """See `Servers.fork`; asking: this end of a server's socket."""
    import json
    import socket

    argv, streams, cwd, env = command
    message = json.dumps({"argv": argv, "cwd": cwd and os.fspath(cwd), "env": dict(env)})
    answer, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        try:
            socket.send_fds(asking, [message.encode()], [its.fileno(), *streams])
        except OSError:
            answer.close()
            return None
    try:
        return _born(answer, tick, seconds)
    except BaseException:
        answer.close()
        raise


def _born(answer: socket.socket, tick: Callable[[], object], seconds: float | None) -> Fork | None:
    """The fork that the server reports; None where it has died or takes too long to load."""
    import socket

    poll = select.poll()
    poll.register(answer, select.POLLIN)
    began = time.monotonic()
    while not poll.poll(_TICK_SECONDS * 1000):
        tick()
        if seconds is not None and time.monotonic() - began > seconds:
            answer.close()
            return None
    reply, descriptors, _, _ = socket.recv_fds(answer, 256, 1)
    if not reply:
        answer.close()
        return None
    return Fork(int(reply), descriptors[0], answer)


def _alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """True if modules are found, and behave, alike in two environments."""
    return {**one, _OWN: ""} == {**other, _OWN: ""}


class Servers:
    """Servers by what they have loaded, each started when it is first needed."""

    def __init__(self) -> None:
        self._servers: dict[Modules, _Server] = {}
        self._lock = Lock()

    def start(self, modules: Modules) -> None:
        """Makes the server of these modules begin to import them, if it has not yet."""
        self._server(modules)

    def fork(
        self,
        modules: Modules,
        command: Command,
        *,
        tick: Callable[[], object],
        seconds: float | None,
    ) -> Fork | None:
        """A fork that carries out the command of a Python.

        tick: called while the server loads its modules; what it raises passes through. None where
        no fork can be had, for a command whose environment is another one or after so many
        `seconds`: it is to be started in the usual way.
        """
        return self._server(modules).fork(command, tick, seconds)

    def _server(self, modules: Modules) -> _Server:
        with self._lock:
            if modules not in self._servers:
                self._servers[modules] = _Server(modules)
            return self._servers[modules]

    def close(self) -> None:
        """Ends all of them, with what they have forked."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()


#: Servers that start commands now.
SERVING: ContextVar[Servers | None] = ContextVar("SERVING", default=None)


@contextlib.contextmanager
def serving(servers: Servers | None = None) -> Iterator[None]:
    """Until the block ends, commands that name modules are forks of servers that have them.

    servers: these, which stay, where there are none yet; None is new ones, which are closed then.
    """
    if SERVING.get() is not None:
        yield
        return
    held = servers or Servers()
    token = SERVING.set(held)
    try:
        yield
    finally:
        SERVING.reset(token)
        if servers is None:
            held.close()


def start(modules: Modules) -> None:
    """Makes a server import these modules while other work is done, if there are servers of this
    process and no others."""
    servers = SERVING.get()
    if servers is not None and not os.environ.get(SHARED):
        servers.start(modules)
