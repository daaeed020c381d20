"""scripts/bench bisect: who is counted as ahead, what is in a time, and one real contest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_bisect
import bench_contest
import bench_minify
import bench_peers
import click
import msgspec
import pytest
from bench_contest import Isolation, Program, Round
from bench_peers import Attempt
from fake import stub_release
from places import BENCH

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes.process import Outcome
from iree_pilot.repro.reproducer.folder.marks import Marks

PROGRAM = Program(name="p", source="p.py", target="llvm-cpu", calls_at_most=6, ops_at_most=1)
TWO_OPERATIONS = """
func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %one = arith.constant dense<1.0> : tensor<4xf32>
  %b = arith.addf %a, %one : tensor<4xf32>
  %c = arith.mulf %b, %b : tensor<4xf32>
  return %c : tensor<4xf32>
}
"""


def isolated(calls: int = 4, seconds: float = 5.0, ops: int = 1) -> Isolation:
    return Isolation(ended="done", calls=calls, seconds=seconds, ops=ops)


def round_of(ours: Isolation, compile_seconds: float = 1.0, **peers: Attempt) -> Round:
    return Round(
        trace_seconds=2.0,
        compile_seconds=compile_seconds,
        signature="diagnostic/x",
        isolation=ours,
        peers=peers,
    )


def ended(ended_by: Any, seconds: float = 9.0, exit_code: int | None = 0) -> Outcome:
    return Outcome(
        argv=("x",),
        ended_by=ended_by,
        exit_code=exit_code,
        signal=None,
        seconds=seconds,
        peak_bytes=0,
    )


class TestJudging:
    def test_medians_are_held_against_the_limits(self) -> None:
        rounds = [round_of(isolated(calls=c, seconds=s)) for c, s in ((4, 30.0), (6, 6.0), (7, 12))]
        found = bench_contest.judged(PROGRAM, rounds)
        calls, ops, share = found.verdicts
        assert (calls.figure, calls.at_most, calls.met) == (6, 6, True)
        assert (ops.figure, ops.met) == (1, True)
        assert (share.figure, share.met) == (1.0, True), "12 s of 2 x 1 s + 10 s"

    @pytest.mark.parametrize(("seconds", "met"), [(74.0, True), (75.0, False)])
    def test_time_is_measured_in_full_compiles(self, seconds: float, met: bool) -> None:
        rounds = [round_of(isolated(seconds=seconds), compile_seconds=32.0)]
        assert bench_contest.judged(PROGRAM, rounds).verdicts[-1].met is met

    @pytest.mark.parametrize(("seconds", "met"), [(8.0, True), (8.5, False)])
    def test_the_whole_command_too(self, seconds: float, met: bool) -> None:
        program = msgspec.structs.replace(PROGRAM, compiles_at_most=4)
        isolation = msgspec.structs.replace(isolated(), command_seconds=seconds)
        rounds = [round_of(isolation, compile_seconds=2.0)]
        last = bench_contest.judged(program, rounds).verdicts[-1]
        assert (last.figure, last.met) == (seconds / 2, met)

    def test_what_is_not_isolated_misses_every_limit(self) -> None:
        failed = Isolation(ended="failed", calls=3, why="nothing")
        found = bench_contest.judged(PROGRAM, [round_of(failed, peer=Attempt(ended="done"))])
        assert [v.met for v in found.verdicts] == [False, False, False]
        (ahead,) = found.ahead
        assert (ahead.ops, ahead.calls, ahead.seconds) == (False, False, False)

    def test_a_program_without_limits_is_held_against_time_alone(self) -> None:
        free = Program(name="p", source="p.py", target="llvm-cpu")
        (share,) = bench_contest.judged(free, [round_of(isolated())]).verdicts
        assert share.met

    @pytest.mark.parametrize(
        ("peer", "expected"),
        [
            (Attempt(ended="done", calls=5, seconds=6.0, ops=2), (True, True, True)),
            (Attempt(ended="done", calls=5, seconds=6.0, ops=1), (True, True, True)),
            (Attempt(ended="done", calls=4, seconds=4.0, ops=1), (True, False, False)),
            (Attempt(ended="cut", calls=900, seconds=900.0, ops=50), (True, True, True)),
            (Attempt(ended="cut", calls=2, seconds=900.0, ops=None), (True, False, True)),
            (Attempt(ended="failed", why="it cannot read it"), (True, True, True)),
        ],
    )
    def test_ahead_is_fewer_calls_and_less_time_for_no_more_operations(
        self, peer: Attempt, expected: tuple[bool, ...]
    ) -> None:
        (ahead,) = bench_contest.judged(PROGRAM, [round_of(isolated(), peer=peer)]).ahead
        assert (ahead.ops, ahead.calls, ahead.seconds) == expected

    def test_people_read_of_each_reducer_and_each_limit(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        peer = Attempt(ended="cut", calls=2, seconds=900.0, ops=30, of=97, why="stopped")
        rounds = [round_of(isolated(calls=7), other=peer)]
        bench_contest.tell(bench_contest.judged(PROGRAM, rounds))
        said = capsys.readouterr().out
        assert "30 of 97" in said
        assert "cut: stopped" in said
        assert "oracle calls: 7, at most 6: MISSED" in said
        assert "against other: NOT in calls" in said


class TestIsolation:
    @staticmethod
    def document() -> dict[str, Any]:
        """Of 20 s, 3 and 4 s went into two searches, the rest into folders."""

        def found(op: str, seconds: float) -> dict[str, Any]:
            failure = Failure(kind="diagnostic", message=f"no {op}", signature=op, op=op)
            made = {"oracle_calls": 5, "seconds": seconds, "ops": 2, "minimal": True}
            made |= {"verified": True, "levels": ["mlir"]}
            return {"failure": msgspec.to_builtins(failure), "reproducer": made, "why": ""}

        failures = [found("first", 3.0), found("second", 4.0)]
        return {"status": "isolated", "failures": failures, "oracle_calls": 10, "seconds": 20.0}

    def test_its_time_is_from_the_commands_start_to_the_smallest_program(self) -> None:
        isolation, failure = bench_bisect.isolation(self.document(), "second", 26.0)
        assert failure is not None
        assert failure.signature == "second"
        assert isolation.seconds == pytest.approx(6.0 + 4.0)
        assert (isolation.search_seconds, isolation.command_seconds) == (4.0, 26.0)
        assert (isolation.ended, isolation.calls, isolation.ops) == ("done", 5, 2)
        assert (isolation.minimal, isolation.verified, isolation.levels) == (True, True, ("mlir",))

    def test_without_a_choice_it_is_the_first_failure(self) -> None:
        _, failure = bench_bisect.isolation(self.document(), "", 26.0)
        assert failure is not None
        assert failure.signature == "first"

    def test_a_failure_that_was_not_isolated_is_no_figure(self) -> None:
        document = self.document()
        document["failures"][0] |= {"reproducer": None, "why": "it comes and goes"}
        isolation, failure = bench_bisect.isolation(document, "first", 26.0)
        assert (isolation.ended, isolation.why) == ("failed", "it comes and goes")
        assert failure is not None, "the others can still try"

    def test_a_program_that_passes_is_no_figure(self) -> None:
        document = {"status": "passes", "failures": [], "why": "p.py compiles", "seconds": 0.0}
        isolation, failure = bench_bisect.isolation(document, "", 26.0)
        assert (isolation.ended, isolation.why, failure) == ("failed", "p.py compiles", None)


PILOT = """#!{python}
import json, os, pathlib, sys, time
command, arguments = sys.argv[1], sys.argv[2:]
failure = {{"kind": "diagnostic", "message": "no x", "signature": "diagnostic/x"}}
made = {{"oracle_calls": 3, "seconds": 0.01, "ops": 1, "minimal": True, "verified": True}}
if command == "trace":
    directory = pathlib.Path(arguments[arguments.index("-o") + 1])
    directory.mkdir()
    (directory / "program.mlir").write_text("// stub: error-at flow no x\\n")
    print(json.dumps({{"program": {{"mlir": "program.mlir"}}}}))
elif command == "bisect":
    assert not pathlib.Path(os.environ["IREE_PILOT_DATA"]).exists(), "something may be known"
    time.sleep({asleep})
    found = {{"failure": failure, "reproducer": {{**made, "levels": ["mlir"]}}, "why": ""}}
    print(json.dumps({{"status": "isolated", "failures": [found], "seconds": 0.02}}))
else:
    print(json.dumps({{"cases": [{{"failure": failure}}]}}))
"""


class TestContest:
    """All of it, with stand-ins for iree-pilot, the compiler and the peer."""

    @pytest.fixture
    def measure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        stub_release(tmp_path / "release")

        def measured(asleep: float, count: int = 1) -> bench_contest.Contest:
            pilot = tmp_path / "iree-pilot"
            pilot.write_text(PILOT.format(python=sys.executable, asleep=asleep))
            pilot.chmod(0o755)
            monkeypatch.setattr(bench_bisect, "PILOT", str(pilot))

            def peer(subject: bench_peers.Subject, directory: Path, limit: float) -> Attempt:
                assert subject.failure.signature == "diagnostic/x"
                assert subject.mlir.is_file()
                assert subject.seconds == 30, "ten times the whole compile, but at least this"
                assert [*directory.iterdir()] == []
                return Attempt(ended="done", calls=9, seconds=limit, ops=2)

            release = str(tmp_path / "release")
            return bench_bisect.contest(PROGRAM, count, 3.0, release, {"peer": peer})

        return measured

    @pytest.mark.slow
    def test_every_round_begins_with_nothing_known(self, measure: Any) -> None:
        found = measure(0, count=2)
        ours, peer = found.reducers
        assert found.signature == "diagnostic/x"
        assert (ours.calls.values, peer.calls.values) == ((3, 3), (9, 9))
        assert all(a.seconds < a.command_seconds for a in ours.attempts)
        assert len(found.compile_seconds.values) == len(found.trace_seconds.values) == 2
        assert all(verdict.met for verdict in found.verdicts)

    @pytest.mark.slow
    def test_the_peers_run_where_the_bisector_does_not_end(self, measure: Any) -> None:
        found = measure(60)
        ours, peer = found.reducers
        assert ours.attempts[0].why == "stopped after 3 s"
        assert (ours.calls, peer.calls.median) == (None, 9)
        assert not any(verdict.met for verdict in found.verdicts)
        assert found.signature == "diagnostic/x"


class TestMinifier:
    @staticmethod
    def journal(directory: Path, *interesting: bool) -> None:
        queries = [
            bench_minify.Query(interesting=yes, nodes=9, seconds=number + 1.0, why="")
            for number, yes in enumerate(interesting)
        ]
        lines = b"".join(msgspec.json.encode(query) + b"\n" for query in queries)
        (directory / bench_minify.QUERIES).write_bytes(lines)
        (directory / "stderr.txt").write_text("Error: no\n")

    def test_its_queries_are_counted_and_its_search_timed(self, tmp_path: Path) -> None:
        self.journal(tmp_path, True, False, True)
        (tmp_path / bench_minify.SMALLEST).write_text(TWO_OPERATIONS)
        attempt = bench_peers.minified(ended("exit"), tmp_path)
        assert (attempt.ended, attempt.calls, attempt.seconds) == ("done", 3, 3.0)
        assert attempt.ops == 2, "constants and returns do not count"

    def test_cut_it_tells_what_it_had_reached(self, tmp_path: Path) -> None:
        self.journal(tmp_path, True, False)
        (tmp_path / bench_minify.SMALLEST).write_text(TWO_OPERATIONS)
        attempt = bench_peers.minified(ended("time-limit", exit_code=None), tmp_path)
        assert (attempt.ended, attempt.calls, attempt.seconds) == ("cut", 2, 9.0)
        assert attempt.ops == 2
        assert attempt.why == "stopped after 9 s"

    def test_a_graph_that_does_not_fail_so_is_a_failed_attempt(self, tmp_path: Path) -> None:
        self.journal(tmp_path, False)
        attempt = bench_peers.minified(ended("exit", exit_code=1), tmp_path)
        assert (attempt.ended, attempt.ops) == ("failed", None)
        assert "does not fail so" in attempt.why

    def test_one_that_does_not_start_says_why(self, tmp_path: Path) -> None:
        (tmp_path / "stderr.txt").write_text("Traceback\nImportError: no torch\n")
        attempt = bench_peers.minified(ended("exit", exit_code=1), tmp_path)
        assert (attempt.ended, attempt.calls) == ("failed", 0)
        assert attempt.why == "exit code 1: ImportError: no torch"


class TestInteresting:
    """The script that iree-reduce asks, with a stand-in for the compiler."""

    @pytest.fixture
    def ask(self, tmp_path: Path) -> Any:
        compiler = str(stub_release(tmp_path / "release"))

        def asked(look: Marks, program: str, seconds: float = 60.0) -> int:
            script, candidate = tmp_path / "interesting.sh", tmp_path / "candidate.mlir"
            text = bench_peers.interesting(look, (compiler,), tmp_path, seconds)
            script.write_text(text)
            script.chmod(0o755)
            candidate.write_text(program)
            return subprocess.run([script, candidate], timeout=60, check=False).returncode

        return asked

    def test_it_wants_the_message(self, ask: Any, tmp_path: Path) -> None:
        look = Marks(needles=("no lowering for this",))
        assert ask(look, "// stub: error-at flow no lowering for this\n") == 0
        assert "no lowering" in (tmp_path / "smallest.mlir").read_text()
        assert ask(look, "// stub: error-at flow no lowering for that\n") == 1
        assert ask(look, "module {\n}\n") == 1, "it compiles"
        assert (tmp_path / "calls").read_text() == "...", "each was counted"
        assert "for this" in (tmp_path / "smallest.mlir").read_text(), "the last that failed so"

    def test_it_wants_the_signal(self, ask: Any) -> None:
        look = Marks(signal=signal.SIGSEGV.value)
        assert ask(look, "// stub: crash-at flow SIGSEGV\n") == 0
        assert ask(look, "// stub: crash-at flow SIGABRT\n") == 1
        assert ask(look, "// stub: error-at flow no lowering for this\n") == 1

    def test_it_wants_no_other_words(self, ask: Any) -> None:
        look = Marks(needles=("no lowering",), never=("for that",))
        assert ask(look, "// stub: error-at flow no lowering for this\n") == 0
        assert ask(look, "// stub: error-at flow no lowering for that\n") == 1

    def test_it_wants_no_other_errors(self, ask: Any) -> None:
        look = Marks(only=("no lowering",))
        assert ask(look, "// stub: error-at flow no lowering for this\n") == 0
        assert ask(look, "// stub: error-at flow another one\n") == 1

    @pytest.mark.slow
    def test_it_wants_the_hang(self, ask: Any) -> None:
        look = Marks(limit="time")
        assert ask(look, "// stub: hang-at flow\n", 0.5) == 0
        assert ask(look, "// stub: error-at flow no lowering for this\n") == 1


class TestChoice:
    def test_there_is_a_sample_and_all_of_them(self) -> None:
        names = [program.name for program in bench_bisect.chosen((), False, None)]
        assert names == [*bench_bisect.SAMPLE]
        assert len(bench_bisect.chosen((), True, None)) == len(bench_bisect.PROGRAMS)

    def test_every_program_is_there(self) -> None:
        for program in bench_bisect.PROGRAMS.values():
            assert Path(program.source.partition(":")[0]).is_file()

    def test_a_source_of_ones_own_goes_with_a_target(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "own.py").touch()
        monkeypatch.chdir(tmp_path)
        (program,) = bench_bisect.chosen(("own.py:big",), False, "vulkan")
        assert (program.name, program.source) == ("own.py:big", f"{tmp_path}/own.py:big")
        assert program.calls_at_most is None

    @pytest.mark.parametrize(
        ("names", "target"), [(("nosuch",), None), ((), "vulkan")], ids=["name", "target"]
    )
    def test_what_does_not_fit_is_wrong_usage(
        self, names: tuple[str, ...], target: str | None
    ) -> None:
        with pytest.raises(click.UsageError):
            bench_bisect.chosen(names, False, target)


@pytest.mark.slow
@pytest.mark.real
def test_three_reducers_on_a_model_of_one_operation(cache: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCH, "bisect", "argsort", "--json", "--limit", "300s"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (contest,) = report["bisect"]
    ours, minifier, reducer = contest["reducers"]
    assert [r["what"] for r in (ours, minifier, reducer)] == [
        "iree-pilot bisect",
        "FX minifier",
        "iree-reduce",
    ]
    assert contest["signature"].startswith("crash/SIGSEGV/IntegerAttr.getInt")
    (attempt,) = ours["attempts"]
    assert (attempt["ops"], attempt["of"], attempt["minimal"]) == (1, 1, True)
    assert attempt["verified"]
    assert attempt["search_seconds"] < attempt["seconds"] < attempt["command_seconds"]
    assert minifier["attempts"][0]["ended"] == "done"
    assert minifier["attempts"][0]["ops"] == 1
    assert reducer["attempts"][0]["ended"] == "done"
    assert 1 <= reducer["attempts"][0]["ops"] <= reducer["attempts"][0]["of"]
    assert [v["met"] for v in contest["verdicts"][:2]] == [True, True]
    assert not list(cache.glob("bench-*")), "its own cache is left behind"
