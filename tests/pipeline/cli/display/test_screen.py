"""Lines and tables as a terminal of some width shows them, and as a pipe gets them."""

from __future__ import annotations

import io

import pytest

from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.cli.display.screen import Screen

PATH = f"/store/{'0123456789' * 9}/module.vmfb"


def shown(*printed: object, width: int = 80, tty: bool = True, **options: bool) -> list[str]:
    file = io.StringIO()
    options = {"soft_wrap": True, **options}
    console = Screen(file=file, width=width, force_terminal=tty, color_system=None)
    for one in printed:
        console.print(one, **options)
    return file.getvalue().splitlines()


class TestLines:
    def test_break_between_words_and_go_on_below_the_text(self) -> None:
        text = "  [dim]left  [/dim] 3 operations: torch.aten.matmul, torch.aten.transpose.int"
        assert shown(text, width=50) == [
            "  left   3 operations: torch.aten.matmul,",
            "         torch.aten.transpose.int",
        ]

    def test_are_whole_in_a_pipe_whatever_its_width_is_said_to_be(self) -> None:
        word = "diagnostic/torch.operator/failed-to-legalize-operation-torch/d4f6152f"
        file = io.StringIO()
        Screen(file=file, width=20, force_terminal=False, color_system=None).print(word)
        assert file.getvalue() == f"{word}\n"

    def test_keep_a_number_with_its_unit(self) -> None:
        text = "  147 dispatches of 60 executables, 405 kB transient; peak memory 191 MB"
        assert shown(text, width=70)[-1] == "  191 MB"

    def test_leave_a_path_whole_behind_its_label(self) -> None:
        assert shown(f"  location   {PATH}") == [f"  location   {PATH}"]

    def test_give_a_word_that_fits_alone_a_line_of_its_own(self) -> None:
        word = "diagnostic/vector.bitcast/op-source-result-bitwidth/ef6ae121"
        assert shown(f"    signature  {word}", width=64) == [
            f"    {'signature':<9}".rstrip(),
            f"    {word}",
        ]

    def test_indent_what_has_no_room_beside_its_label_alike_whatever_its_length(self) -> None:
        for length in (68, 70, 74):
            word = "d" * length
            assert shown(f"    signature  {word}") == ["    signature", f"      {word}"]

    def test_indent_a_path_that_no_line_has_room_for(self) -> None:
        lines = shown(f"  module.vmfb, 7 kB, with the phases' dumps beside it: {PATH}")
        assert lines == ["  module.vmfb, 7 kB, with the phases' dumps beside it:", f"  {PATH}"]

    def test_leave_a_command_whole(self) -> None:
        argv = ("iree-compile", "program.mlir", "--iree-hal-target-device=vulkan", "-o", "m.vmfb")
        file = io.StringIO()
        out.print_command(
            Screen(file=file, width=40, force_terminal=True, highlight=False), "compile", argv
        )
        assert " ".join(argv) in file.getvalue()

    def test_keep_the_empty_ones(self) -> None:
        assert shown("\na b\n") == ["", "a b", ""]

    def test_are_whole_in_a_pipe(self) -> None:
        text = f"  message  {'word ' * 60}end"
        assert shown(text, tty=False) == [text]


class TestTables:
    COLUMNS = ("case", "signature", "reason", "until")
    ROW = ("llama-fp8:tiny|vulkan|installed", "diagnostic/vector.bitcast/op-source/ef6ae121")

    def table(self, *more: str) -> object:
        made = out.table(*self.COLUMNS, right=("until",))
        made.add_row(*self.ROW, *more)
        made.add_row("b", "crash", "known", "5")
        return made

    def test_break_no_word_and_no_number(self) -> None:
        lines = shown(self.table("an issue is open for it", "2026-11-29"), width=110)
        assert all(any(word in line for line in lines) for word in (*self.ROW, "2026-11-29"))

    def test_are_told_row_by_row_where_a_terminal_is_too_narrow(self) -> None:
        lines = shown(self.table("an issue is open for it", ""), width=80)
        assert lines[:4] == [
            f"case       {self.ROW[0]}",
            f"signature  {self.ROW[1]}",
            "reason     an issue is open for it",
            "",
        ]
        assert lines[4:] == ["case       b", "signature  crash", "reason     known", "until      5"]

    def test_have_the_width_that_they_need_in_a_pipe(self) -> None:
        reason = "word " * 60 + "end"
        lines = shown(self.table(reason, ""), width=10_000, tty=False)
        assert len(lines) == 3
        assert lines[1].endswith(reason), "nothing is cut, nothing is filled up"
        assert all(word in lines[1] for word in self.ROW)


@pytest.mark.parametrize("columns", ["20", "120"])
def test_a_pipe_is_wide_and_plain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table = out.table("target", "verdict")
    table.add_row("llvm-cpu " * 20, "ok " * 20)
    out.console().print(table)
    assert capsys.readouterr().out.count("ok") == 20
    out.console().print("[bold]a[/bold] " * 200, soft_wrap=True)
    written = capsys.readouterr().out
    assert (written.count("\n"), "\x1b" in written) == (1, False)
