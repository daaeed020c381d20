"""Failures of several targets that are the same name each other's reproducers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fake.nights import failure
from fake.reports import report

from iree_pilot.pipeline.cli.display import output
from iree_pilot.pipeline.cli.failures.bisect import tell_elsewhere
from iree_pilot.repro.bisect import Bisection
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.known import alike
from iree_pilot.repro.reproducer.known.found import Found, reproduced
from iree_pilot.repro.trust import trust

SAME, OTHER = "crash/SIGSEGV/MulIOp.build/3e6f08fc", "crash/SIGSEGV/AddIOp.build/11111111"
VAGUE = "mismatch/values/902927c2"


def isolated(
    folder: Path, target: str, signature: str, program: str, phase: str | None = None
) -> tuple[str, Bisection]:
    shown = msgspec.structs.replace(failure(signature), phase=phase)
    made = report(shown, bundle.level("mlir", verified=True), target=target, verified=True)
    bundle.write(folder, made, {"repro.mlir": program})
    found = Found(failure=shown, reproducer=reproduced(folder, bundle.read(folder)))
    return target, Bisection(status="isolated", failures=(found,))


@pytest.mark.parametrize(
    ("signature", "program", "said"),
    [
        (SAME, "// a\n", "the same signature, the same program"),
        (SAME, "// b\n", "the same signature"),
        (OTHER, "// a\n", "the same program, another signature"),
        (OTHER, "// b\n", ""),
    ],
)
def test_only_what_is_the_same_is_named(
    signature: str, program: str, said: str, tmp_path: Path
) -> None:
    one = isolated(tmp_path / "one", "llvm-cpu", SAME, "// a\n")
    two = isolated(tmp_path / "two", "vulkan", signature, program)
    (_, first), (_, second) = alike.named([one, two])
    for result, folder, target, other in (
        (first, "one", "vulkan", "two"),
        (second, "two", "llvm-cpu", "one"),
    ):
        made = result.failures[0].reproducer
        kept = bundle.read(tmp_path / folder)
        assert made is not None and made.elsewhere == kept.elsewhere
        told = [(e.target, e.path, e.said) for e in kept.elsewhere]
        assert told == ([(target, str(tmp_path / other), said)] if said else [])
        line = f"- Also fails on {target} ({said})\n"
        # What shows another signature may be another bug, which a draft is not to mix in.
        told_too = said.startswith("the same signature")
        assert (line in (tmp_path / folder / "ISSUE.md").read_text()) == told_too
        assert trust.open_folder(tmp_path / folder).written_here


def test_a_signature_that_says_little_is_not_enough(tmp_path: Path) -> None:
    one = isolated(tmp_path / "one", "llvm-cpu", VAGUE, "// a\n")
    two = isolated(tmp_path / "two", "vulkan", VAGUE, "// b\n")
    assert alike.named([one, two]) == [one, two]


def test_of_the_same_program_any_signature_is_the_same_one(tmp_path: Path) -> None:
    one = isolated(tmp_path / "one", "llvm-cpu", VAGUE, "// a\n")
    alike.named([one, isolated(tmp_path / "two", "vulkan", VAGUE, "// a\n")])
    (told,) = bundle.read(tmp_path / "one").elsewhere
    assert told.said == "the same signature, the same program"


def test_what_was_known_of_other_targets_stays(tmp_path: Path) -> None:
    one = isolated(tmp_path / "one", "llvm-cpu", SAME, "// a\n")
    for target in ("vulkan", "hip:gfx942"):
        alike.named([one, isolated(tmp_path / target, target, SAME, "// a\n")])
    told = bundle.read(tmp_path / "one").elsewhere
    assert [e.target for e in told] == ["vulkan", "hip:gfx942"]


@pytest.mark.parametrize("relative", [False, True])
def test_on_the_screen_two_that_are_the_same_are_told_once(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    relative: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = [
        isolated(Path(target) if relative else tmp_path / target, target, SAME, "// a\n")
        for target in ("llvm-cpu", "vulkan", "hip")
    ]
    tell_elsewhere(output.console(), alike.named(found))
    assert [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()] == [
        "what fails on llvm-cpu also fails on vulkan",
        "what fails on llvm-cpu also fails on hip",
        "what fails on vulkan also fails on hip",
    ]


@pytest.mark.parametrize(
    ("phase", "backend", "shared"),
    [("input", "hip", True), ("flow", "hip", True), ("hal", "hip", False)],
)
def test_what_no_target_has_a_part_in_is_one_issue(
    phase: str,
    backend: str,
    shared: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = alike.named(
        [isolated(Path(t), t, SAME, "// a\n", phase) for t in ("llvm-cpu", "vulkan", backend)]
    )
    tell_elsewhere(output.console(), found)
    lines = capsys.readouterr().out.splitlines()
    one = (
        f"the same failure, in phase {phase}, for llvm-cpu, vulkan, hip: one issue is enough, "
        "for example of llvm-cpu"
    )
    assert (lines == [one]) == shared
    draft = (tmp_path / "vulkan/ISSUE.md").read_text()
    assert draft.startswith("# [vulkan]") != shared
    assert (f"It comes from phase `{phase}`" in draft) == shared


def test_a_folder_that_was_changed_stays_as_it_is(tmp_path: Path) -> None:
    one = isolated(tmp_path / "one", "llvm-cpu", SAME, "// a\n")
    two = isolated(tmp_path / "two", "vulkan", SAME, "// a\n")
    (tmp_path / "one/ISSUE.md").write_text("mine\n")
    (_, first), _ = alike.named([one, two])
    assert (tmp_path / "one/ISSUE.md").read_text() == "mine\n"
    made = first.failures[0].reproducer
    assert made is not None and [e.target for e in made.elsewhere] == ["vulkan"]
    assert msgspec.to_builtins(first)["failures"][0]["reproducer"]["elsewhere"][0]["signature"]
