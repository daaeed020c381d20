"""Inputs and outputs of a level's commands: do they test the level's own program?

A report.json of somebody else's may name commands that fail for another reason than its program:
they read what is not there, call a function that does not exist, or run a module that came along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from iree_pilot.repro.reproducer.folder.bundle import FILES, Level
from iree_pilot.repro.wrong_results import folder as wrong_numbers

_COMPILERS = ("iree-compile", "iree-opt")
_ASYNC = "$async"
#: Passes by which iree-opt compiles and runs a part of the program.
_EVALUATES = re.compile(r"jit|eval|(?<!pass-)pipeline(?!=)|interpreter")


def hollow(level: Level, directory: Path, names: Sequence[str]) -> str:
    """Reason that the commands of a level do not use its program in `directory`; empty if they do.

    names: the files of the folder that the commands find.
    """
    made: set[str] = set()
    modules: set[str] = set()
    used = traced = False
    for tool, *words in (*level.before, level.command):
        if tool in _COMPILERS:
            reads, makes = _of_compiler(words)
            others = [name for name in reads if name != level.file and name not in made]
            if others:
                return f"it compiles {others[0]}, and not {level.file}"
            if tool == "iree-compile":
                modules |= {*makes}
        elif tool == "iree-run-module":
            module, reads, makes = _of_run(words)
            if module not in modules:
                return f"it runs {module or 'no module'}, which no step before it compiles"
            if missing := _missing_function(level, directory, words):
                return f"it calls the function {missing}, which {level.file} does not have"
        elif words[:1] == [wrong_numbers.CHECK]:
            reads, makes = [wrong_numbers.CHECK], []
            outputs = wrong_numbers.compared(directory)
            if not outputs or any(one.got not in made for one in outputs.values()):
                return f"{wrong_numbers.CHECK} compares what no step before it makes"
        else:
            reads, makes = _of_python(words)
            traced = traced or FILES["pytorch"] in reads
        used = used or level.file in reads
        gone = [name for name in reads if name not in made and name not in names]
        if gone and not traced:  # what a program in Python writes is not known
            return f"it reads {gone[0]}, which is not in the folder, and no step before makes it"
        made |= {*makes}
    return "" if used else f"it does not use {level.file}"


def needed(levels: Sequence[Level], directory: Path) -> set[str]:
    """The files of a folder that the commands of its levels read, but what they make themselves."""
    found: set[str] = set()
    for level in levels:
        made: set[str] = set()
        reads: list[str]
        makes: list[str]
        for tool, *words in (*level.before, level.command):
            if tool in _COMPILERS:
                reads, makes = _of_compiler(words)
            elif tool == "iree-run-module":
                module, reads, makes = _of_run(words)
                reads = [*reads, module]
            elif words[:1] == [wrong_numbers.CHECK]:
                compared = wrong_numbers.compared(directory).values()
                reads, makes = [wrong_numbers.CHECK, *(one.expected for one in compared)], []
            else:
                reads, makes = _of_python(words)
            found |= {name for name in reads if name not in made}
            made |= {*makes}
    return found


def only_printed(levels: Sequence[Level], file: str) -> bool:
    """True if passes are run on a program, and nothing that comes of it is run.

    A pass that serializes may link it, to nowhere; what evaluates constants runs parts of it, and a
    pipeline of pipelines may hold that.
    """
    commands = [c for one in levels for c in (*one.before, one.command) if file in c[1:]]
    return bool(commands) and all(
        tool == "iree-opt" and not any(_EVALUATES.search(word) for word in words)
        for tool, *words in commands
    )


def _of_compiler(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(files that are read, files that are made)."""
    makes = [word for before, word in zip(("", *words), words, strict=False) if before == "-o"]
    reads = [
        word
        for before, word in zip(("", *words), words, strict=False)
        if before != "-o" and not word.startswith(("-", "@"))
    ]
    return reads, makes


def _of_run(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """(the module, other files that are read, files that are made)."""
    module, reads, makes = "", [], []
    for word in words:
        name, _, value = word.partition("=")
        if name == "--module":
            module = value
        elif name == "--parameters":
            reads.append(value.rpartition("=")[2])
        elif name == "--output":
            makes.append(value.rpartition("@")[2])
        elif name in ("--input", "--expected_output") and "@" in value:
            reads.append(value.rpartition("@")[2])
    return module, reads, makes


def _of_python(words: Sequence[str]) -> tuple[list[str], list[str]]:
    plain = [
        word
        for before, word in zip(("", *words), words, strict=False)
        if before != "-X" and not word.startswith("-")
    ]
    return plain[:1], plain[1:]


def _missing_function(level: Level, directory: Path, words: Sequence[str]) -> str:
    """The function that is called, if the text of the program does not define it."""
    named = [word.partition("=")[2] for word in words if word.startswith("--function=")]
    if not named or level.name == "pytorch":
        return ""
    name = named[-1].removesuffix(_ASYNC)
    text = (directory / level.file).read_text(errors="replace")
    return "" if re.search(rf'@"?{re.escape(name)}"?\s*\(', text) else name
