"""The one error boundary: every way a command can end, as a message and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

import click
import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, PilotError, UsageError
from iree_pilot.pipeline.plain import plain, spell
from iree_pilot.pipeline.processes import process

INTERRUPTED = 130
#: Exit status that a shell reports for a program that SIGPIPE ended.
UNHEARD = 141

_ELSEWHERE = "Name another place, or move the cache with IREE_PILOT_CACHE."
_SPACE = "Free some space, or move the cache with IREE_PILOT_CACHE."
_SPACE_OF_STREAM = (
    "Free some space where the output goes, or where the cache is (IREE_PILOT_CACHE moves it)."
)
_REFUSED = {
    errno.ENOSPC: ("the disk is full", _SPACE),
    errno.EDQUOT: ("the disk quota is used up", _SPACE),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.EACCES: ("permission denied", _ELSEWHERE),
    errno.EPERM: ("the system does not permit it", _ELSEWHERE),
}


#: Options that are answered without a look at any file.
_ANYWHERE = {"-h", "--help", "--version"}


class Interrupted(KeyboardInterrupt):
    """The command was interrupted after some of its work: `finished` is a document of that."""

    def __init__(self, finished: dict[str, Any]) -> None:
        super().__init__()
        self.finished = finished


class Failed(Exception):
    """The command has printed all there is to print and ends with this exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def guarded(command: click.Command, arguments: list[str]) -> int:
    """Runs the command line and returns its exit code; never raises.

    SIGTERM and SIGHUP end a command as Ctrl-C does, so that children are killed and temporary
    files removed.
    """
    try:
        _hear_signals()
        spell(sys.stdout)
        spell(sys.stderr)
        started = time.monotonic() - _age()
        _check_words(arguments)
        _check_here(arguments)
        command.main(arguments, prog_name="iree-pilot", standalone_mode=False, obj=started)
    except Failed as end:
        return end.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        _json_too(arguments, error.format_message(), "", error.exit_code)
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    except PilotError as error:
        return _reported(arguments, error)
    except (KeyboardInterrupt, click.Abort) as end:
        cause = end.__cause__ if isinstance(end, click.Abort) else end
        finished = cause.finished if isinstance(cause, Interrupted) else {}
        _json_too(arguments, "interrupted", "", INTERRUPTED, finished)
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return _unheard()
    except SystemExit as end:  # of click's shell completion, or of rich and click: a broken pipe
        return _unheard() if end.code == 1 else 0
    except OSError as fault:
        if fault.errno in _REFUSED:
            what, advice = _REFUSED[fault.errno]
            where = f" writing {fault.filename}" if fault.filename else ""
            if not where and advice == _SPACE:  # of a stream, such as the standard output
                advice = _SPACE_OF_STREAM
            return _reported(arguments, EnvironmentFault(f"{what}{where}", advice=advice))
        if fault.errno == errno.ENAMETOOLONG and fault.filename is not None:
            what = f"no file can be called {str(fault.filename)[:40]}...: that is too long"
            return _reported(arguments, UsageError(what, advice="Name a file that is there."))
        return _unexpected(arguments, fault)
    except MemoryError:
        said = "this takes more memory than there is"
        return _reported(arguments, EnvironmentFault(said, advice="Give less, or close something."))
    except Exception as fault:  # noqa: BLE001 - a bug of ours: say so, keep the traceback
        return _unexpected(arguments, fault)
    return 0


def _check_words(arguments: list[str]) -> None:
    """Raises UsageError for what is no text: no document and no message could hold it."""
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{word!a} is not UTF-8", advice="Rename the file, or retype the word."
            ) from None


def _check_here(arguments: list[str]) -> None:
    """Raises EnvironmentFault where the current directory is gone, unless only help is asked for.

    Nothing can be found or made there, and no child can start.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        if not arguments or _ANYWHERE & {*_own(arguments)}:
            return
        raise EnvironmentFault(
            "the current directory is gone", advice="Change to another one: cd DIRECTORY."
        ) from None


def _own(arguments: list[str]) -> list[str]:
    """The words that are for iree-pilot: those behind `--` are the compiler's."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _age() -> float:
    """Seconds since this process started, which is before Python did."""
    ticks = int(Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _hear_signals() -> None:
    """Makes signals end the command, also one that comes where Python swallows exceptions.

    In a callback of a fork or a finalizer KeyboardInterrupt is printed and forgotten: then the
    next look at a child finds that it has to stop. What is ignored stays so (nohup).
    """
    stop = Event()
    process.STOP.set(stop)

    def interrupt(number: int, frame: FrameType | None) -> None:
        stop.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def _unheard() -> int:
    """Whoever read our output has gone, and nothing can be printed for them."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - until the process ends
    return UNHEARD


def _reported(arguments: list[str], error: PilotError) -> int:
    _json_too(arguments, error.message, error.advice, error.exit_code)
    with contextlib.suppress(OSError):  # the exit code says it, where stderr cannot
        click.echo(plain(f"error: {error.message}"), err=True)
        if error.advice:
            click.echo(plain(error.advice), err=True)
    return error.exit_code


def _json_too(
    arguments: list[str], message: str, advice: str, code: int, finished: Mapping[str, Any] = {}
) -> None:
    """A reader of `--json` gets its one document also when there is an error: with what was
    finished before, if anything."""
    if "--json" in _own(arguments):
        error = {"message": message, "advice": advice, "exit_code": code}
        with contextlib.suppress(OSError):  # stderr says what could not be written
            click.echo(msgspec.json.encode({**finished, "error": error}))


def _unexpected(arguments: list[str], fault: BaseException) -> int:
    text = "".join(traceback.format_exception(fault))
    log = _log(f"iree-pilot {shlex.join(arguments)}\n\n{text}")
    error = PilotError(
        f"unexpected {type(fault).__name__}: {fault}",
        advice=f"This is a bug of iree-pilot. The traceback is in {log}; please report it."
        if log
        else f"This is a bug of iree-pilot; please report it:\n{text}",
    )
    return _reported(arguments, error)


def _log(text: str) -> Path | None:
    """Keeps the traceback of a bug; None where no file can be written."""
    from iree_pilot.pipeline.store.store import cache_directory

    try:
        directory = cache_directory() / "logs"
        directory.mkdir(exist_ok=True)
        log = directory / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        log.write_text(text, encoding="utf-8", errors="backslashreplace")
    except (OSError, PilotError):
        return None
    return log
