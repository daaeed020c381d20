"""scripts/docs-check: what it reads in a page, what it holds against it, and our own pages."""

from __future__ import annotations

import docs_check
import pytest
from docs_check import blocks, differs, links, missing_paths, missing_samples, wrong_names

PAGE = """# A page

<!-- docs-check: slow; exit 1 -->

    $ iree-pilot run examples/i8_sub.py -t vulkan -o a.mlir
    ...
      took  1.5 s

    $ iree-pilot compile a.mlir -t hip

- a list
    iree-pilot goes on here

    iree-pilot doctor      # what is here
    what it says

<!-- docs-check: elsewhere: an AMD GPU -->

```sh
$ iree-pilot run gone.mlir -t hip
```

```python
iree-pilot is no command here
```
"""


class TestReading:
    def test_commands_with_their_output_and_their_lines(self) -> None:
        first, second, third, last = blocks(PAGE)
        assert [(c.text, c.line) for c in first.commands] == [
            ("iree-pilot run examples/i8_sub.py -t vulkan -o a.mlir", 5),
            ("iree-pilot compile a.mlir -t hip", 9),
        ]
        assert first.commands[0].shown == "...\n  took  1.5 s\n\n"
        assert [c.text for c in second.commands] == ["iree-pilot doctor      # what is here"]
        assert [(c.text, c.line) for c in third.commands] == [
            ("iree-pilot run gone.mlir -t hip", 20)
        ]
        assert last.commands == []

    def test_what_the_comment_before_a_block_says(self) -> None:
        first, second, third, _ = blocks(PAGE)
        assert (first.marked("slow"), first.marked("exit")) == ("", "1")
        assert (second.marked("slow"), second.marked("elsewhere")) == (None, None)
        assert third.marked("elsewhere") == "an AMD GPU"


class TestComparing:
    @pytest.mark.parametrize(
        ("shown", "said"),
        [
            ("took   17 compiles, 11.3 s", "took 3 compiles, 800 ms"),
            ("module 3.4 kB", "module 12 MB, more"),
            ("git 22d4220776\nend", "x\ngit 0c27ba0aa1\nbetween\nend"),
            ("location .../program.mlir:5:10", "location /tmp/a/program.mlir:7:1"),
            ("one ...\nthree", "one two\nthree"),
            ("too long\n  for a line", "too long for a line"),
            (
                "took 61.7 s: start 645 ms, trace 7.01 s",
                "x\ntook 2 min 3 s: trace 2 min 1 s, other 1 s\nend",
            ),
        ],
    )
    def test_alike_in_form(self, shown: str, said: str) -> None:
        assert differs(shown, said) == ""

    @pytest.mark.parametrize(
        ("shown", "said", "line"),
        [
            ("ok\nfailed", "ok\nran", "failed"),
            ("second\nfirst", "first\nsecond", "first"),
            ("took 3 s", "took 3 kB", "took 3 s"),
            ("took 3 s: start 1 s", "took 3 s", "took 3 s: start 1 s"),
        ],
    )
    def test_unlike(self, shown: str, said: str, line: str) -> None:
        assert differs(shown, said) == line


class TestTyping:
    def test_the_user_s_own_cache_is_left_alone(
        self, tmp_path: docs_check.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IREE_PILOT_CACHE", "the user's")
        monkeypatch.setenv("IREE_PILOT_DATA", "the user's")
        (tmp_path / "there").mkdir()
        typist = docs_check.Typist(tmp_path / "there", tmp_path / "own")
        shown = f"{tmp_path}/own/cache {tmp_path}/own/data"
        asked = docs_check.Command('echo "$IREE_PILOT_CACHE" "$IREE_PILOT_DATA"', shown, 1)
        assert typist.type(asked, 0) == ""


class TestNames:
    @pytest.mark.parametrize(
        ("command", "wrong"),
        [
            ("iree-pilot run llama -t vulkan -- --iree-anything", []),
            ("iree-pilot compile SOURCE [--to PHASE] [-o FILE]", []),
            ("iree-pilot nightly run | status --json", []),
            ("iree-pilot run llama --targt vulkan", ["run has no --targt"]),
            ("iree-pilot nightly runn", ["there is no command runn"]),
            ("iree-pilot verify D --to=x", ["verify has no --to"]),
        ],
    )
    def test_of_commands_and_options(self, command: str, wrong: list[str]) -> None:
        assert wrong_names(command) == wrong

    def test_of_sample_files(self) -> None:
        assert missing_samples(blocks(PAGE)) == [], "written before, and not typed here"
        assert missing_samples(blocks("    iree-pilot run gone.py")) == ["gone.py"]

    def test_of_files_of_the_repository(self) -> None:
        said = "`pipeline/cli/`, .ci/run, models/*.py; their/repro/x.py, **tests/no.py**, docs/no/"
        assert missing_paths(said) == ["tests/no.py", "docs/no/"]

    def test_of_links(self) -> None:
        page = docs_check.ROOT / "docs/design.md"
        assert links(page, "[a](the-zoo.md#x) [b](https://iree.dev) [c](gone.md)") == ["gone.md"]


@pytest.mark.real
@pytest.mark.parametrize("page", docs_check.all_pages(), ids=lambda page: page.name)
def test_a_page_says_what_is_so(page: docs_check.Path, shared_cache: docs_check.Path) -> None:
    assert docs_check.check(page, shared_cache / "docs", everything=False) == []
