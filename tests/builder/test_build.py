from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from parnet_deploy import Runtime
from parnet_deploy.builder import build, gpus, make
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import (
    BackendError,
    CheckFailedError,
    DeploymentChangedError,
    DeploymentError,
    DeviceUnavailableError,
    EngineLoadError,
    SpecError,
)
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.input_size import InputSize
from parnet_deploy.plan import Plan
from parnet_deploy.reference import REFERENCE, Reference


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*.*")}


def reference_of(directory: Path) -> Reference:
    return Reference.unpack(Deployment.open(directory).read_bytes(REFERENCE), "")


@pytest.mark.parametrize("placement", ["one", "streams"])
def test_a_built_plan_gives_the_logits_of_the_training_form(exported, placement) -> None:
    result = build_to_deployment(exported, BuildOptions(placement=placement))
    reference = reference_of(exported)
    with Runtime.open(exported) as runtime:
        logits = runtime(reference.image)
        assert runtime.describe()["plan"] == result.report["plan"]
    np.testing.assert_allclose(logits, reference.logits, atol=1e-4 * abs(reference.logits).max())


def test_build_json_says_how_the_plan_was_made_and_proved(exported) -> None:
    key = build_to_deployment(exported, BuildOptions(placement="streams")).report["plan"]
    raw = Deployment.open(exported).read_bytes(f"plans/{key}/build.json")
    plan = Plan.from_json(json.loads(raw))
    assert plan.made["machine"]["cores_usable"] >= 1
    assert plan.made["tolerance"] == 1e-4
    names = [check["what"] for check in plan.made["checks"]]
    assert "engine stream1, y1" in names
    assert "whole, second of batch 2" in names
    assert all(check["passed"] for check in plan.made["checks"])


def test_auto_measures_and_keeps_the_table(exported, monkeypatch) -> None:
    monkeypatch.setattr(build, "usable_cores", lambda: 2)
    report = build_to_deployment(exported, BuildOptions()).report
    table = report["measured"]["candidates"]
    assert [row["candidate"] for row in table] == [
        "one, all cores",
        "one, 1 core",
        "streams, all cores",
    ]
    assert sum(row["chosen"] for row in table) == 1
    chosen = next(row for row in table if row["chosen"])
    assert report["placement"]["name"] == chosen["placement"]
    assert report["threads"] == chosen["threads"]
    assert report["measured"]["median_ms"] == chosen["median_ms"]


def test_an_unchanged_build_is_skipped_and_a_changed_option_is_not(exported) -> None:
    options = BuildOptions(placement="one")
    assert not build_to_deployment(exported, options).skipped
    again = build_to_deployment(exported, options)
    assert again.skipped
    assert again.report["plan"] == "onnxruntime-fp32-one"
    assert not build_to_deployment(exported, BuildOptions(placement="one", max_batch=2)).skipped


def test_another_machine_builds_again(exported, monkeypatch) -> None:
    options = BuildOptions(placement="one")
    build_to_deployment(exported, options)
    monkeypatch.setattr(build, "machine_key", lambda: {"cpu": "another"})
    assert not build_to_deployment(exported, options).skipped


def test_plans_of_different_options_stand_side_by_side(exported) -> None:
    build_to_deployment(exported, BuildOptions(placement="one"))
    build_to_deployment(exported, BuildOptions(placement="one", threads=1))
    build_to_deployment(exported, BuildOptions(backend="fake", gpus=(0, 1, 2)))
    assert set(Deployment.open(exported).plans) == {
        "onnxruntime-fp32-one",
        "onnxruntime-fp32-one-1threads",
        "fake-fp32-auto-gpus0+1+2",
    }


def test_fake_gpus_run_every_stream_on_its_own_device(exported) -> None:
    report = build_to_deployment(exported, BuildOptions(backend="fake", gpus=(0, 1, 2))).report
    assert {segment["device"] for segment in report["placement"]["segments"]} == {0, 1, 2}
    assert "median_ms" not in report["measured"]
    reference = reference_of(exported)
    with Runtime.open(exported, backend="fake") as runtime:
        np.testing.assert_allclose(runtime(reference.image), reference.logits, atol=1e-4)


def test_gpus_without_a_gpu_name_the_way_on_the_cpu(exported, monkeypatch) -> None:
    monkeypatch.setattr(gpus, "probe_gpus", lambda: (0, "no NVIDIA driver"))
    before = files_of(exported)
    with pytest.raises(DeviceUnavailableError) as caught:
        build_to_deployment(exported, BuildOptions(gpus=(0, 1, 2)))
    assert "--gpus 0,1,2: no NVIDIA driver. On the CPU run: parnet-deploy build" in str(
        caught.value
    )
    assert "--gpus 0,1,2 --backend fake" in str(caught.value)
    assert files_of(exported) == before


def test_a_wrong_engine_fails_the_gate_and_publishes_nothing(exported, monkeypatch) -> None:
    build_to_deployment(exported, BuildOptions(placement="one", max_batch=4))
    before = files_of(exported)
    honest = make.merge_segment

    def one_weight_off(*args):
        model = honest(*args)
        weight = next(w for w in model.graph.initializer if w.name == "head.fc.bias")
        values = onnx.numpy_helper.to_array(weight) + np.float32(0.01)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    monkeypatch.setattr(make, "merge_segment", one_weight_off)
    with pytest.raises(CheckFailedError, match="engine all, logits: error") as caught:
        build_to_deployment(exported, BuildOptions(placement="one", max_batch=2))
    assert caught.value.exit_code == 3
    assert files_of(exported) == before


def test_an_engine_that_gives_nan_fails_the_gate(exported, monkeypatch) -> None:
    honest = make.merge_segment

    def nan_weight(*args):
        model = honest(*args)
        weight = model.graph.initializer[0]
        values = onnx.numpy_helper.to_array(weight) * np.float32("nan")
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    monkeypatch.setattr(make, "merge_segment", nan_weight)
    with pytest.raises(CheckFailedError, match="NaN or Inf"):
        build_to_deployment(exported, BuildOptions(placement="one"))


def test_a_damaged_graph_is_refused_before_it_is_used(exported) -> None:
    path = exported / "onnx/head.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DeploymentError, match=r"artifact onnx/head\.onnx"):
        build_to_deployment(exported)


def test_a_deployment_without_graphs_names_the_next_step(exported) -> None:
    with Deployment.edit(exported) as txn:
        txn.drop_step("export")
    with pytest.raises(DeploymentError, match="Run: parnet-deploy export"):
        build_to_deployment(exported)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"max_batch": 0}, "max batch: got 0"), ({"threads": 0}, "threads: got 0")],
)
def test_impossible_options(options, text) -> None:
    with pytest.raises(SpecError, match=text):
        BuildOptions(**options)


def test_an_unknown_backend_is_answered_with_the_nearest(exported) -> None:
    with pytest.raises(BackendError, match="Did you mean onnxruntime"):
        build_to_deployment(exported, BuildOptions(backend="onnxruntme"))


def test_interrupted_while_measuring_leaves_everything_as_it_was(exported, monkeypatch) -> None:
    before = files_of(exported)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "choose_fastest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_to_deployment(exported, BuildOptions(placement="one"))
    assert files_of(exported) == before


def test_an_engine_that_does_not_load_names_the_file(exported, monkeypatch) -> None:
    class Nonsense:
        def SerializeToString(self, deterministic: bool) -> bytes:  # noqa: N802
            return b"nonsense"

    monkeypatch.setattr(make, "merge_segment", lambda *args: Nonsense())
    with pytest.raises(EngineLoadError, match=r"all\.onnx: ONNX Runtime cannot load it"):
        build_to_deployment(exported, BuildOptions(placement="one"))


def test_a_range_of_sizes_is_proved_at_its_ends_and_in_between(exported) -> None:
    export_to_deployment(exported, InputSize.parse("32:96"))
    report = build_to_deployment(exported, BuildOptions(placement="streams")).report
    whole = [check for check in report["made"]["checks"] if check["what"] == "whole, batch 1"]
    assert len(whole) == 3
    assert all(check["passed"] for check in whole)


def test_graphs_that_were_exported_anew_meanwhile_are_not_mixed(exported, monkeypatch) -> None:
    honest = build.choose_fastest

    def export_in_between(*args):
        export_to_deployment(exported, InputSize.parse("64"))
        return honest(*args)

    monkeypatch.setattr(build, "choose_fastest", export_in_between)
    with pytest.raises(DeploymentChangedError, match="other graphs were exported"):
        build_to_deployment(exported, BuildOptions(placement="one"))
    assert not Deployment.open(exported).plans


def test_no_room_for_temporary_files_is_our_error(exported, monkeypatch) -> None:
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "/scratch")

    monkeypatch.setattr(build, "scratch_folder", full)
    before = files_of(exported)
    with pytest.raises(DeploymentError, match=r"/scratch: got No space left.*set TMPDIR"):
        build_to_deployment(exported, BuildOptions(placement="one"))
    assert files_of(exported) == before


def test_more_threads_than_cores_are_refused(exported, monkeypatch) -> None:
    monkeypatch.setattr(build, "usable_cores", lambda: 2)
    with pytest.raises(SpecError, match="threads: got 99, expected at most 2"):
        build_to_deployment(exported, BuildOptions(threads=99))
