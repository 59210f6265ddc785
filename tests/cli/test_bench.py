"""The verb bench. How long anything takes is not tested."""

from __future__ import annotations

import json
import shutil

from tests.cli.conftest import CHECKPOINT

QUICK = ("--rounds", "3")


def test_arms_stand_side_by_side(built, invoke):
    result = invoke("bench", *QUICK, "--against", "torch")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "digits 3 rounds in turns, batch 1, 32x32" in text
    assert "machine " in text.partition("ms p50")[0]
    assert "ms p50 p90 p99 ratio 95 % first load" in text
    assert "torch training form, eager" in text
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_json_has_the_documented_keys(built, invoke):
    found = json.loads(invoke("bench", *QUICK, "--against", "none", "--json").stdout)
    assert set(found) == {"deployment", "name", "skipped", "report"}
    report = found["report"]
    assert set(report) >= {
        *("environment", "plan", "backend", "simulated", "batch", "input_size", "rounds"),
        *("arms", "checks", "left_out", "noisy"),
    }
    assert set(report["arms"]) == {"parnet-deploy"}
    assert set(report["arms"]["parnet-deploy"]) >= {
        *("p50_ms", "p90_ms", "p99_ms", "first_ms", "load_ms", "ratio_to_ours", "samples_ms"),
    }


def test_an_arm_that_cannot_be_had_is_named_with_the_reason(workplace, invoke):
    shutil.copy(CHECKPOINT, workplace / "model.pt")
    invoke("fuse", "model.pt")
    (workplace / "model.pt").unlink()
    result = invoke("bench", *QUICK)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "! torch was left out: the checkpoint" in text
    assert "! onnxruntime-unfused was left out: the checkpoint" in text


def test_without_torch_its_arms_are_left_out(built, run_process):
    code = (
        "import sys; sys.modules['torch'] = None;"
        "sys.argv = ['p', 'bench', '--rounds', '3', '--json'];"
        "from parnet_deploy.cli.main import main; main()"
    )
    done = run_process("-c", code)
    assert done.returncode == 0, done.stderr
    left_out = json.loads(done.stdout)["report"]["left_out"]
    assert set(left_out) == {"torch", "onnxruntime-unfused"}
    assert "pip install 'parnet-deploy[export]'" in left_out["torch"]


def test_simulated_latencies_are_called_so(built, invoke):
    invoke("build", "--gpus", "0,1,2", "--backend", "fake")
    result = invoke("bench", "--backend", "fake", *QUICK, "--against", "none")
    assert "! simulated devices: these latencies say nothing" in result.stdout


def test_the_three_commands_of_the_brief(workplace, invoke):
    shutil.copy(CHECKPOINT, workplace / "model.pt")
    assert invoke("fuse", "model.pt").exit_code == 0
    assert invoke("build", "--gpus", "0,1,2", "--backend", "fake").exit_code == 0
    result = invoke("bench", *QUICK, "--against", "none")
    assert result.exit_code == 0
    assert "! simulated" in result.stdout


def test_it_builds_what_is_missing(place_deployment, invoke):
    place_deployment("fused")
    result = invoke("bench", *QUICK, "--against", "none")
    assert result.exit_code == 0
    for line in ("no engines yet: running build first", "export is missing: running it first"):
        assert line in result.stderr


def test_another_answer_is_exit_3(built, invoke, snapshot, monkeypatch):
    from parnet_deploy.cli import bench
    from parnet_deploy.measure import Arm

    def wrong(image):
        return image.reshape(len(image), -1)[:, :10]

    arm = Arm(name="torch", run=wrong, load_ms=None, note="wrong")
    monkeypatch.setattr(bench, "load_arms", lambda *a, **k: ([arm], {}))
    before = snapshot()
    result = invoke("bench", *QUICK)
    assert result.exit_code == 3
    assert "error: parity: arm torch" in result.stderr
    assert snapshot() == before
