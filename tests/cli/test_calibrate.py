"""The verb calibrate, and build --precision after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy.cli.calibrate import _GATES
from parnet_deploy.deployment import Deployment
from parnet_deploy.quantize.gates import LIMITS

ROOT = Path(__file__).parents[2]
CALIBRATION = ROOT / "calibration/digits/calibration"


@pytest.fixture
def some(workplace: Path) -> Path:
    """Six calibration images of each digit, in folders named like the labels."""
    target = workplace / "some"
    for folder in sorted(CALIBRATION.iterdir()):
        if folder.is_dir():
            (target / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:6]:
                shutil.copy(file, target / folder.name)
    return target


def test_a_folder_is_all_it_takes(place_deployment, invoke, some):
    place_deployment("exported")
    result = invoke("calibrate", some, "--precision", "int8-cpu")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "digits calibrated, in engines/digits" in text
    assert "minmax on 45 images" in text
    assert "15 held-out images" in text
    assert "int8-cpu clean" in text
    assert "noisy" in text
    assert "next parnet-deploy build digits --precision auto" in text
    assert "int8-cpu: every layer in low precision: passed" in result.stderr
    again = invoke("calibrate", some, "--precision", "int8-cpu")
    assert "minmax on 45 images, unchanged" in " ".join(again.stdout.split())


def test_build_takes_what_was_calibrated(place_deployment, invoke, some):
    place_deployment("exported")
    assert invoke("calibrate", some, "--precision", "int8-cpu").exit_code == 0
    result = invoke("build", "--precision", "auto", "--placement", "one")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "precision placement cores" in text
    assert "plan onnxruntime-auto-one" in text
    low = invoke("build", "--precision", "int8", "--placement", "one", "--json")
    assert json.loads(low.stdout)["report"]["precision"] == "int8"
    ran = invoke("run", some, "--plan", "onnxruntime-int8-one", "--json")
    assert json.loads(ran.stdout)["accuracy"]["share"] > 0.95


def test_the_first_argument_may_name_the_deployment(place_deployment, invoke, some):
    place_deployment("exported")
    place_deployment("exported", "other")
    args = ("--precision", "int8-trt", "--json")
    found = json.loads(invoke("calibrate", "digits", some, *args).stdout)
    assert found["deployment"] == "engines/digits"
    assert found["calibration"]["report"]["images"] == 45
    demo = invoke("calibrate", "other", *args, "--eval-samples", "20")
    assert json.loads(demo.stdout)["calibration"]["report"]["images"] == 256


def test_json_has_the_documented_keys(place_deployment, invoke, some):
    place_deployment("exported")
    args = ("calibrate", some, "--precision", "fp16", "--precision", "int8-trt", "--json")
    found = json.loads(invoke(*args).stdout)
    assert set(found) == {"deployment", "name", "calibration", "precisions"}
    assert set(found["precisions"]) == {"fp16", "int8-trt"}
    for outcome in found["precisions"].values():
        assert outcome["passed"] is True
        assert outcome["report"]["low_share"] == 1
    assert found["calibration"]["report"]["method"] == "minmax"


def test_a_failed_gate_is_exit_3_and_leaves_everything(place_deployment, invoke, some, snapshot):
    place_deployment("exported")
    before = snapshot()
    result = invoke("calibrate", some, "--precision", "int8-cpu", "--min-sqnr", "90", "--no-search")
    assert result.exit_code == 3
    last = result.stderr.splitlines()[-1]
    assert "error: precision search: " in last
    assert "clean logit SQNR: got " in last
    assert {k: v for k, v in snapshot().items() if "/.search-" not in k} == before


def test_one_precision_that_fails_does_not_hold_back_the_others(place_deployment, invoke, some):
    place_deployment("exported")
    result = invoke(
        *("calibrate", some, "--precision", "fp16", "--precision", "int8-cpu"),
        *("--min-sqnr", "50", "--no-search"),
    )
    assert result.exit_code == 3
    steps = Deployment.open("engines/digits").steps
    assert "quantize:fp16" in steps
    assert "quantize:int8-cpu" not in steps


def test_the_demo_network_knows_its_images(place_deployment, invoke):
    place_deployment("exported")
    result = invoke("calibrate", "--precision", "int8-trt", "--eval-samples", "40", "--json")
    found = json.loads(result.stdout)
    assert found["calibration"]["report"]["images"] == 256
    measured = found["precisions"]["int8-trt"]["report"]["measured"]["emulated"]
    assert measured["noisy"]["images"] == 40


def test_another_network_needs_its_own_images(place_deployment, invoke, monkeypatch):
    place_deployment("exported")
    monkeypatch.setattr("parnet_deploy.storage.files.hash_file", lambda path: ("other", 0))
    result = invoke("calibrate")
    assert result.exit_code == 1
    assert "Run: parnet-deploy calibrate IMAGES." in result.stderr


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("--precision", "int4"), 1, "precision: got 'int4', expected one of all, int8"),
        (("--method", "magic"), 2, "magic"),
        (("--samples", "0"), 1, "--samples: got 0"),
        (("--samples", "4"), 1, "calibration images: got 4, expected at least 16"),
        (("--noise", "-1"), 1, "--noise: got -1.0"),
        (("--percentile", "10"), 1, "percentile: got 10.0"),
        (("--keep", "streams.7.7"), 1, "layer to keep: got 'streams.7.7'"),
    ],
)
def test_impossible_options_are_refused(place_deployment, invoke, some, args, code, text):
    place_deployment("exported")
    result = invoke("calibrate", some, *args)
    assert result.exit_code == code
    assert text in result.stderr


def test_bad_images_are_named(place_deployment, invoke, some):
    place_deployment("exported")
    bad = some / "3" / "bad.npy"
    np.save(bad, np.full((3, 32, 32), np.nan, np.float32))
    result = invoke("calibrate", some)
    assert result.exit_code == 1
    assert "3/bad.npy: got NaN or Inf in 3072 values" in result.stderr


def test_build_without_calibration_names_the_verb(place_deployment, invoke):
    place_deployment("exported")
    result = invoke("build", "--precision", "int8")
    assert result.exit_code == 1
    assert "Run: parnet-deploy calibrate IMAGES --precision int8-cpu." in result.stderr


def test_every_gate_has_an_option_in_the_help(invoke):
    text = invoke("calibrate", "--help").stdout
    assert set(_GATES) == set(LIMITS)
    for option, _ in _GATES.values():
        assert option in text
