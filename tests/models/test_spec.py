"""The zoo can be listed and chosen from in a user's words, without loading a framework."""

from __future__ import annotations

import importlib
import subprocess
import sys

import msgspec
import pytest

from iree_pilot.models.spec import Field, ModelChoice, ModelSpec, Preset, registry, resolve
from iree_pilot.pipeline.errors import UsageError

PRESETS = [(spec, preset) for spec in registry().values() for preset in spec.presets]
PRESET_NAMES = [f"{spec.name}:{preset.name}" for spec, preset in PRESETS]


def choose(text: str, dtype: str | None = None, **settings: str) -> ModelChoice:
    return resolve(text, settings, dtype)


def refusal(text: str, dtype: str | None = None, **settings: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        resolve(text, settings, dtype)
    return caught.value


class TestListing:
    def test_listing_and_choosing_load_no_framework(self) -> None:
        code = (
            "import sys\n"
            "from iree_pilot.models.spec import registry, resolve\n"
            "assert registry()\n"
            "resolve('llama-fp8:8b/decode', {'layers': '2', 'dynamic': 'true'}, 'bf16')\n"
            "print(*{name.split('.')[0] for name in sys.modules})\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
        loaded = done.stdout.split()
        assert "iree_pilot" in loaded
        assert not {"torch", "transformers", "numpy", "iree"} & set(loaded)

    def test_the_first_families_are_there(self) -> None:
        assert {"llama", "llama-fp8", "resnet", "vit", "bert"} <= set(registry())

    @pytest.mark.parametrize(("spec", "preset"), PRESETS, ids=PRESET_NAMES)
    def test_a_preset_sets_fields_to_values_that_they_take(
        self, spec: ModelSpec, preset: Preset
    ) -> None:
        for name, value in preset.values.items():
            written = str(value).lower() if isinstance(value, bool) else str(value)
            assert spec.field(name).parse(written) == value
        assert choose(f"{spec.name}:{preset.name}").fields == spec.values(preset)

    @pytest.mark.parametrize("spec", registry().values(), ids=str)
    def test_a_spec_refers_to_what_exists_and_starts_with_a_preset_that_runs(
        self, spec: ModelSpec
    ) -> None:
        for reference in filter(None, (spec.build, spec.check)):
            module, _, name = reference.partition(":")
            assert callable(getattr(importlib.import_module(module), name))
        assert spec.presets[0].weights
        assert len({f.name for f in spec.fields}) == len(spec.fields)
        assert all(f.default in f.choices for f in spec.fields if f.choices)

    def test_the_zoo_is_json_as_it_is(self) -> None:
        encoded = msgspec.json.encode(registry())
        assert msgspec.json.decode(encoded, type=dict[str, ModelSpec]) == registry()


class TestChoosing:
    def test_a_name_alone_is_its_first_preset(self) -> None:
        choice = choose("llama-fp8")
        assert (choice.spec.name, choice.preset.name, choice.part) == ("llama-fp8", "tiny", None)

    def test_preset_and_part_follow_the_name(self) -> None:
        choice = choose("llama:small/decode")
        assert (choice.preset.name, choice.part) == ("small", "decode")
        assert choose("llama/prefill").part == "prefill"

    def test_settings_override_the_preset_and_are_typed(self) -> None:
        fields = choose("llama-fp8:small", layers="3", dynamic="yes", fp8="e4m3fn").fields
        assert (fields["layers"], fields["dynamic"], fields["fp8"]) == (3, True, "e4m3fn")
        assert fields["width"] == choose("llama-fp8:small").fields["width"]

    def test_dtype_is_a_field_too(self) -> None:
        assert choose("bert", "bf16").fields["dtype"] == "bf16"
        assert resolve("bert", {"dtype": "bf16"}, "bf16").fields["dtype"] == "bf16"


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "settings", "message", "advice"),
        [
            ("lama-fp8", {}, "no model 'lama-fp8'", "llama-fp8"),
            ("llama:tyny", {}, "llama has no preset 'tyny'", "tiny"),
            ("llama/decoder", {}, "llama has no part 'decoder'", "decode"),
            ("bert/decode", {}, "bert has no part 'decode'", "leave out /decode"),
            ("llama", {"layer": "2"}, "llama has no field 'layer'", "layers"),
            ("llama", {"fp8": "e4m3fn"}, "llama has no field 'fp8'", "Known: layers"),
            ("llama-fp8", {"fp8": "e4m3"}, "fp8=e4m3: no value", "e4m3fn"),
            ("llama", {"layers": "0"}, "layers=0: no value", "a number from 1 up"),
            ("llama", {"layers": "two"}, "layers=two: no value", "a number from 1 up"),
            ("llama", {"layers": "999999999999"}, "no value of field layers", "up to 1000"),
            ("llama", {"width": f"{2**24 + 1}"}, "no value of field width", f"up to {2**24}"),
            ("mixtral-moe", {"experts": "1001"}, "no value of field experts", "up to 1000"),
            ("llama", {"dynamic": "maybe"}, "dynamic=maybe: no value", "true|false"),
        ],
    )
    def test_a_wrong_word_is_named_with_the_nearest_right_ones(
        self, text: str, settings: dict[str, str], message: str, advice: str
    ) -> None:
        error = refusal(text, **settings)
        assert message in error.message
        assert advice in error.advice
        assert error.exit_code == 2

    @pytest.mark.parametrize(
        ("text", "settings", "reason"),
        [
            ("llama", {"heads": "3"}, "width=64 is no even multiple of heads=3"),
            ("llama", {"kv_heads": "3"}, "heads=4 is no multiple of kv_heads=3"),
            ("llama", {"length": "128"}, "do not fit context=128"),
            ("llama", {"length": "1", "dynamic": "true"}, "length 2 or more"),
            ("vit", {"image": "30"}, "image=30 is no multiple of patch=8"),
            ("vit", {"heads": "5"}, "width=64 is no multiple of heads=5"),
            ("gemma", {"heads": "3"}, "width=64 is no multiple of heads=3"),
            ("gemma2", {"kv_heads": "3"}, "heads=4 is no multiple of kv_heads=3"),
            ("gemma3", {"head_size": "5"}, "head_size=5 is odd"),
            ("gemma3", {"length": "128"}, "do not fit context=128"),
            ("gemma3-vision", {"image": "60"}, "image=60 is no multiple of patch=14"),
            ("gemma3-vision", {"tokens": "5"}, "4x4 patches cannot be pooled to tokens=5"),
            ("gemma3-vision", {"vision_heads": "5"}, "no multiple of vision_heads=5"),
            ("paligemma", {"image": "60"}, "image=60 is no multiple of patch=14"),
            ("paligemma", {"length": "8176"}, "16 tokens, length=8176 and one more token"),
            ("paligemma2", {"heads": "3"}, "heads=3 is no multiple of kv_heads=2"),
            ("paligemma2", {"head_size": "5"}, "head_size=5 is odd"),
            ("bert", {"length": "129"}, "length=129 does not fit context=128"),
            ("bert", {"heads": "5"}, "width=64 is no multiple of heads=5"),
            ("bert", {"length": "1", "dynamic": "true"}, "length 2 or more"),
        ],
    )
    def test_values_that_do_not_go_together_are_shown_before_tracing(
        self, text: str, settings: dict[str, str], reason: str
    ) -> None:
        assert reason in refusal(text, **settings).message

    def test_dtype_is_refused_where_unknown_and_where_it_contradicts(self) -> None:
        assert "dtype=f8: no value" in refusal("llama", "f8").message
        with pytest.raises(UsageError, match="contradict"):
            resolve("llama", {"dtype": "bf16"}, "f16")

    def test_dtype_is_refused_by_a_model_that_has_only_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = registry()["vit"]
        fixed = msgspec.structs.replace(
            spec, fields=tuple(f for f in spec.fields if f.name != "dtype")
        )
        monkeypatch.setattr("iree_pilot.models.spec.registry", lambda: {"vit": fixed})
        assert "one dtype only" in refusal("vit", "f16").message


def test_a_number_below_its_least_value_is_refused() -> None:
    field = Field(name="image", default=64, min=32, help="pixels")
    assert field.parse("32") == 32
    with pytest.raises(UsageError, match="image=31"):
        field.parse("31")
