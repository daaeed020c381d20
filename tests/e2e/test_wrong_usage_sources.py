"""Wrong usage, row by row: what SOURCE is, and what goes into it."""

from __future__ import annotations

import io
import os

import numpy
import pytest
from wrong_usage import INPUTS, MLIR, NET, Refusals, Wrong, rows

pytestmark = pytest.mark.real


def npy(*shape: int, dtype: str = "float32") -> bytes:
    file = io.BytesIO()
    numpy.save(file, numpy.zeros(shape, dtype))
    return file.getvalue()


FILES: dict[str, str | bytes] = {
    "a.mlir": MLIR,
    "empty.mlir": "",
    "empty.py": "",
    "empty.pt2": "",
    "empty.onnx": "",
    "binary.mlir": b"\x7fELF" + bytes(100),
    "prose.mlir": "Dear reader,\n",
    "net.py": NET + INPUTS,
    "reads.py": f"open('noext').read()\n{NET}{INPUTS}",
    "no_inputs.py": NET,
    "no_model.py": "def inputs():\n    return ()\n",
    "syntax.py": "x = 1\ndef model(:\n",
    "binary.py": bytes(range(256)),
    "cut.onnx": "not protobuf",
    "cut.pt2": "no zip",
    "model.tflite": "x",
    "noext": "x",
    "co:lon": "x",
    "colon:net.py": NET + INPUTS,
    "dir.npy/": "",
    "w.safetensors": "nothing of the kind",
    "w.irpa": "nothing of the kind",
    "w.gguf": "nothing of the kind",
    "w.bin": "x",
    "x24.npy": npy(2, 4),
    "ok.npy": npy(2, 3),
    "f64.npy": npy(2, 3, dtype="float64"),
    "bad.npy": "x",
    "dir.py/": "",
    "dir.mlir/": "",
    "folder/": "",
    "broken/report.json": "{",
    "foreign/report.json": '{"a": 1}',
    "checkpoint/config.json": '{"architectures": ["NoSuch"]}',
    "cut-checkpoint/config.json": "{",
    "list-checkpoint/config.json": "[]",
}


@rows(
    Wrong("run lama -t llvm-cpu", ("no model 'lama'", "Did you mean llama")),
    Wrong("run llama:tyni -t llvm-cpu", ("no preset 'tyni'", "Did you mean tiny?")),
    Wrong("run llama:tiny/prefil -t llvm-cpu", ("no part 'prefil'", "prefill?")),
    Wrong("bisect gone -t llvm-cpu", ("no model 'gone'",)),
    Wrong("run '' -t llvm-cpu", ("SOURCE is empty", "iree-pilot models")),
    Wrong("run . -t llvm-cpu", ("config.json",)),
    Wrong("run folder -t llvm-cpu", ("the directory is empty",)),
    Wrong("run gone.mlir -t llvm-cpu", ("no file gone.mlir", "Did you mean")),
    Wrong("trace gone.py -o out", ("no file gone.py", "net.py")),
    Wrong("workaround gone.onnx -t hip", ("no file gone.onnx",)),
    Wrong("ranges no/such/net.py", ("no file no/such/net.py", "Check the path")),
    Wrong("run empty.mlir -t llvm-cpu", ("empty.mlir is empty", "Was it written to the end?")),
    Wrong("compile empty.py -t llvm-cpu", ("empty.py is empty",)),
    Wrong("run empty.pt2 -t llvm-cpu", ("empty.pt2 is empty",)),
    Wrong("run empty.onnx -t llvm-cpu", ("empty.onnx is empty",)),
    Wrong("run gone:1/net.py -t llvm-cpu", ("no file gone:1/net.py", "Check the path")),
    Wrong("run colon:net.py:modell -t llvm-cpu", ("no function modell()", "colon:net.py:model?")),
    Wrong("run co:lon -t llvm-cpu", ("cannot tell what co:lon is", ".mlir")),
    Wrong(f"run {'x' * 300} -t llvm-cpu", ("no file can be called xxx", "too long")),
    Wrong("run dir.py -t llvm-cpu", ("dir.py is not a file", "Name the file")),
    Wrong("compile dir.mlir -t llvm-cpu", ("dir.mlir is not a file",)),
    Wrong("run model.tflite -t llvm-cpu", ("cannot tell what model.tflite is", ".onnx")),
    Wrong("run noext -t llvm-cpu", ("cannot tell what noext is", ".mlir")),
    Wrong("run cut.onnx -t llvm-cpu", ("cut.onnx is not a valid ONNX model",)),
    Wrong("run cut.pt2 -t llvm-cpu", ("cut.pt2 cannot be read as an exported", "torch.export")),
    Wrong("run cut.pt2 -t llvm-cpu --trust", ("cut.pt2 cannot be read", "no zip archive")),
    Wrong("run binary.mlir -t llvm-cpu", ("binary.mlir cannot be read as MLIR", "--release")),
    Wrong("bisect prose.mlir -t llvm-cpu", ("prose.mlir cannot be read as MLIR", "prose.mlir:1")),
    Wrong("run no_inputs.py -t llvm-cpu", ("no function inputs()", "tuple of tensors")),
    Wrong("trace no_inputs.py -o out", ("no function inputs()", "tuple of tensors")),
    Wrong("run no_model.py -t llvm-cpu", ("no function model()", "FILE.py:NAME")),
    Wrong("run net.py:modell -t llvm-cpu", ("no function modell()", "net.py:model?")),
    Wrong("run a.mlir:main -t llvm-cpu", ("no factory", "Name the file alone: a.mlir")),
    Wrong("run no.such.module:factory -t hip", ("no Python module no.such.module", "PYTHONPATH")),
    Wrong("run nosuch:factory -t llvm-cpu", ("no model 'nosuch'", "Python module of that name")),
    Wrong("run broken", ("cannot read broken/report.json", "iree-pilot bisect")),
    Wrong("run foreign -t llvm-cpu", ("cannot read foreign/report.json",)),
    Wrong("bisect broken -t llvm-cpu", ("cannot read broken/report.json",)),
    Wrong("verify gone", ("no report.json in gone", "iree-pilot bisect")),
    Wrong("verify folder", ("no report.json in folder",)),
    Wrong("verify a.mlir", ("a.mlir is not a folder",)),
    Wrong("verify broken", ("cannot read broken/report.json",)),
    Wrong("run checkpoint -t llvm-cpu", ("NoSuch", "LlamaForCausalLM", "model.py")),
    Wrong("run cut-checkpoint -t llvm-cpu", ("config.json is not JSON", "download")),
    Wrong("models lama", ("no model 'lama'", "llama")),
    Wrong("models llama tiny", ("one model at a time",)),
    Wrong("models check", ("models check needs an argument", "config.json")),
    Wrong("models check gone", ("checkpoint gone: does not exist",)),
    Wrong("models check folder", ("the directory is empty",)),
    Wrong("models check w.bin", ("w.bin is not JSON",)),
    Wrong("models check list-checkpoint/config.json", ('expected "architectures"',)),
    Wrong("models check checkpoint", ("NoSuch", "Known:")),
)
def test_a_source(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)


@rows(
    Wrong("run a.mlir -t llvm-cpu", ("cannot read a.mlir: permission denied", "chmod u+r")),
    Wrong("trace net.py -o out", ("cannot read net.py: permission denied",)),
)
def test_a_source_that_is_not_the_users_to_read(
    refusals: Refusals, wrong: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)  # root may read all
    refusals.check(wrong)


@rows(
    Wrong("run syntax.py -t llvm-cpu", ("SyntaxError", "syntax.py:2", "def model(:"), 1, out=True),
    Wrong("trace syntax.py -o out", ("does not trace", "syntax.py:2"), 1, out=True),
    Wrong("run binary.py -t llvm-cpu", ("null bytes", "binary.py:1"), 1, out=True),
)
def test_a_python_file_that_is_none_fails_before_torch_is_loaded(
    refusals: Refusals, wrong: Wrong
) -> None:
    refusals.check(wrong)


@rows(
    Wrong("run a.mlir -t llvm-cpu --set a=b", ("no fields to set", "zoo models")),
    Wrong("run a.mlir -t llvm-cpu --dtype f16", ("no fields to set", "dtype was given")),
    Wrong("run llama -t llvm-cpu --set layrs=2", ("no field 'layrs'", "layers?")),
    Wrong("run llama -t llvm-cpu --set layers=two", ("layers=two", "a number from 1 up")),
    Wrong("run llama -t llvm-cpu --set layers=0", ("layers=0", "a number from 1 up")),
    Wrong("run llama -t llvm-cpu --set layers", ("'--set'", "'layers' is not KEY=VALUE")),
    Wrong("run llama -t llvm-cpu --dtype f31", ("dtype=f31", "f32|f16|bf16")),
    Wrong("run a.mlir -t llvm-cpu --function mian", ("no function 'mian'", "main")),
    Wrong("run a.mlir -t llvm-cpu --weights gone.irpa", ("--weights", "no file gone.irpa")),
    Wrong("run a.mlir -t llvm-cpu --weights w.irpa", ("from", "w.irpa", "fetch or write it")),
    Wrong("run llama -t llvm-cpu --weights w.bin", ("w.bin: its name ends in none of",)),
    Wrong("run llama -t llvm-cpu --weights w.safetensors", ("w.safetensors", "write it again")),
    Wrong("trace llama --weights w.gguf -o out", ("w.gguf", "write it again")),
    Wrong("run net.py -t hip --weights model=w.irpa", ("only MLIR has scopes", "--weights")),
    Wrong("run a.mlir -t llvm-cpu --input x24.npy", ("dimension 1 is 4 where 3", "takes 2x3xf32")),
    Wrong("run a.mlir -t llvm-cpu --input f64.npy", ("dtype f64 where f32", "takes 2x3xf32")),
    Wrong("run a.mlir -t hip --input ok.npy --input ok.npy", ("got 2", "main(arg0: 2x3xf32)")),
    Wrong("run a.mlir -t llvm-cpu --input gone.npy", ("--input", "no file gone.npy")),
    Wrong("run a.mlir -t llvm-cpu --input bad.npy", ("bad.npy", "numpy.save")),
    Wrong("run a.mlir -t llvm-cpu --input folder", ("--input folder is neither", "x.npy")),
    Wrong("run a.mlir -t hip --input 2x3xf32=@w.bin", ("has 1 bytes, 2x3xf32 needs 24", "row-ma")),
    Wrong("run a.mlir -t llvm-cpu --input 2x3xf33=1", ("element type f33", "f32")),
    Wrong("run a.mlir -t llvm-cpu --input 2x3xf32=1,2", ("2 numbers where 6", "Give all")),
    Wrong("run a.mlir -t llvm-cpu --input 2x3xf32=-", ("is not a number", "For example")),
    Wrong("run a.mlir -t llvm-cpu --input 2xi8=300", ("i8 cannot hold 300", "another dtype")),
    Wrong("run a.mlir -t llvm-cpu --input 3", ("dtype i64 where f32", "takes 2x3xf32")),
    Wrong("run a.mlir -t llvm-cpu --expected-output gone.npy", ("no file gone.npy",)),
    Wrong("run net.py -t llvm-cpu --expected-output gone.npy", ("no file gone.npy",)),
    Wrong("run net.py -t llvm-cpu --expected-output bad.npy", ("bad.npy", "numpy.save")),
    Wrong("run net.py -t llvm-cpu --expected-output dir.npy", ("dir.npy is not a file",)),
    Wrong("bisect net.py -t llvm-cpu --expected-output folder", ("folder is neither", "x.npy")),
    Wrong("run a.mlir -t llvm-cpu --expected-output x24.npy", ("dimension 1 is 4 where 3",)),
    Wrong("run a.mlir -t llvm-cpu --generate 3", ("a.mlir is nothing that generates", "llama")),
    Wrong("run bert -t llvm-cpu --generate 2", ("bert is nothing that generates", "llama")),
    Wrong("run llama -t llvm-cpu --generate 0", ("--generate 0 generates nothing", "prompt")),
    Wrong("run llama -t llvm-cpu --generate -3", ("--generate -3 generates nothing",)),
    Wrong("run llama -t llvm-cpu --generate x", ("'--generate'", "'x' is not a valid integer")),
)
def test_what_goes_into_a_source(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)


@pytest.mark.real
@rows(
    Wrong("run net.py -t llvm-cpu --function mian", ("no function 'mian'", "main")),
    Wrong("compile reads.py -t hip -q -o noext", ("this command reads it",), torch=True),
)
def test_what_only_tracing_finds_out(refusals: Refusals, wrong: Wrong) -> None:
    refusals.check(wrong)
