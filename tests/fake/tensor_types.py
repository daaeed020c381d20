"""Types of tensors as MLIR spells them, and what they say."""

from __future__ import annotations

from hypothesis import strategies as st

from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Dim, TensorType

SIZES = st.none() | st.integers(0, 2**40)
#: Element types that builtin tensors have, and torch's: those spell integers with a sign.
BUILTIN = sorted(n for n in ELEMENT_TYPES if not n.startswith("ui"))
TORCH = {
    "f64": "f64",
    "f32": "f32",
    "f16": "f16",
    "bf16": "bf16",
    "f8E4M3FN": "f8E4M3FN",
    "f8E5M2FNUZ": "f8E5M2FNUZ",
    "si64": "i64",
    "si8": "i8",
    "ui8": "ui8",
    "i1": "i1",
    "complex<f32>": "complex<f32>",
}


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, str, list[int | None]]:
    """(MLIR text, element type, sizes with None for dynamic ones)."""
    sizes = draw(st.lists(SIZES, max_size=5))
    dims = ["?" if size is None else str(size) for size in sizes]
    if draw(st.booleans()):
        element = draw(st.sampled_from(BUILTIN))
        encoding = draw(st.sampled_from(["", ", #some.encoding<a, b>", ", 3 : i32"]))
        return f"tensor<{''.join(d + 'x' for d in dims)}{element}{encoding}>", element, sizes
    spelled = draw(st.sampled_from(sorted(TORCH)))
    return f"!torch.vtensor<[{','.join(dims)}],{spelled}>", TORCH[spelled], sizes


def expected(name: str, element: str, sizes: list[int | None]) -> TensorType:
    """What is to be read of such a text."""
    shape = tuple(
        Dim(symbol=f"{name}_d{axis}") if size is None else size for axis, size in enumerate(sizes)
    )
    return TensorType(name=name, dtype=element, shape=shape)
