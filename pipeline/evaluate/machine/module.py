"""A module of MLIR: its functions as plain data, its globals and what they begin with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.machine import constants, elements
from iree_pilot.pipeline.evaluate.machine.elements import Array, ElementKind, Unknown
from iree_pilot.pipeline.evaluate.machine.ir import Block, Operation, Reader, read_type
from iree_pilot.pipeline.program import archive, tensors
from iree_pilot.pipeline.program.program import ELEMENT_TYPES
from iree_pilot.pipeline.torch_dialect import literals

_PARAMETER = re.compile(r'#(?:flow|stream)\.parameter\.named<(?:"([^"]*)"::)?"([^"]*)">\s*:\s*(.+)')


class Module:
    """A module, and the archives that hold its parameters.

    To be used in its `context` only. Raises Unknown for what the bindings cannot parse.
    """

    def __init__(
        self,
        file: Path,
        archives: Sequence[str] = (),
        scopes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        from iree.compiler import ir

        self.context = ir.Context()
        self.context.allow_unregistered_dialects = True
        #: Operations that read nothing of what they write over.
        self.overwriting: frozenset[str] = frozenset()
        try:
            with self.context, ir.Location.unknown():
                self.raw, text = literals.parsed(file)
        except ValueError as fault:
            raise Unknown(str(fault)) from fault
        self.blobs = literals.resources(text)
        self._held = {
            scope: {n: (Path(a), e) for a in files for n, e in archive.read(Path(a)).items()}
            for scope, files in (scopes or {"": archives}).items()
        }
        self._functions: dict[str, Any] = {}
        self._globals: dict[str, Any] = {}
        self.initializers: list[Any] = []
        self._read: dict[str, tuple[tuple[Block, ...], Callable[[Operation], Sequence[Block]]]] = {}
        for op in (o.operation for o in self.raw.body.operations):
            if op.name == "util.initializer":
                self.initializers.append(op)
            elif "sym_name" in op.attributes:
                found = self._globals if op.name.endswith(".global") else self._functions
                found[op.attributes["sym_name"].value] = op

    def function(
        self, name: str
    ) -> tuple[tuple[Block, ...], Callable[[Operation], Sequence[Block]]]:
        """(a function's blocks, where its branches go to). Raises Unknown."""
        if name not in self._read:
            op = self._functions.get(name)
            if op is None or len(op.regions) != 1 or not len(op.regions[0].blocks):
                raise Unknown(f"it has no function {name} with a body")
            self._read[name] = self._of(op)
        return self._read[name]

    def entry(self, name: str) -> str:
        """The function that does the work of a public one: of an asynchronous call the one that
        takes fences."""
        return f"{name}$async" if f"{name}$async" in self._functions else name

    def exported(self, executable: str, name: str) -> Block:
        """The export of an executable with a name. Raises Unknown."""
        key = f"{executable}::{name}"
        if key not in self._read:
            held = self._functions.get(executable)
            inner = [
                one.operation
                for region in (held.regions if held is not None else ())
                for block in region.blocks
                for op in block.operations
                if op.operation.name == "builtin.module"
                for one in op.operation.regions[0].blocks[0].operations
            ]
            found = [o for o in inner if "sym_name" in o.attributes]
            named = [o for o in found if o.attributes["sym_name"].value == name]
            if not named or not len(named[0].regions[0].blocks):
                raise Unknown(f"it has no dispatch {key} with a body")
            self._read[key] = self._of(named[0])
        return self._read[key][0][0]

    def initializer(self, index: int) -> tuple[Block, ...]:
        return self._of(self.initializers[index])[0]

    def _of(self, op: Any) -> tuple[tuple[Block, ...], Callable[[Operation], Sequence[Block]]]:
        reader = Reader()
        return reader.region(op.regions[0]), reader.successors

    def begin(self, name: str) -> tuple[Array, ElementKind]:
        """(initial value of a global, in its own type; its element type). Raises Unknown."""
        declared = self._globals.get(name)
        if declared is None:
            raise Unknown(f"it has no global {name}")
        for attribute in ("initial_value", "value"):
            if attribute in declared.attributes:
                return self._initial(name, declared.attributes[attribute])
        kind = read_type(declared.attributes["type"].value)
        if not kind.element:
            raise Unknown(f"the global {name} of type {kind.text} is not evaluated")
        element = elements.of(kind.element)
        return np.zeros([size or 0 for size in kind.shape or ()], element.dtype), element

    def _initial(self, name: str, value: Any) -> tuple[Array, ElementKind]:
        text = str(value)
        if match := _PARAMETER.match(text):
            return self._parameter(match)
        if text.startswith("#"):
            raise Unknown(f"the global {name} begins with {text[:60]}: not evaluated")
        return constants.values(value, self.blobs)

    def _parameter(self, match: re.Match[str]) -> tuple[Array, ElementKind]:
        from iree.compiler import ir

        name, kind = match[2], read_type(ir.Type.parse(match[3]))
        held = self._held.get(match[1] or "", self._held.get("", {}))
        if name not in held:
            raise Unknown(f"the values of its parameter {name} are not at hand")
        file, entry = held[name]
        if entry.offset is None:
            raise Unknown(f"{file} does not write out its parameter {name}")
        element = elements.of(kind.element)
        shape = [size or 0 for size in kind.shape or ()]
        raw = np.fromfile(file, np.uint8, entry.bytes or 0, offset=entry.offset).tobytes()
        if kind.element in ELEMENT_TYPES and ELEMENT_TYPES[kind.element].bits:
            found = tensors.decoded(raw, kind.element)[: math.prod(shape)]
            return found.astype(element.dtype).reshape(shape), element
        held_as = np.uint8 if element.family == "bool" else element.dtype
        found = np.frombuffer(raw, held_as, math.prod(shape))
        return found.astype(element.dtype).reshape(shape), element
