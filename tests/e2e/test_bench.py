"""scripts/bench: ratios of rounds, verdicts, and what it tells; nothing here is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench
import pytest
from fake import stub_release
from places import BENCH


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A stand-in compiler's release; without its iree-opt, which prints no generic form."""
    compiler = stub_release(tmp_path / "release")
    compiler.with_name("iree-opt").unlink()
    return tmp_path / "release"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.mlir"
    path.write_text("module {\n}\n")
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH, *arguments],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class TestArithmetic:
    @staticmethod
    def uses(seconds: dict[str, list[float]]) -> Any:
        return {k: [bench.Use(s, 2 * s, 1000) for s in v] for k, v in seconds.items()}

    def test_a_ratio_is_taken_within_each_round(self) -> None:
        seconds = {"bare": [1.0, 10.0, 2.0], "ours": [1.1, 12.0, 2.6]}
        bare, ours = bench.measured(self.uses(seconds), {}, against="bare")
        assert bare.ratio is None
        assert ours.against == "bare"
        assert ours.ratio.values == pytest.approx((1.1, 1.2, 1.3))
        assert ours.ratio.median == pytest.approx(1.2), "the medians' ratio would be 1.3"
        assert (ours.ratio.least, ours.ratio.most) == pytest.approx((1.1, 1.3))
        assert (ours.seconds.median, ours.cpu_seconds.median) == pytest.approx((2.6, 5.2))

    @pytest.mark.parametrize(("seconds", "met"), [(1.15, True), (1.16, False)])
    def test_a_target_is_met_up_to_its_limit(self, seconds: float, met: bool) -> None:
        uses = self.uses({"bare": [1.0], "ours": [seconds]})
        targets = {"ours": bench.Target("ratio", 1.15)}
        bare, ours = bench.measured(uses, targets, against="bare")
        assert (bare.met, ours.met) == (None, met)

    def test_what_is_too_short_for_the_clock_has_no_ratio(self) -> None:
        uses = {"bare": [bench.Use(0.1, 0.0, 1)], "ours": [bench.Use(0.2, 0.1, 1)]}
        _, ours = bench.measured(uses, {}, against="bare")
        assert ours.ratio.median == pytest.approx(2)
        assert ours.cpu_ratio is None

    def test_rounds_go_to_and_fro_after_one_that_does_not_count(self) -> None:
        done: list[str] = []

        def act(name: str) -> Any:
            return lambda: done.append(name) or bench.Use(len(done), 0, 0)

        uses = bench.rounds(3, {"a": act("a"), "b": act("b")})
        assert "".join(done) == "ab" + "ab" + "ba" + "ab"
        assert [use.seconds for use in uses["a"]] == [3, 6, 7]


class TestReport:
    def test_a_compile_is_measured_against_the_bare_compiler(
        self, release: Path, program: Path, cache: Path
    ) -> None:
        done = run("compile", program, "--release", release, "--pairs", "2", "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["machine"]["compiler"] == "9.9.0"
        assert report["machine"]["cores"] >= 1
        assert len(report["machine"]["load"]) == 2
        (rows,) = report["measured"].values()
        bare, dumped, ours, command = rows
        assert bare["what"] == "iree-compile"
        assert ours["target"] == {"figure": "ratio", "at_most": 1.15}
        assert ours["met"] is (ours["ratio"]["median"] <= 1.15)
        for row in (dumped, ours, command):
            assert row["against"] == "iree-compile"
            pairs = zip(row["seconds"]["values"], bare["seconds"]["values"], strict=True)
            assert row["ratio"]["values"] == pytest.approx([a / b for a, b in pairs])
        assert not list(cache.glob("bench-*")), "its own cache is left behind"

    def test_people_get_a_table_and_the_machine(self, release: Path, program: Path) -> None:
        done = run("compile", program, "--release", release, "--pairs", "1")
        assert done.returncode == 0, done.stderr
        assert "load average" in done.stdout
        assert "IREE 9.9.0" in done.stdout
        assert "ratio at most 1.15: " in done.stdout

    def test_a_program_that_does_not_compile_is_no_measurement(
        self, release: Path, program: Path
    ) -> None:
        program.write_text("// stub: error-at flow no lowering for this\n")
        done = run("compile", program, "--release", release, "--pairs", "1", "--json")
        assert done.returncode == 1
        assert done.stdout == ""
        assert "no lowering for this" in done.stderr

    def test_a_wrong_target_is_the_users_error(self, release: Path, program: Path) -> None:
        done = run("compile", program, "-t", "pdp11", "--release", release)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "pdp11" in done.stderr
