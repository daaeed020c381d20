"""The cases of a nightly.toml: each model for each target, release and dtype, checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import msgspec
from packaging.version import Version

from iree_pilot.models.libraries import names as libraries
from iree_pilot.models.spec import ModelSpec, registry
from iree_pilot.pipeline import plural, toml_tables
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError, nearest
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import operation
from iree_pilot.pipeline.nightly.cases.config import Exclude, MatrixBlock, Nightly
from iree_pilot.pipeline.nightly.records import INSTALLED, LATEST, Case
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.toolchain import compiler, releases, toolchain
from iree_pilot.pipeline.toolchain import flags as compile_flags
from iree_pilot.repro.bringup import recipe as recipes
from iree_pilot.repro.bringup.recipe import Recipe

Keys = tuple[str | int, ...]


def expand(
    nightly: Nightly,
    *,
    available: Callable[[], list[str]] = releases.available,
    on_progress: Callable[[str], None] = lambda _: None,
) -> tuple[Case, ...]:
    """All cases, in the order of the TOML, each once.

    A case that two blocks name is as the later one says; a file that is spelled in several steps
    has the first one's name. available: the releases that can be
    installed; asked only for versions that are not on this machine. on_progress: hears what is left
    out, and the reason.

    Raises UsageError, with file and line, for a model, preset, field, target, release or flag that
    does not exist, for a pattern that fits nothing and where no case is left.
    """
    config, found = nightly.config, dict[str, Case]()
    blocks: list[tuple[Keys, MatrixBlock]] = []
    if config.matrix.models is not None or not config.include:  # else it is what those have alike
        blocks.append((("matrix",), config.matrix))
    for number, block in enumerate(config.include):
        said = {k: v for k, v in msgspec.structs.asdict(block).items() if v is not None}
        blocks.append((("include", number), msgspec.structs.replace(config.matrix, **said)))
    check = _Checks(nightly, available)
    spelled: dict[str, str] = {}
    with contextlib.chdir(nightly.directory):
        for where, block in blocks:
            for case in _cases(block, where, check):
                first = spelled.setdefault(_of_file(case.source), case.source)
                case = msgspec.structs.replace(case, source=first)
                found[case.name] = case
    for number, exclude in enumerate(config.exclude):
        kept = {n: c for n, c in found.items() if not excluded(c, exclude)}
        if len(kept) == len(found):
            raise UsageError(
                f"{toml_tables.place(nightly.path, 'exclude', number)}: [[exclude]] fits no case",
                advice="Fix its patterns, or remove it: it excludes no case of this matrix.",
            )
        on_progress(_left_out(exclude, len(found) - len(kept)))
        found = kept
    if not found:
        raise UsageError(
            f"{nightly.path}: there is no case left",
            advice="Name models and targets in [matrix], and exclude less.",
        )
    return tuple(found.values())


def check_release(nightly: Nightly, text: str) -> None:
    """Raises UsageError for a release that does not exist."""
    _Checks(nightly, releases.available).release(text)


def _left_out(exclude: Exclude, count: int) -> str:
    given = msgspec.structs.asdict(exclude)
    said = [", ".join(value) for key, value in given.items() if key != "reason" and value]
    cases = plural.count(count, "case")
    return f"{cases} left out ({'; '.join(said)}): {exclude.reason or 'no reason is given'}"


def excluded(case: Case, exclude: Exclude) -> bool:
    """True if the case fits one pattern of every key that the exclusion gives."""
    parts: tuple[tuple[tuple[str, ...] | None, tuple[str, ...]], ...] = (
        (exclude.models, (case.source, case.source.split(":")[0])),
        (exclude.targets, (case.target, case.target.split(":")[0])),
        (exclude.releases, (case.release,)),
        (exclude.dtypes, (case.dtype or "",)),
        (exclude.tags, case.tags),
    )
    return all(
        patterns is None or any(fnmatchcase(text, p) for p in patterns for text in texts)
        for patterns, texts in parts
    )


def _cases(block: MatrixBlock, where: Keys, check: _Checks) -> Iterator[Case]:
    for key in ("models", "targets"):
        if not getattr(block, key):
            raise UsageError(
                f"{check.at(where)}: no {key} are named", advice=f"Add {key} = [...] to [matrix]."
            )
    fields = {name: _text(value) for name, value in (block.fields or {}).items()}
    flags = block.flags or ()
    with check.placing(where, "flags"):
        compiler.check_flags(flags)
    for target in block.targets or ():
        with check.placing(where, "targets", target):
            targets.parse(target)
    for release in block.releases or (INSTALLED,):
        with check.placing(where, "releases", release):
            check.release(release)
        for target in block.targets or ():
            with check.placing(where, "flags" if flags else "targets", "" if flags else target):
                check.compiles(release, target, flags)
    dtypes: tuple[str | None, ...] = block.dtypes or (None,)
    recipe = Recipe(source="", iree="")
    if block.recipe:
        with check.placing(where, "recipe"):
            recipe = recipes.read(Path(block.recipe))
    fields = {**recipe.settings, **fields}
    for pattern in block.models or ():
        with check.placing(where, "models", pattern):
            chosen = list(_programs(pattern, fields, dtypes))
        for (source, dtype), release, target in product(
            chosen, block.releases or (INSTALLED,), block.targets or ()
        ):
            yield Case(
                source=source,
                target=target,
                release=release,
                dtype=dtype,
                fields=fields,
                flags=flags,
                tags=block.tags or (),
                seed=block.seed or 0,
                time_limit=block.seconds,
                memory_limit=block.memory_bytes,
                repeats=block.repeats or 1,
                bisect=block.bisect is not False,
                recipe=block.recipe or "",
                steps=recipe.of(targets.parse(target).backend),
                leave=tuple(map(operation, block.no_decompose or ())),
                seeded=block.seeded is True,
            )


def _programs(
    pattern: str, fields: dict[str, str], dtypes: tuple[str | None, ...]
) -> Iterator[tuple[str, str | None]]:
    """(SOURCE, dtype) of a model or of each that fits a pattern; raises UsageError."""
    if not any(c in pattern for c in "*?[") or Path(pattern).exists():
        for dtype in dtypes:
            sources.parse(pattern, fields, dtype)
            yield pattern, dtype
        return
    names = [name for spec in registry().values() for name in _names(spec, pattern)]
    if (library := pattern.partition(":")[0]) in sources.LIBRARIES:
        names = [f"{library}:{name}" for name in libraries.known(library)]
    fitting = [name for name in names if fnmatchcase(name, pattern)] or _files(pattern)
    if not fitting:
        raise UsageError(
            f"no model of the zoo and no file fits {pattern!r}",
            advice=nearest(pattern.strip("*"), names),
        )
    refused: list[UsageError] = []
    found = False
    for name, dtype in product(fitting, dtypes):
        try:
            sources.parse(name, fields, dtype)
        except UsageError as fault:
            refused.append(fault)
        else:
            found = True
            yield name, dtype
    if not found:
        raise refused[0]


def _names(spec: ModelSpec, pattern: str) -> list[str]:
    """Names that a pattern of that form may match: models, presets, and the parts of these."""
    names = [f"{spec.name}:{p.name}" for p in spec.presets] if ":" in pattern else [spec.name]
    return [f"{name}/{part}" for name in names for part in spec.parts] if "/" in pattern else names


def _files(pattern: str) -> list[str]:
    """Files that fit, by their paths from here or from the root, as the pattern is written."""
    root = Path(Path(pattern).anchor)
    return sorted(str(path) for path in root.glob(str(Path(pattern).relative_to(root))))


def _of_file(source: str) -> str:
    """A source with the one path of its file or folder; others as they are."""
    path, named = sources.split(source)
    if path.split("/")[0] in registry() or not Path(path).exists():
        return source
    return f"{Path(path).resolve()}:{named}"


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Checks:
    """Places what is wrong with a block in its file, and knows releases."""

    def __init__(self, nightly: Nightly, available: Callable[[], list[str]]) -> None:
        self._path = nightly.path
        self._available = available
        self._known: list[str] | None = None
        self._checked: set[str] = set()
        self._compiled: set[tuple[str, str, tuple[str, ...]]] = set()

    def at(self, where: Keys) -> str:
        return toml_tables.place(self._path, *where)

    @contextlib.contextmanager
    def placing(self, where: Keys, key: str, value: str = "") -> Iterator[None]:
        """Puts file and line before what a UsageError says of a key's value."""
        try:
            yield
        except UsageError as fault:
            own = toml_tables.place(self._path, *where, key, value=value)
            if own == self.at(where):  # inherited
                own = toml_tables.place(self._path, "matrix", key, value=value)
            raise UsageError(f"{own}: {fault.message}", advice=fault.advice) from fault

    def release(self, text: str) -> None:
        """Raises UsageError for a release that does not exist.

        A version that can be neither found nor looked up, for want of a network, is let pass: the
        cases that need it tell.
        """
        if text in (INSTALLED, LATEST, *self._checked):
            return
        if releases.is_directory(text):
            toolchain.compiler_in(Path(text).expanduser())
        else:
            version = releases.normal(text)
            if releases.present(version) is None:
                known = self._installable()
                if known and version not in known:
                    advice = nearest(version, sorted(known, key=Version))
                    raise UsageError(f"there is no release {version}", advice=advice)
        self._checked.add(text)

    def compiles(self, release: str, target: str, flags: tuple[str, ...]) -> None:
        """Raises UsageError for flags or an architecture that a release at hand does not have."""
        asked = (release, target, flags)
        if asked in self._compiled or not (flags or targets.parse(target).arch):
            return
        self._compiled.add(asked)
        with contextlib.suppress(EnvironmentFault):  # the cases that need it tell
            known = (
                None
                if release == LATEST
                else releases.present(None if release == INSTALLED else release)
            )
            if known is not None:
                plan = targets.plan(targets.parse(target), known, user_flags=flags)
                compile_flags.check(known, plan.flags, flags)

    def _installable(self) -> list[str]:
        if self._known is None:
            try:
                self._known = self._available()
            except EnvironmentFault:
                self._known = []
        return self._known
