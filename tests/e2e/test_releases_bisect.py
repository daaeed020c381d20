"""`iree-pilot releases bisect`, with stand-ins for releases and, once, with two real ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from driver import PROGRAM, Done, pilot, start
from fake import dumps, stub_release
from fake.processes import wait_until
from fake.wheels import add_release
from places import CASES

#: A check that old releases do not know, in a program that stand-ins fail on by the word `bad`.
PROGRAM_TEXT = """\
// bad
module {
    torch.aten._assert_tensor_metadata %0, %none : !torch.vtensor<[4],f32>, !torch.none
    "test.op"() : () -> ()
}
"""
LLVMPIPE = (
    '#hal.executable.target<"b", "f", {i = #iree_gpu.target<arch = "llvmpipe", features = "", '
    "wgp = <compute = fp32, storage = b32, subgroup = shuffle, subgroup_size_choices = [8]>>}>"
)
#: What stand-ins do with it, by one letter.
HOW = {
    "p": {},
    "s": {"bad": "// stub: crash-at flow"},
    "d": {"bad": "// stub: error-at stream something else"},
    "-": {"bad": "// stub: error-at parse custom op 'test.op' is unknown"},
    "!": None,
    "h": {"bad": "// stub: hang-at flow"},
    "a": {"_assert_tensor_metadata": "// stub: crash-at input SIGABRT"},
}


class Desk:
    """A directory with a program and local builds, the oldest first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.starts = directory / "starts"
        (directory / "a.mlir").write_text(PROGRAM_TEXT)
        self.builds: list[Path] = []

    def have(self, letters: str) -> None:
        """One local build for each letter of HOW."""
        for number, letter in enumerate(letters):
            place = self.directory / f"build{number:02}"
            settings: dict[str, Any] = {"version": f"4.{number}.0", "revision": f"{number:040x}"}
            when = HOW[letter]
            if when is None:
                place.mkdir()
            else:
                stub_release(place, **settings, when=when)
            self.builds.append(place)

    def bisect(self, *more: str | Path) -> Done:
        toolchains = [word for build in self.builds for word in ("--toolchain", str(build))]
        read_by = [] if "--release" in more else ["--release", str(self.builds[-1])]
        asked = more or ("a.mlir", "-t", "llvm-cpu")
        return pilot(
            *("releases", "bisect", "--json", *read_by, *toolchains, *asked),
            cwd=self.directory,
            env={"IREE_STUB_STARTS": self.starts},
        )

    def interrupted(self, at: int) -> subprocess.CompletedProcess[str]:
        """What `bisect` comes to that is interrupted while it asks a build."""
        toolchains = [word for build in self.builds for word in ("--toolchain", str(build))]
        process = start(
            *("releases", "bisect", "--json", "--release", str(self.builds[-1])),
            *(*toolchains, "a.mlir", "-t", "llvm-cpu"),
            cwd=self.directory,
            env={"IREE_STUB_STARTS": self.starts},
        )
        wait_until(lambda: any(str(self.builds[at]) in line for line in self._compiles))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def told(self, done: Done) -> str:
        """The verdicts by their letters."""
        letters = {"passes": "p", "same": "s", "different": "d"}
        letters |= {"unsupported": "-", "not-installable": "!"}
        return "".join(letters[v] for v in done.document["releases"].values())

    @property
    def compiles(self) -> int:
        return len(self._compiles)

    @property
    def _compiles(self) -> list[str]:
        lines = self.starts.read_text().splitlines() if self.starts.exists() else []
        return [line for line in lines if "iree-compile" in line.split()[1] and " -o " in line]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


class TestVerdicts:
    def test_one_change_among_sixteen_takes_six_compiles(self, desk: Desk) -> None:
        desk.have("sssssssssspppppp")
        done = desk.bisect()
        assert done.code == 0, done.err
        assert desk.told(done) == "sssssssssspppppp"
        (change,) = done.document["boundaries"]
        assert (change["good"], change["bad"]) == (str(desk.builds[10]), str(desk.builds[9]))
        assert (change["good_revision"], change["bad_revision"]) == (f"{10:040x}", f"{9:040x}")
        assert done.document["compiles"] == desk.compiles <= 6
        assert len(done.document["assumed"]) == 10

    def test_an_interruption_leaves_the_answers_before_it(self, desk: Desk) -> None:
        desk.have("shs")
        done = desk.interrupted(1)
        document = json.loads(done.stdout)
        assert (done.returncode, document["error"]["exit_code"]) == (130, 130)
        assert document["answers"].keys() == {str(desk.builds[0]), str(desk.builds[2])}
        assert all("SIGSEGV" in answer for answer in document["answers"].values())

    def test_so_does_one_from_one_failure_to_another(self, desk: Desk) -> None:
        desk.have("ddddddddddddssss")
        done = desk.bisect()
        assert desk.told(done) == "ddddddddddddssss"
        (change,) = done.document["boundaries"]
        assert (change["good"], change["bad"]) == (str(desk.builds[11]), str(desk.builds[12]))
        assert desk.compiles <= 6

    def test_a_failure_that_came_and_went_has_two(self, desk: Desk) -> None:
        desk.have("ppsspp")
        done = desk.bisect()
        assert desk.told(done) == "ppsspp"
        assert [(c["good"][-1], c["bad"][-1]) for c in done.document["boundaries"]] == [
            ("1", "2"),
            ("4", "3"),
        ]
        assert done.document["failure"]["signal"] == "SIGSEGV"

    def test_what_cannot_be_asked_is_neither_good_nor_bad(self, desk: Desk) -> None:
        desk.have("--d-s!pp")
        done = desk.bisect("a.mlir", "-t", "llvm-cpu", "--every")
        assert desk.told(done) == "--d-s!pp"
        came, went = done.document["boundaries"]
        assert came["between"] == [str(desk.builds[3])]
        assert went["between"] == [str(desk.builds[5])]
        assert "custom op 'test.op' is unknown" in done.document["reasons"][str(desk.builds[0])]
        assert "no iree-compile" in done.document["reasons"][str(desk.builds[5])]
        assert desk.compiles == 4, "what cannot be read is not compiled"

    def test_one_beside_others_is_the_same_and_all_are_told(self, desk: Desk) -> None:
        desk.have("ss")
        second = "// stub: error-at flow the second is wrong"
        first = "// stub: print-at flow a.mlir:3:1: error: the first is wrong"
        for build, when in zip(desk.builds, (f"{first}\n{second}", second), strict=True):
            for file in build.rglob("stub.json"):
                settings = json.loads(file.read_text()) | {"when": {"bad": when}}
                file.write_text(json.dumps(settings))
        done = desk.bisect()
        assert desk.told(done) == "ss"
        wanted = done.document["failure"]["signature"]
        two, one = done.document["reasons"].values()
        assert one == f"{wanted}: the second is wrong"
        assert not two.startswith(wanted)
        assert two.endswith(f"; with it: {wanted}")

    def test_another_failure_than_the_wanted_one_is_not_answered_about(self, desk: Desk) -> None:
        desk.have("sdp")
        own = str(desk.builds[0])
        bounds = ("a.mlir", "-t", "llvm-cpu", "--release", own)
        desk.builds = desk.builds[1:]
        done = desk.bisect(*bounds)
        assert (done.code, desk.told(done)) == (1, "dp")
        assert done.document["boundaries"] == []
        assert done.document["failure"]["signal"] == "SIGSEGV"

    def test_where_none_can_tell_that_is_said(self, desk: Desk) -> None:
        desk.have("--p")
        reader = desk.builds.pop()
        toolchains = [word for build in desk.builds for word in ("--toolchain", str(build))]
        asked = ("a.mlir", "-t", "llvm-cpu", "--release", str(reader), *toolchains)
        (desk.directory / "a.mlir").write_text(PROGRAM_TEXT)
        done = pilot("releases", "bisect", *asked, cwd=desk.directory)
        assert done.code == 1
        assert "no tested release gives a verdict" in done.out

    def test_the_failure_that_is_meant_is_that_of_the_release_named(self, desk: Desk) -> None:
        desk.have("sdp")
        newest = desk.bisect("a.mlir", "-t", "llvm-cpu", "--every")
        assert desk.told(newest) == "dsp", "else that of the newest one that fails"

    def test_checks_of_types_do_not_travel(self, desk: Desk) -> None:
        desk.have("ap")
        done = desk.bisect()
        assert done.code == 1
        assert desk.told(done) == "pp"
        assert done.document["failure"] is None

    def test_flags_that_a_release_does_not_know_say_nothing(self, desk: Desk) -> None:
        desk.have("ps")
        known = [*json.loads(stub_flags(desk.builds[1])), "iree-new"]
        for file in desk.builds[1].rglob("stub.json"):
            file.write_text(json.dumps(json.loads(file.read_text()) | {"flags": known}))
        done = desk.bisect("a.mlir", "-t", "llvm-cpu", "--", "--iree-new=1")
        assert desk.told(done) == "-s"
        assert "iree-new" in done.document["reasons"][str(desk.builds[0])]

    def test_where_all_pass_there_is_nothing_to_look_for(self, desk: Desk) -> None:
        desk.have("pp")
        done = desk.bisect()
        assert (done.code, done.document["boundaries"]) == (1, [])
        assert not list(desk.directory.glob("releases-*"))


def stub_flags(build: Path) -> str:
    """The flags that a stand-in lists, as JSON."""
    compiler = build / "iree/compiler/_mlir_libs/iree-compile"
    done = subprocess.run([compiler, "--help-hidden"], capture_output=True, text=True, check=True)
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("  --")]
    return json.dumps([line.removeprefix("--").partition("=")[0] for line in lines])


class TestTargets:
    """Two builds, of which only the newer one knows the architecture that fits the device."""

    @pytest.fixture
    def two(self, desk: Desk) -> Desk:
        desk.have("ss")
        gpu = dumps.llvmpipe()
        default = "// vp_android_baseline_2022"
        fitting = "llvmpipe", LLVMPIPE
        for number, known in enumerate([{}, dict([fitting])]):
            for file in desk.builds[number].rglob("stub.json"):
                settings = json.loads(file.read_text())
                settings["targets"] = known | {"vp_android_baseline_2022": default}
                settings["devices"] = {"vulkan": {"stdout": gpu}}
                file.write_text(json.dumps(settings))
        return desk

    @pytest.mark.parametrize("target", ["vulkan", "vulkan:llvmpipe"])
    def test_the_one_that_fits_the_device_is_kept_to(self, two: Desk, target: str) -> None:
        done = two.bisect("a.mlir", "-t", target)
        assert two.told(done) == "-s"
        (why,) = [w for w in done.document["reasons"].values() if "does not know" in w]
        assert "vulkan:llvmpipe" in why


class TestGoingOn:
    def test_nothing_is_compiled_twice(self, desk: Desk) -> None:
        desk.have("sspp")
        first = desk.bisect()
        before = desk.compiles
        again = desk.bisect()
        assert again.document["compiles"] == 0
        assert desk.compiles == before
        assert again.document["boundaries"] == first.document["boundaries"]

    def test_unless_that_is_wanted(self, desk: Desk) -> None:
        desk.have("sp")
        desk.bisect()
        assert desk.bisect("a.mlir", "-t", "llvm-cpu", "--fresh").document["compiles"] == 2


class TestGitBisect:
    @pytest.fixture
    def script(self, desk: Desk) -> Path:
        desk.have("ssp")
        (change,) = desk.bisect().document["boundaries"]
        return Path(change["script"])

    @pytest.mark.real
    @pytest.mark.parametrize(("letter", "status"), [("s", 0), ("p", 1), ("d", 125), ("-", 125)])
    def test_the_script_judges_a_build(
        self, desk: Desk, script: Path, letter: str, status: int
    ) -> None:
        build = desk.directory / "new"
        stub_release(build, revision="e" * 40, when=HOW[letter])
        own = {"BUILD": "true", "IREE_BUILD": str(build), "IREE_PILOT": str(PROGRAM)}
        done = subprocess.run(
            [script], env=os.environ | own, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == status, done.stderr

    def test_what_does_not_build_is_skipped(self, script: Path) -> None:
        done = subprocess.run([script], env=os.environ | {"BUILD": "false"}, check=False)
        assert done.returncode == 125

    def test_it_tells_how_it_is_used(self, script: Path) -> None:
        text = script.read_text()
        assert f"--term-old=broken --term-new=fixed {2:040x} {1:040x}" in text
        assert f"git bisect run {script}" in text

    def test_a_folder_of_somebody_else_is_left_alone(self, desk: Desk) -> None:
        desk.have("sp")
        (desk.directory / "out").mkdir()
        (desk.directory / "out" / "letter.txt").write_text("mine")
        done = desk.bisect("a.mlir", "-t", "llvm-cpu", "-o", "out")
        assert done.code == 2
        assert [p.name for p in (desk.directory / "out").iterdir()] == ["letter.txt"]


class TestWrongUse:
    @pytest.mark.real
    def test_releases_that_there_are_not(self) -> None:
        done = pilot("releases", "bisect", "x.mlir", "-t", "llvm-cpu", "--from", "0.1")
        assert done.code == 2
        assert "there is no release 0.1.0" in done.err

    def test_a_target_is_needed(self, desk: Desk) -> None:
        desk.have("p")
        assert "no target is named" in desk.bisect("a.mlir").document["error"]["message"]


def test_wheels_in_a_folder_are_installed_and_asked(desk: Desk) -> None:
    nightlies = desk.directory / "nightlies"
    nightlies.mkdir()
    for version in ("4.0.0rc20260102", "4.0.0rc20260101"):
        add_release(nightlies, version, says=version)
    desk.have("p")
    (reader,) = desk.builds
    desk.builds = [nightlies]
    text = PROGRAM_TEXT.replace("// bad", "// stub: crash-at flow")
    (desk.directory / "a.mlir").write_text(text)
    done = desk.bisect("a.mlir", "-t", "llvm-cpu", "--release", str(reader))
    assert done.code == 0, done.err
    assert [*done.document["releases"]] == ["4.0.0rc20260101", "4.0.0rc20260102"]
    assert desk.told(done) == "ss"


@pytest.mark.real
def test_without_a_network_what_is_there_is_asked(desk: Desk) -> None:
    offline = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    offline |= {"PIP_EXTRA_INDEX_URL": "", "PIP_RETRIES": "0"}
    (desk.directory / "a.mlir").write_text(
        "func.func @f(%a: tensor<4xf32>) -> tensor<4xf32> {\n  return %a : tensor<4xf32>\n}\n"
    )
    done = pilot("releases", "bisect", "a.mlir", "-t", "llvm-cpu", cwd=desk.directory, env=offline)
    assert done.code == 1
    assert done.out.count("package index does not answer") == 1
    assert "using the releases that are installed" in done.out
    assert "3.13.0" in done.out


@pytest.mark.real
def test_a_real_failure_goes_with_a_release(shared_cache: Path, tmp_path: Path) -> None:
    own = {"IREE_PILOT_CACHE": shared_cache}
    ends = ("--from", "3.12", "--to", "3.13.0", "--json")
    source = CASES / "zero_rows.py"
    done = pilot("releases", "bisect", source, "-t", "llvm-cpu", *ends, env=own, cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.document["releases"] == {"3.12.0": "same", "3.13.0": "passes"}
    (change,) = done.document["boundaries"]
    assert (change["good"], change["bad"]) == ("3.13.0", "3.12.0")
    assert change["bad_revision"].startswith("2b05c5dbb2f2")
    assert done.document["compiles"] == 2
