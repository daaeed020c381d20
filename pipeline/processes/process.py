"""The one way to run a child: argument list, limits, output to files, group kill."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from threading import Event
from typing import Literal

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.processes import fork_servers, memory_kills, orphans, shared_forks
from iree_pilot.pipeline.processes.fork_servers import Command, Fork, Modules

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
_TICK_SECONDS = 0.05
#: Room kept on the disk for a child's last words: it must be able to say that the disk is full.
_RESERVED_BYTES = 64 * 1024
_FALLOC_FL_KEEP_SIZE = 1
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: States of a thread that runs or would run, or waits for a disk.
_WAITING_FOR_NOBODY = "RD"
_TICKS = os.sysconf("SC_CLK_TCK")
#: Once it is set, a wait for a child ends as Ctrl-C ends it, which only the main thread hears.
STOP: ContextVar[Event | None] = ContextVar("STOP", default=None)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a child. `None` means no limit.

    seconds: wall time. memory_bytes: resident memory of the child and its descendants.
    output_bytes: size of each of its stdout and stderr files. idle_seconds: wall time in which the
    child uses no processor time at all. of_processor: `seconds` is processor time (or wall time in
    which the child uses none), so that a busy machine makes nothing look slow. default: nobody
    chose `seconds`.
    """

    seconds: float | None = None
    idle_seconds: float | None = None
    memory_bytes: int | None = None
    output_bytes: int | None = 256 * 2**20
    of_processor: bool = False
    default: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a child.

    exit_code is None when a signal ended it; signal is that signal's name (`SIGSEGV`), also for a
    child that was killed at a limit. peak_bytes is the largest resident memory seen; the system
    counts from the fork, so it is never less than this process's own. processor_seconds: of the
    child, and of those of its children that have ended. default_limit: as in `Limits`.
    memory_ran_out: of a child that SIGKILL ended, not at a limit: whether the kernel killed a
    process for lack of memory meanwhile; None where that is not known. near: one of this process's
    control group, see `memory_kills`. began: the time of its start, as `time.time` has it.
    """

    argv: tuple[str, ...]
    ended_by: Literal["exit", "signal", "time-limit", "memory-limit", "output-limit", "idle-limit"]
    exit_code: int | None
    signal: str | None
    seconds: float
    peak_bytes: int
    processor_seconds: float = 0.0
    default_limit: bool = False
    memory_ran_out: bool | None = None
    near: bool = False
    began: float = 0.0

    @property
    def killed(self) -> bool:
        """True if somebody else killed it, and not because memory ran out."""
        return self.signal == "SIGKILL" and self.memory_ran_out is False

    @property
    def ok(self) -> bool:
        return self.ended_by == "exit" and self.exit_code == 0


def run(
    argv: Sequence[str | Path],
    *,
    stdout: Path,
    stderr: Path,
    limits: Limits | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_tick: Callable[[], object] | None = None,
    loaded: Modules | None = None,
) -> Outcome:
    """Runs `argv` to its end and returns how it ended; a failing child is not an error here.

    Its temporary files go to a directory of its own, unless `env` names another as TMPDIR, and are
    removed when it has ended: a compiler that crashes leaves those of llvm-symbolizer.

    The child leads a session of its own, which is killed as a whole when the child ends, when a
    limit is reached and when the wait is interrupted, also should this process be killed itself
    (see `orphans`). `on_tick` is called about every 50 ms while the child runs; what it
    raises ends the child and passes through, and True from it is the child's time limit. loaded:
    modules that the command of a Python (see `python`) imports; where there are servers, it is a
    fork of one that has them (see `fork_servers`).

    Raises EnvironmentFault when the program is missing or cannot be executed, and OSError when
    there is no room for what it writes to stderr.
    """
    limits = limits or Limits()
    command = tuple(os.fspath(a) for a in argv)
    with (
        stdout.open("wb") as out,
        stderr.open("wb") as err,
        _temporary(os.environ if env is None else env) as env,
    ):
        _reserve(err.fileno(), stderr)
        killed_before = memory_kills.counted()
        try:
            wanted = Command(command, (out.fileno(), err.fileno()), cwd, env)
            servers = fork_servers.SERVING.get()
            fork = shared_forks.fork(loaded, wanted, tick=_heed, seconds=limits.seconds)
            if fork is None and loaded and servers is not None:
                fork = servers.fork(loaded, wanted, tick=_heed, seconds=limits.seconds)
            began, started = time.time(), time.monotonic()
            child = fork or _spawned(wanted)
            with orphans.kept(child.pid):
                ended_by, peak, spent, code = _wait(
                    child, started, limits, (stdout, stderr), on_tick
                )
        finally:
            os.ftruncate(err.fileno(), os.fstat(err.fileno()).st_size)  # gives back what is left
        seconds = time.monotonic() - started
    memory_ran_out, near = None, False
    if ended_by is None and code == -signal.SIGKILL and killed_before is not None:
        memory_ran_out, near = memory_kills.counted() != killed_before, killed_before.near
    return Outcome(
        argv=command,
        ended_by=ended_by or ("signal" if code < 0 else "exit"),
        exit_code=code if code >= 0 else None,
        signal=signal.Signals(-code).name if code < 0 else None,
        seconds=seconds,
        peak_bytes=peak,
        processor_seconds=spent,
        default_limit=limits.default,
        memory_ran_out=memory_ran_out,
        near=near,
        began=began,
    )


def available_bytes() -> int:
    """Memory that can be had without swapping.

    As psutil has it, which takes 10 ms to load.
    """
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    available = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(available.split()[1]) * 1024


def python(module: str, *words: str | Path) -> list[str | Path]:
    """The command that runs a module of ours.

    -P: a user's file of the name of one of Python's modules, or a directory of the name of one of
    our packages, is not imported in its place because the user is there.
    """
    return [sys.executable, "-P", "-m", module, *words]


def check_disk(stderr: Path) -> None:
    """Raises OSError where a child that failed wrote to `stderr` that the disk is full."""
    text = stderr.read_text(encoding="utf-8", errors="replace")
    for number in _FULL:
        if os.strerror(number) in text:
            raise OSError(number, os.strerror(number), str(stderr.parent))


@contextlib.contextmanager
def _temporary(env: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The environment of a child with a directory for its temporary files, until the block ends.

    Among those of this process: the compiler does not quote the names of its files for its linker,
    and the user's own directories may have blanks in theirs.
    """
    if env.get("TMPDIR") != os.environ.get("TMPDIR"):
        yield env
        return
    with tempfile.TemporaryDirectory(prefix="iree-pilot-", ignore_cleanup_errors=True) as place:
        yield {**env, "TMPDIR": place}


def _reserve(descriptor: int, path: Path) -> None:
    """Sets disk space aside for a file without making it longer, where the file system can."""
    if _LIBC.fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, 0, _RESERVED_BYTES):
        number = ctypes.get_errno()
        if number in _FULL:
            raise OSError(number, os.strerror(number), str(path))


class _Spawned:
    """A child of this process, as `Fork` is one of a server."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.pid = child.pid
        self.pidfd = os.pidfd_open(child.pid)

    def reap(self) -> tuple[int, int, float]:
        _, status, usage = os.wait4(self.pid, 0)  # Popen's own wait says nothing of the usage
        self._child.returncode = os.waitstatus_to_exitcode(status)
        return status, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime


def _spawned(command: Command) -> _Spawned:
    try:
        child = subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=command.streams[0],
            stderr=command.streams[1],
            cwd=command.cwd,
            env=command.env,
            start_new_session=True,
            preexec_fn=orphans.die_with_parent,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError, OSError) as fault:
        raise _cannot_start(command.argv[0], fault) from fault
    return _Spawned(child)


def _cannot_start(program: str, fault: OSError) -> EnvironmentFault:
    if isinstance(fault, PermissionError):
        return EnvironmentFault(
            f"cannot run {program}: it is not executable",
            advice=f"Make it executable (chmod +x {program}) or reinstall its package.",
        )
    if isinstance(fault, FileNotFoundError):
        return EnvironmentFault(
            f"cannot run {program}: there is no such file",
            advice="Reinstall the package it comes from; `iree-pilot doctor` shows what is found.",
        )
    return EnvironmentFault(
        f"cannot run {program}: {fault.strerror or fault}",
        advice="Reinstall the package it comes from; `iree-pilot doctor` shows what is found.",
    )


Ended = Literal["time-limit", "memory-limit", "output-limit", "idle-limit"]


def _heed() -> None:
    """Raises KeyboardInterrupt where the wait is to end."""
    stop = STOP.get()
    if stop is not None and stop.is_set():
        raise KeyboardInterrupt


def _wait(
    child: _Spawned | Fork,
    started: float,
    limits: Limits,
    logs: tuple[Path, Path],
    on_tick: Callable[[], object] | None,
) -> tuple[Ended | None, int, float, int]:
    """Waits for the child's end or a limit, and ends whatever is left of its group.

    Returns (the limit reached or None, peak bytes, seconds of processor time, exit code as of
    Popen).
    """
    ended_by: Ended | None = None
    peak = 0
    worked, used = started, 0.0
    try:
        poll = select.poll()
        poll.register(child.pidfd, select.POLLIN)
        while ended_by is None and not poll.poll(_TICK_SECONDS * 1000):
            _heed()
            over = on_tick is not None and on_tick() is True
            peak = max(peak, _resident_bytes(child.pid))
            spent, now = _processor_seconds(child.pid), time.monotonic()
            if spent != used or (limits.of_processor and _runnable(child.pid)):
                worked, used = now, spent
            seconds = max(spent, now - worked) if limits.of_processor else now - started
            if over:
                ended_by = "time-limit"
            elif limits.idle_seconds is not None and now - worked > limits.idle_seconds:
                ended_by = "idle-limit"
            else:
                ended_by = _limit_reached(seconds, peak, limits, logs)
    finally:
        os.close(child.pidfd)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        status, most, total = child.reap()
    code = os.waitstatus_to_exitcode(status)
    if ended_by is not None:
        return ended_by, peak, used, code
    return None, max(peak, most), total, code


def _processor_seconds(pid: int) -> float:
    """Processor time of all threads of a process, and of its children that have ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) / _TICKS
    return 0.0


def _runnable(pid: int) -> bool:
    """True if a thread of a process is only waiting for a free processor."""
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            if (
                task.read_text(encoding="utf-8").rpartition(")")[2].split()[0]
                in _WAITING_FOR_NOBODY
            ):
                return True
    return False


def _limit_reached(
    seconds: float, peak: int, limits: Limits, logs: tuple[Path, Path]
) -> Ended | None:
    if limits.seconds is not None and seconds > limits.seconds:
        return "time-limit"
    if limits.memory_bytes is not None and peak > limits.memory_bytes:
        return "memory-limit"
    if limits.output_bytes is not None and any(
        p.stat().st_size > limits.output_bytes for p in logs
    ):
        return "output-limit"
    return None


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, in bytes; 0 once it is gone."""
    total, waiting = 0, [pid]
    while waiting:
        process = Path("/proc", str(waiting.pop()))
        with contextlib.suppress(OSError):
            total += int((process / "statm").read_text(encoding="utf-8").split()[1]) * _PAGE_BYTES
            waiting += _children(process)
    return total


def _children(process: Path) -> list[int]:
    """Child processes, from the kernel's own list, since this is called at every tick.

    psutil looks at every process of the machine: 1 ms with 80 of them, 0.03 ms for the list. It
    serves where the kernel is built without the list.
    """
    lists = [task / "children" for task in (process / "task").iterdir()]
    if lists and not lists[0].exists():
        import psutil

        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(int(process.name)).children()]
    found: list[int] = []
    for task in lists:
        with contextlib.suppress(OSError):  # that thread has ended
            found += map(int, task.read_text(encoding="utf-8").split())
    return found
