"""The table of placements and the sentence below it."""

from __future__ import annotations

import pytest
from rich.console import Console

from parnet_deploy.builder.candidates import device_candidates
from parnet_deploy.builder.planner import choose_predicted
from parnet_deploy.cli.build_table import draw_measured, label, why
from parnet_deploy.cli.render import _THEME
from parnet_deploy.input_size import InputSize
from parnet_deploy.spec import RELEASED


def row(placement, threads, median, chosen, low=None, high=None, **more):
    ratio = {"median": median, "low": low or median, "high": high or median}
    about = {"placement": placement, "threads": threads, "devices": [0], "aux_streams": 0}
    figures = {"median_ms": median, "p99_ms": 2 * median, "ratio": ratio}
    return {**about, **figures, "chosen": chosen, "predicted": None, **more}


def gone(placement, reason, **more):
    about = {"placement": placement, "threads": None, "devices": [0], "aux_streams": 0}
    return {**about, "chosen": False, "predicted": None, "left_out": reason, **more}


def drawn(measured) -> str:
    console = Console(width=120, theme=_THEME)
    with console.capture() as captured:
        for item in draw_measured(measured):
            console.print(item)
    return " ".join(captured.get().split())


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [row("one", None, 1.0, True)],
            "One engine on all cores: the only placement that was to be measured.",
        ),
        (
            [row("one", None, 1.0, True), row("streams", None, 1.2, False)],
            "One engine on all cores: it is the simplest, and no other was clearly faster.",
        ),
        (
            [row("one", None, 1.0, False), row("one", 1, 0.5, True, 0.4, 0.6)],
            "One engine on 1 core: it takes 0.50 of the time of one engine on all cores, "
            "measured in turns (95 % interval 0.40 to 0.60).",
        ),
        (
            [row("one", None, 1.0, True), gone("streams", "no memory")],
            "One engine on all cores: the only placement that could be built and run.",
        ),
    ],
)
def test_why(rows, sentence):
    assert why(rows) == sentence


def test_devices_auxiliary_streams_and_predictions_have_columns():
    measured = {
        "candidates": [
            row("one", None, 1.0, False, predicted={"ratio": 1.0}),
            row("one-aux", None, 0.9, False, aux_streams=2, predicted={"ratio": 1.0}),
            row(
                "recompute",
                None,
                0.5,
                True,
                0.4,
                0.6,
                devices=[0, 1, 2],
                predicted={"ratio": 0.47},
            ),
            gone("streams", "engine stream0: out of memory.", predicted={"ratio": 0.47}),
        ],
        "bound": {"ratio": 0.47, "speedup": 2.13, "by": "path", "parts": ["stem0", "head"]},
    }
    text = drawn(measured)
    assert "placement devices aux p50 p99 ratio 95 % interval predicted" in text
    assert "one-aux 0 2 0.900 ms 1.80 ms 0.90 1.00" in text
    assert "recompute 0,1,2 0.500 ms 1.00 ms 0.50 0.40 to 0.60 0.47 ✓" in text
    assert "its own stems on devices 0,1,2: it takes 0.50 of the time of one engine on" in text
    assert "No placement here can take less than 0.47 (2.13x) by arithmetic" in text
    assert "! An engine per stream on device 0 was left out: engine stream0: out of memory." in text


def test_what_was_only_predicted_has_no_times():
    spec = RELEASED["parnet-s"]
    size = InputSize(low=(224, 224), high=(224, 224))
    _, measured = choose_predicted(spec, device_candidates(spec, "auto", (0, 1, 2)), size)
    text = drawn(measured)
    assert "placement devices aux predicted" in text
    assert "streams 0,1,2 0.47 ✓" in text
    assert "nothing was measured; the placement is the best by arithmetic alone." in text
    assert " ms" not in text


def test_labels():
    assert label(row("one", 1, 1.0, True)) == "One engine on 1 core"
    several = row("streams", None, 1.0, True, devices=[0, 1, 0], predicted={"ratio": 1})
    assert label(several) == "An engine per stream on devices 0,1,0"
