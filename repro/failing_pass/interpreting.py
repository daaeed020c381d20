"""IR before code generation, evaluated without IREE: by PyTorch, once it is linalg by numpy."""

from __future__ import annotations

from pathlib import Path

import msgspec

from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program.program import Function, Tensor
from iree_pilot.pipeline.torch_dialect import evaluate
from iree_pilot.repro.attribution.variant_trial import VariantTried, compare, judged
from iree_pilot.repro.wrong_results import engines

#: The last phase whose IR is on tensors: after it they are resources of a stream.
LAST = "flow"
_SECONDS = 60.0


class ReferenceInterpreter:
    """Evaluates IR of a program that has one function with inputs and a reference."""

    def __init__(self, loaded: Loaded, directory: Path, limits: process.Limits) -> None:
        self._loaded = loaded
        self._directory = directory
        seconds = min(_SECONDS, limits.seconds or _SECONDS)
        self._limits = msgspec.structs.replace(limits, seconds=seconds)
        self._asked = 0

    def __call__(self, mlir: Path) -> VariantTried:
        functions = [f for f in self._loaded.program.functions if f.example and f.reference]
        if len(functions) != 1:
            return VariantTried(verdict="fails", why="it has not one function with inputs")
        (function,) = functions
        self._asked += 1
        place = self._directory / f"interpreted-{self._asked}"
        place.mkdir(parents=True)
        work = evaluate.EvaluationWork(
            mlir=str(mlir.absolute()),
            function=function.name,
            inputs=self._inputs(function),
            place=str(place.absolute()),
            archives=self._archives(),
            outputs=tuple(kind.dtype for kind in function.outputs),
        )
        engine = engines.of(mlir)
        (found,) = evaluate.evaluate([work], limits=self._limits, by=engine.function)
        if found.reference is None:
            return VariantTried(verdict="fails", why=found.why)
        return judged([compare(self._loaded, function, found.reference.outputs, place)])

    def _inputs(self, function: Function) -> tuple[Tensor, ...]:
        root = Path(self._loaded.directory).absolute()
        return tuple(
            msgspec.structs.replace(t, file=str(root / t.file)) for t in function.example or ()
        )

    def _archives(self) -> tuple[str, ...]:
        root, parameters = Path(self._loaded.directory).absolute(), self._loaded.program.parameters
        return tuple(str(root / file) for file in (parameters.archives if parameters else ()))
