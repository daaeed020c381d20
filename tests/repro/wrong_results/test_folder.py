"""A folder that shows wrong numbers tells a right program from a wrong one, of every type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fake.reports import report

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Tensor
from iree_pilot.pipeline.targets.backends import llvm_cpu
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, installed
from iree_pilot.repro.reproducer import verify
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Input
from iree_pilot.repro.reproducer.verify import check
from iree_pilot.repro.wrong_results import folder
from iree_pilot.repro.wrong_results.inputs import Settled
from iree_pilot.repro.wrong_results.wrong_record import Wrong

#: Types of a bit or a nibble are packed, f8E8M0FNU has no zero: no program returns wrong ones.
TYPES = tuple(n for n, e in ELEMENT_TYPES.items() if not e.bits and n != "f8E8M0FNU")
FLAGS = (*llvm_cpu.INTERPRETER, "--iree-input-demote-f64-to-f32=false")
WRONG = "func.func @main(%a: {0}, %b: {0}) -> {0} {{\n  return %b : {0}\n}}\n"
RIGHT = WRONG.replace("return %b", "return %a")

pytestmark = pytest.mark.real


def tensor(dtype: str, name: str, place: Path) -> Tensor:
    """Values that differ between the two inputs, and a large one, whose sign shows."""
    first, last = {"a": (1, 0), "b": (0, 1)}[name]
    values = np.array([first, 0, last]).astype(tensors.numpy_dtype(dtype))
    if ELEMENT_TYPES[dtype].family == "int":
        values[1] = np.iinfo(values.dtype).max
    (place / f"{name}.bin").write_bytes(tensors.encoded(values, dtype))
    return Tensor(dtype=dtype, shape=(1, 3), file=str(place / f"{name}.bin"))


def made(dtype: str, place: Path, expected: Tensor | None = None) -> Path:
    """A folder whose program returns its second input, and is expected to return the first."""
    a, b = (tensor(dtype, name, place) for name in "ab")
    exact = ELEMENT_TYPES[dtype].family in ("int", "bool")
    wrong = Wrong(
        index=0,
        dtype=dtype,
        shape=(1, 3),
        error=1.0,
        own_error=None if exact else 0.0,
        threshold=0.0 if exact else 0.25,
        size=1.0,
        wrong=2,
        count=3,
        limit="none",
        elements=(),
    )
    settled = Settled(
        function="main",
        inputs=(a, b),
        expected=(expected or a,),
        wrong=(wrong,),
        kept=6,
        elements=6,
    )
    given = [Input(one, Path(one.file)) for one in (a, b)]
    compared = folder.comparing(settled, "local-sync", given)
    level = bundle.level("mlir", FLAGS, run=compared.run, check=compared.check)
    about = report(diagnostics.mismatch("wrong", what="values"), level)
    about = msgspec.structs.replace(
        about, wrong=(wrong,), flags=FLAGS, release=installed().version, time_limit=60
    )
    text = WRONG.format(f"tensor<1x3x{dtype.removeprefix('u')}>")
    bundle.write(place / "made", about, {"repro.mlir": text}, given, data=compared.files)
    return place / "made"


def asked(place: Path, toolchain: Toolchain, *words: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", place / "run.sh", *words],
        env={
            "PATH": os.environ["PATH"],
            "IREE_COMPILE": str(toolchain.compiler),
            "IREE_RUN_MODULE": str(toolchain.tool("iree-run-module")),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("dtype", TYPES)
def test_right_numbers_do_not_reproduce_it(dtype: str, tmp_path: Path) -> None:
    toolchain, place = installed(), made(dtype, tmp_path)
    found = check(place, toolchain)
    assert found.same, found.why
    assert asked(place, toolchain)[0] == 0
    right = tmp_path / "right.mlir"
    right.write_text(RIGHT.format(f"tensor<1x3x{dtype.removeprefix('u')}>"))
    status, said = asked(place, toolchain, right)
    assert (status, "does not reproduce" in said) == (1, True), said
    assert f"`{tensor_name(place)}`: `" in (place / "ISSUE.md").read_text()


def test_indices_of_equal_values_are_not_compared_beside_others(tmp_path: Path) -> None:
    made("ui8", tmp_path)
    (one,) = bundle.read(tmp_path / "made").wrong
    a = tensor("ui8", "a", tmp_path)
    tied = msgspec.structs.replace(one, index=1, ties=True)
    both = Settled(
        function="main", inputs=(), expected=(a, a), wrong=(one, tied), kept=0, elements=0
    )
    compared = folder.comparing(both, "local-sync", ())
    assert compared.run[-2:] == (
        "--expected_output=1x3xi8=@expected0.bin",
        "--expected_output=(ignored)",
    )
    alone = msgspec.structs.replace(both, wrong=(tied,))
    assert folder.comparing(alone, "local-sync", ()).run[-1].endswith("expected1.bin")


def test_check_py_compares_integers_exactly(tmp_path: Path) -> None:
    line = folder._OutputLine("i8", 0.0)
    text = bundle.render("check.py.j2", outputs=[(0, "got0.bin", "expected0.bin", line)])
    earlier = text.replace(*folder._EARLIER)
    assert earlier != text and folder.only_compares(text) and folder.only_compares(earlier)
    compile(earlier, "check.py", "exec")
    (tmp_path / "check.py").write_text(text)
    (tmp_path / "got0.bin").write_bytes(np.array([-128], np.int8).tobytes())
    for expected, code in ((0, 1), (-128, 0)):
        (tmp_path / "expected0.bin").write_bytes(np.array([expected], np.int8).tobytes())
        done = subprocess.run([sys.executable, "check.py"], cwd=tmp_path, check=False)
        assert done.returncode == code


def tensor_name(place: Path) -> str:
    """The file of the expected numbers."""
    return next(name for name in bundle.read(place).files if name.startswith("expected"))


def test_a_folder_that_compares_types_shows_nothing(tmp_path: Path) -> None:
    """Earlier releases wrote integers as .npy, which the runtime takes for signed ones."""
    toolchain, place = installed(), made("i64", tmp_path)
    about = bundle.read(place)
    assert not bundle.compares_types(about)
    (level,) = about.levels
    command = tuple(w.replace("1x3xi64=@expected0.bin", "@expected0.npy") for w in level.command)
    level = msgspec.structs.replace(level, command=command)
    old = msgspec.structs.replace(about, levels=(level,))
    assert bundle.compares_types(old)
    np.save(tmp_path / "expected0.npy", np.array([[1, 0, 0]]))
    data = {"expected0.npy": (tmp_path / "expected0.npy").read_bytes()}
    given = [Input(tensor("i64", name, tmp_path), tmp_path / f"{name}.bin") for name in "ab"]
    text = WRONG.format("tensor<1x3xi64>")
    bundle.write(tmp_path / "old", old, {"repro.mlir": text}, given, data=data)
    found = check(tmp_path / "old", toolchain)
    assert not found.same
    assert "types are compared, and no numbers" in found.why
    assert asked(tmp_path / "old", toolchain)[0] == 125


@pytest.mark.parametrize("dtype", ["i64", "f8E5M2"])
def test_a_comparison_that_refuses_right_numbers_shows_nothing(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made(dtype, tmp_path)
    about = bundle.read(place)
    contents = {n: (place / n).read_bytes() for n in about.files if n not in bundle.WRITTEN}
    if dtype == "i64":
        monkeypatch.setattr(verify, "compared_types", lambda said: "")
        (level,) = about.levels
        words = [w.replace("_output=1x3xi64", "_output=1x3xsi64") for w in level.command]
        level = msgspec.structs.replace(level, command=tuple(words))
        about = msgspec.structs.replace(about, levels=(level,))
    else:
        end = b"sys.exit(1 if wrong else 0)"
        always = b"sys.exit(print('[FAILED] result[0]: element 0 is 0') or 1)"
        contents["check.py"] = contents["check.py"].replace(end, always)
    text = contents.pop("repro.mlir")
    bundle.write(tmp_path / "old", about, {"repro.mlir": text}, data=contents)
    found = check(tmp_path / "old", installed())
    assert not found.same
    assert "refuses the expected numbers themselves ([FAILED] result[0]: " in found.why
