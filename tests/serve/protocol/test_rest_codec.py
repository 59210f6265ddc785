"""Bodies over REST: what is read from them, what is refused, and what answers look like."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.protocol.request import InferRequest, WantedOutput
from parnet_deploy.serve.protocol.rest_codec import (
    MAX_CONTAINERS,
    decode_request,
    encode_error,
    encode_response,
)
from tests.serve.protocol.protocol_toys import (
    Tensor,
    answer,
    binary_body,
    binary_document,
    check_refusal,
    check_request,
    described,
    image,
    json_body,
    numbers,
    strings,
    with_raw,
)


def decode(body: bytes, header_length: str | None = None) -> InferRequest:
    found = decode_request("parnet", "1", body, header_length)
    check_request(found)
    return found


def refused(body: bytes, header_length: str | None = None, kind: str = "invalid") -> str:
    with pytest.raises(RefusedError) as caught:
        decode_request("parnet", "", body, header_length)
    check_refusal(caught.value)
    assert caught.value.kind == kind
    return str(caught.value)


@given(st.lists(st.one_of(numbers(), strings()), min_size=1, max_size=4))
def test_raw_tensors_come_out_as_they_went_in(tensors: list[Tensor]) -> None:
    named = [Tensor(t.datatype, t.shape, t.data, f"x{i}") for i, t in enumerate(tensors)]
    found = decode(*binary_body(*named))
    for tensor, read in zip(named, found.inputs, strict=True):
        assert (read.name, read.datatype, read.shape) == (
            tensor.name,
            tensor.datatype,
            tensor.shape,
        )
        assert tensor.holds(read.data)


@given(st.one_of(numbers(finite=True), strings(utf8=True)), st.booleans())
def test_json_and_raw_say_the_same(tensor: Tensor, nested: bool) -> None:
    in_json = decode(json_body(tensor, nested=nested)).inputs[0]
    raw = decode(*binary_body(tensor)).inputs[0]
    assert tensor.holds(in_json.data)
    assert tensor.holds(raw.data)


def test_raw_and_json_inputs_in_one_request() -> None:
    first, second, third = image(1, 2), image(2, 1), image(3)
    document = binary_document(first, third)
    document["inputs"][1]["name"] = "third"
    between = Tensor("FP32", second.shape, second.data, "second")
    document["inputs"].insert(1, described(between, data=second.data.tolist()))
    body, length = with_raw(document, first, third)
    found = decode(body, length).inputs
    assert [tensor.name for tensor in found] == ["image", "second", "third"]
    for tensor, read in zip((first, second, third), found, strict=True):
        assert tensor.holds(read.data)


def test_the_body_is_not_copied() -> None:
    body, length = binary_body(image())
    for content in (body, bytearray(body), memoryview(body)):
        data = decode_request("parnet", "", content, length).inputs[0].data
        assert np.shares_memory(data, np.frombuffer(content, np.uint8))


def test_what_a_request_says_besides_its_tensors() -> None:
    parameters = {"binary_data_output": True, "priority": 2, "timeout": 5000, "sequence_id": 7}
    outputs = [
        {"name": "logits", "parameters": {"classification": 3}},
        {"name": "other", "parameters": {"binary_data": False}},
        {"name": "third"},
    ]
    body = json_body(image(), id="abc", parameters=parameters, outputs=outputs, unknown={"a": []})
    found = decode(body)
    assert (found.model, found.version, found.id) == ("parnet", "1", "abc")
    assert (found.binary_default, found.priority, found.timeout_us) == (True, 2, 5000)
    assert found.parameters == {"sequence_id": 7}
    assert found.outputs == (
        WantedOutput(name="logits", classification=3, binary=True),
        WantedOutput(name="other", binary=False),
        WantedOutput(name="third", binary=True),
    )


def test_null_is_as_good_as_no_key() -> None:
    found = decode(json_body(image(), id=None, parameters=None, outputs=None))
    assert found == InferRequest(model="parnet", version="1", inputs=found.inputs)


def test_an_image_in_json_as_base64() -> None:
    picture = bytes(range(256))
    tensor = {"name": "encoded_image", "shape": [1], "datatype": "BYTES"}
    data = [base64.b64encode(picture).decode()]
    entry = {**tensor, "data": data, "parameters": {"content_type": "base64"}}
    assert decode(json.dumps({"inputs": [entry]}).encode()).inputs[0].data == [picture]


@pytest.mark.parametrize(
    "length", ["", "-1", "+5", "5.0", "0x10", " 5", "1_0", "٣", "²", "9" * 19, "9" * 5000, "abc"]
)
def test_header_lengths_that_are_none(length: str) -> None:
    assert "Inference-Header-Content-Length: got" in refused(binary_body(image())[0], length)


def test_header_length_off_by_one() -> None:
    body, length = binary_body(image())
    for wrong in (int(length) - 1, int(length) + 1, len(body) + 1, 0):
        refused(body, str(wrong))
    refused(body, None)
    assert decode(json_body(image()), str(len(json_body(image()))))


@pytest.mark.parametrize("change", [-1, 1, 10_000, 2**62])
def test_sizes_that_are_not_what_is_there(change: int) -> None:
    tensor = image()
    document = binary_document(tensor)
    document["inputs"][0]["parameters"]["binary_data_size"] += change
    refused(*with_raw(document, tensor))


def test_bytes_after_the_last_tensor() -> None:
    body, length = binary_body(image())
    assert "got 1 bytes after the last tensor" in refused(body + b"x", length)
    cut = refused(body[:-1], length)
    assert "got 191 bytes, expected 192, as its binary_data_size says" in cut


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b"\xff\xfe", b"[" * 5000, b'{"inputs": [NaN]}', b"{} {}", b"\x00"],
)
def test_what_is_not_json(body: bytes) -> None:
    assert "JSON of the request" in refused(body)


@pytest.mark.parametrize(
    "body",
    [b"\x89PNG\r\n\x1a\n..", b"\xff\xd8\xff\xe0..", b"--x\r\nContent-Disposition: form-data"],
)
def test_who_sends_an_image_or_a_form_is_told_how(body: bytes) -> None:
    assert "encoded_image, as docs/serving.md shows" in refused(body)
    assert "encoded_image" not in refused(b"-1-")


@pytest.mark.parametrize("body", [b"[]", b"1", b'"a"', b"null", b"true"])
def test_json_that_is_no_object(body: bytes) -> None:
    assert "expected an object" in refused(body)


def test_json_of_nothing_but_lists_is_refused_before_it_is_read() -> None:
    rows = Tensor("FP32", (MAX_CONTAINERS - 5, 1), np.zeros((MAX_CONTAINERS - 5, 1), np.float32))
    assert decode(json_body(rows, nested=True)).inputs[0].shape == rows.shape
    body = b'{"inputs": [' + b"[]," * MAX_CONTAINERS
    assert "got 65538 lists and objects, expected at most 65536" in refused(body)


def changed(**change: Any) -> bytes:
    """A good request with keys of its input changed; a value of Ellipsis takes the key out."""
    entry = {**described(image(2, 2), data=image(2, 2).data.tolist()), **change}
    entry = {key: value for key, value in entry.items() if value is not ...}
    return json.dumps({"inputs": [entry]}).encode()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"name": ...}, "Name of input 0: got null, expected a text"),
        ({"name": 5}, "Name of input 0: got 5, expected a text"),
        ({"name": "x" * 5000}, "got 5000 characters, expected at most 4096"),
        ({"datatype": ...}, "Datatype of input 'image': got null, expected one of BOOL"),
        ({"datatype": "BF16"}, "got 'BF16', expected one of BOOL"),
        ({"shape": ...}, "Shape of input 'image': got null, expected a list of sizes"),
        ({"shape": [-1, 2]}, "got -1, expected whole numbers"),
        ({"shape": [2, 3]}, "Data of input 'image': got others at depth 2, expected lists of 3"),
        ({"data": ...}, "got neither data nor binary_data_size, expected one of the two"),
        ({"parameters": {"binary_data_size": 16}}, "got data and binary_data_size"),
        ({"parameters": {"binary_data_size": -1}}, "got -1, expected a whole number"),
        ({"parameters": {"binary_data_size": True}}, "got true, expected a whole number"),
        ({"parameters": {"binary_data_size": 1.5}}, "got 1.5, expected a whole number"),
        ({"parameters": {"a": {}}}, "Parameter 'a' of input 'image': got an object of 0 keys"),
        ({"parameters": {"a": None}}, "got null, expected true, false, a number or a text"),
        ({"parameters": {"a": "x" * 5000}}, "got 5000 characters"),
        ({"parameters": {"x" * 5000: 1}}, "got 5000 characters"),
        ({"parameters": {str(i): i for i in range(65)}}, "got 65, expected at most 64"),
        ({"parameters": []}, "got a list of 0, expected an object"),
    ],
)
def test_inputs_that_cannot_be(change: dict[str, Any], part: str) -> None:
    decode(changed())
    assert part in refused(changed(**change))


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"id": 5}, "Id of the request: got 5, expected a text"),
        ({"id": "x" * 5000}, "got 5000 characters"),
        ({"inputs": []}, "Inputs of the request: got 0, expected 1 to 64"),
        ({"inputs": None}, "Inputs of the request: got 0, expected 1 to 64"),
        ({"inputs": {}}, "got an object of 0 keys, expected a list of objects"),
        ({"inputs": [5]}, "Input 0 of the request: got 5, expected an object"),
        ({"inputs": [{}] * 65}, "got 65, expected 1 to 64"),
        ({"outputs": 5}, "Outputs of the request: got 5, expected a list of objects"),
        ({"outputs": ["logits"]}, "Output 0 of the request: got 'logits', expected an object"),
        ({"outputs": [{}]}, "Name of output 0: got null, expected a text"),
        ({"outputs": [{"name": "a"}] * 2}, "Outputs of the request: got 'a' twice"),
        ({"parameters": {"priority": -1}}, "got -1, expected a whole number, not negative"),
        ({"parameters": {"priority": "1"}}, "got '1', expected a whole number"),
        ({"parameters": {"timeout": 1.5}}, "got 1.5, expected a whole number"),
        ({"parameters": {"timeout": 2**64}}, "expected a whole number"),
        ({"parameters": {"binary_data_output": 1}}, "got 1, expected true or false"),
        ({"parameters": 5}, "Parameters of the request: got 5, expected an object"),
    ],
)
def test_requests_that_cannot_be(more: dict[str, Any], part: str) -> None:
    assert part in refused(json_body(image(), **more))


@pytest.mark.parametrize(
    "parameters",
    [{"classification": -1}, {"classification": True}, {"binary_data": 1}, {"binary_data": "true"}],
)
def test_outputs_that_cannot_be(parameters: dict[str, Any]) -> None:
    outputs = [{"name": "logits", "parameters": parameters}]
    assert "of output 'logits': got" in refused(json_body(image(), outputs=outputs))


def test_an_input_twice() -> None:
    assert "got 'image' twice" in refused(*binary_body(image(), image()))


def test_shared_memory_is_not_offered() -> None:
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
    body = changed(data=..., parameters=parameters)
    assert "maps no memory" in refused(body, kind="not-offered")
    outputs = [{"name": "logits", "parameters": parameters}]
    assert "maps no memory" in refused(json_body(image(), outputs=outputs), kind="not-offered")


def read_answer(parts: list[bytes], length: int | None) -> tuple[dict[str, Any], list[bytes]]:
    """An answer as a client reads it: the JSON, and the raw tensors in order."""
    body = b"".join(parts)
    document = json.loads(body[:length])
    raws = []
    at = length
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            raws.append(body[at : at + size])
            at += size
    assert at is None or at == len(body)
    return document, raws


@given(st.lists(st.one_of(numbers(), strings()), max_size=3))
def test_raw_answers(tensors: list[Tensor]) -> None:
    document, raws = read_answer(*encode_response(answer(*tensors, id="7")))
    head = {key: value for key, value in document.items() if key != "outputs"}
    assert head == {"model_name": "parnet", "model_version": "1", "id": "7"}
    assert raws == [tensor.raw for tensor in tensors]
    for tensor, output in zip(tensors, document["outputs"], strict=True):
        size = {"binary_data_size": len(tensor.raw)}
        assert output == described(tensor, parameters=size)


@given(st.one_of(numbers(finite=True), strings(utf8=True)))
def test_json_answers_hold_every_bit(tensor: Tensor) -> None:
    parts, length = encode_response(answer(tensor, binary=False))
    assert length is None
    document, _ = read_answer(parts, length)
    assert "id" not in document
    entry = {**document["outputs"][0]}
    data = entry.pop("data")
    assert entry == described(tensor)
    if tensor.datatype == "BYTES":
        assert [text.encode() for text in data] == tensor.data
    else:
        assert tensor.holds(np.array(data, tensor.data.dtype).reshape(tensor.shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_json_holds_no_nan(value: float) -> None:
    tensor = Tensor("FP32", (2,), np.array([0, value], np.float32), "logits")
    with pytest.raises(RefusedError, match="output 'logits': got NaN or Inf") as caught:
        encode_response(answer(tensor, binary=False))
    check_refusal(caught.value)
    _, raws = read_answer(*encode_response(answer(tensor)))
    assert raws == [tensor.raw]


def test_json_holds_no_bytes_that_are_no_text() -> None:
    with pytest.raises(RefusedError, match="got bytes that are not UTF-8"):
        encode_response(answer(Tensor("BYTES", (1,), [b"\xff"]), binary=False))


def test_an_error_is_an_object_with_one_key() -> None:
    assert json.loads(encode_error('a "quoted" ü')) == {"error": 'a "quoted" ü'}
