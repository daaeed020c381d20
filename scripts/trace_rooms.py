"""The way of one command through the rooms: `.venv/bin/python scripts/trace_rooms.py bisect ...`.

It runs a command of iree-pilot in this process, and lists the public functions and classes that
one room calls of another, in the order of their first calls; child processes are not followed.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType

from draw_rooms import room_of

from iree_pilot.pipeline.cli import main

#: (module of the caller, module, name) of each call, the first first.
_calls: dict[tuple[str, str, str], None] = {}


def _module(frame: FrameType) -> str:
    name = str(frame.f_globals.get("__name__", ""))
    return name if name.startswith("iree_pilot.") else ""


def _note(frame: FrameType, event: str, _: object) -> None:
    module = _module(frame) if event == "call" else ""
    name = frame.f_code.co_qualname.removesuffix(".__init__")
    if not module or "<" in name or any(part.startswith("_") for part in name.split(".")):
        return
    caller = frame.f_back
    while caller is not None and not _module(caller):
        caller = caller.f_back
    if caller is not None:
        _calls[_module(caller), module, name] = None


def _report() -> None:
    packages = {name for name, module in [*sys.modules.items()] if hasattr(module, "__path__")}
    names = {
        (room, f"{module.rpartition('.')[2]}.{name}"): None
        for caller, module, name in _calls
        if (room := room_of(module, packages)) != room_of(caller, packages)
    }
    way: list[str] = []
    for room, name in names:
        if way[-1:] != [room]:
            way.append(room)
            print(f"\n{room}:", end="")
        print(f" {name}", end="")
    rooms = len({*way})
    print(f"\n\n{rooms} rooms, {len(way) - rooms} turns back, {len(names)} public names")


if __name__ == "__main__":
    threading.setprofile(_note)
    sys.setprofile(_note)
    try:
        main()
    finally:
        sys.setprofile(None)
        _report()
