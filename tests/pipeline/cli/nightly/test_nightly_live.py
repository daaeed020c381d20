"""What a night prints while it runs, and its verdicts, on a narrow terminal and in a pipe."""

from __future__ import annotations

from io import StringIO

import msgspec
import pytest
from fake.nights import FIRST, case, failure, outcome

from iree_pilot.pipeline.cli.display.screen import PIPE_WIDTH, Screen
from iree_pilot.pipeline.cli.nightly.nightly_live import NightLive
from iree_pilot.pipeline.cli.nightly.nightly_tell import tell
from iree_pilot.pipeline.cli.options import Common
from iree_pilot.pipeline.nightly.history.history import NightRun
from iree_pilot.pipeline.nightly.records import Finding, Judgement
from iree_pilot.pipeline.nightly.reports.report import CaseRow, NightReport

COMMON = Common(
    json=False, verbosity=0, time_limit=60, default_limit=True, memory_limit=None, release=None
)
CRASH = failure("diagnostic/linalg.generic/op-inferred-input-output-operand-has/d048f9c9")
COMMAND = f"iree-pilot run /tmp/{'long/' * 20}prelu-as-where.mlir --weights model=a -t llvm-cpu"
NORM, GOOD = case("norm.py"), case("good.py")
RUN = NightRun(
    id=1,
    uuid="u",
    config="c",
    title="ours",
    machine="m",
    revision={},
    begun=FIRST.isoformat(),
    finished=None,
    cases=2,
    done=2,
    verdicts={},
)


def screen(*, tty: bool) -> Screen:
    width = 80 if tty else PIPE_WIDTH
    return Screen(file=StringIO(), force_terminal=tty, width=width, highlight=False, no_color=True)


def lines(console: Screen) -> list[str]:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_a_case_that_is_run_again_is_not_counted_again() -> None:
    console = screen(tty=False)
    live = NightLive(console, COMMON)
    live.night_started(RUN, [GOOD, NORM], 0)
    live.ended(outcome(GOOD))
    live.ended(outcome(NORM, CRASH))
    live.ended(outcome(NORM, CRASH, attempts=("failed", "failed")))
    shown = [line.split(" | ")[0] for line in lines(console)[1:]]
    assert shown == ["1/2 ok      good.py", "2/2 failed  norm.py", "    failed  norm.py"]


def test_a_case_that_the_interrupted_night_ran_is_not_counted_again() -> None:
    console = screen(tty=False)
    live = NightLive(console, COMMON)
    live.night_started(RUN, [GOOD], 1)
    live.ended(outcome(GOOD))
    live.again([NORM])
    live.ended(outcome(NORM, CRASH, attempts=("failed", "failed")))
    shown = [line.split(" | ")[0] for line in lines(console)]
    assert shown[1] == "2/2 ok      good.py"
    assert shown[-1] == "    failed  norm.py"


def test_the_bar_begins_when_the_number_of_cases_is_known() -> None:
    console = screen(tty=True)
    live = NightLive(console, COMMON)
    console.print(live._shown())
    assert "/" not in "".join(lines(console))
    live.night_started(RUN, [GOOD, NORM], 0)
    console.print(live._shown())
    assert "0/2" in "".join(lines(console))


@pytest.mark.parametrize("tty", [True, False])
def test_signatures_and_commands_stay_on_their_lines(tty: bool) -> None:
    console = screen(tty=tty)
    live = NightLive(console, COMMON)
    live.isolating(NORM, CRASH.signature)
    live.asking(NORM, CRASH.signature, "releases")
    assert lines(console) == [
        f"isolating {NORM.name}",
        f"  {CRASH.signature}",
        f"releases of {NORM.name}",
        f"  {CRASH.signature}",
    ]
    found = Finding(
        question="workaround",
        said=f"prelu as where (free): {COMMAND}",
        details={"answers": [{"names": ["prelu as where"], "price": "free"}], "target": "llvm-cpu"},
    )
    judgement = Judgement(
        case=NORM.name, verdict="new failure", signature=CRASH.signature, findings=(found,)
    )
    row = CaseRow(case=NORM, outcome=outcome(NORM, CRASH), judgement=judgement)
    tell(console, NightReport(run=RUN, rows=(row,)), COMMON)
    told = "\n".join(lines(console))
    assert f"    workaround: prelu as where (free): {COMMAND}\n" in told
    since = Finding(question="releases", said="since 3.12.0")
    known = msgspec.structs.replace(
        judgement, verdict="same failure", reproducer="/r", findings=(since, found)
    )
    console = screen(tty=tty)
    row = CaseRow(case=NORM, outcome=outcome(NORM, CRASH), judgement=known)
    tell(console, NightReport(run=RUN, rows=(row,)), COMMON)
    told = "\n".join(lines(console))
    assert "same failure" in told
    assert (
        "\n    reproducer: /r\n    releases: since 3.12.0\n    workaround: prelu as where (free)\n"
    ) in told
    assert "iree-pilot" not in told, "the command is in the report of the first night"
