"""The Python API: what a script, a notebook or a test can do without the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from places import CASES, ROOT

import iree_pilot
from iree_pilot.pipeline.errors import UsageError


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
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        iree_pilot.nosuch  # noqa: B018


@pytest.mark.real
class TestAModule:
    def test_is_traced_run_and_compared(self, net: Any) -> None:
        import torch

        x = torch.ones(2, 4)
        program = iree_pilot.trace(net, (x,))
        assert program.program.source == "Sequential.pt2"
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


@pytest.mark.real
def test_inputs_that_would_not_be_used_are_refused() -> None:
    for given in ({"args": (1,)}, {"kwargs": {"x": 1}}, {"dynamic_shapes": ({0: 2},)}):
        with pytest.raises(UsageError, match="example inputs of its own") as caught:
            iree_pilot.trace(CASES / "i8_sub.py", **given)
        assert "inputs=" in caught.value.advice


@pytest.mark.real
def test_the_example_runs(tmp_path: Path) -> None:
    script = ROOT / "examples" / "use_the_api.py"
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "llvm-cpu: ok" in done.stdout and "hip:gfx942: compiled" in done.stdout
    assert done.stdout.rstrip().endswith("True")
