"""What a release does with a probe: known, or not known and asked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from iree_pilot.pipeline.processes.process import Outcome
from iree_pilot.pipeline.targets import devices, probing
from iree_pilot.pipeline.targets.probing import Fault, ProbeProgram
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, ToolOutput

PROBE = ProbeProgram("module", ("f32=1",), ("f32=2",))


class Tools:
    """A compiler and a runtime with scripted answers."""

    def __init__(self, directory: Path, said: str, signal: str | None = None) -> None:
        self.said, self.signal, self.asked = said, signal, 0
        (directory / "iree-run-module").touch(0o755)
        self.release = Toolchain(
            version="9.9.0",
            revision="r",
            compiler=directory / "iree-compile",
            opt=directory / "iree-opt",
            runtime=directory,
            phases=(),
            flags=frozenset(),
        )

    def ask(self, argv: list[str | Path], **more: object) -> ToolOutput:
        runs = Path(argv[0]).name == "iree-run-module"
        self.asked += 1
        ended = "signal" if runs and self.signal else "exit"
        outcome = Outcome(
            argv=(),
            ended_by=ended,
            exit_code=None if ended == "signal" else 0,
            signal=self.signal if ended == "signal" else None,
            seconds=0.0,
            peak_bytes=0,
        )
        return ToolOutput(outcome=outcome, stdout=self.said if runs else "", stderr="")

    def fault(self) -> Fault | None:
        return probing.fault(PROBE, self.release, (), devices.processor("local-sync"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IREE_PILOT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("said", "wrong"), [("[SUCCESS] all outputs match", False), ("[FAILED] result[0]", True)]
)
def test_an_answer_is_kept(
    said: str, wrong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Tools(tmp_path, said)
    monkeypatch.setattr(toolchain, "ask", tools.ask)
    assert [bool(tools.fault()), bool(tools.fault())] == [wrong, wrong]
    assert tools.asked == 2


def test_a_tool_that_is_killed_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = Tools(tmp_path, "", signal="SIGKILL")
    monkeypatch.setattr(toolchain, "ask", tools.ask)
    for _ in range(2):
        with pytest.raises(probing.Undecided):
            tools.fault()
    assert tools.asked == 4
