"""What a part of a program is run with: the values that PyTorch computes for the whole of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Function, Parameters, Program, TensorType
from iree_pilot.repro.ir import feeds
from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.ir.feeds import ARGUMENT, FedValue, Feeds
from iree_pilot.repro.ir.graph import Cut
from iree_pilot.repro.oracles.oracle import NotAProgram, Off
from iree_pilot.repro.reducer.simplify import Proposal
from iree_pilot.repro.wrong_results.values import PartValues

LIMITS = process.Limits(seconds=120)
T = "!torch.vtensor<[64],f32>"
PROGRAM = f"""\
module {{
  func.func @main(%x: {T}) -> {T} {{
    %one = torch.constant.int 1
    %0 = torch.aten.add.Tensor %x, %x, %one : {T}, {T}, !torch.int -> {T}
    %1 = torch.aten.mul.Tensor %0, %x : {T}, {T} -> {T}
    %2 = torch.aten.neg %1 : {T} -> {T}
    return %2 : {T}
  }}
}}
"""
ADD, MUL, NEG = 1, 2, 3
GIVEN = np.arange(64, dtype=np.float32)


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    (tmp_path / "program.mlir").write_text(PROGRAM)
    kind = TensorType(name="x", dtype="f32", shape=(64,))
    function = Function(
        name="main",
        inputs=(kind,),
        outputs=(kind,),
        example=(tensors.save(GIVEN, tmp_path, "input.bin"),),
    )
    program = Program(source="test", digest="0", functions=(function,), parameters=None, origin={})
    return Loaded(program=program, directory=str(tmp_path), seconds=0.0, cached=False)


@pytest.fixture
def values(loaded: Loaded, tmp_path: Path) -> Iterator[PartValues]:
    made = PartValues(loaded, "main", tmp_path / "values", LIMITS)
    yield made
    made.evaluator.close()


@pytest.fixture
def editor(loaded: Loaded, tmp_path: Path) -> Editor:
    return Editor(loaded.mlir, 0, tmp_path / "edits", LIMITS)


def given(values: PartValues, program: Path | None) -> list[list[float]]:
    assert program is not None
    (call,) = values.calls(program)
    return [tensors.load(Path(), tensor).tolist() for tensor in call.inputs]


@pytest.mark.torch
def test_what_a_part_takes_from_outside_is_what_the_program_computes_there(
    values: PartValues, editor: Editor
) -> None:
    first, second = editor.render([Cut(keep=(NEG,)), Cut(keep=(MUL, NEG))])
    assert given(values, first) == [(2 * GIVEN * GIVEN).tolist()]
    assert given(values, second) == [GIVEN.tolist(), (2 * GIVEN).tolist()]


@pytest.mark.torch
def test_parts_of_parts_take_what_the_part_computes(
    values: PartValues, editor: Editor, tmp_path: Path
) -> None:
    # Without the addition, the product is of the argument with itself.
    cut = Cut(keep=(MUL, NEG), bypass=((2, 0),))
    (part,) = editor.render([cut])
    assert part is not None
    inner = Editor(part, 0, tmp_path / "inner", LIMITS)
    graph = inner.graph()
    assert graph is not None
    (neg,) = inner.render([Cut(keep=(graph.real[-1],))])
    assert given(values, neg) == [(GIVEN * GIVEN).tolist()]


@pytest.mark.torch
def test_smaller_shapes_are_cut_out_around_the_worst_element(
    values: PartValues, editor: Editor, tmp_path: Path
) -> None:
    (part,) = editor.render([Cut(keep=(NEG,))])
    assert part is not None
    values.worst[values.digest(part)] = Off(error=1.0, shape=(64,), index=(41,))
    simple = Editor(part, 0, tmp_path / "simple", LIMITS)
    (small,) = simple.simpler([Proposal(sizes=((64, 8),))])
    assert given(values, small) == [(2 * GIVEN * GIVEN)[40:48].tolist()]


def test_the_same_text_with_other_inputs_is_another_program(
    values: PartValues, loaded: Loaded, tmp_path: Path
) -> None:
    digests = set()
    for number, value in enumerate((FedValue(ADD, 0), FedValue(MUL, 0))):
        file = tmp_path / f"{number}.mlir"
        file.write_text("the same")
        fed = Feeds(
            function="main",
            base=str(loaded.mlir),
            origin="main",
            values=(value,),
            types=(T,),
            results=(T,),
        )
        feeds.write(file, (fed,))
        digests.add(values.digest(file))
    assert len(digests) == 2


def test_only_parts_that_name_weights_are_run_with_them(
    loaded: Loaded, values: PartValues, tmp_path: Path
) -> None:
    values.parameters = Parameters(scope="model", tensors=())
    loads = 'util.global private @w = #flow.parameter.named<"model"::"w"> : tensor<3xf32>'
    found = []
    for number, text in enumerate((loads, PROGRAM)):
        file = tmp_path / f"{number}.mlir"
        file.write_text(text)
        own = Feeds(
            function="main",
            base=str(loaded.mlir),
            origin="main",
            values=(FedValue(ARGUMENT, 0),),
            types=(T,),
            results=(T,),
        )
        feeds.write(file, (own,))
        (call,) = values.calls(file)
        found.append(call.program.parameters)
    assert found == [values.parameters, None]


def test_a_program_of_which_nothing_is_known_is_none(values: PartValues, tmp_path: Path) -> None:
    (tmp_path / "strange.mlir").write_text(PROGRAM)
    with pytest.raises(NotAProgram, match="not known"):
        values.calls(tmp_path / "strange.mlir")


@pytest.mark.torch
def test_what_ends_pytorch_is_told_and_the_next_question_is_answered(
    values: PartValues, loaded: Loaded, tmp_path: Path
) -> None:
    (call,) = values.calls(loaded.mlir)
    broken = tmp_path / "broken.mlir"
    broken.write_text("nothing of the kind")
    program = msgspec.structs.replace(call.program, mlir=str(broken))
    asked = [msgspec.structs.replace(call, program=program), call]
    first, second = values.evaluator.evaluate(asked, tmp_path / "evaluated")
    assert first.call.function.reference is None and first.why
    reference = second.call.function.reference
    assert reference is not None
    (output,) = reference.outputs
    assert tensors.load(Path(), output).tolist() == (-2 * GIVEN * GIVEN).tolist()
    assert len(second.jittered) == 2
