"""Known failures: a file that people write, and that accepting news changes without harm."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from fake.disk import tiny_disk

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.nightly.cases import config
from iree_pilot.pipeline.nightly.judgement import expectations
from iree_pilot.pipeline.nightly.judgement.expectations import Expectation, Explanation
from iree_pilot.pipeline.nightly.records import Case, Judgement, Verdict

NAME = "llama-fp8:tiny | vulkan | installed"
WRITTEN = """\
# What we know of, and why.

[[expect]]
case = "llama-fp8:tiny | vulkan | installed"
signature = "diagnostic/vector.bitcast/failed/1f0c6a52"
reason = "SPIR-V has no 8-bit floats"  # nobody works on it
link = "https://example.org/1"
expires = 2026-12-31

[[expect]]
case = "gemma:* | hip:gfx942 | *"
signature = "flaky"
reason = "races"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "expectations.toml"
    file.write_text(WRITTEN)
    return file


def judged(verdict: Verdict, signature: str = "", case: str = NAME) -> Judgement:
    return Judgement(case=case, verdict=verdict, signature=signature)


class TestReading:
    def test_each_table_is_an_expectation(self, path: Path) -> None:
        assert expectations.read(path) == (
            Expectation(
                case=NAME,
                signature="diagnostic/vector.bitcast/failed/1f0c6a52",
                reason="SPIR-V has no 8-bit floats",
                link="https://example.org/1",
                expires=date(2026, 12, 31),
            ),
            Expectation(case="gemma:* | hip:gfx942 | *", signature="flaky", reason="races"),
        )

    def test_without_a_file_nothing_is_expected(self, tmp_path: Path) -> None:
        assert expectations.read(tmp_path / "none.toml") == ()

    def test_a_date_may_be_quoted(self, path: Path) -> None:
        path.write_text(WRITTEN.replace("2026-12-31", '"2026-12-31"'))
        assert expectations.read(path)[0].expires == date(2026, 12, 31)

    @pytest.mark.parametrize(
        ("mistake", "told", "advice"),
        [
            (('reason = "races"', 'raeson = "races"'), "13: there is no key 'raeson'", "reason"),
            (('[[expect]]\ncase = "g', '[[expects]]\ncase = "g'), "10: there is no key", "expect"),
            (('reason = "races"\n', ""), ":10: expect: the key 'reason' is missing", ""),
            (
                ('reason = "races"', "reason = 3"),
                ":13: expect.reason: Expected a string, got a whole number",
                "",
            ),
            (('reason = "races"', 'reason = " "'), ":13: reason: it is empty", ""),
            (("2026-12-31", '"next year"'), ":8: expect.expires: Invalid", ""),
            (('signature = "flaky"', "signature = flaky"), ":12: this is no TOML", "Fix that line"),
            (("# What we know of, and why.", "[expect]"), "this is no TOML", ""),
        ],
    )
    def test_a_mistake_is_told_with_its_line(
        self, path: Path, mistake: tuple[str, str], told: str, advice: str
    ) -> None:
        assert mistake[0] in WRITTEN
        path.write_text(WRITTEN.replace(*mistake))
        with pytest.raises(UsageError) as caught:
            expectations.read(path)
        assert str(path) in caught.value.message
        assert told in caught.value.message
        assert advice in caught.value.advice

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[expect]\ncase = 'x'\n", ":1: expect: Expected a list, got a table"),
            ("expect = 3", ":1: expect: Expected"),
        ],
    )
    def test_what_is_no_list_of_tables_is_told(self, path: Path, text: str, told: str) -> None:
        path.write_text(text)
        with pytest.raises(UsageError, match=told):
            expectations.read(path)

    def test_what_is_no_text_is_told(self, path: Path, tmp_path: Path) -> None:
        path.write_bytes(b"\xff\xfe\x00")
        for place in (path, tmp_path):
            with pytest.raises(UsageError, match="cannot read"):
                expectations.read(place)


class TestMatching:
    @pytest.mark.parametrize(
        ("pattern", "case", "matches"),
        [
            (NAME, NAME, True),
            (NAME, f"{NAME} -- --iree-opt-level=O3", False),
            ("llama*", NAME, True),
            ("* | vulkan | *", NAME, True),
            ("* | vulkan:x | *", NAME, False),
            ("llama-fp?:tiny*", NAME, False),
            ("m --set a=[1]*", "m --set a=[1] | llvm-cpu | installed", True),
            ("m --set a=[1]*", "m --set a=1 | llvm-cpu | installed", False),
            ("*|*", "a.b|c", True),
        ],
    )
    def test_only_the_star_is_special(self, pattern: str, case: str, matches: bool) -> None:
        assert Expectation(case=pattern, signature="s", reason="r").is_of(case) is matches
        assert Expectation(case="c", signature=pattern, reason="r").covers(case) is matches

    def test_it_holds_until_the_end_of_its_last_day(self) -> None:
        known = Expectation(case="c", signature="s", reason="r", expires=date(2026, 3, 1))
        assert known.holds(date(2026, 3, 1))
        assert not known.holds(date(2026, 3, 2))
        assert Expectation(case="c", signature="s", reason="r").holds(date.max)

    def test_those_of_no_case_are_stale(self, path: Path) -> None:
        known = expectations.read(path)
        assert expectations.stale(known, [NAME]) == known[1:]
        assert expectations.stale(known, [NAME, "gemma:tiny | hip:gfx942 | 3.13.0"]) == ()

    def test_those_of_other_parts_and_configurations_are_used(self, tmp_path: Path) -> None:
        night = '[matrix]\nmodels = ["{}:tiny"]\ntargets = ["llvm-cpu"]\n'
        for name, model in (("nightly", "llama"), ("weekly", "bert")):
            (tmp_path / f"{name}.toml").write_text(night.format(model))
        (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
        known = tuple(
            Expectation(case=f"{name}:tiny | llvm-cpu | installed", signature="s", reason="r")
            for name in ("llama", "bert", "vit", "gemma")
        )
        nightly = config.read(tmp_path / "nightly.toml")
        tonight = [Case(source="vit:tiny", target="llvm-cpu")]
        assert expectations.unused(known, nightly, tonight) == known[3:]
        (tmp_path / "weekly.toml").write_text("[matrix]\nmodels = 1\n")
        assert expectations.unused(known, nightly, tonight) == (), "they may be of the other one"


class TestAccepting:
    @pytest.mark.parametrize("verdict", ["new failure", "same failure", "changed failure"])
    def test_a_failure_is_added(self, path: Path, verdict: Verdict) -> None:
        case = "qwen:tiny | llvm-cpu | installed"
        accepted = expectations.accept(
            path,
            [judged(verdict, "crash/SIGSEGV/x", case)],
            Explanation("a crash", "https://example.org/2", date(2027, 1, 31)),
        )
        assert (accepted.added, accepted.changed, accepted.removed) == ((case,), (), ())
        assert expectations.read(path)[2] == Expectation(
            case=case,
            signature="crash/SIGSEGV/x",
            reason="a crash",
            link="https://example.org/2",
            expires=date(2027, 1, 31),
        )
        assert path.read_text().startswith(WRITTEN), "what people wrote stays as it was"

    def test_another_signature_replaces_the_old_one(self, path: Path) -> None:
        accepted = expectations.accept(
            path, [judged("changed failure", "b")], Explanation("it moved")
        )
        assert accepted.changed == (NAME,)
        first, second = expectations.read(path)
        assert first == Expectation(case=NAME, signature="b", reason="it moved")
        assert second.reason == "races"
        assert "# What we know of, and why." in path.read_text()

    def test_what_is_fixed_is_taken_out(self, path: Path) -> None:
        assert expectations.accept(path, [judged("fixed", "a")], Explanation("")).removed == (NAME,)
        (left,) = expectations.read(path)
        assert left.reason == "races"

    @pytest.mark.parametrize(
        ("verdict", "status", "removed"),
        [
            ("pass", "ok", True),
            ("slower", "ran", True),
            ("comparison lost", "compiled", True),
            ("not run", "not-run", False),
            ("fail", "failed", False),
            ("pass", "", False),
        ],
    )
    def test_what_passes_since_is_taken_out(
        self, path: Path, verdict: Verdict, status: str, removed: bool
    ) -> None:
        now = [judged(verdict), judged("pass", case="gemma:* | hip:gfx942 | *")]
        statuses = {NAME: status, now[1].case: "ok"}
        accepted = expectations.accept(path, now, Explanation(""), statuses=statuses)
        assert accepted.removed == (NAME,) * removed

    def test_one_that_is_only_compiled_may_have_wrong_numbers(self, path: Path) -> None:
        path.write_text(WRITTEN.replace("diagnostic/vector.bitcast/failed", "mismatch/values"))
        for status, removed in (("compiled", ()), ("ran", ()), ("ok", (NAME,))):
            statuses = {NAME: status}
            now = expectations.accept(path, [judged("pass")], Explanation(""), statuses=statuses)
            assert now.removed == removed

    def test_a_pattern_stays_when_one_of_its_cases_is_fixed(self, path: Path) -> None:
        fixed = judged("fixed", "a", "gemma:tiny | hip:gfx942 | installed")
        assert not expectations.accept(path, [fixed], Explanation(""))
        assert path.read_text() == WRITTEN

    def test_what_is_flaky_is_expected_to_be(self, path: Path) -> None:
        expectations.accept(path, [judged("flaky", "sometimes")], Explanation("a race"))
        assert expectations.read(path)[0].flaky

    @pytest.mark.parametrize("verdict", ["pass", "fail", "slower", "bigger", "not run"])
    def test_nothing_else_is_written(self, path: Path, verdict: Verdict) -> None:
        assert not expectations.accept(path, [judged(verdict, "s", "another")], Explanation(""))
        assert path.read_text() == WRITTEN

    def test_the_first_one_makes_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "expectations.toml"
        news = [judged("new failure", "a", f"case {n}") for n in range(3)]
        assert len(expectations.accept(path, news, Explanation('say "no"')).added) == 3
        assert [e.case for e in expectations.read(path)] == ["case 0", "case 1", "case 2"]

    def test_the_state_of_the_model_is_kept_beside_it(self, path: Path) -> None:
        models = {NAME: "0123456789abcdef", "x": ""}
        news = [judged("changed failure", "b"), judged("new failure", "c", "x")]
        expectations.accept(path, news, Explanation("it moved"), models=models)
        known = {e.case: e.model for e in expectations.read(path)}
        assert known == {**models, "gemma:* | hip:gfx942 | *": ""}
        assert path.read_text().count("model") == 1, "nothing is said of what is not known"

    def test_of_what_is_expected_already_it_is_brought_up_to_date(self, path: Path) -> None:
        known = [judged("fail", "diagnostic/vector.bitcast/failed/1f0c6a52")]
        assert not expectations.accept(path, known, Explanation(""), models={NAME: "2"})
        assert path.read_text() == WRITTEN, "nobody wrote of which model it is"
        path.write_text(WRITTEN.replace("expires =", 'model = "1"\nexpires ='))
        assert expectations.accept(path, known, Explanation(""), models={NAME: "2"}).changed == (
            NAME,
        )
        first = expectations.read(path)[0]
        assert (first.model, first.reason) == ("2", "SPIR-V has no 8-bit floats")
        assert not expectations.accept(path, known, Explanation(""), models={NAME: "2"})

    def test_when_all_is_fixed_the_list_goes_and_comes_again(self, path: Path) -> None:
        gemma = "gemma:tiny | hip:gfx942 | installed"
        path.write_text(WRITTEN.replace("gemma:* | hip:gfx942 | *", gemma))
        expectations.accept(path, [judged("fixed"), judged("fixed", case=gemma)], Explanation(""))
        assert path.read_text().strip() == "# What we know of, and why."
        news = [judged("new failure", "a", name) for name in (NAME, gemma)]
        assert expectations.accept(path, news, Explanation("again")).added == (NAME, gemma)
        assert [e.case for e in expectations.read(path)] == [NAME, gemma]

    def test_a_list_that_is_empty_is_none(self, path: Path) -> None:
        path.write_text("expect = []\n# ours\n")
        expectations.accept(path, [judged("new failure", "a")], Explanation("r"))
        assert [e.signature for e in expectations.read(path)] == ["a"]
        assert "# ours" in path.read_text()

    def test_tables_in_one_line_stay_in_one_line(self, path: Path) -> None:
        path.write_text('expect = [\n  {case = "a", signature = "s", reason = "r"},  # why\n]\n')
        news = [judged("new failure", "t", "b"), judged("changed failure", "u", "a")]
        expectations.accept(path, news, Explanation("new"))
        assert [(e.case, e.signature) for e in expectations.read(path)] == [("a", "u"), ("b", "t")]
        assert path.read_text().startswith('expect = [\n  {case = "a", signature = "u"')
        expectations.accept(path, [judged("fixed", case=case) for case in "ab"], Explanation(""))
        assert expectations.read(path) == ()

    @pytest.mark.parametrize("gone", ["a", "b", "c", "ab", "ac", "bc", "abc", "cba"])
    def test_comments_stay_whatever_is_fixed(self, path: Path, gone: str) -> None:
        table = '# above {0}\n[[expect]]\ncase = "{0}"\nsignature = "s"\nreason = "r"\n'
        path.write_text("".join(map(table.format, "abc")) + "# at the end\n")
        expectations.accept(path, [judged("fixed", case=case) for case in gone], Explanation(""))
        left = [case for case in "abc" if case not in gone]
        assert [e.case for e in expectations.read(path)] == left
        text = path.read_text()
        assert all(f"# above {case}\n" in text for case in "abc") and "# at the end" in text
        assert all(f'# above {case}\n[[expect]]\ncase = "{case}"' in text for case in left)

    def test_the_ends_of_lines_stay(self, path: Path) -> None:
        path.write_bytes(WRITTEN.replace("\n", "\r\n").encode())
        news = [judged("changed failure", "b"), judged("new failure", "c", "x")]
        accepted = expectations.accept(path, news, Explanation("r"), models={NAME: "1"})
        assert accepted.changed == (NAME,)
        written = path.read_bytes().decode()
        assert "\n" not in written.replace("\r\n", "")
        assert written.startswith("# What we know of, and why.\r\n\r\n[[expect]]\r\n")

    @pytest.mark.parametrize("end", ["\n", "", "\n# at the end\n", "\n\n# at the end"])
    def test_a_new_key_comes_before_what_is_about_the_next_one(self, path: Path, end: str) -> None:
        table = '[[expect]]\ncase = "{0}"\nsignature = "s"  # why {0}\nreason = "r"  # {0}'
        path.write_text(f"{table.format('a')}\n\n# about b\n{table.format('b')}{end}")
        news = [judged("changed failure", "t", case) for case in "ab"]
        expectations.accept(path, news, Explanation("q", "l"), models={"a": "1"})
        changed = table.replace('"s"', '"t"').replace('"r"', '"q"')
        first = f'{changed.format("a")}\nlink = "l"\nmodel = "1"\n\n# about b\n'
        text = f'{first}{changed.format("b")}\nlink = "l"\n{end.removeprefix(chr(10))}'
        assert path.read_text().rstrip("\n") == text.rstrip("\n")

    @pytest.mark.parametrize("end", ["", "\n", "\n# at the end"])
    def test_a_new_table_comes_after_all_whatever_the_last_line_is(
        self, path: Path, end: str
    ) -> None:
        path.write_text(WRITTEN.rstrip() + end)
        expectations.accept(path, [judged("new failure", "a", "x")], Explanation("r"))
        assert [e.case for e in expectations.read(path)][2:] == ["x"]
        assert path.read_text().startswith(f"{WRITTEN.rstrip()}{end.rstrip()}\n\n[[expect]]")

    def test_what_would_break_the_file_is_not_written(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tomlkit.dumps", lambda document: "expect = [case = 1")
        with pytest.raises(UsageError, match="this is no TOML"):
            expectations.accept(path, [judged("new failure", "a", "x")], Explanation("r"))
        monkeypatch.setattr("tomlkit.dumps", lambda document: "")
        with pytest.raises(RuntimeError, match="does not say what was meant"):
            expectations.accept(path, [judged("new failure", "a", "x")], Explanation("r"))
        assert path.read_text() == WRITTEN

    def test_a_file_with_a_mistake_is_not_touched(self, path: Path) -> None:
        path.write_text(WRITTEN + 'resaon = ""\n')
        with pytest.raises(UsageError, match="resaon"):
            expectations.accept(path, [judged("new failure", "a", "x")], Explanation("r"))
        assert path.read_text() == WRITTEN + 'resaon = ""\n'

    def test_a_full_disk_changes_nothing(self, tmp_path: Path) -> None:
        with tiny_disk(tmp_path / "disk", 8192) as directory:
            path = directory / "expectations.toml"
            path.write_text(WRITTEN)
            (directory / "filler").write_bytes(bytes(4096))
            with pytest.raises(EnvironmentFault, match="No space left on device"):
                expectations.accept(path, [judged("new failure", "a", "x")], Explanation("r"))
            assert path.read_text() == WRITTEN
            assert sorted(p.name for p in directory.iterdir()) == ["expectations.toml", "filler"]
