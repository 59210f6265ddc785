from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from parnet_deploy.bench import environment
from parnet_deploy.bench.environment import capture, during, joined, same_machine

GPU = {
    "name": "NVIDIA Toy 3000",
    "compute_capability": "9.0",
    "memory_mib": 81559,
    "multiprocessors": 132,
    "uuid": "GPU-1",
}
MACHINE: dict[str, Any] = {
    "cpu": "Toy",
    "isa": ["avx2"],
    "cores_usable": 2,
    "gpus": [],
    "gpu_driver": None,
}


def test_a_capture_is_json_and_says_what_decides_speed() -> None:
    found = capture("digest")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(environment.DECISIVE) <= set(found)
    assert found["deployment"] == "digest"
    assert len(found["affinity"]) >= found["cores_usable"] >= 1


def test_gpu_states_are_asked_of_the_gpus_that_are_there(monkeypatch) -> None:
    machine = {**capture(), "gpus": [GPU]}
    monkeypatch.setattr(environment, "describe_machine", lambda: machine)
    monkeypatch.setattr(environment, "read_gpu_states", lambda uuids: [{"uuid": uuids[0]}])
    assert capture()["gpu_states"] == [{"uuid": "GPU-1"}]


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="no /proc here")
def test_the_work_of_a_child_is_ours() -> None:
    before = capture()
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    found = joined(before, capture())
    assert "counters" not in found
    assert found["cpu"] == before["cpu"]
    assert found["during"]["own_cores"] * found["during"]["seconds"] >= 0.45


def test_differences_of_counters() -> None:
    cpu = {"affinity": [0, 1], "load_average": None, "mhz": None, "gpu_states": []}
    zero = dict.fromkeys(("at_s", "busy_s", "own_s", "steal_s"), 0.0)
    then = {**cpu, "counters": {**zero, "throttled_periods": None, "throttled_s": None}}
    grown = {"at_s": 4.0, "busy_s": 6.0, "own_s": 5.0, "steal_s": 0.4}
    found = during(then, {**then, "counters": {**then["counters"], **grown}})
    assert found["own_cores"] == 1.25
    assert found["foreign_cores"] == 0.25
    assert found["steal_share"] == 0.05
    assert found["throttled_periods"] is None


def test_one_machine_on_two_days() -> None:
    later = {**MACHINE, "load_average": [3, 3, 3], "packages": {"onnxruntime": "9"}}
    assert same_machine(MACHINE, later) == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("cpu", "Other", "cpu Toy then, Other now"),
        ("isa", ["avx2", "avx512f"], "isa avx2 then, avx2, avx512f now"),
        ("cores_usable", 4, "cores_usable 2 then, 4 now"),
        ("gpus", [GPU], "gpus none then, NVIDIA Toy 3000 now"),
        ("gpu_driver", "580.1", "gpu_driver unknown then, 580.1 now"),
    ],
)
def test_another_machine(name, value, text) -> None:
    assert same_machine(MACHINE, {**MACHINE, name: value}) == [text]


def test_two_cards_of_one_kind_are_one_machine() -> None:
    cards = [{**MACHINE, "gpus": [{**GPU, "uuid": uuid}]} for uuid in ("GPU-1", "GPU-2")]
    assert same_machine(*cards) == []
