"""Commands that install an optional extra of iree-pilot here."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlsplit

_NAME = "iree-pilot"


def install(extra: str) -> str:
    """The command that installs an extra into this Python, from where iree-pilot was installed:
    the checkout of an editable install, the URL that pip noted, else the package index."""
    try:
        noted = json.loads(distribution(_NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        noted = {}
    url = noted.get("url", "")
    if noted.get("dir_info", {}).get("editable"):
        what = f"-e '{unquote(urlsplit(url).path)}[{extra}]'"
    elif url:
        vcs = noted.get("vcs_info", {}).get("vcs")
        what = f"'{_NAME}[{extra}] @ {f'{vcs}+' if vcs else ''}{url}'"
    else:
        what = f"'{_NAME}[{extra}]'"
    return f"{shlex.quote(sys.executable)} -m pip install {what}"
