"""scripts/bench zoo: which presets are meant, and what a row says of success and failure."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import bench_zoo
import click
import pytest
from places import BENCH, ROOT

from iree_pilot.models.spec import registry
from iree_pilot.pipeline.errors import UsageError


def names(*words: str) -> list[str]:
    return [f"{spec.name}:{preset.name}" for spec, preset in bench_zoo.chosen(words)]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH, "zoo", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_model_stands_for_all_its_presets_and_no_word_for_all_models() -> None:
    assert names("bert", "vit:tiny") == ["bert:tiny", "bert:small", "vit:tiny"]
    assert names() == [f"{s.name}:{p.name}" for s in registry().values() for p in s.presets]


def test_what_there_is_not_is_told() -> None:
    with pytest.raises(click.UsageError, match="no model brt; there are "):
        bench_zoo.chosen(["brt"])
    with pytest.raises(UsageError, match="bert has no preset 'tyny'"):
        bench_zoo.chosen(["bert:tyny"])


@pytest.mark.parametrize("words", [("brt",), ("bert:tyny",), ("bert", "-t", "pdp11")])
def test_a_wrong_word_is_the_users_error(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.real
def test_a_row_has_time_and_memory_and_a_failure_stays_in_the_table() -> None:
    done = run("rms-norm", "mixtral-moe:eager", "-t", "llvm-cpu,hip:gfx942", "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    norm, experts = report["rows"]
    assert (norm["source"], norm["parameters"], norm["weights"]) == ("rms-norm:tiny", 64, True)
    assert list(norm["compiles"]) == ["llvm-cpu", "hip:gfx942"]
    for step in (norm["trace"], *norm["compiles"].values()):
        assert step["failure"] is None
        assert step["seconds"] > 0
        assert step["peak_bytes"] > 10**6
    assert experts["trace"]["failure"].startswith("trace-error/GuardOnDataDependentSymNode/")
    assert experts["compiles"] == {}
    assert report["machine"]["cores"] >= 1


def test_every_preset_has_its_row_in_the_docs() -> None:
    page = (ROOT / "docs" / "the-zoo.md").read_text()
    rows = [[cell.strip("` ") for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    found = {row[0]: row[1] for row in rows if len(row) == 6 and row[1][0].isdigit()}
    assert found == {
        f"{s.name}:{p.name}": f"{p.parameters:,}" for s in registry().values() for p in s.presets
    }
