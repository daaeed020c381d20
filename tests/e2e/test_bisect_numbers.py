"""`iree-pilot bisect` on wrong numbers, end to end with the real compiler."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from driver import pilot
from places import CASES

from iree_pilot.pipeline.processes.process import Limits, run
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.repro.reproducer.folder import bundle

MASK = [
    "torch.aten.sum.dim_IntList",
    "torch.aten.unsqueeze",
    "torch.aten.unsqueeze",
    "torch.aten.eq.Tensor",
]

pytestmark = [pytest.mark.real, pytest.mark.slow]


class Isolated:
    """What `bisect` makes of the cases, each once, whichever worker asks for it; `data` is where
    that is remembered."""

    def __init__(self, place: Path, cache: Path) -> None:
        self.data, self._place, self.cache = place / "data", place, cache
        self._locks = Locks(place / "locks")

    def ask(self, source: Path | str, folder: Path, target: str = "llvm-cpu") -> Any:
        env = {"IREE_PILOT_CACHE": self.cache, "IREE_PILOT_DATA": self.data}
        done = pilot("bisect", source, "-t", target, "-o", folder, "--json", env=env)
        assert done.code == 0, done.err
        return done.document

    def document(self, case: str) -> Any:
        known = self.folder(case).with_suffix(".json")
        with self._locks.hold(case):
            if not known.is_file():
                known.write_text(json.dumps(self.ask(CASES / case, self.folder(case))))
        return json.loads(known.read_text())

    def folder(self, case: str) -> Path:
        return self._place / case.removesuffix(".py")


@pytest.fixture
def isolated(shared_cache: Path) -> Isolated:
    place = shared_cache.with_name("isolated")
    place.mkdir(exist_ok=True)
    return Isolated(place, shared_cache)


@pytest.mark.parametrize(
    ("model", "ops", "shape", "most_calls"),
    [
        ("u8_sort.py", ["torch.aten.sort"], "[2,2],ui8", 12),
        ("f8_subnormals.py", ["torch.prims.convert_element_type"], "[1],f8E4M3FN", 8),
        ("nan_clamp.py", ["torch.aten.clamp"], "[1,1],f32", 8),
        ("segment_mask.py", MASK, "[2,2],i1", 14),
        ("noisy_pad.py", ["torch.aten.pad"], "[1,1,1],f32", 8),
    ],
)
def test_the_operation_that_is_wrong_given_right_inputs_is_isolated(
    isolated: Isolated, model: str, ops: list[str], shape: str, most_calls: int
) -> None:
    (found,) = isolated.document(model)["failures"]
    made = found["reproducer"]
    assert found["failure"]["kind"] == "mismatch"
    assert made["op_names"] == ops
    assert made["minimal"] and made["verified"]
    assert made["levels"] == ["mlir", "pytorch"]
    assert made["oracle_calls"] <= most_calls
    assert f"!torch.vtensor<{shape}>" in (isolated.folder(model) / "repro.mlir").read_text()


@pytest.mark.parametrize(
    ("model", "phase", "pass_name"),
    [
        ("u8_sort.py", "input", "convert-torch-to-tmtensor"),
        ("nan_clamp.py", "input", "convert-torch-to-linalg"),
        (
            "segment_mask.py",
            "executable-targets",
            "iree-codegen-tile-and-distribute-to-workgroups-using-forall-op",
        ),
    ],
)
def test_the_phase_and_the_pass_that_make_it_wrong_are_told(
    isolated: Isolated, model: str, phase: str, pass_name: str
) -> None:
    (found,) = isolated.document(model)["failures"]
    origin = found["reproducer"]["origin"]
    assert origin["attribution"]["culprit"] == "compiler"
    assert origin["attribution"]["rows"][0]["verdict"] == "wrong"
    assert (origin["phase"]["state"], origin["phase"]["phase"]) == ("earliest", phase)
    assert found["failure"]["pass"] == pass_name
    folder = isolated.folder(model)
    assert bundle.read(folder).origin is not None
    assert (folder / "pass.diff").read_text() == origin["phase"]["changed"]
    assert pass_name in (folder / "ISSUE.md").read_text()


def test_operations_beside_random_numbers_that_are_right_are_not_accused(
    isolated: Isolated, tmp_path: Path
) -> None:
    env = {"IREE_PILOT_CACHE": isolated.cache, "IREE_PILOT_DATA": tmp_path}
    source = f"{CASES / 'noisy_pad.py'}:coder"
    done = pilot("bisect", source, "-t", "llvm-cpu", "--json", env=env)
    assert (done.code, done.document["status"]) == (1, "passes")
    assert "it draws random numbers: aten.randn_like" in done.document["why"]
    assert "no operation of it that can be compared is wrong by itself" in done.document["why"]


def test_the_folder_shows_it_with_nothing_of_ours(isolated: Isolated, tmp_path: Path) -> None:
    isolated.document("segment_mask.py")
    folder = isolated.folder("segment_mask.py")
    (wrong,) = bundle.read(folder).wrong
    assert wrong.dtype == "i1" and wrong.own_error is None
    assert all({one.got, one.expected} == {"False", "True"} for one in wrong.elements)
    issue = (folder / "ISSUE.md").read_text()
    assert "returns wrong results" in issue
    assert "Each of its operations is correct when compiled alone" in issue
    said = {"stdout": tmp_path / "said", "stderr": tmp_path / "errors"}
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    outcome = run(["sh", folder / "run.sh"], limits=Limits(seconds=120), env=tools, **said)
    assert outcome.exit_code == 0, (tmp_path / "errors").read_text()


def test_verify_says_when_the_numbers_are_right(isolated: Isolated, tmp_path: Path) -> None:
    isolated.document("f8_subnormals.py")
    folder = tmp_path / "folder"
    shutil.copytree(isolated.folder("f8_subnormals.py"), folder)
    (level, *_) = bundle.read(folder).levels
    assert level.command == ("python", "check.py"), "the runtime compares no 8-bit floats"
    (folder / "expected0.bin").write_bytes(bytes(2))
    done = pilot("verify", folder)
    assert done.code == 1
    assert "passes" in done.out


def test_wrong_numbers_that_were_isolated_before_are_known_for_that_program_only(
    isolated: Isolated, tmp_path: Path
) -> None:
    isolated.document("u8_sort.py")
    told = isolated.ask(CASES / "u8_sort.py", tmp_path / "again")
    assert (told["status"], told["oracle_calls"]) == ("isolated", 0)
    other = tmp_path / "other.py"
    other.write_text((CASES / "u8_sort.py").read_text().replace("(5, 17)", "(4, 6)"))
    assert isolated.ask(other, tmp_path / "other")["oracle_calls"] > 0
