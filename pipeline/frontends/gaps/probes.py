"""Asks the installed release whether it fails at a probe: compiled, run and compared.

Runs in the tracing child.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.failures import stderr
from iree_pilot.pipeline.frontends.gaps.own import NumbersProbe
from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, ToolOutput

_SECONDS = 60.0
_DEVICE = "local-sync"
ABNORMALLY = "the compiler ends abnormally"
_DIFFERS = "[FAILED]"


class Undecided(Exception):
    """The compiler was stopped, at a limit or from outside: what it takes is not known."""


class TooLong(Undecided):
    """The compiler was stopped as it took too long."""


class Fault(msgspec.Struct, frozen=True):
    """What a release does with a probe that it fails at, in words, and what its tool printed."""

    does: str
    message: str


class _ProbeAnswer(msgspec.Struct, frozen=True):
    fault: Fault | None


def fault(probe: NumbersProbe, release: Toolchain) -> Fault | None:
    """What is wrong with a probe: it does not compile, or its numbers are wrong.

    Of the CPU, once a release. None too where that cannot be found out.
    """
    key = (release.version, release.revision, probe.program, probe.inputs, probe.expected)
    try:
        return toolchain.remember(
            "probe-fault", key, lambda: _asked(probe, release), _ProbeAnswer
        ).fault
    except Undecided:
        return None


def decided(done: ToolOutput) -> ToolOutput:
    """An answer of the compiler; raises Undecided, or TooLong, if it was stopped before that."""
    outcome = done.outcome
    if outcome.ended_by == "time-limit":
        raise TooLong
    if outcome.ended_by not in ("exit", "signal") or outcome.signal == "SIGKILL":
        raise Undecided
    return done


def _asked(probe: NumbersProbe, release: Toolchain) -> _ProbeAnswer:
    backend = BACKENDS["llvm-cpu"]
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        program, module = Path(scratch, "probe.mlir"), Path(scratch, "probe.vmfb")
        program.write_text(probe.program)
        flags = backend.flags("host", release)
        made = toolchain.ask([release.compiler, program, *flags, "-o", module], seconds=_SECONDS)
        if not decided(made).ok:
            errors = [error.text for error in stderr.read(made.stderr).errors]
            return _ProbeAnswer(Fault("does not compile", (errors or [ABNORMALLY])[0]))
        try:
            tool = release.tool("iree-run-module")
        except EnvironmentFault:
            return _ProbeAnswer(None)
        given = [f"--input={one}" for one in probe.inputs]
        expected = [f"--expected_output={one}" for one in probe.expected]
        ran = toolchain.ask(
            [tool, f"--module={module}", f"--device={_DEVICE}", *given, *expected], seconds=_SECONDS
        )
    wrong = Fault("computes wrong numbers for", ran.stdout.strip())
    return _ProbeAnswer(wrong if _DIFFERS in ran.stdout else None)
