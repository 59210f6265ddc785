"""The exported repository behind the real Triton: its answers are the runtime's own."""

from __future__ import annotations

import numpy as np
import pytest

from parnet_deploy.deployment import Deployment
from parnet_deploy.preprocess import Preprocessing, load_image
from parnet_deploy.runtime.session import Runtime
from tests.conformance.clients import SUITES
from tests.conformance.compare import TOLERANCE

pytestmark = pytest.mark.conformance

LOGITS = [
    ("triton_rest", "infer", 1),
    ("triton_rest", "infer_batch", 3),
    ("triton_rest", "infer_json_both", 2),
    ("triton_rest", "infer_gzip_both", 2),
    ("triton_rest", "infer_async", 1),
    ("triton_rest", "encoded", 1),
    ("triton_rest", "encoded_batch", 2),
    ("triton_rpc", "infer", 1),
    ("triton_rpc", "infer_batch", 3),
    ("triton_rpc", "typed_contents", 1),
    ("triton_rpc", "encoded_batch", 2),
    ("triton_rpc", "typed_bytes_contents", 1),
]


@pytest.fixture(scope="module")
def expected(digits, data):
    """Logits of the four images, from the runtime in this process."""
    with Runtime.open(digits) as runtime:
        return runtime(np.load(data / "images.npy"))


@pytest.mark.parametrize(("suite", "name", "count"), LOGITS)
def test_values(triton, asked, expected, suite, name, count):
    outcome = asked(suite, triton)[name]
    assert "answer" in outcome, outcome
    answer = outcome["answer"]
    found = np.array(answer["values"], np.float32).reshape(answer["shape"])
    limit = float(TOLERANCE * np.abs(expected[:count]).max())
    assert found == pytest.approx(expected[:count], abs=limit)


def test_classes_carry_labels(triton, asked, expected):
    for suite in ("triton_rest", "triton_rpc"):
        answer = asked(suite, triton)["classes_1"]["answer"]
        best = expected[:2].argmax(axis=1)
        texts = [f"{expected[i, k]:f}:{k}:digit {k}: it" for i, k in enumerate(best)]
        assert [text.split(":")[1:] for text in answer["values"]] == [
            text.split(":")[1:] for text in texts
        ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("encoded_damaged", "image file is truncated"),
        ("encoded_text", "got a file that is no image"),
        ("encoded_empty", "got an empty file"),
        ("encoded_and_tensor", "got image and encoded_image, expected exactly one"),
    ],
)
def test_our_refusals_reach_the_client(triton, asked, name, text):
    found = asked("triton_rest", triton)[name]
    assert found["error"] == "status 400"
    assert text in found["message"]


def test_contract(triton, asked, digits):
    spec, size = Deployment.open(digits).spec, Deployment.open(digits).input_size
    found = asked("triton_rest", triton)["metadata"]["answer"]
    assert found["name"] == "digits"
    assert found["versions"] == ["1"]
    assert found["inputs"]["image"] == ["FP32", [-1, spec.in_channels, *size.high]]
    assert found["outputs"] == {"logits": ["FP32", [-1, spec.num_classes]]}


@pytest.mark.parametrize("suite", SUITES)
def test_every_probe_ran(triton, asked, suite):
    found = asked(suite, triton)
    assert len(found) > 15
    bugs = {"NameError", "AttributeError", "TypeError", "ValueError", "KeyError", "IndexError"}
    assert {n: o for n, o in found.items() if o.get("error") in bugs} == {}


def test_files_are_those_of_the_tensor(data, digits):
    preprocessing = Preprocessing.from_json(Deployment.open(digits).preprocessing)
    files = [load_image(path, preprocessing) for path in sorted(data.glob("*.png"))]
    assert np.array_equal(np.stack(files), np.load(data / "images.npy")[: len(files)])
