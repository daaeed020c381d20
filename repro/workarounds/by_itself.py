"""Rewrites that a traced program gets by itself, for a target that fails at their probes.

What the trace decomposes is decomposed for all targets; this is for what one target lacks. Only
what computes the same is here, and only where its probe passes once it is rewritten: the other
rewrites of `table` are tried by `workaround` and `bringup`.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from iree_pilot.pipeline.frontends.job import ALL
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.processes import task
from iree_pilot.pipeline.program import python_lines
from iree_pilot.pipeline.program.program import Decomposed
from iree_pilot.pipeline.store.store import digest
from iree_pilot.pipeline.targets import probing
from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.pipeline.targets.probing import Fault, ProbeProgram
from iree_pilot.pipeline.targets.targets import Plan
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.workarounds import build, edit_ir
from iree_pilot.repro.workarounds.candidate import Edit

_KIND, _SAID = "edited", "said.json"
_OURSELVES = "iree-pilot"


class OwnRewrite(NamedTuple):
    """An edit for calls of an operation that some targets lack, or compute wrong.

    calls: finds such calls in a program; of those that it finds a size with, only sizes of more
    than `above` are meant. what: such calls, in words. price: what it costs.
    """

    edit: Edit
    op: str
    calls: re.Pattern[bytes]
    what: str
    price: str
    probe: ProbeProgram
    above: int = 0


def _attention(size: int, expected: str) -> ProbeProgram:
    """Attention of one head: a query of ones over keys of zeros and of ones, values 0 and 1."""
    query, key = (f"!torch.vtensor<[1,1,{rows},{size}],f32>" for rows in (1, 2))
    value, result = (f"!torch.vtensor<[1,1,{rows},1],f32>" for rows in (2, 1))
    return ProbeProgram(
        program=f"""\
func.func @main(%q: {query}, %k: {key}, %v: {value}) -> {result} {{
  %none = torch.constant.none
  %zero = torch.constant.float 0.0
  %false = torch.constant.bool false
  %y = torch.aten.scaled_dot_product_attention %q, %k, %v, %none, %zero, %false, %none, %false :
    {query}, {key}, {value}, !torch.none, !torch.float, !torch.bool, !torch.none, !torch.bool
    -> {result}
  return %y : {result}
}}
""",
        inputs=(
            f"1x1x1x{size}xf32=1",
            f"1x1x2x{size}xf32={','.join(['0'] * size + ['1'] * size)}",
            "1x1x2x1xf32=0,1",
        ),
        expected=(f"1x1x1x1xf32={expected}",),
    )


_SDPA = "aten.scaled_dot_product_attention"
_WRITTEN_OUT = "written out as matmuls and a softmax, it is slower than an operation of its own"

#: Of one operation, what is for all of its calls comes first.
OWN_REWRITES = (
    OwnRewrite(
        edit="attention",
        op=_SDPA,
        calls=re.compile(rb"torch\.aten\.scaled_dot_product_attention "),
        what="",
        price=_WRITTEN_OUT,
        probe=_attention(4, "0.880797"),
    ),
    OwnRewrite(
        edit="attention",
        op=_SDPA,
        # The query's last dimension.
        calls=re.compile(
            rb"torch\.aten\.scaled_dot_product_attention [^:\n]*: !torch\.vtensor<\[[\d?,]*?(\d+)\]"
        ),
        what="heads of more than 128",
        price=_WRITTEN_OUT,
        probe=_attention(129, "0.999988"),
        above=128,
    ),
)


def needed(loaded: Loaded, plan: Plan, context: Context) -> dict[Edit, Decomposed]:
    """The edits that the program needs for the plan's target, each with its record.

    Empty for programs that were not traced from PyTorch; operations in `program.left` get none.
    """
    found: dict[Edit, Decomposed] = {}
    if "torch" not in loaded.program.origin or plan.target.backend not in BACKENDS:
        return found
    for one in OWN_REWRITES:
        left = any(name == ALL or _is(one.op, name) for name in loaded.program.left)
        if left or one.edit in found or not _has(loaded.mlir, one):
            continue
        fault = None
        with contextlib.suppress(probing.Undecided):
            fault = _fault_that_rewriting_cures(one, plan, context)
        if fault is not None:
            release, what = context.toolchain.version, one.what or "it"
            found[one.edit] = Decomposed(
                op=one.op,
                by=_OURSELVES,
                reason=f"IREE {release} {fault.does} {what} on {plan.name}",
                price=one.price,
                message=fault.message,
                target=plan.name,
            )
    return found


def apply(loaded: Loaded, plan: Plan, context: Context) -> Loaded:
    """The program with the edits that it needs for the plan's target; itself where it needs none.

    What was done is among its `decomposed`, behind what the trace did.
    """
    for edit, why in needed(loaded, plan, context).items():
        made = _edited(loaded.mlir, loaded.program.digest, edit, context)
        if made is not None:
            file, left = made
            if left:
                reason = f"{why.reason} (not all calls: {'; '.join(left)})"
                why = msgspec.structs.replace(why, reason=reason)
            program = msgspec.structs.replace(
                loaded.program,
                mlir=str(file),
                digest=digest(file),
                decomposed=(*loaded.program.decomposed, why),
            )
            loaded = msgspec.structs.replace(loaded, program=program)
    return loaded


def edits(loaded: Loaded) -> frozenset[Edit]:
    """The edits that a program got by itself."""
    ops = {one.op for one in loaded.program.decomposed if one.target}
    return frozenset(one.edit for one in OWN_REWRITES if one.op in ops)


def _is(op: str, name: str) -> bool:
    """True if a user's name for an operation, with overload or without, is that of `op`."""
    return op == name or op.startswith(f"{name}.")


def _has(mlir: Path, one: OwnRewrite) -> bool:
    """True if the program has a call that the rewrite is for."""
    with mlir.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for match in one.calls.finditer(text):
            if not match.groups() or int(match[1]) > one.above:
                return True
    return False


def _fault_that_rewriting_cures(one: OwnRewrite, plan: Plan, context: Context) -> Fault | None:
    """The target's fault in the probe, if the rewritten probe has none; raises Undecided."""
    ask = partial(probing.fault, release=context.toolchain, flags=plan.flags, device=plan.device)
    fault = ask(one.probe)
    if fault is None:
        return None
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        program = Path(scratch, "probe.mlir")
        program.write_text(one.probe.program, encoding="utf-8")
        edited = _edited(program, digest(program), one.edit, context)
    if edited is None:
        return None
    written = one.probe._replace(program=edited[0].read_text(encoding="utf-8"))
    return fault if ask(written) is None else None


def _edited(
    mlir: Path, contents: str, edit: Edit, context: Context
) -> tuple[Path, tuple[str, ...]] | None:
    """(the edited program, in the store; why some calls are left as they are); None where it
    cannot be edited.

    contents: the digest of `mlir`.
    """

    def make(directory: Path) -> None:
        rewriting = edit_ir.Rewriting(mlir=str(mlir), edit=edit, output=str(directory / mlir.name))
        with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
            done = task.call(
                f"{edit_ir.__name__}:rewritten",
                rewriting,
                edit_ir.Rewritten,
                Path(scratch),
                limits=context.limits,
            )
        if done.reply is None:
            raise probing.Undecided
        (directory / _SAID).write_bytes(msgspec.json.encode(done.reply))

    key = context.store.key(contents, edit, code(), _lines_of(mlir))
    try:
        entry = context.store.obtain(_KIND, key, make)
    except probing.Undecided:
        return None
    edited = entry / mlir.name
    said = msgspec.json.decode((entry / _SAID).read_bytes(), type=edit_ir.Rewritten)
    return (edited, said.left) if edited.is_file() else None


def _lines_of(mlir: Path) -> str:
    """The digest of what is known of a program's lines, which is carried to the edited one."""
    known = mlir.with_name(python_lines.NAME)
    return digest(known) if known.is_file() else ""


@functools.cache
def code() -> tuple[str, ...]:
    """Digests of the code that decides what a program gets by itself, and that edits it."""
    files = (str(module.__file__) for module in (edit_ir, build, python_lines))
    return tuple(digest(Path(file)) for file in (__file__, *files))
