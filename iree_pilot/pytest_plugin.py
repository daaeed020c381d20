"""A pytest plugin: `iree.check(model, inputs, targets=[...])` passes where the numbers agree.

pytest imports this module in each of its runs, whether or not a test has a use for it: `check`
imports what takes long.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    import torch

    from iree_pilot.pipeline.case_result import CaseResult
    from iree_pilot.pipeline.errors import PilotError
    from iree_pilot.pipeline.frontends.job import TraceFailed
    from iree_pilot.pipeline.frontends.load import Loaded

#: Verdicts that a test may accept beside `ok`; a failure is what pytest.mark.xfail is for.
_ALLOWED = ("ran", "compiled")
_NAME_CHARACTERS = 120


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("iree-pilot")
    group.addoption(
        "--iree-target",
        action="append",
        default=[],
        metavar="TARGET[,TARGET...]",
        help="Check models on these targets, whichever the tests name.",
    )
    group.addoption(
        "--iree-release",
        metavar="VERSION",
        help="Check models with this IREE release, or with the compiler in this directory.",
    )
    group.addoption(
        "--iree-bisect",
        metavar="DIR",
        help="Isolate each failure into a minimal reproducer, in a folder of its own in DIR.",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.iree_target:
        from iree_pilot.pipeline.errors import UsageError

        try:
            _targets(config.option.iree_target)
        except UsageError as fault:
            raise pytest.UsageError(f"--iree-target: {fault}") from None
    place = _bisect_directory(config)
    if place and place.exists() and not place.is_dir():
        raise pytest.UsageError(
            f"--iree-bisect: {place} is a file; name the folder for reproducers: --iree-bisect=DIR"
        )


@pytest.fixture
def iree(request: pytest.FixtureRequest) -> Checker:
    """Compiles models with IREE, runs and compares them: `iree.check(model, (x,), targets=...)`."""
    return Checker(request.node)


class _Checked(NamedTuple):
    """failures: messages about targets that are not as they should be; faults: errors that say
    nothing of the model."""

    results: list[CaseResult]
    failures: list[str]
    faults: list[PilotError]


class Checker:
    """Value of the fixture `iree`: the checks of one test."""

    def __init__(self, test: pytest.Item) -> None:
        self._test = test
        self._options = test.config.option

    def check(
        self,
        source: str | Path | torch.nn.Module,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        targets: str | Iterable[str] = "llvm-cpu",
        allow: str | Iterable[str] = (),
        **options: Any,
    ) -> tuple[CaseResult, ...]:
        """Fails the test unless each output is compared on each target, and agrees.

        source, args, kwargs: as `iree_pilot.trace` takes them. options: its keywords and those of
        `iree_pilot.run`. allow: verdicts that pass too, `ran` (not compared) or `compiled` (not
        run). Returns the results in the order of the targets.

        Fails with `pytest.fail.Exception`, which `pytest.mark.xfail(raises=...)` can name; raises
        UsageError for wrong usage, EnvironmentFault where something is missing here.
        """
        __tracebackhide__ = True
        checked = self._checked((source, args, kwargs), targets, _words(allow), options)
        if checked.failures:
            pytest.fail("\n\n".join((*checked.failures, *map(str, checked.faults))))
        for fault in checked.faults:
            raise fault
        return tuple(checked.results)

    def _checked(
        self,
        traced: tuple[str | Path | torch.nn.Module, Sequence[Any], Mapping[str, Any] | None],
        targets: str | Iterable[str],
        allowed: list[str],
        options: dict[str, Any],
    ) -> _Checked:
        from iree_pilot import api
        from iree_pilot.pipeline.errors import PilotError

        source = traced[0]
        name = str(source) if isinstance(source, str | Path) else type(source).__name__
        if self._options.iree_release:
            options = {**options, "release": self._options.iree_release}
        found = _Checked([], [], [])
        try:
            _check_usage(allowed, options)
            specs = _targets(self._options.iree_target or _words(targets))
            with _without_trace_log():
                program = api.trace(*traced, **_options_of(api.trace, options))
        except api.TraceFailed as failed:
            found.failures.append(self._untraced(name, failed))
            return found
        except PilotError as fault:
            found.faults.append(_about(name, fault))
            return found
        for target in specs:
            try:
                result = api.run(program, target, **_options_of(api.run, options))
            except PilotError as fault:
                found.faults.append(_about(f"{name} on {target}", fault))
                continue
            self._test.user_properties.append((f"iree {target}", result.status))
            if result.status not in ("ok", *allowed):
                lines = self._told(program, result, found.results, options)
                found.failures.append(_text(f"{name} on {target}: {_why(result)}", lines))
            found.results.append(result)
        return found

    def _untraced(self, name: str, failed: TraceFailed) -> str:
        from iree_pilot.pipeline.failure_lines import failure_lines

        lines = failure_lines(failed.failure, verbose=self._verbose)
        if _bisect_directory(self._test.config):
            how = (
                "`iree-pilot bisect` isolates what does not trace, of a model in a file of its own"
            )
            lines.append(("not isolated", how))
        return _text(f"{name}: failed: does not trace", [*lines, self._again()])

    def _told(
        self,
        program: Loaded,
        result: CaseResult,
        before: Sequence[CaseResult],
        options: dict[str, Any],
    ) -> list[tuple[str, str]]:
        """Report on a result that does not pass, with the command to type next."""
        lines = [("release", result.release)]
        if result.failure is None:
            if result.device is None:
                lines.append(("machine", "`iree-pilot doctor` says what is missing here"))
            lines.append(("accept", f'with allow=("{result.status}",)'))
        else:
            lines += self._failed(program, result, before, options)
        return [*lines, self._again(f"--iree-target={result.target}")]

    def _failed(
        self,
        program: Loaded,
        result: CaseResult,
        before: Sequence[CaseResult],
        options: dict[str, Any],
    ) -> Iterator[tuple[str, str]]:
        from iree_pilot.pipeline import case_result
        from iree_pilot.pipeline.failure_lines import failure_lines, without_repeated

        assert result.failure is not None
        lines = failure_lines(result.failure, verbose=self._verbose)
        yield from without_repeated(
            lines, [(one.target, one.failure) for one in before if one.failure]
        )
        compared = result.comparison
        if compared is not None and compared.differs and compared.max_abs:
            relative = f"relative L2 {compared.rel_l2:.2e}, tolerance {compared.tolerance:.1e}"
            yield "max error", f"{compared.max_abs:.2e} ({relative})"
        for label, argv in case_result.commands(result):
            yield label, f"$ {shlex.join(argv)}"
        place = _bisect_directory(self._test.config)
        if place is None:
            target = f"--iree-target={result.target}"
            yield "bisect", self._again(target, "--iree-bisect=reproducers")[1]
        else:
            yield from self._bisected(program, result, place, options)

    def _bisected(
        self, program: Loaded, result: CaseResult, place: Path, options: dict[str, Any]
    ) -> Iterator[tuple[str, str]]:
        """Result of isolating a failure: the reproducer's folder, or a reason why there is none."""
        from iree_pilot import api
        from iree_pilot.pipeline.errors import PilotError
        from iree_pilot.pipeline.plural import count

        folder = place / self._folder(program, result, options)
        try:
            found = api.bisect(program, result, folder, **_options_of(api.bisect, options))
        except PilotError as fault:
            yield "not isolated", str(fault)
            return
        why = found.why or next((one.why for one in found.failures if one.why), "")
        if found.status != "isolated":
            yield "not isolated", why or "the failure does not show again"
        for one in found.failures:
            if made := one.reproducer:
                state = "verified" if made.verified else "NOT verified"
                yield "reproducer", made.path
                yield "", f"{count(made.ops, 'operation')}: {', '.join(made.op_names)}; {state}"

    def _folder(self, program: Loaded, result: CaseResult, options: dict[str, Any]) -> str:
        """The name of a reproducer's folder: the test and the target, and a digest of them and of
        what failed, so that no other failure's folder has it."""
        from iree_pilot.pipeline.store.store import Store

        assert result.failure is not None
        name = f"{self._test.nodeid}-{result.target}"
        flags = tuple(options.get("flags", ()))
        digest = Store.key(
            name, program.program.digest, result.failure.signature, result.release, flags
        )
        words = re.sub(r"[^\w.]+", "-", name, flags=re.ASCII)[-_NAME_CHARACTERS:]
        return f"{words.strip('-')}-{digest[:8]}"

    def _again(self, *more: str) -> tuple[str, str]:
        """The command that repeats this test alone."""
        config = self._test.config
        file = os.path.relpath(self._test.path, config.invocation_params.dir)
        inside = [
            node.name
            for node in self._test.listchain()
            if isinstance(node, pytest.Class | pytest.Item)
        ]
        words = ["pytest", "::".join((file, *inside)), *more]
        if self._options.iree_release:
            words.append(f"--iree-release={self._options.iree_release}")
        return "reproduce", f"$ {shlex.join(words)}"

    @property
    def _verbose(self) -> bool:
        return self._test.config.get_verbosity() > 0


def _why(result: CaseResult) -> str:
    """The verdict, and why."""
    said = result.why
    return said if said.startswith(result.status) else f"{result.status}: {said}"


def _bisect_directory(config: pytest.Config) -> Path | None:
    """The user's --iree-bisect, from where pytest was started; None where that is not given."""
    given = config.option.iree_bisect
    return None if given is None else config.invocation_params.dir / given


def _words(given: str | Iterable[str]) -> list[str]:
    return given.split(",") if isinstance(given, str) else list(given)


def _targets(words: Iterable[str]) -> list[str]:
    """The targets, each once; raises UsageError as `parse_list` does."""
    from iree_pilot.pipeline.targets.targets import parse_list

    return [target.spec for target in parse_list(",".join(words))]


def _keywords(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}


def _options_of(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    known = _keywords(function)
    return {name: value for name, value in options.items() if name in known}


def _check_usage(allowed: list[str], options: dict[str, Any]) -> None:
    """Raises UsageError for an option or a verdict that does not exist."""
    from iree_pilot import api
    from iree_pilot.pipeline.errors import UsageError, nearest

    known = _keywords(api.trace) | _keywords(api.run)
    own = inspect.signature(Checker.check).parameters.keys() - {"self", "options"}
    for name in options.keys() - known:
        raise UsageError(f"check has no option {name}", advice=nearest(name, sorted(known | own)))
    for verdict in allowed:
        if verdict not in _ALLOWED:
            raise UsageError(
                f"allow: {verdict} is not {' or '.join(_ALLOWED)}",
                advice="A failure that is expected is marked with pytest.mark.xfail.",
            )


@contextlib.contextmanager
def _without_trace_log() -> Iterator[None]:
    """Keeps torch's records for TORCH_TRACE, which have no message, out of the report: pytest takes
    them, as their logger does not propagate."""
    log = logging.getLogger("torch.__trace")
    pytests = [one for one in log.handlers if type(one).__module__.startswith("_pytest.")]
    for handler in pytests:
        log.removeHandler(handler)
    try:
        yield
    finally:
        for handler in pytests:
            log.addHandler(handler)


def _about(name: str, fault: PilotError) -> PilotError:
    """The same error, which says nothing about the model, with the check that met it."""
    from iree_pilot.pipeline.errors import EnvironmentFault, UsageError

    if isinstance(fault, UsageError):
        return UsageError(f"{name}: wrong usage: {fault.message}", advice=fault.advice)
    return EnvironmentFault(f"{name}: environment: {fault.message}", advice=fault.advice)


def _text(first: str, lines: list[tuple[str, str]]) -> str:
    """The lines below the first one, their labels in a column."""
    width = max(len(label) for label, _ in lines)
    column = [first]
    for label, text in lines:
        head, *rest = text.splitlines() or [""]
        column.append(f"  {label:<{width}}  {head}".rstrip())
        column += [f"  {'':<{width}}  {line}".rstrip() for line in rest]
    return "\n".join(column)
