"""The folder that a failure is handed on in: programs, run.sh, report.json, a draft of an issue."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import math
import os
import re
import shlex
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import msgspec

from iree_pilot.pipeline import links, plural
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.execution import runtime
from iree_pilot.pipeline.failures.diagnostics import SERIAL, Failure
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Tensor
from iree_pilot.pipeline.store import outputs
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.store.store import data_directory
from iree_pilot.pipeline.targets import devices
from iree_pilot.pipeline.toolchain.phases import UNTARGETED
from iree_pilot.repro.attribution.origin import Origin
from iree_pilot.repro.reproducer.folder import issue
from iree_pilot.repro.reproducer.folder.further import Elsewhere, SinceRelease, WorkaroundSummary
from iree_pilot.repro.reproducer.folder.marks import MEMORY, STACK, marks
from iree_pilot.repro.trust import own
from iree_pilot.repro.wrong_results.wrong_record import Wrong

LevelName = Literal["pytorch", "mlir", "dispatch", "pass"]
FILES: dict[LevelName, str] = {
    "mlir": "repro.mlir",
    "dispatch": "dispatch.mlir",
    "pass": "pass.mlir",
    "pytorch": "repro.py",
}
REPORT = "report.json"
SCRIPT = "run.sh"
#: Diff of the failing pass's changes until it failed.
DIFF = "pass.diff"
#: Files that `write` makes from the report.
WRITTEN = (REPORT, SCRIPT, "ISSUE.md", "README.md", DIFF)
#: A reproducer is text that is read and pasted: what is larger than this holds weights.
LARGEST_BYTES = 2**20
#: A whole program is handed on where nothing smaller shows the failure, with its constants.
LARGEST_WHOLE_BYTES = 64 * 2**20
#: Limit of elements of a tensor that is quoted in the draft.
_QUOTED_ELEMENTS = 64
LARGEST_REPORT_BYTES = 32 * 2**20
#: Types whose tensors become .npy files. The others are raw: the runtime takes integers of .npy
#: files for signed ones (si64), which the signless ones that modules return (i64) never equal.
_NPY_TYPES = ("f16", "f32", "f64")
#: An input in a raw file.
_RAW = re.compile(r"--input=&?(?P<shape>(?:\d+x)*)(?P<dtype>\w+)=@(?P<file>[^@]+)")
_SIGNLESS = re.compile(r"^(--input=&?(?:\d+x)*)(i\d+)=")
_TITLES: dict[LevelName, str] = {
    "mlir": "Reduced program",
    "dispatch": "Failing executable, compiled alone",
    "pass": "IR before the failing pass",
    "pytorch": "Reduced program in PyTorch, traced with iree-turbine",
}
#: Begins the words of iree-run-module that say what an output must be.
EXPECTED = "--expected_output="
_MODULE = "module.vmfb"
_TRACED = "traced.mlir"
#: IR up to this size is quoted in the draft; an issue may have 65,536 characters.
_QUOTED_CHARACTERS = 12_000
_FRAMES = 12
_FRAME_CHARACTERS = 200
#: Room for libraries and threads over the memory that a failing compile may use.
_ADDRESS_SPACE_KIB = 4 * 2**20
#: An intermittent failure is asked for until its absence would be a surprise.
_SURPRISE = 0.01
_MOST_TRIES = 20


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One program that shows the failure, and how.

    command: what fails, with plain names of tools and of files. before: commands that must pass
    first (a compile whose module then fails to run, a trace whose program then fails to compile).
    verified: that it fails so has been seen in an empty directory. why: it was left out. ops,
    calls: what reducing this level alone left, and how many compiles of it that took. pass_name,
    pass_class, pipeline: of the pass that fails, as `iree-opt` names it and in C++; changed: what
    it had changed when it failed (`pass.diff`).
    """

    name: LevelName
    file: str
    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    verified: bool = False
    why: str = ""
    ops: int = 0
    calls: int = 0
    pass_name: str = ""
    pass_class: str = ""
    pipeline: str = ""
    changed: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Record of a reproducer; report.json.

    target: as the user named it, and `flags` of iree-compile: the target's, then the user's.
    release, revision: of the compiler that showed the failure. source: as the user named it;
    command: what failed at first, program: where the full program lies. ops: operations of
    repro.mlir other than constants, list constructs and returns; op_names: theirs. time_limit:
    seconds that one command may take; memory_limit: bytes. rate: the share of runs that fail.
    packages: versions of what traced the program. environment: the machine, in words, as
    `repro.reproducer.folder.environment` has it. tried: sentences for the draft of the issue.
    current: what becomes of it with the release that was installed when it was made, where that is
    another one: (its version, "same" or why not). wrong: the outputs with wrong numbers, by what
    `reference` gives; origin: where these come from. whole: repro.mlir is the program that failed
    at first, nothing smaller was found; op_names then has each name once. not_iree: whose failure
    it is where IREE has no part in it, and what to do; else "". since_release, workarounds: where
    that was asked. elsewhere: reproducers of other targets that show the same, of runs that had
    several. unsigned: the inputs, by their numbers, that the program takes as unsigned: the
    commands pass all integers without a sign, as an output may have the type of an input. files:
    SHA-256 of each file of the folder. `write` fills in both.
    """

    failure: Failure
    target: str
    flags: tuple[str, ...]
    release: str
    revision: str
    source: str
    command: tuple[str, ...]
    program: str
    ops: int
    op_names: tuple[str, ...]
    oracle_calls: int
    seconds: float
    minimal: bool
    verified: bool
    levels: tuple[Level, ...]
    time_limit: float
    memory_limit: int | None = None
    rate: float = 1.0
    packages: dict[str, str] = {}
    environment: dict[str, str] = {}
    tried: tuple[str, ...] = ()
    current: tuple[str, str] | None = None
    wrong: tuple[Wrong, ...] = ()
    reference: str = "PyTorch"
    origin: Origin | None = None
    whole: bool = False
    not_iree: str = ""
    since_release: SinceRelease | None = None
    workarounds: WorkaroundSummary | None = None
    elsewhere: tuple[Elsewhere, ...] = ()
    unsigned: tuple[int, ...] = ()
    files: dict[str, str] = {}
    made_by: Literal["iree-pilot"] = "iree-pilot"

    @property
    def failing_phase(self) -> str | None:
        """The phase that fails: of wrong numbers, the first wrong one where that is known."""
        return issue.failing_phase(self.failure, self.origin)

    @property
    def shared(self) -> bool:
        """True if it is the same failure for all targets."""
        alike = [one.target for one in self.elsewhere if one.signature]
        return issue.shared(self.failing_phase, self.target, alike)


class Input(msgspec.Struct, frozen=True):
    """An input of a program that fails at run time: its type, and where its raw bytes lie.

    data: None for ones throughout, which need no file.
    """

    tensor: Tensor
    data: Path | None


def level(
    name: LevelName,
    flags: Sequence[str] = (),
    *,
    run: Sequence[str] = (),
    check: Sequence[str] = (),
    pipeline: str = "",
    traces: bool = True,
    **fields: Any,
) -> Level:
    """The level's usual commands.

    flags: for iree-compile. run: what the module then fails to do (`run_command`). check: what
    judges the outputs of the run, where that is a command of its own. pipeline: of
    the pass level, as `--pass-pipeline=` takes it. traces: False where tracing itself fails.
    """
    file = FILES[name]
    steps: list[tuple[str, ...]] = []
    source = file
    if name == "pytorch":
        steps.append(("python", "-X", "faulthandler", file, _TRACED))
        source = _TRACED
    if name == "pass":
        steps.append(("iree-opt", file, f"--pass-pipeline={pipeline}", *flags, "-o", "/dev/null"))
    elif name != "pytorch" or traces:
        mode = ("--compile-mode=hal-executable",) if name == "dispatch" else ()
        output = _MODULE if run else "/dev/null"
        steps.append(("iree-compile", source, *mode, *flags, "-o", output))
    steps += [tuple(words) for words in (run, check) if words]
    before = tuple(steps[:-1])
    return Level(
        name=name, file=file, command=steps[-1], before=before, pipeline=pipeline, **fields
    )


def run_command(
    function: str, device: str, inputs: Sequence[Input], parameters: Sequence[str] = ()
) -> tuple[str, ...]:
    """The iree-run-module command of a folder with these inputs; parameters: words for them."""
    return (
        "iree-run-module",
        f"--module={_MODULE}",
        *devices.options(device),
        f"--function={function}",
        *parameters,
        *(f"--input={_input_words(i, given)}" for i, given in enumerate(inputs)),
    )


def write(
    directory: Path,
    report: Report,
    files: Mapping[str, str | bytes | Path],
    inputs: Sequence[Input] = (),
    beside: Mapping[str, Path] | None = None,
    data: Mapping[str, bytes] | None = None,
) -> None:
    """Writes the folder, whole or not at all.

    files: the contents, or the places, of the levels' files by name; a level without one is listed
    as left out. beside: files that repro.py imports, by their paths in the folder. data: what else
    the commands need. A folder that
    `write` made and nobody has changed is replaced. Raises UsageError for another one that is not
    empty and for files that hold weights, EnvironmentFault where the folder cannot be written.
    """
    unknown = [name for name in files if name not in FILES.values()]
    if unknown or not files:
        raise ValueError(f"a reproducer has some of {[*FILES.values()]}, not {unknown}")
    most = LARGEST_WHOLE_BYTES if report.whole else LARGEST_BYTES
    contents = {name: _content(name, value, most) for name, value in files.items()}
    for index, given in enumerate(inputs):
        if given.data is not None and given.tensor.passed in ("view", "buffer"):
            name = tensor_file(f"input{index}", given.tensor)
            contents[name] = tensor_content(given.tensor, _content(name, given.data))
    for name, file in (beside or {}).items():
        contents[name] = _content(name, file)
    for name, content in (data or {}).items():
        contents[name] = _content(name, content)
    texts = {name: c.decode(errors="replace") for name, c in contents.items() if name in files}
    more = sorted(contents.keys() - files.keys() - (beside or {}).keys())
    unsigned = (i for i, given in enumerate(inputs) if given.tensor.dtype.startswith("ui"))
    report = msgspec.structs.replace(report, unsigned=tuple(unsigned))
    facts = _facts(report, texts, more) | {"beside": sorted(beside or {})}
    facts["values"] = _values(report, contents)
    if facts["changed"]:
        contents[DIFF] = facts["changed"].encode()
    for name in ("run.sh", "ISSUE.md", "README.md"):
        contents[name] = render(f"{name}.j2", **facts).encode()
    _finish(directory, report, contents)


def add(
    directory: Path, **answers: SinceRelease | WorkaroundSummary | tuple[Elsewhere, ...]
) -> Report:
    """Puts what else is known into a folder that nobody has changed: the report, with it.

    answers: fields of the report. Raises as `write`. repro.py must import no files beside it.
    """
    with placing():
        check_place(directory)
        report = read(directory)
        contents = {name: (directory / name).read_bytes() for name in report.files}
        texts = {n: c.decode(errors="replace") for n, c in contents.items() if n in FILES.values()}
        more = sorted(n for n in contents if n not in (*texts, *WRITTEN))
        report = msgspec.structs.replace(report, **answers)
        facts = _facts(report, texts, more) | {"beside": [], "values": _values(report, contents)}
        for name in ("ISSUE.md", "README.md"):
            contents[name] = render(f"{name}.j2", **facts).encode()
        _finish(directory, report, contents)
    return report


def placing() -> AbstractContextManager[None]:
    """Context in which no other process of this user's puts a folder anywhere.

    What was found of a place in it still holds when the folder comes there. Not reentrant.
    """
    return Locks(data_directory() / "made" / "locks").hold("places")


def _values(report: Report, contents: Mapping[str, bytes]) -> dict[str, str]:
    """The numbers of small tensors among the files, for a draft that is read without them."""
    import numpy as np

    from iree_pilot.pipeline.program import tensors

    raw: dict[str, tuple[list[int], str]] = {}
    for match in filter(None, map(_RAW.fullmatch, _typed(report))):
        raw[match["file"]] = [int(n) for n in match["shape"].split("x")[:-1]], match["dtype"]
    for one in report.wrong:
        raw[f"expected{one.index}.bin"] = [*one.shape], one.dtype
    found = {}
    for name, content in sorted(contents.items()):
        shape, dtype = raw.get(name, ([], ""))
        if name.endswith(".npy"):
            tensor = np.load(io.BytesIO(content), allow_pickle=False)
        elif dtype in ELEMENT_TYPES:
            tensor = tensors.decoded(content, dtype)[: math.prod(shape)].reshape(shape)
            if ELEMENT_TYPES[dtype].family == "float":
                tensor = tensor.astype(np.float64)
        else:
            continue
        if tensor.size <= _QUOTED_ELEMENTS:
            numbers = np.array2string(tensor, separator=", ", floatmode="unique")
            found[name] = " ".join(numbers.split())
    return found


def _finish(directory: Path, report: Report, contents: dict[str, bytes]) -> None:
    """Puts the report beside the contents, and all of it in its place."""
    complete = msgspec.structs.replace(
        report, files={n: hashlib.sha256(c).hexdigest() for n, c in sorted(contents.items())}
    )
    contents[REPORT] = msgspec.json.format(msgspec.json.encode(complete), indent=1) + b"\n"
    place = Path(os.path.realpath(directory))
    with outputs.writing(directory):
        check_place(place)
        _place(place, contents)
        own.remember(contents[REPORT])


def check_place(directory: Path) -> None:
    """Raises UsageError unless a reproducer may be written to `directory`."""
    if not outputs.directory(directory).exists():
        return
    names = sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if not path.is_dir() and path.parent.name != "__pycache__"
    )
    if not any(directory.iterdir()):
        return
    try:
        known = read(directory).files
    except UsageError:
        raise UsageError(
            f"{directory} is not empty and holds no reproducer",
            advice="Choose another folder with -o DIR.",
        ) from None
    for name in names:
        path = directory / name
        kept = path.is_file() and known.get(name) == hashlib.sha256(path.read_bytes()).hexdigest()
        if not kept and name != REPORT:
            how = "was changed since" if name in known else "is not of"
            raise UsageError(
                f"{path} {how} the reproducer that was written there",
                advice="Move it away first, or choose another folder with -o DIR.",
            )


def copy(folder: Path, directory: Path) -> None:
    """Copies a reproducer that nobody has changed to `directory`, whole or not at all."""
    place = Path(os.path.realpath(directory))
    with outputs.writing(directory):
        names = (*read(folder).files, REPORT)
        _place(place, {name: (folder / name).read_bytes() for name in names})


def read(directory: Path) -> Report:
    """The report of a reproducer folder; raises UsageError where there is none."""
    return read_with_content(directory)[1]


def read_with_content(directory: Path) -> tuple[bytes, Report]:
    """(content of report.json, the report in it); raises as `read`."""
    file = directory / REPORT
    links.check(directory)
    if directory.exists() and not directory.is_dir():
        raise UsageError(
            f"{directory} is not a folder",
            advice="Name a folder that `iree-pilot bisect` has written.",
        )
    if file.is_symlink() or (file.exists() and not file.is_file()):
        what = f"a link to {file.readlink()}" if file.is_symlink() else "not a file"
        raise UsageError(
            f"{file} is {what}: a reproducer has its files itself",
            advice="Name a folder that `iree-pilot bisect` has written.",
        )
    try:
        check_size(file, LARGEST_REPORT_BYTES)
        content = file.read_bytes()
        return content, msgspec.json.decode(content, type=Report)
    except FileNotFoundError:
        raise UsageError(
            f"there is no {REPORT} in {directory}",
            advice="Name a folder that `iree-pilot bisect` has written.",
        ) from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise UsageError(
            f"cannot read {file}: {fault}",
            advice="Name a folder that `iree-pilot bisect` has written.",
        ) from fault


def check_size(file: Path, most: int = LARGEST_WHOLE_BYTES) -> None:
    """Raises UsageError for a file that is larger than any that is written: before it is read."""
    if file.is_file() and (size := file.stat().st_size) > most:
        raise UsageError(
            f"{file} has {size:,} bytes: a reproducer's folder has no such file of more than "
            f"{most:,}",
            advice="It was not written by iree-pilot.",
        )


def inputs_of(report: Report, directory: Path) -> tuple[str, ...]:
    """The inputs that repro.mlir in `directory` is run with, as `--input` of ours takes them.

    Empty for a program that only compiles.
    """
    return tuple(placed(word, directory) for word in _typed(report))


def _typed(report: Report) -> list[str]:
    """The words of repro.mlir's commands that are inputs, in the program's types."""
    level = next((one for one in report.levels if one.name == "mlir"), None)
    commands = (*level.before, level.command) if level else ()
    return [word for command in commands for word in typed(report, command)]


def compares_types(report: Report) -> bool:
    """True if its commands compare integers with an .npy file, as those of earlier releases did:
    the types never agree (see `_NPY_TYPES`), so that right numbers would look wrong."""
    exact = {one.index for one in report.wrong if one.own_error is None}
    words = [
        [
            word
            for word in (*(w for c in one.before for w in c), *one.command)
            if word.startswith(EXPECTED)
        ]
        for one in report.levels
    ]
    return any(
        index in exact and word.endswith(".npy") for own in words for index, word in enumerate(own)
    )


def typed(report: Report, command: Sequence[str]) -> list[str]:
    """The words of a command that are inputs, in the types that the program has."""
    return [
        _SIGNLESS.sub(r"\1u\2=", word) if index in report.unsigned else word
        for index, word in enumerate(given(command))
    ]


def given(command: Sequence[str]) -> list[str]:
    """The words of a command that are inputs."""
    return [word for word in command if word.startswith("--input=")]


def placed(word: str, directory: Path) -> str:
    """The value of `--input=`, with its file, if it has one, in `directory`."""
    kind, at, file = word.removeprefix("--input=").partition("@")
    return f"{kind}@{directory.absolute() / file}" if at else kind


def tries(rate: float) -> int:
    """Number of runs after which a failure with this rate is considered gone."""
    if not 0 < rate < 1:
        return 1
    return min(_MOST_TRIES, math.ceil(math.log(_SURPRISE) / math.log(1 - rate)))


def _content(name: str, value: str | bytes | Path, most: int = LARGEST_BYTES) -> bytes:
    size = value.stat().st_size if isinstance(value, Path) else len(value)
    if size > most:
        raise UsageError(
            f"{name} of the reproducer would have {size:,} bytes, as many as weights have",
            advice="Turn large constants and inputs into arguments, splats or smaller shapes; "
            f"at most {most:,} bytes are handed on.",
        )
    if isinstance(value, Path):
        return value.read_bytes()
    return value.encode() if isinstance(value, str) else value


def tensor_file(stem: str, tensor: Tensor) -> str:
    """The name of a tensor's file in a folder."""
    return f"{stem}{'.npy' if _has_header(tensor) else '.bin'}"


def _has_header(tensor: Tensor) -> bool:
    return tensor.dtype in _NPY_TYPES and tensor.passed == "view"


def tensor_words(stem: str, tensor: Tensor) -> str:
    """A tensor in such a file as the runtime's tools take it."""
    file = tensor_file(stem, tensor)
    return f"@{file}" if file.endswith(".npy") else f"{_spelled(tensor)}=@{file}"


def _spelled(tensor: Tensor) -> str:
    """The type of a tensor as modules return it: without a sign."""
    return runtime.spelled(msgspec.structs.replace(tensor, dtype=tensor.dtype.removeprefix("u")))


def _input_words(index: int, given: Input) -> str:
    tensor = given.tensor
    if tensor.passed == "null":
        return runtime.written(tensor, Path())
    if tensor.passed == "scalar":
        return "1" if given.data is None else runtime.number(tensor.dtype, given.data)
    if given.data is None:
        return f"{_spelled(tensor)}=1"
    # A bare buffer has no header.
    words = tensor_words(f"input{index}", tensor)
    return f"&{words}" if tensor.passed == "buffer" else words


def tensor_content(tensor: Tensor, raw: bytes) -> bytes:
    """Content of a tensor's file: raw bytes, or with numpy's header."""
    if not _has_header(tensor):
        return raw
    import numpy as np

    from iree_pilot.pipeline.program.tensors import numpy_dtype

    out = io.BytesIO()
    values = np.frombuffer(raw, numpy_dtype(tensor.dtype))
    np.save(out, values.reshape(tensor.shape), allow_pickle=False)
    return out.getvalue()


def _place(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Puts a new folder in place of the old one."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        made.chmod(0o755)
        for name, content in contents.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        (made / SCRIPT).chmod(0o755)
        if directory.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{directory.name}-old-", dir=directory.parent))
            directory.rename(old)
            try:
                made.rename(directory)
            except OSError:
                old.rename(directory)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            made.rename(directory)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(made)
        raise


def script(report: Report, names: Sequence[str]) -> str:
    """The text of run.sh for a folder with these files, of which repro.py imports none.

    Raises ValueError or KeyError for a report that is none of a failure.
    """
    texts = dict.fromkeys((name for name in names if name in FILES.values()), "")
    more = sorted(n for n in names if n not in (*texts, *WRITTEN))
    return render(f"{SCRIPT}.j2", **_facts(report, texts, more), beside=[])


def _facts(report: Report, texts: Mapping[str, str], inputs: list[str]) -> dict[str, Any]:
    """Variables of the templates."""
    failure = report.failure
    known = {one.name: one for one in report.levels}
    shown = [known[name] for name, file in FILES.items() if file in texts and name in known]
    if not shown:
        raise ValueError("no level of the report has its file")
    memory = report.memory_limit
    visible, folded = issue.shown(failure.message)
    changed = "".join(one.changed for one in shown)
    if report.origin is not None:
        changed = changed or report.origin.phase.changed
    return {
        "report": report,
        "failure": failure,
        "levels": shown,
        "left_out": [one for one in report.levels if one.file not in texts],
        "texts": {n: t for n, t in texts.items() if len(t) <= _QUOTED_CHARACTERS},
        "inputs": inputs,
        "named_flags": [f"`{flag}`" for flag in issue.named_flags(failure, report.flags)],
        "marks": marks(failure),
        "memory_words": MEMORY,
        "stack_mark": STACK,
        "serial": SERIAL if failure.kind == "crash" and failure.stack else "",
        "seconds": max(1, math.ceil(report.time_limit)),
        "address_space": memory // 1024 + _ADDRESS_SPACE_KIB if memory else 0,
        "tries": tries(report.rate),
        "revision": report.revision.partition("+")[0],
        "frames": [_shortened(frame) for frame in failure.stack[:_FRAMES]],
        "frames_left": max(0, len(failure.stack) - _FRAMES),
        "components": issue.components(report.failing_phase),
        "title": issue.title(
            failure,
            "" if report.shared else report.target,
            report.op_names,
            shown[0].command[0],
            report.wrong,
        ),
        "message": visible,
        "whole_message": folded,
        "tools": {c[0] for one in shown for c in (*one.before, one.command)},
        "titles": _TITLES | ({"mlir": "Whole program"} if report.whole else {}),
        "fence": issue.fence(
            "\n".join([failure.message, *failure.stack, *texts.values(), changed])
        ),
        "changed": changed,
        "diff": DIFF,
        "untargeted": UNTARGETED,
        "quoted": _QUOTED_CHARACTERS // 2,
        "KILL": signal.SIGKILL.value,
        "XFSZ": signal.SIGXFSZ.value,
    }


def render(template: str, **facts: Any) -> str:
    return str(_templates().get_template(template).render(facts))


@functools.cache
def _templates() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # shell and Markdown; what is quoted is quoted by the filters
    )
    environment.filters |= {
        "quote": _quoted,
        "typed": shlex.join,
        "script": _script_command,
        "count": plural.count,
        "is_long": issue.is_long,
        "size": issue.size,
        "sentence": lambda text: text[:1].upper() + text[1:].rstrip(".") + ".",
    }
    return environment


def _script_command(command: Sequence[str]) -> str:
    """A command of run.sh: the tool is a variable there."""
    tool = command[0].replace("-", "_")
    return " ".join([f'"${tool}"', *map(_quoted, command[1:])])


def _quoted(word: str) -> str:
    """A word for the shell, in double quotes where single ones would have to be broken up."""
    plain = "'" in word and not re.search(r'["$`\\!]', word)
    return f'"{word}"' if plain else shlex.quote(word)


def _shortened(frame: str) -> str:
    return frame if len(frame) <= _FRAME_CHARACTERS else frame[: _FRAME_CHARACTERS - 3] + "..."
