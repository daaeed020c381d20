"""Operations on symbolic scalars that the importer does not know become those that it does."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.toolchain import toolchain

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


def exported(function: Callable[..., Any]) -> Any:
    """The function of a number n, an input's sum, as a program that turbine's table decomposed."""
    import torch
    from iree.turbine.aot.decompositions import current_aot_decompositions

    class Module(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return function(x.sum().item())

    program = torch.export.export(Module(), (torch.tensor([1, 2]),), strict=False)
    return program.run_decompositions(current_aot_decompositions())


def each(n: Any) -> Any:
    """Every rewrite, each in an output of its own."""
    import torch

    one = torch.full((), 1)
    low = n < 3
    return (
        one * torch.sym_ite(torch.sym_not(low), 5, 9),
        one * torch.sym_ite(operator.or_(low, n > 6), 5, 9),
        one * torch.sym_ite(operator.and_(n > -2, low), 5, 9),
        one * (n % 3),
        one * (n % -4),
        one * torch.sym_max(n, 2),
        one * torch.sym_min(n, 2),
        one * torch.sym_sum([n, n, 4]),
        one * torch.sym_float(n),
    )


REWRITTEN = {
    *("torch.sym_not", "torch.sym_ite", "torch.sym_max", "torch.sym_min", "torch.sym_sum"),
    *("torch.sym_float", "operator.or_", "operator.and_", "operator.mod"),
}


def test_all_that_the_importer_does_not_know_is_rewritten_and_named() -> None:
    from iree_pilot.pipeline.frontends.gaps import symbolic_scalars
    from iree_pilot.pipeline.frontends.pytorch import torch_export

    program = exported(each)
    assert symbolic_scalars.names(program) == REWRITTEN
    with pytest.raises(Exception, match=r"Unimplemented call_function|Unsupported builtin"):
        torch_export.to_mlir({"main": program})
    done = symbolic_scalars.rewritten(program)
    assert {one.op for one in done} == REWRITTEN
    assert {one.by for one in done} == {"iree-pilot"}
    assert symbolic_scalars.names(program) == set()
    torch_export.to_mlir({"main": program})


def test_what_is_to_stay_stays() -> None:
    from iree_pilot.pipeline.frontends.gaps import symbolic_scalars

    program = exported(each)
    symbolic_scalars.rewritten(program, lambda name: name == "torch.sym_not")
    assert symbolic_scalars.names(program) == {"torch.sym_not"}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`each`, compiled."""
    from iree_pilot.pipeline.frontends.gaps import symbolic_scalars
    from iree_pilot.pipeline.frontends.pytorch import torch_export

    program = exported(each)
    symbolic_scalars.rewritten(program)
    place = tmp_path_factory.mktemp("module")
    (place / "each.mlir").write_text(torch_export.to_mlir({"main": program}))
    out = place / "each.vmfb"
    words = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu")
    done = toolchain.ask(
        [toolchain.installed().compiler, place / "each.mlir", *words, "-o", out], seconds=60
    )
    assert done.ok, done.stderr
    from iree import runtime

    return runtime.load_vm_flatbuffer_file(str(out), driver="local-task")


@given(n=st.integers(-20, 20))
def test_the_rewrites_compute_what_python_does_for_numbers_of_either_sign(
    module: Any, n: int
) -> None:
    import torch

    got = [np.asarray(one.to_host()) for one in module.main(np.array([n, 0], np.int64))]
    wanted = [one.numpy() for one in each(n)]
    assert [one.tolist() for one in got] == [one.tolist() for one in wanted]
    assert torch.sym_not(n < 3) == (n >= 3)  # the reference is Python's


def test_the_truth_of_a_tensor_can_be_asserted() -> None:
    """torch.export writes an assertion about a bool of data with what the importer does not know,
    and about what it has proved itself, which needs none."""
    import torch

    from iree_pilot.pipeline.frontends.gaps import symbolic_scalars
    from iree_pilot.pipeline.frontends.pytorch import torch_export

    class Module(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            large = (x > 4).any().item()
            torch._check(torch.sym_not(large))
            return x + 1

    program = torch.export.export(Module(), (torch.tensor([1, 2]),), strict=False)
    program = program.run_decompositions()
    rewritten = {one.op for one in symbolic_scalars.rewritten(program)}
    assert {"aten._local_scalar_dense", "torch.sym_not"} <= rewritten
    text = torch_export.to_mlir({"main": program})
    assert "torch.aten.Bool.Tensor" in text
    assert "torch.aten._assert_scalar" in text
