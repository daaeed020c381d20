"""False alarms on single operations of correct programs, each with correct inputs.

They are judged as in `iree-pilot bisect` on wrong numbers: all operations of a program in one
module, each with the inputs that PyTorch computes; those that seem wrong are compiled alone, and
perturbed inputs show whether they are too ill-conditioned to judge (`repro.wrong_results`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from iree_pilot.pipeline.failures.diagnostics import mismatch
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics.numerics import OutputComparison
from iree_pilot.pipeline.processes import task
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.targets.targets import Plan
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.ir.graph import Cut, Graph
from iree_pilot.repro.oracles.oracle import NotAProgram
from iree_pilot.repro.oracles.oracle_run import Running
from iree_pilot.repro.wrong_results import part_search, windows
from iree_pilot.repro.wrong_results.mismatch_oracle import MismatchOracle


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. suspected: wrong beside the others; accused: wrong alone as well."""

    op: str
    output: OutputComparison
    suspected: bool
    accused: bool


class Lost(Exception):
    """Error if a program's operations cannot be judged; the message gives the reason."""


def judge(
    loaded: Loaded,
    function: str,
    plan: Plan,
    toolchain: Toolchain,
    flags: tuple[str, ...],
    place: Path,
) -> Iterator[Part]:
    """The operations of one function of a program that has been found right.

    Raises Lost.
    """
    assert plan.device is not None
    running = Running(
        loaded=loaded,
        function=function,
        device=plan.device.uri,
        elsewhere=plan.device.uri,
        command=(),
    )
    every, limits = (*plan.flags, *flags), Limits(seconds=600.0)
    editor = Editor(loaded.mlir, running.line(loaded.mlir), place / "editor", limits)
    graph = editor.graph()
    if graph is None:
        raise Lost("it has no operations")
    oracle = MismatchOracle(
        Context(toolchain=toolchain, limits=limits, directory=place),
        every,
        mismatch("", what="values"),
        running,
    )
    try:
        yield from _judged(graph, editor, oracle, loaded, place)
    except NotAProgram as fault:
        raise Lost(str(fault)) from fault
    finally:
        oracle.close()


def _judged(
    graph: Graph, editor: Editor, oracle: MismatchOracle, loaded: Loaded, place: Path
) -> Iterator[Part]:
    parts = next(iter(part_search.levels(graph)), ())
    module, held = _together(loaded.mlir, parts, editor.focus, place / "together")
    (call,) = oracle.values.calls(module)
    (evaluated,) = oracle.values.evaluator.evaluate([call], place / "references", jitters=0)
    compiled = oracle.compiled(module, place)
    found = oracle.judge(evaluated, compiled, place / "run")
    if found.comparison is None:
        raise Lost(found.why or (found.failure.message if found.failure else ""))
    for one in held:
        (op,) = parts[one.part]
        outputs = found.comparison.outputs[one.first : one.first + one.results]
        wrong = any(output.differs for output in outputs)
        alone = editor.verdicts([Cut(keep=(op,))], oracle.ask) if wrong else []
        for output in outputs:
            yield Part(
                op=graph.ops[op].name,
                output=output,
                suspected=output.differs,
                accused=not output.ok and alone == ["same"],
            )


def _together(
    mlir: Path, parts: tuple[part_search.Part, ...], focus: int, place: Path
) -> tuple[Path, tuple[windows.WindowPart, ...]]:
    """(a module of the parts, side by side; where each is in it)."""
    wanted = windows.Windows(mlir=str(mlir), parts=parts, focus=focus, functions=1)
    function = f"{windows.__name__}:written"
    done = task.call(function, wanted, tuple[windows.WindowPart, ...], place)
    if done.reply is None:
        raise Lost("its operations cannot be put side by side")
    return place / windows.MODULE, done.reply
