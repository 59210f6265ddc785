"""Bars and histograms as SVG text, for reports that are one file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape

_ROW, _LABEL, _WIDTH = 18, 170, 420
_PLOT_WIDTH, _PLOT_HEIGHT = 300, 90


def bars(values: Mapping[str, float], *, marked: Collection[str] = ()) -> str:
    """Horizontal bars from zero, one a name; the marked ones in another colour."""
    if not values:
        return ""
    largest = max(max(values.values()), 1e-9)
    height = _ROW * len(values)
    rows = []
    for i, (name, value) in enumerate(values.items()):
        y = i * _ROW
        length = max(value, 0.0) / largest * _WIDTH
        kind = "kept" if name in marked else "bar"
        rows.append(
            f'<text x="{_LABEL - 6}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="{kind}" x="{_LABEL}" y="{y + 3}" width="{length:.1f}" height="12"/>'
            f'<text x="{_LABEL + length + 5:.1f}" y="{y + 13}">{value:.1f}</text>'
        )
    width = _LABEL + _WIDTH + 60
    return f'<svg viewBox="0 0 {width} {height}" width="{width}">{"".join(rows)}</svg>'


def histogram(
    name: str,
    counts: Sequence[int],
    *,
    span: tuple[float, float],
    kept: tuple[float, float],
) -> str:
    """Counts in equal bins over ``span``, square-root scale; what is not ``kept`` is red."""
    low, high = span
    most = max(max(counts, default=0), 1)
    step = _PLOT_WIDTH / max(len(counts), 1)
    width = (high - low) / max(len(counts), 1)
    columns = []
    for i, count in enumerate(counts):
        centre = low + (i + 0.5) * width
        kind = "bar" if kept[0] <= centre <= kept[1] else "cut"
        tall = (count / most) ** 0.5 * _PLOT_HEIGHT
        columns.append(
            f'<rect class="{kind}" x="{i * step:.1f}" y="{_PLOT_HEIGHT - tall:.1f}" '
            f'width="{step:.2f}" height="{tall:.1f}"/>'
        )
    text = f"{escape(name)}: {low:.3g} to {high:.3g}, kept {kept[0]:.3g} to {kept[1]:.3g}"
    return (
        f'<figure><svg viewBox="0 0 {_PLOT_WIDTH} {_PLOT_HEIGHT}" width="{_PLOT_WIDTH}">'
        f"{''.join(columns)}</svg><figcaption>{text}</figcaption></figure>"
    )
