"""The pytest plugin, in runs of pytest that have a repository of their own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_structure import HEAVY

import iree_pilot

pytest_plugins = "pytester"

ROOT = Path(__file__).parent.parent
MODELS = """\
import pytest
import torch


class Minus(torch.nn.Module):
    def forward(self, x):
        return x - 8


class Noise(torch.nn.Module):
    def forward(self, x):
        return x + torch.rand(2)


class Looks(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


X = torch.tensor([1.0, -2.0])
NET = torch.nn.Sequential(torch.nn.ReLU())
"""


@pytest.fixture(autouse=True)
def one_cache(shared_cache: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IREE_PILOT_CACHE", str(shared_cache))


def run(pytester: pytest.Pytester, *words: str | Path) -> pytest.RunResult:
    """A run of pytest with the plugin, installed or not."""
    return pytester.runpytest_subprocess("-p", "iree_pilot.pytest_plugin", *words)


class TestWithoutAModel:
    @pytest.mark.slow
    @pytest.mark.parametrize("words", [(), ("--collect-only",)])
    def test_nothing_heavy_is_loaded(self, pytester: pytest.Pytester, words: tuple[str]) -> None:
        pytester.makeconftest(
            "import sys\ndef pytest_unconfigure(config):\n    print('LOADED', *sys.modules)\n"
        )
        pytester.makepyfile("def test_it(iree): assert callable(iree.check)")
        result = run(pytester, *words)
        assert result.ret == 0
        loaded = result.stdout.str().rpartition("LOADED")[2].split()
        assert "iree_pilot.pytest_plugin" in loaded
        heavy = (*HEAVY, "msgspec", "iree_pilot.api", "iree_pilot.pipeline")
        assert [module for module in heavy if module in loaded] == []

    @pytest.mark.slow
    def test_options_and_the_fixture_are_explained(self, pytester: pytest.Pytester) -> None:
        said = run(pytester, "--help").stdout.str()
        assert all(f"  --iree-{name}=" in said for name in ("target", "release", "bisect"))
        run(pytester, "--fixtures").stdout.fnmatch_lines(["iree -- *", "*runs and compares them*"])

    @pytest.mark.slow
    def test_options_that_do_not_fit_end_the_run_at_once(self, pytester: pytest.Pytester) -> None:
        file = pytester.makepyfile("def test_it(): ...")
        result = run(pytester, "--iree-target=llvm-cpu,vulcan")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*--iree-target: *vulcan*", "*Did you mean vulkan?*"])
        result = run(pytester, "--iree-bisect", file)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*test_options*.py is a file; *--iree-bisect=DIR*"])


@pytest.mark.real
class TestVerdicts:
    def test_the_example_passes_on_two_workers(self, pytester: pytest.Pytester) -> None:
        shutil.copy(ROOT / "examples" / "test_mlp.py", pytester.path)
        run(pytester, "-n2", "--junitxml=junit.xml").assert_outcomes(passed=2)
        document = ElementTree.parse(pytester.path / "junit.xml")
        verdicts = {one.get("name"): one.get("value") for one in document.iter("property")}
        assert verdicts == {"iree llvm-cpu": "ok", "iree hip:gfx942": "compiled"}

    def test_what_was_not_compared_passes_only_where_that_is_allowed(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VK_DRIVER_FILES", "/nonexistent")
        monkeypatch.setenv("VK_ICD_FILENAMES", "/nonexistent")
        pytester.makepyfile(
            f"{MODELS}\n"
            "def test_driver(iree): iree.check(NET, (X,), targets=['llvm-cpu', 'vulkan'])\n"
            "def test_noise(iree): iree.check(Noise(), (X,))\n"
            "def test_allowed(iree):\n"
            "    done = iree.check(NET, (X,), targets='llvm-cpu,vulkan', allow='compiled')\n"
            "    assert [one.status for one in done] == ['ok', 'compiled']\n"
            "    (done,) = iree.check(Noise(), (X,), allow=['compiled', 'ran'])\n"
            "    assert done.status == 'ran'\n"
        )
        result = run(pytester)
        result.assert_outcomes(failed=2, passed=1)
        result.stdout.fnmatch_lines(
            [
                "E *Failed: Sequential on vulkan: compiled, not run: no Vulkan device*",
                "E  *machine *iree-pilot doctor*",
                'E  *accept *allow=("compiled",)*',
                "E  *reproduce *$ pytest *.py::test_driver --iree-target=vulkan",
                "E *Failed: Noise on llvm-cpu: ran, not compared: *",
                'E  *accept *allow=("ran",)*',
            ]
        )
        said = result.stdout.str()
        assert "Sequential on llvm-cpu" not in said and "Captured log" not in said
        only = run(pytester, "--iree-target=llvm-cpu", "--iree-target", "llvm-cpu", "-k", "driver")
        only.assert_outcomes(passed=1)

    def test_wrong_numbers_are_told_with_their_error(self, pytester: pytest.Pytester) -> None:
        shutil.copy(ROOT / "tests" / "cases" / "segment_mask.py", pytester.path)
        pytester.makepyfile("def test_mask(iree): iree.check('segment_mask.py')")
        result = run(pytester)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "E *segment_mask.py on llvm-cpu: failed: runs, but differs from the reference",
                "E  *kind *mismatch",
                "E  *max error *1.00e+09 (relative L2 *, tolerance *)",
                "E  *run *$ *iree-run-module *",
                "E  *bisect *$ pytest *::test_mask --iree-target=llvm-cpu --iree-bisect=*",
            ]
        )

    def test_what_a_second_target_has_in_common_is_said_once(
        self, pytester: pytest.Pytester
    ) -> None:
        pytester.makepyfile(
            f"{MODELS}\n"
            "class Sum(torch.nn.Module):\n"
            "    def forward(self, x):\n"
            "        return torch.fft.fft2(x[None]).real\n"
            "def test_sum(iree): iree.check(Sum(), (X,), targets='llvm-cpu,hip:gfx942')\n"
        )
        result = run(pytester)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "E *Failed: Sum on llvm-cpu: failed: does not compile*",
                "E *Sum on hip:gfx942: failed: does not compile*",
                "E  *as for *llvm-cpu: kind, *message*",
            ]
        )
        assert len(re.findall(r"E +message ", result.stdout.str())) == 1

    def test_what_does_not_trace_and_wrong_usage_say_where_and_why(
        self, pytester: pytest.Pytester
    ) -> None:
        file = pytester.makepyfile(
            f"{MODELS}\n"
            "CASES = [\n"
            "    (Looks(), (X,), {}),\n"
            "    (NET, (X,), {'targets': 'vulcan'}),\n"
            "    (NET, (X,), {'allow': 'failed'}),\n"
            "    (NET, (X,), {'dynamic_shape': ()}),\n"
            "    ('rms-norm:tiny', (X,), {}),\n"
            "    (NET, (X,), {'dtype': 'f16'}),\n"
            "]\n"
            "@pytest.mark.parametrize('case', CASES, ids=range(len(CASES)))\n"
            "def test_it(iree, case):\n"
            "    iree.check(*case[:2], **case[2])\n"
        )
        result = run(pytester)
        result.assert_outcomes(failed=6)
        looks = MODELS.splitlines().index("        return x if x.sum() > 0 else -x") + 1
        result.stdout.fnmatch_lines(
            [
                "E *Failed: Looks: failed: does not trace",
                "E  *kind *trace-error",
                f"E  *location *{file}:{looks}*",
                "E  *reproduce *$ pytest *::test_it?0?'",
                "E *UsageError: Sequential: wrong usage: *vulcan*",
                "E *UsageError: Sequential: wrong usage: allow: failed is not ran or compiled",
                "E *pytest.mark.xfail*",
                "E *UsageError: Sequential: wrong usage: check has no option dynamic_shape",
                "E *Did you mean dynamic_shapes?",
                "E *UsageError: rms-norm:tiny: wrong usage: *example inputs of its own*",
                "E *UsageError: Sequential: wrong usage: trace: dtype is for a source by name*",
            ]
        )

    def test_an_expected_failure_hides_no_wrong_usage(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(
            f"{MODELS}\n"
            "@pytest.mark.xfail(raises=pytest.fail.Exception, strict=True)\n"
            "@pytest.mark.parametrize('target', ['llvm-cpu', 'llvm-gpu'])\n"
            "def test_it(iree, target): iree.check(Noise(), (X,), targets=target)\n"
        )
        run(pytester).assert_outcomes(xfailed=1, failed=1)

    def test_a_fault_of_the_environment_is_told_as_one(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytester.makepyfile(f"{MODELS}\ndef test_it(iree): iree.check(NET, (X,))\n")
        taken = pytester.path / "taken"
        taken.write_text("")
        monkeypatch.setenv("IREE_PILOT_CACHE", str(taken))
        result = run(pytester)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["E *EnvironmentFault: Sequential: environment: *taken*"])

    def test_another_release_is_the_users_choice(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(f"{MODELS}\ndef test_it(iree): iree.check(NET, (X,))\n")
        result = run(pytester, "--iree-release=./nosuch")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["E *UsageError: Sequential: *nosuch*"])


@pytest.mark.real
def test_failures_are_isolated_each_in_a_folder_of_its_own(pytester: pytest.Pytester) -> None:
    file = pytester.makepyfile(
        f"{MODELS}\n"
        "@pytest.mark.parametrize('part', ['a b', 'a-b'])\n"
        "def test_minus(iree, part):\n"
        "    iree.check(Minus(), (torch.zeros(4, 8, dtype=torch.int8),))\n"
    )
    result = run(pytester, "-n2", "--iree-bisect=made/here")
    result.assert_outcomes(failed=2)
    minus = MODELS.splitlines().index("        return x - 8") + 1
    result.stdout.fnmatch_lines(
        [
            ">       iree.check(Minus(), *",
            "E *Failed: Minus on llvm-cpu: failed: does not compile",
            "E  *kind *crash",
            "E  *phase *input",
            "E  *op *torch.aten.sub.Scalar",
            f"E  *python *{file}:{minus}",
            "E  *return x - 8",
            "E  *signature *crash/SIGSEGV/*",
            "E  *compile *$ *iree-compile *",
            f"E  *reproducer *{pytester.path}/made/here/*",
            "E  *1 operation: torch.aten.sub.Scalar; verified",
            "E  *reproduce *$ pytest *::test_minus?a?b?' --iree-target=llvm-cpu",
        ]
    )
    said = result.stdout.str()
    assert "pytest_plugin.py" not in said and "api.py" not in said
    folders = sorted((pytester.path / "made" / "here").iterdir())
    assert len(folders) == 2 and all(str(folder) in said for folder in folders)
    assert all("test_minus-a-b-llvm-cpu-" in folder.name for folder in folders)
    assert all(iree_pilot.verify(folder).same for folder in folders)
    again = run(pytester, "--iree-bisect=made/here").stdout.str()
    assert all(str(folder) in again for folder in folders)
    assert sorted((pytester.path / "made" / "here").iterdir()) == folders
