"""Writing where the user says (`-o PATH`), without destroying what PATH is.

A regular file, or one that is not there yet, appears as a whole by one rename; links are followed,
so a link stays one. Whatever else takes bytes (a device, a FIFO, /dev/stdout) is written into: a
rename would put a regular file in its place, and as root in that of /dev/null.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError

#: More links in a row than this are a loop, as for the kernel.
_MOST_LINKS = 40
#: Errors of a rename onto a file that may itself be writable: the directory belongs to somebody
#: else or is read-only, or the file is a mount point.
_ONLY_IN_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)
_KINDS = (
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISREG, "a file"),
)


def check(path: Path, read: Iterable[Path] = ()) -> None:
    """Raises UsageError unless a file may be written to `path`: before the work, not after it.

    read: files that the work reads; `path` may be none of them, whatever it is called.
    """
    _place(path)
    for file in read:
        if _same(path, file):
            known = "" if file == path else f", as {file}"
            raise UsageError(
                f"cannot write {path}: this command reads it{known}", advice="Name another file."
            )


def check_parent(path: Path) -> None:
    """Raises UsageError unless the directory is there in which `path` is, or is to be made."""
    if _kind(path) is None and not _of_a_process(path):
        _parent(path)


def check_writable(path: Path, *, replaced: bool = False) -> None:
    """Raises EnvironmentFault unless something can be made at `path`, or in the directory there.

    It is tried, and nothing is left of that: what only fails after the work is found before it.
    replaced: a directory that is there is not written into, another one takes its place. Raises
    UsageError for a path that can be none.
    """
    kind = _kind(path)
    if kind is not None and not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
        return
    place = Path(os.path.realpath(path))
    folder = place if kind is not None and stat.S_ISDIR(kind) and not replaced else place.parent
    try:
        scratch = tempfile.mkdtemp(prefix=f".{place.name[:100]}.", dir=folder)
    except OSError as fault:
        in_place = kind is not None and stat.S_ISREG(kind) and fault.errno in _ONLY_IN_PLACE
        if in_place and os.access(place, os.W_OK):
            return
        if fault.errno == errno.ENOENT:  # /proc and the like, for the directory is there
            fault = FileNotFoundError(fault.errno, "nothing can be made there")
        raise _cannot(path, fault) from fault
    Path(scratch).rmdir()


def is_same(one: Path, other: Path) -> bool:
    """True if both name one file or directory, of which one would take the place of the other.

    What goes into a device or a FIFO takes no place.
    """
    kind = _kind(one)
    if kind is not None and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        return False
    if kind is not None and _kind(other) is not None:
        return one.samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)


def is_stdout(path: Path) -> bool:
    """True if it is this process's standard output (/dev/stdout, /dev/fd/1)."""
    try:
        return _of_a_process(path) and os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # it is closed, or nothing is there
        return False


def write(path: Path, content: Path | bytes | str) -> None:
    """Same as `put` for a file of the user's; raises EnvironmentFault if it cannot be written."""
    with writing(path, "file"):
        put(path, content)


@contextlib.contextmanager
def writing(path: Path, what: str = "directory") -> Iterator[None]:
    """Context in which a failure to write is reported for `path`, a `what` that the user named.

    Raises EnvironmentFault with the reason, and without the names of temporary files.
    """
    try:
        yield
    except OSError as fault:
        raise _cannot(path, fault, what) from fault


def replace_directory(path: Path, source: Path, leave: Iterable[str] = ()) -> None:
    """Puts a copy of the directory `source` in place of `path`, whole or not at all; follows links.

    leave: names of files that are not copied. Raises UsageError where `path` cannot be a directory,
    EnvironmentFault where it cannot be written.
    """
    place, left = directory(path), {*leave}
    with (
        writing(path),
        tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name[:100]}.") as scratch,
    ):
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir(mode=0o755)
        # Not copytree: it gathers what goes wrong, file by file, and forgets what it was.
        for file in sorted(source.rglob("*")):
            copy = new / file.relative_to(source)
            if file.is_dir():
                copy.mkdir()
            elif file.name not in left:
                shutil.copy2(file, copy)
        new.chmod(0o755)
        if place.is_dir():
            place.replace(old)
        try:
            new.replace(place)
        except OSError:
            if old.is_dir():
                old.replace(place)
            raise


def _cannot(path: Path, fault: OSError, what: str = "place") -> EnvironmentFault:
    """Error if `path`, as the user named it, cannot be written."""
    why, advice = fault.strerror or str(fault), f"Name another {what}."
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        why, advice = "the disk is full", f"Free some space there, or name another {what}."
    return EnvironmentFault(f"cannot write {path}: {why}", advice=advice)


def put(path: Path, content: Path | bytes | str) -> None:
    """Writes a text, bytes, or a copy of the file `content` to `path`; follows links.

    Raises UsageError where `path` cannot be a file, OSError where it cannot be written.
    """
    place = _place(path)
    if place is None:
        _into(path, content)
    else:
        _renamed(place, content)


def _same(path: Path, file: Path) -> bool:
    """True if both are the same file."""
    try:
        return file.is_file() and path.samefile(file)
    except OSError:  # there is no such file, or it cannot even be a name of one
        return False


def check_regular(path: Path) -> None:
    """Raises UsageError unless `path` is a regular file or nothing yet, links followed.

    For what is more than written: a database is locked, read, and moved aside when damaged.
    """
    kind = _kind(path)
    if kind is not None and not stat.S_ISREG(kind):
        raise UsageError(f"{path} is {_name(kind)}", advice="Name a file.")


def directory(path: Path) -> Path:
    """The directory that `path` means, its links followed; it need not be there yet.

    Raises UsageError where something else is there.
    """
    kind = _kind(path)
    if kind is not None and not stat.S_ISDIR(kind):
        raise UsageError(f"{path} is {_name(kind)}", advice="Name a directory.")
    return Path(os.path.realpath(path))


def refuse_held(path: Path, read: Iterable[Path]) -> None:
    """Raises UsageError where the directory `path` holds a file that is read."""
    place = Path(os.path.realpath(path))
    for file in read:
        if place in Path(os.path.realpath(file)).parents:
            raise UsageError(
                f"cannot write {path}: it holds {file}, which this command reads",
                advice="Name another directory.",
            )


def _place(path: Path) -> Path | None:
    """Target of the rename that creates `path`; None if it has to be written into."""
    kind = _kind(path)
    if kind is not None and stat.S_ISDIR(kind):
        raise UsageError(f"cannot write {path}: it is a directory", advice="Name a file in it.")
    if kind is not None and stat.S_ISSOCK(kind):
        raise UsageError(f"cannot write {path}: it is a socket", advice="Name a file.")
    if kind is not None and not stat.S_ISREG(kind):
        return None
    return None if _of_a_process(path) else _parent(path)


def _parent(path: Path) -> Path:
    """Real path of `path`; raises UsageError if its directory does not exist."""
    place = Path(os.path.realpath(path))
    if not place.parent.is_dir():
        raise UsageError(
            f"cannot write {path}: there is no directory {_named(path, place).parent}",
            advice="Make it first, or name another place.",
        )
    return place


def _named(path: Path, place: Path) -> Path:
    """The path for a message: the user's, unless it is a link that leads elsewhere."""
    return place if path.is_symlink() else path


def _kind(path: Path) -> int | None:
    """The mode of what is at `path`, links followed; None where nothing is, or a link to nothing.

    Raises UsageError for a link that leads to itself.
    """
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise UsageError(
            f"cannot write {path}: {fault.strerror or fault}", advice="Name another path."
        ) from fault


def _name(mode: int) -> str:
    return next(name for test, name in _KINDS if test(mode))


def _of_a_process(path: Path) -> bool:
    """True if it is a process's open file (/dev/stdout, /dev/fd/3), which a rename would miss."""
    path = path.absolute()
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(path.parent)
        if f"{folder}/".startswith("/proc/"):
            return True
        if not path.is_symlink():
            return False
        path = Path(folder) / path.readlink()
    return False


def _into(path: Path, content: Path | bytes | str) -> None:
    """Writes into what is there, whatever it is."""
    # Without O_CREAT: what was there a moment ago, or nothing.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC), "wb") as stream:
        _copy(content, stream)


def _renamed(place: Path, content: Path | bytes | str) -> None:
    """Puts a whole file in place of a regular one, whose mode and owner stay, or of nothing."""
    try:
        before = place.stat()
    except FileNotFoundError:
        before = None
    try:
        scratch = tempfile.mkdtemp(prefix=f".{place.name[:100]}.", dir=place.parent)
    except OSError as fault:
        if before is None or fault.errno not in _ONLY_IN_PLACE:
            raise
        _into(place, content)
        return
    made = Path(scratch, "file")
    try:
        # Not by tempfile: a new file has the mode that the user's umask says.
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as stream:
            _copy(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if before is not None:
            made.chmod(stat.S_IMODE(before.st_mode))
            with contextlib.suppress(OSError):  # only root may give files away
                os.chown(made, before.st_uid, before.st_gid)
        try:
            made.replace(place)
        except OSError as fault:
            if before is None or fault.errno not in _ONLY_IN_PLACE:
                raise
            _into(place, content)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(content: Path | bytes | str, out: BinaryIO) -> None:
    if isinstance(content, Path):
        with content.open("rb") as source:
            shutil.copyfileobj(source, out, 1 << 20)
    else:
        out.write(content.encode() if isinstance(content, str) else content)
