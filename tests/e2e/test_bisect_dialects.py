"""`iree-pilot bisect` on wrong numbers of programs that PyTorch does not know, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from driver import pilot
from places import CASES

from iree_pilot.repro.reproducer.folder import bundle

#: 3.13.0 tiles what is used by row and by column along the diagonal alone.
PASS = "iree-codegen-tile-and-distribute-to-workgroups-using-forall-op"

pytestmark = pytest.mark.real


def isolated(source: Path, folder: Path, cache: Path, *options: str | Path) -> Any:
    env = {"IREE_PILOT_CACHE": cache, "IREE_PILOT_DATA": folder.with_name("data")}
    done = pilot("bisect", source, "-t", "llvm-cpu", "-o", folder, *options, "--json", env=env)
    assert done.code == 0, done.err
    (found,) = done.document["failures"]
    return found


def test_what_is_wrong_together_in_linalg_is_isolated(shared_cache: Path, tmp_path: Path) -> None:
    found = isolated(CASES / "segment_mask.mlir", tmp_path / "out", shared_cache)
    made = found["reproducer"]
    assert made["op_names"] == ["linalg.generic", "linalg.generic"]
    assert made["minimal"] and made["verified"] and made["levels"] == ["mlir"]
    assert made["oracle_calls"] <= 14
    assert found["failure"]["pass"] == PASS
    report = bundle.read(tmp_path / "out")
    assert report.reference == "numpy" and report.wrong[0].dtype == "i1"
    issue = (tmp_path / "out" / "ISSUE.md").read_text()
    assert "Each of its operations is correct when compiled alone" in issue
    assert "it agrees with numpy exactly" in issue


@pytest.mark.slow
def test_what_is_wrong_in_an_onnx_model_is_isolated(shared_cache: Path, tmp_path: Path) -> None:
    node, of = onnx.helper.make_node, onnx.numpy_helper.from_array
    graph = onnx.helper.make_graph(
        [
            node("ReduceSum", ["at", "last"], ["segment"], keepdims=0),
            node("Unsqueeze", ["segment", "last"], ["row"]),
            node("Unsqueeze", ["segment", "first"], ["column"]),
            node("Equal", ["row", "column"], ["same"]),
            node("Cast", ["same"], ["mask"], to=onnx.TensorProto.FLOAT),
            node("MatMul", ["mask", "weight"], ["y"]),
        ],
        "main",
        [onnx.helper.make_tensor_value_info("at", onnx.TensorProto.INT64, [64, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [64, 16])],
        [
            of(np.array([1]), "last"),
            of(np.array([0]), "first"),
            of(np.linspace(0, 1, 1024, dtype=np.float32).reshape(64, 16), "weight"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "model.onnx")
    np.save(tmp_path / "at.npy", np.arange(192).reshape(64, 3) // 40)
    given = ("--input", tmp_path / "at.npy")
    found = isolated(tmp_path / "model.onnx", tmp_path / "out", shared_cache, *given)
    made = found["reproducer"]
    assert {"onnx.ReduceSum", "onnx.Equal"} <= set(made["op_names"])
    assert "onnx.MatMul" not in made["op_names"]
    assert made["minimal"] and made["verified"]
    assert found["failure"]["pass"] == PASS
