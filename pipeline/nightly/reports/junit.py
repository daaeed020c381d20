"""A night as JUnit XML: news are failures; known failures, and what was not compared, are skipped.

Only what was compared and agrees passes.
"""

from __future__ import annotations

import re
import shlex

from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite

from iree_pilot.pipeline.nightly.reports.markdown import again
from iree_pilot.pipeline.nightly.reports.report import CaseRow, NightReport

#: Characters that XML 1.0 cannot hold, such as colour codes in a compiler's output.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: NightReport) -> str:
    """One suite for each target with its release, one test for each case."""
    suites: dict[str, TestSuite] = {}
    for row in report.rows:
        group = f"{row.case.target} {row.case.release}"
        suite = suites.setdefault(group, TestSuite(_text(group)))
        suite.add_testcase(_case(row, group))
    document = JUnitXml(_text(report.title))
    for suite in suites.values():
        suite.update_statistics()  # type: ignore[no-untyped-call]
        document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    text: bytes = document.tostring()  # type: ignore[no-untyped-call]
    return text.decode()


def _case(row: CaseRow, group: str) -> TestCase:
    flags = f" -- {shlex.join(row.case.flags)}" if row.case.flags else ""
    seconds = row.outcome.seconds if row.outcome else 0.0
    case = TestCase(_text(row.case.program + flags), classname=_text(group), time=seconds)
    said = f"{row.verdict}: {row.why}" if row.why else row.verdict
    if row.news:
        failure = Failure(_text(said), type_=_text(row.verdict))
        failure.text = _text("\n".join(_details(row)))
        case.result = [failure]
    elif row.verdict != "pass":
        case.result = [Skipped(_text(said), type_=_text(row.verdict))]
    return case


def _details(row: CaseRow) -> list[str]:
    judgement, failure = row.judgement, row.outcome.failure if row.outcome else None
    facts = {
        "signature": judgement.signature if judgement else "",
        "message": failure.message if failure else "",
        "phase": (failure.phase or "") if failure else "",
        **row.places,
        "reproducer": judgement.reproducer if judgement else "",
        **dict(row.findings),
        "again": again(row),
    }
    return [f"{name}: {text}" for name, text in facts.items() if text]


def _text(text: str) -> str:
    return _NOT_XML.sub("�", text)
