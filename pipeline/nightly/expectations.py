"""Known failures: which cases may fail in which way, why, and until when; a file that people edit.

[[expect]]
case = "llama-fp8:tiny | vulkan | installed"      # a case's name; * stands for anything
signature = "diagnostic/vector.bitcast/failed-to-legalize-operation/1f0c6a52"    # or "flaky"
reason = "SPIR-V has no 8-bit floats"
link = "https://github.com/iree-org/iree/issues/1"      # optional
expires = 2026-12-31                                    # optional: the last day that it holds
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from pipeline import outputs
from pipeline.errors import EnvironmentFault
from pipeline.nightly import strict
from pipeline.nightly.records import Judgement

#: In the place of a signature: the case may come out one way or another.
FLAKY = "flaky"
_FAILED = ("new failure", "same failure", "changed failure")


class Expectation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One known failure. case, signature: `*` stands for anything. expires: the last day of it."""

    case: str
    signature: str
    reason: str
    link: str | None = None
    expires: date | None = None

    def __post_init__(self) -> None:
        for key in ("case", "signature", "reason"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key}: it is empty")

    @property
    def flaky(self) -> bool:
        return self.signature == FLAKY

    @property
    def one_case(self) -> bool:
        """Whether it names one case, so that a pass of it says something of the expectation."""
        return "*" not in self.case

    def is_of(self, case: str) -> bool:
        return _matches(self.case, case)

    def covers(self, signature: str) -> bool:
        return _matches(self.signature, signature)

    def holds(self, today: date) -> bool:
        return self.expires is None or today <= self.expires

    @property
    def told(self) -> str:
        """The reason, with its link."""
        return f"{self.reason} ({self.link})" if self.link else self.reason


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    expect: tuple[Expectation, ...] = ()


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What `accept` wrote, by the names of the cases."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def read(path: Path) -> tuple[Expectation, ...]:
    """The expectations of a file, in its order; none where there is no file.

    Raises UsageError as `strict.read` does.
    """
    return strict.read(path, _File).expect if path.exists() else ()


def stale(expectations: Iterable[Expectation], cases: Iterable[str]) -> tuple[Expectation, ...]:
    """Those that are of none of these cases any more."""
    names = list(cases)
    return tuple(e for e in expectations if not any(e.is_of(name) for name in names))


def accept(
    path: Path,
    judgements: Iterable[Judgement],
    *,
    reason: str,
    link: str | None = None,
    expires: date | None = None,
) -> Accepted:
    """Writes what was found into the file, as expected from now on, and keeps all else in it.

    A failure replaces what was expected of exactly this case, or is added; a case that was fixed is
    taken out, where it is named exactly; one that is flaky is expected to be. Raises UsageError as
    `read` does, and EnvironmentFault where the file cannot be written.
    """
    import tomlkit

    read(path)
    document = tomlkit.parse(path.read_text() if path.exists() else "")
    tables: Any = document.get("expect")
    if tables is None:
        tables = tomlkit.aot()
        document.append("expect", tables)
    places = {table["case"]: table for table in tables}
    added, changed, removed = [], [], []
    for judgement in judgements:
        signature = FLAKY if judgement.verdict == "flaky" else judgement.signature
        table = places.get(judgement.case)
        if judgement.verdict == "fixed":
            if table is not None:
                tables.remove(table)
                removed.append(judgement.case)
        elif judgement.verdict in (*_FAILED, "flaky") and signature:
            if table is None:
                table = tomlkit.table()
                table["case"] = judgement.case
                tables.append(table)
                added.append(judgement.case)
            else:
                changed.append(judgement.case)
            _fill(table, signature, reason, link, expires)
    accepted = Accepted(added=tuple(added), changed=tuple(changed), removed=tuple(removed))
    if accepted:
        _write(path, tomlkit.dumps(document))
    return accepted


def _fill(table: Any, signature: str, reason: str, link: str | None, expires: date | None) -> None:
    table["signature"] = signature
    table["reason"] = reason
    for key, value in (("link", link), ("expires", expires)):
        if value is not None:
            table[key] = value
        elif key in table:
            del table[key]


def _matches(pattern: str, text: str) -> bool:
    """Whether `text` is `pattern`, in which only `*` is special (names may hold brackets)."""
    if "*" not in pattern:
        return pattern == text
    return fnmatch.fnmatchcase(text, re.sub(r"([\[?])", r"[\1]", pattern))


def _write(path: Path, text: str) -> None:
    """Replaces the file as a whole; whoever reads it meanwhile sees the one or the other."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        outputs.put(path, text)
    except OSError as fault:
        raise EnvironmentFault(
            f"cannot write the expectations {path}: {fault.strerror}",
            advice="Make sure that you may write there and that there is room; nothing changed.",
        ) from fault
