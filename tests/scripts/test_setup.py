"""scripts/setup and demo; the Python and pip that they find, and iree-pilot, are stand-ins."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

# Stands for python3 and for the virtual environment's python: logs what it is asked to do, and
# fails where a file named like the step is present.
PYTHON = """#!/bin/sh
case "$*" in
    -V|-VV) echo "Python {version}" ;;
    *version_info*) exit {too_old} ;;
    "-m venv"*)
        mkdir -p .venv/bin && cp "$0" .venv/bin/python
        echo "command = $0 $*" >.venv/pyvenv.cfg
        printf '#!/bin/sh\\n[ -e no-vulkan ] || echo "# --device=vulkan://0"\\n' \\
            >.venv/bin/iree-run-module
        chmod +x .venv/bin/iree-run-module
        echo "venv" >>calls ;;
    *"-m pip"*)
        shift 4
        echo "pip $*" >>calls
        case "$*" in
            *+cpu*--index-url*) ! [ -e no-cpu-anywhere ] ;;
            *+cpu*) ! [ -e no-cpu-build ] ;;
            *-e*) ! [ -e no-network ] || {{ echo "Connection refused"; exit 1; }} ;;
        esac ;;
    *'version("torch")'*) ! [ -e no-cpu-anywhere ] ;;
esac
"""


class Checkout:
    """A directory with scripts/setup and what it reads, and stand-ins first on PATH."""

    def __init__(self, root: Path, tools: Path) -> None:
        self.root = root
        self.tools = tools
        (root / "scripts").mkdir(parents=True)
        tools.mkdir()
        for name in ("scripts/setup", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, root / name)
        self.tool("id", "#!/bin/sh\necho 1000\n")
        self.tool("sudo", "#!/bin/sh\nexit 1\n")
        self.tool("apt-cache", "#!/bin/sh\necho bookworm-backports\n")
        self.tool("spirv-val", "#!/bin/sh\n")
        self.tool(
            "apt-get",
            '#!/bin/sh\necho "apt-get $*" >>calls\n'
            'case "$*" in *" install "*) rm no-vulkan ;; *) exit 100 ;; esac\n',
        )
        self.python("3.11.7")

    def tool(self, name: str, text: str) -> None:
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def python(self, version: str, *, too_old: bool = False) -> None:
        text = PYTHON.format(version=version, too_old=int(too_old))
        for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
            self.tool(name, text)

    def happens(self, what: str) -> None:
        (self.root / what).touch()

    def setup(self, *arguments: str, **variables: str) -> tuple[int, str, list[str]]:
        """Exit code, what the user reads, and what was asked of the stand-ins."""
        calls = self.root / "calls"
        calls.write_text("")
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=60)
        assert out == ""
        return process.returncode, err, calls.read_text().splitlines()

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "scripts" / "setup", *arguments],
            cwd=self.root,
            env={
                **os.environ,
                "PATH": f"{self.tools}:{os.environ['PATH']}",
                "TMPDIR": str(self.tools),
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkout]:
    monkeypatch.delenv("IREE_PILOT_REQUIRE_VULKAN", raising=False)
    yield Checkout(tmp_path / "checkout", tmp_path / "tools")


def test_the_second_setup_does_nothing(checkout: Checkout) -> None:
    code, text, calls = checkout.setup()
    assert code == 0
    assert "pinned packages" in text
    assert calls[0] == "venv"
    assert all("-c requirements.lock" in c or "--no-deps torch==" in c for c in calls[1:])
    assert "[onnx]" in calls[-1]
    assert checkout.setup() == (0, "", [])


def test_what_the_tests_need_comes_on_top(checkout: Checkout) -> None:
    checkout.setup()
    code, _, calls = checkout.setup("--dev")
    assert code == 0
    assert "venv" not in calls
    assert "[dev]" in calls[-2]
    second = calls[-1].split()
    assert second[:3] == ["pip", "install", "--no-deps"]
    assert second[-1].startswith("transformers==")
    assert checkout.setup("--dev") == checkout.setup() == (0, "", [])


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_changed_requirements_are_installed(checkout: Checkout, name: str) -> None:
    checkout.setup()
    with (checkout.root / name).open("a") as file:
        file.write("# changed\n")
    assert "[onnx]" in checkout.setup()[2][-1]


def test_a_failed_one_tells_why_and_goes_on_the_next_time(checkout: Checkout) -> None:
    checkout.happens("no-network")
    code, text, _ = checkout.setup()
    assert code == 3
    assert "Connection refused" in text
    assert "run scripts/setup again" in text
    (checkout.root / "no-network").unlink()
    code, _, calls = checkout.setup()
    assert code == 0
    assert "venv" not in calls
    assert checkout.setup() == (0, "", [])


def test_of_two_at_once_the_second_waits(checkout: Checkout) -> None:
    with (checkout.root / "scripts" / "setup").open() as script:
        fcntl.flock(script, fcntl.LOCK_EX)
        second = checkout.start()
        assert second.stderr is not None
        assert second.stderr.readline() == "Waiting for another setup of this checkout.\n"
        assert not (checkout.root / ".venv").exists()
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert checkout.setup() == (0, "", [])


def test_torch_comes_without_cuda_where_it_can(checkout: Checkout) -> None:
    _, text, calls = checkout.setup()
    assert [c for c in calls if "+cpu" in c] == ["pip install --no-deps torch==2.13.0+cpu"]
    assert "gigabytes" not in text


def test_torch_comes_from_its_own_index_next(checkout: Checkout) -> None:
    checkout.happens("no-cpu-build")
    _, text, calls = checkout.setup()
    assert "--index-url https://download.pytorch.org/whl/cpu" in calls[2]
    assert "gigabytes" not in text


def test_a_large_torch_is_announced(checkout: Checkout) -> None:
    checkout.happens("no-cpu-build")
    checkout.happens("no-cpu-anywhere")
    code, text, _ = checkout.setup()
    assert code == 0
    assert "gigabytes" in text


def test_a_python_that_is_too_old_is_named(checkout: Checkout) -> None:
    checkout.python("3.9.2", too_old=True)
    code, text, calls = checkout.setup()
    assert (code, calls) == (3, [])
    assert "Python 3.11 or later is needed; python3 is Python 3.9.2." in text


def test_a_moved_checkout_is_set_up_anew(checkout: Checkout) -> None:
    checkout.setup()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    code, _, calls = checkout.setup()
    assert code == 0
    assert calls[0] == "venv"


def test_without_a_vulkan_driver_one_line_says_how_to_get_one(checkout: Checkout) -> None:
    checkout.happens("no-vulkan")
    code, text, _ = checkout.setup()
    assert code == 0
    assert text.count("sudo apt-get install mesa-vulkan-drivers libvulkan1") == 1
    (checkout.root / "no-vulkan").unlink()
    assert checkout.setup() == (0, "", [])


@pytest.mark.parametrize(
    ("tool", "text"), [("id", "#!/bin/sh\necho 0\n"), ("sudo", '#!/bin/sh\nshift\nexec "$@"\n')]
)
def test_root_gets_the_vulkan_driver(checkout: Checkout, tool: str, text: str) -> None:
    checkout.happens("no-vulkan")
    checkout.tool(tool, text)
    code, told, calls = checkout.setup()
    assert code == 0
    assert calls[-1].endswith("mesa-vulkan-drivers libvulkan1")
    assert "sudo apt-get" not in told
    assert checkout.setup() == (0, "", [])


def test_ci_insists_on_a_vulkan_driver(checkout: Checkout) -> None:
    checkout.happens("no-vulkan")
    code, text, _ = checkout.setup(IREE_PILOT_REQUIRE_VULKAN="1")
    assert code == 3
    assert "no Vulkan device answers" in text


def test_an_unknown_option_is_wrong_usage(checkout: Checkout) -> None:
    code, text, calls = checkout.setup("--all")
    assert (code, calls) == (2, [])
    assert "usage:" in text


@pytest.mark.parametrize(("ends", "code"), [(0, 0), (1, 0), (2, 2), (3, 3), (130, 130)])
def test_the_demo_bisects_what_fails_and_takes_that_for_an_answer(
    tmp_path: Path, ends: int, code: int
) -> None:
    for place, text in {
        "scripts/setup": "echo setup >>calls",
        ".venv/bin/iree-pilot": f'echo "$*" >>calls; exit {ends}',
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / place).chmod(0o755)
    shutil.copy(ROOT / "scripts" / "demo", tmp_path / "scripts" / "demo")
    done = subprocess.run([tmp_path / "scripts" / "demo", "-v"], capture_output=True, text=True)
    assert done.returncode == code
    called = "run llama-fp8 -t llvm-cpu,vulkan,hip:gfx942 --bisect -v"
    assert (tmp_path / "calls").read_text().splitlines() == ["setup", called]
    assert ("a target failed" in done.stderr) == (ends == 1)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an sdist is no checkout of git's")
def test_what_the_demo_writes_is_not_offered_for_a_commit() -> None:
    checked = subprocess.run(
        ["git", "check-ignore", "-q", "repro-llama-fp8-vulkan/run.sh"], cwd=ROOT
    )
    assert checked.returncode == 0
