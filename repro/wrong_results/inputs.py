"""The inputs that a reproducer of wrong numbers is handed on with: few elements that matter."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from iree_pilot.pipeline.execution.runtime import spelled
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics import noise, pointing
from iree_pilot.pipeline.numerics.numerics import OutputComparison
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Call, Tensor
from iree_pilot.repro.oracles.oracle import NotAProgram
from iree_pilot.repro.oracles.oracle_run import Running
from iree_pilot.repro.wrong_results.mismatch_oracle import Judged, MismatchOracle
from iree_pilot.repro.wrong_results.plain_values import Choice, Kept, plain
from iree_pilot.repro.wrong_results.wrong_record import Wrong, WrongElement

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Inputs of more bytes are not tried out element by element.
_LARGEST_BYTES = 2**22
#: Repetitions of a run: a program that reads uninitialised memory is wrong in some runs only.
_AGAIN = 5
#: An input of no more elements is described in words.
_READABLE = 16
#: Number of wrong elements that are shown.
_SHOWN = 4


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of a function, and its expected outputs.

    inputs, expected: files are absolute; expected in the program's types. kept: how many
    elements of the inputs have values of their own; the others have those of `fills`. shown:
    inputs of a few elements, in words. loaded: the program with these inputs and their references,
    where PyTorch gives them.
    """

    function: str
    inputs: tuple[Tensor, ...]
    expected: tuple[Tensor, ...]
    wrong: tuple[Wrong, ...]
    kept: int
    elements: int
    fills: tuple[int, ...] = (0, 1)
    shown: tuple[str, ...] = ()
    loaded: Loaded | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences on which of the inputs are 0 or 1, and on inputs of a few elements."""
        share = f"{self.elements - self.kept} of" if self.kept else "all"
        which = f"{share} {self.elements} input elements" if self.elements > 1 else "its one input"
        simple = f"Reproduces with {which} set to {' or '.join(map(str, self.fills))}."
        return (*((simple,) if self.kept < self.elements else ()), *self.shown)


def settle(oracle: MismatchOracle, program: Path, directory: Path) -> Settled:
    """The plainest inputs with which the program of one function is still wrong.

    One compile; a run for each choice of inputs. Raises NotAProgram where it is not wrong at all.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return _Settling(oracle, program, directory).run()


def of_whole(running: Running, directory: Path) -> Settled:
    """Inputs of a whole program, with the references that it has.

    Raises NotAProgram where it is not wrong itself.
    """
    directory.mkdir(parents=True, exist_ok=True)
    loaded, comparison = running.loaded, running.comparison
    function, place = loaded.program.function(running.function), Path(loaded.directory)
    if comparison is None or not comparison.differs or function.reference is None:
        raise NotAProgram("the whole program gives nothing that is seen to be wrong")
    reference = function.reference.placed(place)
    rights = [
        _right(reference.outputs, reference.precise, n) for n in range(len(reference.outputs))
    ]
    expected = []
    for number, (own, right) in enumerate(zip(reference.outputs, rights, strict=True)):
        file = directory / f"expected{number}.bin"
        file.write_bytes(tensors.encoded(right, own.dtype))
        expected.append(msgspec.structs.replace(own, file=str(file)))
    return Settled(
        function=function.name,
        inputs=loaded.call(function).inputs,
        expected=tuple(expected),
        wrong=tuple(
            _described(
                output,
                rights[output.index],
                tensors.load(Path(), reference.outputs[output.index]),
                output.max_abs,
                (WrongElement(w.index, w.got, w.expected),) if (w := output.worst) else (),
            )
            for output in comparison.outputs
            if output.differs and output.compared
        ),
        kept=0,
        elements=0,
        loaded=loaded,
    )


class _Settling:
    def __init__(self, oracle: MismatchOracle, program: Path, directory: Path) -> None:
        self._oracle = oracle
        self._program = program
        self._directory = directory
        (self._call,) = oracle.values.calls(program)
        self._given = [tensors.load(Path(), tensor) for tensor in self._call.inputs]
        self._module = oracle.compiled(program, directory)
        self._asked = 0
        self._wanted: set[int] = set()

    def run(self) -> Settled:
        sizes = [values.size for values in self._given]
        whole = plainest = tuple(Kept(tuple(range(size))) for size in sizes)
        if sum(tensor.bytes for tensor in self._call.inputs) <= _LARGEST_BYTES:
            ((_, judged),) = self._tried([whole])
            self._wanted = _indices(judged)
            plainest = plain(sizes, self._ask)
        for choice in (plainest, *[whole] * _AGAIN):
            ((call, judged),) = self._tried([choice])
            if judged.comparison is not None and judged.failure is not None:
                break
        else:
            raise NotAProgram(judged.why or "it gives right numbers with the inputs it failed with")
        return Settled(
            function=call.function.name,
            inputs=call.inputs,
            expected=tuple(self._expected(call, n) for n in range(len(judged.outputs))),
            wrong=tuple(
                self._wrong(output, call, judged)
                for output in judged.comparison.outputs
                if output.differs
            ),
            kept=sum(len(kept.elements) for kept in choice),
            elements=sum(sizes),
            fills=_fills(choice, sizes),
            shown=tuple(filter(None, (_shown(n, t) for n, t in enumerate(call.inputs)))),
            loaded=self._loaded(call),
        )

    def _loaded(self, call: Call) -> Loaded:
        program = msgspec.structs.replace(call.program, functions=(call.function,))
        return Loaded(program=program, directory=str(call.directory))

    def _ask(self, choices: Sequence[Choice]) -> list[bool]:
        """True for choices with the same wrong outputs: equal elements may be in any order."""
        return [
            self._oracle.enough(judged) and _indices(judged) == self._wanted
            for _, judged in self._tried(choices)
        ]

    def _tried(self, choices: Sequence[Choice]) -> list[tuple[Call, Judged]]:
        """The calls with these inputs, expecting what is right, and what came of each."""
        self._asked += 1
        place = self._directory / str(self._asked)
        place.mkdir()
        calls = [self._filled(choice, place, number) for number, choice in enumerate(choices)]
        found = self._oracle.values.evaluator.evaluate(calls, place / "references")
        return [
            (evaluated.call, self._oracle.judge(evaluated, self._module, place / f"run{number}"))
            for number, evaluated in enumerate(found)
        ]

    def _filled(self, choice: Choice, place: Path, number: int) -> Call:
        import numpy as np

        inputs = []
        chosen = zip(self._call.inputs, self._given, choice, strict=True)
        for index, (tensor, values, kept) in enumerate(chosen):
            if kept.fill is None:
                inputs.append(tensor)
                continue
            made = np.full(values.size, kept.fill).astype(values.dtype)
            made[list(kept.elements)] = values.reshape(-1)[list(kept.elements)]
            file = place / f"{number}-{index}.bin"
            file.write_bytes(tensors.encoded(made, tensor.dtype))
            inputs.append(msgspec.structs.replace(tensor, file=str(file)))
        return self._call.given(tuple(inputs))

    def _expected(self, call: Call, index: int) -> Tensor:
        """Expected output: float64's result in the output's own type, PyTorch's if it is exact."""
        reference = call.function.reference
        assert reference is not None
        own = reference.outputs[index]
        file = self._directory / f"expected{index}.bin"
        values = _right(reference.outputs, reference.precise, index)
        file.write_bytes(values.tobytes())
        kind = call.function.outputs[index].dtype
        return msgspec.structs.replace(own, file=str(file), dtype=kind)

    def _wrong(self, output: OutputComparison, call: Call, judged: Judged) -> Wrong:
        reference = call.function.reference
        assert reference is not None
        right = _right(reference.outputs, reference.precise, output.index)
        got = tensors.load(Path(), judged.outputs[output.index])
        own = tensors.load(Path(), reference.outputs[output.index])
        indexed = next((i for i in reference.indexed if i.output == output.index), None)
        wrong, ties = None, False
        if indexed is not None and got.shape == right.shape:
            flat, noises = (got.reshape(-1), right.reshape(-1)), noise.scan(call.mlir)
            wrong = pointing.wrong(indexed, call.directory, *flat, noises)
            ties = _ties(tensors.load(call.directory, indexed.values)) or indexed.tied
        elements = tuple(_worst(got, right, wrong))
        described = _described(output, right, own, _farthest(got, right), elements)
        return msgspec.structs.replace(described, ties=ties)


def _fills(choice: Choice, sizes: Sequence[int]) -> tuple[int, ...]:
    """The values of the elements that do not keep their own."""
    filled = (kept.fill for kept, n in zip(choice, sizes, strict=True) if len(kept.elements) < n)
    return tuple(sorted({fill for fill in filled if fill is not None}))


def _described(
    output: OutputComparison,
    right: NDArray[Any],
    own: NDArray[Any],
    farthest: float,
    elements: tuple[WrongElement, ...],
) -> Wrong:
    """The record of a wrong output.

    right, own: expected values, and those of the reference in its own types. farthest: the largest
    absolute error. elements: the worst ones.
    """
    import numpy as np

    own_error, threshold = None, 0.0
    size = np.abs(_wide(right))
    largest = float(size[np.isfinite(size)].max(initial=0.0))
    if ELEMENT_TYPES[output.dtype].family not in ("int", "bool"):
        own_error = _farthest(own, right)
        step = float(tensors.step(np.array([largest]), output.dtype)[0])
        threshold = _between(own_error, farthest, step)
    return Wrong(
        index=output.index,
        dtype=output.dtype,
        shape=output.shape,
        error=output.max_abs,
        own_error=own_error,
        threshold=threshold,
        size=largest,
        wrong=output.mismatched,
        count=math.prod(output.shape),
        limit=limit(output),
        elements=elements,
        path=output.path,
    )


def _indices(judged: Judged) -> set[int]:
    """The outputs that are wrong."""
    comparison = judged.comparison
    return (
        {output.index for output in comparison.outputs if output.differs} if comparison else set()
    )


def _shown(number: int, tensor: Tensor) -> str:
    values = " ".join(str(tensors.load(Path(), tensor).tolist()).split())
    few = math.prod(tensor.shape) <= _READABLE
    return f"Input {number} ({spelled(tensor)}) is {values}." if few else ""


def _between(own: float, wrong: float, step: float) -> float:
    """An error that is larger than a right result's, and smaller than the wrong one's.

    step: of the type, where nothing finite is wrong.
    """
    if wrong <= own:
        return 4 * max(own, step)
    return math.sqrt(own * wrong) if own else min(step, wrong / 2)


def limit(output: OutputComparison) -> str:
    """Words for what the judgement allows an output, and what it is."""
    if ELEMENT_TYPES[output.dtype].family in ("int", "bool"):
        return f"none is allowed: {output.basis}"
    return (
        f"the relative L2 error of the whole output, norm(given - expected) / norm(expected), is "
        f"{output.rel_l2:.3g}; at most {output.tolerance:.3g} is allowed"
        f"{f', derived from {output.basis}' if output.basis else ''}"
    )


def _right(own: Sequence[Tensor], precise: Sequence[Tensor], index: int) -> NDArray[Any]:
    values = tensors.load(Path(), own[index])
    if not precise or ELEMENT_TYPES[own[index].dtype].family in ("int", "bool"):
        return values
    return tensors.load(Path(), precise[index]).astype(values.dtype)


def _wide(values: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    return values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)


def _farthest(values: NDArray[Any], right: NDArray[Any]) -> float:
    import numpy as np

    with np.errstate(invalid="ignore"):
        error = np.abs(_wide(values) - _wide(right))
    return float(error[np.isfinite(error)].max(initial=0.0))


def _ties(values: NDArray[Any]) -> bool:
    """True if there are equal values along the last axis."""
    import numpy as np

    ordered = np.sort(values, axis=-1)
    return bool((ordered[..., 1:] == ordered[..., :-1]).any())


def _worst(
    got: NDArray[Any], right: NDArray[Any], wrong: NDArray[Any] | None
) -> list[WrongElement]:
    """wrong: of indices, those that point to a wrong value; the others may be unlike, and right."""
    import numpy as np

    if got.shape != right.shape:
        return []
    with np.errstate(invalid="ignore"):
        error = np.abs(_wide(got) - _wide(right)).reshape(-1)
    alike = (_wide(got) == _wide(right)) | (np.isnan(_wide(got)) & np.isnan(_wide(right)))
    error = np.where(alike.reshape(-1), 0.0, np.where(np.isnan(error), np.inf, error))
    if wrong is not None:
        error = np.where(wrong, error, 0.0)
    order = [int(at) for at in np.argsort(-error, kind="stable")[:_SHOWN] if error[at] > 0]
    return [
        WrongElement(
            tuple(int(i) for i in np.unravel_index(at, got.shape)),
            str(got.reshape(-1)[at]),
            str(right.reshape(-1)[at]),
        )
        for at in order
    ]
