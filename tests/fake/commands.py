"""What a user typed, and how cases of it ended, for tests of what commands say."""

from __future__ import annotations

from iree_pilot.pipeline.case_result import CaseResult, FunctionResult, Step
from iree_pilot.pipeline.cli.failures.following import Typed
from iree_pilot.pipeline.cli.options import Common, SourceOptions
from iree_pilot.pipeline.failures.diagnostics import Failure

COMMON = Common(
    json=False,
    verbosity=0,
    time_limit=600.0,
    default_limit=True,
    memory_limit=None,
    release=None,
)
PLAIN = SourceOptions(
    settings={}, dtype=None, seed=0, weights=(), inputs=(), inline=False, fresh=False
)
TYPED = Typed(source="net.py", chosen=PLAIN, common=COMMON)


def failure(kind: str = "diagnostic", phase: str = "flow", signature: str = "a/b/c") -> Failure:
    return Failure(kind=kind, message="m", signature=signature, phase=phase)


def case(
    target: str = "vulkan",
    why: str = "does not compile",
    failed: Failure | None = None,
    functions: tuple[FunctionResult, ...] = (),
    trace: str = "ok",
) -> CaseResult:
    return CaseResult(
        target=target,
        release="9.9.0",
        device=None,
        arch=None,
        status="failed" if failed else "ok",
        why=why if failed else "",
        steps=(Step(name="trace", status=trace),),
        failure=failed,
        functions=functions,
    )
