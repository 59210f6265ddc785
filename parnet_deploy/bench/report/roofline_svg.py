"""The roofline: what the machine can do at most, and where the network and its parts stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...html import Html, join, tag
from ..result import PartTime, Roofline
from .axis import Axis, axis_over, draw_axis, figure, percent, tick_text
from .words import number_text, share_text

_HEIGHT, _TOP, _BOTTOM = 330, 14, 274
_NUMBERS = " Numbers, where there is room: parts, as in their table. "
_LEFT = 9.0  # percent, for the numbers of the vertical axis
_PHONE = 3.2  # pixels of a percent, where it is narrowest
_CLOSE = (12.0, 12.0)  # pixels: nearer, and two numbers would cover each other
_OFFSETS = ((10.0, 4.0), (-10.0, 4.0), (0.0, -9.0), (0.0, 17.0), (9.0, -7.0), (-9.0, 15.0))


@dataclass(frozen=True, kw_only=True)
class Point:
    """Operations per byte moved, and billions of operations in a second."""

    name: str
    intensity: float
    gflops: float


def points_of(parts: Sequence[PartTime]) -> list[Point]:
    """The parts that compute and move something, in their order."""
    return [
        Point(name=part["part"], intensity=2 * part["macs"] / part["bytes"], gflops=part["gflops"])
        for part in parts
        if part["bytes"] > 0 and part["macs"] > 0 and part["gflops"] > 0
    ]


def draw_roofline(roofline: Roofline, parts: Sequence[PartTime]) -> Html:
    """Both axes logarithmic. Parts are numbered as in the table of parts, from 1."""
    peak, bandwidth = roofline["peak_gflops"], roofline["bandwidth_gbs"]
    if min(peak, bandwidth, roofline["intensity"], roofline["gflops"]) <= 0:
        return Html("")  # no logarithm shows it
    points = points_of(parts)
    numbers = {part["part"]: i + 1 for i, part in enumerate(parts)}
    ridge = peak / bandwidth
    whole = Point(name="network", intensity=roofline["intensity"], gflops=roofline["gflops"])
    every = [whole, *points]
    reach = [ridge / 4, ridge * 4, *(p.intensity for p in every)]
    x_axis = _wide(reach, left=_LEFT, right=98.0)
    y_axis = _wide([peak * 1.3, *(point.gflops * 0.8 for point in every)])
    drawing = [
        draw_axis(x_axis, top=_TOP, bottom=_BOTTOM, unit=""),
        *_levels(y_axis),
        *_roof(x_axis, y_axis, peak, bandwidth),
        *_dots(points, numbers, x_axis, y_axis),
        *_network(whole, x_axis, y_axis),
        tag(
            "text",
            "FLOP per byte moved",
            class_="small",
            x="98%",
            y=str(_HEIGHT - 6),
            text_anchor="end",
        ),
        tag("text", "GFLOP/s", class_="small", x="0", y="0"),
    ]
    about = (
        f"Peak {number_text(peak)} GFLOP/s, bandwidth {number_text(bandwidth)} GB/s. The network: "
        f"{number_text(whole.intensity)} FLOP per byte, {number_text(whole.gflops)} GFLOP/s, "
        f"{share_text(roofline['share_of_peak'])} of what is possible, bound by "
        f"{'arithmetic' if roofline['bound'] == 'arithmetic' else 'memory'}."
    )
    return figure(
        drawing,
        ident="roofline",
        title="Roofline",
        about=about,
        height=_HEIGHT,
        caption=join(about, _NUMBERS, roofline["how"]),
    )


def _wide(values: Sequence[float], left: float = 1.0, right: float = 99.0) -> Axis:
    """A logarithmic axis, at least a factor of ten."""
    found = axis_over([min(values), max(values), min(values) * 10])
    return Axis(low=found.low, high=found.high, log=True, left=left, right=right)


def _height(axis: Axis, value: float) -> float:
    """Pixels from the top."""
    part = (axis.place(value) - axis.left) / (axis.right - axis.left)
    return _BOTTOM - part * (_BOTTOM - _TOP)


def _levels(axis: Axis) -> list[Html]:
    items = []
    for value in axis.ticks(6):
        y = _height(axis, value)
        items.append(
            tag("line", class_="grid", x1=percent(_LEFT), x2="98%", y1=f"{y:.1f}", y2=f"{y:.1f}")
        )
        items.append(
            tag(
                "text",
                tick_text(value),
                class_="tick",
                x=percent(_LEFT - 1),
                y=f"{y + 4:.1f}",
                text_anchor="end",
            )
        )
    return items


def _roof(x_axis: Axis, y_axis: Axis, peak: float, bandwidth: float) -> list[Html]:
    start = max(x_axis.low, y_axis.low / bandwidth)
    corner = peak / bandwidth
    x1, x2, x3 = (percent(x_axis.place(x)) for x in (start, corner, x_axis.high))
    y1, y2 = _height(y_axis, start * bandwidth), _height(y_axis, peak)
    return [
        tag("line", class_="roof", x1=x1, x2=x2, y1=f"{y1:.1f}", y2=f"{y2:.1f}"),
        tag("line", class_="roof", x1=x2, x2=x3, y1=f"{y2:.1f}", y2=f"{y2:.1f}"),
        tag(
            "text",
            f"peak {number_text(peak)} GFLOP/s",
            class_="small",
            x=x2,
            y=f"{y2 - 6:.1f}",
            text_anchor="start" if x_axis.place(corner) < 50 else "end",
        ),
    ]


def _dots(
    points: Sequence[Point], numbers: dict[str, int], x_axis: Axis, y_axis: Axis
) -> list[Html]:
    items = []
    places = [(x_axis.place(p.intensity), _height(y_axis, p.gflops)) for p in points]
    taken = [(x * _PHONE, y + 4) for x, y in places]  # a number covers no point either
    for point, (x, y) in zip(points, places, strict=True):
        about = f"{point.name}: {number_text(point.gflops)} GFLOP/s"
        items.append(
            tag("circle", tag("title", about), class_="dot", cx=percent(x), cy=f"{y:.1f}", r="4.5")
        )
    for point, (x, y) in zip(points, places, strict=True):
        free = [(dx, dy) for dx, dy in _OFFSETS if _is_free((x * _PHONE + dx, y + dy), taken)]
        if not free:
            continue  # the table has it
        dx, dy = free[0]
        taken.append((x * _PHONE + dx, y + dy))
        where = {"x": percent(x), "dx": f"{dx:g}", "y": f"{y + dy:.1f}", "text_anchor": "middle"}
        items.append(tag("text", str(numbers[point.name]), class_="small", **where))
    return items


def _is_free(place: tuple[float, float], taken: Sequence[tuple[float, float]]) -> bool:
    return all(abs(place[0] - x) > _CLOSE[0] or abs(place[1] - y) > _CLOSE[1] for x, y in taken)


def _network(whole: Point, x_axis: Axis, y_axis: Axis) -> list[Html]:
    x, y = x_axis.place(whole.intensity), _height(y_axis, whole.gflops)
    where = {"cx": percent(x), "cy": f"{y:.1f}"}
    side = "end" if x > 60 else "start"
    return [
        tag("circle", tag("title", "the whole network"), class_="network", r="9", **where),
        tag("circle", class_="network core", r="3.5", **where),
        tag(
            "text",
            "network",
            class_="strong small halo",
            x=percent(x),
            dx="-13" if side == "end" else "13",
            y=f"{y + 4:.1f}",
            text_anchor=side,
        ),
    ]
