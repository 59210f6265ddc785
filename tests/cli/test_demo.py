"""The verb demo, on a part of the images."""

from __future__ import annotations

import json
import shutil

import pytest

from parnet_deploy.cli import demo, demo_steps
from tests.cli.conftest import CHECKPOINT, EVAL, REPOSITORY

NOISY = REPOSITORY / "calibration/digits/noisy"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A checkout with two images of each digit in each set; benchmarks cut short."""
    place = tmp_path / "checkout"
    (place / "examples/digits").mkdir(parents=True)
    for file in (CHECKPOINT, CHECKPOINT.with_name("labels.txt")):
        shutil.copy(file, place / "examples/digits")
    for source in (EVAL, NOISY):
        for folder in source.iterdir():
            if folder.is_dir():
                target = place / "calibration/digits" / source.name / folder.name
                target.mkdir(parents=True)
                for file in sorted(folder.rglob("*.png"))[:2]:
                    shutil.copy(file, target)
    monkeypatch.setattr(demo_steps, "_BUDGET_S", 0.1)
    monkeypatch.setattr(demo_steps, "_VS", ("torch",))
    return place


def test_the_whole_job(data, invoke):
    result = invoke("demo", "--data", data)
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "fuse 38 → 0 BatchNorms, 42 → 32 convolutions error 9.7e-16 ✓" in text
    assert "verify 20 images against the training form" in text
    assert "run 20 images: 100.00 % → 100.00 % right all the same ✓" in text
    assert "every answer is the same." in text
    assert "next parnet-deploy inspect digits" in text
    assert "parnet-deploy serve digits" in text
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert [line.partition(",")[0] for line in result.stderr.splitlines()] == [
        f"{i}/7 {name}"
        for i, name in enumerate(("fuse", "export", "build", "verify", "run", "noisy", "bench"), 1)
    ]
    again = invoke("demo", "--data", data, "--json", "-q")
    assert again.stderr == ""
    found = json.loads(again.stdout)
    assert set(found) == {"deployment", "passed", "seconds", "steps"}
    assert found["passed"] is True
    assert [step["kept"] for step in found["steps"]] == [True] * 3 + [False] * 4
    for step in found["steps"]:
        assert set(step) == {"step", "what", "result", "passed", "kept", "seconds", "details"}


def test_one_other_answer_is_exit_3_after_the_table(data, invoke, monkeypatch):
    load_trained = demo_steps.load_trained

    def load_odd(directory):
        network, why = load_trained(directory)

        def odd(images):
            logits = network(images)
            if len(images) > 1:  # not when verify asks, one by one
                logits[0] = logits[0][::-1]
            return logits

        return odd, why

    monkeypatch.setattr(demo_steps, "load_trained", load_odd)
    result = invoke("demo", "--data", data)
    assert result.exit_code == 3
    assert "1 DIFFER" in result.stdout
    assert "✗" in result.stdout
    assert result.stderr.splitlines()[-1] == (
        "error: demo: run, noisy: the engines answer otherwise than the trained network."
    )


def test_without_the_repository_it_says_what_to_give(invoke, tmp_path, snapshot):
    result = invoke("demo", "--data", tmp_path)
    assert result.exit_code == 1
    assert "expected a checkout of the parnet_deploy repository" in result.stderr
    assert "parnet-deploy demo --data DIR" in result.stderr
    assert snapshot() == {}


def test_the_repository_is_found_by_itself():
    assert demo.find_data(None) == REPOSITORY


def test_it_never_takes_over_another_deployment(data, place_deployment, invoke, snapshot):
    made = place_deployment("fused")
    (data / "examples/digits/digits.pth.tar").write_bytes(b"another checkpoint")
    before = snapshot()
    result = invoke("demo", "--data", data)
    assert result.exit_code == 1
    assert f"error: demo: engines/{made.name}: got a deployment of another checkpoint" in (
        result.stderr
    )
    assert snapshot() == before
