"""The collection of architectures: a sample of it runs; its page is made of a night's report."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import bench_breadth
import pytest
from driver import pilot
from places import ROOT

from iree_pilot.pipeline.nightly.cases import config, matrix

COLLECTION_FILE = ROOT / "models" / "collection.toml"
COLLECTION: dict[str, Any] = tomllib.loads(COLLECTION_FILE.read_text())
SAMPLE = next(b["models"] for b in COLLECTION["include"] if "sample" in b["tags"])


@pytest.mark.real
@pytest.mark.parametrize("source", SAMPLE[::4])  # all: scripts/bench breadth --only sample
def test_a_sample_runs_and_agrees(source: str, shared_cache: Path) -> None:
    env = {"IREE_PILOT_CACHE": shared_cache}
    done = pilot("run", source, "-t", "llvm-cpu", "--json", env=env)
    assert done.code == 0, done.err
    (case,) = done.document["cases"]
    assert case["status"] == "ok", case["why"]


def test_it_has_enough_of_each_library_and_nothing_twice() -> None:
    named = [one for block in COLLECTION["include"] for one in block["models"]]
    assert len(named) == len(set(named)) >= 300
    counts = {name: sum(one.startswith(f"{name}:") for one in named) for name in LEAST}
    assert all(counts[name] >= least for name, least in LEAST.items()), counts
    assert len(SAMPLE) == 20


def test_it_is_a_night_as_it_stands() -> None:
    cases = matrix.expand(config.read(COLLECTION_FILE))
    assert len(cases) == 3 * sum(len(block["models"]) for block in COLLECTION["include"])


LEAST = {"transformers": 150, "timm": 80, "torchvision": 30, "diffusers": 15}


class TestPage:
    def row(self, source: str, status: str, **failure: str) -> dict[str, Any]:
        result = {"status": status, "why": "", "failure": failure or None}
        return {
            "case": {"source": source, "target": "llvm-cpu"},
            "outcome": {"result": result},
            "judgement": None,
        }

    def test_root_causes_are_ordered_by_what_they_block(self) -> None:
        gap = {"signature": "d/aten.a", "op": "torch.aten.a", "phase": "input", "message": "no a"}
        guard = {"signature": "t/guard", "phase": "trace", "message": "Could not guard | x"}
        found = bench_breadth.architectures(
            {
                "rows": [
                    self.row("timm:one", "failed", **guard),
                    self.row("timm:two", "failed", **gap),
                    self.row("timm:three", "failed", **gap),
                    self.row("timm:four", "ok"),
                ]
            }
        )
        first, second = bench_breadth.roots(found)
        assert (first.name, first.blocked) == ("torch.aten.a", ("timm:two", "timm:three"))
        assert (second.name, second.phase) == ("t/guard", "trace")
        text = bench_breadth.page(found, "IREE 3.13.0.", "scripts/bench breadth")
        assert "| llvm-cpu | 1 | 0 | 0 | 3 | 0 | 4 | 1 of 3, 33% |" in text
        importer = {**guard, "message": "while importing to MLIR: AssertionError"}
        more = bench_breadth.architectures({"rows": [self.row("timm:five", "failed", **importer)]})
        text_of_all = bench_breadth.page([*found, *more], "IREE 3.13.0.", "scripts/bench breadth")
        assert "1 of 4, 25%" in text_of_all, "torch.export took it"
        assert "| 2 | `torch.aten.a` | input | no a |  |  | timm:two, timm:three |" in text
        assert "Could not guard \\| x" in text
        assert "| `timm:four` | ok |" in text

    def test_what_is_known_of_a_root_is_told(self, tmp_path: Path) -> None:
        report = {"op_names": ["torch.aten.a"]}
        (tmp_path / "report.json").write_text(json.dumps(report))
        (tmp_path / "repro.mlir").write_text("module {}\n")
        row = self.row("timm:one", "failed", signature="d/b", phase="input", message="no a")
        findings = [
            {"question": "releases", "said": "since 3.11.0"},
            {"question": "workaround", "said": "a flag"},
        ]
        row["judgement"] = {"reproducer": str(tmp_path), "findings": findings}
        guards = [
            self.row(
                f"timm:{name}", "failed", signature="t/g", phase="trace", location=f"/v/{name}"
            )
            for name in ("m/two.py:3", "m/three.py:4")
        ]
        found = bench_breadth.architectures({"rows": [row, *guards]})
        assert {one.name for one in bench_breadth.roots(found)} == {
            "torch.aten.a",
            "m/two.py:3",
            "m/three.py:4",
        }
        text = bench_breadth.page(found, "IREE 3.13.0.", "scripts/bench breadth")
        assert "| `torch.aten.a` | input | no a | since 3.11.0 | a flag | timm:one |" in text
        assert "`torch.aten.a`, verified:\n\n```mlir\nmodule {}\n```" in text
