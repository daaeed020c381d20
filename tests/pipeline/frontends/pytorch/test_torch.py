"""PyTorch sources become programs: signatures, weights bit by bit, references that can judge."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.program.archive import check_parameters
from iree_pilot.pipeline.program.program import Dim, Function, Program, Tensor, TensorType
from iree_pilot.pipeline.toolchain.context import Context

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


@pytest.fixture
def build(tmp_path: Path) -> Any:
    """Traces a Python source in this process: what the tracing child does, without its start."""
    from iree_pilot.pipeline.frontends.pytorch import torch_export

    def made(code: str, *, factory: str = "", **job: Any) -> tuple[Program, Path]:
        file = tmp_path / "model.py"
        file.write_text("import torch\nfrom torch import nn\n" + textwrap.dedent(code))
        source = sources.parse(f"{file}{factory}", {}, None)
        place = tmp_path / "program"
        place.mkdir()
        return torch_export.build(Job(source=source, **job), place, lambda doing: None), place

    return made


def read(tensor: Tensor, directory: Path) -> Any:
    import torch

    from iree_pilot.pipeline.program.program import ELEMENT_TYPES

    raw = bytearray((directory / tensor.file).read_bytes())
    dtype = getattr(torch, ELEMENT_TYPES[tensor.dtype].torch)
    return torch.frombuffer(raw, dtype=dtype).reshape(tensor.shape)


SIMPLE = """
class M(nn.Module):
    def forward(self, x, y):
        return x @ y, x.sum()

def model():
    return M()

def inputs():
    return torch.ones(2, 3), torch.ones(3, 4)
"""


class TestSignature:
    def test_names_shapes_and_dtypes(self, build: Any) -> None:
        program, place = build(SIMPLE)
        (function,) = program.functions
        assert function.name == "main"
        assert function.inputs == (
            TensorType(name="x", dtype="f32", shape=(2, 3)),
            TensorType(name="y", dtype="f32", shape=(3, 4)),
        )
        assert [str(t) for t in function.outputs] == ["2x4xf32", "f32"]
        assert "func.func @main" in (place / "program.mlir").read_text()
        assert program.parameters is None
        assert set(program.origin) == {"torch", "iree-turbine"}

    def test_outputs_have_the_paths_that_users_write(self, build: Any) -> None:
        program, _ = build(
            """
            import collections, dataclasses, torch
            from torch import nn
            from transformers.modeling_outputs import CausalLMOutput
            Pair = collections.namedtuple("Pair", "key value")
            @dataclasses.dataclass
            class State:
                ends: torch.Tensor
                unset: torch.Tensor | None = None
            torch.export.register_dataclass(State)
            class M(nn.Module):
                def forward(self, x):
                    return CausalLMOutput(
                        logits=x + 1,
                        hidden_states=(x + 2, x + 3),
                        attentions={
                            "aux": [x, x + 4], 7: x + 5, "pair": Pair(x + 6, x), "s": State(x)
                        },
                    )
            def model():
                return M()
            def inputs():
                return (torch.ones(2),)
            """
        )
        outputs = program.functions[0].outputs
        assert [t.path for t in outputs] == [
            "logits",
            "hidden_states[0]",
            "hidden_states[1]",
            "attentions['aux'][0]",
            "attentions['aux'][1]",
            "attentions[7]",
            "attentions['pair'].key",
            "attentions['pair'].value",
            "attentions['s'].ends",
        ]
        assert [t.name for t in outputs] == [f"result{n}" for n in range(9)]

    @pytest.mark.parametrize(
        ("returned", "paths"),
        [
            ("x + 1", [""]),
            ("(x + 1, x + 2)", ["", ""]),
            ("{'logits': x + 1}", ["logits"]),
            ("(x + 1, [x + 2, x + 3])", ["output[0]", "output[1][0]", "output[1][1]"]),
            ("{0: x + 1, 'a b': x + 2}", ["output[0]", "output['a b']"]),
        ],
    )
    def test_outputs_side_by_side_have_numbers_alone(
        self, build: Any, returned: str, paths: list[str]
    ) -> None:
        program, _ = build(
            f"""
            import torch
            class M(torch.nn.Module):
                def forward(self, x):
                    return {returned}
            def model():
                return M()
            def inputs():
                return (torch.ones(2),)
            """
        )
        assert [t.path for t in program.functions[0].outputs] == paths

    def test_dynamic_dimensions_keep_their_bounds(self, build: Any) -> None:
        program, place = build(
            """
            class M(nn.Module):
                def forward(self, x):
                    return x.sum(0), x * 2
            def model():
                return M()
            def inputs():
                return (torch.ones(4, 3),)
            dynamic_shapes = {"x": {0: torch.export.Dim("n", min=2, max=64)}}
            """
        )
        (function,) = program.functions
        (x,) = function.inputs
        (size, width) = x.shape
        assert isinstance(size, Dim)
        assert (size.min, size.max, width) == (2, 64, 3)
        assert function.outputs[1].shape == (size, 3)
        assert "[?,3]" in (place / "program.mlir").read_text()

    def test_the_users_inputs_may_have_another_length(self, build: Any, tmp_path: Path) -> None:
        values = tmp_path / "x.bin"
        values.write_bytes(bytes(4 * 7 * 3))
        given = Tensor(dtype="f32", shape=(7, 3), file=str(values))
        code = """
            class M(nn.Module):
                def forward(self, x):
                    return x + 1
            def model():
                return M()
            def inputs():
                return (torch.ones(4, 3),)
            dynamic_shapes = ({0: torch.export.Dim("n", min=2, max=64)},)
            """
        program, place = build(code, inputs=(given,))
        (function,) = program.functions
        assert function.reference is not None
        (output,) = function.reference.outputs
        assert output.shape == (7, 3)
        assert (read(output, place) == 1).all()

    def test_inputs_outside_the_bounds_are_refused(self, build: Any, tmp_path: Path) -> None:
        values = tmp_path / "x.bin"
        values.write_bytes(bytes(4 * 65))
        given = Tensor(dtype="f32", shape=(65,), file=str(values))
        with pytest.raises(UsageError, match="dimension 0 is 65, outside the bounds of"):
            build(
                """
                class M(nn.Module):
                    def forward(self, x):
                        return x + 1
                def model():
                    return M()
                def inputs():
                    return (torch.ones(4),)
                dynamic_shapes = ({0: torch.export.Dim("n", min=2, max=64)},)
                """,
                inputs=(given,),
            )

    @pytest.mark.parametrize(
        ("inputs", "names"),
        [
            ("torch.ones(2)", ["a"]),
            ("[torch.ones(2), torch.ones(2)]", ["a", "b"]),
            ("{'b': torch.ones(2), 'a': torch.ones(2)}", ["a", "b"]),
            ("({'k': torch.ones(2), 'l': torch.ones(3)},)", ["a_k", "a_l"]),
        ],
        ids=["a tensor", "a list", "by name", "nested"],
    )
    def test_inputs_may_come_in_many_forms(self, build: Any, inputs: str, names: list[str]) -> None:
        program, _ = build(
            f"""
            class M(nn.Module):
                def forward(self, a, b=None):
                    if isinstance(a, dict):
                        return a["k"].sum() + a["l"].sum()
                    return a if b is None else a - b
            def model():
                return M()
            def inputs():
                return {inputs}
            """
        )
        (function,) = program.functions
        assert sorted(t.name for t in function.inputs) == names

    def test_another_factory(self, build: Any) -> None:
        program, _ = build(SIMPLE + "def other():\n    return M()\n", factory=":other")
        assert program.functions[0].name == "main"


WEIGHTS = """
class M(nn.Module):
    def __init__(self):
        super().__init__()
        bits = torch.arange(256, dtype=torch.int32)
        self.register_buffer("f8", bits.to(torch.uint8).view(torch.{f8}))
        self.register_buffer("bf16", (bits * 257).to(torch.int16).view(torch.bfloat16))
        self.register_buffer("f16", (bits * 127).to(torch.int16).view(torch.float16))
        self.weight = nn.Parameter(torch.full((2, 2), 0.1))
        self.register_buffer("scratch", torch.arange(3.0), persistent=False)
        self.tied = self.weight

    def forward(self, x):
        return self.f8, self.bf16, self.f16, self.weight + self.tied, x + self.scratch

def model():
    return M()

def inputs():
    return (torch.ones(3),)
"""


class TestWeights:
    def test_they_are_named_once_and_typed(self, build: Any) -> None:
        program, place = build(WEIGHTS.format(f8="float8_e4m3fn"))
        assert program.parameters is not None
        assert program.parameters.scope == "model"
        named = {str(p) for p in program.parameters.tensors}
        assert {
            "f8: 256xf8E4M3FN",
            "bf16: 256xbf16",
            "f16: 256xf16",
            "weight: 2x2xf32",
        } <= named
        assert not any("tied" in name for name in named)
        text = (place / "program.mlir").read_text()
        assert '"model"::"f8"' in text

    @pytest.mark.parametrize(
        "f8", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]
    )
    def test_every_bit_arrives_through_archive_module_and_device(
        self, build: Any, tmp_path: Path, f8: str
    ) -> None:
        from iree_pilot.pipeline.execution import runtime
        from iree_pilot.pipeline.toolchain import compiler, toolchain
        from iree_pilot.pipeline.toolchain.compiler import Compile

        program, place = build(WEIGHTS.format(f8=f8))
        real = toolchain.installed()
        out = tmp_path / "compiled"
        out.mkdir()
        flags = (
            "--iree-hal-target-device=local",
            "--iree-hal-local-target-device-backends=llvm-cpu",
            "--iree-llvmcpu-target-cpu=generic",
        )
        compiled = compiler.compile(
            Compile(mlir=place / program.mlir, flags=flags), Context(toolchain=real, directory=out)
        )
        assert compiled.failure is None
        (function,) = program.functions
        job = runtime.Run(
            program=program,
            directory=place,
            function=function,
            module=out / "module.vmfb",
            device="local-sync",
        )
        ran = runtime.run(
            job, Context(toolchain=real, directory=tmp_path / "run"), latency_budget=0
        )
        assert ran.failure is None
        assert function.reference is not None
        for got, expected in list(zip(ran.outputs, function.reference.outputs, strict=True))[:3]:
            assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
            assert (tmp_path / "run" / got.file).read_bytes() == (
                place / expected.file
            ).read_bytes()

    def test_a_constant_of_one_narrow_number_is_one_and_an_empty_one_is_none(
        self, build: Any
    ) -> None:
        program, place = build(
            """
            class M(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.register_buffer("scale", torch.tensor(1.5).bfloat16(), persistent=False)

                def forward(self, x):
                    return torch.cat([torch.tensor([], dtype=x.dtype), x * self.scale])

            def model():
                return M()

            def inputs():
                return (torch.ones(3).bfloat16(),)
            """
        )
        assert program.parameters is not None
        assert [str(p) for p in program.parameters.tensors] == ["scale: bf16"]
        check_parameters(program, place)

    def test_masks_of_one_shape_keep_their_own_values(self, build: Any) -> None:
        _, place = build(
            """
            class M(nn.Module):
                def __init__(self):
                    super().__init__()
                    for row in range(1, 17):
                        self.register_buffer(f"m{row}", torch.arange(33) % (row + 1) == 0)

                def forward(self, x):
                    return torch.stack([x.masked_fill(m, 0) for m in self.buffers()])

            def model():
                return M()

            def inputs():
                return (torch.ones(33),)
            """
        )
        text = (place / "program.mlir").read_text()
        values = re.findall(r'torch_tensor_33_torch\.uint8\w*: "(0x\w+)"', text)
        wanted = [
            "0x01000000" + "".join(f"{int(n % (row + 1) == 0):02X}" for n in range(33))
            for row in range(1, 17)
        ]
        assert sorted(values) == sorted(wanted)
        assert len(re.findall(r"vtensor.literal\(dense_resource<[^>]*_33_", text)) == 16

    def test_a_file_may_replace_them(self, build: Any, tmp_path: Path) -> None:
        import torch
        from safetensors.torch import save_file

        save_file({"weight": torch.full((2, 3), 5.0)}, tmp_path / "w.safetensors")
        code = """
            def model():
                return nn.Linear(3, 2, bias=False)
            def inputs():
                return (torch.ones(1, 3),)
            """
        program, place = build(code, weights=(str(tmp_path / "w.safetensors"),))
        reference = program.functions[0].reference
        assert reference is not None
        assert (read(reference.outputs[0], place) == 15).all()

    def test_a_file_that_does_not_fit_is_told_tensor_by_tensor(
        self, build: Any, tmp_path: Path
    ) -> None:
        import torch
        from safetensors.torch import save_file

        tensors = {"weight": torch.ones(3, 2), "odd": torch.ones(1, dtype=torch.float16)}
        save_file(tensors, tmp_path / "w.safetensors")
        with pytest.raises(UsageError, match="3 tensors of 3") as caught:
            build(
                """
                def model():
                    return nn.Linear(3, 2)
                def inputs():
                    return (torch.ones(1, 3),)
                """,
                weights=(str(tmp_path / "w.safetensors"),),
            )
        message = caught.value.message
        assert "weight: expected 2x3xf32, found 3x2xf32" in message
        assert "bias: expected 2xf32, found nothing" in message
        assert "odd: expected nothing, found 1xf16" in message


class TestReference:
    def test_precise_is_the_same_program_in_double_precision(self, build: Any) -> None:
        import torch

        program, place = build(
            """
            class M(nn.Module):
                def forward(self, x):
                    return (x.half().float() * 1e-3).cumsum(0)
            def model():
                return M()
            def inputs():
                torch.manual_seed(1)
                return (torch.randn(1000),)
            """
        )
        (function,) = program.functions
        reference = function.reference
        assert reference is not None
        assert reference.precise_dtype == "f64"
        assert reference.perturbed == ()
        assert function.example is not None
        x = read(function.example[0], place).double()
        exact = (x * 1e-3).cumsum(0)
        assert torch.allclose(read(reference.precise[0], place), exact, rtol=1e-12)
        assert not torch.allclose(
            read(reference.outputs[0], place).double(), exact, rtol=1e-6, atol=0
        ), "PyTorch's own rounding is in the reference outputs"

    def test_casts_to_8_bits_round_and_their_noise_is_measured(self, build: Any) -> None:
        program, place = build(
            """
            class M(nn.Module):
                def forward(self, x):
                    return x.to(torch.float8_e4m3fnuz).float() * 2
            def model():
                return M()
            def inputs():
                torch.manual_seed(1)
                return (torch.randn(4000) * 16,)
            """
        )
        reference = program.functions[0].reference
        assert reference is not None
        eager = read(reference.outputs[0], place).double()
        precise, perturbed = (
            read(tensors[0], place) for tensors in (reference.precise, reference.perturbed)
        )
        assert (precise == eager).all(), "the rounding is part of what the program means"
        moved = (perturbed != precise).double().mean().item()
        assert 0 < moved < 0.01

    def test_a_model_in_training_mode_is_not_changed_by_being_run(self, build: Any) -> None:
        program, place = build(
            """
            class M(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.norm = nn.BatchNorm1d(2)
                def forward(self, x):
                    return self.norm(x) + self.norm.running_mean
            def model():
                return M()
            def inputs():
                return (torch.tensor([[1.0, 2.0], [3.0, 6.0]]),)
            """
        )
        reference = program.functions[0].reference
        assert reference is not None
        # The running mean moves by a tenth of the batch's mean before it is added.
        eager, precise = (
            read(tensors[0], place) for tensors in (reference.outputs, reference.precise)
        )
        assert (eager.double() - precise).abs().max() < 1e-5

    def test_what_has_no_double_form_says_why(self, build: Any) -> None:
        program, _ = build(
            """
            class M(nn.Module):
                def forward(self, x):
                    return x.view(torch.int32)
            def model():
                return M()
            def inputs():
                return (torch.ones(3),)
            """
        )
        reference = program.functions[0].reference
        assert reference is not None
        assert reference.precise == ()
        assert "no double-precision reference" in reference.note
        assert "dtype" in reference.note

    def test_the_models_own_writes_do_not_reach_the_inputs(self, build: Any) -> None:
        program, place = build(
            """
            class M(nn.Module):
                def forward(self, x):
                    x.add_(1)
                    return x * 2
            def model():
                return M()
            def inputs():
                return (torch.ones(3),)
            """
        )
        (function,) = program.functions
        assert function.example is not None
        assert function.reference is not None
        assert (read(function.example[0], place) == 1).all()
        assert (read(function.reference.outputs[0], place) == 4).all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("def inputs():\n    return ()\n", r"there is no function model\(\)"),
            ("def model():\n    return nn.ReLU()\n", r"there is no function inputs\(\)"),
            ("model = 3\ndef inputs():\n    return ()\n", r"there is no function model\(\)"),
            (
                "def model():\n    return 3\ndef inputs():\n    return ()\n",
                r"model\(\) returned int, not a torch\.nn\.Module",
            ),
            (
                "def model():\n    return nn.ReLU()\ndef inputs():\n    return 'x'\n",
                r"inputs\(\) returned str",
            ),
        ],
    )
    def test_a_file_that_is_no_source(self, build: Any, code: str, message: str) -> None:
        with pytest.raises(UsageError, match=message) as caught:
            build(code)
        assert caught.value.advice

    def test_an_exported_program_that_is_damaged(self, tmp_path: Path) -> None:
        from iree_pilot.pipeline.frontends.pytorch import torch_export

        (tmp_path / "a.pt2").write_bytes(b"PK\x03\x04 cut short")
        job = Job(source=sources.parse(str(tmp_path / "a.pt2"), {}, None))
        with pytest.raises(UsageError, match="cannot be read as an exported program"):
            torch_export.build(job, tmp_path, lambda doing: None)


def test_a_reproducers_folder_stays_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules that come to it, compiled ones too, may be somebody else's."""
    from iree_pilot.pipeline.frontends.pytorch import torch_sources

    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("report.json", "repro.py"):
        (tmp_path / name).write_text("")
    torch_sources._python_module(str(tmp_path / "repro.py"), None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "repro.py"]


def test_a_python_file_with_another_case_of_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iree_pilot.pipeline.frontends.pytorch import torch_sources

    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "UP.PY").write_text("value = 7\n")
    assert torch_sources._python_module(str(tmp_path / "UP.PY"), None).value == 7


def test_an_exported_program(tmp_path: Path) -> None:
    import torch

    from iree_pilot.pipeline.frontends.pytorch import torch_export

    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    batch = torch.export.Dim("batch", min=1, max=16)
    exported = torch.export.export(
        module, (torch.ones(4, 3),), dynamic_shapes={"input": {0: batch}}
    )
    torch.export.save(exported, tmp_path / "a.pt2")
    place = tmp_path / "program"
    place.mkdir()
    job = Job(source=sources.parse(str(tmp_path / "a.pt2"), {}, None))
    program = torch_export.build(job, place, lambda doing: None)
    function: Function = program.functions[0]
    (dim, width) = function.inputs[0].shape
    assert isinstance(dim, Dim)
    assert (dim.min, dim.max, width) == (1, 16, 3)
    assert program.parameters is not None
    assert {str(p) for p in program.parameters.tensors} == {"weight: 2x3xf32", "bias: 2xf32"}
    assert function.reference is not None
    with torch.no_grad():
        expected = module(torch.ones(4, 3))
    assert torch.equal(read(function.reference.outputs[0], place), expected)


class TestState:
    """What a call changes is compared, or the reference says that it is not."""

    def test_a_parameter_is_compared_and_keeps_its_value(self, build: Any) -> None:
        program, place = build(
            """
            class Counter(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.w = nn.Parameter(torch.ones(2), requires_grad=False)
                def forward(self, x):
                    self.w.add_(1)
                    return x * self.w
            def model():
                return Counter().eval()
            def inputs():
                return torch.ones(2)
            """
        )
        (function,) = program.functions
        assert [one.label for one in function.outputs] == ["result0", "w (changed)"]
        assert "what the model changes is compared, too: w" in program.notes
        reference = function.reference
        assert (reference.incomparable, reference.unreturned) == ((), ())
        assert [read(one, place).tolist() for one in reference.outputs] == [[2.0, 2.0]] * 2

    def test_what_is_put_into_a_container_is_not_compared(self, build: Any) -> None:
        program, _ = build(
            """
            class Cache(nn.Module):
                def forward(self, x, caches):
                    caches["k"] = caches["k"] + x
                    caches["v"] = x + 1
                    return caches["v"]
            def model():
                return Cache().eval()
            def inputs():
                return torch.ones(2), {"k": torch.ones(2), "v": torch.ones(2)}
            """
        )
        assert program.functions[0].reference.unreturned == ("caches['k']",)

    def test_what_an_exported_program_changes_is_not_compared(
        self, build: Any, tmp_path: Path
    ) -> None:
        import torch

        from iree_pilot.pipeline.frontends.pytorch import torch_export

        class Counter(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("n", torch.ones(2))

            def forward(self, x: Any, c: Any) -> Any:
                self.n.add_(x)
                c["k"].mul_(3)
                return x * 2, c["v"].mul_(2)

        file, place = tmp_path / "counter.pt2", tmp_path / "program"
        given = (torch.ones(2), {"k": torch.ones(2), "v": torch.ones(2)})
        torch.export.save(torch.export.export(Counter().eval(), given), file)
        place.mkdir()
        job = Job(source=sources.parse(str(file), {}, None))
        program = torch_export.build(job, place, lambda doing: None)
        assert program.functions[0].reference.unreturned == ("n", "c['k']")


NOISY = """
class Coder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.drop = nn.Linear(8, 8), nn.Dropout(0.1)

    def forward(self, x):
        mean, spread = self.encode(x).chunk(2, -1)
        return self.drop(mean + torch.randn_like(mean) * torch.exp(spread)), mean

def model():
    return Coder(){mode}

def inputs():
    return torch.ones(2, 8)
"""


class TestRandomNumbers:
    def test_outputs_that_depend_on_them_say_so(self, build: Any) -> None:
        program, _ = build(NOISY.format(mode=".eval()"))
        reference = program.functions[0].reference
        assert reference.incomparable == ("it draws random numbers: aten.randn_like", "")
        assert program.notes == ()

    def test_a_model_in_training_mode_is_told_so(self, build: Any) -> None:
        program, _ = build(NOISY.format(mode=""))
        why, other = program.functions[0].reference.incomparable
        assert why.startswith("it draws random numbers: aten.randn_like, aten.")
        assert why.endswith("(the model is in training mode: .eval() is missing)")
        assert not other
        assert any("training mode: .eval() is missing" in note for note in program.notes)


def test_a_class_that_lacks_an_argument_is_wrong_usage(build: Any) -> None:
    code = """
    class Net(nn.Linear):
        def __init__(self, width):
            super().__init__(2, width)
    def inputs():
        return (torch.ones(1, 2),)
    """
    with pytest.raises(UsageError, match=r"Net\(\) needs a value for width") as caught:
        build(code, factory=":Net")
    assert caught.value.advice == "Give it: --kwargs width=VALUE"


def test_a_decorator_may_give_what_the_factory_that_it_wraps_needs(build: Any) -> None:
    code = """
    import functools
    def wide(make):
        return functools.wraps(make)(lambda: make(3))
    @wide
    def model(width):
        return nn.Linear(2, width)
    def inputs():
        return (torch.ones(1, 2),)
    """
    program, _ = build(code)
    assert program.functions[0].outputs[0].shape == (1, 3)
