"""The verb build."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from parnet_deploy.deployment import Deployment


def test_it_exports_first_if_that_is_missing_and_says_so(place_deployment, invoke):
    place_deployment("fused")
    result = invoke("build", "--placement", "one")
    assert result.exit_code == 0
    assert "export is missing: running it first" in result.stderr
    assert "exported 9 parts for 32x32" in result.stderr
    assert Deployment.open("engines/digits").steps.keys() >= {"fuse", "export"}


def test_it_shows_what_was_measured_and_why_the_winner_won(place_deployment, invoke):
    place_deployment("exported")
    result = invoke("build")
    assert result.exit_code == 0
    assert "export is there, skipped" in result.stderr
    text = " ".join(result.stdout.split())
    assert "digits built and proved, in engines/digits/plans/onnxruntime-fp32-auto" in text
    assert "placement cores p50 p99 ratio 95 % interval" in text
    assert "ngine" in text.partition("interval")[2]
    assert "next parnet-deploy run IMAGES" in text
    again = invoke("build")
    assert "unchanged, nothing to do" in again.stdout


def test_json_has_the_documented_keys(built, invoke):
    result = invoke("build", "--placement", "one", "--json")
    found = json.loads(result.stdout)
    assert set(found) == {"deployment", "name", "skipped", "report"}
    assert found["skipped"] is True
    assert set(found["report"]) >= {
        *("plan", "backend", "placement", "engines", "threads", "input_size"),
        *("max_batch", "precision", "measured", "made"),
    }


def test_gpus_without_a_gpu_names_the_ways_that_work(built, invoke, snapshot, monkeypatch):
    monkeypatch.setattr("parnet_deploy.builder.gpus.probe_gpus", lambda: (0, "no NVIDIA driver"))
    before = snapshot()
    result = invoke("build", "--gpus", "0,1,2")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "error: --gpus 0,1,2: no NVIDIA driver. On the CPU run: parnet-deploy build; to simulate "
        "the GPUs: parnet-deploy build --gpus 0,1,2 --backend fake."
    )
    assert snapshot() == before


def test_simulated_gpus(built, invoke):
    result = invoke("build", "--gpus", "0,1,2", "--backend", "fake")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "7 engines, 3 side by side, on devices 0,1,2, for 32x32" in text
    assert "placement devices aux predicted" in text
    assert "streams 0,1,2" in text
    assert (
        "simulated devices: nothing was measured; the placement is the best by arithmetic" in text
    )


def test_an_unknown_backend_is_answered_with_a_close_one(built, invoke, snapshot):
    before = snapshot()
    result = invoke("build", "--backend", "onnxrutime")
    assert result.exit_code == 1
    assert (
        "expected one of tensorrt, onnxruntime-cuda, onnxruntime, openvino, mnn, ncnn, mixed, "
        "fake. Did you mean" in result.stderr
    )
    assert snapshot() == before


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--placement", "to"], 2, "'auto', 'one', 'one-aux'"),
        (["--threads", "0"], 1, "error: threads: got 0, expected 1 or more."),
        (["--max-batch", "0"], 1, "error: max batch: got 0, expected 1 or more."),
        (["--backend", "mixed"], 1, "got mixed, expected one that is built. Use --backend auto"),
        (["--backend", "auto", "--gpus", "0"], 1, "error: --gpus 0: "),
        (["--backend", "auto", "--threads", "4000"], 1, "error: threads: got 4000, expected at"),
        (["--precision", "bf16"], 1, "got bf16 with backend onnxruntime, which has no kernels"),
        (["--placement", "recompute"], 1, "error: placement on the CPU: got 'recompute'"),
        (["--optimization-level", "9"], 1, "error: optimization level: got 9, expected 0 to 5."),
        (
            ["--workspace-mib", "64"],
            1,
            "error: workspace mib: got 64 with backend onnxruntime, expected backend tensorrt. "
            "Leave out --workspace-mib.",
        ),
    ],
)
def test_options_that_cannot_be(built, invoke, options, code, text):
    result = invoke("build", *options)
    assert result.exit_code == code
    assert text in result.stderr


def test_auto_measures_what_is_installed_and_its_plan_says_what_won(built, invoke, monkeypatch):
    monkeypatch.setattr("parnet_deploy.builder.build.installed_backends", lambda: ("onnxruntime",))
    monkeypatch.setattr("parnet_deploy.builder.fresh.BUDGET_S_EACH", 0.2)
    result = invoke("build", "--backend", "auto", "--placement", "one", "--threads", "1")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "plan auto-fp32-one-1threads" in text
    assert "backend onnxruntime, fp32" in text
    assert "One engine with onnxruntime on 1 core: the only placement" in text
    shown = invoke("inspect").stdout
    assert "one, onnxruntime" in shown, "the key does not tell the backend"


@pytest.mark.parametrize(
    ("backend", "module", "extra"),
    [("openvino", "openvino", "openvino"), ("mnn", "MNN", "mnn"), ("ncnn", "ncnn", "ncnn")],
)
def test_a_backend_that_is_not_installed_names_its_extra(
    built, invoke, snapshot, backend, module, extra
):
    if find_spec(module) is not None:
        pytest.skip(f"{module} is installed")
    before = snapshot()
    result = invoke("build", "--backend", backend)
    assert result.exit_code == 1
    assert f"parnet-deploy[{extra}]" in result.stderr
    assert snapshot() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "module"), [("openvino", "openvino"), ("mnn", "MNN"), ("ncnn", "ncnn")]
)
def test_every_verb_knows_a_plan_of_another_backend(built, invoke, images, backend, module):
    pytest.importorskip(module)
    made = invoke("build", "--backend", backend, "--placement", "one", "--threads", "1")
    assert made.exit_code == 0
    key = f"{backend}-fp32-one-1threads"
    assert f"plan {key}" in " ".join(made.stdout.split())
    assert f"answered by {backend}" in " ".join(invoke("run", images, "--plan", key).stdout.split())
    assert "no difference found" in invoke("verify", "--bisect", "--plan", key).stdout
    assert invoke("verify", "--plan", key).exit_code == 0
    assert f"engines of {key}" in invoke("inspect").stdout
    timed = invoke("bench", "--plan", key, "--vs", backend, "--rounds", "1", "--budget", "1")
    assert timed.exit_code == 0
    assert "is in engines that nothing looks into" in " ".join(timed.stdout.split())
    refused = invoke("export-triton", "--to", "models", "--kind", "onnxruntime", "--plan", key)
    assert refused.exit_code == 1
    assert "export any plan with --kind python" in refused.stderr


def test_a_failed_check_is_exit_3_and_publishes_nothing(
    place_deployment, invoke, snapshot, monkeypatch
):
    from parnet_deploy.builder import prove
    from parnet_deploy.compare import Parity

    def fail(*args, **more):
        wrong = Parity(
            what="engine", error=1.0, max_abs=1.0, tolerance=1e-4, worst=(0,), finite=True
        )
        return [wrong]

    place_deployment("exported")
    monkeypatch.setattr(prove, "verify_engines", fail)
    before = snapshot()
    result = invoke("build")
    assert result.exit_code == 3
    assert "error: parity: engine: error 1.00e+00" in result.stderr
    assert snapshot() == before


def test_rebuild_builds_what_has_not_changed(built, invoke):
    assert "unchanged, nothing to do" in invoke("build", "--placement", "one").stdout
    again = invoke("build", "--placement", "one", "--rebuild")
    assert "built and proved" in again.stdout


def test_a_plan_that_does_not_run_by_default_says_so(place_deployment, invoke):
    place_deployment("exported")
    assert invoke("build", "--placement", "one").exit_code == 0
    assert "where no plan is named" not in invoke("build", "--placement", "one").stderr
    later = invoke("build", "--placement", "streams", "--threads", "1")
    assert "where no plan is named" not in later.stderr
    again = invoke("build", "--placement", "one")
    assert "onnxruntime-fp32-streams-1threads runs: it was built later" in again.stderr
    assert "Use --plan onnxruntime-fp32-one, or build it again" in again.stderr
    text = invoke("inspect", "--root", "engines").stdout
    plans = [line for line in text.splitlines() if line.startswith("onnxruntime-")]
    (marked,) = [line for line in plans if line.rstrip().endswith("✓")]
    assert "streams" in marked
