"""Options that commands share, and what they mean."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import msgspec
from click.core import ParameterSource

from iree_pilot.pipeline import quantities
from iree_pilot.pipeline.cli import completing
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.store import outputs

F = TypeVar("F", bound=Callable[..., Any])

#: Stands for the standard output in place of a file.
STDOUT = "-"

#: Largest seed that both PyTorch and numpy accept.
MOST_SEED = 2**63 - 1


class _Quantity(click.ParamType[float]):
    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


class _Text(click.ParamType[str]):
    """A name or another text, never an empty one, which would mean that none was given."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value).strip():
            self.fail("it is empty", param, ctx)
        return value


TEXT = _Text()


class Place(click.Path):
    """A path to read: click's, except that an empty one is refused, which would mean here.

    No two options of a command may name one place, see `common`.
    """

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(file_okay=file_okay, dir_okay=dir_okay, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; name a place", param, ctx)
        return super().convert(value, param, ctx)


class Output(Place):
    """A path to write: it may be created, but not the directory that it is in.

    What cannot be written is found before the command begins.

    stdout: `-` stands for it, and comes of /dev/stdout, so that nothing else is said there;
    elsewhere it is refused, for it is hardly meant as a name.
    """

    def __init__(
        self, *, file_okay: bool = True, dir_okay: bool = True, stdout: bool = False
    ) -> None:
        super().__init__(file_okay=file_okay, dir_okay=dir_okay)
        self._stdout = stdout

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        value = super().convert(value, param, ctx)
        if self._stdout and outputs.is_stdout(Path(value)):
            return STDOUT
        if value != STDOUT:
            outputs.check_parent(Path(value))
            if ctx is None or not ctx.resilient_parsing:  # the shell completes the words
                outputs.check_writable(Path(value))
        elif not self._stdout:
            self.fail("this is not written to stdout; name a place (./- is one, too)", param, ctx)
        # As it can be typed anywhere: the next command may begin with it.
        return f"./{value}" if value.startswith("-") and value != STDOUT else value


class _Seed(click.ParamType[int]):
    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        with contextlib.suppress(ValueError):
            if 0 <= int(value) <= MOST_SEED:
                return int(value)
        raise click.BadParameter(
            f"{value!r} is not a seed, which is a whole number from 0 to {MOST_SEED}", ctx, param
        )


DURATION = _Quantity("duration", quantities.duration)
SIZE = _Quantity("size", quantities.size)
MEMORY = _Quantity("size", quantities.memory)


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """Options of every command. verbosity: -1 quiet, 0, 1 verbose. default_limit: the user gave
    no time limit."""

    json: bool
    verbosity: int
    time_limit: float
    default_limit: bool
    memory_limit: float | None
    release: str | None


class SourceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of every command with a SOURCE. weights: PATH or SCOPE=PATH. trust: code out of
    SOURCE may be run, whoever it comes from. leave: operations that are not decomposed. seeded:
    what it draws is an input."""

    settings: dict[str, str]
    dtype: str | None
    seed: int
    weights: tuple[str, ...]
    inputs: tuple[str, ...]
    inline: bool
    fresh: bool
    function: str = ""
    trust: bool = False
    leave: tuple[str, ...] = ()
    seeded: bool = False


_TRUST = click.option(
    "--trust",
    is_flag=True,
    help="Also run code from a reproducer's folder or a .pt2 that somebody else wrote.",
)


def common(
    *,
    limits: bool = False,
    release: bool | str = False,
    to: str = "Use another compiler release",
    first: str = "",
) -> Callable[[F], F]:
    """--json -v -q, as one argument `common`.

    limits: --time-limit and --memory-limit too, of commands whose steps take long.
    release: --release too, of commands that start a compiler or look for one; a text is its
    default in words. to: what it does. first: what comes before the defaults of these options.
    """
    chosen = [*_OUTPUT, *(_limits(first) if limits else ())]
    if release:
        usual = release if isinstance(release, str) else "that of this environment"
        chosen.append(_release(to, _else(first, usual)))

    def decorate(function: F) -> F:
        @functools.wraps(function)  # keeps the options that click has noted on it
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            verbose, quiet = kwargs.pop("verbose"), kwargs.pop("quiet")
            if verbose and quiet:
                raise click.UsageError("-v and -q contradict each other")
            context = click.get_current_context()
            _check_places(context)
            given = context.get_parameter_source("time_limit")
            made = Common(
                json=kwargs.pop("as_json"),
                verbosity=int(verbose) - int(quiet),
                time_limit=kwargs.pop("time_limit", quantities.DEFAULT_SECONDS),
                default_limit=given != ParameterSource.COMMANDLINE,
                memory_limit=kwargs.pop("memory_limit", None),
                release=kwargs.pop("release", None),
            )
            return function(*args, common=made, **kwargs)

        return _decorated(cast(F, wrapped), *chosen)

    return decorate


_OUTPUT = (
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print one JSON document on stdout; progress goes to stderr.",
    ),
    click.option("-v", "--verbose", is_flag=True, help="Print more: stacks, every operation."),
    click.option("-q", "--quiet", is_flag=True, help="Print only the outcome."),
)


def _limits(first: str) -> tuple[Callable[[Any], Any], ...]:
    """--time-limit and --memory-limit."""
    time = f"{quantities.DEFAULT_SECONDS / 60:g}min"
    return (
        click.option(
            "--time-limit",
            type=DURATION,
            default=time,
            show_default=_else(first, time) if first else True,
            metavar="TIME",
            help="Time limit of each step: 90s, 10min.",
        ),
        click.option(
            "--memory-limit",
            type=MEMORY,
            show_default=_else(first, "90% of what is available"),
            metavar="SIZE",
            help="Memory limit of each step: 4GiB.",
        ),
    )


def _release(to: str, shown: str) -> Callable[[Any], Any]:
    """--release."""
    return click.option(
        "--release",
        metavar="VERSION",
        show_default=shown,
        shell_complete=completing.releases,
        help=f"{to}; it is installed on demand.",
    )


def _else(first: str, usual: str) -> str:
    return f"{first}, else {usual}" if first else usual


def _check_places(context: click.Context) -> None:
    """Raises UsageError where two options or arguments name one file: only one would be there."""
    places = [param for param in context.command.params if isinstance(param.type, Place)]
    given = [
        (param.opts[-1] if isinstance(param, click.Option) else param.human_readable_name, value)
        for param in places
        if (value := context.params.get(param.name or "")) not in (None, STDOUT)
    ]
    for (one, first), (other, second) in itertools.combinations(given, 2):
        if outputs.is_same(Path(first), Path(second)):
            raise UsageError(
                f"{one} and {other} both name {second}: one would take the place of the other",
                advice="Name another place for one of them.",
            )


def _operand(context: click.Context, parameter: click.Parameter, source: str) -> str:
    """A file that begins with a dash as it can be typed anywhere, as `./-net.py`."""
    dashed = (source or "").startswith("-") and Path(source.partition(":")[0]).exists()
    return f"./{source}" if dashed else source


def source_options(function: F) -> F:
    """SOURCE and --set --dtype --seed --weights --input --function --inline-parameters --fresh
    --trust."""

    @functools.wraps(function)  # keeps the options that click has noted on it
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        chosen = SourceOptions(
            settings=dict(kwargs.pop("settings")),
            dtype=kwargs.pop("dtype"),
            seed=kwargs.pop("seed"),
            weights=kwargs.pop("weights"),
            inputs=kwargs.pop("inputs"),
            inline=kwargs.pop("inline"),
            fresh=kwargs.pop("fresh"),
            function=kwargs.pop("entry") or "",
            trust=kwargs.pop("trust"),
            leave=kwargs.pop("leave"),
            seeded=kwargs.pop("seeded"),
        )
        return function(*args, source_options=chosen, **kwargs)

    return _decorated(
        cast(F, wrapped),
        click.argument("source", callback=_operand, shell_complete=completing.sources),
        click.option(
            "--set",
            "--kwargs",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            callback=_pairs,
            shell_complete=completing.settings,
            help="Set a field of a zoo model's preset or of a library model's configuration, or a "
            "keyword argument of a factory.",
        ),
        click.option(
            "--dtype",
            type=TEXT,
            metavar="DTYPE",
            shell_complete=completing.dtypes,
            show_default="the preset's",
            help="A zoo's or a library's model's dtype: f32, f16, bf16.",
        ),
        click.option(
            "--seed",
            type=_Seed(),
            default=0,
            metavar="NUMBER",
            help="Seed of random weights and inputs.",
        ),
        click.option(
            "--weights",
            multiple=True,
            metavar="[SCOPE=]PATH",
            callback=_archives,
            shell_complete=completing.files,
            help="Read weights by name: .safetensors, .irpa, .gguf, or a directory of safetensors; "
            "for one scope of MLIR's parameters, or for all.",
        ),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="VALUE",
            help="An input: FILE.npy, SHAPExDTYPE=@FILE, SHAPExDTYPE=NUMBERS, SHAPExDTYPE (zeros; "
            "random for a library or module), or a NUMBER for a scalar; once per input, in order.",
        ),
        click.option(
            "--function",
            "entry",
            type=TEXT,
            metavar="NAME",
            help="Of several functions of SOURCE, evaluate, run and compare only this one; --input "
            "is for it.",
        ),
        click.option(
            "--inline-parameters",
            "inline",
            is_flag=True,
            help="Write the weights into the MLIR as constants.",
        ),
        click.option(
            "--no-decompose",
            "leave",
            is_flag=False,
            flag_value="all",
            multiple=True,
            metavar="[OP]",
            callback=_operations,
            help="Leave an operation that IREE cannot compile as it is (aten.diff; without OP: "
            "all), instead of PyTorch's decomposition of it. To be typed after SOURCE, which "
            "would be taken for OP.",
        ),
        click.option(
            "--seeded",
            is_flag=True,
            help="Draw random numbers once, with --seed, and give them to PyTorch and the device "
            "as inputs, so that both compute with the same.",
        ),
        click.option("--fresh", is_flag=True, help="Ignore cached results."),
        _TRUST,
    )


def trust_option(function: F) -> F:
    """--trust."""
    return _decorated(function, _TRUST)


def expected_option(function: F) -> F:
    """--expected-output."""
    return _decorated(
        function,
        click.option(
            "--expected-output",
            "expected",
            multiple=True,
            metavar="VALUE",
            help="Expected value of an output, spelt as for --input, or (ignored); once per "
            "output, in order.",
        ),
    )


def target_option(function: F) -> F:
    """-t TARGET[,TARGET...] and --device."""
    return _decorated(
        function,
        click.option(
            "-t",
            "--target",
            "targets",
            multiple=True,
            callback=joined,
            metavar="TARGET[,TARGET...]",
            shell_complete=completing.targets,
            help="BACKEND[:ARCH], as in hip:gfx942 (iree-pilot targets); default for a reproducer: "
            "its own.",
        ),
        click.option(
            "--device", type=TEXT, metavar="URI", help="Run on this device (iree-pilot targets)."
        ),
    )


def targets_option(doing: str) -> Callable[[F], F]:
    """-t TARGET[,TARGET...] of a command that has a result for each."""
    return click.option(
        "-t",
        "--target",
        multiple=True,
        callback=joined,
        metavar="TARGET[,TARGET...]",
        shell_complete=completing.targets,
        help=f"{doing}, one after the other; default for a reproducer: its own.",
    )


def folder_option(what: str, *, default: str | None = None) -> Callable[[F], F]:
    """-o DIR; required where there is no usual place."""
    return click.option(
        "-o",
        "--output",
        required=default is None,
        type=Output(),
        metavar="DIR",
        show_default=default,
        help=f"Directory for {what}; it is created, its parent must exist.",
    )


def budget_option(text: str) -> Callable[[F], F]:
    """--budget TIME."""
    return click.option(
        "--budget", type=DURATION, metavar="TIME", show_default="no limit", help=text
    )


def recipe_option(function: F) -> F:
    """--recipe FILE."""
    return _decorated(
        function,
        click.option(
            "--recipe",
            type=Place(dir_okay=False),
            metavar="FILE",
            shell_complete=completing.files,
            help="Apply what a recipe of `iree-pilot bringup` holds for each target.",
        ),
    )


def resume_option(function: F) -> F:
    """--from PHASE."""
    return _decorated(
        function,
        click.option(
            "--from",
            "resume",
            metavar="PHASE",
            shell_complete=completing.phases,
            help="SOURCE is MLIR that was dumped after this phase.",
        ),
    )


def _decorated(function: F, *options: Callable[[F], F]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def joined(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> str | None:
    """`-t A -t B` is `-t A,B`: of an option that is given twice, click keeps the last."""
    return ",".join(values) if values else None


def _pairs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, str]]:
    pairs = [value.partition("=") for value in values]
    for (key, equals, _), value in zip(pairs, values, strict=True):
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", ctx, param)
    return [(key, value) for key, _, value in pairs]


def _operations(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    from iree_pilot.pipeline.frontends.job import operation

    found = []
    for value in values:
        try:
            found.append(operation(value))
            why = f"{value!r} is a file" if Path(value).exists() else ""
        except ValueError as fault:
            why = str(fault)
        if why:
            raise click.BadParameter(f"{why}; write SOURCE before it", ctx, param)
    return tuple(found)


def _archives(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Each with its path made absolute."""
    found = []
    for value in values:
        scope, equals, path = value.partition("=")
        if Path(value).exists():
            scope, equals, path = "", "", value
        if not Path(path or value).exists():
            raise click.BadParameter(f"there is no file {path or value}", ctx, param)
        found.append(f"{scope}{equals}{Path(path).resolve()}")
    return tuple(found)


def limits(common: Common) -> Any:
    """The limits of one step. Memory defaults to 90% of what is available now."""
    from iree_pilot import api

    seconds = None if common.default_limit else common.time_limit
    return api.limits_of(seconds, common.memory_limit)
