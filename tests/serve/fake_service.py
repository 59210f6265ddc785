"""A service that answers at once, or when it is told to, without a model."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import numpy as np

from parnet_deploy.serve.protocol.contract import Arrival, Document
from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.protocol.request import (
    InferRequest,
    InferResponse,
    OutputTensor,
    Timings,
)

MODEL = "toy"
CLASSES = 4


class FakeService:
    """Logits are the sum of the image times 1, 2, 3, 4.

    ``refusal``: raised by ``infer`` instead. ``held``: unset it to make ``infer`` wait; ``entered``
    counts those that came, ``cancelled`` those that were cancelled while they waited.
    """

    def __init__(self) -> None:
        self.ready = self.live = True
        self.refusal: Exception | None = None
        self.held = asyncio.Event()
        self.held.set()
        self.entered = self.cancelled = 0
        self.changed = asyncio.Event()
        self.arrivals: deque[Arrival] = deque(maxlen=4)  # the last ones
        self.requests: deque[InferRequest] = deque(maxlen=4)
        self.started = self.closed = self.draining = False

    async def start(self) -> None:
        self.started = True

    def begin_drain(self) -> None:
        self.ready, self.draining = False, True

    async def close(self, drain_s: float = 0.0) -> None:
        self.closed = True
        self._tell()

    def is_live(self) -> bool:
        return self.live

    def is_ready(self) -> bool:
        return self.ready

    def is_model_ready(self, name: str, version: str = "") -> bool:
        self._check(name, version)
        return self.ready

    def server_metadata(self) -> Document:
        return {"name": "parnet-deploy", "version": "0", "extensions": ["binary_tensor_data"]}

    def model_metadata(self, name: str, version: str = "") -> Document:
        self._check(name, version)
        image = {"name": "image", "datatype": "FP32", "shape": [-1, 3, 8, 8]}
        logits = {"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES]}
        return {
            "name": name,
            "versions": ["1"],
            "platform": "fake",
            "inputs": [image],
            "outputs": [logits],
        }

    def model_config(self, name: str, version: str = "") -> Document:
        self._check(name, version)
        return {"name": name, "max_batch_size": 8}

    def statistics(self, name: str = "", version: str = "") -> Document:
        if name:
            self._check(name, version)
        return {"model_stats": [{"name": MODEL, "version": "1", "inference_count": self.entered}]}

    def repository_index(self, *, ready_only: bool = False) -> list[Document]:
        if ready_only and not self.ready:
            return []
        return [{"name": MODEL, "version": "1", "state": "READY", "reason": ""}]

    async def infer(self, request: InferRequest, arrival: Arrival) -> InferResponse:
        self._check(request.model, request.version)
        if self.draining:
            raise RefusedError("draining", "server: it is stopping.")
        self.arrivals.append(arrival)
        self.requests.append(request)
        self.entered += 1
        self._tell()
        if self.refusal is not None:
            raise self.refusal
        try:
            await self.held.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            self._tell()
            raise
        return answer(request)

    async def until(self, condition: Any) -> None:
        """Wait until a condition on this service holds."""
        while not condition(self):
            self.changed.clear()
            await self.changed.wait()

    def _tell(self) -> None:
        self.changed.set()

    def _check(self, name: str, version: str) -> None:
        if name != MODEL or version not in ("", "1"):
            raise RefusedError("not-found", f"model {name}: not found, expected {MODEL}.")


def answer(request: InferRequest) -> InferResponse:
    """What the service answers."""
    data = np.asarray(request.inputs[0].data, np.float32)
    sums = data.reshape(len(data), -1).sum(axis=1, dtype=np.float64)
    logits = np.outer(sums, np.arange(1, CLASSES + 1)).astype(np.float32)
    wanted = request.outputs[0] if request.outputs else None
    binary = request.binary_default if wanted is None else wanted.binary
    output = OutputTensor(
        name="logits", datatype="FP32", shape=logits.shape, data=logits, binary=binary
    )
    return InferResponse(
        model=MODEL,
        version="1",
        id=request.id,
        outputs=(output,),
        timings=Timings(queue_s=0.001, infer_s=0.002, batch=len(data)),
    )
