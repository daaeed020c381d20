"""Shell completions of words; each comes from a fast source: no torch, no network."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

Items = list[CompletionItem[str]]


def sources(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Models of the zoo; behind a colon their presets, behind a slash their parts; libraries, and
    behind a colon their models; files."""
    return [*_models(incomplete), CompletionItem(incomplete, type="file")]


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Models of the zoo, and `check`."""
    from iree_pilot.models.spec import registry

    return _beginning(("check", *registry()), incomplete)


def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Fields of the zoo model that the line names; behind `=` the values of one that has few."""
    from iree_pilot.models.spec import registry

    # A line that ends with an option's name is not taken apart further than into words.
    source = ctx.params.get("source") or next(iter(ctx.args), "")
    spec = registry().get(re.split("[:/]", source)[0])
    fields = spec.fields if spec else ()
    name, equals, _ = incomplete.partition("=")
    if not equals:
        return _beginning((f"{field.name}=" for field in fields), incomplete)
    values = (str(one) for field in fields if field.name == name for one in field.choices)
    return _beginning((f"{name}={value}" for value in values), incomplete)


def dtypes(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """The dtypes that models of the zoo take."""
    from iree_pilot.models.fields import dtype

    return _beginning(map(str, dtype().choices), incomplete)


def targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Targets behind a comma; behind a colon architectures of one."""
    from iree_pilot.pipeline.targets.backends import BACKENDS

    before, comma, last = incomplete.rpartition(",")
    backend = BACKENDS.get(last.partition(":")[0]) if ":" in last else None
    names = [f"{backend.name}:{arch}" for arch in backend.architectures] if backend else BACKENDS
    return _beginning((f"{before}{comma}{name}" for name in names), incomplete)


def phases(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Compilation phases of the compiler that --release names, where it is installed."""
    from iree_pilot.pipeline.errors import PilotError
    from iree_pilot.pipeline.toolchain import releases

    try:
        toolchain = releases.present(ctx.params.get("release"))
    except PilotError:
        return []
    return _beginning(toolchain.phases if toolchain else (), incomplete)


def versions(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Compiler releases on this machine."""
    from iree_pilot.pipeline.errors import PilotError
    from iree_pilot.pipeline.toolchain import releases, toolchain

    try:
        here = [toolchain.installed().version]
    except PilotError:
        here = []
    known = dict.fromkeys([*here, *(one.version for one in releases.local())])
    return _beginning(known, incomplete)


def releases(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Compiler releases on this machine, and directories of others."""
    return [*versions(ctx, param, incomplete), CompletionItem(incomplete, type="dir")]


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Files."""
    return [CompletionItem(incomplete, type="file")]


def _models(incomplete: str) -> Items:
    from iree_pilot.models.libraries import names
    from iree_pilot.models.spec import registry
    from iree_pilot.pipeline.frontends.source import LIBRARIES

    zoo = registry()
    named, slash, _ = incomplete.partition("/")
    name, colon, _ = named.partition(":")
    if name in LIBRARIES and colon:
        return _beginning((f"{name}:{one}" for one in names.known(name)), incomplete)
    spec = zoo.get(name)
    if spec is None or not (slash or colon):
        return _beginning((*zoo, *(f"{library}:" for library in LIBRARIES)), incomplete)
    if slash:
        return _beginning((f"{named}/{part}" for part in spec.parts), incomplete)
    return _beginning((f"{name}:{preset.name}" for preset in spec.presets), incomplete)


def _beginning(words: Iterable[str], incomplete: str) -> Items:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
