"""A program whose numbers are wrong, phase by phase, with the real tools (see `passes.phases`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.failures.diagnostics import SERIAL
from iree_pilot.pipeline.targets.backends import llvm_cpu
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.flags import silent
from iree_pilot.pipeline.toolchain.phases import dump_files
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.attribution.variant_trial import AttributionTrial, VariantTried
from iree_pilot.repro.failing_pass import dumps, retarget
from iree_pilot.repro.failing_pass.dumps import Dump
from iree_pilot.repro.failing_pass.phases import PLAIN
from iree_pilot.repro.failing_pass.plain_pipeline import pipelines, plain
from iree_pilot.repro.failing_pass.retarget import DeviceAttributes

#: After it executables are configured for their target, and cannot be retargeted any more.
_LAST = "executable-sources"
#: After it only code generation is left, of which another strategy can be asked.
_CONFIGURED = "executable-configurations"
#: The last phase whose IR is on tensors: after it they are resources of a stream.
_TENSORS = "flow"
#: The first phase that names a target.
_NAMED = "preprocessing"
_SECONDS = 300.0
_OPERATION = re.compile(r'(?:%\S+ = )?"?[a-z_]\w*\.[a-z]')
#: Runs what the reference paths make.
_DEVICE = "local-sync"
_GENERATED = "executable-targets"
INTERPRETED = "an interpreter (PyTorch, numpy)"
_PRINTED_BYTES = 128 * 2**20
_LEVEL = "iree-opt-level"


def reference_paths(toolchain: Toolchain) -> dict[str, tuple[str, ...]]:
    """Flags of the paths that are trusted, by their names: nothing optimised, the simplest first.

    vmvx interprets; the other generates code for any processor.
    """
    plain, at = ((f"--{_LEVEL}=O0",), " at O0") if _LEVEL in toolchain.flags else ((), "")
    return {
        f"vmvx{at}": (*llvm_cpu.INTERPRETER, *plain),
        f"llvm-cpu:generic{at}": (*llvm_cpu.BACKEND.flags("generic", toolchain), *plain),
    }


class RealBench:
    """The phases of the trial's program, compiled with `flags`, and the trial to finish them.

    own_device: runs what is compiled with these flags. backend: of the target, whose plainest
    strategy is asked about code generation, where one is known. Where every path that compiles is
    wrong itself, IR is evaluated without compiling it; that of the source is what the reference
    comes from, and right.
    """

    def __init__(
        self,
        trial: AttributionTrial,
        flags: tuple[str, ...],
        own_device: str,
        context: Context,
        *,
        backend: str = "",
    ) -> None:
        self._mlir = trial.loaded.mlir
        self._flags = silent(flags)
        self._context = context
        self._trial = trial
        self._own_device = own_device
        self._backend = backend
        self._paths = reference_paths(context.toolchain)
        self._targets: dict[str, DeviceAttributes | None] = {}
        self._made = 0
        self.paths: Sequence[str] = (*self._paths, INTERPRETED)
        context.directory.mkdir(parents=True, exist_ok=True)
        self._dumped = self._dump()
        self.phases: Sequence[str] = tuple(p for p in self._dumped if p != _CONFIGURED)
        configured = pipelines(backend) and _CONFIGURED in self._dumped
        self.generated = (_CONFIGURED, _GENERATED) if configured else None

    def finish(self, phase: str, path: str) -> VariantTried:
        return self._finish(self._dumped[phase], phase, path)

    def changes(self, since: str, phase: str) -> Sequence[Dump]:
        started = () if since == self.phases[0] else (f"--compile-from={since}",)
        said = self._run(
            self._dumped[since],
            *started,
            f"--compile-to={phase}",
            "--mlir-print-ir-after-change",
            "--mlir-print-ir-after-all",
            "--mlir-print-ir-module-scope",
            SERIAL,
        )
        before = Dump(
            before=True,
            failed=False,
            pass_class=since,
            spelled="",
            operation="",
            symbol="",
            text=self._dumped[since].read_text(encoding="utf-8"),
        )
        found = [before]
        for dump in dumps.read(said):
            if not dump.before and not dump.failed and dump.text != found[-1].text:
                found.append(dump)
        return found

    def finish_change(self, change: Dump, since: str, path: str) -> VariantTried:
        file = self._context.directory / "change.mlir"
        file.write_text(change.text, encoding="utf-8")
        return self._finish(file, since, path, changed=True)

    def _finish(self, file: Path, phase: str, path: str, *, changed: bool = False) -> VariantTried:
        if path == INTERPRETED:
            return self._interpret(file, phase, changed=changed)
        text = file.read_text(encoding="utf-8", errors="replace")
        flags, device = self._paths.get(path, self._flags), _DEVICE
        if path == PLAIN:
            made_plain, device = plain(text, self._backend), self._own_device
            if made_plain is None:
                return VariantTried(verdict="fails", why="its pipeline is not known")
            text = made_plain
        elif "#hal." in text:
            targets = self._of(path)
            if targets is None:
                return VariantTried(
                    verdict="fails", why=f"{path} does not compile for exactly one target"
                )
            text = retarget.retarget(text, targets)
        # A file of its own for each: what was compiled is remembered by its name.
        self._made += 1
        made = self._context.directory / f"finish-{self._made}.mlir"
        made.write_text(text, encoding="utf-8")
        resume = None if phase == self.phases[0] else phase
        return self._trial(made, flags, device, resume)

    def _interpret(self, file: Path, phase: str, *, changed: bool) -> VariantTried:
        order = self._context.toolchain.phases
        source = phase == self.phases[0]
        if source and (not changed or _computes(file) == _computes(self._mlir)):
            return VariantTried(verdict="right", why="the reference is that of the source")
        if _TENSORS not in order or order.index(phase) > order.index(_TENSORS):
            return VariantTried(verdict="fails", why=f"IR after {phase} cannot be evaluated")
        return self._trial.interpreted(file)

    def _of(self, path: str) -> DeviceAttributes | None:
        if path not in self._targets:
            made = self._context.directory / "targets.txt"
            self._run(
                self._mlir,
                f"--compile-to={_NAMED}",
                "--mlir-print-local-scope",
                flags=self._paths[path],
                output=made,
            )
            text = made.read_text(encoding="utf-8", errors="replace") if made.is_file() else ""
            self._targets[path] = retarget.read(text)
        return self._targets[path]

    def _dump(self) -> dict[str, Path]:
        """The IR after each phase up to the last that can be retargeted; the source first."""
        place = self._context.directory / "phases"
        order = self._context.toolchain.phases
        last = _CONFIGURED if _CONFIGURED in order else order[-1]
        self._run(self._mlir, f"--dump-compilation-phases-to={place}", f"--compile-to={last}")
        found = {order[0]: self._mlir}
        known = order[: order.index(last) + 1]
        return found | {phase: file for phase, file in dump_files(place) if phase in known}

    def _run(
        self,
        mlir: Path,
        *more: str,
        flags: tuple[str, ...] | None = None,
        output: Path = Path("/dev/null"),
    ) -> str:
        """Runs the compiler and returns what it prints."""
        limits = msgspec.structs.replace(
            self._context.limits,
            seconds=self._context.limits.seconds or _SECONDS,
            output_bytes=_PRINTED_BYTES,
        )
        given = self._flags if flags is None else flags
        _, said = self._context.run(
            (self._context.toolchain.compiler, mlir, *given, *more, "-o", output), limits=limits
        )
        return said


def _computes(mlir: Path) -> list[str]:
    """The operations of a program in the torch dialect, as text."""
    lines = (
        line.strip() for line in mlir.read_text(encoding="utf-8", errors="replace").splitlines()
    )
    return [line for line in lines if _OPERATION.match(line)]
