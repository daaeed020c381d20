"""`scripts/bench goldens`: whether a change of the code changes what the commands write.

The commands of `goldens_cases` run real failures with the real compiler. Of each command the exit
code, what it prints and the folder that it writes are recorded, and of each search the candidates
that it asked about and the answers, from the journals that searches keep. A later record is
compared with it, document by document.

A record holds for one machine and one set of packages. What differs between two records of the
same code is taken out by the rules below, each with its reason. Each case has one core for itself,
so that a search asks about one candidate at a time, always in the same order; of those that have
all cores the questions are recorded without their order.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import click
import msgspec
from bench_base import PILOT, machine, reporting_errors
from goldens_cases import CASES, Case, Rule, Step

from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.processes.workers import side_by_side

_STEP_SECONDS = 900.0
_MACHINE = "machine.json"
#: The options that name a folder which a command writes.
_FOLDERS = ("-o", "--artifacts")


#: Rules for values, by their keys in JSON; null, "", and 0 of a size not measured stay.
KEYS = (
    Rule(
        r"seconds|\w+_seconds|parts|latency|time_limit",
        "TIME",
        "the machine is more or less busy, and a search's limits follow what the first run took",
    ),
    Rule(r"peak_bytes|memory_bytes|memory_limit", "SIZE", "as much memory as is available"),
    Rule(r"begun|finished|known_since|when", "DATE", "the time of day"),
    Rule(r"worker", "WORKER", "host and process"),
    Rule(
        r"uuid|key",
        "KEY",
        "one of each night; a case's key is also of our own code",
    ),
    Rule(r"device_name|environment", "MACHINE", "host, system and driver"),
    Rule(r"files", "DIGEST", "of files with times in them, which are documents of their own"),
)
#: Rules for all text.
PATHS = (
    Rule(r"(?<=/)[0-9a-f]{2}/[0-9a-f]{64}\b", "KEY", "an entry of the store: hashes of paths"),
    Rule(r"(?<=/)[0-9a-f]{16}(?=/)", "KEY", "the state of a search: hashes of paths"),
    Rule(r"WORK/tmp/[^/\s'\"]+", "WORK/tmp/NAME", "temporary names are random"),
    Rule(r"/\.tmp/\d+-[0-9a-f]+", "/.tmp/NAME", "process number and a random name"),
    Rule(r"TIME_LIMIT:-\d+", "TIME_LIMIT:-TIME", "a limit that follows what the first run took"),
    Rule(r"vulkan://GPU-[0-9a-f]+", "vulkan://DEVICE", "the driver's version is in it"),
)
#: Rule for printed output.
SCREEN = Rule(r"(?<=\S) +", " ", "a column is as wide as the longest time in it")
#: Rules for text for people: not programs and scripts, where a number is no measurement.
PROSE = (
    Rule(
        r"\d+(?:\.\d+)? (?:µs|ms|s|min|h)\b(?: \d+ s\b)?",
        "TIME",
        "the machine is more or less busy",
    ),
    Rule(r"\d+(?:\.\d+)? (?:MiB|GiB)\b", "SIZE", "memory, as much as is available"),
    Rule(r"\d+ repeats\b", "SOME repeats", "as many as there is time for"),
    Rule(r"peak memory [\d.]+ \w?B\b", "peak memory SIZE", "measured"),
    Rule(
        r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?",
        "DATE",
        "the time of day",
    ),
    Rule(r"(?m)^- (OS|CPU|GPU|Vulkan driver|Driver): .*$", r"- \1: MACHINE", "host and driver"),
    Rule(r"llvmpipe \(LLVM [^)]*\)", "llvmpipe", "the driver's version"),
)
_PROSE = (".md", ".txt", ".json", "")
#: Searches that ask for as many candidates at once as the machine has cores, whatever a case has.
_UNORDERED = re.compile(r"/dispatch/|^/sides/")


class Took(NamedTuple):
    case: str
    seconds: float
    processor_seconds: float


def settled(value: Any, places: Mapping[str, str], key: str = "") -> Any:
    """A document without what differs from one record to the next.

    places: paths and what is written in their place.
    """
    if isinstance(value, dict):
        return {name: settled(one, places, _inherited(key, name)) for name, one in value.items()}
    if isinstance(value, list):
        return [settled(one, places, key) for one in value]
    rule = next((r for r in KEYS if re.fullmatch(r.pattern, key)), None)
    if rule is not None and value:
        return rule.instead
    return settled_text(value, places) if isinstance(value, str) else value


def _inherited(key: str, name: str) -> str:
    """The key whose rule holds for a value: what is in a value that a rule is for is part of it."""
    return key if any(re.fullmatch(rule.pattern, key) for rule in KEYS) else name


def settled_text(text: str, places: Mapping[str, str], *, prose: bool = True) -> str:
    for path, name in places.items():
        text = text.replace(path, name)
    return _ruled(text, (*PATHS, *(PROSE if prose else ())))


def settled_json(text: str, places: Mapping[str, str]) -> str:
    """JSON, indented; text that is none as text."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return settled_text(text, places)
    made = msgspec.json.encode(settled(value, places))
    return msgspec.json.format(made, indent=1).decode() + "\n"


def _screen(text: str, places: Mapping[str, str]) -> str:
    return _ruled(settled_text(text, places), (SCREEN,))


def question(line: bytes) -> dict[str, Any]:
    """Candidate and outcome in a line of a search's journal."""
    entry = msgspec.json.decode(line)
    answer = entry.get("answer") or entry.get("outcome") or entry
    failure = answer.get("failure") or {}
    asked = next(entry[key] for key in ("digest", "key", "probe", "name") if key in entry)
    verdict = answer.get("verdict") or answer.get("state")
    made = {"asked": asked, "verdict": verdict, "failure": failure.get("signature")}
    return made | {key: answer[key] for key in ("off", "why", "module") if answer.get(key)}


def journals(data: Path, places: Mapping[str, str], *, wide: bool = False) -> Iterator[str]:
    """The searches under a data directory, one document each, in an order that does not change.

    wide: several candidates were asked about at once.
    """
    found = []
    for file in data.rglob("*.jsonl"):
        if file.name == task.REPLIES:  # of children, whose answers are in the journals too
            continue
        place = settled_text(f"/{file.parent.relative_to(data)}/", places)
        lines = [
            msgspec.json.encode(settled(question(line), places)).decode()
            for line in file.read_bytes().splitlines()
        ]
        if wide or _UNORDERED.search(place):
            lines.sort()
        found.append((place, lines))
    for _, lines in sorted(found):
        yield "".join(f"{line}\n" for line in lines)


def folder(directory: Path, places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The names of a folder's files, then the content of each that is text."""
    names, texts = [], []
    for file in sorted(p for p in directory.rglob("*") if p.is_file()):
        name, content = str(file.relative_to(directory)), file.read_bytes()
        kind = "executable" if os.access(file, os.X_OK) else "file"
        try:
            text = content.decode()
            if "\0" in text:
                raise ValueError("it is no text")
        except ValueError:
            kind = f"{len(content)} bytes, {hashlib.sha256(content).hexdigest()}"
        else:
            texts.append((name, _content(file, text, places)))
        names.append(f"{name}: {kind}\n")
    yield "FILES", "".join(names)
    yield from texts


def _content(file: Path, text: str, places: Mapping[str, str]) -> str:
    if file.suffix == ".json":
        return settled_json(text, places)
    return settled_text(text, places, prose=file.suffix in _PROSE)


def documents(case: Case, work: Path) -> tuple[dict[str, str], float]:
    """Documents that the commands of a case write, by name, and the commands' processor time."""
    made: dict[str, str] = {}
    spent = 0.0
    # The environment before the checkout that it may lie in.
    places = {
        str(work): "WORK",
        str(Path(sys.prefix)): "ENVIRONMENT",
        str(Path(__file__).parent.parent.resolve()): "CHECKOUT",
    }
    for one in ("tmp", "stdout"):
        (work / one).mkdir()
    here = work / "here"
    here.mkdir()
    case.set_up(here)
    for step in case.steps:
        ended, stdout, stderr = _run(step, work, here)
        spent += ended.processor_seconds
        said = ended.exit_code if ended.ended_by == "exit" else ended.signal or ended.ended_by
        made[f"{step.name}.ended"] = f"{said}\n{settled_text(stderr, places)}"
        as_json = "--json" in step.words
        form = settled_json if as_json else _screen
        made[f"{step.name}.{'json' if as_json else 'txt'}"] = form(stdout, places)
        for option, word in itertools.pairwise(step.words):
            if option not in _FOLDERS:
                continue
            for name, text in folder(here / word, places):
                made[f"{step.name}/{name}"] = text
    for number, text in enumerate(journals(work / "data", places, wide=case.wide), 1):
        made[f"asked-{number}.jsonl"] = text
    return {name: _ruled(text, case.rules) for name, text in made.items()}, spent


def _ruled(text: str, rules: Sequence[Rule]) -> str:
    for rule in rules:
        text = re.sub(rule.pattern, rule.instead, text)
    return text


def _run(step: Step, work: Path, here: Path) -> tuple[process.Outcome, str, str]:
    stdout, stderr = (work / "stdout" / f"{step.name}.{one}" for one in ("out", "err"))
    ended = process.run(
        [PILOT, *step.words],
        stdout=stdout,
        stderr=stderr,
        limits=process.Limits(seconds=_STEP_SECONDS),
        cwd=here,
        env=os.environ
        | {
            "IREE_PILOT_CACHE": str(work / "cache"),
            "IREE_PILOT_DATA": str(work / "data"),
            "TMPDIR": str(work / "tmp"),
        },
    )
    return ended, *(one.read_text(errors="replace") for one in (stdout, stderr))  # type: ignore[return-value]


def record(cases: Sequence[Case], directory: Path) -> list[Took]:
    """Runs the cases, one on each core, and writes their documents into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    here = machine(0.0, None)
    known = {name: getattr(here, name) for name in ("processor", "compiler", "revision", "python")}
    _write(directory / _MACHINE, msgspec.json.format(msgspec.json.encode(known)).decode() + "\n")
    cores = sorted(os.sched_getaffinity(0))
    free, taking = list(cores), Lock()

    def one(case: Case) -> Took:
        with taking:
            core = free.pop()
        started = time.monotonic()
        try:
            if not case.wide:
                os.sched_setaffinity(0, {core})  # of this thread, and of what it starts
            with tempfile.TemporaryDirectory(prefix="golden-") as work:
                made, spent = documents(case, Path(work).resolve())
        finally:
            os.sched_setaffinity(0, cores)
            with taking:
                free.append(core)
        shutil.rmtree(directory / case.name, ignore_errors=True)
        for name, text in made.items():
            _write(directory / case.name / name, text)
        took = Took(case.name, time.monotonic() - started, spent)
        click.echo(f"{case.name}: {out.seconds(took.seconds)}", err=True)
        return took

    return side_by_side(one, cases, len(cores))


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def differences(old: Path, new: Path, names: Sequence[str]) -> list[str]:
    """A unified diff of each document of these cases (and of the machine) that differs."""
    before, after = (_recorded(directory, names) for directory in (old, new))
    found = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        lines = difflib.unified_diff(
            before.get(name, "").splitlines(keepends=True),
            after.get(name, "").splitlines(keepends=True),
            f"{old / name}" if name in before else "/dev/null",
            f"{new / name}" if name in after else "/dev/null",
        )
        found.append("".join(line if line.endswith("\n") else f"{line}\n" for line in lines))
    return found


def _recorded(directory: Path, names: Sequence[str]) -> dict[str, str]:
    files = itertools.chain(
        directory.glob(_MACHINE), *((directory / name).rglob("*") for name in names)
    )
    return {str(f.relative_to(directory)): f.read_text() for f in files if f.is_file()}


@click.command("goldens")
@click.option(
    "--record", "new", type=click.Path(file_okay=False, path_type=Path), help="Record into it."
)
@click.option(
    "--compare",
    "old",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Compare with what was recorded into it; exit with 1 where a document differs.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([case.name for case in CASES]),
    metavar="CASE",
    help="Only this case; may be repeated.",
)
def command(new: Path | None, old: Path | None, only: tuple[str, ...]) -> None:
    """Record what the commands write of real failures, and compare it with an earlier record.

    A record holds for this machine and these packages.
    """
    with reporting_errors(), tempfile.TemporaryDirectory(prefix="goldens-") as scratch:
        if new is None and old is None:
            raise UsageError("nothing to do", advice="Give --record DIR, --compare DIR, or both.")
        place = new or Path(scratch)
        cases = [case for case in CASES if not only or case.name in only]
        took = record(cases, place)
        table = out.table("case", "wall", "CPU", right=("wall", "CPU"))
        for one in took:
            table.add_row(one.case, out.seconds(one.seconds), out.seconds(one.processor_seconds))
        out.console().print(table)
        if old is None:
            return
        found = differences(old, place, [case.name for case in cases])
    for diff in found:
        click.echo(diff, nl=False)
    click.echo(f"documents that differ: {len(found)}", err=True)
    sys.exit(bool(found))
