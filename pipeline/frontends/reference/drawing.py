"""Functions that draw random numbers: which can be inputs, which a training mode causes.

Imports nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: What the reason begins with that an output which depends on random numbers is not compared.
DRAWS = "it draws random numbers: "
#: Functions of PyTorch that return what they draw.
RETURN = (
    *("rand", "randn", "randint", "rand_like", "randn_like", "randint_like", "randperm"),
    *("bernoulli", "multinomial", "normal", "poisson", "binomial"),
)
#: Those that write it into their first argument.
WRITE = (
    *("bernoulli_", "normal_", "uniform_", "exponential_", "random_", "cauchy_", "geometric_"),
    "log_normal_",
)
#: Those that multiply their first argument by it; in a graph, `native_dropout` is one.
MULTIPLY = ("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout")
#: Parts of the names of operations that draw because the model is in training mode.
_TRAINED = ("dropout", "rrelu", "attention", "lstm", "gru", "rnn")


def trained(name: str) -> bool:
    """True if an operation (`aten.dropout`) draws in training mode only, as models call it."""
    return any(part in name for part in _TRAINED)


def can_all_be_inputs(reasons: Iterable[str]) -> bool:
    """True if something draws, by the reasons that outputs are not compared, and each of these
    operations can be an input."""
    drawn = [reason.partition(DRAWS)[2].partition(";")[0] for reason in reasons]
    names = {name for one in drawn for name in re.findall(r"[\w:]+\.(\w+)", one)}
    known = {one.rstrip("_") for one in (*RETURN, *WRITE, *MULTIPLY, "native_dropout")}
    return bool(names) and {name.rstrip("_") for name in names} <= known
