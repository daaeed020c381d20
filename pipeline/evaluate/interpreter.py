"""IR of linalg on tensors, interpreted in numpy: what its operations are defined to compute.

Once in the types of the program, and once with all floats in float64 (casts to 8-bit floats still
round). What is not known here raises Unknown.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline import tensors
from pipeline.evaluate import scalars
from pipeline.program import ELEMENT_TYPES

#: Reductions are carried out one step after the other.
_MOST_STEPS = 1 << 16
_MOST_ELEMENTS = 1 << 22
_RETURNS = (
    "util.return",
    "func.return",
    "linalg.yield",
    "tensor.yield",
    "tm_tensor.yield",
    "iree_linalg_ext.yield",
)
_SAME = (
    "hal.tensor.export",
    "hal.tensor.barrier",
    "tensor.cast",
    "torch_c.from_builtin_tensor",
    "torch_c.to_builtin_tensor",
    "torch_c.to_f64",
    "torch_c.to_i64",
    "iree_tensor_ext.compute_barrier.start",
    "iree_tensor_ext.compute_barrier.end",
    "util.optimization_barrier",
)
#: What only says what must hold, and what is no number.
_SILENT = ("torch.runtime.assert", "cf.assert", "torch.constant.none", "torch.constant.device")

Array = Any


#: Hears of each tensor: (the operation's position in the function, number of the result, value).
Record = Callable[[int, int, Array], None]


class Unknown(Exception):
    """What this does not interpret."""


class Module:
    """A module of MLIR. Raises Unknown for what the bindings cannot parse."""

    def __init__(self, file: Path) -> None:
        from iree.compiler import ir

        self._context = ir.Context()
        self._context.allow_unregistered_dialects = True
        try:
            with self._context, ir.Location.unknown():
                self._module = ir.Module.parse(file.read_bytes())
        except ir.MLIRError as fault:
            raise Unknown(f"it cannot be parsed: {fault}") from fault
        self._functions = {
            ir.StringAttr(op.attributes["sym_name"]).value: op
            for op in self._module.body.operations
            if "sym_name" in op.attributes
        }

    def run(
        self, function: str, inputs: Sequence[Array], *, wide: bool, record: Record
    ) -> list[Array]:
        """What a function returns. wide: in float64. Raises Unknown."""
        import numpy as np
        from iree.compiler import ir

        found = self._functions.get(f"{function}$async") or self._functions.get(function)
        if found is None or not len(found.regions[0].blocks):
            raise Unknown(f"it has no function {function}")
        given = [a.view(f"int{a.itemsize * 8}") if a.dtype.kind == "u" else a for a in inputs]
        with self._context, ir.Location.unknown(), np.errstate(all="ignore"):
            machine = _Interpreter(ir, wide)
            return machine.call(found.regions[0].blocks[0], given, record)


class _Interpreter:
    """Values of operations, by the values of the IR."""

    def __init__(self, ir: Any, wide: bool) -> None:
        self._ir = ir
        self._wide = wide

    def call(self, block: Any, arguments: Sequence[Array], record: Record) -> list[Array]:
        # More arguments than inputs are fences.
        known = dict(zip(block.arguments, map(self._widened, arguments), strict=False))
        return self._block(block, known, record)

    def _widened(self, values: Array) -> Array:
        import numpy as np

        whole = values.dtype.kind in "bic"
        return values if whole or not self._wide else values.astype(np.float64)

    def _block(
        self, block: Any, known: dict[Any, Array], record: Record | None = None
    ) -> list[Array]:
        for index, op in enumerate(block.operations):
            name = op.operation.name
            if name in _RETURNS:
                return [known[value] for value in op.operands]
            if name.startswith(_SILENT):
                continue
            results = self._operation(op.operation, name, known)
            known.update(zip(op.operation.results, results, strict=True))
            for number, result in enumerate(op.operation.results):
                if record is not None and isinstance(result.type, self._ir.ShapedType):
                    record(index, number, known[result])
        return []

    def _operation(self, op: Any, name: str, known: dict[Any, Array]) -> Sequence[Array]:
        import numpy as np

        if name == "hal.tensor.import":
            return [known[op.operands[0]]]
        if name in _SAME:
            kept = [known[value] for value in op.operands if value in known]
            return kept[: len(op.results)]
        special = getattr(self, f"_{name.replace('.', '_')}", None)
        if special is not None:
            return [np.asarray(value) for value in special(op, known)]
        operands = [known.get(value) for value in op.operands]
        if any(value is None for value in operands):
            raise Unknown(f"{name} of what is not a tensor")
        if name in scalars.OPERATIONS:
            return [scalars.OPERATIONS[name](*operands)]
        if name in ("arith.cmpf", "arith.cmpi"):
            compare = scalars.compare_floats if name[-1] == "f" else scalars.compare_integers
            return [compare(self._ir.IntegerAttr(op.attributes["predicate"]).value, *operands)]
        if len(operands) == 1 and name in scalars.CASTS:
            return [self._cast(name, op, operands[0])]
        if not op.results:
            return []
        raise Unknown(f"{name} is not interpreted")

    def _cast(self, name: str, op: Any, values: Array) -> Array:
        """Also with all floats in float64, those of 8 bits round."""
        to = self._dtype(op.results[0].type)
        if self._wide and name == "arith.bitcast":
            raise Unknown("arith.bitcast depends on the type of the program's own floats")
        narrow = self._own(op.results[0].type)
        if self._wide and narrow.itemsize == 1 and to.kind == "f":
            return scalars.cast(name, values, narrow).astype(to)
        return scalars.cast(name, values, to)

    def _dtype(self, kind: Any) -> Any:
        """numpy's type that the elements of an MLIR type are computed in."""
        import numpy as np

        own = self._own(kind)
        return np.dtype(np.float64) if self._wide and own.kind in "fV" else own

    def _own(self, kind: Any) -> Any:
        """numpy's type for an MLIR type: of its elements, where it is a tensor."""
        import numpy as np

        if isinstance(kind, self._ir.ShapedType):
            kind = self._ir.ShapedType(kind).element_type
        word = str(kind)
        if word == "index":
            return np.dtype(np.int64)
        if word not in ELEMENT_TYPES or ELEMENT_TYPES[word].family == "complex":
            raise Unknown(f"elements of type {word} are not interpreted")
        return tensors.numpy_dtype(word)

    def _shape(self, op: Any, known: dict[Any, Array], operands: Sequence[Any]) -> list[int]:
        """A result's shape, whose dynamic dimensions are operands."""
        sizes = iter(operands)
        kind = self._ir.ShapedType(op.results[0].type)
        shape = [
            int(known[next(sizes)]) if kind.is_dynamic_dim(i) else kind.get_dim_size(i)
            for i in range(kind.rank)
        ]
        if math.prod(shape) > _MOST_ELEMENTS:
            raise Unknown("its tensors are too large to be interpreted")
        return shape

    def _torch_constant_int(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        import numpy as np

        return [np.int64(self._ir.IntegerAttr(op.attributes["value"]).value)]

    def _torch_constant_float(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        import numpy as np

        return [np.float64(self._ir.FloatAttr(op.attributes["value"]).value)]

    # -- operations on tensors

    def _arith_constant(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        import numpy as np

        ir, value = self._ir, op.attributes["value"]
        kind = op.results[0].type
        dtype = self._dtype(kind)
        if isinstance(value, ir.DenseElementsAttr):
            dense = ir.DenseElementsAttr(value)
            shape = ir.ShapedType(kind).shape
            if dense.is_splat:
                return [np.full(shape, self._scalar(dense.get_splat_value(), dtype), dtype)]
            try:
                return [np.array(dense).reshape(shape).astype(dtype)]
            except (TypeError, ValueError) as fault:
                raise Unknown(f"a constant of type {kind}: {fault}") from fault
        return [np.asarray(self._scalar(value, dtype), dtype)]

    def _scalar(self, value: Any, dtype: Any) -> Array:
        import numpy as np

        ir = self._ir
        if isinstance(value, ir.FloatAttr):
            return np.float64(ir.FloatAttr(value).value).astype(dtype)
        if isinstance(value, ir.BoolAttr):
            return np.bool_(ir.BoolAttr(value).value)
        if isinstance(value, ir.IntegerAttr):
            return np.int64(ir.IntegerAttr(value).value).astype(dtype)
        raise Unknown(f"the constant {value}")

    def _tensor_empty(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        import numpy as np

        return [np.zeros(self._shape(op, known, op.operands), self._dtype(op.results[0].type))]

    def _tensor_splat(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        import numpy as np

        value, *sizes = op.operands
        return [np.full(self._shape(op, known, sizes), known[value])]

    def _tensor_from_elements(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        import numpy as np

        dtype = self._dtype(op.results[0].type)
        values = np.array([known[value] for value in op.operands], dtype)
        return [values.reshape(self._shape(op, known, ()))]

    def _tensor_dim(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        import numpy as np

        tensor, index = op.operands
        return [np.int64(known[tensor].shape[int(known[index])])]

    def _tensor_extract(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        tensor, *indices = op.operands
        return [known[tensor][tuple(known[index] for index in indices)]]

    def _tensor_expand_shape(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        tensor, *sizes = op.operands
        return [known[tensor].reshape(self._shape(op, known, sizes))]

    def _tensor_collapse_shape(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        values = known[op.operands[0]]
        groups = [
            [int(str(i).split(" ")[0]) for i in group] for group in op.attributes["reassociation"]
        ]
        return [values.reshape([math.prod(values.shape[i] for i in group) for group in groups])]

    def _tensor_concat(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        import numpy as np

        axis = self._ir.IntegerAttr(op.attributes["dim"]).value
        return [np.concatenate([known[value] for value in op.operands], axis)]

    def _tensor_extract_slice(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        place = self._place(op, known, op.operands[1:])
        values = known[op.operands[0]][place]
        kind = self._ir.ShapedType(op.results[0].type)
        if kind.rank < values.ndim:  # some of its dimensions are dropped
            values = values.reshape([s for s in values.shape if s != 1][: kind.rank] or ())
            if values.ndim != kind.rank:
                values = values.reshape(self._shape(op, known, ()))
        return [values]

    def _tensor_insert_slice(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        source, target, *rest = op.operands
        made = known[target].copy()
        place = self._place(op, known, rest)
        made[place] = known[source].reshape(made[place].shape)
        return [made]

    def _place(self, op: Any, known: dict[Any, Array], dynamic: Sequence[Any]) -> Any:
        """The slices that an operation's static and dynamic offsets, sizes and strides name."""
        values = iter(dynamic)
        unknown = self._ir.ShapedType.get_dynamic_size()

        def read(name: str) -> list[int]:
            return [
                int(known[next(values)]) if size == unknown else int(size)
                for size in op.attributes[name]
            ]

        offsets, sizes, strides = map(read, ("static_offsets", "static_sizes", "static_strides"))
        return tuple(
            slice(offset, offset + (size - 1) * stride + 1 if size else offset, stride)
            for offset, size, stride in zip(offsets, sizes, strides, strict=True)
        )

    def _tensor_pad(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        import numpy as np

        values = iter(op.operands[1:])
        unknown = self._ir.ShapedType.get_dynamic_size()

        def read(name: str) -> list[int]:
            return [
                int(known[next(values)]) if size == unknown else int(size)
                for size in op.attributes[name]
            ]

        low, high = read("static_low"), read("static_high")
        source = known[op.operands[0]]
        (filling,) = self._block(op.regions[0].blocks[0], dict(known))
        made = np.full(
            [a + s + b for a, s, b in zip(low, source.shape, high, strict=True)], filling
        )
        made[tuple(slice(a, a + s) for a, s in zip(low, source.shape, strict=True))] = source
        return [made.astype(source.dtype)]

    def _linalg_index(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        return [self._indices[self._ir.IntegerAttr(op.attributes["dim"]).value]]

    def _linalg_generic(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        """Vectorised over the parallel dimensions, one reduction step after the other."""
        import numpy as np

        maps = self._maps(op)
        operands = [known[value] for value in op.operands]
        outputs = [operand.copy() for operand in operands[-len(op.results) :]]
        kinds = ["parallel" in str(kind) for kind in op.attributes["iterator_types"]]
        sizes = _sizes(maps, operands, len(kinds))
        parallel = [d for d, is_parallel in enumerate(kinds) if is_parallel]
        reduced = [d for d, is_parallel in enumerate(kinds) if not is_parallel]
        steps = math.prod(sizes[d] for d in reduced)
        shape = [sizes[d] for d in parallel]
        if steps > _MOST_STEPS or math.prod(shape) > _MOST_ELEMENTS:
            raise Unknown("it computes too much to be interpreted")
        grid = dict(zip(parallel, np.indices(shape), strict=True))
        block = op.regions[0].blocks[0]
        inputs = len(operands) - len(outputs)
        for step in itertools.product(*(range(sizes[d]) for d in reduced)):
            fixed = {d: np.full(shape, at, np.int64) for d, at in zip(reduced, step, strict=True)}
            indices = grid | fixed
            places = [tuple(_index(e, indices, shape) for e in m.results) for m in maps]
            outer, self._indices = getattr(self, "_indices", {}), indices
            values = [*operands[:inputs], *outputs]
            inner = dict(known)
            inner.update(
                (argument, value[place])
                for argument, value, place in zip(block.arguments, values, places, strict=True)
            )
            for output, place, made in zip(
                outputs, places[inputs:], self._block(block, inner), strict=True
            ):
                output[place] = made
            self._indices = outer
        return outputs

    def _maps(self, op: Any) -> list[Any]:
        from iree.compiler.dialects import linalg

        maps = linalg.get_indexing_maps(op)
        if maps is None:
            raise Unknown(f"{op.name} names no indexing maps")
        return [self._ir.AffineMapAttr(one).value if hasattr(one, "type") else one for one in maps]

    def _iree_linalg_ext_sort(self, op: Any, known: dict[Any, Array]) -> list[Array]:
        """Rows one after the other, by the comparator of its region."""
        import numpy as np

        axis = self._ir.IntegerAttr(op.attributes["dimension"]).value
        made = [np.moveaxis(known[value], axis, -1).copy() for value in op.operands]
        block = op.regions[0].blocks[0]

        def before(a: tuple[Array, ...], b: tuple[Array, ...]) -> bool:
            arguments = [np.asarray(v) for pair in zip(a, b, strict=True) for v in pair]
            inner = dict(known) | dict(zip(block.arguments, arguments, strict=True))
            return bool(self._block(block, inner)[0])

        order: Callable[[Any, Any], int] = lambda a, b: -1 if before(a, b) else 1  # noqa: E731
        for row in np.ndindex(made[0].shape[:-1]):
            elements = sorted(
                zip(*(values[row] for values in made), strict=True), key=functools.cmp_to_key(order)
            )
            for values, column in zip(made, zip(*elements, strict=True), strict=False):
                values[row] = np.array(column, values.dtype)
        return [np.moveaxis(values, -1, axis) for values in made]

    _tm_tensor_sort = _iree_linalg_ext_sort


def _sizes(maps: Sequence[Any], operands: Sequence[Array], count: int) -> list[int]:
    """The size of each dimension of a generic operation, from operands that it alone indexes."""
    found: dict[int, int] = {}
    for one, operand in zip(maps, operands, strict=True):
        for expression, size in zip(one.results, operand.shape, strict=True):
            if hasattr(expression, "position"):
                found.setdefault(expression.position, size)
    if len(found) != count:
        raise Unknown("the sizes of a linalg.generic do not follow from its operands")
    return [found[d] for d in range(count)]


def _index(expression: Any, indices: dict[int, Array], shape: Sequence[int]) -> Array:
    import numpy as np

    if hasattr(expression, "position"):
        return indices[expression.position]
    if hasattr(expression, "value"):
        return np.full(shape, expression.value, np.int64)
    a, b = (_index(e, indices, shape) for e in (expression.lhs, expression.rhs))
    kind = type(expression).__name__
    known = {"AffineAddExpr": np.add, "AffineMulExpr": np.multiply, "AffineModExpr": np.mod}
    if kind == "AffineFloorDivExpr":
        return a // b
    if kind not in known:
        raise Unknown(f"{expression} as an index")
    return known[kind](a, b)
