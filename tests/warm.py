"""Servers that the commands of a whole session of tests have their Python children from.

Importing torch and iree-turbine takes three seconds of a processor, and a thousand children of the
tests do that: see `pipeline/processes/shared_forks.py`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from iree_pilot.pipeline.processes import shared_forks


@contextlib.contextmanager
def listening() -> Iterator[str]:
    """The socket of a process that has servers, for commands in surroundings like these here."""
    alike = shared_forks.surroundings(os.environ)
    with tempfile.TemporaryDirectory(prefix="iree-pilot-warm-") as place:  # others may not enter
        reading, lifeline = os.pipe()
        path = f"{place}/socket"
        process = subprocess.Popen(
            [sys.executable, "-P", shared_forks.PROGRAM, path, str(reading), alike],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[reading],
            start_new_session=True,
        )
        os.close(reading)
        with process:
            assert process.stdout is not None
            try:
                process.stdout.readline()  # it listens
                yield path
            finally:
                os.close(lifeline)
