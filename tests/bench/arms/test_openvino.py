"""The arm on OpenVINO: with a stand-in for what is asked of it, and for real where installed."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest

from parnet_deploy.bench.arms.fused import fused_graph
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import BackendError
from parnet_deploy.input_size import InputSize
from parnet_deploy.runtime.onnxruntime.cpu import run_once
from parnet_deploy.steps import read_reference
from tests.networks import SPEC
from tests.toy_deployments import export_toy

MODULE = "parnet_deploy.bench.arms.openvino"
LIBRARY = "parnet_deploy.runtime.openvino.library"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    directory = tmp_path_factory.mktemp("built") / "toy"
    export_toy(directory, SPEC, InputSize(low=(32, 32), high=(32, 32)))
    options = BuildOptions(placement="one", threads=1)
    plan = build_to_deployment(directory, options).report["plan"]
    return directory, plan


def options_for(toy):
    directory, plan = toy
    return {"directory": str(directory), "plan": plan, "batch": 1, "size": [32, 32], "threads": 1}


def test_the_fused_graph_is_the_whole_network(toy) -> None:
    data = fused_graph(directory=str(toy[0]))
    onnx.checker.check_model(onnx.load_from_string(data))
    reference = read_reference(Deployment.open(toy[0]))
    logits = run_once(data, {"image": reference.image})["logits"]
    assert np.abs(logits - reference.logits).max() < 1e-4 * np.abs(reference.logits).max()


@pytest.fixture
def stand_in(monkeypatch):
    """An OpenVINO that says it computes in what ``precision`` names."""
    said = SimpleNamespace(precision="f32", config=None, shape=None)

    def compile_model(network, device, config):
        said.config = {"device": device, **config}
        properties = {
            "INFERENCE_PRECISION_HINT": SimpleNamespace(get_type_name=lambda: said.precision),
            "INFERENCE_NUM_THREADS": config["INFERENCE_NUM_THREADS"],
        }
        request = SimpleNamespace(infer=lambda inputs, share_inputs: {0: inputs[0][:, 0, 0]})
        return SimpleNamespace(
            get_property=properties.__getitem__, create_infer_request=lambda: request
        )

    network = SimpleNamespace(reshape=lambda shape: setattr(said, "shape", shape))
    core = SimpleNamespace(read_model=lambda data: network, compile_model=compile_model)
    module = ModuleType("openvino")
    module.__version__, module.Core = "2026.1.0-1-x", lambda: core
    monkeypatch.setitem(sys.modules, "openvino", module)
    for name in (MODULE, LIBRARY):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield said
    for name in (MODULE, LIBRARY):
        sys.modules.pop(name, None)


def test_what_is_asked_of_it(toy, stand_in) -> None:
    arm = import_module(MODULE).open_openvino(**options_for(toy))
    assert stand_in.shape == [1, 3, 32, 32]
    assert stand_in.config == {
        "device": "CPU",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
    }
    assert "f32, 1 threads, OpenVINO 2026.1.0" in arm.note
    assert arm.run(np.ones((1, 3, 32, 32), np.float32)).shape == (1, 32)


def test_another_precision_is_refused(toy, stand_in) -> None:
    stand_in.precision = "bf16"
    with pytest.raises(BackendError, match="got inference precision bf16, expected f32"):
        import_module(MODULE).open_openvino(**options_for(toy))


def test_for_real(toy) -> None:
    pytest.importorskip(LIBRARY, reason="needs openvino")
    reference = read_reference(Deployment.open(toy[0]))
    logits = import_module(MODULE).open_openvino(**options_for(toy)).run(reference.image)
    assert np.abs(logits - reference.logits).max() < 1e-4 * np.abs(reference.logits).max()
