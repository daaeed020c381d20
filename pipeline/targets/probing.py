"""Asks a release whether it fails at a probe on a target: compiled, run where it can be, compared.

What it answers is kept for the release.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.failures import stderr
from iree_pilot.pipeline.targets.devices import Device
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, ToolOutput

_SECONDS = 60.0
ABNORMALLY = "the compiler ends abnormally"
_AGREES, _DIFFERS = "[SUCCESS]", "[FAILED]"


class ProbeProgram(NamedTuple):
    """The smallest program of a call that some release of IREE computes wrong, or fails to compile
    behind phase `input`.

    program: MLIR with a function `main`. inputs, expected: of it, as iree-run-module takes them.
    """

    program: str
    inputs: tuple[str, ...]
    expected: tuple[str, ...]


class Undecided(Exception):
    """A tool was stopped, at a limit or from outside, or cannot be used: what the release does is
    not known."""


class TooLong(Undecided):
    """The compiler was stopped as it took too long."""


class Fault(msgspec.Struct, frozen=True):
    """What a release does with a probe that it fails at, in words, and what its tool printed."""

    does: str
    message: str


class _ProbeAnswer(msgspec.Struct, frozen=True):
    fault: Fault | None


def fault(
    probe: ProbeProgram, release: Toolchain, flags: Sequence[str], device: Device | None
) -> Fault | None:
    """What is wrong with a probe: it does not compile, or its numbers are wrong.

    flags: for iree-compile. device: to run it on; None: it is only compiled. Raises Undecided.
    """
    fingerprint = device.fingerprint if device else None
    key = (release.version, release.revision, *probe, tuple(flags), fingerprint)
    uri = device.uri if device else None
    return toolchain.remember(
        "probe-fault", key, lambda: _asked(probe, release, flags, uri), _ProbeAnswer
    ).fault


def decided(done: ToolOutput) -> ToolOutput:
    """An answer of the compiler; raises Undecided, or TooLong, if it was stopped before that."""
    outcome = done.outcome
    if outcome.ended_by == "time-limit":
        raise TooLong
    if outcome.ended_by not in ("exit", "signal") or outcome.signal == "SIGKILL":
        raise Undecided
    return done


def _asked(
    probe: ProbeProgram, release: Toolchain, flags: Sequence[str], device: str | None
) -> _ProbeAnswer:
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        program, module = Path(scratch, "probe.mlir"), Path(scratch, "probe.vmfb")
        program.write_text(probe.program)
        made = toolchain.ask([release.compiler, program, *flags, "-o", module], seconds=_SECONDS)
        if not decided(made).ok:
            errors = [error.text for error in stderr.read(made.stderr).errors]
            return _ProbeAnswer(Fault("does not compile", (errors or [ABNORMALLY])[0]))
        if device is None:
            return _ProbeAnswer(None)
        try:
            tool = release.tool("iree-run-module")
        except EnvironmentFault:
            raise Undecided from None
        given = [f"--input={one}" for one in probe.inputs]
        expected = [f"--expected_output={one}" for one in probe.expected]
        ran = toolchain.ask(
            [tool, f"--module={module}", f"--device={device}", *given, *expected], seconds=_SECONDS
        )
    if _DIFFERS in ran.stdout:
        return _ProbeAnswer(Fault("computes wrong numbers for", ran.stdout.strip()))
    if _AGREES not in ran.stdout:
        raise Undecided
    return _ProbeAnswer(None)
