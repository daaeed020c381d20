"""Makes the corpus: real texts of real compilers, one `NAME@RELEASE.txt` each, and entries.json.

    PYTHONPATH=tests python -m corpus.make --compiler 3.13.0=PATH/iree-compile ... \\
        [--runtime DIRECTORY] [--programs DIRECTORY] [--only NAME]

A recipe runs on those of its releases that are given. The facts of an entry (how the child ended)
are written anew; what is expected of it is kept, or taken from the present code for a new entry:
read that before you commit it. --programs: where larger programs lie that are not kept here.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

import msgspec

from corpus import HERE, Entry, classify, expectation
from corpus.recipes import RECIPES, Recipe
from iree_pilot.pipeline.processes import process

_LINE = 1200
_FRAMES = 26
_DUMP_LINES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiler", action="append", default=[], metavar="RELEASE=PATH")
    parser.add_argument("--runtime", type=Path)
    parser.add_argument("--programs", type=Path)
    parser.add_argument("--only")
    options = parser.parse_args()
    compilers = {k: Path(v) for k, v in (c.split("=", 1) for c in options.compiler)}
    file = HERE / "entries.json"
    known = {e.name: e for e in msgspec.json.decode(file.read_bytes(), type=list[Entry])}
    for recipe in RECIPES:
        if options.only and recipe.name != options.only:
            continue
        for release, bug in recipe.bugs.items():
            if release not in compilers:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                made = _make(recipe, release, bug, compilers[release], options, Path(scratch))
            if made is None:
                print(f"{recipe.name}@{release}: no program or no failure")
                continue
            entry, text = made
            (HERE / f"{entry.name}.txt").write_text(text)
            old = known.get(entry.name)
            expect = old.expect if old else expectation(classify(entry, text))
            known[entry.name] = msgspec.structs.replace(entry, expect=expect)
    ordered = [known[name] for name in sorted(known)]
    file.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")


def _make(
    recipe: Recipe,
    release: str,
    bug: str,
    compiler: Path,
    options: argparse.Namespace,
    scratch: Path,
) -> tuple[Entry, str] | None:
    """Runs a recipe; its entry and scrubbed stderr, or None if it cannot run or does not fail."""
    name = recipe.program
    if recipe.text is not None:
        (scratch / name).write_bytes(recipe.text)
    else:
        places = [d / name for d in (HERE / "programs", options.programs) if d]
        found = next((p for p in places if p.is_file()), None)
        if found is None:
            return None
        (scratch / name).write_bytes(found.read_bytes())
    compile_ = [*recipe.prefix, str(compiler), name, "-o", "module.vmfb", *recipe.flags]
    if recipe.tool == "python":
        argv = [sys.executable, "-X", "faulthandler", "-c", recipe.driver, name]
    elif recipe.tool == "iree-run-module":
        if options.runtime is None:
            return None
        if recipe.flags and not _run(compile_, scratch, recipe).ok:
            return None
        for command in recipe.before:
            _run([str(options.runtime / command[0]), *command[1:]], scratch, recipe)
        argv = [str(options.runtime / recipe.tool), *recipe.arguments]
    else:
        argv = compile_
    outcome = _run(argv, scratch, recipe)
    if outcome.ok:
        return None
    text = (scratch / "stderr").read_text(errors="replace")
    entry = Entry(
        name=f"{recipe.name}@{release}",
        bug=bug,
        tool=recipe.tool,
        argv=(recipe.tool, name),
        ended_by=outcome.ended_by,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        expect={},
    )
    return entry, _trim(_scrub(text, scratch, compiler, options, release))


def _run(argv: list[str], scratch: Path, recipe: Recipe) -> process.Outcome:
    return process.run(
        argv,
        stdout=scratch / "stdout",
        stderr=scratch / "stderr",
        cwd=scratch,
        limits=process.Limits(seconds=recipe.seconds, memory_bytes=recipe.memory_bytes),
    )


def _scrub(
    text: str, scratch: Path, compiler: Path, options: argparse.Namespace, release: str
) -> str:
    """Neutral paths for those of this machine."""
    text = text.replace(str(compiler.parent), f"/home/user/iree/{release}")
    if options.runtime is not None:
        text = text.replace(str(options.runtime), f"/home/user/iree/{release}")
    text = text.replace(str(scratch), "/home/user/case")
    text = text.replace(str(Path(sys.prefix) / "lib"), "/home/user/.venv/lib")
    text = text.replace(sys.base_prefix, "/usr")
    return re.sub(r"/tmp/(?=\w)", "/home/user/tmp/", text)


def _trim(text: str) -> str:
    """Long lines, long IR dumps and deep stacks cut; what is read of them is at their beginning."""
    lines: list[str] = []
    dumped = 0
    for line in text.split("\n"):
        frame = re.match(r" *#(\d+) 0x", line)
        if frame and int(frame[1]) >= _FRAMES:
            continue
        in_dump = bool(lines) and (dumped or lines[-1].endswith("see current operation: "))
        dumped = dumped + 1 if in_dump and re.match(r'[ %^"}]', line) else 0
        if dumped > _DUMP_LINES and not re.match(r"    %\w+ = torch| +\^$", line):
            continue
        lines.append(line if len(line) <= _LINE else line[:_LINE])
    return "\n".join(lines)


if __name__ == "__main__":
    main()
