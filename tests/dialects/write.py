"""Writes programs: the text of a module, and how its functions are called."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from types import ModuleType

from dialects import linalg, onnx, stablehlo, torch, tosa
from dialects.body import SIZES, Body, Shape, Value, builtin, number, spelled, steps, torch_type

DIALECTS: dict[str, ModuleType] = {
    "torch": torch,
    "linalg": linalg,
    "tosa": tosa,
    "stablehlo": stablehlo,
    "onnx": onnx,
}
#: What a module is made of beside one function of tensors.
FORMS = (
    "plain",
    "dynamic",
    "functions",
    "scalars",
    "constant",
    "state",
    "parameter",
    "scopes",
    "views",
    "fences",
)
_OF_TORCH = {
    "torch": ("plain", "plain", "dynamic", "functions", "scalars", "parameter", "scopes"),
    "onnx": ("plain", "plain", "dynamic", "functions"),
}
#: Scalars that a function can take beside its tensors.
_SCALARS = ("f32", "i32", "i64", "f64", "i1", "index", "i8", "i16", "f16", "bf16")
#: What a dynamic size is when a program is called.
DYNAMIC = 5


@dataclass(frozen=True)
class Call:
    """A public function and the types of its inputs: `4x8xf32`, of a scalar `f32`."""

    function: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A module. parameters: (scope, key, type) of each."""

    dialect: str
    number: int
    form: str
    text: str
    calls: tuple[Call, ...]
    parameters: tuple[tuple[str, str, str], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.dialect}-{self.form}-{self.number}"


def program(dialect: str, number: int, seed: int) -> Program:
    """Program `number` of a dialect; the forms take turns."""
    forms = _OF_TORCH.get(dialect, FORMS)
    form = forms[number % len(forms)]
    return _Writer(dialect, form, number, random.Random(f"{seed} {dialect} {number}")).written()


@dataclass
class _Writer:
    dialect: str
    form: str
    number: int
    draw: random.Random
    globals: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    parameters: list[tuple[str, str, str]] = field(default_factory=list)

    def written(self) -> Program:
        count = self.draw.choice((2, 3)) if self.form == "functions" else 1
        for index in range(count):
            self._function("main" if count == 1 else f"part{index}")
        return Program(
            dialect=self.dialect,
            number=self.number,
            form=self.form,
            text="\n".join([*self.globals, *self.functions, ""]),
            calls=tuple(self.calls),
            parameters=tuple(self.parameters),
        )

    @property
    def _of_torch(self) -> bool:
        return self.dialect in ("torch", "onnx")

    def _function(self, name: str) -> None:
        own = DIALECTS[self.dialect]
        body = Body(self.draw, torch_type if self._of_torch else builtin)
        dtype = self.draw.choice(own.DTYPES)
        sizes: Shape = (self.draw.choice(SIZES), self.draw.choice(SIZES))
        if self.form == "dynamic":
            sizes = (None, sizes[1])
        elif self.draw.random() < 0.1:
            sizes = sizes[:1]
        first = Value("%a0", dtype, sizes)
        arguments = [(first.name, self._passed(body, first), _called(first))]
        x = self._imported(body, first)
        x = steps(body, x, own.MAKERS, self.draw.randint(1, 5))
        results: list[tuple[str, str]] = []
        x = self._with(body, x, arguments, results)
        results.insert(0, (self._exported(body, x), self._passed(body, x)))
        names, kinds = (", ".join(one) for one in zip(*results, strict=True))
        takes = ", ".join(f"{arg}: {kind}" for arg, kind, _ in arguments)
        more = ""
        if self.form == "fences":
            more = ' attributes {iree.abi.model = "coarse-fences"}'
        elif self.dialect == "onnx":
            more = f" attributes {{{onnx.ATTRIBUTES}}}"
        head = f"func.func @{name}({takes}) -> ({kinds}){more} {{"
        self.functions.append("\n".join([head, *body.lines, f"  return {names} : {kinds}", "}"]))
        self.calls.append(Call(name, tuple(called for _, _, called in arguments)))

    def _passed(self, body: Body, value: Value) -> str:
        return "!hal.buffer_view" if self.form == "views" else body.type(value)

    def _imported(self, body: Body, value: Value) -> Value:
        if self.form != "views":
            return value
        text = f'hal.tensor.import {value.name} "input" : !hal.buffer_view -> {body.type(value)}'
        return body.value(text, value.dtype, value.shape)

    def _exported(self, body: Body, value: Value) -> str:
        if self.form != "views":
            return value.name
        text = f'hal.tensor.export {value.name} "output" : {body.type(value)} -> !hal.buffer_view'
        return body.line(text)

    def _with(
        self,
        body: Body,
        x: Value,
        arguments: list[tuple[str, str, str]],
        results: list[tuple[str, str]],
    ) -> Value:
        """What the form adds to a function."""
        own = DIALECTS[self.dialect]
        if self.form == "scalars":
            return self._scalars(body, x, arguments, results)
        if self.form in ("constant", "state", "parameter", "scopes"):
            for scope in ("left", "right") if self.form == "scopes" else ("model",):
                held = self._held(body, x, scope)
                summed = own.add(body, x, held)
                if summed is None:
                    results.append((held.name, body.type(held)))
                x = summed or x
            return x
        if self.form in ("plain", "dynamic", "functions") and self.draw.random() < 0.5:
            second = Value("%a1", x.dtype, x.shape)
            # Where a size is dynamic, both have the same: what was made up fits.
            summed = own.add(body, x, second)
            if summed is not None:
                arguments.append((second.name, body.type(second), _called(second)))
                return summed
        return x

    def _held(self, body: Body, x: Value, scope: str) -> Value:
        """A global of the type of `x`: a constant, a state that changes, a parameter."""
        kind = builtin(x.dtype, x.shape)
        name = f"@{scope}"
        if self.form in ("parameter", "scopes"):
            initial = f'#flow.parameter.named<"{scope}"::"weight">'
            self.parameters.append((scope, "weight", spelled(x.dtype, x.shape)))
        else:
            initial = f"dense<{number(self.draw, x.dtype)}>"
        mutable = "mutable " if self.form == "state" else ""
        self.globals.append(f"util.global private {mutable}{name} = {initial} : {kind}")
        loaded = body.line(f"util.global.load {name} : {kind}")
        if self.dialect == "torch":
            text = f"torch_c.from_builtin_tensor {loaded} : {kind} -> {body.type(x)}"
            return body.value(text, x.dtype, x.shape)
        if self.form == "state":
            body.lines.append(f"  util.global.store {x.name}, {name} : {kind}")
        return Value(loaded, x.dtype, x.shape)

    def _scalars(
        self,
        body: Body,
        x: Value,
        arguments: list[tuple[str, str, str]],
        results: list[tuple[str, str]],
    ) -> Value:
        if self.dialect == "torch":
            scaled = torch.scaled(body, x, "%s0")
            if scaled is not None:
                arguments.append(("%s0", "!torch.float", "f64"))
            return scaled or x
        if x.dtype in _SCALARS and x.dtype != "i1" and x.static:
            kind = body.type(x)
            arguments.append(("%s0", x.dtype, x.dtype))
            into = body.line(f"tensor.empty() : {kind}")
            text = f"linalg.fill ins(%s0 : {x.dtype}) outs({into} : {kind}) -> {kind}"
            wide = body.value(text, x.dtype, x.shape)
            x = DIALECTS[self.dialect].add(body, x, wide) or wide
        dtype = self.draw.choice(_SCALARS)
        arguments.append(("%s1", dtype, dtype))
        op = "addf" if dtype[0] in "fb" else "addi"
        results.append((body.line(f"arith.{op} %s1, %s1 : {dtype}"), dtype))
        return x


def _called(value: Value) -> str:
    return spelled(value.dtype, tuple(DYNAMIC if s is None else s for s in value.shape))
