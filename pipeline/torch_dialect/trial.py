"""Check that a written PyTorch file accepts its own inputs."""

from __future__ import annotations

import traceback
from typing import Any

_FILE = "<written>"


def failing(source: str) -> str | None:
    """The line of the file at which its model fails with the file's inputs, None if it does not.

    "" where it is none of the file's own. Computes shapes and strides only, so that the size of the
    program does not matter.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    space: dict[str, Any] = {"__name__": "written"}
    exec(compile(source, _FILE, "exec"), space)
    try:
        with FakeTensorMode(shape_env=ShapeEnv()):
            space["model"]()(*space["inputs"]())
    except Exception as fault:  # noqa: BLE001 - whatever operations say of what does not fit
        steps = traceback.extract_tb(fault.__traceback__)
        numbers = [step.lineno for step in steps if step.filename == _FILE and step.lineno]
        return source.splitlines()[numbers[-1] - 1].strip() if numbers else ""
    return None
