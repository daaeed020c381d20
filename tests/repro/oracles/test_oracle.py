"""The compiler as an oracle: only the same failure, alone or with its companions, is it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from fake import stub_toolchain
from fake.processes import wait_until

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain import compiler
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.oracles.oracle import Answer, CompileOracle, _OracleEntry, strangers

BAD = "// stub: error-at flow 'foo.bar' op is not supported\n"
OTHER = "// stub: error-at flow 'foo.baz' op has no lowering\n"
LATER = "// stub: error-at vm 'foo.bar' op is not supported\n"
#: What is printed before an error of another kind.
BESIDE = "// stub: print-at flow x.mlir:1:1: error: 'foo.baz' op has no lowering\n"
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
    result = compiler.compile(
        Compile(mlir=program, flags=()), Context(toolchain=toolchain, directory=place)
    )
    assert result.failure is not None
    return result.failure


@pytest.fixture
def oracle(toolchain: Toolchain, wanted: Failure, tmp_path: Path) -> CompileOracle:
    limits = process.Limits(seconds=5)
    return CompileOracle(
        Context(toolchain=toolchain, limits=limits, directory=tmp_path / "state"),
        (),
        wanted,
        width=2,
    )


def candidates(directory: Path, *texts: str) -> list[Path]:
    files = [directory / f"candidate{i}.mlir" for i in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return files


class TestVerdicts:
    @pytest.mark.slow
    def test_the_same_failure_and_another_and_none(
        self, oracle: CompileOracle, tmp_path: Path
    ) -> None:
        asked = candidates(tmp_path, "// smaller\n" + BAD, OTHER, "// fine\n")
        assert [a.verdict for a in oracle.ask(asked)] == ["same", "different", "passes"]

    @pytest.mark.slow
    def test_another_failure_is_remembered_and_not_taken_for_the_first(
        self, oracle: CompileOracle, tmp_path: Path
    ) -> None:
        oracle.ask(candidates(tmp_path, OTHER))
        (other,) = oracle.others.values()
        assert "foo.baz" in other.message

    @pytest.mark.slow
    def test_the_failure_beside_another_one_is_not_the_same(
        self, oracle: CompileOracle, tmp_path: Path
    ) -> None:
        (answer,) = oracle.ask(candidates(tmp_path, BESIDE + BAD))
        assert answer.verdict == "different"

    @pytest.mark.slow
    def test_only_the_phases_up_to_the_failure_are_compiled(
        self, oracle: CompileOracle, tmp_path: Path
    ) -> None:
        (answer,) = oracle.ask(candidates(tmp_path, LATER))
        assert answer.verdict == "passes"
        assert "--compile-to=flow" in oracle.command("x.mlir")

    @pytest.mark.slow
    def test_what_runs_into_the_time_limit_is_unresolved(
        self, toolchain: Toolchain, wanted: Failure, tmp_path: Path
    ) -> None:
        limits = process.Limits(seconds=0.5)
        oracle = CompileOracle(
            Context(toolchain=toolchain, limits=limits, directory=tmp_path / "s"), (), wanted
        )
        (answer,) = oracle.ask(candidates(tmp_path, "// stub: hang-at flow\n"))
        assert answer.verdict == "unresolved"

    @pytest.mark.slow
    def test_what_does_not_parse_is_no_program(self, oracle: CompileOracle, tmp_path: Path) -> None:
        text = "// stub: error-at parse 'foo.bar' op has no region\n"
        (answer,) = oracle.ask(candidates(tmp_path, text + OTHER))
        assert answer.verdict == "invalid"
        assert oracle.others == {}


class TestCompanions:
    """A failure that the whole program shows only together with another one."""

    @pytest.fixture
    def companion(self, toolchain: Toolchain, tmp_path: Path) -> CompileOracle:
        return self.search(toolchain, tmp_path, BESIDE + BAD)

    def search(self, toolchain: Toolchain, tmp_path: Path, whole: str) -> CompileOracle:
        program, place = tmp_path / "whole.mlir", tmp_path / "whole"
        program.write_text(whole)
        place.mkdir(exist_ok=True)
        result = compiler.compile(
            Compile(mlir=program, flags=()), Context(toolchain=toolchain, directory=place)
        )
        assert result.failure is not None
        state, limits = tmp_path / "state", process.Limits(seconds=5)
        return CompileOracle(
            Context(toolchain=toolchain, limits=limits, directory=state), (), result.failure
        )

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("candidate", "verdict"),
        [
            (BESIDE + BAD, "same"),
            (OTHER, "same"),
            (BAD, "different"),
            (BESIDE + BAD.replace("foo.bar", "foo.new"), "different"),
            (BESIDE + BESIDE.replace("foo.baz", "foo.new") + BAD, "different"),
        ],
        ids=["both", "only the wanted one", "only the companion", "a stranger", "a third"],
    )
    def test_a_candidate_may_show_them_and_nothing_else(
        self, companion: CompileOracle, tmp_path: Path, candidate: str, verdict: str
    ) -> None:
        assert companion.wanted.also, "the whole program shows two"
        (answer,) = companion.ask(candidates(tmp_path, "// smaller\n" + candidate))
        assert answer.verdict == verdict

    def test_what_only_follows_is_told_of_any_operation_or_of_none(self) -> None:
        def failed(message: str, op: str | None = None) -> Failure:
            return Failure(kind="diagnostic", message=message, signature=f"{op}/{message}", op=op)

        link, serialize = "failed to link executable", "failed to serialize executables"
        wanted = msgspec.structs.replace(failed(link), also=(failed(serialize),))
        alone = failed(serialize, "linalg.softmax")
        assert strangers(msgspec.structs.replace(failed(link), also=(alone,)), wanted) == ()
        other = failed("op is not supported", "linalg.softmax")
        assert strangers(msgspec.structs.replace(failed(link), also=(other,)), wanted) == (other,)

    @pytest.mark.slow
    def test_their_order_does_not_count(
        self, companion: CompileOracle, toolchain: Toolchain, tmp_path: Path
    ) -> None:
        wanted = companion.wanted
        (other,) = wanted.also
        swapped = msgspec.structs.replace(other, also=(msgspec.structs.replace(wanted, also=()),))
        oracle = CompileOracle(
            Context(
                toolchain=toolchain, limits=process.Limits(seconds=5), directory=tmp_path / "s"
            ),
            (),
            swapped,
        )
        (answer,) = oracle.ask(candidates(tmp_path, "// smaller\n" + BESIDE + BAD))
        assert answer.verdict == "same"
        assert answer.failure is not None and answer.failure.signature == wanted.signature

    @pytest.mark.slow
    def test_what_an_earlier_search_saw_is_judged_anew(
        self, toolchain: Toolchain, companion: CompileOracle, tmp_path: Path
    ) -> None:
        """Journals of earlier releases took a failure with its companion for another one."""
        asked = candidates(tmp_path, "// smaller\n" + BESIDE + BAD)
        companion.ask(asked)
        journal = tmp_path / "state" / "answers.jsonl"
        text = journal.read_text()
        assert '"verdict":"same"' in text
        journal.write_text(text.replace('"verdict":"same"', '"verdict":"different"'))
        again = self.search(toolchain, tmp_path, BESIDE + BAD)
        assert [answer.verdict for answer in again.ask(asked)] == ["same"]
        assert again.calls == 0 and not again.others


class TestHangs:
    """A failure that is a hang: only one as long as the first, at the same place, is the same."""

    @pytest.fixture
    def wanted(self, toolchain: Toolchain, tmp_path: Path) -> Failure:
        program = tmp_path / "whole.mlir"
        program.write_text(HANGS)
        place = tmp_path / "whole"
        place.mkdir()
        limits = process.Limits(seconds=3)
        job = Compile(mlir=program, flags=())
        result = compiler.compile(job, Context(toolchain=toolchain, limits=limits, directory=place))
        assert result.failure is not None and result.failure.kind == "timeout"
        return result.failure

    @pytest.mark.slow
    def test_the_place_decides(self, toolchain: Toolchain, wanted: Failure, tmp_path: Path) -> None:
        oracle = CompileOracle(
            Context(
                toolchain=toolchain, limits=process.Limits(seconds=3), directory=tmp_path / "s"
            ),
            (),
            wanted,
        )
        earlier = "// stub: hang-at abi\n"
        asked = candidates(tmp_path, "// smaller\n" + HANGS, earlier, BAD, "// fine\n")
        verdicts = [answer.verdict for answer in oracle.ask(asked)]
        assert verdicts == ["same", "unresolved", "different", "passes"]


class TestMemory:
    @pytest.mark.slow
    def test_one_content_is_compiled_once(self, oracle: CompileOracle, tmp_path: Path) -> None:
        first, second = candidates(tmp_path, BAD, BAD)
        assert [a.verdict for a in oracle.ask([first, second])] == ["same", "same"]
        oracle.ask([first])
        assert oracle.calls == 1

    @pytest.mark.slow
    def test_a_later_search_knows_what_an_earlier_one_asked(
        self, toolchain: Toolchain, oracle: CompileOracle, wanted: Failure, tmp_path: Path
    ) -> None:
        asked = candidates(tmp_path, BAD, OTHER)
        before = oracle.ask(asked)
        again = CompileOracle(
            Context(
                toolchain=toolchain, limits=process.Limits(seconds=5), directory=tmp_path / "state"
            ),
            (),
            wanted,
        )
        assert again.ask(asked) == before
        assert again.calls == 0
        assert again.spent.calls == oracle.calls == 2
        assert again.spent.seconds > again.spent.earlier_seconds > 0

    @pytest.mark.slow
    def test_a_journal_that_was_cut_off_loses_its_last_line_only(
        self, toolchain: Toolchain, oracle: CompileOracle, wanted: Failure, tmp_path: Path
    ) -> None:
        asked = candidates(tmp_path, BAD, OTHER)
        oracle.ask(asked[:1])
        oracle.ask(asked[1:])
        journal = tmp_path / "state" / "answers.jsonl"
        journal.write_bytes(journal.read_bytes()[:-20])
        again = CompileOracle(
            Context(
                toolchain=toolchain, limits=process.Limits(seconds=5), directory=tmp_path / "state"
            ),
            (),
            wanted,
        )
        assert [answer.verdict for answer in again.ask(asked)] == ["same", "different"]
        assert again.calls == 1
        third = CompileOracle(
            Context(
                toolchain=toolchain, limits=process.Limits(seconds=5), directory=tmp_path / "state"
            ),
            (),
            wanted,
        )
        third.ask(asked)
        assert third.calls == 0, "what was written after the line that was cut off is read"

    @pytest.mark.slow
    def test_other_failures_that_were_met_before_are_still_known(
        self, toolchain: Toolchain, oracle: CompileOracle, wanted: Failure, tmp_path: Path
    ) -> None:
        oracle.ask(candidates(tmp_path, OTHER))
        again = CompileOracle(
            Context(
                toolchain=toolchain, limits=process.Limits(seconds=5), directory=tmp_path / "state"
            ),
            (),
            wanted,
        )
        assert again.others == oracle.others != {}

    @pytest.mark.slow
    def test_what_met_a_lower_limit_is_asked_again(
        self, toolchain: Toolchain, wanted: Failure, tmp_path: Path
    ) -> None:
        def calls(seconds: float) -> int:
            limits = process.Limits(seconds=seconds)
            oracle = CompileOracle(
                Context(toolchain=toolchain, limits=limits, directory=tmp_path / "s"), (), wanted
            )
            oracle.ask(candidates(tmp_path, "// stub: hang-at flow\n"))
            return oracle.calls

        assert [calls(0.5), calls(0.4), calls(0.7), calls(0.7)] == [1, 0, 1, 0]

    @pytest.mark.slow
    def test_each_answer_is_kept_as_soon_as_it_is_there(
        self, toolchain: Toolchain, oracle: CompileOracle, wanted: Failure, tmp_path: Path
    ) -> None:
        journal = tmp_path / "state" / "answers.jsonl"
        slow = f"// stub: wait-at flow {tmp_path / 'go'}\n"

        def interrupt() -> None:
            wait_until(lambda: journal.exists() and journal.read_bytes().endswith(b"\n"))
            os.kill(os.getpid(), signal.SIGINT)

        thread = Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            oracle.ask(candidates(tmp_path, slow, OTHER))
        thread.join()
        limits = process.Limits(seconds=5)
        again = CompileOracle(
            Context(toolchain=toolchain, limits=limits, directory=tmp_path / "state"), (), wanted
        )
        assert again.ask(candidates(tmp_path, slow, OTHER)[1:])[0].verdict == "different"
        assert again.calls == 0

    @pytest.mark.slow
    def test_asking_again_does_not_believe_its_memory(
        self, oracle: CompileOracle, tmp_path: Path
    ) -> None:
        (program,) = candidates(tmp_path, BAD)
        oracle.ask([program])
        assert oracle.again(program) is not None
        assert oracle.calls == 2


def test_what_somebody_else_killed_is_asked_again() -> None:
    """One candidate whose compile the system killed made every later search give up."""
    limits = process.Limits(seconds=60, memory_bytes=10**9)
    for message, holds in (("killed, as the system does", False), ("stopped at the memory", True)):
        failure = Failure(kind="out-of-memory", message=message, signature="out-of-memory/a")
        entry = _OracleEntry("digest", Answer(verdict="unresolved", failure=failure), 60, 10**9)
        assert entry.holds(limits) is holds
