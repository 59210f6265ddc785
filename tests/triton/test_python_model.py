"""The model inside Triton's python backend, over a stand-in for Triton's own module."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import (
    BackendError,
    DeviceLostError,
    ExecutionError,
    InputError,
    MissingExtraError,
    OutOfMemoryError,
)
from parnet_deploy.preprocess import Preprocessing, load_image
from parnet_deploy.triton.answers import answer_all
from parnet_deploy.triton.export import export_to_repository
from parnet_deploy.triton.python_model import TritonPythonModel
from tests.runtime.runtime_toys import images, reference
from tests.triton.conftest import SPEC


class Tensor:
    def __init__(self, name, array):
        self.name, self.array = name, array

    def as_numpy(self):
        return self.array


class TritonError(Exception):
    INVALID_ARG, UNAVAILABLE, UNSUPPORTED, INTERNAL = "invalid", "unavailable", "unsupported", "bug"

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


@pytest.fixture(autouse=True)
def utils(monkeypatch):
    """The part of triton_python_backend_utils that a model uses."""

    def respond(output_tensors, error=None):
        return SimpleNamespace(outputs={t.name: t.array for t in output_tensors}, error=error)

    module = SimpleNamespace(
        Tensor=Tensor,
        TritonError=TritonError,
        InferenceResponse=respond,
        get_input_tensor_by_name=lambda request, name: request.get(name),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)


def arguments(model, *, replicas=1, max_batch=4, plan=None):
    config = {
        "max_batch_size": max_batch,
        "input": [{"name": "image"}, {"name": "encoded_image"}],
        "instance_group": [{"count": replicas}],
        "parameters": {} if plan is None else {"plan": {"string_value": plan}},
    }
    return {
        "model_config": json.dumps(config),
        "model_repository": str(model),
        "model_version": "1",
        "model_name": "toy",
    }


@pytest.fixture
def exported(toy, tmp_path):
    return export_to_repository(toy, tmp_path / "models").path


@pytest.fixture
def model(exported):
    found = TritonPythonModel()
    found.initialize(arguments(exported))
    yield found
    found.finalize()


def request(**tensors):
    return {name: Tensor(name, array) for name, array in tensors.items()}


def png(seed=0):
    from io import BytesIO

    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_tensors_and_files_are_answered_alike(model, toy):
    files = [png(0), png(1)]
    preprocessing = Preprocessing.from_json(Deployment.open(toy).preprocessing)
    x = np.stack([load_image(file, preprocessing) for file in files])
    flat = np.array(files, dtype=np.object_)
    requests = [request(image=x), request(encoded_image=flat), request(encoded_image=flat[:, None])]
    for reply in model.execute(requests):
        assert reply.error is None
        assert reply.outputs["logits"] == pytest.approx(reference(SPEC, x), abs=1e-5)


def test_each_bad_request_is_refused_alone(model):
    good, bad = images(SPEC, batch=2, seed=3), np.array([b"no image"], dtype=np.object_)
    requests = [
        request(image=good),
        request(),
        request(image=good, encoded_image=bad),
        request(encoded_image=bad),
        request(encoded_image=bad[:0]),
        request(image=good[:, :, :4]),
        request(image=good[:1]),
    ]
    replies = model.execute(requests)
    assert replies[0].outputs["logits"] == pytest.approx(reference(SPEC, good), abs=1e-5)
    assert replies[6].outputs["logits"] == pytest.approx(reference(SPEC, good[:1]), abs=1e-5)
    texts = ["got neither", "got image and encoded_image", "no image, or a damaged", "got no file"]
    texts.append("got 4x16, expected 16x16")
    for reply, text in zip(replies[1:6], texts, strict=True):
        assert text in str(reply.error)
        assert reply.error.code == "invalid"
        assert reply.outputs == {}


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (InputError("wrong"), "invalid", "wrong"),
        (DeviceLostError("gone"), "unavailable", "gone"),
        (OutOfMemoryError("full"), "unavailable", "full"),
        (MissingExtraError("pillow", "images"), "unsupported", "pillow"),
        (ExecutionError("once"), "bug", "once"),
        (ValueError("/secret/path"), "bug", "model: internal error (ValueError). See the"),
    ],
)
def test_errors_become_codes_of_triton(model, monkeypatch, raised, code, text):
    def fail(self, x):
        raise raised

    monkeypatch.setattr("parnet_deploy.runtime.session.Runtime.__call__", fail)
    (reply,) = model.execute([request(image=images(SPEC))])
    assert reply.error.code == code
    assert str(reply.error).startswith(text) or text in str(reply.error)
    assert "secret" not in str(reply.error)


def test_a_configuration_beyond_the_plan_is_refused_at_load(exported):
    model = TritonPythonModel()
    with pytest.raises(BackendError, match="batches up to 4, expected 16, the max_batch_size"):
        model.initialize(arguments(exported, max_batch=16))
    model.finalize()


def test_missing_pillow_is_said_at_load(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    model = TritonPythonModel()
    with pytest.raises(MissingExtraError, match=r"parnet-deploy\[images\]"):
        model.initialize(arguments(exported))
    model.finalize()


def test_replicas_share_the_cores(exported, monkeypatch):
    monkeypatch.setattr("parnet_deploy.triton.python_model.usable_cores", lambda: 8)
    seen = {}
    real = TritonPythonModel.initialize.__globals__["Runtime"].open
    monkeypatch.setattr(
        "parnet_deploy.triton.python_model.Runtime.open",
        lambda path, **more: seen.update(more) or real(path, **{**more, "threads": 1}),
    )
    for replicas, threads in ((1, None), (3, 2), (100, 1)):
        model = TritonPythonModel()
        model.initialize(arguments(exported, replicas=replicas))
        model.finalize()
        assert seen["threads"] == threads


def test_a_plan_that_was_asked_for_is_taken(exported):
    model = TritonPythonModel()
    with pytest.raises(Exception, match="expected plan other"):
        model.initialize(arguments(exported, plan="other"))
    model.finalize()


def test_model_py_says_what_is_missing(exported, monkeypatch):
    code = (exported / "1/model.py").read_text()
    namespace: dict = {}
    exec(code, namespace)
    assert namespace["TritonPythonModel"] is TritonPythonModel
    monkeypatch.setitem(sys.modules, "parnet_deploy.triton.python_model", None)
    with pytest.raises(ModuleNotFoundError, match="pip install 'parnet-deploy"):
        exec(code, {})


def test_requests_of_a_size_run_together_up_to_the_maximum():
    calls = []

    def call(x):
        calls.append(x.shape)
        return x.sum(axis=(1, 2, 3), keepdims=True)[:, 0, 0]

    wrong = ValueError("x")
    sizes = [(2, 8), (1, 4), (1, 8), (2, 8), (1, 4)]
    requests = [np.full((n, 3, s, s), i, np.float32) for i, (n, s) in enumerate(sizes)]
    requests.insert(1, wrong)
    answers = answer_all(call, requests, max_batch=4)
    assert sorted(calls) == [(2, 3, 4, 4), (2, 3, 8, 8), (3, 3, 8, 8)]
    assert answers[1] is wrong
    for x, answer in zip(requests, answers, strict=True):
        if x is not wrong:
            assert np.array_equal(answer, call(x))


def test_a_call_that_fails_is_repeated_for_each_request():
    def call(x):
        if (x < 0).any():
            raise InputError("negative")
        return x[:, 0, 0]

    requests = [np.full((1, 1, 1, 1), v, np.float32) for v in (1, -1, 2)]
    answers = answer_all(call, requests, max_batch=8)
    assert [float(answers[0][0, 0]), float(answers[2][0, 0])] == [1, 2]
    assert isinstance(answers[1], InputError)
