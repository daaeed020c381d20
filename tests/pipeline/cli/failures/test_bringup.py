"""What `bringup` says at the end, and what is said of a recipe that is applied."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fake.commands import PLAIN, TYPED, case, failure
from rich.console import Console

from iree_pilot.pipeline.cli.failures import bringup
from iree_pilot.pipeline.cli.recipes import Cooking
from iree_pilot.repro.bringup.bringup import BroughtUp, Obstacle
from iree_pilot.repro.bringup.recipe import Recipe, RecipeStep

ASKED = bringup._BringupRequest(
    source="net.py", chosen=PLAIN, common=TYPED.common, place=Path("bringup-net")
)
STEP = RecipeStep(name="i32", answers="a/b/c", backend="llvm-cpu", edit="narrow-in-i32")
SWITCH = RecipeStep(name="eager", answers="d", fields={"attn_implementation": "eager"})
LEFT = Obstacle(failure=failure(), reproducer="bringup-net/gap-1")
FILE = Path("bringup-net/recipe.toml")


def recipe(*steps: RecipeStep) -> Recipe:
    return Recipe(source="net.py", iree="3.13.0", step=steps)


def brought(status: Any, *remaining: Obstacle) -> BroughtUp:
    failed = failure() if status != "works" else None
    return BroughtUp(status=status, result=case("llvm-cpu", failed=failed), remaining=remaining)


def ending(held: Recipe | None, *results: BroughtUp) -> list[str]:
    named = [(f"target{n}", one) for n, one in enumerate(results)]
    return [*bringup._ending(held, named, ASKED, FILE)]


def test_without_a_recipe_there_is_no_command_that_takes_one() -> None:
    assert ending(None, brought("remains", LEFT)) == [
        "no recipe: nothing that is known helps",
        "next: read bringup-net/gap-1/ISSUE.md",
    ]
    assert ending(None, brought("works")) == ["no recipe: none is needed"]
    assert ending(None, brought("budget"))[0] == "no recipe: nothing helped until time was up"
    assert ending(recipe(), brought("works")) == ["no recipe: none is needed"]


def test_a_recipe_that_does_not_suffice_says_so() -> None:
    told = ending(recipe(STEP), brought("works"), brought("remains", LEFT))
    assert told == [
        f"net.py still fails with the recipe {FILE} for target1",
        "next: read bringup-net/gap-1/ISSUE.md",
        f"iree-pilot run net.py -t target0,target1 --recipe {FILE}",
    ]
    assert ending(recipe(STEP), brought("works")) == [
        f"iree-pilot run net.py -t target0 --recipe {FILE}"
    ]


def test_what_works_with_random_numbers_as_inputs_is_named() -> None:
    command = ("iree-pilot", "run", "net.py", "--seeded", "-t", "target0")
    told = ending(None, msgspec.structs.replace(brought("remains"), instead=command))
    assert told[1] == f"target0 works if what the program draws are inputs: {' '.join(command)}"


@pytest.mark.parametrize(
    ("steps", "said", "names"),
    [
        ((STEP,), {"llvm-cpu": "i32"}, {"llvm-cpu": ("i32",), "hip:gfx942": ()}),
        (
            (STEP, SWITCH),
            {"llvm-cpu": "eager, i32"},
            {"llvm-cpu": ("eager", "i32"), "hip:gfx942": ("eager",)},
        ),
    ],
)
def test_what_a_recipe_does_for_a_target_is_said(
    steps: tuple[RecipeStep, ...], said: dict[str, str], names: dict[str, tuple[str, ...]]
) -> None:
    plans: Any = [
        (name, SimpleNamespace(target=SimpleNamespace(backend=name.partition(":")[0])))
        for name in names
    ]
    cooking = Cooking(source="net.py", chosen=PLAIN, recipe=recipe(*steps))
    told = {name: cooking.summary(name, plan) for name, plan in plans}
    assert told["llvm-cpu"] == f"llvm-cpu: recipe: {said['llvm-cpu']}"
    missing = "no step for hip; iree-pilot bringup net.py -t hip:gfx942"
    assert told["hip:gfx942"] == f"hip:gfx942: recipe: {', '.join((*names['hip:gfx942'], missing))}"
    assert cooking.document(plans) == {"recipe": names}
    at_trace = Cooking(source="net.py", chosen=PLAIN, recipe=recipe(SWITCH))
    assert at_trace.summary(*plans[1]) == "hip:gfx942: recipe: eager", "it is for all targets"
    without = Cooking(source="net.py", chosen=PLAIN)
    assert (without.summary(*plans[0]), without.document(plans)) == ("", {})


@pytest.mark.parametrize(
    ("verdict", "why", "said"),
    [
        ("ok", "", "works: it compiles, runs and agrees with PyTorch\n"),
        (
            "ran",
            "no [ref]",
            "runs: it compiles and runs; whether it is right is not known (no [ref])\n",
        ),
        ("compiled", "no device", "compiles: it was not run here (no device)\n"),
    ],
)
def test_nothing_works_that_was_not_compared(
    verdict: Any, why: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = msgspec.structs.replace(case("llvm-cpu"), status=verdict, why=why)
    bringup._tell(Console(), BroughtUp(status="works", result=result))
    assert capsys.readouterr().out.lstrip("\n") == said


def test_what_was_not_tried_is_not_called_hopeless(capsys: pytest.CaptureFixture[str]) -> None:
    first, behind = (msgspec.structs.replace(LEFT, tried=n) for n in (7, 0))
    remains = BroughtUp(status="remains", result=case("llvm-cpu"), remaining=(first, behind))
    bringup._tell(Console(width=200), remains)
    said = capsys.readouterr().out
    assert said.count("nothing that is known; 7 tried") == 1
    assert said.count("nothing was tried: another failure blocks it") == 1
    alone = msgspec.structs.replace(remains, remaining=(behind,))
    bringup._tell(Console(width=200), alone)
    assert "nothing that is known; 0 tried" in capsys.readouterr().out
