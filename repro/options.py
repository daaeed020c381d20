"""Options and listeners of a search for a reproducer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.repro.reducer.shrink import Progress
from iree_pilot.repro.reproducer.known import places


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of an isolation.

    place: the folder of the reproducer; with `everything` that of the folders, one for each
    failure. default: nobody named that folder: where it is taken, another one is made, and with
    `everything` the failures' signatures are in the names of folders beside it. flags: the user's
    for the compile. seed: of the program's inputs. fresh: whatever is known, and from the
    beginning.
    """

    place: Path
    default: bool = False
    flags: tuple[str, ...] = ()
    seed: int = 0
    everything: bool = False
    fresh: bool = False

    def folder(self, failure: Failure) -> Path:
        """The folder that a failure's reproducer usually goes to."""
        if not self.everything:
            return self.place
        last = places.last_of(failure)
        if self.default:
            return self.place.with_name(f"{self.place.name}-{last}")
        return self.place / last


def _ignore(_: Any) -> None:
    return


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Listeners of a search: for each failure when it starts, and for each question about it.

    on_wait: called once before another process that does the same is waited for.
    """

    started: Callable[[Failure], None] = _ignore
    progress: Callable[[Progress], None] = _ignore
    on_wait: Callable[[], None] | None = None
