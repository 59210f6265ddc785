"""Places in drawings are where the figures say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.bench.report.axis import Axis, axis_over
from parnet_deploy.bench.report.curves_svg import draw_curves
from parnet_deploy.bench.report.dag import LEVELS, draw_dag, lay_out, level
from parnet_deploy.bench.report.distributions import draw_distributions
from parnet_deploy.bench.report.roofline_svg import draw_roofline, points_of
from parnet_deploy.bench.report.split_bar import draw_split
from parnet_deploy.bench.result import OURS, Interval
from parnet_deploy.spec import RELEASED, ModelSpec
from tests.bench.report.reading import Element, Page
from tests.bench.report.samples import curves, make_report, roofline, split

TIMES = st.floats(1e-3, 1e5)
FOUR = ModelSpec(planes=(8, 16, 32, 64, 80), num_blocks=(2, 2, 2, 2, 1), num_classes=10)


def percent(element: Element, name: str) -> float:
    found = element.attributes[name]
    assert found is not None
    assert found.endswith("%")
    return float(found[:-1])


# Axes


@given(st.lists(TIMES, min_size=1, max_size=20), st.booleans())
def test_an_axis_shows_all_and_keeps_the_order(values: list[float], from_zero: bool) -> None:
    axis = axis_over(values, from_zero=from_zero)
    places = [axis.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert axis.left - 1e-9 <= places[0]
    assert places[-1] <= axis.right + 1e-9
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 10
    assert ticks == sorted(set(ticks))
    assert all(axis.low * (1 - 1e-9) <= tick <= axis.high * (1 + 1e-9) for tick in ticks)


def test_what_lies_beyond_an_axis_is_put_on_its_end() -> None:
    axis = Axis(low=10.0, high=20.0, log=False)
    assert (axis.place(5), axis.place(15), axis.place(99)) == (1.0, 50.0, 99.0)


def test_much_different_times_get_a_logarithmic_axis() -> None:
    assert not axis_over([50, 60]).log
    assert axis_over([50, 600]).log
    assert not axis_over([50, 600], from_zero=True).log


# Distributions


def test_every_call_is_in_a_histogram_or_counted_beyond_it() -> None:
    report = make_report(rivals={"torch": 145.0}, count=60, modes=("saturated",))
    ours = report["arms"][OURS]["modes"]["saturated"]
    report["arms"]["torch"]["modes"]["saturated"]["samples_ms"][7] = 5000.0
    page = Page(draw_distributions(report))
    assert "1 beyond, up to 5000 ms" in page.one("svg").text
    bars = [e for e in page.all("rect") if "ours" in (e.attributes["class"] or "")]
    tallest = max(bars, key=lambda bar: float(bar.attributes["height"] or 0))
    median = ours["quantiles_ms"]["p50"]
    assert median is not None
    (mark, *_) = page.all("line", class_="p50")
    assert percent(tallest, "x") == pytest.approx(percent(mark, "x1"), abs=3)
    assert mark.text == f"p50: {median['value']:.1f} ms"


def test_quantiles_that_are_not_known_have_no_mark() -> None:
    page = Page(draw_distributions(make_report(rivals={}, count=5)))
    assert len(page.all("svg")) == 2
    assert len(page.all("line", class_="p50")) == 2
    assert not page.all("line", class_="p99")


def test_both_modes_have_the_same_axis() -> None:
    page = Page(draw_distributions(make_report()))
    grids = [
        [e.attributes["x1"] for e in Page(str(svg)).all("line", class_="grid")]
        for svg in re.findall(r"<svg.*?</svg>", str(draw_distributions(make_report())), re.DOTALL)
    ]
    assert len(grids) == len(page.all("svg")) == 2
    assert grids[0] == grids[1]
    assert grids[0]


# The split


def test_segments_are_as_wide_as_their_share_and_do_not_overlap() -> None:
    found = split()
    bars = Page(draw_split(found)).all("rect", class_="stage")
    inside = found["rows"][1:]  # an image is prepared before the call
    total = sum(row["ms"] for row in inside)
    end = 0.0
    for bar, row in zip(bars, inside, strict=True):
        assert percent(bar, "x") >= end - 1e-6
        end = percent(bar, "x") + percent(bar, "width")
        assert percent(bar, "width") == pytest.approx(100 * row["ms"] / total, abs=0.35)
    assert end <= 100.0


def test_a_negative_remainder_stands_in_the_table_and_not_in_the_bar() -> None:
    found = split()
    found["rows"][-1]["ms"] = -2.0
    page = Page(draw_split(found))
    assert len(page.all("rect", class_="stage")) == len(found["rows"]) - 2
    assert "-2.00" in page.one("table").text


# The parts


@pytest.mark.parametrize("spec", [*RELEASED.values(), FOUR])
def test_parts_have_cells_of_their_own_and_what_comes_later_is_lower(spec: ModelSpec) -> None:
    cells = lay_out(spec)
    assert set(cells) == {part.name for part in spec.parts}
    assert len(set(cells.values())) == len(cells)
    made = {part.output: part.name for part in spec.parts}
    for part in spec.parts:
        for name in part.inputs:
            if name in made:
                assert cells[made[name]].row < cells[part.name].row
    assert cells["stream0"].column < cells["stream1"].column


def test_the_longest_part_has_the_strongest_colour_and_the_critical_path_is_marked() -> None:
    spec, times = RELEASED["parnet-s"], split()["parts"]
    page = Page(draw_dag(spec, times))
    top = f"h{LEVELS - 1}"
    assert len(page.all("rect", class_="heat")) == len(spec.parts)
    assert {e.text.partition(":")[0] for e in page.all("rect", class_="critical")} == {
        time["part"] for time in times if time["critical"]
    }
    assert all("on the critical path" in e.text for e in page.all("rect", class_="critical"))
    longest = max(times, key=lambda time: time["ms"])
    assert longest["part"] in {e.text.partition(":")[0] for e in page.all("rect", class_=top)}
    edges = page.all("line", class_="edge")
    inputs = sum(len(part.inputs) for part in spec.parts)
    assert len(edges) == inputs + 1  # and the logits
    assert len(page.all("line", class_="critical")) == 6  # image, 3 stems, stream2, head, logits


def test_without_times_the_graph_has_no_colour() -> None:
    page = Page(draw_dag(FOUR, []))
    assert len(page.all("rect", class_="none")) == len(FOUR.parts)
    assert "No times are known" in page.one("desc").text


@given(st.floats(0, 10), st.floats(0.01, 10))
def test_levels(ms: float, longest: float) -> None:
    assert 0 <= level(ms, longest) < LEVELS
    assert level(longest, longest) == LEVELS - 1
    assert level(ms, 0.0) == 0


# The roofline


def test_points_stand_at_their_intensity_and_below_each_other_by_speed() -> None:
    parts = split()["parts"]
    page = Page(draw_roofline(roofline(), parts))
    dots = page.all("circle", class_="dot")
    points = points_of(parts)
    assert len(dots) == len(points) == len(parts)
    by_x = sorted(range(len(points)), key=lambda i: points[i].intensity)
    xs = [percent(dots[i], "cx") for i in by_x]
    assert xs == sorted(xs)
    by_y = sorted(range(len(points)), key=lambda i: points[i].gflops)
    ys = [float(dots[i].attributes["cy"] or 0) for i in by_y]
    assert ys == sorted(ys, reverse=True)
    assert len(page.all("line", class_="roof")) == 2
    assert "81 % of what is possible, bound by arithmetic" in page.one("desc").text


def test_the_roof_bends_where_bandwidth_meets_the_peak() -> None:
    slope, flat = Page(draw_roofline(roofline(), [])).all("line", class_="roof")
    assert percent(slope, "x2") == percent(flat, "x1")
    assert slope.attributes["y2"] == flat.attributes["y1"] == flat.attributes["y2"]
    assert float(slope.attributes["y1"] or 0) > float(slope.attributes["y2"] or 0)


def test_parts_that_compute_nothing_are_no_points() -> None:
    parts = split()["parts"]
    parts[0]["macs"] = 0
    parts[1]["bytes"] = 0
    assert [point.name for point in points_of(parts)] == [part["part"] for part in parts[2:]]


@pytest.mark.parametrize("changes", [{"intensity": 0.0}, {"gflops": 0.0}, {"bandwidth_gbs": 0.0}])
def test_a_roofline_without_a_figure_is_not_drawn(changes: dict[str, float]) -> None:
    assert draw_roofline(roofline(**changes), []) == ""


# Curves


def test_a_curve_has_its_points_whiskers_and_what_was_left_out() -> None:
    page = Page(draw_curves(curves()))
    assert len(page.all("svg")) == 2
    assert len(page.all("circle", class_="dot")) == 6
    assert len(page.all("line", class_="whisker")) == 6
    assert "batch 16 was left out: the plan takes 8 at most" in page.one("li").text
    assert "note" not in page.all("table")[0].text


def test_a_curve_without_points_says_why() -> None:
    empty = curves()[0]
    empty["points"] = []
    page = Page(draw_curves([empty]))
    assert not page.all("svg")
    assert "was left out" in page.one("li").text


def test_a_point_of_a_curve_may_have_a_note() -> None:
    (curve, _) = curves()
    curve["points"] = [
        {"value": "224", "ms": Interval(value=1.0, low=0.9, high=1.1), "note": "as exported"}
    ]
    page = Page(draw_curves([curve]))
    assert "as exported" in page.one("table").text
    assert len(page.all("circle", class_="dot")) == 1
