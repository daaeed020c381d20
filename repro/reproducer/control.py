"""Control of a comparison: what it accepts must include the very numbers that are expected.

A comparison that refuses those calls every program wrong, and shows nothing.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.processes.process import Outcome
from iree_pilot.pipeline.targets.backends import llvm_cpu
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.reproducer.folder.bundle import EXPECTED, Level
from iree_pilot.repro.wrong_results import folder as wrong_numbers

_PROGRAM, _MODULE = "control.mlir", "control.vmfb"
_SECONDS = 60.0
#: A type and what is of it, as the runtime's tools take them.
_TYPED = re.compile(r"(?P<shape>(?:\d+x)*)(?P<sign>[su]?)(?P<dtype>i\d+|b?f\d+\w*)=(?P<rest>.*)")

#: Runs a command in `files` of the context's directory: the outcome, and stderr.
Run = Callable[[Sequence[str], Context], tuple[Outcome, str]]


def refuses_right(level: Level, context: Context, run: Run) -> str:
    """Reason that the comparison of a level, whose commands were just run, shows nothing of a
    program: the expected numbers do not pass it themselves. Empty where they do.

    context: its directory has what the commands read and made, in `files`.
    """
    context = context.bounded(msgspec.structs.replace(context.limits, seconds=_SECONDS))
    place = context.directory / "files"
    if level.command[:2] == ("python", wrong_numbers.CHECK):
        for one in wrong_numbers.compared(place).values():
            eager = one.expected.replace("expected", *level.command[2:3] or ["expected"])
            shutil.copyfile(place / eager, place / one.got)
        outcome, _ = run(level.command, context)
        return "" if outcome.ok else _complaint(level.command[1], context)
    expected = [word for word in level.command if word.startswith(EXPECTED)]
    given = [
        _given(word.removeprefix(EXPECTED), place, f"control{index}")
        for index, word in enumerate(expected)
        if not word.endswith("(ignored)")
    ]
    if not expected or None in given:
        return ""  # what a stranger compares in a way that we do not is judged by its numbers alone
    known = [one for one in given if one is not None]
    arguments = ", ".join(f"%{i}: {kind}" for i, (kind, _) in enumerate(known))
    kinds, values = (
        ", ".join(kind for kind, _ in known),
        ", ".join(f"%{i}" for i in range(len(known))),
    )
    program = f"func.func @main({arguments}) -> ({kinds}) {{\n  return {values} : {kinds}\n}}\n"
    (place / _PROGRAM).write_text(program)
    made, _ = run(("iree-compile", _PROGRAM, *llvm_cpu.INTERPRETER, "-o", _MODULE), context)
    if not made.ok:
        return ""  # that release has no interpreter
    command = (
        "iree-run-module",
        f"--module={_MODULE}",
        "--device=local-sync",
        "--function=main",
        *(f"--input={word}" for _, word in known),
        *(w for w in level.command if w.startswith("--expected_") and not w.endswith("(ignored)")),
    )
    outcome, _ = run(command, context)
    return "" if outcome.ok else _complaint(command[0], context)


def _given(expected: str, place: Path, stem: str) -> tuple[str, str] | None:
    """(type, value) of an expected output as an input, without a sign, as modules return it."""
    if expected.endswith(".npy"):
        import numpy as np

        values = np.load(place / expected.removeprefix("@"), allow_pickle=False)
        (place / f"{stem}.bin").write_bytes(values.tobytes())
        kind = "f" if values.dtype.kind == "f" else "i"
        bits = 1 if values.dtype.kind == "b" else 8 * values.dtype.itemsize
        expected = f"{''.join(f'{n}x' for n in values.shape)}{kind}{bits}=@{stem}.bin"
    typed = _TYPED.fullmatch(expected)
    if typed is None:
        return None
    kind = typed["shape"] + typed["dtype"]
    return f"tensor<{kind}>", f"{kind}={typed['rest']}"


def _complaint(tool: str, context: Context) -> str:
    said = (context.directory / "stdout.txt").read_text(errors="replace").splitlines()
    line = next((line.strip() for line in said if "[FAILED]" in line), "")
    return f"{tool} refuses the expected numbers themselves{f' ({line})' if line else ''}"
