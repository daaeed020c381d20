"""What the user names is told apart without importing it, and refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from iree_pilot.pipeline import extras
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.frontends.source import Source, literal, parse


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(text: str) -> Source:
    return parse(text, {}, None)


@pytest.mark.parametrize("text", ["net.py:", "held:", "./held/:", "timm:", "llama:", "math:"])
def test_a_colon_with_nothing_behind_it_is_refused(here: Path, text: str) -> None:
    (here / "net.py").write_text("x = 1")
    (here / "held").mkdir()
    with pytest.raises(UsageError, match="there is no name behind the colon") as caught:
        named(text)
    assert "model.py:model" in (caught.value.advice or "")


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("model.py", "file"),
            ("a.mlir", "mlir"),
            ("a.mlirbc", "mlir"),
            ("a.pt2", "pt2"),
            ("a.onnx", "onnx"),
            ("UPPER.MLIR", "mlir"),
            ("UPPER.PY", "file"),
            ("UPPER.PT2", "pt2"),
            ("Upper.Onnx", "onnx"),
            ("x:y.py", "file"),
            ("x:1.mlir", "mlir"),
            ("two.dots.mlir", "mlir"),
            ("with space.py", "file"),
        ],
    )
    def test_the_suffix_tells_the_kind(self, here: Path, name: str, kind: str) -> None:
        (here / name).write_text("something")
        found = named(name)
        assert (found.kind, found.path, found.factory) == (kind, str(here / name), "model")
        assert found.text == name
        assert found.name == Path(name).stem

    def test_a_factory_may_follow_a_python_file(self, here: Path) -> None:
        (here / "model.py").write_text("x")
        found = named("model.py:small")
        assert (found.kind, found.path, found.factory) == (
            "file",
            str(here / "model.py"),
            "small",
        )

    def test_colons_of_a_folder_and_a_file_are_theirs(self, here: Path) -> None:
        (here / "dir:1").mkdir()
        (here / "dir:1/a:b.py").write_text("x")
        found = named("dir:1/a:b.py:small")
        assert (found.path, found.factory) == (str(here / "dir:1/a:b.py"), "small")
        assert named("dir:1/a:b.py").factory == "model"

    def test_a_folder_does_not_take_the_place_of_a_preset(self, here: Path) -> None:
        (here / "llama:tiny").mkdir()
        assert (named("llama:tiny").kind, named("llama:tiny").preset) == ("zoo", "tiny")

    def test_a_factory_cannot_follow_another_file(self, here: Path) -> None:
        (here / "a.mlir").write_text("x")
        with pytest.raises(UsageError, match="a mlir file has no factory"):
            named("a.mlir:main")

    @pytest.mark.parametrize("name", ["model.py", "a.mlir", "a.onnx", "a.pt2", "sub/a.mlir"])
    def test_a_missing_file_is_named(self, name: str) -> None:
        with pytest.raises(UsageError, match=f"no file {name}") as caught:
            named(name)
        assert caught.value.advice

    def test_a_file_of_a_similar_name_is_suggested(self, here: Path) -> None:
        (here / "model.py").write_text("x")
        with pytest.raises(UsageError) as caught:
            named("modle.py")
        assert "model.py" in caught.value.advice

    @pytest.mark.parametrize("name", ["model.py", "a.mlir", "a.onnx", "a.pt2"])
    def test_an_empty_file_is_refused(self, here: Path, name: str) -> None:
        (here / name).touch()
        with pytest.raises(UsageError, match=f"{name} is empty"):
            named(name)

    @pytest.mark.parametrize("name", ["model.py", "a.mlir", "a.onnx", "a.pt2"])
    def test_what_a_download_left_in_place_of_a_file_is_named(self, here: Path, name: str) -> None:
        (here / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
        with pytest.raises(UsageError, match=f"{name}: it is a pointer of Git LFS"):
            named(name)
        (here / name).write_text("<!DOCTYPE html>\n<html></html>")
        with pytest.raises(UsageError, match=f"{name}: it is a web page, not the file"):
            named(name)

    def test_a_directory_is_no_file(self, here: Path) -> None:
        (here / "a.mlir").mkdir()
        with pytest.raises(UsageError, match=r"a\.mlir is not a file"):
            named("a.mlir")
        with pytest.raises(UsageError, match=r"no config\.json, only a\.mlir"):
            named(str(here))

    def test_another_suffix_is_refused_with_those_there_are(self, here: Path) -> None:
        (here / "model.tflite").write_text("x")
        with pytest.raises(UsageError, match=r"cannot tell what model\.tflite is") as caught:
            named("model.tflite")
        assert ".onnx" in caught.value.advice

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "pytorch_model.bin"])
    def test_a_part_of_a_checkpoint_is_refused_with_its_directory(
        self, here: Path, name: str
    ) -> None:
        (here / "ck").mkdir()
        for file in ("config.json", name):
            (here / "ck" / file).write_text("x")
        with pytest.raises(UsageError, match=f"ck/{name} is a part of a model") as caught:
            named(f"ck/{name}")
        assert caught.value.advice == "Name the directory of the checkpoint: ck"
        (here / "ck/config.json").rename(here / "config.txt")
        if name != "config.json":
            with pytest.raises(UsageError) as caught:
                named(f"ck/{name}")
            assert f"MODEL --weights ck/{name}" in caught.value.advice

    def test_a_reproducers_folder_is_no_checkpoint(self, here: Path) -> None:
        (here / "repro").mkdir()
        for file in ("report.json", "repro.mlir"):
            (here / "repro" / file).write_text("x")
        with pytest.raises(UsageError, match="is the folder of a reproducer") as caught:
            named("repro")
        assert caught.value.advice.endswith("repro/repro.mlir")

    def test_a_path_that_is_not_there_is_no_misspelt_model(self) -> None:
        with pytest.raises(UsageError, match="no file some/where") as caught:
            named("some/where")
        assert "directories of checkpoints" in caught.value.advice

    def test_a_name_without_its_suffix_leads_to_the_file_that_has_it(self, here: Path) -> None:
        (here / "model.py").write_text("def model(): ...\n")
        with pytest.raises(UsageError, match="model is no model of the zoo") as caught:
            named("model")
        assert caught.value.advice == "Did you mean model.py?"


class TestModules:
    def test_a_module_and_its_factory(self, here: Path) -> None:
        (here / "mypackage").mkdir()
        (here / "mypackage" / "models.py").write_text("raise AssertionError('imported')")
        found = named("mypackage.models:small")
        assert (found.kind, found.module, found.factory) == ("module", "mypackage.models", "small")

    def test_installed_modules_are_found(self) -> None:
        assert named("json.decoder:JSONDecoder").module == "json.decoder"

    def test_a_package_is_not_imported_to_look_into_it(self, here: Path) -> None:
        (here / "loud").mkdir()
        (here / "loud" / "__init__.py").write_text("raise AssertionError('imported')")
        assert named("loud.models:small").kind == "module"

    def test_a_module_that_is_nowhere_is_named(self) -> None:
        with pytest.raises(UsageError, match=r"no Python module nowhere\.models") as caught:
            named("nowhere.models:small")
        assert "PYTHONPATH" in caught.value.advice


class TestZoo:
    def test_a_model_with_its_default_preset(self) -> None:
        found = named("llama")
        assert (found.kind, found.model, found.part) == ("zoo", "llama", None)
        assert found.preset == named(f"llama:{found.preset}").preset

    def test_preset_part_and_fields(self) -> None:
        found = parse("llama-fp8:tiny/prefill", {"fp8": "e4m3fn"}, "f16")
        assert (found.model, found.preset, found.part) == ("llama-fp8", "tiny", "prefill")
        assert found.fields["fp8"] == "e4m3fn"
        assert found.fields["dtype"] == "f16"

    def test_a_file_of_a_models_name_does_not_hide_the_model(self, here: Path) -> None:
        (here / "llama").mkdir()
        assert named("llama").kind == "zoo"
        assert named("llama:tiny").kind == "zoo"

    @pytest.mark.parametrize(
        ("text", "settings", "dtype", "message", "advice"),
        [
            ("lama", {}, None, "no model 'lama'", "llama"),
            ("", {}, None, "SOURCE is empty", "iree-pilot models"),
            ("llama:tyni", {}, None, "no preset 'tyni'", "tiny"),
            ("llama:tiny/prefil", {}, None, "no part 'prefil'", "prefill"),
            ("llama-fp8:tiny", {"fp": "x"}, None, "no field 'fp'", "fp8"),
            ("llama-fp8:tiny", {"fp8": "e4m3"}, None, "fp8=e4m3", "e4m3fn"),
            ("llama:tiny", {}, "f8", "dtype=f8", "f32"),
        ],
    )
    def test_what_is_misspelt_is_named_with_what_is_near(
        self, text: str, settings: dict[str, str], dtype: str | None, message: str, advice: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            parse(text, settings, dtype)
        assert message in caught.value.message
        assert advice in caught.value.advice


@pytest.mark.parametrize(
    ("settings", "dtype", "named_options"), [({"a": "b"}, None, "a"), ({}, "f16", "dtype")]
)
def test_only_models_and_factories_have_fields(
    here: Path, settings: dict[str, str], dtype: str | None, named_options: str
) -> None:
    (here / "model.mlir").write_text("x")
    with pytest.raises(UsageError, match=f"no fields to set, but {named_options} was given"):
        parse("model.mlir", settings, dtype)


def test_what_is_set_of_a_python_file_are_arguments_of_its_factory(here: Path) -> None:
    (here / "model.py").write_text("x")
    assert parse("model.py", {"width": "3"}, None).fields == {"width": "3"}
    with pytest.raises(UsageError, match="dtype was given"):
        parse("model.py", {}, "f16")


class TestLibraries:
    def test_a_model_of_a_library_is_told_by_the_librarys_name(self) -> None:
        found = parse("transformers:Qwen3ForCausalLM", {"hidden_size": "32"}, "bf16")
        assert (found.kind, found.module, found.factory) == (
            "library",
            "transformers",
            "Qwen3ForCausalLM",
        )
        assert found.fields == {"hidden_size": "32", "dtype": "bf16"}
        assert found.name == "Qwen3ForCausalLM"

    def test_a_module_of_one_is_a_module(self) -> None:
        assert named("torchvision.models:resnet18").kind == "module"

    def test_a_library_that_is_not_installed_is_a_fault_of_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.path", [])
        with pytest.raises(EnvironmentFault) as caught:
            named("timm:resnet18")
        assert "timm, which is not installed" in caught.value.message
        assert extras.install("timm") in caught.value.advice

    def test_two_dtypes_contradict_each_other(self) -> None:
        with pytest.raises(UsageError, match="contradict each other"):
            parse("timm:resnet18", {"dtype": "f16"}, "bf16")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("3", 3),
        ("1e-5", 1e-5),
        ("true", True),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ("gelu", "gelu"),
    ],
)
def test_a_word_is_a_literal_of_python_or_itself(word: str, value: object) -> None:
    assert literal(word) == value
