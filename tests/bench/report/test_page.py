"""The page holds what there is to say, can be read by everybody, and lets nothing in."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parnet_deploy.bench.report.page import draw_report
from parnet_deploy.bench.report.verdict import conclude
from parnet_deploy.bench.result import OURS, BenchReport, Curve, Interval
from tests.bench.report.reading import Page
from tests.bench.report.samples import (
    PLAN,
    make_evidence,
    make_full,
    make_report,
    make_timeline,
    parity,
    precision_report,
)

HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' &amp;"


@pytest.fixture(scope="module")
def full() -> Page:
    return Page(draw_report(*make_full()))


def smallest() -> BenchReport:
    return make_report(
        rivals={}, count=1, modes=("paced",), split=None, roofline=None, curves=[], left_out={}
    )


def test_the_verdict_stands_before_everything_else(full: Page) -> None:
    report, evidence = make_full()
    found = conclude(report, evidence)
    assert [e.text for e in full.all("p", class_="lead")] == [a.text for a in found.answers]
    assert full.one("p", id="care").text == "Take care. Load average 2.9 on 2 cores."
    commands = [e.text for e in full.all("code")]
    assert commands[: len(found.steps)] == [step.command for step in found.steps]
    order = [e.attributes["id"] for e in full.all("section")]
    assert order[:4] == ["right", "fast", "why", "next"]
    assert order[4:] == ["latency", "time", "accuracy", "curves", "missing", "provenance"]


def test_it_needs_no_other_file_and_runs_nothing(full: Page) -> None:
    assert not [
        e for e in full.elements if e.name in ("script", "link", "iframe", "object", "base")
    ]
    policy = full.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    for element in full.elements:
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith(("data:image/svg+xml;base64,", "#"))
    assert "url(" not in full.one("style").text
    assert "@import" not in full.one("style").text


def test_every_table_and_drawing_says_what_it_is(full: Page) -> None:
    tables = full.all("table")
    assert len(tables) > 10
    for table in tables:
        assert table.children[0] == "caption"
    heads = full.all("th")
    assert {e.attributes["scope"] for e in heads} == {"col", "row"}
    drawings = full.all("svg")
    assert len(drawings) >= 6
    for drawing in drawings:
        assert drawing.attributes["role"] == "img"
        assert drawing.children[:2] == ["title", "desc"]
    assert full.one("img").attributes["alt"]
    for element in full.elements:
        if "scroll" in (element.attributes.get("class") or "").split():
            assert element.attributes["tabindex"] == "0", "the keyboard must reach what scrolls"


def test_ids_are_unique_and_every_reference_leads_somewhere(full: Page) -> None:
    found = [e.attributes["id"] for e in full.elements if "id" in e.attributes]
    assert len(found) == len(set(found))
    for element in full.elements:
        wanted = (element.attributes.get("aria-labelledby") or "").split()
        target = element.attributes.get("href") or ""
        assert {*wanted, *([target[1:]] if target else [])} <= set(found)


def test_every_figure_of_the_report_is_in_it(full: Page) -> None:
    text = full.one("body").text
    for wanted in (
        "ResNet-34",
        "p99.9 needs 2000 calls",
        "batch 16 was left out: the plan takes 8 at most",
        "OpenVINO was left out: it needs the package openvino",
        "load: load average 2.9 on 2 cores",
        "profiling made them 2 % longer",
        "450 images against the training form",
        "9.7e-16",
        "99.33 %",
        "32 of 33",
        "e2930b9dd3648604c3aae1c3f4418b2d5f248c855cb2d4049c074612ad26b0f4",
        "6" * 64,
        "parnet-deploy fuse parnet-s.pth.tar --name parnet-s",
        f"--plan {PLAN} --vs torch,onnxruntime,resnet34,openvino",
        "numpy 2.4.6",
        "one, all cores",
    ):
        assert wanted in text, wanted
    assert "/home/me" not in text, "the folders of a machine are nobody's business"


def test_the_timeline_is_an_image_of_the_picture(full: Page) -> None:
    source = full.one("img").attributes["src"]
    assert source is not None
    picture = base64.b64decode(source.partition(",")[2]).decode()
    assert picture.startswith("<svg")
    assert "stream2" in picture
    assert "1.82 things went on at a time" in full.one("img").attributes["alt"]  # type: ignore[operator]
    simulated = make_timeline(simulated=True).to_json()
    text = Page(draw_report(make_report(timeline=simulated), make_evidence())).one("body").text
    assert "Simulated devices: these times say nothing about any hardware." in text


def test_what_is_not_there_is_left_out() -> None:
    page = Page(draw_report(smallest()))
    order = [e.attributes["id"] for e in page.all("section")]
    assert order == ["right", "fast", "why", "next", "latency", "accuracy", "missing", "provenance"]
    assert "No sign of noise was found." in page.one("body").text
    assert not page.all("p", id="care")


def hostile_report() -> tuple[BenchReport, dict[str, Any]]:
    report, evidence = make_full()
    report["subject"]["name"] = HOSTILE
    report["subject"]["plan"] = HOSTILE
    report["written"] = HOSTILE
    report["environment"] = {HOSTILE: HOSTILE, "list": [HOSTILE], "map": {HOSTILE: HOSTILE}}
    report["left_out"] = {HOSTILE: HOSTILE}
    report["noise"] = [{"name": HOSTILE, "detail": HOSTILE}]
    arms = report["arms"]
    arms[HOSTILE] = {**arms["torch"], "note": HOSTILE, "precision": HOSTILE}
    arms[OURS]["check"]["what"] = HOSTILE
    assert report["split"] is not None
    report["split"]["source"] = HOSTILE
    report["split"]["rows"][0]["how"] = HOSTILE
    report["split"]["rows"][1]["stage"] = HOSTILE  # type: ignore[typeddict-item]
    report["split"]["parts"][0]["part"] = HOSTILE
    assert report["roofline"] is not None
    report["roofline"]["how"] = HOSTILE
    point = Interval(value=1.0, low=0.9, high=1.1)
    points = [{"value": HOSTILE, "ms": point, "note": HOSTILE}]
    curve = {"over": HOSTILE, "points": points, "left_out": {HOSTILE: HOSTILE}}
    report["curves"] = [Curve(**curve)]  # type: ignore[typeddict-item]
    report["timeline"] = {
        "overlap": 1.0,
        "wall_us": 5.0,
        "critical": [{"name": HOSTILE}],
        "lanes": [{"device": HOSTILE, "lane": HOSTILE, "longest_gap": {"before": HOSTILE}}],
    }
    evidence["verify"] = {"plans": {HOSTILE: [parity(HOSTILE, 1e-7)]}}
    evidence["timeline_svg"] = HOSTILE
    evidence[f"precision-{HOSTILE}"] = precision_report()
    evidence["manifest"]["source"] = {"path": HOSTILE, "sha256": HOSTILE, "weights": HOSTILE}
    evidence["manifest"]["steps"] = {HOSTILE: {"options": {HOSTILE: HOSTILE}, "key": HOSTILE}}
    return report, evidence


def test_no_text_of_a_report_becomes_markup() -> None:
    usual = {(e.name, *sorted(e.attributes)) for e in Page(draw_report(*make_full())).elements}
    text = draw_report(*hostile_report())
    page = Page(text)
    assert {(e.name, *sorted(e.attributes)) for e in page.elements} <= usual
    assert page.one("h1").text == HOSTILE
    assert text.count("<script") == 0
    assert text.count(HOSTILE) == 0
    assert len(page.all("style")) == 1
    assert page.one("body").text.count(HOSTILE) > 20
    for element in page.elements:
        for name in (element.attributes.get("class") or "").split():
            assert re.fullmatch(r"[\w-]+", name)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FEW = make_report(count=30, modes=("saturated",))
PATHS = (
    ("fuse",),
    ("fuse", "proof", "float64"),
    ("export", "checks"),
    ("build",),
    ("build", "measured", "candidates"),
    ("verify", "plans"),
    ("precision-int8-cpu",),
    ("precision-int8-cpu", "checks"),
    ("precision-int8-cpu", "measured"),
    ("precision-int8-cpu", "layers"),
    ("precision-int8-cpu", "latency"),
    ("manifest",),
    ("manifest", "spec"),
    ("manifest", "steps"),
    ("manifest", "source"),
    ("timeline_svg",),
)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(path=st.sampled_from(PATHS), value=JSON, precision=st.sampled_from(["fp32", "int8"]))
def test_evidence_that_cannot_be_read_hides_nothing_else(
    path: tuple[str, ...], value: Any, precision: str
) -> None:
    evidence = make_evidence(**{"precision-int8-cpu": precision_report()})
    place = evidence
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    report = {**FEW, "subject": {**FEW["subject"], "precision": precision}}
    page = Page(draw_report(BenchReport(**report), evidence))  # type: ignore[typeddict-item]
    assert "A call takes 53." in page.one("body").text
    assert "ResNet-34" in page.one("section", id="latency").text
