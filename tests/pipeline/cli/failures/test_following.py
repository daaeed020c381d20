"""What to type after a failure: ready to paste, and only where it helps."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import ClassVar

import click
import msgspec
import pytest
from fake.commands import COMMON, TYPED, case, failure

from iree_pilot.pipeline.case_result import CaseResult, FunctionResult
from iree_pilot.pipeline.cli import cli
from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.cli.failures import following
from iree_pilot.pipeline.cli.failures.following import Typed
from iree_pilot.pipeline.cli.options import SourceOptions
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.numerics.judging import OutputComparison, Worst
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program import python_lines
from iree_pilot.repro.differential import against


def function(failed: Failure | None, comparison: Comparison | None = None) -> FunctionResult:
    return FunctionResult(
        name="main",
        commands=(),
        peak_bytes=0,
        latency=None,
        latency_note="",
        comparison=comparison,
        evaluator="",
        failure=failed,
    )


def compared(why: str) -> Comparison:
    output = OutputComparison(
        index=0, name="result0", dtype="f32", shape=(2,), verdict="not-compared", why=why
    )
    return Comparison(
        verdict="not-compared",
        why=why,
        output=0,
        max_abs=0.0,
        max_rel=0.0,
        rel_l2=0.0,
        tolerance=0.0,
        nan=0,
        inf=0,
        outputs=(output,),
    )


class TestJudging:
    def test_names_what_wrong_numbers_would_not_show_in(self) -> None:
        noisy = function(None, compared("it draws random numbers: aten.rand"))
        zeros = function(None, compared("agrees exactly, but the reference is all zero"))
        results = [case(name, functions=(noisy,)) for name in ("llvm-cpu", "vulkan")]
        assert shlex.join(following.judging(TYPED, results)).endswith("-t llvm-cpu,vulkan")
        assert following.judging(TYPED, [case(functions=(zeros,))]) == ()
        failed = case(failed=failure(), functions=(noisy,))
        assert following.judging(TYPED, [failed]) == ()

    def test_is_judged_by_what_was_typed(self) -> None:
        typed = msgspec.structs.replace(TYPED, device="vulkan://1", expected=("0.npy",))
        noisy = function(None, compared("it draws random numbers: aten.rand"))
        words = shlex.join(following.judging(typed, [case(functions=(noisy,))]))
        assert words.endswith("-t vulkan --expected-output 0.npy --device vulkan://1")


class TestSeeding:
    NOISY = function(None, compared("it draws random numbers: aten.rand, aten.normal_ (x)"))
    RESULTS: ClassVar = [case("llvm-cpu", functions=(NOISY,)), case("vulkan", functions=(NOISY,))]

    def test_names_the_targets_where_random_numbers_were_not_compared(self) -> None:
        argv = following.seeding(TYPED, [*self.RESULTS, case("hip")])
        assert shlex.join(argv) == "iree-pilot run net.py --seeded -t llvm-cpu,vulkan"

    def test_names_a_dropout_as_a_graph_has_it(self) -> None:
        why = "it draws random numbers: aten.native_dropout, aten.randint.low (training)"
        assert following.seeding(TYPED, [case(functions=(function(None, compared(why)),))])

    @pytest.mark.parametrize(
        "why",
        [
            "it draws random numbers: aten.rand, aten.rrelu",
            "it draws random numbers: aten.scaled_dot_product_attention",
            "it reads memory that nobody wrote: aten.empty",
            "agrees exactly, but the reference is all zero",
        ],
    )
    def test_not_where_it_would_be_refused_or_change_nothing(self, why: str) -> None:
        assert following.seeding(TYPED, [case(functions=(function(None, compared(why)),))]) == ()

    @pytest.mark.parametrize("source", ["net.pt2", "net.onnx", "net.mlir"])
    def test_not_for_what_is_not_traced(self, source: str) -> None:
        typed = msgspec.structs.replace(TYPED, source=source)
        assert following.seeding(typed, self.RESULTS) == ()

    def test_not_where_it_was_typed(self) -> None:
        assert following.seeding(following.seeded(TYPED), self.RESULTS) == ()


class TestRemedying:
    NAMED = Failure(
        kind="diagnostic", message="use --iree-emulate", signature="a/b/c", phase="flow"
    )

    def test_names_the_targets_whose_message_names_a_flag(self) -> None:
        results = [case("vulkan", failed=failure()), case("hip", failed=self.NAMED)]
        argv = following.remedying(TYPED, results)
        assert shlex.join(argv) == "iree-pilot workaround net.py -t hip"
        assert "names --iree-emulate" in following.limitation(following.named_flags(results[1]))
        assert following.remedying(TYPED, results[:1]) == ()

    def test_not_where_the_flag_was_given_or_the_command_cannot_be_repeated(self) -> None:
        failing = case(failed=self.NAMED)
        given = msgspec.structs.replace(failing, command=("iree-compile", "--iree-emulate=true"))
        assert following.remedying(TYPED, [given]) == ()
        cooked = msgspec.structs.replace(TYPED, recipe="recipe.toml")
        assert following.remedying(cooked, [failing]) == ()


class TestBisecting:
    def test_names_each_target_that_fails(self) -> None:
        results = [
            case("llvm-cpu"),
            case("vulkan", failed=failure()),
            case("hip", failed=failure()),
        ]
        assert shlex.join(following.bisecting(TYPED, results)) == (
            "iree-pilot bisect net.py -t vulkan,hip"
        )
        assert following.bisecting(TYPED, results[:1]) == ()

    def test_repeats_what_matters_as_the_shell_takes_it(self) -> None:
        chosen = SourceOptions(
            settings={"layers": "2"},
            dtype="f16",
            seed=7,
            weights=("/w/my weights.irpa",),
            inputs=("2xf32=1 2",),
            inline=True,
            fresh=True,
            function="main",
        )
        typed = Typed(
            source="my net.py",
            chosen=chosen,
            common=msgspec.structs.replace(
                COMMON, default_limit=False, time_limit=90.0, memory_limit=4e9, release="3.12.0"
            ),
            flags=("--iree-opt-level=O1",),
            device="vulkan://1",
            expected=("(ignored)",),
        )
        command = shlex.join(following.bisecting(typed, [case(failed=failure())]))
        assert command == (
            "iree-pilot bisect 'my net.py' --set layers=2 --set dtype=f16 --seed 7 "
            "--weights '/w/my weights.irpa' --function main --input '2xf32=1 2' "
            "--inline-parameters -t vulkan --expected-output '(ignored)' --device vulkan://1 "
            "--release 3.12.0 --time-limit 90s --memory-limit 4GB -- --iree-opt-level=O1"
        )

    def test_has_options_that_bisect_knows(self) -> None:
        bisect = cli.get_command(click.Context(cli), "bisect")
        assert bisect is not None
        known = {name for option in bisect.params for name in option.opts}
        assert known >= {
            *("--set", "--seed", "--weights", "--function", "--input", "--inline-parameters"),
            *("-t", "--expected-output", "--device", "--release", "--time-limit"),
            "--memory-limit",
        }

    def test_one_target_is_enough_where_it_does_not_trace(self) -> None:
        refused = failure("trace-error", "trace")
        results = [
            case(name, "does not trace", refused, trace="failed") for name in ("hip", "vulkan")
        ]
        assert following.bisecting(TYPED, results)[-2:] == ("-t", "hip")

    @pytest.mark.parametrize(
        "result",
        [
            case(failed=failure("tool-missing", "run"), why="does not run"),
            case(
                failed=failure("mismatch", "compare", "mismatch/targets-differ/c"),
                why="differs",
                functions=(function(failure("mismatch", "compare", "mismatch/targets-differ/c")),),
            ),
            case(
                failed=failure("mismatch", "compare", "mismatch/type/c"),
                why="differs",
                functions=(function(failure("mismatch", "compare", "mismatch/type/c")),),
            ),
        ],
    )
    def test_is_not_named_where_it_would_isolate_nothing(self, result: CaseResult) -> None:
        assert following.bisecting(TYPED, [result]) == ()

    @pytest.mark.parametrize(
        "said",
        [
            "while making the model: ModuleNotFoundError: No module named 'team'",
            "PyTorch itself cannot run the model with these inputs: RuntimeError: mat1 and mat2",
            "the tracing process ended itself: python ended with exit code 3 and no message",
        ],
    )
    def test_nor_where_the_source_is_at_fault(self, said: str) -> None:
        refused = msgspec.structs.replace(failure("trace-error", "trace"), message=said)
        result = case("hip", "does not trace", refused, trace="failed")
        assert following.bisecting(TYPED, [result]) == ()

    def test_nor_for_a_program_that_begins_at_a_phase(self) -> None:
        typed = msgspec.structs.replace(TYPED, resume="flow")
        assert following.bisecting(typed, [case(failed=failure())]) == ()


class TestWhy:
    def test_has_the_operation_and_the_line_of_the_program(self, tmp_path: Path) -> None:
        program = tmp_path / "program.mlir"
        program.write_text(
            "module {\n  %1 = torch.aten.prelu %0, %w : !torch.vtensor<[2],f32>\n}\n"
        )
        failed = msgspec.structs.replace(failure(), op="linalg.generic", location=f"{program}:2:8")
        assert following.why(case(failed=failed)) == (
            "does not compile: linalg.generic of torch.aten.prelu at program.mlir:2"
        )
        python_lines.keep(
            tmp_path,
            program.read_text(),
            '#loc1 = loc("/home/me/net.py":8:0)\n'
            + program.read_text().replace("f32>\n", "f32> loc(#loc1)\n"),
        )
        assert following.why(case(failed=failed)).endswith(" at program.mlir:2 (net.py:8)")
        assert ("python", "/home/me/net.py:8") in out.failure_lines(failed, verbose=False)
        (tmp_path / "python.json").unlink()
        plain = msgspec.structs.replace(failed, op=None)
        assert following.why(case(failed=plain)).endswith(": torch.aten.prelu at program.mlir:2")

    def test_has_the_line_of_the_python_source(self) -> None:
        failed = msgspec.structs.replace(
            failure("trace-error", "trace"), op="torch.aten.nonzero", location="/home/me/net.py:12"
        )
        told = following.why(case(why="does not trace", failed=failed, trace="failed"))
        assert told == "does not trace: torch.aten.nonzero at net.py:12"

    @pytest.mark.parametrize(
        "said",
        ["SyntaxError: invalid syntax (net.py, line 12)", "SystemExit: bye", "KeyboardInterrupt"],
    )
    def test_says_what_was_raised_where_there_is_a_line_and_no_operation(self, said: str) -> None:
        failed = msgspec.structs.replace(
            failure("trace-error", "trace"),
            message=f"while making the model: {said}",
            location="/home/me/net.py:12",
        )
        told = following.why(case(why="does not trace", failed=failed, trace="failed"))
        assert told == f"does not trace: {said} at net.py:12"

    def test_has_the_own_name_of_an_operation_that_torch_mlir_does_not_know(
        self, tmp_path: Path
    ) -> None:
        program = tmp_path / "program.mlir"
        program.write_text('%g = torch.operator "torch.aten.meshgrid"(%l) : (!l) -> !l\n')
        failed = msgspec.structs.replace(
            failure(), op="torch.operator torch.aten.meshgrid", location=f"{program}:1:6"
        )
        told = "does not compile: torch.aten.meshgrid at program.mlir:1"
        assert following.why(case(failed=failed)) == told
        assert ("op", "torch.aten.meshgrid") in out.failure_lines(failed, verbose=False)
        of = against.Origins(program)([(str(program), 1)])
        assert of == ("program.mlir:1: torch.aten.meshgrid",)

    def test_has_the_output_that_differs_and_its_worst_element(self) -> None:
        (output,) = compared("").outputs
        worst = Worst(index=(1,), got="2.0", expected="3.0")
        differs = msgspec.structs.replace(output, verdict="mismatch", worst=worst)
        comparison = msgspec.structs.replace(
            compared(""), verdict="mismatch", output=1, outputs=(output, differs)
        )
        failed = failure("mismatch", "compare")
        result = case(why="runs, but differs from the reference", failed=failed)
        result = msgspec.structs.replace(result, comparison=comparison)
        assert following.why(result) == (
            "runs, but differs from the reference: result0[1]: 2.0 where 3.0 is expected"
        )

    def test_is_about_the_output_and_the_function_that_the_failure_names(self) -> None:
        (output,) = compared("").outputs
        first, worst = (
            msgspec.structs.replace(
                output, index=n, name=f"result{n}", verdict="mismatch",
                worst=Worst(index=(n,), got="1", expected="2"),
            )
            for n in range(2)
        )  # fmt: skip
        differing = msgspec.structs.replace(compared(""), verdict="mismatch")
        named = msgspec.structs.replace(differing, output=1, outputs=(first, worst), rel_l2=0.1)
        farther = msgspec.structs.replace(differing, outputs=(first,), rel_l2=0.5)
        failed = failure("mismatch", "compare")
        functions = (function(failed, named), function(failure(signature="other"), farther))
        result = msgspec.structs.replace(
            case(why="differs", failed=failed, functions=functions), comparison=farther
        )
        assert following.compared(result) is named
        assert following.why(result) == "differs: result1[1]: 1 where 2 is expected"

    def test_says_the_message_where_neither_is_known_in_short_where_that_is_asked(self) -> None:
        message = "Higher-order operation 'cond' not found\n" + "x" * 200 + " end"
        failed = msgspec.structs.replace(failure(), message=message)
        result = case(why="does not trace", failed=failed, trace="failed")
        assert following.why(result) == f"does not trace: {message.replace(chr(10), ' ')}"
        told = following.why(result, brief=True)
        assert told == "does not trace: Higher-order operation 'cond' not found ..."
        assert following.why(case()) == ""
