"""Phases are read from a compile's dumps: order, time, size, operations by dialect."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from iree_pilot.pipeline.toolchain.phases import DumpReader, count_operations, dump_files


class TestCounting:
    def test_operations_are_counted_by_dialect(self) -> None:
        ir = b"""
#map = affine_map<(d0) -> (d0)>
module {
  util.func public @main(%arg0: tensor<4xf32>) -> tensor<4xf32> {
    %cst = arith.constant dense<1.0> : tensor<4xf32>
    %0, %1:2 = "custom.three"(%arg0) : (tensor<4xf32>) -> (f32, f32, f32)
    %2 = linalg.generic {indexing_maps = [#map]} ins(%arg0 : tensor<4xf32>) {
    ^bb0(%in: f32, %out: f32):
      %3 = arith.addf %in, %out : f32
      linalg.yield %3 : f32
    } -> tensor<4xf32>
    // arith.constant in a comment is none
    util.return %2 : tensor<4xf32>
  }
}
"""
        assert count_operations(ir) == {
            "util": 2,
            "arith": 2,
            "linalg": 2,
            "custom": 1,
            "builtin": 1,
        }

    def test_the_most_frequent_dialect_comes_first(self) -> None:
        ir = b"a.x\nb.x\nb.x\nb.x\nc.x\nc.x\n"
        assert list(count_operations(ir)) == ["b", "c", "a"]

    def test_operations_printed_without_their_dialect_are_counted(self) -> None:
        ir = b"""module {
  func.func @main(%arg0: f32) -> f32 {
    %0 = unrealized_conversion_cast %arg0 : f32 to f32
    return %0 : f32
  }
}"""
        assert count_operations(ir) == {"builtin": 2, "func": 2}

    def test_resources_are_no_operations(self) -> None:
        ir = b"""module {
}

{-#
  dialect_resources: {
    builtin: {
      torch_tensor_8_torch.float32: "0x0400000000"
    }
  }
#-}
"""
        assert count_operations(ir) == {"builtin": 1}

    @pytest.mark.parametrize("ir", [b"", b"\n", b"\xff\xfe\x00", b"ML\xefR\x0d"])
    def test_what_is_no_ir_has_no_operations(self, ir: bytes) -> None:
        assert count_operations(ir) == {}


NAMES = st.sampled_from(["a.op", "b.op_2", "some_dialect.do", "x9.y.z", "torch.aten.mm"])
#: Values that look like operations when they are printed carelessly.
TEXTS = st.sampled_from(["plain", "a.op here", 'quote " a.op', "line\na.op", "%0 = b.op"])
#: Unregistered operations: name, results, an attribute, regions with operations.
TREES: st.SearchStrategy[Any] = st.recursive(
    st.tuples(NAMES, st.integers(0, 3), TEXTS, st.just(())),
    lambda inner: st.tuples(
        NAMES, st.integers(0, 3), TEXTS, st.lists(st.lists(inner, max_size=3), max_size=2)
    ),
    max_leaves=20,
)


@pytest.mark.real
class TestCountingAgainstTheCompiler:
    @given(st.lists(TREES, max_size=4))
    @settings(max_examples=examples(0.6))
    def test_the_generic_form_is_counted_exactly(self, trees: list[Any]) -> None:
        from iree.compiler import ir

        with ir.Context() as context, ir.Location.unknown():
            context.allow_unregistered_dialects = True
            number = ir.IntegerType.get_signless(32)

            def make(tree: Any) -> None:
                name, results, text, regions = tree
                operation = ir.Operation.create(
                    name,
                    results=[number] * results,
                    attributes={"text": ir.StringAttr.get(text)},
                    regions=len(regions),
                )
                for region, content in zip(operation.regions, regions, strict=True):
                    with ir.InsertionPoint(region.blocks.append(number)):
                        for inner in content:
                            make(inner)

            module = ir.Module.create()
            with ir.InsertionPoint(module.body):
                for tree in trees:
                    make(tree)
            counted: Counter[str] = Counter()

            def visit(operation: Any) -> Any:
                counted[operation.name.split(".")[0]] += 1
                return ir.WalkResult.ADVANCE

            module.operation.walk(visit)
            text = module.operation.get_asm(print_generic_op_form=True)
        assert count_operations(text.encode()) == dict(counted)


class TestDumps:
    def write(self, directory: Path, number: int, phase: str, text: str = "module {\n}\n") -> Path:
        path = directory / f"module.{number}.{phase}.mlir"
        path.write_text(text)
        return path

    def test_they_are_ordered_by_number_not_by_name(self, tmp_path: Path) -> None:
        for number, phase in ((10, "executable-targets"), (2, "abi"), (1, "input"), (9, "hal")):
            self.write(tmp_path, number, phase)
        (tmp_path / "module.mlir").touch()
        (tmp_path / "notes.1.input.txt").touch()
        phases = [phase for phase, _ in dump_files(tmp_path)]
        assert phases == ["input", "abi", "hal", "executable-targets"]

    def test_a_directory_that_is_not_there_yet_has_none(self, tmp_path: Path) -> None:
        assert dump_files(tmp_path / "phases") == []
        assert DumpReader(tmp_path / "phases", 0).read(final=True) == []

    def test_a_dump_is_read_once_it_is_complete(self, tmp_path: Path) -> None:
        reader = DumpReader(tmp_path, 0)
        self.write(tmp_path, 1, "input", "half of")
        assert reader.read() == [], "the newest may still be written to"
        assert reader.last_dump is None
        self.write(tmp_path, 1, "input", "module {\n  a.op\n}\n")
        last = self.write(tmp_path, 2, "abi")
        (input_phase,) = reader.read()
        assert (input_phase.name, input_phase.bytes) == ("input", 18)
        assert input_phase.ops == {"builtin": 1, "a": 1}
        assert input_phase.op_count == 2
        assert reader.read() == []
        assert [phase.name for phase in reader.read(final=True)] == ["abi"]
        assert reader.last_dump == last
        assert reader.read(final=True) == []
        assert [phase.name for phase in reader.phases] == ["input", "abi"]

    def test_a_phase_took_from_the_dump_before_it_to_its_own(self, tmp_path: Path) -> None:
        second = 1_000_000_000
        for number, (phase, written) in enumerate([("input", 12), ("abi", 15), ("flow", 15)], 1):
            path = self.write(tmp_path, number, phase)
            os.utime(path, ns=(written * second, written * second))
        reader = DumpReader(tmp_path, begun_ns=10 * second)
        assert [p.seconds for p in reader.read(final=True)] == [2.0, 3.0, 0.0]
        assert reader.end_ns == 15 * second

    def test_a_clock_that_went_back_gives_no_negative_time(self, tmp_path: Path) -> None:
        os.utime(self.write(tmp_path, 1, "input"), ns=(5, 5))
        (phase,) = DumpReader(tmp_path, begun_ns=10).read(final=True)
        assert phase.seconds == 0.0
