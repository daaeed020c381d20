"""The Python API: what a script, a notebook or a test can do without the command line."""

from __future__ import annotations

import doctest
import importlib.metadata
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from places import CASES, ROOT

import iree_pilot
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.store.store import Store


@pytest.fixture(autouse=True)
def one_cache(shared_cache: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IREE_PILOT_CACHE", str(shared_cache))


@pytest.fixture(scope="module")
def net() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, iree_pilot; print(iree_pilot.__all__)\n"
        "sys.exit(bool({'torch', 'numpy', 'iree', 'click', 'msgspec'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_names_are_there() -> None:
    assert all(callable(getattr(iree_pilot, name)) for name in iree_pilot.__all__)
    assert set(iree_pilot.__all__) < {*dir(iree_pilot)}
    assert iree_pilot.UsageError is UsageError
    assert iree_pilot.__version__ == importlib.metadata.version("iree-pilot")
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        iree_pilot.nosuch  # noqa: B018


@pytest.mark.real
class TestAModule:
    def test_is_traced_run_and_compared(self, net: Any) -> None:
        import torch

        x = torch.ones(2, 4)
        program = iree_pilot.trace(net, (x,))
        assert program.program.source == "Sequential"
        result = iree_pilot.run(program, "llvm-cpu")
        assert (result.status, result.failure) == ("ok", None)
        assert msgspec.json.decode(msgspec.json.encode(result))["target"] == "llvm-cpu"
        shown = result._repr_html_()
        assert "<th>verdict</th><td>ok</td>" in shown and "main, latency" in shown
        right = net(x).detach().numpy()
        assert iree_pilot.compare(program, [right]).ok
        assert not iree_pilot.compare(program, [right + 1]).ok
        again = iree_pilot.trace(net, (x,))
        assert again.cached and again.directory == program.directory

    def test_is_compiled_up_to_a_phase(self, net: Any) -> None:
        import torch

        program = iree_pilot.trace(net, (torch.ones(2, 4),))
        result = iree_pilot.compile(program, "hip:gfx942", to="flow")
        assert result.status == "compiled" and result.output is not None
        assert "flow.dispatch" in Path(result.output).read_text()

    def test_with_dynamic_shapes(self, net: Any) -> None:
        import torch

        batch = torch.export.Dim("batch", min=2, max=64)
        program = iree_pilot.trace(net, (torch.ones(3, 4),), dynamic_shapes=({0: batch},))
        (given,) = program.program.functions[0].inputs
        assert not isinstance(given.shape[0], int)
        assert iree_pilot.run(program, "llvm-cpu").status == "ok"

    def test_that_does_not_export_says_why(self) -> None:
        import torch

        class Looks(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x if x.sum() > 0 else -x

        with pytest.raises(iree_pilot.TraceFailed) as caught:
            iree_pilot.trace(Looks(), (torch.ones(2),))
        assert caught.value.failure.kind == "trace-error"
        assert str(Path(__file__)) in (caught.value.failure.location or "")
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.failure) == (str(caught.value), caught.value.failure)

    def test_that_pytorch_cannot_run_is_said_to_be_so(
        self, net: Any, capfd: pytest.CaptureFixture[str]
    ) -> None:
        import torch

        with pytest.raises(iree_pilot.TraceFailed, match="PyTorch itself cannot run the model"):
            iree_pilot.trace(net, (torch.ones(2, 5),))
        assert capfd.readouterr().err == ""

    def test_that_fails_leaves_the_inputs_as_they_were(self) -> None:
        import torch

        class Changes(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x.add_(1)
                return x if x.sum() > 0 else -x

        x = torch.ones(2)
        with pytest.raises(iree_pilot.TraceFailed):
            iree_pilot.trace(Changes(), (x,))
        assert x.tolist() == [1, 1]

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("exporting", "the exported program is not the model"),
            ("drawing", "draws random numbers that the graph does not show"),
            ("dropout", "the model is in training mode"),
        ],
    )
    def test_is_compared_with_the_module_and_not_with_its_export(self, name: str, why: str) -> None:
        import random

        import torch

        class Other(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if name == "exporting":
                    return x * 2 if torch.compiler.is_exporting() else x * 3
                if name == "drawing":
                    return x * random.random()
                return torch.nn.functional.dropout(x, 0.5, self.training)

        program = iree_pilot.trace(Other().train(name == "dropout"), (torch.ones(2, 8),))
        result = iree_pilot.run(program, "llvm-cpu")
        assert result.status == "ran" and why in result.why

    def test_what_it_changes_is_compared_and_not_changed_here(self) -> None:
        import torch

        class Counts(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("calls", torch.zeros(1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls.add_(1)
                return x * self.calls

        model, x = Counts().eval(), torch.ones(2)
        program = iree_pilot.trace(model, (x,))
        assert [one.path for one in program.program.functions[0].outputs] == ["", "calls (changed)"]
        assert any("what the model changes is compared" in note for note in program.program.notes)
        assert iree_pilot.run(program, "llvm-cpu").status == "ok"
        assert model.calls.tolist() == [0]

    def test_draws_inputs_where_it_is_seeded(self) -> None:
        import torch

        model = torch.nn.Dropout(0.5).train()
        program = iree_pilot.trace(model, (torch.ones(8),), seeded=True)
        assert [one.name for one in program.program.functions[0].inputs] == ["input", "draw0"]
        assert iree_pilot.run(program, "llvm-cpu").status == "ok"

    def test_is_traced_by_several_threads(self) -> None:
        import torch

        models = [torch.nn.Linear(n, 2).eval() for n in (2, 3)]
        with ThreadPoolExecutor(2) as pool:
            traced = pool.map(
                lambda m: iree_pilot.trace(m, (torch.ones(1, m.in_features),)), models
            )
            shapes = [one.program.functions[0].inputs[0].shape for one in traced]
        assert shapes == [(1, 2), (1, 3)]

    def test_is_kept_in_the_cache_whatever_its_size(self) -> None:
        import torch

        model, x = torch.nn.Linear(4096, 4100).eval(), torch.ones(1, 4096)
        assert [iree_pilot.trace(model, (x,)).cached for _ in range(2)] == [False, True]
        assert "exported" in {one.kind for one in Store().info()}, "which gc collects"

    @pytest.mark.parametrize(
        ("returned", "said"),
        [
            ((), "returns no tensor"),
            (3, "returns 3: a program's results are tensors"),
            ({"a": "text"}, "returns 'text'"),
        ],
    )
    def test_that_returns_no_tensors_is_refused(self, returned: Any, said: str) -> None:
        import torch

        class Returns(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> Any:
                return returned

        with pytest.raises(UsageError, match=f"Returns {said}"):
            iree_pilot.trace(Returns(), (torch.ones(2),))


@pytest.mark.real
def test_a_failure_is_isolated_and_verified(tmp_path: Path) -> None:
    program = iree_pilot.trace(CASES / "i8_sub.py")
    result = iree_pilot.run(program, "llvm-cpu")
    assert result.status == "failed" and result.failure is not None
    found = iree_pilot.bisect(program, result, tmp_path / "folder")
    assert found.status == "isolated"
    shown = result._repr_html_()
    assert "<th>verdict</th><td>failed</td>" in shown and "SIGSEGV" in shown
    assert found.failures[0].failure.signature == result.failure.signature
    assert iree_pilot.verify(tmp_path / "folder").same


@pytest.mark.real
def test_wrong_usage_says_what_to_do(net: Any, tmp_path: Path) -> None:
    import torch

    program = iree_pilot.trace(net, (torch.ones(2, 4),))
    result = iree_pilot.run(program, "llvm-cpu")
    with pytest.raises(UsageError, match="nothing to isolate: llvm-cpu is ok"):
        iree_pilot.bisect(program, result, tmp_path / "folder")
    with pytest.raises(UsageError, match="function nosuch is not there") as caught:
        iree_pilot.compare(program, [], function="nosuch")
    assert "main" in caught.value.advice
    with pytest.raises(UsageError, match="one target at a time"):
        iree_pilot.run(program, "llvm-cpu,vulkan")
    with pytest.raises(UsageError, match="nosuch"):
        iree_pilot.run(program, "llvm-cpu", flags=["--iree-nosuch"])
    with pytest.raises(UsageError, match="run: program is a Sequential") as caught:
        iree_pilot.run(net, "llvm-cpu")
    assert "iree_pilot.trace returns" in caught.value.advice
    for outputs in (torch.ones(2, 8), {"a": torch.ones(2, 8)}, "a"):
        with pytest.raises(UsageError, match="compare: outputs is"):
            iree_pilot.compare(program, outputs)
    for output, what in (("a", "an array of str"), (None, "NoneType"), (Path(), "array of object")):
        with pytest.raises(UsageError, match=rf"output 0 is .*{what}"):
            iree_pilot.compare(program, [output])
    assert iree_pilot.compare(program, [net(torch.ones(2, 4))]).ok, "with its gradient"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"args": "x"}, "args is 'x'"),
        ({"kwargs": ["x"]}, "kwargs is a list"),
        ({"leave": "aten.diff"}, "leave is 'aten.diff'"),
        ({"memory_limit": -5}, "memory_limit is -5"),
        ({"memory_limit": "4G"}, "memory_limit is '4G'"),
        ({"release": 3}, "release is 3"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"seed": -1}, "seed is -1"),
        ({"time_limit": 0}, "time_limit is 0"),
        ({"time_limit": float("nan")}, "time_limit is nan"),
        ({"time_limit": "10"}, "time_limit is '10'"),
        ({"weights": "file"}, "weights is 'file'"),
    ],
)
def test_an_argument_of_another_kind_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"trace: {said}") as caught:
        iree_pilot.trace("llama:tiny", **given)
    assert caught.value.advice.startswith("Give ")


@pytest.mark.real
def test_a_tensor_in_place_of_its_tuple_is_refused(net: Any) -> None:
    import torch

    with pytest.raises(UsageError, match="trace: args is a Tensor") as caught:
        iree_pilot.trace(net, torch.ones(1, 4))
    assert "(x,)" in caught.value.advice
    for source in (None, 3, lambda x: x, torch.nn.Linear):
        with pytest.raises(UsageError, match="neither the name of a source nor"):
            iree_pilot.trace(source, (torch.ones(1, 4),))


@pytest.mark.real
def test_a_failure_is_isolated_with_the_flags_that_it_was_found_with(tmp_path: Path) -> None:
    program = iree_pilot.trace(CASES / "i8_sub.py")
    result = iree_pilot.run(program, "llvm-cpu", flags=["--iree-opt-level=O1"])
    found = iree_pilot.bisect(program, result, tmp_path / "folder")
    report = msgspec.json.decode((tmp_path / "folder" / "report.json").read_bytes())
    assert found.status == "isolated" and "--iree-opt-level=O1" in report["flags"]


@pytest.mark.real
def test_inputs_that_would_not_be_used_are_refused() -> None:
    for given in ({"args": (1,)}, {"kwargs": {"x": 1}}, {"dynamic_shapes": ({0: 2},)}):
        with pytest.raises(UsageError, match="example inputs of its own") as caught:
            iree_pilot.trace(CASES / "i8_sub.py", **given)
        assert "inputs=" in caught.value.advice


@pytest.mark.real
def test_the_examples_of_its_docstring_run() -> None:
    found = doctest.testmod(iree_pilot)
    assert (found.failed, found.attempted) == (0, 8)


@pytest.mark.real
def test_the_example_runs(tmp_path: Path) -> None:
    script = ROOT / "examples" / "use_the_api.py"
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "llvm-cpu: ok" in done.stdout and "hip:gfx942: compiled" in done.stdout
    assert done.stdout.rstrip().endswith("True")
