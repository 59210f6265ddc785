"""The verb verify."""

from __future__ import annotations

import json
import shutil

import pytest

from parnet_deploy.compare import Parity
from tests.builder.bisect.tampering import scale_weight, spoil_weight, tamper


def test_every_plan_is_compared(built, invoke):
    invoke("build", "--gpus", "0,1", "--backend", "fake")
    result = invoke("verify")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "onnxruntime-fp32-one the engine alone" in text
    assert "fake-fp32-auto-gpus0+1 7 engine outputs, each alone" in text
    assert "✗" not in text


def test_json_has_the_documented_keys(built, images, invoke):
    result = invoke("verify", "--json", "--images", images, "--plan", "onnxruntime-fp32-one")
    found = json.loads(result.stdout)
    assert set(found) == {"deployment", "name", "skipped", "images", "report"}
    assert found["images"] == {"count": 20, "compared": True, "why_not": None}
    assert set(found["report"]) >= {"artifacts", "plans"}
    checks = found["report"]["plans"]["onnxruntime-fp32-one"]
    assert all({"what", "error", "tolerance", "passed"} <= set(check) for check in checks)
    assert checks[-1]["what"] == "20 images against the training form"


def test_a_checkpoint_that_is_gone_is_said(workplace, images, invoke):
    from tests.cli.conftest import CHECKPOINT

    shutil.copy(CHECKPOINT, workplace / "model.pt")
    invoke("fuse", "model.pt")
    invoke("build", "--placement", "one")
    (workplace / "model.pt").unlink()
    result = invoke("verify", "--images", images)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "! images were not compared: the checkpoint" in text
    assert "is gone or was changed" in text


def test_another_answer_is_exit_3_and_publishes_nothing(built, invoke, snapshot, monkeypatch):
    from parnet_deploy.builder import verify_step

    wrong = Parity(what="whole", error=1.0, max_abs=1.0, tolerance=1e-4, worst=(0,), finite=True)
    monkeypatch.setattr(verify_step, "verify_whole", lambda *a, **k: [wrong])
    before = snapshot()
    result = invoke("verify")
    assert result.exit_code == 3
    assert "error: parity: plan onnxruntime-fp32-one, whole: error 1.00e+00" in result.stderr
    assert snapshot() == before


@pytest.mark.parametrize(
    ("options", "text"),
    [(["--plan", "other"], "plan"), (["--images", "none"], "images none: got no such file")],
)
def test_what_is_not_there(built, invoke, options, text):
    result = invoke("verify", *options)
    assert result.exit_code == 1
    assert text in result.stderr.splitlines()[-1]


def test_bisect_names_the_layer_that_was_changed(built, invoke, snapshot):
    plan = "onnxruntime-fp32-one"
    tamper(built, f"plans/{plan}/all.onnx", lambda g: scale_weight(g, "streams.1.1/conv"))
    before = snapshot()
    result = invoke("verify", "--bisect")
    assert result.exit_code == 3
    text = " ".join(result.stdout.split())
    assert "stream1 leaves the reference at streams.1.1/conv (Conv): its graph was changed" in text
    assert "1 of" in text
    assert f"parnet-deploy build {built.name} --backend onnxruntime --rebuild" in text
    assert snapshot() == before, "nothing is saved"
    found = json.loads(invoke("verify", "--bisect", "--json").stdout)["plans"][plan]
    assert found["found"] is True
    assert found["layer"]["block"] == "streams.1.1"
    assert found["error"] > found["limit"]


def test_a_failed_verification_points_to_bisect(built, invoke):
    plan = "onnxruntime-fp32-one"
    tamper(built, f"plans/{plan}/all.onnx", lambda g: scale_weight(g, "streams.1.1/conv"))
    result = invoke("verify")
    assert result.exit_code == 3
    assert "--bisect" in result.stderr


def test_bisect_of_a_right_plan_finds_nothing(built, invoke):
    result = invoke("verify", "--bisect")
    assert result.exit_code == 0
    assert "no difference found" in " ".join(result.stdout.split())


def test_bisect_takes_no_images(built, images, invoke):
    result = invoke("verify", "--bisect", "--images", images)
    assert result.exit_code == 2
    assert "leave out --images" in result.stderr


def test_an_engine_that_answers_nan_is_told_in_json(built, invoke):
    plan = "onnxruntime-fp32-one"
    tamper(built, f"plans/{plan}/all.onnx", lambda g: spoil_weight(g, "streams.1.1/conv"))
    result = invoke("verify", "--bisect", "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)["plans"][plan]
    assert found["layer"]["name"] == "streams.1.1/conv"
    assert found["error"] is None
    assert found["engines"][0]["finite"] is False
