"""A link that leads nowhere is told as that, and not as a file that is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from iree_pilot.pipeline import links
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.source import parse
from iree_pilot.repro.reproducer.folder import bundle


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("dangling", "model.py"):
        Path(name).symlink_to("gone")
    Path("loop").symlink_to("loop2")
    Path("loop2").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("dangling", "a link to gone, which is not there"),
        ("model.py", "a link to gone, which is not there"),
        ("model.py:make", "a link to gone, which is not there"),
        ("loop", "a link to itself"),
    ],
)
def test_as_a_source(here: Path, name: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"{name.partition(':')[0]} is {what}"):
        parse(name, {}, None)


@pytest.mark.parametrize("name", ["dangling", "loop"])
def test_as_a_reproducer(here: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is a link to "):
        bundle.read(Path(name))


def test_what_leads_somewhere_is_taken(here: Path) -> None:
    Path("gone").write_text("x = 1")
    links.check(Path("dangling"))
    links.check(Path("nothing"))
    assert parse("model.py", {}, None).kind == "file"
