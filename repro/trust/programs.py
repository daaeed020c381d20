"""MLIR of somebody else's: does it hold more than operations to compile?

A program can link in objects, bring machine code, name passes with options and files, or say with
which linker it is linked. It is looked at as the compiler's lexer reads it, before any compiler
does: whatever the release, nothing has to parse. Two checks, of which each would do:

- words that such attributes and operations cannot be written without, in any of the forms that
  MLIR has for them, are looked for in all of the text, strings and comments too;
- dialects are taken from a list: those of programs, not those that carry out other programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

#: How MLIR in its binary form begins.
_BYTECODE = b"ML\xefR"
#: Escaped bytes in MLIR's strings, such as the names of operations.
_ESCAPED = re.compile(rb"\\([0-9A-Fa-f]{2})")
#: Strings can hold strings, each with its own escapes.
_NESTED = 4

_WORDS = re.compile(
    rb"(?P<code>inline_?asm\w*|inline_?ptx|asm_string|executable\.(?:objects?|binary)\b"
    rb"|gpu\s*[.<]\s*(?:object|binary)\b)"
    rb"|(?P<passes>preprocessing_pipeline|pass_pipeline|mlir_reproducer|apply_registered_pass"
    rb"|transform_dialect_codegen|TransformDialectCodegen|codegen_spec|tuning_spec_mlirbc)"
    rb"|(?P<linker>link_embedded|link_static|static_library\w*|linker_output|compile_to_metallib"
    rb"|system-(?:elf|dll|dylib|wasm)[\w-]*|wasm(?:32|64)-)"
)
#: What a program that is run could load machine code with: the runtime's functions, by their names.
_LOADS = re.compile(
    rb"""[@"][\w.$]*?executable(?:_cache)?\.(?:create|load|prepare|try_load)|hal_loader"""
    rb"""|vm\.import\.(?:module|name)|vm\.name"""
)
_SAYS = {
    "code": "has machine code of its own",
    "passes": "runs passes that it names",
    "linker": "says what it is linked with, or where that is written",
}

#: Dialects and namespaces of attributes in programs that are compiled.
_DIALECTS = frozenset(
    re.findall(
        r"\w+",
        """
        affine amdgpu arith arm_neon arm_sme arm_sve bufferization builtin cf check chlo
        complex flow func gpu hal iree iree_codegen iree_cpu iree_encoding iree_gpu
        iree_input iree_linalg_ext iree_map iree_tensor_ext iree_ukernel iree_vector_ext
        index io_parameters linalg math memref mhlo ml_program nvgpu nvvm onnx pcf quant
        rocdl rocm scf sdy shape sparse_tensor spirv stablehlo stream tensor test
        tm_tensor torch torch_c tosa ub util vector vhlo vm vmvx x86 x86vector
        """,
    )
)
#: Those that a program may have besides where it is only printed by passes, never run.
_PRINTED = frozenset({"emitc", "hal_inline", "hal_loader", "llvm"})
_TOKEN = re.compile(
    r"""
    //[^\n\r]*
    | @(?:"[^"\\\n\v\f]*+(?:\\.[^"\\\n\v\f]*+)*+"|[A-Za-z_][\w$.]*+)
    | [%^](?:\d+|[A-Za-z$._-][\w$.-]*)
    | (?P<string>"[^"\\\n\v\f]*+(?:\\.[^"\\\n\v\f]*+)*+")
    | (?P<resources>\{-\#) | (?P<end>\#-\})
    | [#!](?:\d+|(?P<extended>[A-Za-z$._-][\w$.-]*))
    | (?P<bare>[A-Za-z_][\w$.]*+)
    """,
    re.ASCII | re.VERBOSE | re.DOTALL,
)
#: Space and comments; nothing of it is tried twice, however long it is.
_SPACE = r"(?:[\s\0]|//[^\n\r]*+)*+"
_NEXT = re.compile(rf"{_SPACE}(.?)", re.DOTALL)
_OPERANDS = re.compile(rf"{_SPACE}\({_SPACE}[%)]")
#: Attributes whose name says that they hold the name of a file or of a program.
_FILE = re.compile(
    rf"""(?<![A-Za-z0-9$])(?:command|dir|directory|file|filenames?|files|linker|objects|paths?|plugin
    |tool)(?![A-Za-z0-9$])[\w$.]*+"?{_SPACE}=(?!=)
    | \bobjects{_SPACE}\(""".encode(),
    re.VERBOSE,
)


def refused(content: bytes, *, printed: bool = False) -> str:
    """Anything that a program holds besides operations; empty if nothing.

    printed: passes are run on it, and nothing that comes of it is run.
    """
    if content.startswith(_BYTECODE):
        return "is in MLIR's binary form, which iree-pilot does not write"
    for text in _spelled(content):
        if found := _WORDS.search(text):
            return f"{_SAYS[str(found.lastgroup)]}: {found[0].decode(errors='replace')}"
        if not printed and (found := _LOADS.search(text)):
            return f"has machine code of its own: it calls {found[0].decode(errors='replace')}"
        if not printed and (found := _FILE.search(text)):
            return f"names a file: {found[0].decode(errors='replace')}"
    return _foreign(content.decode("latin-1"), _DIALECTS | _PRINTED if printed else _DIALECTS)


def _spelled(content: bytes) -> Iterator[bytes]:
    """The text, and what its strings stand for."""
    for _ in range(_NESTED):
        yield content
        plain = _ESCAPED.sub(lambda byte: bytes.fromhex(byte[1].decode()), content)
        if plain == content:
            return
        content = plain
    yield content


def _foreign(text: str, known: frozenset[str]) -> str:
    """The first thing of an unknown dialect in a program; empty if there is none."""
    before, end, inside = "", 0, False
    for match in _TOKEN.finditer(text):
        before = text[end : match.start()].strip()[-1:] or before
        end = match.end()
        kind = match.lastgroup
        if match[0].startswith("//"):
            continue
        if kind in ("resources", "end"):
            inside = kind == "resources"
        elif kind is not None:
            dialect = _dialect(match, kind, before, inside=inside)
            if dialect and dialect not in known:
                return f"has {_shown(match[0])}, of a dialect that is not known to only compute"
        before = match[0]
    return ""


def _dialect(match: re.Match[str], kind: str, before: str, *, inside: bool) -> str:
    """The dialect of an attribute, a type or an operation; empty for what is none of these.

    before: the word or the mark before it. inside: among the resources, which have names of their
    own.
    """
    if kind == "extended":
        name, dot, _ = match["extended"].partition(".")
        return name if dot or _next(match) == "<" else ""
    if kind == "bare":
        if "." not in match[0] or before == "<":
            return ""  # a resource, or an attribute whose dialect stands before
        key = _next(match) in ((":",) if inside else ("=", ",", "}"))
        return "" if key else match[0].partition(".")[0]
    if before != "torch.operator" and _OPERANDS.match(match.string, match.end()):
        name, dot, _ = _text(match[0]).partition(".")
        return name if dot else ""
    return ""


def _next(match: re.Match[str]) -> str:
    """The mark after a word, or after the space and comments there."""
    found = _NEXT.match(match.string, match.end())
    return found[1] if found else ""


def _text(token: str) -> str:
    """Text that a bare word or a string stands for."""
    plain = _ESCAPED.sub(lambda byte: bytes.fromhex(byte[1].decode()), token.encode("latin-1"))
    return plain.decode("latin-1").strip('"')


def _shown(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
