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


def drawn(measured, width=120) -> str:
    console = Console(width=width, theme=_THEME)
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


HOMES = {"stem0": "openvino", "stream0": "mnn", "stem1": "openvino", "head": "openvino"}
MIX = {"backend": "mixed", "backends": HOMES, "conversions": 2}


def of(backend: str, *columns, **more):
    return row(*columns, backend=backend, **more)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [
                of("onnxruntime", "one", None, 1.0, False),
                of("mnn", "one", 1, 0.3, True, 0.27, 0.33),
            ],
            "One engine with mnn on 1 core: it takes 0.30 of the time of one engine with "
            "onnxruntime on all cores, measured in turns (95 % interval 0.27 to 0.33).",
        ),
        (
            [of("onnxruntime", "one", None, 1.0, True), of("ncnn", "one", None, 1.0, False)],
            "One engine with onnxruntime on all cores: it is the simplest, and no other was "
            "clearly faster.",
        ),
        (
            [
                of("onnxruntime", "one", None, 1.0, False),
                row("chain", None, 0.8, True, 0.7, 0.9, **MIX),
            ],
            "Engines one after the other with stem0, stem1, head on openvino; stream0 on mnn "
            "(2 tensors between backends) on all cores: it takes 0.80 of the time of one engine "
            "with onnxruntime on all cores, measured in turns (95 % interval 0.70 to 0.90).",
        ),
        (
            [
                of("onnxruntime", "one", None, 1.0, True),
                gone("one", "it crashed", backend="ncnn"),
            ],
            "One engine with onnxruntime on all cores: the only placement that could be built "
            "and run.",
        ),
    ],
)
def test_why_this_backend(rows, sentence):
    assert why(rows) == sentence


def test_several_backends_have_a_column_and_one_has_none():
    rows = [
        of("onnxruntime", "one", None, 1.0, False),
        of("mnn", "one", 1, 0.3, True, 0.27, 0.33),
        row("chain", None, 0.8, False, 0.7, 0.9, **MIX),
        gone("one", "segment all, converter of ncnn: its process ended.", backend="ncnn"),
    ]
    text = drawn({"candidates": rows, "bound": None})
    assert "backend placement cores p50 ratio 95 % interval" in text
    assert "onnxruntime one all 1.00 ms 1.00 mnn one 1 0.300 ms 0.30 0.27 to 0.33 ✓" in text
    assert "mixed chain all 0.800 ms" in text
    assert "ncnn one all ✗" in text
    assert (
        "! One engine with ncnn on all cores was left out: segment all, converter of ncnn: its "
        "process ended."
    ) in text
    alone = [of("mnn", "one", None, 1.0, True), of("mnn", "streams", None, 1.2, False)]
    assert "backend" not in drawn({"candidates": alone, "bound": None})


def test_precisions_stand_beside_backends():
    rows = [
        of("onnxruntime", "one", None, 1.0, False, precision="fp32"),
        of("openvino", "one", None, 0.4, True, 0.3, 0.5, precision="int8"),
    ]
    text = drawn({"candidates": rows, "bound": None})
    assert "backend placement cores" in text
    assert "onnxruntime, fp32 one all" in text
    assert "openvino, int8 one all" in text
    assert "One engine in int8 with openvino on all cores: it takes 0.40" in text


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_choice_can_be_seen_in_80_columns(precision):
    rows = [
        of("onnxruntime", "one", None, 123.456, False, 0.95, 1.05, precision="fp32"),
        of("onnxruntime", "streams", None, 99.9, True, 0.9, 0.95, precision=precision),
        of("mnn", "one", None, 123.4, False, 0.95, 1.05, precision="fp32"),
        gone("recompute", "no", backend="ncnn", precision="fp32"),
    ]
    text = drawn({"candidates": rows, "bound": None}, width=80)
    table = text.partition("An engine per stream")[0]
    assert "0.90 to 0.95 ✓" in table
    assert table.count("✗") == 1
    assert "…" not in table


def test_one_tensor_is_not_tensors():
    mix = {**MIX, "conversions": 1}
    assert "(1 tensor between backends)" in label(row("chain", None, 1.0, True, **mix))
