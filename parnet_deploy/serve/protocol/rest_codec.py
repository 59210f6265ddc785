"""Inference over REST: bodies of JSON, with or without raw tensors behind it, and back.

What a body is made of is said by its ``Inference-Header-Content-Length`` alone: clients send no
Content-Type, or a wrong one.
Source: Open Inference Protocol v2 (HTTP/REST); Triton's extensions binary_data, classification and
parameters.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import orjson

from .json_data import elements_from_json
from .parameters import (
    MAX_TEXT,
    binary_size,
    check_parameters,
    check_text,
    of_output,
    of_request,
    refuse_shared_memory,
)
from .refusal import RefusedError
from .request import InferInput, InferRequest, InferResponse, OutputTensor, WantedOutput
from .tensors import check_datatype, check_shape, elements_from_raw, raw_from_elements
from .wording import shown

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header that says how long the JSON is, when raw tensors follow it."""

MAX_TENSORS = 64
"""Inputs, and outputs, that one request may name."""


def decode_request(
    model: str, version: str, body: bytes | bytearray | memoryview, header_length: str | None
) -> InferRequest:
    """The request in a body, after any Content-Encoding was undone.

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
    for index, tensor in enumerate(_listed(document, "inputs")):
        found, at = _input(index, tensor, content, at)
        inputs.append(found)
    if not inputs:
        _refuse("Inputs of the request", "none", "at least one", _SEE_METADATA)
    if at != len(content):
        _refuse(
            "Body of the request",
            f"{len(content) - at} bytes after the last tensor",
            "none",
            "Give each raw input its binary_data_size",
        )
    outputs = tuple(
        _output(index, wanted, binary_default=said.binary_default)
        for index, wanted in enumerate(_listed(document, "outputs"))
    )
    _refuse_twice("input", [tensor.name for tensor in inputs])
    _refuse_twice("output", [wanted.name for wanted in outputs])
    return InferRequest(
        model=model,
        version=version,
        id=check_text("Id of the request", document.get("id", "")),
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


_SEE_METADATA = "GET /v2/models/<name> says what the model takes and gives"


def _json_size(header_length: str | None, available: int) -> int:
    """Bytes of the JSON at the start of the body."""
    if header_length is None:
        return available
    if len(header_length) <= 20 and header_length.isascii() and header_length.isdigit():
        size = int(header_length)
        if size <= available:
            return size
    _refuse(
        HEADER_LENGTH,
        shown(header_length),
        f"a whole number, at most the {available} bytes of the body",
        "Send the length of the JSON before any Content-Encoding, or leave it out",
    )


def _parse(content: memoryview) -> dict[str, Any]:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise RefusedError(
            "invalid",
            f"JSON of the request: got {len(content)} bytes that are not JSON, expected an object "
            f"({_first_line(error)}). Send {HEADER_LENGTH} if tensors follow it.",
        ) from error
    if not isinstance(document, dict):
        _refuse("JSON of the request", shown(document), "an object", _SEE_METADATA)
    return document


def _input(index: int, tensor: object, content: memoryview, at: int) -> tuple[InferInput, int]:
    """An input, and where the raw bytes of the next one start."""
    if not isinstance(tensor, dict):
        _refuse(f"Input {index}", shown(tensor), "an object", _SEE_METADATA)
    name = check_text(f"Name of input {index}", tensor.get("name"))
    where = f"input {shown(name)}"
    datatype = check_datatype(where, tensor.get("datatype"))
    shape = check_shape(where, tensor.get("shape"))
    parameters = _parameters(where, tensor)
    refuse_shared_memory(where, parameters)
    size = binary_size(where, parameters)
    if (size is None) != ("data" in tensor):
        got = "neither data nor binary_data_size" if size is None else "data and binary_data_size"
        _refuse(f"Data of {where}", got, "one of the two", "Send the tensor in one place")
    if size is None:
        as_base64 = parameters.get("content_type") == "base64"
        data = elements_from_json(where, datatype, shape, tensor["data"], base64_texts=as_base64)
        return InferInput(name=name, datatype=datatype, shape=shape, data=data), at
    end = at + size
    if end > len(content):
        _refuse(
            f"Data of {where}",
            f"{len(content) - at} bytes",
            f"{size} as its binary_data_size says",
            f"Append the tensor to the JSON and send {HEADER_LENGTH}",
        )
    data = elements_from_raw(where, datatype, shape, content[at:end])
    return InferInput(name=name, datatype=datatype, shape=shape, data=data), end


def _output(index: int, wanted: object, *, binary_default: bool) -> WantedOutput:
    if not isinstance(wanted, dict):
        _refuse(f"Output {index}", shown(wanted), "an object", _SEE_METADATA)
    name = check_text(f"Name of output {index}", wanted.get("name"))
    where = f"output {shown(name)}"
    parameters = _parameters(where, wanted)
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


def _listed(document: dict[str, Any], key: str) -> list[Any]:
    found = document.get(key, [])
    if not isinstance(found, list):
        _refuse(f"Key '{key}' of the request", shown(found), "a list", _SEE_METADATA)
    if len(found) > MAX_TENSORS:
        got = f"{len(found)} tensors"
        _refuse(f"Key '{key}' of the request", got, f"at most {MAX_TENSORS}", _SEE_METADATA)
    return found


def _parameters(where: str, document: dict[str, Any]) -> Any:
    return check_parameters(where, document["parameters"]) if "parameters" in document else {}


def _refuse_twice(what: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        name = next(name for name in names if names.count(name) > 1)
        _refuse(f"Names of {what}s", f"{shown(name)} twice", "each once", "Send it once")


def _refuse_as_json(name: str, got: str) -> NoReturn:
    _refuse(
        f"Values of output {shown(name)}",
        got,
        "what JSON can hold",
        "Ask for it with binary_data true, or look at the input's values",
    )


def _refuse(what: str, got: str, expected: str, step: str) -> NoReturn:
    raise RefusedError("invalid", f"{what}: got {got}, expected {expected}. {step}.")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:MAX_TEXT]
