"""Flow IR as dispatches, and functions made of them: each is given what the other side computed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from driver import pilot
from places import CASES

from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Program, Tensor
from iree_pilot.pipeline.targets.targets import Plan, Target
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.differential import flow_editor
from iree_pilot.repro.differential.against import Origins
from iree_pilot.repro.differential.compare import Chunk, Comparer, Dispatched, chunks
from iree_pilot.repro.differential.flow import (
    Flow,
    FlowBody,
    FlowCut,
    FlowStep,
    FlowValue,
    parse_type,
)
from iree_pilot.repro.differential.flow_edit import describe
from iree_pilot.repro.differential.side import Side
from iree_pilot.repro.ir.edit import context, parse
from iree_pilot.repro.reproducer.folder import bundle


def _executable(name: str) -> str:
    kind = "!iree_tensor_ext.dispatch.tensor"
    return f"""\
  flow.executable private @{name} {{
    flow.executable.export public @{name}_code workgroups() -> (index, index, index) {{
      %x, %y, %z = iree_tensor_ext.dispatch.workgroup_count_from_slice()
      flow.return %x, %y, %z : index, index, index
    }}
    builtin.module {{
      func.func @{name}_code(%arg0: {kind}<readonly:tensor<4xf32>>,
                             %arg1: {kind}<writeonly:tensor<4xf32>>) {{
        %0 = iree_tensor_ext.dispatch.tensor.load %arg0, offsets = [0], sizes = [4], strides = [1]
            : {kind}<readonly:tensor<4xf32>> -> tensor<4xf32>
        %1 = tensor.empty() : tensor<4xf32>
        %2 = linalg.copy ins(%0 : tensor<4xf32>) outs(%1 : tensor<4xf32>) -> tensor<4xf32>
            loc("model.mlir":7:3)
        iree_tensor_ext.dispatch.tensor.store %2, %arg1, offsets = [0], sizes = [4], strides = [1]
            : tensor<4xf32> -> {kind}<writeonly:tensor<4xf32>>
        return
      }}
    }}
  }}
"""


FLOW = f"""\
module attributes {{stream.affinity.default = #hal.device.affinity<@__device_0>}} {{
  util.global private @__device_0 =
      #hal.device.target<"local", {{features = "-amx-bf16"}}> : !hal.device
  util.global private @weight = #flow.parameter.named<"model"::"w"> : tensor<4xf32>
  util.global private @hoisted : tensor<4xf32>
{_executable("hoists")}{_executable("first")}{_executable("second")}
  util.initializer attributes {{stream.affinity.default = #hal.device.affinity<@__device_0>}} {{
    %0 = util.global.load @weight : tensor<4xf32>
    %1 = flow.dispatch @hoists::@hoists_code(%0) : (tensor<4xf32>) -> tensor<4xf32>
    util.global.store %1, @hoisted : tensor<4xf32>
    util.return
  }}
  util.func public @main$async(%arg0: !hal.buffer_view, %arg1: !hal.buffer_view,
                               %arg2: !hal.fence, %arg3: !hal.fence) -> !hal.buffer_view {{
    %0 = hal.tensor.import wait(%arg2) => %arg1 : !hal.buffer_view -> tensor<4xf32>
    %1 = flow.dispatch @first::@first_code(%0) : (tensor<4xf32>) -> tensor<4xf32>
    %2 = flow.tensor.reshape %1 : tensor<4xf32> -> tensor<2x2xf32>
    %3 = flow.tensor.reshape %2 : tensor<2x2xf32> -> tensor<4xf32>
    %4 = flow.dispatch @second::@second_code(%3) : (tensor<4xf32>) -> tensor<4xf32>
    %5 = util.global.load @hoisted : tensor<4xf32>
    %6 = flow.dispatch @first::@first_code(%5) : (tensor<4xf32>) -> tensor<4xf32>
    %7 = hal.tensor.barrier join(%4 : tensor<4xf32>) => %arg3 : !hal.fence
    %8 = hal.tensor.export %7 : tensor<4xf32> -> !hal.buffer_view
    util.return %8 : !hal.buffer_view
  }}
}}
"""


#: A result that is not a dispatch's own, behind a fence, with a size that is known at run time.
DYNAMIC = f"""\
module {{
{_executable("first")}
  util.func public @main$async(%arg0: !hal.buffer_view, %arg1: !hal.fence,
                               %arg2: !hal.fence) -> !hal.buffer_view {{
    %n = hal.buffer_view.dim<%arg0 : !hal.buffer_view>[0] : index
    %0 = hal.tensor.import wait(%arg1) => %arg0 : !hal.buffer_view -> tensor<?x4xf32>{{%n}}
    %1 = flow.dispatch @first::@first_code(%0) : (tensor<?x4xf32>{{%n}}) -> tensor<?x4xf32>{{%n}}
    %2 = flow.tensor.reshape %1 : tensor<?x4xf32>{{%n}} -> tensor<?x2x2xf32>{{%n}}
    %3 = hal.tensor.barrier join(%2 : tensor<?x2x2xf32>) => %arg2 : !hal.fence
    %4 = hal.tensor.export %3 : tensor<?x2x2xf32>{{%n}} -> !hal.buffer_view
    util.return %4 : !hal.buffer_view
  }}
}}
"""


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    with context():
        return describe(parse(FLOW.encode()), tmp_path)


def made(tmp_path: Path, cut: FlowCut, *, alone: bool = False) -> tuple[str, object]:
    source = tmp_path / "flow.mlir"
    source.write_text(FLOW)
    file, (interface,) = flow_editor.make(source, [cut], tmp_path / "made", alone=alone)
    return file.read_text(), interface


class TestDescription:
    def test_initializers_come_before_the_functions_that_load_what_they_store(
        self, flow: Flow
    ) -> None:
        assert [(body.name, body.initializer) for body in flow.bodies] == [
            ("initializers", True),
            ("main", False),
        ]

    def test_dispatches_come_in_their_order(self, flow: Flow) -> None:
        names = [step.name for body in flow.bodies for step in body.steps]
        assert names == ["hoists_code", "first_code", "second_code", "first_code"]

    def test_a_dispatch_rests_on_those_before_it_through_what_only_moves_data(
        self, flow: Flow
    ) -> None:
        first, second, _ = flow.bodies[1].steps
        assert second.rests_on == first.results
        assert first.rests_on == ()

    def test_a_global_that_a_dispatch_makes_is_a_value(self, flow: Flow) -> None:
        main = flow.bodies[1]
        (loaded,) = main.steps[2].rests_on
        assert loaded in {value.number for value in main.values}
        assert loaded not in {n for step in main.steps for n in step.results}

    def test_the_code_of_a_dispatch_is_told_with_its_places(
        self, flow: Flow, tmp_path: Path
    ) -> None:
        second = flow.bodies[1].steps[1]
        assert second.operations == ("linalg.copy",)
        assert ("model.mlir", 7) in second.places
        assert "linalg.copy" in (tmp_path / second.text).read_text()

    def test_what_is_returned_is_seen_behind_fences(self, flow: Flow) -> None:
        main = flow.bodies[1]
        assert [value.number for value in main.returned] == list(main.steps[1].results)

    def test_what_is_returned_comes_from_a_dispatch(self, flow: Flow) -> None:
        main = flow.bodies[1]
        assert main.ends == main.steps[1].results

    def test_arguments_are_those_that_are_tensors(self, flow: Flow) -> None:
        (argument,) = flow.bodies[1].arguments
        assert (argument.number, argument.shape) == (1, (4,))

    @pytest.mark.parametrize(
        ("text", "shape"),
        [
            ("tensor<4x?xf16>", (4, None)),
            ("tensor<f32>", ()),
            ("tensor<4xf32, #iree_encoding.layout<[]>>", None),
            ("tensor<4xindex>", None),
            ("!hal.fence", None),
        ],
    )
    def test_only_plain_tensors_can_be_taken_out(
        self, text: str, shape: tuple[int | None, ...] | None
    ) -> None:
        value = parse_type(text, 0)
        assert (value.shape if value else None) == shape


class TestFunctions:
    def test_a_fed_dispatch_is_made_without_those_before_it(
        self, flow: Flow, tmp_path: Path
    ) -> None:
        main = flow.bodies[1]
        first, second, _ = main.steps
        cut = FlowCut(name="alone", body=main.position, groups=(second.results,), fed=first.results)
        text, interface = made(tmp_path, cut, alone=True)
        assert "@second::@second_code" in text
        assert "@first" not in text and "@hoists" not in text
        assert interface == flow_editor.Interface(arguments=(), fed=first.results)

    def test_each_group_is_computed_from_what_is_fed_and_not_from_the_others(
        self, flow: Flow, tmp_path: Path
    ) -> None:
        main = flow.bodies[1]
        every = tuple(value.number for value in main.values)
        groups = tuple(step.results for step in main.steps)
        text, interface = made(
            tmp_path, FlowCut(name="apart", body=main.position, groups=groups, fed=every)
        )
        body = text.split("util.func public @apart")[1]
        assert body.count("flow.dispatch ") == 3
        assert body.count("hal.tensor.import") == 3
        assert interface == flow_editor.Interface(
            arguments=(1,), fed=(*main.steps[0].results, *main.steps[2].rests_on)
        )

    def test_what_is_made_is_tied_to_no_device_and_waits_for_no_fence(
        self, flow: Flow, tmp_path: Path
    ) -> None:
        main = flow.bodies[1]
        values = tuple(value.number for value in main.returned)
        text, _ = made(tmp_path, FlowCut(name="whole", body=main.position, groups=(values,)))
        assert "affinity" not in text and "!hal.device" not in text
        assert "fence" not in text

    def test_the_dispatches_of_initializers_become_a_function(
        self, flow: Flow, tmp_path: Path
    ) -> None:
        first = flow.bodies[0]
        cut = FlowCut(name="setup", body=first.position, groups=(first.steps[0].results,))
        text, interface = made(tmp_path, cut, alone=True)
        assert '"model"::"w"' in text
        assert interface == flow_editor.Interface(arguments=(), fed=())

    @pytest.mark.slow
    def test_a_dynamic_result_is_handed_out_with_its_sizes(self, tmp_path: Path) -> None:
        source = tmp_path / "flow.mlir"
        source.write_text(DYNAMIC)
        (body,) = flow_editor.describe(source, tmp_path / "described").bodies
        whole = FlowCut(name="whole", body=body.position, groups=((body.returned[0].number,),))
        file, _ = flow_editor.make(source, [whole], tmp_path / "made")
        assert re.search(r"hal\.tensor\.export %\w+ : tensor<\?x2x2xf32>\{%", file.read_text())

    def test_ir_that_cannot_be_read_is_refused_with_the_reason(self, tmp_path: Path) -> None:
        source = tmp_path / "flow.mlir"
        source.write_text("module { util.func }")
        with pytest.raises(flow_editor.NotEditable, match="parse"):
            flow_editor.describe(source, tmp_path / "described")


def step(index: int, *, rests_on: tuple[int, ...] = ()) -> FlowStep:
    return FlowStep(index=index, name=f"d{index}", results=(index,), rests_on=rests_on)


def body(steps: list[FlowStep], megabytes: int) -> FlowBody:
    values = tuple(FlowValue(number=s.index, dtype="i8", shape=(megabytes, 2**20)) for s in steps)
    return FlowBody(
        name="main",
        position=0,
        initializer=False,
        arguments=(),
        values=values,
        returned=(),
        ends=(),
        steps=tuple(steps),
    )


class TestChunks:
    def test_values_that_fit_into_one_call_are_computed_by_one(self) -> None:
        (chunk,) = chunks(Flow(bodies=(body([step(n) for n in range(10)], 1),)))
        assert chunk.results == tuple(range(10))

    def test_large_values_are_computed_by_several(self) -> None:
        made = chunks(Flow(bodies=(body([step(n) for n in range(10)], 100),)))
        assert [len(chunk.steps) for chunk in made] == [2] * 5

    def test_a_value_larger_than_a_call_has_one_of_its_own(self) -> None:
        made = chunks(Flow(bodies=(body([step(n) for n in range(3)], 1000),)))
        assert [chunk.results for chunk in made] == [(0,), (1,), (2,)]

    def test_dispatches_whose_results_cannot_be_taken_out_are_left_out(self) -> None:
        hidden = msgspec.structs.replace(step(1), results=())
        (chunk,) = chunks(Flow(bodies=(body([step(0), hidden, step(2)], 1),)))
        assert chunk.results == (0, 2)

    def test_what_dispatches_rest_on_is_computed_with_them(self) -> None:
        whole = body([step(0), step(1, rests_on=(0,)), step(2, rests_on=(0, 1))], 1)
        assert Chunk(body=whole, steps=whole.steps[1:]).values == (0, 1, 2)


class TestOrigins:
    def test_a_place_is_told_with_its_operation(self, tmp_path: Path) -> None:
        program = tmp_path / "program.mlir"
        program.write_text("x\n    %1 = torch.aten.mm %a, %b : A, B -> C\n")
        assert Origins(program)([(str(program), 2)]) == ("program.mlir:2: torch.aten.mm",)

    def test_constants_say_nothing(self, tmp_path: Path) -> None:
        program = tmp_path / "program.mlir"
        program.write_text("%c = torch.constant.float 1.0\n%d = arith.constant 1 : i32\n")
        assert Origins(program)([("program.mlir", 1), ("program.mlir", 2)]) == ()

    def test_what_is_inside_of_operations_is_told_where_nothing_else_is(
        self, tmp_path: Path
    ) -> None:
        program = tmp_path / "program.mlir"
        lines = ["func.func @main() {", "%0 = linalg.generic {", "%1 = arith.addf", "linalg.yield"]
        program.write_text("\n".join(lines))
        origins = Origins(program)
        every = [("program.mlir", line) for line in range(1, 5)]
        assert origins(every) == ("program.mlir:2: linalg.generic",)
        assert origins(every[2:3]) == ("program.mlir:3: arith.addf",)

    def test_places_in_other_files_are_told_as_they_are(self, tmp_path: Path) -> None:
        program = tmp_path / "program.mlir"
        program.write_text("\n")
        assert Origins(program)([("model.py", 12), ("model.py", 12)]) == ("model.py:12",)


SMALL = """\
func.func @main(%x: tensor<4x8xf32>) -> tensor<4xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4xf32>
  %z = linalg.fill ins(%zero : f32) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %s = linalg.reduce ins(%x : tensor<4x8xf32>) outs(%z : tensor<4xf32>) dimensions = [1]
    (%in: f32, %acc: f32) { %a = arith.addf %in, %acc : f32 linalg.yield %a : f32 }
  return %s : tensor<4xf32>
}
"""


@pytest.mark.real
class TestCommand:
    @pytest.mark.slow
    def test_a_dispatch_that_differs_becomes_a_folder_that_shows_it(
        self, shared_cache: Path, tmp_path: Path
    ) -> None:
        shutil.copy(CASES / "normed.mlir", tmp_path)
        done = pilot(
            "bisect", "normed.mlir", "-t", "vulkan", "--against", "llvm-cpu", "--json",
            "-o", "out", env={"IREE_PILOT_CACHE": shared_cache, "IREE_PILOT_DATA": tmp_path / "d"},
            cwd=tmp_path,
        )  # fmt: skip
        assert done.code == 0, done.err
        (differing,) = done.document["compared"]["differing"]
        assert differing["operations"] == ["linalg.generic", "linalg.generic"]
        assert differing["sources"] == [
            "normed.mlir:5: linalg.generic",
            "normed.mlir:14: linalg.generic",
        ]
        (found,) = done.document["failures"]
        assert found["reproducer"]["verified"]
        report = bundle.read(tmp_path / "out")
        assert report.reference == "llvm-cpu"
        (level,) = report.levels
        assert [command[0] for command in level.before] == [
            "iree-compile",
            "iree-run-module",
            "iree-compile",
        ]
        assert "--iree-hal-local-target-device-backends=llvm-cpu" in level.before[0]
        assert "func.func" in (tmp_path / "out" / "repro.mlir").read_text()

    def test_where_both_sides_are_right_no_dispatch_differs_and_nothing_is_compiled_twice(
        self, shared_cache: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "sum.mlir").write_text(SMALL)
        for compiles in (3, 0):
            done = pilot(
                "bisect", "sum.mlir", "-t", "llvm-cpu", "--against", "llvm-cpu:generic", "--json",
                env={"IREE_PILOT_CACHE": shared_cache, "IREE_PILOT_DATA": tmp_path / "data"},
                cwd=tmp_path,
            )  # fmt: skip
            assert done.code == 1, done.err
            assert done.document["status"] == "passes"
            assert done.document["compared"]["dispatches"] == 1
            assert done.document["oracle_calls"] == compiles

    def test_only_the_function_that_is_named_is_compared(
        self, shared_cache: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "two.mlir").write_text(SMALL + SMALL.replace("@main", "@other"))
        done = pilot(
            "bisect", "two.mlir", "-t", "llvm-cpu", "--against", "llvm-cpu:generic",
            "--function", "other", "--input", "4x8xf32=1",
            env={"IREE_PILOT_CACHE": shared_cache, "IREE_PILOT_DATA": tmp_path / "data"},
            cwd=tmp_path,
        )  # fmt: skip
        assert done.code == 1, done.err
        assert "other as a whole is not compared: agrees exactly, but" in done.out
        assert "1 dispatch of" in done.out
        assert "main" not in done.out

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (["--against", "llvm-cpu"], "is what -t llvm-cpu is already"),
            (["--against", "vulkan", "--against", "hip"], "names 2 targets"),
            (["--against", "vulkan", "--all"], "takes no --all"),
            (["--against", "hip"], "hip cannot be compared"),
        ],
    )
    def test_sides_that_cannot_be_compared_are_refused(
        self, shared_cache: Path, tmp_path: Path, options: list[str], why: str
    ) -> None:
        (tmp_path / "sum.mlir").write_text(SMALL)
        done = pilot(
            "bisect", "sum.mlir", "-t", "llvm-cpu", *options,
            env={"IREE_PILOT_CACHE": shared_cache}, cwd=tmp_path,
        )  # fmt: skip
        assert done.code == 2
        assert why in done.err


class Interpreter:
    """In place of the compiler and a device: computes what the text of a module says.

    A side named `wrong` has a fault in what `faulty` names: in the dispatch `second`, always or
    only where its operand is made by the same function.
    """

    faulty = ""

    def __init__(self, side: Side, *_: object) -> None:
        self.side = side
        self.compiles = self.runs = 0

    def compile(self, mlir: Path, name: str) -> Path:
        self.compiles += 1
        return mlir

    def run(
        self,
        module: Path,
        function: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[FlowValue],
        place: Path,
    ) -> dict[int, Tensor]:
        self.runs += 1
        place.mkdir(parents=True, exist_ok=True)
        text = module.read_text().split(f"@{function}(")[1].split("util.return")[0]
        here: set[str] = set()
        values = {f"%arg{n}": tensors.load(place, t) for n, t in enumerate(inputs)}
        for name, operation, words in re.findall(r"(%\w+) = ([\w.]+) (.*)", text):
            taken = [values[w] for w in re.findall(r"%\w+", words) if w in values]
            together = any(w in here for w in re.findall(r"%\w+", words))
            if operation == "util.global.load":
                weight = np.full(4, 3, np.float32)
                taken = [
                    weight if "@weight" in words else self._dispatched("hoists", weight, False)
                ]
            if operation == "flow.dispatch":
                taken = [self._dispatched(words.split("::")[0][1:], taken[0], together)]
            if operation == "flow.dispatch" or together:
                here.add(name)
            values[name] = taken[0]
        exported = re.findall(r"hal.tensor.export (%\w+)", text)
        return {
            value.number: msgspec.structs.replace(saved, file=str(place / saved.file))
            for number, (value, name) in enumerate(zip(outputs, exported, strict=True))
            for saved in [tensors.save(values[name], place, f"{number}.bin")]
        }

    def _dispatched(self, name: str, value: Any, together: bool) -> Any:
        made = value * {"hoists": 2, "first": -1, "second": 5}[name] + 1
        if self.side.name == "wrong" and name == "second":
            if self.faulty == "second" or (self.faulty == "together" and together):
                made[1] = np.nan
            elif self.faulty == "slightly":
                made[1] *= 1 + 1e-6
        return made.astype(np.float32)


@pytest.fixture
def comparer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow: Flow) -> Comparer:
    monkeypatch.setattr("iree_pilot.repro.differential.compare.Runner", Interpreter)
    mlir = tmp_path / "flow.mlir"
    mlir.write_text(FLOW)
    (tmp_path / "described").symlink_to(tmp_path)
    example = [
        msgspec.structs.replace(t, file=str(tmp_path / t.file))
        for n in range(2)
        for t in [tensors.save(np.arange(4, dtype=np.float32) + n, tmp_path, f"in{n}.bin")]
    ]
    program = Program(source="", digest="", functions=(), parameters=None, origin={})
    plan = Plan(target=Target(spec="llvm-cpu", backend="llvm-cpu"), flags=())
    wrong, right = (Side(name=name, plan=plan, flags=()) for name in ("wrong", "right"))
    toolchain = Toolchain(
        version="0",
        revision="0",
        compiler=mlir,
        opt=None,
        runtime=None,
        phases=(),
        flags=frozenset(),
    )
    return Comparer(
        Dispatched(mlir, flow, {"main": tuple(example)}),
        Loaded(program=program, directory=str(tmp_path), seconds=0, cached=False),
        (wrong, right),
        Context(toolchain=toolchain, directory=tmp_path),
        lambda places: tuple(f"{file}:{line}" for file, line in places),
    )


class TestComparison:
    @pytest.mark.slow
    @pytest.mark.parametrize("faulty", ["", "slightly"])
    def test_sides_that_agree_up_to_rounding_agree(
        self, comparer: Comparer, monkeypatch: pytest.MonkeyPatch, faulty: str
    ) -> None:
        monkeypatch.setattr(Interpreter, "faulty", faulty)
        compared = comparer.run()
        assert (compared.status, compared.differing) == ("agrees", ())
        assert compared.dispatches == 4
        assert [(name, whole.ok) for name, whole in compared.whole] == [("main", True)]
        assert comparer.culprit is None

    @pytest.mark.slow
    def test_the_dispatch_that_differs_given_the_same_is_named(
        self, comparer: Comparer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Interpreter, "faulty", "second")
        compared = comparer.run()
        (differing,) = compared.differing
        assert (compared.status, differing.name) == ("differs", "second_code")
        assert (differing.number, differing.function, differing.levels) == (2, "main", 0)
        assert differing.sources == ("model.mlir:7",)
        assert differing.comparison.nan == 1
        assert not compared.whole[0][1].ok

    @pytest.mark.slow
    def test_a_device_that_computes_with_fewer_digits_does_not_lower_what_is_asked(
        self, comparer: Comparer
    ) -> None:
        ((_, whole),) = comparer.run().whole
        assert whole.tolerance < 1e-3, "half of the digits of f32, not of bf16"

    @pytest.mark.slow
    def test_what_shows_it_alone_is_kept_with_its_values(
        self, comparer: Comparer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(Interpreter, "faulty", "second")
        comparer.run()
        culprit = comparer.culprit
        assert culprit is not None
        assert "@first" not in Path(culprit.mlir).read_text()
        (given,) = culprit.inputs
        (expected,) = culprit.expected
        # first is 1 - x of the second argument, 1 to 4; second is 5 x + 1.
        assert tensors.load(tmp_path, given).tolist() == [0, -1, -2, -3]
        assert tensors.load(tmp_path, expected).tolist() == [1, -4, -9, -14]

    @pytest.mark.slow
    def test_a_fault_of_several_dispatches_together_is_found_with_as_few_as_it_takes(
        self, comparer: Comparer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Interpreter, "faulty", "together")
        compared = comparer.run()
        (differing,) = compared.differing
        assert (differing.name, differing.levels) == ("second_code", 2)
        assert comparer.culprit is not None
        text = Path(comparer.culprit.mlir).read_text()
        assert "@first::" in text and "@hoists" not in text

    @pytest.mark.slow
    def test_a_dispatch_becomes_the_program_that_it_was(
        self, comparer: Comparer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(Interpreter, "faulty", "second")
        comparer.run()
        assert comparer.culprit is not None
        program, (given,) = comparer.lifted(comparer.culprit)
        text = program.read_text()
        assert "linalg.copy" in text and "func.func @main(%arg0: tensor<4xf32>)" in text
        assert "flow" not in text and "dispatch" not in text
        assert tensors.load(tmp_path, given).tolist() == [0, -1, -2, -3]
