"""Reader of nightly.toml: blocks of the matrix, parallelism, budgets of isolation and news."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec

from iree_pilot.pipeline import quantities, toml_tables
from iree_pilot.pipeline.frontends.job import operation

#: More repetitions of one thing than this are a slip of the pen.
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
#: Largest seed that both PyTorch and numpy accept.
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
#: More processes at once than any machine has room for are a slip of the pen.
Jobs = Annotated[int, msgspec.Meta(ge=0, le=4096)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
#: `10min` or seconds; `4GiB` or bytes.
Duration = str | Annotated[float, msgspec.Meta(gt=0, le=quantities.MOST_SECONDS)]
Size = str | Annotated[float, msgspec.Meta(gt=0, le=quantities.MOST_BYTES)]


def _seconds(value: str | float) -> float:
    return quantities.duration(value) if isinstance(value, str) else float(value)


def _bytes(value: str | float | None) -> int | None:
    if value is None:
        return None
    return int(quantities.size(value) if isinstance(value, str) else value)


def _check(**named: str | float | None) -> None:
    """Raises ValueError that begins with the key whose value cannot be read."""
    for key, value in named.items():
        try:
            if "memory" in key and value is not None:
                quantities.memory(value)
            elif isinstance(value, str):
                quantities.duration(value)
        except ValueError as fault:
            raise ValueError(f"{key}: {fault}") from fault


class MatrixBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the matrix: each model for each target, release and dtype.

    What is None is as in [matrix], and there as in `Case`. models: SOURCEs as on the command line,
    files relative to the TOML; patterns stand for the zoo's (`*:tiny`, `gemma*/decode`) or, where
    none of these fits, for files (`exported/*.onnx`). targets, releases: as for -t and --release;
    also `installed`, `latest`, and a toolchain's directory. dtypes, fields: as --dtype and --set; a
    dtype that a model of a pattern does not have is left out. flags: for iree-compile. time_limit,
    memory_limit: for each step. recipe: file of `iree-pilot bringup`, relative to the TOML.
    no_decompose, seeded: as on the command line.
    """

    models: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    releases: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    fields: dict[str, str | int | bool] | None = None
    flags: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    seed: Seed | None = None
    time_limit: Duration | None = None
    memory_limit: Size | None = None
    repeats: Positive | None = None
    bisect: bool | None = None
    recipe: str | None = None
    no_decompose: tuple[str, ...] | None = None
    seeded: bool | None = None

    def __post_init__(self) -> None:
        _check(time_limit=self.time_limit)
        _check(memory_limit=self.memory_limit)
        for name in self.no_decompose or ():
            try:
                operation(name)
            except ValueError as fault:
                raise ValueError(f"no_decompose: {fault}") from fault

    @property
    def seconds(self) -> float:
        """Limit of each step."""
        return _seconds(self.time_limit or quantities.DEFAULT_SECONDS)

    @property
    def memory_bytes(self) -> int | None:
        """Limit of each step."""
        return _bytes(self.memory_limit)


class Exclude(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cases that are left out: those that fit, for each key given, one of its patterns."""

    models: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    releases: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    reason: str = ""


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parallelism on this machine, and reruns.

    jobs: 0 stands for one a core. memory: None stands for 90% of what is available. reruns: how
    often a new failure is run again, to see whether it is intermittent.
    """

    jobs: Jobs = 0
    memory: Size | None = None
    reruns: Count = 1

    def __post_init__(self) -> None:
        _check(memory=self.memory)

    @property
    def memory_bytes(self) -> int | None:
        return _bytes(self.memory)


class TimeBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time for new failures: for all of a night together, and for each."""

    budget: Duration = "20min"
    each: Duration = "10min"

    def __post_init__(self) -> None:
        _check(budget=self.budget)
        _check(each=self.each)

    @property
    def seconds(self) -> float:
        return _seconds(self.budget)

    @property
    def seconds_each(self) -> float:
        return _seconds(self.each)


class NewsConfig(TimeBudget, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Steps of the investigation of new failures, in this order.

    `pipeline.nightly.investigation.news` takes them.

    budget, each: how long may be asked about releases and workarounds, all of a night together,
    and one question about one failure. What [bisect] says is for isolating.
    """

    isolate: bool = True
    releases: bool = True
    workaround: bool = True


class NightlyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole nightly.toml. title: for reports.

    include: more cases; one that is there already is replaced. exclude: applies to all of them.
    """

    matrix: MatrixBlock
    title: str = "nightly"
    include: tuple[MatrixBlock, ...] = ()
    exclude: tuple[Exclude, ...] = ()
    schedule: Schedule = Schedule()
    bisect: TimeBudget = TimeBudget()
    news: NewsConfig = NewsConfig()


class Nightly(msgspec.Struct, frozen=True, kw_only=True):
    """A config, where it was read, and a digest of what decides its cases."""

    config: NightlyConfig
    path: Path
    digest: str

    @property
    def directory(self) -> Path:
        """Directory that the sources' files are relative to."""
        return self.path.parent


def read(path: Path) -> Nightly:
    """Reads a nightly.toml; raises UsageError as `toml_tables.read` does."""
    config = toml_tables.read(path, NightlyConfig)
    matrix = msgspec.json.encode(
        (config.matrix, config.include, config.exclude), order="deterministic"
    )
    return Nightly(
        config=config, path=path.absolute(), digest=hashlib.sha256(matrix).hexdigest()[:16]
    )
