"""What the commands with a SOURCE do alike: find the toolchain, make the program, plan targets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from iree_pilot.pipeline.cli.live import Live
from iree_pilot.pipeline.cli.options import Common, SourceOptions, limits
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import outline
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.load import Loaded, load
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program import archive
from iree_pilot.pipeline.program.program import Program, scopes_text
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets.targets import Plan, parse_list, plan
from iree_pilot.pipeline.toolchain import flags as compile_flags
from iree_pilot.pipeline.toolchain.releases import find
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

T = TypeVar("T")


class Session:
    """One command's toolchain, store and limits."""

    def __init__(self, common: Common) -> None:
        self.common = common
        self.store = Store()
        self.toolchain: Toolchain = find(common.release)
        self.limits: process.Limits = limits(common)

    def plans(
        self, targets: str, device: str | None, flags: tuple[str, ...]
    ) -> list[tuple[str, Plan]]:
        """What each target means here; raises before anything is traced, also for flags that the
        compiler does not have."""
        parsed = parse_list(targets)
        if device and len(parsed) > 1:
            raise UsageError(
                f"--device {device} goes with one target, {targets} names {len(parsed)}",
                advice="Run the targets one by one.",
            )
        plans = [(t.spec, plan(t, self.toolchain, device, user_flags=flags)) for t in parsed]
        for _, one in plans:
            compile_flags.check(self.toolchain, one.flags, flags)
        return plans

    def plan(self, target: str, device: str | None, flags: tuple[str, ...]) -> tuple[str, Plan]:
        """What the only target means here. Raises UsageError for several."""
        found, *others = self.plans(target, device, flags)
        if others:
            raise UsageError(
                f"-t {target}: one target at a time", advice=f"For example: -t {found[0]}"
            )
        return found

    def job(self, text: str, chosen: SourceOptions) -> Job:
        """What the source is and how it is traced, with its own example inputs."""
        source = sources.parse(text, chosen.settings, chosen.dtype)
        if source.path and source.kind in ("file", "pt2"):
            from iree_pilot.repro.trust import trust

            trust.of_source(Path(source.path), trust=chosen.trust)
            source = msgspec.structs.replace(source, trusted=chosen.trust and source.kind == "pt2")
        outline.check_source(source)
        weights, scoped = _weights(chosen.weights, scopes=source.kind == "mlir")
        for file in map(Path, (*weights, *(path for _, path in scoped))):
            if not file.is_dir():
                archive.read(file)  # what cannot be read is refused before anything is traced
        return Job(
            source=source,
            seed=chosen.seed,
            weights=weights,
            scoped=scoped,
            inline=chosen.inline,
            function=chosen.function if source.kind == "mlir" else "",
        )

    def program(
        self,
        text: str,
        chosen: SourceOptions,
        live: Live,
        *,
        evaluate: bool = True,
        expected: tuple[str, ...] = (),
    ) -> Loaded:
        """Traces or imports the source, or finds it in the store. Raises TraceFailed.

        evaluate: MLIR, too, to have something to compare with. expected: the user's outputs, which
        it is compared with instead.
        """
        from iree_pilot.pipeline.frontends import examples, fitting
        from iree_pilot.pipeline.numerics.expected import check, with_outputs

        check(expected)
        job = msgspec.structs.replace(self.job(text, chosen), evaluate=evaluate)
        with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
            if chosen.inputs:
                given = examples.from_files(chosen.inputs, Path(scratch))
                job = msgspec.structs.replace(job, inputs=given)
            mlir = job.source.kind == "mlir"
            with live.working(f"{'reading' if mlir else 'tracing'} {text}", "trace"):
                loaded = load(
                    job,
                    self.store,
                    self.toolchain,
                    limits=self.limits,
                    fresh=chosen.fresh,
                    on_wait=lambda: live.note(f"another process is tracing {text}; waiting"),
                )
        if mlir and chosen.weights:
            _check_scopes(loaded.program, job.scoped)
        if chosen.function and not mlir:
            only = fitting.named(loaded.program.functions, chosen.function, text)
            program = msgspec.structs.replace(loaded.program, functions=(only,))
            loaded = msgspec.structs.replace(loaded, program=program)
        return with_outputs(loaded, expected, self.store) if expected else loaded

    def settled(
        self, loaded: Loaded, attempt: Callable[[Loaded], T], live: Live
    ) -> tuple[Loaded, T]:
        """What `attempt` gives for the program, whose inputs are made up anew as it demands."""
        from iree_pilot.pipeline.execution import refitting

        def again(changed: Loaded) -> None:
            live.close()
            live.note(changed.program.notes[-1])

        return refitting.settled(
            loaded, attempt, self.store, self.toolchain, self.limits, on_change=again
        )


def _check_scopes(program: Program, scoped: tuple[tuple[str, str], ...]) -> None:
    """Raises UsageError for weights that the program has no use for."""
    scopes = program.parameters.by_scope if program.parameters else {}
    unknown = next((scope for scope, _ in scoped if scope not in scopes), None)
    if not scopes or unknown is not None:
        what = "parameters" if unknown is None else f"parameters of scope {scopes_text([unknown])}"
        raise UsageError(
            f"{program.source} loads no {what}, but weights are given",
            advice=f"Its scopes: {scopes_text(scopes)}." if scopes else "Leave --weights out.",
        )


def _weights(
    given: tuple[str, ...], *, scopes: bool
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """(paths for any scope, paths for one as (scope, path))."""
    general: list[str] = []
    scoped: list[tuple[str, str]] = []
    for word in given:
        scope, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            general.append(word)
        elif scopes:
            scoped.append((scope, path))
        else:
            raise UsageError(
                f"--weights {word}: only MLIR has scopes of parameters",
                advice=f"Give the path alone: --weights {path}",
            )
    return tuple(general), tuple(scoped)
