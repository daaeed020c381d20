"""That a device's numbers are wrong is a stranger's word: they are evaluated again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from iree_pilot.pipeline.cli.failures import verify as cli
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.pipeline.toolchain.toolchain import installed
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Input, Report
from iree_pilot.repro.reproducer.verify import Verification, verify
from iree_pilot.repro.wrong_results.wrong_record import Wrong

pytestmark = pytest.mark.real

FLAGS = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu")
#: The device gives 4 in each place.
DOUBLES = """func.func @main(%x: tensor<4xi32>) -> tensor<4xi32> {
  %0 = arith.addi %x, %x : tensor<4xi32>
  return %0 : tensor<4xi32>
}
"""
#: Nobody but the device knows which numbers it draws.
DRAWS = """func.func @main(%x: tensor<4xi32>) -> tensor<4xf32> {
  %low = stablehlo.constant dense<0.0> : tensor<f32>
  %high = stablehlo.constant dense<1.0> : tensor<f32>
  %shape = stablehlo.constant dense<4> : tensor<1xi64>
  %0 = stablehlo.rng %low, %high, %shape, distribution = UNIFORM
      : (tensor<f32>, tensor<f32>, tensor<1xi64>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
"""
MISMATCH = Failure(
    kind="mismatch", phase="compare", message="wrong numbers", signature="mismatch/integers/0"
)


@pytest.fixture
def sent(tmp_path: Path) -> Callable[..., Path]:
    """A folder of somebody else's, whose commands give 2 to a program and expect `words` of it."""

    def make(
        *words: str,
        program: str = DOUBLES,
        given: int = 2,
        check: tuple[str, ...] = (),
        data: dict[str, bytes] | None = None,
        **fields: Any,
    ) -> Path:
        (tmp_path / "x.bin").write_bytes(np.full(given, 2, np.int32).tobytes())
        inputs = [Input(Tensor(dtype="i32", shape=(given,), file="x"), tmp_path / "x.bin")]
        run = (*bundle.run_command("main", "local-sync", inputs), *words)
        known: dict[str, Any] = {
            "failure": MISMATCH,
            "levels": (bundle.level("mlir", FLAGS, run=run, check=check),),
            "target": "llvm-cpu",
            "flags": FLAGS,
            "release": installed().version,
            "revision": "0" * 40,
            "source": "model.py",
            "command": ("iree-run-module",),
            "program": "",
            "ops": 1,
            "op_names": ("a.b",),
            "oracle_calls": 5,
            "seconds": 1.5,
            "minimal": True,
            "verified": True,
            "time_limit": 60,
        }
        folder = tmp_path / "sent"
        report = Report(**(known | fields))
        bundle.write(folder, report, {"repro.mlir": program}, inputs, data=data)
        document = json.loads((folder / "report.json").read_text())
        (folder / "report.json").write_text(json.dumps(document))
        return folder

    return make


def npy(values: Any) -> bytes:
    import io

    out = io.BytesIO()
    np.save(out, np.asarray(values, np.int32))
    return out.getvalue()


def asked(folder: Path) -> Verification:
    return verify(folder, installed().version)


def test_numbers_that_are_right_are_no_evidence_against_the_device(
    sent: Callable[..., Path],
) -> None:
    found = asked(sent("--expected_output=4xi32=9", given=4))
    assert not found.same
    assert "its expected numbers are not what numpy" in found.why
    assert "9 where 4 is expected" in found.why


def test_numbers_in_a_file(sent: Callable[..., Path]) -> None:
    words = ("--expected_output=4xi32=@expected0.bin",)
    data = {"expected0.bin": np.full(4, 9, np.int32).tobytes()}
    found = asked(sent(*words, given=4, data=data))
    assert "its expected numbers are not what numpy" in found.why


def test_numbers_that_check_py_compares(sent: Callable[..., Path]) -> None:
    listed = '    (0, "got0.npy", "expected0.npy", "i32", 0.5),\n'
    text = bundle.render("check.py.j2", outputs=[]).replace(
        "OUTPUTS = [\n", "OUTPUTS = [\n" + listed
    )
    wrong = Wrong(
        index=0,
        dtype="i32",
        shape=(4,),
        error=5.0,
        own_error=None,
        threshold=0.5,
        size=9.0,
        wrong=4,
        count=4,
        limit="none",
        elements=(),
        path="",
    )
    found = asked(
        sent(
            "--output=@got0.npy",
            given=4,
            check=("python", "check.py"),
            data={"expected0.npy": npy([9] * 4), "check.py": text.encode()},
            wrong=(wrong,),
        )
    )
    assert "its expected numbers are not what numpy" in found.why


def test_numbers_of_another_shape(sent: Callable[..., Path]) -> None:
    found = asked(sent("--expected_output=1xi32=9", given=4))
    assert not found.same
    assert "types are compared, and no numbers" in found.why


def test_inputs_that_do_not_fit(sent: Callable[..., Path]) -> None:
    own = asked(sent(given=3)).levels[0].failure
    assert own is not None
    found = asked(sent(given=3, failure=own))
    assert not found.same
    assert "its inputs do not fit" in found.why


def test_what_cannot_be_evaluated_is_the_folders_word(sent: Callable[..., Path]) -> None:
    folder = sent("--expected_output=4xf32=9", given=4, program=DRAWS)
    found = asked(folder)
    assert found.same, found.why
    assert "cannot be evaluated" in found.claimed
    done = CliRunner().invoke(cli.command, [str(folder)])
    assert "is there with" in done.output
    assert "if the numbers that the folder expects are right: not checked here" in done.output


def test_a_limit_that_stops_any_program_shows_nothing(sent: Callable[..., Path]) -> None:
    stopped = Failure(
        kind="timeout", phase="input", message="stopped", signature="timeout/input/7f868b2c"
    )
    level = bundle.level("mlir", FLAGS)
    found = asked(sent(failure=stopped, levels=(level,), time_limit=0.001, memory_limit=1000))
    assert not found.same
    assert "it passes with" in found.why


def test_commands_that_show_nothing_are_not_run(sent: Callable[..., Path]) -> None:
    level = bundle.level("mlir", FLAGS, run=("iree-run-module", "--module=module.vmfb"))
    alone = {"levels": [{"name": "mlir", "file": "repro.mlir", "command": [*level.command]}]}
    folder = sent(data={"module.vmfb": b"machine code"})
    document = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(document | alone))
    found = asked(folder)
    assert (found.same, found.script, found.levels[0].ran) == (False, None, False)
    assert "it runs module.vmfb, which no step before it compiles" in found.why
