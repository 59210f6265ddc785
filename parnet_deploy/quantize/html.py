"""One self-contained HTML page of titled sections; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#222;background:#fff}
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem .8rem .15rem 0;
border-bottom:1px solid #ddd;vertical-align:top}
section{overflow-x:auto}h1,h2{position:sticky;left:0}
svg text{font-size:11px;fill:currentColor}.bar{fill:#3b6ea5}.kept{fill:#c98b2b}.cut{fill:#c0392b}
figure{display:inline-block;margin:.5rem 1rem .5rem 0}figcaption{font-size:12px}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}td,th{border-color:#444}}
"""


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole page; the bodies of the sections are HTML already."""
    parts = [f"<section><h2>{escape(head)}</h2>{body}</section>" for head, body in sections]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; cells become text."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = (
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"
