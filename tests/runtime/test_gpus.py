"""What the driver is asked, and what becomes of its answers."""

from __future__ import annotations

import json

import pytest

from parnet_deploy.machine import describe as machine
from parnet_deploy.machine import gpus
from parnet_deploy.machine.gpus import probe_gpus, read_gpus
from tests.runtime.driver_toys import ToyDriver, install


def test_facts(monkeypatch, tmp_path):
    install(monkeypatch, ToyDriver(2))
    release = tmp_path / "version"
    release.write_text("580.95.05\n")
    monkeypatch.setattr(gpus, "_RELEASE", release)
    report = read_gpus()
    assert report.cuda == (13, 0)
    assert report.release == "580.95.05"
    assert report.peers == {(0, 1), (1, 0)}
    assert report.why == ""
    assert report.gpus[1].to_json() == {
        "ordinal": 1,
        "name": "NVIDIA Toy 3000",
        "compute_capability": "9.0",
        "memory_mib": 81559,
        "multiprocessors": 132,
        "uuid": "GPU-65656565-6565-6565-6565-656565656565",
        "pci_bus": "0000:01:00.0",
    }
    assert probe_gpus() == (2, "")


def test_minor_versions(monkeypatch):
    install(monkeypatch, ToyDriver(1, cuda=12090))
    assert read_gpus().cuda == (12, 9)
    assert read_gpus().peers == frozenset()


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        ({"cuInit": 100}, r"does not start (cuInit: error 100)"),
        ({"cuDeviceGetCount": 3}, "sees no device (error 3)"),
    ],
)
def test_a_driver_that_is_of_no_use(monkeypatch, fails, why):
    driver = ToyDriver()
    driver.fails = fails
    install(monkeypatch, driver)
    for found in (probe_gpus(), (len(read_gpus().gpus), read_gpus().why)):
        assert found[0] == 0
        assert why in found[1]


def test_no_driver_and_no_device(monkeypatch):
    install(monkeypatch, None)
    assert probe_gpus() == (0, "no NVIDIA driver (libcuda.so.1 was not found)")
    assert read_gpus().why == probe_gpus()[1]
    install(monkeypatch, ToyDriver(0))
    assert "sees no device" in read_gpus().why


@pytest.mark.parametrize("name", ["cuDeviceGetName", "cuDeviceTotalMem_v2", "cuDriverGetVersion"])
def test_a_call_that_fails_later(monkeypatch, name):
    driver = ToyDriver()
    driver.fails = {name: 999}
    install(monkeypatch, driver)
    assert read_gpus().why == f"the NVIDIA driver does not answer ({name}: error 999)"
    assert read_gpus().gpus == ()


class TestMachine:
    def test_without_gpus_the_key_is_what_it_was(self, monkeypatch):
        install(monkeypatch, None)
        key = machine.machine_key()
        assert set(key) == {"cpu", "isa", "cores_usable", "gpus"}
        assert key["gpus"] == 0
        about = machine.describe_machine()
        assert (about["gpus"], about["gpu_driver_cuda"]) == ([], None)

    def test_with_gpus(self, monkeypatch):
        install(monkeypatch, ToyDriver(2))
        about = json.loads(json.dumps(machine.describe_machine()))
        assert [gpu["ordinal"] for gpu in about["gpus"]] == [0, 1]
        assert about["gpu_driver_cuda"] == "13.0"
        key = machine.machine_key()
        assert len(key["gpus"]) == 2
        assert "uuid" not in key["gpus"][0], "another card of the same kind runs the same engines"

    def test_another_driver_is_another_key(self, monkeypatch):
        keys = []
        for cuda in (13000, 12090):
            install(monkeypatch, ToyDriver(1, cuda=cuda))
            monkeypatch.setattr(gpus, "_release", lambda: None)
            keys.append(machine.machine_key())
        assert keys[0] != keys[1]
