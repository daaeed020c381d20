"""What a reproducer asks of releases: its program, its failure, flags that each can spell anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.pipeline.store.journal import Journal
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Input, Level, Report
from iree_pilot.repro.since_release import trials
from iree_pilot.repro.since_release.question import of_reproducer
from iree_pilot.repro.since_release.trials import Missing, ReleaseTrial, verdict
from iree_pilot.repro.workarounds import find_workarounds

TEXT = "module {\n}\n"
HIP = ("--iree-hal-target-device=hip", "--iree-hip-target=gfx1100", "--iree-opt-level=O1")


def failure(**fields: Any) -> Failure:
    known: dict[str, Any] = {"kind": "crash", "message": "SIGSEGV", "phase": "flow"}
    known["signature"] = "crash/SIGSEGV/1"
    return Failure(**(known | fields))


def written(
    directory: Path,
    failure: Failure,
    level: Level,
    text: str = TEXT,
    inputs: tuple[Input, ...] = (),
) -> Path:
    report = Report(
        failure=failure,
        target="hip",
        flags=HIP,
        release="3.10.0",
        revision="c" * 40,
        source="model.py",
        command=("iree-compile", "model.mlir"),
        program="/home/user/program.mlir",
        ops=1,
        op_names=("torch.aten.matmul",),
        oracle_calls=5,
        seconds=1.5,
        minimal=True,
        verified=True,
        levels=(level,),
        time_limit=20,
    )
    bundle.write(directory, report, {level.file: text}, inputs)
    return directory


def test_it_brings_its_target_and_the_users_flags(tmp_path: Path) -> None:
    folder = written(tmp_path / "repro", failure(), bundle.level("mlir", HIP))
    question = of_reproducer(folder, Limits(seconds=7))
    assert (question.target.backend, question.target.arch) == ("hip", "gfx1100")
    assert question.flags == ("--iree-opt-level=O1",)
    assert question.failure == failure()
    assert question.job.source.path == str(folder / "repro.mlir")
    assert question.job.inputs is None
    assert question.limits.seconds == 7


def test_one_that_fails_to_run_brings_its_inputs(tmp_path: Path) -> None:
    zeros = tmp_path / "zeros.bin"
    zeros.write_bytes(bytes(8))
    tensor = Tensor(dtype="bf16", shape=(2, 2), file="")
    inputs = (Input(tensor, zeros), Input(tensor, None))
    run = bundle.run_command("main", "local-task", inputs)
    level = bundle.level("mlir", HIP, run=run)
    folder = written(tmp_path / "repro", failure(phase="run"), level, inputs=inputs)
    given = of_reproducer(folder, Limits()).job.inputs
    assert given is not None
    assert [(t.dtype, t.shape) for t in given] == [("bf16", (2, 2))] * 2
    assert [Path(t.file).read_bytes() for t in given] == [bytes(8), b"\x80\x3f" * 4]


def test_wrong_numbers_come_with_the_inputs_that_show_them(tmp_path: Path) -> None:
    wrong = failure(kind="mismatch", phase="compare")
    inputs = (Input(Tensor(dtype="bf16", shape=(2, 2), file=""), None),)
    level = bundle.level("mlir", HIP, run=bundle.run_command("main", "local-task", inputs))
    folder = written(tmp_path / "mlir", wrong, level, inputs=inputs)
    job = of_reproducer(folder, Limits()).job
    assert job.source.path == str(folder / "repro.mlir")
    assert job.inputs is not None
    held = find_workarounds.of_reproducer(folder)
    assert (held.source, held.inputs) == (str(folder / "repro.mlir"), ("2x2xbf16=1",))
    folder = written(tmp_path / "python", wrong, bundle.level("pytorch", HIP), "x = 1\n")
    with pytest.raises(UsageError, match=r"repro\.mlir"):
        of_reproducer(folder, Limits())


def test_what_does_not_trace_is_not_the_compilers(tmp_path: Path) -> None:
    folder = written(tmp_path / "repro", failure(phase="trace"), bundle.level("pytorch", HIP))
    with pytest.raises(UsageError, match="the compiler has no part"):
        of_reproducer(folder, Limits())


def trial(name: str, failure: Failure | None) -> ReleaseTrial:
    state: Any = "does-not-compile" if failure else "ok"
    return ReleaseTrial(
        name=name, version=name, revision="c" * 40, build=name, state=state, failure=failure
    )


@pytest.mark.parametrize(
    ("shown", "wanted", "expected"),
    [
        (failure(kind="timeout", signature="timeout/flow/1", phase="flow"), "timeout", "same"),
        (failure(kind="timeout", signature="timeout/flow/1", phase="flow"), "crash", "different"),
        (failure(kind="out-of-memory", signature="out-of-memory/1"), "timeout", "different"),
        (failure(signature="crash/SIGSEGV/2"), "crash", "different"),
        (failure(signature="crash/SIGSEGV/2", also=(failure(),)), "crash", "same"),
        (None, "crash", "passes"),
    ],
)
def test_where_a_limit_stops_a_release_is_not_the_point(
    shown: Failure | None, wanted: str, expected: str
) -> None:
    looked_for = failure(kind="timeout", signature="timeout/vm/2", phase="vm")
    meant = looked_for if wanted == "timeout" else failure()
    assert verdict(trial("3.0.0", shown), meant) == expected


def test_which_output_is_farthest_off_does_not_tell_wrong_numbers_apart() -> None:
    wanted = failure(kind="mismatch", signature="mismatch/integers/1", phase="compare")
    shown = failure(kind="mismatch", signature="mismatch/values/2", phase="compare")
    assert verdict(trial("3.0.0", shown), wanted) == "same"
    assert verdict(trial("3.0.0", failure()), wanted) == "different"


def test_a_release_that_cannot_run_here_says_nothing_of_a_failure_to_run() -> None:
    here = ReleaseTrial(
        name="3.0.0", version="3.0.0", revision="", build="", state="not-run", why="no device"
    )
    assert verdict(here, failure(phase="run")) == "unsupported"
    assert verdict(here, failure(phase="flow")) == "passes"
    assert verdict(Missing(name="3.0.0", why="no network"), None) == "not-installable"


def test_a_release_whose_results_were_not_compared_says_nothing_of_wrong_numbers(
    tmp_path: Path,
) -> None:
    ran = ReleaseTrial(
        name="3.0.0", version="3.0.0", revision="", build="", state="ran", why="ran, not compared"
    )
    assert verdict(ran, failure(kind="mismatch", phase="compare")) == "unsupported"
    assert verdict(ran, failure(phase="run")) == "passes"
    # Written when `ok` was said of it too.
    journal = tmp_path / "tried.jsonl"
    lines = [
        msgspec.structs.replace(ran, state="ok", why="ran; there is no reference to compare with"),
        msgspec.structs.replace(ran, state="ok", why=""),
    ]
    journal.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    known = [trials._as_now(trial) for trial in Journal(journal, ReleaseTrial)]
    assert [trial.state for trial in known] == ["ran", "ok"]
