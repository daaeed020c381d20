"""MLIR of a stranger: objects, machine code, passes by name, linkers, in whatever spelling."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.toolchain.toolchain import installed
from iree_pilot.repro.trust import programs

MAIN = """\
  func.func @main(%a: tensor<4x4xf32>, %b: tensor<4x4xf32>) -> tensor<4x4xf32> {
    %e = tensor.empty() : tensor<4x4xf32>
    %m = linalg.matmul ins(%a, %b : tensor<4x4xf32>, tensor<4x4xf32>)
        outs(%e : tensor<4x4xf32>) -> tensor<4x4xf32>
    return %m : tensor<4x4xf32>
  }
"""
#: What writes FILE when it is compiled: %s is an attribute of the function.
WRITING = """
util.func private @f(%%a: tensor<4xf32>) -> tensor<4xf32>
    attributes {inlining_policy = #util.inline.never, %s} {
  %%0 = arith.addf %%a, %%a : tensor<4xf32>
  util.return %%0 : tensor<4xf32>
}
util.func public @main(%%a: tensor<4xf32>) -> tensor<4xf32> {
  %%0 = util.call @f(%%a) : (tensor<4xf32>) -> tensor<4xf32>
  util.return %%0 : tensor<4xf32>
}
"""
PASS = '"snapshot-op-locations{filename=FILE}"'
STATIC = """\
#t = #hal.executable.target<"llvm-cpu", "static", {KEYS, cpu = "generic",
  data_layout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128",
  native_vector_size = 32 : i64, target_triple = "x86_64-unknown-linux-gnu"}>
module attributes {hal.device.targets = [#hal.device.target<"local", [#t]> : !hal.device]} {
"""
WRITES = {
    "a pipeline": WRITING % f"preprocessing_pipeline = #util.preprocessing_pipeline<{PASS}>",
    "in the dialect's form": WRITING
    % f"preprocessing_pipeline = #util<preprocessing_pipeline<{PASS}>>",
    "by another name": f"#p = #util<preprocessing_pipeline<{PASS}>>\n"
    + WRITING % "preprocessing_pipeline = #p",
    "with its key escaped": WRITING
    % rf'"preprocessing\5fpipeline" = #util.preprocessing_pipeline<{PASS}>',
    "with a comment": WRITING
    % f"preprocessing_pipeline // a\r = #util.preprocessing_pipeline // b\n <{PASS}>",
    "a static library": STATIC.replace(
        "KEYS", 'link_embedded = false, link_static = true, static_library_output = "FILE"'
    )
    + MAIN
    + "}\n",
    "a static library, escaped": STATIC.replace(
        "KEYS",
        r'"link\5fembedded" = false, "l\69nk_static" = true, "static_l\69brary_output" = "FILE"',
    )
    + MAIN
    + "}\n",
}


@pytest.mark.real
@pytest.mark.parametrize("text", WRITES.values(), ids=WRITES)
def test_what_the_compiler_writes_files_for_is_refused(tmp_path: Path, text: str) -> None:
    written = tmp_path / "written.o"
    program = tmp_path / "program.mlir"
    program.write_text(text.replace("FILE", str(written)))
    compiler = installed().compiler
    flags = ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"]
    flags = [] if "hal.device.targets" in text else flags
    done = subprocess.run(
        [compiler, program, *flags, "-o", "/dev/null"], capture_output=True, check=False
    )
    if "// a" not in text:  # whether a release takes the comment does not matter
        assert written.exists(), done.stderr
    for printed in (False, True):
        assert programs.refused(program.read_bytes(), printed=printed)


#: What is refused, also where passes only print what they make of it.
ANYWHERE = {
    "an object": '#hal.executable.object<{path = "f.o"}>',
    "an object in the dialect's form": "#hal<executable.objects<{#t = [#x]}>>",
    "escaped": r'"hal.dispatch.extern"() <{x = "#hal<exec\75table.object<{}>>"}>',
    "escaped twice": r'"hal.dispatch.extern"() <{x = "exec\5c75table.object"}>',
    "a binary": '"hal.executable.binary"() {data = dense<0> : tensor<4xi8>} : () -> ()',
    "a binary of the default dialect": "executable.binary public @x",
    "an object of a GPU": 'gpu.binary @k [#gpu.object<#nvvm.target, "x">]',
    "assembly": r'"llvm.inline\5fasm"(%x) <{asm_string = "syscall"}>',
    "assembly of a GPU": '"nvvm.inline_ptx"() <{ptxCode = "x"}>',
    "a pipeline of code generation": '#iree_codegen.pass_pipeline<"x">',
    "a pipeline to run again": '{-# external_resources: {mlir_reproducer: {pipeline: "x"}} #-}',
    "a script": "transform.named_sequence @f(%a: !transform.any_op) {}",
    "a script in the generic form": '"transform.sequence"() ({}) : () -> ()',
    "a script in the generic form, escaped": r'"tr\61nsform.sequence"(%a) ({}) : () -> ()',
    "a script after a number": "%0transform.yield %1",
    "a script after a comment": "// a\rtransform.sequence failures(propagate) {}",
    "a script after a string": r'x = "\"" transform.sequence failures(propagate) {}',
    "a script after what looks like a resource": "// <\n transform.sequence failures(propagate) {}",
    "a script after what looks like torch's": '// torch.operator\n"transform.sequence"() ({})',
    "a script after torch's as a name": '@torch.operator "transform.sequence"() ({})',
    "a script before a comment": '"transform.sequence" // x\n () ({})',
    "a linker of a triple": '{target_triple = "wasm32-unknown-unknown"}',
    "a script that is in binary": "iree_codegen.tuning_spec_mlirbc = dense<1> : vector<4xi8>",
    "a type of scripts": "(!transform<any_op>) -> ()",
    "a dialect of its own": "irdl.dialect @x {}",
    "patterns": "pdl.pattern @x : benefit(1) {}",
    "the system's linker": '#hal.executable.target<"llvm-cpu", "system-elf-x86_64">',
    "the other linker": "{link_embedded = false}",
    "a static library": '{"static_library\\5foutput" = "x"}',
    "bytecode": "ML\xefR\x01",
}
#: What is refused where it would be linked or run.
LINKED = {
    "another compiler's functions": "llvm.func @system(!llvm.ptr)",
    "a loader, as a function": "util.func private @hal.executable.create(!hal.device)",
    "a loader, as a name": 'util.func private @"hal.executabl\\65.create"(!hal.device)',
    "a loader, imported": '"vm.import"() <{sym_name = "hal.executable.create"}> : () -> ()',
    "a loader, by an attribute": 'func.func private @x() attributes {vm.import.module = "hal"}',
    "a loader of the local kind": "hal_loader.executable.load format(%f)",
    "a file": '#hal.executable.target<"x", "y", {some_path = "/etc/passwd"}>',
    "a file behind a comment": '{"file" // x\n = "/etc/passwd"}',
    "objects": 'hal.dispatch.extern "x"(%a) objects({})',
}
HONEST = (
    "// iree-compile repro.mlir --pass-pipeline='builtin.module(transform-interpreter)'\n",
    "module @m attributes {my.key = 1 : i32, torch.some_unit} {}",
    '%0 = torch.operator "custom.op"(%a) : (!torch.vtensor<[2],f32>) -> !torch.int',
    '%0 = "stablehlo.add"(%a, %b) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>',
    'loc("llvm.part"("/home/me/a.py":1:2))\n#loc1 = loc("x.y"(#loc2))',
    "arith.constant dense_resource<torch_tensor_4_torch.float32> : tensor<4xf32>\n"
    '{-# dialect_resources: {builtin: {torch_tensor_4_torch.float32: "0x00"}} #-}',
    'util.func private @"transform.x"(%a: i32)\n util.call @my.function(%a) : (i32) -> ()',
    'util.global private @w = #stream.parameter.named<"model"::"a.weight"> : tensor<4xf32>',
    "%x = arith.constant 1.0e5 : f32\n%1 = affine.apply affine_map<(d0) -> (d0)>(%0)",
)


@pytest.mark.parametrize("text", ANYWHERE.values(), ids=ANYWHERE)
def test_more_than_operations_is_refused_anywhere(text: str) -> None:
    for printed in (False, True):
        assert programs.refused(text.encode("latin-1"), printed=printed)


@pytest.mark.parametrize("text", LINKED.values(), ids=LINKED)
def test_more_is_refused_where_it_would_be_linked(text: str) -> None:
    assert programs.refused(text.encode())
    assert not programs.refused(text.encode(), printed=True)


@pytest.mark.parametrize("text", HONEST)
def test_what_programs_have_is_taken(text: str) -> None:
    assert programs.refused(text.encode()) == ""


@given(st.text(st.sampled_from('%#!@"\\/\n\r <>=,(){}0x.a_-:'), max_size=60))
def test_no_text_before_it_hides_an_attribute_that_links(text: str) -> None:
    assert programs.refused(f"{text}#hal<executable.objects<{{}}>>".encode())


@given(st.text(st.sampled_from('%#!@"\\/\n\r >=,(){}0x.a_-:'), max_size=60))
def test_no_text_before_it_hides_an_operation(text: str) -> None:
    """Each line but what an angle bracket opens begins anew for the compiler's lexer."""
    for op in ("transform.yield %a", '"transform.yield"(%a)', '"tr\\61nsform.yield"()'):
        assert programs.refused(f"{text}\n{op}".encode())


@pytest.mark.slow
def test_what_is_long_is_read_in_time() -> None:
    for text in ("file" + "/" * 2**20, "file//" * 2**12, "path" + " " * 2**20, "a." * 2**19):
        programs.refused(text.encode())
    assert programs.refused(b'x = dense<"0x' + b"AB" * 2**21 + b'">') == ""


@pytest.mark.real
@pytest.mark.parametrize("form", [(), ("--mlir-print-op-generic",), ("--mlir-print-debuginfo",)])
def test_what_the_compiler_makes_of_an_honest_program_is_taken(
    tmp_path: Path, form: tuple[str, ...]
) -> None:
    """Each is what a reproducer may hold: from the source to kernels before they are linked."""
    (tmp_path / "a.mlir").write_text(MAIN)
    flags = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu")
    subprocess.run(
        [
            installed().compiler,
            tmp_path / "a.mlir",
            *flags,
            *form,
            f"--dump-compilation-phases-to={tmp_path}/phases",
            "-o",
            "/dev/null",
        ],
        check=True,
    )
    seen = {}
    for file in (tmp_path / "phases").iterdir():
        phase = file.name.split(".")[2]
        seen[phase] = [programs.refused(file.read_bytes(), printed=p) for p in (False, True)]
    assert seen.pop("executable-targets")[1] == ""
    assert "has machine code" in seen.pop("hal")[0]
    assert "has machine code" in seen.pop("vm")[0]
    assert len(seen) > 7
    assert {phase: why for phase, why in seen.items() if any(why)} == {}
