"""Flow IR as dispatches, and functions made of them: each is given what the other side computed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from driver import pilot

from repro.ir.edit import context, parse
from repro.sides import editor
from repro.sides.against import Origins
from repro.sides.compare import Chunk, chunks
from repro.sides.edit import describe
from repro.sides.flow import Body, Cut, Flow, Step, Value, parse_type


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
  util.global private @__device_0 = #hal.device.target<"local"> : !hal.device
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


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    with context():
        return describe(parse(FLOW.encode()), tmp_path)


def made(tmp_path: Path, cut: Cut, *, alone: bool = False) -> tuple[str, object]:
    source = tmp_path / "flow.mlir"
    source.write_text(FLOW)
    file, (interface,) = editor.make(source, [cut], tmp_path / "made", alone=alone)
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
        cut = Cut(name="alone", body=main.position, groups=(second.results,), fed=first.results)
        text, interface = made(tmp_path, cut, alone=True)
        assert "@second::@second_code" in text
        assert "@first" not in text and "@hoists" not in text
        assert interface == editor.Interface(arguments=(), fed=first.results)

    def test_each_group_is_computed_from_what_is_fed_and_not_from_the_others(
        self, flow: Flow, tmp_path: Path
    ) -> None:
        main = flow.bodies[1]
        every = tuple(value.number for value in main.values)
        groups = tuple(step.results for step in main.steps)
        text, interface = made(
            tmp_path, Cut(name="apart", body=main.position, groups=groups, fed=every)
        )
        body = text.split("util.func public @apart")[1]
        assert body.count("flow.dispatch ") == 3
        assert body.count("hal.tensor.import") == 3
        assert interface == editor.Interface(
            arguments=(1,), fed=(*main.steps[0].results, *main.steps[2].rests_on)
        )

    def test_what_is_made_is_tied_to_no_device_and_waits_for_no_fence(
        self, flow: Flow, tmp_path: Path
    ) -> None:
        main = flow.bodies[1]
        values = tuple(value.number for value in main.returned)
        text, _ = made(tmp_path, Cut(name="whole", body=main.position, groups=(values,)))
        assert "affinity" not in text and "!hal.device" not in text
        assert "fence" not in text

    def test_the_dispatches_of_initializers_become_a_function(
        self, flow: Flow, tmp_path: Path
    ) -> None:
        first = flow.bodies[0]
        cut = Cut(name="setup", body=first.position, groups=(first.steps[0].results,))
        text, interface = made(tmp_path, cut, alone=True)
        assert '"model"::"w"' in text
        assert interface == editor.Interface(arguments=(), fed=())

    def test_ir_that_cannot_be_read_is_refused_with_the_reason(self, tmp_path: Path) -> None:
        source = tmp_path / "flow.mlir"
        source.write_text("module { util.func }")
        with pytest.raises(editor.NotEditable, match="parse"):
            editor.describe(source, tmp_path / "described")


def step(index: int, *, rests_on: tuple[int, ...] = ()) -> Step:
    return Step(index=index, name=f"d{index}", results=(index,), rests_on=rests_on)


def body(steps: list[Step], megabytes: int) -> Body:
    values = tuple(Value(number=s.index, dtype="i8", shape=(megabytes, 2**20)) for s in steps)
    return Body(
        name="main",
        position=0,
        initializer=False,
        arguments=(),
        values=values,
        returned=(),
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
    def test_where_both_sides_are_right_no_dispatch_differs(
        self, shared_cache: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "sum.mlir").write_text(SMALL)
        done = pilot(
            "bisect", "sum.mlir", "-t", "llvm-cpu", "--against", "llvm-cpu:generic", "--json",
            env={"IREE_PILOT_CACHE": shared_cache, "IREE_PILOT_DATA": tmp_path / "data"},
            cwd=tmp_path,
        )  # fmt: skip
        assert done.code == 1, done.err
        assert done.document["status"] == "passes"
        assert done.document["compared"]["dispatches"] == 1
        assert done.document["oracle_calls"] == 3

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
