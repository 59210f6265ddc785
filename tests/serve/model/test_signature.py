"""Requests held against what a model takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.input_size import InputSize
from parnet_deploy.serve.model.signature import Signature
from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.protocol.request import InferInput, WantedOutput
from tests.serve.service_toys import (
    PREPROCESSING,
    SIDE,
    SIZE,
    SPEC,
    ask,
    encoded_input,
    image_input,
)

SIGNATURE = Signature(model="toy", spec=SPEC, size=SIZE, max_batch=4, preprocessing=PREPROCESSING)
TENSORS_ONLY = Signature(model="toy", spec=SPEC, size=SIZE, max_batch=4)
RANGE = Signature(
    model="toy", spec=SPEC, size=InputSize(low=(SIDE, SIDE), high=(3 * SIDE, 2 * SIDE)), max_batch=1
)
X = np.zeros((2, 3, SIDE, SIDE), np.float32)


def claim(*shape: int, datatype: str = "FP32", name: str = "image") -> InferInput:
    """An input that claims a shape, with no data behind it: nothing may be allocated for it."""
    return InferInput(name=name, datatype=datatype, shape=shape, data=np.empty(0, np.float32))


def refusal(signature: Signature, *inputs: InferInput) -> str:
    with pytest.raises(RefusedError) as caught:
        signature.check_inputs(ask(*inputs))
    assert caught.value.kind == "invalid"
    return str(caught.value)


def test_a_tensor_is_taken_as_it_is():
    assert SIGNATURE.check_inputs(ask(image_input(X))) is X


def test_encoded_images_are_taken_as_they_are():
    assert SIGNATURE.check_inputs(ask(encoded_input(b"a", b"b"))) == [b"a", b"b"]
    column = InferInput(name="encoded_image", datatype="BYTES", shape=(1, 1), data=[b"a"])
    assert SIGNATURE.check_inputs(ask(column)) == [b"a"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((), "got no input, expected exactly one input, image or encoded_image"),
        ((image_input(X), encoded_input(b"a")), "got 'image', 'encoded_image', expected exactly"),
        ((image_input(X), image_input(X)), "got 'image', 'image', expected exactly one"),
        ((claim(1, name="pixels"),), "got 'pixels', expected exactly one"),
        (tuple(claim(name=f"i{k}") for k in range(9)), "and 5 more"),
        ((claim(1, 3, SIDE, SIDE, datatype="FP16"),), "datatype FP16, expected FP32"),
        ((claim(1, 3, SIDE, SIDE, datatype="BYTES"),), "datatype BYTES, expected FP32"),
        ((claim(3, SIDE, SIDE),), f"shape [3, {SIDE}, {SIDE}], expected [N, 3, H, W]"),
        ((claim(1, SIDE, SIDE, 3),), "expected [N, 3, H, W]"),
        ((claim(0, 3, SIDE, SIDE),), "got 0 images in input image, expected 1 to 4"),
        ((claim(5, 3, SIDE, SIDE),), "got 5 images in input image, expected 1 to 4"),
        ((claim(2**62, 3, SIDE, SIDE),), f"got {2**62} images"),
        ((claim(-1, 3, SIDE, SIDE),), "got -1 images"),
        ((claim(1, 3, SIDE, 2 * SIDE),), f"images of {SIDE}x{2 * SIDE} pixels, expected {SIZE}"),
        ((claim(*[1] * 1000),), ", ...]"),
        ((claim(5, name="encoded_image", datatype="BYTES"),), "5 images in input encoded_image"),
        ((claim(1, name="encoded_image"),), "datatype FP32, expected BYTES"),
        ((claim(1, 2, name="encoded_image", datatype="BYTES"),), "shape [1, 2], expected [N]"),
        ((claim(name="encoded_image", datatype="BYTES"),), "shape [], expected [N]"),
    ],
)
def test_what_is_not_taken_is_named_with_what_is(inputs, words):
    message = refusal(SIGNATURE, *inputs)
    assert words in message
    assert message.startswith("model toy: got ")
    assert len(message) < 400


def test_encoded_images_are_offered_only_with_preprocessing():
    assert TENSORS_ONLY.inputs == ("image",)
    assert "expected exactly one input, image." in refusal(TENSORS_ONLY, encoded_input(b"a"))


@given(st.integers(-8, 4 * SIDE), st.integers(-8, 4 * SIDE))
def test_a_range_takes_exactly_its_multiples(height, width):
    good = (
        SIDE <= height <= 3 * SIDE
        and SIDE <= width <= 2 * SIDE
        and height % SPEC.size_multiple == 0
        and width % SPEC.size_multiple == 0
    )
    given_input = claim(1, 3, height, width)
    if good:
        assert RANGE.check_inputs(ask(given_input)) is given_input.data
    else:
        assert "in multiples of" in refusal(RANGE, given_input)


class TestOutputs:
    def test_none_named_means_all(self):
        (wanted,) = SIGNATURE.check_outputs(ask(binary_default=True))
        assert wanted == WantedOutput(name="logits", binary=True)

    def test_what_is_named_is_what_comes(self):
        wanted = (WantedOutput(name="logits", classification=3, binary=True),)
        assert SIGNATURE.check_outputs(ask(outputs=wanted)) == wanted

    @pytest.mark.parametrize(
        ("outputs", "words"),
        [
            ((WantedOutput(name="prob"),), "got output 'prob', expected logits"),
            ((WantedOutput(name="logits", classification=-1),), "classification -1, expected 0"),
            ((WantedOutput(name="logits"),) * 2, "2 times the output logits, expected it once"),
        ],
    )
    def test_others_are_invalid(self, outputs, words):
        with pytest.raises(RefusedError, match=words) as caught:
            SIGNATURE.check_outputs(ask(outputs=outputs))
        assert caught.value.kind == "invalid"


def test_versions():
    SIGNATURE.check_version("")
    SIGNATURE.check_version("1")
    with pytest.raises(RefusedError, match="got version '2', expected 1") as caught:
        SIGNATURE.check_version("2")
    assert caught.value.kind == "not-found"
