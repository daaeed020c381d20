"""Wrong usage, row by row: the nightly, its configuration and its history."""

from __future__ import annotations

import pytest
from wrong_usage import MLIR, Refusals, Wrong, rows

HEAD = '[matrix]\nmodels = ["a.mlir"]\ntargets = ["llvm-cpu"]\n'
FILES: dict[str, str | bytes] = {
    "a.mlir": MLIR,
    "good.toml": HEAD,
    "jobs.toml": f"{HEAD}[schedule]\njobs = {10**20}\n",
    "key.toml": HEAD.replace("models", "modells"),
    "flag.toml": f'{HEAD}flags = ["--iree-opt-levle=O1"]\n',
    "value.toml": f'{HEAD}flags = ["--iree-opt-level=O9"]\n',
    "include.toml": f'{HEAD}[[include]]\nflags = ["--iree-opt-levle=O1"]\n',
    "own-flag.toml": f'{HEAD}flags = ["--compile-to=flow"]\n',
    "no-toml.toml": "[matrix\n",
    "empty.toml": "",
    "models.toml": '[matrix]\ntargets = ["llvm-cpu"]\n',
    "targets.toml": '[matrix]\nmodels = ["a.mlir"]\n',
    "gone-model.toml": HEAD.replace("a.mlir", "gone.mlir"),
    "target.toml": HEAD.replace("llvm-cpu", "vulcan"),
    "architecture.toml": HEAD.replace("llvm-cpu", "hip:gfx9999"),
    "release.toml": f'{HEAD}releases = ["three"]\n',
    "limit.toml": f'{HEAD}time_limit = "soon"\n',
    "memory.toml": f'{HEAD}memory_limit = "1KB"\n',
    "type.toml": HEAD.replace('["a.mlir"]', '"a.mlir"'),
    "dtype.toml": HEAD.replace("a.mlir", "llama:tiny") + 'dtypes = ["f31"]\n',
    "field.toml": HEAD.replace("a.mlir", "llama:tiny") + "fields = { layrs = 1 }\n",
    "negative.toml": f"{HEAD}seed = -1\n",
    "seed.toml": f"{HEAD}seed = {2**63 - 1}0\n",
    "repeats.toml": f"{HEAD}repeats = 0\n",
    "exclude.toml": f'{HEAD}[[exclude]]\ntargets = ["hip"]\n',
    "binary.toml": bytes(range(256)),
    "notes.txt": "what I did today\n" * 100,
    "folder/": "",
}


@pytest.mark.real
@rows(
    Wrong("nightly run -c gone.toml", ("cannot read gone.toml: No such file", "Name a file")),
    Wrong("nightly run -c folder", ("'--config'", "'folder' is a directory")),
    Wrong("nightly run -c binary.toml", ("cannot read binary.toml: it is not UTF-8",)),
    Wrong("nightly run -c no-toml.toml", ("no-toml.toml:1: this is no TOML", "toml.io")),
    Wrong("nightly run -c empty.toml", ("empty.toml:1: the key 'matrix' is missing",)),
    Wrong("nightly run -c key.toml", ("key.toml:2: there is no key 'modells'", "models?")),
    Wrong("nightly run -c models.toml", ("no models are named", "[matrix]")),
    Wrong("nightly run -c targets.toml", ("no targets are named", "[matrix]")),
    Wrong("nightly run -c gone-model.toml", ("gone-model.toml:2: no file gone.mlir",)),
    Wrong("nightly run -c target.toml", ("target.toml:3: unknown target 'vulcan'", "vulkan?")),
    Wrong("nightly run -c architecture.toml", ("architecture.toml:3:", "gfx9999", "gfx942")),
    Wrong("nightly run -c release.toml", ("release.toml:4: 'three' is not a release",)),
    Wrong("nightly run -c flag.toml", ("flag.toml:4:", "no flag --iree-opt-levle", "opt-level?")),
    Wrong("nightly run -c flag.toml --dry-run", ("flag.toml:4:", "no flag --iree-opt-levle")),
    Wrong("nightly run -c include.toml", ("include.toml:5:", "no flag --iree-opt-levle")),
    Wrong("nightly run -c value.toml", ("value.toml:4:", "O0/O1/O2/O3")),
    Wrong("nightly run -c own-flag.toml", ("own-flag.toml:4: --compile-to=flow cannot be given",)),
    Wrong("nightly run -c jobs.toml", ("jobs.toml:5: schedule.jobs", "<= 4096")),
    Wrong("nightly run -c limit.toml", ("limit.toml:4: time_limit: 'soon' is not a duration",)),
    Wrong("nightly run -c memory.toml", ("memory.toml:4: memory_limit: '1KB' is less memory",)),
    Wrong("nightly run -c type.toml", ("type.toml:2: matrix.models: Expected a list",)),
    Wrong("nightly run -c dtype.toml", ("dtype=f31", "f32|f16|bf16")),
    Wrong("nightly run -c field.toml", ("no field 'layrs'", "layers?")),
    Wrong("nightly run -c negative.toml", ("negative.toml:4: matrix.seed", ">= 0")),
    Wrong("nightly run -c seed.toml", ("seed.toml:4: matrix.seed", "<= 9223372036854775807")),
    Wrong("nightly run -c repeats.toml", ("repeats.toml:4: matrix.repeats", ">= 1")),
    Wrong("nightly run -c exclude.toml", ("[[exclude]] fits no case", "or remove it")),
)
def test_a_configuration(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)


@rows(
    Wrong("nightly frob", ("no command 'frob'", "Known:")),
    Wrong("nightly run -c good.toml --only 'a and'", ("--only 'a and'", "An example")),
    Wrong("nightly run -c good.toml --only nosuch", ("--only 'nosuch' fits none", "--dry-run")),
    Wrong("nightly run -c good.toml --shard 3", ("--shard 3: no such shard", "1/5")),
    Wrong("nightly run -c good.toml --shard 0/2", ("--shard 0/2: no such shard", "1/5")),
    Wrong("nightly run -c good.toml --shard 3/2", ("--shard 3/2: no such shard", "1/5")),
    Wrong("nightly run -c good.toml --markdown no/x.md", ("no directory no", "Make it first")),
    Wrong("nightly run -c good.toml --artifacts no/x", ("no directory no", "Make it first")),
    Wrong("nightly run -c good.toml --database no/x.db", ("no directory no", "Make it first")),
    Wrong("nightly merge notes.txt --database no/x.db", ("no directory no", "Make it first")),
    Wrong("nightly export no/x.db", ("no directory no", "Make it first")),
    Wrong("nightly export ''", ("'FILE'", "it is empty")),
    Wrong(
        "nightly run -c good.toml --markdown x --junit ./x",
        ("--markdown and --junit both name ./x", "another place"),
    ),
    Wrong(
        "nightly run -c good.toml --markdown good.toml",
        ("--config and --markdown both name good.toml", "another place"),
    ),
    Wrong(
        "nightly run -c good.toml --artifacts x --database x",
        ("--database and --artifacts both name x", "another place"),
    ),
    Wrong("nightly report --database x.db -o x.db", ("--database and --output both name x.db",)),
    Wrong("nightly export x.db --database x.db", ("--database and FILE both name x.db",)),
    Wrong(
        "nightly run -c good.toml --database new.db --scheduler nope",
        ("'nope' is no address of a scheduler", "tcp://HOST:8786"),
    ),
    Wrong("nightly run -c good.toml --markdown ''", ("'--markdown'", "it is empty")),
    Wrong("nightly run -c good.toml --junit folder", ("folder: it is a directory", "in it")),
    Wrong("nightly run -c good.toml --artifacts a.mlir", ("'--artifacts'", "is a file")),
    Wrong("nightly run -c good.toml --database folder", ("'--database'", "is a directory")),
    Wrong(
        "nightly run -c good.toml --database notes.txt", ("notes.txt is no history", "not there")
    ),
    Wrong("nightly run -c good.toml --release three", ("'three' is not a release",)),
    Wrong("nightly run -c good.toml --memory-limit 1KB", ("'1KB' is less memory", "4GiB")),
    Wrong("nightly status --limit 0", ("'--limit'", "0 is not in the range")),
    Wrong("nightly status --database notes.txt", ("notes.txt is no history",)),
    Wrong("nightly report", ("there is no history", "iree-pilot nightly run")),
    Wrong("nightly report -c gone.toml", ("cannot read gone.toml: No such file", "Name a file")),
    Wrong("nightly status -c key.toml", ("key.toml:2: there is no key 'modells'", "models?")),
    Wrong("nightly report -c good.toml", ("there is no history", "iree-pilot nightly run")),
    Wrong("nightly report x", ("'x' is not a valid integer",)),
    Wrong("nightly report --format html", ("'--format'", "'html'", "markdown")),
    Wrong("nightly report -o no/x.md", ("no directory no", "Make it first")),
    Wrong("nightly report --database gone.db", ("there is no history gone.db", "--database")),
    Wrong(
        "nightly expect -c good.toml --accept", ("there is no history", "iree-pilot nightly run")
    ),
    Wrong("nightly expect -c good.toml --reason x", ("say what is accepted", "Add --accept")),
    Wrong(
        "nightly expect -c good.toml --accept --reason x --expires 2020-01-01",
        ("--expires 2020-01-01 is past", "the last day"),
    ),
    Wrong(
        "nightly expect -c good.toml --accept --reason x --expires soon",
        ("'--expires'", "'soon'", "%Y-%m-%d"),
    ),
    Wrong("nightly export", ("Missing argument 'FILE'",)),
    Wrong("nightly merge gone.db", ("cannot merge gone.db: there is no such file",)),
    Wrong("nightly merge notes.txt", ("cannot merge notes.txt", "nightly export")),
)
def test_a_night(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)
