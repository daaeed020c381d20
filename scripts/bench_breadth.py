"""`scripts/bench breadth`: what of the collection (models/collection.toml) runs, and what does not.

The collection is a night: it continues where it was stopped, runs in shards or on a cluster, and
each new failure is isolated. From its history the page docs/coverage.md is written: root causes,
ordered by how many architectures each of them blocks.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import msgspec
from bench_base import PILOT, machine

from iree_pilot.pipeline.plural import count

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = ROOT / "models" / "collection.toml"
PAGE = ROOT / "docs" / "coverage.md"
#: How a failure of IREE's importer begins, which comes after torch.export.
_IMPORTING = "while importing to MLIR"
_WORKS = ("ok", "ran", "compiled")
_SHOWN = 8
_PRINTED, _CHARACTERS = 20, 100
_TOLD, _PROGRAM_LINES = 160, 25
_COLUMNS = ("blocks", "root", "phase", "message", "since", "way past", "architectures")


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """One architecture on one target. status: of the case; "not-run" if it was not run.

    signature, operation, message: of the failure, where it failed; operation is what its reproducer
    holds. phase: where it failed; place: of what does not trace, the line of Python. reproducer:
    its folder. way: a workaround that was found. since: which releases fail.
    """

    source: str
    target: str
    status: str
    why: str = ""
    signature: str = ""
    phase: str = ""
    place: str = ""
    operation: str = ""
    message: str = ""
    reproducer: str = ""
    way: str = ""
    since: str = ""


class RootCause(msgspec.Struct, frozen=True, kw_only=True):
    """Failures of one signature or, where they are isolated, of one operation in one phase."""

    name: str
    phase: str
    message: str
    blocked: tuple[str, ...]
    reproducer: str
    way: str
    since: str


def architectures(report: Any) -> list[Architecture]:
    """Each case as a night's report (`nightly run --json`) has it."""
    return [_architecture(row) for row in report["rows"]]


def _architecture(row: Any) -> Architecture:
    case, outcome, judgement = row["case"], row["outcome"] or {}, row["judgement"] or {}
    result = outcome.get("result") or {}
    failure = result.get("failure") or {}
    folder = judgement.get("reproducer") or ""
    said = {f["question"]: f["said"] for f in judgement.get("findings", ())}
    phase = failure.get("phase") or ""
    return Architecture(
        source=case["source"],
        target=case["target"],
        status=result.get("status", "not-run"),
        why=result.get("why") or outcome.get("why") or "",
        signature=failure.get("signature", ""),
        phase=phase,
        place="/".join(Path(failure.get("location") or "").parts[-2:]) if phase == "trace" else "",
        operation=_operation(folder) or failure.get("op") or "",
        message=(failure.get("message") or "").split("\n")[0],
        reproducer=folder,
        way=said.get("workaround", ""),
        since=said.get("releases", ""),
    )


def _operation(folder: str) -> str:
    """Operations of the reproducer in a folder; empty where there is none."""
    report = Path(folder, "report.json")
    if not folder or not report.is_file():
        return ""
    names = msgspec.json.decode(report.read_bytes())["op_names"]
    return ", ".join(dict.fromkeys(names)) if len(names) <= _SHOWN else ""


def roots(found: Iterable[Architecture]) -> list[RootCause]:
    """Root causes of what failed, those that block most first."""
    groups: dict[tuple[str, str], list[Architecture]] = {}
    for one in found:
        if one.status == "failed":
            # Wrong numbers of two programs look alike until their operations are known.
            alike = one.place or not one.signature.startswith(("mismatch/", "timeout/"))
            name = one.operation or one.place
            name = name or (one.signature if alike else f"{one.signature}, {one.source}")
            groups.setdefault((name, one.phase), []).append(one)
    causes = [
        RootCause(
            name=name,
            phase=phase,
            message=group[0].message,
            blocked=tuple(dict.fromkeys(one.source for one in group)),
            reproducer=next((one.reproducer for one in group if one.reproducer), ""),
            way=next((one.way for one in group if one.way), ""),
            since=next((one.since for one in group if one.since), ""),
        )
        for (name, phase), group in groups.items()
    ]
    return sorted(causes, key=lambda one: (-len(one.blocked), one.name))


def page(found: Sequence[Architecture], versions: str, command: str) -> str:
    """docs/coverage.md."""
    targets = list(dict.fromkeys(one.target for one in found))
    lines = [
        "# What runs",
        "",
        f"{len({one.source for one in found})} of the {_collected()} architectures of PyTorch "
        f"libraries in `models/collection.toml`, with small configurations and seeded weights: "
        f"traced, compiled, run and compared with PyTorch. {versions}",
        "",
        f"This page is written by `{command}`.",
        "",
        "| target | "
        + " | ".join(("ok", "ran", "compiled", "failed", "not run", "of"))
        + " | of those exported work |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for target in targets:
        own = [one for one in found if one.target == target]
        counts = Counter(one.status for one in own)
        exported = [one for one in own if _exported(one)]
        good = sum(one.status in _WORKS for one in exported)
        share = f"{good} of {len(exported)}, {100 * good // max(len(exported), 1)}%"
        cells = [str(counts[s]) for s in ("ok", "ran", "compiled", "failed", "not-run")]
        lines.append(f"| {target} | {' | '.join(cells)} | {len(own)} | {share} |")
    lines += [
        "",
        "`ran`: it runs, and something of it was not compared. `compiled`: it was not run here. "
        "`not run`: no configuration and inputs were found with which PyTorch itself runs it.",
        "",
        "## Root causes",
        "",
        "By how many architectures each blocks.",
        "",
    ]
    for target in targets:
        causes = roots(one for one in found if one.target == target)
        if causes:
            lines += [f"### {target}", "", f"| {' | '.join(_COLUMNS)} |"]
            lines.append("|---" * len(_COLUMNS) + "|")
            lines += [_row(one) for one in causes]
            lines.append("")
            lines += [line for one in causes for line in _program(one)]
    lines += ["## All", "", f"| architecture | {' | '.join(targets)} |"]
    lines.append("|---" * (len(targets) + 1) + "|")
    by_source: dict[str, dict[str, str]] = {}
    for one in found:
        by_source.setdefault(one.source, {})[one.target] = one.status
    for source, said in sorted(by_source.items()):
        lines.append(f"| `{source}` | {' | '.join(said.get(t, '') for t in targets)} |")
    return "\n".join(lines) + "\n"


def _exported(one: Architecture) -> bool:
    """True unless torch.export refused it; what fails behind that while it is traced is the
    importer, and where time ended it is not known."""
    stopped = one.signature.startswith("timeout/")
    behind = one.phase != "trace" or stopped or one.message.startswith(_IMPORTING)
    return one.status != "not-run" and behind


def _collected() -> int:
    """Number of architectures that the collection names."""
    blocks = tomllib.loads(COLLECTION.read_text())["include"]
    return len({model for block in blocks for model in block["models"]})


def _row(cause: RootCause) -> str:
    names = ", ".join(cause.blocked[:_SHOWN])
    more = f" and {len(cause.blocked) - _SHOWN} more" if len(cause.blocked) > _SHOWN else ""
    told = (text.replace("|", "\\|")[:_TOLD] for text in (cause.message, cause.since, cause.way))
    cells = (len(cause.blocked), f"`{cause.name}`", cause.phase, *told, names + more)
    return f"| {' | '.join(map(str, cells))} |"


def _program(cause: RootCause) -> list[str]:
    """The program of a cause's reproducer, where it is one to read."""
    file = Path(cause.reproducer, "repro.mlir")
    text = file.read_text(encoding="utf-8") if cause.reproducer and file.is_file() else ""
    if not text or len(text.splitlines()) > _PROGRAM_LINES:
        return []
    return [f"`{cause.name}`, verified:", "", "```mlir", *text.splitlines(), "```", ""]


@click.command("breadth")
@click.option("--shard", metavar="I/N", help="Run part I of N.")
@click.option("--only", metavar="EXPR", help="Run only these cases.")
@click.option("--scheduler", metavar="ADDRESS", help="Run on a dask cluster.")
@click.option("--database", metavar="FILE", default="breadth/history.db", help="It resumes.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write the page here; of the whole, to docs/coverage.md."
)
def command(
    shard: str | None, only: str | None, scheduler: str | None, database: str, output: str | None
) -> None:
    """Run the collection as a night, and write what runs and what is in the way."""
    place = Path(database)
    place.parent.mkdir(parents=True, exist_ok=True)
    words = ["nightly", "run", "-c", str(COLLECTION), "--database", str(place), "--json"]
    for option, value in (("--shard", shard), ("--only", only), ("--scheduler", scheduler)):
        words += [option, value] if value else []
    done = subprocess.run([PILOT, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)
    found = architectures(msgspec.json.decode(done.stdout))
    arguments = [*(["--shard", shard] if shard else []), *(["--only", only] if only else [])]
    here = machine(os.getloadavg()[0], None)
    versions = f"IREE {here.compiler}, PyTorch {version('torch')}, on {here.processor}."
    text = page(found, versions, shlex.join(["scripts/bench", "breadth", *arguments]))
    if output or not arguments:
        (Path(output) if output else PAGE).write_text(text, encoding="utf-8")
    counts = Counter(one.status for one in found)
    print(", ".join(f"{n} {status}" for status, n in counts.most_common()))
    for cause in roots(found)[:_PRINTED]:
        blocked = count(len(cause.blocked), "architecture")
        print(f"{blocked}: {cause.name} ({cause.phase}) {cause.message[:_CHARACTERS]}")
