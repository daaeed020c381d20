"""Random numbers as inputs, and changed state as outputs, on the device."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver import pilot

MODEL = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)

    def forward(self, x):
        return torch.nn.functional.dropout(self.norm(x), 0.5, True)

def model():
    return Net()

def inputs():
    torch.manual_seed(0)
    return torch.randn(4, 3),
"""


@pytest.mark.real
def test_a_model_in_training_mode_is_compared_with_what_it_draws_and_changes(
    tmp_path: Path, shared_cache: Path
) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    words, env = ("run", tmp_path / "net.py", "-t", "llvm-cpu"), {"IREE_PILOT_CACHE": shared_cache}
    plain = pilot(*words, "--json", env=env).document["cases"][0]
    assert plain["status"] == "ran", "it draws"
    done = pilot(*words, "--seeded", env=env)
    assert done.code == 0, done.err
    assert "note: 1 more input for what it draws (dropout): draw0, ..." in done.out
    assert (
        "what the model changes is compared, too: norm.running_mean, norm.running_var" in done.out
    )
    assert "norm.running_mean (changed): ok" in done.out
    (case,) = pilot(*words, "--seeded", "--json", env=env).document["cases"]
    assert case["status"] == "ok"
    again = pilot(*words, "--seeded", "--seed", "1", "--json", env=env)
    assert again.document["cases"][0]["status"] == "ok"


def test_what_is_traced_already_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mlir").write_text("func.func @main() { return }")
    done = pilot("run", "a.mlir", "-t", "llvm-cpu", "--seeded", cwd=tmp_path)
    assert done.code == 2
    assert "--seeded" in done.err
