"""What to run to make the corpus, and which bug each release shows then."""

from __future__ import annotations

from typing import Literal

import msgspec

CPU = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=generic",
)
VULKAN = ("--iree-hal-target-device=vulkan",)
HIP = ("--iree-hal-target-device=hip", "--iree-rocm-target=gfx942")
OLD = ("2.9.0", "3.3.0", "3.8.0", "3.10.0", "3.11.0")
NEW = "3.13.0"

TRACE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("model", sys.argv[1])
model = importlib.util.module_from_spec(spec)
sys.modules["model"] = model
spec.loader.exec_module(model)
import iree.turbine.aot as aot
aot.export(model.model(), args=model.inputs())
"""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One program and how to make it fail.

    bugs: release -> name of the bug that it shows. text: the program, unless it is a file in
    programs/. flags: of the compile. arguments, before: of the run, and what to run ahead of it.
    prefix: what the compile is started with. seconds, memory_bytes: limits.
    """

    name: str
    bugs: dict[str, str]
    program: str = ""
    text: bytes | None = None
    tool: Literal["iree-compile", "iree-run-module", "python"] = "iree-compile"
    flags: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    prefix: tuple[str, ...] = ()
    driver: str = TRACE
    seconds: float = 60.0
    memory_bytes: int | None = None


def _on(releases: tuple[str, ...], bug: str) -> dict[str, str]:
    return dict.fromkeys(releases, bug)


def _torch(name: str, operation: str, arguments: dict[str, str], result: str) -> bytes:
    """A program of one operation: `%0 = OPERATION : ... -> RESULT`."""
    parameters = ", ".join(f"%{k}: {v}" for k, v in arguments.items())
    types = ", ".join(arguments.values())
    return (
        f"func.func @{name}({parameters}) -> {result} {{\n"
        f"  %0 = {operation} : {types} -> {result}\n  return %0 : {result}\n}}\n"
    ).encode()


def _tensor(shape: str, element: str) -> str:
    return f"!torch.vtensor<[{shape}],{element}>"


def _matmul_f16(name: str, m: int, n: int, k: int) -> bytes:
    left, right = _tensor(f"{m},{k}", "f16"), _tensor(f"{k},{n}", "f16")
    arguments = {"left": left, "right": right}
    return _torch(name, "torch.aten.matmul %left, %right", arguments, _tensor(f"{m},{n}", "f16"))


def _prelu(name: str, rows: int, channels: int, columns: int) -> bytes:
    x, slope = _tensor(f"{rows},{channels},{columns}", "f32"), _tensor(str(channels), "f32")
    return _torch(name, "torch.aten.prelu %x, %slope", {"x": x, "slope": slope}, x)


def _onnx(operation: str, shape: str) -> bytes:
    x = _tensor(shape, "f32")
    return (
        f"func.func @main(%x: {x}) -> {x} "
        "attributes {torch.onnx_meta.opset_version = 17 : si64} {\n"
        f'  %0 = torch.operator "onnx.{operation}"(%x) : ({x}) -> {x}\n  return %0 : {x}\n}}\n'
    ).encode()


def _i8_sub(*functions: tuple[str, str]) -> bytes:
    return b"".join(
        (
            f"func.func @{name}(%x: {_tensor(shape, 'si8')}) -> {_tensor(shape, 'si8')} {{\n"
            "  %int8 = torch.constant.int 8\n  %int1 = torch.constant.int 1\n"
            f"  %0 = torch.aten.sub.Scalar %x, %int8, %int1 : {_tensor(shape, 'si8')}, "
            f"!torch.int, !torch.int -> {_tensor(shape, 'si8')}\n"
            f"  return %0 : {_tensor(shape, 'si8')}\n}}\n"
        ).encode()
        for name, shape in functions
    )


_MODEL = """
import ctypes
import torch

class {cls}(torch.nn.Module):
    def __init__(self):
        super().__init__()
        {init}

    def forward(self, {x}):
        {forward}

def model():
    {build}
    return {cls}()

def inputs():
    return (torch.ones({shape}),)
"""


def _model(
    forward: str,
    *,
    cls: str = "Model",
    x: str = "x",
    init: str = "pass",
    build: str = "pass",
    shape: str = "3, 4",
) -> bytes:
    text = _MODEL.format(cls=cls, x=x, init=init, build=build, forward=forward, shape=shape)
    return text.lstrip().encode()


_MATMUL_F16 = _matmul_f16("main", 64, 64, 128)

COMPILES = (
    Recipe(
        name="argsort",
        program="argsort.mlir",
        flags=VULKAN,
        bugs={"2.9.0": "unknown-argsort", **_on(("3.3.0", "3.11.0", NEW), "argsort-get-int")},
    ),
    Recipe(
        name="batchnorm",
        program="batchnorm.mlir",
        flags=CPU,
        bugs=_on(("2.9.0", "3.8.0", "3.11.0"), "batchnorm-splat"),
    ),
    Recipe(name="chunk", program="chunk.mlir", flags=CPU, bugs=_on(OLD[:3], "constant-int")),
    Recipe(
        name="f8-matmul",
        program="f8-matmul.mlir",
        flags=CPU,
        bugs={
            "2.9.0": "unknown-assert-metadata",
            **_on(("3.3.0", "3.8.0"), "fptrunc-i8"),
            "3.10.0": "truncf-illegal",
        },
    ),
    Recipe(
        name="f8-matmul-hip", program="f8-matmul.mlir", flags=HIP, bugs={NEW: "truncf-not-gfx942"}
    ),
    Recipe(
        name="fp8-attention",
        program="fp8-attention.mlir",
        flags=VULKAN,
        bugs={
            "2.9.0": "unknown-assert-metadata",
            "3.8.0": "subspan-illegal",
            "3.11.0": "bitcast",
            NEW: "online-attention",
        },
    ),
    Recipe(
        name="fp8-attention-again",
        program="fp8-attention.mlir",
        flags=VULKAN,
        bugs={NEW: "online-attention"},
    ),
    Recipe(
        name="attention",
        program="attention.mlir",
        flags=VULKAN,
        bugs={**_on(OLD, "attention-silent"), NEW: "online-attention"},
    ),
    Recipe(
        name="matmul-f16",
        program="matmul-f16.mlir",
        flags=VULKAN,
        bugs=_on((*OLD, NEW), "bitcast"),
    ),
    Recipe(
        name="matmul-f16-shapes",
        program="other.mlir",
        text=_matmul_f16("other", 32, 160, 96),
        flags=VULKAN,
        bugs=_on(("3.8.0", NEW), "bitcast"),
    ),
    Recipe(
        name="matmul-f16-reproducer",
        program="matmul-f16.mlir",
        flags=(
            *VULKAN,
            "--mlir-disable-threading",
            "--mlir-pass-pipeline-crash-reproducer=reproducer.mlir",
        ),
        bugs=_on(("3.3.0", NEW), "bitcast"),
    ),
    Recipe(name="llama-fp8", program="llama-fp8-16.mlir", flags=VULKAN, bugs={NEW: "bitcast"}),
    Recipe(
        name="argsort-reproducer",
        program="argsort.mlir",
        flags=(
            *VULKAN,
            "--mlir-disable-threading",
            "--mlir-pass-pipeline-crash-reproducer=reproducer.mlir",
            "--mlir-pass-pipeline-local-reproducer",
        ),
        bugs=_on(("3.8.0", NEW), "argsort-caught"),
    ),
    Recipe(
        name="argsort-serial",
        program="argsort.mlir",
        flags=(*VULKAN, "--mlir-disable-threading"),
        bugs={NEW: "argsort-get-int"},
    ),
    Recipe(name="i8-sub", program="i8-sub.mlir", flags=CPU, bugs=_on((*OLD, NEW), "i8-sub-null")),
    Recipe(
        name="i8-sub-shapes",
        program="other.mlir",
        text=_i8_sub(("other", "16,2,3")),
        flags=CPU,
        bugs=_on(("3.3.0", NEW), "i8-sub-null"),
    ),
    Recipe(
        name="i8-sub-twice",
        program="two.mlir",
        text=_i8_sub(("first", "4,8"), ("second", "3,5")),
        flags=CPU,
        bugs=_on(("3.8.0", NEW), "mute-crash"),
    ),
    Recipe(
        name="i8-sub-twice-serial",
        program="two.mlir",
        text=_i8_sub(("first", "4,8"), ("second", "3,5")),
        flags=(*CPU, "--mlir-disable-threading"),
        bugs=_on(("3.8.0", NEW), "i8-sub-null"),
    ),
    Recipe(
        name="zero-rows",
        program="zero-rows.mlir",
        flags=CPU,
        bugs={"2.9.0": "zero-rows-tiling", **_on(OLD[1:], "zero-rows-division")},
    ),
    Recipe(
        name="prelu",
        program="prelu.mlir",
        text=_prelu("main", 2, 16, 64),
        flags=CPU,
        bugs=_on(("2.9.0", "3.10.0", NEW), "prelu-shape"),
    ),
    Recipe(
        name="prelu-shapes",
        program="other.mlir",
        text=_prelu("other", 5, 3, 7),
        flags=CPU,
        bugs=_on(("3.10.0", NEW), "prelu-shape"),
    ),
    Recipe(name="prelu-large", program="wm-prelu.mlir", flags=CPU, bugs={NEW: "prelu-shape"}),
    Recipe(
        name="prelu-reproducer",
        program="prelu.mlir",
        text=_prelu("main", 2, 16, 64),
        flags=(
            *CPU,
            "--mlir-disable-threading",
            "--mlir-pass-pipeline-crash-reproducer=reproducer.mlir",
            "--mlir-pass-pipeline-local-reproducer",
        ),
        bugs=_on(("3.3.0", NEW), "prelu-shape"),
    ),
    Recipe(
        name="f8-half-large",
        program="wm-f8-half.mlir",
        flags=CPU,
        bugs={"3.8.0": "constant-int", "3.10.0": "truncf-illegal", NEW: "extf-illegal"},
    ),
    Recipe(
        name="onnx-operator",
        program="onnx.mlir",
        text=_onnx("NoSuchOperator", "4,8"),
        flags=CPU,
        bugs=_on(("3.3.0", NEW), "onnx-no-such-operator"),
    ),
    Recipe(
        name="onnx-operator-shapes",
        program="onnx.mlir",
        text=_onnx("NoSuchOperator", "16,2,3"),
        flags=CPU,
        bugs={NEW: "onnx-no-such-operator"},
    ),
    Recipe(
        name="onnx-other",
        program="onnx.mlir",
        text=_onnx("AnotherOperator", "4,8"),
        flags=CPU,
        bugs={NEW: "onnx-another-operator"},
    ),
    Recipe(
        name="unregistered",
        program="unregistered.mlir",
        text=(
            b"func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {\n"
            b'  %0 = "nosuch.op"(%x) : (tensor<4xf32>) -> tensor<4xf32>\n'
            b"  return %0 : tensor<4xf32>\n}\n"
        ),
        flags=CPU,
        bugs=_on(("3.3.0", NEW), "unregistered-operation"),
    ),
    Recipe(
        name="deep",
        program="deep.mlir",
        text=b"func.func @main() attributes {a = " + b"[" * 200_000 + b"]" * 200_000 + b"}\n",
        flags=CPU,
        bugs=_on(("3.3.0", NEW), "parser-recursion"),
    ),
)

WRONG_INPUT = (
    Recipe(
        name="empty", program="empty.mlir", text=b"", flags=CPU, bugs=_on(("2.9.0", NEW), "empty")
    ),
    Recipe(
        name="words", program="words.mlir", text=b"hello world\n", flags=CPU, bugs={NEW: "words"}
    ),
    Recipe(
        name="binary",
        program="binary.mlir",
        text=bytes(range(1, 256)),
        flags=CPU,
        bugs={NEW: "binary"},
    ),
    Recipe(
        name="truncated",
        program="truncated.mlir",
        text=_MATMUL_F16[: _MATMUL_F16.index(b"torch.aten") + 50],
        flags=CPU,
        bugs={NEW: "truncated"},
    ),
    Recipe(
        name="undeclared",
        program="undeclared.mlir",
        text=(
            b"func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {\n"
            b"  %0 = arith.addf %x, %missing : tensor<4xf32>\n  return %0 : tensor<4xf32>\n}\n"
        ),
        flags=CPU,
        bugs=_on(("3.3.0", NEW), "undeclared"),
    ),
    Recipe(
        name="missing-file",
        program="matmul.mlir",
        text=_MATMUL_F16,
        prefix=("env", "-C", "/"),
        flags=CPU,
        bugs={NEW: "missing-file"},
    ),
)

WRONG_FLAGS = tuple(
    Recipe(
        name=name,
        program="matmul.mlir",
        text=_MATMUL_F16,
        flags=flags,
        bugs=_on(releases, bug),
    )
    for name, flags, releases, bug in (
        ("flag", (*CPU, "--iree-no-such-flag=3"), ("3.3.0", NEW), "flag-no-such"),
        ("flag-value-differs", (*CPU, "--iree-no-such-flag=x"), (NEW,), "flag-no-such"),
        ("flag-typo", (*CPU, "--iree-opt-levle=O3"), (NEW,), "flag-typo"),
        (
            "flags",
            (*CPU, "--iree-hip-target=gfx942", "--iree-no-such-flag"),
            (NEW,),
            "flag-hip-target",
        ),
        ("flag-value", (*CPU, "--iree-opt-level=O9"), ("3.3.0", NEW), "flag-value"),
        (
            "vulkan-target",
            (*VULKAN, "--iree-vulkan-target=nosuch"),
            ("2.9.0", "3.8.0", NEW),
            "vulkan-target",
        ),
        (
            "rocm-target",
            ("--iree-hal-target-device=hip", "--iree-rocm-target=gfx0"),
            (NEW,),
            "rocm-target",
        ),
        (
            "backend",
            (CPU[0], "--iree-hal-local-target-device-backends=nosuch"),
            ("3.3.0", NEW),
            "backend",
        ),
        ("device", ("--iree-hal-target-device=nosuch",), (NEW,), "device"),
        ("cpu", (*CPU[:2], "--iree-llvmcpu-target-cpu=nosuch"), ("3.3.0",), "cpu-abort"),
        ("cpu", (*CPU[:2], "--iree-llvmcpu-target-cpu=nosuch"), (NEW,), "cpu-exit"),
        (
            "linker",
            (*CPU, "--iree-llvmcpu-embedded-linker-path=/opt/nosuch/lld"),
            ("3.3.0", NEW),
            "linker",
        ),
        ("output", (*CPU, "-o", "/nosuch/module.vmfb"), (NEW,), "output"),
    )
)

LIMITS = (
    Recipe(
        name="time-limit",
        program="softmax.mlir",
        flags=HIP,
        seconds=1.0,
        bugs={NEW: "timeout"},
    ),
    Recipe(
        name="memory-limit",
        program="fp8-attention.mlir",
        flags=VULKAN,
        memory_bytes=40 * 2**20,
        bugs={NEW: "out-of-memory"},
    ),
    Recipe(
        name="address-space",
        program="fp8-attention.mlir",
        flags=VULKAN,
        prefix=("prlimit", "--as=300000000"),
        bugs={NEW: "out-of-memory"},
    ),
)

_MATMUL_F64 = ("--module=module.vmfb", "--device=local-task", "--function=main")
_PARAMETERS = (*_MATMUL_F64, "--input=4x8xf32=1")
RUNS = tuple(
    Recipe(
        name=f"run-{name}",
        tool="iree-run-module",
        program=program,
        flags=CPU,
        arguments=arguments,
        before=before,
        bugs=_on(releases, f"run-{bug}"),
    )
    for name, program, arguments, before, releases, bug in (
        (
            "f64",
            "matmul-f64.mlir",
            (*_MATMUL_F64, "--input=17x33xf64=1", "--input=33x9xf64=2"),
            (),
            (NEW,),
            "f64",
        ),
        (
            "old-module",
            "matmul-f64.mlir",
            _MATMUL_F64,
            (),
            ("3.3.0",),
            "bytecode-version",
        ),
        ("import", "matmul-f64.mlir", _MATMUL_F64, (), ("3.11.0",), "import-signature"),
        (
            "shape",
            "matmul-f64.mlir",
            (*_MATMUL_F64, "--input=17x32xf64=1", "--input=33x9xf64=2"),
            (),
            (NEW,),
            "shape",
        ),
        (
            "shape-other",
            "matmul-f64.mlir",
            (*_MATMUL_F64, "--input=17x33xf64=1", "--input=40x9xf64=2"),
            (),
            (NEW,),
            "shape",
        ),
        (
            "dtype",
            "matmul-f64.mlir",
            (*_MATMUL_F64, "--input=17x33xf32=1", "--input=33x9xf64=2"),
            (),
            (NEW,),
            "dtype",
        ),
        ("count", "matmul-f64.mlir", (*_MATMUL_F64, "--input=17x33xf64=1"), (), (NEW,), "count"),
        (
            "function",
            "matmul-f64.mlir",
            (*_MATMUL_F64[:2], "--function=nosuch"),
            (),
            (NEW,),
            "function",
        ),
        (
            "no-hip",
            "matmul-f64.mlir",
            (_MATMUL_F64[0], "--device=hip", "--function=main"),
            (),
            (NEW,),
            "no-hip",
        ),
        ("no-scope", "parameters.mlir", _PARAMETERS, (), (NEW,), "no-scope"),
        (
            "no-parameter",
            "parameters.mlir",
            (*_PARAMETERS, "--parameters=model=part.irpa"),
            (("iree-create-parameters", "--splat=layer.weight=4x8xf32=1", "--output=part.irpa"),),
            (NEW,),
            "no-parameter",
        ),
        (
            "no-other-parameter",
            "parameters.mlir",
            (*_PARAMETERS, "--parameters=model=part.irpa"),
            (("iree-create-parameters", "--splat=layer.bias=8xf32=1", "--output=part.irpa"),),
            (NEW,),
            "no-parameter",
        ),
        (
            "short-parameter",
            "parameters.mlir",
            (*_PARAMETERS, "--parameters=model=short.irpa"),
            (
                (
                    "iree-create-parameters",
                    "--splat=layer.weight=4x4xf32=1",
                    "--splat=layer.bias=8xf32=1",
                    "--output=short.irpa",
                ),
            ),
            (NEW,),
            "short-parameter",
        ),
    )
)

TRACES = tuple(
    Recipe(
        name=f"trace-{name}",
        tool="python",
        program="model.py",
        text=text,
        bugs={NEW: f"trace-{bug}"},
    )
    for name, text, bug in (
        (
            "f8-constant",
            _model(
                "return torch.nn.functional.linear(x.bfloat16(), self.w.bfloat16()).float()",
                init="self.w = torch.nn.Buffer(torch.randn(32, 64).to(torch.float8_e4m3fn))",
                shape="4, 64",
            ),
            "f8-constant",
        ),
        ("branch", _model("return x + 1 if x.sum() > 0 else x - 1"), "branch"),
        (
            "branch-other",
            _model("return y * 2 if y.sum() > 0 else y", cls="Other", x="y", shape="7, 2, 5"),
            "branch",
        ),
        ("shapes", _model("return x @ torch.ones(5, 6)"), "shapes"),
        ("shapes-other", _model("return y @ torch.ones(8, 2)", x="y", shape="2, 9"), "shapes"),
        ("unbacked", _model("return torch.nonzero(x).tolist()"), "unbacked"),
        (
            "raises",
            _model("return x", build="raise ValueError('width 33 is not a multiple of 4 heads')"),
            "raises",
        ),
        (
            "raises-other",
            _model("return x", build="raise ValueError('width 65 is not a multiple of 8 heads')"),
            "raises",
        ),
        (
            "memory",
            _model("return x", build="torch.nn.Linear(10**7, 10**7)"),
            "memory",
        ),
        ("crash", _model("return x", build="ctypes.string_at(0)"), "crash"),
    )
)

RECIPES = (*COMPILES, *WRONG_INPUT, *WRONG_FLAGS, *LIMITS, *RUNS, *TRACES)
