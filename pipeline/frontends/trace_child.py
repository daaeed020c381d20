"""Makes a program of a source, or what PyTorch generates with it, in a child process."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.frontends import libraries, variables
from iree_pilot.pipeline.frontends.job import (
    DEPENDENCIES,
    GENERATED,
    Generated,
    Job,
    Refusal,
    Traced,
)
from iree_pilot.pipeline.program import program as programs
from iree_pilot.pipeline.store.sealed import state
from iree_pilot.pipeline.store.store import cache_directory

_DOING = "preparing"


def traced(job: Job, directory: Path) -> Traced:
    """Writes program.json, or generated.json where tokens were asked for, with their files."""
    try:
        opened, read = watch_files(), watch_variables(directory)
        made = _generate(job, directory) if job.chained else _build(job, directory)
    except PilotError as error:
        refusal = _told(error)
    except BaseException as fault:  # noqa: BLE001 - the model may raise anything, SystemExit too
        known = libraries.hidden(fault) or libraries.fault(fault)
        refusal = _told(known) if known else _refusal(fault)
    else:
        if isinstance(made, Generated):
            (directory / GENERATED).write_bytes(msgspec.json.encode(made))
            return Traced()
        programs.save(made, directory)
        files = dependencies(opened | _read_natively(job), directory)
        for given in job.inputs or ():  # a copy, whose contents the program's key has
            files.pop(_real(given.file), None)
        (directory / DEPENDENCIES).write_bytes(msgspec.json.encode(files | read))
        return Traced()
    # On a full disk this is all that gets out.
    print(f"{refusal.exception}: {refusal.message}", file=sys.stderr, flush=True)
    return Traced(refusal=refusal)


def _build(job: Job, directory: Path) -> programs.Program:
    if job.source.kind == "onnx":
        from iree_pilot.pipeline.frontends.onnx import onnx

        return onnx.build(job, directory, _doing)
    if job.source.kind == "file":
        _parse(Path(job.source.path or ""))
    # Warnings of the tracing libraries are theirs; a model's failure must not drown in them.
    warnings.simplefilter("ignore")
    with _uncollected():
        from iree_pilot.pipeline.frontends.pytorch import (
            compiled_module,
            torch_export,
            torch_sources,
        )

    try:
        return torch_export.build(job, directory, _doing)
    except torch_sources.HoldsCompiledModule as made:
        return compiled_module.build(made, job, directory, _doing)


def _parse(file: Path) -> None:
    """Raises SyntaxError for a file that is no Python, before seconds go into importing torch."""
    _doing(f"reading {file.name}")
    try:
        compile(file.read_bytes(), file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as fault:
        if isinstance(fault, SyntaxError) and fault.filename:
            raise
        raise SyntaxError(str(fault), (str(file), 1, None, None)) from fault


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Context for imports without garbage collection, which takes up to a fifth of their time."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _generate(job: Job, directory: Path) -> Generated:
    warnings.simplefilter("ignore")
    with _uncollected():
        from iree_pilot.pipeline.frontends.pytorch import torch_chain

    return torch_chain.build(job, directory, _doing)


def _doing(what: str) -> None:
    global _DOING
    _DOING = what


def _told(error: PilotError) -> Refusal:
    return Refusal(
        message=error.message, advice=error.advice, exit_code=error.exit_code, doing=_DOING
    )


def _refusal(fault: BaseException) -> Refusal:
    extracted = [
        (f.filename, f.lineno or 0, f.name) for f in traceback.extract_tb(fault.__traceback__)
    ]
    # What led to the source is our own; further in it may be where the source is at fault.
    own = str(Path(__file__).resolve().parents[1]) + os.sep
    frames = [*itertools.dropwhile(lambda f: _real(f[0]).startswith(own), extracted)]
    if isinstance(fault, SyntaxError) and fault.filename:
        # No frame is in a file that does not parse. The name is that of what imports one, and
        # part of the signature.
        frames.append((fault.filename, fault.lineno or 1, "_call_with_frames_removed"))
    return Refusal(
        message=str(fault) or type(fault).__name__,
        exception=type(fault).__name__,
        doing=_DOING,
        running=next(iter(getattr(fault, "__notes__", ())), ""),
        frames=tuple(frames or extracted),
    )


def watch_files() -> set[str]:
    """Collects the files that are opened for reading from now on, by Python or by safetensors."""
    import safetensors

    opened: set[str] = set()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str) and isinstance(args[1], str | None):
            mode = args[1] or "r"
            if "r" in mode and "+" not in mode:
                opened.add(args[0])

    native = safetensors.safe_open

    def safe_open(filename: Any, *args: Any, **kwargs: Any) -> Any:
        opened.add(os.fspath(filename))
        return native(filename, *args, **kwargs)

    sys.addaudithook(hook)
    vars(safetensors)["safe_open"] = safe_open  # it reads in Rust, which Python does not hear of
    return opened


def watch_variables(directory: Path) -> dict[str, str]:
    """Collects the environment variables that the user's source reads, as `variables.watch`."""
    is_users = _users(directory)
    return variables.watch(lambda file: not file.startswith("<") and is_users(_real(file)))


def _read_natively(job: Job) -> set[str]:
    """Files that the importer read without Python's help: a model's external data."""
    if job.source.kind != "onnx":
        return set()
    import onnx as onnx_package

    from iree_pilot.pipeline.frontends.onnx import onnx

    path = Path(job.source.path or "")
    model = onnx_package.load(path, load_external_data=False)
    return {str(file) for file in onnx.external_files(model, path)}


def dependencies(opened: set[str], directory: Path) -> dict[str, str]:
    """The opened and imported files that belong to the user's source, with their states.

    Installed packages are covered by their versions, and this package by its own files; what it
    keeps in its cache is no part of a model.
    """
    modules = {m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
    is_users = _users(directory)
    files = {_real(f) for f in (opened | modules) if f and not f.startswith("<")}
    return {
        f: state(Path(f))
        for f in sorted(files)
        if is_users(f) and not f.endswith(".pyc") and Path(f).is_file()
    }


def _users(directory: Path) -> Callable[[str], bool]:
    """Says of a file, by its path without links, whether it belongs to the user's source."""
    installed = tuple(
        str(Path(p).resolve()) for p in {sys.prefix, sys.base_prefix, *_site_directories()}
    )
    own = Path(__file__).resolve().parents[2]
    names = ("iree_pilot", "pipeline", "models", "repro")
    packages = tuple(str(own / name) + os.sep for name in names)
    cache = _real(str(cache_directory())) + os.sep
    system = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/")
    others = (*installed, *packages, *system, cache, str(directory.resolve()))
    return lambda file: not file.startswith(others)


def _real(file: str) -> str:
    """The path without links; there are thousands of modules, in few directories."""
    directory, name = os.path.split(file)
    path = os.path.join(_real_directory(directory), name)  # noqa: PTH118 - of thousands
    return os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114


@functools.cache
def _real_directory(directory: str) -> str:
    return os.path.realpath(directory)


def _site_directories() -> list[str]:
    import site

    return site.getsitepackages()
