"""Asks the installed release whether it computes a probe wrong: compiled, run and compared.

Runs in the tracing child.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.frontends.pytorch.decompositions import NumbersProbe
from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

_SECONDS = 60.0
_DEVICE = "local-sync"
_DIFFERS = "[FAILED]"


class _Verdict(msgspec.Struct, frozen=True):
    """wrong: iree-run-module found other numbers; what it printed."""

    wrong: bool
    message: str


def wrong(probe: NumbersProbe, release: Toolchain) -> str:
    """What iree-run-module prints of a probe whose numbers are wrong; "" if they are right.

    Of the CPU, once a release. "" too where that cannot be found out.
    """
    key = (release.version, release.revision, probe.program, probe.inputs, probe.expected)
    verdict = toolchain.remember("probe", key, lambda: _asked(probe, release), _Verdict)
    return verdict.message if verdict.wrong else ""


def _asked(probe: NumbersProbe, release: Toolchain) -> _Verdict:
    backend = BACKENDS["llvm-cpu"]
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        program, module = Path(scratch, "probe.mlir"), Path(scratch, "probe.vmfb")
        program.write_text(probe.program)
        flags = backend.flags("host", release)
        made = toolchain.ask([release.compiler, program, *flags, "-o", module], seconds=_SECONDS)
        if not made.ok:
            return _Verdict(False, "")
        try:
            tool = release.tool("iree-run-module")
        except EnvironmentFault:
            return _Verdict(False, "")
        given = [f"--input={one}" for one in probe.inputs]
        expected = [f"--expected_output={one}" for one in probe.expected]
        ran = toolchain.ask(
            [tool, f"--module={module}", f"--device={_DEVICE}", *given, *expected], seconds=_SECONDS
        )
    return _Verdict(_DIFFERS in ran.stdout, ran.stdout.strip())
