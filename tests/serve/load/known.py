"""Images with known answers, and the requests that carry them."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parnet_deploy.serve.protocol import messages

TOLERANCE = 1e-4
"""Of the largest logit: what another batch size or engine may change."""


@dataclass(frozen=True)
class Known:
    """Images (N, 3, H, W) as tensors and as PNG, and the logits (N, K) of each."""

    model: str
    images: NDArray[np.float32]
    files: tuple[bytes, ...]
    logits: NDArray[np.float32]

    def is_right(self, index: int, logits: NDArray[np.float32]) -> bool:
        """Whether these are the logits of this image, and so of no other one."""
        expected = self.logits[index % len(self.logits)]
        if logits.shape != expected.shape:
            return False
        limit = TOLERANCE * np.abs(expected).max()
        return bool(np.abs(logits - expected).max() <= limit)

    def save(self, path: Path) -> None:
        """For another process."""
        sizes = np.array([len(file) for file in self.files])
        joined = np.frombuffer(b"".join(self.files), np.uint8)
        np.savez(
            path,
            model=self.model,
            images=self.images,
            logits=self.logits,
            sizes=sizes,
            files=joined,
        )

    @classmethod
    def load(cls, path: Path) -> Known:
        """What ``save`` wrote."""
        with np.load(path) as found:
            ends = np.cumsum(found["sizes"])
            joined = found["files"].tobytes()
            files = tuple(joined[e - s : e] for e, s in zip(ends, found["sizes"], strict=True))
            return cls(str(found["model"]), found["images"], files, found["logits"])


def make_known(deployment: Path, count: int) -> Known:
    """Random pictures, answered by the deployment itself; each answer is far from all others."""
    from PIL import Image

    from parnet_deploy import Runtime
    from parnet_deploy.deployment import Deployment
    from parnet_deploy.preprocess import Preprocessing, load_image

    found = Deployment.open(deployment)
    assert found.preprocessing is not None
    how = Preprocessing.from_json(found.preprocessing)
    rng = np.random.default_rng(7)
    files = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((how.width, how.height), Image.Resampling.NEAREST)
        with io.BytesIO() as stream:
            picture.save(stream, "PNG")
            files.append(stream.getvalue())
    images = np.stack([load_image(file, how) for file in files])
    with Runtime.open(deployment) as runtime:
        logits = np.concatenate([runtime(image[None]) for image in images])
    known = Known(found.name, images, tuple(files), logits)
    for i in range(count):
        mixed = [j for j in range(count) if j != i and known.is_right(i, logits[j])]
        assert mixed == [], "two pictures with one answer: a mix-up would not be seen"
    return known


def rest_request(
    known: Known, index: int, request_id: str, *, encoded: bool, timeout_us: int = 0
) -> tuple[dict[str, str], bytes]:
    """Headers and body of an infer request, tensors raw."""
    index %= len(known.images)
    if encoded:
        file = known.files[index]
        raw = struct.pack("<I", len(file)) + file
        tensor = {"name": "encoded_image", "datatype": "BYTES", "shape": [1]}
    else:
        raw = known.images[index].tobytes()
        shape = [1, *known.images.shape[1:]]
        tensor = {"name": "image", "datatype": "FP32", "shape": shape}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    document = {
        "id": request_id,
        "parameters": {"timeout": timeout_us} if timeout_us else {},
        "inputs": [tensor],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(document).encode()
    return {"Inference-Header-Content-Length": str(len(head))}, head + raw


def rest_logits(headers: dict[str, str], body: bytes) -> tuple[str, NDArray[np.float32]]:
    """Request id and logits of an answer to ``rest_request``."""
    end = int(headers["inference-header-content-length"])
    document = json.loads(body[:end])
    (output,) = document["outputs"]
    assert output["name"] == "logits"
    assert output["parameters"]["binary_data_size"] == len(body) - end
    logits = np.frombuffer(body, "<f4", offset=end).reshape(output["shape"])
    return document.get("id", ""), logits[0]


def grpc_request(
    known: Known, index: int, request_id: str, *, encoded: bool, timeout_us: int = 0
) -> bytes:
    """A serialised ModelInferRequest."""
    index %= len(known.images)
    request = messages.ModelInferRequest(model_name=known.model, id=request_id)
    if timeout_us:
        request.parameters["timeout"].int64_param = timeout_us
    if encoded:
        file = known.files[index]
        request.inputs.add(name="encoded_image", datatype="BYTES", shape=[1])
        request.raw_input_contents.append(struct.pack("<I", len(file)) + file)
    else:
        request.inputs.add(name="image", datatype="FP32", shape=[1, *known.images.shape[1:]])
        request.raw_input_contents.append(known.images[index].tobytes())
    content: bytes = request.SerializeToString()
    return content


def grpc_logits(content: bytes) -> tuple[str, NDArray[np.float32]]:
    """Request id and logits of a serialised ModelInferResponse."""
    response = messages.ModelInferResponse.FromString(content)
    (output,) = response.outputs
    assert output.name == "logits"
    return response.id, np.frombuffer(response.raw_output_contents[0], "<f4").reshape(output.shape)[
        0
    ]
