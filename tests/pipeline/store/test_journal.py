"""A journal survives whatever ends the one who writes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.store.journal import Journal


class Entry(msgspec.Struct, frozen=True):
    """A number, and some text that may hold anything."""

    number: int
    text: str = ""


def test_entries_come_back_in_their_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", Entry)
    assert [*journal] == [] and journal.size == 0
    for number in range(3):
        journal.append(Entry(number, "line\nbreak"))
    assert [*Journal(tmp_path / "j.jsonl", Entry)] == [Entry(n, "line\nbreak") for n in range(3)]
    journal.clear()
    assert [*journal] == []


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=6),
    cut=st.integers(0, 10_000),
)
def test_a_write_that_is_cut_off_anywhere_loses_what_was_cut_alone(
    texts: list[str], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("journal") / "j.jsonl"
    journal = Journal(file, Entry)
    ends = []
    for number, text in enumerate(texts):
        journal.append(Entry(number, text))
        ends.append(journal.size)
    cut %= journal.size + 1
    file.write_bytes(file.read_bytes()[:cut])
    again = Journal(file, Entry)
    # The end of a line is all that may be missing of an entry that is whole.
    whole = [Entry(n, text) for n, text in enumerate(texts) if ends[n] - 1 <= cut]
    assert [*again] == whole
    again.append(Entry(99))
    again.append(Entry(100))
    assert [*Journal(file, Entry)] == [*whole, Entry(99), Entry(100)]


def test_who_only_reads_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    file.write_bytes(b'{"number":1}\n{"numb')
    assert [*Journal(file, Entry)] == [Entry(1)]
    assert file.read_bytes() == b'{"number":1}\n{"numb'


def test_lines_of_another_kind_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    file.write_bytes(b'{"other":1}\n{"number":2}\nnonsense\n{"number":3}\n')
    assert [*Journal(file, Entry)] == [Entry(2), Entry(3)]


def test_threads_append_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", Entry)
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda n: journal.append(Entry(n, "x" * 20_000)), range(64))]
    assert sorted(entry.number for entry in journal) == [*range(64)]
