"""Specs of the zoo's models, and resolution of a user's words; loads no torch or transformers.

A family is one file in `models/families`: a tuple `SPECS` of `ModelSpec`, and the functions that
the specs refer to. Those import torch inside, so that listing the zoo stays instant.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from iree_pilot.models import versions
from iree_pilot.models.versions import Signature
from iree_pilot.pipeline.errors import UsageError, nearest

if TYPE_CHECKING:
    from iree_pilot.models.traceable import Traceable

Value = bool | int | str

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

#: Layers beyond this are built one by one for longer than anybody waits.
MOST_LAYERS = 1000


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that `--set name=value` may set. The type of `default` is the field's type.

    choices: the values that a text field may have. min, max: of a number; no machine can hold a
    model with a larger one, and to build it would only end at a limit. config: the
    attribute of transformers' config that decides the field for a checkpoint (`vocab_size`,
    `text_config.vocab_size`); such a field cannot be set there.
    """

    name: str
    default: Value
    help: str
    choices: tuple[str, ...] = ()
    min: int = 1
    max: int = 2**24
    config: str = ""

    @property
    def accepts(self) -> str:
        """Accepted values, in words."""
        if self.choices:
            return "|".join(self.choices)
        if isinstance(self.default, bool):
            return "true|false"
        return f"a number from {self.min} up to {self.max}"

    def parse(self, text: str) -> Value:
        """The value that `text` stands for. Raises UsageError when it is none of this field's."""
        advice = f"{self.name} takes {self.accepts}."
        if isinstance(self.default, bool):
            if text.lower() in _BOOLEANS:
                return _BOOLEANS[text.lower()]
        elif isinstance(self.default, int):
            try:
                number = int(text)
            except ValueError:
                number = self.min - 1
            if self.min <= number <= self.max:
                return number
        elif text in self.choices:
            return text
        else:
            advice = f"{advice} {nearest(text, list(self.choices))}"
        raise UsageError(f"{self.name}={text}: no value of field {self.name}", advice=advice)


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """Named field values. weights False: full size, traced with named but empty parameters.

    parameters: how many numbers the model's weights hold at these values.
    """

    name: str
    values: dict[str, Value]
    help: str
    parameters: int
    weights: bool = True


#: The releases of transformers that families were traced with, where they do not say otherwise.
TRACED_WITH = ">=5.22,<5.24"


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the zoo.

    build: `module:function`, called as `function(fields, seed)` in the child that traces (with
    `weights=False` too for presets without weights), returns a `models.traceable.Traceable`.
    check: the like, called as `function(fields)` before anything heavy is loaded, returns what is
    wrong with the values taken together ("" if nothing). parts: names of the functions that
    `/part` may choose. The first preset is the default.

    architectures: names in a checkpoint's config.json that this family can load; for those, `build`
    also takes `model=`, a loaded transformers model to be used instead of one made of the fields.
    text_model: what text_config.model_type must be, where several families load an architecture.
    unused: regular expressions for tensors that such checkpoints hold and the architecture does not
    use (a training head, a buffer of older releases): they are no fault.
    A family with a field `fp8` loads FP8 checkpoints, others load plain ones. library, releases,
    needs: whose model it is, the releases that it was traced with, and what it relies on there (see
    `models.versions`).
    chain: `module:function`, a `models.chains.Chain` of the parts that generates
    tokens. generates: how many tokens a run generates that does not say how many; 0: none.
    """

    name: str
    help: str
    build: str
    fields: tuple[Field, ...]
    presets: tuple[Preset, ...]
    parts: tuple[str, ...] = ()
    check: str | None = None
    architectures: tuple[str, ...] = ()
    text_model: str = ""
    unused: tuple[str, ...] = ()
    library: str = "transformers"
    releases: str = TRACED_WITH
    chain: str = ""
    generates: int = 0
    needs: tuple[Signature, ...] = ()

    def check_versions(self) -> None:
        """Raises EnvironmentFault where the library is not installed as the family needs it."""
        versions.check(self.name, self.library, self.releases, self.needs)

    @property
    def fp8(self) -> bool:
        """True if its linears are in FP8."""
        return any(f.name == "fp8" for f in self.fields)

    def preset(self, name: str | None = None) -> Preset:
        """The preset of that name, or the default one. Raises UsageError."""
        if name is None:
            return self.presets[0]
        for preset in self.presets:
            if preset.name == name:
                return preset
        known = [p.name for p in self.presets]
        raise UsageError(f"{self.name} has no preset {name!r}", advice=nearest(name, known))

    def field(self, name: str) -> Field:
        """The field of that name. Raises UsageError."""
        for field in self.fields:
            if field.name == name:
                return field
        known = [f.name for f in self.fields]
        raise UsageError(f"{self.name} has no field {name!r}", advice=nearest(name, known))

    def values(self, preset: Preset) -> dict[str, Value]:
        """Every field's value in a preset."""
        return {f.name: f.default for f in self.fields} | preset.values


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A model with every field decided: what to trace. part: the only function wanted, if one."""

    spec: ModelSpec
    preset: Preset
    fields: dict[str, Value]
    part: str | None = None

    def build(self, seed: int = 0) -> Traceable:
        """Makes the model and its example inputs; loads torch and the family's library.

        Raises EnvironmentFault where that is not installed as the family needs it.
        """
        self.spec.check_versions()
        without: dict[str, bool] = {} if self.preset.weights else {"weights": False}
        made: Traceable = referred(self.spec.build)(self.fields, seed, **without)
        return made.only(self.part) if self.part else made


@functools.cache
def registry() -> dict[str, ModelSpec]:
    """All models of the zoo by name."""
    from iree_pilot.models import families

    found: dict[str, ModelSpec] = {}
    for module in pkgutil.iter_modules(families.__path__):
        for spec in importlib.import_module(f"{families.__name__}.{module.name}").SPECS:
            found[spec.name] = spec
    return found


def resolve(text: str, settings: Mapping[str, str], dtype: str | None = None) -> ModelChoice:
    """Resolves `name[:preset][/part]`, the `--set` pairs and `--dtype`, checked.

    Raises UsageError for an unknown model, preset, part, field or value, for values that do not
    go together, and for a dtype that the model does not offer.
    """
    named, _, part = text.partition("/")
    name, _, preset_name = named.partition(":")
    zoo = registry()
    if name not in zoo:
        raise UsageError(f"the zoo has no model {name!r}", advice=nearest(name, list(zoo)))
    spec = zoo[name]
    preset = spec.preset(preset_name or None)
    if part and part not in spec.parts:
        advice = nearest(part, list(spec.parts)) or f"{name} is one function: leave out /{part}."
        raise UsageError(f"{name} has no part {part!r}", advice=advice)
    given = {key: spec.field(key).parse(value) for key, value in settings.items()}
    if dtype is not None:
        given |= _dtype(spec, dtype, given)
    fields = spec.values(preset) | given
    problem = referred(spec.check)(fields) if spec.check else ""
    if problem:
        raise UsageError(
            f"{text}: these settings do not go together: {problem}",
            advice="Change one of them with --set.",
        )
    return ModelChoice(spec=spec, preset=preset, fields=fields, part=part or None)


def _dtype(spec: ModelSpec, dtype: str, given: Mapping[str, Value]) -> dict[str, Value]:
    if all(f.name != "dtype" for f in spec.fields):
        raise UsageError(f"{spec.name} has one dtype only, {dtype} cannot be chosen")
    value = spec.field("dtype").parse(dtype)
    if given.get("dtype", value) != value:
        raise UsageError(f"--dtype {dtype} and --set dtype={given['dtype']} contradict each other")
    return {"dtype": value}


def referred(reference: str) -> Any:
    """Imports the object of a `module:name` in a spec."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
