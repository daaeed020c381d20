"""Where the user says that something is written, nothing is destroyed that is no regular file."""

from __future__ import annotations

import ast
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from driver import pilot
from fake import nights, stub_release
from fake.disk import read_only_disk, tiny_disk

from iree_pilot.pipeline import cli
from iree_pilot.pipeline.cli.failures import bisect, reduce, releases_bisect, workaround
from iree_pilot.pipeline.cli.nightly import nightly
from iree_pilot.pipeline.cli.programs import cases, compile, trace
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.nightly.history.history import History
from iree_pilot.pipeline.nightly.judgement import expectations
from iree_pilot.pipeline.nightly.records import Judgement
from iree_pilot.pipeline.nightly.reports import report
from iree_pilot.pipeline.store import outputs
from iree_pilot.pipeline.targets import targets
from iree_pilot.repro.reducer.reduce import Reduced
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Report
from iree_pilot.repro.since_release import question
from iree_pilot.repro.since_release.question import Question
from iree_pilot.repro.workarounds import answers

CLI = Path(cli.__file__).parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fifo(path: Path) -> tuple[threading.Thread, list[bytes]]:
    """Makes a FIFO; reads all that is written into it."""
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    reader.start()
    return reader, read


class TestWrite:
    def test_a_new_file_has_the_mode_that_the_umask_says(self, here: Path) -> None:
        before = os.umask(0o027)
        try:
            outputs.write(here / "new", b"text")
        finally:
            os.umask(before)
        assert (here / "new").read_bytes() == b"text"
        assert stat.S_IMODE((here / "new").stat().st_mode) == 0o640

    def test_a_regular_file_is_replaced_and_keeps_its_mode(self, here: Path) -> None:
        (here / "old").write_text("old")
        (here / "old").chmod(0o600)
        with (here / "old").open() as reader:
            outputs.write(here / "old", "new")
            assert reader.read() == "old", "whoever reads it sees the one or the other"
        assert (here / "old").read_text() == "new"
        assert stat.S_IMODE((here / "old").stat().st_mode) == 0o600
        assert [p.name for p in here.iterdir()] == ["old"]

    def test_a_copy_of_a_file(self, here: Path) -> None:
        (here / "a").write_bytes(b"\0\1" * 3_000_000)
        outputs.write(here / "b", here / "a")
        assert (here / "b").read_bytes() == (here / "a").read_bytes()

    @pytest.mark.parametrize("place", ["file", "elsewhere/file"])
    def test_a_link_stays_a_link(self, here: Path, place: str) -> None:
        (here / "elsewhere").mkdir()
        (here / place).write_text("old")
        (here / "link").symlink_to(place)
        (here / "second").symlink_to("link")
        outputs.write(Path("second"), "new")
        assert (here / "link").is_symlink()
        assert (here / "second").is_symlink()
        assert (here / place).read_text() == "new"

    def test_a_link_to_nothing_makes_what_it_names(self, here: Path) -> None:
        (here / "elsewhere").mkdir()
        (here / "link").symlink_to("elsewhere/file")
        outputs.write(here / "link", "new")
        assert (here / "link").is_symlink()
        assert (here / "elsewhere/file").read_text() == "new"

    def test_a_device_is_written_into(self, here: Path) -> None:
        (here / "null").symlink_to("/dev/null")
        before = Path("/dev/null").stat()
        for path in (Path("/dev/null"), here / "null"):
            outputs.check(path)
            outputs.write(path, "text")
        after = Path("/dev/null").stat()
        assert (before.st_ino, before.st_mode, before.st_rdev) == (
            after.st_ino,
            after.st_mode,
            after.st_rdev,
        )
        assert (here / "null").is_symlink()

    def test_a_full_device_is_the_machines_fault(self) -> None:
        with pytest.raises(EnvironmentFault, match=r"cannot write /dev/full: the disk is full"):
            outputs.write(Path("/dev/full"), "text")
        assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)

    def test_a_fifo_is_written_into(self, here: Path) -> None:
        reader, read = fifo(here / "fifo")
        outputs.write(here / "fifo", "text")
        reader.join(10)
        assert read == [b"text"]
        assert stat.S_ISFIFO((here / "fifo").stat().st_mode)

    def test_what_a_process_has_open_is_written_into(self, here: Path) -> None:
        with (here / "log").open("w+") as log:
            (here / "link").symlink_to(f"/dev/fd/{log.fileno()}")
            outputs.write(here / "link", "text")
            assert log.read() == "text", "not another file of the same name"
        reading, writing = os.pipe()
        outputs.write(Path(f"/dev/fd/{writing}"), "text")
        os.close(writing)
        assert os.read(reading, 9) == b"text"
        os.close(reading)

    def test_a_file_in_a_directory_of_somebody_elses_is_written_into(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (here / "file").write_text("a longer text")

        def refused(**_: Any) -> str:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(outputs.tempfile, "mkdtemp", refused)
        outputs.write(here / "file", "text")
        assert (here / "file").read_text() == "text"
        with pytest.raises(EnvironmentFault, match="Permission denied"):
            outputs.write(here / "new", "text")

    def test_a_failure_leaves_what_was_there(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (here / "file").write_text("old")

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(outputs.os, "fsync", full)
        with pytest.raises(EnvironmentFault, match="the disk is full"):
            outputs.write(here / "file", "new")
        assert {p.name: p.read_text() for p in here.iterdir()} == {"file": "old"}


class TestRefused:
    """Before the work is done."""

    def test_a_directory(self, here: Path) -> None:
        (here / "link").symlink_to(here)
        for path in (here, here / "link"):
            with pytest.raises(UsageError, match="it is a directory"):
                outputs.check(path)

    def test_a_file_where_there_is_no_directory(self, here: Path) -> None:
        with pytest.raises(UsageError, match="there is no directory missing"):
            outputs.check(Path("missing/file"))
        (here / "link").symlink_to(here / "missing/file")
        with pytest.raises(UsageError, match=f"there is no directory {here}/missing"):
            outputs.check(here / "link")

    def test_links_in_a_circle(self, here: Path) -> None:
        (here / "a").symlink_to("b")
        (here / "b").symlink_to("a")
        for refuses in (outputs.check, outputs.directory, outputs.check_regular):
            with pytest.raises(UsageError, match="Too many levels of symbolic links"):
                refuses(here / "a")
        assert (here / "a").is_symlink()

    def test_a_path_through_a_file(self, here: Path) -> None:
        (here / "file").write_text("")
        with pytest.raises(UsageError, match="Not a directory"):
            outputs.check(here / "file/below")

    def test_a_socket(self, here: Path) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("socket")
            with pytest.raises(UsageError, match="it is a socket"):
                outputs.check(here / "socket")

    @pytest.mark.parametrize(
        ("path", "what"), [("/dev/null", "a character device"), ("fifo", "a FIFO"), ("f", "a file")]
    )
    def test_what_is_no_directory(self, here: Path, path: str, what: str) -> None:
        os.mkfifo(here / "fifo")
        (here / "f").write_text("")
        with pytest.raises(UsageError, match=f"{path} is {what}"):
            outputs.directory(Path(path))


#: Each command that takes long, and writes where the user says.
LONG: dict[str, tuple[click.Command, tuple[str, ...]]] = {
    "trace": (trace.command, ("model.py",)),
    "compile": (compile.command, ("model.py",)),
    "bisect": (bisect.command, ("model.py",)),
    "workaround": (workaround.command, ("model.py",)),
    "releases bisect": (releases_bisect.bisect, ("model.py",)),
    "reduce": (reduce.command, ("a.mlir", "--", "true")),
    "nightly report": (nightly.command, ("report",)),
}


class TestWritable:
    """Before the work is done, by trying."""

    def test_nothing_is_left_of_the_trial(self, here: Path) -> None:
        (here / "there").mkdir()
        (here / "file").write_text("old")
        for name in ("there", "file", "new"):
            outputs.check_writable(here / name)
            outputs.check_writable(here / name, replaced=True)
        assert {p.name for p in here.iterdir()} == {"there", "file"}
        assert not any((here / "there").iterdir())
        assert (here / "file").read_text() == "old"

    def test_devices_and_fifos_are_left_alone(self, here: Path) -> None:
        os.mkfifo(here / "fifo")
        for path in (Path("/dev/null"), here / "fifo"):
            outputs.check_writable(path)

    def test_a_read_only_file_system(self, here: Path) -> None:
        with read_only_disk(here / "ro") as disk:
            for path in (disk / "new", disk):
                with pytest.raises(EnvironmentFault, match=f"cannot write {path}: Read-only") as e:
                    outputs.check_writable(path)
                assert e.value.advice == "Name another place."

    def test_a_directory_whose_place_another_takes(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (here / "there").mkdir()
        tried = []

        def refused(*, prefix: str, dir: Path) -> str:
            tried.append(dir)
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(outputs.tempfile, "mkdtemp", refused)
        for replaced in (False, True):
            with pytest.raises(EnvironmentFault, match="Permission denied"):
                outputs.check_writable(here / "there", replaced=replaced)
        assert tried == [here / "there", here]

    def test_a_file_in_a_directory_of_somebody_elses(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (here / "file").write_text("old")

        def refused(**_: Any) -> str:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(outputs.tempfile, "mkdtemp", refused)
        outputs.check_writable(here / "file")  # it is written into
        with pytest.raises(EnvironmentFault, match="Permission denied"):
            outputs.check_writable(here / "new")

    @pytest.mark.parametrize(("command", "words"), LONG.values(), ids=LONG)
    def test_each_command_asks_before_it_begins(
        self, here: Path, command: click.Command, words: tuple[str, ...]
    ) -> None:
        Path("model.py").write_text("raise SystemExit('it began')")
        at = words.index("--") if "--" in words else len(words)
        given = [*words[:at], "-o", "/proc/x", *words[at:]]
        done = CliRunner().invoke(command, given)
        assert isinstance(done.exception, EnvironmentFault), done.output
        assert done.exception.message == "cannot write /proc/x: nothing can be made there"

    def test_reduce_asks_for_the_place_that_nobody_named(self, here: Path) -> None:
        done = CliRunner().invoke(reduce.command, ["/proc/self/status", "--", "true"])
        assert isinstance(done.exception, EnvironmentFault), done.output

    def test_completing_the_words_makes_nothing(self, here: Path) -> None:
        context = click.Context(trace.command, resilient_parsing=True)
        option = next(one for one in trace.command.params if one.name == "output")
        assert option.type.convert("/proc/x", option, context) == "/proc/x"


def test_a_directory_is_found_through_links(here: Path) -> None:
    (here / "link").symlink_to("there/new")
    assert outputs.directory(Path("link")) == here / "there/new"
    assert outputs.directory(here) == here


MODULE = "module"


def delivered(path: Path) -> None:
    Path(MODULE).write_text("module")
    cases._deliver(Path(MODULE), str(path), quiet=True)


def reduced(path: Path) -> None:
    Path("program.mlir").write_text("func.func @f() { return }")
    Path("small.mlir").write_text("small")
    made = Reduced(mlir="small.mlir", ops=(), minimal=True, calls=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iree_pilot.repro.reducer.reduce.reduce", lambda *_, **__: made)
        invoked(reduce.command, "program.mlir", "-o", str(path), "--", "true")


def reported(path: Path) -> None:
    with History(Path("history.db")) as history:
        nights.night(history, [nights.outcome()])
    words = ("--database", "history.db", "--format", "junit", "-o", str(path))
    invoked(nightly.command, "report", *words)


def published(path: Path) -> None:
    with History(Path("history.db")) as history:
        nights.night(history, [nights.outcome()])
        nightly._publish(report.of(history, history.run(None)), str(path), None, quiet=True)


def published_as_junit(path: Path) -> None:
    with History(Path("history.db")) as history:
        nights.night(history, [nights.outcome()])
        nightly._publish(report.of(history, history.run(None)), None, str(path), quiet=True)


def exported(path: Path) -> None:
    with History(Path("history.db")) as history:
        nights.night(history, [nights.outcome()])
    invoked(nightly.command, "export", "--database", "history.db", str(path))


def accepted(path: Path) -> None:
    news = Judgement(case="a | vulkan", verdict="new failure", signature="a/b/c")
    expectations._write(path, "# known\n")
    if path.is_file():  # what is no file has nothing to be read again
        expectations.accept(path, [news], expectations.Explanation("known"))


def invoked(command: click.Command, *words: str) -> None:
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    if done.exit_code == UsageError.exit_code:
        raise UsageError(done.output)
    assert done.exit_code == 0, done.output


#: Everything that writes a file where the user says.
WRITERS = (
    delivered,
    reduced,
    reported,
    published,
    published_as_junit,
    exported,
    accepted,
)


@pytest.mark.parametrize("writer", WRITERS)
class TestEachCommand:
    def test_makes_a_file(self, here: Path, writer: Callable[[Path], None]) -> None:
        writer(here / "out")
        assert (here / "out").stat().st_size > 0
        writer(here / "out")
        assert stat.S_ISREG((here / "out").lstat().st_mode)

    def test_follows_links(self, here: Path, writer: Callable[[Path], None]) -> None:
        (here / "link").symlink_to("file")
        writer(Path("link"))
        assert (here / "link").is_symlink()
        assert (here / "file").stat().st_size > 0

    def test_writes_into_devices(self, here: Path, writer: Callable[[Path], None]) -> None:
        (here / "null").symlink_to("/dev/null")
        writer(here / "null")
        writer(Path("/dev/null"))
        assert (here / "null").is_symlink()
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)

    def test_writes_into_fifos(self, here: Path, writer: Callable[[Path], None]) -> None:
        reader, read = fifo(here / "fifo")
        writer(here / "fifo")
        reader.join(10)
        assert len(read[0]) > 0
        assert stat.S_ISFIFO((here / "fifo").stat().st_mode)

    def test_refuses_a_directory(self, here: Path, writer: Callable[[Path], None]) -> None:
        (here / "full").mkdir()
        (here / "full" / "thesis.txt").write_text("years")
        with pytest.raises(UsageError, match="is a directory"):
            writer(here / "full")
        assert [p.name for p in (here / "full").iterdir()] == ["thesis.txt"]


def traced(path: Path) -> None:
    made = Path("made")
    made.mkdir(exist_ok=True)
    (made / "program.json").write_text("{}")
    trace._check(outputs.directory(path))
    outputs.replace_directory(path, made, ["manifest.json"])


def asked(path: Path) -> None:
    job = Job(source=Source(text="a.mlir", kind="mlir", path="/a.mlir"))
    question.write(path, Question(job=job, target=targets.parse("llvm-cpu")), ())


def worked_around(path: Path) -> None:
    program = Path("made.mlir").absolute()
    program.write_text("rewritten")
    loaded: Any = SimpleNamespace(mlir=program, directory=str(program.parent))
    candidate: Any = SimpleNamespace(name="no fusion", edit=True)
    answers._placed(loaded, (candidate,), path)


def handed_on(path: Path) -> None:
    bundle.write(path, REPORT, {"repro.mlir": "func.func @f() { return }"})


REPORT = Report(
    failure=Failure(kind="diagnostic", message="it failed", signature="a/b/c", phase="flow"),
    target="llvm-cpu",
    flags=(),
    release="9.9.0",
    revision="unknown",
    source="model.py",
    command=("iree-compile",),
    program="",
    ops=1,
    op_names=("a.b",),
    oracle_calls=1,
    seconds=1,
    minimal=True,
    verified=True,
    time_limit=20,
    levels=(bundle.level("mlir"),),
)


@pytest.mark.parametrize("writer", [traced, asked, worked_around, handed_on])
class TestEachCommandWithAFolder:
    def test_follows_links(self, here: Path, writer: Callable[[Path], None]) -> None:
        (here / "there").mkdir()
        (here / "link").symlink_to("there")
        (here / "dangling").symlink_to("new")
        for name in ("link", "dangling"):
            writer(Path(name))
            writer(Path(name))
            assert (here / name).is_symlink()
            assert any((here / name).iterdir())

    @pytest.mark.parametrize("what", ["/dev/null", "fifo", "file", "link", "circle"])
    def test_refuses_what_is_none(
        self, here: Path, what: str, writer: Callable[[Path], None]
    ) -> None:
        os.mkfifo(here / "fifo")
        (here / "file").write_text("years")
        (here / "link").symlink_to("fifo")
        (here / "circle").symlink_to("circle")
        before = Path(what).lstat()
        with pytest.raises(UsageError):
            writer(Path(what))
        after = Path(what).lstat()
        assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


@pytest.mark.parametrize("writer", [traced, asked, worked_around, handed_on])
def test_a_folder_on_a_full_disk(here: Path, writer: Callable[[Path], None]) -> None:
    with tiny_disk(here / "full", 4096) as disk:
        (disk / "filler").write_bytes(bytes(4096))
        with pytest.raises(EnvironmentFault, match="the disk is full") as caught:
            writer(disk / "out")
        assert caught.value.message.startswith(f"cannot write {disk / 'out'}")
        assert "Free some space there, or name another" in caught.value.advice
        assert [p.name for p in disk.iterdir() if p.name.startswith(".")] == []


class TestReplaceDirectory:
    def test_takes_the_place_of_the_old_one(self, here: Path) -> None:
        (here / "made/data").mkdir(parents=True)
        (here / "made/data/x.bin").write_text("x")
        (here / "made/manifest.json").write_text("{}")
        (here / "out").mkdir()
        (here / "out/old").write_text("old")
        outputs.replace_directory(Path("out"), Path("made"), ["manifest.json"])
        assert [p.name for p in sorted((here / "out").rglob("*"))] == ["data", "x.bin"]
        assert {p.name for p in here.iterdir()} == {"made", "out"}

    def test_a_failure_leaves_what_was_there(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (here / "made").mkdir()
        (here / "out").mkdir()
        (here / "out/old").write_text("old")
        replace = Path.replace

        def busy(self: Path, target: Path) -> Path:
            if self.name == "new":
                raise OSError(16, "Device or resource busy")
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", busy)
        with pytest.raises(EnvironmentFault, match="cannot write out: Device or resource busy"):
            outputs.replace_directory(Path("out"), Path("made"))
        assert (here / "out/old").read_text() == "old"
        assert {p.name for p in here.iterdir()} == {"made", "out"}


def test_a_history_is_a_file(here: Path) -> None:
    """A damaged one is moved aside: /dev/null must not be."""
    for path in ("/dev/null", "/dev/zero"):
        with pytest.raises(UsageError, match=f"{path} is a character device"):
            History(Path(path))
    assert not Path("/dev/null.lock").exists()


def test_of_a_damaged_history_that_is_a_link_the_file_is_moved_aside(here: Path) -> None:
    (here / "disk").mkdir()
    (here / "disk/history.db").write_bytes(b"nothing that SQLite wrote" * 100)
    (here / "link.db").symlink_to("disk/history.db")
    with History(here / "link.db") as history:
        assert history.set_aside is not None
        assert history.set_aside.parent == here / "disk"
        assert history.set_aside.read_bytes().startswith(b"nothing that SQLite wrote")
    assert (here / "link.db").is_symlink()
    assert stat.S_ISREG((here / "disk/history.db").lstat().st_mode)


@pytest.mark.real
def test_compile_writes_through_a_link_and_into_a_device(here: Path) -> None:
    stub_release(here / "release")
    Path("a.mlir").write_text("func.func @main() { return }\n")
    Path("link").symlink_to("module")
    for path in ("link", "/dev/null"):
        words = ("-t", "hip:gfx942", "--release", "./release", "-q", "-o", path)
        done = pilot("compile", "a.mlir", *words)
        assert done.code == 0, done.err
    assert Path("link").is_symlink()
    assert Path("module").stat().st_size > 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_the_command_line_writes_files_in_no_other_way() -> None:
    """Whoever adds an option that names a file finds the one way to write it."""
    ways = ("write_text", "write_bytes", "copyfile", "copy", "copy2", "move", "rename")
    own = {"boundary.py": ["write_text"]}  # the log of a crash, in the data directory
    for file in sorted(CLI.rglob("*.py")):
        tree = ast.parse(file.read_text())
        called = [
            node.func.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        ]
        assert [name for name in called if name in ways] == own.get(file.name, []), file
