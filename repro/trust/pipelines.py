"""Side effects of a pass pipeline in text: only passes and options that work on the program.

Options are taken apart as MLIR does, from the innermost braces outwards: a value may stand in
braces or quotes, and a pipeline may be an option of a pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_INNERMOST = re.compile(r"\{([^{}]*)\}")
#: The text outside of options: names, and what they are nested in.
_NAMES = re.compile(r"[\w.,()* -]*", re.ASCII)
#: What a value in braces may be: a list.
_LIST = re.compile(r"[\w.,:+ -]*", re.ASCII)
_KEY = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
#: Numbers, and words without the dot of a file's name; what separates them.
_ITEM = re.compile(r"[+-]?\d+\.\d+|[\w+-]*", re.ASCII)
_SEPARATOR = re.compile(r"[,:]")
#: Says how, whatever the option.
_PLAIN = re.compile(r"true|false|[+-]?\d+")
#: Options whose values are names of operations or of passes.
_DOTTED = re.compile(r"(?:ops|pipeline)$")
_DOTTED_VALUE = re.compile(r"[\w.,()* -]*", re.ASCII)
#: What options name files, modules and other programs' arguments with, besides flags.
_OTHERS = re.compile(r"module$|^link|opts$|cmd-|substitut|^prefix$")
#: Passes that have to do with files or tools whatever their options.
_PASSES = re.compile(
    r"[\w-]*(?:-with-tool|module-to-binary|preprocessing-apply-pdl|snapshot-op|dump-|-archive|-parameters$"
    r"|preload-library|link-modules)[\w-]*",
    re.ASCII,
)

#: What an option does by its name and its value; empty for nothing that it is known by.
Does = Callable[[str, str], str]


def refused(text: str, does: Does) -> str:
    """Anything that a pipeline does besides changing the program; empty if it does nothing else."""
    while (group := _INNERMOST.search(text)) is not None:
        before = text[: group.start()].rstrip()
        if before.endswith("="):
            if not _LIST.fullmatch(group[1]):
                return _unknown(group[1])
            instead = ",".join(group[1].split())
        else:
            for key, value in _options(group[1]):
                if why := _of_option(key, value, does):
                    return why
            instead = ""
        text = before + instead + text[group.end() :]
    if not _NAMES.fullmatch(text):
        return _unknown(text)
    named = next((n for n in re.split(r"[,() ]", text) if _PASSES.fullmatch(n)), "")
    return f"has the pass {named}, which has to do with files or other programs" if named else ""


def _options(text: str) -> Iterator[tuple[str, str]]:
    for word in text.split():
        key, equals, value = word.partition("=")
        yield (key, value) if equals else ("", word)


def _of_option(key: str, value: str, does: Does) -> str:
    value = value.strip("\"'")
    if not _KEY.fullmatch(key):
        return _unknown(value or key)
    if not value:
        return ""
    if (done := does(key, value)) and not _PLAIN.fullmatch(value):
        return f"has a pass that {done}"
    if _OTHERS.search(key):
        return f"has a pass that is given files or words for other programs: {key}={value}"
    if _DOTTED.search(key):
        return refused(value, does) if _DOTTED_VALUE.fullmatch(value) else _unknown(value)
    plain = all(_ITEM.fullmatch(item) for item in _SEPARATOR.split(value))
    return "" if plain else _unknown(value)


def _unknown(value: str) -> str:
    return f"has passes whose options may name files: {value}"
