"""Each line of a traced program is known by the line of Python that it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from iree_pilot.pipeline.program import python_lines

PLAIN = """module @module {
  func.func @main(%arg0: !t) -> !t {

    %0 = torch.aten.relu %arg0 : !t -> !t
    %1 = torch.aten.prelu %0, %0 : !t, !t -> !t
    %2 = torch.aten.sin %1 : !t -> !t
    return %2 : !t
  }
}

{-#
  dialect_resources: { builtin: { a: "0x00" } }
#-}
"""
LOCATED = """#loc1 = loc("/home/me/net.py":8:0)
#loc2 = loc("/v/lib/python3.11/site-packages/torch/_dynamo/export.py":232:0)
#loc4 = loc(callsite(#loc1 at #loc2))
module @module {
  func.func @main(%arg0: !t loc(callsite(#loc1 at #loc2))) -> !t {

    %0 = torch.aten.relu %arg0 : !t -> !t loc(#loc4)
    %1 = torch.aten.prelu %0, %0 : !t, !t -> !t loc(callsite(#loc3 at #loc4))
    %2 = torch.aten.sin %1 : !t -> !t loc(#loc)
    return %2 : !t loc(#loc4)
  } loc(#loc4)
} loc(#loc)
#loc = loc(unknown)
#loc3 = loc("/v/lib/python3.11/site-packages/torch/nn/functional.py":9:0)

{-#
  dialect_resources: { builtin: { a: "0x0000" } }
#-}
"""


@pytest.mark.parametrize(
    ("line", "found"),
    [(4, "/home/me/net.py:8"), (5, "/home/me/net.py:8"), (6, ""), (2, ""), (7, ""), (99, "")],
)
def test_the_innermost_line_outside_of_packages(tmp_path: Path, line: int, found: str) -> None:
    python_lines.keep(tmp_path, PLAIN, LOCATED)
    assert python_lines.of(f"{tmp_path}/program.mlir:{line}:10") == found


def test_a_line_of_a_package_where_there_is_no_other(tmp_path: Path) -> None:
    python_lines.keep(tmp_path, PLAIN, LOCATED.replace("/home/me/", "/v/site-packages/a/"))
    assert python_lines.of(f"{tmp_path}/program.mlir:4:10") == "/v/site-packages/a/net.py:8"
    assert python_lines.of(f"{tmp_path}/program.mlir:5:10").endswith("torch/nn/functional.py:9")


def test_texts_that_do_not_fit_each_other_say_nothing(tmp_path: Path) -> None:
    python_lines.keep(tmp_path, PLAIN.replace("  }\n", "", 1), LOCATED)
    assert python_lines.of(f"{tmp_path}/program.mlir:4:10") == ""


@pytest.mark.parametrize("location", [None, "", "net.py:3", "/no/such/program.mlir:4:1"])
def test_what_is_no_traced_program_has_none(location: str | None) -> None:
    assert python_lines.of(location) == ""


def test_lines_are_carried_to_a_program_made_of_another(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for place in (before, after):
        place.mkdir()
    python_lines.keep(before, PLAIN, LOCATED)
    lines = PLAIN.partition("\n{-#")[0].splitlines()
    made = after / "program.mlir"
    made.write_text("\n".join([*lines[:3], "    %new = x", *lines[3:]]))
    original = before / "program.mlir"
    located = [f'{line} loc("{original}":{n}:1)' for n, line in enumerate(lines, 1)]
    located.insert(3, f'    %new = x loc("{original}":5:1)')
    python_lines.carry(original, made, "\n".join(located))
    for line, was in ((4, 5), (5, 4), (6, 5), (7, 6)):
        assert python_lines.of(f"{made}:{line}:1") == python_lines.of(f"{original}:{was}:1")
    assert python_lines.of(f"{made}:5:1") == "/home/me/net.py:8"
