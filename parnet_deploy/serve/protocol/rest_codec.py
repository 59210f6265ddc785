"""Inference over REST: bodies of JSON, with or without raw tensors behind it, and back.

What a body is made of is said by its ``Inference-Header-Content-Length`` alone: clients send no
Content-Type, or a wrong one.
Source: Open Inference Protocol v2 (HTTP/REST); Triton's extensions binary_data, classification and
parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import orjson

from .checks import check_names, check_number, check_text
from .json_data import elements_from_json
from .parameters import (
    binary_size,
    check_parameters,
    of_output,
    of_request,
    refuse_shared_memory,
)
from .request import InferInput, InferRequest, InferResponse, OutputTensor, Parameter, WantedOutput
from .tensors import check_datatype, check_shape, elements_from_raw, raw_from_elements
from .wording import refuse, shown

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header that says how long the JSON is, when raw tensors follow it."""

_NO_JSON = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"--")
"""How image files and multipart forms begin, which people send first."""

MAX_CONTAINERS = 65_536
"""Lists and objects in the JSON of a request: Python's collector goes through all of them again and
again while they are made, so a body of nothing else would hold up everybody for seconds."""


def decode_request(
    model: str, version: str, body: bytes | bytearray | memoryview, header_length: str | None
) -> InferRequest:
    """The request in a body, after any Content-Encoding was undone.

    Keys that the protocol does not have are passed over, and null is as good as no key.

    Args:
        model: Name in the path.
        version: Version in the path; empty: none.
        body: All of it.
        header_length: Value of ``Inference-Header-Content-Length``; None: there was none, and the
            whole body is JSON.

    Owns: inputs may be views of ``body``, which must not change while the request lives.

    Raises:
        RefusedError: For whatever is wrong with the body, and nothing else.
    """
    content = memoryview(body)
    at = _json_size(header_length, len(content))
    document = _parse(content[:at])
    said = of_request(_parameters("the request", document))
    inputs = []
    for index, tensor in enumerate(_listed(document, "inputs", least=1)):
        found, at = _input(index, tensor, content, at)
        inputs.append(found)
    if at != len(content):
        refuse(
            "Body of the request",
            got=f"{len(content) - at} bytes after the last tensor",
            expected="none",
            step="Give each raw input its binary_data_size",
        )
    outputs = tuple(
        _output(index, wanted, binary_default=said.binary_default)
        for index, wanted in enumerate(_listed(document, "outputs", least=0))
    )
    check_names("Inputs of the request", [tensor.name for tensor in inputs])
    check_names("Outputs of the request", [wanted.name for wanted in outputs])
    return InferRequest(
        model=model,
        version=version,
        id=check_text("Id of the request", _given(document, "id", "")),
        inputs=tuple(inputs),
        outputs=outputs,
        binary_default=said.binary_default,
        priority=said.priority,
        timeout_us=said.timeout_us,
        parameters=said.rest,
    )


def encode_response(response: InferResponse) -> tuple[list[bytes], int | None]:
    """The body of an answer in parts, and the value of ``Inference-Header-Content-Length``.

    No length means that there is one part, and that is JSON.

    Raises:
        RefusedError: An output that was asked for in JSON has values that JSON cannot hold.
    """
    raws: list[bytes] = []
    outputs = [_answer(tensor, raws) for tensor in response.outputs]
    document: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "outputs": outputs,
    }
    if response.id:
        document["id"] = response.id
    header = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    binary = any(tensor.binary for tensor in response.outputs)
    return [header, *raws], len(header) if binary else None


def encode_error(message: str) -> bytes:
    """The body of an answer that is none."""
    return orjson.dumps({"error": message})


def _json_size(header_length: str | None, available: int) -> int:
    """Bytes of the JSON at the start of the body."""
    if header_length is None:
        return available
    if len(header_length) <= 20 and header_length.isascii() and header_length.isdigit():
        size = int(header_length)
        if size <= available:
            return size
    refuse(
        HEADER_LENGTH,
        got=shown(header_length),
        expected=f"a whole number, at most the {available} bytes of the body",
        step="Send the length of the JSON before any Content-Encoding, or leave it out",
    )


def _parse(content: memoryview) -> dict[str, Any]:
    what = "JSON of the request"
    if len(content) > MAX_CONTAINERS:
        found = content.tobytes()
        containers = found.count(b"[") + found.count(b"{")
        if containers > MAX_CONTAINERS:
            got, expected = f"{containers} lists and objects", f"at most {MAX_CONTAINERS}"
            refuse(what, got=got, expected=expected, step="Send tensors flat, or raw behind it")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        got = f"{len(content)} bytes with an error ({error})"
        step = f"Correct it; if tensors follow it, send {HEADER_LENGTH}"
        if bytes(content[:8]).startswith(_NO_JSON):
            got = "an image file or a form"
            step = "Put the image into the input encoded_image, as docs/serving.md shows"
        refuse(what, got=got, expected="one JSON object", step=step)
    return _object(what, document)


def _input(index: int, tensor: object, content: memoryview, at: int) -> tuple[InferInput, int]:
    """An input, and where the raw bytes of the next one start."""
    found = _object(f"Input {index} of the request", tensor)
    name = check_text(f"Name of input {index}", found.get("name"))
    where = f"input {shown(name)}"
    datatype = check_datatype(where, found.get("datatype"))
    shape = check_shape(where, found.get("shape"))
    parameters = _parameters(where, found)
    refuse_shared_memory(where, parameters)
    size = binary_size(where, parameters)
    values = found.get("data")
    if (size is None) == (values is None):
        got = "neither data nor binary_data_size" if size is None else "data and binary_data_size"
        step = "Send the tensor in one place"
        refuse(f"Data of {where}", got=got, expected="one of the two", step=step)
    if size is None:
        as_base64 = parameters.get("content_type") == "base64"
        data = elements_from_json(where, datatype, shape, values, base64_texts=as_base64)
        return InferInput(name=name, datatype=datatype, shape=shape, data=data), at
    end = at + size
    if end > len(content):
        refuse(
            f"Data of {where}",
            got=f"{len(content) - at} bytes",
            expected=f"{size}, as its binary_data_size says",
            step=f"Append the tensor to the JSON and send {HEADER_LENGTH}",
        )
    data = elements_from_raw(where, datatype, shape, content[at:end])
    return InferInput(name=name, datatype=datatype, shape=shape, data=data), end


def _output(index: int, wanted: object, *, binary_default: bool) -> WantedOutput:
    found = _object(f"Output {index} of the request", wanted)
    name = check_text(f"Name of output {index}", found.get("name"))
    where = f"output {shown(name)}"
    parameters = _parameters(where, found)
    classes, binary = of_output(where, parameters, binary_default=binary_default)
    return WantedOutput(name=name, classification=classes, binary=binary)


def _answer(tensor: OutputTensor, raws: list[bytes]) -> dict[str, Any]:
    """An output in the JSON of the answer; raw bytes are appended to ``raws``."""
    found: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
    }
    if tensor.binary:
        raw = raw_from_elements(tensor.datatype, tensor.data)
        found["parameters"] = {"binary_data_size": len(raw)}
        raws.append(raw)
    elif isinstance(tensor.data, list):
        found["data"] = [_text(tensor.name, text) for text in tensor.data]
    else:
        if tensor.data.dtype.kind == "f" and not np.isfinite(tensor.data).all():
            _refuse_as_json(tensor.name, "NaN or Inf")
        found["data"] = np.ascontiguousarray(tensor.data).reshape(-1)
    return found


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        _refuse_as_json(name, "bytes that are not UTF-8")


def _object(what: str, found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        step = "The protocol's inference request has one there"
        refuse(what, got=shown(found), expected="an object", step=step)
    return found


def _given(document: dict[str, Any], key: str, default: object) -> object:
    """The value of an optional key; null, which some clients send, is none."""
    found = document.get(key)
    return default if found is None else found


def _listed(document: dict[str, Any], key: str, *, least: int) -> list[Any]:
    """The inputs or outputs that a request names."""
    what = f"{key.capitalize()} of the request"
    found = _given(document, key, [])
    if not isinstance(found, list):
        step = "Put them in brackets"
        refuse(what, got=shown(found), expected="a list of objects", step=step)
    check_number(what, len(found), least=least)
    return found


def _parameters(where: str, document: dict[str, Any]) -> Mapping[str, Parameter]:
    found = document.get("parameters")
    return {} if found is None else check_parameters(where, found)


def _refuse_as_json(name: str, got: str) -> NoReturn:
    step = "Ask for it with binary_data true, or look at the values that were sent"
    what = f"Values of output {shown(name)}"
    refuse(what, got=got, expected="what JSON can hold", step=step)
