"""Values that Python needs at the trace: constants are taken, those of inputs on demand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]
HEAD = "import torch\nimport math\n\n\nclass Net(torch.nn.Module):\n"


def net(tmp_path: Path, body: str, number: int = 0) -> Any:
    """A module whose class has these methods, from a file of its own."""
    file = tmp_path / f"net{number}.py"
    lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    file.write_text(HEAD + lines + "\n")
    spec = importlib.util.spec_from_file_location(f"net_{tmp_path.name}_{number}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Net().eval()


def export(module: Any, *args: Any, by_inputs: bool = False, shapes: Any = None) -> Any:
    from iree_pilot.models.traceable import EntryFunction
    from iree_pilot.pipeline.frontends.pytorch import exporting

    entry = EntryFunction(name="main", module=module, args=args, dynamic_shapes=shapes)
    return exporting.export(entry, by_inputs=by_inputs)


PADDED = """
def __init__(self):
    super().__init__()
    self.register_buffer("stride", torch.tensor(3))

def forward(self, x):
    frames = torch.ceil((x.shape[-1] - 5) / self.stride + 1).to(torch.int64) - 1
    extra = frames * self.stride + 5 - x.shape[-1]
    if extra > 0:
        x = torch.nn.functional.pad(x, (0, extra))
    return x * 2
"""
ARITHMETIC = """
def forward(self, x):
    sizes = torch.zeros(3, dtype=torch.int64)
    sizes[1:] = torch.arange(2) + 2
    first = sizes[1:2]
    first += 1
    a, b, c = sizes.tolist()
    return torch.cat([x * a, x[:b], x[:c] + torch.ones_like(x).sum().item()])
"""
MASKED = """
def forward(self, x):
    mask = x > 4
    if mask.any():
        x = x * 3
    return x + 1
"""


@pytest.mark.parametrize("body", [PADDED, ARITHMETIC])
def test_values_that_no_input_has_a_part_in_are_taken_and_the_program_is_the_same(
    tmp_path: Path, body: str
) -> None:
    import torch

    module = net(tmp_path, body)
    made = export(module, torch.randn(7))
    assert made.decided
    assert not any(one.on_inputs for one in made.decided)
    assert not any("_assert_scalar" in str(node.target) for node in made.program.graph.nodes)
    for _ in range(3):
        x = torch.randn(7)
        assert torch.equal(made.program.module()(x), module(x))


def test_a_value_of_an_input_is_not_taken_unless_it_is_said(tmp_path: Path) -> None:
    import torch

    module = net(tmp_path, MASKED)
    with pytest.raises(Exception, match="data-dependent"):
        export(module, torch.zeros(3))
    for example, value in ((torch.zeros(3), "False"), (torch.full((3,), 9.0), "True")):
        made = export(module, example, by_inputs=True)
        (one,) = made.decided
        assert (one.code, one.value, one.on_inputs) == ("if mask.any():", value, True)
        assert one.place == f"{tmp_path / 'net0.py'}:8"
        program = made.program.module()
        assert torch.equal(program(example), module(example))
        other = torch.zeros(3) if value == "True" else torch.full((3,), 9.0)
        with pytest.raises(Exception, match="Runtime assertion failed"):
            program(other)


LOOPED = """
def forward(self, x):
    for one in (torch.zeros(3), x):
        if one.sum() > 4:
            x = x * 3
    return x
"""


def test_a_line_that_inputs_decide_is_named_also_where_it_chose_by_a_constant_before(
    tmp_path: Path,
) -> None:
    import torch

    made = export(net(tmp_path, LOOPED), torch.zeros(3), by_inputs=True)
    assert [(one.value, one.on_inputs) for one in made.decided] == [
        ("False", False),
        ("False", True),
    ]


EACH = """
def forward(self, x):
    for one in x:
        if one > 0:
            x = x * 3
    return x
"""


def test_of_a_loop_that_chooses_in_two_ways_no_python_is_said(tmp_path: Path) -> None:
    import torch

    (one,) = export(net(tmp_path, EACH), torch.tensor([1.0, -2.0, 3.0]), by_inputs=True).decided
    assert (one.value, one.write) == ("True and False", "")
    (one,) = export(net(tmp_path, EACH), torch.tensor([1.0, 2.0, 3.0]), by_inputs=True).decided
    assert one.value == "True" and "torch._check(taken)" in one.write


STATEFUL = """
def __init__(self):
    super().__init__()
    self.register_buffer("calls", torch.tensor(0))

def forward(self, x):
    if self.calls > 2:
        x = x * 2
    self.calls += 1
    return x
"""
ALIASED = """
def forward(self, x):
    sizes = torch.zeros(4)
    sizes[1:].copy_(x[:3])
    if sizes.sum() > 2:
        return x * 2
    return x
"""
DRAWN = """
def forward(self, x):
    if torch.rand(()) > 0.5:
        return x * 2
    return x
"""
LEARNED = """
def __init__(self):
    super().__init__()
    self.gate = torch.nn.Parameter(torch.tensor(1.0))

def forward(self, x):
    if self.gate > 0.5:
        return x * 2
    return x
"""


@pytest.mark.parametrize("body", [STATEFUL, ALIASED, DRAWN, LEARNED])
def test_what_may_be_another_value_in_another_run_is_no_constant(tmp_path: Path, body: str) -> None:
    """A buffer that the model changes, a tensor that an input was written into, draws, weights."""
    import torch

    with pytest.raises(Exception, match="data-dependent"):
        export(net(tmp_path, body), torch.zeros(5))


COUNTED = """
def forward(self, x):
    if torch.arange(x.shape[0]).sum() > 5:
        return x * 2
    return x
"""


def test_a_size_that_is_dynamic_is_no_constant(tmp_path: Path) -> None:
    import torch

    module, x = net(tmp_path, COUNTED), torch.zeros(4)
    assert export(module, x).decided[0].value == "True"
    with pytest.raises(Exception, match="data-dependent"):
        export(module, x, shapes=({0: torch.export.Dim("n", min=2, max=9)},))


NEGATED = """
def forward(self, x):
    if not (x > 4).any():
        x = x * 3
    return x
"""
NAMED = """
def forward(self, x):
    large = (x > 4).any().item()
    if large:
        x = x * 3
    return x
"""
WAYS = {"if mask.any():": MASKED, "if not (x > 4).any():": NEGATED, "if large:": NAMED}


@pytest.mark.parametrize("line", WAYS)
@pytest.mark.parametrize("value", [0.0, 9.0])
def test_the_python_that_is_said_lets_the_model_trace_without_this(
    tmp_path: Path, line: str, value: float
) -> None:
    import torch

    body, x = WAYS[line], torch.full((3,), value)
    (one,) = export(net(tmp_path, body), x, by_inputs=True).decided
    assert one.code == line
    said = one.write.splitlines()
    replaced = [*said, *([] if said[-1].startswith("if ") else [line])]
    changed = body.replace(f"    {line}", "\n".join(f"    {text}" for text in replaced))
    module = net(tmp_path, changed, number=1)
    program = torch.export.export(module, (x,), strict=False).module()
    assert torch.equal(program(x), net(tmp_path, body, number=2)(x))


#: Functional, in-place and view operations on the tensors a (constant) and b (of the input).
STEPS = {
    "a = a + 1": False,
    "a = torch.flip(a, [0])": False,
    "a[1:] += 2": False,
    "a[0] = a[2]": False,
    "a.view(3)[2:].mul_(2)": False,
    "a = a.clone()": False,
    "c = a[:2]": False,
    "c += 1": False,
    "b = b * 2": False,
    "a[1] = b[0]": True,
    "c[0] = b[1]": True,
    "b[:] = a": False,
}


def test_a_model_without_values_has_no_constants_of_its_buffers(tmp_path: Path) -> None:
    """One of a configuration alone, whose weights come when it runs."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = net(tmp_path, PADDED)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    module.stride = mode.from_tensor(module.stride)
    with mode, pytest.raises(Exception, match=r"data-dependent|DataDependent|fake"):
        export(module, torch.randn(7))


@settings(deadline=None)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=7), at=st.integers(0, 2))
def test_a_constant_is_what_pytorch_computes_whatever_was_done_to_it(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], at: int
) -> None:
    """Whatever is traced computes what the model does, also with inputs that were no example."""
    import torch

    lines = ["a = torch.arange(3)", "b = x.clone()", "c = a[1:]", *steps]
    body = "\n    ".join(["def forward(self, x):", *lines, f"return x + int(a[{at}]) + b"])
    module = net(tmp_path_factory.mktemp("net"), body)
    try:
        made = export(module, torch.tensor([5, 6, 7]))
    except Exception:  # noqa: BLE001 - it must not be traced wrong
        assert any(STEPS[step] for step in steps)
        return
    for x in (torch.tensor([5, 6, 7]), torch.tensor([-1, 0, 3])):
        assert torch.equal(made.program.module()(x), module(x))
    if not any(STEPS[step] for step in steps):
        assert [one.on_inputs for one in made.decided] == [False]
