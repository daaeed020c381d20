"""A nightly.toml is read strictly: what does not fit is told with its line and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from iree_pilot.pipeline import toml_tables
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.nightly.cases import config

WHOLE = """\
title = "zoo"

[matrix]
models = ["*:tiny"]
targets = [
  "llvm-cpu",
  "vulkan",
]

[[include]]
tags = ["long"]

[[include]]
models = ["llama:small"]
time_limit = "30min"
memory_limit = "4GiB"

[[exclude]]
models = ["mamba*"]
reason = "later"

[schedule]
jobs = 2

[bisect]
budget = "1h"

[news]
workaround = false
each = "2min"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "nightly.toml"


def test_a_whole_config_is_read(file: Path) -> None:
    file.write_text(WHOLE)
    found = config.read(file).config
    assert found.title == "zoo"
    assert found.matrix.targets == ("llvm-cpu", "vulkan")
    assert found.include[1].seconds == 1800
    assert found.include[1].memory_bytes == 4 * 2**30
    assert found.exclude[0].reason == "later"
    assert found.schedule.jobs == 2
    assert (found.bisect.seconds, found.bisect.seconds_each) == (3600, 600)
    assert (found.news.isolate, found.news.releases, found.news.workaround) == (True, True, False)
    assert (found.news.seconds, found.news.seconds_each) == (1200, 120)


def test_numbers_are_seconds_and_bytes(file: Path) -> None:
    file.write_text(
        "[matrix]\ntime_limit = 1.5\nmemory_limit = 20000000\n[schedule]\nmemory = 30000000\n"
    )
    found = config.read(file).config
    assert (found.matrix.seconds, found.matrix.memory_bytes) == (1.5, 20_000_000)
    assert found.schedule.memory_bytes == 30_000_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[matrix]\nmemory_limit = '1KB'\n", "less memory than any step needs"),
        ("[matrix]\nmemory_limit = 1000\n", "less memory than any step needs"),
        ("[schedule]\nmemory = 10\n", "less memory than any step needs"),
        (f"[schedule]\njobs = {10**20}\n", "jobs"),
        ("[schedule]\njobs = 5000\n", "<= 4096"),
        (f"[schedule]\nreruns = {10**20}\n", "reruns"),
        ("[matrix]\nrepeats = 10001\n", "<= 10000"),
        ("[matrix]\nmemory_limit = inf\n", "memory_limit"),
        ("[matrix]\ntime_limit = inf\n", "time_limit"),
        (f"[matrix]\ntime_limit = '{10**20}h'\n", "is too large for a duration"),
        ("[matrix]\nmodels = " + "[" * 5000 + "]" * 5000, "it is nested too deeply"),
    ],
)
def test_amounts_that_no_machine_has_or_works_with(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        config.read(file)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "advice"),
    [
        ("title", "titel", 1, "no key 'titel'", "Did you mean title?"),
        ("[matrix]", "[matrx]", 3, "no key 'matrx'", "Did you mean matrix?"),
        ("targets", "tragets", 5, "no key 'tragets' of [matrix]", "Did you mean targets"),
        ('tags = ["long"]', 'tag = ["long"]', 11, "no key 'tag' of [include]", "tags"),
        ("time_limit", "timelimit", 15, "no key 'timelimit' of [include]", "time_limit"),
        ("reason", "raeson", 20, "no key 'raeson' of [exclude]", "Did you mean reason"),
        ("budget", "budgte", 26, "no key 'budgte' of [bisect]", "Did you mean budget?"),
        ("workaround", "workarond", 29, "no key 'workarond' of [news]", "Did you mean workaround?"),
        ("workaround = false", "workaround = 1", 29, "news.workaround: Expected true or false", ""),
        ('"2min"', '"two"', 30, "each: 'two' is not a duration", ""),
        ('"vulkan"', "3", 5, "matrix.targets: Expected a string, got a whole number", ""),
        ('["long"]', '"long"', 11, "include.tags: Expected a list", ""),
        ('"30min"', '"30 minutes"', 15, "time_limit: '30 minutes' is not a duration", ""),
        ('"4GiB"', '"4 gigs"', 16, "memory_limit: '4 gigs' is not a size", ""),
        ('"4GiB"', "-1", 16, "Expected a number > 0", ""),
        ("jobs = 2", "jobs = -2", 23, "schedule.jobs: Expected a whole number >= 0", ""),
        ('"1h"', "true", 26, "bisect.budget: Expected", ""),
        ('"vulkan"', "vulkan", 7, "this is no TOML", "https://toml.io"),
        ('budget = "1h"', 'budget = "1h', 26, "this is no TOML", ""),
    ],
)
def test_what_does_not_fit_is_told_with_its_line(
    file: Path, old: str, new: str, line: int, what: str, advice: str
) -> None:
    file.write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(UsageError) as told:
        config.read(file)
    assert told.value.message.startswith(f"{file}:{line}: ")
    assert what in told.value.message
    assert advice in told.value.advice


def test_a_config_without_a_matrix_is_refused(file: Path) -> None:
    file.write_text("title = 'empty'\n")
    with pytest.raises(UsageError, match=r":1: .*'matrix'"):
        config.read(file)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_told(file: Path, content: bytes | None) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read .*nightly\.toml"):
        config.read(file)


def test_the_digest_is_that_of_the_cases(file: Path) -> None:
    file.write_text(WHOLE)
    digest = config.read(file).digest
    file.write_text(WHOLE.replace("jobs = 2", "jobs = 7").replace("title", "# comment\ntitle"))
    assert config.read(file).digest == digest
    file.write_text(WHOLE.replace("vulkan", "hip"))
    assert config.read(file).digest != digest


@pytest.mark.parametrize(
    ("keys", "value", "line"),
    [
        (("title",), "", 1),
        (("matrix", "targets"), "", 5),
        (("matrix", "targets"), "vulkan", 7),
        (("include", 0), "", 10),
        (("include", 0, "tags"), "", 11),
        (("include", 1, "models"), "llama:small", 14),
        (("include", 1, "tags"), "", 13),
        (("exclude", 0), "", 18),
        (("nothing",), "", 0),
    ],
)
def test_the_line_of_a_key_is_found(keys: tuple[str | int, ...], value: str, line: int) -> None:
    assert toml_tables.line_of(WHOLE, *keys, value=value) == line
