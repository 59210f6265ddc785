"""Draws the pictures of concepts.md: ``python docs/pictures.py``. A test holds them to this file.

Each has a ground of its own, so that it reads the same on light and dark pages.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
BLUE, GREEN, SAND, PLAIN = "#dbe7f8", "#d9efdc", "#f7ead0", "#ffffff"
_STYLE = (
    "rect.g{fill:#fafbfc}rect.b{stroke:#8a97a8}text{fill:#1f2733}"
    ".s{font-size:12px;fill:#4a5564}.m{font-family:ui-monospace,monospace;font-size:12px}"
    ".l{stroke:#5b6573;stroke-width:1.5;fill:none;marker-end:url(#t)}"
)


def page(width: int, height: int, title: str, *parts: str) -> str:
    """One picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="14" text-anchor="middle" role="img">\n'
        f"<title>{title}</title>\n<defs><style>{_STYLE}</style>"
        '<marker id="t" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#5b6573"/></marker></defs>\n'
        f'<rect class="g" width="{width}" height="{height}" rx="8"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """A line of text, centred."""
    return f'<text x="{x:g}" y="{y:g}"' + (f' class="{kind}"' if kind else "") + f">{words}</text>"


def box(x: float, y: float, width: float, height: float, words: str = "", fill: str = PLAIN) -> str:
    """A box with a line of text in it."""
    drawn = (
        f'<rect class="b" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" '
        f'fill="{fill}"/>'
    )
    return drawn + (text(x + width / 2, y + height / 2 + 4, words, "m") if words else "")


def arrow(*points: tuple[float, float]) -> str:
    """A line through points, with a tip."""
    return f'<path class="l" d="M{" L".join(f"{x:g} {y:g}" for x, y in points)}"/>'


def grid(x: float, y: float, rows: list[list[str]], fills: dict[str, str], side: int = 34) -> str:
    """Squares with a word in each; a word decides the colour."""
    return "".join(
        box(x + side * column, y + side * row, side, side, word, fills.get(word, PLAIN))
        for row, line in enumerate(rows)
        for column, word in enumerate(line)
    )


def kernels() -> str:
    """Where the small kernels lie in the 3x3."""
    zero = ["0", "0", "0"]
    fills = {"w": BLUE, "w/4": GREEN}
    return page(
        640,
        190,
        "A 1x1 kernel lies in the centre of a 3x3; one behind an average pool in its lower right",
        grid(60, 50, [["w"]], fills),
        arrow((104, 67), (140, 67)),
        grid(150, 40, [zero, ["0", "w", "0"], zero], fills),
        text(180, 24, "1x1"),
        text(201, 165, "the centre of the 3x3", "s"),
        grid(370, 50, [["w"]], fills),
        text(387, 102, "behind the mean", "s"),
        text(387, 118, "of 2x2", "s"),
        arrow((414, 67), (450, 67)),
        grid(460, 40, [zero, ["0", "w/4", "w/4"], ["0", "w/4", "w/4"]], fills),
        text(460, 24, "pooled 1x1, stride 2"),
        text(511, 165, "lower right: rows 2i and 2i + 1", "s"),
    )


def block() -> str:
    """Three branches become one convolution."""
    rows = [(20, "conv 3x3", "BN"), (70, "conv 1x1", "BN"), (120, "pool, W", "sigmoid")]
    left = []
    for y, first, second in rows:
        gate = second == "sigmoid"
        left += [box(90, y, 84, 32, first, PLAIN if gate else BLUE)]
        left += [arrow((174, y + 16), (196, y + 16))]
        left += [box(198, y, 70, 32, second, PLAIN if gate else SAND)]
        left += [arrow((46, 86), (64, y + 16), (88, y + 16))]
    return page(
        800,
        176,
        "A block in training form, and the same block fused",
        text(30, 90, "x", "m"),
        *left,
        arrow((268, 36), (304, 60)),
        arrow((268, 86), (300, 72)),
        text(312, 72, "+", "m"),
        arrow((320, 68), (342, 80)),
        arrow((268, 136), (342, 90)),
        text(356, 90, "· 2", "m"),
        arrow((370, 86), (392, 86)),
        text(410, 90, "act", "m"),
        text(452, 92, "="),
        text(486, 90, "x", "m"),
        arrow((496, 86), (512, 52), (528, 52)),
        arrow((496, 86), (512, 120), (528, 120)),
        box(530, 36, 134, 32, "conv 3x3 + bias", GREEN),
        box(530, 104, 134, 32, "pool, W, sigmoid", PLAIN),
        arrow((664, 52), (696, 80)),
        arrow((664, 120), (696, 92)),
        text(706, 90, "·", "m"),
        arrow((716, 86), (738, 86)),
        text(756, 90, "act", "m"),
        text(597, 160, "the 2 is in the kernel", "s"),
    )


def border() -> str:
    """The shift behind zero padding is a map."""
    zero = ["0"] * 7
    inner = [["0", *["b"] * 5, "0"] for _ in range(5)]
    names = [
        ["9" if 0 < row < 4 and 0 < column < 4 else "6" if (row in (0, 4)) != (column in (0, 4))
         else "4" for column in range(5)]
        for row in range(5)
    ]  # fmt: skip
    return page(
        560,
        270,
        "How many of nine taps meet the shift, and how many the padding",
        text(135, 24, "what the 3x3 sees of the shift b"),
        grid(30, 40, [zero, *inner, zero], {"b": BLUE}, 30),
        arrow((250, 145), (300, 145)),
        text(405, 24, "taps that meet b"),
        grid(330, 70, names, {"9": GREEN, "6": SAND, "4": "#f3d6d6"}, 30),
        text(405, 245, "corner 4, edge 6, inside 9: no constant", "s"),
    )


def interleave() -> str:
    """An interleaved input split by parity."""
    order = ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]
    fills = {name: BLUE if name[0] == "a" else SAND for name in order}
    return page(
        760,
        220,
        "A two-group convolution of interleaved channels is a sum of two convolutions",
        text(180, 24, "interleaved, then 2 groups"),
        grid(44, 44, [order], fills),
        box(44, 110, 132, 32, "group 0", GREEN),
        box(184, 110, 132, 32, "group 1", GREEN),
        arrow((110, 80), (110, 107)),
        arrow((250, 80), (250, 107)),
        text(180, 176, "each group: 2 channels of a, 2 of b", "s"),
        text(366, 100, "="),
        text(560, 24, "each input by itself"),
        grid(410, 44, [["a0", "a1", "a2", "a3"]], fills),
        grid(590, 44, [["b0", "b1", "b2", "b3"]], fills),
        box(410, 110, 136, 32, "even columns", GREEN),
        box(590, 110, 136, 32, "odd columns", GREEN),
        arrow((478, 80), (478, 107)),
        arrow((658, 80), (658, 107)),
        text(568, 131, "+"),
        text(568, 176, "of the kernel; nothing is copied together", "s"),
    )


def placements() -> str:
    """Who waits for whom, over time."""
    lanes = []
    for top, name, rows in [
        (34, "one", [[("stems, streams, fusions, head", 0, 600, BLUE)]]),
        (
            92,
            "streams",
            [
                [("stem0", 0, 60, SAND), ("stream0", 62, 130, BLUE), ("fusion0", 194, 60, GREEN)],
                [("stem1", 62, 60, SAND), ("stream1", 124, 130, BLUE), ("fusion1", 256, 60, GREEN)],
                [("stem2", 124, 60, SAND), ("stream2", 186, 130, BLUE), ("head", 318, 80, GREEN)],
            ],
        ),
        (
            222,
            "recompute",
            [
                [("stem0", 0, 60, SAND), ("stream0", 62, 130, BLUE), ("fusion0", 194, 60, GREEN)],
                [("stem0 stem1", 0, 122, SAND), ("stream1", 124, 130, BLUE),
                 ("fusion1", 256, 60, GREEN)],
                [("stem0 stem1 stem2", 0, 184, SAND), ("stream2", 186, 130, BLUE),
                 ("head", 318, 80, GREEN)],
            ],
        ),
    ]:  # fmt: skip
        lanes.append(text(58, top + 20, name))
        for row, pieces in enumerate(rows):
            lanes += [
                box(110 + x, top + 36 * row, w, 30, word, fill) for word, x, w, fill in pieces
            ]
    return page(
        740,
        362,
        "Three placements over time, from left to right; widths are not measurements",
        text(370, 20, "time, from left to right; widths are not measurements", "s"),
        *lanes,
        text(370, 350, "streams waits at its stems; recompute does them again instead", "s"),
    )


PICTURES = {
    "kernels.svg": kernels,
    "block.svg": block,
    "border.svg": border,
    "interleave.svg": interleave,
    "placements.svg": placements,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (HERE / "pictures" / name).write_text(draw(), encoding="utf-8")
