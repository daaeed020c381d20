"""Known failures: which cases may fail in which way, why, and until when; a file that people edit.

[[expect]]
case = "llama-fp8:tiny | vulkan | installed"      # a case's name; * stands for anything
signature = "diagnostic/vector.bitcast/failed-to-legalize-operation/1f0c6a52"    # or "flaky"
reason = "SPIR-V has no 8-bit floats"
link = "https://github.com/iree-org/iree/issues/1"      # optional
expires = 2026-12-31                                    # optional: the last day that it holds
model = "5f3a09c1b2d4e687"      # by `accept`: the program of which it was accepted; optional
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from iree_pilot.pipeline import toml_tables
from iree_pilot.pipeline.case_result import tells
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.nightly.cases import config, matrix
from iree_pilot.pipeline.nightly.cases.config import Nightly
from iree_pilot.pipeline.nightly.records import Case, Judgement
from iree_pilot.pipeline.store import outputs

#: Stands in place of a signature for a case with varying outcomes.
FLAKY = "flaky"
_FAILED = ("new failure", "same failure", "changed failure")
_ENDED = ("ok", "ran", "compiled")
#: Step in which a failure shows, by the kind in its signature.
_STEPS = {"runtime-error": "run", "mismatch": "compare"}


class Expectation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One known failure. case, signature: `*` stands for anything. expires: the last day of it.

    model: of what state of the model it was accepted (`identity.model`); empty: of any.
    """

    case: str
    signature: str
    reason: str
    link: str | None = None
    expires: date | None = None
    model: str = ""

    def __post_init__(self) -> None:
        for key in ("case", "signature", "reason"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key}: it is empty")

    @property
    def flaky(self) -> bool:
        return self.signature == FLAKY

    def is_of(self, case: str) -> bool:
        return _matches(self.case, case)

    def covers(self, signature: str) -> bool:
        return _matches(self.signature, signature)

    def is_outlived(self, case: str, status: str) -> bool:
        """True if it names exactly this case, which came to `status` and did not fail as expected,
        on a night that tells of such a failure. One that is flaky may pass."""
        step = _STEPS.get(self.signature.partition("/")[0])
        named = self.case == case and not self.flaky  # a pattern has other cases that may fail
        return named and status in _ENDED and tells(status, step)

    def holds(self, today: date) -> bool:
        return self.expires is None or today <= self.expires

    @property
    def reason_and_link(self) -> str:
        """The reason, with its link."""
        return f"{self.reason} ({self.link})" if self.link else self.reason


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    expect: tuple[Expectation, ...] = ()


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """Changes made by `accept`, by the names of the cases."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def read(path: Path) -> tuple[Expectation, ...]:
    """The expectations of a file, in its order; none where there is no file.

    Raises UsageError as `toml_tables.read` does.
    """
    return toml_tables.read(path, _File).expect if path.exists() else ()


def stale(expectations: Iterable[Expectation], cases: Iterable[str]) -> tuple[Expectation, ...]:
    """Expectations that match none of these cases any more."""
    names = list(cases)
    return tuple(e for e in expectations if not any(e.is_of(name) for name in names))


def unused(
    expected: Sequence[Expectation], nightly: Nightly, cases: Iterable[Case]
) -> tuple[Expectation, ...]:
    """Expectations that match no case of a configuration, nor of another one beside it, which
    shares the file; none while one of these cannot be read.

    cases: of tonight, which may be a part of the matrix, or have another release.
    """
    left = stale(expected, [case.name for case in cases])
    beside = sorted(nightly.directory.glob("*.toml")) if left else []
    for path in [nightly.path, *(path for path in beside if path != nightly.path)]:
        if not left:
            break
        try:
            if "matrix" not in tomllib.loads(path.read_text(encoding="utf-8")):
                continue
            # Which releases can be installed is not asked: nothing of these is run.
            other = matrix.expand(config.read(path), available=list)
        except (OSError, ValueError, UsageError):
            return ()
        left = stale(left, [case.name for case in other])
    return left


def acceptable(judgements: Iterable[Judgement], expected: Iterable[Expectation]) -> bool:
    """True if `accept` would write something for one of these, where this is expected by now."""
    cases = {e.case for e in expected}
    return any(
        j.case in cases if j.verdict == "fixed" else j.verdict in (*_FAILED, "flaky")
        for j in judgements
    )


def is_added(judgement: Judgement) -> bool:
    """True if `accept` writes that this is expected, with a reason; what is gone needs none."""
    return judgement.verdict == "flaky" or (
        judgement.verdict in _FAILED and bool(judgement.signature)
    )


class Explanation(NamedTuple):
    """Reason that a failure is expected, the link that tracks it, and the last day of that."""

    reason: str
    link: str | None = None
    expires: date | None = None


def accept(
    path: Path,
    judgements: Iterable[Judgement],
    explanation: Explanation,
    *,
    models: Mapping[str, str] | None = None,
    statuses: Mapping[str, str] | None = None,
) -> Accepted:
    """Writes what was found into the file, as expected from now on, and keeps all else in it.

    A failure replaces what was expected of exactly this case, or is added; a case that was fixed,
    tonight or before (`is_outlived`), is taken out, where it is named exactly; one that is flaky is
    expected to be. Of a failure that is expected already, the state of the model is brought up to
    date. models: `identity.model` by case; statuses: of the outcomes. Raises UsageError as `read`
    does, and EnvironmentFault where the file cannot be written.
    """
    before = read(path)
    expected = _Edited(path)
    added, changed, removed = list[str](), list[str](), list[str]()
    for judgement in judgements:
        case, verdict = judgement.case, judgement.verdict
        signature = FLAKY if verdict == "flaky" else judgement.signature
        known, model = expected.of(case), (models or {}).get(case) or None
        status = "" if verdict == "flaky" else (statuses or {}).get(case, "")
        if verdict == "fixed" or any(e.is_outlived(case, status) for e in before):
            if known is not None:
                expected.remove(case)
                removed.append(case)
        elif is_added(judgement):
            values = {"signature": signature, **explanation._asdict(), "model": model}
            if known is not None and all(known.get(key) == value for key, value in values.items()):
                continue
            (added if known is None else changed).append(case)
            expected.set(case, values)
        elif verdict == "fail" and known and model and known.get("model", model) != model:
            changed.append(case)
            expected.set(case, {"model": model})
    accepted = Accepted(added=tuple(added), changed=tuple(changed), removed=tuple(removed))
    if accepted:
        _write(path, expected.text())
    return accepted


class _Edited:
    """The file while it is edited: what people wrote and do not want changed stays as it is."""

    def __init__(self, path: Path) -> None:
        import tomlkit

        self._path = path
        # With the ends of lines that the file has, which `read_text` would make "\n".
        text = path.read_bytes().decode() if path.exists() else ""
        self._end = "\r\n" if "\r\n" in text else "\n"
        if text and not text.endswith("\n"):
            text += self._end
        self._document = tomlkit.parse(text)

    @property
    def _tables(self) -> Any:
        """The list of them: of [[expect]] tables, or of tables in one line each."""
        return self._document.get("expect", [])

    def of(self, case: str) -> Any:
        """The table of exactly this case, or None."""
        return next((table for table in self._tables if table["case"] == case), None)

    def set(self, case: str, values: Mapping[str, object]) -> None:
        """Sets these keys of a case, in a new table where it has none; None takes a key out."""
        import tomlkit
        from tomlkit.items import Array

        table = self.of(case)
        if table is None:
            if not self._tables:
                self._document.pop("expect", None)
                self._document.append("expect", tomlkit.aot())
            one_line = isinstance(self._tables, Array)
            table = tomlkit.inline_table() if one_line else tomlkit.table()
            table["case"] = case
            if self._tables and not one_line:
                table.trivia.indent = "\n"  # so that a comment at the end is not about it
            self._tables.append(table)
            table = self.of(case)
        for key, value in values.items():
            if value is None:
                table.pop(key, None)
            elif key in table:
                table[key] = value
            else:
                _add(table, key, value)

    def remove(self, case: str) -> None:
        """Takes out the table of a case, and the list with its last one."""
        import tomlkit
        from tomlkit.items import AoT

        tables, table = self._tables, self.of(case)
        place = next(n for n, other in enumerate(tables) if other is table)
        del tables[place]
        left = _around(table) if isinstance(tables, AoT) else ""
        if not tables:
            del self._document["expect"]
        if place < len(tables):
            trivia = tables[place].trivia
            trivia.indent = left + trivia.indent
        else:
            for _, item in tomlkit.parse(left).body:
                self._document.add(item)

    def text(self) -> str:
        """All of it, as it is written."""
        import tomlkit

        text = tomlkit.dumps(self._document)
        if self._end == "\r\n":  # what was added has "\n"
            text = re.sub(r"(?<!\r)\n", self._end, text)
        meant = msgspec.convert(self._document.unwrap(), _File)
        written = toml_tables.parse(self._path, text, _File)
        if written != meant:
            raise RuntimeError(f"the edited {self._path} does not say what was meant:\n{text}")
        return text


def _add(table: Any, key: str, value: object) -> None:
    """Adds a key after the last one of a table: what comes after that stays before the next."""
    from tomlkit.items import InlineTable

    if isinstance(table, InlineTable):
        table[key] = value
        return
    body, after = table.value.body, _after(table)
    del body[len(body) - len(after) :]
    table[key] = value
    body.extend(after)


def _around(table: Any) -> str:
    """The comments and empty lines before a table and after its last key, which for TOML are its
    own though they are about the next one."""
    return "".join([table.trivia.indent, *(item.as_string() for _, item in _after(table))])


def _after(table: Any) -> list[Any]:
    """Items of a table after its last key: comments and empty lines."""
    body = table.value.body
    last = max(number for number, (key, _) in enumerate(body) if key is not None)
    return list(body[last + 1 :])


def _matches(pattern: str, text: str) -> bool:
    """True if `text` matches `pattern`, in which only `*` is special (names may hold brackets)."""
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
