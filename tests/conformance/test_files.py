"""What export-triton writes, read by the classes of those who will read it."""

from __future__ import annotations

import pytest

from parnet_deploy.triton.export import export_to_repository
from parnet_deploy.triton.kserve import KserveOptions, render_service
from parnet_deploy.triton.options import TritonOptions
from tests.conformance.clients import PROBES, run_json
from tests.conformance.oracle import python_of, serve_triton
from tests.triton.conftest import add_tensorrt, toy, toy_once  # noqa: F401

pytestmark = pytest.mark.conformance


def read_configs(*paths):
    return run_json([python_of("tritonclient"), PROBES / "read_config.py", *paths])


def test_triton_knows_every_field_of_every_kind(oracle, toy, tmp_path):  # noqa: F811
    add_tensorrt(toy)
    paths = []
    for kind in ("python", "onnxruntime", "tensorrt"):
        options = TritonOptions(kind=kind, replicas=2, queue_delay_us=100)
        paths.append(export_to_repository(toy, tmp_path / kind, options).path / "config.pbtxt")
    python, onnx, tensorrt = read_configs(*paths)
    assert python["backend"] == "python"
    assert onnx["platform"] == "onnxruntime_onnx"
    assert tensorrt["platform"] == "tensorrt_plan"
    for found in (python, onnx, tensorrt):
        batching = found["dynamic_batching"]
        assert batching["max_queue_delay_microseconds"] == "100"
        assert batching["default_queue_policy"]["max_queue_size"] == 64
    (group,) = tensorrt["instance_group"]
    assert group == {"kind": "KIND_GPU", "count": 2, "gpus": [0], "profile": ["0", "1"]}
    graphs = tensorrt["optimization"]["cuda"]["graph_spec"]
    assert [graph["batch_size"] for graph in graphs] == [1, 8]
    assert graphs[0]["input"]["image"]["dim"] == ["3", "16", "16"]


def test_an_unknown_field_would_be_told(oracle, tmp_path):
    path = tmp_path / "config.pbtxt"
    path.write_text('name: "x"\nmax_bach_size: 3\n')
    with pytest.raises(AssertionError, match="max_bach_size"):
        read_configs(path)


def test_kserve_knows_every_field_of_both_forms(oracle, tmp_path):
    uri = "s3://bucket/models"
    forms = [
        KserveOptions(storage_uri=uri, gpus=1, image="me/triton:1"),
        KserveOptions(
            storage_uri=uri,
            gpus=3,
            server="parnet-deploy",
            image="me/parnet:1",
            token_secret="parnet",
        ),
    ]
    paths = []
    for number, form in enumerate(forms):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(render_service("parnet_s", form))
    broken = tmp_path / "broken.yaml"
    text = paths[1].read_text().replace("readinessProbe", "readyProbe")
    broken.write_text(text.replace("predictor", "predictors", 1))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text)
    program = [python_of("kserve"), PROBES / "read_kserve.py"]
    first, second, third, fourth = run_json([*program, *paths, broken, wrong])
    assert first["problems"] == second["problems"] == []
    assert first["service"]["metadata"]["name"] == "parnet-s"
    assert third["problems"] == ["service.spec.predictors: unknown to V1beta1InferenceServiceSpec"]
    assert fourth["problems"] == ["service.spec.predictor.containers[].readyProbe: unknown"]


def test_replicas_and_a_kind_that_chooses_its_devices_load(oracle, toy, tmp_path):  # noqa: F811
    models = tmp_path / "models"
    path = export_to_repository(toy, models, TritonOptions(replicas=2)).path
    config = path / "config.pbtxt"
    config.write_text(config.read_text().replace("KIND_CPU", "KIND_MODEL"))
    with serve_triton(models, "toy", tmp_path) as served:
        log = served.log.read_text()
    assert log.count("TRITONBACKEND_ModelInstanceInitialize: toy_0_") == 2, log
