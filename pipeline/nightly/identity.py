"""Identity of failures across nights: the signature, and if that is not specific the program,
or the source of what does not trace."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from iree_pilot.pipeline.failures.signatures import is_specific

_DIGITS = 16


def model(program: str, files: Mapping[str, str]) -> str:
    """Fingerprint of a model's state: of its program, whatever compiler it is
    for; of its files where it does not trace; empty where neither is known.

    program, files: as in `records.Outcome`.
    """
    if program or not files:
        return program[:_DIGITS]
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:_DIGITS]


def of(signature: str, state: str, source: str) -> str:
    """Key of a failure across cases and nights; empty without a signature.

    state: of the `model` that shows it; where that is not known, its source tells it from others.
    """
    if not signature or is_specific(signature):
        return signature
    return f"{signature} {state or source}"
