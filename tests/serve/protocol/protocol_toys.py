"""Tensors, bodies and messages for the tests of the codec."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from parnet_deploy.serve.protocol import messages
from parnet_deploy.serve.protocol.refusal import CODES, RefusedError
from parnet_deploy.serve.protocol.request import InferRequest, InferResponse, OutputTensor
from parnet_deploy.serve.protocol.tensors import DTYPES

SHAPES = array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


@dataclass(frozen=True)
class Tensor:
    """A tensor as a client has it: an array, or the strings of a BYTES tensor."""

    datatype: str
    shape: tuple[int, ...]
    data: Any
    name: str = "image"

    @property
    def raw(self) -> bytes:
        if isinstance(self.data, list):
            return b"".join(struct.pack("<I", len(text)) + text for text in self.data)
        return self.data.tobytes()

    def holds(self, found: Any) -> bool:
        """Whether the decoded data are these, bit for bit."""
        if isinstance(self.data, list):
            return found == self.data
        same = (found.dtype, found.shape) == (self.data.dtype, self.shape)
        return same and found.tobytes() == self.data.tobytes()


@st.composite
def numbers(draw: st.DrawFn, *, finite: bool = False) -> Tensor:
    datatype = draw(st.sampled_from(sorted(DTYPES)))
    dtype = DTYPES[datatype]
    elements = None
    if finite and dtype.kind == "f":
        width = 8 * dtype.itemsize
        elements = st.floats(allow_nan=False, allow_infinity=False, width=width)
    data = draw(arrays(dtype, SHAPES, elements=elements))
    return Tensor(datatype, data.shape, data)


@st.composite
def strings(draw: st.DrawFn, *, utf8: bool = False) -> Tensor:
    shape = draw(SHAPES)
    element = st.text().map(str.encode) if utf8 else st.binary()
    count = math.prod(shape)
    return Tensor("BYTES", shape, draw(st.lists(element, min_size=count, max_size=count)))


def image(*shape: int) -> Tensor:
    shape = shape or (1, 3, 4, 4)
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return Tensor("FP32", shape, values)


def described(tensor: Tensor, **more: Any) -> dict[str, Any]:
    shape = list(tensor.shape)
    return {"name": tensor.name, "shape": shape, "datatype": tensor.datatype, **more}


def binary_document(*tensors: Tensor, **more: Any) -> dict[str, Any]:
    inputs = [described(t, parameters={"binary_data_size": len(t.raw)}) for t in tensors]
    return {"inputs": inputs, **more}


def with_raw(document: Any, *tensors: Tensor) -> tuple[bytes, str]:
    """A body of JSON and raw tensors, and its Inference-Header-Content-Length."""
    header = json.dumps(document).encode()
    return header + b"".join(tensor.raw for tensor in tensors), str(len(header))


def binary_body(*tensors: Tensor, **more: Any) -> tuple[bytes, str]:
    return with_raw(binary_document(*tensors, **more), *tensors)


def json_values(tensor: Tensor, *, nested: bool) -> Any:
    if isinstance(tensor.data, list):
        values = np.empty(tensor.shape, object)
        values.reshape(-1)[:] = [text.decode() for text in tensor.data]
        return values.tolist() if nested else values.reshape(-1).tolist()
    return tensor.data.tolist() if nested else tensor.data.reshape(-1).tolist()


def json_body(tensor: Tensor, *, nested: bool = False, **more: Any) -> bytes:
    data = json_values(tensor, nested=nested)
    return json.dumps({"inputs": [described(tensor, data=data)], **more}).encode()


def message(*tensors: Tensor, raw: bool = True, **more: Any) -> Any:
    """A ModelInferRequest; without ``raw`` the values go into the field of their datatype."""
    found = messages.ModelInferRequest(model_name="parnet", **more)
    for tensor in tensors:
        entry = found.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            found.raw_input_contents.append(tensor.raw)
        elif isinstance(tensor.data, list):
            entry.contents.bytes_contents.extend(tensor.data)
        else:
            getattr(entry.contents, FIELDS[tensor.datatype]).extend(tensor.data.ravel().tolist())
    return found


FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def answer(*tensors: Tensor, binary: bool = True, id: str = "") -> InferResponse:
    outputs = tuple(
        OutputTensor(name=t.name, datatype=t.datatype, shape=t.shape, data=t.data, binary=binary)
        for t in tensors
    )
    return InferResponse(model="parnet", version="1", id=id, outputs=outputs)


def check_request(request: InferRequest) -> None:
    """What holds of every decoded request, whatever was sent."""
    assert request.inputs
    for tensor in request.inputs:
        if isinstance(tensor.data, list):
            assert tensor.datatype == "BYTES"
            assert len(tensor.data) == math.prod(tensor.shape)
            assert all(type(text) is bytes for text in tensor.data)
        else:
            assert tensor.data.dtype == DTYPES[tensor.datatype]
            assert tensor.data.shape == tensor.shape
    for names in ([t.name for t in request.inputs], [w.name for w in request.outputs]):
        assert len(set(names)) == len(names)
    assert request.priority >= 0
    assert request.timeout_us >= 0
    assert all(wanted.classification >= 0 for wanted in request.outputs)


def check_refusal(error: RefusedError) -> None:
    """What holds of every refusal: a client's mistake, in one line of the house's wording."""
    text = str(error)
    assert error.kind in ("invalid", "too-large", "not-offered")
    assert CODES[error.kind].http not in (500, 503)
    assert ": got " in text
    assert ", expected " in text
    assert text.endswith(".")
    assert len(text) < 700
    assert text.splitlines() == [text]
