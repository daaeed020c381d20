"""Types the commands that our pages show, and holds what comes out against the page.

A block of commands is indented, or fenced as sh. Lines with `$` in front are commands, what follows
is their output; without any `$` each line is a command. Output is compared in form: numbers, times,
sizes, hashes and blanks may differ, `...` stands for anything. A comment before a block says more:

    <!-- docs-check: slow -->                      typed with --all only
    <!-- docs-check: exit 1 -->                    the last command's exit code
    <!-- docs-check: elsewhere: an AMD GPU -->     not typed, and why: it is reported
    <!-- docs-check: synopsis -->                  forms of commands: their options are looked up
    <!-- docs-check: output -->                    no commands: what is said somewhere else
    <!-- docs-check: file examples/model.py -->    the fenced block is what that file holds

Of each command, typed or not, and of those within a text, the names and options have to exist, and
the sample files be in examples/ or written by a command before. Files of the repository that a page
names have to be there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import click
import msgspec

from iree_pilot.pipeline.targets import devices

ROOT = Path(__file__).resolve().parent.parent
#: No command of a page is longer.
_SECONDS = 1200
_COMMENT = re.compile(r"<!-- docs-check: (.*) -->")
_OURS = re.compile(r"(?:\.venv/bin/)?iree-pilot\b")
_TYPED = re.compile(rf"{_OURS.pattern}|scripts/\w+|\./")
_INLINE = re.compile(r"`((?:\.venv/bin/)?iree-pilot [^`]+)`")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
_PATH = re.compile(
    r"(?<![\w./-])(?:docs|examples|iree_pilot|models|pipeline|repro|scripts|tests|\.ci|\.github)/"
    r"[\w./*-]*[\w/]"
)
_SAMPLE = re.compile(r"[\w./*-]+\.(?:py|mlir|mlirbc|toml|npy|onnx|pt2)")
_FORMS = (
    (rf"\bAMD EPYC\b|{re.escape(devices.processor().name)}", "<processor>"),
    (r"(?<!\.)\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,}\b", "<hash>"),
    (r"[-+]?\d[\d,.]*(?:e[-+]?\d+)? ?(?:ns|µs|ms|s|min)\b", "<time>"),
    (r"[-+]?\d[\d,.]*(?:e[-+]?\d+)? ?(?:B|[kKMGT]i?B)\b", "<size>"),
    (r"[-+]?\d[\d,.]*(?:e[-+]?\d+)?", "<number>"),
    # A part that takes next to nothing is left out: another one on each machine.
    (r"(?m)^( *took)(?: <time>)+:(?: \w+(?: <time>)+,?)+$", r"\1 <parts>"),
)


class Command(msgspec.Struct, frozen=True):
    """Command to type, the output shown (empty: none), and its line in the page."""

    text: str
    shown: str
    line: int


class Block(msgspec.Struct, frozen=True):
    """A block of a page. said: by the comment before it. fence: its language; "" for an indented
    one."""

    line: int
    fence: str
    said: tuple[str, ...]
    lines: tuple[str, ...]

    def marked(self, word: str) -> str | None:
        """Text after a word in the comment; None if the comment does not have it."""
        matches = (re.fullmatch(rf"{word}(?:[: ]+(.*))?", said) for said in self.said)
        return next((match[1] or "" for match in matches if match), None)

    @property
    def commands(self) -> list[Command]:
        """Commands to type, in order."""
        if self.fence not in ("", "sh") or self.marked("output") is not None:
            return []
        found: list[Command] = []
        dollars = any(line.startswith("$ ") for line in self.lines)
        for number, text in enumerate(self.lines, self.line):
            if text.startswith("$ ") or (not dollars and _TYPED.match(text)):
                found.append(Command(text.removeprefix("$ "), "", number))
            elif dollars and found:
                last = found.pop()
                found.append(msgspec.structs.replace(last, shown=f"{last.shown}{text}\n"))
        return found


def blocks(text: str) -> list[Block]:
    """The blocks of a page, in order."""
    found: list[Block] = []
    said: tuple[str, ...] = ()
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        if match := _COMMENT.search(line):
            said = (*said, *(one.strip() for one in match[1].split(";")))
        elif line.startswith("```") or (line.startswith("    ") and not _in_list(lines, at)):
            end = at + 1
            if line.startswith("```"):
                while not lines[end].startswith("```"):
                    end += 1
                body, fence = lines[at + 1 : end], line[3:] or "text"
            else:
                while end < len(lines) and (lines[end].startswith("    ") or not lines[end]):
                    end += 1
                body, fence = [one[4:] for one in lines[at:end]], ""
                end -= 1
            found.append(Block(at + 1 + bool(fence), fence, said, tuple(body)))
            said, at = (), end
        elif line:
            said = ()
        at += 1
    return found


def _in_list(lines: list[str], at: int) -> bool:
    """True if an indented line continues the text above it."""
    return at > 0 and bool(lines[at - 1]) and not _COMMENT.search(lines[at - 1])


def form(text: str) -> str:
    """A text with what differs from run to run replaced."""
    for pattern, name in _FORMS:
        text = re.sub(pattern, name, text)
    return " ".join(text.split())


def differs(shown: str, said: str) -> str:
    """The first line of what a page shows that is not in what was said, in order; "" if all are."""
    actual, place = form(said), 0
    for line in filter(str.strip, shown.splitlines()):
        parts = [re.escape(form(part)) for part in line.split("...")]
        match = re.compile(".*?".join(parts).strip()).search(actual, place)
        if match is None:
            return line
        place = match.end()
    return ""


def wrong_names(command: str) -> list[str]:
    """The commands and options of iree-pilot in a text that do not exist."""
    from iree_pilot.pipeline.cli import cli

    words = re.sub(r"[\[\]|]", " ", command.partition(" -- ")[0].partition("  # ")[0]).split()[1:]
    known: click.Command = cli
    context = click.Context(cli)
    while isinstance(known, click.Group) and words and re.fullmatch(r"[a-z]+", words[0]):
        found = known.get_command(context, words[0])
        if found is None:
            return [f"there is no command {words[0]}"]
        known, words = found, words[1:]
    options = {"-h", "--help", "--version"}
    for one in known.params:
        options |= {*one.opts, *one.secondary_opts}
    flags = (re.split(r"[=,.;]", word)[0] for word in words if re.match(r"--?[a-z]", word))
    return [f"{known.name} has no {flag}" for flag in flags if flag not in options]


def missing_samples(found: Iterable[Block]) -> list[str]:
    """Files that commands name, and that are neither in the repository nor written before."""
    missing, written = list[str](), set[str]()
    for block in found:
        elsewhere = block.marked("elsewhere") is not None or block.marked("synopsis") is not None
        for command in block.commands:
            own = command.text.partition("  # ")[0]
            outputs = re.findall(r"(?:-o|--markdown|--junit) (\S+)", own)
            written |= set(outputs)
            names = {name for name in _SAMPLE.findall(own) if "*" not in name} - written
            if not elsewhere:
                missing += [n for n in sorted(names) if not (ROOT / n.lstrip("@")).is_file()]
    return missing


def inline(text: str) -> list[str]:
    """The commands of iree-pilot within a text."""
    return _INLINE.findall(" ".join(text.split()))


def links(page: Path, text: str) -> list[str]:
    """Links to files that are not there."""
    return [link for link in _LINK.findall(text) if not (page.parent / link).exists()]


def missing_paths(text: str) -> list[str]:
    """The files and folders of the repository that a text names, and that are not there."""
    return [path for path in _PATH.findall(text) if not any(ROOT.glob(path))]


class Typist:
    """Types the commands of a page, in a directory of its own with the repository's files."""

    def __init__(self, directory: Path, cache: Path) -> None:
        self._directory = directory
        for name in ("examples", "tests", "scripts", ".venv"):
            (directory / name).symlink_to(ROOT / name)
        self._env = {
            **os.environ,
            "IREE_PILOT_CACHE": str(cache / "cache"),
            "IREE_PILOT_DATA": str(cache / "data"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "COLUMNS": "140",
            "NO_COLOR": "1",
        }

    def type(self, command: Command, code: int) -> str:
        """Fault of the output; "" if there is none."""
        done = subprocess.run(
            ["bash", "-c", command.text],
            cwd=self._directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode != code:
            return f"exit code {done.returncode}, not {code}:\n{_tail(done.stdout)}"
        line = differs(command.shown, done.stdout)
        return f"it does not say {line.strip()!r}, but:\n{_tail(done.stdout)}" if line else ""


def _tail(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines()[-40:])


def check(page: Path, cache: Path, *, everything: bool) -> list[str]:
    """Faults of a page, found by typing its commands; reports progress."""
    name, text = page.relative_to(ROOT), page.read_text()
    found = blocks(text)
    wrong = [f"{name}: no file {link}" for link in links(page, text)]
    wrong += [f"{name}: {sample} is not in examples/" for sample in missing_samples(found)]
    wrong += [f"{name}: there is no {path}" for path in missing_paths(text)]
    for named in inline(text):
        wrong += [f"{name}: `{named}`: {what}" for what in wrong_names(named)]
    with tempfile.TemporaryDirectory(prefix="docs-check-") as scratch:
        typist = Typist(Path(scratch), cache)
        for block in found:
            wrong += [f"{name}:{block.line}: {what}" for what in _same_file(block)]
            for command in block.commands:
                where = f"{name}:{command.line}: {command.text}"
                if _OURS.match(command.text):
                    wrong += [f"{where}: {what}" for what in wrong_names(command.text)]
                if block.marked("synopsis") is not None:
                    continue
                reason = block.marked("elsewhere")
                if reason is not None:
                    print(f"not typed  {where} ({reason})", flush=True)
                elif block.marked("slow") is not None and not everything:
                    print(f"--all      {where}", flush=True)
                else:
                    last = command is block.commands[-1] or command == block.commands[-1]
                    code = int(block.marked("exit") or 0) if last else 0
                    started = time.monotonic()
                    what = typist.type(command, code)
                    took = f"{time.monotonic() - started:.1f} s"
                    print(f"{'WRONG' if what else 'ok':<10} {where} ({took})", flush=True)
                    if what:
                        print(what, flush=True)
                        wrong.append(f"{where}: {what.partition(chr(10))[0]}")
    return wrong


def _same_file(block: Block) -> list[str]:
    file = block.marked("file")
    if file is None:
        return []
    if not (ROOT / file).is_file():
        return [f"there is no {file}"]
    same = "\n".join(block.lines).strip() == (ROOT / file).read_text().strip()
    return [] if same else [f"it is not what {file} holds"]


@click.command()
@click.option("--all", "everything", is_flag=True, help="Type what is marked as slow, too.")
@click.argument("pages", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(everything: bool, pages: tuple[Path, ...]) -> None:
    """Type the commands of PAGES (all, if none is named) and compare what comes out in form.

    Exit code 1: something is not as a page has it.
    """
    chosen = [page.resolve() for page in pages] or all_pages()
    with tempfile.TemporaryDirectory(prefix="docs-check-") as cache:
        wrong = [w for page in chosen for w in check(page, Path(cache), everything=everything)]
    for what in wrong:
        print(f"\n{what}")
    print(f"\n{len(wrong)} wrong in {len(chosen)} pages")
    sys.exit(bool(wrong))


def all_pages() -> list[Path]:
    """README.md, those beside it for who works on it, then docs/ by name."""
    beside = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
    return [*(ROOT / name for name in beside), *sorted((ROOT / "docs").glob("*.md"))]


if __name__ == "__main__":
    main()
