"""The commands of a level use its program, and what they make of it: else they show nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Level
from iree_pilot.repro.trust import steps

COMPILE = ("iree-compile", "repro.mlir", "-o", "module.vmfb")
RUN = ("iree-run-module", "--module=module.vmfb", "--function=main")
LISTED = '    (0, "got0.bin", "expected0.bin", "bf16", 0.01),\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "repro.mlir").write_text('func.func @main() {return}\nutil.func @"a b" () {}\n')
    check = bundle.render("check.py.j2", outputs=[]).replace(
        "OUTPUTS = [\n", "OUTPUTS = [\n" + LISTED
    )
    (tmp_path / "check.py").write_text(check)
    return tmp_path


NAMES = ("repro.mlir", "check.py", "input0.npy", "expected0.npy", "other.mlir", "module.vmfb")


def level(*before: tuple[str, ...], command: tuple[str, ...], **fields: Any) -> Level:
    known = {"name": "mlir", "file": "repro.mlir"}
    return Level(**(known | fields), before=before, command=command)


@pytest.mark.parametrize(
    "one",
    [
        bundle.level("mlir"),
        bundle.level("dispatch"),
        bundle.level("pass", pipeline="builtin.module()"),
        bundle.level("pytorch"),
        bundle.level("pytorch", traces=False),
        bundle.level("mlir", run=(*RUN, "--input=@input0.npy", "--input=2xf32=1")),
        bundle.level("mlir", run=(*RUN, "--expected_output=@expected0.npy")),
        bundle.level("pytorch", run=(*RUN, "--expected_output=@eager0.npy")),
        bundle.level("mlir", run=(*RUN, "--output=@got0.bin"), check=("python", "check.py")),
        level(
            COMPILE, command=("iree-run-module", "--module=module.vmfb", "--function=main$async")
        ),
        level(COMPILE, command=("iree-run-module", "--module=module.vmfb", "--function=a b")),
    ],
)
def test_the_commands_that_a_folder_is_written_with_are_taken(folder: Path, one: Level) -> None:
    assert steps.hollow(one, folder, (*NAMES, "repro.py", "dispatch.mlir", "pass.mlir")) == ""


HOLLOW = {
    "another file": (level(command=("iree-compile", "nope.mlir", "-o", "/dev/null")), "nope.mlir"),
    "another file that is there": (
        level(command=("iree-compile", "other.mlir", "-o", "/dev/null")),
        "it compiles other.mlir, and not repro.mlir",
    ),
    "no file": (level(command=("iree-opt", "--x")), "it does not use repro.mlir"),
    "another pass's file": (level(command=("iree-opt", "other.mlir")), "it compiles other.mlir"),
    "no compile": (level(command=RUN), "it runs module.vmfb, which no step before it compiles"),
    "a compile to elsewhere": (
        level((*COMPILE[:-1], "/dev/null"), command=RUN),
        "it runs module.vmfb, which no step before it compiles",
    ),
    "no module": (level(COMPILE, command=("iree-run-module",)), "it runs no module"),
    "no such function": (
        level(COMPILE, command=(*RUN[:2], "--function=nope")),
        "it calls the function nope, which repro.mlir does not have",
    ),
    "no such input": (level(COMPILE, command=(*RUN, "--input=@x.npy")), "it reads x.npy"),
    "no such result": (
        level(COMPILE, command=(*RUN, "--expected_output=2xf32=@x.bin")),
        "it reads x.bin",
    ),
    "no such weights": (level(COMPILE, command=(*RUN, "--parameters=a=w.irpa")), "w.irpa"),
    "a comparison of what came along": (
        level(COMPILE, RUN, command=("python", "check.py")),
        "check.py compares what no step before it makes",
    ),
    "no such program": (
        level(command=("iree-opt", "pass.mlir"), name="pass", file="pass.mlir"),
        "it reads pass.mlir",
    ),
}


@pytest.mark.parametrize(("one", "why"), HOLLOW.values(), ids=HOLLOW)
def test_what_fails_without_the_program_shows_nothing(folder: Path, one: Level, why: str) -> None:
    assert why in steps.hollow(one, folder, NAMES)
