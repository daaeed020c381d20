"""Draws which rooms use which into docs/design.md: `.venv/bin/python scripts/draw_rooms.py`.

An arrow goes from a room to one that at least five of its imports are from; what follows from other
arrows is left out, and the folders within a room are that room. A test holds the drawing against
the code.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- rooms: drawn by scripts/draw_rooms.py -->", "<!-- end of rooms -->"
_TOPS = ("pipeline", "models", "repro")
#: Number of imports from which on an arrow is drawn.
_IMPORTS = 5


def uses() -> dict[str, set[str]]:
    """Rooms that each room uses."""
    graph = grimp.build_graph("iree_pilot", cache_dir=None)
    packages = {module for module in graph.modules if graph.find_children(module)}
    counts: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            counts[room_of(module, packages), room_of(other, packages)] += 1
    found: dict[str, set[str]] = defaultdict(set)
    for (here, there), count in counts.items():
        if here != there and count >= _IMPORTS:
            found[here].add(there)
    return found


def room_of(module: str, packages: set[str]) -> str:
    """`pipeline/failures` of `iree_pilot.pipeline.failures.stderr`; the files of a top are one."""
    parts = module.split(".")
    if len(parts) > 1 and parts[1] not in _TOPS:
        return "iree_pilot"
    deep = len(parts) > 2 and ".".join(parts[:3]) in packages
    return "/".join(parts[1:3]) if deep else parts[1] if len(parts) > 1 else "iree_pilot"


def reduced(uses: dict[str, set[str]]) -> dict[str, list[str]]:
    """Without the arrows that others imply; rooms that use each other keep both of theirs."""
    left = {}
    for one, others in uses.items():
        implied = set().union(*(_reached(uses, other) for other in others if one != other))
        mutual = {other for other in others if one in _reached(uses, other)}
        left[one] = sorted(other for other in others if other not in implied or other in mutual)
    return left


def _reached(uses: dict[str, set[str]], start: str) -> set[str]:
    """Rooms that a room uses, directly or indirectly, without itself."""
    seen: set[str] = set()
    todo = [*uses.get(start, ())]
    while todo:
        one = todo.pop()
        if one not in seen and one != start:
            seen.add(one)
            todo += uses.get(one, ())
    return seen


def picture() -> str:
    """The drawing, as Mermaid."""
    found = uses()
    names = sorted({*found, *(other for others in found.values() for other in others)})
    lines = ["```mermaid", "flowchart TB"]
    for top in ("iree_pilot", *_TOPS):
        inside = [name for name in names if name.split("/")[0] == top]
        lines.append(f"  subgraph {top}_rooms[{top}]")
        lines += [f'    {_name(one)}["{one.split("/")[-1]}"]' for one in inside]
        lines.append("  end")
    for one, others in sorted(reduced(found).items()):
        lines += [f"  {_name(one)} --> {_name(other)}" for other in others]
    return "\n".join([*lines, "```"])


def _name(room: str) -> str:
    return room.replace("/", "_")


def drawn(page: str) -> str:
    """The page with the drawing of now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{picture()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
