"""A reproducer's folder is data until its user says `--trust`, unless it was written here.

Out of a folder of somebody else's nothing is run, and no flag of its report.json reaches a tool
that does more than compile. What this user's own iree-pilot wrote is known by its digest
(`repro.trust.own`) and needs no word, as long as nobody has changed it.

Whoever is trusted: a folder's files are plain files inside it, its tools are the toolchain's, its
release is a version.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.toolchain import releases
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import FILES, REPORT, SCRIPT, Level, Report
from iree_pilot.repro.trust import flags, own, programs, steps
from iree_pilot.repro.wrong_results import folder as wrong_numbers

#: Tools of a toolchain, by the names that a level's command may begin with.
TOOLS = ("iree-compile", "iree-opt", "iree-run-module", "python")
#: Documents for people to read and complete: changes to them are expected.
DOCUMENTS = ("ISSUE.md", "README.md", bundle.DIFF)
_ARCH = re.compile(r"[\w.,+:-]*", re.ASCII)
#: Endings of programs in MLIR.
_PROGRAMS = (".mlir", ".mlirbc")
#: Endings of files that Python would import as modules in repro.py.
_IMPORTED = (".py", ".pyc", ".so", ".pth")
_LISTED = 5
_LONGEST_SECONDS = 1e7
_LONGEST_RELEASE = 100
#: Bytes of a file's name that a file system takes.
_LONGEST_NAME = 255


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that may be looked into. written_here: its report.json is of this user's iree-pilot.
    trusted: its user says so. changed: files that are not as report.json has them, with how.
    """

    directory: Path
    report: Report
    written_here: bool
    trusted: bool
    changed: dict[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that the folder's commands may need."""
        named = {*self.report.files, *(one.file for one in self.report.levels)}
        if not self.report.files:  # of a release that wrote no digests
            named |= {path.name for path in self.directory.iterdir() if not path.is_symlink()}
        return tuple(sorted(n for n in named if (self.directory / n).is_file()))

    @property
    def data(self) -> tuple[str, ...]:
        """Names in `files` that the commands read, and that Python does not import from: `check.py`
        is run by its name."""
        kept = (*FILES.values(), wrong_numbers.CHECK)
        needed = {SCRIPT, *FILES.values(), *steps.needed(self.report.levels, self.directory)}
        return tuple(
            n for n in self.files if n in needed and (n in kept or not n.endswith(_IMPORTED))
        )

    def refuses(self, file: str) -> str:
        """Reason not to run a Python file of the folder; empty if it may be run."""
        if self.trusted:
            return ""
        if not self.written_here:
            return "the folder was not written by your iree-pilot"
        python = [name for name in self.files if name.endswith(_IMPORTED)]
        for name in (file, *python):
            if name in self.changed:
                return f"{name} {self.changed[name]}"
        stray = next(self._stray(), "")
        return f"it might import {stray}, which iree-pilot did not write" if stray else ""

    def refuses_level(self, level: Level) -> str:
        """Reason not to run the commands of a level; empty if they may be run."""
        for tool, *words in (*level.before, level.command):
            if tool != "python":
                continue
            if tuple(words[:1]) == (wrong_numbers.CHECK,) and self._compares():
                continue
            if why := self.refuses(level.file):
                return f"it runs Python, and {why}; --trust runs it"
        return ""

    def _compares(self) -> bool:
        """True if check.py is as we write it for such outputs, and only compares them."""
        file = self.directory / wrong_numbers.CHECK
        return file.is_file() and wrong_numbers.only_compares(file.read_text(errors="replace"))

    def _stray(self) -> Iterator[str]:
        """Files in the folder that are not of report.json: Python may import any of it, as a
        module, a package or what says where packages are. Links are not followed."""
        known = {REPORT, SCRIPT, *DOCUMENTS, *self.report.files}
        parents = {str(parent) for name in known for parent in PurePosixPath(name).parents}
        for place, directories, files in os.walk(self.directory):
            for entry in sorted((*directories, *files)):
                path = Path(place, entry)
                name = path.relative_to(self.directory).as_posix()
                real = path.is_dir() if name in parents else name in known
                if not real or path.is_symlink():
                    yield name


def open_folder(directory: Path, *, trust: bool = False, flagged: bool = True) -> Opened:
    """Inspects a reproducer's folder before anything in it is used.

    Raises UsageError where it is none, where it names something outside of it, or where, without
    `trust`, it has flags that do more than compile. flagged: its flags are used; else of its
    commands only the inputs.
    """
    content, report = bundle.read_with_content(directory)
    written_here = own.wrote(content)
    place = directory / REPORT
    _check_files(directory, report)
    _check_facts(place, report, exact=not (written_here or trust))
    changed = _changed(directory, report)
    if not trust:
        foreign = [name for name in FILES.values() if name in changed or not written_here]
        found = [] if written_here else _words(report, flagged=flagged)
        _refuse(directory, found, _hostile(directory, report, foreign))
    opened = Opened(
        directory=directory,
        report=report,
        written_here=written_here,
        trusted=trust,
        changed=changed,
    )
    for name in opened.files:
        bundle.check_size(directory / name)
    return opened


def of_source(folder: Path, file: Path) -> None:
    """Raises UsageError for a file with code in a folder of somebody else's: Python, and MLIR with
    more than operations. file: relative to the folder, or to a folder in it."""
    try:
        content, report = bundle.read_with_content(folder)
    except UsageError as fault:
        if _of_another_program(folder / bundle.REPORT):
            return
        # Whoever wrote the folder chooses whether its report can be read.
        raise UsageError(
            f"{folder / file} lies in a folder with a {bundle.REPORT} that cannot be read, so "
            f"whose code it is is not known: {fault.message}",
            advice="Read the file first; if you trust its author, add --trust.",
        ) from fault
    name, path = file.as_posix(), folder / file
    if not name.endswith(_PROGRAMS):
        check_runs(open_folder(folder), name)
        return
    ours = own.wrote(content) and name in report.files
    if not ours or name in _changed(folder, report):
        bundle.check_size(path)
        if path.is_file() and (does := programs.refused(path.read_bytes())):
            _refuse(folder, [], [(name, does)])


def _of_another_program(report: Path) -> bool:
    """True if a report.json is JSON that has nothing of a reproducer's."""
    if not report.is_file() or report.stat().st_size > bundle.LARGEST_REPORT_BYTES:
        return False
    try:
        found = msgspec.json.decode(report.read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError):
        return False
    return not (isinstance(found, dict) and {"failure", "levels"} & found.keys())


def check_runs(opened: Opened, file: str) -> None:
    """Raises UsageError where a file of the folder may not be run."""
    if why := opened.refuses(file):
        raise UsageError(
            f"{opened.directory / file} is code that would be run, and {why}",
            advice="Read it first; if you trust the folder's author, add --trust.",
        )


def is_rendered(opened: Opened) -> bool:
    """True if run.sh is byte for byte what is written for this report: its exit status counts."""
    script = opened.directory / SCRIPT
    if not script.is_file():
        return False
    content = script.read_bytes()
    if opened.written_here and SCRIPT not in opened.changed and SCRIPT in opened.report.files:
        return True
    report = opened.report
    plain = _ARCH.fullmatch(report.revision) and report.failure.signature.isprintable()
    if not plain or not releases.is_version(report.release):
        return False  # the script quotes them
    try:
        return bundle.script(report, opened.data).encode() == content
    except (ValueError, KeyError):  # of a report that nobody could have written
        return False


def notes(opened: Opened, *, flagged: bool = True) -> list[str]:
    """Notes for the user on a folder that differs from what his own iree-pilot wrote."""
    said = [f"{opened.directory / name} {how}" for name, how in opened.changed.items()]
    if flagged and not opened.written_here and opened.report.flags:
        said.append(f"flags out of {opened.directory / REPORT}: {shlex.join(opened.report.flags)}")
    return said


def _check_files(directory: Path, report: Report) -> None:
    """Raises UsageError unless all files that report.json names are plain ones of the folder."""
    for level in report.levels:
        if level.file != FILES[level.name]:
            raise UsageError(
                f"{directory / REPORT} names {level.file!r} for its level {level.name}, which is "
                f"{FILES[level.name]} in every folder that bisect writes",
                advice="It was not written by iree-pilot: name the program itself, if you know it.",
            )
    names = [level.name for level in report.levels]
    if len(names) > len({*names}):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"{directory / REPORT} has its level {twice} {names.count(twice)} times",
            advice="It was not written by iree-pilot: name the program itself, if you know it.",
        )
    for name in (REPORT, *FILES.values(), *report.files):
        parts = PurePosixPath(name).parts
        long = len(name.encode(errors="replace")) > _LONGEST_NAME
        outside = not parts or name.startswith("/") or ".." in parts
        if long or outside or not name.isprintable():
            raise UsageError(
                f"{directory / REPORT} names {_shortened(name)!r}, which is no file inside the "
                "folder",
                advice="It was not written by iree-pilot.",
            )
        path = directory
        for part in parts:
            path /= part
            if path.is_symlink():
                raise UsageError(
                    f"{path} is a link to {path.readlink()}: a reproducer has its files itself",
                    advice="Put a copy in the place of the link, if it is what you want to use.",
                )
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is not a file", advice="It was not written by iree-pilot.")
        bundle.check_size(path)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _check_facts(place: Path, report: Report, *, exact: bool) -> None:
    """Raises UsageError for tools and a release that are not named, but lead somewhere.

    exact: the release is a version; that of a local build of one's own may be called anything.
    """
    for level in report.levels:
        for command in (*level.before, level.command):
            if not command or command[0] not in TOOLS:
                raise UsageError(
                    f"{place}: level {level.name} runs {' '.join(command[:1])!r}, which is none of "
                    f"{', '.join(TOOLS)}",
                    advice="A folder names tools, and the toolchain says where they are.",
                )
    named = report.release
    if len(named) > _LONGEST_RELEASE:
        raise UsageError(
            f"{place} names a release of {len(named)} characters, which is no version",
            advice="It was not written by iree-pilot.",
        )
    if releases.is_directory(named) or (exact and not releases.is_version(named)):
        raise UsageError(
            f"{place} names the release {named!r}, which is no version",
            advice="With a compiler of your own: --release PATH.",
        )
    limit = report.time_limit
    if not (0 < limit < _LONGEST_SECONDS) or math.isnan(report.rate):
        raise UsageError(
            f"{place}: a time limit of {limit} s is none",
            advice="It was not written by iree-pilot.",
        )
    if report.memory_limit is not None and report.memory_limit <= 0:
        raise UsageError(
            f"{place}: a memory limit of {report.memory_limit} bytes is none",
            advice="It was not written by iree-pilot.",
        )


def _words(report: Report, *, flagged: bool) -> list[tuple[str, str]]:
    """(word, what it does) of flags and words of commands that do more than they have to."""
    if not flagged:
        return [
            found
            for level in report.levels
            for command in (*level.before, level.command)
            for found in flags.refused_words((TOOLS[2], *bundle.given(command)))
        ]
    found = [(flag, does) for flag in report.flags if (does := flags.refused(flag))]
    for level in report.levels:
        for command in (*level.before, level.command):
            if command[0] != "python":
                found += flags.refused_words(command)
    if not _ARCH.fullmatch(report.target):
        found.append((report.target, "is no target"))
    return found


def _hostile(directory: Path, report: Report, names: Sequence[str]) -> list[tuple[str, str]]:
    """(file, what is in it) of programs that hold more than operations."""
    found = []
    for name in names:
        file = directory / name
        if name != FILES["pytorch"] and file.is_file():
            printed = name == FILES["pass"] and steps.only_printed(report.levels, name)
            if does := programs.refused(file.read_bytes(), printed=printed):
                found.append((name, does))
    return found


def _refuse(
    directory: Path, words: Sequence[tuple[str, str]], contents: Sequence[tuple[str, str]]
) -> None:
    """Raises UsageError where something was found: words of report.json, contents of programs."""
    found = [*dict.fromkeys((*words, *contents))]
    if not found:
        return
    listed = "".join(f"\n  {word} {does}" for word, does in found[:_LISTED])
    more = f"\n  and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    without = "else leave it alone, or use a container."
    if not contents:
        without = (
            f"without its flags: name the program ({directory / FILES['mlir']}) and -t TARGET."
        )
    raise UsageError(
        f"{directory} is not as your iree-pilot wrote it, and does more than compile what it shows:"
        f"{listed}{more}",
        advice=f"If you trust its author, add --trust; {without}",
    )


def _changed(directory: Path, report: Report) -> dict[str, str]:
    """The files that are not as report.json has them, with how; not those meant to be edited."""
    found = {}
    for name, digest in report.files.items():
        path = directory / name
        if name in DOCUMENTS or not path.is_file():
            continue
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != digest:
                found[name] = "was changed since report.json was written"
    for level in report.levels:
        if report.files and level.file not in report.files and (directory / level.file).is_file():
            found[level.file] = "is not among the files of report.json"
    return found
