"""Names of the models of libraries, read from the libraries' text; imports none of them."""

from __future__ import annotations

import difflib
import functools
import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

from iree_pilot.pipeline.errors import UsageError

#: Of each library, the files that name its models, and what a name is found by in them.
_WHERE = {
    "transformers": ("models/auto/modeling_auto.py", r'"([A-Z]\w+)"|\("([\w-]+)",'),
    "timm": ("models/*.py", r"@register_model\n(?:@.*\n)*def (\w+)"),
    "torchvision": ("models/**/*.py", r"@register_model\(\)\n(?:@.*\n)*def (\w+)"),
    "diffusers": ("models/__init__.py", r'"([A-Z]\w+(?<!Mixin)(?<!Output))"'),
}
#: Of each library, the files without which it has no model of a name.
_DEFINED = {
    "transformers": "**/modeling_*.py",
    "timm": "models/*.py",
    "torchvision": "models/**/*.py",
    "diffusers": "__init__.py",
}
#: What two names must share of their letters to be taken for one another.
_ALIKE = 0.85


#: Names that begin with all of a name of so many letters are near it.
_PREFIX = 5


@functools.cache
def known(library: str) -> tuple[str, ...]:
    """The names that are models of a library, in order; none where it is not installed."""
    files, pattern = _WHERE[library]
    found: set[str] = set()
    for text in _texts(library, files):
        found |= {n for m in re.finditer(pattern, text, re.M) for n in m.groups() if n}
    return tuple(sorted(found))


def _texts(library: str, files: str) -> Iterator[str]:
    """The library's files of a pattern."""
    spec = PathFinder.find_spec(library, sys.path)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in Path(place).glob(files):
            yield file.read_text(encoding="utf-8", errors="replace")


def check(text: str, library: str, name: str) -> None:
    """Raises UsageError for a name that the library cannot have a model of.

    That is one which its models' files nowhere contain: what else is none, the library itself says.
    """
    spelt = {name, name.partition(".")[0], name.replace("-", "_"), name.replace("_", "-")}
    if not known(library) or spelt & {*known(library)}:
        return
    words = re.compile(rf"\b({'|'.join(map(re.escape, sorted(spelt)))})\b")
    for one in _texts(library, _DEFINED[library]):
        if any(word in one for word in spelt) and words.search(one):
            return
    raise unknown(text, library, name)


def unknown(text: str, library: str, name: str, what: str = "") -> UsageError:
    """The error for a name that is no model of the library; text: as the user wrote the source."""
    return UsageError(
        f"{text}: {library} {version(library)} has no model {name!r}{what}",
        advice=alike(library, name)
        or f"If a newer release has it: pip install --upgrade {library}. Your own: name a "
        "file with model() and inputs().",
    )


def alike(library: str, name: str) -> str:
    """Advice for a name that the library has no model of: those that it can be a slip of, if any.

    Another architecture is no slip: `qwen9` is not `qwen3`, nor `ChatGlm` `Glm`, so lengths have to
    be nearly the same, and numbers the same but for one digit more or less.
    """
    spelt = {one.lower(): one for one in known(library)}
    wanted = name.lower()
    close = [
        one
        for one in difflib.get_close_matches(wanted, spelt, n=20, cutoff=_ALIKE)
        if abs(len(one) - len(wanted)) < 3 and _numbered_alike(one, wanted)
    ]
    completions = [one for one in spelt if len(wanted) >= _PREFIX and one.startswith(wanted)]
    suggestions = [spelt[one] for one in dict.fromkeys((*completions, *close))][:3]
    return f"Did you mean {' or '.join(suggestions)}?" if suggestions else ""


def _numbered_alike(one: str, other: str) -> bool:
    """True if the numbers in two names are the same, but for a digit that one has more."""
    pairs = zip_longest(re.findall(r"\d+", one), re.findall(r"\d+", other), fillvalue="")
    return all(a == b or _one_more(a, b) or _one_more(b, a) for a, b in pairs)


def _one_more(longer: str, shorter: str) -> bool:
    cut = (longer[:at] + longer[at + 1 :] for at in range(len(longer)))
    return bool(shorter) and shorter in cut
