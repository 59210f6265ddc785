"""Inference over gRPC: messages to requests and answers to messages.

Source: Open Inference Protocol v2 (gRPC), and Triton's extensions classification and parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from . import messages
from .checks import check_names, check_number, check_text
from .contract import Document
from .parameters import (
    check_parameter_number,
    check_parameters,
    of_output,
    of_request,
    refuse_shared_memory,
)
from .request import Elements, InferInput, InferRequest, InferResponse, Parameter, WantedOutput
from .tensors import (
    BYTES,
    DTYPES,
    check_datatype,
    check_range,
    check_shape,
    check_string_count,
    elements_from_raw,
    raw_from_elements,
)
from .wire_format import INFER_RESPONSE, RAW_OUTPUT, prefix, take_raw_inputs
from .wording import refuse, shown, shown_shape

_LONGEST_KNOWN = 1024  # bytes of what stands beside raw tensors, to be remembered
_ONE_WAY = "Send raw_input_contents for all inputs, or contents for all"

_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""The field of ``InferTensorContents`` for each datatype; FP16 has none."""

_WIDTHS = {"int_contents": np.dtype(np.int32), "uint_contents": np.dtype(np.uint32)}
"""Fields that narrower datatypes share, and what they hold."""


def parse(message_class: Any, content: bytes) -> Any:
    """The message in these bytes.

    For shells to call themselves: what gRPC's own deserializer raises, it answers as INTERNAL.

    Raises:
        RefusedError: They are no such message.
    """
    try:
        return message_class.FromString(content)
    except DecodeError:
        refuse(
            f"Message {message_class.DESCRIPTOR.name}",
            got=f"{len(content)} bytes that are none",
            expected="protobuf",
            step="Generate the client from the protocol's own .proto file",
        )


def decode(content: bytes) -> InferRequest:
    """The request in a serialized ``ModelInferRequest``.

    A client says the same of each of its tensors, again and again; so what stands beside raw
    tensors is checked once, and known the next time.

    Owns: raw tensors are views of ``content``.

    Raises:
        RefusedError: For whatever is wrong with it, and nothing else.
    """
    taken = take_raw_inputs(content)
    if taken is None:
        message = parse(messages.ModelInferRequest, content)
        return _with_data(_head(message), message, message.raw_input_contents)
    rest, raws = taken
    if raws and len(rest) <= _LONGEST_KNOWN:
        return _with_data(_known_head(rest), None, raws)
    message = parse(messages.ModelInferRequest, rest)
    return _with_data(_head(message), message, raws)


def id_of(content: bytes) -> str:
    """The id in a serialized ``ModelInferRequest``, however wrong the rest is; empty: none."""
    try:
        found: str = messages.ModelInferRequest.FromString(content).id
    except DecodeError:
        return ""
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    """What is said of an input. ``where``: what messages call it. ``typed``: it has contents."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    where: str
    typed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """A request without its tensors' data, checked. ``said``: everything but ``inputs``."""

    said: Mapping[str, Any]
    tensors: tuple[_Tensor, ...]


def _head(message: Any) -> _Head:
    said = of_request(_parameters("the request", message.parameters))
    check_number("Inputs of the request", len(message.inputs), least=1)
    check_number("Outputs of the request", len(message.outputs), least=0)
    tensors = tuple(_tensor(index, tensor) for index, tensor in enumerate(message.inputs))
    outputs = tuple(_output(index, wanted) for index, wanted in enumerate(message.outputs))
    check_names("Inputs of the request", [tensor.name for tensor in tensors])
    check_names("Outputs of the request", [wanted.name for wanted in outputs])
    return _Head(
        said={
            "model": check_text("Name of the model", message.model_name),
            "version": check_text("Version of the model", message.model_version),
            "id": check_text("Id of the request", message.id),
            "outputs": outputs,
            "binary_default": True,
            "priority": said.priority,
            "timeout_us": said.timeout_us,
            "parameters": said.rest,
        },
        tensors=tensors,
    )


@lru_cache(maxsize=256)
def _known_head(rest: bytes) -> _Head:
    return _head(parse(messages.ModelInferRequest, rest))


def _with_data(head: _Head, message: Any, raws: Sequence[bytes | memoryview]) -> InferRequest:
    """The request; ``message`` holds its tensors if they are not raw."""
    tensors = head.tensors
    if raws and len(raws) != len(tensors):
        what, expected = "raw_input_contents of the request", f"{len(tensors)}: one an input"
        refuse(what, got=f"{len(raws)}", expected=expected, step=_ONE_WAY)
    inputs = []
    for index, tensor in enumerate(tensors):
        if not raws:
            contents = message.inputs[index].contents
            data = _from_contents(tensor.where, tensor.datatype, tensor.shape, contents)
        elif tensor.typed:
            _refuse(tensor.where, "contents and raw contents", "one of the two")
        else:
            data = elements_from_raw(tensor.where, tensor.datatype, tensor.shape, raws[index])
        inputs.append(
            InferInput(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, data=data)
        )
    return InferRequest(inputs=tuple(inputs), **head.said)


def encode(response: InferResponse) -> bytes:
    """The serialized ``ModelInferResponse`` of an answer; its tensors are always raw."""
    tensors = response.outputs
    said = tuple((tensor.name, tensor.datatype, tensor.shape) for tensor in tensors)
    pieces = [_answer_head(response.model, response.version, response.id, said)]
    for tensor in tensors:
        raw = raw_from_elements(tensor.datatype, tensor.data)
        pieces += (prefix(RAW_OUTPUT, len(raw)), raw)
    return b"".join(pieces)


def encode_in_stream(response: InferResponse) -> bytes:
    """The serialized ``ModelStreamInferResponse`` of an answer."""
    content = encode(response)
    return prefix(INFER_RESPONSE, len(content)) + content


@lru_cache(maxsize=256)
def _answer_head(
    model: str, version: str, own_id: str, outputs: tuple[tuple[str, str, tuple[int, ...]], ...]
) -> bytes:
    """An answer without its tensors' data, which is the same for most requests of a client."""
    message = messages.ModelInferResponse(model_name=model, model_version=version, id=own_id)
    for name, datatype, shape in outputs:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
    content: bytes = message.SerializeToString()
    return content


def message_of(message_class: Any, document: Document) -> Any:
    """The message that says what a document of the service says.

    The document must have no key that the message lacks: that would be a mistake of the server's.
    """
    return json_format.ParseDict(dict(document), message_class())


def _tensor(index: int, tensor: Any) -> _Tensor:
    name = check_text(f"Name of input {index}", tensor.name)
    where = f"input {shown(name)}"
    datatype = check_datatype(where, tensor.datatype)
    shape = check_shape(where, list(tensor.shape))
    if tensor.parameters:
        refuse_shared_memory(where, _parameters(where, tensor.parameters))
    typed = tensor.HasField("contents")
    return _Tensor(name=name, datatype=datatype, shape=shape, where=where, typed=typed)


def _from_contents(where: str, datatype: str, shape: tuple[int, ...], contents: Any) -> Elements:
    """A tensor from the field of its datatype; the others must be empty."""
    field = _CONTENTS.get(datatype)
    if field is None:
        _refuse(where, "contents", f"raw_input_contents: {datatype} has no field in a message")
    for other, _ in contents.ListFields():
        if other.name != field:
            _refuse(where, other.name, f"{field} for {datatype}")
    values = getattr(contents, field)
    count = math.prod(shape)
    if len(values) != count:
        _refuse(where, f"{len(values)} elements", f"{count} for shape {shown_shape(shape)}")
    if datatype == BYTES:
        check_string_count(where, shape)
        strings: list[bytes] = list(values)
        return strings
    wide = np.fromiter(values[:], _WIDTHS.get(field, DTYPES[datatype]), count)
    if field in _WIDTHS and count:
        check_range(where, datatype, int(wide.min()), int(wide.max()))
    return wide.astype(DTYPES[datatype], copy=False).reshape(shape)


def _output(index: int, wanted: Any) -> WantedOutput:
    name = check_text(f"Name of output {index}", wanted.name)
    where = f"output {shown(name)}"
    parameters = _parameters(where, wanted.parameters) if wanted.parameters else {}
    classes, binary = of_output(where, parameters, binary_default=True)
    return WantedOutput(name=name, classification=classes, binary=binary)


def _parameters(where: str, found: Any) -> Mapping[str, Parameter]:
    """Parameters of a message, as JSON would have them."""
    if not found:
        return {}
    check_parameter_number(where, len(found))
    return check_parameters(where, {name: _value(value) for name, value in found.items()})


def _value(parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def _refuse(where: str, got: str, expected: str) -> NoReturn:
    refuse(f"Data of {where}", got=got, expected=expected, step=_ONE_WAY)
