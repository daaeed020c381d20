"""IR before code generation, evaluated without IREE: by PyTorch, once it is linalg by numpy."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec

from pipeline import process
from pipeline.frontends.load import Loaded
from pipeline.program import Function, Tensor
from pipeline.toolchain import Toolchain
from pipeline.torch_dialect import evaluate
from repro.passes.interpret import ANSWER, JOB, Answer, Job
from repro.trial import Tried, compare, judged

#: The last phase that leaves linalg on tensors.
LAST = "global-optimization"
_GENERALIZE = "builtin.module(any(linalg-generalize-named-ops))"
_TORCH = re.compile(r"\btorch\.(?:aten|prims|operator)\b")
_SECONDS = 60.0


class Interpreter:
    """Evaluates IR of a program that has one function with inputs and a reference."""

    def __init__(
        self, loaded: Loaded, toolchain: Toolchain, directory: Path, limits: process.Limits
    ) -> None:
        self._loaded = loaded
        self._toolchain = toolchain
        self._directory = directory
        seconds = min(_SECONDS, limits.seconds or _SECONDS)
        self._limits = msgspec.structs.replace(limits, seconds=seconds)
        self._asked = 0

    def __call__(self, mlir: Path) -> Tried:
        functions = [f for f in self._loaded.program.functions if f.example and f.reference]
        if len(functions) != 1 or self._loaded.program.parameters is not None:
            return Tried(verdict="fails", why="it has not one function that takes all it needs")
        (function,) = functions
        self._asked += 1
        place = self._directory / f"interpreted-{self._asked}"
        place.mkdir(parents=True)
        text = mlir.read_text(errors="replace")
        evaluated = self._by_torch if _TORCH.search(text) else self._by_numpy
        outputs = evaluated(mlir, function, place)
        if isinstance(outputs, str):
            return Tried(verdict="fails", why=outputs)
        return judged([compare(self._loaded, function, outputs, place)])

    def _by_torch(self, mlir: Path, function: Function, place: Path) -> tuple[Tensor, ...] | str:
        work = evaluate.Work(
            mlir=str(mlir.absolute()),
            function=function.name,
            inputs=self._inputs(function),
            place=str(place.absolute()),
        )
        (found,) = evaluate.evaluate([work], limits=self._limits)
        return found.why if found.reference is None else found.reference.outputs

    def _by_numpy(self, mlir: Path, function: Function, place: Path) -> tuple[Tensor, ...] | str:
        if self._toolchain.opt is None:
            return "the release has no iree-opt"
        general = place / "general.mlir"
        given = (f"--pass-pipeline={_GENERALIZE}", "-o", general)
        if not self._run((self._toolchain.opt, mlir, *given), place).ok:
            return "its named operations cannot be generalised"
        job = Job(
            mlir=str(general),
            function=function.name,
            inputs=self._inputs(function),
            outputs=tuple(kind.dtype for kind in function.outputs),
        )
        (place / JOB).write_bytes(msgspec.json.encode(job))
        self._run((sys.executable, "-m", "repro.passes.interpret", place), place)
        if not (place / ANSWER).is_file():
            return "it cannot be interpreted"
        answer = msgspec.json.decode((place / ANSWER).read_bytes(), type=Answer)
        return answer.why or answer.outputs

    def _inputs(self, function: Function) -> tuple[Tensor, ...]:
        root = Path(self._loaded.directory).absolute()
        return tuple(
            msgspec.structs.replace(t, file=str(root / t.file)) for t in function.example or ()
        )

    def _run(self, argv: tuple[str | Path, ...], place: Path) -> process.Outcome:
        return process.run(
            argv,
            stdout=place / "stdout.txt",
            stderr=place / "stderr.txt",
            limits=self._limits,
        )
