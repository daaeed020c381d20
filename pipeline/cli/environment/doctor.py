"""`iree-pilot doctor`: what can be traced, compiled and run here, and how to mend the rest."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

import click
import msgspec
from rich.markup import escape

from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import Common, common

if TYPE_CHECKING:
    from iree_pilot.pipeline.cli.display.live import Live

State = Literal["ok", "missing", "warning"]
_TRACERS = {
    "torch": "scripts/setup installs it (pip install torch==2.13.0)",
    "iree-turbine": "scripts/setup installs it (pip install iree-turbine==3.9.0)",
    "transformers": "needed for the zoo: pip install 'transformers>=5.22,<5.24'",
}
_EXTRAS = {
    "onnx": "needed for .onnx sources",
    "gguf": "needed for weights by llama.cpp",
    "diffusers": "needed for diffusers:NAME and the UNet",
    "timm": "needed for timm:NAME",
    "torchvision": "needed for torchvision:NAME",
}


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one check: the ability that needs it, what was found, how to fix it."""

    ability: Literal["trace", "compile", "run"]
    name: str
    state: State
    found: str
    mend: str = ""


@click.command("doctor", epilog=examples("iree-pilot doctor", "iree-pilot doctor --json"))
@common(release=True)
def command(common: Common) -> None:
    """Check what can be traced, compiled and RUN on this machine, and how to fix what is missing.

    Exit code 3 if programs cannot be traced, compiled or run on the CPU.
    """
    from iree_pilot.pipeline.cli.boundary import Failed
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live

    console = out.console(stderr=common.json)
    with Live.of(console, common) as live:
        live.doing("importing the tracing packages")
        findings = _tracing()
        live.doing("checking the compiler and the devices")
        findings += _compiling_and_running(common.release, live)
    able = all(f.state != "missing" for f in findings)
    if common.json:
        out.emit({"ok": able, "findings": findings})
    else:
        marks = {
            "ok": "[green]ok[/green] ",
            "warning": "[yellow]no[/yellow] ",
            "missing": "[red]BAD[/red]",
        }
        for ability in ("trace", "compile", "run"):
            console.print(f"[bold]{ability}[/bold]")
            for f in findings:
                if f.ability == ability:
                    line = f"  {marks[f.state]} {f.name:<14} {escape(f.found)}"
                    console.print(line, soft_wrap=True)
                    if f.mend:
                        console.print(f"      {'':<14} -> {escape(f.mend)}", soft_wrap=True)
    if not able:
        raise Failed(3)


def _tracing() -> list[Diagnosis]:
    from iree_pilot.pipeline import extras

    findings = []
    for names, absent in ((_TRACERS, "missing"), (_EXTRAS, "warning")):
        for name, mend in names.items():
            try:
                finding = Diagnosis(ability="trace", name=name, state="ok", found=version(name))
            except PackageNotFoundError:
                state: State = "missing" if absent == "missing" else "warning"
                if names is _EXTRAS:
                    mend = f"{mend}: {extras.install(name)}"
                finding = Diagnosis(
                    ability="trace", name=name, state=state, found="not installed", mend=mend
                )
            findings.append(finding)
    findings = [*_importable(findings)]
    restored = _restored()
    return [*findings, restored] if restored else findings


def _importable(findings: list[Diagnosis]) -> Iterator[Diagnosis]:
    """The findings; those that are there and cannot be imported are as good as missing."""
    from iree_pilot.pipeline.frontends import libraries

    broken = libraries.broken()
    for one in findings:
        why = broken.pop(one.name, "") if one.state == "ok" else ""
        yield _unusable(one.name, why) if why else one
    for name, why in broken.items():
        yield _unusable(name, why)


def _unusable(name: str, why: str) -> Diagnosis:
    return Diagnosis(
        ability="trace",
        name=name,
        state="missing",
        found=why,
        mend=f"reinstall it: pip install --force-reinstall {name}",
    )


def _restored() -> Diagnosis | None:
    """Diagnosis of what tracing restores in the compiler's bindings, if anything is missing."""
    try:
        turbine, compiler = version("iree-turbine"), version("iree-base-compiler")
    except PackageNotFoundError:
        return None
    from iree_pilot.pipeline.frontends.pytorch import bindings

    if not bindings.lacks():
        return None
    return Diagnosis(
        ability="trace",
        name="bindings",
        state="ok",
        found=f"iree-base-compiler {compiler} lacks isinstance, which iree-turbine {turbine} uses "
        "for its own operations and aot.CompiledModule (IREE issue 24222): restored while tracing, "
        "nothing to do",
    )


def _compiling_and_running(release: str | None, live: Live) -> list[Diagnosis]:
    from iree_pilot.pipeline.cli.installing import toolchain_of
    from iree_pilot.pipeline.errors import PilotError
    from iree_pilot.pipeline.targets.targets import BACKENDS, parse, plan

    try:
        toolchain = toolchain_of(release, live)
    except PilotError as error:
        return [
            Diagnosis(
                ability="compile",
                name="iree-compile",
                state="missing",
                found=error.message,
                mend=error.advice,
            )
        ]
    findings = [
        Diagnosis(
            ability="compile",
            name="iree-compile",
            state="ok",
            found=f"{toolchain.version} ({toolchain.revision[:12]}) {toolchain.compiler}",
        )
    ]
    for backend in BACKENDS:
        needed: State = "missing" if BACKENDS[backend].on_host else "warning"
        try:
            made = plan(parse(backend), toolchain)
        except PilotError as error:
            findings.append(
                Diagnosis(
                    ability="compile",
                    name=backend,
                    state=needed,
                    found=error.message,
                    mend=error.advice,
                )
            )
            continue
        # Without a device, what is warned of is the choice of an architecture to compile for.
        guessed = () if made.device else made.warnings
        found = "; ".join([f"for {made.target.spec}", *guessed])
        findings.append(Diagnosis(ability="compile", name=backend, state="ok", found=found))
        findings.append(
            Diagnosis(
                ability="run",
                name=backend,
                state="ok" if made.device else needed,
                found=f"{made.device.uri}  {made.device.name}" if made.device else made.why_not_run,
                mend=made.advice,
            )
        )
        findings += [
            Diagnosis(ability="run", name=backend, state="warning", found=warning)
            for warning in (made.warnings if made.device else ())
        ]
    findings.append(_validating())
    return findings


def _validating() -> Diagnosis:
    from iree_pilot.pipeline.inspect import spirv

    tool = spirv.validator()
    if tool is None:
        return Diagnosis(
            ability="compile",
            name=spirv.TOOL,
            state="warning",
            found="not installed: shaders of Vulkan modules are not validated",
            mend=spirv.MEND,
        )
    return Diagnosis(
        ability="compile", name=spirv.TOOL, state="ok", found=f"{tool.release} {tool.path}"
    )
