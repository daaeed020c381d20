"""A family refuses a transformers release that it cannot be traced with, before making a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest
from places import ROOT

from iree_pilot.models.spec import ModelSpec, registry, resolve
from iree_pilot.models.versions import Signature, signature
from iree_pilot.pipeline.errors import EnvironmentFault

#: What a release has changed before: a rotary helper that takes angles instead of cosine and sine.
RELEASES = {
    "5.22.0": "def apply_rotary_pos_emb(q, freqs):\n    return q\n",
    "5.23.0": "def apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=1):\n    return q, k\n",
}

#: Another minor release of transformers as it was published; scripts/setup --dev puts it there.
SECOND = Path(sys.prefix) / "second-transformers"
_TRACE = """
import json, transformers, warnings
warnings.simplefilter("ignore")
from iree_pilot.models.spec import registry, resolve
from iree_pilot.models.versions import Signature, check
from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.frontends.pytorch import exporting, torch_export
for spec in registry().values():
    spec.check_versions()
made = resolve("llama", {}).build(seed=0)
exported = {entry.name: exporting.export(entry).program for entry in made.functions}
torch_export.externalize(made.root, exported, None)
name = "transformers.models.llama.modeling_llama:apply_rotary_pos_emb"
try:
    need = Signature(function=name, parameters=("q", "freqs"), release="4.0")
    check("llama", "transformers", ">=5", [need])
except EnvironmentFault as fault:
    refusal = str(fault)
print(json.dumps([transformers.__version__, torch_export.to_mlir(exported), refusal]))
"""


def refusal(spec: ModelSpec) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        spec.check_versions()
    return caught.value


@pytest.mark.torch
@pytest.mark.parametrize("spec", registry().values(), ids=lambda spec: spec.name)
def test_what_is_installed_is_what_every_family_was_traced_with(spec: ModelSpec) -> None:
    spec.check_versions()


def test_a_release_outside_the_range_is_named_with_the_range() -> None:
    spec = msgspec.structs.replace(registry()["llama"], releases=">=4.40,<4.41")
    fault = refusal(spec)
    assert "llama was traced with transformers >=4.40,<4.41; 5." in fault.message
    assert 'pip install "transformers>=4.40,<4.41"' in fault.advice
    assert fault.exit_code == 3


@pytest.mark.torch
@pytest.mark.parametrize(
    ("function", "parameters", "found"),
    [
        ("llama.modeling_llama:apply_rotary_pos_emb", ("q", "freqs"), "(q, k, cos, sin, uns"),
        ("llama.modeling_llama:apply_rotary_pos_emb", ("q", "k"), "(q, k, cos, sin, uns"),
        ("llama.modeling_llama:rotate", ("x",), "no such function"),
        ("gone.modeling_gone:rotate", ("x",), "no such function"),
    ],
)
def test_another_signature_is_named_with_both_and_the_release_that_has_it(
    function: str, parameters: tuple[str, ...], found: str
) -> None:
    need = Signature(
        function=f"transformers.models.{function}", parameters=parameters, release="4.40"
    )
    fault = refusal(msgspec.structs.replace(registry()["llama"], needs=(need,)))
    name = f"transformers.models.{function}".replace(":", ".")
    assert f"relies on {name}: expected ({', '.join(parameters)}), found {found}" in fault.message
    assert "transformers 4.40 has it as expected" in fault.advice


@pytest.mark.parametrize("release", RELEASES)
def test_two_releases_are_told_apart_by_what_they_take(release: str, tmp_path: Path) -> None:
    package = tmp_path / "transformers"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rotary.py").write_text(RELEASES[release])
    metadata = tmp_path / f"transformers-{release}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: transformers\nVersion: {release}\n")
    code = (
        "from iree_pilot.models.versions import Signature, check\n"
        "need = Signature(function='transformers.rotary:apply_rotary_pos_emb',\n"
        "    parameters=('q', 'k', 'cos', 'sin'), release='5.23')\n"
        "check('a', 'transformers', '>=5.22,<5.24', [need])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if release == "5.23.0":
        assert done.returncode == 0, done.stderr
    else:
        assert "expected (q, k, cos, sin), found (q, freqs) in transformers 5.22.0" in done.stderr


@pytest.mark.torch
@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("import a_dependency_that_is_gone", "No module named 'a_dependency_that_is_gone'"),
        ("from transformers import gone", "cannot import name 'gone'"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_library_that_cannot_be_imported_lacks_no_function(
    written: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    (tmp_path / "damaged.py").write_text(f"{written}\n")
    monkeypatch.setattr(transformers, "__path__", [*transformers.__path__, str(tmp_path)])
    need = Signature(function="transformers.damaged:rotate", parameters=("x",), release="5.23")
    fault = refusal(msgspec.structs.replace(registry()["llama"], needs=(need,)))
    assert "is installed, but cannot be imported: " in fault.message and told in fault.message
    assert "--force-reinstall transformers" in fault.advice


@pytest.mark.real
def test_two_published_minors_of_transformers_give_one_program() -> None:
    assert SECOND.is_dir(), "scripts/setup --dev installs the second release"
    found = []
    for place in ([SECOND], []):
        done = subprocess.run(
            [sys.executable, "-c", _TRACE],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*place, ROOT]))},
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
        found.append(json.loads(done.stdout))
    (other, program, refused), (own, expected, _) = found
    assert own == version("transformers")
    assert other.split(".")[:2] != own.split(".")[:2]
    assert "func.func @decode" in program
    assert program == expected
    assert "apply_rotary_pos_emb: expected (q, freqs), found (q, k, cos, sin, " in refused
    assert f"in transformers {other}" in refused


def test_a_model_of_the_zoo_is_not_made_with_a_release_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("iree_pilot.models.versions.version", lambda _: "4.0.0")
    with pytest.raises(EnvironmentFault, match=r"llama was traced with transformers .*4\.0\.0"):
        resolve("llama", {}).build()


@pytest.mark.torch
def test_a_signature_is_that_of_the_function_without_self() -> None:
    parameters = signature("transformers.cache_utils:DynamicCache.update") or []
    assert [p.name for p in parameters][:2] == ["key_states", "value_states"]
