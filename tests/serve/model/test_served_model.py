"""A deployment, opened to be served, and what is said of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.errors import CheckFailedError, DeploymentChangedError, DeploymentNotFoundError
from parnet_deploy.input_size import InputSize
from parnet_deploy.preprocess import Preprocessing
from parnet_deploy.serve.model import served_model as module
from parnet_deploy.serve.model.documents import model_config, model_metadata
from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.model.served_model import ServedModel
from parnet_deploy.serve.protocol.refusal import RefusedError
from tests.runtime.runtime_toys import images, reference
from tests.serve.service_toys import (
    LABELS,
    PREPROCESSING,
    SIDE,
    SIZE,
    SPEC,
    ask,
    encoded_input,
    publish,
)

RANGE = InputSize(low=(SIDE, SIDE), high=(2 * SIDE, SIDE))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("engines") / "toy")


@pytest.fixture
def model(toy):
    found = ServedModel.open(ModelOptions(path=toy))
    yield found
    found.close()


def config_of(model: ServedModel) -> dict:
    more = {"slots": 2, "max_queue": 7, "max_delay_s": 0.5, "deadline_s": 3.0}
    return model_config(
        model.signature, backend=model.backend, devices=model.devices, facts={"a": "b"}, **more
    )


def test_it_knows_what_the_deployment_says(model, toy):
    signature = model.signature
    assert (model.name, model.backend, model.devices) == ("toy", "onnxruntime", (0,))
    assert model.digest == Deployment.open(toy).digest
    assert signature.labels == LABELS
    assert signature.preprocessing == PREPROCESSING
    assert (signature.size, signature.max_batch) == (SIZE, 4)
    x = images(SPEC, 2)
    assert np.allclose(model.run(x), reference(SPEC, x), rtol=1e-5, atol=1e-6)
    engine = toy / "plans/only" / f"{model.about['placement']['segments'][0]['name']}.onnx"
    assert model.memory_bytes > engine.stat().st_size


def test_another_name(toy):
    model = ServedModel.open(ModelOptions(path=toy, name="better"))
    assert model.name == model.card["name"] == "better"
    model.close()


@pytest.mark.parametrize(
    "preprocessing",
    [None, Preprocessing(height=2 * SIDE, width=SIDE)],
    ids=["not said", "another size"],
)
def test_without_fitting_preprocessing_only_tensors_are_taken(tmp_path, preprocessing):
    path = publish(tmp_path / "toy", preprocessing=preprocessing)
    model = ServedModel.open(ModelOptions(path=path))
    assert model.signature.inputs == ("image",)
    if preprocessing is None:
        assert model.card["tensors_only"] == "its deployment has no preprocessing"
        assert model.warning is None
    else:
        expected = f"its preprocessing makes {2 * SIDE}x{SIDE}, its plan takes {SIZE}"
        assert model.card["tensors_only"] == expected
        assert model.warning.endswith(f"toy: it takes tensors, not images: {expected}")
    assert [one["name"] for one in model_metadata(model.signature, "x")["inputs"]] == ["image"]
    assert config_of(model)["input"][0]["optional"] is False
    model.close()


def test_without_pillow_only_tensors_are_taken(toy, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    model = ServedModel.open(ModelOptions(path=toy))
    assert model.signature.inputs == ("image",)
    assert "pillow is not installed" in model.card["tensors_only"]
    assert "pillow is not installed" in model.warning
    with pytest.raises(
        RefusedError, match=r"expected .* image\. .*pillow is not installed"
    ) as caught:
        model.signature.check_inputs(ask(encoded_input(b"x")))
    assert caught.value.kind == "invalid"
    model.close()


def test_a_failing_canary_is_not_served(tmp_path):
    path = publish(tmp_path / "toy", canary_off_by=0.5)
    with pytest.raises(CheckFailedError, match="canary"):
        ServedModel.open(ModelOptions(path=path))


def test_nothing_there(tmp_path):
    with pytest.raises(DeploymentNotFoundError):
        ServedModel.open(ModelOptions(path=tmp_path / "nothing"))


def touch(path, number: int) -> None:
    with Deployment.edit(path) as txn:
        txn.stage("reports/bench.json").write_text(json.dumps({"n": number}))
        txn.finish_step("bench", key=step_key(n=number))


@pytest.mark.parametrize("times", [1, 3])
def test_what_is_said_is_of_the_engines_that_run(tmp_path, monkeypatch, times):
    """Another command rewrites the deployment while it is opened."""
    path = publish(tmp_path / "toy")
    left, closed = [times], []

    class Runtime(module.Runtime):
        @classmethod
        def open(cls, *given, **more):
            if left[0]:
                left[0] -= 1
                touch(path, left[0])
            return super().open(*given, **more)

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr(module, "Runtime", Runtime)
    if times == 3:
        with pytest.raises(DeploymentChangedError, match="rewritten 3 times"):
            ServedModel.open(ModelOptions(path=path))
        assert len(closed) == 3
        return
    model = ServedModel.open(ModelOptions(path=path))
    assert model.digest == Deployment.open(path).digest
    assert len(closed) == 1
    model.close()


class TestDocuments:
    def test_metadata(self, model):
        assert model_metadata(model.signature, model.backend) == {
            "name": "toy",
            "versions": ["1"],
            "platform": "parnet_deploy_onnxruntime",
            "inputs": [
                {"name": "image", "datatype": "FP32", "shape": [-1, 3, SIDE, SIDE]},
                {"name": "encoded_image", "datatype": "BYTES", "shape": [-1, 1]},
            ],
            "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 4]}],
        }

    def test_sides_that_vary_are_minus_one(self, tmp_path):
        path = publish(tmp_path / "toy", size=RANGE)
        model = ServedModel.open(ModelOptions(path=path))
        shape = model_metadata(model.signature, "x")["inputs"][0]["shape"]
        assert shape == [-1, 3, -1, SIDE]
        assert config_of(model)["input"][0]["dims"] == [3, -1, SIDE]
        model.close()

    @pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "mnn", "ncnn", "mixed"])
    def test_every_backend_of_the_cpu_is_on_the_cpu(self, model, backend):
        more = {"slots": 1, "max_queue": 1, "max_delay_s": 0, "deadline_s": 1, "facts": {}}
        found = model_config(model.signature, backend=backend, devices=(0,), **more)
        assert found["platform"] == f"parnet_deploy_{backend}"
        group = found["instance_group"][0]
        assert (group["kind"], group["gpus"]) == ("KIND_CPU", [])

    def test_they_are_messages_of_the_protocol(self, model):
        """Every key and value is one that the gRPC messages have."""
        from google.protobuf.json_format import MessageToDict, ParseDict

        from parnet_deploy.serve.protocol import messages

        metadata = model_metadata(model.signature, model.backend)
        parsed = ParseDict(metadata, messages.ModelMetadataResponse())
        assert parsed.outputs[0].shape == [-1, 4]
        config = config_of(model)
        message = ParseDict({"config": config}, messages.ModelConfigResponse()).config
        assert message.max_batch_size == 4
        assert message.dynamic_batching.default_queue_policy.max_queue_size == 7
        assert message.dynamic_batching.max_queue_delay_microseconds == 500_000
        again = MessageToDict(message, preserving_proto_field_name=True)
        assert again["parameters"] == config["parameters"]
        assert again["instance_group"][0] == {"name": "toy_0", "count": 2, "kind": "KIND_CPU"}


class TestCard:
    def test_it_says_what_runs(self, model, toy):
        card = json.loads(json.dumps(model.card))
        assert (card["digest"], card["classes"]) == (model.digest, 4)
        assert card["labels"] == list(LABELS)
        assert card["inputs"] == ["image", "encoded_image"]
        assert card["tensors_only"] is model.warning is None
        assert card["input_size"] == str(SIZE)
        assert card["preprocessing"]["height"] == SIDE
        assert card["running"]["backend"] == "onnxruntime"
        assert card["running"]["canary"]["passed"] is True
        assert str(toy.parent) not in json.dumps(card)

    def test_reports_are_its_evidence_without_long_lists_and_folders(self, tmp_path):
        path = publish(tmp_path / "toy")
        bench = {"arms": {"ours": {"median_ms": 1.5, "samples": list(range(99))}}, "noisy": None}
        with Deployment.edit(path) as txn:
            txn.stage("reports/bench.json").write_text(json.dumps(bench))
            found = json.dumps({"what": "canary of /home/me/toy, plan x 1 / 2"})
            txn.stage("reports/verify.json").write_text(found)
            txn.finish_step("bench", key=step_key(bench=bench))
        (path / "reports/verify.json").write_text("changed")
        model = ServedModel.open(ModelOptions(path=path))
        evidence = model.card["evidence"]
        model.close()
        assert evidence["bench"] == {"arms": {"ours": {"median_ms": 1.5}}, "noisy": None}
        assert evidence["verify"] == {"unreadable": "the file is missing or was changed"}
        (path / "reports/verify.json").write_text(found)
        model = ServedModel.open(ModelOptions(path=path))
        assert model.card["evidence"]["verify"] == {"what": "canary of toy, plan x 1 / 2"}
        model.close()
