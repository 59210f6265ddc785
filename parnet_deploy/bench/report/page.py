"""The report as one HTML file: the verdict first, then everything that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from ...errors import SpecError
from ...html import Html, document, join, table, tag
from ...reading import mapping
from ...spec import ModelSpec
from ..result import BenchReport
from . import proof_tables, provenance, tables
from .curves_svg import draw_curves
from .dag import draw_dag
from .distributions import draw_distributions
from .evidence import Evidence
from .first_screen import draw_answers, draw_header
from .roofline_svg import draw_roofline
from .split_bar import draw_split
from .tables import Rows
from .timeline_picture import draw_picture, draw_summary, lane_rows
from .verdict import conclude
from .words import arm_title

_CSS = "report.css"


def draw_report(report: BenchReport, evidence: Evidence | None = None) -> str:
    """Draw everything that is known; what is not there is said or left out.

    Args:
        report: What was measured.
        evidence: What the other steps found, see ``evidence.gather``.

    Returns: The text of a file that needs no other, no network and no script.
    """
    known = {} if evidence is None else evidence
    sections = [(ident, head, join(*body)) for ident, head, body in _sections(report, known)]
    shown = [(ident, head, body) for ident, head, body in sections if body]
    menu = tag(
        "nav",
        *(tag("a", head, href=f"#{ident}") for ident, head, _ in shown),
        aria_label="Sections",
    )
    main = tag(
        "main",
        draw_answers(conclude(report, known)),
        menu,
        *(
            tag("section", tag("h2", head, id=f"{i}-head"), body, id=i, aria_labelledby=f"{i}-head")
            for i, head, body in shown
        ),
    )
    style = files(__package__).joinpath(_CSS).read_text(encoding="utf-8")
    return document(f"{report['subject']['name']}: bench", style, draw_header(report), main)


def _sections(
    report: BenchReport, evidence: Evidence
) -> Iterator[tuple[str, str, tuple[Html | None, ...]]]:
    yield (
        "latency",
        "Latency",
        (
            draw_distributions(report),
            *(_table(tables.latency_rows(report, mode)) for mode in report["rounds"]),
            _table(tables.cost_rows(report)),
            _table(tables.arm_rows(report)),
        ),
    )
    yield "time", "Where the time goes", tuple(_time(report, evidence))
    yield (
        "accuracy",
        "Accuracy and precision",
        (
            _table(tables.check_rows(report)),
            _table(proof_tables.proof_rows(report, evidence)),
            _table(proof_tables.precision_rows(evidence)),
            _table(proof_tables.layer_rows(evidence)),
        ),
    )
    yield "curves", "Scaling", (draw_curves(report["curves"]),)
    yield "missing", "Left out, and noise", tuple(_missing(report))
    yield (
        "provenance",
        "Provenance",
        (
            _table(provenance.origin_rows(report, evidence)),
            _table(provenance.step_rows(evidence)),
            _commands(report, evidence),
            _table(provenance.environment_rows(report["environment"])),
        ),
    )


def _time(report: BenchReport, evidence: Evidence) -> Iterator[Html | None]:
    split, roofline, timeline = report["split"], report["roofline"], report["timeline"]
    if split is not None:
        yield draw_split(split)
    parts = [] if split is None else split["parts"]
    beside = [_dag(report, evidence), _table(tables.part_rows(report))]
    yield tag("div", *beside, class_="beside") if any(beside) else None
    if timeline is not None:
        yield tag("h3", "Streams over time")
        yield draw_summary(timeline)
        svg = evidence.get("timeline_svg")
        yield draw_picture(svg, timeline) if isinstance(svg, str) else None
        yield _table(lane_rows(timeline))
    if roofline is not None:
        yield tag("h3", "Roofline")
        yield draw_roofline(roofline, parts)
    yield _table(proof_tables.placement_rows(evidence))


def _dag(report: BenchReport, evidence: Evidence) -> Html | None:
    try:
        spec = ModelSpec.from_json(mapping(evidence, "manifest", "spec"))
    except SpecError:
        return None
    split = report["split"]
    return draw_dag(spec, [] if split is None else split["parts"])


def _missing(report: BenchReport) -> Iterator[Html | None]:
    noise = [tag("li", tag("strong", n["name"]), f": {n['detail']}") for n in report["noise"]]
    left_out = [
        tag("li", tag("strong", arm_title(name)), f" was left out: {why}")
        for name, why in report["left_out"].items()
    ]
    if left_out:
        yield tag("ul", *left_out)
    yield tag("ul", *noise) if noise else tag("p", "No sign of noise was found.")


def _commands(report: BenchReport, evidence: Evidence) -> Html:
    lines = "\n".join(provenance.commands(report, evidence))
    code = tag("pre", tag("code", lines), class_="scroll", tabindex="0")
    return join(tag("h3", "Again, from the checkpoint on"), code)


def _table(rows: Rows) -> Html | None:
    if not rows.rows:
        return None
    drawn = table(rows.heads, rows.rows, caption=rows.caption, numbers=rows.numbers)
    return tag("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=rows.caption)
