"""The compiler as an oracle: only the same failure, alone, is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake import stub_toolchain

from pipeline import compiler, process
from pipeline.compiler import Compile
from pipeline.diagnostics import Failure
from pipeline.toolchain import Toolchain
from repro.oracle import CompileOracle

BAD = "// stub: error-at flow 'foo.bar' op is not supported\n"
OTHER = "// stub: error-at flow 'foo.baz' op has no lowering\n"
LATER = "// stub: error-at vm 'foo.bar' op is not supported\n"
HANGS = "// stub: hang-at stream\n"


@pytest.fixture
def toolchain(tmp_path: Path) -> Toolchain:
    return stub_toolchain(tmp_path / "release")


@pytest.fixture
def wanted(toolchain: Toolchain, tmp_path: Path) -> Failure:
    program = tmp_path / "whole.mlir"
    program.write_text(BAD)
    place = tmp_path / "whole"
    place.mkdir()
    result = compiler.compile(Compile(mlir=program, flags=()), toolchain, place)
    assert result.failure is not None
    return result.failure


@pytest.fixture
def oracle(toolchain: Toolchain, wanted: Failure, tmp_path: Path) -> CompileOracle:
    limits = process.Limits(seconds=5)
    return CompileOracle(toolchain, (), wanted, tmp_path / "state", limits=limits, width=2)


def candidates(directory: Path, *texts: str) -> list[Path]:
    files = [directory / f"candidate{i}.mlir" for i in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return files


class TestVerdicts:
    def test_the_same_failure_and_another_and_none(
        self, oracle: CompileOracle, tmp_path: Path
    ) -> None:
        asked = candidates(tmp_path, "// smaller\n" + BAD, OTHER, "// fine\n")
        assert [a.verdict for a in oracle.ask(asked)] == ["same", "different", "passes"]

    def test_another_failure_is_remembered_and_not_taken_for_the_first(
        self, oracle: CompileOracle, tmp_path: Path
    ) -> None:
        oracle.ask(candidates(tmp_path, OTHER))
        (other,) = oracle.others.values()
        assert "foo.baz" in other.message

    def test_the_failure_beside_another_one_is_not_the_same(
        self, oracle: CompileOracle, tmp_path: Path
    ) -> None:
        both = "// stub: print-at flow x.mlir:1:1: error: 'foo.baz' op has no lowering\n" + BAD
        (answer,) = oracle.ask(candidates(tmp_path, both))
        assert answer.verdict == "different"

    def test_only_the_phases_up_to_the_failure_are_compiled(
        self, oracle: CompileOracle, tmp_path: Path
    ) -> None:
        (answer,) = oracle.ask(candidates(tmp_path, LATER))
        assert answer.verdict == "passes"
        assert "--compile-to=flow" in oracle.command("x.mlir")

    def test_what_runs_into_the_time_limit_is_unresolved(
        self, toolchain: Toolchain, wanted: Failure, tmp_path: Path
    ) -> None:
        limits = process.Limits(seconds=0.5)
        oracle = CompileOracle(toolchain, (), wanted, tmp_path / "s", limits=limits)
        (answer,) = oracle.ask(candidates(tmp_path, "// stub: hang-at flow\n"))
        assert answer.verdict == "unresolved"


class TestMemory:
    def test_one_content_is_compiled_once(self, oracle: CompileOracle, tmp_path: Path) -> None:
        first, second = candidates(tmp_path, BAD, BAD)
        assert [a.verdict for a in oracle.ask([first, second])] == ["same", "same"]
        oracle.ask([first])
        assert oracle.calls == 1

    def test_a_later_search_knows_what_an_earlier_one_asked(
        self, toolchain: Toolchain, oracle: CompileOracle, wanted: Failure, tmp_path: Path
    ) -> None:
        asked = candidates(tmp_path, BAD, OTHER)
        before = oracle.ask(asked)
        again = CompileOracle(
            toolchain, (), wanted, tmp_path / "state", limits=process.Limits(seconds=5)
        )
        assert again.ask(asked) == before
        assert again.calls == 0

    def test_a_journal_that_was_cut_off_loses_its_last_line_only(
        self, toolchain: Toolchain, oracle: CompileOracle, wanted: Failure, tmp_path: Path
    ) -> None:
        asked = candidates(tmp_path, BAD, OTHER)
        oracle.ask(asked[:1])
        oracle.ask(asked[1:])
        journal = tmp_path / "state" / "answers.jsonl"
        journal.write_bytes(journal.read_bytes()[:-20])
        again = CompileOracle(
            toolchain, (), wanted, tmp_path / "state", limits=process.Limits(seconds=5)
        )
        again.ask(asked)
        assert again.calls == 1

    def test_asking_again_does_not_believe_its_memory(
        self, oracle: CompileOracle, tmp_path: Path
    ) -> None:
        (program,) = candidates(tmp_path, BAD)
        oracle.ask([program])
        assert oracle.again(program) is not None
        assert oracle.calls == 2
