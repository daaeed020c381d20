"""IR whose executables are configured, turned back to the plainest code generation for them."""

from __future__ import annotations

import re

from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.repro.failing_pass.retarget import whole

_TRANSLATION = re.compile(r"#iree_codegen\.translation_info<")
_CONFIG = re.compile(r"\blowering_config = ")
#: Discardable, and means nothing.
_DROPPED = "dropped_config = "


def pipelines(backend: str) -> tuple[tuple[str, str], ...]:
    """A backend's plainest strategy, as releases spell it; empty where none is known."""
    known = BACKENDS.get(backend)
    return known.plain_pipelines if known else ()


def plain(text: str, backend: str) -> str | None:
    """The IR with another strategy, and without what was chosen for the old one.

    None where no other one is known for the backend. What has none any more stays.
    """
    known = (name for name, like in pipelines(backend) if like in text)
    pipeline = next(known, None)
    if pipeline is None and _TRANSLATION.search(text):
        return None
    made: list[str] = []
    done = 0
    for found in _TRANSLATION.finditer(text):
        if found.start() >= done:
            made += [text[done : found.start()], f"{found[0]}pipeline = {pipeline}>"]
            done = found.start() + len(whole(text, found))
    return _CONFIG.sub(_DROPPED, "".join(made) + text[done:])
