"""What a command asks the tracer for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from fake.commands import PLAIN

from iree_pilot.pipeline.cli.session import Session


@pytest.mark.parametrize(("source", "random"), [("net:Net", True), ("net.py", False)])
def test_what_is_tried_with_other_settings_gets_the_users_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, random: bool
) -> None:
    """A type alone means random values for a module, zeros for a file."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("import torch\n")
    chosen = msgspec.structs.replace(PLAIN, inputs=("2x3xf32", "2xi32=5"))
    job = Session.__new__(Session).job_with_inputs(source, chosen)
    drawn, given = (Path(one.file).read_bytes() for one in job.inputs or ())
    assert np.frombuffer(given, np.int32).tolist() == [5, 5]
    assert np.frombuffer(drawn, np.float32).any() == random
    assert Session.__new__(Session).job_with_inputs(source, PLAIN).inputs is None
