"""Traces right programs in a process of its own: `python trace.py ORDER.json`.

Each module of the order gets a directory with a program record, as tracing a source gives one.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import msgspec


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """One module of several programs, its functions. directory: where it goes; does not exist."""

    directory: str
    kind: str
    numbers: tuple[int, ...]


class Order(msgspec.Struct, frozen=True):
    """What is to be traced, and the seed of it all."""

    seed: int
    modules: tuple[Module, ...]


#: What is written beside a program's record: each function's steps in words.
STEPS = "steps.json"


def name(number: int) -> str:
    """The function of a program."""
    return f"p{number}"


def main(file: Path) -> None:
    """Carries the order in `file` out."""
    warnings.simplefilter("ignore")
    import torch

    from right import delicate, floats, fp8, integers, known, wrong
    from right.steps import Draw, Right

    kinds: dict[str, Callable[[Draw, int], Right]] = {
        "f32": lambda draw, _: floats.program(draw, torch.float32),
        "f16": lambda draw, _: floats.program(draw, torch.float16),
        "bf16": lambda draw, _: floats.program(draw, torch.bfloat16),
        "fp8": lambda draw, _: fp8.program(draw),
        "integers": lambda draw, _: integers.program(draw),
        "known": known.program,
        "delicate": delicate.program,
        "wrong": wrong.program,
    }
    order = msgspec.json.decode(file.read_bytes(), type=Order)
    for module in order.modules:
        made = {
            name(n): kinds[module.kind](Draw(f"{order.seed} {module.kind} {n}"), n)
            for n in module.numbers
        }
        _write(module, made)


def _write(module: Module, made: dict) -> None:  # type: ignore[type-arg]
    import torch

    from iree_pilot.models.traceable import EntryFunction, Traceable
    from iree_pilot.pipeline.frontends.job import Job
    from iree_pilot.pipeline.frontends.pytorch import torch_export
    from iree_pilot.pipeline.frontends.source import Source
    from iree_pilot.pipeline.program import program as programs
    from right import wrong

    directory = Path(module.directory)
    directory.mkdir(parents=True)
    entries = tuple(
        EntryFunction(
            name=own, module=right.module, args=right.inputs, dynamic_shapes=right.dynamic_shapes
        )
        for own, right in made.items()
    )
    root = torch.nn.ModuleDict({own: right.module for own, right in made.items()})
    source = Source(text=f"right {module.kind} programs", kind="file")
    # What the compiler gets wrong on purpose is not to be decomposed.
    faulty = module.kind == "known" or (
        module.kind == "wrong" and min(module.numbers) >= wrong.KNOWN
    )
    job = Job(source=source, leave=("all",) if faulty else ())
    traced = torch_export.trace(
        Traceable(root=root, functions=entries), job, directory, lambda _: None
    )
    programs.save(traced, directory)
    words = {own: repr(right.module) for own, right in made.items()}
    (directory / STEPS).write_bytes(msgspec.json.encode(words))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
