"""scripts/bench goldens: what is taken out of a document, what stays, and what is compared."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import bench_goldens
import pytest
from goldens_cases import CASES, CHANCE
from places import BENCH

PLACES = {"/tmp/golden-ab12/here": "WORK/here", "/tmp/golden-ab12": "WORK"}


def settled(**document: object) -> dict[str, object]:
    made: dict[str, object] = bench_goldens.settled(document, PLACES)
    return made


class TestDocument:
    def test_what_is_measured_goes_and_that_it_was_measured_stays(self) -> None:
        made = settled(
            compile_seconds=1.5, peak_bytes=0, took={"seconds": 2.0, "parts": {"trace": 1.0}}
        )
        assert made == {
            "compile_seconds": "TIME",
            "peak_bytes": 0,
            "took": {"seconds": "TIME", "parts": {"trace": "TIME"}},
        }
        assert settled(latency=None, known_since="") == {"latency": None, "known_since": ""}

    def test_what_is_found_stays(self) -> None:
        found = {
            "status": "isolated",
            "oracle_calls": 2,
            "rel_l2": 0.25,
            "output_bytes": 1224,
            "message": "buffer view byte length 1224 exceeds backing buffer byte length 612",
            "shape": [2, 4],
            "digest": "ab" * 32,
        }
        assert settled(**found) == found

    def test_what_is_no_json_is_taken_as_text(self) -> None:
        assert bench_goldens.settled_json("took 3 s\n", PLACES) == "took TIME\n"


class TestText:
    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("2 compiles, 5 s", "2 compiles, TIME"),
            ("took 3 min 20 s.", "took TIME."),
            ("known since 2026-11-29: out", "known since DATE: out"),
            ("0 B transient; peak memory 217 MB", "0 B transient; peak memory SIZE"),
            ("at most 20.5 GiB, module 1.2 KiB", "at most SIZE, module 1.2 KiB"),
            ("- CPU: AMD EPYC\n- torch 2.13.0", "- CPU: MACHINE\n- torch 2.13.0"),
            (
                f"/tmp/golden-ab12/cache/store/program/fb/{'fb' * 32}/program.mlir:5:10",
                "WORK/cache/store/program/KEY/program.mlir:5:10",
            ),
            (
                "/tmp/golden-ab12/data/bisect/9c8fafc5d4018413/crash-3e6f08fc/0.mlir",
                "WORK/data/bisect/KEY/crash-3e6f08fc/0.mlir",
            ),
            ("/tmp/golden-ab12/tmp/tmpk3_x/a.mlir", "WORK/tmp/NAME/a.mlir"),
            ("crash/SIGSEGV/MulIOp.build/3e6f08fc", "crash/SIGSEGV/MulIOp.build/3e6f08fc"),
        ],
    )
    def test_what_differs_from_time_to_time_goes(self, text: str, left: str) -> None:
        assert bench_goldens.settled_text(text, PLACES) == left

    def test_numbers_of_a_program_stay(self) -> None:
        program = "%5 = torch.constant.int 8 // 3 s, /tmp/golden-ab12/here/a.py"
        left = "%5 = torch.constant.int 8 // 3 s, WORK/here/a.py"
        assert bench_goldens.settled_text(program, PLACES, prose=False) == left


def test_numbers_that_nobody_wrote_go_and_how_many_they_are_stays() -> None:
    left = [
        ('"got": "-7.5e+29",', '"got": "CHANCE",'),
        ('"index": [\n  13,\n  0\n ],\n "mismatched": 40', '"index": "CHANCE",\n "mismatched": 40'),
        (
            '"why": "40 of 128 elements are wrong, worst [13, 0]: -7.5e+29 where 0.23 is expected"',
            '"why": "40 of 128 elements are wrong, worst CHANCE is expected"',
        ),
        ("| [13, 0] | -7.5e+29 | 0.239 |", "| CHANCE |"),
    ]
    for text, expected in left:
        for rule in CHANCE:
            text = re.sub(rule.pattern, rule.instead, text)
        assert text == expected


def test_a_folder_is_its_names_and_what_is_text_in_it(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "input0.bin").write_bytes(b"\0\1")
    (tmp_path / "repro.mlir").write_text("module {}\n")
    (tmp_path / "report.json").write_text('{"seconds": 2.5, "files": {"run.sh": "abc"}}')
    made = dict(bench_goldens.folder(tmp_path, PLACES))
    assert made.keys() == {"FILES", "run.sh", "repro.mlir", "report.json"}
    names = [line.split(":")[0] for line in made["FILES"].splitlines()]
    assert names == ["input0.bin", "report.json", "repro.mlir", "run.sh"]
    assert "input0.bin: 2 bytes, " in made["FILES"] and "run.sh: executable\n" in made["FILES"]
    assert json.loads(made["report.json"]) == {"seconds": "TIME", "files": {"run.sh": "DIGEST"}}


class TestJournals:
    def lines(self, *digests: str) -> str:
        return "".join(
            json.dumps({"digest": d, "answer": {"verdict": "passes"}, "seconds": 60.0}) + "\n"
            for d in digests
        )

    def test_a_search_is_its_questions_in_their_order(self, tmp_path: Path) -> None:
        place = tmp_path / "bisect" / "9c8fafc5d4018413" / "crash"
        (place / "levels" / "dispatch").mkdir(parents=True)
        (place / "answers.jsonl").write_text(self.lines("b", "a"))
        (place / "levels" / "dispatch" / "answers.jsonl").write_text(self.lines("d", "c"))
        whole, dispatch = bench_goldens.journals(tmp_path, PLACES)
        assert [json.loads(line)["asked"] for line in whole.splitlines()] == ["b", "a"]
        assert [json.loads(line)["asked"] for line in dispatch.splitlines()] == ["c", "d"]

    def test_what_was_asked_at_once_has_no_order(self, tmp_path: Path) -> None:
        (tmp_path / "answers.jsonl").write_text(self.lines("b", "a"))
        (both,) = bench_goldens.journals(tmp_path, PLACES, wide=True)
        assert [json.loads(line)["asked"] for line in both.splitlines()] == ["a", "b"]

    def test_a_question_is_the_candidate_and_how_it_fails(self) -> None:
        line = {
            "digest": "ab",
            "answer": {"verdict": "same", "failure": {"signature": "s", "location": "/x/1"}},
            "memory_bytes": 17,
        }
        made = bench_goldens.question(json.dumps(line).encode())
        assert made == {"asked": "ab", "verdict": "same", "failure": "s"}


class TestComparison:
    @pytest.fixture
    def records(self, tmp_path: Path) -> tuple[Path, Path]:
        for name in ("old", "new"):
            (tmp_path / name / "crash").mkdir(parents=True)
            (tmp_path / name / "machine.json").write_text("{}\n")
            (tmp_path / name / "crash" / "run.ended").write_text("1\n")
        return tmp_path / "old", tmp_path / "new"

    def test_equal_records_have_no_differences(self, records: tuple[Path, Path]) -> None:
        assert bench_goldens.differences(*records, ["crash"]) == []

    def test_each_document_that_differs_is_a_diff(self, records: tuple[Path, Path]) -> None:
        old, new = records
        (new / "crash" / "run.ended").write_text("0\n")
        (old / "crash" / "gone.json").write_text("{}\n")
        (new / "other").mkdir()
        (new / "other" / "run.ended").write_text("of a case that was not asked for\n")
        gone, changed = bench_goldens.differences(old, new, ["crash"])
        assert gone == f"--- {old}/crash/gone.json\n+++ /dev/null\n@@ -1 +0,0 @@\n-{{}}\n"
        assert changed.endswith("@@ -1 +1 @@\n-1\n+0\n")


def test_cases_have_names_of_their_own() -> None:
    for names in ([c.name for c in CASES], *([s.name for s in c.steps] for c in CASES)):
        assert len(names) == len(set(names))


@pytest.mark.real
def test_what_is_recorded_twice_is_equal_and_a_change_is_seen(tmp_path: Path) -> None:
    def goldens(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, BENCH, "goldens", "--only", "wrong-usage", *words],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    assert goldens("--record", tmp_path / "old").returncode == 0
    again = goldens("--compare", tmp_path / "old")
    assert (again.returncode, again.stdout.count("@@")) == (0, 0), again.stdout
    (tmp_path / "old" / "wrong-usage" / "no-source.ended").write_text("0\n")
    changed = goldens("--compare", tmp_path / "old")
    assert changed.returncode == 1, changed.stderr
    assert "\n-0\n+2\n" in changed.stdout
    assert "documents that differ: 1" in changed.stderr
