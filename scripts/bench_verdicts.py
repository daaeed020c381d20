"""Verdicts on programs, checked against the results of IREE's own tools.

Programs of several dialects (`tests/dialects`), the compiler's own dumps of them and of models of
the zoo after each phase, and files that are given. Each goes to `iree-compile` and
`iree-run-module`, and to `iree-pilot run --json`, without inputs, with the same weights. Then
there must be no

- `ok` of a program with an output that was not compared;
- program refused (exit codes 2, 3) that `iree-compile` takes;
- program never run (`compiled`) that `iree-run-module` runs;
- program that fails, or does not, where the tools say otherwise.

Of wrong numbers only a second opinion says which side is wrong. Where the compiler's IR reads the
bytes of a caller's f64 as f32, it is the compiler; all others are listed.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import bench_stock
import click
import msgspec
from bench_base import (
    Machine,
    limit_option,
    machine,
    own_cache,
    reporting_errors,
    shared,
    tell_machine,
    until,
)
from bench_stock import Call, Stock

from iree_pilot.pipeline.cli import cli
from iree_pilot.pipeline.cli.boundary import guarded
from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.program import program as programs
from iree_pilot.pipeline.targets.targets import parse, plan
from iree_pilot.pipeline.toolchain.releases import find as find_release
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

_TESTS = Path(__file__).parent.parent / "tests"
_TARGET = "llvm-cpu"
PHASES = "phases"
DIALECTS = ("torch", "linalg", "tosa", "stablehlo", "onnx", PHASES)
#: Models whose dumps are taken, beside those of generated programs.
ZOO = ("rms-norm", "llama-fp8:tiny", "attention", "resnet:tiny", "rope", "fp8-linear")
_WEIGHTS_SCOPE = "model"
#: Import that narrows f64 to f32 at a program's border: `as` converts nothing.
_NARROWED = re.compile(r"hal\.tensor\.import .*tensor<[^>]*f64> as tensor<[^>]*f32>")
_DUMP = re.compile(r"\.(\d+)\.([\w-]+)\.mlir$")

Fault = Literal["blind ok", "refused", "never run", "not failed", "failed", "wrong numbers"]
FAULTS: tuple[Fault, ...] = (
    "blind ok",
    "refused",
    "never run",
    "not failed",
    "failed",
    "wrong numbers",
)


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A program to ask about. calls: empty where it is not known how to call it."""

    name: str
    dialect: str
    mlir: Path
    calls: tuple[Call, ...] = ()
    archives: dict[str, Path] = {}


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """Verdict of `iree-pilot run`. verdict: the case's status, or `refused`.

    blind: which functions or outputs an `ok` does not rest on.
    """

    verdict: str
    exit_code: int
    why: str = ""
    kind: str = ""
    blind: tuple[str, ...] = ()


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One program, what was said of it on both sides, and what is wrong with that.

    narrowed: it is called wrong, and is: the compiler reads f64 as f32.
    """

    name: str
    dialect: str
    stock: Stock
    said: Said
    fault: Fault | None
    narrowed: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One dialect. taken, run: by the stock tools. verdicts: ours, by name; faults by name.

    narrowed: programs whose f64 the compiler reads as f32, and which are called wrong for it.
    """

    dialect: str
    programs: int
    taken: int
    run: int
    verdicts: dict[str, int]
    faults: dict[str, int]
    narrowed: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    seed: int
    rows: tuple[Row, ...]
    judged: tuple[Judged, ...]


def fault(stock: Stock, said: Said) -> Fault | None:
    """Fault of our verdict, given that of the tools; None if there is none."""
    if said.verdict == "ok" and said.blind:
        return "blind ok"
    if said.verdict == "refused":
        return "refused" if stock.compiles else None
    if not stock.compiles:
        return None if said.verdict == "failed" else "not failed"
    if said.verdict == "compiled" and stock.runs:
        return "never run"
    if said.verdict == "failed" and stock.runs:
        return "wrong numbers" if said.kind == "mismatch" else "failed"
    return None


def rows(judged: Sequence[Judged]) -> tuple[Row, ...]:
    """The table, one row a dialect."""
    found = []
    for dialect in sorted({j.dialect for j in judged}, key=("given", *DIALECTS).index):
        own = [j for j in judged if j.dialect == dialect]
        said = [j.said.verdict for j in own]
        faults = [j.fault for j in own]
        found.append(
            Row(
                dialect=dialect,
                programs=len(own),
                taken=sum(j.stock.compiles for j in own),
                run=sum(j.stock.runs for j in own),
                verdicts={v: said.count(v) for v in dict.fromkeys(said)},
                faults={f: faults.count(f) for f in FAULTS if f in faults},
                narrowed=sum(j.narrowed for j in own),
            )
        )
    return tuple(found)


def read(document: Any, calls: Sequence[Call], exit_code: int, stderr: str) -> Said:
    """Verdict on the only case of a document of `run --json`."""
    cases = (document or {}).get("cases") or ()
    if not cases:
        error = (document or {}).get("error") or stderr.strip()
        why = error.get("message", "") if isinstance(error, dict) else str(error)
        return Said(verdict="refused", exit_code=exit_code, why=why)
    (case,) = cases
    failure = case["failure"] or {}
    return Said(
        verdict=case["status"],
        exit_code=exit_code,
        why=failure.get("message") or case["why"],
        kind=failure.get("kind", ""),
        blind=tuple(_blind(case, calls)),
    )


def _blind(case: Mapping[str, Any], calls: Sequence[Call]) -> Iterator[str]:
    compared = {f["name"]: f["comparison"] for f in case["functions"]}
    for name in {call.function for call in calls} - set(compared):
        yield f"{name} was not run"
    for name, comparison in compared.items():
        if comparison is None:
            yield f"{name} was not compared"
            continue
        for output in comparison["outputs"]:
            if output["verdict"] != "ok":
                yield f"{name}'s output {output['index']} was not compared"


def pilot(given: Given) -> Said:
    """Verdict of the command on a program, in this process."""
    weights = [f"--weights={scope}={file}" for scope, file in given.archives.items()]
    if list(given.archives) == [_WEIGHTS_SCOPE]:
        weights = [f"--weights={given.archives[_WEIGHTS_SCOPE]}"]
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        arguments = ["run", str(given.mlir), "-t", _TARGET, "--json", "--time-limit", "120s"]
        code = guarded(cli, [*arguments, *weights])
    for stream in (stdout, stderr):
        stream.flush()
        stream.seek(0)
    try:
        document = msgspec.json.decode(stdout.read())
    except msgspec.DecodeError:
        document = None
    return read(document, given.calls, code, stderr.read())


def generated(dialect: str, count: int, first: int, seed: int, place: Path) -> Iterator[Given]:
    """Programs of one dialect, written to `place`."""
    if str(_TESTS) not in sys.path:
        sys.path.append(str(_TESTS))
    from dialects import write

    for number in range(first, first + count):
        made = write.program(dialect, number, seed)
        own = place / made.name
        own.mkdir(parents=True)
        mlir = own / f"{made.name}.mlir"
        mlir.write_text(made.text)
        scopes: dict[str, dict[str, str]] = {}
        for scope, key, kind in made.parameters:
            scopes.setdefault(scope, {})[key] = kind
        calls = []
        for call in made.calls:
            files = (own / f"{call.function}-{n}.bin" for n in range(len(call.inputs)))
            inputs = zip(call.inputs, files, strict=True)
            calls.append(
                Call(
                    call.function,
                    tuple(
                        bench_stock.given(kind, file, n) for n, (kind, file) in enumerate(inputs)
                    ),
                )
            )
        yield Given(
            name=made.name,
            dialect=dialect,
            mlir=mlir,
            calls=tuple(calls),
            archives={
                scope: bench_stock.archive(own / f"{scope}.safetensors", tensors)
                for scope, tensors in scopes.items()
            },
        )


def dumps(given: Given, flags: Sequence[str], toolchain: Toolchain, place: Path) -> list[Given]:
    """A program as the compiler dumps it after each of its phases."""
    place.mkdir(parents=True)
    argv: list[str | Path] = [
        toolchain.compiler,
        given.mlir,
        *flags,
        f"--dump-compilation-phases-to={place}",
    ]
    process.run(
        [*argv, "-o", place / "module.vmfb"],
        stdout=place / "stdout.txt",
        stderr=place / "stderr.txt",
        limits=Limits(seconds=300.0),
    )
    found = []
    for file in sorted(place.glob("*.mlir")):
        match = _DUMP.search(file.name)
        assert match is not None, file
        name = f"{given.name} after {match[2]}"
        found.append(msgspec.structs.replace(given, name=name, dialect=PHASES, mlir=file))
    return found


def traced(model: str, place: Path) -> Given | None:
    """A model of the zoo as a program; None where it cannot be traced here."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if guarded(cli, ["trace", model, "-o", str(place)]) != 0:
            return None
    program = programs.load(place)
    calls = tuple(
        Call(
            function.name,
            tuple(
                f"{_spelled(tensor)}=@{place / tensor.file}" for tensor in function.example or ()
            ),
        )
        for function in program.functions
    )
    held = program.parameters
    archives = {held.scope: place / held.archives[0]} if held and held.archives else {}
    return Given(
        name=model, dialect=PHASES, mlir=place / program.mlir, calls=calls, archives=archives
    )


def _spelled(tensor: programs.Tensor) -> str:
    return "x".join([*map(str, tensor.shape), tensor.dtype])


def _phases(
    count: int, seed: int, flags: Sequence[str], toolchain: Toolchain, place: Path
) -> Iterator[Given]:
    """Dumps: of models of the zoo first, then of generated programs of each dialect in turn."""
    found: list[Given] = []
    for model in ZOO:
        if len(found) >= count * 2 // 3:
            break
        whole = traced(model, place / model.replace(":", "-"))
        if whole is not None:
            found += dumps(whole, flags, toolchain, place / f"{model.replace(':', '-')}-dumps")
    found = found[: count * 2 // 3]
    for number in range(count):
        for dialect in DIALECTS[:-1]:
            if len(found) >= count:
                break
            own = place / f"of-{dialect}-{number}"
            (whole,) = generated(dialect, 1, 1000 + number, seed, own)
            found += dumps(whole, flags, toolchain, own / "dumps")
    yield from found[:count]


def measure(
    given: Iterable[Given],
    flags: Sequence[str],
    toolchain: Toolchain,
    place: Path,
    keep: Path | None = None,
) -> Iterator[Judged]:
    """Each program on both sides. keep: where those with a fault are copied to."""
    place.mkdir(parents=True, exist_ok=True)
    for one in given:
        stock = bench_stock.ask(one.mlir, one.calls, one.archives, flags, toolchain, place)
        said = pilot(one)
        wrong = fault(stock, said)
        narrowed = wrong == "wrong numbers" and _narrowed(one, flags, toolchain, place)
        if narrowed:
            wrong = None
        if wrong is not None and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(one.mlir, keep / f"{one.name.replace(' ', '-')}.mlir")
        yield Judged(
            name=one.name,
            dialect=one.dialect,
            stock=stock,
            said=said,
            fault=wrong,
            narrowed=narrowed,
        )


def _narrowed(given: Given, flags: Sequence[str], toolchain: Toolchain, place: Path) -> bool:
    made = place / "input.mlir"
    argv: list[str | Path] = [toolchain.compiler, given.mlir, *flags, "--compile-to=input"]
    done = process.run(
        [*argv, "-o", made],
        stdout=place / "stdout.txt",
        stderr=place / "stderr.txt",
        limits=Limits(seconds=300.0),
    )
    return done.ok and bool(_NARROWED.search(made.read_text()))


def tell(report: Report) -> None:
    """The report for people: the table, and each program with a fault."""
    console = out.console()
    tell_machine(report.machine)
    console.print(f"{_TARGET}; seed {report.seed}")
    verdicts = ("ok", "ran", "compiled", "failed", "refused")
    columns = ("programs", "compile", "run", *verdicts, "f64", *(f"!{name}" for name in FAULTS))
    table = out.table("", *columns, right=columns)
    for row in report.rows:
        cells = [row.programs, row.taken, row.run]
        cells += [row.verdicts.get(name, 0) for name in verdicts]
        cells += [row.narrowed, *(row.faults.get(name, 0) for name in FAULTS)]
        table.add_row(row.dialect, *map(str, cells))
    console.print(table)
    console.print(
        "compile, run: by iree-compile and iree-run-module; ok to refused: iree-pilot's verdicts; "
        "f64: failed because the compiler reads f64 as f32; then the verdicts that are not true",
        soft_wrap=True,
    )
    for judged in report.judged:
        if judged.fault is not None:
            console.print(describe(judged), soft_wrap=True, markup=False)


def describe(judged: Judged) -> str:
    """A fault on one line."""
    stock = "runs" if judged.stock.runs else judged.stock.said or "compiles"
    said = f"{judged.said.verdict}: {judged.said.why}"
    if judged.said.blind:
        said += f" ({'; '.join(judged.said.blind)})"
    return f"{judged.fault}: {judged.name}: {said} | stock: {stock}"


@click.command("verdicts")
@click.option("--programs", "count", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first program.")
@click.option("--dialect", "dialects", type=click.Choice(DIALECTS), multiple=True)
@click.option(
    "--also",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="An MLIR file to ask about as well; its functions are not called by the stock tools.",
)
@click.option("--keep", type=click.Path(path_type=Path), help="Copy programs with faults here.")
@click.option("--seed", default=0, show_default=True)
@limit_option
@shared
def command(
    count: int,
    first: int,
    dialects: tuple[str, ...],
    also: tuple[Path, ...],
    keep: Path | None,
    seed: int,
    limit: float,
    as_json: bool,
    release: str | None,
) -> None:
    """Verdicts on programs of many dialects, beside what IREE's own tools make of them."""
    load = os.getloadavg()[0]
    judged: list[Judged] = []
    with reporting_errors(), own_cache() as directory:
        toolchain = find_release(release)
        flags = plan(parse(_TARGET), toolchain).flags
        given: dict[str, Iterable[Given]] = {
            "given": [Given(name=f.name, dialect="given", mlir=f.absolute()) for f in also]
        }
        for dialect in dialects or DIALECTS:
            place = directory / "programs" / dialect
            if dialect == PHASES:
                given[dialect] = _phases(count, seed, flags, toolchain, place)
            else:
                given[dialect] = generated(dialect, count, first, seed, place)
        # In turn, so that what is stopped early has some of each.
        turns = itertools.chain.from_iterable(itertools.zip_longest(*given.values()))
        every = (one for one in turns if one is not None)
        for one in until(measure(every, flags, toolchain, directory / "stock", keep), limit):
            judged.append(one)
            if one.fault is not None:
                click.echo(describe(one), err=True)
        made = Report(
            machine=machine(load, release), seed=seed, rows=rows(judged), judged=tuple(judged)
        )
    if as_json:
        out.emit(made)
    else:
        tell(made)
    if any(one.fault for one in judged):
        sys.exit(1)
