"""Requests as NVIDIA's tritonclient writes them, and our answers as it reads them.

Run by a Python that has tritonclient[http,grpc]; it needs nothing of this package:

    python tests/serve/protocol/tritonclient_bodies.py record > tritonclient_bodies.json
    python tests/serve/protocol/tritonclient_bodies.py read < answers.json > values.json

``record`` writes the requests that test_tritonclient.py reads. ``read`` takes a list of
{wire, name, body (base64), header_length, content_encoding} and gives a list of {shape, values}.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import sys
from typing import Any

import numpy as np

TENSORS = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([0, 255], np.uint8),
    "UINT16": np.array([0, 2**16 - 1], np.uint16),
    "UINT32": np.array([0, 2**32 - 1], np.uint32),
    "UINT64": np.array([0, 2**64 - 1], np.uint64),
    "INT8": np.array([-128, 127], np.int8),
    "INT16": np.array([-(2**15), 1], np.int16),
    "INT32": np.array([-(2**31), 1], np.int32),
    "INT64": np.array([-(2**63), 1], np.int64),
    "FP16": np.array([0.5, -65504], np.float16),
    "FP32": np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4),
    "FP64": np.array([[1 / 3], [1e300]]),
    "BYTES": np.array([b"\xc3\xbc", b"", b"abc"], object),
}
"""One for each datatype; the strings are UTF-8, which JSON needs."""

EMPTY = np.zeros((0, 3), np.float32)


def main(verb: str) -> None:
    """Do what the words on the command line say."""
    if verb == "record":
        version = importlib.metadata.version("tritonclient")
        found = {"tritonclient": version, "requests": [*_http(), *_grpc()]}
    else:
        found = [_read(**answer) for answer in json.load(sys.stdin)]
    json.dump(found, sys.stdout, indent=1)
    print()


def _http() -> list[dict[str, Any]]:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    def request(title: str, tensors: dict[str, Any], binary: bool = True, **more: Any) -> Any:
        inputs = []
        for datatype, values in tensors.items():
            entry = InferInput(f"in_{datatype}", list(values.shape), datatype)
            inputs.append(entry.set_data_from_numpy(values, binary_data=binary))
        body, length = InferenceServerClient.generate_request_body(inputs, **more)
        return _entry("rest", title, body, tensors, header_length=length)

    wanted = [
        InferRequestedOutput("logits", binary_data=False, class_count=3),
        InferRequestedOutput("other"),
    ]
    said: dict[str, Any] = {"request_id": "abc", "priority": 2, "timeout": 5000}
    said |= {"sequence_id": 7, "sequence_start": True, "parameters": {"note": "x"}}
    return [
        *(request(f"raw {name}", {name: values}) for name, values in TENSORS.items()),
        *(request(f"json {name}", {name: values}, False) for name, values in TENSORS.items()),
        request("raw, all at once", TENSORS),
        request("raw, empty", {"FP32": EMPTY}),
        request("json, empty", {"FP32": EMPTY}, False),
        request("all it can say", {"FP32": TENSORS["FP32"]}, outputs=wanted, **said),
    ]


def _grpc() -> list[dict[str, Any]]:
    from tritonclient.grpc import InferInput, InferRequestedOutput
    from tritonclient.grpc._utils import _get_inference_request

    def request(title: str, tensors: dict[str, Any], **more: Any) -> Any:
        inputs = []
        for datatype, values in tensors.items():
            entry = InferInput(f"in_{datatype}", list(values.shape), datatype)
            inputs.append(entry.set_data_from_numpy(values))
        none: dict[str, Any] = {"model_version": "", "request_id": "", "outputs": None}
        none |= {"sequence_id": 0, "sequence_start": False, "sequence_end": False}
        none |= {"priority": 0, "timeout": None, "parameters": None}
        found = _get_inference_request(model_name="parnet", inputs=inputs, **(none | more))
        return _entry("grpc", title, found.SerializeToString(deterministic=True), tensors)

    wanted = [InferRequestedOutput("logits", class_count=3), InferRequestedOutput("other")]
    said: dict[str, Any] = {"model_version": "1", "request_id": "abc", "priority": 2}
    said |= {"sequence_id": 7, "sequence_start": True, "timeout": 5000, "parameters": {"note": "x"}}
    return [
        *(request(f"raw {name}", {name: values}) for name, values in TENSORS.items()),
        request("raw, all at once", TENSORS),
        request("raw, empty", {"FP32": EMPTY}),
        request("all it can say", {"FP32": TENSORS["FP32"]}, outputs=wanted, **said),
    ]


def _entry(wire: str, title: str, body: bytes, tensors: dict[str, Any], **more: Any) -> Any:
    text = base64.b64encode(body).decode()
    return {"wire": wire, "title": title, "inputs": list(tensors), **more, "body": text}


def _read(
    wire: str, name: str, body: str, header_length: int | None, content_encoding: str | None
) -> dict[str, Any]:
    """An answer of ours through the client's own reader."""
    content = base64.b64decode(body)
    if wire == "rest":
        from tritonclient.http import InferResult

        result = InferResult.from_response_body(
            content, header_length=header_length, content_encoding=content_encoding
        )
    else:
        from tritonclient.grpc import InferResult, service_pb2

        result = InferResult(service_pb2.ModelInferResponse.FromString(content))
    values = result.as_numpy(name)
    strings = values.dtype == object
    flat = [_text(value) if strings else value for value in values.reshape(-1).tolist()]
    return {"shape": list(values.shape), "values": flat}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    main(*sys.argv[1:])
