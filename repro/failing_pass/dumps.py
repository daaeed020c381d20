"""The IR that the compiler prints before and after passes (`--mlir-print-ir-*`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest

import msgspec

_HEADER = re.compile(
    r"^// -----// IR Dump (?P<when>Before|After) (?P<class>[\w:]+)(?P<failed> Failed)?"
    r"(?:: (?P<new>\S.*?)| \((?P<old>\S.*?)\))?"
    r"(?: \('(?P<op>[\w.]+)' operation(?:: (?P<symbol>@.*?))?\))? //----- //$",
    re.MULTILINE,
)
#: The end of the outermost operation, in the custom and in the generic form.
_END = re.compile(r"^\}(?:\).*)?$", re.MULTILINE)
#: The name of the outermost operation, in the custom and in the generic form.
_SYMBOL = re.compile(r'^[^\n]*?(?:@|\bsym_name = ")([\w.$-]+)')
_RESOURCES = re.compile(r"\s*^\{-#$.*?^#-\}$", re.MULTILINE | re.DOTALL)


class Dump(msgspec.Struct, frozen=True, kw_only=True):
    """IR as it was printed around one pass.

    pass_class: `ConvertToSPIRVPass`. spelled: the pass as pipelines have it, with its options:
    `iree-convert-to-spirv{index-bits=32}`; empty where it has no name there. operation: that the
    pass runs on (`func.func`), known with whole modules only. symbol: its name. text: the IR.
    """

    before: bool
    failed: bool
    pass_class: str
    spelled: str
    operation: str
    symbol: str
    text: str

    @property
    def name(self) -> str:
        """The pass as pipelines name it, else its class."""
        return self.spelled.partition("{")[0] or self.pass_class


def read(text: str) -> Iterator[Dump]:
    """The dumps in what the compiler wrote to stderr, in their order."""
    headers = [*_HEADER.finditer(text)]
    for header, after in zip_longest(headers, headers[1:]):
        end = after.start() if after else len(text)
        yield _dump(header, text[header.end() : end])


def last(text: str) -> Dump | None:
    """The last dump before a pass: that of the pass which was running when the compiler ended."""
    position = len(text)
    while (position := text.rfind("// -----// IR Dump Before ", 0, position)) >= 0:
        if header := _HEADER.match(text, position):
            return _dump(header, text[header.end() :])
    return None


def failing(text: str) -> Dump | None:
    """The IR after the pass that failed, the first of several: a pass that runs a pipeline of its
    own fails after the pass in that."""
    return next((dump for dump in read(text) if dump.failed), None)


def before(text: str, failed: Dump) -> Dump | None:
    """The last IR that was printed before the same pass on the same operation."""
    what = (failed.pass_class, failed.operation, failed.symbol)
    printed = [dump for dump in read(text) if dump.before]
    same = (d for d in reversed(printed) if (d.pass_class, d.operation, d.symbol) == what)
    return next(same, None)


def _dump(header: re.Match[str], rest: str) -> Dump:
    text = _operation(rest)
    named = _SYMBOL.match(text)
    return Dump(
        before=header["when"] == "Before",
        failed=bool(header["failed"]),
        pass_class=header["class"].rpartition("::")[2],
        spelled=header["new"] or header["old"] or "",
        operation=header["op"] or "",
        symbol=header["symbol"] or (f"@{named[1]}" if named else ""),
        text=text,
    )


def _operation(rest: str) -> str:
    """The IR at the beginning of a text, without what the compiler printed after it."""
    end = _END.search(rest)
    if end is None:
        return rest.strip("\n")
    resources = _RESOURCES.match(rest, end.end())
    return rest[: resources.end() if resources else end.end()].strip("\n")
