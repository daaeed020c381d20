"""scripts/bench nightly-status: the generated history is whole, and each question is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bench_history
import pytest
from places import BENCH

from iree_pilot.pipeline.nightly.history.history import History


def test_the_generated_nights_are_whole_and_reuse_as_much_as_was_asked(tmp_path: Path) -> None:
    with History(tmp_path / "history.db") as history:
        bench_history.generate(history, cases=40, nights=5, anew=0.5)
        runs = history.runs()
        assert [(run.cases, run.done, run.finished is not None) for run in runs] == [
            (40, 40, True)
        ] * 5
        assert all(run.verdicts["pass"] > 20 and run.verdicts["same failure"] for run in runs)
        later = [o for run in runs[:-1] for o in history.outcomes(run.id).values()]
        assert 40 < sum(o.reused for o in later) < 120
        assert all(o.result and len(o.result.phases) == 13 for o in later)


@pytest.mark.real
def test_each_question_is_timed_and_the_size_told() -> None:
    small = ["--cases", "20", "--nights", "3", "--pairs", "2"]
    done = subprocess.run(
        [sys.executable, BENCH, "nightly-status", "--json", *small],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["cases"], report["nights"]) == (20, 3)
    assert report["bytes"] > 20 * 3 * 500
    assert all(len(spread["values"]) == 2 for spread in report["asked"].values())
    assert report["asked"]["status"]["median"] > 0
