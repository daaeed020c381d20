"""Tokens generated on a device in one session, each compared with PyTorch's."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from driver import pilot
from fake import checkpoints
from places import ROOT

from iree_pilot.pipeline.cli.boundary import Failed
from iree_pilot.pipeline.cli.programs.run import command
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.execution import generation
from iree_pilot.pipeline.execution.generation import Generation, Wanted
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Generated, Job
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.program.program import Dim, Function, Program, Tensor, TensorType, load
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

STEPS = 5


@pytest.fixture(scope="module")
def release() -> Toolchain:
    return toolchain.installed()


def choose(
    text: str, asked: int | None, release: Toolchain, *, inputs: bool = False, **settings: str
) -> tuple[int, dict[str, str]]:
    source = sources.parse(text, settings, None)
    return generation.chosen(source, asked, settings, release, inputs=inputs)


class TestChosen:
    def test_who_asks_for_tokens_gets_a_cache_that_can_grow(self, release: Toolchain) -> None:
        assert choose("llama", 3, release) == (3, {"dynamic": "true"})
        assert choose("llama", 1, release, length="9") == (1, {"dynamic": "true", "length": "9"})

    def test_a_checkpoint_generates_as_its_family_does(
        self, release: Toolchain, tmp_path: Path
    ) -> None:
        saved = checkpoints.save("llama", tmp_path)
        assert choose(str(saved), 2, release) == (2, {"dynamic": "true"})

    @pytest.mark.parametrize("text", ["paligemma", "paligemma2:tiny", "qwen2.5-vl"])
    def test_a_model_of_more_parts_is_chained_unless_a_part_is_named(
        self, text: str, release: Toolchain
    ) -> None:
        assert choose(text, None, release) == (4, {})
        assert choose(f"{text}/vision", None, release) == (0, {})
        assert choose(text, None, release, dynamic="no") == (0, {"dynamic": "no"})

    def test_a_job_without_words_of_a_user_generates_what_is_usual(
        self, release: Toolchain
    ) -> None:
        parts = Job(source=sources.parse("paligemma2", {}, None))
        usual = generation.usual(parts, release)
        assert usual is not None
        assert (usual.chain, usual.steps) == ("iree_pilot.models.chains:paligemma", 4)
        assert generation.usual(Job(source=sources.parse("resnet", {}, None)), release) is None

    @pytest.mark.parametrize("text", ["llama", "resnet", "paligemma2:3b"])
    def test_others_generate_only_when_asked(self, text: str, release: Toolchain) -> None:
        assert choose(text, None, release)[0] == 0

    @pytest.mark.parametrize(
        ("text", "asked", "settings", "message", "advice"),
        [
            ("resnet", 4, {}, "resnet is nothing that generates tokens", "llama"),
            ("llama/decode", 4, {}, "one part of llama", "Leave out /decode"),
            ("llama:8b", 4, {}, "has no weights", "tiny, small"),
            ("llama", 4, {"dynamic": "false"}, "a cache of one length", "--set dynamic=true"),
            ("llama", 0, {}, "--generate 0 generates nothing", "how many tokens"),
            ("llama:tiny", 122, {}, "does not fit its context of 128", "Generate 121 at most"),
            ("llama", -3, {}, "--generate -3 generates nothing", "how many tokens"),
        ],
    )
    def test_what_cannot_be_generated_is_refused_with_the_reason(
        self,
        text: str,
        asked: int,
        settings: dict[str, str],
        message: str,
        advice: str,
        release: Toolchain,
    ) -> None:
        with pytest.raises(UsageError) as refused:
            choose(text, asked, release, **settings)
        assert message in refused.value.message
        assert advice in refused.value.advice

    def test_a_file_is_nothing_that_generates(self, release: Toolchain, tmp_path: Path) -> None:
        (tmp_path / "model.mlir").write_text("module {\n}\n")
        with pytest.raises(UsageError, match="nothing that generates tokens"):
            choose(str(tmp_path / "model.mlir"), 4, release)

    def test_inputs_of_the_users_do_not_reach_a_chain(self, release: Toolchain) -> None:
        with pytest.raises(UsageError, match="for one function"):
            choose("llama", 4, release, inputs=True)

    def test_a_release_without_a_python_runtime_is_named(
        self, release: Toolchain, tmp_path: Path
    ) -> None:
        built = msgspec.structs.replace(release, version="mine", runtime=tmp_path / "build/tools")
        with pytest.raises(EnvironmentFault, match="release mine has no Python runtime"):
            choose("llama", 4, built)
        assert choose("paligemma2", None, built)[0] == 0


def decoding(longest: int | None, prompt: int) -> Program:
    """A program whose decode takes a cache of 2 to `longest` tokens; the example has `prompt`."""
    shape = (2, 1, 2, Dim(symbol="cached", min=2, max=longest), 16)
    cache = Tensor(dtype="f32", shape=(2, 1, 2, prompt, 16), file="keys.bin")
    decode = Function(
        name="decode",
        inputs=(TensorType(name="keys", dtype="f32", shape=shape),),
        outputs=(),
        example=(cache,),
    )
    return Program(source="a model", digest="", functions=(decode,), parameters=None, origin={})


class TestContext:
    def test_the_last_token_needs_no_place(self) -> None:
        generation.check(decoding(longest=127, prompt=8), 121)
        with pytest.raises(UsageError) as refused:
            generation.check(decoding(longest=127, prompt=8), 122)
        assert "--generate 122 after a prompt of 8 tokens" in refused.value.message
        assert "context of 128" in refused.value.message
        assert "Generate 121 at most" in refused.value.advice

    def test_without_a_bound_any_number_fits(self) -> None:
        generation.check(decoding(longest=None, prompt=8), 10_000)


@pytest.fixture(scope="module")
def document(shared_cache: Path) -> Any:
    """Llama on the processor and on Vulkan, chained after its parts."""
    done = pilot(
        *("run", "llama", "-t", "llvm-cpu,vulkan", "--generate", str(STEPS), "--json"),
        env={"IREE_PILOT_CACHE": shared_cache},
    )
    assert done.code == 0, done.out + done.err
    return done.document


@pytest.mark.real
class TestLlama:
    def test_parts_and_tokens_agree_with_pytorch(self, document: Any) -> None:
        for case in document["cases"]:
            if case["status"] == "compiled":
                assert case["target"] == "vulkan"
                assert case["generation"] is None
                continue
            assert [s["name"] for s in case["steps"]][-2:] == ["compare", "generate"]
            assert case["comparison"]["rel_l2"] < 1e-5
            tokens = case["generation"]["tokens"]
            assert [t["step"] for t in tokens] == [*range(1, STEPS + 1)]
            assert len({tuple(t["token"]) for t in tokens}) > 1
            for token in tokens:
                assert token["ok"]
                assert token["token"] == token["reference_token"]
                assert 0 < token["rel_l2"] <= token["tolerance"] < 1e-5
                assert token["seconds"] > 0

    def test_what_pytorch_generated_is_kept_and_other_numbers_trace_nothing_anew(
        self, document: Any, shared_cache: Path
    ) -> None:
        again = pilot(
            *("run", "llama", "-t", "llvm-cpu", "--generate", "2"),
            env={"IREE_PILOT_CACHE": shared_cache},
        )
        assert again.code == 0, again.out + again.err
        assert "traced before; taken from the cache" in again.out
        assert "generate   ok" in again.out
        first, second = (t["token"][0] for t in document["cases"][0]["generation"]["tokens"][:2])
        assert f"1: ok  token {first}, relative L2 of the logits" in again.out
        assert f"2: ok  token {second}, relative L2 of the logits" in again.out
        kept = [*(shared_cache / "store" / generation.KIND).rglob("generated.json")]
        assert {len(msgspec.json.decode(k.read_bytes())["tokens"]) for k in kept} >= {2, STEPS}


class Bench:
    """The compiled Llama of `document`, to be generated with in this process."""

    def __init__(self, document: Any, release: Toolchain) -> None:
        directory = Path(document["program"]["directory"])
        self.loaded = Loaded(
            program=load(directory), directory=str(directory), seconds=0, cached=True
        )
        self.release = release
        self.context = Context(toolchain=release, limits=Limits(seconds=60))
        self.module = Path(document["cases"][0]["output"])
        source = sources.parse("llama", {"dynamic": "true"}, None)
        self.wanted = generation.wanted(Job(source=source), STEPS)
        self.reference = generation._reference(self.wanted, self.loaded, self.context)

    def run(self, chain: str = "", limits: Limits | None = None, **changed: Any) -> Generation:
        wanted: Wanted = self.wanted
        if chain:
            wanted = msgspec.structs.replace(wanted, chain=chain)
        return generation.run(
            wanted,
            changed.get("loaded", self.loaded),
            changed.get("module", self.module),
            "local-sync",
            self.context.bounded(limits) if limits else self.context,
            contextlib.nullcontext(),
        )

    def expect(self, monkeypatch: pytest.MonkeyPatch, reference: Generated | None = None) -> None:
        """Has the device compared with this instead of what PyTorch generates for the chain."""
        made = reference or self.reference
        monkeypatch.setattr(generation, "_reference", lambda *_: made)

    def altered(self, directory: Path, *steps: int) -> Generated:
        """What PyTorch generated, but with other logits in some steps."""

        def alter(tensors: tuple[Tensor, ...], dtype: type[Any]) -> tuple[Tensor, ...]:
            made = list(tensors)
            for step in steps:
                file = directory / f"{dtype.__name__}{step}"
                (np.fromfile(made[step - 1].file, dtype) * dtype(1.001)).tofile(file)
                made[step - 1] = msgspec.structs.replace(made[step - 1], file=str(file))
            return tuple(made)

        reference = self.reference.reference
        changed = msgspec.structs.replace(
            reference,
            outputs=alter(reference.outputs, np.float32),
            precise=alter(reference.precise, np.float64),
        )
        return msgspec.structs.replace(self.reference, reference=changed)


@pytest.fixture
def bench(
    document: Any, release: Toolchain, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    monkeypatch.setenv("IREE_PILOT_CACHE", str(shared_cache))
    return Bench(document, release)


CHAINS = """
import os, signal, time
from iree_pilot.models.chains import causal

def crash(parts, inputs):
    return failing(parts, inputs, lambda: os.kill(os.getpid(), signal.SIGSEGV))

def hang(parts, inputs):
    return failing(parts, inputs, lambda: time.sleep(600))

def misfit(parts, inputs):
    return failing(parts, inputs, lambda: parts.call("decode", *inputs["prefill"].values()))

def frugal(parts, inputs):
    read = parts.read

    def logits(value):
        assert len(value.view.shape) == 3, "the cache was read"
        return read(value)

    parts.read = logits
    return causal(parts, inputs)

def failing(parts, inputs, fail):
    chain = causal(parts, inputs)
    token = yield next(chain)
    yield chain.send(token)
    fail()
"""


def chains(monkeypatch: pytest.MonkeyPatch, directory: Path, name: str) -> str:
    """One of CHAINS, where the child finds it."""
    (directory / "other_chains.py").write_text(CHAINS)
    monkeypatch.setenv("PYTHONPATH", f"{directory}:{ROOT}")
    return f"other_chains:{name}"


@pytest.mark.real
def test_the_cache_stays_on_the_device(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench.expect(monkeypatch)
    found = bench.run(chain=chains(monkeypatch, tmp_path, "frugal"))
    assert [t.ok for t in found.tokens] == [True] * STEPS, found.failure


@pytest.mark.real
class TestFailures:
    def test_a_wrong_step_is_told_as_the_first_that_differs(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        bench.expect(monkeypatch, bench.altered(tmp_path, 3, 4))
        found = bench.run()
        assert [t.ok for t in found.tokens] == [True, True, False, False, True]
        assert found.failure is not None
        assert found.failure.kind == "mismatch"
        assert found.failure.message.startswith("the logits of token 3 of 5 differ: ")
        assert "(2 of 5 tokens differ)" in found.failure.message

    def test_a_wrong_step_fails_the_command_though_all_parts_agree(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        bench.expect(monkeypatch, bench.altered(tmp_path, 5))
        words = ["llama", "-t", "llvm-cpu", "--generate", str(STEPS)]
        told = CliRunner().invoke(command, [*words, "--bisect"])
        assert isinstance(told.exception, Failed)
        assert told.exception.exit_code == 1
        assert "generate   failed" in told.output
        assert "5: differs  token" in told.output
        assert "generates, but differs from the reference" in told.output
        assert "what shows in a chain of functions only is not isolated" in told.output
        (case,) = msgspec.json.decode(CliRunner().invoke(command, [*words, "--json"]).stdout)[
            "cases"
        ]
        assert (case["status"], case["comparison"]["verdict"]) == ("failed", "ok")
        assert case["failure"] == case["generation"]["failure"]
        assert case["failure"]["message"].startswith("the logits of token 5 of 5 differ: ")

    def test_other_weights_on_the_device_are_noticed_at_the_first_token(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        bench.expect(monkeypatch)
        other = tmp_path / "program"
        shutil.copytree(bench.loaded.directory, other)
        archive = other / "parameters.irpa"
        raw = np.frombuffer(archive.read_bytes(), np.float32).copy()
        raw[raw.size // 2 :] *= 1.5
        archive.chmod(0o644)
        archive.write_bytes(raw.tobytes())
        found = bench.run(loaded=msgspec.structs.replace(bench.loaded, directory=str(other)))
        assert not found.tokens[0].ok
        assert found.failure is not None
        assert found.failure.kind == "mismatch"

    @pytest.mark.parametrize(
        ("chain", "kind", "words"),
        [
            ("crash", "crash", "at token 3 of 5, in decode: "),
            ("hang", "timeout", "at token 3 of 5, in decode: "),
            ("misfit", "runtime-error", "at token 3 of 5, in decode: "),
        ],
    )
    def test_what_ends_the_session_is_contained_and_told_with_its_step(
        self,
        chain: str,
        kind: str,
        words: str,
        bench: Bench,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        bench.expect(monkeypatch)
        limits = Limits(seconds=3) if chain == "hang" else None
        found = bench.run(chain=chains(monkeypatch, tmp_path, chain), limits=limits)
        assert found.tokens == ()
        assert found.failure is not None
        assert found.failure.kind == kind
        assert found.failure.message.startswith(words)

    def test_a_module_that_does_not_load_is_told_so(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        bench.expect(monkeypatch)
        (tmp_path / "module.vmfb").write_bytes(bench.module.read_bytes()[:1000])
        found = bench.run(module=tmp_path / "module.vmfb")
        assert found.failure is not None
        assert (found.failure.kind, found.failure.phase) == ("runtime-error", "load")

    def test_what_fails_in_pytorch_is_told_as_such(self, bench: Bench) -> None:
        found = bench.run(chain="iree_pilot.models.chains:paligemma")
        assert found.failure is not None
        assert found.failure.kind == "trace-error"
        assert "while generating tokens with PyTorch" in found.failure.message
