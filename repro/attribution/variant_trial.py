"""Trial of a program compiled in another way: right, wrong, or it fails earlier."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import msgspec
from msgspec import structs

from iree_pilot.pipeline.execution import engine
from iree_pilot.pipeline.execution.engine import Engine, Iree, Unsupported
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program.program import Function
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context

Verdict = Literal["right", "wrong", "fails"]

#: An evaluation takes no more.
_SECONDS = 60.0


class VariantTried(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a variant. why: what fails, or how it is wrong. digest: SHA-256 of all its outputs.

    reference_doubtful: PyTorch's own result in the program's dtype is as wrong, by the reference in
    double precision, as what the device gave.
    """

    verdict: Verdict
    why: str = ""
    digest: str = ""
    reference_doubtful: bool = False


class Try(Protocol):
    """Compiles with `flags` (from IR dumped after phase `resume`), runs on `device`, compares."""

    def __call__(
        self, mlir: Path, flags: tuple[str, ...], device: str, resume: str | None = None
    ) -> VariantTried: ...


class AttributionTrial:
    """The real tools and the program's own references.

    calls counts the compiles. A module is run on several devices without compiling it again.
    """

    def __init__(self, loaded: Loaded, context: Context) -> None:
        self.loaded = loaded
        self._context = context
        self._made: dict[tuple[object, ...], Path | Failure] = {}
        self.calls = 0

    def __call__(
        self, mlir: Path, flags: tuple[str, ...], device: str, resume: str | None = None
    ) -> VariantTried:
        key = (str(mlir), flags, resume)
        if key not in self._made:
            self.calls += 1
            context = self._context.within(f"compiled-{self.calls}")
            job = Compile(mlir=mlir, flags=flags, resume=resume)
            self._made[key] = engine.compiled(job, context)
        module = self._made[key]
        if isinstance(module, Failure):
            return VariantTried(verdict="fails", why=f"does not compile: {module.message}")
        return self._tried(Iree(module, device, self._context), mlir)

    def interpreted(self, mlir: Path) -> VariantTried:
        """Trial of IR that PyTorch or numpy evaluates, if one function is to be judged."""
        if len(self._judged) != 1:
            return VariantTried(
                verdict="fails", why="it does not have exactly one function with inputs"
            )
        limits = self._context.limits
        seconds = min(_SECONDS, limits.seconds or _SECONDS)
        by = replace(engine.evaluating(mlir), limits=structs.replace(limits, seconds=seconds))
        return self._tried(by, mlir)

    @property
    def _judged(self) -> list[Function]:
        functions = self.loaded.program.functions
        return [f for f in functions if f.example is not None and f.reference]

    def _tried(self, by: Engine, mlir: Path) -> VariantTried:
        """Result of running the program's functions, in the form of `mlir`, with an engine."""
        hashed = hashlib.sha256()
        compared: list[Comparison] = []
        for call in map(self.loaded.call, self._judged):
            program = structs.replace(call.program, mlir=str(mlir.absolute()))
            with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
                values = by.run(structs.replace(call, program=program), Path(scratch))
                if isinstance(values, Unsupported):
                    return VariantTried(verdict="fails", why=str(values))
                if isinstance(values, Failure):
                    return VariantTried(verdict="fails", why=f"does not run: {values.message}")
                for output in values.outputs:
                    hashed.update(Path(output.file).read_bytes())
                compared.append(numerics.compare(values.outputs, call))
        return judged(compared, hashed.hexdigest())


def judged(compared: Sequence[Comparison], digest: str = "") -> VariantTried:
    """The verdict on a program whose functions compare so.

    What agrees with a constant reference is right here: that the reference tells right from wrong
    has been seen by what was reported.
    """
    if not compared:
        return VariantTried(verdict="fails", why="there is no reference to compare with")
    wrong = next((one for one in compared if one.verdict == "mismatch"), None)
    return VariantTried(
        verdict="right" if wrong is None else "wrong",
        why="" if wrong is None else wrong.why,
        digest=digest,
        reference_doubtful=wrong is not None and doubtful(wrong),
    )


def doubtful(comparison: Comparison) -> bool:
    """True if PyTorch's own results are as far from the precise ones as the device's."""
    return any(
        one.differs
        and one.compared
        and one.reference_error is not None
        and 0 < one.rel_l2 <= 2 * one.reference_error
        for one in comparison.outputs
    )
