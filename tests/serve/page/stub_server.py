"""A server for the page: the protocol's answers it needs, and the faults it must show.

Its model gives each image the logits of ``logits_of``: from the mean colour, so a test knows them.
"""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from parnet_deploy.preprocess import Preprocessing
from parnet_deploy.serve.page.page import load_page

LABELS = ["red", "green", "blue", *(f"shade {k}" for k in range(3, 30))]
TIMING = 'prepare;dur=1.250, queue;dur=0.500, infer;dur=3.750, total;dur=6.000, batch;desc="2"'


def compared(error: float, tolerance: float) -> dict[str, Any]:
    """A comparison as the reports have it."""
    return {"error": error, "tolerance": tolerance, "passed": error <= tolerance}


SEGMENT = {"name": "all", "parts": ["head"], "inputs": ["image"], "outputs": ["logits"]}
CARDS: list[dict[str, Any]] = [
    {
        "name": "colours",
        "digest": "3f9a1c5e0b7d4f2286aa3f9a1c5e0b7d",
        "classes": len(LABELS),
        "labels": LABELS,
        "input_size": "224x224",
        "max_batch": 8,
        "inputs": ["image", "encoded_image"],
        "preprocessing": Preprocessing().to_json(),
        "source": {"parameters": 80754},
        "running": {
            "plan": "onnxruntime-fp32-auto",
            "backend": "onnxruntime",
            "placement": {"name": "one", "segments": [SEGMENT | {"device": 0}]},
            "precision": "fp32",
            "median_ms": 53.7,
            "canary": compared(2e-7, 1e-4),
        },
        "evidence": {
            "fuse": {
                "proof": {"float64": compared(9.7e-16, 1e-10), "float32": compared(5e-7, 1e-5)}
            },
            "export": {"checks": [compared(6.1e-7, 1e-4), compared(2e-4, 1e-4)]},
        },
    },
    {"name": "bare <i>model", "classes": 3, "labels": None},
]


@dataclass
class Stub:
    """What the server does next, set by the test."""

    token: str | None = None
    refuse: list[tuple[int, str, Mapping[str, str]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    cards: list[dict[str, Any]] | None = field(default_factory=lambda: list(CARDS))
    inputs: tuple[str, ...] = ("image", "encoded_image")
    release: threading.Event | None = None

    def application(self) -> Starlette:
        """Its routes."""
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/card", self._card),
                Route("/v2/health/ready", self._ready),
                Route("/v2/repository/index", self._index, methods=["POST"]),
                Route("/v2/models/{name}", self._metadata),
                Route("/v2/models/{name}/infer", self._infer, methods=["POST"]),
            ]
        )

    async def _page(self, request: Request) -> Response:
        page = load_page()
        return Response(page.body, headers=dict(page.headers))

    async def _ready(self, request: Request) -> Response:
        return JSONResponse({"ready": True})

    async def _card(self, request: Request) -> Response:
        if self.cards is None:
            return JSONResponse({"error": "no such path"}, 404)
        return self._refused(request) or JSONResponse(
            {"models": {card["name"]: card for card in self.cards}}
        )

    async def _index(self, request: Request) -> Response:
        return JSONResponse([{"name": "colours", "version": "1", "state": "READY", "reason": ""}])

    async def _metadata(self, request: Request) -> Response:
        kinds = {"image": ("FP32", [-1, 3, 224, 224]), "encoded_image": ("BYTES", [-1, 1])}
        inputs = [
            {"name": name, "datatype": kinds[name][0], "shape": kinds[name][1]}
            for name in self.inputs
        ]
        outputs = [{"name": "logits", "datatype": "FP32", "shape": [-1, len(LABELS)]}]
        name = request.path_params["name"]
        document = {"name": name, "versions": ["1"], "inputs": inputs, "outputs": outputs}
        return self._refused(request) or JSONResponse(document)

    async def _infer(self, request: Request) -> Response:
        self.asked.append(request.path_params["name"])
        refused = self._refused(request)
        if refused:
            return refused
        if self.refuse:
            status, message, headers = self.refuse.pop(0)
            return JSONResponse({"error": message}, status, dict(headers))
        if self.release is not None:
            await asyncio.to_thread(self.release.wait, 30)
        return _answer(request.headers, await request.body())

    def _refused(self, request: Request) -> Response | None:
        if self.token is None or request.headers.get("authorization") == f"Bearer {self.token}":
            return None
        return JSONResponse({"error": "token: got another, expected the server's."}, 401)


def _answer(headers: Mapping[str, str], body: bytes) -> Response:
    end = int(headers["inference-header-content-length"])
    head = json.loads(body[:end])
    (tensor,) = head["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("encoded_image", "BYTES", [1])
    assert tensor["parameters"]["binary_data_size"] == len(body) - end
    image = body[end + 4 :]
    assert int.from_bytes(body[end : end + 4], "little") == len(image)
    try:
        logits = logits_of(image)
    except UnidentifiedImageError:
        return JSONResponse({"error": "image: got no image, expected PNG, JPEG. Send one."}, 400)
    (wanted,) = head["outputs"]
    if count := wanted.get("parameters", {}).get("classification"):
        best = np.argsort(-logits)[:count]
        data = [f"{logits[k]:.6f}:{k}:{LABELS[k]}" for k in best]
        output = {"name": "logits", "datatype": "BYTES", "shape": [1, count], "data": data}
        return JSONResponse({"model_name": "colours", "outputs": [output]})
    raw = logits.astype("<f4").tobytes()
    output = {"name": "logits", "datatype": "FP32", "shape": [1, len(logits)]}
    output["parameters"] = {"binary_data_size": len(raw)}
    part = json.dumps({"model_name": "colours", "outputs": [output]}).encode()
    sent = {"inference-header-content-length": str(len(part)), "server-timing": TIMING}
    return Response(part + raw, headers=sent, media_type="application/octet-stream")


def logits_of(image: bytes) -> NDArray[np.float64]:
    """Mean red, green and blue in units of 32, then falling ones."""
    colour = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), float).mean((0, 1)) / 32
    return np.concatenate([colour, -np.arange(len(LABELS) - 3) / 4])


@contextmanager
def running(stub: Stub, port: int = 0) -> Iterator[str]:
    """The server on a loopback port in a thread; its address."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        config = uvicorn.Config(stub.application(), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()
