"""Context of a command's steps: the tools, their limits, a folder for files, the store."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Limits, Outcome
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.toolchain.toolchain import Toolchain


@dataclass(frozen=True, kw_only=True)
class Context:
    """The tools of one IREE release, what each child may use, and where files are left.

    limits: of each child. directory: the step's own; where nobody names one, that for temporary
    files of this machine. store: what was made before, the user's cache by default.
    """

    toolchain: Toolchain
    limits: Limits = field(default_factory=Limits)
    directory: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    store: Store = field(default_factory=Store)

    def at(self, directory: Path) -> Context:
        """Returns the context of a step that leaves its files in `directory`."""
        return replace(self, directory=directory)

    def within(self, name: str) -> Context:
        """Returns the context of a part of the step, with a folder of its own in the step's."""
        return self.at(self.directory / name)

    def run(
        self, argv: Sequence[str | Path], log: str = "", limits: Limits | None = None
    ) -> tuple[Outcome, str]:
        """Runs a child: (how it ended, what it wrote to stderr).

        limits: of this child, where they are others. What it writes goes to `LOG.stdout.txt` and
        `LOG.stderr.txt` in the step's folder. Raises as `process.run` does.
        """
        stdout, stderr = (
            self.directory / f"{log}.{stream}.txt".lstrip(".") for stream in ("stdout", "stderr")
        )
        outcome = process.run(argv, stdout=stdout, stderr=stderr, limits=limits or self.limits)
        return outcome, stderr.read_text(encoding="utf-8", errors="replace")

    def bounded(self, limits: Limits) -> Context:
        """Returns the context of a step with other limits."""
        return replace(self, limits=limits)
