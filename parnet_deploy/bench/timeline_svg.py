"""A timeline as one picture: a row for each lane, time to the right. One file, no script."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .timeline import Call, Span, Timeline, lane_text

WIDTH, LEFT, RIGHT = 960, 132, 24
TOP, ROW, BAR, DEVICE_GAP = 96, 34, 24, 22
CHARACTER = 6.6  # of small text, in pixels: what fits is decided without measuring it
_TICKS = 8

_STYLE = """
  .paper { fill: #fafbfc } text { fill: #1f2733 } .small { fill: #4a5564; font-size: 12px }
  .title { font-size: 16px; font-weight: 600 } .row { fill: #eef1f5 }
  .grid { stroke: #d5dbe3; stroke-width: 1 } .bar { stroke-width: 1 }
  .engine { fill: #b5cdf2; stroke: #86a9de } .engine.critical { fill: #2b62b5; stroke: #1d4f91 }
  .copy { fill: #f3c98b; stroke: #d9a14f } .copy.critical { fill: #b3640b; stroke: #8a4c05 }
  .host { fill: #c9d0d9; stroke: #a3adba } .host.critical { fill: #5b6573; stroke: #434c58 }
  .in { fill: #16324f; font-size: 12px } .critical.in { fill: #ffffff }
  .way { fill: none; stroke: #c02f4b; stroke-width: 1.6 } .warn { fill: #9a3412; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #14181e } text { fill: #e6eaf0 } .small { fill: #a9b4c2 } .row { fill: #1d232b }
    .grid { stroke: #313a45 } .in { fill: #16324f } .critical.in { fill: #ffffff }
    .way { stroke: #ff7d94 } .warn { fill: #ffb07a }
  }
"""


def draw_timeline(timeline: Timeline, title: str, note: str) -> str:
    """Draw the typical call.

    Args:
        timeline: What was recorded.
        title: What ran.
        note: Under what conditions; a simulation is called so in any case.

    Returns: The text of an SVG file, readable on light and dark.
    """
    call = timeline.typical
    rows = _rows(call)
    bottom = max(rows.values()) + ROW
    height = bottom + 92
    scale = (WIDTH - LEFT - RIGHT) / call.wall_us
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="13" '
        'role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(_summary(timeline, call))}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="10"/>',
        f'<text class="title" x="24" y="34">{escape(title)}</text>',
        f'<text class="small" x="24" y="56">{escape(_summary(timeline, call))}</text>',
        *_lanes(timeline, rows),
        *_axis(call, scale, bottom),
        *(line for span in call.spans for line in _bar(span, call, scale, rows)),
        _way(call, scale, rows),
        *_legend(timeline, bottom + 46, note),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _summary(timeline: Timeline, call: Call) -> str:
    split = call.critical_split()
    total = sum(split.values()) or 1.0
    shares = ", ".join(
        f"{what} {split[key] / total:.0%}"
        for what, key in (
            ("engines", "engines_us"),
            ("copies", "copies_us"),
            ("launching", "launching_us"),
        )
    )
    several = f", the median of {len(timeline.calls)}" if len(timeline.calls) > 1 else ""
    return (
        f"One call{several}: {time_text(call.wall_us)}; overlap {call.overlap:.2f}; "
        f"on the critical path {shares}"
    )


def _rows(call: Call) -> dict[tuple[int, int], float]:
    """Top of each lane's row: lanes of a device together, the devices apart."""
    rows: dict[tuple[int, int], float] = {}
    top, device = float(TOP), None
    for lane in sorted(call.lanes):
        if device not in (None, lane.device):
            top += DEVICE_GAP
        device = lane.device
        rows[lane] = top
        top += ROW
    return rows


def _lanes(timeline: Timeline, rows: dict[tuple[int, int], float]) -> Iterator[str]:
    named: set[int] = set()
    for lane in sorted(timeline.typical.lanes):
        top = rows[lane]
        yield (
            f'<rect class="row" x="{LEFT}" y="{top + 2:g}" width="{WIDTH - LEFT - RIGHT}" '
            f'height="{ROW - 4}" rx="4"/>'
        )
        if lane.device not in named:
            named.add(lane.device)
            yield f'<text x="24" y="{top - 6:g}" font-weight="600">device {lane.device}</text>'
        text = lane_text(lane, timeline.copy_lanes)
        yield f'<text class="small" x="24" y="{top + ROW / 2 + 4:g}">{text}</text>'


def _axis(call: Call, scale: float, bottom: float) -> Iterator[str]:
    step = _tick(call.wall_us / _TICKS)
    number = 0
    while number * step <= call.wall_us:
        x = LEFT + number * step * scale
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom + 4:g}"/>'
        yield (
            f'<text class="small" x="{x:.1f}" y="{bottom + 20:g}" text-anchor="middle">'
            f"{time_text(number * step)}</text>"
        )
        number += 1


def _bar(span: Span, call: Call, scale: float, rows: dict[tuple[int, int], float]) -> Iterator[str]:
    kind = span.kind + (" critical" if span in call.critical else "")
    x, width = LEFT + (span.start_us - call.start_us) * scale, span.duration_us * scale
    y = rows[span.lane] + (ROW - BAR) / 2
    about = f"{span.name}: {time_text(span.duration_us)}"
    yield (
        f'<rect class="bar {kind}" x="{x:.1f}" y="{y:g}" width="{max(width, 1.5):.1f}" '
        f'height="{BAR}" rx="{min(3.0, width / 3):.1f}"><title>{escape(about)}</title></rect>'
    )
    fitting = [t for t in (span.name, span.name.split()[0]) if width >= CHARACTER * len(t) + 8]
    if fitting:
        classes = "in critical" if "critical" in kind else "in"
        yield (
            f'<text class="{classes}" x="{x + width / 2:.1f}" y="{y + BAR / 2 + 4:g}" '
            f'text-anchor="middle" pointer-events="none">{escape(fitting[0])}</text>'
        )


def _way(call: Call, scale: float, rows: dict[tuple[int, int], float]) -> str:
    """The critical path: a line below its bars that steps from lane to lane."""
    points = []
    for span in call.critical:
        y = rows[span.lane] + ROW / 2 + BAR / 2 + 1.5
        for at in (span.start_us, span.end_us):
            points.append(f"{LEFT + (at - call.start_us) * scale:.1f},{y:g}")
    return f'<polyline class="way" points="{" ".join(points)}"/>'


def _legend(timeline: Timeline, y: float, note: str) -> Iterator[str]:
    x = float(LEFT)
    for kind, text in (
        ("engine", "engine"),
        ("copy", "copy to another device"),
        ("host", "from or to the host"),
    ):
        yield f'<rect class="bar {kind}" x="{x:g}" y="{y - 10:g}" width="12" height="12" rx="2"/>'
        yield (
            f'<rect class="bar {kind} critical" x="{x + 13:g}" y="{y - 10:g}" width="12" '
            'height="12" rx="2"/>'
        )
        yield f'<text class="small" x="{x + 32:g}" y="{y:g}">{text}</text>'
        x += 32 + CHARACTER * len(text) + 22
    yield f'<line class="way" x1="{x:g}" y1="{y - 4:g}" x2="{x + 24:g}" y2="{y - 4:g}"/>'
    yield f'<text class="small" x="{x + 32:g}" y="{y:g}">dark and underlined: critical path</text>'
    if timeline.simulated:
        text = "Simulated devices: times follow from made-up rates. Nothing was measured."
        yield f'<text class="small warn" x="{LEFT}" y="{y + 24:g}">{text}</text>'
    else:
        yield f'<text class="small" x="{LEFT}" y="{y + 24:g}">{escape(note)}</text>'


def time_text(us: float) -> str:
    """Microseconds, or milliseconds where there are many."""
    if us >= 10_000:
        return f"{us / 1000:.3g} ms"
    return f"{us:.0f} us" if us >= 100 or us == int(us) else f"{us:.3g} us"


def _tick(least: float) -> float:
    """The least of 1, 2, 5, 10, ... times a power of ten that is not less."""
    size = 1e-3
    while True:
        for factor in (1, 2, 5):
            if size * factor >= least:
                return size * factor
        size *= 10
