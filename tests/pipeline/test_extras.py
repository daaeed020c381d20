"""An extra is installed from where iree-pilot itself was."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from iree_pilot.pipeline import extras


@pytest.mark.parametrize(
    ("noted", "what"),
    [
        (
            {"url": "file:///my%20s/pilot", "dir_info": {"editable": True}},
            "-e '/my s/pilot[x]'",
        ),
        ({"url": "file:///dist/p.whl", "archive_info": {}}, "'iree-pilot[x] @ file:///dist/p.whl'"),
        (
            {"url": "https://host/p.git", "vcs_info": {"vcs": "git"}},
            "'iree-pilot[x] @ git+https://host/p.git'",
        ),
        (None, "'iree-pilot[x]'"),
    ],
)
def test_an_extra_comes_from_where_the_package_came_from(
    noted: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(noted) if noted else None
    found = SimpleNamespace(read_text=lambda name: text)
    monkeypatch.setattr(extras, "distribution", lambda name: found)
    assert extras.install("x") == f"{sys.executable} -m pip install {what}"
