"""What a Python source lacks is found in its text, and nothing that may be right is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import outline, source

MODEL = "import torch\ndef model():\n    return torch.nn.Linear(1, 1).eval()\n"
INPUTS = "def inputs():\n    return (torch.ones(1, 1),)\n"


def check(
    tmp_path: Path, text: str, factory: str = "model", settings: tuple[str, ...] | None = None
) -> None:
    file = tmp_path / "net.py"
    file.write_text(text)
    named = "net.py" if factory == "model" else f"net.py:{factory}"
    outline.check(file, factory, named, settings=settings)


@pytest.mark.parametrize(
    ("text", "factory", "says", "advice"),
    [
        (MODEL, "model", "no function inputs()", "inputs() -> tuple"),
        (INPUTS, "model", "no function model()", "FILE.py:NAME"),
        (MODEL + INPUTS, "modell", "no function modell()", "Did you mean net.py:model?"),
        ("import torch\nif torch:\n    def small(): ...\n", "model", "no function model()", ""),
        ("class C:\n    def model(self): ...\n" + INPUTS, "model", "no function model()", ""),
    ],
)
def test_what_is_not_there(tmp_path: Path, text: str, factory: str, says: str, advice: str) -> None:
    with pytest.raises(UsageError, match="there is") as caught:
        check(tmp_path, text, factory)
    assert says in caught.value.message
    assert advice in caught.value.advice


@pytest.mark.parametrize(
    ("text", "settings", "says", "advice"),
    [
        ("def model(n): ...\n", (), "needs a value for n", "--kwargs n=VALUE"),
        ("def model(a, b=1, *, c, d=2): ...\n", ("a",), "needs a value for c", "--kwargs c=VALUE"),
        ("def model(): ...\n", ("layers",), "takes no argument 'layers'", "It takes none."),
        ("def model(layer=1): ...\n", ("layers",), "takes no argument", "Did you mean layer?"),
        ("model = 3\n", (), "no function model()", "FILE.py:NAME"),
    ],
)
def test_arguments_that_the_factory_does_not_take_or_lacks(
    tmp_path: Path, text: str, settings: tuple[str, ...], says: str, advice: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check(tmp_path, text + INPUTS, settings=settings)
    assert says in caught.value.message
    assert advice in caught.value.advice


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("def model(n): ...\n", ("n",)),
        ("def model(n=1, *more): ...\n", ()),
        ("def model(**more): ...\n", ("layers",)),
        ("def model(): ...\n", ("use_cache", "data_dependent")),
        ("@print\ndef model(n): ...\n", ("layers",)),
        ("def model(n): ...\nmodel = print\n", ()),
        ("model = None\ndef late():\n    global model\n    model = print\nlate()\n", ()),
        ("model, other = print, 3\n", ()),
        ("class model:\n    def __init__(self, n): ...\n", ()),
    ],
)
def test_arguments_that_may_be_right_are_left_to_be_run(
    tmp_path: Path, text: str, settings: tuple[str, ...]
) -> None:
    check(tmp_path, text + INPUTS, settings=settings)


@pytest.mark.parametrize(
    "text",
    [
        MODEL + INPUTS,
        MODEL + "from torch import ones as inputs\n",
        MODEL + "inputs = lambda: (1,)\n",
        MODEL
        + "if torch:\n    try:\n        import inputs\n    except ImportError: inputs = None\n",
        MODEL + "for inputs in (print,): pass\n",
        MODEL + "(inputs := print)\n",
        MODEL + "def more():\n    global inputs\n    inputs = print\nmore()\n",
        MODEL + "globals()['inputs'] = print\n",
        MODEL + "exec('def inputs(): ...')\n",
        MODEL + "import sys\nsetattr(sys.modules[__name__], 'inputs', print)\n",
        "from torch import *\n",
        "def __getattr__(name):\n    return print\n",
        "from iree.turbine.aot import CompiledModule\nclass model(CompiledModule): ...\n",
        "from mine import made\ndef model():\n    return made()\n",
        "from .mine import made\ndef model():\n    return made()\n",
        "import importlib\ndef model():\n    return importlib.import_module('mine').made()\n",
        "def (\n",
        "\0",
    ],
)
def test_what_may_be_there_is_left_to_be_run(tmp_path: Path, text: str) -> None:
    check(tmp_path, text)


def test_a_module_is_looked_into_without_importing_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "mypackage" / "nets.py").write_text(MODEL + INPUTS)
    monkeypatch.chdir(tmp_path)
    for right in ("mypackage.nets:model", "mypackage.native:model"):
        outline.check_source(source.parse(right, {}, None))
    wrong = source.parse("mypackage.nets:small", {}, None)
    with pytest.raises(UsageError, match=r"no function small\(\)"):
        outline.check_source(wrong)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("net.py", ["main"]),
        ("net.py:model", ["main"]),
        ("llama:tiny", ["prefill", "decode"]),
        ("llama:tiny/decode", ["decode"]),
        ("bert:tiny", ["main"]),
    ],
)
def test_a_function_that_no_trace_would_give_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, known: list[str]
) -> None:
    (tmp_path / "net.py").write_text(MODEL + INPUTS)
    monkeypatch.chdir(tmp_path)
    named = source.parse(text, {}, None)
    for right in ("", *known):
        outline.check_function(named, right)
    with pytest.raises(UsageError, match=rf"{text} has no function 'nope'") as refused:
        outline.check_function(named, "nope")
    assert refused.value.advice == f"Its functions: {', '.join(known)}."


@pytest.mark.parametrize(
    "text",
    [
        "from iree.turbine.aot import CompiledModule\nclass model(CompiledModule): ...\n",
        "from mine import model, inputs\n",
        MODEL + INPUTS + "exec('def model(): ...')\n",
    ],
)
def test_a_function_that_a_trace_may_give_is_left_to_be_traced(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.py").write_text(text)
    outline.check_function(source.parse(str(tmp_path / "net.py"), {}, None), "nope")
