"""One program compiled in another way: right, wrong, or does not get that far."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from iree_pilot.pipeline.execution import runtime
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program.program import Function, Tensor
from iree_pilot.pipeline.toolchain import compiler
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context

Verdict = Literal["right", "wrong", "fails"]


class VariantTried(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. why: what fails, or how it is wrong. digest: SHA-256 of all its outputs.

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
        self._loaded = loaded
        self._context = context
        self._made: dict[tuple[object, ...], Path | VariantTried] = {}
        self.calls = 0

    def __call__(
        self, mlir: Path, flags: tuple[str, ...], device: str, resume: str | None = None
    ) -> VariantTried:
        key = (str(mlir), flags, resume)
        if key not in self._made:
            self._made[key] = self._compiled(mlir, flags, resume)
        module = self._made[key]
        return module if isinstance(module, VariantTried) else self._ran(module, device)

    def _compiled(
        self, mlir: Path, flags: tuple[str, ...], resume: str | None
    ) -> Path | VariantTried:
        self.calls += 1
        place = self._context.directory / f"compiled-{self.calls}"
        place.mkdir(parents=True, exist_ok=True)
        result = compiler.compile(
            Compile(mlir=mlir, flags=flags, resume=resume), self._context.at(place), confirm=False
        )
        if result.failure is not None:
            return VariantTried(verdict="fails", why=f"does not compile: {result.failure.message}")
        assert result.output is not None
        return place / result.output

    def _ran(self, module: Path, device: str) -> VariantTried:
        loaded = self._loaded
        given = [f for f in loaded.program.functions if f.example is not None and f.reference]
        hashed = hashlib.sha256()
        compared: list[Comparison] = []
        for function in given:
            job = runtime.Run(
                program=loaded.program,
                directory=Path(loaded.directory),
                function=function,
                module=module,
                device=device,
            )
            with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
                workdir = Path(scratch)
                ran = runtime.run(job, self._context.at(workdir), latency_budget=0)
                if ran.failure is not None:
                    return VariantTried(verdict="fails", why=f"does not run: {ran.failure.message}")
                for output in ran.outputs:
                    hashed.update((workdir / output.file).read_bytes())
                compared.append(compare(loaded, function, ran.outputs, workdir))
        return judged(compared, hashed.hexdigest())


def compare(
    loaded: Loaded, function: Function, outputs: tuple[Tensor, ...], directory: Path
) -> Comparison:
    """What was computed, in files of `directory`, against the program's reference."""
    return numerics.compare(outputs, loaded.call(function), outputs_directory=directory)


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
    """Whether PyTorch's own results are as far from the precise ones as the device's."""
    return any(
        one.differs
        and one.compared
        and one.reference_error is not None
        and 0 < one.rel_l2 <= 2 * one.reference_error
        for one in comparison.outputs
    )
