"""IREE's reducer as a command: `bench_reduce.py LIBRARY [OPTIONS] SCRIPT FILE`.

The compiler's wheel has no such binary; its library exports what that would call.
"""

from __future__ import annotations

import ctypes
import sys


def main(library: str, *arguments: str) -> int:
    argv = [b"iree-reduce", *(argument.encode() for argument in arguments)]
    status: int = ctypes.CDLL(library).ireeReduceRunMain(
        len(argv), (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
    )
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
