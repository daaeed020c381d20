"""Finding workarounds with a stand-in for the compiler: what is tried, told, kept and pasted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from driver import Done, pilot
from fake import stub_release

from iree_pilot.repro.workarounds.find_workarounds import Workarounds

FLAGS = [
    *("compile-from", "compile-to", "dump-compilation-phases-to", "iree-hal-target-device"),
    *("iree-rocm-target", "iree-opt-level", "iree-opt-data-tiling", "iree-opt-const-eval"),
]
PROGRAM = """\
// stub: error-at flow failed to legalize operation 'test.op'
module {
  func.func @main(%arg0: tensor<4xf32>) -> tensor<4xf32> {
    return %arg0 : tensor<4xf32>
  }
}
"""


class Desk:
    """A program that fails at `flow`, and a compiler that certain flags get past it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.release = directory / "release"
        self.starts = directory / "starts"
        (directory / "model.mlir").write_text(PROGRAM)
        self.mends()

    def mends(self, *given: tuple[Sequence[str], str]) -> None:
        told = [{"given": [*words], "then": then} for words, then in given]
        stub_release(self.release, flags=FLAGS, mends=told)

    def workaround(self, *words: str, env: Mapping[str, str | Path] | None = None) -> Done:
        options = ("-t", "hip:gfx942", "--release", str(self.release), *words)
        return pilot(
            "workaround",
            "model.mlir",
            *options,
            cwd=self.directory,
            env={"IREE_STUB_STARTS": self.starts, **(env or {})},
        )

    def found(self, *words: str, code: int = 0) -> Workarounds:
        done = self.workaround("--json", *words)
        assert done.code == code, done.err
        return msgspec.json.decode(done.out, type=Workarounds)

    def compiled(self) -> int:
        """How many compiles with an output there were until now."""
        lines = self.starts.read_text().splitlines() if self.starts.is_file() else []
        return sum(" -o " in line and "iree-compile" in line for line in lines)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


class TestOne:
    def test_the_flag_that_gets_past_it_is_a_command_to_paste(self, desk: Desk) -> None:
        desk.mends((["--iree-opt-data-tiling=false"], ""))
        found = desk.found()
        (answer,) = found.answers
        assert found.status == "found"
        assert answer.names == ("iree-opt-data-tiling=false",)
        assert answer.command == (
            *("iree-pilot", "run", "model.mlir", "-t", "hip:gfx942"),
            *("--", "--iree-opt-data-tiling=false"),
        )
        assert "--iree-opt-data-tiling=false" in answer.compile
        assert {one.state for one in found.tried} == {"same", "compiles"}

    def test_rewritten_programs_may_go_beside_the_source(self, desk: Desk) -> None:
        desk.mends((["--iree-opt-data-tiling=false"], ""))
        assert desk.found("-o", ".").status == "found"

    def test_what_was_only_compiled_says_so(self, desk: Desk) -> None:
        desk.mends((["--iree-opt-data-tiling=false"], ""))
        (answer,) = desk.found().answers
        assert answer.state == "compiles"
        assert answer.why.startswith("compiled, not run: ")
        out = desk.workaround().out
        assert "compiles, not run here" in out
        assert "whether it agrees is not known" in out
        assert out.rstrip().endswith("-t hip:gfx942 -- --iree-opt-data-tiling=false")

    def test_the_users_own_flag_of_that_name_gives_way(self, desk: Desk) -> None:
        desk.mends((["--iree-opt-level=O1"], ""))
        done = desk.workaround("--json", "--", "--iree-opt-level=O3")
        document = json.loads(done.out)
        assert document["answers"][0]["names"] == ["iree-opt-level=O1"]
        assert document["answers"][0]["command"][-2:] == ["--", "--iree-opt-level=O1"]

    def test_only_flags_that_the_release_lists_are_tried(self, desk: Desk) -> None:
        tried = {name for one in desk.found(code=1).tried for name in one.names}
        flags = {name.partition("=")[0] for name in tried if name.startswith("iree-")}
        assert flags == {
            "iree-opt-level",
            "iree-opt-data-tiling",
            "iree-opt-const-eval",
        }


class TestTwo:
    def test_two_are_found_where_no_one_works(self, desk: Desk) -> None:
        first, second = "--iree-opt-const-eval=false", "--iree-opt-level=O0"
        desk.mends(
            ([first, second], ""),
            ([first], "// stub: error-at hal something else"),
        )
        found = desk.found()
        assert {answer.names for answer in found.answers} == {
            ("iree-opt-const-eval=false", "iree-opt-level=O0")
        }
        further = [one for one in found.tried if one.state == "further"]
        assert further[0].names == ("iree-opt-const-eval=false",)
        assert further[0].phase == "hal"
        lines = desk.workaround().out.splitlines()
        pairs = lines[lines.index("none works alone: two at a time") + 1 :]
        assert pairs[0].split()[0] == "[1/24]"
        assert " + " in pairs[0]


class TestNone:
    def test_it_says_how_far_each_got(self, desk: Desk) -> None:
        desk.mends((["--iree-opt-level=O2"], "// stub: error-at vm something else"))
        done = desk.workaround()
        assert done.code == 1
        assert "no workaround was found" in done.out
        assert "iree-opt-level=O2 got furthest, to vm" in done.out

    def test_a_program_that_does_not_fail_needs_none(self, desk: Desk) -> None:
        (desk.directory / "model.mlir").write_text(PROGRAM.partition("\n")[2])
        found = desk.found(code=1)
        assert found.status == "passes"
        assert found.tried == ()
        assert "there is nothing to work around" in desk.workaround().out

    def test_without_time_it_ends_and_says_so(self, desk: Desk) -> None:
        found = desk.found("--budget", "0.001s", code=1)
        assert not found.complete
        assert found.tried == ()
        assert "the time was over before the first candidate" in found.why

    def test_a_target_has_to_be_named(self, desk: Desk) -> None:
        done = pilot("workaround", "model.mlir", cwd=desk.directory)
        assert done.code == 2
        assert "no target is named" in done.err


class TestKept:
    def test_what_was_tried_is_not_tried_again(self, desk: Desk) -> None:
        before = desk.found(code=1)
        compiled = desk.compiled()
        again = desk.found(code=1)
        assert [one.names for one in again.tried] == [one.names for one in before.tried]
        assert again.compiles == 0
        assert desk.compiled() == compiled

    def test_unless_it_is_asked_anew(self, desk: Desk) -> None:
        before = desk.found(code=1)
        assert desk.found("--fresh", code=1).compiles == before.compiles > 0
