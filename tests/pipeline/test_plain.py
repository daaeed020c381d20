"""What others write does not steer the terminal that it is shown on."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from iree_pilot.pipeline.cli import boundary, cli
from iree_pilot.pipeline.cli.display import output
from iree_pilot.pipeline.cli.display.screen import Screen
from iree_pilot.pipeline.plain import plain, spell

HOSTILE = "\x1b[2J\x1b]0;own\x07 \u202eevil \x9b31m"
SPELLED = r"\x1b[2J\x1b]0;own\x07 \u202eevil \x9b31m"


def test_control_and_direction_are_spelled() -> None:
    assert plain(HOSTILE) == SPELLED
    assert plain("\u2066a\u200f\r\x7f\u2028") == r"\u2066a\u200f\r\x7f\u2028"
    for text in ("a\n\tb", "größe, 日本語, עברית, ∞, 🙂", "\\x1b"):
        assert plain(text) == text


@pytest.mark.parametrize("terminal", [False, True])
def test_on_the_console(terminal: bool) -> None:
    file = io.StringIO()
    screen = Screen(file=file, force_terminal=terminal, width=200)
    screen.print(HOSTILE, markup=False)
    table = output.table("what")
    table.add_row(HOSTILE)
    screen.print(table)
    said = file.getvalue()
    assert said.count(r"\x1b[2J\x1b]0;own") == 2
    assert "\x1b[2J" not in said
    assert "\u202e" not in said
    assert "\x9b" not in said


def test_colours_of_ours_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    file = io.StringIO()
    Screen(file=file, force_terminal=True, color_system="standard", width=80).print("[red]a[/red]")
    assert file.getvalue() == "\x1b[31ma\x1b[0m\n"


def test_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boundary, "_hear_signals", lambda: None)
    place = tmp_path / f"{HOSTILE}\nevil"
    place.mkdir()
    assert boundary.guarded(cli, ["verify", str(place)]) == 2
    said = capsys.readouterr().err
    assert r"there is no report.json in" in said
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_in_a_note_on_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output.deliver(tmp_path / "a\x1b[2J", "text")
    assert r"a\x1b[2J" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_spelled(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    spell(stream)
    stream.write("45 \N{MICRO SIGN}s, a\N{HORIZONTAL ELLIPSIS} \u221e \udc80")
    stream.flush()
    said = {
        "ascii": r"45 us, a... \u221e \udc80",
        "latin-1": "45 \N{MICRO SIGN}s, a... \\u221e \\udc80",
        "utf-8": "45 \N{MICRO SIGN}s, a\N{HORIZONTAL ELLIPSIS} \u221e \\udc80",
    }
    assert raw.getvalue().decode(encoding) == said[encoding]


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_a_stream_without_an_encoding_stays_as_it_is(stream: io.StringIO | None) -> None:
    spell(stream)
