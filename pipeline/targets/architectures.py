"""Assumptions of a compile target about its device.

The compiler writes its assumptions into the IR (`#iree_gpu.target<...>`), so it is asked by
compiling a one-operation program.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from iree_pilot.pipeline.toolchain.toolchain import Toolchain, ask, remember

_PROGRAM = """func.func @add(%arg0: tensor<4xf32>) -> tensor<4xf32> {
  %0 = arith.addf %arg0, %arg0 : tensor<4xf32>
  return %0 : tensor<4xf32>
}
"""
_PROBE_PHASE = "executable-sources"
_REJECTED = re.compile(
    r"(Unknown \w+ target '[^']*'|'[^']*' is not a recognized processor"
    r"|Cannot find option named '[^']*')"
)
_ACCEPTED = re.compile(r"^List of accepted CPUs: (.+)", re.MULTILINE)
#: An architecture that LLVM knows and IREE does not: nothing is known of it, and the first dispatch
#: fails with this message.
_MISSING = "missing GPU target in #hal.executable.target"
_EMPTY = re.compile(r'#hal\.executable\.target<"[^"]*", "[^"]*">')


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """Assumptions of code for a compile target; empty or 0 where the compiler does not say.

    arch: the compiler's own name for it (`gfx942` for `mi300x`). compute and storage: element
    types and widths (`fp16`, `b8`). subgroup_sizes: any of these may be chosen. subgroup:
    operations across a subgroup. dot, mma: it uses 8-bit dot products, cooperative matrices.
    features: CPU features that are on, or the SPIR-V environment.
    """

    arch: str
    compute: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()
    subgroup: tuple[str, ...] = ()
    subgroup_sizes: tuple[int, ...] = ()
    dot: bool = False
    mma: bool = False
    features: tuple[str, ...] = ()


class _NoAnswer(Exception):
    """The compiler failed for a reason of its own, which must not be remembered."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The compiler's answer for some target flags.

    `rejected` is its message where it does not know the target, `accepted` those that it lists
    then. `assumptions` is None where it is rejected or says nothing that is understood here.
    """

    rejected: str = ""
    accepted: tuple[str, ...] = ()
    assumptions: Assumptions | None = None


def probe(toolchain: Toolchain, flags: tuple[str, ...], *, host: str = "") -> Probe:
    """Asks the compiler what it assumes under `flags`: 50 ms, then from the cache.

    host: the host's fingerprint, where the answer depends on the host.
    """
    key = (toolchain.revision, flags, host)
    try:
        return remember("compile-target", key, lambda: _probe(toolchain, flags), Probe)
    except _NoAnswer:
        return Probe()


def parse_assumptions(ir: str) -> Assumptions | None:
    """The assumptions in the first executable target of printed IR, of releases 2.9 to 3.13."""
    start = ir.find("#hal.executable.target<")
    if start < 0:
        return None
    text = ir[start:].split("\n", 1)[0]
    cpu = re.search(r'\bcpu = "([^"]*)", cpu_features = "([^"]*)"', text)
    if cpu:
        return Assumptions(arch=cpu[1], features=_enabled(cpu[2].split(",")))
    gpu = re.search(r'#iree_gpu\.target<arch = "([^"]*)", features = "([^"]*)"', text)
    if gpu is None:
        return None
    return Assumptions(
        arch=gpu[1],
        compute=_alternatives(text, "compute"),
        storage=_alternatives(text, "storage"),
        subgroup=_alternatives(text, "subgroup"),
        subgroup_sizes=tuple(sorted(map(int, _listed(text, "subgroup_size_choices")))),
        dot=bool(_alternatives(text, "dot")),
        mma="mma = [<" in text,
        features=tuple(filter(None, gpu[2].split(","))),
    )


def _probe(toolchain: Toolchain, flags: tuple[str, ...]) -> Probe:
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        program = Path(scratch, "probe.mlir")
        program.write_text(_PROGRAM, encoding="utf-8")
        answer = ask([toolchain.compiler, program, *flags, f"--compile-to={_PROBE_PHASE}"])
    rejected = _REJECTED.search(answer.stderr)
    if rejected:
        accepted = _ACCEPTED.search(answer.stderr)
        names = accepted[1].rstrip(".").split(", ") if accepted else ()
        return Probe(rejected=rejected[1], accepted=tuple(names))
    if not answer.ok:
        raise _NoAnswer
    if _EMPTY.search(answer.stdout):
        return Probe(rejected=_MISSING)
    return Probe(assumptions=parse_assumptions(answer.stdout))


def _enabled(features: Iterable[str]) -> tuple[str, ...]:
    """Enabled names of `+a,-b,...`; a later one overrides an earlier one."""
    state = {f[1:]: f[0] == "+" for f in features if f}
    return tuple(sorted(name for name, on in state.items() if on))


def _alternatives(text: str, field: str) -> tuple[str, ...]:
    match = re.search(rf"\b{field} = *([\w|]+)", text)
    return tuple(x for x in match[1].split("|") if x != "none") if match else ()


def _listed(text: str, field: str) -> list[str]:
    match = re.search(rf"\b{field} = \[([\d, ]*)\]", text)
    return match[1].replace(",", " ").split() if match else []
