"""An exported program is read as data: what would be run while it is read is refused before."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iree_pilot.pipeline.cli.options import SourceOptions
from iree_pilot.pipeline.cli.session import Session
from iree_pilot.pipeline.errors import UsageError

pytestmark = pytest.mark.torch

MODEL = "models/model.json"
INPUTS = "data/sample_inputs/model.pt"
CONSTANTS = "data/constants/model_constants_config.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model with branches, guards, sizes, and a size that is only known when it runs."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)
            self.constant = torch.tensor([1.0, 2.0, 3.0, 4.0])

        def forward(self, x: Any, y: Any) -> Any:
            z = torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))
            half = x.shape[0] // 2 + 1
            return self.linear(z)[:half] * self.constant, y.nonzero()

    path = tmp_path_factory.mktemp("pt2") / "good.pt2"
    rows = 2 * torch.export.Dim("n", min=2, max=100)
    exported = torch.export.export(
        Model(), (torch.randn(6, 4), torch.ones(3)), dynamic_shapes={"x": {0: rows}, "y": None}
    )
    torch.export.save(exported, path)
    return path


@pytest.fixture
def hostile(good: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes the file again with another content of some entry, or with more entries."""

    def make(changes: dict[str, Any], *more: str) -> Path:
        path = tmp_path / "hostile.pt2"
        with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
            root = old.namelist()[0].split("/")[0]
            for entry in old.infolist():
                content = old.read(entry)
                name = entry.filename.partition("/")[2]
                if name in changes:
                    change = changes[name]
                    content = change(content) if callable(change) else change
                new.writestr(zipfile.ZipInfo(entry.filename), content)
            for name in more:
                new.writestr(f"{root}/{name}", b"more")
        return path

    return make


def edited(key: str, value: Any) -> Callable[[bytes], bytes]:
    """Sets the first value of a key, wherever that is."""

    def find(node: Any) -> bool:
        if isinstance(node, dict):
            if key in node:
                node[key] = value
                return True
            return any(map(find, node.values()))
        return isinstance(node, list) and any(map(find, node))

    def edit(content: bytes) -> bytes:
        document = json.loads(content)
        assert find(document), key
        return json.dumps(document).encode()

    return edit


def load(path: Path, *, trusted: bool = False) -> Any:
    from iree_pilot.pipeline.frontends import pt2

    return pt2.load(path, trusted=trusted)


def test_what_torch_saved_is_read(good: Path, hostile: Callable[..., Path]) -> None:
    import torch

    x, y = torch.randn(8, 4), torch.ones(3)
    assert all(map(torch.equal, load(good).module()(x, y), torch.export.load(good).module()(x, y)))
    assert load(hostile({})).example_inputs is not None


class Evil:
    """Pickled, it opens a file for writing when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_a_pickle_that_runs_code(hostile: Callable[..., Path], tmp_path: Path) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save(((torch.randn(6, 4), Evil(tmp_path / "ran")), {}), buffer)
    path = hostile({INPUTS: buffer.getvalue()})
    with pytest.raises(UsageError, match="runs code when it is read: it unpickles") as caught:
        load(path)
    assert "--trust" in caught.value.advice
    assert "a nightly, which has no such option" in caught.value.advice
    assert not (tmp_path / "ran").exists()
    with contextlib.suppress(UsageError):  # what it leaves is no input
        load(path, trusted=True)
    assert (tmp_path / "ran").exists(), "else this test would show nothing"


EXPRESSIONS = (
    "__import__('os').system('touch ran')",
    "S('__import__(chr(111))')",
    "Symbol('x').__class__.__mro__",
    "Symbol(\"x'); import os; ('\")",
    "Lambda(x, x)",
    "[x for x in y]",
    "(lambda: 1)()",
    "Integer(1) if open('x') else Integer(2)",
    "a; b",
    "f'{open(1)}'",
    "L['x\"); import os; (\"']",
    "math.__loader__",
    "L.size.__globals__",
    "L['x'].size().__class__()",
)


@pytest.mark.parametrize("text", EXPRESSIONS)
@pytest.mark.parametrize("key", ["expr_str", "guards_code"])
def test_an_expression_that_does_more_than_arithmetic(
    hostile: Callable[..., Path], text: str, key: str
) -> None:
    path = hostile({MODEL: edited(key, [text] if key == "guards_code" else text)})
    with pytest.raises(UsageError, match="runs code when it is read: it evaluates"):
        load(path)


@pytest.mark.parametrize(
    "name",
    [
        "torch.os.system",
        "torch.hub.load",
        "torch.load",
        "torch.serialization.os.system",
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.ops.higher_order.triton_kernel_wrapper_mutation",
        "torch.ops.debugprims.save_tensor.default",
        "torch.sys.exit",
        "_operator.methodcaller",
        "_operator.attrgetter",
        "math.__loader__",
        "#ext:x",
    ],
)
def test_an_operator_that_is_none(hostile: Callable[..., Path], name: str) -> None:
    with pytest.raises(UsageError, match="which is no operator on tensors or sizes") as caught:
        load(hostile({MODEL: edited("target", name)}))
    assert name in caught.value.message


@pytest.mark.parametrize("name", ["x", "a.b c", "layer-1"])
def test_arithmetic_on_inputs_of_any_name(name: str) -> None:
    from iree_pilot.pipeline.frontends import pt2

    size = f"L['args'][0]['{name}'].size()[0]"
    pt2._check_expression(f"((2*{size}) % (2*({size} // 2))) == 0 and not math.isnan({size})")


def test_native_code_and_objects(hostile: Callable[..., Path]) -> None:
    for name in ("data/aotinductor/model/x.wrapper.cpp", "extra/x.so", "data/x.py"):
        with pytest.raises(UsageError, match="which is code"):
            load(hostile({}, name))
    for name in ("opaque_obj_0", "custom_obj_0"):
        edit = edited("path_name", name)
        with pytest.raises(UsageError, match="unpickles objects of its own types"):
            load(hostile({CONSTANTS: edit}, f"data/constants/{name}"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name(hostile: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="two files of one name"):
        load(hostile({}, MODEL))


def test_a_text_among_the_inputs_that_would_be_code() -> None:
    from iree_pilot.pipeline.frontends import pt2

    for text in ("a'", 'a"', "a\\"):
        with pytest.raises(pt2._Code, match="taken for code"):
            pt2._check_json({"constant_input": {"name": "x", "value": {"as_string": text}}})
    pt2._check_json({"constant_input": {"name": "x", "value": {"as_string": "plain text"}}})


@pytest.mark.parametrize("trust", [False, True])
def test_the_user_says_whether_it_is_trusted(good: Path, trust: bool) -> None:
    session: Any = None
    chosen = SourceOptions(
        settings={},
        dtype=None,
        seed=0,
        weights=(),
        inputs=(),
        inline=False,
        fresh=False,
        trust=trust,
    )
    assert Session.job(session, str(good), chosen).source.trusted is trust
