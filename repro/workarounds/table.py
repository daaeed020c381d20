"""Table of candidates that may avoid a failure, each with its reason: flags and rewrites.

Data: what is tried of it depends on the toolchain's help, the backend and the failure. The docs'
table is made of it.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from iree_pilot.pipeline.targets.backend import FlagWorkaround
from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.repro.workarounds.candidate import Candidate, Group, Price


def _flag(
    flag: str,
    reason: str,
    group: Group,
    price: Price = "free",
    backends: tuple[str, ...] = (),
    **more: Any,
) -> Candidate:
    """more: further fields of the candidate."""
    return Candidate(
        name=flag,
        reason=reason,
        group=group,
        price=price,
        flags=(f"--{flag}",),
        backends=backends,
        **more,
    )


def _levels(flag: str, of: str, backends: tuple[str, ...] = ()) -> list[Candidate]:
    reasons: dict[str, tuple[str, Price]] = {
        "O1": (f"few transformations in {of}", "free"),
        "O2": (f"more fusion and generalisation in {of}", "free"),
        "O3": (f"all transformations of {of}, including risky ones", "free"),
        "O0": (f"the fewest transformations in {of}: avoids a faulty one, but slow", "slower"),
    }
    return [
        _flag(f"{flag}={level}", reason, "optimization", price, backends)
        for level, (reason, price) in reasons.items()
    ]


def _codegen() -> list[Candidate]:
    """The flags of the targets' own code generators; of one that targets share, once."""
    owners: dict[FlagWorkaround, tuple[str, ...]] = {}
    for backend in BACKENDS.values():
        for one in backend.workarounds:
            owners[one] = (*owners.get(one, ()), backend.name)
    return [
        _flag(one.flag, one.reason, "codegen", one.price, names, helps=one.helps)
        for one, names in owners.items()
    ]


_ATTENTION = r"attention|online_|softmax|mismatch/nan"
_FP8 = r"f8E|F8E|fp8|FP8|vector\.bitcast|extf|truncf|float"
_HALF = r"f16|vector\.bitcast|extf|truncf|half"
_INTEGERS = r"\bi8\b|integers|MulIOp|SubIOp|\bui8\b|si8"
_TYPES = r"bitcast|extf|truncf|trunci|extsi|legalize|byte-length"
_LARGE = r"timeout|out-of-memory|shared memory|stack|workgroup|allocation"

TABLE: tuple[Candidate, ...] = (
    # Rewrites of the program.
    Candidate(
        name="attention as matmuls and softmax",
        reason="scaled_dot_product_attention becomes an operation of the compiler's own, which "
        "not every backend lowers; written out, every backend does",
        group="rewrite",
        price="slower",
        edit="attention",
        early=True,
        helps=_ATTENTION,
    ),
    Candidate(
        name="prelu as where",
        reason="prelu with a weight for each channel is broadcast along the wrong dimension; "
        "where(x > 0, x, x * weight) is not",
        group="rewrite",
        edit="prelu",
        early=True,
        helps=r"prelu|inferred-input-output-operand|linalg\.generic",
    ),
    Candidate(
        name="fnuz in place of fn",
        reason="gfx94x has e4m3fnuz and e5m2fnuz only: a code has half the value there, so "
        "values are halved before the cast and doubled after it; weights are converted",
        group="rewrite",
        edit="fnuz",
        early=True,
        helps=r"F8E4M3FN|F8E5M2|f8E4M3FN|f8E5M2",
    ),
    Candidate(
        name="matmuls in f32",
        reason="matmuls, convolutions and linears of f16 and bf16 are computed in f32 (FP8 is "
        "dequantised to f32): twice the memory traffic, and more precise",
        group="rewrite",
        price="slower",
        edit="matmul-in-f32",
        early=True,
        helps=_FP8 + "|" + _HALF,
    ),
    Candidate(
        name="f16 in f32",
        reason="everything that is f16 or bf16 inside is computed in f32; inputs and outputs stay",
        group="rewrite",
        price="slower",
        edit="f16-in-f32",
        early=True,
        helps=_FP8 + "|" + _HALF,
    ),
    Candidate(
        name="FP8 subnormals rounded before the cast",
        reason="casts to FP8 flush what rounds up to the smallest normal number to 0; rounded to "
        "FP8's subnormal numbers before the cast, it is kept",
        group="rewrite",
        price="slower",
        edit="fp8-subnormals",
        early=True,
        helps=r"mismatch/values",
    ),
    Candidate(
        name="8 and 16 bit integers in i32",
        reason="arithmetic, comparisons and sorts of narrow integers are mislowered (unsigned as "
        "signed, scalars without a type); in i32 they are not",
        group="rewrite",
        price="slower",
        edit="narrow-in-i32",
        early=True,
        helps=_INTEGERS,
    ),
    # Types.
    _flag(
        "iree-input-demote-f64-to-f32=false",
        "keeps f64 as it is: by default it becomes f32, also where the program returns f64",
        "types",
        early=True,
        helps=r"f64|buffer-view|OUT_OF_RANGE",
    ),
    _flag(
        "iree-input-demote-f64-to-f32=true",
        "computes f64 in f32, which all devices have; f64 inputs and outputs become f32",
        "types",
        "signature",
        early=True,
        helps=r"f64",
    ),
    _flag(
        "iree-input-promote-f16-to-f32",
        "computes f16 in f32 (FP8 is then dequantised to f32); f16 inputs and outputs become f32",
        "types",
        "slower",
        early=True,
        helps=_HALF + "|" + _FP8,
    ),
    _flag(
        "iree-input-promote-bf16-to-f32",
        "computes bf16 in f32; bf16 inputs and outputs become f32",
        "types",
        "slower",
        early=True,
        helps=r"bf16|" + _TYPES,
    ),
    _flag(
        "iree-input-demote-i64-to-i32",
        "computes i64 in i32, for devices without i64; i64 inputs and outputs become i32",
        "types",
        "signature",
        early=True,
        helps=r"i64|integers|Int64",
    ),
    _flag(
        "iree-input-demote-f32-to-f16",
        "computes f32 in f16: half the memory, and far less precise",
        "types",
        "signature",
        early=True,
    ),
    _flag(
        "iree-opt-numeric-precision-reduction",
        "lets the compiler choose narrower types where it proves that they hold the values",
        "types",
        "precision",
    ),
    # How much is transformed.
    *_levels("iree-opt-level", "the whole compiler"),
    *_levels("iree-global-optimization-opt-level", "global optimisation"),
    *_levels("iree-dispatch-creation-opt-level", "dispatch creation"),
    *chain.from_iterable(
        _levels(one.level_flag, "code generation", (one.name,))
        for one in BACKENDS.values()
        if one.level_flag
    ),
    _flag(
        "iree-opt-const-eval=false",
        "constants are computed at run time: the compiler does not compile and run them itself",
        "optimization",
        "slower",
        helps=r"consteval|JitGlobals|const",
    ),
    _flag(
        "iree-opt-const-expr-hoisting=false",
        "constant expressions stay where they are used",
        "optimization",
        "slower",
        helps=r"const|hoist|Hoist",
    ),
    _flag(
        "iree-opt-generalize-matmul=false",
        "keeps matmuls as named operations, which have lowerings of their own",
        "optimization",
        helps=r"matmul|contract|generic",
    ),
    _flag(
        "iree-opt-generalize-matmul=true",
        "matmuls become generic operations, with other fusions and lowerings",
        "optimization",
        helps=r"matmul|contract|generic",
    ),
    _flag(
        "iree-opt-aggressively-propagate-transposes=false",
        "keeps transposes where they are",
        "optimization",
        helps=r"transpose",
    ),
    _flag(
        "iree-opt-aggressively-propagate-transposes=true",
        "moves transposes into named operations, which changes their layouts",
        "optimization",
        helps=r"transpose",
    ),
    _flag(
        "iree-global-opt-propagate-transposes=false",
        "keeps transposes where they are",
        "optimization",
        helps=r"transpose|pack|permut",
    ),
    _flag(
        "iree-global-opt-enable-attention-v-transpose=false",
        "attention's values are not transposed, which some lowerings need",
        "optimization",
        helps=_ATTENTION,
    ),
    _flag(
        "iree-opt-outer-dim-concat=false",
        "concatenations stay along their dimension",
        "optimization",
        helps=r"concat|insert_slice",
    ),
    _flag(
        "iree-global-opt-use-im2col-for-convs",
        "convolutions become matmuls, which more backends lower well; takes more memory",
        "optimization",
        "slower",
        helps=r"conv",
    ),
    _flag(
        "iree-torch-decompose-complex-ops=false",
        "torch operations are not decomposed: they are lowered whole, where that exists",
        "optimization",
        early=True,
        helps=r"torch\.|MulIOp|linalg\.generic|input",
    ),
    _flag(
        "iree-torch-use-strict-symbolic-shapes=false",
        "dimensions of size 1 may be broadcast at run time",
        "optimization",
        early=True,
        helps=r"broadcast|shape|dimension",
    ),
    # Data tiling.
    _flag(
        "iree-opt-data-tiling=false",
        "matrices are not packed into tiles: another lowering of matmul, slower on the CPU",
        "optimization",
        "slower",
        helps=r"mmt4d|pack|encoding|inner_tiled|matmul",
    ),
    _flag(
        "iree-opt-data-tiling=true",
        "matrices are packed into tiles: another lowering of matmul",
        "optimization",
        helps=r"matmul|contract|vector",
    ),
    _flag(
        "iree-global-opt-data-tiling=false",
        "no packing in global optimisation: packing is left to dispatch creation",
        "optimization",
        "slower",
        helps=r"mmt4d|pack|encoding",
    ),
    _flag(
        "iree-dispatch-creation-data-tiling",
        "packing inside dispatches instead of before them",
        "optimization",
        helps=r"mmt4d|pack|encoding|matmul",
    ),
    _flag(
        "iree-dispatch-creation-experimental-data-tiling",
        "packing inside dispatches instead of before them (the flag's name in older releases)",
        "optimization",
        helps=r"mmt4d|pack|encoding|matmul",
    ),
    # Fusion.
    _flag(
        "iree-dispatch-creation-enable-aggressive-fusion=false",
        "smaller dispatches: operations may lower apart that fail together; more memory traffic",
        "fusion",
        "slower",
        helps=r"mismatch|vector|linalg",
    ),
    _flag(
        "iree-dispatch-creation-enable-aggressive-fusion=true",
        "larger dispatches, without the intermediate results that fail to be stored",
        "fusion",
        helps=r"mismatch|bitcast|vector|linalg",
    ),
    _flag(
        "iree-dispatch-creation-fuse-multi-use=false",
        "a result that is used twice gets a dispatch of its own",
        "fusion",
        "slower",
        helps=r"mismatch|vector|linalg",
    ),
    _flag(
        "iree-dispatch-creation-element-wise-fuse-multi-reduction=false",
        "reductions are not fused with one another",
        "fusion",
        "slower",
        helps=r"reduc|softmax|norm|mismatch",
    ),
    _flag(
        "iree-dispatch-creation-block-matmul-producer-fusion",
        "producers of a matmul, such as a dequantisation, get a dispatch of their own",
        "fusion",
        "slower",
        helps=r"matmul|contract|extf|bitcast",
    ),
    _flag(
        "iree-dispatch-creation-enable-early-trunc-fusion",
        "casts to narrow types are fused early",
        "fusion",
        helps=r"trunc|bitcast|F8E",
    ),
    _flag(
        "iree-dispatch-creation-enable-fuse-horizontal-contractions=false",
        "matmuls that share an operand are not made one",
        "fusion",
        helps=r"matmul|contract",
    ),
    _flag(
        "iree-dispatch-creation-enable-aggressive-reshape-movement=false",
        "reshapes are not moved across reductions",
        "fusion",
        helps=r"reshape|expand|collapse",
    ),
    _flag(
        "iree-dispatch-creation-enable-fuse-padding-into-linalg-consumer-ops",
        "padding is fused into its consumer",
        "fusion",
        helps=r"\bpad",
    ),
    _flag(
        "iree-flow-enable-pad-handling",
        "padding is a dispatch of its own",
        "fusion",
        "slower",
        helps=r"\bpad",
    ),
    _flag(
        "iree-dispatch-creation-enable-split-reduction",
        "long reductions are split into shorter ones, which fit and take less time to compile",
        "fusion",
        helps=_LARGE + "|reduc|softmax",
    ),
    _flag(
        "iree-dispatch-creation-topk-split-reduction=16",
        "top-k over a long dimension is split",
        "fusion",
        helps=r"topk|sort",
    ),
    # Code generation.
    *_codegen(),
    # The host's side.
    _flag(
        "iree-flow-zero-fill-empty-tensors",
        "uninitialised memory is filled with zeros",
        "host",
        "slower",
        helps=r"mismatch|nan",
    ),
    _flag(
        "iree-stream-emulate-memset",
        "fills become dispatches: for patterns that a driver cannot fill",
        "host",
        "slower",
        helps=r"fill|memset|pattern",
    ),
    _flag(
        "iree-scheduling-optimize-bindings=false",
        "buffers are not merged",
        "host",
        "slower",
        helps=r"binding|descriptor|runtime-error",
    ),
    _flag(
        "iree-stream-resource-min-offset-alignment=256",
        "buffers begin at multiples of 256 bytes, as some devices need",
        "host",
        "free",
        helps=r"align|runtime-error|mismatch",
    ),
    _flag(
        "iree-hal-indirect-command-buffers=false",
        "commands are recorded for each call",
        "host",
        "slower",
        helps=r"command.buffer|indirect|runtime-error",
    ),
    _flag(
        "iree-hal-memoization=false",
        "commands are recorded for each call",
        "host",
        "slower",
        helps=r"command.buffer|runtime-error",
    ),
    _flag(
        "iree-opt-strip-assertions",
        "shape checks are removed: shape errors are no longer detected",
        "host",
        "precision",
        helps=r"assert|runtime-error",
    ),
)
