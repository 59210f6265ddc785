"""``build --backend auto`` on real backends: all are measured, and what fails is left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.builder import build, fresh, gpus
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.builder.convert import convert
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import (
    DeploymentCorruptError,
    DeviceUnavailableError,
    EngineLoadError,
    ExecutionError,
    SpecError,
)
from parnet_deploy.placement import chain
from parnet_deploy.runtime.choose import order_plans

pytestmark = pytest.mark.slow

PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "mnn": "MNN", "ncnn": "ncnn"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    found = gpus.installed_backends()
    if len(found) < 2:
        pytest.skip("needs the package openvino, MNN or ncnn")
    monkeypatch.setattr(fresh, "BUDGET_S_EACH", 0.2)  # who wins is not what is tested
    return found


def loaded_by_a_run(directory: Path, plan: str) -> set[str]:
    """Top-level packages in a process that has opened a plan and run it."""
    script = (
        "import sys, numpy as np\n"
        "from parnet_deploy import Runtime\n"
        f"with Runtime.open({str(directory)!r}, plan={plan!r}) as runtime:\n"
        "    runtime(np.zeros((1, 3, 32, 32), np.float32))\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_every_backend_is_measured_and_only_the_winner_is_imported(exported, installed) -> None:
    report = build_to_deployment(exported, BuildOptions(backend="auto", max_batch=2)).report
    rows = report["measured"]["candidates"]
    assert set(installed) <= {row["backend"] for row in rows}
    assert all(("ratio" in row) != ("left_out" in row) for row in rows)
    assert [row["backend"] for row in rows if row["chosen"]] == [report["backend"]]
    used = set(report.get("backends", {}).values()) or {report["backend"]}
    loaded = loaded_by_a_run(exported, report["plan"])
    assert loaded & set(PACKAGES.values()) == {PACKAGES[name] for name in used}
    assert not loaded & {"onnx", "torch", "_tools"}


def test_a_mix_answers_right_and_says_who_runs_what(exported, installed, monkeypatch) -> None:
    """Forced: the first parts on one backend, the rest on another."""

    def propose(workshop, built, *others):
        names = [part.name for part in workshop.spec.parts]
        placement = chain(workshop.spec, [names[:4], names[4:]])
        homes = zip((s.name for s in placement.segments), installed[:2], strict=True)
        return [
            build.Candidate(placement=placement, backend="mixed", backends=tuple(homes)),
        ]

    def choose_it(spec, built, *others):
        return built[-1], {"candidates": [], "median_ms": 1.0}

    monkeypatch.setattr(build, "propose_mixes", propose)
    monkeypatch.setattr(build, "choose_fastest", choose_it)
    report = build_to_deployment(exported, BuildOptions(backend="auto", max_batch=2)).report
    assert report["backend"] == "mixed"
    assert set(report["backends"].values()) == set(installed[:2])
    assert all(check["passed"] for check in report["made"]["checks"])
    loaded = loaded_by_a_run(exported, report["plan"])
    assert loaded & set(PACKAGES.values()) == {PACKAGES[name] for name in installed[:2]}


@pytest.mark.parametrize("how", ["crashes", "writes_nonsense", "is_wrong"])
def test_a_bad_converter_is_left_out_with_the_reason(exported, installed, monkeypatch, how) -> None:
    bad = installed[1]
    monkeypatch.setitem(convert.CONVERTERS, bad, f"tests.builder.bad_converters.{how}")
    options = BuildOptions(backend="auto", placement="one", threads=1, max_batch=2)
    report = build_to_deployment(exported, options).report
    (row,) = [row for row in report["measured"]["candidates"] if row["backend"] == bad]
    assert row["left_out"]
    assert not row["chosen"]
    assert report["backend"] != bad


def test_a_mix_that_fails_is_left_out_and_the_rest_stays(exported, installed, monkeypatch) -> None:
    def propose(workshop, built, *others):
        placement = chain(workshop.spec, [[part.name for part in workshop.spec.parts]])
        homes = ((placement.segments[0].name, "fake"),)  # which is no backend of the CPU
        return [build.Candidate(placement=placement, backend="mixed", backends=homes)]

    monkeypatch.setattr(build, "propose_mixes", propose)
    options = BuildOptions(backend="auto", threads=1, max_batch=2)
    rows = build_to_deployment(exported, options).report["measured"]["candidates"]
    (row,) = [row for row in rows if row["backend"] == "mixed"]
    assert "expected a backend of the CPU" in row["left_out"]
    assert sum(row["chosen"] for row in rows) == 1


@pytest.mark.parametrize("backend", PACKAGES)
def test_an_engine_that_was_changed_is_refused_and_not_passed_over(exported, backend) -> None:
    if backend not in gpus.installed_backends():
        pytest.skip(f"needs the package {PACKAGES[backend]}")
    options = BuildOptions(backend=backend, placement="one", threads=1, max_batch=2)
    report = build_to_deployment(exported, options).report
    (file,) = report["engines"].values()
    path = exported / "plans" / report["plan"] / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DeploymentCorruptError):
        Runtime.open(exported)


@pytest.mark.parametrize("backend", PACKAGES)
@pytest.mark.parametrize("placement", ["one", "streams"])
def test_nan_and_infinity_come_out_as_nan_and_spoil_no_other_image(
    exported, backend, placement
) -> None:
    if backend not in gpus.installed_backends():
        pytest.skip(f"needs the package {PACKAGES[backend]}")
    options = BuildOptions(backend=backend, placement=placement, threads=1, max_batch=3)
    build_to_deployment(exported, options)
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32)
    with Runtime.open(exported) as runtime:
        right = runtime(images)
        for value in (np.nan, np.inf, -np.inf):
            spoiled = images.copy()
            spoiled[1, 0, 5, 5] = value
            logits = runtime(spoiled)
            assert np.isnan(logits[1]).all()
            np.testing.assert_allclose(logits[[0, 2]], right[[0, 2]], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(runtime(images), right)
    with Runtime.open(exported, check_finite=True) as runtime, pytest.raises(ExecutionError):
        runtime(spoiled)


@pytest.mark.parametrize("backend", ["mnn", "ncnn"])
def test_a_forked_child_is_refused_threads_that_it_would_wait_for(exported, backend) -> None:
    if backend not in gpus.installed_backends():
        pytest.skip(f"needs the package {PACKAGES[backend]}")
    build_to_deployment(exported, BuildOptions(backend=backend, placement="one", max_batch=2))
    script = (
        "import os, sys, numpy as np\n"
        "from parnet_deploy import Runtime\n"
        "from parnet_deploy.errors import BackendError\n"
        "x = np.zeros((1, 3, 32, 32), np.float32)\n"
        f"where = {str(exported)!r}\n"
        "with Runtime.open(where, threads=2) as runtime:\n"
        "    runtime(x)\n"
        "    if os.fork():\n"
        "        runtime(x)\n"
        "        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "    with Runtime.open(where, threads=1) as own:\n"
        "        own(x)\n"
        "    try:\n"
        "        Runtime.open(where, threads=2)\n"
        "    except BackendError as error:\n"
        "        os._exit(3 if 'start the process with spawn' in str(error) else 4)\n"
        "    os._exit(5)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=120)
    assert done.returncode == 3


def test_a_plan_in_bfloat16_runs_where_it_is_named(exported) -> None:
    pytest.importorskip("openvino")
    for precision in ("fp32", "bf16"):
        options = BuildOptions(backend="openvino", placement="one", threads=1, precision=precision)
        try:
            build_to_deployment(exported, options)
        except EngineLoadError:
            pytest.skip("needs a CPU that multiplies bfloat16")
    found = Deployment.open(exported)
    assert order_plans(found)[0] == "openvino-fp32-one-1threads"
    assert order_plans(found, key="openvino-bf16-one-1threads") == ("openvino-bf16-one-1threads",)


def test_auto_is_for_the_cpu(exported) -> None:
    with pytest.raises(DeviceUnavailableError, match="On the CPU run"):
        build_to_deployment(exported, BuildOptions(backend="auto", gpus=(0,)))


def test_a_precision_that_no_backend_has_is_refused(exported) -> None:
    with pytest.raises(SpecError, match="precision"):
        build_to_deployment(exported, BuildOptions(backend="onnxruntime", precision="bf16"))


def test_the_environment_has_every_backend_where_it_must() -> None:
    """``make check`` installs them all; elsewhere the tests above skip."""
    if os.environ.get("PARNET_REQUIRE_BACKENDS"):
        assert gpus.installed_backends() == tuple(PACKAGES)
