"""Attribution of a tracing error to a library of the environment or to the source.

Frameworks are imported where they are needed: one that is broken matters to who needs it only.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.processes import process, task

#: Libraries that models are made, traced and read with: imported name, name for pip.
_DISTRIBUTIONS = {
    "diffusers": "diffusers",
    "gguf": "gguf",
    "iree": "iree-turbine iree-base-compiler",
    "ml_dtypes": "ml_dtypes",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "safetensors": "safetensors",
    "timm": "timm",
    "torch": "torch",
    "torchvision": "torchvision",
    "transformers": "transformers",
}
#: Modules imported to trace, by distribution. transformers imports torchvision if it is there.
_TRACED_WITH = {
    "torch": "torch",
    "iree-turbine": "iree.turbine.aot",
    "transformers": "transformers",
    "torchvision": "torchvision",
}
#: Operators of torchvision that its import registers more for, with what they take and give.
_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
#: An import that takes longer hangs.
_SECONDS = 120.0
#: What declares torchvision's operators, as long as they are wanted.
_DECLARED: Any = None
#: Our own package: what it imports has to be there, whatever the source is.
_OWN = ("iree_pilot",)


def fault(raised: BaseException) -> EnvironmentFault | None:
    """The fault of a library that cannot be imported; None where that is not why it was raised.

    A library is at fault for what is raised while it is imported, whoever imports it, where it
    lacks what it or our own code imports, and where it is not installed. So is the environment for
    any other package that is not there. What a source looks for in vain in one that is there is the
    source's fault.
    """
    if isinstance(raised, KeyboardInterrupt | MemoryError):
        return None
    frames = [*_frames(raised.__traceback__)]
    importing = [name for name, doing in frames if doing == "<module>" and name in _DISTRIBUTIONS]
    by_library = bool(frames) and frames[-1][0] in (*_OWN, *_DISTRIBUTIONS)
    if isinstance(raised, ImportError):
        name = (raised.name or "").partition(".")[0]
        missing = isinstance(raised, ModuleNotFoundError)
        absent = missing and importlib.util.find_spec(name) is None if name else False
        if name in _DISTRIBUTIONS and (by_library or absent):
            return _fault(name, raised, missing=missing)
        if absent and not importing:
            return _absent(name, raised)
    if importing:
        return _fault(importing[-1], raised)
    # Libraries that import their parts late say in other words what the import raised.
    return fault(raised.__cause__) if raised.__cause__ else None


def hidden(raised: BaseException) -> UsageError | None:
    """Error if a module in the source's directory hides one of Python's or one that a library
    imports, and that is the cause."""
    named = raised.name if isinstance(raised, ImportError) else None
    if isinstance(raised, AttributeError) and isinstance(raised.obj, ModuleType):
        named = raised.obj.__name__
    module = sys.modules.get(named or "")
    place = module and _place(module)
    own = (*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),)
    if not place or place.startswith(own):
        return None
    library = next((name for name, _ in reversed([*_frames(raised.__traceback__)])), "")
    if named in sys.stdlib_module_names:
        hides = f"hides Python's own module {named}"
    elif library in _DISTRIBUTIONS and Path(place).parent in (Path(sys.path[0]), Path.cwd()):
        hides = f"is taken for a module {named} that {library} imports"
    else:
        return None
    return UsageError(
        f"{place} {hides}: {raised}", advice="Rename it, or move it away from the source."
    )


def declare_operators() -> None:
    """Lets torchvision be imported where its compiled operators cannot be loaded; imports torch.

    The usual wheel is built for CUDA, and beside PyTorch's CPU build its import fails for lack of
    them ("operator torchvision::nms does not exist"), and with it transformers' and timm's. Only
    detection models call them; for these PyTorch raises an error that names the operator.
    """
    import torch

    global _DECLARED
    spec = importlib.util.find_spec("torchvision") if "torchvision" not in sys.modules else None
    if _DECLARED is not None or spec is None or hasattr(torch.ops.torchvision, _OPERATORS[0]):
        return
    places = [Path(place, "_C.so") for place in spec.submodule_search_locations or ()]
    for binary in filter(Path.is_file, places):
        try:
            torch.ops.load_library(str(binary))  # type: ignore[no-untyped-call]
        except OSError:
            library: Any = torch.library.Library
            _DECLARED = library("torchvision", "FRAGMENT")
            for name in _OPERATORS:
                _DECLARED.define(f"{name}{_SCHEMA}")


def _place(module: ModuleType) -> str:
    """The directory of a package, with or without `__init__.py`, else the file of a module."""
    return (
        next(iter(getattr(module, "__path__", ())), "") or getattr(module, "__file__", None) or ""
    )


def _fault(name: str, raised: BaseException, *, missing: bool = False) -> EnvironmentFault:
    distribution = _DISTRIBUTIONS[name]
    try:
        release = f" {version(distribution.partition(' ')[0])}"
    except PackageNotFoundError:
        release = ""
    if missing and not release:
        return EnvironmentFault(
            f"tracing needs {name}, which is not installed",
            advice=f"Install it: pip install {distribution}.",
        )
    said = "".join(traceback.format_exception_only(raised)).strip().splitlines()[-1]
    last = traceback.extract_tb(raised.__traceback__)[-1]
    return EnvironmentFault(
        f"{name}{release} is installed, but cannot be imported: {said} "
        f"({last.filename}:{last.lineno})",
        advice=f"Reinstall it: pip install --force-reinstall {distribution}, or run "
        "scripts/setup; `iree-pilot doctor` tells what is found.",
    )


def _absent(name: str, raised: BaseException) -> EnvironmentFault:
    """The fault of a package that we do not know: its name for pip may be another."""
    frames = traceback.extract_tb(raised.__traceback__)
    last = [f for f in frames if not f.filename.startswith("<frozen importlib")][-1]
    return EnvironmentFault(
        f"{last.filename}:{last.lineno} imports {name}, which is not installed",
        advice=f"Install the package that has it, such as: pip install {name}; or, if it is a "
        "module of your own, put it beside the source.",
    )


def _frames(trace: TracebackType | None) -> list[tuple[str, str]]:
    """(package, function) of each frame that is not of the import system, outermost first."""
    found = []
    while trace is not None:
        code, name = trace.tb_frame.f_code, trace.tb_frame.f_globals.get("__name__", "")
        if not code.co_filename.startswith("<frozen importlib"):
            found.append((name.partition(".")[0], code.co_name))
        trace = trace.tb_next
    return found


def broken() -> dict[str, str]:
    """Modules that tracing needs and that fail to import here, with reasons; tested in a child."""
    modules = {
        name: module
        for name, module in _TRACED_WITH.items()
        if importlib.util.find_spec(module.partition(".")[0]) is not None
    }
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        limits = process.Limits(seconds=_SECONDS)
        done = task.call(f"{__name__}:imported", modules, Import, Path(scratch), limits=limits)
    found = {one.name: one.why for one in done.replies if one.why}
    left = [name for name in modules if name not in {one.name for one in done.replies}]
    if not done.outcome.ok and left:
        ended = done.outcome
        found[left[0]] = f"importing it ended by {ended.signal or ended.ended_by}"
    return found


class Import(msgspec.Struct, frozen=True):
    """A library that was imported; why: it cannot be."""

    name: str
    why: str = ""


def imported(modules: dict[str, str], directory: Path) -> Iterator[Import]:
    """Imports each module, by the name of its distribution, in this process."""
    for name, module in modules.items():
        try:
            if name == "torchvision":
                declare_operators()
            importlib.import_module(module)
        except Exception as raised:  # noqa: BLE001 - a broken library may raise anything
            found = fault(raised)
            why = found.message if found else f"{type(raised).__name__}: {raised}"
            yield Import(name, " ".join(why.split()))
        else:
            yield Import(name)
