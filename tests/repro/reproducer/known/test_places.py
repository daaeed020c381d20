"""A reproducer's folder is never put in the place of one that shows another failure."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.nightly.investigation.isolation import brought
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.store.store import data_directory
from iree_pilot.pipeline.targets import targets
from iree_pilot.repro.bisect import Bisection, Found
from iree_pilot.repro.reproducer import publish
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Report
from iree_pilot.repro.reproducer.known import places
from iree_pilot.repro.reproducer.known.found import reproduced
from iree_pilot.repro.reproducer.known.places import Identity
from iree_pilot.repro.reproducer.publish import Contents
from iree_pilot.repro.since_release import question
from iree_pilot.repro.since_release.question import Question


def identity(
    signature: str = "diagnostic/a.b/c/0a1b2c3d", kind: str = "diagnostic", **fields: object
) -> Identity:
    failure = Failure(kind=kind, message="m", signature=signature, phase=fields.pop("phase", None))
    facts = {"source": "net.py", "target": "vulkan", "program": "/cache/1"} | fields
    return Identity(failure=failure, **facts)


def report_of(shown: Identity) -> Report:
    return Report(
        failure=shown.failure,
        target=shown.target,
        flags=shown.flags,
        release="9.9.0",
        revision="0" * 40,
        source=shown.source,
        command=("iree-compile",),
        program=shown.program,
        ops=1,
        op_names=("a.b",),
        oracle_calls=1,
        seconds=1.0,
        minimal=True,
        verified=True,
        levels=(bundle.level("mlir"),),
        time_limit=60,
    )


def written(place: Path, shown: Identity) -> Path:
    bundle.write(place, report_of(shown), {"repro.mlir": "module {}\n"})
    return place


def test_a_night_gets_a_copy_of_what_a_person_isolated_before(tmp_path: Path) -> None:
    shown, artifacts = identity(), tmp_path / "artifacts"
    person = written(tmp_path / "home" / "repro-net", shown)
    known = Found(
        failure=shown.failure,
        reproducer=reproduced(person, bundle.read(person)),
        known_since="2026-11-20",
    )
    answer = Bisection(status="isolated", failures=(known,))
    place = artifacts / "diagnostic-a.b"
    for _ in range(2):
        (told,) = brought(answer, place).failures
        assert told.reproducer is not None and told.reproducer.path == str(place)
        assert bundle.read(place) == bundle.read(person)
    other = written(artifacts / "diagnostic-x", identity("diagnostic/x/y/ffffffff"))
    (told,) = brought(answer, other).failures
    assert told.reproducer is not None and Path(told.reproducer.path) != other
    assert bundle.read(other).failure.signature == "diagnostic/x/y/ffffffff"
    assert Path(told.reproducer.path, "repro.mlir").is_file()


OTHERS = [
    identity("diagnostic/a.b/c/ffffffff"),
    identity(target="llvm-cpu"),
    identity(flags=("--iree-opt-level=O0",)),
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_name_that_nobody_gave_gets_the_signature(tmp_path: Path, other: Identity) -> None:
    usual = written(tmp_path / "repro-net-vulkan", other)
    before = (usual / bundle.REPORT).read_bytes()
    place = places.settled(usual, identity(), default=True)
    assert place == tmp_path / "repro-net-vulkan-0a1b2c3d"
    assert (usual / bundle.REPORT).read_bytes() == before
    assert places.beside(usual) == f"{usual} shows {other.failure.signature} for {other.target}"


@pytest.mark.parametrize("other", OTHERS)
def test_a_folder_that_the_user_named_is_refused(tmp_path: Path, other: Identity) -> None:
    place = written(tmp_path / "out", other)
    with pytest.raises(UsageError, match="another failure") as caught:
        places.settled(place, identity(), default=False)
    assert other.failure.signature in caught.value.message


@pytest.mark.parametrize("default", [True, False])
def test_the_same_failure_is_written_anew(tmp_path: Path, default: bool) -> None:
    place = written(tmp_path / "out", identity(source="other.py", program="/cache/2"))
    assert places.settled(place, identity(), default=default) == place


def test_where_the_signature_is_taken_too_there_is_a_number(tmp_path: Path) -> None:
    usual = written(tmp_path / "repro-net", identity(target="hip"))
    changed = written(tmp_path / "repro-net-0a1b2c3d", identity())
    (changed / "repro.mlir").write_text("mine")
    (tmp_path / "repro-net-0a1b2c3d-2").mkdir()
    (tmp_path / "repro-net-0a1b2c3d-2" / "thesis.txt").write_text("mine")
    place = places.settled(usual, identity(), default=True)
    assert place == tmp_path / "repro-net-0a1b2c3d-3"
    assert "was changed since" in places.beside(changed)


def test_wrong_numbers_of_another_program_are_another_failure(tmp_path: Path) -> None:
    shown = identity("mismatch/numbers/0a1b2c3d", "mismatch")
    place = written(tmp_path / "out", shown)
    other = identity("mismatch/numbers/0a1b2c3d", "mismatch", program="/cache/2")
    assert places.settled(place, shown, default=True) == place
    assert places.settled(place, other, default=True) != place


def test_what_does_not_trace_is_one_failure_for_all_targets_and_one_a_source(
    tmp_path: Path,
) -> None:
    shown = identity("trace-error/A/0a1b2c3d", "trace-error", phase="trace")
    place = written(tmp_path / "out", shown)
    same = identity("trace-error/A/0a1b2c3d", "trace-error", phase="trace", target="hip")
    other = identity("trace-error/A/0a1b2c3d", "trace-error", phase="trace", source="b.py")
    assert places.settled(place, same, default=True) == place
    assert places.settled(place, other, default=True) != place


class TestCopied:
    def test_all_of_it_is_in_the_place_that_is_named(self, tmp_path: Path) -> None:
        before = written(tmp_path / "before", identity())
        after = places.copied(before, tmp_path / "deep" / "after", identity())
        names = sorted(path.name for path in before.iterdir())
        assert names == sorted(path.name for path in after.iterdir())
        assert "run.sh" in names and (after / "run.sh").stat().st_mode & 0o111
        for name in names:
            assert (before / name).read_bytes() == (after / name).read_bytes()

    def test_but_not_over_another_failure(self, tmp_path: Path) -> None:
        before = written(tmp_path / "before", identity())
        place = written(tmp_path / "after", OTHERS[0])
        with pytest.raises(UsageError, match="another failure"):
            places.copied(before, place, identity())

    def test_its_own_folder_stays_as_it_is(self, tmp_path: Path) -> None:
        before = written(tmp_path / "before", identity())
        inode = before.stat().st_ino
        (tmp_path / "link").symlink_to(before)
        assert places.copied(before, tmp_path / "link", identity()) == tmp_path / "link"
        assert (before.stat().st_ino, (tmp_path / "link").is_symlink()) == (inode, True)


class TestSeveralAtOnce:
    """Bisections that all found the place free before they searched, and end together."""

    def published(self, place: Path, tmp_path: Path, *, default: bool) -> list[Path | UsageError]:
        program = tmp_path / "program.mlir"
        program.write_text("module {}\n")
        contents = Contents({"repro.mlir": program})
        shown = [identity(f"a/b/{digit * 8}", target=f"hip:gfx{digit}") for digit in "123456"]
        settles = [functools.partial(places.settled, place, s, default=default) for s in shown]
        assert {settle() for settle in settles} == {place}
        together = threading.Barrier(len(shown))

        def one(number: int) -> Path | UsageError:
            together.wait()
            try:
                return publish.placed(settles[number], report_of(shown[number]), contents)
            except UsageError as refused:
                return refused

        with ThreadPoolExecutor(len(shown)) as threads:
            answers = list(threads.map(one, range(len(shown))))
        for asked, answer in zip(shown, answers, strict=True):
            if isinstance(answer, Path):
                assert bundle.read(answer).failure == asked.failure
        return answers

    def test_the_first_one_has_the_folder_that_all_named(self, tmp_path: Path) -> None:
        answers = self.published(tmp_path / "out", tmp_path, default=False)
        refused = [one for one in answers if isinstance(one, UsageError)]
        assert len(refused) == len(answers) - 1
        assert all("holds the reproducer of another failure" in one.message for one in refused)

    def test_each_has_its_own_folder_where_nobody_named_one(self, tmp_path: Path) -> None:
        answers = self.published(tmp_path / "out", tmp_path, default=True)
        assert len({*answers}) == len(answers)
        assert all(isinstance(one, Path) for one in answers)

    def test_what_was_found_of_a_place_holds_until_the_folder_is_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen, write = list[bool](), bundle.write

        def settle() -> Path:
            seen.append(self.is_held())
            return tmp_path / "out"

        def watched(*words: Any, **named: Any) -> None:
            write(*words, **named)
            seen.append(self.is_held())

        monkeypatch.setattr(bundle, "write", watched)
        program = tmp_path / "program.mlir"
        program.write_text("module {}\n")
        publish.placed(settle, report_of(identity()), Contents({"repro.mlir": program}))
        assert (seen, self.is_held()) == ([True, True], False)

    def is_held(self) -> bool:
        locks = Locks(data_directory() / "made" / "locks")
        with locks.try_hold("places") as free:
            return not free


class TestScriptsOfReleases:
    def ask(self, signature: str, target: str = "llvm-cpu") -> Question:
        return Question(
            job=Job(source=Source(text="net.py", kind="file", path="/home/me/net.py")),
            target=targets.parse(target),
            flags=(),
            failure=identity(signature).failure,
        )

    def test_those_of_another_failure_stay(self, tmp_path: Path) -> None:
        place, one, other = tmp_path / "out", self.ask("a/b/11111111"), self.ask("a/b/22222222")
        question.write(place, one, ())
        question.write(place, one, ())
        before = (place / question.QUESTION).read_bytes()
        with pytest.raises(UsageError, match="scripts of another failure"):
            question.write(place, other, ())
        assert question.free(place, one) == place
        assert question.free(place, other) == tmp_path / "out-22222222"
        assert question.free(place, self.ask("a/b/11111111", "hip")) == tmp_path / "out-11111111"
        assert (place / question.QUESTION).read_bytes() == before
        question.write(place, other, (), default=True)
        assert (tmp_path / "out-22222222" / question.QUESTION).is_file()
        assert (place / question.QUESTION).read_bytes() == before
