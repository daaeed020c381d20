"""Names of the models of libraries, read from the libraries' text; imports none of them."""

from __future__ import annotations

import difflib
import functools
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path

#: Of each library, the files that name its models, and what a name is found by in them.
_WHERE = {
    "transformers": ("models/auto/modeling_auto.py", r'"([A-Z]\w+)"|\("([\w-]+)",'),
    "timm": ("models/*.py", r"@register_model\n(?:@.*\n)*def (\w+)"),
    "torchvision": ("models/**/*.py", r"@register_model\(\)\n(?:@.*\n)*def (\w+)"),
    "diffusers": ("models/__init__.py", r'"([A-Z]\w+(?<!Mixin)(?<!Output))"'),
}
#: What two names must share of their letters to be taken for one another.
_ALIKE = 0.85


@functools.cache
def known(library: str) -> tuple[str, ...]:
    """The names that are models of a library, in order; none where it is not installed."""
    spec = PathFinder.find_spec(library, sys.path)
    files, pattern = _WHERE[library]
    found: set[str] = set()
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in Path(place).glob(files):
            text = file.read_text(encoding="utf-8", errors="replace")
            found |= {n for m in re.finditer(pattern, text, re.M) for n in m.groups() if n}
    return tuple(sorted(found))


def alike(library: str, name: str) -> str:
    """Advice for a name that the library has no model of: one that it can be a slip of, if any.

    Another architecture is no slip: `qwen9` is not `qwen3`, nor `ChatGlm` `Glm`, so numbers have to
    be the same, and lengths nearly.
    """
    close = difflib.get_close_matches(name, known(library), n=20, cutoff=_ALIKE)
    meant = [
        n
        for n in close
        if abs(len(n) - len(name)) < 3 and re.findall(r"\d+", n) == re.findall(r"\d+", name)
    ][:3]
    return f"Did you mean {' or '.join(meant)}?" if meant else ""
