"""Finds the program of a source in the store, or has it made."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.evaluate import references
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.frontends import variables
from iree_pilot.pipeline.frontends.job import (
    CANNOT_RUN,
    DEPENDENCIES,
    ENDED,
    Job,
    Traced,
    TraceFailed,
)
from iree_pilot.pipeline.frontends.mlir import mlir
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.program import program as programs
from iree_pilot.pipeline.program.archive import check_parameters
from iree_pilot.pipeline.program.program import Call, Function, Program
from iree_pilot.pipeline.store.sealed import state
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

__all__ = ["Loaded", "TraceFailed", "find", "load"]

KIND = "program"
_TRACED = "iree_pilot.pipeline.frontends.trace_child:traced"
_MAKERS = ("torch", "iree-turbine", "transformers", "iree-base-compiler", "numpy")
_EXTRA_MAKERS = ("diffusers", "gguf", "onnx", "onnxruntime", "timm", "torchvision")


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A program, where it lies, and what it took. cached: it was in the store already."""

    program: Program
    directory: str
    seconds: float = 0.0
    cached: bool = False

    @property
    def mlir(self) -> Path:
        return Path(self.directory) / self.program.mlir

    def call(self, function: Function) -> Call:
        """A call of one of the program's functions, or of one like it."""
        return Call(program=self.program, directory=Path(self.directory), function=function)


def load(
    job: Job, context: Context, *, fresh: bool = False, on_wait: Callable[[], None] | None = None
) -> Loaded:
    """The program of `job.source`, from the store unless something that it was made of changed.

    What counts: the source's text, every file that Python opened or imported while it was made (a
    large one by its size and times), the environment variables that the user's code read, the
    inputs and weights given, the seed, the releases of the tracing packages, for MLIR the toolchain
    that reads it, and this package's own tracing code.
    fresh: make it anew whatever the store holds.

    Raises TraceFailed where tracing failed, UsageError where the source or the user's archive does
    not fit, and EnvironmentFault where the disk is full.
    """
    started = time.monotonic()
    store = context.store
    found, key = _search(store, _key(job, context.toolchain, fresh=fresh))
    while found is not None:
        loaded = _loaded(found, started, cached=True)
        if not references.goes_further(loaded.program, context.limits):
            return loaded
        # What a limit cut off is not what the program computes.
        found, key = _search(store, Store.key(key, "cut off", found.name))
    entry = store.obtain(KIND, key, lambda place: _make(job, place, context), on_wait=on_wait)
    return _loaded(entry, started, cached=False)


def find(job: Job, store: Store, toolchain: Toolchain | None) -> Loaded | None:
    """The program of `job.source` where the store has it as it would be made now; else None.

    toolchain: as for `load`; None where it is not installed, which only MLIR needs.
    """
    started = time.monotonic()
    if toolchain is None and job.source.kind == "mlir":
        return None
    found, _ = _search(store, _key(job, toolchain))
    return _loaded(found, started, cached=True) if found else None


def made_of(loaded: Loaded, source: Source) -> dict[str, str]:
    """The user's files that a program was made of, with what they were: the source, what it
    imported and what it read. A file that is gone since is left out."""
    recorded = _recorded(Path(loaded.directory))
    files = {file: was for file, was in recorded.items() if not variables.is_variable(file)}
    return files | source_file(source)


def source_file(source: Source) -> dict[str, str]:
    """The source's own file with what it is; none where that is a module's name or the zoo's."""
    path = Path(source.path or "")
    return {str(path.resolve()): state(path)} if path.is_file() else {}


def _search(store: Store, key: str) -> tuple[Path | None, str]:
    """(the entry that is still right, the key to make it under where there is none)."""
    seen = set()
    while True:
        entry = store.open(KIND, key)
        if entry is None:
            return None, key
        recorded = _recorded(entry)
        current = {name: _now(name) for name in recorded}
        if current == recorded:
            return entry, key
        if key in seen:
            return None, key
        seen.add(key)
        # Something it was made of differs: look under a name that says what is there now.
        key = Store.key(key, current)


def _loaded(entry: Path, started: float, *, cached: bool) -> Loaded:
    program = programs.load(entry)
    parameters = program.parameters
    own = parameters and any(Path(archive).is_absolute() for archive in parameters.archives)
    if parameters and own and not parameters.missing:  # the user's, not our own
        check_parameters(program, entry)
    return Loaded(
        program=program, directory=str(entry), seconds=time.monotonic() - started, cached=cached
    )


def _key(job: Job, toolchain: Toolchain | None, *, fresh: bool = False) -> str:
    reader = toolchain if job.source.kind == "mlir" else None  # another may refuse it
    release = (reader.version, reader.revision) if reader else ()
    makers = () if job.source.kind == "mlir" and not job.evaluate else _makers()
    if job.source.kind != "mlir":
        job = msgspec.structs.replace(job, evaluate=True)
    inputs = tuple(
        (t.dtype, t.shape, _state(Path(t.file)), "" if job.inputs else t.file)
        for t in job.inputs or ()
    )
    path = Path(job.source.path) if job.source.path else None
    named = (
        msgspec.structs.replace(job, inputs=None),
        inputs,
        tuple(_state(Path(file)) for file in (*job.weights, *(path for _, path in job.scoped))),
        _state(path) if path else "",
        _state(Path(job.observed)) if job.observed else "",
        str(Path.cwd()) if job.source.kind == "module" else "",
        _release((job.source.module or "").partition(".")[0]),
    )
    code = _own_code(zoo=job.source.kind in ("zoo", "library", "checkpoint"))
    return Store.key(*named, makers, release, code, *([time.time_ns()] if fresh else []))


@functools.cache
def _makers() -> tuple[str, ...]:
    """The releases of what makes programs; "" for an extra that is not installed."""
    return (*map(version, _MAKERS), *map(_release, _EXTRA_MAKERS))


def _release(package: str) -> str:
    """The release of a package that is installed under its own name; else ""."""
    try:
        return version(package) if package else ""
    except PackageNotFoundError:
        return ""


@functools.cache
def _own_code(*, zoo: bool) -> str:
    """A digest of the code that makes programs: what it does may change between our releases."""
    root = Path(__file__).resolve().parents[2]
    own = root / "pipeline"
    files = [own / "program" / f"{name}.py" for name in ("program", "tensors", "torch_tensors")]
    for room in ("frontends", "torch_dialect", "evaluate"):
        files += (own / room).rglob("*.py")
    files += (root / "models").rglob("*.py") if zoo else ()
    hashed = hashlib.sha256()
    for file in sorted(files):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()


def _state(file: Path) -> str:
    return state(file) if file.is_file() else ""


def _now(name: str) -> str:
    """The state of what a program was made of: a file, or an environment variable."""
    return variables.state(name) if variables.is_variable(name) else _state(Path(name))


def _recorded(entry: Path) -> dict[str, str]:
    file = entry / DEPENDENCIES
    if not file.is_file():
        return {}
    return msgspec.json.decode(file.read_bytes(), type=dict[str, str])


def _make(job: Job, place: Path, context: Context) -> None:
    if job.source.kind == "mlir":
        programs.save(mlir.build(job, context.at(place)), place)
        return
    child(job, place, context.limits, programs.RECORD)


def child(job: Job, place: Path, limits: process.Limits | None, record: str) -> None:
    """Runs a job in the tracing child, in `place`, which has the file `record` afterwards.

    Raises as `load` does.
    """
    done = task.call(_TRACED, job, Traced, place, limits=limits)
    seconds = done.outcome.seconds
    if done.reply is not None and done.reply.refusal is not None:
        why = done.reply.refusal
        for kind in (UsageError, EnvironmentFault):
            if why.exit_code == kind.exit_code:
                raise kind(why.message, advice=why.advice)
        failure = diagnostics.trace_failure(why.exception, why.message, why.frames)
        if why.running:
            failure = msgspec.structs.replace(failure, message=f"{CANNOT_RUN}: {why.running}")
        elif why.doing:
            failure = msgspec.structs.replace(
                failure, message=f"while {why.doing}: {failure.message}"
            )
        raise TraceFailed(failure, seconds)
    if done.reply is None or not (place / record).is_file():
        failure = diagnostics.trace_death(done.outcome, done.stderr)
        if done.outcome.ended_by == "exit" and not failure.stack:
            failure = msgspec.structs.replace(failure, message=f"{ENDED}: {failure.message}")
        raise TraceFailed(failure, seconds)
