"""What a shell completes iree-pilot's words to, asked as the shells ask."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from driver import PROGRAM, pilot
from fake import stub_release

#: `iree-pilot` first.
PATH = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
#: Words that bash breaks lines at, as it comes.
BREAKS = " \t\n\"'><=;|&(:"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with some files, and a torch that nobody may load."""
    (tmp_path / "model.py").touch()
    (tmp_path / "my file.mlir").touch()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a.mlir").touch()
    (tmp_path / "poison/torch").mkdir(parents=True)
    (tmp_path / "poison/torch/__init__.py").write_text("raise SystemExit('torch was loaded')")
    return tmp_path


def completed(here: Path, line: str, *, breaks: str = BREAKS) -> list[str]:
    """What bash would offer behind this line."""
    env = {
        "_IREE_PILOT_COMPLETE": "bash_complete",
        "COMP_LINE": f"iree-pilot {line}",
        "COMP_WORDBREAKS": breaks,
        "PYTHONPATH": here / "poison",
    }
    done = pilot(env=env, cwd=here)
    assert (done.code, done.err) == (0, "")
    return [line.partition(",")[2] for line in done.out.splitlines()]


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("", ["doctor", "run", "completion"]),
        ("nightly ", ["run", "status"]),
        ("run lla", ["llama", "llama-fp8"]),
        ("run mod", ["model.py"]),
        ("run lib/", ["lib/a.mlir"]),
        (r"run my\ f", ["my file.mlir"]),
        ('run "my f', ["my file.mlir"]),
        ('run --release="li', ["lib"]),
        ("run llama-fp8:", ["tiny", "small", "8b"]),
        ("run llama:t", ["tiny"]),
        ("run llama:tiny/d", ["tiny/decode"]),
        ("run llama -t v", ["vulkan"]),
        ("run llama -t llvm-cpu,hip:gfx94", ["gfx942"]),
        ("run llama --inl", ["--inline-parameters"]),
        ("run llama -t metal:", ["macos", "ios-simulator"]),
        ("bisect llama --target=vul", ["vulkan"]),
        ("ranges llama -t ll", ["llvm-cpu"]),
        ("compile a.mlir --to=executable-t", ["executable-targets"]),
        ("run a.mlir --from str", ["stream"]),
        ("models che", ["check"]),
        ("models check . --dtype b", ["bf16"]),
        ("run llama --dtype f", ["f32", "f16"]),
        ("run llama:tiny --set lay", ["layers="]),
        ("run llama --set dtype=b", ["bf16"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("nightly report --format m", ["markdown"]),
        ("verify li", ["lib"]),
    ],
)
def test_bash_is_offered(here: Path, line: str, some: list[str]) -> None:
    offered = completed(here, line)
    assert set(some) <= set(offered)


def test_a_bash_that_does_not_break_at_colons_gets_whole_words(here: Path) -> None:
    assert completed(here, "run llama:t", breaks=" \t\n") == ["llama:tiny"]


def test_phases_are_those_of_the_release(here: Path) -> None:
    stub_release(here / "stub", phases=["start", "own-phase", "end"])
    assert completed(here, "compile a.mlir --release ./stub --to o") == ["own-phase"]


def test_releases_are_those_that_are_here(here: Path) -> None:
    from importlib.metadata import version

    assert version("iree-base-compiler") in completed(here, "run a.mlir --release ")
    assert "lib" in completed(here, "run a.mlir --release l")


def test_files_are_left_to_zsh_and_fish(here: Path) -> None:
    asked = {"COMP_WORDS": "iree-pilot run mamb", "PYTHONPATH": here / "poison"}
    zsh = pilot(env={"_IREE_PILOT_COMPLETE": "zsh_complete", "COMP_CWORD": "2", **asked}, cwd=here)
    assert zsh.out.splitlines() == ["plain", "mamba", "_", "file", "mamb", "_"]
    fish = pilot(
        env={"_IREE_PILOT_COMPLETE": "fish_complete", "COMP_CWORD": "mamb", **asked}, cwd=here
    )
    assert [line.split("\t")[0] for line in fish.out.splitlines()] == ["plain,mamba", "file,mamb"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(shell: str) -> None:
    done = pilot("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert "_IREE_PILOT_COMPLETE" in done.out
    assert "iree-pilot" in done.out


def test_another_shell_is_wrong_usage() -> None:
    done = pilot("completion", "tcsh")
    assert done.code == 2
    assert "'bash', 'zsh', 'fish'" in done.err


def lines_of(shell: str, script: str, here: Path) -> list[str]:
    """What a real shell without settings prints for a script."""
    bare = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *bare, "-c", script],
        cwd=here,
        env={**os.environ, "PATH": PATH, "HOME": str(here)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_bash_itself_takes_the_script(here: Path) -> None:
    """Sourced by a real bash, which calls the function as readline does."""
    script = (
        'eval "$(iree-pilot completion bash)"\n'
        "compopt() { echo compopt $*; }\n"
        "ask() { COMP_LINE=$1; COMP_POINT=${#1}; _iree_pilot_completion iree-pilot;"
        ' printf "%s\\n" "${COMPREPLY[@]}"; }\n'
        'ask "iree-pilot run llama-fp8:s"; ask "iree-pilot verify li"\n'
        'ask "iree-pilot run llama --set lay"; complete -p iree-pilot\n'
    )
    assert lines_of("bash", script, here) == [
        "small",
        "compopt -o filenames",
        "lib",
        "compopt -o nospace",
        "layers=",
        "complete -o default -o nosort -F _iree_pilot_completion iree-pilot",
    ]


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("run my", r"run my\ file.mlir "),
        ('run "my', 'run "my file.mlir" '),
        ("verify li", "verify lib/"),
        ("run llama --set lay", "run llama --set layers="),
        ("run --from=fl", "run --from=flow "),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_tab_key_completes(here: Path, shell: str, line: str, completed: str) -> None:
    assert typed_into(shell, f"iree-pilot {line}\t", here) == f"iree-pilot {completed}"


def typed_into(shell: str, keys: str, here: Path) -> str:
    """The command line that an interactive shell without settings has after these keys."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    bare = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"]}[shell]
    show = {
        "bash": """bind -x '"\\C-t": printf "<<%s>>" "$READLINE_LINE"'""",
        "zsh": """show() { print -rn -- "<<$BUFFER>>" }; zle -N show; bindkey '^T' show""",
    }[shell]
    own = {**os.environ, "PATH": PATH, "HOME": str(here), "TERM": "dumb"}
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(here)
        os.execvpe(shell, [shell, *bare, "-i"], own)
    try:
        os.write(
            terminal, f'{show}\neval "$(iree-pilot completion {shell})"; echo S""ET\n'.encode()
        )
        _read(terminal, "SET\r\n")
        os.write(terminal, f"{keys}\x14".encode())
        return _read(terminal, ">>").rpartition("<<")[2].partition(">>")[0]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


def _read(terminal: int, end: str) -> str:
    """What a terminal shows until it has shown `end`."""
    shown = ""
    while end not in shown:
        assert select.select([terminal], [], [], 60)[0], f"no {end!r} behind {shown!r}"
        shown += os.read(terminal, 1 << 16).decode(errors="replace")
    return shown


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("run a.mlir -t llvm-cpu,vu", ["llvm-cpu,vulkan"]),
        ("run a.mlir --target=llvm-cpu,vu", ["--target=llvm-cpu,vulkan"]),
        ("run a.mlir --from=fl", ["--from=flow"]),
        ("run my", ["my file.mlir"]),
        ("run a.mlir --release=li", ["--release=lib/"]),
        ("run llama --set lay", ["layers="]),
    ],
)
def test_fish_is_offered(here: Path, line: str, offered: list[str]) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = f"iree-pilot completion fish | source; complete -C 'iree-pilot {line}'"
    assert [one.partition("\t")[0] for one in lines_of("fish", script, here)] == offered


def test_the_scripts_of_zsh_and_fish_keep_what_the_words_need() -> None:
    """What `test_the_tab_key_completes` and `test_fish_is_offered` see, where there is neither."""
    zsh, fish = pilot("completion", "zsh").out, pilot("completion", "fish").out
    assert "compset -P 1 '*='" in zsh
    assert "compadd -S ''" in zsh
    assert "autoload -Uz compinit && compinit" in zsh
    assert "string split -m 1 ," in fish
    assert 'echo -- "$option$parts[2]"' in fish
