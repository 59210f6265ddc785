"""Where the time of a call goes: one stacked bar, and its numbers."""

from __future__ import annotations

from ...html import Html, join, table, tag
from ..result import Split
from .axis import figure, percent
from .why import split_shares, stage_share
from .words import ms_text, number_text, share_text

_CHARACTER, _WIDE, _NARROW = 7.2, 1100, 320  # pixels: of text, and of a bar on a desk, on a phone
_HEIGHT = 44
_GAP = 0.3


def draw_split(split: Split) -> Html:
    """The bar and its table."""
    shares = split_shares(split)
    x, segments = 0.0, []
    for row in split["rows"]:
        width = 100 * shares.get(row["stage"], 0.0)
        if width <= 0:
            continue
        text = f"{row['stage']}: {ms_text(row['ms'])}, {share_text(width / 100)}"
        segments.append(
            tag(
                "rect",
                tag("title", text),
                class_=_stage_class(row["stage"]),
                x=percent(x),
                y="0",
                width=percent(max(width - _GAP, 0.15)),
                height=str(_HEIGHT),
            )
        )
        segments += _labels(row["stage"], x, width)
        x += width
    about = ", ".join(f"{name} {share_text(share)}" for name, share in shares.items())
    bar = figure(
        segments,
        ident="split",
        title="Where the time of a call goes",
        about=f"{about}.",
        height=_HEIGHT,
        class_="bar",
    )
    return join(bar, _table(split, shares), tag("p", split["source"], class_="hint"))


def _labels(stage: str, x: float, width: float) -> list[Html]:
    """Name and share in a segment, where they fit; ``odd`` is left out on a phone."""
    needed = _CHARACTER * (len(stage) + 1)
    if width / 100 * _WIDE < needed:
        return []
    odd = "" if width / 100 * _NARROW >= needed else " odd"
    where = {"x": percent(x + (width - _GAP) / 2), "text_anchor": "middle"}
    return [
        tag("text", stage, class_=f"on{odd}", y="19", **where),
        tag("text", share_text(width / 100), class_=f"on strong{odd}", y="35", **where),
    ]


def _table(split: Split, shares: dict[str, float]) -> Html:
    rows: list[tuple[object, ...]] = [
        (
            join(tag("i", class_=f"swatch {_stage_class(row['stage'])}"), row["stage"]),
            number_text(row["ms"]),
            stage_share(shares, row["stage"]),
            row["how"],
        )
        for row in split["rows"]
    ]
    rows.append(("the whole", number_text(split["whole_ms"]), "", "timed as one call"))
    return table(
        ("stage", "ms", "share", "how it was found"),
        rows,
        caption="The stages of a call, in their order",
        numbers=(1, 2),
    )


def _stage_class(stage: str) -> str:
    return f"stage s-{''.join(c if c.isalnum() else '-' for c in stage)}"
