"""What was isolated before is found again, by whoever meets it, for as long as it is true."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.repro.reducer import kept
from iree_pilot.repro.reproducer.folder.bundle import REPORT, Report
from iree_pilot.repro.reproducer.known import known
from iree_pilot.repro.reproducer.known.known import Known

ME = ("diagnostic/a.b/c/0", "abc", "vulkan")


class Nested(msgspec.Struct):
    """A list in a list, and so on."""

    inside: list[Nested] = []


def folder(place: Path, **fields: object) -> Path:
    """A reproducer's folder, as far as it is read here."""
    report = Report(
        failure=Failure(kind="diagnostic", message="m", signature=ME[0]),
        target=ME[2],
        flags=(),
        release="9.9.0",
        revision=ME[1],
        source="llama",
        command=(),
        program="",
        ops=1,
        op_names=("a.b",),
        oracle_calls=4,
        seconds=1.0,
        minimal=True,
        verified=True,
        levels=(),
        time_limit=60,
    )
    place.mkdir(exist_ok=True)
    report = msgspec.structs.replace(report, **fields)
    (place / REPORT).write_bytes(msgspec.json.encode(report))
    return place


def entry(path: Path, source: str = "llama") -> Known:
    signature, revision, target = ME
    when = "2026-01-02T03:04:05+00:00"
    return Known(
        signature=signature, revision=revision, target=target,
        path=str(path), ops=1, when=when, source=source,
    )  # fmt: skip


def test_what_is_remembered_is_recalled_with_its_report(tmp_path: Path) -> None:
    known.remember(entry(folder(tmp_path / "out")))
    recalled = known.recall(*ME)
    assert recalled is not None
    assert recalled[0] == entry(tmp_path / "out")
    assert recalled[0].date == "2026-01-02"
    assert recalled[1].op_names == ("a.b",)


@pytest.mark.parametrize(
    "other", [("diagnostic/x", *ME[1:]), (ME[0], "def", ME[2]), (*ME[:2], "llvm-cpu")]
)
def test_another_failure_release_or_target_is_not_known(
    tmp_path: Path, other: tuple[str, str, str]
) -> None:
    known.remember(entry(folder(tmp_path / "out")))
    assert known.recall(*other) is None


def test_a_reproducer_that_has_gone_or_shows_something_else_is_not_known(tmp_path: Path) -> None:
    place = folder(tmp_path / "out")
    known.remember(entry(place))
    other = Failure(kind="crash", message="m", signature="crash/x")
    for fields in ({"failure": other}, {"target": "hip"}, {"verified": False}):
        folder(place, **fields)
        assert known.recall(*ME) is None
    folder(place)
    assert known.recall(*ME) is not None
    (place / REPORT).unlink()
    assert known.recall(*ME) is None


@pytest.mark.parametrize("content", [b"", b'{"signature": ', b"[]", b"\xff"])
def test_a_damaged_entry_is_ignored_and_then_replaced(
    tmp_path: Path, data: Path, content: bytes
) -> None:
    known.remember(entry(folder(tmp_path / "out")))
    (file,) = (data / "known").iterdir()
    file.write_bytes(content)
    assert known.recall(*ME) is None
    known.remember(entry(tmp_path / "out"))
    assert known.recall(*ME) is not None


def test_many_may_remember_and_recall_at_once(tmp_path: Path, data: Path) -> None:
    place = folder(tmp_path / "out")
    known.remember(entry(place))

    def both(number: int) -> bool:
        known.remember(entry(place, source=f"model{number}"))
        return known.recall(*ME) is not None

    with ThreadPoolExecutor(max_workers=8) as pool:
        assert all(pool.map(both, range(64)))
    assert len([*(data / "known").iterdir()]) == 1


def test_other_flags_are_another_way_of_compiling(tmp_path: Path) -> None:
    known.remember(msgspec.structs.replace(entry(folder(tmp_path / "out")), flags=("--a=1",)))
    assert known.recall(*ME, flags=("--a=1",)) is not None
    assert known.recall(*ME) is None
    assert known.recall(*ME, flags=("--a=2",)) is None


def test_a_reproducer_that_was_changed_is_not_known(tmp_path: Path) -> None:
    place = folder(tmp_path / "out", files={"repro.mlir": hashlib.sha256(b"module").hexdigest()})
    known.remember(entry(place))
    assert known.recall(*ME) is None
    (place / "repro.mlir").write_text("module")
    assert known.recall(*ME) is not None
    (place / "repro.mlir").write_text("module {}")
    assert known.recall(*ME) is None


def test_a_record_that_is_nested_without_end_is_none(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text('{"inside":[' * 100_000)
    assert kept.recall(file, Nested) is None
