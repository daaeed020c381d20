"""Environment variables that a user's source reads while a program is made of it."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

#: What names begin with where they stand among files.
_PREFIX = "$"
#: What each child is given anew, so that no program depends on the user's own.
_OURS = ("TMPDIR",)
#: Files through which `os.environ` and `os.getenv` are read.
_THROUGH = ("<frozen os>", "<frozen _collections_abc>", os.__file__, __file__)


def is_variable(name: str) -> bool:
    """True for a variable among the names of files, which are absolute paths."""
    return name.startswith(_PREFIX)


def state(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """A digest of a variable's value, "" if it is not set; name: as `watch` gives it."""
    value = environment.get(name.removeprefix(_PREFIX))
    return "" if value is None else hashlib.sha256(os.fsencode(value)).hexdigest()


def watch(is_users: Callable[[str], bool]) -> dict[str, str]:
    """Collects the variables that are read from now on by code of the user: `$NAME`, and the state
    that they have now, whatever the code sets.

    is_users: says of a file whether it is the user's. What libraries read for themselves is left
    out, as is what is not read through `os`.
    """
    given = dict(os.environ)
    read: dict[str, str] = {}
    kind: Any = type(os.environ)
    native = kind.__getitem__
    users = functools.cache(is_users)

    def getitem(self: Any, key: Any) -> Any:
        if isinstance(key, str | bytes) and users(_reader()):
            name = os.fsdecode(key)
            if name not in _OURS:
                read[_PREFIX + name] = state(name, given)
        return native(self, key)

    kind.__getitem__ = getitem
    return read


def _reader() -> str:
    """The file of the code that reads a variable."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename in _THROUGH and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename
