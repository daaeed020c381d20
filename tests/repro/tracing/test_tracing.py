"""Isolating what does not trace, with real torch and turbine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from driver import PROGRAM, pilot
from places import CASES, ROOT

from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.load import TraceFailed, load
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.bisect import Bisection
from iree_pilot.repro.options import Listeners, Options
from iree_pilot.repro.reducer.shrink import Progress
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.tracing import trace_search as tracing
from iree_pilot.repro.tracing.journal import Traces

pytestmark = pytest.mark.real


#: A gate that looks at values, in the fifth of six blocks, each called with an argument by name.
GATE = (ROOT / "examples" / "gate.py").read_text()

#: What follows the model's class is common to the smaller ones.
TAIL = """

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.before = torch.nn.Linear(8, 8)
        self.inner = Inner()
        self.after = torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.after(self.inner(self.before(x)))


def model():
    return Net().eval()


def inputs():
    return (torch.randn(2, 8),)
"""

INNER = {
    "u16": "return (x * 100).to(torch.uint16).to(torch.float32)",
    "quantized": "return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).dequantize()",
    "sparse": "return torch.sparse.mm(x.T.to_sparse(), x)[:2]",
    "cond": "return torch.cond(x.sum() > 0, lambda v: v.sin(), lambda v: v.cos(), (x,))",
}


def inner(body: str) -> str:
    head = "import torch\n\n\nclass Inner(torch.nn.Module):\n    def forward(self, x):\n"
    return f"{head}        {body}\n{TAIL}"


class Untraced(msgspec.Struct, frozen=True):
    """A source that does not trace: how it failed, and the places of its search."""

    job: Job
    failed: Any
    directory: Path

    def bisect(self, progress: Callable[[Progress], None] = lambda _: None) -> Bisection:
        return tracing.bisect(
            self.job,
            self.failed,
            "llvm-cpu",
            Context(toolchain=toolchain.installed(), directory=self.directory / "state"),
            Options(place=self.directory / "out"),
            Listeners(progress=progress),
        )

    @property
    def program(self) -> str:
        return (self.directory / "out" / "repro.py").read_text()


def untraced(directory: Path, text: str | Path, *, inline: bool = False) -> Untraced:
    """A source that does not trace, and its failure."""
    file = directory / "user" / "net.py"
    file.parent.mkdir()
    file.write_text(text if isinstance(text, str) else text.read_text())
    source = Source(text="user/net.py", kind="file", path=str(file), factory="model")
    return again(Job(source=source, inline=inline), directory)


def again(job: Job, directory: Path) -> Untraced:
    with pytest.raises(TraceFailed) as failed:
        load(job, Context(toolchain=toolchain.installed(), store=Store(directory / "store")))
    return Untraced(job, failed.value, directory)


def isolated(found: Bisection) -> Any:
    assert found.status == "isolated", found.why
    (one,) = found.failures
    assert one.reproducer is not None
    assert one.reproducer.verified and one.reproducer.minimal
    assert one.reproducer.levels == ("pytorch",)
    return one.reproducer


class TestAModuleThatLooksAtValues:
    answered: int

    @pytest.fixture(scope="class")
    @classmethod
    def gate(cls, tmp_path_factory: pytest.TempPathFactory) -> Untraced:
        return untraced(tmp_path_factory.mktemp("gate"), GATE)

    @pytest.fixture(scope="class")
    @classmethod
    def found(cls, gate: Untraced) -> Bisection:
        """Found in two searches: the first one is stopped at its third question, or at one of the
        last two where that was answered before it was noticed."""

        def stop(progress: Progress) -> None:
            if progress.asked >= 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            gate.bisect(stop)
        assert not (gate.directory / "out").exists()
        cls.answered = len(Traces(gate.directory / "state").known)
        return gate.bisect()

    def test_is_found_in_the_depth_of_the_model(self, gate: Untraced, found: Bisection) -> None:
        made = isolated(found)
        assert found.failures[0].why == "`layers.4.gate`, a `Gate`"
        assert "torch.aten.mean" in made.op_names
        report = bundle.read(Path(made.path))
        assert report.failure.signature == gate.failed.failure.signature
        assert report.failure.location == "net.py:14"
        assert any("layers.4.gate" in said for said in report.tried)
        (way,) = [said for said in report.tried if "data_dependent=example" in said]
        assert "(net.py:14) takes" in way
        assert any("torch._check(" in said for said in report.tried)
        assert report.not_iree.startswith("PyTorch, not IREE: torch.export alone rejects the model")
        assert "torch.where" in report.not_iree
        assert ".get_submodule('layers.4.gate')" in gate.program

    def test_goes_on_where_the_search_was_stopped(self, found: Bisection) -> None:
        # Of six: the model, PyTorch's own run, the gate, the layer in it, the gate with made-up
        # inputs, the model with values of its inputs; the one that was cut off is asked again.
        assert self.answered >= 2
        assert isolated(found).oracle_calls == 6, "with those before the interruption"

    def test_is_given_made_up_inputs(self, gate: Untraced, found: Bisection) -> None:
        assert "torch.randn(2, 8, 16)," in gate.program

    def test_is_handed_on_with_the_users_file_and_none_of_his_paths(
        self, gate: Untraced, found: Bisection
    ) -> None:
        out = gate.directory / "out"
        assert (out / "ISSUE.md").read_text().startswith("# Not an IREE issue\n")
        assert (out / "net.py").read_text() == GATE
        for file in out.iterdir():
            assert str(gate.directory) not in file.read_text()

    def test_is_asked_of_by_a_script_that_needs_nothing_of_ours(
        self, gate: Untraced, found: Bisection
    ) -> None:
        judged = subprocess.run(
            [gate.directory / "out" / "run.sh", "--git-bisect"],
            env={"PATH": f"{PROGRAM.parent}:/usr/bin:/bin"},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert judged.returncode == 1, judged.stderr

    def test_is_another_one_where_the_source_has_changed(
        self, gate: Untraced, found: Bisection, tmp_path: Path
    ) -> None:
        (tmp_path / "state").mkdir()
        for file in (gate.directory / "state").glob("*.json*"):
            (tmp_path / "state" / file.name).write_bytes(file.read_bytes())
        text = GATE.replace("i == 4", "i == 1").replace("import torch\n", "import torch\n\n", 1)
        other = untraced(tmp_path, text)
        assert other.failed.failure.signature == gate.failed.failure.signature
        assert other.bisect().failures[0].why == "`layers.1.gate`, a `Gate`"


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("quantized", "torch.aten.quantize_per_tensor"),
        ("sparse", "torch.aten.to_sparse"),
    ],
)
def test_an_operation_that_is_not_imported_is_left_alone(
    tmp_path: Path, name: str, operation: str
) -> None:
    case = untraced(tmp_path, inner(INNER[name]))
    found = case.bisect()
    made = isolated(found)
    assert (made.ops, made.op_names, made.oracle_calls) == (1, (operation,), 2)
    assert found.failures[0].why == "an operation of `inner`, a `Inner`"
    assert case.program.count("torch.ops.") == 1
    assert "import net" not in case.program
    assert (case.directory / "out/ISSUE.md").read_text().startswith("# iree-turbine: ")


def test_an_operation_that_holds_code_is_handed_on_as_its_module(tmp_path: Path) -> None:
    found = untraced(tmp_path, inner(INNER["cond"])).bisect()
    isolated(found)
    assert found.failures[0].why == "`inner`, a `Inner`"


def test_a_module_that_fails_for_dynamic_sizes_keeps_them(tmp_path: Path) -> None:
    dims = 'dynamic_shapes = ({0: torch.export.Dim("n", min=2, max=64)},)'
    case = untraced(tmp_path, inner("return x + 1 if x.shape[0] > 5 else x") + f"\n{dims}\n")
    found = case.bisect()
    isolated(found)
    assert found.failures[0].why == "`inner`, a `Inner`"
    assert dims in case.program


def test_a_module_is_given_objects_of_the_users_as_the_model_gives_them(tmp_path: Path) -> None:
    body = "cache.append(x)\n        return x[:4] if x.mean() > 0 else x"
    text = inner(body).replace("(self, x):\n        cache", "(self, x, cache):\n        cache")
    text = text.replace("(self.before(x))", "(self.before(x), Cache())")
    case = untraced(tmp_path, f"{text}\n\nclass Cache(list):\n    pass\n")
    found = case.bisect()
    isolated(found)
    assert found.failures[0].why == "`inner`, a `Inner`"
    assert "Alone(" in case.program


def test_a_parameter_that_cannot_be_inlined_is_left_with_what_reads_it(tmp_path: Path) -> None:
    case = untraced(tmp_path, CASES / "f8_weight.py", inline=True)
    made = isolated(case.bisect())
    assert made.ops == 1
    assert 'register_buffer("weight", torch.randn(32, 64).to(torch.float8_e4m3fn))' in case.program
    assert "externalize" not in case.program


def test_a_tracer_that_dies_costs_one_question(tmp_path: Path) -> None:
    kills = "import os, signal\n        if torch.compiler.is_exporting(): os.kill(os.getpid(), 11)"
    case = untraced(tmp_path, inner(f"{kills}\n        return x"))
    assert case.failed.failure.signal == "SIGSEGV"
    found = case.bisect()
    isolated(found)
    assert found.failures[0].why == "`inner`, a `Inner`"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "def model():\n    raise ValueError('no such checkpoint')\ndef inputs(): return ()\n",
            "the model cannot be made: ValueError: no such checkpoint (at {file}:2); that is an "
            "error of the source, not of the tracer",
        ),
        (
            inner("return x @ x"),
            "PyTorch itself cannot run the model: RuntimeError: mat1 and mat2 shapes cannot be "
            "multiplied (2x8 and 2x8) (at {file}:6); that is an error of the source, not of the "
            "tracer",
        ),
    ],
)
def test_an_error_of_the_source_is_told_and_not_isolated(
    tmp_path: Path, text: str, why: str
) -> None:
    case = untraced(tmp_path, text)
    found = case.bisect()
    assert (found.status, found.why) == ("gave-up", why.format(file=case.job.source.path))
    assert not (case.directory / "out").exists()


def test_a_failure_that_comes_and_goes_is_told_and_not_isolated(tmp_path: Path) -> None:
    """It was there once, is not in the first trace now, and is again in some of the others."""
    (tmp_path / "count").write_text("0")
    body = f"""if torch.compiler.is_exporting():
            import pathlib
            file = pathlib.Path({str(tmp_path / "count")!r})
            file.write_text(str(int(file.read_text()) + 1))
            if int(file.read_text()) % 6 < 3:
                return x.relu() if x.sum() > 0 else x
        return x"""
    case = untraced(tmp_path, inner(body))
    (tmp_path / "count").write_text("2")
    found = case.bisect()
    assert (found.status, found.oracle_calls) == ("gave-up", 5)
    assert found.why.startswith("the failure is intermittent: ")
    assert not (tmp_path / "out").exists()


def test_another_failure_than_the_one_that_is_wanted_is_told(tmp_path: Path) -> None:
    case = untraced(tmp_path, inner(INNER["u16"]))
    other = msgspec.structs.replace(case.failed.failure, signature="trace-error/Other/ffffffff")
    case.failed.failure = other
    found = case.bisect()
    assert found.status == "gave-up"
    assert found.why.startswith("it now fails in another way: KeyError: torch.uint16")


def test_the_command_line_isolates_it_and_keeps_what_it_promises(
    tmp_path: Path, shared_cache: Path
) -> None:
    (tmp_path / "net.py").write_text(inner(INNER["u16"]))
    done = pilot(
        "bisect", "net.py", "-t", "llvm-cpu", "--json",
        env={"IREE_PILOT_CACHE": shared_cache}, cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    document = done.document
    assert document["status"] == "isolated"
    (found,) = document["failures"]
    assert found["failure"]["kind"] == "trace-error"
    assert set(found["reproducer"]) == {
        *("path", "ops", "op_names", "bytes", "minimal", "verified", "oracle_calls", "seconds"),
        *("levels", "current", "shows", "origin", "pass_name", "pass_class", "companions", "whole"),
        *("since_release", "workarounds", "not_iree", "elsewhere", "named_flags"),
    }
    assert found["reproducer"]["path"] == "repro-net"
    assert found["reproducer"]["bytes"] > 0
    checked = pilot("verify", tmp_path / "repro-net", env={"IREE_PILOT_CACHE": shared_cache})
    assert checked.code == 0, checked.out
    told = pilot(
        "run", "net.py", "-t", "llvm-cpu", "--bisect",
        env={"IREE_PILOT_CACHE": shared_cache}, cwd=tmp_path,
    )  # fmt: skip
    assert told.code == 1
    assert told.out.splitlines()[-1] == str(tmp_path / "repro-net")
    assert "known since" in told.out
