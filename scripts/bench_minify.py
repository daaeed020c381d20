"""PyTorch's FX minifier on a program that fails to compile: `bench_minify.py DIRECTORY`.

Its check of a graph: torch.export, iree-turbine, and the compile that the bisector asks too. What
each query found goes to a journal at once, and the smallest program that fails to a file, so that
a run that is stopped leaves what it had reached. Imports torch.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.source import parse
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.releases import find

JOB = "job.json"
QUERIES = "queries.jsonl"
SMALLEST = "smallest.mlir"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Program to minify. release: of the compiler, as for `--release`. seconds: limit of one
    compile."""

    source: str
    release: str | None
    flags: tuple[str, ...]
    failure: Failure
    seconds: float


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One graph that was asked about.

    nodes: calls in it. seconds: from the begin of the search to the answer. why: what kept the
    graph from being compiled.
    """

    interesting: bool
    nodes: int
    seconds: float
    why: str = ""


def main(directory: Path) -> int:
    warnings.simplefilter("ignore")
    import torch
    from functorch.compile import minifier  # type: ignore[import-untyped]

    job = msgspec.json.decode((directory / JOB).read_bytes(), type=Job)
    torch.manual_seed(0)
    graph, inputs = _graph(job.source)
    check = _Check(job, directory)
    minifier(graph, inputs, check, dump_state=lambda *_: None)
    return 0


class _Check:
    def __init__(self, job: Job, directory: Path) -> None:
        from iree_pilot.repro.oracles.oracle import CompileOracle

        self.signature = job.failure.signature
        self.directory = directory
        self.oracle = CompileOracle(
            Context(
                toolchain=find(job.release),
                limits=process.Limits(seconds=job.seconds),
                directory=directory,
            ),
            job.flags,
            job.failure,
        )
        self.begun = time.monotonic()

    def __call__(self, graph: Any, inputs: Sequence[Any]) -> bool:
        """True if the failure is among those of a graph: the minifier's test."""
        why, interesting = "", False
        candidate = self.directory / "candidate.mlir"
        try:
            candidate.write_text(_mlir(graph, inputs))
        except Exception as fault:  # noqa: BLE001 - whatever export and turbine raise
            why = f"{type(fault).__name__}: {str(fault)[:200]}"
        else:
            failure = self.oracle.again(candidate)
            if failure is not None:
                found = {failure.signature, *(other.signature for other in failure.also)}
                interesting = self.signature in found
        if interesting:
            candidate.replace(self.directory / SMALLEST)
        query = Query(
            interesting=interesting,
            nodes=sum(node.op == "call_function" for node in graph.graph.nodes),
            seconds=time.monotonic() - self.begun,
            why=why,
        )
        with (self.directory / QUERIES).open("ab") as journal:
            journal.write(msgspec.json.encode(query) + b"\n")
        return interesting


def _graph(source: str) -> tuple[Any, list[Any]]:
    """The first function as a graph whose weights are inputs, with values for all inputs.

    Assertions on metadata go, as the bisector drops them: they compute nothing, and the minifier
    cannot.
    """
    from torch.utils import _pytree as pytree

    from iree_pilot.pipeline.frontends.job import Job
    from iree_pilot.pipeline.frontends.pytorch import torch_sources

    traceable, _ = torch_sources.traceable(Job(source=parse(source, {}, None)))
    entry = traceable.functions[0]
    with traceable.tracing():
        program = _exported(entry.module, entry.args, dict(entry.kwargs), entry.dynamic_shapes)
    held = {**program.state_dict, **program.constants}
    user: Iterator[Any] = iter(pytree.tree_leaves((entry.args, dict(entry.kwargs))))
    inputs = [
        next(user) if spec.kind.name == "USER_INPUT" else held[spec.target].detach()
        for spec in program.graph_signature.input_specs
    ]
    graph = program.graph_module
    for node in list(graph.graph.nodes):
        if "_assert_tensor_metadata" in str(node.target):
            graph.graph.erase_node(node)
    graph.recompile()
    return graph, inputs


def _exported(module: Any, args: Sequence[Any], kwargs: dict[str, Any], shapes: Any = None) -> Any:
    import torch
    from iree.turbine.aot.decompositions import current_aot_decompositions

    program = torch.export.export(module, tuple(args), kwargs, dynamic_shapes=shapes, strict=False)
    return program.run_decompositions(current_aot_decompositions())


def _mlir(graph: Any, inputs: Sequence[Any]) -> str:
    from iree.turbine import aot

    output = aot.export(_exported(graph, inputs, {}))
    return str(output.mlir_module.get_asm(enable_debug_info=False))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
