"""Choice of the `iree.compiler.ir` that a child imports: IR is edited by its own release.

The text forms of operations change between releases, so candidates for an older compiler are cut
with the bindings that its wheel brings. Where it brings none for this Python, or they cannot read
the program (the tracer of this environment may write operations that they do not know), those of
this environment serve.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.processes import task
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.processes.task import Done
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

T = TypeVar("T")

#: Modules that children import to edit IR.
LOADED = (
    "iree.compiler.ir",
    "iree_pilot.repro.ir.edit",
    "iree_pilot.repro.reducer.together",
    "iree_pilot.pipeline.processes.process",
)


class Bindings(msgspec.Struct, frozen=True, kw_only=True):
    """Environment of children that edit IR. site: where they import `iree.compiler` from, None
    for this environment."""

    limits: Limits
    site: Path | None = None

    def call(self, function: str, request: object, reply: type[T], directory: Path) -> Done[T]:
        """Calls `module:function` in a child: see `pipeline.processes.task`."""
        return task.call(
            function,
            request,
            reply,
            directory,
            limits=self.limits,
            env=self._environment(),
            loaded=LOADED,
        )

    @property
    def here(self) -> Bindings:
        """Same with the bindings of this environment."""
        return msgspec.structs.replace(self, site=None)

    def _environment(self) -> dict[str, str] | None:
        if self.site is None:
            return None
        paths = (str(self.site), os.environ.get("PYTHONPATH", ""))
        return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def of(release: Toolchain | None, limits: Limits) -> Bindings:
    """Bindings of a release, or of this environment if the release has none or is the same."""
    site = release.bindings if release else None
    if site is not None and site == _here():
        site = None
    return Bindings(limits=limits, site=site)


def _here() -> Path | None:
    try:
        return toolchain.installed().bindings
    except EnvironmentFault:
        return None
