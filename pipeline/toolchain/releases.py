"""Other compiler releases: installed on demand into the user's cache, whole or not at all.

    CACHE/releases/VERSION/             what pip puts in a target directory: both wheels, unpacked
    CACHE/releases/.staging-VERSION-*   an installation under way; swept once its process is gone

pip does the downloading, so its settings (index, proxy, certificates) hold here too, and it checks
the downloads against the index's hashes.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import errno
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from packaging.version import InvalidVersion, Version

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.store.store import cache_directory
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, ToolOutput

COMPILER = "iree-base-compiler"
RUNTIME = "iree-base-runtime"
_STAGING = ".staging-"
_INSTALL_SECONDS = 3600.0
_OFFLINE = re.compile(
    r"Retrying \(|Could not fetch URL|connection broken|Connection(?:Error| to )|ProxyError"
    r"|SSLError|ReadTimeout|Temporary failure in name resolution|Name or service not known"
)

Tell = Callable[[str], None]


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """A release in the cache: its version, its directory and what it takes on disk, in bytes."""

    version: str
    directory: Path
    bytes: int


def find(release: str | None, tell: Tell | None = None) -> Toolchain:
    """The toolchain that the user asks for.

    None or the version in this environment: that one. A directory: the compiler in it. Another
    version: from the cache, installed now where it is not there. `tell` hears of what takes long.

    Raises UsageError for a release that does not exist, EnvironmentFault where it cannot be
    installed.
    """
    found = present(release)
    return found or install(str(release), tell)


def present(release: str | None) -> Toolchain | None:
    """Same as `find`, but None for a version that would have to be installed."""
    if release is None:
        return toolchain.installed()
    if is_directory(release):
        return toolchain.from_directory(Path(release).expanduser())
    version = normal(release)
    with contextlib.suppress(EnvironmentFault):
        here = toolchain.installed()
        if here.version == version:
            return here
    with _reporting(version):
        return _open(_root() / version)


def is_directory(release: str) -> bool:
    """True if the user's word for a release names a directory: one with a slash does, and one that
    is no version where there is such a directory."""
    if os.sep in release or release in (".", ".."):
        return True
    return bool(release) and not is_version(release) and Path(release).is_dir()


def available(*, prereleases: bool = False, wheels: Path | None = None) -> list[str]:
    """Versions of the compiler that pip finds for this Python and platform, the newest first.

    wheels: look in this directory only, for prereleases too. Raises EnvironmentFault without
    network.
    """
    what = "list the compiler's releases"
    return _index(COMPILER, what, prereleases or wheels is not None, **_in(wheels))


def here_or_available(tell: Tell) -> list[str]:
    """All versions that can be used, the oldest first: those that pip finds, that in this
    environment and those in the cache; without network the latter two, of which `tell` hears.
    """
    try:
        known = available()
    except EnvironmentFault as fault:
        known = [release.version for release in local()]
        tell(f"{fault.message}: using the releases that are installed")
    with contextlib.suppress(EnvironmentFault):
        known.append(toolchain.installed().version)
    return sorted(set(known), key=Version)


def has_wheels(directory: Path) -> bool:
    """True if a directory holds wheels of the compiler."""
    return any(directory.glob(f"{COMPILER.replace('-', '_')}-*.whl"))


def local() -> list[Installed]:
    """The releases in the cache, the newest first."""
    root = _root()
    found = [d for d in root.iterdir() if d.name[0].isdigit() and d.is_dir()]
    return [
        Installed(version=d.name, directory=d, bytes=_size(d))
        for d in sorted(found, key=lambda d: Version(d.name), reverse=True)
    ]


def install(version: str, tell: Tell | None = None, wheels: Path | None = None) -> Toolchain:
    """The release from the cache, downloaded first where it is not there or is damaged.

    wheels: a directory to take it from in place of pip's index. Of several processes one downloads
    and the others wait. Nothing is left of an installation that fails or is interrupted. Raises as
    `find`.
    """
    version = normal(version)
    say = tell or (lambda _: None)
    place = _root() / version
    with _reporting(version):
        if (found := _open(place)) is not None:
            return found
        locks = _locks()
        with locks.hold(
            version, on_wait=lambda: say(f"waiting for the process that installs {version}")
        ):
            if (found := _open(place)) is not None:
                return found
            _sweep(locks, version)
            return _download(version, place, say, wheels)


def remove(version: str) -> None:
    """Removes a release from the cache; raises UsageError where it is not there."""
    version = normal(version)
    place = _root() / version
    with _reporting(version), _locks().hold(version):
        if not place.is_dir():
            raise _not_in_the_cache(version)
        _discard(place)


def _not_in_the_cache(version: str) -> UsageError:
    with contextlib.suppress(EnvironmentFault):
        if toolchain.installed().version == version:
            return UsageError(
                f"cannot remove release {version}: it is that of this Python environment, and "
                "only the cache's are removed",
                advice=f"pip removes it: {sys.executable} -m pip uninstall {COMPILER} {RUNTIME}",
            )
    held = ", ".join(release.version for release in local())
    return UsageError(
        f"cannot remove release {version}: it is not installed",
        advice=f"In the cache: {held}." if held else "The cache holds no release.",
    )


def verify(version: str) -> list[str]:
    """Files of a release in the cache that differ from its wheels' records or are missing."""
    return _damaged(_root() / normal(version))


def _download(version: str, place: Path, say: Tell, wheels: Path | None) -> Toolchain:
    what = f"install release {version}"
    pre = Version(version).is_prerelease
    known = _index(COMPILER, what, pre, **_in(wheels))
    if version not in known:
        raise UsageError(
            f"there is no release {version} of {COMPILER} for Python "
            f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            advice=f"There are: {', '.join(known)}." if known else "pip's index has none at all.",
        )
    runtime = matching_runtime(version, _index(RUNTIME, what, pre, **_in(wheels)))
    pinned = [f"{COMPILER}=={version}", *([f"{RUNTIME}=={runtime}"] if runtime else [])]
    say(f"downloading {' and '.join(pinned)}")
    with tempfile.TemporaryDirectory(
        prefix=f"{_STAGING}{version}-", dir=place.parent, ignore_cleanup_errors=True
    ) as scratch:
        staged, temporary = Path(scratch, "release"), Path(scratch, "tmp")
        temporary.mkdir()
        answer = _pip(
            "install",
            "--target",
            str(staged),
            "--no-deps",
            "--only-binary=:all:",
            "--no-compile",
            "--no-cache-dir",
            "--no-user",
            "--quiet",
            *pinned,
            temporary=temporary,
            **_in(wheels),
        )
        if not answer.ok:
            raise _failed(what, answer)
        _check(staged, version)
        _discard(place)
        staged.rename(place)
    return toolchain.from_directory(place)


def matching_runtime(version: str, runtimes: list[str]) -> str | None:
    """The runtime for a compiler: its version, else the newest of the same minor version.

    A patch release may have a compiler only (3.7.1), whose modules run on the runtime before it.
    """
    if version in runtimes:
        return version
    wanted = Version(version).release[:2]
    same = [r for r in runtimes if Version(r).release[:2] == wanted]
    return max(same, key=Version, default=None)


def _check(staged: Path, version: str) -> None:
    """Raises EnvironmentFault unless what was installed is whole and is that release."""
    again = "Try again; if it persists, the index or a proxy serves damaged files."
    damaged = _damaged(staged)
    if damaged:
        raise EnvironmentFault(
            f"release {version} arrived damaged: {', '.join(damaged[:3])} "
            f"({count(len(damaged), 'file')} in all)",
            advice=again,
        )
    said, _ = toolchain.ask_version(toolchain.compiler_in(staged))
    if Version(said).base_version != Version(version).base_version:
        raise EnvironmentFault(f"the wheel of release {version} says it is {said}", advice=again)


def _damaged(directory: Path) -> list[str]:
    """Files that the wheels record and that are missing or have other contents."""
    records = sorted(directory.glob("*.dist-info/RECORD"))
    if not records:
        return ["*.dist-info/RECORD"]
    wrong = []
    for record in records:
        with record.open(newline="") as rows:
            for name, recorded, _ in csv.reader(rows):
                # pip moves what leads out of the target (../../bin/...), and records it so.
                if recorded.startswith("sha256=") and not name.startswith(".."):
                    file = directory / name
                    if not file.is_file() or _digest(file) != recorded.removeprefix("sha256="):
                        wrong.append(name)
    return wrong


def _digest(file: Path) -> str:
    """SHA-256 as wheels record it (PEP 376: URL-safe base64 without padding)."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _in(wheels: Path | None) -> dict[str, Any]:
    """Keyword arguments of `_pip` for a directory of wheels."""
    return {"wheels": wheels} if wheels else {}


def _index(package: str, what: str, prereleases: bool, **options: Any) -> list[str]:
    """Versions of a package for this Python, the newest first; none where it has none."""
    pre = ["--pre"] * prereleases
    answer = _pip("index", "versions", package, "--retries", "1", *pre, **options)
    listed = re.search(r"^Available versions: (.+)$", answer.stdout, re.MULTILINE)
    if listed and answer.ok:
        return [v.strip() for v in listed[1].split(",")]
    if "No matching distribution found" in answer.stderr and not _OFFLINE.search(answer.stderr):
        return []
    raise _failed(what, answer)


def _pip(*arguments: str, temporary: Path | None = None, wheels: Path | None = None) -> ToolOutput:
    env = dict(os.environ) | ({"TMPDIR": str(temporary)} if temporary else {})
    if wheels:
        env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels.absolute())}
    return toolchain.ask(
        [
            sys.executable,
            "-P",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-input",
            *arguments,
        ],
        seconds=_INSTALL_SECONDS,
        env=env,
    )


def _failed(what: str, answer: ToolOutput) -> EnvironmentFault:
    """Error for a failed pip, from its output."""
    if "No module named pip" in answer.stderr:
        return EnvironmentFault(
            f"cannot {what}: there is no pip in this Python environment",
            advice=f"Install it: {sys.executable} -m ensurepip",
        )
    if os.strerror(errno.ENOSPC) in answer.stderr:
        return EnvironmentFault(
            f"cannot {what}: the disk is full at {_root()}",
            advice="Free about 1 GB there, or set IREE_PILOT_CACHE to a directory elsewhere.",
        )
    if _OFFLINE.search(answer.stderr):
        return EnvironmentFault(
            f"cannot {what}: the package index does not answer (no network?)",
            advice=_present(),
        )
    errors = [line for line in answer.stderr.splitlines() if line.startswith("ERROR: ")]
    how = answer.outcome.signal or f"exit status {answer.outcome.exit_code}"
    said = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {how}"
    return EnvironmentFault(f"cannot {what}: {said}", advice=_present())


def _present() -> str:
    """Sentence that names the releases that can be used without network."""
    versions = [r.version for r in local()]
    with contextlib.suppress(EnvironmentFault):
        versions.insert(0, toolchain.installed().version)
    listed = ", ".join(dict.fromkeys(versions))
    return f"Installed here: {listed}." if listed else "No release is installed here."


def _open(place: Path) -> Toolchain | None:
    """The release at `place`; None where there is none, or it does not run any more."""
    if not place.is_dir():
        return None
    try:
        return toolchain.from_directory(place)
    except (EnvironmentFault, UsageError):
        return None


def _sweep(locks: Locks, own: str) -> None:
    """Removes what installations left whose process is gone; `own` is the version held here."""
    for left in _root().glob(f"{_STAGING}*"):
        version = left.name.removeprefix(_STAGING).rpartition("-")[0]
        with locks.try_hold(version) if version != own else contextlib.nullcontext(True) as alone:
            if alone:
                shutil.rmtree(left, ignore_errors=True)


def _discard(place: Path) -> None:
    """Removes a release so that nobody sees half of it."""
    if place.is_dir():
        doomed = Path(tempfile.mkdtemp(prefix=f"{_STAGING}{place.name}-", dir=place.parent))
        place.rename(doomed / "release")
        shutil.rmtree(doomed, ignore_errors=True)


def _root() -> Path:
    root = cache_directory() / "releases"
    root.mkdir(exist_ok=True)
    return root


def _locks() -> Locks:
    return Locks(_root() / ".locks")


def is_version(text: str) -> bool:
    """True if a word is a version."""
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def normal(text: str) -> str:
    """`3.10` and `v3.10.0` as the index writes them: `3.10.0`. Raises UsageError for no version."""
    try:
        version = Version(text)
    except InvalidVersion:
        raise UsageError(
            f"{text!r} is not a release", advice="A release is a version, such as 3.12.0."
        ) from None
    release = ".".join(map(str, (*version.release, 0, 0)[: max(3, len(version.release))]))
    return release + str(version).removeprefix(".".join(map(str, version.release)))


def _size(directory: Path) -> int:
    return sum(f.lstat().st_size for f in directory.rglob("*") if not f.is_dir())


@contextlib.contextmanager
def _reporting(version: str) -> Iterator[None]:
    """Turns what the file system refuses into an error that names the cache."""
    try:
        yield
    except OSError as fault:
        full = fault.errno in (errno.ENOSPC, errno.EDQUOT)
        raise EnvironmentFault(
            f"cannot keep release {version} in {fault.filename or 'the cache'}: "
            f"{fault.strerror or fault}",
            advice="Free about 1 GB there, or set IREE_PILOT_CACHE to a directory elsewhere."
            if full
            else "Set IREE_PILOT_CACHE to a directory that can be written to.",
        ) from fault
