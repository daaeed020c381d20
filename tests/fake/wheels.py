"""Releases as wheels in a folder that pip installs from."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from pathlib import Path

from fake import STUB


def add_release(
    index: Path,
    version: str,
    *,
    says: str | None = None,
    runtime: str | None = "same",
    damaged: bool = False,
) -> None:
    """Puts the wheels of a release whose compiler is the stub into the index."""
    libs = "iree/compiler/_mlir_libs"
    settings = json.dumps({"version": says or f"{version}rc20250101", "revision": "c" * 40})
    files = {f"{libs}/iree-compile": STUB.read_bytes(), f"{libs}/stub.json": settings.encode()}
    wheel(index, "iree_base_compiler", version, files, damaged=damaged)
    if runtime:
        files = {"iree/_runtime_libs/iree-run-module": STUB.read_bytes()}
        wheel(index, "iree_base_runtime", version if runtime == "same" else runtime, files)


def wheel(
    index: Path, name: str, version: str, files: dict[str, bytes], *, damaged: bool = False
) -> None:
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for place, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{place},sha256={digest},{len(content)}\n"
        if damaged and place.endswith("stub.json"):
            files[place] = content[:-1]
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for place, content in files.items():
            entry = zipfile.ZipInfo(place)
            entry.external_attr = (0o100755 if "." not in Path(place).name else 0o100644) << 16
            archive.writestr(entry, content)
