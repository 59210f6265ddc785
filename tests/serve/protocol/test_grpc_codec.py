"""Messages over gRPC: the same requests and answers as over REST."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.protocol import messages
from parnet_deploy.serve.protocol.grpc_codec import (
    decode,
    encode,
    encode_in_stream,
    message_of,
    parse,
)
from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.protocol.request import WantedOutput
from parnet_deploy.serve.protocol.wire_format import prefix
from tests.serve.protocol.protocol_toys import (
    FIELDS,
    Tensor,
    answer,
    check_refusal,
    check_request,
    image,
    message,
    numbers,
    strings,
)


def refused(request: Any, kind: str = "invalid") -> str:
    with pytest.raises(RefusedError) as caught:
        decode(request.SerializeToString())
    check_refusal(caught.value)
    assert caught.value.kind == kind
    return str(caught.value)


@given(st.lists(st.one_of(numbers(), strings()), min_size=1, max_size=4))
def test_raw_tensors_come_out_as_they_went_in(tensors: list[Tensor]) -> None:
    named = [Tensor(t.datatype, t.shape, t.data, f"x{i}") for i, t in enumerate(tensors)]
    sent = message(*named).SerializeToString()
    found = decode(sent)
    check_request(found)
    for tensor, read in zip(named, found.inputs, strict=True):
        assert (read.name, read.datatype, read.shape) == (
            tensor.name,
            tensor.datatype,
            tensor.shape,
        )
        assert tensor.holds(read.data)


@given(st.one_of(numbers(), strings()))
def test_values_in_the_field_of_their_datatype(tensor: Tensor) -> None:
    if tensor.datatype == "FP16":
        empty = messages.ModelInferRequest()
        empty.inputs.add(name="image", datatype="FP16", shape=tensor.shape)
        assert "FP16 has no field in a message" in refused(empty)
        return
    found = decode(message(tensor, raw=False).SerializeToString()).inputs[0]
    if tensor.datatype in ("FP32", "FP64"):  # protobuf and Python may give a NaN other bits
        np.testing.assert_array_equal(found.data, tensor.data)
    else:
        assert tensor.holds(found.data)


def test_what_a_request_says_besides_its_tensors() -> None:
    request = message(image(), id="abc", model_version="1")
    request.parameters["priority"].uint64_param = 2
    request.parameters["timeout"].int64_param = 5000
    request.parameters["note"].string_param = "x"
    request.parameters["share"].double_param = 0.5
    request.parameters["flag"].bool_param = False
    wanted = request.outputs.add(name="logits")
    wanted.parameters["classification"].int64_param = 3
    found = decode(request.SerializeToString())
    assert (found.model, found.version, found.id) == ("parnet", "1", "abc")
    assert (found.priority, found.timeout_us, found.binary_default) == (2, 5000, True)
    assert found.parameters == {"note": "x", "share": 0.5, "flag": False}
    assert found.outputs == (WantedOutput(name="logits", classification=3, binary=True),)


def test_raw_and_typed_contents_do_not_mix() -> None:
    request = message(image())
    request.inputs[0].contents.fp32_contents.append(1)
    assert "got contents and raw contents, expected one of the two" in refused(request)


@pytest.mark.parametrize("raws", [1, 3])
def test_a_raw_content_for_each_input(raws: int) -> None:
    request = message(image(), Tensor("FP32", (1,), np.zeros(1, np.float32), "other"))
    del request.raw_input_contents[:]
    request.raw_input_contents.extend([b""] * raws)
    assert f"raw_input_contents of the request: got {raws}, expected 2" in refused(request)


@pytest.mark.parametrize("datatype", sorted(FIELDS))
def test_values_in_a_field_of_another_datatype(datatype: str) -> None:
    other = "bool_contents" if FIELDS[datatype] != "bool_contents" else "int_contents"
    request = messages.ModelInferRequest()
    entry = request.inputs.add(name="image", datatype=datatype, shape=[1])
    getattr(entry.contents, other).append(1)
    assert f"got {other}, expected {FIELDS[datatype]} for {datatype}" in refused(request)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_values_and_too_many(count: int) -> None:
    request = messages.ModelInferRequest()
    entry = request.inputs.add(name="image", datatype="FP32", shape=[2])
    entry.contents.fp32_contents.extend([0.0] * count)
    assert f"got {count} elements, expected 2 for shape [2]" in refused(request)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT8", 128), ("INT16", -(2**15) - 1), ("UINT8", 256), ("UINT16", 2**16)],
)
def test_values_that_do_not_fit_their_datatype(datatype: str, value: int) -> None:
    request = messages.ModelInferRequest()
    entry = request.inputs.add(name="image", datatype=datatype, shape=[1])
    getattr(entry.contents, FIELDS[datatype]).append(value)
    assert f"got {value}, expected " in refused(request)


def many_inputs() -> Any:
    request = message(image())
    for _ in range(64):
        request.inputs.add(name="image", datatype="FP32", shape=[0])
    return request


def many_parameters() -> Any:
    request = message(image())
    for i in range(65):
        request.parameters[str(i)].bool_param = True
    return request


def parameter(name: str, **value: Any) -> Any:
    request = message(image())
    request.parameters[name].CopyFrom(messages.InferParameter(**value))
    return request


def shaped(*shape: int) -> Any:
    request = message(image())
    request.inputs[0].shape[:] = shape
    return request


@pytest.mark.parametrize(
    ("request_message", "part"),
    [
        (messages.ModelInferRequest(), "Inputs of the request: got 0, expected 1 to 64"),
        (message(image(), image()), "Inputs of the request: got 'image' twice"),
        (many_inputs(), "Inputs of the request: got 65, expected 1 to 64"),
        (many_parameters(), "Parameters of the request: got 65, expected at most 64"),
        (parameter("priority", int64_param=-1), "got -1, expected a whole number"),
        (parameter("priority", string_param="1"), "got '1', expected a whole number"),
        (parameter("timeout", double_param=1.5), "got 1.5, expected a whole number"),
        (parameter("empty"), "Parameter 'empty' of the request: got null"),
        (shaped(-1, 3, 4, 4), "got -1, expected whole numbers"),
        (shaped(1, 3, 4, 5), "got 192 bytes, expected 240 for FP32 of shape [1,3,4,5]"),
        (shaped(2**62, 2**62), "expected whole numbers from 0"),
        (message(image(), id="x" * 5000), "Id of the request: got 5000 characters"),
    ],
)
def test_requests_that_cannot_be(request_message: Any, part: str) -> None:
    assert part in refused(request_message)


def test_shared_memory_is_not_offered() -> None:
    request = message(image())
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert "maps no memory" in refused(request, kind="not-offered")
    request = message(image())
    wanted = request.outputs.add(name="logits")
    wanted.parameters["shared_memory_region"].string_param = "r"
    assert "maps no memory" in refused(request, kind="not-offered")


@pytest.mark.parametrize("content", [b"\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe", b"\x07"])
def test_bytes_that_are_no_message(content: bytes) -> None:
    with pytest.raises(RefusedError, match="Message ModelInferRequest: got") as caught:
        parse(messages.ModelInferRequest, content)
    check_refusal(caught.value)


@given(st.lists(st.one_of(numbers(), strings()), max_size=3))
def test_answers_are_raw(tensors: list[Tensor]) -> None:
    content = encode(answer(*tensors, binary=False, id="7"))
    found = messages.ModelInferResponse.FromString(content)
    assert (found.model_name, found.model_version, found.id) == ("parnet", "1", "7")
    assert list(found.raw_output_contents) == [tensor.raw for tensor in tensors]
    for tensor, output in zip(tensors, found.outputs, strict=True):
        assert (output.name, output.datatype) == (tensor.name, tensor.datatype)
        assert tuple(output.shape) == tensor.shape
        assert not output.HasField("contents")


def test_documents_become_messages() -> None:
    tensor = {"name": "image", "datatype": "FP32", "shape": [-1, 3, 32, 32]}
    document = {"name": "parnet", "versions": ["1"], "platform": "x", "inputs": [tensor]}
    found = message_of(messages.ModelMetadataResponse, document)
    assert found.versions == ["1"]
    assert list(found.inputs[0].shape) == [-1, 3, 32, 32]
    config = {
        "config": {
            "name": "parnet",
            "max_batch_size": 8,
            "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": [3, 32, 32]}],
            "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
            "dynamic_batching": {"default_queue_policy": {"max_queue_size": 64}},
            "parameters": {"a": {"string_value": "b"}},
        }
    }
    found = message_of(messages.ModelConfigResponse, config).config
    assert (found.max_batch_size, found.input[0].data_type) == (8, 11)
    assert found.dynamic_batching.default_queue_policy.max_queue_size == 64
    assert found.parameters["a"].string_value == "b"
    duration = {"count": 2**40, "ns": 2**60}
    statistics = {"model_stats": [{"name": "parnet", "inference_stats": {"success": duration}}]}
    found = message_of(messages.ModelStatisticsResponse, statistics)
    assert found.model_stats[0].inference_stats.success.ns == 2**60


@given(st.integers(1, 15), st.integers(0, 2**31 - 1))
def test_what_stands_before_bytes(field: int, size: int) -> None:
    tag, found, shift = prefix(field, size)[0], 0, 0
    for byte in prefix(field, size)[1:]:
        found |= (byte & 0x7F) << shift
        shift += 7
    assert (tag, found) == (field << 3 | 2, size)
    assert prefix(field, size)[-1] < 0x80


@given(st.lists(st.one_of(numbers(), strings()), max_size=3), st.text(max_size=200))
def test_an_answer_in_a_stream(tensors: list[Tensor], own_id: str) -> None:
    response = answer(*tensors, binary=False, id=own_id)
    found = messages.ModelStreamInferResponse.FromString(encode_in_stream(response))
    assert not found.error_message
    assert found.infer_response == messages.ModelInferResponse.FromString(encode(response))
