"""Generate tokens: a model's functions chained in one session on a device, compared with PyTorch.

PyTorch's tokens and logits are made once for a program, in a tracing child, and kept. The device
goes on from PyTorch's token after each step, whatever it would pick itself, so that one near tie
does not make all later steps incomparable.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from iree_pilot.models.spec import ModelSpec, registry
from iree_pilot.pipeline.errors import EnvironmentFault, PilotError, UsageError
from iree_pilot.pipeline.execution import chained, runtime
from iree_pilot.pipeline.execution.chained import GenerationStep
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.job import GENERATED, Chained, Generated, Job, TraceFailed
from iree_pilot.pipeline.frontends.load import Loaded, child
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison, Verdict
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.processes.task import Done
from iree_pilot.pipeline.program.program import Function, Program, TensorType
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

KIND = "generation"
#: Dimension in which a cache [layers, batch, heads, tokens, head size] grows.
_TOKENS_AXIS = 3
#: Fields of models whose prompt has tokens of an image as well, counted once it is traced.
_SEES = {"image", "image_width"}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """`steps` tokens of the job's model, by `chain` (`module:function`)."""

    job: Job
    chain: str
    steps: int


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One step: number `step` of the tokens, from 1; the first is prefill's, the others decode's.

    token, reference_token: the greedy ones of each sequence. rel_l2, max_abs, tolerance: of the
    logits of the last position, as `pipeline.numerics.numerics` has them, `verdict` too; `ok` is
    whether they agree, and `why` says what is wrong, or why nothing is known. A token that differs
    where they agree is a tie that rounding decides. seconds: wall time of the step.
    """

    step: int
    token: tuple[int, ...]
    reference_token: tuple[int, ...]
    ok: bool
    rel_l2: float
    max_abs: float
    tolerance: float
    seconds: float
    why: str = ""
    verdict: Verdict = "ok"


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens generated on a device, or why they were not, or the first step that differs."""

    evaluator: str
    tokens: tuple[Token, ...] = ()
    failure: Failure | None = None

    @property
    def not_compared(self) -> str:
        """Reason that a step was not compared; "" if each was."""
        return next((t.why for t in self.tokens if t.verdict == "not-compared"), "")


def chosen(
    source: Source,
    asked: int | None,
    settings: dict[str, str],
    toolchain: Toolchain,
    *,
    inputs: bool = False,
) -> tuple[int, dict[str, str]]:
    """Number of tokens that a run of the source generates (0: none), and settings to trace it.

    asked: how many the user wants; None: what the source's family does for a run that does not say,
    where its lengths are dynamic. settings: what the user set; a cache that grows needs
    dynamic=true, which is set for who asks for tokens and does not set it. inputs: whether the user
    gives other inputs than the examples.

    Raises UsageError and EnvironmentFault where what is asked for cannot be done; a number of
    tokens that is too large is left to `check` where the prompt's length is not known before.
    """
    spec = registry().get(source.model) if source.model else None
    obstacle = _obstacle(source, spec, settings, toolchain, inputs=inputs)
    if asked is None:
        able = spec is not None and obstacle is None and source.fields.get("dynamic") is True
        return (spec.generates if spec and able else 0), settings
    if asked < 1:
        raise UsageError(
            f"--generate {asked} generates nothing",
            advice="Name how many tokens; the prompt gives the first, each step of decode one.",
        )
    if obstacle is not None:
        raise obstacle
    fields = source.fields
    prompt, context = fields.get("length"), fields.get("context")
    if isinstance(prompt, int) and isinstance(context, int) and not _SEES & fields.keys():
        _fits(source.text, asked, prompt, context)
    return asked, {"dynamic": "true"} | settings


def _obstacle(
    source: Source,
    spec: ModelSpec | None,
    settings: dict[str, str],
    toolchain: Toolchain,
    *,
    inputs: bool,
) -> PilotError | None:
    """Error if the functions of a source cannot be chained; None if they can."""
    if source.kind == "library":
        return UsageError(
            f"{source.text} is made by {source.module}, as one function without a cache: "
            "--generate is for families of the zoo",
            advice="Leave out --generate: the function is run and compared.",
        )
    if spec is None or not spec.chain:
        able = ", ".join(name for name, known in registry().items() if known.chain)
        return UsageError(
            f"{source.text} is nothing that generates tokens",
            advice=f"--generate takes these models, and checkpoints of them: {able}.",
        )
    if source.part:
        return UsageError(
            f"{source.text} is one part of {spec.name}, tokens take all of them",
            advice=f"Leave out /{source.part}.",
        )
    if inputs:
        return UsageError(
            "--input is for one function, tokens are generated from the examples of all",
            advice="Leave out --input, or choose another prompt by --seed and --set.",
        )
    if source.kind == "zoo" and not spec.preset(source.preset).weights:
        able = ", ".join(p.name for p in spec.presets if p.weights)
        return UsageError(
            f"{source.text} has no weights, so that it can be compiled, not run",
            advice=f"Presets of {spec.name} that have: {able}. Or name a checkpoint's directory.",
        )
    if "dynamic" in settings and source.fields.get("dynamic") is False:
        return UsageError(
            f"{source.text} with dynamic={settings['dynamic']} has a cache of one length, but "
            "it grows with each token",
            advice="Leave dynamic out or set it: --set dynamic=true.",
        )
    if toolchain.runtime is not None and not (_site(toolchain) / "iree" / "runtime").is_dir():
        return EnvironmentFault(
            f"release {toolchain.version} has no Python runtime in {_site(toolchain)}, which "
            "chaining functions takes",
            advice="Take a published release, or install iree-base-runtime there.",
        )
    return None


def usual(job: Job, toolchain: Toolchain) -> Wanted | None:
    """Generation in a run of the job without `--generate`, if there is any."""
    steps, _ = chosen(job.source, None, {}, toolchain, inputs=job.inputs is not None)
    return wanted(job, steps) if steps else None


def wanted(job: Job, steps: int) -> Wanted:
    """`steps` tokens of the job's model, which `chosen` has let pass."""
    return Wanted(job=job, chain=registry()[job.source.model or ""].chain, steps=steps)


def check(program: Program, steps: int) -> None:
    """Raises UsageError where so many tokens do not fit the program's longest cache."""
    decode = program.function("decode")
    at = [kind.name for kind in decode.inputs].index("keys")
    longest = decode.inputs[at].shape[_TOKENS_AXIS]
    if decode.example is None or isinstance(longest, int) or longest.max is None:
        return
    prompt = decode.example[at].shape[_TOKENS_AXIS]
    # The cache that a step of decode takes holds all tokens but its own.
    _fits(program.source, steps, prompt, longest.max + 1)


def _fits(text: str, steps: int, prompt: int, context: int) -> None:
    most = context - prompt + 1
    if steps > most:
        raise UsageError(
            f"{text}: --generate {steps} after a prompt of {prompt} tokens does not fit "
            f"its context of {context}",
            advice=f"Generate {most} at most, or choose a shorter prompt or a longer context.",
        )


def run(
    wanted: Wanted,
    loaded: Loaded,
    module: Path,
    device: str,
    context: Context,
    alone: contextlib.AbstractContextManager[object],
) -> Generation:
    """Generates on the device and compares; what fails there or in PyTorch is in the result.

    module: what the program was compiled to. device: a URI. alone: is entered while something runs
    there. Raises UsageError as `check` does.
    """
    check(loaded.program, wanted.steps)
    try:
        generated = _reference(wanted, loaded, context)
    except TraceFailed as failed:
        return Generation(evaluator="", failure=failed.failure)
    evaluator = generated.reference.evaluator
    job = chained.ChainJob(
        chain=wanted.chain,
        steps=wanted.steps,
        directory=loaded.directory,
        module=str(module),
        device=device,
        tokens=generated.tokens,
    )
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        workdir = Path(scratch)
        with alone:
            done = _on_device(job, context.at(workdir))
        if not done.outcome.ok:
            return Generation(evaluator=evaluator, failure=_failure(done, workdir, wanted.steps))
        comparison = numerics.compare(
            tuple(step.logits for step in done.replies),
            loaded.call(_steps(generated)),
            outputs_directory=workdir,
        )
    return Generation(
        evaluator=evaluator,
        tokens=tuple(_tokens(generated, done.replies, comparison)),
        failure=_mismatch(comparison, wanted.steps),
    )


def prepare(wanted: Wanted, loaded: Loaded, context: Context) -> None:
    """Makes PyTorch generate the reference for all devices, once for each program.

    Raises TraceFailed where it fails.
    """
    _reference(wanted, loaded, context)


def _reference(wanted: Wanted, loaded: Loaded, context: Context) -> Generated:
    """Tokens generated by PyTorch, from the store or anew; their files are absolute."""
    directory = Path(loaded.directory)
    asked = Chained(chain=wanted.chain, steps=wanted.steps, directory=loaded.directory)
    job = msgspec.structs.replace(wanted.job, chained=asked)
    # The directory's name stands for all that the program was made of.
    key = Store.key(directory.name, wanted.chain, wanted.steps)
    entry = context.store.obtain(
        KIND, key, lambda place: child(job, place, context.limits, GENERATED)
    )
    generated = msgspec.json.decode((entry / GENERATED).read_bytes(), type=Generated)
    return msgspec.structs.replace(generated, reference=generated.reference.placed(entry))


def _site(toolchain: Toolchain) -> Path:
    """Directory of the Python packages of the toolchain's runtime."""
    assert toolchain.runtime is not None
    return toolchain.runtime.parent.parent


def _on_device(job: chained.ChainJob, context: Context) -> Done[GenerationStep]:
    """Result of the last child that was started."""
    paths = [str(_site(context.toolchain)), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}

    asked: list[Done[GenerationStep]] = []

    def once(device: str, limits: process.Limits) -> process.Outcome:
        named = msgspec.structs.replace(job, device=device)
        done = task.call(
            chained.GENERATED, named, GenerationStep, context.directory, limits=limits, env=env
        )
        asked.append(done)
        return done.outcome

    runtime.patiently(job.device, context.limits, once)
    return asked[-1]


def _failure(done: Done[GenerationStep], workdir: Path, steps: int) -> Failure:
    """Failure of a child that did not finish, with the token."""
    # What the runtime raises has all that it says in its text.
    text = done.stderr if done.fault is None else done.fault.message
    called = (workdir / task.STDOUT).read_text(encoding="utf-8").split()
    failure = diagnostics.runtime_failure(done.outcome, text, "run" if called else "load")
    if not called:
        return failure
    step = len(done.replies) + 1
    where = f"at token {step} of {steps}, in {called[-1]}"
    return msgspec.structs.replace(failure, message=f"{where}: {failure.message}")


def _steps(generated: Generated) -> Function:
    """All steps as outputs of one function, as they are compared."""
    return Function(
        name="generate",
        inputs=(),
        outputs=tuple(
            TensorType(name=f"token {step}", dtype=t.dtype, shape=t.shape)
            for step, t in enumerate(generated.reference.outputs, start=1)
        ),
        reference=generated.reference,
    )


def _tokens(
    generated: Generated, steps: Sequence[GenerationStep], comparison: Comparison
) -> Iterator[Token]:
    for index, output in enumerate(comparison.outputs):
        yield Token(
            step=index + 1,
            token=steps[index].tokens,
            reference_token=generated.tokens[index],
            ok=output.ok,
            rel_l2=output.rel_l2,
            max_abs=output.max_abs,
            tolerance=output.tolerance,
            seconds=steps[index].seconds,
            why=output.why,
            verdict=output.verdict,
        )


def _mismatch(comparison: Comparison, steps: int) -> Failure | None:
    """The first step that differs: those after it go on with its cache."""
    wrong = [output for output in comparison.outputs if output.differs]
    if not wrong:
        return None
    first = wrong[0]
    others = f" ({len(wrong)} of {steps} tokens differ)" if len(wrong) > 1 else ""
    message = f"the logits of token {first.index + 1} of {steps} differ: {first.why}{others}"
    return numerics.mismatched(first, message)
