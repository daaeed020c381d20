"""The process that has fork servers for others: see `shared_forks`.

Started as a file, and of the standard library alone, as `forked.py` is:

    python -P shared_server.py SOCKET LIFELINE ALIKE

It listens at SOCKET, until the other end of the pipe whose descriptor is LIFELINE is closed, for
commands of processes whose surroundings are ALIKE, and closes the connections of others: those
start their children themselves. For each set of modules it forks a server when it is first asked
for, and hands it the connections. The server forks for each of them, and that fork is a fork server
as any other: `forked.serve`.

It lies here, and not among the tests, because its frames are part of each fork's stack, and what a
model is traced with tells our files from the user's by where they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import warnings
from types import ModuleType
from typing import Any

#: The module whose command calls a function of ours.
_TASK = "iree_pilot.pipeline.processes.task"
_TRACING = "iree_pilot.pipeline.frontends.trace_child"
#: What a function's module does not import at once, but whenever the function is called.
_LATER = {
    _TRACING: (
        "iree_pilot.pipeline.frontends.pytorch.torch_export",
        "iree_pilot.pipeline.frontends.pytorch.compiled_module",
        "torch.export._trace",
    ),
}
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_LONGEST = 2**18


def modules(request: dict[str, Any]) -> tuple[str, ...]:
    """Modules that a command's server has loaded; none for a command that is not known."""
    if request["modules"]:
        return tuple(request["modules"])
    _, *words = request["argv"]
    if words[:3] != ["-P", "-m", _TASK]:
        return ()
    module, _, _ = words[3].partition(":")
    return (module, *_LATER.get(module, ()))


def listen(
    listening: socket.socket, lifeline: int, alike: str
) -> tuple[tuple[str, ...], socket.socket] | None:
    """Hands out connections until the lifeline is closed, with which all servers end: None; in a
    new server, what it is to load and the end of the socket where connections come from."""
    servers: dict[tuple[str, ...], socket.socket] = {}
    poll = select.poll()
    poll.register(lifeline, 0)  # POLLHUP
    poll.register(listening, select.POLLIN)
    while all(ready != lifeline for ready, _ in poll.poll()):
        asking, _ = listening.accept()
        wanted = _wanted(asking, alike)
        if wanted and wanted not in servers:
            servers[wanted], its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if _fork() == 0:
                for other in (asking, listening, *servers.values()):
                    other.close()
                os.close(lifeline)
                return wanted, its
            its.close()
        if wanted:
            with contextlib.suppress(OSError):  # that server has died
                socket.send_fds(servers[wanted], [b"?"], [asking.fileno()])
        asking.close()
    return None


def _wanted(asking: socket.socket, alike: str) -> tuple[str, ...]:
    """The modules of the server to be handed a connection; none where it is to be closed."""
    asking.settimeout(5)
    try:
        request = json.loads(asking.recv(_LONGEST) or "{}")
    except OSError:  # whoever asked has gone
        return ()
    asking.setblocking(True)
    return modules(request) if request.get("alike") == alike else ()


def serve(wanted: tuple[str, ...], end: socket.socket) -> dict[str, object]:
    """Loads modules and has a fork server for each connection; returns in a fork of one of those,
    with the command that it is to carry out."""
    _load(wanted)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how those servers ended
    while True:
        _, descriptors, _, _ = socket.recv_fds(end, 1, 1)
        if not descriptors:
            os._exit(0)
        if _fork():
            os.close(descriptors[0])
            continue
        end.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        command: dict[str, object] | None = FORKED.serve(socket.socket(fileno=descriptors[0]))
        if command is not None:
            return command
        os._exit(0)


def _fork() -> int:
    """Forks as os.fork does; the child dies with this process."""
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    return pid


def _load(wanted: tuple[str, ...]) -> None:
    gc.disable()
    for module in wanted:
        with contextlib.suppress(Exception):  # a command that needs it meets that again
            importlib.import_module(module)
    gc.freeze()
    gc.enable()
    # What is run may be loaded already, by what is called: as in a process of its own, later.
    warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning, "runpy")


def _forked() -> ModuleType:
    """The program of fork servers, without a package of ours being loaded."""
    place = os.path.join(os.path.dirname(__file__), "forked.py")  # noqa: PTH118, PTH120
    spec = importlib.util.spec_from_file_location("forked", place)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


if __name__ == "__main__":
    FORKED = _forked()
    at = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    at.bind(sys.argv[1])
    at.listen(64)
    print("listening", flush=True)
    new = listen(at, int(sys.argv[2]), sys.argv[3])
    if new is not None:
        FORKED.carry_out(**serve(*new))
