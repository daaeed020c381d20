"""From a child's exit status and stderr to a `Failure`, and from a failure to its signature."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal[
    "trace-error",
    "diagnostic",
    "crash",
    "timeout",
    "out-of-memory",
    "runtime-error",
    "mismatch",
    "tool-missing",
]


class Failure(msgspec.Struct, frozen=True, kw_only=True, rename={"pass_": "pass"}):
    """Why a step ended.

    phase: compilation phase that failed. pass_: pass that failed, where known. op: operation the
    failure is about (`torch.aten.matmul`, `vector.bitcast`). location: `file:line:column` in the
    program. signal and stack (innermost frame first, demangled function names) for crashes.
    signature: equal for two runs of one bug. also: other, distinct failures of the same run.
    """

    kind: Kind
    message: str
    signature: str
    phase: str | None = None
    pass_: str | None = None
    op: str | None = None
    location: str | None = None
    signal: str | None = None
    stack: tuple[str, ...] = ()
    also: tuple[Failure, ...] = ()
