"""Search for further blocking failures: the cause of each is masked wherever it appears."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec

from iree_pilot.pipeline.toolchain import compiler
from iree_pilot.pipeline.toolchain.compiler import Compile, CompileResult
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.ir import feeds
from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.ir.graph import Cut
from iree_pilot.repro.ir.pattern import alike
from iree_pilot.repro.isolate import Isolated
from iree_pilot.repro.reducer.shrink import mask

_ANSWER = "compiled.json"


class Masked(msgspec.Struct, frozen=True, kw_only=True):
    """A program whose function takes as arguments what the operations at fault computed.

    operations, places: how many of them there were, in how many groups like the isolated one.
    """

    program: str
    operations: int
    places: int


class _Compiled(msgspec.Struct, frozen=True):
    digest: str
    result: CompileResult


def masked(program: Path, isolated: Isolated, context: Context) -> Masked:
    """The whole program without what was isolated in it, and without all that is like it."""
    editor = Editor(
        program, isolated.focus, context.directory / "edits", context.limits, context.toolchain
    )
    graph = editor.graph()
    assert graph is not None, "the program has the function that was cut"
    groups = alike(graph, isolated.cut)
    (made,) = editor.render([mask(graph, *(Cut(keep=group) for group in groups))], whole=True)
    assert made is not None, "an operation's results can always be arguments"
    file = context.directory / "program.mlir"
    shutil.copyfile(made, file)
    feeds.write(file, feeds.of(made))
    gone = {op for group in groups for op in group}
    return Masked(program=str(file), operations=len(gone), places=len(groups))


def compiled(program: Path, context: Context, flags: tuple[str, ...]) -> CompileResult:
    """A whole compile, remembered in `directory` by the program's content."""
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    answer = context.directory / _ANSWER
    if answer.is_file():
        known = msgspec.json.decode(answer.read_bytes(), type=_Compiled)
        if known.digest == digest:
            return known.result
    files = context.directory / "compile"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    result = compiler.compile(Compile(mlir=program, flags=flags), context.at(files))
    shutil.rmtree(files)
    temporary = answer.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(_Compiled(digest, result)))
    temporary.replace(answer)
    return result
