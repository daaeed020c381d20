"""Failures are told apart by what went wrong, on real texts of real compilers."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from corpus import HERE, Entry, classify, entries, expectation
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import (
    Failure,
    Stopped,
    compile_failure,
    mismatch,
    runtime_failure,
    trace_death,
)
from iree_pilot.pipeline.failures.signatures import canonical
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Outcome
from iree_pilot.pipeline.toolchain import toolchain

ENTRIES = {e.name: e for e in entries()}
COMPILES = [e for e in ENTRIES.values() if e.tool == "iree-compile"]
DIAGNOSED = [e for e in COMPILES if ": error: " in e.text]
CRASHED = [e for e in COMPILES if "#4 0x" in e.text]


def by_name(entry: Entry) -> str:
    return entry.name


def ended(
    by: str = "exit", *, code: int | None = 1, signal: str | None = None, seconds: float = 2.0
) -> Outcome:
    return msgspec.convert(
        {
            "argv": ("/opt/iree/iree-compile", "model.mlir"),
            "ended_by": by,
            "exit_code": code if by == "exit" else None,
            "signal": signal,
            "seconds": seconds,
            "peak_bytes": 3 * 2**20,
        },
        Outcome,
    )


class TestTheCorpus:
    @pytest.mark.parametrize("entry", ENTRIES.values(), ids=by_name)
    def test_each_failure_is_what_it_is_known_to_be(self, entry: Entry) -> None:
        assert expectation(classify(entry)) == entry.expect

    def test_one_bug_has_one_signature_and_two_bugs_have_two(self) -> None:
        signatures = defaultdict(set)
        bugs = defaultdict(set)
        for entry in ENTRIES.values():
            signature = classify(entry).signature
            signatures[entry.bug].add(signature)
            bugs[signature].add(entry.bug)
        assert {bug: found for bug, found in signatures.items() if len(found) > 1} == {}
        assert {signature: found for signature, found in bugs.items() if len(found) > 1} == {}

    @pytest.mark.parametrize("entry", ENTRIES.values(), ids=by_name)
    def test_a_signature_is_one_short_line_that_could_name_a_file(self, entry: Entry) -> None:
        failure = classify(entry)
        for one in (failure, *failure.also):
            assert re.fullmatch(r"[a-z-]+(/[\w.+-]+)+/[0-9a-f]{8}", one.signature)
            assert one.signature.startswith(f"{one.kind}/")
            assert len(one.signature) < 140

    @pytest.mark.parametrize("entry", ENTRIES.values(), ids=by_name)
    def test_a_message_is_one_line_without_giant_attributes(self, entry: Entry) -> None:
        failure = classify(entry)
        for one in (failure, *failure.also):
            assert one.message
            assert "\n" not in one.message
            assert len(one.message) <= 500
            assert "executable.target<" not in one.message or entry.tool == "iree-run-module"

    @pytest.mark.parametrize("entry", ENTRIES.values(), ids=by_name)
    def test_a_failure_survives_json(self, entry: Entry) -> None:
        failure = classify(entry)
        encoded = msgspec.json.encode(failure)
        assert msgspec.json.decode(encoded, type=Failure) == failure

    @pytest.mark.parametrize("entry", CRASHED, ids=by_name)
    def test_a_stack_is_names_only_without_the_signal_handler(self, entry: Entry) -> None:
        stack = classify(entry).stack
        assert stack
        for frame in stack:
            assert "0x0" not in frame
            assert not re.search(r"\w+\.cpp:\d", frame)
            assert not frame.startswith(("_Z", "SignalHandler", "llvm::sys::", "raise", "abort"))


class TestExitStatusFirst:
    TEXT = "model.mlir:3:10: error: failed to legalize operation 'vector.bitcast'\n"

    @pytest.mark.parametrize(
        ("outcome", "kind"),
        [
            (ended(), "diagnostic"),
            (ended("signal", signal="SIGSEGV"), "crash"),
            (ended("signal", signal="SIGFPE"), "crash"),
            (ended("signal", signal="SIGKILL"), "out-of-memory"),
            (ended("time-limit", signal="SIGKILL"), "timeout"),
            (ended("memory-limit", signal="SIGKILL"), "out-of-memory"),
            (ended("output-limit", signal="SIGKILL"), "timeout"),
        ],
    )
    def test_the_way_a_process_ended_decides_the_kind(self, outcome: Outcome, kind: str) -> None:
        assert compile_failure(outcome, self.TEXT, "executable-targets").kind == kind

    @pytest.mark.parametrize(
        ("memory_ran_out", "near", "says"),
        [
            (
                None,
                False,
                "killed, as the system does when memory runs out (3 MiB resident at most)",
            ),
            (True, True, "killed, as memory ran out in its control group (3 MiB resident at most)"),
            (
                True,
                False,
                "killed; the kernel killed a process of this machine for lack of memory at that "
                "time (3 MiB resident at most)",
            ),
            (
                False,
                True,
                "killed by somebody else: the system did not, for lack of memory (3 MiB ",
            ),
        ],
    )
    def test_who_killed_it_is_said_where_it_is_known(
        self, memory_ran_out: bool | None, near: bool, says: str
    ) -> None:
        outcome = ended("signal", signal="SIGKILL")
        outcome = msgspec.structs.replace(outcome, memory_ran_out=memory_ran_out, near=near)
        assert compile_failure(outcome, "", "flow").message.startswith(says)

    def test_what_somebody_else_killed_did_not_run_out_of_memory(self) -> None:
        outcome = msgspec.structs.replace(ended("signal", signal="SIGKILL"), memory_ran_out=False)
        compiled, traced = compile_failure(outcome, "", "flow"), trace_death(outcome, "")
        assert (compiled.kind, compiled.signal) == ("crash", "SIGKILL")
        assert compiled.signature.startswith("crash/SIGKILL/")
        assert (traced.kind, traced.signal) == ("trace-error", "SIGKILL")
        assert traced.signature.startswith("trace-error/SIGKILL/")

    def test_what_was_said_before_a_limit_is_kept(self) -> None:
        failure = compile_failure(ended("time-limit", seconds=60), self.TEXT, "flow")
        assert failure.message == "stopped at the time limit, after 60 s"
        assert [other.op for other in failure.also] == ["vector.bitcast"]

    def test_a_limit_that_nobody_chose_is_said_to_be_the_default(self) -> None:
        outcome = msgspec.structs.replace(
            ended("time-limit", seconds=600), default_limit=True, processor_seconds=71.0
        )
        failure = compile_failure(outcome, "", "flow")
        assert failure.message == (
            "stopped at the default time limit, after 600 s (71 s of processor time); "
            "--time-limit changes it"
        )
        assert failure.stopped == Stopped(seconds=600, default=True, processor_seconds=71)

    def test_timeouts_of_one_phase_are_one_failure_however_long_they_took(self) -> None:
        one = compile_failure(ended("time-limit", seconds=60), "", "flow")
        other = compile_failure(ended("time-limit", seconds=90), self.TEXT, "flow")
        elsewhere = compile_failure(ended("time-limit", seconds=60), "", "stream")
        assert one.signature == other.signature != elsewhere.signature

    def test_a_compiler_that_fails_without_a_word_says_so(self) -> None:
        failure = compile_failure(ended(code=3), "", None)
        assert failure.message == "iree-compile ended with exit code 3 and no message"

    def test_an_error_of_a_finished_executable_is_not_the_reason_of_a_later_crash(self) -> None:
        closing = "model.mlir:3:10: error: failed to run translation of source executable to x\n"
        crash = compile_failure(ended("signal", signal="SIGSEGV"), self.TEXT + closing, None)
        assert crash.message.startswith("SIGSEGV")
        assert crash.op is None
        assert [other.op for other in crash.also] == ["vector.bitcast"]

    @pytest.mark.parametrize(
        "line",
        [
            'iree-compile: /src/Foo.cpp:12: void f(): Assertion `x && "why"\' failed.',
            "LLVM ERROR: operation destroyed but still has uses",
        ],
    )
    def test_a_fatal_error_is_a_crash_with_its_text(self, line: str) -> None:
        failure = compile_failure(ended("signal", signal="SIGABRT"), line + "\n", None)
        assert failure.kind == "crash"
        assert failure.message == line

    def test_a_crash_is_the_same_without_the_error_that_threads_kept_back(self) -> None:
        text = (HERE / "i8-sub@3.13.0.txt").read_text()
        error, _, crash = text.partition("Please report issues")
        assert "error:" in error
        death = ended("signal", signal="SIGSEGV")
        told = compile_failure(death, text, "input")
        silent = compile_failure(death, f"Please report issues{crash}", "input")
        assert told.signature == silent.signature
        assert told.message != silent.message

    def test_an_unreachable_gives_its_reason(self) -> None:
        text = "unknown element type\nUNREACHABLE executed at /src/A.cpp:7!\n"
        failure = compile_failure(ended("signal", signal="SIGABRT"), text, None)
        assert failure.message.startswith("unknown element type: UNREACHABLE")

    @pytest.mark.parametrize(
        "line",
        [
            "LLVM ERROR: out of memory",
            "terminate called after throwing an instance of 'std::bad_alloc'",
        ],
    )
    def test_a_failed_allocation_is_out_of_memory(self, line: str) -> None:
        failure = compile_failure(ended("signal", signal="SIGABRT"), line + "\n", "hal")
        assert failure.kind == "out-of-memory"


class TestLocations:
    def test_a_line_that_was_not_quoted_is_looked_up_in_the_program(self) -> None:
        program = "module {\n  %0 = torch.aten.relu %x : t -> t\n}\n"
        text = "/somewhere/model.mlir:2:8: error: something is wrong\n"
        assert compile_failure(ended(), text, None, program).op == "torch.aten.relu"

    def test_a_line_of_another_file_is_not_looked_up_in_the_program(self) -> None:
        program = "module {\n  %0 = torch.aten.relu %x : t -> t\n}\n"
        text = "/dumps/executable.mlir:2:8: error: something is wrong\n"
        failure = compile_failure(ended(), text, None, program)
        assert failure.op is None
        assert failure.location == "/dumps/executable.mlir:2:8"

    def test_an_unknown_location_is_that_of_the_executable_that_failed(self) -> None:
        failure = classify(ENTRIES["matmul-f16@3.13.0"])
        assert failure.location == "matmul-f16.mlir:3:10"

    def test_a_fused_location_gives_its_first_file(self) -> None:
        text = '<unknown>:0: error: loc(fused["model.py":3:4, "model.py":9:1]): cannot tile\n'
        failure = compile_failure(ended(), text, None)
        assert failure.location == "model.py:3:4"
        assert failure.message == "cannot tile"


Change = Callable[[str, int], str]


def rename_values(text: str, seed: int) -> str:
    shift = random.Random(seed).randrange(1, 500)
    return re.sub(r"%(\d+)", lambda m: f"%{int(m[1]) + shift}", text)


def change_shapes(text: str, seed: int) -> str:
    """Another size in every static dimension of every type, the same wherever it was the same."""
    factor = random.Random(seed).randrange(2, 9)
    text = re.sub(r"(?<![\w.])(\d+)(?=x)", lambda m: str(int(m[1]) * factor), text)
    return re.sub(
        r"vtensor<\[[\d,]+\]",
        lambda m: re.sub(r"\d+", lambda d: str(int(d[0]) * factor), m[0]),
        text,
    )


def move_files(text: str, seed: int) -> str:
    place = f"/home/u{seed}/deep er/{seed}".replace(" ", "_")
    text = text.replace("/home/user", place)
    return re.sub(r"^(?=[\w-]+\.mlir:)", f"{place}/", text, flags=re.MULTILINE)


def move_code(text: str, seed: int) -> str:
    generator = random.Random(seed)
    return re.sub(r"0x[0-9a-f]{6,}", lambda m: f"0x{generator.getrandbits(47):016x}", text)


def add_warnings(text: str, seed: int) -> str:
    """Warnings between the diagnostics, as other executables print them."""
    generator = random.Random(seed)
    warning = (
        "other.mlir:7:3: warning: reads uninitialized values\n"
        "    %1 = torch.aten.sum %0 : a -> b\n         ^\n"
        'other.mlir:7:3: note: see current operation: %5 = "linalg.generic"(%1) : a -> b\n'
    )
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines) if ": error: " in line]
    for i in reversed(starts):
        if generator.random() < 0.7:
            lines[i:i] = warning.rstrip("\n").split("\n")
    return "\n".join(lines)


CHANGES = (rename_values, change_shapes, move_files, move_code, add_warnings)
CHANGED = {change: [e for e in COMPILES if change(e.text, 1) != e.text] for change in CHANGES}


class TestWhatIsAccidental:
    """Two runs of one bug differ in much, and have one signature."""

    @pytest.mark.parametrize("change", CHANGES)
    @settings(max_examples=examples(0.6))
    @given(data=st.data(), seed=st.integers(0, 10_000))
    def test_it_does_not_change_the_signature(
        self, change: Change, data: st.DataObject, seed: int
    ) -> None:
        entry = data.draw(st.sampled_from(CHANGED[change]))
        before = classify(entry)
        after = classify(entry, change(entry.text, seed))
        assert after.signature == before.signature
        assert [o.signature for o in after.also] == [o.signature for o in before.also]

    @settings(max_examples=examples(0.4))
    @given(st.sampled_from(DIAGNOSED), st.integers(0, 10_000))
    def test_all_of_it_together_does_not_either(self, entry: Entry, seed: int) -> None:
        text = entry.text
        for change in CHANGES:
            text = change(text, seed)
        assert classify(entry, text).signature == classify(entry).signature

    @given(st.integers(0, 2**48), st.integers(0, 2**48))
    def test_capacities_that_vary_from_run_to_run_do_not_count(self, one: int, other: int) -> None:
        def failure(capacity: int) -> Failure:
            text = f"LLVM ERROR: SmallVector unable to grow. Requested capacity ({capacity}) is\n"
            return compile_failure(ended("signal", signal="SIGABRT"), text, None)

        assert failure(one).signature == failure(other).signature

    def test_the_operation_that_newer_releases_append_does_not_count(self) -> None:
        old = "failed to legalize operation 'vector.bitcast'"
        new = f'{old}: %320 = "vector.bitcast"(%319) : (vector<2xf32>) -> vector<4xf16>'
        assert canonical(new) == old

    def test_an_operation_without_results_is_cut_too(self) -> None:
        assert canonical('cannot lower: "util.return"(%1, %2) : (i1, i1) -> ()') == "cannot lower"

    @pytest.mark.parametrize("entry", ENTRIES.values(), ids=by_name)
    def test_canonical_text_is_its_own_canonical_text(self, entry: Entry) -> None:
        text = canonical(classify(entry).message)
        assert canonical(text) == text


class TestWhatCounts:
    """Two bugs that look alike have two signatures."""

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (
                "failed to legalize operation 'vector.bitcast'",
                "failed to legalize operation 'vector.shuffle'",
            ),
            ("'a.b' op result #0 must be a tensor", "'a.b' op operand #0 must be a tensor"),
            ("cannot convert 'tensor<4xf16>'", "cannot convert 'tensor<4xbf16>'"),
            ("cannot convert 'tensor<4xf16>'", "cannot convert 'memref<4xf16>'"),
        ],
    )
    def test_operations_element_types_and_words(self, one: str, other: str) -> None:
        failures = [
            compile_failure(ended(), f"m.mlir:1:1: error: {text}\n", None) for text in (one, other)
        ]
        assert failures[0].signature != failures[1].signature

    def test_crashes_in_one_function_that_was_called_from_different_ones(self) -> None:
        def crash(caller: str) -> Failure:
            frames = ["llvm::sys::PrintStackTrace()", "llvm::sys::RunSignalHandlers()"]
            frames += ["SignalHandler(int)", "(/lib/libc.so.6+0x3c050)"]
            frames += ["mlir::Type::getContext() const", f"mlir::{caller}(int)"]
            text = "".join(f"#{i} 0x00007f0000000000 {f} A.cpp:0:0\n" for i, f in enumerate(frames))
            return compile_failure(ended("signal", signal="SIGSEGV"), text, None)

        assert crash("linalg::tile").signature != crash("linalg::fuse").signature

    def test_classes_of_wrong_numbers(self) -> None:
        wrong = mismatch("output 0: 85 of 85 elements differ", what="integers")
        again = mismatch("output 2: 7 of 9 elements differ", what="integers")
        nan = mismatch("output 0: 3 NaN", what="nan")
        assert wrong.signature == again.signature != nan.signature


class TestRuntime:
    def test_a_status_keeps_its_code_its_words_and_who_said_it(self) -> None:
        failure = classify(ENTRIES["run-f64@3.13.0"])
        assert failure.kind == "runtime-error"
        assert failure.message.startswith("OUT_OF_RANGE; buffer view byte length 1224 exceeds")
        assert failure.message.endswith("(in hal.buffer_view.create)")
        assert failure.phase == "run"

    def test_the_runtime_s_source_line_does_not_count(self) -> None:
        entry = ENTRIES["run-f64@3.13.0"]
        moved = entry.text.replace("buffer_view.c:47", "buffer_view.c:99").replace("1224", "88")
        assert classify(entry, moved).signature == classify(entry).signature

    def test_a_device_without_memory_is_out_of_memory(self) -> None:
        text = "c/runtime/src/iree/base/allocator_libc.c:57: RESOURCE_EXHAUSTED; no memory; while\n"
        assert runtime_failure(ended(), text, "run").kind == "out-of-memory"

    def test_a_crash_on_the_device_is_a_crash(self) -> None:
        assert runtime_failure(ended("signal", signal="SIGBUS"), "", "run").kind == "crash"


class TestTraces:
    def test_a_raised_exception_names_the_model_s_line(self) -> None:
        failure = diagnostics.trace_failure(
            "ValueError",
            "33 is not a multiple of 4",
            (
                (diagnostics.__file__, 12, "build"),
                ("/home/user/model.py", 7, "model"),
                ("/home/user/.venv/lib/python3.12/site-packages/torch/nn/linear.py", 9, "check"),
            ),
        )
        assert failure.kind == "trace-error"
        assert failure.location == "/home/user/model.py:7"
        assert failure.message == "ValueError: 33 is not a multiple of 4"
        assert failure.stack[0].startswith("check (")

    def test_a_library_of_models_is_model_code(self) -> None:
        library = "/home/user/.venv/lib/python3.12/site-packages/transformers/models/encodec/m.py"
        failure = diagnostics.trace_failure(
            "GuardOnDataDependentSymNode",
            f'Could not guard\n  File "{library}", line 150, in _pad1d\n',
            (
                ("/home/user/model.py", 12, "forward"),
                (library, 162, "forward"),
                ("/home/user/.venv/lib/python3.12/site-packages/torch/fx/node.py", 1, "f"),
                ("/usr/lib/python3.12/contextlib.py", 3, "g"),
            ),
        )
        assert failure.location == f"{library}:150"

    def test_an_operator_of_the_message_is_the_operation(self) -> None:
        failure = diagnostics.trace_failure("RuntimeError", "no kernel for aten::foo.out on Meta")
        assert failure.op == "aten.foo.out"

    def test_a_tracer_that_dies_says_how(self) -> None:
        assert diagnostics.trace_death(ended("time-limit"), "").kind == "timeout"
        assert diagnostics.trace_death(ended("memory-limit"), "").kind == "out-of-memory"
        assert diagnostics.trace_death(ended("signal", signal="SIGABRT"), "").kind == "trace-error"

    def test_what_is_known_of_a_graphs_node_is_no_part_of_the_message(self) -> None:
        head = "FIX ME: Unimplemented call_function: target=<function sym_float at 0x7fa3>"
        nodes = [
            "{'stack_trace': '  File \"/home/user/net.py\", line 5, in forward'}",
            "{'val': s6}",
        ]
        first, second = (
            diagnostics.trace_failure("NotImplementedError", f"{head}, {node}") for node in nodes
        )
        assert first.signature == second.signature
        assert first.message == f"NotImplementedError: {head}"

    def test_of_several_threads_the_one_that_the_signal_met_counts(self) -> None:
        met = 'Current thread 0x01 (most recent call first):\n  File "net.py", line 5 in forward\n'
        idle = 'Thread 0x02 (most recent call first):\n  File "threading.py", line 331 in wait\n'
        head = "Fatal Python error: Segmentation fault\n\n"
        died = ended("signal", signal="SIGSEGV")
        alone = diagnostics.trace_death(died, f"{head}{met}")
        assert alone.message == "the tracer crashed: SIGSEGV in forward"
        for text in (f"{head}{idle}\n{met}", f"{head}{met}\n{idle}"):
            assert diagnostics.trace_death(died, text) == alone


@pytest.mark.real
class TestTheInstalledCompiler:
    @pytest.mark.parametrize("name", ["matmul-f16", "attention", "argsort", "i8-sub"])
    def test_a_known_bug_has_its_known_signature(self, name: str, tmp_path: Path) -> None:
        release = toolchain.installed()
        known = ENTRIES[f"{name}@{release.version}"]
        flags = ["--iree-hal-target-device=vulkan"]
        if name == "i8-sub":
            flags = [
                "--iree-hal-target-device=local",
                "--iree-hal-local-target-device-backends=llvm-cpu",
                "--iree-llvmcpu-target-cpu=generic",
            ]
        outcome = process.run(
            [release.compiler, HERE / "programs" / f"{name}.mlir", "-o", "module.vmfb", *flags],
            stdout=tmp_path / "stdout",
            stderr=tmp_path / "stderr",
            cwd=tmp_path,
            limits=process.Limits(seconds=60),
        )
        failure = compile_failure(outcome, (tmp_path / "stderr").read_text(), None)
        assert failure.signature == classify(known).signature
        assert failure.op == known.expect.get("op")
        assert failure.pass_ == known.expect.get("pass")
