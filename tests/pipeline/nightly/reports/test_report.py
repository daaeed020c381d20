"""A night as it is told: what stands in Markdown and in JUnit XML, whatever the compiler wrote."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
from fake.nights import FIRST, case, failure, outcome
from junitparser import JUnitXml

from iree_pilot.pipeline.nightly.history.history import NightRun
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome, Finding, Judgement, Verdict
from iree_pilot.pipeline.nightly.reports.junit import junit
from iree_pilot.pipeline.nightly.reports.markdown import COMMENT, again, markdown
from iree_pilot.pipeline.nightly.reports.report import CaseRow, NightReport
from iree_pilot.pipeline.program.source_lines import SourceLines


def row(
    of: Case,
    verdict: Verdict,
    why: str = "",
    found: CaseOutcome | None = None,
    reproducer: str = "",
) -> CaseRow:
    out = found or outcome(of)
    signature = out.failure.signature if out.failure else ""
    judgement = Judgement(
        case=of.name, verdict=verdict, why=why, signature=signature, reproducer=reproducer
    )
    return CaseRow(case=of, outcome=out, judgement=judgement)


def report(*rows: CaseRow, notes: tuple[str, ...] = ()) -> NightReport:
    run = NightRun(
        id=1,
        uuid="u",
        config="c",
        title="zoo",
        machine="a | b",
        revision={"torch": "2.13.0"},
        begun=FIRST.isoformat(),
        finished=None,
        cases=len(rows),
        done=len(rows),
        verdicts={},
    )
    return NightReport(run=run, rows=rows, notes=notes)


CRASH = failure("crash/here")
LLAMA, VULKAN = case("llama:tiny"), case("llama:tiny", "vulkan")
NEWS = row(LLAMA, "new failure", "it passed before", outcome(LLAMA, CRASH), "repro/crash-here")
MORE = row(VULKAN, "new failure", "never ran", outcome(VULKAN, CRASH), "repro/crash-here")
KNOWN = row(case("vit:tiny"), "fail", "expected: no f64", outcome(case("vit:tiny"), CRASH))


ABSENT = row(case(target="hip:gfx942"), "compiled", "compiled, not run: no HIP device")
RAN = row(case("vit:tiny"), "ran", "ran, not compared: there is no reference")


class TestReport:
    def test_the_title_counts_the_news(self) -> None:
        assert report(NEWS, KNOWN).title == "zoo of 2026-01-01: news in 1 of 2 cases"
        assert report(KNOWN).title == "zoo of 2026-01-01: nothing new in 1 case"

    def test_a_night_that_is_not_judged_is_not_said_to_be_without_news(self) -> None:
        open_row = CaseRow(case=LLAMA, outcome=outcome(LLAMA, CRASH))
        assert report(open_row).title == "zoo of 2026-01-01: not finished, 1 done in 1 case"
        assert not report(open_row, KNOWN).going_on

    def test_verdicts_are_counted_in_words(self) -> None:
        assert report(NEWS, MORE, KNOWN).counted == "2 new failures, 1 fail"
        assert report(NEWS).counted == "1 new failure"

    def test_the_gravest_news_come_first(self) -> None:
        slower = row(case("bert:tiny"), "slower", "compile 3 s, usually 1 s")
        assert report(slower, NEWS).news == (NEWS, slower)

    def test_cases_with_one_failure_are_one_story(self) -> None:
        other = row(case("bert:tiny"), "new failure", "", outcome(case("bert:tiny"), failure("x")))
        assert report(NEWS, other, MORE).stories == ((NEWS, MORE), (other,))

    def test_wrong_numbers_of_two_programs_are_two(self) -> None:
        wrong = failure("mismatch/values/1", kind="mismatch", phase="compare")
        shown = [
            row(of, "new failure", "", outcome(of, wrong, program=of.program))
            for of in (LLAMA, VULKAN, case("bert:tiny"))
        ]
        assert report(*shown).stories == ((shown[0], shown[1]), (shown[2],))

    def test_slower_cases_without_a_signature_are_stories_of_their_own(self) -> None:
        slow = [row(case(name), "slower", "compile") for name in ("a:tiny", "b:tiny")]
        assert len(report(*slow).stories) == 2


class TestWorkarounds:
    """A failure's workaround was searched for one of the cases that show it."""

    SAID = "prelu as where (free): iree-pilot run a.mlir -t llvm-cpu"
    FOUND = Finding(
        question="workaround",
        said=SAID,
        details={
            "answers": [{"names": ["prelu", "as where"], "price": "free"}],
            "target": "llvm-cpu",
        },
    )

    def found(self, of: CaseRow, finding: Finding = FOUND) -> CaseRow:
        assert of.judgement is not None
        judgement = msgspec.structs.replace(of.judgement, findings=(finding,))
        return msgspec.structs.replace(of, judgement=judgement)

    def test_another_target_is_told_which_one_was_tried(self) -> None:
        assert self.found(NEWS).findings == (("workaround", self.SAID),)
        other = self.found(MORE)
        assert other.findings == (("workaround", f"tried on llvm-cpu only: {self.SAID}"),)
        assert "workaround: " + other.findings[0][1] in junit(report(other))

    def test_one_of_an_older_night_is_told_as_it_is(self) -> None:
        older = Finding(question="workaround", said=self.SAID)
        assert self.found(MORE, older).findings == (("workaround", self.SAID),)
        assert self.found(MORE, older).brief_findings == (("workaround", self.SAID),)

    def test_a_known_failure_has_its_name_without_the_command(self) -> None:
        known = self.found(row(VULKAN, "fail", "expected: no f64", outcome(VULKAN, CRASH)))
        told = "tried on llvm-cpu only: prelu + as where (free)"
        assert known.brief_findings == (("workaround", told),)
        assert f"workaround: {told} |" in markdown(report(known))
        said = Finding(question="releases", said="since 3.2.0")
        assert self.found(KNOWN, said).brief_findings == (("releases", "since 3.2.0"),)


class TestMarkdown:
    def test_news_has_all_that_it_takes_to_look_into_it(self) -> None:
        text = markdown(report(NEWS, MORE, KNOWN))
        for said in (
            "# zoo of 2026-01-01: news in 2 of 3 cases",
            "### new failure: llama:tiny \\| llvm-cpu \\| installed and 1 more",
            "- signature: `crash/here`",
            "- message: `what crash/here says`",
            "- reproducer: `repro/crash-here`",
            "- again: `iree-pilot run llama:tiny -t llvm-cpu`",
            "- also llama:tiny \\| vulkan \\| installed: never ran",
            "| vit:tiny \\| llvm-cpu \\| installed | fail | expected: no f64 | `crash/here` |  |",
            "| llama:tiny | **new failure** | **new failure** |",
        ):
            assert said in text, text

    def test_news_name_the_lines_that_a_failure_is_about(self) -> None:
        untraced = msgspec.structs.replace(
            failure("trace-error/x", phase="trace", kind="trace-error"), location="net.py:7"
        )
        lines = SourceLines(text="if x.any():")
        traced = SourceLines(text="%1 = torch.aten.mm", python="net.py:7", python_text="x @ y")
        of_mlir = msgspec.structs.replace(CRASH, location="a.mlir:3:1")
        for why, source, said in (
            (untraced, lines, ["location: {}net.py:7: if x.any():{}"]),
            (
                of_mlir,
                traced,
                ["location: {}a.mlir:3:1: %1 = torch.aten.mm{}", "python: {}net.py:7: x @ y{}"],
            ),
        ):
            told = report(row(LLAMA, "new failure", "", outcome(LLAMA, why, source=source)))
            for line in said:
                assert f"- {line.format('`', '`')}\n" in markdown(told)
                assert line.format("", "") in junit(told)

    def test_the_command_that_runs_a_case_again_can_be_pasted(self) -> None:
        wild = case("my net.py", fields={"a": "x y"}, seed=3, flags=("--f=1 2", ""))
        words = ["my net.py", "--set", "a=x y", "--seed", "3", "-t", "llvm-cpu", "--", *wild.flags]
        assert shlex.split(again(row(wild, "new failure"))) == ["iree-pilot", "run", *words]

    def test_what_the_compiler_wrote_does_not_break_the_page(self) -> None:
        wild = failure("a|b`c\n<script>")
        text = markdown(report(row(LLAMA, "same failure", "x | y\n# z", outcome(LLAMA, wild))))
        assert "``a\\|b`c <script>``" in text
        assert "x \\| y \\# z" in text
        assert "\n# z" not in text

    def test_a_comment_has_room_for_it(self) -> None:
        cases = [case(f"model{i}:tiny") for i in range(900)]
        rows = [
            row(c, "new failure", "w" * 80, outcome(c, failure(f"s/{c.source}"))) for c in cases
        ]
        text = markdown(report(*rows))
        assert len(text) < COMMENT
        assert "parts did not fit" in text
        assert len(markdown(report(*rows), limit=10**7)) > COMMENT

    def test_what_was_not_compared_is_counted_with_its_reason(self) -> None:
        text = markdown(report(NEWS, ABSENT, RAN))
        assert "## Not compared\n\n- 1 compiled: compiled, not run: no HIP device\n" in text
        assert "- 1 ran: ran, not compared: there is no reference\n" in text
        assert "| llama:tiny | **new failure** | compiled |" in text

    def test_notes_are_told(self) -> None:
        assert "> mind this" in markdown(report(KNOWN, notes=("mind this",)))


class TestJUnit:
    def test_news_fail_known_failures_are_skipped_and_the_rest_passes(self, tmp_path: Path) -> None:
        fine = row(case("bert:tiny"), "pass")
        file = tmp_path / "report.xml"
        file.write_text(junit(report(NEWS, MORE, KNOWN, fine)))
        document = JUnitXml.fromfile(str(file))
        assert (document.tests, document.failures, document.skipped) == (4, 2, 1)
        cpu, vulkan = document
        assert (cpu.name, vulkan.name) == ("llvm-cpu installed", "vulkan installed")
        crashed, known, passed = cpu
        assert crashed.result[0].message == "new failure: it passed before"
        assert "reproducer: repro/crash-here" in crashed.result[0].text
        assert known.result[0].message == "fail: expected: no f64"
        assert passed.is_passed

    def test_what_was_not_compared_is_skipped_with_its_reason(self, tmp_path: Path) -> None:
        lost = row(case("bert:tiny"), "comparison lost", "it passed on 2026-01-01; compiled")
        file = tmp_path / "report.xml"
        file.write_text(junit(report(ABSENT, RAN, lost)))
        document = JUnitXml.fromfile(str(file))
        assert (document.tests, document.failures, document.skipped) == (3, 1, 2)
        tests = [test for suite in document for test in suite]
        assert [test.result[0].message for test in tests] == [
            "compiled: compiled, not run: no HIP device",
            "ran: ran, not compared: there is no reference",
            "comparison lost: it passed on 2026-01-01; compiled",
        ]

    def test_bytes_that_xml_does_not_have_do_not_break_it(self, tmp_path: Path) -> None:
        wild = failure("\x1b[31mred\x00 & <tag> \ufffe")
        file = tmp_path / "report.xml"
        file.write_text(junit(report(row(LLAMA, "new failure", "", outcome(LLAMA, wild)))))
        (suite,) = JUnitXml.fromfile(str(file))
        (test,) = suite
        assert "& <tag>" in test.result[0].text
