"""Wrong usage, row by row: options, targets, outputs and commands that are not there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from driver import PROGRAM
from wrong_usage import MLIR, Refusals, Wrong, rows

from iree_pilot.pipeline.toolchain import toolchain

pytestmark = pytest.mark.real

FILES: dict[str, str | bytes] = {
    "a.mlir": MLIR,
    "empty.mlir": "",
    "prose.mlir": "Dear reader,\n",
    "ok.npy": b"",
    "script": "exit 0\n",
    "dir.mlir/": "",
    "folder/": "",
    "taken/file": "x",
    "traced/program.json": "{}",
    "traced/program.mlir": MLIR,
    "hip/a.mlir": MLIR,
    "w.irpa": "x",
    "taken/prelu-as-where.mlir": MLIR,
}
SEEDS = f"a whole number from 0 to {2**63 - 1}"
FLAG = ("no flag --iree-opt-levle", "Did you mean --iree-opt-level?")
TARGET = ("unknown target 'vulcan'", "Did you mean vulkan?")
NO_TARGET = ("no target is named for a.mlir", "-t llvm-cpu", "iree-pilot targets")


@rows(
    Wrong("run a.mlir", NO_TARGET),
    Wrong("compile a.mlir", NO_TARGET),
    Wrong("bisect a.mlir", NO_TARGET),
    Wrong("workaround a.mlir", NO_TARGET),
    Wrong("releases bisect a.mlir", NO_TARGET),
    Wrong("run a.mlir -t ''", ("no target is named", "llvm-cpu")),
    Wrong("run llama -t ,", ("no target is named", "llvm-cpu")),
    Wrong("run a.mlir -t vulcan", TARGET),
    Wrong("run a.mlir -t llvm-cpu,vulcan", TARGET),
    Wrong("run a.mlir -t vulcan -t llvm-cpu", TARGET),
    Wrong("run a.mlir -t llvm-cpu -t hip --device hip", ("one target", "one by one")),
    Wrong("bisect a.mlir -t vulcan -t llvm-cpu", TARGET),
    Wrong("ranges a.mlir -t vulcan -t llvm-cpu", TARGET),
    Wrong("workaround a.mlir -t vulcan -t llvm-cpu", TARGET),
    Wrong("releases bisect a.mlir -t vulcan -t llvm-cpu", TARGET),
    Wrong("run :x -t llvm-cpu", ("there is no name before the colon",)),
    Wrong("bisect a.mlir -t vulcan", TARGET),
    Wrong("bisect a.mlir -t llvm-cpu --against vulcan", TARGET),
    Wrong("ranges a.mlir -t vulcan", TARGET),
    Wrong("workaround a.mlir -t vulcan", TARGET),
    Wrong("releases bisect a.mlir -t vulcan", TARGET),
    Wrong("run a.mlir -t llvm-cpu:", ("no architecture after the colon", "llvm-cpu:ARCH")),
    Wrong("run a.mlir -t llvm-cpu:z80", ("llvm-cpu:z80", "llvm-cpu:host")),
    Wrong("compile a.mlir -t hip:gfx9999", ("hip:gfx9999", "gfx942")),
    Wrong("compile a.mlir -t vulkan:rdna9", ("vulkan:rdna9", "rdna3")),
    Wrong("run a.mlir -t llvm-cpu --device cuda", ("--device cuda", "local-task")),
    Wrong("run a.mlir -t llvm-cpu,hip --device hip", ("one target", "one by one")),
    Wrong("bisect a.mlir -t llvm-cpu --against llvm-cpu", ("what -t llvm-cpu is already",)),
)
def test_a_target(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)


@rows(
    Wrong("run a.mlir -t llvm-cpu -- --iree-opt-levle=O1", FLAG),
    Wrong("bisect a.mlir -t llvm-cpu -- --iree-opt-levle=O1", FLAG),
    Wrong("bisect a.mlir -t llvm-cpu --against=--iree-opt-levle=O0", FLAG),
    Wrong("ranges a.mlir -t llvm-cpu -- --iree-opt-levle=O1", FLAG),
    Wrong("workaround a.mlir -t llvm-cpu -- --iree-opt-levle=O1", FLAG),
    Wrong("run a.mlir -t llvm-cpu -- --iree-opt-level=O9", ("--iree-opt-level", "O0/O1/O2/O3")),
    Wrong("run a.mlir -t llvm-cpu -- O1", ("O1 is no flag of iree-compile", "dashes")),
    Wrong("run a.mlir -t llvm-cpu -- ''", ("'' is no flag of iree-compile", "dashes")),
    Wrong("run a.mlir -t llvm-cpu b.mlir", ("b.mlir is no flag", "SOURCE is one word")),
    Wrong("run a.mlir -t llvm-cpu -- -o x", ("-o cannot be given after --", "iree-pilot compile")),
    Wrong("compile a.mlir -t hip -- --compile-to=flow", ("--compile-to=flow", "--to PHASE")),
    Wrong("compile a.mlir -t hip -- --dump-compilation-phases-to=x", ("always dumped",)),
    Wrong("compile a.mlir -t llvm-cpu --to flwo", ("phase 'flwo'", "Did you mean flow?")),
    Wrong("run a.mlir -t llvm-cpu --from flwo", ("phase 'flwo'", "Did you mean flow?")),
    Wrong("compile a.mlir -t hip --from vm --to flow", ("--to flow is not after", "in order")),
    Wrong("compile llama -t llvm-cpu --from flow", ("not MLIR of that phase", "--to flow -o")),
)
def test_a_flag_or_a_phase(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)


@rows(
    Wrong("run a.mlir -t llvm-cpu --seed -1", ("'-1' is not a seed", SEEDS)),
    Wrong(f"run a.mlir -t llvm-cpu --seed {2**63}", (f"'{2**63}' is not a seed", SEEDS)),
    Wrong("run a.mlir -t llvm-cpu --seed 1e3", ("'--seed'", "'1e3' is not a seed", SEEDS)),
    Wrong("run a.mlir -t llvm-cpu --seed x", ("'--seed'", "'x' is not a seed", SEEDS)),
    Wrong("run a.mlir -t llvm-cpu --time-limit soon", ("'--time-limit'", "'soon'", "90s")),
    Wrong("run a.mlir -t llvm-cpu --time-limit 0", ("'--time-limit'", "'0'", "90s")),
    Wrong("run a.mlir -t llvm-cpu --time-limit -5", ("'--time-limit'", "'-5'", "90s")),
    Wrong("run a.mlir -t llvm-cpu --memory-limit 1KB", ("'1KB' is less memory", "4GiB")),
    Wrong("run a.mlir -t llvm-cpu --memory-limit lots", ("'--memory-limit'", "'lots'", "4GiB")),
    Wrong("workaround a.mlir -t llvm-cpu --budget soon", ("'--budget'", "'soon'", "10min")),
    Wrong("cache gc --max-size lots", ("'--max-size'", "'lots'", "512MB")),
    Wrong("cache gc --older-than soon", ("'--older-than'", "'soon'", "10min")),
    Wrong("cache gc", ("nothing to remove is named", "--max-size SIZE")),
    Wrong("run a.mlir -t llvm-cpu --release three", ("'three' is not a release", "3.12.0")),
    Wrong("run a.mlir -t llvm-cpu --release ./folder", ("no iree-compile in folder", "one of")),
    Wrong("run a.mlir -t llvm-cpu --release folder", ("no iree-compile in folder", "one of")),
    Wrong("targets --release /no/such", ("no iree-compile in /no/such",)),
    Wrong("releases install three", ("'three' is not a release",)),
    Wrong("releases remove 1.0.0", ("1.0.0: it is not installed", "cache holds no release")),
    Wrong("releases bisect a.mlir -t hip --from three", ("'three' is not a release",)),
    Wrong("releases bisect a.mlir -t hip --toolchain gone", ("'--toolchain'", "'gone'")),
    Wrong("releases bisect a.mlir -t hip --toolchain folder", ("no iree-compile in", "folder")),
    Wrong("releases ask folder --toolchain folder", ("no iree-compile in", "folder")),
    Wrong("run a.mlir -t llvm-cpu -q -v", ("-v and -q contradict each other",)),
    Wrong("run a.mlir -t llvm-cpu --bisect --from flow", ("--bisect", "takes no --from")),
    Wrong("bisect a.mlir -t hip --against hip --all", ("--against", "takes no --all")),
    Wrong("bisect a.mlir -t hip --against llvm-cpu --device hip", ("takes no --device",)),
    Wrong(
        "bisect a.mlir -t hip --against llvm-cpu --expected-output ok.npy",
        ("takes no --expected-output",),
    ),
    Wrong("ranges a.mlir --device local-task", ("--device and FLAGS go with a target",)),
    Wrong("ranges a.mlir -- --iree-opt-level=O1", ("go with a target", "-t TARGET")),
)
def test_a_value(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)


@rows(
    Wrong("compile a.mlir -t hip -o no/such/x.vmfb", ("no directory no/such", "Make it first")),
    Wrong("compile a.mlir -t hip -o taken", ("cannot write taken: it is a directory", "in it")),
    Wrong("compile a.mlir -t hip -o a.mlir/x", ("cannot write a.mlir/x", "another path")),
    Wrong("compile a.mlir -t hip -o ''", ("'--output'", "it is empty")),
    Wrong("run a.mlir -t hip --function ''", ("'--function'", "it is empty")),
    Wrong("run a.mlir -t hip --dtype ' '", ("'--dtype'", "it is empty")),
    Wrong("run a.mlir -t hip --device ''", ("'--device'", "it is empty")),
    Wrong("bisect a.mlir -t hip --device ''", ("'--device'", "it is empty")),
    Wrong("nightly run -c good.toml --only ''", ("'--only'", "it is empty")),
    Wrong("compile a.mlir -t llvm-cpu,hip -o x.vmfb", ("one target, 2 are named", "one by one")),
    Wrong("trace a.mlir", ("Missing option '-o'",)),
    Wrong("trace a.mlir -o taken", ("taken has files that are no program's", "empty directory")),
    Wrong("trace a.mlir -o no/such/dir", ("there is no directory", "no/such", "Make it first")),
    Wrong("trace a.mlir -o a.mlir", ("a.mlir is a file", "Name a directory")),
    Wrong("trace a.mlir -o ''", ("'--output'", "it is empty")),
    Wrong("bisect a.mlir -t llvm-cpu -o a.mlir", ("a.mlir is a file", "Name a directory")),
    Wrong("workaround a.mlir -t llvm-cpu -o a.mlir", ("a.mlir is a file", "Name a directory")),
    Wrong("releases bisect a.mlir -t hip -o a.mlir", ("a.mlir is a file", "Name a directory")),
    Wrong("releases bisect a.mlir -t hip -o taken", ("taken is there already", "-o DIR")),
    Wrong("reduce a.mlir -o no/x.mlir -- true", ("there is no directory no", "Make it first")),
    Wrong("bisect a.mlir -t hip -o no/x", ("there is no directory no", "Make it first")),
    Wrong("workaround a.mlir -t hip -o no/x", ("there is no directory no", "Make it first")),
    Wrong("releases bisect a.mlir -t hip -o no/x", ("there is no directory no", "Make it first")),
    Wrong("reduce a.mlir -o taken -- true", ("cannot write taken", "Name a file in it")),
    Wrong("bisect a.mlir -t llvm-cpu -o no/x", ("there is no directory no", "Make it first")),
    Wrong("workaround a.mlir -t llvm-cpu -o no/x", ("there is no directory no", "Make it first")),
    Wrong("trace a.mlir -o -", ("not written to stdout", "./-")),
    Wrong("reduce a.mlir -o - -- true", ("not written to stdout", "./-")),
    Wrong("bisect a.mlir -t llvm-cpu -o -", ("not written to stdout",)),
    Wrong("workaround a.mlir -t llvm-cpu -o -", ("not written to stdout",)),
    Wrong("releases bisect a.mlir -t hip -o -", ("not written to stdout",)),
    Wrong("nightly report -o -", ("not written to stdout",)),
)
def test_an_output(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)


@rows(
    *(
        Wrong(f"{command} -o {place}{test}", ("this command reads it", "Name another file"))
        for command, test in (("compile a.mlir -t hip", ""), ("reduce a.mlir", " -- true"))
        for place in ("a.mlir", "folder/../a.mlir", "link.mlir", "hard.mlir")
    ),
    Wrong("reduce a.mlir -o script -- sh script", ("cannot write script: this command reads it",)),
    Wrong("compile a.mlir -t hip --weights w.irpa -o w.irpa", ("this command reads it",)),
    Wrong("compile a.mlir -t hip --input ok.npy -o ok.npy", ("this command reads it",)),
    Wrong("compile a.mlir -t hip --input 2xi8=@script -o script", ("this command reads it",)),
    Wrong("trace traced/program.mlir -o traced", ("it holds", "program.mlir, which this command")),
    Wrong("bisect traced/program.mlir -t llvm-cpu -o traced", ("it holds", "program.mlir")),
    Wrong("bisect hip/a.mlir -t hip,llvm-cpu -o .", ("cannot write hip: it holds",)),
    Wrong("workaround taken/prelu-as-where.mlir -t hip -o taken", ("this command reads it",)),
)
def test_an_output_that_is_read(refusals: Refusals, wrong: Wrong) -> None:
    Path("link.mlir").symlink_to("a.mlir")
    Path("hard.mlir").hardlink_to("a.mlir")
    refusals.check(wrong)


@rows(
    Wrong("reduce gone.mlir -- true", ("no file gone.mlir",)),
    Wrong("reduce dir.mlir -- true", ("dir.mlir is not a file",)),
    Wrong("reduce a.mlir", ("Missing argument '-- COMMAND'",)),
    Wrong("reduce a.mlir -- nosuch", ("cannot run nosuch", "a.mlir is interesting", "on PATH")),
    Wrong("reduce a.mlir -- ./script", ("cannot run ./script", "chmod +x")),
    Wrong("reduce a.mlir -- false", ("a.mlir is not interesting", "exit with 0", "but with 1")),
    Wrong("reduce a.mlir -- ''", ("cannot run '', which decides",)),
    Wrong(
        "reduce a.mlir --time-limit 1s -- tail -f",
        ("not interesting", "was stopped at the time limit, after 1 s"),
    ),
    Wrong(
        "run a.mlir -t llvm-cpu -- --help",
        ("--help cannot be given after --", "iree-compile --help"),
    ),
    Wrong("reduce a.mlir -- false 'a b' ''", ("the command `false 'a b' ''` does not exit",)),
    Wrong("reduce empty.mlir -- true", ("empty.mlir has no function", "func.func")),
    Wrong("reduce prose.mlir -- true", ("prose.mlir cannot be read", "Dear")),
)
def test_a_reduction(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)


@rows(
    Wrong("runn a.mlir", ("no command 'runn'", "Did you mean run?")),
    Wrong("releases instal 3.12.0", ("no command 'instal'", "Did you mean install")),
    Wrong("cache frobnicate", ("no command 'frobnicate'", "Known: gc, info, verify")),
    Wrong("run", ("Missing argument 'SOURCE'",)),
    Wrong("releases install", ("Missing argument 'VERSION...'",)),
    Wrong("releases ask folder", ("Missing option '--toolchain'",)),
    Wrong("run a.mlir --targt hip", ("No such option '--targt'", "'--target'")),
    Wrong("doctor extra", ("unexpected extra argument (extra)",)),
    Wrong("targets extra", ("unexpected extra argument (extra)",)),
)
def test_a_command(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)


@rows(
    Wrong("run a.mlir -t hip --device hip", ("there is no device hip", "ROCm"), 3),
    Wrong("bisect a.mlir -t hip --device hip://0", ("there is no device hip://0", "ROCm"), 3),
)
def test_a_device_on_a_machine_without_one(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)


@rows(
    Wrong("compile a.mlir -t llvm-cpu", ("no IREE compiler", "pip install iree-base-compiler"), 3),
    Wrong("targets", ("no IREE compiler", "pip install iree-base-compiler"), 3),
)
def test_an_environment_without_a_compiler(
    refusals: Refusals, wrong: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "_locations", lambda name: [])
    refusals.check(wrong)


def test_a_reader_that_has_gone_is_told_nothing(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [PROGRAM, "models"], stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (141, "")
