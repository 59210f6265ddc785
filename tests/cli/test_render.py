"""Drawing: figures as text, columns, and progress that is silent where it should be."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from parnet_deploy.cli import render
from parnet_deploy.cli.render import Output


def terminal(output: Output) -> io.StringIO:
    file = io.StringIO()
    output._err = Console(file=file, force_terminal=True, width=80, theme=render._THEME)
    return file


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (1.2345, "1.23"), (12.345, "12.3"), (123.45, "123"), (12345.6, "12346")],
)
def test_three_digits(value, text):
    assert render.three_digits(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (300_000, "293 KiB"), (2**41, "2.0 TiB")],
)
def test_bytes_text(value, text):
    assert render.bytes_text(value) == text


def test_printable_takes_what_would_steer_the_terminal():
    assert render.printable("a\x1b[31m\nb") == "a?[31m?b"


def test_columns_align_and_only_a_terminal_cuts_them():
    rows = [["a.png", "9.1 %", "x" * 100], ["long.png", "10.2 %", "y"]]
    whole = render.columns(rows, right={1}, width=None).plain.splitlines()
    assert whole[0] == f"a.png      9.1 %  {'x' * 100}"
    assert whole[1] == "long.png  10.2 %  y"
    cut = render.columns(rows, right={1}, width=40).plain.splitlines()
    assert len(cut[0]) == 40
    assert cut[0].endswith("…")


def test_progress_is_silent_where_stderr_is_no_terminal(capsys):
    output = Output(as_json=False, quiet=False)
    with output.progress("work") as report:
        report("image 1 of 2")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("quiet", "shown"), [(False, True), (True, False)])
def test_progress_on_a_terminal_unless_quiet(quiet, shown):
    output = Output(as_json=False, quiet=quiet)
    file = terminal(output)
    with output.progress("work") as report:
        report("image 1 of 2")
    assert ("image 1 of 2" in file.getvalue()) is shown


def test_progress_does_not_read_markup_in_what_a_step_says():
    output = Output(as_json=False, quiet=False)
    file = terminal(output)
    with output.progress("work") as report:
        report("[bold]odd[/nonsense]")
    assert "[bold]odd[/nonsense]" in file.getvalue()


def test_json_refuses_nan(capsys):
    with pytest.raises(ValueError, match="not JSON compliant"):
        Output(as_json=True, quiet=False).result({"x": float("nan")})


def test_json_replaces_the_drawing(capsys):
    Output(as_json=True, quiet=False).result({"x": 1}, "drawing")
    assert json.loads(capsys.readouterr().out) == {"x": 1}


def test_files_get_no_trailing_blanks_and_no_colour(capsys):
    found = render.table("a", "b")
    found.add_row("1", render.verdict(True))
    Output(as_json=False, quiet=False).result({}, render.facts([("key", "value")]), found)
    lines = capsys.readouterr().out.splitlines()
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)
