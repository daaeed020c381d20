"""A program is made once and again when what it was made of changes; the driver outlives it all."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from fake import stub_toolchain
from fake.processes import alive, wait_until

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.evaluate import references
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import DEPENDENCIES, Job
from iree_pilot.pipeline.frontends.load import Loaded, TraceFailed, load, made_of
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

MLIR = """func.func @main(%x: tensor<2x?xf32>) -> tensor<2x?xf32> {
  return %x : tensor<2x?xf32>
}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text: str, tools: Toolchain | None = None, **options: Any) -> Loaded:
    known = ("inputs", "weights", "seed", "evaluate")
    fields = {name: options.pop(name) for name in known if name in options}
    job = Job(source=sources.parse(text, {}, None), **fields)
    limits = options.pop("limits", Limits())
    context = Context(toolchain=tools or toolchain.installed(), limits=limits)
    return load(job, context, **options)


def left_in(cache: Path) -> list[str]:
    """Programs in the store, and whatever is half made."""
    programs = [str(p) for p in (cache / "store").glob("program/*/*")]
    return programs + [str(p) for p in (cache / "store").glob(".tmp/*")]


@pytest.mark.real
def test_each_directory_of_weights_gives_a_program_of_its_own(here: Path) -> None:
    from fake.archives import write_safetensors

    (here / "net.py").write_text(
        "import torch\n"
        "def model():\n    return torch.nn.Linear(2, 3)\n"
        "def inputs():\n    return (torch.ones(1, 2),)\n"
    )
    loaded("net.py")
    for name in ("a", "b"):
        (here / name).mkdir()
        tensors = {"weight": ("f32", (3, 2)), "bias": ("f32", (3,))}
        write_safetensors(here / name / "model.safetensors", tensors)
        given = (str(here / name),)
        assert not loaded("net.py", weights=given).cached
        assert loaded("net.py", weights=given).cached


@pytest.mark.real
class TestMlir:
    def test_a_file_is_a_program_with_made_up_inputs(self, here: Path) -> None:
        (here / "a.mlir").write_text(MLIR)
        found = loaded("a.mlir")
        (function,) = found.program.functions
        assert [str(t) for t in function.inputs] == ["2xarg0_d1[0..]xf32"]
        assert function.example is not None
        assert [t.shape for t in function.example] == [(2, 4)]
        assert function.reference is not None
        assert any("inputs are made up" in note for note in found.program.notes)
        assert found.mlir.read_text() == MLIR
        assert not found.cached
        assert loaded("a.mlir").cached

    def test_bytecode_is_read_as_text_is(self, here: Path) -> None:
        import subprocess

        (here / "a.mlir").write_text(MLIR)
        opt = toolchain.installed().opt
        assert opt is not None
        subprocess.run([opt, "a.mlir", "--emit-bytecode", "-o", "a.mlirbc"], check=True)
        text, bytecode = loaded("a.mlir").program, loaded("a.mlirbc").program
        assert bytecode.functions[0].inputs == text.functions[0].inputs
        assert bytecode.mlir == "a.mlirbc"

    def test_another_seed_is_another_program(self, here: Path) -> None:
        (here / "a.mlir").write_text(MLIR)
        loaded("a.mlir")
        assert not loaded("a.mlir", seed=1).cached

    def test_the_users_inputs_are_checked_and_kept(self, here: Path) -> None:
        (here / "a.mlir").write_text(MLIR)
        (here / "x.bin").write_bytes(bytes(2 * 3 * 4))
        given = Tensor(dtype="f32", shape=(2, 3), file=str(here / "x.bin"))
        found = loaded("a.mlir", inputs=(given,))
        (function,) = found.program.functions
        assert function.example is not None
        assert (Path(found.directory) / function.example[0].file).read_bytes() == bytes(24)
        assert loaded("a.mlir", inputs=(given,)).cached
        (here / "x.bin").write_bytes(b"\1" * 24)
        assert not loaded("a.mlir", inputs=(given,)).cached
        wrong = Tensor(dtype="f32", shape=(3, 2), file=str(here / "x.bin"))
        with pytest.raises(UsageError, match="dimension 0 is 3 where 2 is expected"):
            loaded("a.mlir", inputs=(wrong,))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.mlir", b"func.func @main("),
            ("a.mlir", b"\x7fELF\x02\x01\x01\x00" + bytes(64)),
            ("a.mlir", b"import torch\n"),
            ("a.mlirbc", b"ML\xefR\x0dMLIR\x00"),
            ("a.mlir", b'"no.such_dialect"() : () -> ()'),
        ],
        ids=["cut short", "an executable", "Python", "bytecode cut short", "unknown dialect"],
    )
    def test_what_cannot_be_parsed_is_the_users_mistake(
        self, here: Path, cache: Path, name: str, content: bytes
    ) -> None:
        (here / name).write_bytes(content)
        with pytest.raises(UsageError, match="cannot be read as MLIR by IREE 3") as caught:
            loaded(name)
        assert name in caught.value.message
        assert str(cache) not in caught.value.message, "the user's file is named, not our copy"
        assert left_in(cache) == []


#: A mask of segments as vision towers make them; `begins`: where each of 4 of 64 positions begins.
SEGMENTS = """func.func @main(%begins: !torch.vtensor<[5],si64>) -> !torch.vtensor<[64,64],f32> {
  %none = torch.constant.none
  %false = torch.constant.bool false
  %0 = torch.constant.int 0
  %1 = torch.constant.int 1
  %64 = torch.constant.int 64
  %in = torch.constant.float 0.0
  %out = torch.constant.float -1.0e9
  %dims = torch.prim.ListConstruct %1 : (!torch.int) -> !torch.list<int>
  %positions = torch.aten.arange %64, %none, %none, %none, %none : !torch.int, !torch.none,
    !torch.none, !torch.none, !torch.none -> !torch.vtensor<[64],si64>
  %column = torch.aten.unsqueeze %positions, %1 : !torch.vtensor<[64],si64>, !torch.int ->
    !torch.vtensor<[64,1],si64>
  %row = torch.aten.unsqueeze %begins, %0 : !torch.vtensor<[5],si64>, !torch.int ->
    !torch.vtensor<[1,5],si64>
  %over = torch.aten.ge.Tensor %column, %row : !torch.vtensor<[64,1],si64>,
    !torch.vtensor<[1,5],si64> -> !torch.vtensor<[64,5],i1>
  %segment = torch.aten.sum.dim_IntList %over, %dims, %false, %none : !torch.vtensor<[64,5],i1>,
    !torch.list<int>, !torch.bool, !torch.none -> !torch.vtensor<[64],si64>
  %a = torch.aten.unsqueeze %segment, %1 : !torch.vtensor<[64],si64>, !torch.int ->
    !torch.vtensor<[64,1],si64>
  %b = torch.aten.unsqueeze %segment, %0 : !torch.vtensor<[64],si64>, !torch.int ->
    !torch.vtensor<[1,64],si64>
  %same = torch.aten.eq.Tensor %a, %b : !torch.vtensor<[64,1],si64>, !torch.vtensor<[1,64],si64> ->
    !torch.vtensor<[64,64],i1>
  %mask = torch.aten.where.Scalar %same, %in, %out : !torch.vtensor<[64,64],i1>, !torch.float,
    !torch.float -> !torch.vtensor<[64,64],f32>
  return %mask : !torch.vtensor<[64,64],f32>
}
"""


#: Which rows have the same sum; vectorised, 168 of the answers are wrong.
SAME_SUMS = """
#row = affine_map<(i, j) -> (i)>
#column = affine_map<(i, j) -> (j)>
#both = affine_map<(i, j) -> (i, j)>
func.func @main(%x: tensor<64x8xi32>) -> tensor<64x64xi1> {
  %zero = arith.constant 0 : i32
  %e = tensor.empty() : tensor<64xi32>
  %f = linalg.fill ins(%zero : i32) outs(%e : tensor<64xi32>) -> tensor<64xi32>
  %s = linalg.generic {indexing_maps = [#both, #row], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<64x8xi32>) outs(%f : tensor<64xi32>) {
  ^bb0(%a: i32, %o: i32):
    %t = arith.addi %a, %o : i32
    linalg.yield %t : i32
  } -> tensor<64xi32>
  %o = tensor.empty() : tensor<64x64xi1>
  %q = linalg.generic {indexing_maps = [#row, #column, #both],
      iterator_types = ["parallel", "parallel"]}
      ins(%s, %s : tensor<64xi32>, tensor<64xi32>) outs(%o : tensor<64x64xi1>) {
  ^bb0(%a: i32, %b: i32, %w: i1):
    %t = arith.cmpi eq, %a, %b : i32
    linalg.yield %t : i1
  } -> tensor<64x64xi1>
  return %q : tensor<64x64xi1>
}
"""


#: What it returns depends on numbers that a device may make 0.
CHECKS_BESIDE = """
func.func @main(%x: tensor<3xf32>) -> tensor<3xi1> {
  %zero = arith.constant dense<0.0> : tensor<3xf32>
  %0 = arith.cmpf ogt, %x, %zero : tensor<3xf32>
  %1 = util.unfoldable_constant 1 : i32
  check.expect_true(%1) : i32
  return %0 : tensor<3xi1>
}
"""


#: The first is false; the second holds only as nearly as it says.
CHECKS = """
func.func @main() {
  %x = util.unfoldable_constant dense<[1, 2, 3, 5]> : tensor<4xi4>
  check.expect_eq_const(%x, dense<[1, 2, 4, 5]> : tensor<4xi4>) : tensor<4xi4>
  %y = util.unfoldable_constant dense<[1.0, 2.0]> : tensor<2xf32>
  check.expect_almost_eq_const(%y, dense<[1.001, 2.0]> : tensor<2xf32>, atol 1.0e-2)
    : tensor<2xf32>
  %z = util.unfoldable_constant 1 : i32
  check.expect_true(%z) : i32
  return
}
"""


@pytest.mark.real
class TestReferences:
    """MLIR is compared as a model that is traced is, whatever dialect it is in."""

    def test_they_are_what_pytorch_computes_for_the_users_inputs(self, here: Path) -> None:
        import torch

        (here / "mask.mlir").write_text(SEGMENTS)
        begins = torch.tensor([0, 16, 32, 48, 64])
        (here / "x.bin").write_bytes(begins.numpy().tobytes())
        given = Tensor(dtype="i64", shape=(5,), file=str(here / "x.bin"))
        found = loaded("mask.mlir", inputs=(given,))
        (function,) = found.program.functions
        assert function.reference is not None
        (output,), (precise,) = function.reference.outputs, function.reference.precise
        assert (output.dtype, precise.dtype) == ("f32", "f64")
        raw = bytearray((Path(found.directory) / output.file).read_bytes())
        mask = torch.frombuffer(raw, dtype=torch.float32).reshape(64, 64)
        segment = torch.arange(64) // 16
        assert torch.equal(mask, torch.where(segment[:, None] == segment, 0.0, -1e9))
        assert loaded("mask.mlir", inputs=(given,)).cached

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("SEGMENTS", "of 4096 elements are wrong"),
            ("SAME_SUMS", "of 4096 elements differ"),
            ("CHECKS", "(check0.value, 4): 1 of 4 elements differ, worst [2]: 3 where 4"),
        ],
    )
    def test_a_program_that_gives_wrong_numbers_is_caught(
        self, here: Path, text: str, said: str
    ) -> None:
        from driver import pilot

        (here / "a.mlir").write_text(globals()[text])
        done = pilot("run", "a.mlir", "-t", "llvm-cpu", "--json", cwd=here)
        (case,) = done.document["cases"]
        assert (done.code, case["failure"]["kind"]) == (1, "mismatch")
        assert said in case["failure"]["message"]

    def test_a_check_that_expects_what_is_not_computed_is_not_the_compilers_fault(
        self, here: Path
    ) -> None:
        from driver import pilot

        (here / "a.mlir").write_text(CHECKS)
        done = pilot("bisect", "a.mlir", "-t", "llvm-cpu", "--json", cwd=here)
        (found,) = done.document["failures"]
        assert done.code == 1 and found["reproducer"] is None
        assert "what the program expects of itself is wrong" in found["why"]
        assert found["failure"]["message"].endswith(": the expectation is wrong")
        assert not list(here.glob("repro-*"))

    def test_what_a_device_may_flush_is_known_beside_checks(self, here: Path) -> None:
        import numpy as np

        (here / "a.mlir").write_text(CHECKS_BESIDE)
        (here / "x.bin").write_bytes(np.array([1e-40, 1, -1], np.float32).tobytes())
        given = Tensor(dtype="f32", shape=(3,), file=str(here / "x.bin"))
        found = loaded("a.mlir", inputs=(given,))
        reference = found.program.functions[0].reference
        assert reference is not None
        values = (o[0].file for o in (reference.outputs, reference.flushed))
        either = [(Path(found.directory) / file).read_bytes() for file in values]
        assert either == [b"\1\1\0", b"\0\1\0"]

    def test_why_there_are_none_is_noted(self, here: Path) -> None:
        (here / "a.mlir").write_text(
            "func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {\n"
            "  %y = stablehlo.custom_call @f(%x) : (tensor<2xf32>) -> tensor<2xf32>\n"
            "  return %y : tensor<2xf32>\n}\n"
            "func.func @other(%x: tensor<2xf32>) -> tensor<2xf32> {\n"
            "  %y = arith.addf %x, %x : tensor<2xf32>\n"
            "  return %y : tensor<2xf32>\n}\n"
        )
        program = loaded("a.mlir").program
        main, other = program.functions
        assert (
            main.reference is None and main.unevaluated == "stablehlo.custom_call is not evaluated"
        )
        assert f"main has nothing to be compared with: {main.unevaluated}" in program.notes
        assert other.reference is not None and other.unevaluated == ""
        assert other.reference.evaluator.startswith("numpy")

    def test_one_that_a_limit_cut_off_is_evaluated_again_with_more_time(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (here / "a.mlir").write_text(SAME_SUMS)
        with monkeypatch.context() as short:
            short.setattr(references, "_SECONDS", 0.01)
            for cached in (False, True):
                found = loaded("a.mlir")
                (function,) = found.program.functions
                assert "stopped at the time limit" in function.unevaluated
                assert function.reference is None and found.cached is cached
        for cached in (False, True):
            found = loaded("a.mlir")
            (function,) = found.program.functions
            assert function.reference is not None and found.cached is cached

    def test_a_check_is_an_output_with_what_it_expects(self, here: Path) -> None:
        import numpy as np

        (here / "a.mlir").write_text(CHECKS)
        found = loaded("a.mlir")
        (function,) = found.program.functions
        assert [(o.name, str(o)) for o in function.outputs] == [
            ("check0.value", "4xi8"),
            ("check1.value", "2xf32"),
            ("check1.holds", "2xi1"),
            ("check2.holds", "i1"),
        ]
        reference = function.reference
        assert reference is not None and reference.incomparable == ()
        value, near, holds, not_zero = (
            tensors.load(Path(found.directory), t) for t in reference.outputs
        )
        assert value.tolist() == [1, 2, 4, 5] and near.tolist() == [1, 2]
        assert holds.tolist() == [True, True] and bool(not_zero)
        assert np.array_equal(near, tensors.load(Path(found.directory), reference.precise[1]))
        assert "check." not in (Path(found.directory) / "a.mlir").read_text()

    def test_what_is_only_compiled_is_not_evaluated(self, here: Path) -> None:
        (here / "mask.mlir").write_text(SEGMENTS)
        (function,) = loaded("mask.mlir", evaluate=False).program.functions
        assert function.example is not None and function.reference is None
        assert loaded("mask.mlir").program.functions[0].reference is not None


class TestReader:
    @pytest.mark.slow
    def test_a_reader_that_hangs_is_stopped(self, here: Path, cache: Path) -> None:
        (here / "a.mlir").write_text("// stub: hang-at parse\n")
        stub = stub_toolchain(here / "release")
        with pytest.raises(TraceFailed) as caught:
            loaded("a.mlir", stub, limits=Limits(seconds=0.3))
        assert caught.value.failure.kind == "timeout"
        assert left_in(cache) == []

    def test_a_program_that_crashes_it_is_left_to_the_compiler(self, here: Path) -> None:
        (here / "a.mlir").write_text("// stub: crash-at parse\n")
        found = loaded("a.mlir", stub_toolchain(here / "release"))
        assert found.program.functions == ()
        assert any("iree-opt met SIGSEGV" in note for note in found.program.notes)

    @pytest.mark.slow
    def test_what_one_release_has_read_says_nothing_of_another(self, here: Path) -> None:
        (here / "a.mlir").write_text("old syntax\n")
        old = stub_toolchain(here / "old", version="3.11.0")
        new = stub_toolchain(
            here / "new", version="3.13.0", when={"old syntax": "// stub: exit-at parse 1"}
        )
        for _ in range(2):
            loaded("a.mlir", old)
            with pytest.raises(UsageError, match=r"cannot be read as MLIR by IREE 3\.13\.0"):
                loaded("a.mlir", new)
        assert loaded("a.mlir", old).cached


def write(path: Path, code: str) -> None:
    path.write_text(textwrap.dedent(code))


@pytest.mark.real
class TestPython:
    def test_it_is_traced_again_when_something_it_was_made_of_changed(self, here: Path) -> None:
        import numpy
        from safetensors.numpy import save_file

        (here / "elsewhere").mkdir()
        (here / "helper.py").symlink_to("elsewhere/helper.py")
        write(here / "helper.py", "FACTOR = 2.0\n")
        (here / "data.txt").write_text("3.0")
        save_file({"w": numpy.ones(2, numpy.float32)}, here / "w.safetensors")
        write(
            here / "model.py",
            """
            from pathlib import Path
            import torch
            from safetensors.torch import load_file
            from helper import FACTOR

            class M(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    here = Path(__file__).parent
                    self.added = float((here / "data.txt").read_text())
                    self.w = torch.nn.Parameter(load_file(here / "w.safetensors")["w"])
                def forward(self, x):
                    return x * FACTOR + self.added * self.w

            def model():
                return M()
            def inputs():
                return (torch.ones(2),)
            """,
        )

        def output(expected_cached: bool) -> list[float]:
            found = loaded("model.py")
            assert found.cached is expected_cached
            reference = found.program.functions[0].reference
            assert reference is not None
            raw = (Path(found.directory) / reference.outputs[0].file).read_bytes()
            return list(memoryview(raw).cast("f"))

        assert output(expected_cached=False) == [5.0, 5.0]
        assert output(expected_cached=True) == [5.0, 5.0]
        write(here / "helper.py", "FACTOR = 4.0\n")
        assert output(expected_cached=False) == [7.0, 7.0]
        (here / "data.txt").write_text("1.0")
        assert output(expected_cached=False) == [5.0, 5.0]
        save_file({"w": numpy.full(2, 2, numpy.float32)}, here / "w.safetensors")
        assert output(expected_cached=False) == [6.0, 6.0]
        os.utime(here / "model.py")
        assert output(expected_cached=True) == [6.0, 6.0]
        (here / "data.txt").write_text("3.0")
        write(here / "helper.py", "FACTOR = 2.0\n")
        save_file({"w": numpy.ones(2, numpy.float32)}, here / "w.safetensors")
        assert output(expected_cached=True) == [5.0, 5.0], "what was made of this is still there"

    def test_it_is_traced_again_when_a_variable_that_it_reads_changed(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(
            here / "model.py",
            """
            import os
            import torch
            K = float(os.environ.get("OWN_FACTOR", "1"))

            class M(torch.nn.Module):
                def forward(self, x):
                    return x * K - 1 if os.getenv("OWN_SHIFT") else x * K

            def model():
                return M()
            def inputs():
                os.environ["OWN_SET"] = "1"
                return (torch.ones(2),) if "OWN_SET" in os.environ else ()
            """,
        )

        def output(expected_cached: bool) -> float:
            found = loaded("model.py")
            assert found.cached is expected_cached
            reference = found.program.functions[0].reference
            assert reference is not None
            raw = (Path(found.directory) / reference.outputs[0].file).read_bytes()
            return float(memoryview(raw).cast("f")[0])

        assert output(expected_cached=False) == 1.0
        assert output(expected_cached=True) == 1.0, "what it sets itself is no change"
        monkeypatch.setenv("OWN_FACTOR", "5")
        assert output(expected_cached=False) == 5.0
        monkeypatch.setenv("OWN_SHIFT", "secret word")
        assert output(expected_cached=False) == 4.0
        monkeypatch.setenv("OWN_OTHER", "1")
        assert output(expected_cached=True) == 4.0
        found = loaded("model.py")
        assert [*made_of(found, sources.parse("model.py", {}, None))] == [str(here / "model.py")]
        record = (Path(found.directory) / DEPENDENCIES).read_text()
        assert set(re.findall(r'"\$(\w+)"', record)) == {"OWN_FACTOR", "OWN_SHIFT", "OWN_SET"}
        assert "secret word" not in record
        monkeypatch.delenv("OWN_SHIFT")
        monkeypatch.delenv("OWN_FACTOR")
        assert output(expected_cached=True) == 1.0, "what was made of this is still there"

    def test_a_module_in_the_working_directory(self, here: Path) -> None:
        (here / "mine").mkdir()
        write(
            here / "mine" / "models.py",
            """
            import sys
            import torch
            def small():
                assert "transformers" not in sys.modules, "it takes seconds to import"
                return torch.nn.ReLU()
            def inputs():
                return (torch.ones(2),)
            """,
        )
        assert loaded("mine.models:small").program.functions[0].name == "main"
        with pytest.raises(UsageError, match=r"no Python module mine\.gone can be found"):
            loaded("mine.gone:small")


@pytest.mark.real
class TestFailedTraces:
    """Whatever the model does in the tracing child, the driver says what it was."""

    def failure(self, here: Path, cache: Path, body: str, **limits: Any) -> Any:
        write(
            here / "model.py",
            "import torch\ndef inputs():\n    return (torch.ones(2),)\ndef model():\n"
            + textwrap.indent(textwrap.dedent(body), "    "),
        )
        with pytest.raises(TraceFailed) as caught:
            loaded("model.py", limits=Limits(**limits))
        assert left_in(cache) == []
        assert caught.value.failure.phase == "trace"
        return caught.value.failure

    def test_it_raises(self, here: Path, cache: Path) -> None:
        failure = self.failure(here, cache, "raise RuntimeError('no weights here')")
        assert failure.kind == "trace-error"
        assert failure.message == "while making the model: RuntimeError: no weights here"
        assert failure.location == f"{here}/model.py:5"

    def test_it_ends_the_process(self, here: Path, cache: Path) -> None:
        failure = self.failure(here, cache, "__import__('os')._exit(3)")
        assert failure.message == (
            "the tracing process ended itself: python ended with exit code 3 and no message"
        )

    def test_it_cannot_be_run(self, here: Path, cache: Path) -> None:
        failure = self.failure(here, cache, "return torch.nn.Linear(3, 3)")
        assert failure.message == (
            "PyTorch itself cannot run the model with these inputs: RuntimeError: mat1 and mat2 "
            "shapes cannot be multiplied (1x2 and 3x3)"
        )

    def test_it_runs_but_is_not_traced(self, here: Path, cache: Path) -> None:
        branch = """
        class Net(torch.nn.Module):
            def forward(self, x):
                return x if x.sum() > 0 else -x
        return Net()
        """
        failure = self.failure(here, cache, branch)
        assert failure.message.startswith("while tracing main: GuardOnDataDependentSymNode: ")

    def test_it_exits(self, here: Path, cache: Path) -> None:
        failure = self.failure(here, cache, "raise SystemExit(0)")
        assert failure.kind == "trace-error"
        assert "SystemExit" in failure.message

    def test_it_leaves_without_a_word(self, here: Path, cache: Path) -> None:
        failure = self.failure(here, cache, "import os; os._exit(0)")
        assert failure.kind == "trace-error"
        assert "exit code 0" in failure.message

    def test_it_aborts(self, here: Path, cache: Path) -> None:
        failure = self.failure(here, cache, "import os; os.abort()")
        assert (failure.kind, failure.signal) == ("trace-error", "SIGABRT")
        assert failure.location == f"{here}/model.py:5"

    def test_it_does_not_end(self, here: Path, cache: Path) -> None:
        failure = self.failure(here, cache, "while True: pass", seconds=3)
        assert failure.kind == "timeout"

    def test_it_eats_the_memory(self, here: Path, cache: Path) -> None:
        body = "hoard = []\nwhile True: hoard.append(bytearray(b'1' * 2**24))"
        failure = self.failure(here, cache, body, memory_bytes=2**30, seconds=60)
        assert failure.kind == "out-of-memory"

    def test_it_writes_without_end(self, here: Path, cache: Path) -> None:
        body = "while True: print('x' * 4096)"
        failure = self.failure(here, cache, body, output_bytes=2**20, seconds=60)
        assert failure.kind == "timeout"
        assert "output limit" in failure.message

    def test_what_it_started_ends_with_it(self, here: Path, cache: Path) -> None:
        self.failure(
            here,
            cache,
            f"""
            import subprocess
            child = subprocess.Popen(["sleep", "1000"])
            open({str(here / "pid")!r}, "w").write(str(child.pid))
            raise RuntimeError
            """,
        )
        pid = int((here / "pid").read_text())
        wait_until(lambda: not alive(pid))

    def test_an_untraceable_model_names_its_line(self, here: Path, cache: Path) -> None:
        failure = self.failure(
            here,
            cache,
            """
            class M(torch.nn.Module):
                def forward(self, x):
                    if x.sum() > 0:
                        return x
                    return -x
            return M()
            """,
        )
        assert failure.kind == "trace-error"
        assert failure.location == f"{here}/model.py:8"
        assert "while tracing main" in failure.message
