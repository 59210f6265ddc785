"""A benchmark on the terminal: the verdict first, and nothing cut off however narrow it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from parnet_deploy.bench.report.tables import Rows
from parnet_deploy.bench.report.verdict import conclude
from parnet_deploy.bench.result import BenchReport
from parnet_deploy.cli.bench_table import FittingTable, draw
from parnet_deploy.cli.render import _THEME
from tests.bench.report.samples import make_evidence, make_full, make_report

WIDTHS = (50, 80, 120)


def shown(width: int, report: BenchReport, evidence: dict[str, object] | None = None) -> str:
    console = Console(width=width, theme=_THEME, highlight=False)
    page = Path("engines/parnet-s/reports/bench.html")
    with console.capture() as captured:
        for item in draw(report, evidence, page=page):
            console.print(item, crop=False, soft_wrap=False)
    return captured.get()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off_and_nothing_is_wider(width: int) -> None:
    text = shown(width, *make_full())
    assert "…" not in text
    assert max(cell_len(line) for line in text.splitlines()) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_every_word_of_the_verdict_stands_before_the_tables(width: int) -> None:
    report, evidence = make_full()
    found = conclude(report, evidence)
    text = " ".join(shown(width, report, evidence).split())
    head = text.partition("Milliseconds of a call")[0]
    assert head.index("! Load average 2.9 on 2 cores.") < head.index("Is it right?")
    for answer in found.answers:
        assert " ".join((answer.question, answer.text, *answer.more)) in head
    for step in found.steps:
        assert f"{step.command} {step.why}" in text
    assert text.endswith("engines/parnet-s/reports/bench.html the whole report, for a browser")


@pytest.mark.parametrize("width", WIDTHS)
def test_every_figure_is_there_at_every_width(width: int) -> None:
    text = " ".join(shown(width, *make_full()).split())
    for wanted in (
        "ResNet-34 0.79 (0.78 to 0.79) 68.2",
        "p99.9 needs 2000 calls",
        "paced at 30 calls a second",
        "61.2 ms",
        "73.6 MiB",
        "streams 33.0 62 %",
        "6 stream2 12.4 1.30 G",
        "91 %",
        "8 396 (384 to 412)",
        "openvino was left out",
        "machine A processor, 2 cores",
    ):
        assert wanted in text, wanted


def test_a_wide_terminal_has_the_intervals() -> None:
    assert "68.2 (67.8 to 68.4)" in shown(120, *make_full())
    assert "68.2 (67.8 to 68.4)" not in shown(80, *make_full())


def test_what_is_not_there_is_left_out() -> None:
    report = make_report(rivals={}, split=None, roofline=None, curves=[], left_out={})
    text = shown(80, report, make_evidence())
    assert "Where the time" not in text
    assert "left out" not in text
    assert "Not measured in this run." in text


def test_names_cannot_steer_the_terminal() -> None:
    report, evidence = make_full()
    report["subject"]["name"] = "a\x1b[2Jb[red]"
    report["left_out"] = {"x\x07": "y\x1b]0;z\x07"}
    report["noise"] = [{"name": "n", "detail": "d\x1b[31m [/]"}]
    report["arms"]["torch"]["note"] = "[bold]\x1b[0m"
    text = shown(80, report, evidence)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "a?[2Jb[red]" in text
    assert "[bold]?[0m" in text


def test_a_table_is_folded_only_if_no_choice_fits() -> None:
    wide = Rows(caption="wide", heads=("a", "b", "c"), rows=(("x" * 10, "y" * 20, "z" * 20),))
    brief = Rows(caption="brief", heads=("a", "b"), rows=(("x" * 10, "y" * 5),))
    for width, start in ((60, "wide"), (30, "brief"), (20, "brief")):
        console = Console(width=width, theme=_THEME)
        with console.capture() as captured:
            console.print(FittingTable(wide, brief))
        text = captured.get()
        assert text.startswith(start)
        assert text.count("x" * 10) == 1, width
    console = Console(width=36, theme=_THEME)
    with console.capture() as captured:
        console.print(FittingTable(wide))
    assert captured.get().count("x" * 10) == 2
