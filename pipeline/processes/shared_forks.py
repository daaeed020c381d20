"""Forks by servers that other processes share, such as all that the tests of a session start.

The variable IREE_PILOT_FORK_SERVER names the socket of a process that has such servers:
`shared_server.py`, which `tests/warm.py` starts. For tests and CI: there each of a thousand short
commands would import torch anew. Without it, or where nothing listens there, or in other
surroundings than its own, commands are started in the usual way.

Each command has a connection of its own. A server forks for it, and that fork does what a server of
this process would do (see `fork_servers`): it ends with the connection, and the command with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from iree_pilot.pipeline.processes import fork_servers
from iree_pilot.pipeline.processes.fork_servers import SHARED, Command, Fork, Modules

if TYPE_CHECKING:
    import socket

#: The process that has servers for others.
PROGRAM = Path(__file__).with_name("shared_server.py")
#: Variables, and beginnings of some, that change nothing of what modules do when they are imported.
_FREE = ("TMPDIR", "PWD", "OLDPWD", "COLUMNS", "LINES", "TERM", "PYTHONFAULTHANDLER", "_")
_FREE_BEGINNINGS = ("IREE_PILOT_", "PYTEST_", "TORCHINDUCTOR_CACHE_DIR")


def surroundings(env: Mapping[str, str]) -> str:
    """Everything that must be alike for a fork of another process to be like a child of this one:
    Python, this code, variables that imports may heed, limits, rights, processors, file systems.
    """
    heeded = {
        name: value
        for name, value in env.items()
        if name not in _FREE and not name.startswith(_FREE_BEGINNINGS)
    }
    kinds = (name for name in dir(resource) if name.startswith("RLIMIT_"))
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in kinds}
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return json.dumps(
        [
            sys.executable,
            str(PROGRAM),
            heeded,
            limits,
            os.geteuid(),
            sorted(os.sched_getaffinity(0)),
            str(Path("/proc/self/ns/mnt").readlink()),
            [line for line in status.splitlines() if line.startswith(("Umask", "Groups", "Cap"))],
        ],
        sort_keys=True,
    )


def fork(
    modules: Modules | None, command: Command, *, tick: Callable[[], object], seconds: float | None
) -> Fork | None:
    """A fork that carries out the command of a Python; see `Servers.fork`.

    modules: None leaves them to whoever listens, who may know the command.
    """
    path = os.environ.get(SHARED)
    if not path or command.argv[0] != sys.executable:
        return None
    asking = _connected(path)
    if asking is None:
        return None
    command = command._replace(cwd=Path.cwd() / (command.cwd or ""))  # a server is elsewhere
    request = {"alike": surroundings(command.env), "modules": modules, "argv": command.argv}
    made = None
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody is there any more
            asking.sendall(json.dumps(request).encode())
            made = fork_servers.asked(asking, command, tick, seconds)
        if made is not None:
            made.connection = asking
    finally:
        if made is None:
            asking.close()
    return made


def _connected(path: str) -> socket.socket | None:
    import socket

    asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        asking.connect(path)
    except OSError:
        asking.close()
        return None
    return asking
