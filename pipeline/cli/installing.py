"""The toolchain that a command was asked for; it says so while it installs one."""

from __future__ import annotations

from iree_pilot.pipeline.cli.display.live import Live
from iree_pilot.pipeline.toolchain import releases
from iree_pilot.pipeline.toolchain.toolchain import Toolchain


def toolchain_of(release: str | None, live: Live) -> Toolchain:
    """Same as `releases.find`; installing is shown, and its time is the part `install`."""
    found = releases.present(release)
    if found is not None:
        return found
    version = releases.normal(str(release))
    with live.between(f"installing IREE {version}", "install"):
        return releases.install(version, live.note)
