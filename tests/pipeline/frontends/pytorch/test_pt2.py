"""An exported program is read as data: what would be run while it is read is refused before."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
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
    from iree_pilot.pipeline.frontends.pytorch import pt2

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
    "b'\"); print(\"' == 1",
    "...",
    "1j",
)
#: What sympy would evaluate, where the generated guards only compare it.
EVALUATED_TWICE = (
    "Max('__import__(chr(111))', 1)",
    "Symbol('__import__(chr(111))')",
    "Mod(Symbol('s0'), 'open(1)')",
    "L['s0']",
    "s0.size()",
    "s0 + 'x'",
    "(s0 #\n+ 1)",
    "s0 + \\\n1",
)


@pytest.mark.parametrize("text", EXPRESSIONS)
@pytest.mark.parametrize("key", ["expr_str", "guards_code"])
def test_an_expression_that_does_more_than_arithmetic(
    hostile: Callable[..., Path], text: str, key: str
) -> None:
    path = hostile({MODEL: edited(key, [text] if key == "guards_code" else text)})
    with pytest.raises(UsageError, match="runs code when it is read: it evaluates"):
        load(path)


@pytest.mark.parametrize("text", EVALUATED_TWICE)
def test_a_size_is_no_more_than_symbols_and_numbers(
    hostile: Callable[..., Path], text: str
) -> None:
    with pytest.raises(UsageError, match=r"it evaluates .* \(expr_str\)"):
        load(hostile({MODEL: edited("expr_str", text)}))


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
        "torch.ops.load_library.__call__",
        "torch.ops.import_module.__call__",
        "torch.ops.loaded_libraries.add",
        "torch.ops.aten.save.default",
        "torch.ops.image.write_file.default",
        "torch.ops.higher_order.call_torchbind",
        "torch.ops.higher_order.inline_asm_elementwise",
    ],
)
def test_an_operator_that_is_none(hostile: Callable[..., Path], name: str) -> None:
    with pytest.raises(UsageError, match="which is no operator on tensors or sizes") as caught:
        load(hostile({MODEL: edited("target", name)}))
    assert name in caught.value.message


def test_an_operator_that_is_an_argument() -> None:
    from iree_pilot.pipeline.frontends.pytorch import pt2_data

    with pytest.raises(pt2_data.CodeFound, match=r"calls torch.os.system \(as_operator\)"):
        pt2_data.check({"arg": {"as_operator": "torch.os.system"}})
    pt2_data.check({"arg": {"as_operator": "torch.ops.aten.add.Tensor"}})


@pytest.mark.parametrize("name", ["x", "a.b c", "layer-1"])
def test_arithmetic_on_inputs_of_any_name(name: str) -> None:
    from iree_pilot.pipeline.frontends.pytorch import pt2_data

    size = f"L['args'][0]['{name}'].size()[0]"
    guard = f"((2*{size}) % (2*({size} // 2))) == 0 and not math.isnan({size})"
    pt2_data.check({"guards_code": [guard]})


PAYLOAD = "x=open('ran', 'w')"
#: Fields that code is never made of.
FREE = {"metadata", "torch_version", "as_string", "as_strings"}


def texts(node: Any, field: str = "") -> Iterator[tuple[str, Callable[[str], None]]]:
    """Each text and key of a document: the field that it is in, and what puts another there."""
    if isinstance(node, dict):
        for key, held in list(node.items()):
            yield f"a key of {field}", lambda text, key=key: node.update({text: node.pop(key)})
            if isinstance(held, str):
                yield key, lambda text, key=key: node.update({key: text})
            elif key not in FREE:
                yield from texts(held, key)
    elif isinstance(node, list):
        for at, held in enumerate(node):
            if isinstance(held, str):
                yield field, lambda text, at=at: node.__setitem__(at, text)
            else:
                yield from texts(held, field)


def test_no_text_of_a_description_becomes_code(good: Path) -> None:
    from iree_pilot.pipeline.frontends.pytorch import pt2_data

    with zipfile.ZipFile(good) as archive:
        documents = [archive.read(one) for one in archive.namelist() if one.endswith(".json")]
    seen = set()
    for document in documents:
        for number, (field, _) in enumerate(list(texts(json.loads(document)))):
            changed = json.loads(document)
            list(texts(changed))[number][1](PAYLOAD)
            if field in FREE:
                continue
            with pytest.raises(pt2_data.CodeFound) as caught:
                pt2_data.check(changed)
            assert "open('ran', 'w')" in str(caught.value)
            assert field in str(caught.value) or field.startswith("a key of ")
            seen.add(field)
    assert seen >= {
        *("name", "target", "as_name", "expr_str", "guards_code", "forward_arg_names", "fqn"),
        *("parameter_name", "path_name", "type", "in_spec", "out_spec", "a key of tensor_values"),
        *("a key of range_constraints", "a key of config", "a key of sym_int_values"),
    }


def test_the_fields_whose_keys_are_data_are_those_of_torch_s_schema() -> None:
    import dataclasses

    from torch._export.serde import schema

    from iree_pilot.pipeline.frontends.pytorch import pt2_data

    maps = {
        field.name
        for one in vars(schema).values()
        if dataclasses.is_dataclass(one)
        for field in dataclasses.fields(one)
        if "dict[" in str(field.type)
    }
    assert {"tensor_values", "metadata"} <= maps
    assert maps == {*pt2_data._MAPS, "metadata"}


def test_a_value_that_has_the_name_of_a_free_field() -> None:
    from iree_pilot.pipeline.frontends.pytorch import pt2_data

    size = {"sizes": [{"as_expr": {"expr_str": "open('ran')"}}]}
    with pytest.raises(pt2_data.CodeFound, match="expr_str"):
        pt2_data.check({"tensor_values": {"metadata": size}})


def spec(context: Any, *, keywords: str = "[]") -> str:
    """The containers of a call with one argument, which is a dictionary or the like."""
    leaf = {"type": None, "context": None, "children_spec": []}
    one = {"type": "builtins.dict", "context": context, "children_spec": [leaf]}
    arguments = {"type": "builtins.tuple", "context": "null", "children_spec": [one]}
    named = {"type": "builtins.dict", "context": keywords, "children_spec": []}
    both = [arguments, named]
    return json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": both}])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (spec('[{"__enum__": true, "fqn": "this:x", "name": "y"}]'), "imports 'this'|'this:x'"),
        (
            spec({"default_factory_module": "os", "default_factory_name": "x", "dict_context": []}),
            "would call 'os.x'",
        ),
        (spec('["a\'b"]'), "a key of in_spec, which would be taken for code"),
        (spec("[]", keywords='["x=open(1)"]'), "no name but would be code"),
        (spec("[]", keywords="[5]"), "no name but would be code"),
        ("[1, 2]", "no tree of containers"),
    ],
)
def test_containers_of_inputs_that_import_or_call(text: str, what: str) -> None:
    from iree_pilot.pipeline.frontends.pytorch import pt2_data

    with pytest.raises(pt2_data.CodeFound, match=what):
        pt2_data.check({"in_spec": text})
    pt2_data.check({"in_spec": spec('["a b", 3]', keywords='["mask"]')})


@pytest.mark.parametrize("key", ["forward_arg_names", "name"])
def test_a_name_that_is_an_assignment_runs_nothing(
    hostile: Callable[..., Path], tmp_path: Path, key: str
) -> None:
    payload = f"x=open({str(tmp_path / 'ran')!r}, 'w')"
    path = hostile({MODEL: edited(key, [payload] if key == "forward_arg_names" else payload)})
    with pytest.raises(UsageError, match=f"as {key}, which is no name but would be code") as caught:
        load(path)
    assert "--trust" in caught.value.advice
    assert not (tmp_path / "ran").exists()


def test_inputs_weights_and_containers_with_other_names_are_read(tmp_path: Path) -> None:
    import collections

    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleDict({"a b": torch.nn.Linear(2, 2), "x/y-1": Scale()})

        def forward(self, größe: Any, *more: Any, flags: Any, mode: str = "floor") -> Any:
            value = self.parts["a b"](größe["an input"]) + more[0]
            value = torch.div(value, flags["k"], rounding_mode=mode)
            torch._check(value.shape[0] > 0, lambda: "what is 'wrong'")
            return collections.OrderedDict({"the sum": self.parts["x/y-1"](value)})

    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("factor", torch.ones(2), persistent=False)

        def forward(self, x: Any) -> Any:
            return x * self.factor

    path = tmp_path / "named.pt2"
    one = torch.ones(2)
    torch.export.save(
        torch.export.export(Model(), ({"an input": one}, one), {"flags": {"k": one}}), path
    )
    computed = load(path).module()({"an input": one}, one, flags={"k": one})
    assert computed["the sum"].shape == (2,)


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
    for name in (MODEL, MODEL.upper()):  # torch's reader takes them for the same
        with pytest.raises(UsageError, match="two files of one name"):
            load(hostile({}, name))


def test_a_text_among_the_inputs_that_would_be_code() -> None:
    from iree_pilot.pipeline.frontends.pytorch import pt2_data

    for text in ("a'", 'a"', "a\\"):
        with pytest.raises(pt2_data.CodeFound, match="taken for code"):
            pt2_data.check({"constant_input": {"name": "x", "value": {"as_string": text}}})
    pt2_data.check({"constant_input": {"name": "x", "value": {"as_string": "plain text"}}})


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
