"""Never trust, verify: runs a reproducer's commands in an empty directory with the stock tools.

Within a bisection, Python files are run by forks of a process that has torch and iree-turbine
loaded and nothing of ours (see `fork_servers`).
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline import html_table
from iree_pilot.pipeline.errors import EnvironmentFault, PilotError, UsageError
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import SERIAL, Failure
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.fork_servers import TORCH, Modules
from iree_pilot.pipeline.processes.process import Limits, Outcome
from iree_pilot.pipeline.processes.workers import side_by_side
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.releases import find
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.oracles.oracle import strangers
from iree_pilot.repro.reproducer import control, expectations
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import FILES, SCRIPT, Level, LevelName, Report
from iree_pilot.repro.reproducer.folder.marks import DIFFERS, compared_types
from iree_pilot.repro.trust import steps
from iree_pilot.repro.trust.trust import Opened, is_rendered, open_folder

#: Seconds for what must pass before a level's failure: a trace has to load torch.
_PREPARE_SECONDS = 600.0
#: Seconds that run.sh may take besides its commands.
_SCRIPT_SECONDS = 60.0
#: Least limits for somebody else's folder: below these, a limit proves nothing.
_LEAST_SECONDS = 5.0
_LEAST_BYTES = 2**30
_FOREIGN_SCRIPT = "it is not what this iree-pilot writes for the report"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Check that one level shows the failure; the reason if not, and the failure it shows instead.

    ran: False for one that is not run: without `--trust`, or because its commands do not use its
    program; `why` says so. claimed: the reason that the expected numbers could not be checked, and
    rest on the word of the folder's author.
    """

    level: Level
    same: bool
    why: str = ""
    failure: Failure | None = None
    ran: bool = True
    claimed: str = ""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Verification of a reproducer with a release. same: run.sh and every level that was run show
    the failure.

    script: the exit status of run.sh, None if it had to be stopped, or was not run: script_why says
    why. unavailable: why the release that showed the failure could not be asked. why: says in one
    sentence what is not the same. current: the same with the release in this environment, where
    that is another. changed: files that are not as report.json has them, with how they differ.
    """

    release: str
    same: bool
    levels: tuple[Check, ...]
    script: int | None
    why: str = ""
    current: Verification | None = None
    script_why: str = ""
    changed: dict[str, str] = {}
    unavailable: str = ""
    claimed: str = ""

    def _repr_html_(self) -> str:
        """A table for notebooks: the verdict, and that of each level."""
        rows = [("release", self.release), ("verdict", _said(self.same, self.why))]
        for one in self.levels:
            said = _said(one.same, one.why) if one.ran else f"not run: {one.why}"
            rows.append((f"level {one.level.name}", said))
        script = "" if self.script is None else f"exit status {self.script}"
        rows += [("run.sh", self.script_why or script), ("not asked", self.unavailable)]
        rows += [(name, f"changed: {how}") for name, how in self.changed.items()]
        claimed = f"expected numbers, as {self.claimed}" if self.claimed else ""
        rows.append(("not checked", claimed))
        if (now := self.current) is not None:
            rows.append((f"with {now.release}", _said(now.same, now.why)))
        return html_table.table(rows)


def _said(same: bool, why: str) -> str:
    return f"{'same' if same else 'not the same'}{f': {why}' if why else ''}"


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """Checks of the levels that a folder had before the others were made.

    files: SHA-256 of what the folder had then. A level that did not show the failure beside what
    was made is run again.
    """

    files: dict[str, str]
    checks: tuple[Check, ...]

    def of(self, level: Level, report: Report) -> Check | None:
        """The check of a level; None where its commands, or a file that they may read, differ."""
        read = {n: d for n, d in self.files.items() if n not in bundle.WRITTEN}
        if not read.items() <= report.files.items():
            return None
        return next((one for one in self.checks if one.same and one.level == level), None)


#: Gets the release and what came of a level with it.
OnCheck = Callable[[str, Check], None]


def verify(
    directory: Path,
    release: str | None = None,
    *,
    get: Callable[[str], Toolchain] = find,
    trust: bool = False,
    on_check: OnCheck = lambda release, check: None,
) -> Verification:
    """Runs each level of the reproducer in `directory`, and run.sh, from copies of it.

    release: as `releases.find` takes it; None is the one that showed the failure and, if that is
    another, the one in this environment; only the latter where the former cannot be had. get: gets
    the toolchain of a release. on_check: gets each release and level that was checked. Nothing in
    `directory` is written.

    Raises UsageError where there is no reproducer, no program in it or no such release, and where
    nothing of it is run without `trust`; EnvironmentFault where a tool is missing.
    """
    opened = open_folder(directory, trust=trust)
    if release is not None:
        return _checked(opened, get(release), on_check)
    try:
        own = get(opened.report.release)
    except PilotError as fault:
        found = _checked(opened, find(None), on_check)
        return msgspec.structs.replace(found, unavailable=fault.message)
    found = _checked(opened, own, on_check)
    return msgspec.structs.replace(found, current=_current(opened, own, on_check))


def current(directory: Path, toolchain: Toolchain) -> Verification | None:
    """`check` with the release in this environment, if that is another one."""
    return _current(open_folder(directory), toolchain)


def check(directory: Path, toolchain: Toolchain, before: Ahead | None = None) -> Verification:
    """Same as `verify`, with a toolchain that is at hand.

    before: checks made with it already.
    """
    return _checked(open_folder(directory), toolchain, before=before)


def ahead(directory: Path, toolchain: Toolchain) -> Ahead | None:
    """Checks the levels of a folder that others are still made for, one after the other.

    None for a failure that is shown by nothing else running beside it.
    """
    opened = open_folder(directory)
    if _is_delicate(opened.report):
        return None
    there = (one for one in opened.report.levels if (directory / one.file).is_file())
    with tempfile.TemporaryDirectory(prefix="iree-pilot-verify-") as scratch:
        checks = tuple(
            _check(opened, one, toolchain, Path(scratch) / one.name)
            for one in there
            if not opened.refuses_level(one)
        )
    return Ahead(files=opened.report.files, checks=checks)


def _is_delicate(report: Report) -> bool:
    """True if a failure takes all memory, or comes with the load of the machine."""
    return report.failure.kind == "out-of-memory" or report.rate < 1


def _current(
    opened: Opened, toolchain: Toolchain, on_check: OnCheck = lambda release, check: None
) -> Verification | None:
    """Verification of a reproducer with this environment's release, if that is another one."""
    try:
        here = find(None)
    except EnvironmentFault:
        return None
    return None if here.version == toolchain.version else _checked(opened, here, on_check)


def _checked(
    opened: Opened,
    toolchain: Toolchain,
    on_check: OnCheck = lambda release, check: None,
    before: Ahead | None = None,
) -> Verification:
    directory, report = opened.directory, opened.report
    present = [one for one in report.levels if (directory / one.file).is_file()]
    if not present:
        files = [one.file for one in report.levels] or [*FILES.values()]
        raise UsageError(
            f"{directory} has no program to run: none of {', '.join(files)} is there",
            advice="Get the whole folder again, or isolate the failure again: iree-pilot bisect "
            f"{shlex.quote(report.source)} -t {shlex.quote(report.target)}",
        )
    left = {one.name: why for one in present if (why := opened.refuses_level(one))}
    if len(left) == len(present):
        raise UsageError(
            f"nothing of {directory} is run: {next(iter(left.values()))}",
            advice="Read what it runs first; if you trust its author, add --trust.",
        )
    hollow = {one.name: why for one in present if (why := _hollow(opened, one))}
    script_why = "" if is_rendered(opened) else _FOREIGN_SCRIPT
    script, said = None, ""
    tried = [one for one in present if one.name not in left and one.name not in hollow]
    first = next((name for name in FILES if any(one.name == name for one in tried)), None)
    if first is None:
        script_why = script_why or "none of its commands shows anything of the program"
    with tempfile.TemporaryDirectory(prefix="iree-pilot-verify-") as scratch:

        def scripted(name: LevelName) -> tuple[int | None, str]:
            return _script(opened, tried, name, toolchain, Path(scratch) / "script")

        def checked(one: Level) -> tuple[Check, tuple[int | None, str] | None]:
            """Results of a level, and of run.sh, which is run for the first level that holds."""
            if why := left.get(one.name) or hollow.get(one.name):
                return Check(level=one, same=False, why=why, ran=False), None
            known = before.of(one, report) if before else None
            check = known or _check(opened, one, toolchain, Path(scratch) / one.name)
            on_check(toolchain.version, check)
            asked = one.name == first and check.same and not script_why
            return check, scripted(one.name) if asked else None

        width = 1 if _is_delicate(report) else len(os.sched_getaffinity(0))
        found = side_by_side(checked, present, width)
        checks = tuple(check for check, _ in found)
        if not script_why and first is not None:
            held = [name for name in FILES if any(c.level.name == name and c.same for c in checks)]
            ended = next((end for _, end in found if end is not None), None)
            script, said = ended or scripted(next(iter(held), first))
    wrong = [f"{c.level.file}: {c.why}" for c in checks if not c.same and c.level.name not in left]
    if script != 0 and not script_why:
        wrong.append(f"{SCRIPT} ends with {script}{': ' + said if said else ''}")
    return Verification(
        release=toolchain.version,
        same=not wrong,
        levels=checks,
        script=script,
        why="; ".join(wrong),
        script_why=script_why,
        changed=opened.changed,
        claimed=next((check.claimed for check in checks if check.claimed), ""),
    )


def _hollow(opened: Opened, level: Level) -> str:
    """Reason that the commands of a level of somebody else's folder do not use its program."""
    if opened.written_here:
        return ""
    names = opened.files if opened.trusted else opened.data
    why = steps.hollow(level, opened.directory, names)
    return f"its command says nothing about the program: {why}" if why else ""


def settle(report: Report, verification: Verification) -> Report:
    """The report after its verification: what does not reproduce is left out, with the reason.

    So are the companions of the failure that no level shows.
    """
    checked = {check.level.name: check for check in verification.levels}
    levels = []
    for one in report.levels:
        check = checked.get(one.name)
        if check is not None:
            why = "" if check.same else check.why
            one = msgspec.structs.replace(one, verified=check.same, why=why)
        levels.append(one)
    verified = any(one.verified for one in levels) and verification.script == 0
    failure = report.failure
    shown = [check.failure for check in verification.levels if check.same and check.failure]
    if shown:
        also = (one for one in failure.also if any(f.shows(one.signature) for f in shown))
        failure = msgspec.structs.replace(failure, also=tuple(also))
    return msgspec.structs.replace(report, failure=failure, levels=tuple(levels), verified=verified)


def settle_current(report: Report, current: Verification | None) -> Report:
    """The report with what the current release does with it."""
    if current is None:
        return report
    why = "same" if current.same else current.why
    said = "fails in the same way" if current.same else f"does not fail in the same way ({why})"
    tried = (*report.tried, f"With IREE compiler {current.release} it {said}.")
    return msgspec.structs.replace(report, current=(current.release, why), tried=tried)


def _check(opened: Opened, level: Level, toolchain: Toolchain, scratch: Path) -> Check:
    """Runs the level's commands in a copy of the folder; an intermittent failure gets more
    than one chance."""
    report = opened.report
    for _ in range(bundle.tries(report.rate)):
        shutil.rmtree(scratch, ignore_errors=True)
        _copy(opened, scratch / "files")
        for command in level.before:
            limits = Limits(seconds=_PREPARE_SECONDS)
            preparing = Context(toolchain=toolchain, limits=limits, directory=scratch)
            outcome, text = _run(command, preparing, TORCH)
            if not outcome.ok:
                why = f"an earlier step fails: {_last_line(text) or outcome.ended_by}"
                return Check(level=level, same=False, why=f"{shlex.join(command[:2])}: {why}")
        failure = _failure(level.command, opened, toolchain, scratch)
        if failure is not None:
            break
    if failure is None:
        return Check(level=level, same=False, why=f"it passes with {toolchain.version}")
    if not failure.shows(report.failure.signature):
        why = f"it fails in another way: {failure.message} ({failure.signature})"
        return Check(level=level, same=False, why=why, failure=failure)
    if others := strangers(failure, report.failure):
        why = f"it also fails with: {others[0].message} ({others[0].signature})"
        return Check(level=level, same=False, why=why, failure=failure)
    if report.failure.kind == "mismatch":
        context = Context(toolchain=toolchain, limits=_limits(opened), directory=scratch)
        if why := control.refuses_right(level, context, _run):
            return Check(level=level, same=False, why=why, failure=failure)
    if opened.written_here:
        return Check(level=level, same=True, failure=failure)
    (scratch / "evaluated").mkdir()
    context = Context(toolchain=toolchain, limits=_limits(opened), directory=scratch / "evaluated")
    doubt = expectations.doubt(opened.directory, report, level, context)
    if doubt is not None and doubt.refuted:
        return Check(level=level, same=False, why=doubt.why, failure=failure)
    return Check(level=level, same=True, failure=failure, claimed=doubt.why if doubt else "")


def _limits(opened: Opened) -> Limits:
    """Limits of a level's last command; for somebody else's folder at least what any program
    needs, or reaching them would prove nothing."""
    report, foreign = opened.report, not opened.written_here
    memory = report.memory_limit
    return Limits(
        seconds=max(report.time_limit, _LEAST_SECONDS) if foreign else report.time_limit,
        memory_bytes=max(memory, _LEAST_BYTES) if foreign and memory is not None else memory,
        of_processor=report.failure.kind == "timeout",
    )


def _failure(
    command: tuple[str, ...], opened: Opened, toolchain: Toolchain, scratch: Path
) -> Failure | None:
    report, limits = opened.report, _limits(opened)
    # A tracer that crashes prints its stack, which in a fork would have frames of the server's.
    loaded = TORCH if report.failure.kind == "mismatch" else None
    context = Context(toolchain=toolchain, limits=limits, directory=scratch)
    outcome, text = _run(command, context, loaded)
    failure = _classified(command, outcome, text, report, scratch)
    mute = failure is not None and failure.kind == "crash" and not failure.stack
    if mute and report.failure.stack and command[0] in ("iree-compile", "iree-opt"):
        outcome, text = _run((*command, SERIAL), context)
        classified = _classified(command, outcome, text, report, scratch)
        failure = classified if classified is not None and classified.kind == "crash" else failure
    return failure


def _classified(
    command: Sequence[str], outcome: Outcome, text: str, report: Report, scratch: Path
) -> Failure | None:
    if outcome.ok:
        return None
    said = _output(scratch)
    if report.failure.kind == "mismatch" and DIFFERS in said and outcome.ended_by == "exit":
        if line := compared_types(said):
            why = f"types are compared, and no numbers; isolate it again (bisect --fresh): {line}"
            return diagnostics.mismatch(why, what="type")
        return report.failure
    if command[0] == "python":
        return diagnostics.trace_death(outcome, text)
    if command[0] == "iree-run-module":
        loading = report.failure.phase == "load"
        return diagnostics.runtime_failure(outcome, text, "load" if loading else "run")
    program = scratch / "files" / command[1]
    held = program.read_text(encoding="utf-8", errors="replace") if program.is_file() else ""
    return diagnostics.compile_failure(outcome, text, report.failure.phase, held)


def _output(scratch: Path) -> str:
    """Output of the command on stdout."""
    return (scratch / "stdout.txt").read_text(encoding="utf-8", errors="replace")


def _run(
    command: Sequence[str], context: Context, loaded: Modules | None = None
) -> tuple[Outcome, str]:
    """(outcome, its stderr). loaded: as in `process.run`, for a Python command."""
    stderr = context.directory / "stderr.txt"
    outcome = process.run(
        [_tool(command[0], context.toolchain), *command[1:]],
        stdout=context.directory / "stdout.txt",
        stderr=stderr,
        cwd=context.directory / "files",
        limits=context.limits,
        env=_environment(),
        loaded=loaded if command[0] == "python" else None,
    )
    return outcome, stderr.read_text(encoding="utf-8", errors="replace")


def _tool(name: str, toolchain: Toolchain) -> Path:
    if name == "iree-compile":
        return toolchain.compiler
    if name == "python":
        return Path(sys.executable)
    if name != "iree-opt":
        return toolchain.tool(name)
    if toolchain.opt is None:
        raise EnvironmentFault(
            f"cannot find iree-opt beside {toolchain.compiler}",
            advice="Reinstall the release, or verify without pass.mlir.",
        )
    return toolchain.opt


def _copy(opened: Opened, place: Path) -> None:
    """Copies what the folder's commands need, and nothing that lies beside it."""
    python = not opened.refuses(FILES["pytorch"])
    for name in opened.files if python else opened.data:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(opened.directory / name, place / name)


def _script(
    opened: Opened, levels: Sequence[Level], name: LevelName, toolchain: Toolchain, scratch: Path
) -> tuple[int | None, str]:
    """(exit status of run.sh, the last that it said), asked of the level `name`, with the tools
    that `levels` take."""
    report = opened.report
    _copy(opened, scratch / "files")
    environment = _environment()
    for variable, tool in {
        "IREE_COMPILE": "iree-compile",
        "IREE_OPT": "iree-opt",
        "IREE_RUN_MODULE": "iree-run-module",
        "PYTHON": "python",
    }.items():
        if any(tool in (c[0] for c in (*one.before, one.command)) for one in levels):
            environment[variable] = str(_tool(tool, toolchain))
    environment["IREE_COMPILE"] = str(toolchain.compiler)
    # All in one process group, so that an interrupted verification leaves nothing running.
    environment["TIMEOUT"] = "timeout --foreground"
    seconds = bundle.tries(report.rate) * (report.time_limit + 5) * 2 + _SCRIPT_SECONDS
    stderr = scratch / "stderr.txt"
    outcome = process.run(
        ["sh", str(scratch / "files" / SCRIPT), name],
        stdout=scratch / "stdout.txt",
        stderr=stderr,
        limits=Limits(seconds=seconds + _PREPARE_SECONDS),
        env=environment,
    )
    return outcome.exit_code, _last_line(stderr.read_text(encoding="utf-8", errors="replace"))


def _environment() -> dict[str, str]:
    """This process's own, without what would let a program find modules of ours."""
    return {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "PYTHONSTARTUP")}


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")
