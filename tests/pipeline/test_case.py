"""A case compiles once, runs where it can, and its record tells every step."""

from __future__ import annotations

import concurrent.futures
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from comparing import compare
from fake import stub_toolchain

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import Settings, Silent
from iree_pilot.pipeline.case_result import CaseResult, Step
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.program.program import (
    Function,
    Parameter,
    Parameters,
    Program,
    Reference,
)
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets.devices import Device
from iree_pilot.pipeline.targets.targets import Plan, Target
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.phases import Phase
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

HOST = Device(uri="local-task", driver="local-task", name="a CPU", fingerprint="a", properties={})
TARGET = Target(spec="llvm-cpu", backend="llvm-cpu", arch="host")
NOWHERE = Plan(
    target=TARGET, flags=("--iree-hal-target-device=local",), why_not_run="no such device"
)
MAIN = Function(name="main", inputs=(), outputs=(), example=())


class Heard(Silent):
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def planned(
        self, target: str, arch: str | None, warnings: tuple[str, ...], notes: tuple[str, ...]
    ) -> None:
        self.words.append(f"planned {target} {arch} {' '.join(warnings)}".strip())

    def began(self, target: str, step: str) -> None:
        self.words.append(f"began {step}")

    def phase(self, target: str, phase: Phase) -> None:
        self.words.append(phase.name)

    def ended(self, target: str, step: Step) -> None:
        self.words.append(f"ended {step.name} {step.status}")


class Bench:
    """One program, one stub release, one store."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.toolchain = stub_toolchain(directory / "release")
        self.starts = directory / "starts"
        self.heard = Heard()
        monkeypatch.setenv("IREE_STUB_STARTS", str(self.starts))

    def load(self, text: str, functions: tuple[Function, ...] = (MAIN,), **fields: Any) -> Loaded:
        (self.directory / "program.mlir").write_text(text)
        record = Program(
            source="a model",
            digest=hashlib.sha256(text.encode()).hexdigest(),
            functions=functions,
            parameters=fields.pop("parameters", None),
            origin={},
        )
        return Loaded(program=record, directory=str(self.directory), seconds=0.25, cached=False)

    def run(
        self,
        text: str = "module {\n}\n",
        plan: Plan = NOWHERE,
        *,
        toolchain: Toolchain | None = None,
        loaded: Loaded | None = None,
        **settings: Any,
    ) -> CaseResult:
        self.heard = Heard()
        context = Context(
            toolchain=toolchain or self.toolchain, limits=settings.pop("limits", Limits())
        )
        return case.run(loaded or self.load(text), plan, context, Settings(**settings), self.heard)

    @property
    def compiles(self) -> int:
        """How often the compiler was started to compile from the beginning."""
        lines = self.starts.read_text().splitlines() if self.starts.exists() else []
        return sum("--dump-compilation-phases-to" in line for line in lines)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def step(result: CaseResult, name: str) -> Step:
    (found,) = (s for s in result.steps if s.name == name)
    return found


class TestRecord:
    def test_a_case_that_cannot_be_run_is_compiled(self, bench: Bench) -> None:
        result = bench.run()
        assert result.status == "compiled"
        assert result.why == "compiled, not run: no such device"
        assert [(s.name, s.status) for s in result.steps] == [
            ("trace", "ok"),
            ("compile", "ok"),
            ("run", "compiled"),
        ]
        assert step(result, "trace").seconds == 0.25
        assert result.failure is None
        assert result.release == "9.9.0"
        assert Path(result.output or "").read_bytes().startswith(b"stub module")
        assert [p.name for p in result.phases] == list(bench.toolchain.phases[1:])

    def test_a_watcher_hears_of_it_in_order(self, bench: Bench) -> None:
        bench.run(plan=msgspec.structs.replace(NOWHERE, warnings=("mind",)))
        assert bench.heard.words == [
            "planned llvm-cpu host mind",
            "began compile",
            *bench.toolchain.phases[1:],
            "ended compile ok",
        ]

    @pytest.mark.slow
    def test_a_watcher_hears_when_the_phase_of_a_failure_is_confirmed(self, bench: Bench) -> None:
        bench.run("// stub: error-at flow no\n")
        *_, confirming, ended = bench.heard.words
        assert (confirming, ended) == ("began confirm", "ended compile failed")

    @pytest.mark.slow
    def test_a_failure_is_told_whole(self, bench: Bench) -> None:
        result = bench.run("// stub: error-at flow 'a.b' op is wrong\n")
        assert result.status == "failed"
        assert result.why == "does not compile"
        assert result.failure is not None
        assert (result.failure.phase, result.failure.op) == ("flow", "a.b")
        assert result.phase_confirmed is True
        assert result.output is None
        assert step(result, "compile").status == "failed"
        assert result.resume is not None
        assert Path(result.resume[1]).is_file(), "the last good dump is where the command says"

    @pytest.mark.slow
    def test_what_the_compiler_said_is_kept(self, bench: Bench) -> None:
        assert bench.run().messages is None
        result = bench.run("// stub: print-at flow a remark\n")
        assert Path(result.messages or "").read_text() == "a remark\n"

    def test_it_is_json_as_it_is(self, bench: Bench) -> None:
        result = bench.run("// stub: crash-at hal\n")
        encoded = msgspec.json.encode(result)
        assert msgspec.json.decode(encoded, type=CaseResult) == result
        assert b'"pass":"StubPass"' in encoded


class TestWhyNotRun:
    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({"functions": ()}, "no public function that can be called"),
            (
                {"functions": (msgspec.structs.replace(MAIN, example=None),)},
                "no example inputs",
            ),
            (
                {
                    "parameters": Parameters(
                        scope="model",
                        tensors=(Parameter(name="w", dtype="f32", shape=(2,)),),
                    )
                },
                "no weights",
            ),
            (
                {
                    "parameters": Parameters(
                        scope="model", tensors=(), scopes={"model": ("a.irpa",), "": ()}
                    )
                },
                "no weights for scope (unnamed) (--weights =FILE",
            ),
        ],
    )
    def test_the_program_may_not_be_ready(
        self, bench: Bench, fields: dict[str, Any], why: str
    ) -> None:
        plan = Plan(target=TARGET, flags=(), device=HOST)
        loaded = bench.load("module {\n}\n", **fields)
        result = bench.run(plan=plan, loaded=loaded)
        assert result.status == "compiled"
        assert why in result.why

    @pytest.mark.slow
    def test_one_of_several_functions_is_named_where_it_fails(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        plan = Plan(target=TARGET, flags=(), device=HOST)
        broken = stub_toolchain(tmp_path / "broken", run={HOST.uri: "UNAVAILABLE; it is broken"})
        for names in (["main"], ["main", "other"]):
            functions = tuple(msgspec.structs.replace(MAIN, name=name) for name in names)
            loaded = bench.load("module {\n}\n", functions=functions)
            result = bench.run(plan=plan, loaded=loaded, toolchain=broken)
            messages = [f.failure.message for f in result.functions if f.failure]
            starts = ["UNAVAILABLE"] if names == ["main"] else [f"{n}: UNAVAILABLE" for n in names]
            assert [m[: len(s)] for m, s in zip(messages, starts, strict=True)] == starts

    def test_a_release_may_have_no_runtime(self, bench: Bench) -> None:
        plan = Plan(target=TARGET, flags=(), device=HOST)
        bare = msgspec.structs.replace(bench.toolchain, runtime=None)
        result = bench.run(plan=plan, toolchain=bare)
        assert result.status == "compiled"
        assert result.why == "compiled, not run: there is no IREE runtime of release 9.9.0"

    def test_only_compiling_was_asked_for(self, bench: Bench) -> None:
        result = bench.run(run=False)
        assert result.status == "compiled"
        assert [s.name for s in result.steps] == ["trace", "compile"]

    def test_ir_cannot_be_run(self, bench: Bench) -> None:
        plan = Plan(target=TARGET, flags=(), device=HOST)
        result = bench.run(plan=plan, to="flow")
        assert result.why == "compiled, not run: compiled up to flow only"


class TestStore:
    def test_the_second_time_the_compiler_is_not_started(self, bench: Bench) -> None:
        first = bench.run()
        assert not step(first, "compile").cached
        second = bench.run()
        assert bench.compiles == 1
        assert step(second, "compile").cached
        assert bench.heard.words[2:-1] == list(bench.toolchain.phases[1:]), "told all the same"
        unlike = {"steps": ()}
        assert msgspec.structs.replace(first, **unlike) == msgspec.structs.replace(second, **unlike)

    def test_a_failure_is_kept_too(self, bench: Bench) -> None:
        text = "// stub: crash-at hal\n"
        first = bench.run(text)
        starts = bench.starts.read_text()
        assert bench.run(text).failure == first.failure
        assert bench.starts.read_text() == starts

    @pytest.mark.parametrize(
        "change",
        [
            {"text": "module {\n// another\n}\n"},
            {"flags": ("--iree-vulkan-target=x",)},
            {"to": "flow"},
            {"resume": "input"},
            {"plan": msgspec.structs.replace(NOWHERE, flags=())},
            {"fresh": True},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_what_changes_the_result_compiles_again(
        self, bench: Bench, change: dict[str, Any]
    ) -> None:
        bench.run()
        result = bench.run(**change)
        assert bench.compiles == 2
        assert not step(result, "compile").cached

    @pytest.mark.slow
    def test_another_compiler_compiles_again(self, bench: Bench, tmp_path: Path) -> None:
        bench.run()
        bench.run(toolchain=stub_toolchain(tmp_path / "other", revision="1" * 40))
        assert bench.compiles == 2

    def test_a_file_that_a_flag_names_is_part_of_the_input(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        spec = tmp_path / "tuning.mlir"
        spec.write_text("one")
        flags = (f"--iree-vulkan-target={spec}",)
        bench.run(flags=flags)
        bench.run(flags=flags)
        assert bench.compiles == 1
        spec.write_text("another")
        bench.run(flags=flags)
        assert bench.compiles == 2

    @pytest.mark.slow
    def test_code_made_for_the_host_stays_on_it(self, bench: Bench) -> None:
        made_for_it = ("--iree-llvmcpu-target-cpu=host",)
        here = Plan(target=TARGET, flags=made_for_it, device=HOST)
        other = msgspec.structs.replace(HOST, fingerprint="b")
        bench.run(plan=here, run=False)
        bench.run(plan=msgspec.structs.replace(here, device=other), run=False)
        assert bench.compiles == 2
        anywhere = msgspec.structs.replace(here, flags=("--iree-llvmcpu-target-cpu=generic",))
        bench.run(plan=anywhere, run=False)
        bench.run(plan=msgspec.structs.replace(anywhere, device=other), run=False)
        assert bench.compiles == 3

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("text", "limits"),
        [
            ("// stub: hang-at flow\n", Limits(seconds=0.4)),
            ("// stub: eat-at flow 300\n", Limits(memory_bytes=100 * 2**20)),
            ("// stub: flood-at flow\n", Limits(output_bytes=100_000)),
            ("// stub: crash-at flow SIGKILL\n", Limits()),
            ("// stub: print-at flow sh: 1: ld.lld: not found\n// stub: exit-at flow 1\n", None),
        ],
        ids=["time", "memory", "output", "killed", "tool missing"],
    )
    def test_what_may_be_gone_next_time_is_not_kept(
        self, bench: Bench, text: str, limits: Limits | None, cache: Path
    ) -> None:
        first = bench.run(text, limits=limits or Limits())
        assert first.failure is not None
        assert first.failure.passing
        compiles = bench.compiles
        assert [kind.entries for kind in Store().info() if kind.kind == "compile"] == []
        bench.run(text, limits=limits or Limits())
        assert bench.compiles == 2 * compiles

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "flag", ["--mlir-print-ir-after-all", "--mlir-timing", "--iree-hal-dump-executable-files"]
    )
    def test_flags_that_make_the_compiler_tell_more_compile_again(
        self, bench: Bench, tmp_path: Path, flag: str
    ) -> None:
        known = stub_toolchain(
            tmp_path / "telling",
            flags=["compile-from", "compile-to", "dump-compilation-phases-to", flag[2:]],
        )
        plan = msgspec.structs.replace(NOWHERE, flags=())
        for _ in range(2):
            result = bench.run(toolchain=known, plan=plan, flags=(flag,))
            assert result.failure is None
            assert not step(result, "compile").cached
        assert bench.compiles == 2

    def test_a_damaged_module_is_compiled_again(self, bench: Bench) -> None:
        output = Path(bench.run().output or "")
        sound = output.read_bytes()
        output.parent.chmod(0o755)
        output.chmod(0o644)
        output.write_bytes(b"damaged")
        again = bench.run()
        assert not step(again, "compile").cached
        assert Path(again.output or "").read_bytes() == sound

    def test_two_at_once_compile_once(self, bench: Bench) -> None:
        gate = "// stub: grow-at flow 2000000\n"  # reading this takes longer than starting
        loaded = bench.load(gate)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(bench.run, loaded=loaded) for _ in range(4)]
            results = [future.result(timeout=60) for future in futures]
        assert bench.compiles == 1
        assert sum(step(r, "compile").cached for r in results) == 3
        assert len({r.output for r in results}) == 1

    def test_what_is_refused_leaves_nothing(self, bench: Bench, cache: Path) -> None:
        for wrong in ({"to": "flwo"}, {"flags": ("-o",)}, {"resume": "hal", "to": "flow"}):
            with pytest.raises(UsageError):
                bench.run(**wrong)
        assert bench.compiles == 0
        assert not (cache / "store" / "compile").exists()


def test_outputs_that_agree_are_not_all_where_a_call_changes_more(tmp_path: Path) -> None:
    def compared(got: list[float], *names: str, **options: Any) -> Comparison:
        found = compare(tmp_path, [("f32", got)], [("f32", [1.0, 2.0])], **options)
        reference = Reference(outputs=(), unreturned=names)
        function = Function(name="main", inputs=(), outputs=(), reference=reference)
        return case.with_unreturned(found, function)

    assert compared([1.0, 2.0]).ok
    agrees = compared([1.0, 2.0], "n", "caches['k']")
    assert agrees.verdict == "not-compared"
    assert agrees.why == "what it changes in n, caches['k'] is no output; its outputs agree"
    assert compared([1.0, 9.0], "n").differs
    noisy = compared([1.0, 2.0], "n", incomparable=("it draws random numbers: aten.rand",))
    assert noisy.why == "what it changes in n is no output; it draws random numbers: aten.rand"


def test_a_compile_that_is_interrupted_leaves_nothing(bench: Bench, cache: Path) -> None:
    class Impatient(Silent):
        def phase(self, target: str, phase: Phase) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case.run(
            bench.load("// stub: hang-at hal\n"),
            NOWHERE,
            Context(toolchain=bench.toolchain),
            Settings(),
            Impatient(),
        )
    left = [path for path in (cache / "store").rglob("*") if path.name != ".locks"]
    assert [path for path in left if "toolchain" not in path.parts and path.is_file()] == []
    assert list((cache / "store" / ".tmp").iterdir()) == []
