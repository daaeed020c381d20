"""A compile that goes on and on: which of its executables it is, honestly told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake import stub_toolchain

from iree_pilot.pipeline.inspect import executables
from iree_pilot.pipeline.inspect.executables import Compiling, ExecutableSurvey
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Limits, Outcome
from iree_pilot.pipeline.toolchain import compiler
from iree_pilot.pipeline.toolchain.compiler import Compile, CompileResult, Listener
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

HANGS = """// stub: hang-at executable-targets
// stub: executable copy
// stub: executable matmul hang-at executable-targets
// stub: executable softmax
"""


@pytest.fixture
def stub(tmp_path: Path) -> Toolchain:
    return stub_toolchain(tmp_path / "release")


class TestSurvey:
    """With processes that take as long as they are said to."""

    @pytest.fixture
    def survey(self, stub: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        def surveyed(**seconds: float) -> ExecutableSurvey:
            def run(argv: Any, *, limits: Limits, **files: Path) -> Outcome:
                assert limits.seconds is not None and limits.of_processor
                source = next(Path(word) for word in argv if str(word).endswith(".mlir"))
                takes = seconds[source.stem]
                over = takes > limits.seconds
                return Outcome(
                    argv=(),
                    ended_by="time-limit" if over else "exit",
                    exit_code=None if over else 0,
                    signal=None,
                    seconds=10 * takes,
                    peak_bytes=0,
                    processor_seconds=min(takes, limits.seconds),
                )

            monkeypatch.setattr(process, "run", run)
            files = [tmp_path / f"{name}.mlir" for name in seconds]
            for file in files:
                file.write_text(f"hal.executable.export public @{file.stem}_f32 ordinal(0)")
            made = ExecutableSurvey(
                Context(toolchain=stub, limits=Limits(), directory=tmp_path), (), limit_seconds=15
            )
            made.run(files)
            return made

        return surveyed

    def test_the_one_that_does_not_end_is_named_beside_the_others(self, survey: Any) -> None:
        made = survey(a=0.2, b=900, c=0.5, d=800)
        assert made.found.stem == "b"
        assert str(made.state) == (
            "executable b_f32 was still compiling after 15 s of processor time, alone; "
            "2 of 3 others took at most 0.5 s, 1 more than 3 s"
        )

    def test_nothing_is_said_where_all_end(self, survey: Any) -> None:
        made = survey(a=0.2, b=14, c=0.5)
        assert made.found is None
        assert made.state.unending == "" and made.state.ended == 3

    def test_others_that_take_nearly_as_long_raise_the_limit(self, survey: Any) -> None:
        made = survey(b=14, a=100, c=0.5)
        assert made.found is None, "it is given ten times what another one takes"
        made = survey(b=14, a=200)
        assert (made.found.stem, made.state.limit_seconds) == ("a", 140)
        made = survey(a=200, b=2.5)
        assert (made.found.stem, made.state.limit_seconds) == ("a", 25)


class TestCompile:
    """A compile that hangs, with executables of which one does."""

    @pytest.fixture
    def compile(self, stub: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(executables, "WAIT_SECONDS", 0)
        monkeypatch.setattr(executables, "HASTY_SECONDS", 0)
        monkeypatch.setattr(executables, "UNENDING_SECONDS", 1.5)
        monkeypatch.setattr(executables, "_TIMES", 2)
        monkeypatch.setattr(executables, "_HOPELESS_SECONDS", 0)

        def compiled(text: str, **how: Any) -> tuple[CompileResult, list[Compiling]]:
            (tmp_path / "model.mlir").write_text(text)
            heard: list[Compiling] = []
            also = how.pop("on_compiling", lambda state: None)

            def compiling(state: Compiling) -> None:
                heard.append(state)
                also(state)

            listener = Listener(phase=lambda phase: None, compiling=compiling)
            job = Compile(mlir=tmp_path / "model.mlir", flags=(), **how)
            limits = Limits(seconds=120)
            place = tmp_path / "out"
            place.mkdir()
            return compiler.compile(
                job, Context(toolchain=stub, limits=limits, directory=place), listener=listener
            ), heard

        return compiled

    @pytest.mark.slow
    def test_it_is_given_up_in_haste(self, compile: Any) -> None:
        result, heard = compile(HANGS, hasty=True)
        failure = result.failure
        assert (failure.kind, failure.phase) == ("timeout", "executable-targets")
        assert failure.message.startswith("executable matmul was still compiling after ")
        assert failure.stopped.executable == "matmul" and not failure.stopped.default
        assert heard[0].unending == "matmul"
        assert result.seconds < 120

    @pytest.mark.slow
    def test_else_it_is_only_told(self, compile: Any, tmp_path: Path) -> None:
        go = tmp_path / "go"
        text = HANGS.replace("hang-at executable-targets", f"wait-at executable-targets {go}", 1)
        result, heard = compile(text, on_compiling=lambda state: go.touch())
        assert heard[0].unending == "matmul"
        assert result.ok, "what takes long may still end"

    def test_what_fails_before_is_the_failure(self, compile: Any) -> None:
        result, _ = compile(HANGS.replace("hang-at", "error-at", 1), hasty=True)
        assert result.failure.kind == "diagnostic"
        assert not result.failure.stopped
