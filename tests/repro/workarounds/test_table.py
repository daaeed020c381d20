"""The table of workarounds: its flags exist, and the docs show it as it is."""

from __future__ import annotations

import pytest
from places import ROOT

from iree_pilot.pipeline.targets.targets import BACKENDS
from iree_pilot.pipeline.toolchain.toolchain import installed
from iree_pilot.repro.workarounds.candidate import Candidate, usable
from iree_pilot.repro.workarounds.table import TABLE

DOCS = ROOT / "docs" / "work-around-a-failure.md"
BEGIN, END = "<!-- the table: repro/workarounds/table.py -->", "<!-- end of the table -->"
#: Flags of the table that the installed release lacks: the releases that have them.
ELSEWHERE = {
    "iree-dispatch-creation-experimental-data-tiling": "2.9.0 to 3.6.0",
    "iree-hip-enable-ukernels": "2.9.0 to 3.11.0",
}


def row(one: Candidate) -> str:
    where = ", ".join(one.backends) or "all"
    what = f"`--{one.name}`" if one.flags else one.name
    price = "" if one.price == "free" else one.price
    return f"| {what} | {where} | {price} | {one.reason} |"


def expected() -> str:
    head = ["| what | targets | loses | why |", "|---|---|---|---|"]
    return "\n".join([*head, *map(row, TABLE)])


@pytest.mark.real
def test_a_release_lists_each_flag() -> None:
    known = installed().flags
    named = {flag for one in TABLE for flag in one.flag_names}
    assert named - known == ELSEWHERE.keys()


def test_the_docs_show_the_table() -> None:
    shown = DOCS.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == expected(), f"docs/{DOCS.name} should have:\n{expected()}"


def test_each_has_a_name_of_its_own_and_a_line_of_reason() -> None:
    names = [one.name for one in TABLE]
    assert len(names) == len(set(names))
    assert all(one.reason and "\n" not in one.reason for one in TABLE)
    assert all(one.flags or one.edit for one in TABLE)


def test_a_flag_of_one_code_generator_is_for_its_targets_only() -> None:
    """LLVMGPU is that of HIP and CUDA: none of its flags changes a module for Vulkan."""
    owners = {
        "llvmcpu": ("llvm-cpu",),
        "llvmgpu": ("hip", "cuda"),
        **dict.fromkeys(("rocm", "rocdl", "hip"), ("hip",)),
        **dict.fromkeys(("spirv", "vulkan"), ("vulkan",)),
    }
    for one in TABLE:
        named = {word for flag in one.flag_names for word in flag.split("-")} & owners.keys()
        assert all(one.backends == owners[word] for word in named), one.name


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_flags_that_the_release_lists_are_used(backend: str) -> None:
    some = {"iree-opt-level", "iree-llvmcpu-enable-ukernels", "iree-spirv-index-bits"}
    found = usable(TABLE, backend, some)
    assert {flag for one in found for flag in one.flag_names} <= some
    own = {"llvm-cpu": "iree-llvmcpu-enable-ukernels", "vulkan": "iree-spirv-index-bits"}
    for target, flag in own.items():
        assert any(flag in one.flag_names for one in found) == (target == backend)
    assert any(one.edit for one in found)
