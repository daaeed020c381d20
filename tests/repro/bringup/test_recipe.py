"""Recipes as files: what is written is read, and what is none is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.repro.bringup import recipe as recipes
from iree_pilot.repro.bringup.recipe import Gap, Recipe, RecipeStep
from iree_pilot.repro.workarounds.table import TABLE

GAP = Gap(op="aten.diff", by="PyTorch", reason="the torch dialect has no such operation")


def recipe(*steps: RecipeStep, decomposed: tuple[Gap, ...] = (GAP,)) -> Recipe:
    return Recipe(source="net.py", iree="3.13.0", decomposed=decomposed, step=steps)


@given(
    candidates=st.lists(st.sampled_from(TABLE), max_size=4, unique_by=lambda one: one.name),
    backend=st.sampled_from(["llvm-cpu", "vulkan"]),
    signature=st.text(max_size=20),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, candidates: list, backend: str, signature: str
) -> None:
    steps = [recipes.step(one, backend, signature, "torch.aten.sub") for one in candidates]
    file = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    recipes.write(recipe(*steps), file)
    read = recipes.read(file)
    assert read == recipe(*steps)
    for one, step in zip(candidates, read.of(backend), strict=True):
        made = step.candidate()
        assert (made.flags, made.edit, made.arch, made.name) == (
            one.flags,
            one.edit,
            one.arch,
            one.name,
        )
    assert read.of("hip") == ()


def test_what_is_set_at_the_trace_is_for_all_targets() -> None:
    switch = RecipeStep(
        name="--set use_cache=false", answers="trace-error/x", fields={"use_cache": "false"}
    )
    on_one = RecipeStep(
        name="b", answers="c", backend="vulkan", fields={"attn_implementation": "eager"}
    )
    assert recipe(switch, on_one).settings == {"use_cache": "false"}
    assert recipe(switch, on_one).of("vulkan") == (on_one,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source = 1", "recipe.toml:1: source: Expected a string"),
        ("iree = 'x'", "the key 'source' is missing"),
        (
            "source = 'a'\niree = 'b'\n[[step]]\nname = 'x'\nanwsers = 'y'",
            "recipe.toml:5: there is no",
        ),
        (
            "source = 'a'\niree = 'b'\n[[step]]\nname = 'x'\nanswers = 'y'\nbackend = 'vulcan'",
            "recipe.toml:6: there is no backend 'vulcan'",
        ),
        (
            "source = 'a'\niree = 'b'\n[[step]]\nname = 'x'\nanswers = 'y'\n"
            "flags = ['--iree-hal-dump-executable-files-to=/tmp']",
            "recipe.toml:6: --iree-hal-dump-executable-files-to=/tmp",
        ),
        ("<html>", "this is no TOML"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(UsageError, match=r"recipe\.toml") as refused:
        recipes.read(tmp_path / "recipe.toml")
    assert said in refused.value.message
    assert refused.value.advice


def test_what_is_not_there_is_advised_to_be_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nope\.toml: No such file") as refused:
        recipes.read(tmp_path / "nope.toml")
    assert refused.value.advice.startswith("Name a recipe: ")


def test_flags_that_do_more_than_compile_are_taken_from_who_is_trusted(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    flags = ("--iree-hal-dump-executable-files-to=here",)
    recipes.write(recipe(RecipeStep(name="dump", answers="x", backend="hip", flags=flags)), file)
    assert recipes.read(file, trust=True).of("hip")[0].flags == flags
