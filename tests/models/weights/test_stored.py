"""Weights are used from the files that hold them: no copy, no memory; only what differs is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from driver import pilot
from fake import checkpoints
from safetensors.torch import load_file, save_file

from iree_pilot.models.fp8 import codes_to_fnuz
from iree_pilot.models.weights import load, read
from iree_pilot.models.weights.checkpoints import tensors
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.pytorch import torch_export
from iree_pilot.pipeline.frontends.reference import reference
from iree_pilot.pipeline.program import archive
from iree_pilot.pipeline.program.program import Program
from iree_pilot.pipeline.store import sealed

pytestmark = pytest.mark.real

TINY = {"layers": "1", "kv_heads": "2", "vocabulary": "64", "width": "64", "hidden": "128"}
TINY["heads"] = "4"


def trace(source: Path | str, place: Path, *weights: Path, **settings: str) -> Program:
    place.mkdir()
    job = Job(
        source=sources.parse(str(source), settings, None),
        weights=tuple(str(path) for path in weights),
    )
    return torch_export.build(job, place, lambda doing: None)


def parameters(program: Program, place: Path) -> dict[str, bytes]:
    """What the runtime would load for each of the program's parameters."""
    assert program.parameters is not None
    archive.check_parameters(program, place)
    held = {n: h for a in program.parameters.archives for n, h in tensors(place / a).items()}
    values = {p.name: read.read(held[p.name]) for p in program.parameters.tensors}
    return {n: v.reshape(-1).view(torch.uint8).numpy().tobytes() for n, v in values.items()}


class TestCheckpoints:
    def test_shards_are_the_programs_archives(self, tmp_path: Path) -> None:
        directory = checkpoints.save("llama", tmp_path / "shards", shard="100KB")
        program = trace(directory, tmp_path / "program")
        assert program.parameters is not None
        shards = sorted(str(file) for file in directory.glob("*.safetensors"))
        assert list(program.parameters.archives) == shards
        assert len(shards) > 2
        assert not list((tmp_path / "program").glob("parameters*"))

    def test_only_what_is_converted_is_written(self, tmp_path: Path) -> None:
        directory = checkpoints.save_fp8(tmp_path / "fp8")
        program = trace(directory, tmp_path / "program", fp8="e4m3fnuz")
        assert program.parameters is not None
        stored, written = program.parameters.archives
        assert stored == str(directory / checkpoints.WEIGHTS)
        made = archive.read(tmp_path / "program" / written)
        linears = {n for n in load_file(directory / checkpoints.WEIGHTS) if "_scale" in n}
        linears |= {n.removesuffix("_scale") for n in linears if n.endswith("weight_scale")}
        assert set(made) == {f"converted.{name}" for name in linears}

    @pytest.mark.parametrize(
        ("model", "settings"),
        [
            ("llama", {}),
            ("llama", {"dtype": "bf16"}),
            ("llama-fp8", {}),
            ("llama-fp8", {"fp8": "e4m3fnuz"}),
            ("gemma2", {}),
            ("gemma3-multimodal", {}),
            ("vit", {}),
            ("resnet", {}),
            ("qwen2.5-vl", {}),
            ("paligemma2", {"gelu": "fused"}),
        ],
    )
    def test_one_that_does_not_fit_in_memory_is_the_same_program_with_the_same_weights(
        self,
        model: str,
        settings: dict[str, str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        directory = tmp_path / "checkpoint"
        if model == "llama-fp8":
            checkpoints.save_fp8(directory)
        else:
            checkpoints.save(model, directory)
        loaded = trace(directory, tmp_path / "loaded", **settings)
        monkeypatch.setattr(load, "free_bytes", lambda: 1000)
        large = trace(directory, tmp_path / "large", **settings)
        assert parameters(large, tmp_path / "large") == parameters(loaded, tmp_path / "loaded")
        assert large.functions[0].example is not None
        assert large.functions[0].reference is None
        note, *gaps = large.notes
        assert [*gaps] == [*loaded.notes], "gelu's wrong constant"
        assert "nothing to compare with" in note
        assert loaded.functions[0].reference is not None


class TestPresets:
    def test_a_full_size_preset_runs_with_a_checkpoints_shards(self, tmp_path: Path) -> None:
        directory = checkpoints.save("llama", tmp_path, shard="60KB", dtype="f16", **TINY)
        fields = [word for pair in TINY.items() for word in ("--set", "=".join(pair))]
        done = pilot(
            "run", "llama:8b", *fields, "--set", "length=8", "--weights", directory,
            "-t", "llvm-cpu", "--json",
        )  # fmt: skip
        assert done.code == 0, done.err
        archives = done.document["program"]["parameters"]["archives"]
        assert [Path(a).parent for a in archives] == [directory, directory]
        (case,) = done.document["cases"]
        assert case["status"] == "ran"
        (compare,) = [s for s in case["steps"] if s["name"] == "compare"]
        assert compare["status"] == "ran"

    def test_another_dtype_is_told_with_what_to_do(self, tmp_path: Path) -> None:
        directory = checkpoints.save("llama", tmp_path / "c", dtype="bf16", **TINY)
        with pytest.raises(UsageError) as refused:
            trace("llama:8b", tmp_path / "p", directory, length="8", **TINY)
        told = (
            "and 11 more: expected f16, found bf16 (a model of the zoo takes it with --dtype bf16)"
        )
        assert told in refused.value.message

    @pytest.mark.parametrize("preset", ["tiny", "8b"])
    def test_published_codes_become_those_of_amds_devices(
        self, preset: str, tmp_path: Path
    ) -> None:
        directory = checkpoints.save_fp8(tmp_path / "c", **TINY)
        settings = {**TINY, "length": "8", "dtype": "f32"}
        program = trace(f"llama-fp8:{preset}", tmp_path / "p", directory, **settings)
        own = trace(directory, tmp_path / "q", fp8="e4m3fnuz")

        def bare(held: dict[str, bytes]) -> dict[str, bytes]:
            return {name.removeprefix("converted."): value for name, value in held.items()}

        assert bare(parameters(program, tmp_path / "p")) == bare(parameters(own, tmp_path / "q"))


def test_not_a_number_is_found_in_whatever_piece_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_PIECE_BYTES", 64)
    value = torch.ones(10, 16)
    value[7, 3] = value[9, 15] = torch.inf
    codes = torch.ones(10, 16).to(torch.float8_e4m3fn)
    codes[9, 2] = torch.nan
    save_file({"a": value, "b": codes, "c": torch.ones(3, 3)}, tmp_path / "w.safetensors")
    faults = read.not_finite(tensors(tmp_path / "w.safetensors"))
    assert [(f.tensor, f.found) for f in faults] == [
        ("a", "2 NaN or infinite of 160, first at [7, 3]"),
        ("b", "1 NaN or infinite of 160, first at [9, 2]"),
    ]


def test_all_codes_become_those_of_half_the_number() -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    expected = codes.float() / 2
    found = codes_to_fnuz(codes).float()
    assert int(expected.isnan().sum()) == 2
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())


def test_double_precision_that_memory_does_not_hold_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory: Any = type("memory", (), {"available": 1000})
    monkeypatch.setattr(reference.psutil, "virtual_memory", lambda: memory)
    function = trace("vit", tmp_path / "p").functions[0]
    assert function.reference is not None
    assert function.reference.outputs and not function.reference.precise
    assert "GB of memory" in function.reference.note


def test_a_large_file_is_told_apart_without_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "_LARGE_BYTES", 4)
    file = tmp_path / "w"
    file.write_bytes(b"12345")
    before = sealed.state(file)
    assert sealed.state(file) == before != sealed.digest(file)
    other = tmp_path / "v"
    other.write_bytes(b"54321")
    other.replace(file)
    assert sealed.state(file) != before
