"""A folder of somebody else's is data: nothing of it runs, writes or leads out, until --trust."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from fake import stub_release

from iree_pilot.pipeline.cli.failures import bisect, releases_bisect, verify, workaround
from iree_pilot.pipeline.cli.programs import compile, ranges, run, trace
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.source import Source, parse
from iree_pilot.pipeline.nightly.cases import keys
from iree_pilot.pipeline.nightly.records import Case
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.toolchain.toolchain import installed
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import REPORT, Input, Level, Report
from iree_pilot.repro.reproducer.verify import Verification
from iree_pilot.repro.reproducer.verify import verify as verified
from iree_pilot.repro.since_release import question
from iree_pilot.repro.since_release.question import Question
from iree_pilot.repro.trust import flags, own, sources, trust
from iree_pilot.repro.trust.trust import open_folder
from iree_pilot.repro.workarounds import find_workarounds
from iree_pilot.repro.wrong_results import folder as wrong_numbers

CRASH = "// stub: crash-at flow\n"
PASSES = "func.func @main() { return }\n"
TARGET = ("--iree-hal-target-device=hip", "--iree-rocm-target=gfx942")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("release")
    stub_release(directory)
    return directory


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory, release: Path) -> Failure:
    """What the stub makes of CRASH."""
    scratch = tmp_path_factory.mktemp("crash")
    (scratch / "crash.mlir").write_text(CRASH)
    compiler = release / "iree/compiler/_mlir_libs/iree-compile"
    said = scratch / "stderr"
    outcome = process.run(
        [compiler, scratch / "crash.mlir"], stdout=scratch / "stdout", stderr=said
    )
    return diagnostics.compile_failure(outcome, said.read_text(), "flow", CRASH)


def report(failure: Failure, *levels: Level, **fields: Any) -> Report:
    known: dict[str, Any] = {
        "target": "hip:gfx942",
        "flags": TARGET,
        "release": "9.9.0",
        "revision": "0" * 40,
        "source": "model.py",
        "command": ("iree-compile", "/home/user/full.mlir"),
        "program": "",
        "ops": 1,
        "op_names": ("a.b",),
        "oracle_calls": 5,
        "seconds": 1.5,
        "minimal": True,
        "verified": True,
        "time_limit": 20,
    }
    return Report(failure=failure, levels=levels or (bundle.level("mlir"),), **(known | fields))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, crash: Failure) -> Path:
    """As `bisect` writes it."""
    place = tmp_path_factory.mktemp("written")
    (place / "x.bin").write_bytes(np.array([5, 7], np.float32).tobytes())
    inputs = [Input(Tensor(dtype="f32", shape=(2,), file="x"), place / "x.bin")]
    levels = (bundle.level("mlir", TARGET), bundle.level("pytorch", TARGET))
    files = {"repro.mlir": CRASH, "repro.py": "import torch\n"}
    bundle.write(place / "repro", report(crash, *levels), files, inputs)
    return place / "repro"


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """As this user's iree-pilot wrote it."""
    shutil.copytree(written, tmp_path / "repro")
    own.remember((tmp_path / "repro/report.json").read_bytes())
    return tmp_path / "repro"


def forged(folder: Path, **changes: Any) -> Path:
    """The folder as somebody else sends it: with another report.json."""
    document = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(document | changes))
    return folder


def with_level(**changes: Any) -> Callable[[Path], Path]:
    """With another first level."""

    def change(folder: Path) -> Path:
        (first, *others) = json.loads((folder / "report.json").read_text())["levels"]
        return forged(folder, levels=[first | changes, *others])

    return change


def test_a_level_that_is_there_twice_is_refused(folder: Path) -> None:
    levels = json.loads((folder / "report.json").read_text())["levels"]
    hostile = forged(folder, levels=[levels[0]] * 300)
    with pytest.raises(UsageError, match="has its level mlir 300 times"):
        open_folder(hostile)


class TestWhoWroteIt:
    def test_what_was_written_here_is_known_wherever_it_lies(self, folder: Path) -> None:
        assert open_folder(folder).written_here
        shutil.copytree(folder, folder.with_name("copy"))
        shutil.rmtree(folder)
        assert open_folder(folder.with_name("copy")).written_here

    def test_what_somebody_else_wrote_is_not(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IREE_PILOT_DATA", str(tmp_path / "data of another user"))
        assert not open_folder(folder).written_here

    def test_what_was_changed_is_not(self, folder: Path) -> None:
        assert not open_folder(forged(folder)).written_here

    def test_without_a_place_to_remember_it_is_somebody_elses(
        self, crash: Failure, tmp_path: Path, data: Path
    ) -> None:
        (data / "made").write_text("in the way")
        bundle.write(tmp_path / "repro", report(crash), {"repro.mlir": CRASH})
        assert not open_folder(tmp_path / "repro").written_here

    def test_a_changed_file_is_named(self, folder: Path) -> None:
        (folder / "repro.mlir").write_text(PASSES)
        (folder / "ISSUE.md").write_text("finished, as it asks for")
        opened = open_folder(folder)
        assert opened.changed == {"repro.mlir": "was changed since report.json was written"}
        (note,) = trust.notes(opened)
        assert "repro.mlir was changed" in note

    def test_flags_of_somebody_elses_are_shown(self, folder: Path) -> None:
        assert trust.notes(open_folder(folder)) == []
        (note,) = trust.notes(open_folder(forged(folder)))
        assert "report.json: --iree-hal-target-device=hip" in note


FLAGS = {
    "--iree-llvmcpu-system-linker-path=evil.sh": "runs a program: evil.sh",
    "-iree-llvmcpu-embedded-linker-path=evil.sh": "runs a program: evil.sh",
    "--iree-llvmcpu-wasm-linker-path=evil.sh": "runs a program: evil.sh",
    "--iree-llvmcpu-link-embedded=false": "runs the system's linker",
    "--iree-llvmcpu-target-triple=wasm32-unknown-emscripten": "runs the system's linker",
    "--iree-cuda-use-ptxas": "runs a program",
    "--iree-cuda-use-ptxas-from=evil": "runs a program: evil",
    "--iree-hal-preprocess-executables-with=evil": "runs a program: evil",
    "--mlir-enable-debugger-hook": "runs a program",
    "--iree-load-plugin=evil.so": "loads code: evil.so",
    "--iree-plugin=evil": "loads code: evil",
    "--load-pass-plugin=evil.so": "loads code: evil.so",
    "--x86-lvi-load-opt-plugin=evil.so": "loads code: evil.so",
    "--iree-hal-dump-executable-files-to=/home": "writes files: /home",
    "--iree-hal-dump-executable-binaries-to=here": "writes files: here",
    "--iree-flow-dump-dispatch-graph": "writes files",
    "--dump-compilation-phases-to=x": "writes files: x",
    "--iree-vm-bytecode-source-listing=x": "writes files: x",
    "--iree-llvmcpu-static-library-output-path=x": "writes files: x",
    "--iree-parameter-export=scope=x.irpa": "writes files",
    "--iree-opt-splat-parameters=x.irpa": "writes files",
    "--mlir-print-ir-tree-dir=x": "writes files: x",
    "--mlir-pass-pipeline-crash-reproducer=x": "writes files: x",
    "--pass-remarks-output=x": "writes files: x",
    "--iree-parameter-import=/etc/shadow": "reads files: /etc/shadow",
    "--iree-codegen-tuning-spec-path=x": "reads files: x",
    "--iree-hal-executable-object-search-path=x": "reads files: x",
    "--iree-hal-substitute-executable-object=a=b.o": "reads files",
    "--iree-link-bitcode=x.bc": "reads files: x.bc",
    "--iree-preprocessing-transform-spec-filename=x": "reads files: x",
    "@flags.txt": "reads more flags out of the file flags.txt",
    "other.mlir": "is no flag",
    "--iree-vulkan-target=../x": "may take ../x for the name of a file",
    "--iree-hal-target-device=#hal.device.target<x>": "may take",
    "--iree-something-new=word": "may take word for the name of a file",
    "--view-isel-dags": "none of IREE's own",
    "--info-output-file=x": "writes files: x",
    "--stats": "none of IREE's own",
    "--iree-preprocessing-pass-pipeline=builtin.module(iree-hal-preprocess-executables-with-tool"
    "{command=evil.sh})": "runs a program: evil.sh",
    "--pass-pipeline=builtin.module(iree-hal-dump-executable-sources{path=x})": "reads files: x",
    "--pass-pipeline=builtin.module(a{dump-binaries-path='x'})": "writes files: x",
    "--pass-pipeline=builtin.module(a{b=/etc})": "may name files",
    "--pass-pipeline=builtin.module(a{filename={x}})": "reads files: x",
    "--pass-pipeline=builtin.module(a{filename={ x y }})": "reads files: x,y",
    "--pass-pipeline=builtin.module(a{b={filename={x}}})": "may name files",
    "--pass-pipeline=builtin.module(a{filename={{x}}})": "may name files",
    "--pass-pipeline=builtin.module(a{filename= x})": "may name files",
    "--pass-pipeline=builtin.module(a{filename x})": "may name files",
    "--pass-pipeline=builtin.module(a {filename=x})": "reads files: x",
    "--pass-pipeline=builtin.module(a{b={run.sh}})": "may name files: run.sh",
    "--pass-pipeline=builtin.module(a{b=run.sh})": "may name files: run.sh",
    "--pass-pipeline=builtin.module(a{b='c filename=x})": "reads files: x",
    "--pass-pipeline=builtin.module(a{b={c filename=x}})": "may name files",
    "--pass-pipeline=builtin.module(a{pipeline=builtin.module(b{filename={x}})})": "reads files: x",
    "--pass-pipeline=builtin.module(a{pipeline=builtin.module(iree-util-dump-module)})": "dump-",
    "--pass-pipeline=builtin.module(iree-util-link-modules{link-module=x})": "is given files",
    "--pass-pipeline=builtin.module(gpu-module-to-binary)": "other programs",
    "--pass-pipeline=builtin.module(a{b=\u2028c})": "may name files",
    f"--pass-pipeline=builtin.module(a{{b={'1,' * 99}!}})": "may name files",
    "--iree-preprocessing-pass-pipeline=builtin.module(a{filename={x}})": "reads files: x",
}
HARMLESS = (
    *TARGET,
    "--iree-hal-target-device=local",
    "--iree-hal-target-device=a=local[0]",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=znver4",
    "--iree-llvmcpu-target-cpu-features=+avx512f,-sse",
    "--iree-llvmcpu-target-triple=x86_64-unknown-linux-gnu",
    "--iree-llvmcpu-target-data-layout=e-m:e-p270:32:32",
    "--iree-llvmcpu-link-embedded=true",
    "--iree-vulkan-target=rdna3",
    "--iree-hip-target=gfx1100",
    "--iree-opt-level=O3",
    "--iree-opt-data-tiling=false",
    "--iree-dispatch-creation-enable-aggressive-fusion",
    "--iree-llvmcpu-stack-allocation-limit=65536",
    "--iree-stream-partitioning-favor=max-concurrency",
    "--iree-input-type=stablehlo",
    "--iree-hal-indirect-command-buffers=false",
    "--iree-vm-bytecode-module-output-format=flatbuffer-text",
    "--iree-flow-break-dispatch=@main:3",
    "--mlir-disable-threading",
    "--mlir-print-ir-after-all",
    "--mlir-elide-elementsattrs-if-larger=8",
    "-O3",
    "--compile-mode=hal-executable",
    "--compile-from=flow",
    "--compile-to=executable-sources",
    "--iree-preprocessing-pass-pipeline=builtin.module(iree-preprocessing-pad-linalg-ops{pad=16})",
    "--pass-pipeline=builtin.module(a{debug-level=2 dump-binaries-path= target=llvm-cpu})",
    "--pass-pipeline=builtin.module(hal.executable(a{debug-level=2   target=rocm },b))",
    "--pass-pipeline=builtin.module(a{  max-iterations=10 keep-x=true},*(b))",
    "--pass-pipeline=builtin.module(a{legal-ops={aten.argmax,aten.argmin} sizes=1,2,-3 scale=0.5})",
    "--pass-pipeline=builtin.module(a{pipeline=builtin.module(b,c{d=1})})",
)


class TestFlags:
    @pytest.mark.parametrize(("flag", "does"), FLAGS.items())
    def test_that_do_more_are_refused_with_what(self, flag: str, does: str) -> None:
        assert does in flags.refused(flag)

    @pytest.mark.parametrize("flag", HARMLESS)
    def test_that_only_compile_are_allowed(self, flag: str) -> None:
        assert flags.refused(flag) == ""

    @pytest.mark.real
    def test_no_flag_of_the_compiler_takes_a_path(self) -> None:
        """Whatever a release has, and may get."""
        known = installed().flags
        assert len(known) > 1000
        taken = [
            name
            for name in sorted(known)
            for value in ("/etc/passwd", "../x", "~/x", "a/b", "$HOME")
            if not flags.refused(f"--{name}={value}")
        ]
        assert taken == []

    @pytest.mark.real
    def test_flags_of_the_compiler_that_take_a_plain_word_say_how_to_compile(self) -> None:
        """A plain word may be a file too, or a program: these are all that may be given one."""
        taken = {name for name in installed().flags if not flags.refused(f"--{name}=evil.sh")}
        speaking = ("file", "path", "dump", "linker", "plugin", "tool", "export", "import")
        assert [n for n in taken if any(s in n for s in speaking)] == []
        assert {"iree-llvmcpu-target-cpu", "iree-vulkan-target", "iree-input-type"} <= taken

    @pytest.mark.parametrize("flag", ["--iree-llvmcpu-system-linker-path=evil.sh", "@flags"])
    def test_out_of_a_folder_need_trust(self, folder: Path, flag: str) -> None:
        hostile = forged(folder, flags=[*TARGET, flag])
        with pytest.raises(UsageError, match="does more than compile what it shows") as caught:
            open_folder(hostile)
        assert flag in caught.value.message
        assert "--trust" in caught.value.advice
        assert open_folder(hostile, trust=True).report.flags[-1] == flag

    def test_of_ones_own_need_none(self, folder: Path, crash: Failure) -> None:
        flag = "--iree-hal-dump-executable-files-to=dumps"
        bundle.write(folder, report(crash, flags=(flag,)), {"repro.mlir": CRASH})
        assert open_folder(folder).report.flags == (flag,)


COMPILE = ["iree-compile", "repro.mlir"]
RUN = ["iree-run-module", "--module=module.vmfb", "--function=main"]
WORDS = {
    "a path to write to": [*COMPILE, "-o", "../../home/.bashrc"],
    "an absolute path to write to": [*COMPILE, "-o", "/etc/passwd"],
    "another program": ["iree-compile", "/etc/passwd", "-o", "/dev/null"],
    "a file above": ["iree-compile", "../repro.mlir", "-o", "/dev/null"],
    "flags in a file": [*COMPILE, "@flags", "-o", "/dev/null"],
    "a dump": ["iree-opt", "repro.mlir", "--mlir-print-ir-tree-dir=x"],
    "a module elsewhere": ["iree-run-module", "--module=/tmp/module.vmfb"],
    "a plugin of the runtime": [*RUN, "--executable_plugin=evil.so"],
    "a file of flags": [*RUN, "--flagfile=x"],
    "an input elsewhere": [*RUN, "--input=@/etc/passwd"],
    "an output elsewhere": [*RUN, "--output=@../x.npy"],
    "an output without a mark": [*RUN, "--output=+x.npy"],
    "an output that Python would run": [*RUN, "--output=@check.py"],
    "an output that would be compiled": [*RUN, "--output=@pass.mlir"],
    "a module that Python would run": [*COMPILE, "-o", "check.py"],
    "a module that would be compiled": [*COMPILE, "-o", "pass.mlir"],
    "a program that was an output": ["iree-compile", "got0.bin", "-o", "/dev/null"],
    "a module that was an output": ["iree-run-module", "--module=got0.bin"],
    "weights elsewhere": [*RUN, "--parameters=model=/etc/x.irpa"],
    "a device with a path": [*RUN, "--device=local-sync://../x"],
    "a word": [*RUN, "main"],
}


class TestCommands:
    @pytest.mark.parametrize("tool", ["/bin/sh", "./evil", "../evil", "sh", "iree-benchmark-x", ""])
    @pytest.mark.parametrize("trusted", [False, True])
    def test_name_tools_of_the_toolchain(self, folder: Path, tool: str, trusted: bool) -> None:
        for change in ({"command": [tool, "x"]}, {"before": [[tool]]}, {"command": []}):
            hostile = with_level(**change)(folder)
            with pytest.raises(UsageError, match="is none of iree-compile, iree-opt"):
                open_folder(hostile, trust=trusted)

    @pytest.mark.parametrize("command", WORDS.values(), ids=WORDS)
    def test_stay_inside_of_the_folder(self, folder: Path, command: list[str]) -> None:
        for change in ({"command": command}, {"before": [command]}):
            with pytest.raises(UsageError, match="does more than compile what it shows"):
                open_folder(with_level(**change)(folder))

    def test_that_a_folder_is_written_with_are_allowed(self, tmp_path: Path) -> None:
        tensor = Tensor(dtype="f8E4M3FN", shape=(2, 3), file="x")
        inputs = [
            Input(tensor, tmp_path / "x"),
            Input(tensor, None),
            Input(msgspec.structs.replace(tensor, dtype="f32"), tmp_path / "x"),
            Input(msgspec.structs.replace(tensor, passed="buffer"), tmp_path / "x"),
        ]
        for device in ("local-task", "vulkan://GPU-0-1a", "hip://0", "local-sync,local-task"):
            ran = bundle.run_command("main$async", device, inputs, ("--parameters=model=w.irpa",))
            compared = (
                *ran,
                "--expected_output=@expected0.npy",
                "--expected_output=(ignored)",
                "--expected_output=2x3xf8E4M3FN=@expected1.bin",
                "--output=@got0.bin",
                "--expected_f32_threshold=1.2e-05",
                "--expected_rtol=0",
            )
            assert flags.refused_words(compared) == []
        for level in (
            bundle.level("mlir", TARGET, run=("iree-run-module",)),
            bundle.level("dispatch", TARGET),
            bundle.level("pass", TARGET, pipeline="builtin.module(func.func(a-pass{x=1}))"),
        ):
            for command in (*level.before, level.command):
                assert flags.refused_words(command) == []


class TestFiles:
    @pytest.mark.parametrize("file", ["../outside.py", "/etc/passwd", "repro.mlir", "", "./x"])
    @pytest.mark.parametrize("trusted", [False, True])
    def test_of_levels_have_their_names(self, folder: Path, file: str, trusted: bool) -> None:
        hostile = with_level(name="pytorch", file=file)(folder)
        with pytest.raises(UsageError, match=r"which is repro.py in every folder"):
            open_folder(hostile, trust=trusted)

    @pytest.mark.parametrize(
        "name",
        [
            "../x",
            "/etc/passwd",
            "a/../../x",
            "",
            "a\nb",
            "a\x1b[2J",
            "a" * 300,
            "é" * 200,
            "a/" * 999,
        ],
    )
    def test_are_inside_of_the_folder(self, folder: Path, name: str) -> None:
        with pytest.raises(UsageError, match="no file inside the folder") as caught:
            open_folder(forged(folder, files={name: "0" * 64}), trust=True)
        assert caught.value.message.isprintable()

    @pytest.mark.parametrize("name", ["repro.mlir", "repro.py", "report.json", "input0.npy"])
    def test_are_no_links(self, folder: Path, name: str) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to("../elsewhere")
        for trusted in (False, True):
            with pytest.raises(UsageError, match=r"is a link to \.\./elsewhere"):
                open_folder(folder, trust=trusted)

    def test_lie_in_no_linked_directory(self, folder: Path) -> None:
        (folder / "lib").symlink_to("/etc")
        with pytest.raises(UsageError, match=r"lib is a link to /etc"):
            open_folder(forged(folder, files={"lib/passwd": "0" * 64}))

    @pytest.mark.parametrize(
        "text",
        [
            'llvm.inline_asm "syscall"',
            '#hal.executable.object<{path = "x.o"}>',
            r'"llvm.inline\5fasm"(%x) <{asm_string = "syscall"}>',
            r'"hal.executable.bin\61ry"() {data = dense<0> : tensor<4xi8>} : () -> ()',
        ],
    )
    def test_have_no_machine_code(self, folder: Path, text: str) -> None:
        (folder / "repro.mlir").write_text(text)
        for one in (folder, forged(folder)):
            with pytest.raises(UsageError, match=r"repro.mlir has machine code of its own") as why:
                open_folder(one)
            assert "-t TARGET" not in why.value.advice
            assert open_folder(one, trust=True).changed

    @pytest.mark.parametrize("name", ["repro.mlir", "dispatch.mlir", "pass.mlir"])
    def test_that_are_programs_are_all_looked_at(self, folder: Path, name: str) -> None:
        (folder / name).write_text('x = #util<preprocessing_pipeline<"a{filename=/x}">>')
        with pytest.raises(UsageError, match=f"{name} runs passes that it names"):
            open_folder(forged(folder))

    def test_may_hold_what_passes_only_print(self, tmp_path: Path, crash: Failure) -> None:
        for pipeline, taken in (
            ("builtin.module(iree-convert-to-llvm{x=1})", True),
            ("builtin.module(iree-consteval-jit-globals)", False),
            ("builtin.module(iree-hal-transformation-pipeline)", False),
            ("builtin.module(hal.executable(iree-hal-serialize-target-executables))", True),
        ):
            level = bundle.level("pass", pipeline=pipeline)
            place = tmp_path / f"{len(pipeline)}"
            bundle.write(place, report(crash, level), {"pass.mlir": "llvm.func @f()"})
            if taken:
                assert open_folder(forged(place))
            else:
                with pytest.raises(UsageError, match=r"pass.mlir has llvm.func, of a dialect"):
                    open_folder(forged(place))

    def test_that_is_run_elsewhere_holds_no_more(self, folder: Path) -> None:
        """`run` compiles repro.mlir, whatever its level's command does."""
        (folder / "repro.mlir").write_text("llvm.func @f()")
        hostile = with_level(command=["iree-opt", "repro.mlir", "-o", "/dev/null"], before=[])
        with pytest.raises(UsageError, match=r"repro.mlir has llvm.func, of a dialect"):
            open_folder(hostile(folder))

    def test_that_no_command_reads_stay_behind(self, folder: Path) -> None:
        (folder / "f.o").write_bytes(b"\x7fELF")
        (folder / "module.vmfb").write_bytes(b"")
        commands = {
            "before": [[*COMPILE, "-o", "module.vmfb"]],
            "command": [*RUN, "--input=@input0.npy"],
        }
        files = json.loads((folder / REPORT).read_text())["files"]
        forged(folder, files=files | {"f.o": "0" * 64, "module.vmfb": "0" * 64})
        opened = open_folder(with_level(**commands)(folder))
        assert {"f.o", "module.vmfb"} < {*opened.files}
        assert {*opened.data} == {"repro.mlir", "repro.py", "run.sh", "input0.npy"}

    @pytest.mark.parametrize("content", [b"[" * 100_000, b'{"failure": "\xff"}'])
    def test_have_a_report_that_can_be_read(self, folder: Path, content: bytes) -> None:
        (folder / REPORT).write_bytes(content)
        with pytest.raises(UsageError, match=r"cannot read .*report.json"):
            open_folder(folder)

    def test_have_a_report_that_is_a_file_of_their_own(self, folder: Path) -> None:
        (folder / REPORT).unlink()
        (folder / REPORT).symlink_to("/dev/zero")
        with pytest.raises(UsageError, match=r"report.json is a link to /dev/zero"):
            open_folder(folder)
        (folder / REPORT).unlink()
        os.mkfifo(folder / REPORT)
        with pytest.raises(UsageError, match=r"report.json is not a file"):
            open_folder(folder)

    @pytest.mark.parametrize("name", ["report.json", "repro.mlir", "input0.npy"])
    def test_are_no_larger_than_any_that_is_written(self, folder: Path, name: str) -> None:
        """Before they are read: this one has no bytes on the disk."""
        with (folder / name).open("r+b") as file:
            file.truncate(1 << 40)
        with pytest.raises(UsageError, match=f"{name} has 1,099,511,627,776 bytes"):
            open_folder(folder)

    def test_that_no_report_names_are_no_larger_either(self, folder: Path) -> None:
        with (folder / "more.bin").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(UsageError, match=r"more.bin has 1,099"):
            open_folder(forged(folder, files={}))

    def test_are_no_fifos(self, folder: Path) -> None:
        (folder / "repro.mlir").unlink()
        os.mkfifo(folder / "repro.mlir")
        with pytest.raises(UsageError, match=r"repro.mlir is not a file"):
            open_folder(folder)


class TestFacts:
    @pytest.mark.parametrize("named", ["./f-rel", "../x", "/opt/iree", ".", "..", "a/b"])
    def test_a_release_is_no_path(self, folder: Path, named: str) -> None:
        for trusted in (False, True):
            with pytest.raises(UsageError, match="is no version") as caught:
                open_folder(forged(folder, release=named), trust=trusted)
            assert repr(named) in caught.value.message

    @pytest.mark.parametrize("named", ["latest", "3.13.0; rm -rf /", "--pre", ""])
    def test_a_release_is_a_version(self, folder: Path, named: str) -> None:
        with pytest.raises(UsageError, match="is no version"):
            open_folder(forged(folder, release=named))

    @pytest.mark.parametrize("named", ["a" * 300, "1" + ".0" * 150])
    def test_a_release_is_no_longer_than_any(self, folder: Path, named: str) -> None:
        for trusted in (False, True):
            with pytest.raises(UsageError, match=r"report.json names a release of 30\d characters"):
                open_folder(forged(folder, release=named), trust=trusted)

    def test_that_of_a_local_build_of_ones_own_may_be_called_anything(
        self, folder: Path, crash: Failure
    ) -> None:
        bundle.write(folder, report(crash, release="local"), {"repro.mlir": CRASH})
        assert open_folder(folder).report.release == "local"

    def test_a_target_is_one(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="is no target"):
            open_folder(forged(folder, target="llvm-cpu:../x y"))

    @pytest.mark.parametrize("limit", [0, -1, 1e300])
    def test_a_limit_is_one(self, folder: Path, limit: float) -> None:
        with pytest.raises(UsageError, match="a time limit of"):
            open_folder(forged(folder, time_limit=limit), trust=True)

    def test_a_memory_limit_that_is_none(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="a memory limit of -5 bytes is none"):
            open_folder(forged(folder, memory_limit=-5), trust=True)


EVIL = "--iree-llvmcpu-system-linker-path=evil.sh"
COMMANDS = {
    "run": (run.command, ()),
    "compile": (compile.command, ()),
    "bisect": (bisect.command, ()),
    "trace": (trace.command, ("-o", "out")),
    "ranges": (ranges.command, ()),
    "workaround": (workaround.command, ()),
    "releases bisect": (releases_bisect.bisect, ("--toolchain", "RELEASE")),
    "verify": (verify.command, ()),
}


class TestEachCommand:
    """Before anything is run, and by what the folder is."""

    @pytest.fixture(autouse=True)
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @pytest.fixture
    def call(self, release: Path) -> Callable[..., UsageError]:
        """Calls a command; what it refuses with."""

        def call(command: Any, *words: str) -> UsageError:
            given = [str(release) if word == "RELEASE" else word for word in words]
            done = CliRunner().invoke(command, [*given, "--release", str(release)])
            assert isinstance(done.exception, UsageError), done.output
            assert done.exception.advice
            return done.exception

        return call

    @pytest.mark.parametrize(("command", "words"), COMMANDS.values(), ids=COMMANDS)
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"release": "./release"}, "is no version"),
            ({"levels": [{"name": "pytorch", "file": "../o.py", "command": ["python"]}]}, "names"),
        ],
    )
    def test_refuses_it(
        self,
        folder: Path,
        call: Callable[..., UsageError],
        command: Any,
        words: tuple[str, ...],
        changes: Any,
        says: str,
    ) -> None:
        forged(folder, **changes)
        assert says in call(command, "repro", *words).message

    @pytest.mark.parametrize(("command", "words"), COMMANDS.values(), ids=COMMANDS)
    def test_refuses_flags_where_it_would_use_them(
        self, folder: Path, call: Callable[..., UsageError], command: Any, words: tuple[str, ...]
    ) -> None:
        forged(folder, flags=[EVIL])
        if command not in (trace.command, ranges.command):
            assert "runs a program: evil.sh" in call(command, "repro", *words).message
        # Those of the user do not count as the folder's.
        opened = open_folder(folder, flagged=False)
        assert trust.notes(opened, flagged=False) == []

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["run", "compile", "bisect", "trace", "ranges"])
    def test_takes_the_program_alone_where_the_user_names_a_target(
        self, folder: Path, release: Path, name: str
    ) -> None:
        forged(folder, flags=[EVIL])
        command, words = COMMANDS[name]
        words = words if name in ("trace", "ranges") else (*words, "-t", "hip:gfx942")
        done = CliRunner().invoke(command, ["repro", *words, "--release", str(release)])
        assert not isinstance(done.exception, UsageError), done.exception
        assert "evil" not in done.output

    @pytest.mark.parametrize("name", ["run", "compile", "bisect", "trace", "ranges"])
    def test_looks_at_inputs_whoever_names_the_target(
        self, folder: Path, call: Callable[..., UsageError], name: str
    ) -> None:
        with_level(command=[*RUN, "--input=@/etc/passwd"])(folder)
        command, words = COMMANDS[name]
        words = words if name in ("trace", "ranges") else (*words, "-t", "hip:gfx942")
        assert "/etc/passwd" in call(command, "repro", *words).message

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["run", "compile", "bisect", "trace", "ranges"])
    def test_asks_before_it_runs_python(
        self, folder: Path, call: Callable[..., UsageError], name: str
    ) -> None:
        (folder / "repro.mlir").unlink()
        (folder / "repro.py").write_text("raise SystemExit('it ran')")
        command, words = COMMANDS[name]
        words = words if name in ("trace", "ranges") else (*words, "-t", "hip:gfx942")
        for source in ("repro", "repro/repro.py"):
            refused = call(command, source, *words)
            assert "repro.py is code that would be run" in refused.message
            assert "--trust" in refused.advice


def of_source(file: Path, *, trust: bool) -> None:
    kind: Any = "mlir" if ".mlir" in file.name else "file"
    sources.check(Source(text=str(file), kind=kind, path=str(file)), trust=trust)


class TestPython:
    def test_of_ones_own_is_run(self, folder: Path) -> None:
        of_source(folder / "repro.py", trust=False)
        assert find_workarounds.of_reproducer(folder).source == str(folder / "repro.mlir")

    def test_of_somebody_elses_needs_trust(self, folder: Path) -> None:
        forged(folder)
        with pytest.raises(UsageError, match="was not written by your iree-pilot"):
            of_source(folder / "repro.py", trust=False)
        of_source(folder / "repro.py", trust=True)

    def test_below_it_or_behind_a_link_needs_trust(self, folder: Path, tmp_path: Path) -> None:
        forged(folder)
        (folder / "sub").mkdir()
        (folder / "sub/m.py").write_text("import evil\n")
        (tmp_path / "mine.py").symlink_to(folder / "sub/m.py")
        for file in (folder / "sub/m.py", tmp_path / "mine.py"):
            with pytest.raises(UsageError, match="was not written by your iree-pilot"):
                of_source(file, trust=False)
            of_source(file, trust=True)

    @pytest.mark.parametrize("module", ["repro.repro", "repro.mine", "repro.sub.m", "repro.sub"])
    def test_as_a_module_needs_trust(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, module: str
    ) -> None:
        forged(folder)
        (folder / "sub").mkdir()
        for name in ("mine.py", "sub/m.py", "sub/__init__.py"):
            (folder / name).write_text("raise SystemExit('it was imported')\n")
        monkeypatch.chdir(folder.parent)
        source = Source(text=f"{module}:model", kind="module", module=module, factory="model")
        with pytest.raises(UsageError, match="was not written by your iree-pilot"):
            sources.check(source, trust=False)
        sources.check(source, trust=True)

    @pytest.mark.parametrize("name", ["repro.py", "mine.py"])
    def test_a_night_runs_none_of_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        forged(folder)
        (folder / "mine.py").write_text("raise SystemExit('it was imported')\n")
        monkeypatch.chdir(folder.parent)
        case = Case(source=f"repro/{name}", target="llvm-cpu")
        with pytest.raises(UsageError, match="was not written by your iree-pilot"):
            keys.job(case)

    def test_that_was_changed_needs_trust(self, folder: Path) -> None:
        (folder / "repro.py").write_text("import evil\n")
        with pytest.raises(UsageError, match=r"repro.py was changed since"):
            of_source(folder / "repro.py", trust=False)

    @pytest.mark.parametrize(
        "stray",
        [
            "torch.py",
            "torch.abi3.so",
            "numpy/__init__.py",
            "__pycache__/torch.pyc",
            "evil.dist-info/entry_points.txt",
            "evil.egg-info",
            "empty/",
        ],
    )
    def test_with_anything_beside_it_needs_trust(self, folder: Path, stray: str) -> None:
        if stray.endswith("/"):
            (folder / stray).mkdir()
        else:
            (folder / stray).parent.mkdir(exist_ok=True)
            (folder / stray).write_text("import evil\n")
        first = stray.partition("/")[0]
        with pytest.raises(UsageError, match=f"it might import {first}, which"):
            of_source(folder / "repro.py", trust=False)

    @pytest.mark.parametrize("name", ["triton", "torch.py", "notes", "sub/torch"])
    def test_with_a_link_beside_it_needs_trust(self, folder: Path, name: str) -> None:
        """Python follows it, wherever it leads."""
        (folder.parent / "evil").mkdir()
        (folder.parent / "evil/__init__.py").write_text("import evil\n")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(folder.parent / "evil")
        for place in (folder / "repro.py", folder / "../repro/repro.py"):
            with pytest.raises(UsageError, match=r"it might import .*, which iree-pilot did not"):
                of_source(place, trust=False)
            of_source(place, trust=True)

    def test_may_have_files_of_its_own_in_folders(self, tmp_path: Path, crash: Failure) -> None:
        (tmp_path / "net.py").write_text("")
        beside = {"package/net.py": tmp_path / "net.py"}
        files = {"repro.py": "import package.net\n"}
        level = bundle.level("pytorch", TARGET)
        bundle.write(tmp_path / "repro", report(crash, level), files, beside=beside)
        of_source(tmp_path / "repro/repro.py", trust=False)
        (tmp_path / "repro/ISSUE.md").write_text("mine")
        of_source(tmp_path / "repro/repro.py", trust=False)
        (tmp_path / "repro/package/torch.py").write_text("")
        with pytest.raises(UsageError, match=r"it might import package/torch.py"):
            of_source(tmp_path / "repro/repro.py", trust=False)

    def test_beside_another_report_is_the_users_own(self, tmp_path: Path) -> None:
        (tmp_path / "model.py").write_text("")
        (tmp_path / "report.json").write_text('{"tests": 3}')
        of_source(tmp_path / "model.py", trust=False)

    def test_a_program_in_mlir_is_looked_at_where_it_is_named(
        self, folder: Path, release: Path
    ) -> None:
        (folder / "repro.mlir").write_text('x = #util<preprocessing_pipeline<"a">>')
        words = [str(folder / "repro.mlir"), "-t", "llvm-cpu", "--release", str(release)]
        done = CliRunner().invoke(compile.command, words)
        assert isinstance(done.exception, UsageError), done.output
        assert "runs passes that it names" in done.exception.message
        with pytest.raises(UsageError, match="runs passes that it names"):
            of_source(folder / "repro.mlir", trust=False)
        of_source(folder / "repro.mlir", trust=True)
        (folder / "other.mlir").write_text("transform.sequence failures(propagate) {}")
        with pytest.raises(UsageError, match="of a dialect that is not known to"):
            of_source(folder / "other.mlir", trust=False)

    def test_a_program_of_ones_own_is_not_looked_at(self, tmp_path: Path, crash: Failure) -> None:
        text = 'x = #util<preprocessing_pipeline<"a">>'
        bundle.write(tmp_path / "repro", report(crash), {"repro.mlir": text})
        of_source(tmp_path / "repro/repro.mlir", trust=False)
        assert open_folder(tmp_path / "repro").written_here

    def test_a_program_in_mlir_needs_none(self, folder: Path) -> None:
        forged(folder)
        assert parse(str(folder / "repro.mlir"), {}, None).kind == "mlir"
        asked = question.of_reproducer(folder, process.Limits())
        assert asked.reader == "9.9.0"
        assert find_workarounds.of_reproducer(folder).source == str(folder / "repro.mlir")


class TestQuestion:
    """`releases ask DIR` asks what question.json says: a program, which may be code, and flags."""

    @pytest.fixture
    def asked(self, tmp_path: Path) -> Path:
        job = Job(source=Source(text="model.py", kind="file", path="/model.py"))
        question.write(tmp_path / "asked", Question(job=job, target=targets.parse("hip")), ())
        return tmp_path / "asked"

    def test_of_ones_own_is_asked(self, asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def reached(*_: Any) -> Any:
            raise InterruptedError

        monkeypatch.setattr(question, "trials", reached)
        toolchain: Any = SimpleNamespace(compiler="iree-compile")
        with pytest.raises(InterruptedError):
            question.ask(asked, toolchain, toolchain)
        file = asked / "question.json"
        file.write_text(file.read_text() + " ")
        with pytest.raises(UsageError, match=r"would be compiled and run: model.py") as caught:
            question.ask(asked, toolchain, toolchain)
        assert "--trust" in caught.value.advice
        with pytest.raises(InterruptedError):
            question.ask(asked, toolchain, toolchain, trust=True)


class TestVerify:
    @pytest.fixture
    def check(self, release: Path) -> Callable[..., Verification]:
        return lambda folder, **options: verified(folder, str(release), **options)

    @pytest.fixture
    def alone(self, folder: Path, crash: Failure) -> Path:
        """With the program in MLIR only."""
        bundle.write(folder, report(crash), {"repro.mlir": CRASH})
        return folder

    @pytest.mark.slow
    def test_of_somebody_elses_folder_runs_what_is_ours(
        self, alone: Path, check: Callable[..., Verification]
    ) -> None:
        found = check(forged(alone))
        assert (found.same, found.script, found.script_why) == (True, 0, "")

    @pytest.mark.slow
    def test_a_script_that_says_yes_is_not_believed(
        self, alone: Path, tmp_path: Path, check: Callable[..., Verification]
    ) -> None:
        (alone / "repro.mlir").write_text(PASSES)
        (alone / "run.sh").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 0\n")
        for options in ({}, {"trust": True}):
            found = check(alone, **options)
            assert not found.same
            assert "it passes with" in found.why
            assert (found.script, found.script_why) == (None, verify_why())
            assert {*found.changed} == {"repro.mlir", "run.sh"}
        assert not (tmp_path / "ran").exists()

    def test_a_script_that_says_no_is_not_believed_either(
        self, alone: Path, check: Callable[..., Verification]
    ) -> None:
        (alone / "run.sh").write_text("#!/bin/sh\nexit 1\n")
        assert check(alone).same

    @pytest.mark.parametrize(
        "changes", [{"revision": "$(touch ran)"}, {"failure": {"signature": "a\ntouch ran\n"}}]
    )
    def test_a_report_that_would_write_commands_into_the_script(
        self, alone: Path, check: Callable[..., Verification], changes: Any
    ) -> None:
        document = json.loads((alone / "report.json").read_text())
        if "failure" in changes:
            changes = {"failure": document["failure"] | changes["failure"]}
        forged(alone, **changes)
        opened = open_folder(alone)
        (alone / "run.sh").write_text(bundle.script(opened.report, opened.data))
        assert check(alone).script_why == verify_why()

    @pytest.mark.slow
    def test_python_is_left_out_and_said(
        self, folder: Path, tmp_path: Path, check: Callable[..., Verification]
    ) -> None:
        (folder / "repro.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        found = check(forged(folder))
        assert found.same
        by_name = {one.level.name: one for one in found.levels}
        assert by_name["mlir"].ran
        assert not by_name["pytorch"].ran
        assert "--trust runs it" in by_name["pytorch"].why
        assert not (tmp_path / "ran").exists()
        assert check(folder, trust=True).levels[1].ran
        assert (tmp_path / "ran").exists()

    def test_what_was_left_out_is_said(self, folder: Path, release: Path) -> None:
        (folder / "run.sh").write_text("#!/bin/sh\nexit 0\n")
        words = [str(forged(folder)), "--release", str(release)]
        done = CliRunner().invoke(verify.command, words)
        assert done.exit_code == 0, done.output
        assert "run.sh was changed since report.json was written" in done.output
        assert "report.json: --iree-hal-target-device=hip" in done.output
        assert "repro.mlir     same" in done.output
        assert "repro.py       not run: it runs Python" in done.output
        assert "run.sh         not run: it is not what this iree-pilot writes" in done.output

    def test_a_folder_of_which_nothing_is_run_is_refused(
        self, folder: Path, check: Callable[..., Verification]
    ) -> None:
        (folder / "repro.mlir").unlink()
        with pytest.raises(UsageError, match=r"nothing of .* is run: it runs Python") as caught:
            check(forged(folder))
        assert "--trust" in caught.value.advice

    def test_what_compares_wrong_numbers_is_run_alone(
        self, tmp_path: Path, crash: Failure, check: Callable[..., Verification]
    ) -> None:
        """check.py is ours for some numbers; a module beside it would be imported by it."""
        text = bundle.render("check.py.j2", outputs=[]).replace(
            "OUTPUTS = [\n", 'OUTPUTS = [\n    (0, "got0.bin", "expected0.bin", "bf16", 0.01),\n'
        )
        assert wrong_numbers.only_compares(text)
        assert not wrong_numbers.only_compares(text + "import evil\n")
        assert not wrong_numbers.only_compares(text.replace("got0.bin", "../got0.bin"))
        level = bundle.level("mlir", check=("python", "check.py"))
        data = {"check.py": text.encode(), "numpy.py": f"open({str(tmp_path / 'ran')!r})".encode()}
        bundle.write(tmp_path / "repro", report(crash, level), {"repro.mlir": PASSES}, data=data)
        opened = open_folder(forged(tmp_path / "repro"))
        assert opened.refuses_level(level) == ""
        assert "check.py" in opened.data
        assert "numpy.py" not in opened.data
        check(tmp_path / "repro")
        assert not (tmp_path / "ran").exists()
        (tmp_path / "repro" / "check.py").write_text(text + "import evil\n")
        assert "it runs Python" in open_folder(tmp_path / "repro").refuses_level(level)


def verify_why() -> str:
    return "it is not what this iree-pilot writes for the report"


def test_what_was_written_here_is_kept_by_digest(data: Path) -> None:
    assert not own.wrote(b"a")
    own.remember(b"a")
    assert own.wrote(b"a")
    assert not own.wrote(b"a ")


class TestSourcesBesideAReport:
    """A source that lies in a folder with a report.json, whoever wrote that."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        (tmp_path / "net.py").write_text("import torch")
        return Source(text="net.py", kind="file", path=str(tmp_path / "net.py"))

    @pytest.mark.parametrize("content", ["{broken", '{"failure": {}, "levels": 3}', "[" * 100_000])
    def test_one_that_cannot_be_read_lets_no_code_run(
        self, source: Source, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / REPORT).write_text(content)
        with pytest.raises(UsageError, match="is not known") as refused:
            sources.check(source, trust=False)
        assert "--trust" in refused.value.advice
        sources.check(source, trust=True)

    def test_a_pipe_lets_no_code_run(self, source: Source, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / REPORT)
        with pytest.raises(UsageError, match="is not known"):
            sources.check(source, trust=False)

    @pytest.mark.parametrize("content", ['{"tests": 3, "passed": true}', "[]"])
    def test_one_of_another_program_is_none(
        self, source: Source, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / REPORT).write_text(content)
        sources.check(source, trust=False)
