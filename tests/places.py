"""Where the project's files are."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
CASES = TESTS / "cases"
BENCH = ROOT / "scripts" / "bench.py"
