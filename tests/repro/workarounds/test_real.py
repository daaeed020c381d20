"""Workarounds with the real compiler: what is known to fail is got past, and rewrites are right."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from driver import pilot
from places import CASES

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import Settings
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.load import Loaded, load
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, installed
from iree_pilot.repro.workarounds import find_workarounds
from iree_pilot.repro.workarounds.answers import WorkaroundAnswer
from iree_pilot.repro.workarounds.candidate import Candidate
from iree_pilot.repro.workarounds.combination_search import CombinationOutcome
from iree_pilot.repro.workarounds.combination_trial import FailingCase, Trials
from iree_pilot.repro.workarounds.find_workarounds import SearchOptions, Workarounds
from iree_pilot.repro.workarounds.rewrites import fnuz_codes
from iree_pilot.repro.workarounds.table import TABLE

pytestmark = pytest.mark.real
LIMITS = process.Limits(seconds=120)
BY_EDIT = {one.edit: one for one in TABLE if one.edit}


@pytest.fixture(autouse=True)
def kept(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler says of its targets is the same for all, and takes time to ask."""
    monkeypatch.setenv("IREE_PILOT_CACHE", str(shared_cache))


class Bench:
    """A program for a target."""

    def __init__(self, source: Path | str, target: str, directory: Path) -> None:
        self.toolchain: Toolchain = installed()
        self.job = Job(source=sources.parse(str(source), {}, None), leave=("all",))
        self.loaded: Loaded = load(self.job, Context(toolchain=self.toolchain))
        self.plan = targets.plan(targets.parse(target), self.toolchain)
        self.directory = directory

    def found(self, enough: int = 1) -> Workarounds:
        context = Context(toolchain=self.toolchain, limits=LIMITS)
        settings = Settings(latency_budget=0)
        result = case.run(self.loaded, self.plan, context, settings, case.Silent())
        words = (self.job.source.text,)
        options = SearchOptions(
            job=self.job, words=words, limits=LIMITS, enough=enough, place=self.directory / "out"
        )
        return find_workarounds.find(self.loaded, result, self.plan, self.toolchain, options)

    def outcome(self, *combination: Candidate) -> CombinationOutcome:
        """What comes of a combination, whatever the program does without."""
        subject = FailingCase(
            loaded=self.loaded,
            job=self.job,
            settings={},
            target=self.plan.target.spec,
            plan=self.plan,
            flags=(),
            device=None,
            failure=Failure(kind="crash", phase="input", message="", signature="none"),
        )
        trials = Trials(
            subject,
            Context(toolchain=self.toolchain, limits=LIMITS, directory=self.directory / "tried"),
        )
        return trials.ask([combination])[0]

    def assert_can_be_run(self, answer: WorkaroundAnswer) -> None:
        """The answer works where there is a device, and says what it is where there is none."""
        assert answer.state == ("works" if self.plan.device else "compiles")


def judged(loaded: Loaded, program: Path) -> tuple[str, ...]:
    """`--input` of what a program was judged with, in files beside a rewritten one."""
    (function,) = loaded.program.functions
    files = [
        f"{tensor}=@{program.with_suffix(f'.input{index}.bin')}"
        for index, tensor in enumerate(function.example or ())
    ]
    return tuple(word for file in files for word in ("--input", file))


class TestWhatIsKnownToFail:
    def test_attention_on_vulkan_is_written_out(self, tmp_path: Path) -> None:
        bench = Bench(CASES / "attention.py", "vulkan", tmp_path)
        (answer,) = bench.found().answers
        bench.assert_can_be_run(answer)
        assert answer.names == ("attention as matmuls and softmax",)
        assert "scaled_dot_product_attention" not in Path(answer.program).read_text()
        words = judged(bench.loaded, Path(answer.program))
        assert answer.command == ("iree-pilot", "run", answer.program, *words, "-t", "vulkan")
        assert answer.compile[1] == answer.program
        pasted = pilot(*answer.command[1:], "--json", cwd=tmp_path)
        assert (pasted.code, pasted.document["cases"][0]["status"]) == (0, "ok"), pasted.err

    def test_f16_on_the_default_vulkan_target_has_a_target_that_fits(self, tmp_path: Path) -> None:
        bench = Bench(CASES / "f16_matmul.py", "vulkan:vp_android_baseline_2022", tmp_path)
        if bench.plan.device is None:
            assert bench.found(enough=3).status != "passes"
            return
        (answer,) = bench.found().answers
        assert answer.state == "works"
        assert answer.names == (f"-t {answer.target}",)
        assert answer.command[-2:] == ("-t", answer.target)

    def test_fp8_in_half_precision_on_the_cpu_is_computed_in_f32(self, tmp_path: Path) -> None:
        bench = Bench(written(tmp_path, HALF), "llvm-cpu", tmp_path)
        found = bench.found()
        assert found.failure is not None
        assert found.failure.phase == "executable-targets"
        # What was tried beside it may work too, and be faster.
        assert ("matmuls in f32",) in {answer.names for answer in found.answers}
        assert {answer.state for answer in found.answers} == {"works"}

    def test_the_command_takes_the_inputs_that_were_judged(self, tmp_path: Path) -> None:
        """A type alone means random values for a model of a module, zeros for its MLIR."""
        source = f"{written(tmp_path, HALF).stem}:Model"
        given = ("--input", "16x32xf32", "--input", "32x16xf32")
        found = pilot(
            *("workaround", source, *given, "--no-decompose", "-t", "llvm-cpu", "--json"),
            cwd=tmp_path,
        )
        assert found.code == 0, found.err
        (answer,) = (o for o in found.document["answers"] if o["names"] == ["matmuls in f32"])
        traced = pilot("trace", source, *given, "--no-decompose", "-o", "seen", cwd=tmp_path)
        assert traced.code == 0, traced.err
        files = [word.partition("=@")[2] for word in answer["command"] if "=@" in word]
        own = sorted((tmp_path / "seen" / "data").glob("main.in*"))
        assert [Path(tmp_path, f).read_bytes() for f in files] == [f.read_bytes() for f in own]
        assert any(own[0].read_bytes())
        pasted = pilot(*answer["command"][1:], "--json", cwd=tmp_path)
        assert (pasted.code, pasted.document["cases"][0]["status"]) == (0, "ok"), pasted.err

    def test_e4m3fn_on_gfx942_becomes_fnuz_which_is_not_run_here(self, tmp_path: Path) -> None:
        bench = Bench(CASES / "f8_matmul.py", "hip:gfx942", tmp_path)
        found = bench.found(enough=2)
        by_name = {answer.names: answer for answer in found.answers}
        assert by_name.keys() == {
            ("fnuz in place of fn",),
            ("iree-llvmgpu-enable-small-float-emulation",),
        }
        for answer in found.answers:
            bench.assert_can_be_run(answer)
        assert "f8E4M3FNUZ" in Path(by_name["fnuz in place of fn",].program).read_text()

    @pytest.mark.slow
    def test_a_model_of_the_zoo_is_made_in_another_way(self, tmp_path: Path) -> None:
        done = pilot(
            *("workaround", "attention:sdpa", "-t", "vulkan", "--no-decompose", "--json"),
            *("--budget", "8s"),
            cwd=tmp_path,
        )
        assert done.code == 0, done.err
        answers = {tuple(one["names"]): one for one in done.document["answers"]}
        answer = answers["--set attention=eager",]
        words = "iree-pilot run attention:sdpa --no-decompose --set attention=eager -t vulkan"
        assert answer["command"] == shlex.split(words)
        assert answer["drift"] < 1e-5
        assert answer["cost"]["dispatches"] > done.document["default"]["dispatches"]


ATTENTIONS = """
import torch
from torch.nn.functional import scaled_dot_product_attention as attention


class Model(torch.nn.Module):
    def forward(self, q, k, v, mask, half):
        return (
            attention(q, k, v),
            attention(q, k, v, attn_mask=mask.float() - 0.5),
            attention(q, k, v, attn_mask=mask),
            attention(q, k, v, is_causal=True, scale=0.3),
            attention(half, half, half, is_causal=True),
        )


def model():
    return Model().eval()


def inputs():
    torch.manual_seed(0)
    q = torch.randn(2, 3, 7, 8)
    k, v = torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    mask = torch.rand(2, 1, 7, 9) > 0.3
    mask[..., 0] = True
    return q, k, v, mask, torch.randn(1, 2, 7, 8).half()
"""
WEIGHTS = """
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        weight = torch.linspace(-448, 448, 1024).reshape(32, 32)
        weight[0, :4] = torch.tensor([-0.0, 0.0, 2.0**-9, -(2.0**-9)])
        self.register_buffer("weight", weight.to(torch.float8_e4m3fn))

    def forward(self, x):
        y = x.to(torch.float8_e4m3fn).float()
        return y @ self.weight.float().t()


def model():
    return Model().eval()


def inputs():
    torch.manual_seed(0)
    return (torch.randn(4, 32),)
"""
NARROW = """
import torch


class Model(torch.nn.Module):
    def forward(self, u, s):
        order = torch.sort(u, dim=-1)
        return order.values, order.indices, s - 8, (s * 3).abs()


def model():
    return Model().eval()


def inputs():
    torch.manual_seed(0)
    return (
        torch.randperm(256).reshape(4, 64).to(torch.uint8),
        torch.randint(0, 16, (4, 8), dtype=torch.int8),
    )
"""

HALF = """
import torch


class Model(torch.nn.Module):
    def forward(self, a, b):
        return a.to(torch.float8_e4m3fn).half() @ b.to(torch.float8_e4m3fn).half()


def model():
    return Model().eval()


def inputs():
    torch.manual_seed(0)
    return torch.randn(16, 32).round(), torch.randn(32, 16).round()
"""
FLUSHED = """
import torch


class Model(torch.nn.Module):
    def forward(self, a, b):
        return a.to(torch.float8_e4m3fn).half() @ b.to(torch.float8_e4m3fn).half()


def model():
    return Model().eval()


def inputs():
    torch.manual_seed(0)
    return torch.linspace(-0.03, 0.03, 512).reshape(16, 32), torch.randn(32, 16)
"""
PRELU = """
import torch


class Model(torch.nn.Module):
    def forward(self, x, weight):
        return torch.nn.functional.prelu(x, weight)


def model():
    return Model().eval()


def inputs():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 5), torch.rand(3)
"""


def written(directory: Path, text: str) -> Path:
    file = directory / "program.py"
    file.write_text(text)
    return file


class TestRewrites:
    """What a rewrite leaves agrees with the reference of the program as it was."""

    @pytest.mark.parametrize(
        ("text", "edits"),
        [
            (ATTENTIONS, ["attention"]),
            (WEIGHTS, ["fnuz"]),
            (NARROW, ["narrow-in-i32"]),
            (PRELU, ["prelu"]),
            (FLUSHED, ["fp8-subnormals", "matmul-in-f32"]),
        ],
        ids=["attention", "fnuz", "narrow-in-i32", "prelu", "two"],
    )
    def test_it_computes_the_same(self, text: str, edits: Sequence[str], tmp_path: Path) -> None:
        bench = Bench(written(tmp_path, text), "llvm-cpu", tmp_path)
        outcome = bench.outcome(*(BY_EDIT[edit] for edit in edits))  # type: ignore[index]
        assert outcome.state == "works", outcome.why

    def test_what_has_nothing_to_rewrite_is_left_alone(self, tmp_path: Path) -> None:
        bench = Bench(written(tmp_path, PRELU), "llvm-cpu", tmp_path)
        outcome = bench.outcome(BY_EDIT["attention"])
        assert outcome.state == "inapplicable"


@pytest.mark.parametrize(
    ("name", "fnuz", "dtype"),
    [
        ("float8_e4m3fn", "float8_e4m3fnuz", "f8E4M3FN"),
        ("float8_e5m2", "float8_e5m2fnuz", "f8E5M2"),
    ],
)
def test_each_code_stands_for_half_as_much(name: str, fnuz: str, dtype: str) -> None:
    import torch

    codes = torch.arange(256, dtype=torch.uint8)
    own = codes.view(getattr(torch, name)).float()
    raw = bytearray(fnuz_codes(codes.numpy().tobytes(), dtype))
    other = torch.frombuffer(raw, dtype=getattr(torch, fnuz)).float()
    finite = own.isfinite()
    assert torch.equal(other[finite] * 2, own[finite])
    assert other[~finite].isnan().all()
