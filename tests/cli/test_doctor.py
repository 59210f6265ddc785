"""The verb doctor."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from parnet_deploy.doctor.probe import Probe
from tests.runtime.driver_toys import ToyDriver, install


def test_it_exits_0_and_shows_every_group(invoke):
    result = invoke("doctor")
    assert result.exit_code == 0
    for group in ("system", "packages [cpu]", "packages [export]", "backends", "hardware"):
        assert f"\n{group}\n" in result.stdout
    assert "usable of" in result.stdout


def test_json_has_the_documented_keys(invoke):
    found = json.loads(invoke("doctor", "--json").stdout)
    assert set(found) == {"version", "findings"}
    for finding in found["findings"]:
        assert set(finding) == {"group", "name", "status", "detail", "fix"}
        assert finding["status"] in {"ok", "absent", "missing", "warning"}
        assert finding["fix"] is not None or finding["status"] == "ok"


def test_a_missing_package_has_its_pip_command(invoke, monkeypatch):
    def version(name):
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("parnet_deploy.doctor.versions.metadata.version", version)
    result = invoke("doctor")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "✗ torch not installed; needed by fuse, export, build" in text
    assert "✗ torch pip install 'parnet-deploy[export]'" in text
    assert "Some verbs do not work here" in text


@pytest.mark.parametrize("driver", [None, ToyDriver(2)], ids=["none", "two"])
def test_gpus(invoke, monkeypatch, driver):
    install(monkeypatch, driver)
    text = " ".join(invoke("doctor").stdout.split())
    if driver is None:
        assert "no NVIDIA driver" in text
        assert "gpu none needed" in text
    else:
        assert "gpu 1 NVIDIA Toy 3000" in text
        assert "peer access all 2 directions" in text


def test_fewer_usable_cores_are_explained(invoke, monkeypatch):
    from parnet_deploy.doctor import findings as doctor

    machine = {**doctor.describe_machine(), "cores_usable": 1, "cores_total": 8}
    machine["load_average"] = [0.1, 0.1, 0.1]
    monkeypatch.setattr(doctor, "describe_machine", lambda: machine)
    text = " ".join(invoke("doctor").stdout.split())
    assert "1 usable of 8" in text
    assert "the affinity mask (taskset) or the cgroup's CPU quota" in text


def test_it_runs_where_nothing_optional_is_installed(run_process, tmp_path):
    absent = "raise ModuleNotFoundError('gone', name='onnxruntime')"  # for backends' processes, too
    (tmp_path / "onnxruntime.py").write_text(absent)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxruntime', 'PIL']));"
        "sys.argv = ['p', 'doctor', '--json'];"
        "from parnet_deploy.cli.main import main; main()"
    )
    done = run_process("-c", code)
    assert done.returncode == 0, done.stderr
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["onnxruntime"]["status"] == "missing"
    assert "pip install 'parnet-deploy[cpu]'" in found["onnxruntime"]["fix"]


def test_strict_fails_where_something_is_missing(invoke, monkeypatch):
    from parnet_deploy.doctor import findings as doctor
    from parnet_deploy.doctor.finding import Finding

    fine = Finding(group="system", name="a", status="ok", detail="b")
    absent = Finding(group="system", name="a", status="absent", detail="b", fix="c")
    bad = Finding(group="system", name="a", status="warning", detail="b", fix="c")
    for findings, code in ([fine, absent], 0), ([fine, bad], 3):
        monkeypatch.setattr(doctor, "examine", lambda root, deep, found=findings: iter(found))
        assert invoke("doctor", "--strict").exit_code == code
        assert invoke("doctor").exit_code == 0


def test_the_most_urgent_fix_comes_first(invoke, monkeypatch):
    from parnet_deploy.doctor import findings as doctor
    from parnet_deploy.doctor.finding import Finding

    found = [
        Finding(group="g", name=status, status=status, detail="d", fix=f"fix of {status}")
        for status in ("absent", "warning", "missing")
    ]
    monkeypatch.setattr(doctor, "examine", lambda root, deep: iter(found))
    text = invoke("doctor").stdout.partition("what to do")[2]
    order = [text.index(f"fix of {status}") for status in ("missing", "warning", "absent")]
    assert order == sorted(order)


def test_plans_of_an_unusable_backend_are_not_opened(built, invoke, monkeypatch):
    broken = Probe("broken", "mend")
    monkeypatch.setattr("parnet_deploy.doctor.findings.probe_backend", lambda name: broken)
    monkeypatch.setattr("parnet_deploy.doctor.deployments.Runtime", None)  # opening would raise
    done = invoke("doctor", "--deep", "--json")
    every = json.loads(done.stdout)["findings"]
    (ours,) = (one for one in every if one["group"] == "deployments")
    assert ours["status"] == "warning"
    assert "backend onnxruntime cannot be loaded here" in ours["detail"]
