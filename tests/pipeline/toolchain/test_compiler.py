"""A compile tells its phases, its failure and the phase that failed, whatever the compiler does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake import stub_toolchain
from fake.processes import running, wait_until
from places import TESTS

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.toolchain import compiler
from iree_pilot.pipeline.toolchain.compiler import Compile, CompileResult, Listener
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.phases import Phase
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

BEFORE_FLOW = ["input", "abi", "preprocessing", "global-optimization", "dispatch-creation"]


@pytest.fixture
def stub(tmp_path: Path) -> Toolchain:
    return stub_toolchain(tmp_path / "release")


@pytest.fixture
def compile(stub: Toolchain, tmp_path: Path) -> Any:
    """Compiles a text with the stub; `directory` has the files."""

    def made(text: str, *, flags: tuple[str, ...] = (), **options: Any) -> CompileResult:
        program = tmp_path / "model.mlir"
        program.write_text(text)
        directory = tmp_path / options.pop("into", "out")
        directory.mkdir()
        fields = {name: options.pop(name) for name in ("to", "resume") if name in options}
        job = Compile(mlir=program, flags=flags, **fields)
        context = Context(
            toolchain=options.pop("toolchain", stub),
            limits=options.pop("limits", Limits()),
            directory=directory,
        )
        return compiler.compile(job, context, **options)

    return made


def hearing(phase: Any) -> Listener:
    return Listener(phase=phase, compiling=lambda state: None)


def names(phases: tuple[Phase, ...]) -> list[str]:
    return [phase.name for phase in phases]


class TestSuccess:
    def test_every_phase_is_told_in_order_with_the_module_last(
        self, compile: Any, stub: Toolchain, tmp_path: Path
    ) -> None:
        heard: list[Phase] = []
        result = compile("module {\n}\n", listener=hearing(heard.append))
        assert result.ok
        assert names(result.phases) == list(stub.phases[1:])
        assert heard == list(result.phases)
        assert all(phase.ops == {"builtin": 1} for phase in result.phases[:-1])
        module = tmp_path / "out" / "module.vmfb"
        assert result.output == "module.vmfb"
        assert result.phases[-1].bytes == result.output_bytes == module.stat().st_size
        assert result.phases[-1].ops == {}
        assert result.peak_bytes > 0
        assert sum(phase.seconds for phase in result.phases) <= result.seconds + 0.1

    def test_the_command_can_be_typed_in_any_directory(
        self, compile: Any, stub: Toolchain, tmp_path: Path
    ) -> None:
        result = compile("module {\n}\n", flags=("--iree-hal-target-device=local",))
        assert result.command == (
            str(stub.compiler),
            str(tmp_path / "model.mlir"),
            "--iree-hal-target-device=local",
            "--dump-compilation-phases-to=phases",
            "-o",
            "module.vmfb",
        )

    def test_to_stops_after_a_phase_and_leaves_ir(self, compile: Any, tmp_path: Path) -> None:
        result = compile("module {\n}\n", to="dispatch-creation")
        assert names(result.phases) == BEFORE_FLOW
        assert result.output == "dispatch-creation.mlir"
        written = (tmp_path / "out" / result.output).read_text()
        assert written == "module {\n}\n// phase: dispatch-creation\n"
        assert "--compile-to=dispatch-creation" in result.command

    def test_from_goes_on_after_a_phase(self, compile: Any) -> None:
        result = compile("module {\n}\n", resume="stream")
        assert names(result.phases)[0] == "executable-sources"
        assert "--compile-from=stream" in result.command
        assert result.ok

    def test_from_and_to_together(self, compile: Any) -> None:
        result = compile("module {\n}\n", resume="input", to="preprocessing")
        assert names(result.phases) == ["abi", "preprocessing"]


class TestStatistics:
    FLAGS = ("iree-scheduling-dump-statistics-format", "iree-scheduling-dump-statistics-file")

    @pytest.mark.slow
    def test_they_are_asked_for_where_the_release_knows_them(
        self, compile: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        starts = tmp_path / "starts"
        monkeypatch.setenv("IREE_STUB_STARTS", str(starts))
        assert compile("module {\n}\n").ok
        assert "statistics" not in starts.read_text()
        known = stub_toolchain(
            tmp_path / "newer",
            flags=["compile-from", "compile-to", "dump-compilation-phases-to", *self.FLAGS],
        )
        result = compile("module {\n}\n", toolchain=known, into="second")
        assert result.ok
        assert "--iree-scheduling-dump-statistics-format=json" in starts.read_text()
        assert result.dispatches is None, "the stub writes none"
        assert not any("statistics" in word for word in result.command)

    @pytest.mark.slow
    def test_the_users_own_wish_for_them_comes_first(
        self, compile: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        starts = tmp_path / "starts"
        known = stub_toolchain(
            tmp_path / "newer",
            flags=["compile-from", "compile-to", "dump-compilation-phases-to", *self.FLAGS],
        )
        monkeypatch.setenv("IREE_STUB_STARTS", str(starts))
        own = "--iree-scheduling-dump-statistics-format=pretty"
        assert compile("module {\n}\n", toolchain=known, flags=(own,)).ok
        assert own in starts.read_text()
        assert "format=json" not in starts.read_text(), "the compiler takes such a flag once"

    @pytest.mark.slow
    def test_a_compiler_that_dies_of_them_alone_does_not_fail_the_program(
        self, compile: Any, tmp_path: Path
    ) -> None:
        known = stub_toolchain(
            tmp_path / "newer",
            flags=["compile-from", "compile-to", "dump-compilation-phases-to", *self.FLAGS],
        )
        real = known.compiler.rename(known.compiler.with_name("real-compile"))
        known.compiler.write_text(
            f'#!/bin/sh\n{real} "$@" || exit\n'
            'case "$*" in *dump-statistics-file*) kill -SEGV $$;; esac\n'
        )
        known.compiler.chmod(0o755)
        heard: list[Phase] = []
        result = compile("module {\n}\n", toolchain=known, listener=hearing(heard.append))
        assert result.ok, result.failure
        assert names(result.phases) == list(known.phases[1:])
        assert names(tuple(heard)) == list(known.phases[1:-1])

    @pytest.mark.slow
    def test_a_compile_that_somebody_killed_is_done_again(
        self, compile: Any, stub: Toolchain, tmp_path: Path
    ) -> None:
        real = stub.compiler.rename(stub.compiler.with_name("real-compile"))
        stub.compiler.write_text(
            f"#!/bin/sh\nkilled={tmp_path}/killed\n"
            "[ -e $killed ] || { touch $killed; kill -KILL $$; }\n"
            f'exec {real} "$@"\n'
        )
        stub.compiler.chmod(0o755)
        assert compile("module {\n}\n").ok
        assert (tmp_path / "killed").exists()


class TestFailure:
    @pytest.mark.slow
    def test_the_failing_phase_is_the_one_after_the_last_dump(self, compile: Any) -> None:
        result = compile("// stub: error-at flow 'a.b' op is wrong\nmodule {\n}\n")
        assert not result.ok
        assert names(result.phases) == BEFORE_FLOW
        assert result.output is None
        assert result.failure.kind == "diagnostic"
        assert result.failure.phase == "flow"
        assert result.failure.op == "a.b"
        assert result.failure.message == "'a.b' op is wrong"

    @pytest.mark.slow
    def test_it_is_confirmed_by_resuming_from_that_dump(
        self, compile: Any, stub: Toolchain
    ) -> None:
        result = compile("// stub: crash-at flow\nmodule {\n}\n")
        assert result.failure.kind == "crash"
        assert result.failure.signal == "SIGSEGV"
        assert result.failure.pass_ == "StubPass"
        assert result.phase_confirmed is True
        assert result.resume_command == (
            str(stub.compiler),
            "phases/model.5.dispatch-creation.mlir",
            "--compile-from=dispatch-creation",
            "--compile-to=flow",
            "-o",
            "-",
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("what", ["crash-at flow SIGSEGV", "error-at flow something is wrong"])
    def test_it_is_not_confirmed_when_resuming_passes(self, compile: Any, what: str) -> None:
        result = compile(f"// stub: {what} unless-resumed\nmodule {{\n}}\n")
        assert result.failure.phase == "flow"
        assert result.phase_confirmed is False

    def test_it_is_not_confirmed_when_resuming_fails_in_another_way(self, compile: Any) -> None:
        result = compile(
            "// stub: crash-at flow SIGSEGV unless-resumed\n"
            "// stub: error-at flow something else\nmodule {\n}\n"
        )
        assert result.failure.kind == "crash"
        assert result.phase_confirmed is False

    @pytest.mark.slow
    def test_the_first_phase_is_confirmed_from_the_program_itself(
        self, compile: Any, tmp_path: Path
    ) -> None:
        result = compile("// stub: error-at input 'a.b' op is wrong\nmodule {\n}\n")
        assert result.failure.phase == "input"
        assert result.phases == ()
        assert result.phase_confirmed is True
        assert result.resume_command[1] == str(tmp_path / "model.mlir")
        assert "--compile-from=start" in result.resume_command

    @pytest.mark.slow
    def test_a_program_that_does_not_parse_fails_before_the_first_phase(self, compile: Any) -> None:
        wrong = "expected operation name in quotes"
        result = compile(f"// stub: error-at parse {wrong}\n// stub: error-at input {wrong}\n")
        assert result.failure.phase == "start"

    def test_a_resumed_compile_names_its_own_phases(self, compile: Any) -> None:
        result = compile("// stub: error-at hal no such thing\n", resume="executable-targets")
        assert result.failure.phase == "hal"
        assert result.phases == ()
        assert result.phase_confirmed is True

    def test_a_flag_that_the_compiler_does_not_know_is_no_phases_failure(
        self, compile: Any
    ) -> None:
        result = compile("module {\n}\n", flags=("--iree-no-such-flag",))
        assert result.failure.kind == "diagnostic"
        assert "--iree-no-such-flag" in result.failure.message
        assert result.failure.phase is None
        assert result.phase_confirmed is None
        assert result.resume_command is None

    @pytest.mark.real
    def test_a_value_that_a_flag_does_not_take_is_no_phases_failure(self, compile: Any) -> None:
        from iree_pilot.pipeline.toolchain import toolchain

        real = toolchain.installed()
        result = compile("module {\n}\n", toolchain=real, flags=("--iree-opt-level=O9",))
        assert result.failure.kind == "diagnostic"
        assert "for the --iree-opt-level option" in result.failure.message
        assert result.failure.phase is None
        assert result.phase_confirmed is None

    def test_a_compiler_that_only_gives_up_is_told_so(self, compile: Any) -> None:
        result = compile("// stub: exit-at stream 5\n")
        assert result.failure.kind == "diagnostic"
        assert "exit code 5" in result.failure.message

    def test_warnings_are_no_failure(self, compile: Any) -> None:
        assert compile("// stub: print-at flow a.mlir:1:1: error: but it goes on\n").ok

    def test_a_success_without_output_is_the_flags_doing(self, compile: Any) -> None:
        with pytest.raises(UsageError, match="wrote no module") as caught:
            compile("// stub: exit-at input 0\n", flags=("--iree-vulkan-target=x",))
        assert "--iree-vulkan-target=x" in caught.value.message


class TestLimits:
    @pytest.mark.slow
    def test_time(self, compile: Any) -> None:
        result = compile("// stub: hang-at stream\n", limits=Limits(seconds=0.5))
        assert result.failure.kind == "timeout"
        assert result.failure.phase == "stream"
        assert names(result.phases)[-1] == "flow", "what was reached is told"
        assert result.phase_confirmed is None, "it is not made to hang a second time"

    @pytest.mark.slow
    def test_memory(self, compile: Any) -> None:
        limits = Limits(memory_bytes=100 * 2**20, seconds=30)
        result = compile("// stub: eat-at hal 300\n", limits=limits)
        assert result.failure.kind == "out-of-memory"
        assert result.failure.phase == "hal"
        assert result.peak_bytes > 100 * 2**20

    @pytest.mark.slow
    def test_output(self, compile: Any) -> None:
        limits = Limits(output_bytes=2**20, seconds=30)
        result = compile("// stub: flood-at abi\n", limits=limits)
        assert result.failure.kind == "timeout"
        assert result.failure.phase == "abi"
        assert "output limit" in result.failure.message

    def test_an_interrupt_leaves_no_compiler(
        self, compile: Any, stub: Toolchain, tmp_path: Path
    ) -> None:
        def interrupt(phase: Phase) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compile("// stub: hang-at flow\n", listener=hearing(interrupt))
        wait_until(lambda: not running(str(stub.compiler)))


class TestPhaseNames:
    @pytest.mark.parametrize("field", ["to", "resume"])
    def test_an_unknown_phase_is_refused_before_anything_runs(
        self, compile: Any, tmp_path: Path, field: str
    ) -> None:
        with pytest.raises(UsageError, match="has no compilation phase 'flwo'") as caught:
            compile("module {\n}\n", **{field: "flwo"})
        assert "flow" in caught.value.advice
        assert list((tmp_path / "out").iterdir()) == []

    def test_each_release_has_its_own(self, tmp_path: Path) -> None:
        other = stub_toolchain(tmp_path / "other", phases=["start", "novel", "end"])
        compiler.check_phases(other, resume="novel", to="end")
        with pytest.raises(UsageError, match="has no compilation phase 'flow'"):
            compiler.check_phases(other, resume=None, to="flow")

    def test_there_is_nothing_to_do_backwards(self, compile: Any) -> None:
        with pytest.raises(UsageError, match="--to input is not after --from flow"):
            compile("module {\n}\n", resume="flow", to="input")


@pytest.mark.parametrize(
    ("flag", "cure"),
    [
        ("-o", "-o FILE"),
        ("--compile-to=flow", "--to PHASE"),
        ("-compile-from=flow", "--from PHASE"),
        ("--dump-compilation-phases-to=x", "always dumped"),
        ("--help", "iree-compile --help"),
        ("-h", "iree-compile -h"),
        ("--help-hidden", "iree-compile --help-hidden"),
        ("--version", "iree-compile --version"),
    ],
)
def test_flags_that_the_driver_gives_itself_are_refused(compile: Any, flag: str, cure: str) -> None:
    with pytest.raises(UsageError, match=f"{flag} cannot be given after --") as caught:
        compile("module {\n}\n", flags=("--iree-vulkan-target=x", flag))
    assert cure in caught.value.advice


def test_flags_that_make_modules_or_go_to_compile_are_taken() -> None:
    compiler.check_flags(())
    compiler.check_flags(("--output-format=vm-bytecode", "--compile-mode", "std"))
    compiler.check_flags(("--output-format=vm-c",), phases=True)
    with pytest.raises(UsageError, match="output-format= cannot be given"):
        compiler.check_flags(("--output-format",))


def test_a_missing_compiler_is_the_environments_fault(compile: Any, stub: Toolchain) -> None:
    gone = msgspec.structs.replace(stub, compiler=stub.compiler.with_name("gone"))
    with pytest.raises(EnvironmentFault, match=r"cannot run .*gone: there is no such file"):
        compile("module {\n}\n", toolchain=gone)


@pytest.mark.parametrize(
    ("flag", "elsewhere"),
    [
        ("--mlir-print-ir-after-all", True),
        ("--iree-hal-dump-executable-files-to=/tmp/x", True),
        ("--mlir-timing", True),
        ("--mlir-pass-pipeline-crash-reproducer=f.mlir", True),
        ("--mlir-pass-statistics", True),
        ("--pass-remarks=.*", True),
        ("--iree-parameter-encoder-output-file=p.irpa", True),
        ("--iree-hal-executable-debug-level=3", False),
        ("--iree-flow-trace-dispatch-tensors", False),
        ("--iree-opt-level=O3", False),
        ("--iree-llvmcpu-target-cpu=dump", False),
    ],
)
def test_flags_that_make_the_compiler_write_more_are_known(flag: str, elsewhere: bool) -> None:
    assert compiler.writes_elsewhere([flag]) is elsewhere


@pytest.mark.real
class TestRealCompiler:
    PROGRAM = """
func.func @main(%a: tensor<8x16xf32>, %b: tensor<16x4xf32>) -> tensor<8x4xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<8x4xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x4xf32>) -> tensor<8x4xf32>
  %0 = linalg.matmul ins(%a, %b : tensor<8x16xf32>, tensor<16x4xf32>)
      outs(%init : tensor<8x4xf32>) -> tensor<8x4xf32>
  return %0 : tensor<8x4xf32>
}
"""
    FLAGS = (
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-cpu=generic",
    )

    @pytest.fixture
    def real(self) -> Toolchain:
        from iree_pilot.pipeline.toolchain import toolchain

        return toolchain.installed()

    def test_phases_counts_and_dispatches(self, compile: Any, real: Toolchain) -> None:
        result = compile(self.PROGRAM, toolchain=real, flags=self.FLAGS)
        assert names(result.phases) == list(real.phases[1:])
        by_name = {phase.name: phase for phase in result.phases}
        assert by_name["input"].ops["linalg"] == 2
        assert by_name["stream"].ops["stream"] > 5
        assert by_name["vm"].ops["vm"] > 20
        assert result.dispatches.dispatches == result.dispatches.executables == 1
        assert result.dispatches.transient_bytes == 8 * 4 * 4

    def test_the_printed_command_makes_the_same_module(
        self, compile: Any, real: Toolchain, tmp_path: Path
    ) -> None:
        import subprocess

        result = compile(self.PROGRAM, toolchain=real, flags=self.FLAGS)
        (tmp_path / "again").mkdir()
        subprocess.run(result.command, cwd=tmp_path / "again", check=True, timeout=60)
        again = (tmp_path / "again" / "module.vmfb").read_bytes()
        assert again == (tmp_path / "out" / "module.vmfb").read_bytes()

    def test_to_then_from_goes_all_the_way(
        self, compile: Any, real: Toolchain, tmp_path: Path
    ) -> None:
        first = compile(self.PROGRAM, toolchain=real, flags=self.FLAGS, to="flow")
        flow = (tmp_path / "out" / first.output).read_text()
        assert "flow.dispatch" in flow
        second = compile(flow, toolchain=real, flags=self.FLAGS, resume="flow", into="second")
        assert names(second.phases)[0] == "stream"
        assert second.output_bytes > 1000

    def test_a_resuming_command_fails_again(
        self, compile: Any, real: Toolchain, tmp_path: Path
    ) -> None:
        import subprocess

        text = (TESTS / "corpus/programs/matmul-f16.mlir").read_text()
        flags = (
            "--iree-hal-target-device=vulkan",
            "--iree-vulkan-target=vp_android_baseline_2022",
        )
        result = compile(text, toolchain=real, flags=flags)
        assert result.failure.kind == "diagnostic"
        assert result.failure.phase == "executable-targets"
        assert result.phase_confirmed is True
        done = subprocess.run(
            result.resume_command,
            cwd=tmp_path / "out",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0
        assert result.failure.message in done.stderr
