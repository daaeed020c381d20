"""Versions that a night runs with, and the digest that identifies a stopped night."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("iree-pilot", "iree-base-compiler", "iree-turbine", "torch", "transformers")


def revision() -> dict[str, str]:
    """The versions of the packages whose change may change what a night finds."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def digest(config: str, cases: Iterable[str], versions: Mapping[str, str]) -> str:
    """Digest of a night, to resume it: the same matrix, the same part of it, versions."""
    text = "\0".join([config, *sorted(cases), *(f"{k} {v}" for k, v in sorted(versions.items()))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
