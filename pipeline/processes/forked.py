"""The process of a fork server: imports modules, and forks for each Python command it is asked for.

Started as a file, and of the standard library alone, so that a command finds what it would find in
a Python of its own, but for the modules that are loaded already:

    python -P forked.py FD MODULE...

FD is the end of a socket. Each message on it is a `Command` as JSON, with three descriptors: where
the answer goes, stdout, stderr. The answer is the fork's id with a descriptor of the process; and
once it has ended its wait status, its largest resident memory in kB and its seconds of processor
time. The server ends when the other end of the socket is closed; its forks die with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import types
from typing import NoReturn

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
#: Bytes of a message: more than a socket takes at once.
_LONGEST = 2**18


def serve(asked: socket.socket) -> dict[str, object] | None:
    """Answers until the socket is closed: None; in a fork, the command that it is to carry out."""
    poll = select.poll()
    poll.register(asked, select.POLLIN)
    forks: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready, _ in poll.poll():
            if ready != asked.fileno():
                poll.unregister(ready)
                pid, answer = forks.pop(ready)
                _, status, usage = os.wait4(pid, 0)
                ended = status, usage.ru_maxrss, usage.ru_utime + usage.ru_stime
                with answer, contextlib.suppress(OSError):  # whoever asked has gone
                    answer.sendall(json.dumps(ended).encode())
                os.close(ready)
                continue
            message, descriptors, _, _ = socket.recv_fds(asked, _LONGEST, 3)
            if not message:
                return None
            server, pid = os.getpid(), os.fork()
            if pid == 0:
                asked.close()
                for descriptor, (_, other) in forks.items():
                    os.close(descriptor)
                    other.close()
                _settle(server, *descriptors)
                command: dict[str, object] = json.loads(message)
                return command
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # here too: who is answered may kill the group at once
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            answer, running = socket.socket(fileno=descriptors[0]), os.pidfd_open(pid)
            try:
                socket.send_fds(answer, [str(pid).encode()], [running])
            except OSError:  # nobody waits for it any more
                os.killpg(pid, signal.SIGKILL)
            forks[running] = pid, answer
            poll.register(running, select.POLLIN)


def _settle(server: int, answer: int, out: int, err: int) -> None:
    """Makes a fork a process with a group and streams of its own, that dies with the server."""
    os.setpgid(0, 0)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for descriptor in (answer, out, err):
        os.close(descriptor)


def carry_out(argv: list[str], cwd: str | None, env: dict[str, str]) -> None:
    """Carries out `argv`, a Python with `-P`, `-X faulthandler` and `-m MODULE` or a file."""
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    if "numpy.random" in sys.modules:  # of its own in each process, where nobody gives a seed
        sys.modules["numpy.random"].seed()
    if cwd is not None:
        os.chdir(cwd)
    _, *words = argv
    here = True
    while words[0] in ("-P", "-X"):
        if words.pop(0) == "-P":
            here = False
        else:
            assert words.pop(0) == "faulthandler", argv
            faulthandler.enable()
    if words[0] == "-m":
        module, sys.argv = words[1], words[1:]
        _run_module(module)
    sys.argv = words
    file = os.path.abspath(words[0])  # noqa: PTH100 - which Python does not resolve
    if here:
        sys.path.insert(0, os.path.dirname(os.path.realpath(file)))  # noqa: PTH120
    _run_file(file)


def _run_module(name: str) -> NoReturn:
    """Runs a module of ours, after which this process has nothing to clean up."""
    status = 0
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        status = end.code or 0
    finally:
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
    os._exit(status)


def _run_file(file: str) -> None:
    """Runs a file as Python does, with no frames of ours in a traceback."""
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=file, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    try:
        with open(file, "rb") as opened:  # noqa: PTH123
            code = compile(opened.read(), file, "exec")
        exec(code, main.__dict__)
    except Exception as raised:  # noqa: BLE001 - whatever it raises is its own end
        raised.__traceback__ = raised.__traceback__ and raised.__traceback__.tb_next
        sys.excepthook(type(raised), raised, raised.__traceback__)
        sys.exit(1)


def main(descriptor: int, modules: list[str]) -> None:
    gc.disable()  # imports leave no garbage, and looking for some takes a third of their time
    for module in modules:
        with contextlib.suppress(Exception):  # a command that needs it meets that again
            importlib.import_module(module)
    gc.freeze()
    gc.enable()
    command = serve(socket.socket(fileno=descriptor))
    if command is not None:
        carry_out(**command)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
