"""The shape of the project: packages, who may import whom, what a start loads."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import draw_rooms
import grimp
import pytest
from places import ROOT
from setuptools import find_packages  # type: ignore[import-untyped]

#: The only users of a package from outside of it; packages that are not named are free to use.
USERS = {
    "iree_pilot.pipeline.cli": ["iree_pilot.__main__"],
    "iree_pilot.pipeline.nightly": ["iree_pilot.pipeline.cli"],
    "iree_pilot.api": ["iree_pilot.pipeline.cli", "iree_pilot.pytest_plugin"],
    "iree_pilot.pytest_plugin": [],
    "iree_pilot.repro": [
        "iree_pilot.api",
        "iree_pilot.pipeline.cli",
        "iree_pilot.pipeline.nightly",
    ],
    "iree_pilot.models": ["iree_pilot.pipeline"],
}
HEAVY = (
    "diffusers",
    "iree.build",
    "iree.compiler",
    "iree.runtime",
    "iree.turbine",
    "ml_dtypes",
    "numpy",
    "onnx",
    "safetensors",
    "torch",
    "transformers",
)


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def breaches(imports: Mapping[str, set[str]]) -> list[str]:
    """The imports (module to the modules it imports, anywhere in it) that USERS does not allow."""
    return [
        f"{module} imports {imported}"
        for module, targets in sorted(imports.items())
        for imported in sorted(targets)
        for package, users in USERS.items()
        if is_in(imported, package)
        and module != "iree_pilot"  # what it offers, it imports when it is asked for
        and not any(is_in(module, allowed) for allowed in [package, *users])
    ]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    graph = grimp.build_graph("iree_pilot", cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


class TestLayers:
    def test_each_package_is_used_only_from_above(self, imports: dict[str, set[str]]) -> None:
        assert breaches(imports) == []

    @pytest.mark.parametrize(
        ("module", "imported"),
        [
            ("iree_pilot.pipeline.case", "iree_pilot.repro.oracles.oracle"),
            ("iree_pilot.pipeline.case", "iree_pilot.pipeline.nightly.cases.matrix"),
            ("iree_pilot.pipeline.store.store", "iree_pilot.pipeline.cli"),
            ("iree_pilot.pipeline.nightly.schedule", "iree_pilot.pipeline.cli.display.output"),
            ("iree_pilot.models.spec", "iree_pilot.repro"),
            ("iree_pilot.repro.slice", "iree_pilot.models.spec"),
            ("iree_pilot.repro.slice", "iree_pilot.pipeline.cli.programs.run"),
        ],
    )
    def test_a_use_from_below_is_noticed(self, module: str, imported: str) -> None:
        assert breaches({module: {imported}}) == [f"{module} imports {imported}"]

    @pytest.mark.parametrize(
        ("module", "imported"),
        [
            ("iree_pilot.pipeline.cli.programs.run", "iree_pilot.pipeline.case"),
            ("iree_pilot.pipeline.cli.programs.run", "iree_pilot.pipeline.cli.display.output"),
            ("iree_pilot.pipeline.cli.nightly.nightly", "iree_pilot.pipeline.nightly.cases.matrix"),
            ("iree_pilot.pipeline.nightly.publish", "iree_pilot.repro.reproducer.folder.bundle"),
            ("iree_pilot.pipeline.frontends.source", "iree_pilot.models"),
            ("iree_pilot.models.spec", "iree_pilot.pipeline.errors"),
            ("iree_pilot.repro.slice", "iree_pilot.pipeline.toolchain.compiler"),
        ],
    )
    def test_a_use_from_above_is_allowed(self, module: str, imported: str) -> None:
        assert breaches({module: {imported}}) == []

    def test_there_are_no_import_cycles(self, imports: dict[str, set[str]]) -> None:
        try:
            order = [*graphlib.TopologicalSorter(imports).static_order()]
        except graphlib.CycleError as found:
            pytest.fail(" imports ".join(reversed(found.args[1])))
        assert order.index("iree_pilot.pipeline.errors") < order.index(
            "iree_pilot.pipeline.store.store"
        )


@pytest.fixture(scope="module")
def files() -> list[Path]:
    tops = (ROOT / top for top in ("pipeline", "repro", "models"))
    return [file for top in tops for file in top.rglob("*.py")]


class TestNames:
    """One meaning a word: `Found` or `search.py` says nothing where there are four of them."""

    def test_no_two_classes_have_the_same_name(self, files: list[Path]) -> None:
        places: dict[str, list[Path]] = {}
        for file in files:
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    places.setdefault(node.name, []).append(file.relative_to(ROOT))
        assert {name: found for name, found in places.items() if found[1:]} == {}

    def test_no_two_modules_of_a_top_folder_have_the_same_name(self, files: list[Path]) -> None:
        places: dict[tuple[str, str], list[Path]] = {}
        for file in (one.relative_to(ROOT) for one in files):
            if file.name != "__init__.py" and "cli" not in file.parts:  # cli has one a command
                places.setdefault((file.parts[0], file.name), []).append(file)
        assert {name: found for name, found in places.items() if found[1:]} == {}

    def test_the_drawing_of_the_rooms_is_that_of_the_code(self) -> None:
        page = draw_rooms.PAGE.read_text()
        assert page == draw_rooms.drawn(page), "run .venv/bin/python scripts/draw_rooms.py"


class TestPackaging:
    @pytest.fixture
    def project(self) -> dict[str, object]:
        return tomllib.loads((ROOT / "pyproject.toml").read_text())

    def test_one_package_is_installed_and_the_rooms_are_in_it(
        self, project: dict[str, object]
    ) -> None:
        declared = project["tool"]["setuptools"]["packages"]["find"]["include"]  # type: ignore[index]
        packages = find_packages(str(ROOT), include=declared)
        assert {package.split(".")[0] for package in packages} == {"iree_pilot"}
        rooms = {package.split(".")[1] for package in packages if "." in package}
        assert rooms == {"pipeline", "models", "repro"}

    def test_every_module_is_in_a_package(self) -> None:
        for top in ("pipeline", "models", "repro"):
            for module in (ROOT / top).rglob("*.py"):
                assert (module.parent / "__init__.py").exists(), f"{module} would not be installed"

    def test_every_file_that_is_no_module_is_installed_too(
        self, project: dict[str, object]
    ) -> None:
        data = project["tool"]["setuptools"]["package-data"]  # type: ignore[index]
        declared = {
            file.resolve()
            for package, patterns in data.items()
            for pattern in patterns
            for file in (ROOT / package.replace(".", "/")).glob(pattern)
        }
        tops = ("pipeline", "models", "repro", "iree_pilot")
        there = (f for top in tops for f in (ROOT / top).rglob("*"))
        assert {f for f in there if f.is_file() and f.suffix not in (".py", ".pyc")} == declared

    def test_every_dependency_is_locked(self, project: dict[str, object]) -> None:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        locked: dict[str, list[str]] = {}
        for line in (ROOT / "requirements.lock").read_text().splitlines():
            if line and not line.lstrip().startswith("#"):
                pin = Requirement(line)
                (specifier,) = pin.specifier
                assert specifier.operator == "=="
                locked.setdefault(canonicalize_name(pin.name), []).append(specifier.version)
        table = project["project"]
        extras = table["optional-dependencies"]  # type: ignore[index]
        for text in [*table["dependencies"], *(t for extra in extras.values() for t in extra)]:  # type: ignore[index]
            wanted = Requirement(text)
            versions = locked[canonicalize_name(wanted.name)]
            assert all(version in wanted.specifier for version in versions), f"{text}: {versions}"


class TestQuality:
    def test_every_module_says_what_it_is_for(self) -> None:
        import ast

        for top in ("pipeline", "models", "repro", "tests"):
            for module in (ROOT / top).rglob("*.py"):
                text = module.read_text()
                assert not text or ast.get_docstring(ast.parse(text)), f"{module} has no docstring"


class TestStart:
    """What a user waits for before the first line: no framework, no compiler."""

    @pytest.mark.real
    @pytest.mark.parametrize("arguments", [["--help"], ["targets"]])
    def test_the_command_line_loads_nothing_heavy(self, arguments: list[str]) -> None:
        code = (
            "import sys, atexit\n"
            "atexit.register(lambda: print('LOADED', *sys.modules, file=sys.stderr))\n"
            f"sys.argv = ['iree-pilot', *{arguments!r}]\n"
            "from iree_pilot.pipeline.cli import main\n"
            "sys.exit(main())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout
        loaded = done.stderr.rpartition("LOADED")[2].split()
        assert "iree_pilot.pipeline.cli" in loaded
        assert [package for package in HEAVY if package in loaded] == []


#: What may have more than six parameters: the Python API, in the words of the command line,
#: and what children and levels of a reproducer are made with.
MANY = {
    *(f"iree_pilot/api.py:{name}" for name in ("trace", "compile", "run", "bisect")),
    "pipeline/processes/process.py:run",
    "pipeline/processes/task.py:call",
    "repro/reproducer/folder/bundle.py:level",
}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    every += [one for one in (given.vararg, given.kwarg) if one]
    return sum(one.arg not in ("self", "cls") for one in every)


def test_no_function_has_more_than_six_parameters() -> None:
    """But for click's commands, where each is an option."""
    rooms = [file for top in ("pipeline", "repro", "models") for file in (ROOT / top).rglob("*.py")]
    found = {
        f"{file.relative_to(ROOT)}:{node.name}"
        for file in (*rooms, *(ROOT / "iree_pilot").glob("*.py"))
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if parameters(node) > 6
        if not any("command(" in ast.unparse(one) for one in node.decorator_list)
    }
    assert found == MANY
