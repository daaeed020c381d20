"""A library that cannot be imported is the environment's fault, and only of what needs it."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from driver import Done, pilot
from wrong_usage import PROGRESS

from iree_pilot.pipeline.frontends import libraries

BROKEN = "raise RuntimeError('built for another CUDA')\n"
NET = """import torch
def model():
    return torch.nn.Linear(4, 4).eval()
def inputs():
    return (torch.ones(1, 4),)
"""


def raised(code: str, package: str) -> BaseException:
    """What the code raises as code of a package."""
    try:
        exec(compile(code, "<code>", "exec"), {"__name__": f"{package}.module"})
    except BaseException as found:  # noqa: BLE001 - whatever it is
        return found
    raise AssertionError("nothing was raised")


class TestFault:
    @pytest.fixture(autouse=True)
    def no_timm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def version(name: str) -> str:
            if name == "timm":
                raise PackageNotFoundError(name)
            return metadata.version(name)

        monkeypatch.setattr(libraries, "version", version)

    @pytest.mark.torch
    @pytest.mark.parametrize(
        ("code", "package", "says"),
        [
            (BROKEN, "transformers", ("transformers", "RuntimeError: built for another CUDA")),
            (BROKEN, "torch", ("torch", "cannot be imported", "<code>:1")),
            ("raise ModuleNotFoundError(name='timm')", "iree_pilot", ("needs timm, which is not",)),
            ("raise ImportError('no x', name='numpy')", "iree_pilot", ("numpy", "ImportError")),
            ("import iree.turbine.gone", "iree_pilot", ("iree", "iree.turbine.gone")),
        ],
    )
    def test_of_a_library(self, code: str, package: str, says: tuple[str, ...]) -> None:
        found = libraries.fault(raised(code, package))
        assert found is not None
        assert found.exit_code == 3
        assert all(words in found.message for words in says), found.message
        assert "pip install" in found.advice

    @pytest.mark.parametrize(
        ("code", "package"),
        [
            ("import json.that_is_not_there", "model"),
            ("from json import that_is_not_there", "model"),
            ("raise ModuleNotFoundError(name='numpy')", "model"),
            ("raise ImportError('cannot import name', name='transformers')", "model"),
            ("def forward():\n    raise RuntimeError('shape')\nforward()", "model"),
            ("raise KeyboardInterrupt", "torch"),
            ("raise MemoryError", "torch"),
        ],
    )
    def test_of_the_source_or_of_nobody(self, code: str, package: str) -> None:
        assert libraries.fault(raised(code, package)) is None

    def test_of_any_other_package_that_is_not_there(self) -> None:
        found = libraries.fault(raised("import numpy\nimport no_such.part", "model"))
        assert found is not None
        assert found.exit_code == 3
        assert found.message == "<code>:2 imports no_such, which is not installed"
        assert "pip install no_such;" in found.advice

    def test_of_a_library_that_another_imports_late_and_tells_of_in_its_own_words(self) -> None:
        late = RuntimeError("Failed to import diffusers.models (look up to see its traceback)")
        late.__cause__ = raised(BROKEN, "transformers")
        found = libraries.fault(late)
        assert found is not None
        assert found.message.startswith("transformers"), found.message

    @pytest.mark.parametrize("package", ["model", "iree_pilot"])
    def test_a_library_that_is_not_installed_is_needed_whoever_imports_it(
        self, package: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
        found = libraries.fault(raised("raise ModuleNotFoundError(name='timm')", package))
        assert found is not None
        assert (found.exit_code, found.advice.startswith("Install it: pip install timm")) == (
            3,
            True,
        )


class TestHidden:
    """A file of the source's directory has the name of a module of Python's."""

    @pytest.fixture
    def wave(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "wave.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "wave", raising=False)
        return tmp_path / "wave.py"

    @pytest.mark.parametrize("code", ["from wave import open", "import wave; wave.open"])
    def test_is_named(self, wave: Path, code: str) -> None:
        found = libraries.hidden(raised(code, "torch"))
        assert found is not None
        assert f"{wave} hides Python's own module wave" in found.message

    @pytest.mark.parametrize("code", ["import wave; 1 .x", "import json; json.x", "import no_such"])
    def test_is_not_blamed_for_anything_else(self, wave: Path, code: str) -> None:
        assert libraries.hidden(raised(code, "model")) is None


class TestAModuleBesideTheSource:
    """That a library takes for one of its own."""

    @pytest.mark.parametrize("file", ["z3.py", "z3/__init__.py", "z3/notes.txt"])
    @pytest.mark.parametrize("code", ["import z3\nz3.Real", "from z3 import Real"])
    def test_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, code: str
    ) -> None:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "z3", raising=False)
        found = libraries.hidden(raised(code, "torch"))
        assert found is not None
        place = tmp_path / ("z3.py" if file == "z3.py" else "z3")
        assert f"{place} is taken for a module z3 that torch imports" in found.message
        assert libraries.hidden(raised(code, "model")) is None, "the source means its own"
        monkeypatch.delitem(sys.modules, "z3")


@pytest.mark.real
class TestCommands:
    @pytest.fixture
    def call(self, tmp_path: Path, shared_cache: Path) -> Any:
        (tmp_path / "net.py").write_text(NET)

        def call(*arguments: str, broken: tuple[str, ...]) -> Done:
            poison = tmp_path / "poison"
            for name in broken:
                (poison / name).mkdir(parents=True, exist_ok=True)
                (poison / name / "__init__.py").write_text(BROKEN)
            paths = (str(poison), os.environ.get("PYTHONPATH", ""))
            path = os.pathsep.join(filter(None, paths))
            return pilot(*arguments, cwd=tmp_path, env={"PYTHONPATH": path})

        return call

    def test_a_plain_file_needs_neither_transformers_nor_torchvision(self, call: Any) -> None:
        done = call("trace", "net.py", "-o", "out", broken=("transformers", "torchvision"))
        assert done.code == 0, done.out + done.err

    @pytest.mark.parametrize(
        ("source", "broken"),
        [
            ("torchvision:resnet18", ("transformers", "timm", "diffusers")),
            ("timm:resnet18", ("transformers", "diffusers")),
        ],
    )
    def test_a_library_s_model_needs_no_other_library(
        self, call: Any, source: str, broken: tuple[str, ...]
    ) -> None:
        done = call("trace", source, "-o", "out", broken=broken)
        assert done.code == 0, done.out + done.err

    @pytest.mark.parametrize(
        ("source", "broken"),
        [("rms-norm:tiny", "torchvision"), ("rms-norm:tiny", "transformers"), ("net.py", "torch")],
    )
    def test_what_needs_it_says_so(self, call: Any, source: str, broken: str) -> None:
        done = call("run", source, "-t", "llvm-cpu", broken=(broken,))
        assert (done.code, PROGRESS.sub("", done.out)) == (3, "")
        assert f"error: {broken}" in done.err
        assert "cannot be imported: RuntimeError: built for another CUDA" in done.err
        assert f"pip install --force-reinstall {broken}" in done.err

    def test_doctor_finds_it(self, call: Any) -> None:
        done = call("doctor", "--json", broken=("transformers", "torchvision"))
        assert done.code == 3
        found = {one["name"]: one for one in done.document["findings"]}
        for name in ("transformers", "torchvision"):
            assert found[name]["state"] == "missing"
            assert "built for another CUDA" in found[name]["found"]
        assert found["torch"]["state"] == "ok"
