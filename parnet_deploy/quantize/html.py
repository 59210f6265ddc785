"""A page of titled sections, as the reports on precision are."""

from __future__ import annotations

from collections.abc import Sequence

from ..html import Html, document, tag

_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#222;background:#fff}
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem .8rem .15rem 0;
border-bottom:1px solid #ddd;vertical-align:top}tbody th{font-weight:400}
section{overflow-x:auto}h1,h2{position:sticky;left:0}
svg text{font-size:11px;fill:currentColor}.bar{fill:#3b6ea5}.kept{fill:#c98b2b}.cut{fill:#c0392b}
figure{display:inline-block;margin:.5rem 1rem .5rem 0}figcaption{font-size:12px}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}td,th{border-color:#444}}
"""


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole page; the bodies of the sections are HTML already."""
    parts = [tag("section", tag("h2", head), Html(body)) for head, body in sections]
    return document(title, _STYLE, tag("h1", title), *parts)
