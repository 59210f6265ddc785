"""The verb export."""

from __future__ import annotations

import json

import pytest

from parnet_deploy.deployment import Deployment


@pytest.fixture
def fused(place_deployment):
    return place_deployment("fused")


def test_it_shows_every_part_and_the_whole(fused, invoke):
    result = invoke("export")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "digits exported and proved, in engines/digits/onnx" in text
    assert "fusion1 y1, d0 d1" in text
    assert "whole image logits" in text
    assert "✗" not in text
    assert "next parnet-deploy build digits" in text
    assert "unchanged, nothing to do" in invoke("export").stdout


def test_json_has_the_documented_keys(fused, invoke):
    found = json.loads(invoke("export", "digits", "--json").stdout)
    assert set(found) == {"deployment", "name", "skipped", "report"}
    assert set(found["report"]) == {"input_size", "opset", "reference", "parts", "checks"}


@pytest.mark.parametrize(
    ("options", "size"),
    [(["--input-size", "64"], "64x64"), (["--dynamic-size", "32:64x96"], "32x32:64x96")],
)
def test_sizes(fused, invoke, options, size):
    assert invoke("export", *options).exit_code == 0
    assert str(Deployment.open(fused).input_size) == size


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--input-size", "40"], "input size: got 40x40, expected multiples of 32"),
        (["--input-size", "32:64"], "--input-size: got 32:64, expected one size"),
        (["--dynamic-size", "64:32"], "input size: got (64, 64) to (32, 32), expected LOW <= HIGH"),
        (["--input-size", "x"], "input size: got 'x', expected for example 224"),
    ],
)
def test_an_illegal_size_is_refused_and_nothing_changes(fused, invoke, snapshot, options, text):
    before = snapshot()
    result = invoke("export", "digits", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {text}")
    assert snapshot() == before


def test_both_sizes_are_usage(fused, invoke):
    result = invoke("export", "--input-size", "32", "--dynamic-size", "32:64")
    assert result.exit_code == 2
    assert "not both" in result.stderr
