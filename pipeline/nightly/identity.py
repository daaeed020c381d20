"""What makes two failures of the nights one: the signature, and where that says little the program.

Wrong numbers, a limit that was met and a crash without a stack have one signature whatever their
cause is; a diagnostic may not name the operation that fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pipeline.signatures import names_operation

#: Kinds whose signatures hold no more than what came of the program.
_CLASSES = ("mismatch", "timeout", "out-of-memory")
_DIGITS = 16


def is_specific(signature: str) -> bool:
    """Whether a signature alone tells a failure from others."""
    kind, *words = signature.split("/")
    if kind == "diagnostic":
        return names_operation(signature)
    crashed = kind == "crash" or any(word.startswith("SIG") for word in words[:1])
    return kind not in _CLASSES and not (crashed and len(words) < 3)


def model(program: str, files: Mapping[str, str]) -> str:
    """What tells the state of a model from another one: of its program, whatever compiler it is
    for; of its files where it does not trace; empty where neither is known.

    program, files: as in `records.Outcome`.
    """
    if program or not files:
        return program[:_DIGITS]
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:_DIGITS]


def of(signature: str, state: str) -> str:
    """What is equal for one failure in several cases and nights; empty without a signature.

    state: of the `model` that shows it.
    """
    return signature if is_specific(signature) else f"{signature} {state}".rstrip()
