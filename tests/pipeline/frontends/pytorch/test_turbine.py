"""What iree-turbine offers beyond torch.export: operations of its own, `aot.CompiledModule`."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver import pilot
from places import CASES

from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.pytorch import bindings
from iree_pilot.pipeline.program.program import Program

pytestmark = pytest.mark.real

MODULE = """
import torch
from iree.turbine import aot

class M(aot.CompiledModule):
    weights = aot.export_parameters(torch.nn.Linear(3, 2), mutable=True)
    def main(self, x=aot.AbstractTensor(2, 3), y=aot.AbstractTensor(3, 4)):
        return self.product(x, y)
    @aot.jittable
    def product(x, y):
        return x @ y + 1
"""


def built(code: str, place: Path, factory: str = "") -> Program:
    """The program of a source, made in this process as the tracing child makes it."""
    from iree_pilot.pipeline.frontends import trace_child

    file = place / "source.py"
    file.write_text(code)
    made = place / "program"
    made.mkdir()
    source = sources.parse(f"{file}{factory}", {}, None)
    return trace_child._build(Job(source=source, evaluate=False), made)


def test_what_the_bindings_lack_is_put_back() -> None:
    from iree.compiler import ir

    bindings.restore()
    assert not bindings.lacks()
    with ir.Context(), ir.Location.unknown():
        i32, f32 = ir.IntegerType.get_signless(32), ir.F32Type.get()
        assert ir.IntegerType.isinstance(i32) and not ir.IntegerType.isinstance(f32)
        assert ir.ShapedType.isinstance(ir.RankedTensorType.get((2,), f32))


def test_an_operation_of_turbines_own_runs_and_is_compared() -> None:
    done = pilot("run", CASES / "turbine_ops.py", "-t", "llvm-cpu", "--json")
    (case,) = done.document["cases"]
    assert (case["status"], done.code) == ("ok", 0)
    assert case["comparison"]["rel_l2"] <= case["comparison"]["tolerance"]


class TestCompiledModule:
    def test_its_class_is_a_program_with_the_sources_inputs(self, tmp_path: Path) -> None:
        inputs = "return torch.ones(2, 3), torch.ones(3, 4)"
        code = f"def model():\n    return M\n\ndef inputs():\n    {inputs}\n"
        program = built(f"{MODULE}\n{code}", tmp_path)
        (function,) = program.functions
        assert [str(one) for one in (*function.inputs, *function.outputs)] == [
            *("2x3xf32", "3x4xf32", "2x4xf32")
        ]
        assert function.example is not None
        place = tmp_path / "program"
        raw = (place / function.example[0].file).read_bytes()
        assert raw == b"\x00\x00\x80\x3f" * 6
        assert "torch.aten.mm" in (place / program.mlir).read_text()
        assert "iree-turbine" in program.origin

    @pytest.mark.parametrize("made", ["M", "M()"])
    def test_without_inputs_they_are_made_up(self, made: str, tmp_path: Path) -> None:
        program = built(f"{MODULE}\ndef model():\n    return {made}\n", tmp_path)
        assert any("made up" in note for note in program.notes)

    def test_the_class_itself_can_be_named(self, tmp_path: Path) -> None:
        assert built(MODULE, tmp_path, ":M").functions[0].name == "main"
