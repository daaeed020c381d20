"""A matrix becomes cases, each checked before anything runs, and some of them are selected."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from fake.jobs import case
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.models.spec import registry
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.nightly.cases import config, matrix
from iree_pilot.pipeline.nightly.cases.selection import parse, select, shards
from iree_pilot.pipeline.nightly.records import Case


def known() -> list[str]:
    return ["3.13.0", "3.12.0"]


def expanded(directory: Path, text: str) -> tuple[Case, ...]:
    file = directory / "nightly.toml"
    file.write_text(text)
    return matrix.expand(config.read(file), available=known)


def names(cases: tuple[Case, ...]) -> list[str]:
    return [case.name for case in cases]


MATRIX = """\
[matrix]
models = ["bert:tiny", "rope"]
targets = ["llvm-cpu", "hip:gfx942"]
"""


@pytest.mark.real
class TestExpand:
    def test_each_model_is_done_for_each_target(self, tmp_path: Path) -> None:
        assert names(expanded(tmp_path, MATRIX)) == [
            "bert:tiny | llvm-cpu | installed",
            "bert:tiny | hip:gfx942 | installed",
            "rope | llvm-cpu | installed",
            "rope | hip:gfx942 | installed",
        ]

    def test_dtypes_fields_flags_and_releases_are_part_of_a_case(self, tmp_path: Path) -> None:
        found = expanded(
            tmp_path,
            MATRIX
            + 'releases = ["installed", "latest"]\ndtypes = ["f16", "f32"]\nseed = 3\n'
            + 'flags = ["--iree-opt-level=O2"]\ntags = ["t"]\nrepeats = 2\nbisect = false\n',
        )
        assert len(found) == 16
        assert found[-1] == Case(
            source="rope",
            target="hip:gfx942",
            release="latest",
            dtype="f32",
            flags=("--iree-opt-level=O2",),
            tags=("t",),
            seed=3,
            repeats=2,
            bisect=False,
        )

    def test_a_pattern_stands_for_presets_of_the_zoo(self, tmp_path: Path) -> None:
        text = '[matrix]\nmodels = ["*:tiny"]\ntargets = ["llvm-cpu"]\n'
        tiny = [s.name for s in registry().values() if any(p.name == "tiny" for p in s.presets)]
        assert [c.source for c in expanded(tmp_path, text)] == [f"{name}:tiny" for name in tiny]

    @pytest.mark.parametrize(
        ("pattern", "sources"),
        [
            ("llama*", ["llama", "llama-fp8"]),
            ("llama:[ts]*", ["llama:tiny", "llama:small"]),
            ("llama*:tiny/d*", ["llama:tiny/decode", "llama-fp8:tiny/decode"]),
            ("gemma?/prefill", ["gemma2/prefill", "gemma3/prefill"]),
        ],
    )
    def test_a_pattern_has_the_form_of_what_it_chooses(
        self, tmp_path: Path, pattern: str, sources: list[str]
    ) -> None:
        text = f'[matrix]\nmodels = ["{pattern}"]\ntargets = ["llvm-cpu"]\n'
        assert [c.source for c in expanded(tmp_path, text)] == sources

    def test_a_pattern_that_fits_no_model_stands_for_files(self, tmp_path: Path) -> None:
        for name in ("b", "a"):
            (tmp_path / f"{name}.mlir").write_text("module {}\n")
        (tmp_path / "notes.txt").write_text("no model\n")
        text = '[matrix]\nmodels = ["*.mlir"]\ntargets = ["llvm-cpu"]\n'
        assert [c.source for c in expanded(tmp_path, text)] == ["a.mlir", "b.mlir"]

    def test_an_include_says_only_what_differs(self, tmp_path: Path) -> None:
        text = MATRIX + '[[include]]\nmodels = ["vit:tiny"]\nfields = {batch = 2, x = true}\n'
        with pytest.raises(UsageError, match=r"nightly\.toml:5: vit has no field 'x'"):
            expanded(tmp_path, text)
        found = expanded(tmp_path, MATRIX + '[[include]]\nmodels = ["vit:tiny"]\ntags = ["v"]\n')
        assert [(c.target, c.tags) for c in found[4:]] == [
            ("llvm-cpu", ("v",)),
            ("hip:gfx942", ("v",)),
        ]

    def test_an_include_changes_a_case_that_is_there(self, tmp_path: Path) -> None:
        more = '[[include]]\nmodels = ["rope"]\ntargets = ["llvm-cpu"]\ntime_limit = "1h"\n'
        found = expanded(tmp_path, MATRIX + more)
        assert [c.time_limit for c in found] == [600, 600, 3600, 600]

    def test_what_is_excluded_is_not_there(self, tmp_path: Path) -> None:
        more = '[[exclude]]\nmodels = ["ro*"]\ntargets = ["hip"]\n[[exclude]]\nmodels = ["bert"]\n'
        assert names(expanded(tmp_path, MATRIX + more)) == ["rope | llvm-cpu | installed"]

    def test_files_are_relative_to_the_config(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(Path(__file__).parent)
        (tmp_path / "own.py").write_text("def model(): ...\n")
        found = expanded(tmp_path, '[matrix]\nmodels = ["own.py"]\ntargets = ["vulkan"]\n')
        assert names(found) == ["own.py | vulkan | installed"]
        assert Path.cwd() == Path(__file__).parent

    def test_a_matrix_without_models_is_what_the_others_have_alike(self, tmp_path: Path) -> None:
        more = '[[include]]\nmodels = ["rope"]\n[[include]]\nmodels = ["bert:tiny"]\n'
        found = expanded(tmp_path, '[matrix]\ntargets = ["vulkan"]\n' + more)
        assert names(found) == ["rope | vulkan | installed", "bert:tiny | vulkan | installed"]

    def test_a_pattern_may_be_of_a_librarys_models(self, tmp_path: Path) -> None:
        text = '[matrix]\nmodels = ["torchvision:squeezenet*"]\ntargets = ["vulkan"]\n'
        assert names(expanded(tmp_path, text)) == [
            "torchvision:squeezenet1_0 | vulkan | installed",
            "torchvision:squeezenet1_1 | vulkan | installed",
        ]

    @pytest.mark.parametrize(
        ("old", "new", "line", "what", "advice"),
        [
            ("bert:tiny", "bret:tiny", 2, "no model 'bret'", "Did you mean bert"),
            ("bert:tiny", "bert:tny", 2, "no preset 'tny'", "Did you mean tiny"),
            ("bert:tiny", "*:tny", 2, "no model of the zoo and no file fits '*:tny'", ""),
            ("bert:tiny", "missing.py", 2, "no file missing.py", ""),
            ("llvm-cpu", "lvm-cpu", 3, "unknown target 'lvm-cpu'", "llvm-cpu"),
            ('"hip:gfx942"]', '"hip:"]', 3, "names no architecture", ""),
            ("]\n", ']\nreleases = ["3.21.0"]\n', 4, "no release 3.21.0", "3.12.0"),
            ("]\n", ']\nreleases = ["newest"]\n', 4, "'newest' is not a release", ""),
            ("]\n", ']\nreleases = ["./build"]\n', 4, "no iree-compile in build", ""),
            ("]\n", ']\ndtypes = ["f17"]\n', 2, "dtype=f17", "f16"),
            ("]\n", ']\nfields = {layers = "two"}\n', 2, "layers=two", "a number"),
            ("]\n", ']\nflags = ["-o=x"]\n', 4, "-o", ""),
            ("models", "tags", 1, "no models are named", "models = [...]"),
            ("]\n", ']\n[[exclude]]\nmodels = ["gpt*"]\n', 4, "fits no case", ""),
        ],
    )
    def test_what_does_not_exist_is_told_with_its_line(
        self, tmp_path: Path, old: str, new: str, line: int, what: str, advice: str
    ) -> None:
        head, tail = MATRIX.rsplit(old, 1) if old == "]\n" else MATRIX.split(old, 1)
        with pytest.raises(UsageError) as told:
            expanded(tmp_path, head + new + tail)
        assert told.value.message.startswith(f"{tmp_path / 'nightly.toml'}:{line}: ")
        assert what in told.value.message
        assert advice in told.value.advice

    def test_a_file_that_is_spelled_in_several_ways_is_one(self, tmp_path: Path) -> None:
        (tmp_path / "net.py").write_text("model = None\n")
        (tmp_path / "rope").mkdir()
        models = ["./net.py", "net.py", f"{tmp_path}/net.py", "net.py:other", "rope"]
        found = expanded(tmp_path, f'[matrix]\nmodels = {models}\ntargets = ["llvm-cpu"]\n')
        assert [one.source for one in found] == ["./net.py", "net.py:other", "rope"]

    def test_what_is_left_out_is_told_with_its_reason(self, tmp_path: Path) -> None:
        file = tmp_path / "nightly.toml"
        file.write_text(
            '[matrix]\nmodels = ["llama:tiny", "bert:tiny"]\ntargets = ["llvm-cpu", "vulkan"]\n'
            '[[exclude]]\nmodels = ["llama:*", "bert*"]\ntargets = ["vulkan"]\n'
            'reason = "too slow"\n'
            '[[exclude]]\nmodels = ["bert*"]\n'
        )
        told: list[str] = []
        assert len(matrix.expand(config.read(file), on_progress=told.append)) == 1
        assert told == [
            "2 cases left out (llama:*, bert*; vulkan): too slow",
            "1 case left out (bert*): no reason is given",
        ]

    def test_a_matrix_of_which_nothing_is_left_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no case left"):
            expanded(tmp_path, MATRIX + '[[exclude]]\nmodels = ["*"]\n')

    def test_a_dtype_that_a_model_of_a_pattern_lacks_is_left_out(self, tmp_path: Path) -> None:
        text = '[matrix]\nmodels = ["{}"]\ntargets = ["llvm-cpu"]\nfields = {{experts = 2}}\n'
        found = expanded(tmp_path, text.format("*:tiny"))
        having = [s.name for s in registry().values() if any(f.name == "experts" for f in s.fields)]
        assert having
        assert [c.source for c in found] == [f"{name}:tiny" for name in having]
        with pytest.raises(UsageError, match="no field 'experts'"):
            expanded(tmp_path, text.format("bert:tiny"))

    def test_without_a_network_a_version_is_let_pass(self, tmp_path: Path) -> None:
        def offline() -> list[str]:
            raise EnvironmentFault("no network")

        file = tmp_path / "nightly.toml"
        file.write_text(MATRIX + 'releases = ["3.21.0"]\n')
        found = matrix.expand(config.read(file), available=offline)
        assert {c.release for c in found} == {"3.21.0"}


CASES = (
    case("llama:tiny", "llvm-cpu", tags=("smoke",)),
    case("llama:tiny", "vulkan", release="3.12.0"),
    case("bert", "vulkan", dtype="f16"),
    case("bert", "hip:gfx942", flags=("--iree-opt-level=O3",)),
)


class TestOnly:
    @pytest.mark.parametrize(
        ("expression", "chosen"),
        [
            ("llama", [0, 1]),
            ("LLAMA", [0, 1]),
            ("smoke", [0]),
            ("vulkan and bert", [2]),
            ("smoke or hip", [0, 3]),
            ("not vulkan", [0, 3]),
            ("not not vulkan", [1, 2]),
            ("bert and not (hip or f16) or 3.12.0", [1]),
            ("llama:*", [0, 1]),
            ("hip", [3]),
            ("hip:* or f16", [2, 3]),
            ("*", [0, 1, 2, 3]),
            ("opt-level=O3", [3]),
            ('"bert | hip"', [3]),
            ("'tiny | v'", [1]),
        ],
    )
    def test_an_expression_chooses(self, expression: str, chosen: list[int]) -> None:
        assert select(CASES, only=expression) == tuple(CASES[n] for n in chosen)

    @pytest.mark.parametrize(
        ("expression", "why"),
        [
            ("", "a word is missing at the end"),
            ("bert and", "a word is missing at the end"),
            ("or bert", "a word is missing before 'or'"),
            ("(bert", "a bracket is not closed"),
            ("bert)", r"'\)' stands where"),
            ("bert hip", "'hip' stands where"),
            ("'bert", "a quote is not closed"),
            ("(" * 5000 + "bert" + ")" * 5000, "more than 100 brackets"),
            ("not " * 5000 + "bert", "more than 100 brackets"),
        ],
    )
    def test_an_expression_that_cannot_be_read_is_told(self, expression: str, why: str) -> None:
        with pytest.raises(UsageError, match=why) as told:
            select(CASES, only=expression)
        assert "--only 'llama and not" in told.value.advice

    def test_an_expression_that_fits_nothing_is_told(self) -> None:
        with pytest.raises(UsageError, match="fits none of 4 cases") as told:
            select(CASES, only="lamma:tiny")
        assert told.value.advice == "Did you mean llama:tiny?"

    @given(st.text(alphabet="ab ()'\"notr*", max_size=20))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            test = parse(text)
        except UsageError:
            return
        assert test(CASES[0]) in (True, False)


@st.composite
def matrices(draw: st.DrawFn) -> list[Case]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=30))
    targets = ("llvm-cpu", "vulkan", "hip", "hip:gfx942")
    return [case(f"model{n}", t) for n, size in enumerate(sizes) for t in targets[:size]]


class TestShard:
    @given(matrices(), st.integers(1, 6))
    def test_each_case_is_in_one_shard_beside_those_of_its_program(
        self, cases: list[Case], count: int
    ) -> None:
        found = [select(cases, shard=f"{n}/{count}") for n in range(1, count + 1)]
        assert sorted(c.name for shard in found for c in shard) == sorted(c.name for c in cases)
        programs = [{c.program for c in shard} for shard in found]
        assert sum(map(len, programs)) == len(set().union(*programs))

    @given(matrices(), st.integers(1, 6))
    def test_shards_are_balanced(self, cases: list[Case], count: int) -> None:
        loads = Counter(shards(cases, count)[c.program] for c in cases)
        largest = max(Counter(c.program for c in cases).values())
        assert max(loads.values()) <= len(cases) / count + largest

    def test_the_order_of_the_matrix_does_not_matter(self) -> None:
        cases = [case(f"model{n}") for n in range(40)]
        assert shards(cases, 4) == shards(cases[::-1], 4)

    def test_one_model_more_moves_few_others(self) -> None:
        cases = [case(f"model{n}") for n in range(100)]
        before, after = shards(cases, 4), shards([*cases, case("new")], 4)
        assert sum(before[program] != after[program] for program in before) <= 15

    @pytest.mark.parametrize(
        "shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/99999", "1/99999999999999999999"]
    )
    def test_a_shard_that_is_none_is_told(self, shard: str) -> None:
        with pytest.raises(UsageError, match="no such shard"):
            select(CASES, shard=shard)
