"""Durations, sizes and pairs mean what people write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.cli.options import (
    DURATION,
    SIZE,
    Common,
    Output,
    SourceOptions,
    common,
    source_options,
)

AMOUNTS = st.decimals("0.001", "999999", places=3, allow_nan=False, allow_infinity=False)


def read(kind: Any, text: str) -> float:
    return kind.convert(text, None, None)


class TestQuantities:
    @given(
        AMOUNTS,
        st.sampled_from([("", 1), ("s", 1), ("sec", 1), ("m", 60), ("min", 60), ("h", 3600)]),
        st.sampled_from(["", " "]),
    )
    def test_durations_are_seconds(self, amount: Any, unit: tuple[str, int], gap: str) -> None:
        assert read(DURATION, f"{amount}{gap}{unit[0]}") == pytest.approx(float(amount) * unit[1])

    @given(
        AMOUNTS,
        st.sampled_from([("", 0), ("K", 1), ("M", 2), ("G", 3), ("T", 4)]),
        st.sampled_from(["", "B", "iB"]),
        st.booleans(),
    )
    def test_sizes_are_bytes(
        self, amount: Any, power: tuple[str, int], suffix: str, lower: bool
    ) -> None:
        if not power[0] and suffix == "iB":
            return
        unit = power[0] + suffix
        factor = (1024 if suffix == "iB" else 1000) ** power[1]
        text = f"{amount}{unit.lower() if lower else unit}"
        assert read(SIZE, text) == pytest.approx(float(amount) * factor)

    @pytest.mark.parametrize(
        "text", ["", "-1", "0", "0s", "1e3", "ten", "5 days", "1.2.3s", "s", "1 2", "inf", "nan"]
    )
    def test_what_is_no_duration_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(click.BadParameter, match=r"is not a duration \(for example 90s"):
            read(DURATION, text)

    @pytest.mark.parametrize(
        ("kind", "text"),
        [(DURATION, "1" + "0" * 400 + "h"), (SIZE, "9" * 400), (SIZE, "20000000TB")],
    )
    def test_what_no_machine_has_is_refused(self, kind: click.ParamType, text: str) -> None:
        with pytest.raises(click.BadParameter, match="is too large for a"):
            read(kind, text)

    @pytest.mark.parametrize("text", ["4XB", "0", "GiB", "1KiBs", "1 G B"])
    def test_what_is_no_size_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(click.BadParameter, match=r"is not a size \(for example 512MB"):
            read(SIZE, text)


@click.command()
@source_options
@common(limits=True, release=True)
def command(source: str, source_options: SourceOptions, common: Common) -> None:
    click.echo(repr((source, source_options, common)))


class TestOptions:
    def result(self, *arguments: str) -> Any:
        return CliRunner().invoke(command, list(arguments))

    def test_what_is_not_said_has_a_default(self) -> None:
        result = self.result("llama")
        assert result.exit_code == 0
        assert "Common(json=False, verbosity=0, time_limit=600.0, default_limit=True" in (
            result.output
        )

    def test_pairs(self) -> None:
        result = self.result("llama", "--set", "a=1", "--set", "b=x=y", "--set", "c=")
        assert "settings={'a': '1', 'b': 'x=y', 'c': ''}" in result.output

    @pytest.mark.parametrize("text", ["a", "=1", ""])
    def test_what_is_no_pair_is_refused(self, text: str) -> None:
        result = self.result("llama", "--set", text)
        assert result.exit_code == 2
        assert "is not KEY=VALUE" in result.output

    def test_quiet_and_verbose_contradict_each_other(self) -> None:
        assert "verbosity=-1" in self.result("llama", "-q").output
        assert "verbosity=1" in self.result("llama", "-v").output
        result = self.result("llama", "-q", "-v")
        assert result.exit_code == 2
        assert "contradict" in result.output

    def test_weights_must_be_there(self) -> None:
        result = self.result("llama", "--weights", "gone.safetensors")
        assert result.exit_code == 2
        assert "gone.safetensors" in result.output

    def test_a_source_that_begins_with_a_dash_can_be_typed_anywhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "-net.py").write_text("")
        assert self.result("--", "-net.py:Net").output.startswith("('./-net.py:Net', ")
        # No file: a flag of iree-compile where SOURCE is missing is named as it was typed.
        assert self.result("--", "--iree-x").output.startswith("('--iree-x', ")

    def test_so_can_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert Output().convert("-repro", None, None) == "./-repro"
        assert Output(stdout=True).convert("-", None, None) == "-"
