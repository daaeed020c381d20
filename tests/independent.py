"""Verdicts checked by other means: the device's outputs beside float64's, and fixed limits.

    python tests/independent.py [-t TARGET] [--count N] [--seed N] [SOURCE...]

Of each source (or so many architectures of models/collection.toml, drawn at random) `iree-pilot
run` says a verdict; the module that it compiled is then run by iree-run-module, and a copy of the
model in float64 by PyTorch. Nothing of `pipeline.numerics` has a part in that. Listed are

- FALSE OK: the verdict is `ok`, and the numbers are far off;
- FALSE ACCUSATION: the verdict is wrong numbers, and they are right;
- by hand: whatever this cannot tell (integers that differ, errors between the limits, no output).

Exit code 1 if there is a false one.
"""

from __future__ import annotations

import argparse
import copy
import random
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
#: Relative L2 error of f32 that is right for sure below the one, and wrong above the other.
RIGHT, WRONG = 1e-4, 1e-2
#: The same for an element, relative to its size plus the root mean square.
ELEMENT_RIGHT, ELEMENT_WRONG = 1e-3, 1e-1

Numbers = Literal["right", "wrong", "unclear"]


def judged(found: np.ndarray[Any, Any], precise: np.ndarray[Any, Any]) -> Numbers:
    """The verdict on an output, given the same in float64 (or integers)."""
    if found.shape != precise.shape:
        return "wrong"
    if not np.issubdtype(precise.dtype, np.inexact):
        return "right" if np.array_equal(found, precise) else "unclear"
    same = (found == precise) | (np.isnan(found) & np.isnan(precise))
    if not np.array_equal(np.isfinite(found) | same, np.isfinite(precise) | same):
        return "wrong"
    finite = np.isfinite(found) & np.isfinite(precise)
    error = np.abs(found[finite].astype(precise.dtype) - precise[finite])
    size = np.abs(precise[finite])
    root = float(np.sqrt(np.square(size).mean())) if size.size else 0.0
    if not root:
        return "right" if not error.any() else "unclear"
    whole = float(np.sqrt(np.square(error).mean())) / root
    element = float((error / (size + root)).max())
    if whole < RIGHT and element < ELEMENT_RIGHT:
        return "right"
    return "wrong" if whole > WRONG or element > ELEMENT_WRONG else "unclear"


def verdict(status: str, kind: str, numbers: Sequence[Numbers]) -> str:
    """What to say of a case: its status, the failure's kind, and what this found of each output."""
    if not numbers:
        return "by hand: nothing to compare"
    if status == "ok" and "wrong" in numbers:
        return "FALSE OK"
    if kind == "mismatch" and all(one == "right" for one in numbers):
        return "FALSE ACCUSATION"
    return "by hand: unclear" if "unclear" in numbers and status == "ok" else "agrees"


def precise_outputs(source: str) -> list[np.ndarray[Any, Any]]:
    """The outputs of the model of a source, computed by PyTorch in float64."""
    import torch
    from torch.utils import _pytree as pytree

    from iree_pilot.pipeline.frontends import source as sources
    from iree_pilot.pipeline.frontends.job import Job
    from iree_pilot.pipeline.frontends.pytorch import torch_sources

    torch.manual_seed(0)
    made, _ = torch_sources.traceable(Job(source=sources.parse(source, {}, None)))
    (entry,) = made.functions

    def wide(value: Any) -> Any:
        is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.double() if is_float else value

    args, kwargs = pytree.tree_map(wide, (entry.args, entry.kwargs))
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # what the forward pass makes is wide, too
    try:
        with torch.no_grad():
            results = copy.deepcopy(entry.module).double()(*args, **kwargs)
    finally:
        torch.set_default_dtype(default)
    leaves = [v for v in pytree.tree_leaves(results) if isinstance(v, torch.Tensor)]
    return [leaf.resolve_conj().numpy() for leaf in leaves]


def device_outputs(command: Sequence[str], count: int) -> list[np.ndarray[Any, Any]]:
    """The outputs that the module of a run gives, by iree-run-module."""
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place, f"{number}.npy") for number in range(count)]
        subprocess.run(
            [*command, *(f"--output=@{file}" for file in files)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return [np.load(file) for file in files]


def checked(source: str, target: str) -> tuple[str, str]:
    """(the verdict of `iree-pilot run` in a few words, what this says of it)."""
    from driver import pilot

    done = pilot("run", source, "-t", target, "--json")
    if done.code not in (0, 1):
        return f"exit {done.code}", f"by hand: {done.err.strip().splitlines()[-1]}"
    document = done.document
    (case,) = document["cases"]
    kind = (case["failure"] or {}).get("kind", "")
    said = f"{case['status']} {kind}".strip()
    if not case["functions"]:
        return said, "agrees" if case["failure"] else "by hand: it was not run"
    (function,) = case["functions"]
    kinds = document["program"]["functions"][0]["outputs"]
    found = device_outputs(function["commands"][0], len(kinds))
    try:
        precise = precise_outputs(source)
    except Exception as fault:  # noqa: BLE001 - a model may refuse float64 in any way
        return said, f"by hand: {type(fault).__name__}: {str(fault).splitlines()[0]}"
    if len(precise) > len(found):
        return said, f"by hand: {len(found)} outputs, {len(precise)} of PyTorch"
    # What a forward pass changes comes after what it returns.
    numbers = [judged(one, other) for one, other in zip(found, precise, strict=False)]
    return said, verdict(case["status"], kind, numbers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-t", "--target", default="llvm-cpu")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("sources", nargs="*")
    asked = parser.parse_args()
    sources = asked.sources
    if not sources:
        collection = tomllib.loads((ROOT / "models" / "collection.toml").read_text())
        named = [one for block in collection["include"] for one in block["models"]]
        sources = random.Random(asked.seed).sample(named, asked.count)
    false = 0
    for source in sources:
        said, found = checked(source, asked.target)
        false += found.startswith("FALSE")
        print(f"{source}\t{said}\t{found}", flush=True)
    print(f"{false} false of {len(sources)}")
    return bool(false)


if __name__ == "__main__":
    sys.exit(main())
