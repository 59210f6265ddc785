"""Colours can be told apart, in light and dark, by everybody. Figures from WCAG 2.1, level AA."""

from __future__ import annotations

from importlib.resources import files
from itertools import combinations, pairwise

import pytest

from tests.bench.report.colours import SIGHT, contrast, difference, read_schemes

CSS = files("parnet_deploy.bench.report").joinpath("report.css").read_text(encoding="utf-8")
SCHEMES = read_schemes(CSS)
STAGES = (
    *("preprocess", "copy-in", "stems", "streams", "wait"),
    *("fusion", "head", "copy-out", "engine", "other"),
)
TEXT, DRAWING, APART = 4.5, 3.0, 10.0

scheme = pytest.mark.parametrize("scheme", sorted(SCHEMES))


def test_contrast_and_difference_are_what_is_known_of_them() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert difference("#ffffff", "#000000", "usual") == pytest.approx(100, abs=0.1)
    assert difference("#c00000", "#5f6000", "deuteranopia") < difference(
        "#c00000", "#5f6000", "usual"
    )


def test_both_schemes_set_every_colour() -> None:
    assert set(SCHEMES["light"]) == set(SCHEMES["dark"])
    assert SCHEMES["light"] != SCHEMES["dark"]


@scheme
def test_text_can_be_read(scheme: str) -> None:
    colours = SCHEMES[scheme]
    pairs = [(name, "surface") for name in ("ink", "muted", "accent", "good", "care", "bad")]
    pairs += [(name, "bg") for name in ("ink", "muted", "accent")]
    pairs += [("ink", "care-soft"), ("ink", "code"), ("ink", "track"), ("muted", "track")]
    pairs += [("on-stage", f"s-{stage}") for stage in STAGES]
    pairs += [("h-low", f"h{i}") for i in range(3)] + [("h-high", f"h{i}") for i in range(3, 6)]
    found = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
    assert {pair: value for pair, value in found.items() if value < TEXT} == {}


@scheme
def test_drawings_can_be_seen(scheme: str) -> None:
    colours = SCHEMES[scheme]
    names = ["accent", "rival", "other", "critical", "muted", *(f"s-{stage}" for stage in STAGES)]
    found = {name: contrast(colours[name], colours["surface"]) for name in names}
    assert {name: value for name, value in found.items() if value < DRAWING} == {}


@scheme
@pytest.mark.parametrize("sight", sorted(SIGHT))
def test_neighbours_can_be_told_apart(scheme: str, sight: str) -> None:
    colours = SCHEMES[scheme]
    pairs = [(f"s-{a}", f"s-{b}") for a, b in pairwise(STAGES)]
    pairs += list(combinations(("accent", "rival", "other"), 2))
    found = {pair: difference(*(colours[name] for name in pair), sight) for pair in pairs}
    assert {pair: value for pair, value in found.items() if value < APART} == {}


@scheme
def test_more_time_is_a_stronger_colour_for_every_sight(scheme: str) -> None:
    colours = SCHEMES[scheme]
    away = [contrast(colours[f"h{i}"], colours["surface"]) for i in range(6)]
    assert away == sorted(away)


def test_every_stage_has_its_rule() -> None:
    for stage in STAGES:
        assert f".s-{stage} {{ fill: var(--s-{stage}); background: var(--s-{stage}); }}" in CSS
