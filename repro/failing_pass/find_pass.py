"""The pass in which a compile fails: the IR before it, a pipeline of it alone, what it changed.

The compiler's own crash reproducer comes first. Where there is none, or `iree-opt` does not fail on
it in the same way, the IR that is printed before each pass serves. Whatever is found has failed in
the same way when `iree-opt` ran it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import SERIAL, Failure
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.flags import silent
from iree_pilot.repro.failing_pass import dumps, pipeline
from iree_pilot.repro.failing_pass.dumps import Dump
from iree_pilot.repro.failing_pass.narrow import narrow
from iree_pilot.repro.failing_pass.pipeline import PipelineElement

_PIPELINE = re.compile(r'mlir_reproducer: \{\s*pipeline: "((?:[^"\\]|\\.)*)"')
_RESOURCES = re.compile(r"\{-#\s*external_resources: \{\s*mlir_reproducer:.*?#-\}", re.DOTALL)
_GENERIC = "--mlir-print-op-generic"
_PRINTING = ("--mlir-print-ir-before-all", "--mlir-print-ir-module-scope", SERIAL)
_NAMING = ("--mlir-print-ir-after-failure", "--mlir-print-ir-module-scope", SERIAL)
_PRINTED_BYTES = 64 * 2**20
#: Nesting of the operations that passes run on; executables come late, but are many.
_CHAINS: tuple[tuple[str, ...], ...] = (
    ("builtin.module",),
    ("builtin.module", "vm.module"),
    ("builtin.module", "stream.executable"),
    ("builtin.module", "stream.executable", "builtin.module"),
    ("builtin.module", "hal.executable"),
    ("builtin.module", "hal.executable", "hal.executable.variant"),
    ("builtin.module", "hal.executable", "hal.executable.variant", "builtin.module"),
)
#: An option that has no value, or none that can be given.
_NO_VALUE = re.compile(r"\{[\w-]+=(?:unknown)?\}|[\w-]+=(?:unknown)?(?=[ }])")
#: A hang is looked for where the compiler is after so long, and must then last as long again.
_HANGS_SECONDS = 15.0
_DIFF_LINES = 240
_DIFF_CHARACTERS = 2_000


class FoundPass(msgspec.Struct, frozen=True, kw_only=True):
    """A pass that fails when `iree-opt` runs it alone.

    name: as pipelines name it. pass_class: the C++ class, where it is known. pipeline: for
    `--pass-pipeline=`. flags: of the compile, where the pass only fails with them. file: the IR
    before the pass. changed: what the pass had changed when it
    failed, as a unified diff; empty where it changed nothing or ended with the compiler.
    runs: of the compiler and of `iree-opt`.
    """

    name: str
    pass_class: str
    pipeline: str
    file: str
    changed: str
    flags: tuple[str, ...] = ()
    runs: int


class NoPass(msgspec.Struct, frozen=True):
    """Reason that the pass cannot be run alone; named: the one that failed, if the compiler said
    so, or else the last that was started."""

    why: str
    named: str = ""


def find(
    program: Path, failure: Failure, context: Context, flags: Sequence[str]
) -> FoundPass | NoPass:
    """The pass in which `program`, compiled with `flags`, fails so; files go to `directory`."""
    if context.toolchain.opt is None:
        return NoPass("the release has no iree-opt to run a pass with")
    context.directory.mkdir(parents=True, exist_ok=True)
    return _PassFinder(program, failure, context, flags).find()


class _PassFinder:
    def __init__(
        self, program: Path, failure: Failure, context: Context, flags: Sequence[str]
    ) -> None:
        self._program = program
        self._failure = failure
        self._context = context
        self._flags = silent(flags)
        self._ends = failure.kind not in ("timeout", "out-of-memory")
        self._last: Dump | None = None
        #: Flags of the compile that `iree-opt` is given too.
        self._given: Sequence[str] = ()
        self.runs = 0

    def find(self) -> FoundPass | NoPass:
        """Find the failing pass and the IR before it.

        A compile that does not end writes no crash reproducer. IR in the generic form is harder
        for people to read, but can be parsed if the custom form of an operation cannot.
        """
        for generic in ((), (_GENERIC,)):
            found = (self._reproduced(generic) if self._ends else None) or self._printed(generic)
            if found is not None:
                return self._described(*found)
        named = self._last.name if self._last else ""
        if not named:
            return NoPass("the compiler wrote no crash reproducer and printed no pass")
        what = "the pass that fails" if self._last and self._last.failed else "the last pass"
        why = f"iree-opt does not fail in the same way on the IR before {named}, {what}"
        return NoPass(why, named)

    def _reproduced(self, more: Sequence[str]) -> tuple[Path, PipelineElement] | None:
        """(IR, pipeline) of the crash reproducer."""
        dumped = self._context.directory / "crash.mlir"
        dumped.unlink(missing_ok=True)
        self._compile(
            f"--mlir-pass-pipeline-crash-reproducer={dumped}",
            "--mlir-pass-pipeline-local-reproducer",
            SERIAL,
            *more,
        )
        text = dumped.read_text(encoding="utf-8", errors="replace") if dumped.is_file() else ""
        match = _PIPELINE.search(text)
        if match is None:
            return None
        try:
            whole = pipeline.parse(_NO_VALUE.sub("", match[1].replace('\\"', '"')))
        except ValueError:
            return None
        made = self._context.directory / "pass.mlir"
        made.write_text(_RESOURCES.sub("", text).rstrip() + "\n", encoding="utf-8")
        return self._alone(made, whole) if self._shown(made, whole) else None

    def _alone(self, file: Path, whole: PipelineElement) -> tuple[Path, PipelineElement]:
        """Reduced to the pass that fails, with the IR before it."""
        count = len(whole.passes)
        index, _ = narrow(count, lambda end: self._fails(file, whole.between(0, end)))
        if count < 2:
            return file, whole
        one = whole.between(index, index + 1)
        if index == 0:
            return (file, one) if self._fails(file, one) else (file, whole)
        before = self._context.directory / "pass-alone.mlir"
        ran, _ = self._opt(file, whole.between(0, index), before)
        return (before, one) if ran.ok and self._fails(before, one) else (file, whole)

    def _printed(self, more: Sequence[str]) -> tuple[Path, PipelineElement] | None:
        """(IR, pipeline) of the pass that fails, else of the last before which IR was printed."""
        if (failing := self._failing(more)) is not None:
            return self._around(failing, None)
        seconds = self._context.limits.seconds
        early = seconds is None or seconds > 2 * _HANGS_SECONDS
        waits = [seconds] if self._ends or not early else [_HANGS_SECONDS, seconds]
        for wait in waits:
            _, said = self._compile(*_PRINTING, *more, seconds=wait)
            dump = dumps.last(said)
            if dump is None or not dump.spelled:
                return None
            self._last = dump
            if (found := self._around(dump, wait)) is not None:
                return found
        return None

    def _failing(self, more: Sequence[str]) -> Dump | None:
        """The IR before the pass that the compiler says has failed; what crashes says nothing.

        The last pass that was started need not be that one: it may belong to the compile of a
        constant, which is done by a pass of the program's own.
        """
        if self._failure.kind != "diagnostic":
            return None
        _, said = self._compile(*_NAMING, *more)
        failed = dumps.failing(said)
        if failed is None or not failed.spelled:
            return None
        self._last = failed
        named = f"--mlir-print-ir-before={failed.name}"
        _, said = self._compile(named, "--mlir-print-ir-module-scope", SERIAL, *more)
        return dumps.before(said, failed)

    def _around(self, dump: Dump, seconds: float | None) -> tuple[Path, PipelineElement] | None:
        """(IR, pipeline) of a pass, where it fails on the IR that was printed before it."""
        made = self._context.directory / "pass.mlir"
        made.write_text(dump.text.rstrip() + "\n", encoding="utf-8")
        candidates = _around(dump)
        found = next((one for one in candidates if self._shown(made, one, seconds)), None)
        return None if found is None else (made, found)

    def _described(self, file: Path, element: PipelineElement) -> FoundPass:
        last = element.passes[-1]
        name, pass_class, changed = last.name, "", ""
        if self._ends:
            _, said = self._opt(
                file,
                element,
                None,
                "--mlir-print-ir-before-all",
                "--mlir-print-ir-after-failure",
                "--mlir-print-local-scope",
                "--mlir-print-assume-verified",
            )
            printed = [*dumps.read(said)]
            failed = [dump for dump in printed if dump.failed]
            # What a pass compiles for itself is printed as well.
            after = next((d for d in failed if d.name == name), next(iter(failed), None))
            before = next((d for d in reversed(printed) if d.before), None)
            if after is not None:
                before = dumps.before(said, after)
            if before is not None:
                pass_class = before.pass_class
                name = name if len(element.passes) == 1 else before.name
            if before is not None and after is not None:
                changed = diff(before, after)
        elif self._last is not None:
            pass_class = self._last.pass_class
        return FoundPass(
            name=name,
            pass_class=pass_class,
            pipeline=str(element),
            file=str(file),
            changed=changed,
            flags=tuple(self._given),
            runs=self.runs,
        )

    def _shown(self, file: Path, element: PipelineElement, seconds: float | None = None) -> bool:
        """Same as `_fails`, tried without and with the flags of the compile."""
        for flags in ((), self._flags):
            self._given = flags
            if self._fails(file, element, seconds):
                return True
        self._given = ()
        return False

    def _fails(self, file: Path, element: PipelineElement, seconds: float | None = None) -> bool:
        """True if iree-opt fails in the same way; for a hang: if it reaches the time limit too."""
        outcome, said = self._opt(file, element, None, seconds=seconds)
        if outcome.ok:
            return False
        if outcome.ended_by == "time-limit":
            return self._failure.kind == "timeout"
        text = file.read_text(encoding="utf-8", errors="replace")
        found = diagnostics.compile_failure(outcome, said, self._failure.phase, text)
        return found.shows(self._failure.signature)

    def _opt(
        self,
        file: Path,
        element: PipelineElement,
        output: Path | None,
        *more: str,
        seconds: float | None = None,
    ) -> tuple[process.Outcome, str]:
        assert self._context.toolchain.opt is not None
        flags = (f"--pass-pipeline={element}", *self._given, SERIAL, *more)
        given = (*flags, "-o", output or "/dev/null")
        return self._run((self._context.toolchain.opt, file, *given), seconds)

    def _compile(self, *more: str, seconds: float | None = None) -> tuple[process.Outcome, str]:
        given = (*self._flags, *more, "-o", "/dev/null")
        return self._run((self._context.toolchain.compiler, self._program, *given), seconds)

    def _run(
        self, argv: Sequence[str | Path], seconds: float | None
    ) -> tuple[process.Outcome, str]:
        self.runs += 1
        limits = msgspec.structs.replace(
            self._context.limits,
            seconds=seconds or self._context.limits.seconds,
            output_bytes=_PRINTED_BYTES,
        )
        return self._context.run(argv, limits=limits)


def diff(before: Dump, after: Dump) -> str:
    """Changes made by a pass before it failed, as a readable unified diff; "" if there are none."""
    until = " until it failed" if after.failed else ""
    lines = difflib.unified_diff(
        _lines(before.text),
        _lines(after.text),
        f"before {after.pass_class}",
        f"after {after.pass_class}{until}",
        lineterm="",
    )
    shown = [*lines]
    if (left := len(shown) - _DIFF_LINES) > 0:
        shown = [*shown[:_DIFF_LINES], f"... {left} more lines"]
    return "".join(f"{line}\n" for line in shown)


def _lines(text: str) -> list[str]:
    """Lines that are not longer than somebody reads."""
    return [
        line if len(line) <= _DIFF_CHARACTERS else f"{line[:_DIFF_CHARACTERS]}..."
        for line in text.splitlines()
    ]


def _around(dump: Dump) -> Iterator[PipelineElement]:
    """Pipelines that may run the pass where it ran, the likeliest first."""
    spelled = _NO_VALUE.sub("", dump.spelled)
    name, _, options = spelled.partition("{")
    words = " ".join(options.removesuffix("}").split())
    inside = "hal.executable.variant " in dump.text
    for chain in reversed(_CHAINS) if inside else _CHAINS:
        if chain[-1] == dump.operation:
            anchors = chain
        elif dump.operation == "builtin.module":
            continue
        else:
            anchors = (*chain, dump.operation)
        element = PipelineElement(name, f"{{{words}}}" if words else "")
        for anchor in reversed(anchors):
            element = PipelineElement(anchor, inside=(element,))
        yield element
