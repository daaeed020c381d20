"""Rewrites that a program gets by itself, for a target that fails at their probes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from driver import pilot
from hypothesis import given
from hypothesis import strategies as st
from places import CASES

from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.program.program import Program
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets import probing
from iree_pilot.pipeline.targets.probing import Fault, ProbeProgram
from iree_pilot.pipeline.targets.targets import Plan, Target
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.workarounds import by_itself
from iree_pilot.repro.workarounds.by_itself import OWN_REWRITES

SDPA = "aten.scaled_dot_product_attention"
NARROW, WIDE = OWN_REWRITES
PLAN = Plan(target=Target(spec="llvm-cpu", backend="llvm-cpu"), flags=())


def attention(*sizes: str) -> str:
    """A program whose queries have these last dimensions."""
    head = "%y = torch.aten.scaled_dot_product_attention %q, %k, %v, %n, %z, %f, %n, %f"
    return "\n".join(f"{head} : !torch.vtensor<[1,4,?,{n}],f32>, !torch.none" for n in sizes)


def loaded(directory: Path, text: str, **more: Any) -> Loaded:
    (directory / "program.mlir").write_text(text)
    program = Program(
        source="m.py",
        digest=f"{abs(hash(text)):064x}"[-64:],
        functions=(),
        parameters=None,
        **{"origin": {"torch": "2.13.0"}, **more},
    )
    return Loaded(program=program, directory=str(directory))


def context(directory: Path) -> Context:
    toolchain = Toolchain(
        version="3.13.0",
        revision="r",
        compiler=Path("/iree-compile"),
        opt=Path("/iree-opt"),
        runtime=None,
        phases=(),
        flags=frozenset(),
    )
    return Context(toolchain=toolchain, store=Store(directory / "store"))


@pytest.fixture
def rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit that needs no compiler."""
    file = tmp_path / "rewritten.mlir"
    file.write_text("module")
    monkeypatch.setattr(by_itself, "_edited", lambda *given: (file, ()))


@given(sizes=st.lists(st.integers(1, 300)))
def test_wide_heads_are_found_whatever_else_is_there(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    made = loaded(tmp_path_factory.mktemp("p"), "module\n" + attention(*map(str, sizes)))
    assert by_itself._has(made.mlir, NARROW) is bool(sizes)
    assert by_itself._has(made.mlir, WIDE) is any(size > 128 for size in sizes)


@pytest.mark.parametrize(
    ("failing", "sizes", "more", "edits"),
    [
        ([NARROW, WIDE], ["64"], {}, {"attention": "does not compile it on llvm-cpu"}),
        ([WIDE], ["64", "256"], {}, {"attention": "does not compile heads of more than 128"}),
        ([WIDE], ["64"], {}, {}),
        ([], ["256"], {}, {}),
        ([NARROW], ["64"], {"left": (SDPA,)}, {}),
        ([NARROW], ["64"], {"left": ("all",)}, {}),
        ([NARROW], ["64"], {"left": ("aten.diff",)}, {"attention": "does not compile it"}),
        ([NARROW], ["64"], {"origin": {"file": "program.mlir"}}, {}),
    ],
)
def test_what_a_target_fails_at_is_rewritten(
    failing: list[Any],
    sizes: list[str],
    more: dict[str, Any],
    edits: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rewritten: None,
) -> None:
    wrong = [one.probe for one in failing]

    def fault(probe: ProbeProgram, *given: Any, **named: Any) -> Fault | None:
        return Fault("does not compile", "no") if probe in wrong else None

    monkeypatch.setattr(probing, "fault", fault)
    made = loaded(tmp_path, attention(*sizes), **more)
    found = by_itself.needed(made, PLAN, context(tmp_path))
    assert found.keys() == edits.keys()
    for edit, reason in edits.items():
        assert reason in found[edit].reason
        assert (found[edit].op, found[edit].target) == (SDPA, "llvm-cpu")


def test_a_target_that_fails_either_way_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rewritten: None
) -> None:
    monkeypatch.setattr(probing, "fault", lambda *given, **named: Fault("does not compile", "no"))
    assert by_itself.needed(loaded(tmp_path, attention("64")), PLAN, context(tmp_path)) == {}


def test_what_is_not_known_of_a_probe_is_not_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rewritten: None
) -> None:
    def fault(*given: Any, **named: Any) -> Fault | None:
        raise probing.Undecided

    monkeypatch.setattr(probing, "fault", fault)
    assert by_itself.needed(loaded(tmp_path, attention("64")), PLAN, context(tmp_path)) == {}


@pytest.mark.real
class TestAttention:
    def test_all_its_forms_are_right_on_each_target(self, shared_cache: Path) -> None:
        source = CASES / "attention_forms.py"
        words = ("run", source, "-t", "llvm-cpu,vulkan", "--json")
        done = pilot(*words, env={"IREE_PILOT_CACHE": shared_cache})
        assert [case["status"] for case in done.document["cases"]] == ["ok", "ok"], done.err
        for case, does in zip(
            done.document["cases"],
            ("computes wrong numbers for heads of more than 128", "does not compile it"),
            strict=True,
        ):
            (one,) = case["decomposed"]
            assert (one["op"], one["by"], one["target"]) == (SDPA, "iree-pilot", case["target"])
            assert does in one["reason"]
            assert len(case["comparison"]["outputs"]) == 10

    def test_a_recipe_that_says_the_same_is_taken_and_dropped(
        self, shared_cache: Path, tmp_path: Path
    ) -> None:
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(RECIPE.format(source=CASES / "attention.py"))
        env = {"IREE_PILOT_CACHE": shared_cache, "IREE_PILOT_DATA": tmp_path / "data"}
        words = (CASES / "attention.py", "-t", "vulkan")
        done = pilot("run", *words, "--recipe", recipe, "--json", env=env)
        assert [case["status"] for case in done.document["cases"]] == ["ok"], done.err
        again = pilot("bringup", *words, "--recheck", recipe, "--json", env=env)
        assert again.document["dropped"] == ["attention as matmuls and softmax"]
        assert not again.document["recipe"].get("step")

    def test_left_as_it_is_it_fails(self, shared_cache: Path) -> None:
        words = ("run", CASES / "attention_forms.py", "-t", "llvm-cpu", "--no-decompose", "--json")
        (case,) = pilot(*words, env={"IREE_PILOT_CACHE": shared_cache}).document["cases"]
        assert (case["status"], case["failure"]["kind"]) == ("failed", "mismatch")
        assert case["decomposed"] == []

    def test_the_gap_is_what_is_isolated_of_a_model_that_runs(
        self, shared_cache: Path, tmp_path: Path
    ) -> None:
        words = ("bisect", CASES / "attention.py", "-t", "vulkan", "-o", tmp_path / "out", "--json")
        done = pilot(*words, env={"IREE_PILOT_CACHE": shared_cache})
        (found,) = done.document["failures"]
        assert found["reproducer"]["op_names"] == [f"torch.{SDPA}"]
        assert found["reproducer"]["verified"]

    def test_a_failure_behind_it_is_told_with_its_python_line(
        self, shared_cache: Path, tmp_path: Path
    ) -> None:
        source = tmp_path / "behind.py"
        source.write_text(BEHIND)
        words = ("run", source, "-t", "vulkan", "--no-decompose=aten.prelu", "--json")
        (case,) = pilot(*words, env={"IREE_PILOT_CACHE": shared_cache}).document["cases"]
        assert [one["op"] for one in case["decomposed"]] == [SDPA]
        location = case["failure"]["location"]
        from iree_pilot.pipeline.program import python_lines

        line = next(n for n, text in enumerate(BEHIND.splitlines(), 1) if "prelu" in text)
        assert python_lines.of(location) == f"{source}:{line}"


RECIPE = """
source = "{source}"
iree = "3.13.0"

[[step]]
name = "attention as matmuls and softmax"
answers = "diagnostic/x"
backend = "vulkan"
edit = "attention"
"""
BEHIND = """\
import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x):
        x = nn.functional.scaled_dot_product_attention(x, x, x)
        return nn.functional.prelu(x, torch.full((2,), 0.5))


def model():
    return Model().eval()


def inputs():
    torch.manual_seed(0)
    return (torch.randn(1, 2, 16, 40),)
"""
