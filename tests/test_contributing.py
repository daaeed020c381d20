"""What contributors read is so: files, commands, names and markers exist, versions are one."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from docs_check import ROOT, blocks, inline, links, missing_paths, wrong_names

from iree_pilot.pipeline.cli import cli

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = [
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *(file for file in sorted((ROOT / ".github").rglob("*")) if file.is_file()),
    ROOT / ".pre-commit-config.yaml",
    ROOT / "MANIFEST.in",
]
FORMS = [
    file for file in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if file.name != "config.yml"
]
#: Files that pages name without a folder.
_BESIDE = re.compile(r"(?<![\w./-])[\w-]+\.(?:md|lock|toml)\b")
#: Those of a reproducer's folder and of a nightly.
_OTHERS = {"ISSUE.md", "nightly.toml"}
_TOOL = re.compile(r"\.venv/bin/([\w-]+)")
_MARKER = re.compile(r"@pytest\.mark\.(\w+)|-m \"(?:not )?(\w+)\"")
_FILE = re.compile(r"`((?:pipeline|models|repro|tests)/[\w/]+\.py)`")
_NAME = re.compile(r"`([A-Za-z_]\w*)`")


def load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPages:
    def test_files_exist(self, page: Path) -> None:
        text = page.read_text()
        assert missing_paths(text) == []
        assert links(page, text) == []
        named = set(_BESIDE.findall(text)) - _OTHERS
        assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []

    def test_commands_exist(self, page: Path) -> None:
        text = page.read_text()
        typed = [c.text for block in blocks(text) for c in block.commands if "iree-pilot" in c.text]
        assert [wrong for one in (*typed, *inline(text)) for wrong in wrong_names(one)] == []
        ours = set(PROJECT["project"]["scripts"])
        tools = {*_TOOL.findall(text)} - ours - {"python"}
        installed = {script.name for script in entry_points(group="console_scripts")} | {"ruff"}
        assert tools <= installed

    def test_markers_exist(self, page: Path) -> None:
        declared = PROJECT["tool"]["pytest"]["ini_options"]["markers"]
        markers = {name for found in _MARKER.findall(page.read_text()) for name in found if name}
        assert markers <= {one.partition(":")[0] for one in declared}


SECTIONS = [
    section
    for section in re.split(r"^#+ ", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    if _FILE.search(section)
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_names_are_in_the_files_that_a_section_sends_to(section: str) -> None:
    words = {
        word
        for file in _FILE.findall(section)
        for word in re.findall(r"\w+", (ROOT / file).read_text())
    }
    assert [name for name in _NAME.findall(section) if name not in words] == []


def test_the_version_is_one() -> None:
    declared = PROJECT["project"]["version"]
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == declared
    assert CliRunner().invoke(cli, ["--version"]).output.split()[-1] == declared


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_an_issue_form_is_one_that_github_takes(form: Path) -> None:
    document = load(form)
    assert document.keys() == {"name", "description", "labels", "body"}
    asked = [one for one in document["body"] if one["type"] != "markdown"]
    assert asked
    assert all(one["type"] == "textarea" and one["attributes"]["label"] for one in asked)
    assert len({one["id"] for one in asked}) == len(asked)


class TestChecks:
    def test_ci_runs_what_it_is_asked_to_on_the_oldest_python(self) -> None:
        workflow = load(ROOT / ".github/workflows/ci.yml")
        assert {"push", "pull_request"} == workflow[True].keys(), "YAML reads `on` as true"
        steps = workflow["jobs"]["test"]["steps"]
        assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
        (python,) = (step["with"] for step in steps if "setup-python" in step.get("uses", ""))
        assert PROJECT["project"]["requires-python"] == f">={python['python-version']}"
        for file in python["cache-dependency-path"].split():
            assert (ROOT / file).is_file()

    def test_pre_commit_has_the_pinned_ruff_and_the_projects_mypy(self) -> None:
        ruff, local = load(ROOT / ".pre-commit-config.yaml")["repos"]
        pins = (ROOT / "requirements.lock").read_text().splitlines()
        assert f"ruff=={ruff['rev'].removeprefix('v')}" in pins
        assert [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]
        assert [hook["entry"] for hook in local["hooks"]] == [".venv/bin/mypy"]
