"""Inputs of candidates: the values that the whole program computes, by an engine.

A candidate is a part of a program (its base), which may be a part of another. Its arguments stand
for values of its base, so that what it is given is right, whatever the compiler makes of the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from iree_pilot.pipeline.execution import engine
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.frontends.mlir import mlir_text
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program.program import (
    ELEMENT_TYPES,
    Call,
    Function,
    Parameters,
    Program,
    Tensor,
    TensorType,
)
from iree_pilot.repro.ir import feeds
from iree_pilot.repro.ir.feeds import ARGUMENT, FedValue, Feeds
from iree_pilot.repro.oracles.oracle import NotAProgram, Off
from iree_pilot.repro.wrong_results.references import Evaluator, Inside

#: A part that names no parameter is run, and handed on, without the program's weights.
_NAMES = re.compile(rb"#\w+\.parameter\.named<")


class PartValues:
    """The inputs of a program's parts; what is computed for them lies in `directory`.

    function: the one of the program that is off.
    """

    def __init__(
        self, loaded: Loaded, function: str, directory: Path, limits: process.Limits
    ) -> None:
        self.whole = loaded.mlir
        self.parameters = _absolute(loaded)
        self._directory = directory
        self.evaluator = Evaluator(limits, engine.evaluating(loaded.mlir))
        self._call = loaded.call(loaded.program.function(function))
        self._known: dict[str, Inside] = {}
        #: Worst elements of candidates, by their digests.
        self.worst: dict[str, Off] = {}

    def digest(self, program: Path) -> str:
        """Digest of a program and its inputs; a part that is all of its base has the same one."""
        text = program.read_bytes()
        hashed = hashlib.sha256(text)
        if program == self.whole:
            hashed.update(self._call.function.name.encode())
            for tensor in self._call.inputs:
                hashed.update(Path(tensor.file).read_bytes())
            return hashed.hexdigest()
        fed = feeds.of(program)
        if len(fed) == 1 and _unchanged(fed[0], text):
            return self.digest(Path(fed[0].base))
        for one in fed:
            hashed.update(self.digest(Path(one.base)).encode())
            hashed.update(msgspec.json.encode((one.origin, one.values)))
        return hashed.hexdigest()

    def calls(self, program: Path) -> tuple[Call, ...]:
        """Calls of a program's functions.

        Raises NotAProgram where that is not known, or cannot be computed.
        """
        if program == self.whole:
            return (self._call,)
        fed = feeds.of(program)
        if not fed:
            raise NotAProgram(f"it is not known what {program} takes")
        return tuple(self._fed(program, one) for one in fed)

    def _fed(self, program: Path, fed: Feeds) -> Call:
        base = Path(fed.base)
        known = self._values(base, fed)
        digest = self.digest(base)
        inputs, types = [], []
        for number, (value, text) in enumerate(zip(fed.values, fed.types, strict=True)):
            kind = _typed(text, f"arg{number}")
            if value not in known:
                raise NotAProgram(f"the value of {value} is not known")
            inputs.append(self._fitted(known[value], kind, digest, program))
            types.append(kind)
        function = Function(
            name=fed.function,
            inputs=tuple(types),
            outputs=tuple(_typed(text, f"result{n}") for n, text in enumerate(fed.results)),
            example=tuple(inputs),
        )
        made = Program(
            source=program.name,
            digest="",
            functions=(function,),
            parameters=self.parameters if _NAMES.search(program.read_bytes()) else None,
            origin={},
            mlir=program.name,
        )
        return Call(program=made, directory=program.parent, function=function)

    def _values(self, base: Path, fed: Feeds) -> Mapping[FedValue, Tensor]:
        """Values of the base: its arguments and, if they are fed, its operations' results."""
        call = next((one for one in self.calls(base) if one.function.name == fed.origin), None)
        if call is None:
            raise NotAProgram(f"it is not known what {fed.origin} is called with")
        if all(value.op == ARGUMENT for value in fed.values):
            return _arguments(call)
        return self._inside(base, call).values

    def inside(self) -> Inside:
        """Values inside the whole program's function, its arguments included."""
        return self._inside(self.whole, self._call)

    def _inside(self, base: Path, call: Call) -> Inside:
        key = f"{self.digest(base)[:16]}-{call.function.name}"
        if key not in self._known:
            found = self.evaluator.inside(call, self._directory / key)
            values = {**_arguments(call), **found.values}
            self._known[key] = msgspec.structs.replace(found, values=values)
        return self._known[key]

    def _fitted(self, tensor: Tensor, kind: TensorType, base: str, program: Path) -> Tensor:
        """The part of a tensor that has this type, around the worst element of the base."""
        shape = tuple(
            size if isinstance(size, int) else have
            for size, have in zip(kind.shape, tensor.shape, strict=True)
        )
        if (shape, kind.dtype) == (tensor.shape, tensor.dtype):
            return tensor
        if any(size > have for size, have in zip(shape, tensor.shape, strict=True)):
            raise NotAProgram(f"{tensor} has no part that is {kind}")
        from iree_pilot.pipeline.program import tensors

        values = tensors.load(Path(), tensor)
        begins = _around(self.worst.get(base), tensor.shape, shape)
        part = values[tuple(slice(b, b + s) for b, s in zip(begins, shape, strict=True))]
        place = self._directory / "fitted"
        place.mkdir(parents=True, exist_ok=True)
        own = hashlib.sha256(f"{program} {tensor.file} {kind}".encode()).hexdigest()[:24]
        made = tensors.save(part.astype(tensors.numpy_dtype(kind.dtype)), place, own)
        return msgspec.structs.replace(made, dtype=kind.dtype, file=str(place / own))


def _arguments(call: Call) -> dict[FedValue, Tensor]:
    return {FedValue(ARGUMENT, number): tensor for number, tensor in enumerate(call.inputs)}


def _unchanged(fed: Feeds, text: bytes) -> bool:
    arguments = tuple(FedValue(ARGUMENT, number) for number in range(len(fed.types)))
    return fed.values == arguments and Path(fed.base).read_bytes() == text


def _around(worst: Off | None, have: tuple[int, ...], want: tuple[int, ...]) -> list[int]:
    """Start of the crop in each dimension: near the worst element, for sizes of the output."""
    near = dict(zip(worst.shape, worst.index, strict=True)) if worst is not None else {}
    return [
        min(near.get(size, 0) // part * part, size - part)
        for size, part in zip(have, want, strict=True)
    ]


def _typed(text: str, name: str) -> TensorType:
    try:
        kind = mlir_text.scalar(text, name) or mlir_text.parse_type(text, name)
    except ValueError as fault:
        raise NotAProgram(str(fault)) from fault
    assert kind.dtype in ELEMENT_TYPES
    return kind


def _absolute(loaded: Loaded) -> Parameters | None:
    """The program's parameters, with archives that are found from anywhere."""
    parameters = loaded.program.parameters
    if parameters is None:
        return None
    place = Path(loaded.directory).absolute()
    archives = tuple(str(place / file) for file in parameters.archives)
    return msgspec.structs.replace(parameters, archives=archives)
