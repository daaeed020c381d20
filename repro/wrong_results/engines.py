"""Who computes what is right of a program: the search and its oracle do not know which it is.

Each is a function for `task.call`, from `list[Work]` to the `Stage`s of
`pipeline.torch_dialect.evaluate`.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from iree_pilot.pipeline.evaluate import evaluation
from iree_pilot.pipeline.torch_dialect import evaluate as torch_dialect

_TORCH = re.compile(rb"\baten\.[a-z_]|\bprims\.[a-z]")
#: Of dialects that PyTorch does not know, functions may hold operations beside torch's.
_OTHERS = re.compile(
    rb"\bonnx\.[A-Z]|\b(?:linalg|tensor|stablehlo|tosa|iree_linalg_ext|tm_tensor)\.(?!py\b)"
)


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """One of them: its name for the user, and the function."""

    name: str
    function: str


TORCH = Engine(name="PyTorch", function=torch_dialect.TORCH)
NUMPY = Engine(name="numpy", function=evaluation.NUMPY)


def of(program: Path) -> Engine:
    """The one that knows the operations of a program, text or bytecode."""
    content = program.read_bytes()
    return TORCH if _TORCH.search(content) and not _OTHERS.search(content) else NUMPY
