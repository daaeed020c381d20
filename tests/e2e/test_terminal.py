"""What commands show on a terminal, at work and when they are done, beside a pipe's lines."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest
from driver import Shown, pilot, start, terminal
from fake import stub_release

from iree_pilot.pipeline.cli.boundary import UNHEARD
from iree_pilot.pipeline.cli.display import live as lives
from iree_pilot.pipeline.cli.display.live import Live
from iree_pilot.pipeline.cli.display.screen import Screen
from iree_pilot.pipeline.inspect.executables import Compiling
from iree_pilot.pipeline.toolchain.phases import Phase

WIDTHS = (80, 140)


class Desk:
    """A working directory with a stub release and a program."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        stub_release(directory / "release")
        self.write("module {\n}\n")

    def write(self, text: str) -> None:
        (self.directory / "a.mlir").write_text(text)

    def show(self, *arguments: str, columns: int = 80, **env: str) -> Shown:
        words = (*arguments, "--release", str(self.directory / "release"))
        return terminal(*words, columns=columns, env=env, cwd=self.directory)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


class TestCompile:
    @pytest.mark.parametrize("columns", WIDTHS)
    def test_breaks_no_line_but_paths(self, desk: Desk, columns: int) -> None:
        shown = desk.show("compile", "a.mlir", "-t", "llvm-cpu", columns=columns)
        assert shown.code == 0
        assert [one for one in shown.lines if len(one) > columns and "/" not in one] == []

    def test_goes_on_with_a_path_below_the_text_of_its_line(self, desk: Desk) -> None:
        shown = desk.show("compile", "a.mlir", "-t", "llvm-cpu")
        (path,) = [one for one in shown.lines if one.endswith("/module.vmfb")]
        assert path.startswith("  /"), "and it is whole"

    def test_shows_the_program_that_targets_share_once(self, desk: Desk) -> None:
        shown = desk.show("bisect", "a.mlir", "-t", "llvm-cpu,hip:gfx942")
        assert len([line for line in shown.lines if line.startswith("a.mlir  read ")]) == 1

    def test_says_what_it_does_before_anything_else(self, desk: Desk) -> None:
        shown = desk.show("compile", "a.mlir", "-t", "llvm-cpu")
        written = "".join(shown.pieces)
        steps = ("checking the compiler", "reading a.mlir", "llvm-cpu: compiling")
        # What is over before the next picture is drawn is not seen.
        said = [at for what in steps if (at := written.find(what)) >= 0]
        assert said == sorted(said)
        assert said[0] < written.index("for host")
        assert "looking for" not in shown.text, "it is gone when it is done"

    def test_tells_what_took_how_long_once(self, desk: Desk) -> None:
        desk.write("// stub: error-at flow no\n")
        shown = desk.show("compile", "a.mlir", "-t", "llvm-cpu")
        (told,) = [line for line in shown.lines if line.startswith("took ")]
        assert "compile " in told
        (step,) = [line for line in shown.lines if line.startswith("  compile    failed")]
        (row,) = [line for line in shown.lines if line.startswith("llvm-cpu failed")]
        assert step.removeprefix("  compile    failed ") in row

    def test_shows_commands_of_what_failed_by_what_they_do(self, desk: Desk) -> None:
        desk.write("// stub: error-at flow no\n")
        shown = desk.show("compile", "a.mlir", "-t", "llvm-cpu")
        labels = [line.split("$")[0].strip() for line in shown.lines if " $ " in line]
        assert labels == ["compile", "resume"]

    def test_shows_other_commands_when_asked(self, desk: Desk) -> None:
        plain = desk.show("compile", "a.mlir", "-t", "llvm-cpu")
        verbose = desk.show("compile", "a.mlir", "-t", "llvm-cpu", "-v")
        assert " $ " not in plain.text
        assert "    compile   $ " in verbose.text

    def test_tells_what_two_targets_share_once(self, desk: Desk) -> None:
        desk.write("// stub: error-at flow 'test.bad' op is not supported\n")
        words = ("compile", "a.mlir", "-t", "llvm-cpu,hip:gfx942")
        shown = desk.show(*words)
        for once in ("    op ", "    location ", "    message ", "    signature ", " $ "):
            assert len([line for line in shown.lines if once in line]) == 1, once
        told = "    as for  llvm-cpu: kind, phase, op, location, message, signature"
        assert told in shown.lines
        assert any(line.startswith("next: iree-pilot bisect a.mlir") for line in shown.lines)
        whole = desk.show(*words, "-v")
        labels = [line.split("$")[0].strip() for line in whole.lines if " $ " in line]
        assert labels == ["compile", "resume"] * 2

    def test_has_no_colour_where_nobody_wants_any(self, desk: Desk) -> None:
        desk.write("// stub: error-at flow no\n")
        plain = desk.show("compile", "a.mlir", "-t", "llvm-cpu", NO_COLOR="1")
        coloured = desk.show("compile", "a.mlir", "-t", "llvm-cpu", NO_COLOR="")
        assert "\x1b[31m" in "".join(coloured.pieces) or "\x1b[1;31m" in "".join(coloured.pieces)
        assert "31m" not in "".join(plain.pieces)
        assert plain.code == coloured.code == 1

    def test_says_that_a_file_was_written(self, desk: Desk) -> None:
        shown = desk.show("compile", "a.mlir", "-t", "llvm-cpu", "-o", "out.vmfb")
        assert "wrote out.vmfb" in shown.lines
        quiet = desk.show("compile", "a.mlir", "-t", "llvm-cpu", "-o", "out.vmfb", "-q")
        assert "wrote" not in quiet.text


class TestPipe:
    def test_a_line_says_when_reading_begins(self, desk: Desk) -> None:
        release = str(desk.directory / "release")
        done = pilot(
            "compile", "a.mlir", "-t", "llvm-cpu", "--release", release, cwd=desk.directory
        )
        assert done.out.splitlines()[0] == "reading a.mlir"
        assert ("\x1b" in done.out, done.err) == (False, "")

    def test_json_has_stdout_to_itself_and_says_what_took_how_long(self, desk: Desk) -> None:
        release = str(desk.directory / "release")
        started = time.monotonic()
        done = pilot(
            *("compile", "a.mlir", "-t", "llvm-cpu", "-o", "out.vmfb", "--json"),
            *("--release", release),
            cwd=desk.directory,
        )
        took = done.document["took"]
        assert 0 < took["seconds"] < time.monotonic() - started + 0.05
        assert sum(took["parts"].values()) == pytest.approx(took["seconds"])
        assert {"start", "trace", "compile"} <= set(took["parts"])
        assert done.err == "wrote out.vmfb\n"

    def test_a_label_has_one_value(self, desk: Desk) -> None:
        desk.write("// stub: error-at flow no\n")
        release = str(desk.directory / "release")
        words = ("compile", "a.mlir", "-t", "llvm-cpu", "--release", release, "--json")
        document = pilot(*words, cwd=desk.directory).document
        parts, (case,) = document["took"]["parts"], document["cases"]
        steps = {step["name"]: step["seconds"] for step in case["steps"] if not step["cached"]}
        assert parts["compile"] == pytest.approx(case["compile_seconds"]) == steps["compile"]
        assert parts["trace"] == pytest.approx(steps["trace"])
        assert parts["confirm"] > 0
        assert sum(parts.values()) == pytest.approx(document["took"]["seconds"])

    def test_no_step_is_silent_for_more_than_5_seconds(self, desk: Desk) -> None:
        goes_on = desk.directory / "goes-on"
        desk.write(f"// stub: wait-at flow {goes_on}\n")
        words = ("compile", "a.mlir", "-t", "llvm-cpu", "--release", desk.directory / "release")
        with start(*words, cwd=desk.directory) as command:
            assert command.stdout
            said = time.monotonic()
            for line in command.stdout:
                silent, said = time.monotonic() - said, time.monotonic()
                assert silent < 5.5, line
                if "still" in line:
                    goes_on.touch()
            assert command.wait() == 0
        assert goes_on.exists(), "a line came while it waited"
        assert line.startswith("took ")

    def test_json_has_such_lines_on_stderr(self, desk: Desk) -> None:
        goes_on = desk.directory / "goes-on"
        desk.write(f"// stub: wait-at flow {goes_on}\n")
        words = ("compile", "a.mlir", "-t", "llvm-cpu", "--release", desk.directory / "release")
        with start(*words, "--json", cwd=desk.directory) as command:
            assert command.stdout and command.stderr
            said = command.stderr.readline()
            goes_on.touch()
            document = json.loads(command.stdout.read())
            assert command.wait() == 0
        assert said.startswith("  llvm-cpu: still compiling")
        assert document["cases"][0]["status"] == "compiled"

    def test_quiet_has_no_such_lines(self, desk: Desk) -> None:
        desk.write("// stub: hang-at flow\n")
        release = str(desk.directory / "release")
        done = pilot(
            *("compile", "a.mlir", "-t", "llvm-cpu", "--time-limit", "6s", "-q"),
            *("--release", release),
            cwd=desk.directory,
        )
        assert (done.code, done.err) == (1, "")
        assert "still" not in done.out

    @pytest.mark.parametrize("place", ["-", "/dev/stdout"])
    def test_a_module_on_stdout_is_alone_there(self, desk: Desk, place: str) -> None:
        words = ("compile", "a.mlir", "-t", "llvm-cpu", "--release", desk.directory / "release")
        assert pilot(*words, "-o", "out.vmfb", cwd=desk.directory).code == 0
        done = pilot(*words, "-o", place, cwd=desk.directory)
        assert (done.code, done.out) == (0, (desk.directory / "out.vmfb").read_text())
        assert done.err.splitlines()[0] == "reading a.mlir"
        desk.write("// stub: error-at flow it is bad\n")
        failed = pilot(*words, "-o", place, cwd=desk.directory)
        assert (failed.code, failed.out, "it is bad" in failed.err) == (1, "", True)

    def test_a_reader_that_goes_ends_the_command(self, desk: Desk) -> None:
        goes_on = desk.directory / "goes-on"
        desk.write(f"// stub: wait-at flow {goes_on}\n")
        words = ("compile", "a.mlir", "-t", "llvm-cpu", "--release", desk.directory / "release")
        with start(*words, cwd=desk.directory) as command:
            assert command.stdout
            assert any("still" in line for line in command.stdout)
            command.stdout.close()
            goes_on.touch()
            assert command.wait() == UNHEARD

    def test_other_tables_are_not_cut(self, tmp_path: Path) -> None:
        wide = pilot("models", cwd=tmp_path)
        assert "a loop over experts: fails to trace in MixtralExperts\n" in wide.out

    def test_a_fifo_is_said_to_wait_for_its_reader(self, desk: Desk) -> None:
        os.mkfifo(desk.directory / "fifo")
        words = ("compile", "a.mlir", "-t", "llvm-cpu", "--release", desk.directory / "release")
        with start(*words, "--json", "-o", "fifo", cwd=desk.directory) as command:
            assert command.stderr
            said = next(line for line in command.stderr if "still" not in line)
            assert said == "fifo is a FIFO: waiting for somebody to read it\n"
            assert (desk.directory / "fifo").read_bytes()
            assert command.stderr.read() == "wrote fifo\n"
            assert command.wait() == 0


@pytest.mark.real
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("command", ["models", "models llama", "targets", "doctor"])
def test_lists_fit(tmp_path: Path, command: str, columns: int) -> None:
    shown = terminal(*command.split(), columns=columns, cwd=tmp_path)
    assert shown.code in (0, 3)
    assert [one for one in shown.lines if len(one) > columns and "/" not in one] == []


class Noting:
    """A console of some width, on a terminal or not, and what is printed on it."""

    def __init__(self, width: int, *, tty: bool) -> None:
        self.file = io.StringIO()
        console = Screen(file=self.file, width=width, force_terminal=tty, color_system=None)
        self.live = Live(console, quiet=False, verbose=False)

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()


def surveyed(ended: int, *slow: str) -> Compiling:
    return Compiling(
        total=92,
        ended=ended,
        slowest_seconds=0.1,
        unending="mmt4d",
        limit_seconds=10.0,
        slow=slow,
    )


def test_an_executable_that_does_not_end_is_told_once() -> None:
    noting = Noting(200, tty=False)
    for state in (surveyed(39), surveyed(40, "a"), surveyed(41, "a", "b")):
        noting.live.compiling("vulkan", state)
    assert noting.lines == [
        "  vulkan: executable mmt4d was still compiling after 10 s of processor time, alone"
    ]


@pytest.mark.parametrize(
    ("width", "tty", "dialects"),
    [
        (80, True, "linalg:15731 ..."),
        (100, True, "linalg:15731 arith:8006 tensor:2001 ..."),
        (140, True, "linalg:15731 arith:8006 tensor:2001 util:900 ..."),
        (140, False, "linalg:15731 arith:8006 tensor:2001 util:900 hal:1"),
    ],
)
def test_a_phase_drops_dialects_that_have_no_room(width: int, tty: bool, dialects: str) -> None:
    noting = Noting(width, tty=tty)
    ops = {"linalg": 15731, "arith": 8006, "tensor": 2001, "util": 900, "hal": 1}
    noting.live.phase("vulkan", Phase(name="input", seconds=1.45, bytes=3_380_000, ops=ops))
    noting.live.close()
    line = next(line for line in noting.lines if "ops" in line)
    assert line == f"  {'input':<26}  1.45 s   3.38 MB   26639 ops  {dialects}"
    assert len(line) <= width


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("vulkan: compiling, flow is done", "  vulkan: still compiling, flow is done (0 s in all)"),
        ("13 operations left: trying half", "  still 13 operations left: trying half (0 s in all)"),
    ],
)
def test_a_pipe_is_told_what_still_goes_on(what: str, line: str) -> None:
    doing = lives.Doing(Noting(80, tty=False).live.took)
    doing.begin(what)
    assert doing.line.startswith(line)


def test_the_line_at_the_bottom_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    noting = Noting(40, tty=True)
    doing = lives.Doing(noting.live.took)
    doing.begin("vulkan: compiling, executable-sources is done")
    started = time.monotonic()
    monkeypatch.setattr(lives.time, "monotonic", lambda: started + 75.0)
    noting.live.console.print(doing)
    (line,) = noting.lines
    assert "…" in line
    assert line.endswith(" is done  75 s")
    assert len(line) <= 40


@pytest.mark.real
def test_json_errors_are_the_only_thing_on_stdout(desk: Desk) -> None:
    done = pilot("compile", "b.mlir", "-t", "llvm-cpu", "--json", cwd=desk.directory)
    assert json.loads(done.out)["error"]["exit_code"] == 2
    assert os.linesep in done.err
