"""A program: MLIR on disk, the signatures of its functions, its parameters, where it came from.

A program lives in one directory, and everything in its record is relative to it:

    program.json      the `Program` record
    program.mlir      what is compiled
    parameters.irpa   the weights (or other archives, or only their names)
    data/             example inputs and reference outputs, raw little-endian bytes, one file each
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.plural import count

ElementClass = Literal["float", "int", "bool", "complex"]
#: Form of a value in the ABI: a tensor as `!hal.buffer_view` or bare as `!hal.buffer`, a number,
#: a null reference for a fence. "opaque": a buffer view of which the program
#: does not state the type.
Passing = Literal["view", "buffer", "scalar", "null", "opaque"]


class ElementType(msgspec.Struct, frozen=True):
    """One element type: IREE's name for it, its size in bytes, numpy's/ml_dtypes' and torch's.

    size: of one element in numpy. bits: where elements are packed, lowest bits first. torch: empty
    where PyTorch cannot compute with it.
    """

    name: str
    size: int
    numpy: str
    torch: str
    family: ElementClass
    bits: int = 0

    def bytes(self, count: int) -> int:
        """The bytes that `count` elements take in a buffer of IREE's, and in our raw files."""
        return (count * self.bits + 7) // 8 if self.bits else count * self.size


ELEMENT_TYPES = {
    e.name: e
    for e in (
        ElementType("f64", 8, "float64", "float64", "float"),
        ElementType("f32", 4, "float32", "float32", "float"),
        ElementType("f16", 2, "float16", "float16", "float"),
        ElementType("bf16", 2, "bfloat16", "bfloat16", "float"),
        ElementType("f8E4M3FN", 1, "float8_e4m3fn", "float8_e4m3fn", "float"),
        ElementType("f8E4M3FNUZ", 1, "float8_e4m3fnuz", "float8_e4m3fnuz", "float"),
        ElementType("f8E5M2", 1, "float8_e5m2", "float8_e5m2", "float"),
        ElementType("f8E5M2FNUZ", 1, "float8_e5m2fnuz", "float8_e5m2fnuz", "float"),
        ElementType("f8E8M0FNU", 1, "float8_e8m0fnu", "float8_e8m0fnu", "float"),
        ElementType("i64", 8, "int64", "int64", "int"),
        ElementType("i32", 4, "int32", "int32", "int"),
        ElementType("i16", 2, "int16", "int16", "int"),
        ElementType("i8", 1, "int8", "int8", "int"),
        ElementType("ui64", 8, "uint64", "uint64", "int"),
        ElementType("ui32", 4, "uint32", "uint32", "int"),
        ElementType("ui16", 2, "uint16", "uint16", "int"),
        ElementType("ui8", 1, "uint8", "uint8", "int"),
        ElementType("i4", 1, "int4", "", "int", bits=4),
        ElementType("ui4", 1, "uint4", "", "int", bits=4),
        ElementType("i2", 1, "int2", "", "int", bits=2),
        ElementType("ui2", 1, "uint2", "", "int", bits=2),
        ElementType("i1", 1, "bool", "bool", "bool"),
        ElementType("complex<f32>", 8, "complex64", "complex64", "complex"),
        ElementType("complex<f64>", 16, "complex128", "complex128", "complex"),
    )
}
TORCH_ELEMENT_TYPES = {e.torch: e.name for e in ELEMENT_TYPES.values() if e.torch}
NUMPY_ELEMENT_TYPES = {e.numpy: e.name for e in ELEMENT_TYPES.values()}


class Dim(msgspec.Struct, frozen=True, kw_only=True):
    """A dynamic dimension: its symbol and its bounds, both inclusive (max None: unbounded)."""

    symbol: str
    min: int = 0
    max: int | None = None

    def __str__(self) -> str:
        upper = "" if self.max is None else self.max
        return f"{self.symbol}[{self.min}..{upper}]"


class TensorType(msgspec.Struct, frozen=True, kw_only=True):
    """One argument or result: name, IREE element type, shape (int: static, Dim: dynamic).

    passed: how. A number has no dimensions; of what is opaque, dtype and shape say nothing.
    path: where a model returns a result, as its users write it (`hidden_states[0]`), if it has a
    name there.
    """

    name: str
    dtype: str
    shape: tuple[int | Dim, ...]
    passed: Passing = "view"
    path: str = ""

    @property
    def label(self) -> str:
        """The name for people."""
        return self.path or self.name

    def __str__(self) -> str:
        return "x".join([*(str(d) for d in self.shape), self.dtype])


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor's value on disk: raw little-endian bytes of `shape` elements, row-major.

    Elements of less than 8 bits are packed (but `i1`, which takes a byte). passed: how it is given
    to a function; a number is a tensor without dimensions, too. stated: of what a module returns in
    another type than the program states, that one (`pipeline.execution.border`).
    """

    dtype: str
    shape: tuple[int, ...]
    file: str
    passed: Passing = "view"
    stated: str = ""

    def __str__(self) -> str:
        return "x".join([*(str(d) for d in self.shape), self.dtype])

    @property
    def bytes(self) -> int:
        return ELEMENT_TYPES[self.dtype].bytes(math.prod(self.shape))

    def placed(self, directory: Path) -> Tensor:
        """Tensor with the path of its file below a directory."""
        return msgspec.structs.replace(self, file=str(directory / self.file))


class Indexed(msgspec.Struct, frozen=True, kw_only=True):
    """An integer output that says where along an axis something lies, as sort and top-k give it.

    operation: what chose. values: what is pointed into, the axis last, in the program's own type;
    precise: the same in double precision. rows: for each element of the output, in i64, where the
    row that it points into begins in the flattened values. exact: the values are given, not
    computed, so that they are not off by a rounding. tied: they depend on a choice themselves.
    """

    output: int
    operation: str
    values: Tensor
    rows: Tensor
    precise: Tensor | None = None
    exact: bool = False
    tied: bool = False


#: Values perturbed to measure the effect on results: none, the steps of sums and norms in 16
#: bits, or all computed and given values.
Jitter = Literal["none", "sums", "values"]


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Outputs that PyTorch (or another evaluator) computes for the example inputs.

    outputs: in the program's own dtypes. precise: the same program with every floating-point
    computation in `precise_dtype` (casts to 8-bit floats still round), empty where that could not
    be evaluated; `note` then says why. perturbed: the precise outputs of a program that casts to
    8-bit floats when the values to cast are moved by less than any such cast resolves: how far two
    right implementations may differ. incomparable: for each output why nothing can be said of its
    numbers, empty where it can be compared (and the whole of it where all can). unreturned: names
    of state and of arguments that a call changes, and that are no outputs.

    flushed: the precise outputs where values below the smallest normal f32 are 0 as soon as they
    are given or computed, as devices may have it. indexed: outputs that point to values. retied:
    the precise outputs where `ties`, the operations that choose among equal values or those that
    rounding makes equal, choose others, once for each time that was done. jittered: the precise
    outputs where each value is moved by a rounding of its type, once for each time, where that
    moves them by far more: what is left of values that cancel, norms of what hardly varies.
    tipped: the precise outputs where what is made an integer, a whole number or an answer is first
    moved down, and up, by the error of a correct result: integers in between are as right.
    reached: the element types of floats that each output is computed from, empty where unknown.
    own_errors: of outputs that are given, how far an evaluator's own are from its precise ones:
    relative L2 and of an element. stated: the outputs are what the user or the program itself says
    has to come out; users: the user does. computed: of outputs whose references are what the
    program expects of itself, what the evaluator makes of them.
    """

    outputs: tuple[Tensor, ...]
    precise: tuple[Tensor, ...] = ()
    precise_dtype: str | None = None
    perturbed: tuple[Tensor, ...] = ()
    evaluator: str = "torch eager"
    note: str = ""
    incomparable: tuple[str, ...] = ()
    unreturned: tuple[str, ...] = ()
    flushed: tuple[Tensor, ...] = ()
    indexed: tuple[Indexed, ...] = ()
    retied: tuple[tuple[Tensor, ...], ...] = ()
    ties: tuple[str, ...] = ()
    jittered: tuple[tuple[Tensor, ...], ...] = ()
    tipped: tuple[tuple[Tensor, ...], ...] = ()
    reached: tuple[tuple[str, ...], ...] = ()
    own_errors: tuple[tuple[float, float], ...] = ()
    stated: bool = False
    users: bool = False
    computed: Reference | None = None

    def why_not(self, output: int) -> str:
        """Reason that an output cannot be compared; empty if it can."""
        return self.incomparable[output] if output < len(self.incomparable) else ""

    def placed(self, directory: Path) -> Reference:
        """Reference with the paths of all files below a directory."""

        def each(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(tensor.placed(directory) for tensor in tensors)

        return msgspec.structs.replace(
            self,
            outputs=each(self.outputs),
            precise=each(self.precise),
            perturbed=each(self.perturbed),
            flushed=each(self.flushed),
            retied=tuple(map(each, self.retied)),
            jittered=tuple(map(each, self.jittered)),
            tipped=tuple(map(each, self.tipped)),
            computed=None if self.computed is None else self.computed.placed(directory),
            indexed=tuple(
                msgspec.structs.replace(
                    i,
                    values=i.values.placed(directory),
                    rows=i.rows.placed(directory),
                    precise=None if i.precise is None else i.precise.placed(directory),
                )
                for i in self.indexed
            ),
        )


class MadeUp(msgspec.Struct, frozen=True, kw_only=True):
    """Recipe for made-up inputs, if none are given.

    sizes: of dynamic dimensions, by symbol. numbers: those that are passed on their own, by the
    argument's name. integers: so many different ones, from `least` on: they may be indices.
    """

    seed: int = 0
    sizes: dict[str, int] = {}
    numbers: dict[str, int] = {}
    integers: int = 8
    least: int = 0


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """An entry function: its types, and example inputs with their reference if there are any.

    unevaluated: why it has no reference, where that was tried. cut_off: the limits, in seconds and
    bytes, that ended an evaluation of it.
    made_up: how the inputs were, where nobody gave them: then they may not be what it needs.
    """

    name: str
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    example: tuple[Tensor, ...] | None = None
    reference: Reference | None = None
    unevaluated: str = ""
    cut_off: tuple[float, int] | None = None
    made_up: MadeUp | None = None

    @property
    def signals(self) -> bool:
        """True if it signals fences. None are given, so nobody waits for what it returns."""
        return any(taken.passed == "null" for taken in self.inputs)


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One named parameter that the program loads.

    scope: where a program has several; None for the only one. dtype may be a type that IREE's
    runtime does not know; its values are then not looked at.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scope: str | None = None

    def __str__(self) -> str:
        return f"{self.name}: {'x'.join([*(str(d) for d in self.shape), self.dtype])}"


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """The weights: their scope in the MLIR, names and types, and the archives that hold them.

    archives: relative to the program's directory, or absolute where they are the user's own; one
    tensor lies in one of them. None when only the names are known (full-size models traced
    without weights). scopes: the archives of each scope where there are several; `archives` are
    then all of them, and `scope` is the first.

    A program in which parameters are loaded by calls (after phase `stream`) has no `tensors`: what
    they are is not read.
    """

    scope: str
    tensors: tuple[Parameter, ...]
    archives: tuple[str, ...] = ()
    scopes: dict[str, tuple[str, ...]] = {}

    @property
    def by_scope(self) -> dict[str, tuple[str, ...]]:
        """The archives of each scope."""
        return self.scopes or {self.scope: self.archives}

    @property
    def missing(self) -> tuple[str, ...]:
        """The scopes that have no archive."""
        return tuple(scope for scope, archives in self.by_scope.items() if not archives)


def scopes_text(scopes: Iterable[str]) -> str:
    """Scopes as people read them: one may have no name."""
    return ", ".join(scope or "(unnamed)" for scope in scopes)


class Decomposed(msgspec.Struct, frozen=True, kw_only=True):
    """An operation of the model that was decomposed, as IREE cannot compile it.

    op: `aten.diff`. by: whose decomposition it is, PyTorch's or iree-pilot's. reason: in words.
    price: what it costs, "" if nothing to speak of. message: the compiler's. target: for which it
    was; "" for all.
    """

    op: str
    by: str
    reason: str
    price: str
    message: str
    target: str = ""

    @property
    def note(self) -> str:
        """A line for the user."""
        price = f"; {self.price}" if self.price else ""
        return f"{self.op}: decomposed by {self.by}, since {self.reason}{price}"


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a tensor that Python needed while it was traced, and that the trace took as given.

    place: file and line of the model; code: that line. value: what it took. on_inputs: the value
    depends on inputs: the program holds for those alone for which it is the same, and refuses
    others when it runs. write: Python that lets the line trace without this, "" for none that is
    known.
    """

    place: str
    code: str
    value: str
    on_inputs: bool
    write: str = ""


def holds_for(one: Decided) -> str:
    """The inputs for which a program with this value holds, in words."""
    line = f"`{one.code}` ({Path(one.place).name})"
    return f"only for inputs for which {line} takes {one.value}; others are refused when it runs"


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A source after tracing or import; see the module's docstring for its directory.

    mlir: the file to compile (an MLIR source keeps its own name). digest: SHA-256 of it in hex:
    what a compile depends on. origin: who made it
    (`torch 2.13.0`, `iree-turbine 3.9.0`, ...). notes: what the user should know of it. others:
    public functions that cannot be called, by name, and why. decomposed: operations of the model
    that the MLIR has no more; left: those that the user wants left as they are, by name, or `all`.
    decided: values of tensors that the trace took as given. switches: of a transformers model, as
    they are set (`frontends`).
    """

    source: str
    digest: str
    functions: tuple[Function, ...]
    parameters: Parameters | None
    origin: dict[str, str]
    notes: tuple[str, ...] = ()
    mlir: str = "program.mlir"
    others: dict[str, str] = {}
    decomposed: tuple[Decomposed, ...] = ()
    left: tuple[str, ...] = ()
    decided: tuple[Decided, ...] = ()
    switches: dict[str, str] = {}

    def function(self, name: str | None = None) -> Function:
        """The entry function of that name, or the only/first one."""
        if name is None:
            return self.functions[0]
        for f in self.functions:
            if f.name == name:
                return f
        raise UsageError(
            f"{self.source} has no function {name!r}",
            advice=f"Its functions: {', '.join(f.name for f in self.functions)}.",
        )


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a function of the program in `directory` with the function's example inputs."""

    program: Program
    directory: Path
    function: Function

    @property
    def mlir(self) -> Path:
        return self.directory / self.program.mlir

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The example inputs, with absolute files; () where there are none."""
        place = self.directory.absolute()
        return tuple(tensor.placed(place) for tensor in self.function.example or ())

    def given(self, inputs: tuple[Tensor, ...]) -> Self:
        """Same call with other inputs."""
        function = msgspec.structs.replace(self.function, example=inputs)
        return msgspec.structs.replace(self, function=function)

    def expecting(self, reference: Reference | None) -> Self:
        """Same call of a function with this reference; None: the right outputs are not known."""
        function = msgspec.structs.replace(self.function, reference=reference)
        return msgspec.structs.replace(self, function=function)


def check_inputs(function: Function, inputs: tuple[Tensor, ...], source: str) -> None:
    """Raises UsageError unless `inputs` fit the function: count, dtypes, shapes, bounds.

    A symbol that appears twice must have one value.
    """
    signature = f"{function.name}({', '.join(f'{t.name}: {t}' for t in function.inputs)})"
    if len(inputs) != len(function.inputs):
        raise UsageError(
            f"{source}: {function.name} takes {count(len(function.inputs), 'input')}, "
            f"got {len(inputs)}",
            advice=f"Its signature is {signature}.",
        )
    bound: dict[str, int] = {}
    for position, (want, got) in enumerate(zip(function.inputs, inputs, strict=True)):
        why = _misfit(want, got, bound)
        if why:
            raise UsageError(
                f"{source}: input {position} ({want.name}) of {function.name} does not fit: {why}",
                advice=f"It takes {want}, got {got}. Its signature is {signature}.",
            )


def _misfit(want: TensorType, got: Tensor, bound: dict[str, int]) -> str:
    if want.passed in ("opaque", "null"):
        return ""
    if want.dtype != got.dtype:
        return f"dtype {got.dtype} where {want.dtype} is expected"
    if len(want.shape) != len(got.shape):
        return f"{len(got.shape)} dimensions where {len(want.shape)} are expected"
    for axis, (dim, size) in enumerate(zip(want.shape, got.shape, strict=True)):
        if isinstance(dim, int):
            if dim != size:
                return f"dimension {axis} is {size} where {dim} is expected"
            continue
        if size < dim.min or (dim.max is not None and size > dim.max):
            return f"dimension {axis} is {size}, outside the bounds of {dim}"
        if bound.setdefault(dim.symbol, size) != size:
            return (
                f"dimension {axis} is {size}, but {dim.symbol} is already {bound[dim.symbol]} "
                "in an earlier dimension"
            )
    return ""


RECORD = "program.json"
MLIR = "program.mlir"


def save(program: Program, directory: Path) -> None:
    """Writes the record of a program whose other files are already in `directory`."""
    (directory / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(program), indent=1))


def load(directory: Path) -> Program:
    """Reads the record of a program directory."""
    return msgspec.json.decode((directory / RECORD).read_bytes(), type=Program)
