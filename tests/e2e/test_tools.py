"""The commands around the main job: doctor, targets, models, cache, releases; help and bugs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from driver import pilot
from fake import stub_release

from iree_pilot.pipeline import extras
from iree_pilot.pipeline.cli import boundary
from iree_pilot.pipeline.cli.boundary import guarded
from iree_pilot.pipeline.cli.environment import doctor
from iree_pilot.pipeline.targets.backends import BACKENDS

OFFLINE = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"} | {
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_RETRIES": "0",
}


@pytest.mark.real
class TestDoctor:
    def test_it_tells_what_can_be_done_here(self) -> None:
        done = pilot("doctor", "--json")
        assert done.code == 0
        document = done.document
        assert document["ok"] is True
        states = {(f["ability"], f["name"]): f["state"] for f in document["findings"]}
        assert states["trace", "torch"] == "ok"
        rows = [(one["ability"], one["name"]) for one in done.document["findings"]]
        here = {one["name"] for one in done.document["findings"] if one["found"].startswith("no ")}
        assert all(rows.count(("run", name)) == 1 for name in here), "said once"
        assert states["trace", "bindings"] == "ok", "iree-turbine's own operations need it"
        assert states["compile", "iree-compile"] == "ok"
        assert states["run", "llvm-cpu"] == "ok"
        for finding in document["findings"]:
            if finding["ability"] == "run" and finding["state"] != "ok":
                assert finding["found"], "what is not there is said"

    def test_a_compiler_that_is_missing_is_its_exit_code(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        done = pilot("doctor", "--release", "./empty", cwd=tmp_path)
        assert done.code == 3
        assert "BAD iree-compile" in " ".join(done.out.split())
        assert "-> " in done.out, "how to mend it"

    def test_brackets_are_printed(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(doctor, "_EXTRAS", {"no-such": "needed for it"})
        monkeypatch.setattr(doctor, "_compiling_and_running", lambda *asked: [])
        doctor.command.main([], standalone_mode=False)
        assert f"-> needed for it: {extras.install('no-such')}" in capsys.readouterr().out


@pytest.mark.real
def test_targets_tell_flags_and_devices() -> None:
    done = pilot("targets", "--json")
    assert done.code == 0
    targets = {t["name"]: t for t in done.document["targets"]}
    assert list(targets) == list(BACKENDS)
    assert targets["llvm-cpu"]["device"]["uri"] == "local-task"
    assert "--iree-rocm-target=gfx942" in targets["hip"]["flags"] or targets["hip"]["device"]
    for target in targets.values():
        assert bool(target["device"]) != bool(target["why_not_run"])


class TestModels:
    def test_the_zoo_is_listed_with_its_presets(self) -> None:
        models = {m["name"]: m for m in pilot("models", "--json").document["models"]}
        assert {"llama", "llama-fp8"} <= set(models)
        assert {"tiny", "small", "8b"} <= {p["name"] for p in models["llama"]["presets"]}

    def test_one_model_with_its_fields(self) -> None:
        done = pilot("models", "llama-fp8")
        assert done.code == 0
        assert "fp8" in done.out
        assert "e4m3fnuz" in done.out


@pytest.mark.usefixtures("cache")
class TestCache:
    @pytest.fixture
    def filled(self, tmp_path: Path) -> Path:
        stub_release(tmp_path / "release")
        (tmp_path / "a.mlir").write_text("module {\n}\n")
        arguments = ("compile", "a.mlir", "-t", "llvm-cpu", "--release", "./release")
        assert pilot(*arguments, cwd=tmp_path).code == 0
        return tmp_path

    def entries(self) -> dict[str, int]:
        return {u["kind"]: u["entries"] for u in pilot("cache", "info", "--json").document["usage"]}

    def test_it_tells_what_it_holds(self, filled: Path, cache: Path) -> None:
        entries = self.entries()
        assert entries["compile"] == entries["program"] == 1
        assert str(cache) in pilot("cache", "info").out

    def test_its_place_may_have_brackets(self, tmp_path: Path) -> None:
        place = tmp_path / "[old]"
        assert f"{place}/" in pilot("cache", "info", env={"IREE_PILOT_CACHE": place}).out

    def test_what_was_not_used_can_be_removed(self, filled: Path) -> None:
        kept = pilot("cache", "gc", "--older-than", "1h", "--json").document
        assert kept["entries"] == 0
        gone = pilot("cache", "gc", "--max-size", "1B", "--json").document
        assert gone["entries"] >= 2
        assert self.entries() == {}

    def test_damage_is_found_and_removed(self, filled: Path, cache: Path) -> None:
        assert pilot("cache", "verify", "--json").document["damaged"] == []
        (module,) = cache.glob("store/compile/*/*/module.vmfb")
        module.chmod(0o644)
        module.write_bytes(b"damaged")
        (damaged,) = pilot("cache", "verify", "--json").document["damaged"]
        assert damaged["kind"] == "compile"
        assert self.entries().get("compile", 0) == 0


@pytest.mark.real
def test_releases_are_listed_without_a_network_too() -> None:
    done = pilot("releases", "--json", env=OFFLINE)
    assert done.code == 0
    assert done.document["installed"].startswith("3.")
    assert done.document["available"] == []
    assert "package index" in done.document["error"]


class TestHelp:
    def test_completion_is_to_be_had(self) -> None:
        for shell in ("bash", "zsh", "fish"):
            done = pilot(env={"_IREE_PILOT_COMPLETE": f"{shell}_source"})
            assert done.code == 0
            assert "iree-pilot" in done.out


class TestBoundary:
    """However a command ends, there is a message and an exit code."""

    @pytest.mark.parametrize(
        ("fault", "code", "said"),
        [
            (KeyboardInterrupt(), 130, "interrupted"),
            (PermissionError(13, "Permission denied", "/x"), 3, "permission denied writing /x"),
            (OSError(28, "No space left on device"), 3, "the disk is full"),
            (BrokenPipeError(), 141, ""),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_the_machine_does(
        self, fault: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.ended(fault) == code
        assert said in capsys.readouterr().err

    def test_a_bug_is_ours_and_its_traceback_is_kept(
        self, capsys: pytest.CaptureFixture[str], cache: Path
    ) -> None:
        assert self.ended(ZeroDivisionError("oh")) == 3
        err = capsys.readouterr().err
        assert "unexpected ZeroDivisionError: oh" in err
        assert "Traceback" not in err
        (log,) = (cache / "logs").iterdir()
        assert str(log) in err
        assert "ZeroDivisionError: oh" in log.read_text()

    def test_without_a_place_for_it_the_traceback_is_printed(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IREE_PILOT_CACHE", "/dev/null/cache")
        assert self.ended(ZeroDivisionError("oh")) == 3
        assert "Traceback" in capsys.readouterr().err

    @pytest.fixture(autouse=True)
    def streams(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import signal
        import sys

        monkeypatch.setattr(sys, "stdout", sys.stdout)
        monkeypatch.setattr(signal, "signal", lambda number, handler: None)

    def ended(self, fault: BaseException) -> int:
        @click.command()
        def command() -> None:
            raise fault

        return guarded(command, [])

    def test_json_gets_a_document_of_the_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        @click.command()
        @click.option("--json", is_flag=True)
        def command(json: bool) -> None:
            raise boundary.PilotError("it broke", advice="mend it")

        import msgspec

        assert guarded(command, ["--json"]) == 3
        document: Any = msgspec.json.decode(capsys.readouterr().out)
        assert document == {"error": {"message": "it broke", "advice": "mend it", "exit_code": 3}}
