"""Request of the tracing child, and its response if it cannot trace."""

from __future__ import annotations

import re

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.program.program import Reference, Tensor

DEPENDENCIES = "dependencies.json"
GENERATED = "generated.json"


#: Names all operations.
ALL = "all"
_OPERATION = re.compile(r"[a-z]\w*(\.\w+){1,2}")


def operation(name: str) -> str:
    """The name of an operation as programs record it, or `all`; raises ValueError for another text.

    `torch.aten.diff` and `aten::diff` are `aten.diff`.
    """
    found = name.removeprefix("torch.").replace("::", ".")
    if found != ALL and not _OPERATION.fullmatch(found):
        raise ValueError(f"{name!r} is no operation, such as aten.diff")
    return found


class Chained(msgspec.Struct, frozen=True, kw_only=True):
    """Generate `steps` tokens from the examples of the program in `directory`, which is traced.

    chain: `module:function`, see `models.chains`.
    """

    chain: str
    steps: int
    directory: str


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that PyTorch generates: those of each step, [step][sequence], and its last logits."""

    tokens: tuple[tuple[int, ...], ...]
    reference: Reference


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Make a program of `source` in the directory the job lies in.

    inputs: replace the source's own example inputs (files are absolute). weights: archives, or
    directories of safetensors, whose tensors replace the source's own (absolute). scoped: the same
    for one scope of the program's parameters, as (scope, path). inline: keep
    the parameters in the MLIR as constants instead of in an archive. seed: for random weights and
    inputs. evaluate: MLIR, too, to have something to compare with; whatever else is traced always
    has. function: of MLIR, the only one that is wanted. leave: operations that PyTorch does not
    decompose though IREE cannot compile them (`aten.diff`, `all`), see `gaps`. seeded: random
    numbers that it draws are inputs. observed: of a .pt2, the file that `pytorch.observed` wrote of
    the module that it was exported from. chained: make what PyTorch generates with the program
    instead.
    """

    source: Source
    seed: int = 0
    inputs: tuple[Tensor, ...] | None = None
    weights: tuple[str, ...] = ()
    scoped: tuple[tuple[str, str], ...] = ()
    inline: bool = False
    evaluate: bool = True
    function: str = ""
    leave: tuple[str, ...] = ()
    seeded: bool = False
    observed: str = ""
    chained: Chained | None = None


#: Step before tracing, and the start of the message that PyTorch cannot run the model.
MAKING = "making the model"
CANNOT_RUN = "PyTorch itself cannot run the model with these inputs"
#: Start of the message where the tracing process ended without raising anything: os._exit.
ENDED = "the tracing process ended itself"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Reason that there is no program.

    exit_code: 2 if the source does not fit (a file without `model()`), 3 if an installed package
    does not; 0 for an exception of tracing: exception is its type's name, frames its traceback as
    (file, line, function), innermost last. running: PyTorch's error if the model is run without
    being traced; "" if it runs, or was not run.
    """

    message: str
    advice: str = ""
    exit_code: int = 0
    exception: str = ""
    doing: str = ""
    running: str = ""
    frames: tuple[tuple[str, int, str], ...] = ()


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """Reply of the tracing child; without a refusal, it has written the requested files."""

    refusal: Refusal | None = None


class TraceFailed(Exception):
    """There is no program because of the source: `failure` says why."""

    def __init__(self, failure: Failure, seconds: float) -> None:
        super().__init__(failure, seconds)
        self.failure = failure
        self.seconds = seconds

    def __str__(self) -> str:
        return self.failure.message
