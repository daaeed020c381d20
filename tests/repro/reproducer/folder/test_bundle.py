"""A reproducer's folder holds all that it takes, and run.sh can tell the failure from others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from corpus import Entry, classify, entries
from fake import stub_release
from fake.reports import CPU, report

from iree_pilot.pipeline.cli import cli
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Input, Level
from iree_pilot.repro.reproducer.folder.marks import MEMORY, marks
from iree_pilot.repro.reproducer.verify import Verification, ahead, check, settle, verify
from iree_pilot.repro.wrong_results.wrong_record import Wrong, WrongElement

VULKAN = ("--iree-hal-target-device=vulkan",)
CRASH = "// stub: crash-at flow\n"
ERROR = "// stub: error-at flow failed to legalize operation 'vector.bitcast'\n"
OTHER = "// stub: error-at flow use of undeclared SSA value name\n"

#: A tool that prints the file REPLAY and ends as ENDS says.
REPLAY = """#!/bin/sh
[ "$1" = --version ] && exec echo "  IREE compiler version 9.9.0 @ abc"
cat "$REPLAY" >&2
case $ENDS in
hang) exec tail -f /dev/null ;;
SIG*) kill -s "${ENDS#SIG}" $$ ;;
*) exit "$ENDS" ;;
esac
"""


def failure_of(text: str, scratch: Path, compiler: Path, *flags: str) -> Failure:
    """What a compiler makes of a program."""
    scratch.mkdir(parents=True)
    (scratch / "repro.mlir").write_text(text)
    outcome = process.run(
        [compiler, "repro.mlir", *flags, "-o", "/dev/null"],
        stdout=scratch / "stdout",
        stderr=scratch / "stderr",
        cwd=scratch,
        limits=process.Limits(seconds=20),
    )
    assert not outcome.ok
    return diagnostics.compile_failure(outcome, (scratch / "stderr").read_text(), "flow", text)


class Answer(msgspec.Struct, frozen=True):
    """How run.sh ended, and what it told."""

    status: int
    said: str


def ask(
    folder: Path, *words: str | Path, shell: str = "sh", cwd: Path | None = None, **env: str | Path
) -> Answer:
    done = subprocess.run(
        [shell, folder / "run.sh", *words],
        env={"PATH": os.environ["PATH"], **{n: str(v) for n, v in env.items()}},
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
    )
    return Answer(done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_release(tmp_path_factory.mktemp("stub"))


@pytest.fixture(scope="module")
def crash(stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Failure:
    return failure_of(CRASH, tmp_path_factory.mktemp("crash") / "of", stub)


@pytest.fixture(scope="module")
def error(stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Failure:
    return failure_of(ERROR, tmp_path_factory.mktemp("error") / "of", stub)


@pytest.fixture
def folder(tmp_path: Path, crash: Failure) -> Path:
    bundle.write(tmp_path / "repro", report(crash), {"repro.mlir": CRASH})
    return tmp_path / "repro"


ENTRIES = entries()
BUGS = sorted({entry.bug for entry in ENTRIES})


def shows(failure: Failure, entry: Entry) -> bool:
    """What run.sh should say of an entry: the marks as they are documented."""
    wanted = marks(failure)
    flat = " ".join(entry.text.replace("(anonymous namespace)::", "").split())
    if wanted.limit == "time":
        return entry.ended_by == "time-limit"
    if wanted.limit == "memory":
        killed = entry.signal == "SIGKILL" and entry.ended_by != "time-limit"
        return killed or any(word in flat for word in MEMORY)
    number = signal.Signals[entry.signal].value if entry.signal else 0
    errors = [line for line in entry.text.splitlines() if "error: " in line]
    return (
        number == wanted.signal
        and all(needle in flat for needle in wanted.needles)
        and not any(needle in flat for needle in wanted.never)
        and (not wanted.only or all(any(o in e for o in wanted.only) for e in errors))
    )


def replayed(folder: Path, tools: Path, entry: Entry) -> Answer:
    """What run.sh says of a process that prints and ends as the entry's did."""
    text = folder.parent / "text"
    text.write_text(entry.text)
    ends = entry.signal or str(entry.exit_code)
    return ask(
        folder,
        IREE_COMPILE=tools / ("pass" if entry.tool == "iree-run-module" else "replay"),
        IREE_RUN_MODULE=tools / "replay",
        PYTHON=tools / "replay",
        REPLAY=text,
        ENDS="hang" if entry.ended_by == "time-limit" else ends,
        TIME_LIMIT="1" if entry.ended_by == "time-limit" else "20",
    )


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tools")
    for name, text in {"replay": REPLAY, "pass": "#!/bin/sh\n"}.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    return place


class TestFailuresAreToldApart:
    @pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
    def test_by_marks_that_all_texts_of_the_bug_have_and_no_other(self, entry: Entry) -> None:
        failure = classify(entry)
        for other in ENTRIES:
            if other.tool != entry.tool:
                continue
            found = classify(other)
            among = failure.signature in {f.signature for f in found.also}
            if found.signature == failure.signature or not among:
                same = found.signature == failure.signature
                assert shows(failure, other) == same, f"{other.name}: {marks(failure)}"

    @pytest.mark.slow
    @pytest.mark.parametrize("bug", BUGS)
    def test_by_the_script_too(self, bug: str, tmp_path: Path, tools: Path) -> None:
        mine = [e for e in ENTRIES if e.bug == bug]
        failure = classify(mine[0])
        if mine[0].tool == "python":
            levels, file = bundle.level("pytorch", traces=False), "repro.py"
        elif mine[0].tool == "iree-run-module":
            run = bundle.run_command("main", "local-task", ())
            levels, file = bundle.level("mlir", run=run), "repro.mlir"
        else:
            levels, file = bundle.level("mlir"), "repro.mlir"
        bundle.write(tmp_path / "repro", report(failure, levels), {file: "// text"})
        for entry in mine:
            answer = replayed(tmp_path / "repro", tools, entry)
            assert answer.status == 0, f"{entry.name}: {answer.said}"
        strangers = [e for e in ENTRIES if e.tool == mine[0].tool and not shows(failure, e)]
        near = sorted(strangers, key=lambda e: (e.signal != mine[0].signal, e.name))
        for entry in near[:2]:
            assert replayed(tmp_path / "repro", tools, entry).status == 125, entry.name


class TestTheScript:
    def test_ends_with_0_while_the_failure_is_there(self, folder: Path, stub: Path) -> None:
        answer = ask(folder, IREE_COMPILE=stub)
        assert answer == Answer(0, f"reproduces: {bundle.read(folder).failure.signature}\n")

    @pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
    def test_runs_in_any_shell(self, folder: Path, stub: Path, shell: str, tmp_path: Path) -> None:
        program = shutil.which(shell)
        if program is None:
            pytest.skip(f"there is no {shell} here")
        if shell == "busybox":  # is a shell by its name
            (tmp_path / "bin").mkdir()
            (tmp_path / "bin/sh").symlink_to(program)
            program = str(tmp_path / "bin/sh")
        assert ask(folder, shell=program, IREE_COMPILE=stub).status == 0
        (folder / "repro.mlir").write_text("// fine\n")
        assert ask(folder, shell=program, IREE_COMPILE=stub).status == 1

    def test_ends_with_1_when_it_is_gone(self, folder: Path, stub: Path) -> None:
        (folder / "repro.mlir").write_text("// fine\n")
        assert ask(folder, IREE_COMPILE=stub) == Answer(1, "does not reproduce\n")

    def test_cannot_say_where_another_failure_is_in_the_way(self, folder: Path, stub: Path) -> None:
        (folder / "repro.mlir").write_text(OTHER)
        answer = ask(folder, IREE_COMPILE=stub)
        assert answer.status == 125
        assert "use of undeclared SSA value name" in answer.said
        assert "fails in another way" in answer.said

    def test_cannot_say_without_a_compiler(self, folder: Path, tmp_path: Path) -> None:
        answer = ask(folder, IREE_COMPILE=tmp_path / "nosuch")
        assert answer.status == 125
        assert f"cannot run {tmp_path / 'nosuch'}" in answer.said

    def test_finds_the_compiler_on_the_path(self, folder: Path, stub: Path) -> None:
        assert ask(folder, PATH=f"{stub.parent}:{os.environ['PATH']}").status == 0

    def test_takes_a_compiler_by_a_relative_name(self, folder: Path, stub: Path) -> None:
        assert ask(folder, cwd=stub.parent, IREE_COMPILE="./iree-compile").status == 0

    def test_knows_a_signal_behind_the_wheels_wrapper(
        self, folder: Path, stub: Path, tmp_path: Path
    ) -> None:
        wrapper = tmp_path / "iree-compile"
        wrapper.write_text(
            f"#!{sys.executable}\nimport subprocess, sys\n"
            f"sys.exit(subprocess.call([{str(stub)!r}, *sys.argv[1:]]))\n"
        )
        wrapper.chmod(0o755)
        assert ask(folder, IREE_COMPILE=wrapper).status == 0

    @pytest.mark.slow
    def test_turns_its_answers_round_for_git(self, folder: Path, stub: Path) -> None:
        assert ask(folder, "--git-bisect", IREE_COMPILE=stub).status == 1
        (folder / "repro.mlir").write_text("// fine\n")
        assert ask(folder, "--git-bisect", IREE_COMPILE=stub).status == 0
        (folder / "repro.mlir").write_text(OTHER)
        assert ask(folder, "--git-bisect", IREE_COMPILE=stub).status == 125

    def test_asks_of_another_file_as_reducers_do(
        self, folder: Path, stub: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "smaller.mlir").write_text("// fine\n")
        assert ask(folder, "smaller.mlir", cwd=tmp_path, IREE_COMPILE=stub).status == 1
        (tmp_path / "smaller.mlir").write_text(CRASH)
        assert ask(folder, tmp_path / "smaller.mlir", IREE_COMPILE=stub).status == 0
        assert ask(folder, "nosuch.mlir", IREE_COMPILE=stub).status == 125

    def test_refuses_what_it_does_not_know(self, folder: Path, stub: Path) -> None:
        answer = ask(folder, "--bisect", IREE_COMPILE=stub)
        assert answer == Answer(125, "run.sh: undecided: there is no option --bisect\n")

    @pytest.mark.parametrize("word", ["--help", "-h"])
    def test_says_how_it_is_used(self, folder: Path, tmp_path: Path, word: str) -> None:
        answer = ask(folder, word, cwd=tmp_path)
        assert answer.status == 0
        for said in ("  run.sh --git-bisect  ", "  run.sh LEVEL  ", "IREE_COMPILE", "TIME_LIMIT"):
            assert said in answer.said
        assert "#" not in answer.said
        assert "shellcheck" not in answer.said

    def test_asks_of_another_level(self, tmp_path: Path, stub: Path, crash: Failure) -> None:
        levels = [bundle.level(name) for name in ("mlir", "dispatch")]
        files = {"repro.mlir": CRASH, "dispatch.mlir": "// fine\n"}
        flags = ["compile-from", "compile-to", "compile-mode"]
        other = stub_release(tmp_path / "stub", flags=flags)
        bundle.write(tmp_path / "repro", report(crash, *levels), files)
        assert ask(tmp_path / "repro", IREE_COMPILE=other).status == 0
        assert ask(tmp_path / "repro", "dispatch", IREE_COMPILE=other).status == 1

    def test_tells_another_version(self, folder: Path, tmp_path: Path) -> None:
        other = stub_release(tmp_path / "stub", version="9.8.0", revision="f" * 40)
        answer = ask(folder, IREE_COMPILE=other)
        assert answer.status == 0
        assert f"was seen with 9.9.0 ({'0' * 40}); this is 9.8.0 @ {'f' * 40}" in answer.said

    @pytest.mark.slow
    def test_cannot_say_of_a_compile_that_does_not_end(self, folder: Path, stub: Path) -> None:
        (folder / "repro.mlir").write_text("// stub: hang-at flow\n")
        answer = ask(folder, IREE_COMPILE=stub, TIME_LIMIT="1")
        assert answer.status == 125
        assert "undecided: stopped after" in answer.said

    @pytest.mark.slow
    def test_stops_a_compile_that_should_not_end(self, tmp_path: Path, stub: Path) -> None:
        hang = Failure(kind="timeout", message="stopped", signature="timeout/flow/1", phase="flow")
        files = {"repro.mlir": "// stub: hang-at flow\n"}
        bundle.write(tmp_path / "repro", report(hang, time_limit=0.5), files)
        assert ask(tmp_path / "repro", IREE_COMPILE=stub).status == 0
        (tmp_path / "repro/repro.mlir").write_text("// fine\n")
        assert ask(tmp_path / "repro", IREE_COMPILE=stub).status == 1
        (tmp_path / "repro/repro.mlir").write_text(CRASH)
        assert ask(tmp_path / "repro", IREE_COMPILE=stub).status == 125
        assert ask(tmp_path / "repro", IREE_COMPILE=stub, TIMEOUT="nosuch").status == 125

    def test_limits_the_memory_of_what_takes_too_much(self, tmp_path: Path, stub: Path) -> None:
        much = Failure(
            kind="out-of-memory", message="stopped", signature="out-of-memory/flow/1", phase="flow"
        )
        files = {"repro.mlir": "// stub: eat-at flow 100000\n"}
        bundle.write(tmp_path / "repro", report(much, memory_limit=2**28), files)
        assert ask(tmp_path / "repro", IREE_COMPILE=stub).status == 0
        (tmp_path / "repro/repro.mlir").write_text("// fine\n")
        assert ask(tmp_path / "repro", IREE_COMPILE=stub).status == 1

    @pytest.mark.slow
    def test_has_patience_with_what_comes_and_goes(
        self, tmp_path: Path, stub: Path, crash: Failure
    ) -> None:
        count = tmp_path / "count"
        sometimes = tmp_path / "iree-compile"
        sometimes.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] || echo run >>{count}\n'
            f'[ "$(wc -l <{count})" -lt 3 ] || exec {stub} "$@"\n'
        )
        sometimes.chmod(0o755)
        bundle.write(tmp_path / "repro", report(crash, rate=0.5), {"repro.mlir": CRASH})
        assert ask(tmp_path / "repro", IREE_COMPILE=sometimes).status == 0
        assert count.read_text().count("run") == 3
        (tmp_path / "repro/repro.mlir").write_text("// fine\n")
        assert ask(tmp_path / "repro", IREE_COMPILE=sometimes).status == 1
        assert count.read_text().count("run") == 3 + bundle.tries(0.5)

    def test_asks_again_on_one_thread_where_a_crash_prints_no_stack(
        self, folder: Path, stub: Path, tmp_path: Path
    ) -> None:
        mute = tmp_path / "iree-compile"
        mute.write_text(
            '#!/bin/sh\ncase "$*" in\n--version) ;;\n'
            '*--mlir-disable-threading) echo " #0 0x1 mlir::stub::StubPass::runOnOperation() a.cpp'
            '" >&2; kill -s SEGV $$ ;;\n*) kill -s SEGV $$ ;;\nesac\n'
        )
        mute.chmod(0o755)
        assert ask(folder, IREE_COMPILE=mute).status == 0

    def test_works_anywhere_and_leaves_nothing_behind(
        self, tmp_path: Path, stub: Path, crash: Failure
    ) -> None:
        folder = tmp_path / "a folder's name"
        bundle.write(folder, report(crash), {"repro.mlir": CRASH})
        before = sorted(folder.iterdir())
        (tmp_path / "tmp").mkdir()
        assert ask(folder, IREE_COMPILE=stub, TMPDIR=tmp_path / "tmp").status == 0
        assert sorted(folder.iterdir()) == before
        assert [*(tmp_path / "tmp").iterdir()] == []

    @pytest.mark.parametrize("bug", ["argsort-get-int", "attention-silent", "timeout", "run-f64"])
    def test_is_clean_shell(self, bug: str, tmp_path: Path) -> None:
        failure = classify(next(e for e in ENTRIES if e.bug == bug))
        run = bundle.run_command("main", "local-task", ()) if bug == "run-f64" else ()
        levels = [bundle.level(n, run=run) for n in ("mlir", "pytorch")]
        bundle.write(
            tmp_path / "repro",
            report(failure, *levels, packages={"torch": "2.13.0"}, memory_limit=2**30, rate=0.7),
            {"repro.mlir": "//", "repro.py": "#"},
        )
        checker = shutil.which("shellcheck")
        argv = [checker, "--severity=style"] if checker else ["sh", "-n"]
        done = subprocess.run(
            [*argv, tmp_path / "repro/run.sh"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


class TestTheFolder:
    def test_holds_the_programs_and_what_is_known(self, folder: Path, crash: Failure) -> None:
        assert {p.name for p in folder.iterdir()} == {
            "repro.mlir",
            "run.sh",
            "report.json",
            "ISSUE.md",
            "README.md",
        }
        assert (folder / "repro.mlir").read_text() == CRASH
        assert os.access(folder / "run.sh", os.X_OK)
        known = bundle.read(folder)
        assert known.failure == crash
        assert msgspec.structs.replace(known, files={}) == report(crash)
        document = msgspec.json.decode((folder / "report.json").read_bytes())
        assert document["failure"]["pass"] == "StubPass"
        assert document["levels"][0]["command"] == ["iree-compile", "repro.mlir", "-o", "/dev/null"]

    def test_holds_a_draft_in_the_form_of_irees_issues(
        self, tmp_path: Path, crash: Failure
    ) -> None:
        why = "the pass does not fail alone"
        levels = (
            bundle.level("mlir", CPU, verified=True),
            Level(name="pass", file="pass.mlir", command=(), why=why),
        )
        tried = ("3.12.0 compiles it.",)
        machine = {"OS": "Debian GNU/Linux 12", "Device": "none was used"}
        files = {"repro.mlir": CRASH}
        made = report(crash, *levels, tried=tried, environment=machine)
        bundle.write(tmp_path / "repro", made, files)
        draft = (tmp_path / "repro/ISSUE.md").read_text()
        assert draft.startswith("# [llvm-cpu] iree-compile: SIGSEGV in mlir::stub::StubPass::run")
        asked = [line.removeprefix("### ") for line in draft.splitlines() if line[:4] == "### "]
        assert asked == [
            "What happened?",
            "Steps to reproduce your issue",
            "What component(s) does this issue relate to?",
            "Version information",
            "Additional context",
        ]
        for fact in (
            crash.message,
            "#0 mlir::stub::StubPass::runOnOperation()",
            CRASH.strip(),
            f"iree-compile repro.mlir {' '.join(CPU)} -o /dev/null",
            "IREE compiler 9.9.0",
            "- OS: Debian GNU/Linux 12\n- Device: none was used\n",
            "Found in llama-fp8",
            "3.12.0 compiles it.",
            f"No `pass.mlir`: {why}.",
        ):
            assert fact in draft
        assert "/home/user" not in draft

    def test_points_to_the_full_program(self, folder: Path) -> None:
        text = (folder / "README.md").read_text()
        assert "iree-compile /home/user/full.mlir -o module.vmfb" in text
        assert "/home/user/.cache/iree-pilot/program/1" in text

    def test_quotes_text_that_holds_fences(self, tmp_path: Path, crash: Failure) -> None:
        bundle.write(tmp_path / "repro", report(crash), {"repro.mlir": "// ```` a fence\n"})
        assert "`````mlir\n" in (tmp_path / "repro/ISSUE.md").read_text()

    def test_holds_inputs_where_the_module_fails_to_run(self, tmp_path: Path) -> None:
        import numpy as np

        values = np.arange(6, dtype=np.float64) / 3  # no f32 holds these
        (tmp_path / "0.bin").write_bytes(values.tobytes())
        (tmp_path / "1.bin").write_bytes(bytes(4))
        inputs = [
            Input(Tensor(dtype="f64", shape=(2, 3), file="0.bin"), tmp_path / "0.bin"),
            Input(Tensor(dtype="f8E4M3FN", shape=(4,), file="1.bin"), tmp_path / "1.bin"),
        ]
        entry = next(e for e in ENTRIES if e.bug == "run-f64")
        one = bundle.level("mlir", CPU, run=bundle.run_command("main", "local-task", inputs))
        assert one.before == (("iree-compile", "repro.mlir", *CPU, "-o", "module.vmfb"),)
        assert one.command == (
            "iree-run-module",
            "--module=module.vmfb",
            "--device=local-task",
            "--function=main",
            "--input=@input0.npy",
            "--input=4xf8E4M3FN=@input1.bin",
        )
        bundle.write(tmp_path / "repro", report(classify(entry), one), {"repro.mlir": "//"}, inputs)
        held = np.load(tmp_path / "repro/input0.npy")
        assert held.dtype == np.float64 and np.array_equal(held, values.reshape(2, 3))
        assert (tmp_path / "repro/input1.bin").read_bytes() == bytes(4)
        draft = (tmp_path / "repro/ISSUE.md").read_text()
        assert "The commands read input0.npy, input1.bin: attach the folder" in draft
        assert "`input0.npy`: `[[" in draft, "few numbers are quoted"
        assert "\nRuntime\n" in draft

    @pytest.mark.parametrize(
        ("path", "told"),
        [
            ("hidden_states[1]", "| output 1 (`hidden_states[1]`, 4xf32) |"),
            ("", "| output 1 (4xf32) |"),
        ],
    )
    def test_calls_a_wrong_output_by_its_path(
        self, path: str, told: str, tmp_path: Path, crash: Failure
    ) -> None:
        wrong = Wrong(
            index=1,
            dtype="f32",
            shape=(4,),
            error=1.0,
            own_error=None,
            threshold=0.5,
            size=2.0,
            wrong=1,
            count=4,
            limit="none",
            elements=(WrongElement((0,), "3", "2"),),
            path=path,
        )
        made = report(crash, bundle.level("mlir"), wrong=(wrong,))
        bundle.write(tmp_path / "folder", made, {"repro.mlir": "//\n"})
        assert told in (tmp_path / "folder/ISSUE.md").read_text()

    @pytest.mark.parametrize(
        ("wrong", "own", "told"),
        [
            (
                3,
                1.2e-7,
                "3 of 4 elements exceed the tolerance. Max absolute error: 1; PyTorch in the same "
                "types, against the same program in float64: 1.2e-07. Tolerance: none.",
            ),
            (
                0,
                None,
                "Each element is within the tolerance for elements; the output as a whole exceeds "
                "its own. Tolerance: none.",
            ),
        ],
    )
    def test_says_what_was_measured_and_against_what(
        self, wrong: int, own: float | None, told: str, tmp_path: Path, crash: Failure
    ) -> None:
        output = Wrong(
            index=0,
            dtype="f32",
            shape=(4,),
            error=1.0,
            own_error=own,
            threshold=0.5,
            size=2.0,
            wrong=wrong,
            count=4,
            limit="none",
            elements=(),
        )
        made = report(crash, bundle.level("mlir"), wrong=(output,))
        bundle.write(tmp_path / "folder", made, {"repro.mlir": "//\n"})
        assert told in (tmp_path / "folder/ISSUE.md").read_text()

    def test_holds_what_a_traced_program_imports(self, tmp_path: Path) -> None:
        """Also where Python has left its caches since, the folder's place is taken again."""
        (tmp_path / "user").mkdir()
        (tmp_path / "user" / "net.py").write_text("value = 7\n")
        beside = {"net.py": tmp_path / "user" / "net.py", "parts/inner.py": tmp_path / "inner.py"}
        beside["parts/inner.py"].write_text("import net\nraise KeyError(f'{net.value} wrong')\n")
        failure = diagnostics.trace_failure("KeyError", "'7 wrong'")
        level = bundle.level("pytorch", traces=False)
        made, files = report(failure, level), {"repro.py": "import parts.inner\n"}
        for _ in range(2):
            bundle.write(tmp_path / "out", made, files, beside=beside)
            (tmp_path / "out" / "parts" / "__pycache__").mkdir()
            (tmp_path / "out" / "parts" / "__pycache__" / "inner.pyc").touch()
        assert (tmp_path / "out" / "net.py").read_text() == "value = 7\n"
        assert ask(tmp_path / "out", PYTHON=sys.executable).status == 0
        (tmp_path / "out" / "net.py").unlink()
        assert "net.py is not there" in ask(tmp_path / "out", PYTHON=sys.executable).said

    @pytest.mark.parametrize("form", ["text", "path"])
    def test_holds_no_weights(self, form: str, tmp_path: Path, crash: Failure) -> None:
        large = "//" + "0" * bundle.LARGEST_BYTES
        (tmp_path / "large.mlir").write_text(large)
        given = large if form == "text" else tmp_path / "large.mlir"
        with pytest.raises(UsageError, match=r"repro.mlir .* 1,048,578 bytes"):
            bundle.write(tmp_path / "repro", report(crash), {"repro.mlir": given})
        assert not (tmp_path / "repro").exists()

    def test_takes_the_place_of_the_last_one(self, folder: Path, crash: Failure) -> None:
        new = msgspec.structs.replace(report(crash), seconds=9.0)
        bundle.write(folder, new, {"repro.mlir": "// new\n" + CRASH})
        assert bundle.read(folder).seconds == 9.0
        assert (folder / "repro.mlir").read_text().startswith("// new")
        assert [p.name for p in folder.parent.iterdir()] == [folder.name]

    def test_may_be_made_in_an_empty_folder_and_in_new_ones(
        self, tmp_path: Path, crash: Failure
    ) -> None:
        (tmp_path / "empty").mkdir()
        for place in (tmp_path / "empty", tmp_path / "a/b/c"):
            bundle.write(place, report(crash), {"repro.mlir": CRASH})
            assert bundle.read(place).failure == crash

    def test_takes_no_place_of_anything_else(self, tmp_path: Path, crash: Failure) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis/thesis.tex").write_text("years")
        for place in (tmp_path / "thesis", tmp_path / "thesis/thesis.tex"):
            with pytest.raises(UsageError):
                bundle.write(place, report(crash), {"repro.mlir": CRASH})
        assert (tmp_path / "thesis/thesis.tex").read_text() == "years"

    @pytest.mark.parametrize(
        ("name", "told"), [("ISSUE.md", "was changed since"), ("notes.txt", "is not of")]
    )
    def test_keeps_what_a_person_wrote_into_it(
        self, name: str, told: str, folder: Path, crash: Failure
    ) -> None:
        (folder / name).write_text("an evening's work")
        with pytest.raises(UsageError, match=told):
            bundle.write(folder, report(crash), {"repro.mlir": CRASH})
        assert (folder / name).read_text() == "an evening's work"

    def test_is_there_whole_or_not_at_all(
        self, folder: Path, crash: Failure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = {p.name: p.read_bytes() for p in folder.iterdir()}
        write_bytes = Path.write_bytes

        def full(path: Path, content: bytes) -> int:
            if path.name == "report.json":
                raise OSError(28, "No space left on device")
            return write_bytes(path, content)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(EnvironmentFault, match="the disk is full"):
            bundle.write(folder, report(crash), {"repro.mlir": "// new"})
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
        assert [p.name for p in folder.parent.iterdir()] == [folder.name]

    def test_is_told_from_other_folders(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"there is no report.json"):
            bundle.read(tmp_path)
        (tmp_path / "report.json").write_text('{"made_by": "hand"}')
        with pytest.raises(UsageError, match="cannot read"):
            bundle.read(tmp_path)


def snapshot(folder: Path) -> Mapping[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


class TestVerification:
    def check(self, folder: Path, stub: Path) -> Verification:
        return verify(folder, str(stub.parents[3]))

    @pytest.mark.slow
    def test_runs_every_level_and_the_script(self, tmp_path: Path, stub: Path) -> None:
        text = "// stub: error-at parse no such thing\n// stub: error-at flow no such thing\n"
        failure = failure_of(text, tmp_path / "of", stub)
        levels = [bundle.level("mlir"), bundle.level("pass", pipeline="builtin.module(cse)")]
        files = {"repro.mlir": text, "pass.mlir": text}
        bundle.write(tmp_path / "repro", report(failure, *levels), files)
        before = snapshot(tmp_path / "repro")
        found = self.check(tmp_path / "repro", stub)
        assert [(c.level.name, c.same) for c in found.levels] == [("mlir", True), ("pass", True)]
        assert found.same
        assert found.script == 0
        assert found.why == ""
        assert snapshot(tmp_path / "repro") == before
        settled = settle(bundle.read(tmp_path / "repro"), found)
        assert settled.verified
        assert all(one.verified for one in settled.levels)

    @pytest.mark.slow
    def test_leaves_out_what_does_not_show_the_failure(
        self, tmp_path: Path, stub: Path, error: Failure
    ) -> None:
        levels = [bundle.level("mlir"), bundle.level("pass", pipeline="builtin.module(cse)")]
        files = {"repro.mlir": ERROR, "pass.mlir": "// fine\n"}
        bundle.write(tmp_path / "repro", report(error, *levels), files)
        found = self.check(tmp_path / "repro", stub)
        assert not found.same
        assert found.script == 0
        assert found.why == "pass.mlir: it passes with 9.9.0"
        settled = settle(bundle.read(tmp_path / "repro"), found)
        assert settled.verified
        assert [(one.verified, one.why) for one in settled.levels] == [
            (True, ""),
            (False, "it passes with 9.9.0"),
        ]

    @pytest.mark.slow
    def test_tells_another_failure(self, folder: Path, stub: Path) -> None:
        (folder / "repro.mlir").write_text(OTHER)
        found = self.check(folder, stub)
        assert not found.same
        assert found.script == 125
        assert "repro.mlir: it fails in another way: use of undeclared SSA value name" in found.why
        assert "run.sh ends with 125" in found.why
        assert not settle(bundle.read(folder), found).verified

    @pytest.mark.slow
    def test_tells_a_failure_that_is_not_alone(
        self, tmp_path: Path, stub: Path, error: Failure
    ) -> None:
        both = f"// stub: print-at flow repro.mlir:1:1: error: something else\n{ERROR}"
        failure = failure_of(both, tmp_path / "of", stub)
        alone = msgspec.structs.replace(failure, also=())
        bundle.write(tmp_path / "repro", report(alone), {"repro.mlir": both})
        found = self.check(tmp_path / "repro", stub)
        assert not found.same
        assert f"it also fails with: {error.message}" in found.why

    @pytest.mark.slow
    def test_accepts_companions_and_keeps_those_that_were_shown(
        self, tmp_path: Path, stub: Path, error: Failure
    ) -> None:
        both = f"// stub: print-at flow repro.mlir:1:1: error: something else\n{ERROR}"
        failure = failure_of(both, tmp_path / "of", stub)
        never = msgspec.structs.replace(error, signature="diagnostic/another/one/12345678")
        whole = msgspec.structs.replace(failure, also=(*failure.also, never))
        bundle.write(tmp_path / "repro", report(whole), {"repro.mlir": both})
        found = self.check(tmp_path / "repro", stub)
        assert found.same and found.script == 0
        settled = settle(bundle.read(tmp_path / "repro"), found)
        assert settled.verified
        assert [one.signature for one in settled.failure.also] == [error.signature]
        (tmp_path / "repro/repro.mlir").write_text(ERROR)
        assert "it fails in another way" in self.check(tmp_path / "repro", stub).why

    @pytest.mark.slow
    def test_tells_that_it_is_gone(self, folder: Path, stub: Path) -> None:
        (folder / "repro.mlir").write_text("// fine\n")
        found = self.check(folder, stub)
        assert found.why == ("repro.mlir: it passes with 9.9.0; run.sh ends with 1")

    @pytest.mark.slow
    def test_takes_a_step_that_should_pass_for_no_failure(self, tmp_path: Path, stub: Path) -> None:
        failure = classify(next(e for e in ENTRIES if e.bug == "run-f64"))
        one = bundle.level("mlir", run=bundle.run_command("main", "local-task", ()))
        bundle.write(tmp_path / "repro", report(failure, one), {"repro.mlir": OTHER})
        found = self.check(tmp_path / "repro", stub)
        assert not found.levels[0].same
        assert "an earlier step fails" in found.levels[0].why
        assert found.script == 125

    @pytest.mark.slow
    def test_asks_more_than_once_of_what_comes_and_goes(
        self, tmp_path: Path, crash: Failure
    ) -> None:
        stub = stub_release(tmp_path / "stub")
        real = stub.with_name("real")
        stub.rename(real)
        count = tmp_path / "count"
        stub.write_text(
            f"#!/bin/sh\ncase $1 in -*) ;; *) echo run >>{count} ;; esac\n"
            f"[ ! -e {count} ] || [ $(($(wc -l <{count}) % 2)) = 0 ] || exec true\n"
            f'exec {real} "$@"\n'
        )
        stub.chmod(0o755)
        bundle.write(tmp_path / "repro", report(crash, rate=0.5), {"repro.mlir": CRASH})
        assert self.check(tmp_path / "repro", stub).same

    @pytest.mark.slow
    def test_runs_again_what_has_changed_since_it_was_checked_ahead(
        self, tmp_path: Path, error: Failure
    ) -> None:
        stub = stub_release(tmp_path / "stub")
        real = stub.with_name("real")
        stub.rename(real)
        stub.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/asked\nexec {real} "$@"\n')
        stub.chmod(0o755)
        release = toolchain.from_directory(tmp_path / "stub")
        levels = [bundle.level("mlir"), bundle.level("dispatch")]
        folder, asked = tmp_path / "repro", tmp_path / "asked"
        bundle.write(folder, report(error, levels[0]), {"repro.mlir": ERROR})
        before = ahead(folder, release)
        runs = []
        for known, text in ((None, ERROR), (before, ERROR), (before, f"{ERROR}// changed\n")):
            asked.unlink()
            files = {"repro.mlir": text, "dispatch.mlir": ERROR}
            bundle.write(folder, report(error, *levels), files)
            found = check(folder, release, known)
            assert found.same, found.why
            runs.append(asked.read_text().split())
        alone, with_check, changed = (ran.count("repro.mlir") for ran in runs)
        assert (with_check, changed) == (alone - 1, alone)
        assert all("dispatch.mlir" in ran for ran in runs)

    def test_checks_nothing_ahead_that_needs_the_machine_alone(
        self, tmp_path: Path, error: Failure
    ) -> None:
        bundle.write(tmp_path / "repro", report(error, rate=0.5), {"repro.mlir": ERROR})
        release = toolchain.from_directory(stub_release(tmp_path / "stub").parents[3])
        assert ahead(tmp_path / "repro", release) is None

    def test_needs_a_reproducer(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"there is no report.json"):
            verify(tmp_path)


MATMUL_F16 = """module @module {
  func.func @main(%a: !torch.vtensor<[64,128],f16>, %b: !torch.vtensor<[128,64],f16>)
      -> !torch.vtensor<[64,64],f16> {
    %0 = torch.aten.matmul %a, %b : !torch.vtensor<[64,128],f16>, !torch.vtensor<[128,64],f16>
      -> !torch.vtensor<[64,64],f16>
    return %0 : !torch.vtensor<[64,64],f16>
  }
}
"""
MATMUL_F16_PYTORCH = """import torch


class Module(torch.nn.Module):
    def forward(self, a, b):
        return torch.ops.aten.matmul.default(a, b)


def model():
    return Module().eval()


def inputs():
    return (torch.zeros(64, 128, dtype=torch.float16), torch.zeros(128, 64, dtype=torch.float16))


if __name__ == "__main__":
    import sys

    from iree.turbine import aot

    aot.export(model(), args=inputs()).save_mlir(sys.argv[1])
"""
SUBTRACT_I8 = """module @module {
  func.func @main(%a: !torch.vtensor<[4,8],si8>) -> !torch.vtensor<[4,8],si8> {
    %eight = torch.constant.int 8
    %one = torch.constant.int 1
    %0 = torch.aten.sub.Scalar %a, %eight, %one
      : !torch.vtensor<[4,8],si8>, !torch.int, !torch.int -> !torch.vtensor<[4,8],si8>
    return %0 : !torch.vtensor<[4,8],si8>
  }
}
"""
ADD_F64 = """module @module {
  func.func @main(%a: !torch.vtensor<[3],f64>) -> !torch.vtensor<[3],f64> {
    %one = torch.constant.int 1
    %0 = torch.aten.add.Tensor %a, %a, %one
      : !torch.vtensor<[3],f64>, !torch.vtensor<[3],f64>, !torch.int -> !torch.vtensor<[3],f64>
    return %0 : !torch.vtensor<[3],f64>
  }
}
"""


@pytest.mark.real
class TestRealFailures:
    @pytest.fixture
    def installed(self) -> dict[str, str]:
        here = toolchain.installed()
        return {"release": here.version, "revision": here.revision}

    def test_a_diagnostic_also_from_pytorch(
        self, tmp_path: Path, installed: dict[str, str]
    ) -> None:
        compiler = toolchain.installed().compiler
        failure = failure_of(MATMUL_F16, tmp_path / "of", compiler, *VULKAN)
        levels = (bundle.level("mlir", VULKAN), bundle.level("pytorch", VULKAN))
        files = {"repro.mlir": MATMUL_F16, "repro.py": MATMUL_F16_PYTORCH}
        bundle.write(tmp_path / "repro", report(failure, *levels, **installed), files)
        found = verify(tmp_path / "repro")
        assert found.same, found.why
        assert [c.level.name for c in found.levels] == ["mlir", "pytorch"]

    def test_a_crash_under_the_wheels_own_wrapper(
        self, tmp_path: Path, installed: dict[str, str]
    ) -> None:
        compiler = toolchain.installed().compiler
        failure = failure_of(SUBTRACT_I8, tmp_path / "of", compiler, *CPU)
        one = bundle.level("mlir", CPU)
        files = {"repro.mlir": SUBTRACT_I8}
        bundle.write(tmp_path / "repro", report(failure, one, **installed), files)
        found = verify(tmp_path / "repro")
        assert found.same, found.why
        wrapper = Path(sys.executable).with_name("iree-compile")
        answer = ask(tmp_path / "repro", IREE_COMPILE=wrapper)
        assert answer == Answer(0, f"reproduces: {failure.signature}\n")

    def test_a_release_that_cannot_be_had_is_named_with_the_one_that_is_asked(
        self, tmp_path: Path, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        here = toolchain.installed()
        failure = failure_of(SUBTRACT_I8, tmp_path / "of", here.compiler, *CPU)
        made = report(failure, bundle.level("mlir", CPU), release="99.0.0", revision="unknown")
        bundle.write(tmp_path / "repro", made, {"repro.mlir": SUBTRACT_I8})
        done = CliRunner().invoke(cli, ["verify", str(tmp_path / "repro")])
        assert done.exit_code == 0, done.output
        for words in ("release 99.0.0, which showed the failure", "is not installed"):
            assert words in done.output
        assert f"used instead: {here.version}" in done.output
        assert "installing IREE 99.0.0" in done.output
        assert done.output.splitlines()[-1].startswith("took ")
        found = CliRunner().invoke(cli, ["verify", str(tmp_path / "repro"), "--json"]).stdout
        document = msgspec.json.decode(found)
        assert document["release"] == here.version
        assert "no release 99.0.0" in document["unavailable"]
        assert {"start", "install", "verify"} <= set(document["took"]["parts"])

    def test_a_module_that_does_not_run(self, tmp_path: Path, installed: dict[str, str]) -> None:
        entry = next(e for e in ENTRIES if e.bug == "run-f64")
        (tmp_path / "0.bin").write_bytes(bytes(24))
        given = [Input(Tensor(dtype="f64", shape=(3,), file="0.bin"), tmp_path / "0.bin")]
        one = bundle.level("mlir", CPU, run=bundle.run_command("main", "local-sync", given))
        failure = msgspec.structs.replace(classify(entry), phase="run")
        files = {"repro.mlir": ADD_F64}
        bundle.write(tmp_path / "repro", report(failure, one, **installed), files, given)
        found = verify(tmp_path / "repro")
        assert found.same, found.why
