"""`bringup`: past one failure after the other, and the recipe that repeats it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from driver import pilot
from places import ROOT

#: A prelu with a weight for each channel is decomposed at the trace; i8 arithmetic crashes the
#: compiler, and is rewritten.
TWO_GAPS = (ROOT / "examples" / "two_gaps.py").read_text()
NO_WAY = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).real

def model():
    return Net()

def inputs():
    return torch.randn(4, 4),
"""


@pytest.fixture
def env(tmp_path: Path, shared_cache: Path) -> dict[str, Path]:
    return {"IREE_PILOT_CACHE": shared_cache, "IREE_PILOT_DATA": tmp_path / "data"}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(TWO_GAPS)
    return tmp_path / "net.py"


@pytest.mark.real
def test_a_model_is_brought_up_and_the_recipe_repeats_it(
    net: Path, tmp_path: Path, env: dict[str, Path]
) -> None:
    failing = pilot("run", net, "-t", "llvm-cpu", env=env)
    assert failing.code == 1
    place = tmp_path / "out"
    done = pilot("bringup", net, "-t", "llvm-cpu", "-o", place, "--json", env=env)
    assert done.code == 0, done.err
    document = done.document
    assert (document["status"], document["result"]["status"]) == ("works", "ok")
    (gap,) = document["past"]
    assert gap["op_names"] == ["torch.aten.sub.Scalar"]
    assert gap["names"] == ["8 and 16 bit integers in i32"]
    assert gap["verified"]
    assert Path(gap["reproducer"], "ISSUE.md").is_file()
    recipe = place / "recipe.toml"
    written = tomllib.loads(recipe.read_text())
    assert [one["op"] for one in written["decomposed"]] == ["aten.prelu"]
    assert [(one["backend"], one["edit"]) for one in written["step"]] == [
        ("llvm-cpu", "narrow-in-i32")
    ]
    ran = pilot("run", net, "-t", "llvm-cpu", "--recipe", recipe, "--json", env=env)
    assert ran.code == 0, ran.err
    assert ran.document["recipe"] == {"llvm-cpu": ["8 and 16 bit integers in i32"]}
    (case,) = ran.document["cases"]
    (function,) = case["functions"]
    (before,) = document["result"]["functions"]
    assert function["comparison"]["rel_l2"] == before["comparison"]["rel_l2"]
    compiled = pilot("compile", net, "-t", "llvm-cpu", "--recipe", recipe, env=env)
    assert compiled.code == 0, compiled.err
    assert "llvm-cpu: recipe: 8 and 16 bit integers in i32\n" in compiled.out


@pytest.mark.real
def test_what_is_needed_no_more_is_dropped(net: Path, tmp_path: Path, env: dict[str, Path]) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'source = "net.py"\niree = "3.0.0"\n'
        '[[step]]\nname = "flag"\nanswers = "a"\nbackend = "llvm-cpu"\n'
        'flags = ["--iree-opt-level=O1"]\n'
        '[[step]]\nname = "i32"\nanswers = "b"\nbackend = "llvm-cpu"\nedit = "narrow-in-i32"\n'
        '[[step]]\nname = "other"\nanswers = "c"\nbackend = "hip"\nflags = ["--iree-opt-level=O2"]'
    )
    done = pilot(*("bringup", net, "-t", "llvm-cpu", "--recheck", recipe), env=env)
    assert done.code == 0, done.err
    assert "llvm-cpu: needed no more: flag (a)" in done.out
    assert "needed no more: i32" not in done.out
    assert "kept: i32\ndropped: flag\n" in done.out
    steps = tomllib.loads(recipe.read_text())["step"]
    assert sorted(one["name"] for one in steps) == ["i32", "other"]


@pytest.mark.real
def test_a_switch_that_the_trace_needs_no_more_is_dropped(
    net: Path, tmp_path: Path, env: dict[str, Path]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'source = "net.py"\niree = "3.0.0"\n'
        '[[step]]\nname = "by example"\nanswers = "a"\nfields = {data_dependent = "example"}\n'
        '[[step]]\nname = "i32"\nanswers = "b"\nbackend = "llvm-cpu"\nedit = "narrow-in-i32"\n'
    )
    done = pilot(*("bringup", net, "-t", "llvm-cpu", "--recheck", recipe), env=env)
    assert done.code == 0, done.err
    assert "needed no more: by example (a)" in done.out
    assert "kept: i32\ndropped: by example\n" in done.out
    (step,) = tomllib.loads(recipe.read_text())["step"]
    assert step["name"] == "i32"


@pytest.mark.real
def test_what_nothing_is_known_against_remains(tmp_path: Path, env: dict[str, Path]) -> None:
    (tmp_path / "net.py").write_text(NO_WAY)
    place = tmp_path / "out"
    done = pilot("bringup", tmp_path / "net.py", "-t", "llvm-cpu", "-o", place, env=env)
    assert done.code == 1
    assert "something remains: does not compile" in done.out
    assert "torch.aten.fft_fft2" in done.out
    assert "nothing that is known" in done.out
    assert f"to report     {place}/gap-1" in done.out
    assert f"no recipe: nothing that is known helps\nnext: read {place}/gap-1/ISSUE.md" in done.out
    assert "--recipe" not in done.out
    assert not (place / "recipe.toml").exists()
    again = pilot("verify", place / "gap-1", env=env)
    assert again.code == 0, again.err


@pytest.mark.real
def test_a_switch_is_set_on_a_model_of_transformers(tmp_path: Path, env: dict[str, Path]) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        "def model():\n"
        "    torch.manual_seed(0)\n"
        "    config = GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=32, n_positions=8)\n"
        "    return GPT2LMHeadModel(config).eval()\n"
        "def inputs():\n"
        "    return {'input_ids': torch.arange(8)[None]}\n"
    )
    words = ("run", tmp_path / "net.py", "-t", "llvm-cpu", "--json", "--set", "use_cache=false")
    done = pilot(*words, "--set", "attn_implementation=eager", env=env)
    assert done.code == 0, done.err
    program = done.document["program"]
    assert program["switches"] == {"attn_implementation": "eager", "use_cache": "false"}
    assert len(program["functions"][0]["outputs"]) == 1, "no keys and values"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bringup", "net.py"), "no target is named for net.py"),
        (
            ("bringup", "net.py", "-t", "llvm-cpu", "--recheck", "gone.toml"),
            "cannot read gone.toml",
        ),
        (("run", "net.py", "-t", "llvm-cpu", "--recipe", "net.py"), "net.py:1: this is no TOML"),
        (
            ("run", "net.py", "-t", "llvm-cpu", "--recipe", "r.toml", "--set", "use_cache=true"),
            "--set use_cache=true, but r.toml sets use_cache=false",
        ),
        (
            ("run", "a.mlir", "-t", "llvm-cpu", "--recipe", "edit.toml"),
            "the recipe does not fit a.mlir",
        ),
    ],
)
def test_wrong_usage(net: Path, words: tuple[str, ...], said: str) -> None:
    folder = net.parent
    (folder / "a.mlir").write_text("func.func @main() { return }")
    head = "source = 'net.py'\niree = '3.13.0'\n[[step]]\nname = 'a'\nanswers = 'b'\n"
    (folder / "r.toml").write_text(head + "fields = {use_cache = 'false'}\n")
    (folder / "edit.toml").write_text(head + "backend = 'llvm-cpu'\nedit = 'prelu'\n")
    done = pilot(*words, cwd=folder)
    assert done.code == 2, done.out + done.err
    assert said in done.err


BRANCHES = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        if (x > 4).any():
            x = x * 3
        return torch.sin(x)

def model():
    return Net()

def inputs():
    return torch.randn(4, 4).clamp(-1, 1),
"""


@pytest.mark.real
def test_a_branch_on_data_is_taken_from_the_example_or_the_inputs_given(
    tmp_path: Path, env: dict[str, Path]
) -> None:
    net, place = tmp_path / "net.py", tmp_path / "out"
    net.write_text(BRANCHES)
    done = pilot("bringup", net, "-t", "llvm-cpu", "-o", place, env=env)
    assert done.code == 0, done.out
    assert "works: it compiles, runs and agrees with PyTorch" in done.out
    assert "`if (x > 4).any():` (net.py:6) takes False; others are refused" in done.out
    assert "torch._check(torch.sym_not(taken))" in done.out
    recipe = place / "recipe.toml"
    (step,) = tomllib.loads(recipe.read_text())["step"]
    assert (step["fields"], step["price"]) == ({"data_dependent": "example"}, "inputs")
    assert "net.py:6" in step["reason"]
    words = ("run", net, "-t", "llvm-cpu", "--recipe", recipe, "--json", "--input")
    alike, other = (pilot(*words, f"4x4xf32={value}", env=env) for value in ("0.5", "9"))
    assert alike.document["cases"][0]["functions"][0]["comparison"]["max_abs"] < 1e-6
    assert other.code == 0, "the inputs given are the example"
    notes = {
        value: [note for note in done.document["program"]["notes"] if "net.py:6" in note]
        for value, done in (("False", alike), ("True", other))
    }
    assert all(f"takes {value};" in note for value, (note,) in notes.items())
    wide = pilot(*words, "8x4xf32=0.5", env=env)
    assert wide.code == 2 and "have other shapes or types than its own" in wide.err
    again = pilot("bringup", net, "-t", "llvm-cpu", "--recheck", recipe, env=env)
    assert again.code == 0, again.err
    assert "kept: --set data_dependent=example\n" in again.out
    assert tomllib.loads(recipe.read_text())["step"] == [step]
