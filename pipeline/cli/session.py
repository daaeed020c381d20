"""Common steps of commands with a SOURCE: find the toolchain, make the program, plan targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from iree_pilot import api
from iree_pilot.pipeline.cli.display.live import Live
from iree_pilot.pipeline.cli.display.took import OTHER
from iree_pilot.pipeline.cli.installing import toolchain_of
from iree_pilot.pipeline.cli.options import Common, SourceOptions, limits
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.load import Loaded, TraceFailed
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.targets.targets import Plan
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

T = TypeVar("T")


class Session:
    """One command's toolchain, store and limits."""

    def __init__(self, common: Common, live: Live) -> None:
        self.common = common
        self.toolchain: Toolchain = toolchain_of(common.release, live)
        self.limits: process.Limits = limits(common)
        self.context = Context(toolchain=self.toolchain, limits=self.limits)

    def plans(
        self, targets: str, device: str | None, flags: tuple[str, ...]
    ) -> list[tuple[str, Plan]]:
        """Plans of the targets; raises before anything is traced, also for flags that the
        compiler does not have."""
        return api.plans_of(targets, self.toolchain, device, flags)

    def plan(self, target: str, device: str | None, flags: tuple[str, ...]) -> tuple[str, Plan]:
        """The plan of the only target. Raises UsageError for several."""
        found, *others = self.plans(target, device, flags)
        if others:
            raise UsageError(
                f"-t {target}: one target at a time", advice=f"For example: -t {found[0]}"
            )
        return found

    def job(self, text: str, chosen: SourceOptions) -> Job:
        """The tracing job of the source, with its own example inputs."""
        job = api.job_of(
            sources.parse(text, chosen.settings, chosen.dtype),
            seed=chosen.seed,
            weights=chosen.weights,
            inline=chosen.inline,
            function=chosen.function,
            trust=chosen.trust,
        )
        return api.traced_as(job, leave=chosen.leave, seeded=chosen.seeded)

    def job_with_inputs(self, text: str, chosen: SourceOptions) -> Job:
        """The tracing job of the source, with the user's inputs as `program` gives them."""
        from iree_pilot.repro.since_release import question

        job = self.job(text, chosen)
        seed = job.seed if job.source.kind in ("library", "module") else None
        return msgspec.structs.replace(job, inputs=question.inputs(chosen.inputs, seed))

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
        from iree_pilot.pipeline.numerics.expected import check, with_outputs

        check(expected)
        job = msgspec.structs.replace(self.job(text, chosen), evaluate=evaluate)
        doing = "reading" if job.source.kind == "mlir" else "tracing"
        with live.working(f"{doing} {text}", OTHER):
            try:
                loaded = api.program_of(
                    job,
                    self.context,
                    inputs=chosen.inputs,
                    function=chosen.function,
                    fresh=chosen.fresh,
                    on_wait=lambda: live.note(f"another process is tracing {text}; waiting"),
                )
            except TraceFailed as failed:
                live.took.count("trace", failed.seconds)
                raise
            live.took.count("trace", 0.0 if loaded.cached else loaded.seconds)
        return with_outputs(loaded, expected, self.context.store) if expected else loaded

    def settled(
        self, loaded: Loaded, attempt: Callable[[Loaded], T], live: Live
    ) -> tuple[Loaded, T]:
        """Result of `attempt` for the program, with made-up inputs chosen again as it demands."""
        from iree_pilot.pipeline.execution import refitting

        def again(changed: Loaded) -> None:
            live.close()
            live.note(changed.program.notes[-1])

        return refitting.settled(loaded, attempt, self.context, on_change=again)
