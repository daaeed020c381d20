"""A compiler release as it is on disk: its native binaries, version, phases and flags.

The wheels' `iree-compile` on PATH is a Python program that takes 0.26 s to start the native binary
inside the package, so the native one is used, and is found without importing the package.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.store.store import Store

_COMPILER = "iree-compile"
_LIBRARY = "libIREECompiler.so"
_RUN = "iree-run-module"
#: Folders of binaries in a release's directory, a wheel's target, a build tree, an install prefix.
_COMPILER_PLACES = ("iree/compiler/_mlir_libs", "tools", "bin", ".")
_RUNTIME_PLACES = ("iree/_runtime_libs", "tools", "bin", ".")
_ASK_SECONDS = 120.0

_VERSION = re.compile(r"IREE compiler version (\S+)(?: @ ([0-9a-f]+))?")
_FLAG = re.compile(r"^ {2,}--([A-Za-z0-9][\w.-]*)", re.MULTILINE)
_PHASES = re.compile(r"^ +--compile-to=<\w+>.*\n((?: +=\S.*\n)+)", re.MULTILINE)
_PHASE = re.compile(r"^ +=([\w-]+)", re.MULTILINE)

T = TypeVar("T")


class Toolchain(msgspec.Struct, frozen=True, kw_only=True):
    """One compiler release on this machine.

    version: the release (`3.13.0`), or what a local build calls itself. revision: IREE's commit,
    with a fingerprint of the binary appended for a local build; part of cache keys. compiler: the
    native `iree-compile`; opt: `iree-opt` beside it. runtime: the directory with the release's
    runtime tools (`iree-run-module`, ...), None where it has none. phases: compilation phases in
    order, `start` to `end`. flags: each long flag that the compiler lists, without dashes.
    """

    version: str
    revision: str
    compiler: Path
    opt: Path | None
    runtime: Path | None
    phases: tuple[str, ...]
    flags: frozenset[str]

    @property
    def bindings(self) -> Path | None:
        """Directory on Python's path for this release's `iree.compiler.ir`; None where there is
        none for the Python that runs."""
        folder = self.compiler.parent
        endings = importlib.machinery.EXTENSION_SUFFIXES
        if any((folder / f"_mlir{ending}").is_file() for ending in endings):
            return folder.parents[2]
        return None

    def tool(self, name: str) -> Path:
        """The runtime tool `name`; raises EnvironmentFault where it is missing."""
        if self.runtime is None:
            raise EnvironmentFault(
                f"cannot find {name}: there is no IREE runtime for compiler {self.version}",
                advice="Modules must be run by the runtime of their compiler's release.",
            )
        return _executable(self.runtime / name)


class _Description(msgspec.Struct, frozen=True):
    """Description of a compiler binary, from its own output."""

    version: str
    revision: str
    phases: tuple[str, ...]
    flags: tuple[str, ...]


class ToolOutput(msgspec.Struct, frozen=True, kw_only=True):
    """Output and exit status of a short-lived tool."""

    outcome: process.Outcome
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.outcome.ok


def installed() -> Toolchain:
    """The release in this Python environment; raises EnvironmentFault where there is none."""
    for location in _locations("iree.compiler"):
        if (location / "_mlir_libs").is_dir():
            site = location.parent.parent
            found = _describe(
                location / "_mlir_libs" / _COMPILER,
                runtime=next(iter(_locations("iree._runtime_libs")), None),
            )
            return msgspec.structs.replace(found, version=_distribution(site) or found.version)
    raise EnvironmentFault(
        "there is no IREE compiler in this Python environment",
        advice="Install it: python -m pip install iree-base-compiler iree-base-runtime",
    )


def from_directory(directory: Path) -> Toolchain:
    """The compiler in a release's directory, a build tree, an install prefix or a folder of tools.

    Raises UsageError where `directory` has no `iree-compile`, EnvironmentFault where that does
    not run.
    """
    compiler = compiler_in(directory)
    folders = (directory / place for place in _RUNTIME_PLACES)
    runtime = next((f for f in folders if (f / _RUN).exists()), None)
    found = _describe(compiler.absolute(), runtime=runtime and runtime.absolute())
    release = _distribution(directory)
    if release:
        return msgspec.structs.replace(found, version=release)
    return msgspec.structs.replace(found, revision=f"{found.revision}+{_fingerprint(compiler)}")


def compiler_in(directory: Path) -> Path:
    """The `iree-compile` in a release's directory or build tree; raises UsageError without one."""
    for place in _COMPILER_PLACES:
        compiler = directory / place / _COMPILER
        if compiler.exists():
            return compiler
    looked = ", ".join(str(directory / place / _COMPILER) for place in _COMPILER_PLACES)
    raise UsageError(
        f"there is no {_COMPILER} in {directory}",
        advice=f"Name a release, or a folder that has one of: {looked}.",
    )


def ask(
    argv: Sequence[str | Path], *, seconds: float = _ASK_SECONDS, env: dict[str, str] | None = None
) -> ToolOutput:
    """Runs a tool that prints little, and returns what it printed.

    Raises EnvironmentFault where it cannot be started, or there is no room for what it prints.
    """
    limits = process.Limits(seconds=seconds, output_bytes=64 * 2**20)
    try:
        with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
            out, err = Path(scratch, "out"), Path(scratch, "err")
            outcome = process.run(argv, stdout=out, stderr=err, limits=limits, env=env)
            return ToolOutput(
                outcome=outcome,
                stdout=out.read_text(encoding="utf-8", errors="replace"),
                stderr=err.read_text(encoding="utf-8", errors="replace"),
            )
    except OSError as fault:
        raise EnvironmentFault(
            f"cannot keep what {argv[0]} prints: {fault.strerror or fault}",
            advice="Free some space for temporary files, or set TMPDIR to a directory elsewhere.",
        ) from fault


def ask_version(compiler: Path) -> tuple[str, str]:
    """(version, revision) as the binary says: `3.13.0rc20261016`, and a commit or `unknown`.

    Raises EnvironmentFault where it does not run, or is not IREE's.
    """
    version = _VERSION.search(_said(compiler, "--version"))
    if version is None:
        raise EnvironmentFault(
            f"{compiler} --version does not say an IREE compiler version",
            advice="Is it IREE's iree-compile? Reinstall the release.",
        )
    return version[1], version[2] or "unknown"


def remember(kind: str, key: tuple[object, ...], make: Callable[[], T], form: type[T]) -> T:
    """`make()`, or what it returned for this key before: kept in the cache as JSON of `form`."""
    store = Store()
    entry = store.obtain(
        kind,
        store.key(kind, *key),
        lambda directory: (directory / "value.json").write_bytes(msgspec.json.encode(make())),
    )
    return msgspec.json.decode((entry / "value.json").read_bytes(), type=form)


def _locations(package: str) -> list[Path]:
    """The directories of a package, found without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return []
    return [Path(p) for p in (spec.submodule_search_locations if spec else None) or ()]


def _distribution(site: Path) -> str | None:
    """The version of the compiler's wheel that is installed in `site`."""
    for info in site.glob("iree_base_compiler-*.dist-info"):
        return info.name.removeprefix("iree_base_compiler-").removesuffix(".dist-info")
    return None


def _describe(compiler: Path, *, runtime: Path | None) -> Toolchain:
    """Asks the compiler about itself, once for each binary."""
    _executable(compiler)
    about = remember(
        "toolchain",
        (str(compiler), _fingerprint(compiler)),
        lambda: _interview(compiler),
        _Description,
    )
    opt = compiler.with_name("iree-opt")
    return Toolchain(
        version=about.version,
        revision=about.revision,
        compiler=compiler,
        opt=opt if opt.exists() else None,
        runtime=runtime,
        phases=about.phases,
        flags=frozenset(about.flags),
    )


def _fingerprint(compiler: Path) -> str:
    """Changes with the compiler's binary and its library."""
    files = (f for f in (compiler, compiler.with_name(_LIBRARY)) if f.exists())
    stats = [(f.name, s.st_size, s.st_mtime_ns) for f in files for s in [f.stat()]]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def _interview(compiler: Path) -> _Description:
    version, revision = ask_version(compiler)
    text = _said(compiler, "--help-hidden")
    flags = tuple(sorted(set(_FLAG.findall(text))))
    listed = _PHASES.search(text)
    phases = tuple(_PHASE.findall(listed[1])) if listed else ()
    if not phases:
        raise EnvironmentFault(
            f"{compiler} --help-hidden lists no compilation phases under --compile-to",
            advice="This release is not known to iree-pilot; releases 2.9.0 to 3.13.0 are.",
        )
    return _Description(version, revision, phases, flags)


def _said(compiler: Path, flag: str) -> str:
    answer = ask([compiler, flag])
    if not answer.ok:
        how = answer.outcome.signal or f"exit status {answer.outcome.exit_code}"
        said = (answer.stderr or answer.stdout).strip().splitlines()
        raise EnvironmentFault(
            f"{compiler} {flag} failed with {how}" + (f": {said[0]}" if said else ""),
            advice="The installation is damaged: reinstall iree-base-compiler.",
        )
    return answer.stdout


def _executable(path: Path) -> Path:
    """`path`; raises EnvironmentFault that says what is wrong with it as a program."""
    if not path.is_file():
        raise EnvironmentFault(
            f"cannot run {path}: there is no such file",
            advice="Reinstall the package it comes from (iree-base-compiler, iree-base-runtime).",
        )
    if not os.access(path, os.X_OK):
        raise EnvironmentFault(
            f"cannot run {path}: it is not executable",
            advice=f"Make it executable (chmod +x {path}) or reinstall its package.",
        )
    return path
