from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from parnet_deploy.bench.arms.table import ARMS, arm_spec, find_arm
from parnet_deploy.bench.result import OURS
from parnet_deploy.contest.arm import ArmSpec
from parnet_deploy.errors import SpecError


def spec(name: str, directory: Path) -> ArmSpec:
    return arm_spec(name, directory, plan="p", batch=2, size=(32, 64), classes=3, threads=1)


@pytest.mark.parametrize("name", sorted(set(ARMS) - {"openvino"}))
def test_every_entry_is_a_function(name) -> None:
    module, _, function = ARMS[name].entry.partition(":")
    assert callable(getattr(import_module(module), function))


def test_options_are_plain_and_the_entrys_own_are_among_them(tmp_path) -> None:
    made = spec("resnet50", tmp_path)
    assert made.network == "other"
    assert made.options == {
        "network": "resnet50",
        "directory": str(tmp_path),
        "plan": "p",
        "batch": 2,
        "size": [32, 64],
        "classes": 3,
        "threads": 1,
    }


def test_torch_runs_as_people_run_it(tmp_path) -> None:
    for name in ("torch", "torch-compile"):
        assert spec(name, tmp_path).environment["OMP_WAIT_POLICY"] is None
    assert spec(OURS, tmp_path).environment == {}


def test_another_deployment_is_an_arm_by_its_path(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "engines/other"
    other.mkdir(parents=True)
    with pytest.raises(SpecError, match="or the directory of a deployment"):
        find_arm("engines/other")
    (other / "deployment.json").write_text("{}")
    made = spec("engines/other", tmp_path / "ours")
    assert (made.name, made.network) == ("engines/other", "other")
    assert made.options["deployment"] == str(other)
    assert made.options["directory"] == str(tmp_path / "ours")


@pytest.mark.parametrize(
    "key",
    [
        "onnxruntime-fp32-auto",
        "onnxruntime-cuda-fp16-one-gpus0+1",
        "auto-int8-auto",
        "openvino-bf16-one-2threads",
        "auto-auto-streams",
    ],
)
def test_a_plan_s_key_is_an_arm(tmp_path, key) -> None:
    made = spec(key, tmp_path)
    assert (made.name, made.network, made.extra) == (key, "same", None)
    assert (made.options["key"], made.options["plan"]) == (key, "p")
    assert "deployment" not in made.options


def test_backends_whose_plans_are_arms(tmp_path) -> None:
    for name in ("mnn", "ncnn"):
        made = spec(name, tmp_path)
        assert (made.options["backend"], made.extra, made.network) == (name, name, "same")


@pytest.mark.parametrize(("name", "near"), [("resnet43", "resnet34"), ("openvin", "openvino")])
def test_a_mistyped_name(name, near) -> None:
    with pytest.raises(SpecError, match=f"Did you mean {near}"):
        find_arm(name)
