"""Records as notebooks show them."""

from __future__ import annotations

from pathlib import Path

import msgspec
from fake.commands import case

from iree_pilot.pipeline import html_table
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.numerics.judging import OutputComparison
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program import python_lines
from iree_pilot.repro.reproducer.folder.bundle import Level
from iree_pilot.repro.reproducer.known.found import Bisection, Found, Reproducer
from iree_pilot.repro.reproducer.verify import Check, Verification

EVIL = "<script>alert(1)</script>"
FAILURE = Failure(
    kind="diagnostic", message=EVIL, signature="a/b/c", phase="input", op="torch.aten.abs"
)


def row(name: str, value: str) -> str:
    return f"<tr><th>{name}</th><td>{value}</td></tr>"


def test_a_table_escapes_names_and_values_and_leaves_out_what_is_empty() -> None:
    shown = html_table.table([("a & b", EVIL), ("none", None), ("empty", "")])
    assert shown.count("<tr>") == 1
    assert "a &amp; b" in shown
    assert "<script>" not in shown


def test_a_failure_has_its_line_of_python_beside_that_of_mlir(tmp_path: Path) -> None:
    (tmp_path / "pinv.py").write_text("import torch\ny = x.abs()\n")
    program, located = "module {\n  %0 = f\n}\n", "module {\n  %0 = f loc(#loc1)\n}\n"
    (tmp_path / "program.mlir").write_text(program)
    named = f'#loc1 = loc("{tmp_path}/pinv.py":2:4)\n'
    python_lines.keep(tmp_path, program, located + named)
    failure = msgspec.structs.replace(FAILURE, location=f"{tmp_path}/program.mlir:2:8")
    shown = case(failed=failure)._repr_html_()
    assert row("at", f"{tmp_path}/program.mlir:2:8") + row("", "%0 = f") in shown
    assert row("python", f"{tmp_path}/pinv.py:2") + row("", "y = x.abs()") in shown
    assert "<script>" not in shown


def test_a_comparison_has_its_outputs() -> None:
    one = OutputComparison(
        index=0, name="result0", dtype="f32", shape=(2,), verdict="mismatch", why=EVIL
    )
    right = msgspec.structs.replace(one, verdict="ok", why="")
    made = Comparison(
        verdict="mismatch", why="1 of 1 output differs", output=0, max_abs=0, max_rel=0, rel_l2=0,
        tolerance=0, nan=0, inf=0, outputs=(one, right),
    )  # fmt: skip
    shown = made._repr_html_()
    assert shown.startswith("<table>" + row("verdict", "mismatch"))
    assert "mismatch: &lt;script&gt;" in shown
    assert "ok: relative L2 0.00e+00" in shown


def test_a_bisection_has_what_was_found_and_where() -> None:
    made = Reproducer(
        path="repro-<a>", ops=1, op_names=("torch.aten.abs",), bytes=1, minimal=True,
        verified=True, oracle_calls=3, seconds=1.0, levels=("pytorch", "mlir"),
    )  # fmt: skip
    found = Bisection(status="isolated", failures=(Found(failure=FAILURE, reproducer=made),))
    shown = found._repr_html_()
    for name, value in (
        ("verdict", "isolated"),
        ("failure", "a/b/c"),
        ("reduced to", "1 operation: torch.aten.abs"),
        ("state", "minimal, verified"),
        ("levels", "pytorch, mlir"),
        ("folder", "repro-&lt;a&gt;"),
    ):
        assert row(name, value) in shown
    alone = Bisection(status="gave-up", failures=(Found(failure=FAILURE, why="no & no"),))
    assert row("not isolated", "no &amp; no") in alone._repr_html_()


def test_a_verification_says_of_each_level_whether_it_shows_the_failure() -> None:
    level = Level(name="mlir", file="repro.mlir", command=("iree-compile",), verified=True)
    checks = (Check(level=level, same=True), Check(level=level, same=False, why=EVIL))
    now = Verification(release="3.14.0", same=False, levels=(), script=None, why="it passes")
    made = Verification(release="3.13.0", same=True, levels=checks, script=0, current=now)
    shown = made._repr_html_()
    assert row("verdict", "same") + row("level mlir", "same") in shown
    assert "not the same: &lt;script&gt;" in shown
    assert row("with 3.14.0", "not the same: it passes") in shown
