"""The verb bench. How long anything takes is not tested."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from parnet_deploy.bench.arms.table import ARMS, ArmEntry
from parnet_deploy.bench.regression import Regression
from parnet_deploy.bench.result import ArmResult, BenchReport, ModeResult
from tests.cli.conftest import CHECKPOINT

QUICK = ("--rounds", "5")


def test_arms_stand_side_by_side(built, invoke):
    result = invoke("bench", *QUICK, "--vs", "torch")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "digits 5 rounds saturated, 5 rounds paced, batch 1, 32x32" in text
    answers, _, tables = text.partition("Milliseconds of a call, saturated;")
    assert re.search(r"[✓!] Is it right\? Yes, the answer is unchanged: largest error", answers)
    assert re.search(r"How fast is it\? A call takes [0-9.]+ [mu]s \(p50; p99 needs", answers)
    assert "of eager PyTorch" in answers or "than eager PyTorch" in answers
    assert "Why? " in answers
    assert re.search(r"arm ours / it p50 .*calls .*parnet-deploy [0-9.]+ ", tables)
    assert "Milliseconds of a call, paced at 30 calls a second;" in tables
    assert "arm import load first call memory model" in tables
    assert "torch training form, eager" in tables
    assert tables.endswith("engines/digits/reports/bench.html the whole report, for a browser")
    page = (built / "reports/bench.html").read_text()
    assert "A call takes" in page
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_json_has_the_documented_keys(built, invoke):
    found = json.loads(invoke("bench", *QUICK, "--vs", "none", "--json").stdout)
    assert set(found) == {"deployment", "name", "skipped", "report"}
    report = found["report"]
    help_text = invoke("bench", "--help").stdout
    assert set(report) == BenchReport.__required_keys__
    assert set(report["arms"]) == {"parnet-deploy", "yardstick"}
    arm = report["arms"]["parnet-deploy"]
    assert set(arm) == ArmResult.__required_keys__
    assert set(arm["modes"]) == {"saturated", "paced"}
    assert set(arm["modes"]["paced"]) == ModeResult.__required_keys__
    for key in (*report, *arm, *arm["modes"]["paced"]):
        assert key in help_text


def test_mode_and_rate(built, invoke):
    quick = ("--vs", "none", "--mode", "paced", "--rate", "500", "--rounds", "2", "--json")
    report = json.loads(invoke("bench", *quick).stdout)["report"]
    assert report["rounds"] == {"paced": 2}
    assert report["rate_hz"] == 500


def test_the_old_name_of_vs(built, invoke):
    result = invoke("bench", *QUICK, "--against", "onnxruntime-unfused", "--json")
    assert set(json.loads(result.stdout)["report"]["arms"]) == {
        "parnet-deploy",
        "onnxruntime",
        "yardstick",
    }


@pytest.mark.parametrize(
    ("names", "message"), [("torhc", "Did you mean torch?"), ("torch,dog", "got 'dog', expected")]
)
def test_a_mistyped_arm_is_a_usage_error(built, invoke, names, message):
    result = invoke("bench", "--vs", names)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_an_arm_that_cannot_be_had_is_named_with_the_reason(workplace, invoke):
    shutil.copy(CHECKPOINT, workplace / "model.pt")
    invoke("fuse", "model.pt")
    (workplace / "model.pt").unlink()
    result = invoke("bench", *QUICK)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "! torch was left out: the checkpoint" in text
    assert "! onnxruntime was left out: the checkpoint" in text


def test_without_torch_its_arms_are_left_out(built, invoke, workplace, monkeypatch):
    (workplace / "torch.py").write_text("raise ModuleNotFoundError('no', name='torch')")
    monkeypatch.syspath_prepend(workplace)  # in the arms' processes; this one has its torch
    left_out = json.loads(invoke("bench", *QUICK, "--json").stdout)["report"]["left_out"]
    assert set(left_out) == {"torch", "onnxruntime"}
    assert "pip install 'parnet-deploy[export]'" in left_out["torch"]


def test_simulated_latencies_are_called_so(built, invoke):
    invoke("build", "--gpus", "0,1,2", "--backend", "fake")
    result = invoke("bench", "--backend", "fake", *QUICK, "--vs", "none")
    assert "! Simulated devices: these times say nothing" in result.stdout


def test_the_three_commands_of_the_brief(workplace, invoke):
    shutil.copy(CHECKPOINT, workplace / "model.pt")
    assert invoke("fuse", "model.pt").exit_code == 0
    assert invoke("build", "--gpus", "0,1,2", "--backend", "fake").exit_code == 0
    result = invoke("bench", *QUICK, "--vs", "none")
    assert result.exit_code == 0
    assert "! Simulated" in result.stdout


def test_it_builds_what_is_missing(place_deployment, invoke):
    place_deployment("fused")
    result = invoke("bench", *QUICK, "--vs", "none")
    assert result.exit_code == 0
    for line in ("no engines yet: running build first", "export is missing: running it first"):
        assert line in result.stderr


def test_another_answer_is_exit_3(built, invoke, snapshot, monkeypatch):
    wrong = ArmEntry(entry="tests.contest.toy_arms:open_wrong", extra=None, text="wrong")
    monkeypatch.setitem(ARMS, "torch", wrong)
    before = snapshot()
    result = invoke("bench", *QUICK, "--vs", "torch")
    assert result.exit_code == 3
    assert "error: parity: arm torch" in result.stderr
    assert snapshot() == before


ENOUGH = ("--vs", "none", "--mode", "saturated", "--rounds", "20")
"""For a verdict."""


@pytest.fixture
def compared(built, invoke, tmp_path):
    """Compare with a report of this deployment that was changed by hand."""

    def compare(*options, factor=1.0, **environment):
        report = json.loads(invoke("bench", *ENOUGH, "--json").stdout)["report"]
        for measured in report["arms"]["parnet-deploy"]["modes"].values():
            measured["samples_ms"] = [ms * factor for ms in measured["samples_ms"]]
        report["environment"].update(environment)
        path = tmp_path / "older.json"
        path.write_text(json.dumps(report))
        return invoke("bench", *ENOUGH, "--compare", str(path), *options)

    return compare


def test_slower_than_before_is_exit_code_3(compared):
    result = compared("--json", factor=0.001)
    assert result.exit_code == 3
    comparison = json.loads(result.stdout)["comparison"]
    assert set(comparison) == Regression.__required_keys__
    assert comparison["verdict"] == "regression"
    assert "slower" in result.stderr
    assert "expected no more than noise" in result.stderr


def test_faster_than_before_is_fine(compared):
    result = compared(factor=1000.0)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "in units of the yardstick, since 20" in text
    assert "saturated" in text.partition("compared then ms now ms change 95 % verdict")[2]


def test_a_report_of_another_machine_is_refused(compared):
    result = compared(cpu="abacus")
    assert result.exit_code == 1
    assert "cpu abacus then" in " ".join(result.stderr.split())


def test_curves(built, invoke):
    quick = ("--vs", "none", "--rounds", "2", "--json")
    result = invoke("bench", *quick, "--sweep", "threads")
    (curve,) = json.loads(result.stdout)["report"]["curves"]
    assert curve["over"] == "threads"
    assert curve["points"][0]["value"] == "1"
    assert invoke("bench", "--sweep", "colour").exit_code == 2


def test_a_report_that_this_run_would_overwrite_is_no_baseline(built, invoke):
    (built / "reports/bench.json").touch()
    result = invoke("bench", "--compare", str(built / "reports/bench.json"))
    assert result.exit_code == 2
    assert "Keep a copy" in result.stderr
