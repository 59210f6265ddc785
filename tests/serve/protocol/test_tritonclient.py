"""Real requests of NVIDIA's tritonclient are read, and our answers are read by it.

What it wrote is kept in tritonclient_bodies.json. Reading our answers needs the client itself: the
test runs it in a process of its own, in the Python that PARNET_TRITONCLIENT_PYTHON names.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parnet_deploy.serve.protocol import content_encoding, grpc_codec, rest_codec
from parnet_deploy.serve.protocol.request import InferRequest, WantedOutput
from tests.serve.protocol.protocol_toys import Tensor, answer, check_request
from tests.serve.protocol.tritonclient_bodies import EMPTY, TENSORS

FOLDER = Path(__file__).parent
RECORDED = json.loads((FOLDER / "tritonclient_bodies.json").read_text())["requests"]


def decode(entry: dict[str, Any]) -> InferRequest:
    body = base64.b64decode(entry["body"])
    if entry["wire"] == "grpc":
        return grpc_codec.decode(body)
    length = entry["header_length"]
    return rest_codec.decode_request("parnet", "1", body, None if length is None else str(length))


def title(entry: dict[str, Any]) -> str:
    return f"{entry['wire']} {entry['title']}"


@pytest.mark.parametrize("entry", RECORDED, ids=title)
def test_what_it_sends_is_what_it_meant(entry: dict[str, Any]) -> None:
    request = decode(entry)
    check_request(request)
    assert request.model == "parnet"
    for datatype, tensor in zip(entry["inputs"], request.inputs, strict=True):
        expected = EMPTY if "empty" in entry["title"] else TENSORS[datatype]
        assert (tensor.name, tensor.datatype) == (f"in_{datatype}", datatype)
        assert tensor.shape == expected.shape
        if datatype == "BYTES":
            assert tensor.data == expected.tolist()
        else:
            assert isinstance(tensor.data, np.ndarray)
            assert tensor.data.dtype == expected.dtype
            np.testing.assert_array_equal(tensor.data, expected)


def test_every_datatype_and_both_wires_were_recorded() -> None:
    raw = {(entry["wire"], *entry["inputs"]) for entry in RECORDED}
    assert raw >= {(wire, datatype) for wire in ("rest", "grpc") for datatype in TENSORS}


@pytest.mark.parametrize("wire", ["rest", "grpc"])
def test_all_it_can_say_is_understood(wire: str) -> None:
    (entry,) = (e for e in RECORDED if (e["wire"], e["title"]) == (wire, "all it can say"))
    found = decode(entry)
    assert (found.version, found.id, found.priority, found.timeout_us) == ("1", "abc", 2, 5000)
    assert found.parameters["note"] == "x"
    assert found.outputs == (
        WantedOutput(name="logits", classification=3, binary=wire == "grpc"),
        WantedOutput(name="other", binary=True),
    )


@pytest.mark.parametrize("wire", ["rest", "grpc"])
def test_who_names_no_output_gets_all_of_them_raw(wire: str) -> None:
    (entry,) = (e for e in RECORDED if (e["wire"], e["title"]) == (wire, "raw FP32"))
    found = decode(entry)
    assert found.outputs == ()
    assert found.binary_default


def ours() -> list[dict[str, Any]]:
    """An answer for each datatype, wire and form."""
    found = []
    for datatype, values in [*TENSORS.items(), ("FP32", EMPTY)]:
        data = values.tolist() if datatype == "BYTES" else values
        tensor = Tensor(datatype, values.shape, data, "logits")
        for binary in (True, False):
            parts, length = rest_codec.encode_response(answer(tensor, binary=binary))
            for coding in (None, "gzip", "deflate"):
                body = content_encoding.compress(parts, coding) if coding else b"".join(parts)
                found.append(entry_of("rest", body, length, coding))
        message = grpc_codec.encode(answer(tensor))
        found.append(entry_of("grpc", message.SerializeToString(), None, None))
    return found


def entry_of(wire: str, body: bytes, length: int | None, coding: str | None) -> dict[str, Any]:
    text = base64.b64encode(body).decode()
    head = {"wire": wire, "name": "logits", "body": text}
    return {**head, "header_length": length, "content_encoding": coding}


def test_it_reads_our_answers() -> None:
    python = os.environ.get("PARNET_TRITONCLIENT_PYTHON")
    if not python:
        pytest.skip("PARNET_TRITONCLIENT_PYTHON names no Python with tritonclient[http,grpc]")
    sent = ours()
    script = FOLDER / "tritonclient_bodies.py"
    done = subprocess.run(
        [python, str(script), "read"], input=json.dumps(sent), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    expected = [*TENSORS.values(), EMPTY]
    assert len(read) == len(sent) == 7 * len(expected)
    for index, found in enumerate(read):
        values = expected[index // 7]
        assert found["shape"] == list(values.shape)
        texts = [v.decode() if isinstance(v, bytes) else v for v in values.reshape(-1).tolist()]
        assert found["values"] == texts
