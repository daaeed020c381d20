"""Wrong numbers are followed to the first phase and pass that are wrong, and to a culprit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Function, Program, Reference, Tensor, TensorType
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.targets.devices import Device
from iree_pilot.pipeline.targets.targets import Plan, Target
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.attribution import attribution
from iree_pilot.repro.attribution.attribution import AttributionRow, Narrowed, Way, What
from iree_pilot.repro.attribution.variant_trial import AttributionTrial, VariantTried, Verdict
from iree_pilot.repro.failing_pass import phases, retarget
from iree_pilot.repro.failing_pass.bench import RealBench, reference_paths
from iree_pilot.repro.failing_pass.dumps import Dump
from iree_pilot.repro.failing_pass.plain_pipeline import plain

PHASES = ("start", "input", "abi", "flow", "stream", "executable-sources")


def change(name: str) -> Dump:
    return Dump(
        before=False,
        failed=False,
        pass_class=f"{name.title()}Pass",
        spelled=name,
        operation="",
        symbol="",
        text=f"module {{\n  // {name}\n}}",
    )


class FakeBench:
    """phases: what finishing gives after each; passes: after each change within the wrong phase."""

    def __init__(
        self,
        after: Sequence[Verdict],
        passes: Sequence[Verdict] = (),
        source: Verdict | None = None,
        plain: Verdict | None = None,
    ) -> None:
        self.paths = ("first", "second")
        self.phases = PHASES
        self.asked = 0
        self.generated = ("configured", "targets") if plain else None
        self._after: dict[str, Verdict] = dict(zip(PHASES, after, strict=True))
        self._after |= {"configured": plain} if plain else {}
        self._first = source
        self._passes = passes

    def finish(self, phase: str, path: str) -> VariantTried:
        self.asked += 1
        if self._first and path == "first":
            return VariantTried(verdict=self._first)
        return VariantTried(verdict=self._after[phase])

    def changes(self, since: str, phase: str) -> Sequence[Dump]:
        self.between = (since, phase)
        return [change(f"p{i}") for i in range(len(self._passes))]

    def finish_change(self, change: Dump, since: str, path: str) -> VariantTried:
        self.asked += 1
        return VariantTried(verdict=self._passes[int(change.name[1:])])


def test_the_first_phase_after_which_it_is_wrong_is_found() -> None:
    found = phases.find(FakeBench(["right", "right", "right", "wrong", "wrong", "wrong"]))
    assert (found.state, found.since, found.phase) == ("earliest", "abi", "flow")
    assert found.path == "first" and "first wrong phase: flow " in found.conclusion
    assert {one.phase: one.verdict for one in found.finished}["flow"] == "wrong"


def test_each_trial_is_told_with_how_many_were_before() -> None:
    told: list[str] = []
    bench = FakeBench(["right", "right", *["wrong"] * 4], ["right", "right", "wrong", "wrong"])
    phases.find(bench, told.append)
    assert len(told) == bench.asked == len({*told})
    assert told[0] == "phase start, 0 trials before"
    assert told[1] == "phase executable-sources, 1 trial before"
    assert told[-1] == f"pass p2 of abi, {bench.asked - 1} trials before"


def test_within_the_phase_the_pass_is_found_with_what_it_changed() -> None:
    passes: list[Verdict] = ["right", "right", "right", "wrong", "wrong"]
    found = phases.find(FakeBench(["right", "right", *["wrong"] * 4], passes))
    assert (found.phase, found.pass_name, found.pass_class) == ("abi", "p3", "P3Pass")
    assert "-  // p2\n+  // p3\n" in found.changed


@pytest.mark.parametrize(
    "passes", [["right", "right", "right"], ["right"], [], ["right", "fails", "wrong"]]
)
def test_a_pass_that_cannot_be_told_is_not_named(passes: list[Verdict]) -> None:
    found = phases.find(FakeBench(["right", "wrong", "wrong", "wrong", "wrong", "wrong"], passes))
    assert (found.state, found.phase, found.pass_name) == ("earliest", "input", "")


def test_passes_between_which_nothing_can_be_asked_are_told_together() -> None:
    passes: list[Verdict] = ["right", "fails", "fails", "wrong", "wrong"]
    found = phases.find(FakeBench(["right", *["wrong"] * 5], passes))
    assert found.pass_name == "" and found.conclusion.endswith(
        "first wrong pass: one of p1, p2, p3"
    )


def test_what_is_right_up_to_the_end_goes_wrong_after_it() -> None:
    found = phases.find(FakeBench(["right"] * 6))
    assert (found.state, found.phase) == ("later", "executable-sources")
    assert "a later step for this target" in found.conclusion


def test_code_generation_is_asked_for_the_pass_where_its_default_pipeline_is_right() -> None:
    passes: list[Verdict] = ["right", "right", "fails", "wrong", "wrong"]
    found = phases.find(FakeBench(["right"] * 6, passes, plain="right"))
    assert (found.state, found.since, found.phase) == ("earliest", "configured", "targets")
    assert found.path == phases.PLAIN and "p2, p3" in found.conclusion
    for verdict in ("wrong", "fails"):
        assert phases.find(FakeBench(["right"] * 6, passes, plain=verdict)).state == "later"


def test_what_is_wrong_on_every_path_from_the_source_on_is_said_plainly() -> None:
    found = phases.find(FakeBench(["wrong"] * 6))
    assert found.state == "everywhere" and found.phase == ""
    assert "first, second" in found.conclusion and "or the reference" in found.conclusion


@pytest.mark.parametrize("first", ["wrong", "fails"])
def test_another_path_serves_where_the_first_is_wrong_itself(first: Verdict) -> None:
    found = phases.find(FakeBench(["right", "right", *["wrong"] * 4], source=first))
    assert (found.state, found.phase, found.path) == ("earliest", "abi", "second")


def test_without_a_path_that_runs_nothing_is_claimed() -> None:
    assert phases.find(FakeBench(["fails"] * 6)).state == "unknown"
    assert phases.find(FakeBench(["right", *["fails"] * 5])).state == "unknown"


VERDICTS = st.sampled_from(["right", "wrong", "fails"])


@given(st.lists(VERDICTS, min_size=6, max_size=6), st.lists(VERDICTS, max_size=40))
def test_what_is_told_was_seen_and_few_questions_are_asked(
    after: list[Verdict], passes: list[Verdict]
) -> None:
    bench = FakeBench(after, passes)
    found = phases.find(bench)
    seen = {one.phase: one.verdict for one in found.finished if not one.pass_name}
    if found.state == "earliest":
        assert seen[found.since] == "right" and seen[found.phase] == "wrong"
        between = PHASES[PHASES.index(found.since) + 1 : PHASES.index(found.phase)]
        assert all(seen[phase] == "fails" for phase in between)
    if found.state == "later":
        assert seen[found.phase] == "right"
    if found.pass_name:
        index = int(found.pass_name[1:])
        assert passes[index] == "wrong"
    assert bench.asked == len(found.finished) <= len(PHASES) * 2 + 16


# -- another target for the same IR ---------------------------------------------------------------

VULKAN = """\
#t = #hal.executable.target<"spirv", "fb", {a = #iree.b<x = [1], f = () -> (i1)>, s = ">"}>
#d = #hal.device.target<"vulkan", [#t]> : !hal.device
util.global private @__device_0 = #hal.device.target<"vulkan", [#hal.executable.target<"x", "y">]>
"""


def test_only_the_targets_are_replaced() -> None:
    made = retarget.retarget(VULKAN, retarget.DeviceAttributes("#DEVICE", "#EXECUTABLE"))
    assert made.splitlines() == [
        "#t = #EXECUTABLE",
        "#d = #DEVICE : !hal.device",
        "util.global private @__device_0 = #DEVICE",
    ]


def test_the_targets_of_a_path_are_read_where_there_is_one_of_each() -> None:
    one = '@d = #hal.device.target<"local", [#hal.executable.target<"vmvx", "fb", {}>]> : !d'
    assert retarget.read(one) == retarget.DeviceAttributes(
        '#hal.device.target<"local", [#hal.executable.target<"vmvx", "fb", {}>]>',
        '#hal.executable.target<"vmvx", "fb", {}>',
    )
    assert retarget.read(one + one.replace("vmvx", "other")) is None
    assert retarget.read("module {}") is None


CONFIGURED = """\
#c = #iree_cpu.lowering_config<distribution = [8]>
#t = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<X>, {a = "b>"}>
func.func @f() attributes {translation_info = #t} {
  %0 = linalg.fill {lowering_config = #c} ins(%a : i64) outs(%b : tensor<8xi64>) -> tensor<8xi64>
}
"""


def test_configured_executables_go_back_to_the_default_pipeline() -> None:
    text = plain(CONFIGURED, "llvm-cpu")
    assert text is not None
    made = text.splitlines()
    new = "#t = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<Default>>"
    assert made[1] == new
    older = plain("#iree_codegen.translation_info<pipeline = CPUDoubleTilingExpert>", "llvm-cpu")
    assert older == "#iree_codegen.translation_info<pipeline = CPUDefault>"
    assert plain(CONFIGURED, "vulkan") is None
    assert plain("module {}", "llvm-cpu") == "module {}"
    assert "lowering_config = " not in made[3] and "linalg.fill" in made[3]
    assert [made[2], made[4]] == [CONFIGURED.splitlines()[i] for i in (2, 4)]


# -- attribution ----------------------------------------------------------------------------------


def row(
    what: What, how: str, verdict: Verdict, backend: str = "vulkan", digest: str = ""
) -> AttributionRow:
    digest = digest or verdict
    return AttributionRow(
        what=what, how=how, backend=backend, device=how, verdict=verdict, digest=digest
    )


OWN = row("as reported", "vulkan:llvmpipe", "wrong")
CPU = row("as reported", "llvm-cpu:host", "wrong", "llvm-cpu")


@pytest.mark.parametrize(
    ("rows", "culprit", "words"),
    [
        ([row("as reported", "vulkan", "right")], "undecided", "run gave correct results"),
        ([row("as reported", "vulkan", "fails")], "undecided", "compile and run failed"),
        ([OWN, row("device", "RADV", "right"), row("level", "O0", "right")], "driver", "on RADV"),
        (
            [OWN, row("level", "O0", "right"), row("level", "O3", "wrong")],
            "compiler",
            "an optimisation: correct at O0 and wrong at O3",
        ),
        ([OWN, row("target", "vulkan:rdna3", "right")], "target", "may not support"),
        ([CPU, row("target", "llvm-cpu:generic", "right", "llvm-cpu")], "compiler", "generic"),
        (
            [CPU, row("level", "O0", "wrong"), row("backend", "vmvx", "right")],
            "compiler",
            "code generation for llvm-cpu: wrong at O0 too, correct with vmvx",
        ),
        ([OWN, row("backend", "vmvx", "right")], "undecided", "or the driver of its only device"),
        (
            [OWN, row("device", "RADV", "wrong"), row("backend", "vmvx", "right")],
            "compiler",
            "on every device tried",
        ),
        ([OWN, row("backend", "vmvx", "wrong")], "compiler", "give the same wrong results"),
        ([OWN, row("backend", "vmvx", "wrong", digest="x")], "compiler", "are wrong"),
        ([OWN, row("backend", "vmvx", "fails")], "undecided", "no other backend compiles"),
    ],
)
def test_the_nearest_way_that_is_right_says_whose_fault_it_is(
    rows: list[AttributionRow], culprit: str, words: str
) -> None:
    found, why = attribution.conclude(rows)
    assert found == culprit
    assert words in why


def test_a_target_that_is_the_devices_own_is_not_accused() -> None:
    rows = [OWN, row("target", "vulkan:vp_android_baseline_2022", "right")]
    culprit, why = attribution.conclude(rows, fits=True)
    assert culprit == "undecided" and why.endswith("is chosen: the compiler or the driver")
    assert attribution.conclude(rows, narrowed=PASS, fits=True)[0] == "compiler"


@pytest.mark.parametrize(
    ("backend", "device", "flags", "fits"),
    [
        ("vulkan", "vulkan://0", ("--arch=llvmpipe", "--more"), True),
        ("vulkan", "vulkan://0", ("--arch=rdna3",), False),
        ("vulkan", "vulkan://1", ("--arch=llvmpipe",), False),
        ("hip", "vulkan://0", ("--arch=llvmpipe",), False),
    ],
)
def test_a_target_suits_the_device_that_it_is_chosen_for(
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    device: str,
    flags: tuple[str, ...],
    fits: bool,
) -> None:
    here = Device(uri="vulkan://0", driver="vulkan", name="llvmpipe", fingerprint="")
    target = Target(spec="vulkan", backend="vulkan", arch="llvmpipe")
    plans = {"vulkan": Plan(target=target, flags=("--arch=llvmpipe",), device=here)}
    monkeypatch.setattr(attribution, "_plan", lambda spec, _: plans.get(spec))
    asked = Target(spec=backend, backend=backend)
    assert attribution.suits(asked, flags, device, None) == fits


def test_a_reference_that_is_as_far_off_itself_is_suspect() -> None:
    rows = [OWN, row("backend", "vmvx", "wrong"), row("backend", "llvm-cpu", "wrong")]
    assert attribution.conclude(rows, doubtful=True)[0] == "reference"
    assert attribution.conclude([*rows, row("backend", "x", "right")], doubtful=True)[0] != (
        "reference"
    )


PASS = Narrowed(step="demote-f64 in phase input", after="start")
SHARED = Narrowed(step="demote-f64 in phase input", after="start", untargeted=True)
EVERYWHERE = [CPU, row("backend", "vulkan", "wrong"), row("backend", "vmvx", "wrong")]


@pytest.mark.parametrize(
    ("rows", "narrowed", "culprit", "says", "ruled_out"),
    [
        (EVERYWHERE, PASS, "compiler", "each of them runs demote-f64", "unless the reference"),
        (
            EVERYWHERE,
            Narrowed(after="executable-sources", generates=True),
            "compiler",
            "the IR after executable-sources is correct",
            "conversion from torch",
        ),
        (
            [CPU, row("backend", "vmvx", "right")],
            PASS,
            "compiler",
            "demote-f64 in phase input: wrong, correct with vmvx",
            "code generation",
        ),
        ([OWN, row("backend", "vmvx", "right")], PASS, "compiler", "demote-f64", "driver"),
        ([OWN, row("device", "RADV", "right")], PASS, "compiler", "demote-f64", "driver"),
        ([OWN, row("target", "rdna3", "right")], PASS, "compiler", "demote-f64", "may not support"),
        ([OWN], PASS, "compiler", "demote-f64 in phase input: wrong; no other", "optimisation"),
        (
            [OWN, row("target", "rdna3", "right"), row("backend", "vmvx", "wrong")],
            SHARED,
            "compiler",
            "demote-f64 in phase input, which all targets share: the results are wrong for "
            "vulkan:llvmpipe and vmvx; with rdna3 they are right by chance",
            "code for",
        ),
        (
            EVERYWHERE,
            SHARED,
            "compiler",
            "demote-f64 in phase input, which all targets share",
            "unless the reference",
        ),
        (
            [OWN, row("backend", "vmvx", "right")],
            Narrowed(after="executable-sources", generates=True),
            "undecided",
            "code generation for vulkan or the driver",
            "conversion",
        ),
    ],
)
def test_what_a_pass_or_a_phase_rules_out_is_not_said(
    rows: list[AttributionRow], narrowed: Narrowed, culprit: str, says: str, ruled_out: str
) -> None:
    found, why = attribution.conclude(rows, narrowed=narrowed)
    assert found == culprit
    assert says in why and ruled_out not in why


def test_what_is_right_again_is_not_tried_in_other_ways() -> None:
    asked: list[str] = []

    def trial(
        mlir: Path, flags: tuple[str, ...], device: str, resume: str | None = None
    ) -> VariantTried:
        asked.append(device)
        return VariantTried(verdict="right")

    ways = [
        Way(what="as reported", how="own", flags=(), device="a", backend="vulkan"),
        Way(what="device", how="other", flags=(), device="b", backend="vulkan"),
    ]
    found = attribution.attribute(Path("x"), ways, trial)
    assert (found.culprit, asked) == ("undecided", ["a"])


def test_levels_are_tried_up_to_the_first_that_is_wrong_too() -> None:
    def trial(
        mlir: Path, flags: tuple[str, ...], device: str, resume: str | None = None
    ) -> VariantTried:
        return VariantTried(verdict="right" if flags == ("O0",) else "wrong")

    names = ("own", "O0", "O1", "O2", "O3")
    ways = [
        Way(what="level" if i else "as reported", how=n, flags=(n,), device="a", backend="b")
        for i, n in enumerate(names)
    ]
    found = attribution.attribute(Path("x"), ways, trial)
    assert [(r.how, r.verdict) for r in found.rows[1:]] == [("O0", "right"), ("O1", "wrong")]
    assert found.flags == ("O0",)


def test_flags_that_make_it_right_are_told() -> None:
    def trial(
        mlir: Path, flags: tuple[str, ...], device: str, resume: str | None = None
    ) -> VariantTried:
        return VariantTried(verdict="right" if "--iree-opt-level=O0" in flags else "wrong")

    ways = [
        Way(what="as reported", how="own", flags=("--a",), device="a", backend="vulkan"),
        Way(what="level", how="O0", flags=("--iree-opt-level=O0",), device="a", backend="vulkan"),
    ]
    found = attribution.attribute(Path("x"), ways, trial)
    assert (found.culprit, found.flags) == ("compiler", ("--iree-opt-level=O0",))


# -- with the real compiler -----------------------------------------------------------------------

#: 21475 * 100000 does not fit into 32 bits.
WIDE = """
func.func @main(%x: tensor<4xi32>) -> tensor<4xi32> {
  %f = arith.constant dense<100000> : tensor<4xi64>
  %limit = arith.constant dense<2147100000> : tensor<4xi64>
  %one = arith.constant dense<1> : tensor<4xi32>
  %wide = arith.extsi %x : tensor<4xi32> to tensor<4xi64>
  %product = arith.muli %wide, %f : tensor<4xi64>
  %above = arith.cmpi sgt, %product, %limit : tensor<4xi64>
  %ones = arith.extui %above : tensor<4xi1> to tensor<4xi32>
  %sum = arith.addi %ones, %one : tensor<4xi32>
  return %sum : tensor<4xi32>
}
"""


@pytest.fixture
def wide(tmp_path: Path) -> Loaded:
    import numpy as np

    (tmp_path / "program.mlir").write_text(WIDE)
    np.array([21470, 21471, 21475, 21480], np.int32).tofile(tmp_path / "in.bin")
    np.array([1, 1, 2, 2], np.int32).tofile(tmp_path / "out.bin")
    kind = TensorType(name="x", dtype="i32", shape=(4,))
    function = Function(
        name="main",
        inputs=(kind,),
        outputs=(kind,),
        example=(Tensor(dtype="i32", shape=(4,), file="in.bin"),),
        reference=Reference(outputs=(Tensor(dtype="i32", shape=(4,), file="out.bin"),)),
    )
    program = Program(
        source="wide", digest="0" * 64, functions=(function,), parameters=None, origin={}
    )
    return Loaded(program=program, directory=str(tmp_path), seconds=0, cached=False)


DEMOTE = "--iree-input-demote-i64-to-i32"


@pytest.mark.real
def test_a_flag_that_makes_integers_too_narrow_is_found_as_its_pass(
    wide: Loaded, tmp_path: Path
) -> None:
    release = toolchain.installed()
    plan = targets.plan(targets.parse("llvm-cpu:generic"), release)
    limits = process.Limits(seconds=60)
    trial = AttributionTrial(
        wide, Context(toolchain=release, limits=limits, directory=tmp_path / "trial")
    )
    flags = (*plan.flags, DEMOTE)
    assert plan.device is not None
    assert trial(wide.mlir, plan.flags, plan.device.uri).verdict == "right"
    assert trial(wide.mlir, flags, plan.device.uri).verdict == "wrong"
    bench = RealBench(
        trial,
        flags,
        "local-sync",
        Context(toolchain=release, limits=limits, directory=tmp_path / "bench"),
    )
    assert bench.phases[0] == "start" and bench.phases[-1] == "executable-sources"
    found = phases.find(bench)
    assert (found.state, found.since, found.phase) == ("earliest", "start", "input")
    assert found.pass_name == "iree-input-conversion-demote-i64-to-i32"
    assert "-" in found.changed and "i32" in found.changed
    assert trial.calls <= 16


@pytest.mark.real
def test_ir_for_any_target_is_finished_by_another_path_up_to_the_executables(
    wide: Loaded, tmp_path: Path
) -> None:
    release = toolchain.installed()
    limits = process.Limits(seconds=60)
    trial = AttributionTrial(
        wide, Context(toolchain=release, limits=limits, directory=tmp_path / "trial")
    )
    flags = ("--iree-hal-target-device=hip", "--iree-rocm-target=gfx942")
    bench = RealBench(
        trial,
        flags,
        "local-sync",
        Context(toolchain=release, limits=limits, directory=tmp_path / "bench"),
    )
    for path in reference_paths(release):
        for phase in ("preprocessing", "stream", "executable-sources"):
            assert bench.finish(phase, path) == bench.finish("start", path)
            assert bench.finish(phase, path).verdict == "right"


#: Which segment each position is in, and which pairs share one: the counts are used by row and by
#: column.
SEGMENTS = """
#row = affine_map<(i, j) -> (i)>
#column = affine_map<(i, j) -> (j)>
#both = affine_map<(i, j) -> (i, j)>
func.func @main(%at: tensor<64xi64>, %ends: tensor<3xi64>) -> tensor<64x64xf32> {
  %zero = arith.constant 0 : i64
  %same = arith.constant 0.0 : f32
  %other = arith.constant -1.0 : f32
  %e = tensor.empty() : tensor<64xi64>
  %init = linalg.fill ins(%zero : i64) outs(%e : tensor<64xi64>) -> tensor<64xi64>
  %count = linalg.generic {indexing_maps = [#row, #column, #row],
      iterator_types = ["parallel", "reduction"]}
      ins(%at, %ends : tensor<64xi64>, tensor<3xi64>) outs(%init : tensor<64xi64>) {
  ^bb0(%a: i64, %b: i64, %o: i64):
    %c = arith.cmpi sge, %a, %b : i64
    %n = arith.extui %c : i1 to i64
    %s = arith.addi %n, %o : i64
    linalg.yield %s : i64
  } -> tensor<64xi64>
  %m = tensor.empty() : tensor<64x64xf32>
  %mask = linalg.generic {indexing_maps = [#row, #column, #both],
      iterator_types = ["parallel", "parallel"]}
      ins(%count, %count : tensor<64xi64>, tensor<64xi64>) outs(%m : tensor<64x64xf32>) {
  ^bb0(%a: i64, %b: i64, %o: f32):
    %c = arith.cmpi eq, %a, %b : i64
    %v = arith.select %c, %same, %other : f32
    linalg.yield %v : f32
  } -> tensor<64x64xf32>
  return %mask : tensor<64x64xf32>
}
"""


@pytest.mark.real
def test_a_pass_of_code_generation_is_found_by_the_plainest_strategy(tmp_path: Path) -> None:
    """3.13.0 tiles a producer that is used by row and by column along the diagonal alone."""
    import numpy as np

    (tmp_path / "program.mlir").write_text(SEGMENTS)
    at, ends = np.arange(64), np.array([16, 40, 64])
    count = (at[:, None] >= ends).sum(1)
    mask = np.where(count[:, None] == count, 0, -1).astype(np.float32)
    function = Function(
        name="main",
        inputs=(
            TensorType(name="at", dtype="i64", shape=(64,)),
            TensorType(name="ends", dtype="i64", shape=(3,)),
        ),
        outputs=(TensorType(name="mask", dtype="f32", shape=(64, 64)),),
        example=(tensors.save(at, tmp_path, "at"), tensors.save(ends, tmp_path, "ends")),
        reference=Reference(outputs=(tensors.save(mask, tmp_path, "mask"),)),
    )
    program = Program(
        source="segments", digest="0" * 64, functions=(function,), parameters=None, origin={}
    )
    loaded = Loaded(program=program, directory=str(tmp_path), seconds=0, cached=False)
    release, limits = toolchain.installed(), process.Limits(seconds=60)
    plan = targets.plan(targets.parse("llvm-cpu:generic"), release)
    trial = AttributionTrial(
        loaded, Context(toolchain=release, limits=limits, directory=tmp_path / "trial")
    )
    bench = RealBench(
        trial,
        plan.flags,
        "local-sync",
        Context(toolchain=release, limits=limits, directory=tmp_path / "bench"),
        backend="llvm-cpu",
    )
    found = phases.find(bench)
    assert (found.state, found.phase) == ("earliest", "executable-targets")
    assert found.pass_name == "iree-codegen-tile-and-distribute-to-workgroups-using-forall-op"
    assert "scf.forall" in found.changed
    assert trial.calls <= 16


@pytest.mark.real
def test_the_ways_of_this_machine_begin_with_the_reported_one() -> None:
    release = toolchain.installed()
    plan = targets.plan(targets.parse("llvm-cpu:generic"), release)
    flags = (*plan.flags, "--iree-opt-level=O2", "--x")
    own, *rest = attribution.others(targets.parse("llvm-cpu"), flags, "local-task", release)
    assert own.how == "llvm-cpu:generic" and own.flags == flags
    assert own.what == "as reported" and own.flags[-2:] == ("--iree-opt-level=O2", "--x")
    assert [way.how for way in rest if way.what == "device"] == ["local-sync"]
    levels = [way for way in rest if way.what == "level"]
    assert [way.how for way in levels] == ["O0", "O1", "O3"]
    for way in levels:
        assert sum("opt-level" in flag for flag in way.flags) == 1 and "--x" in way.flags
    assert [way.how for way in rest if way.what == "target"] == ["llvm-cpu:host"]
    assert rest[-1].how == "vmvx" and "--x" in rest[-1].flags
