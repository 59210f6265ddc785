"""A client that asks again: inference changes nothing on the server, so asking twice is harmless.

A replica or a node of a cluster can be lost while it works on a request. Ray's proxy then answers
HTTP 500 or gRPC INTERNAL in its own words, and the request is lost unless the client sends it once
more. An overloaded or stopping server answers 503 or UNAVAILABLE, and says when to come back.

    client = RestClient("127.0.0.1", 8000, "digits", token)
    logits = retrying(lambda: client.infer(image))

Needs numpy, and tritonclient[grpc] for ``GrpcClient``.
"""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

AGAIN_GRPC = ("UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED")
AGAIN_HTTP = (500, 502, 503, 504)


class AgainError(Exception):
    """Worth asking again. ``after_s``: when, if the server said so."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


def retrying(
    ask: Callable[[], T],
    *,
    attempts: int = 10,
    first_s: float = 0.05,
    most_s: float = 2.0,
    wait: Callable[[float], Any] = time.sleep,
) -> T:
    """Ask until there is an answer.

    Waits twice as long each time, and a random part of it, so that clients who failed together do
    not come back together.

    Raises:
        AgainError: The last attempt failed too.
        Exception: The request itself is refused; asking again would not help.
    """
    for attempt in range(attempts):
        try:
            return ask()
        except AgainError as error:
            if attempt == attempts - 1:
                raise
            longest_s = min(most_s, first_s * 2**attempt)
            wait(max(error.after_s, longest_s * random.uniform(0.5, 1.0)))
    raise ValueError(f"attempts: got {attempts}, expected 1 or more.")


class RestClient:
    """One connection, opened anew after a failure."""

    def __init__(
        self, host: str, port: int, model: str, token: str | None = None, timeout_s: float = 30.0
    ) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        self._path = f"/v2/models/{model}/infer"
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.replica = ""

    def infer(self, image: np.ndarray) -> np.ndarray:
        """Logits (N, K) of images (N, 3, H, W) float32.

        Raises:
            AgainError: Nobody answered, or the server could not now.
            ValueError: The server refuses the request.
        """
        body, headers = self._encode(image)
        try:
            self._connection.request("POST", self._path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise AgainError(f"connection: {error!r}") from error
        self.replica = response.headers.get("x-parnet-replica", "")
        if response.status == 200:
            length = int(response.headers["Inference-Header-Content-Length"])
            (output,) = json.loads(content[:length])["outputs"]
            return np.frombuffer(content[length:], "<f4").reshape(output["shape"])
        reason = f"{response.status}: {content[:200]!r}"
        if response.status in AGAIN_HTTP:
            raise AgainError(reason, float(response.headers.get("Retry-After", 0)))
        raise ValueError(reason)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _encode(self, image: np.ndarray) -> tuple[bytes, dict[str, str]]:
        raw = np.ascontiguousarray(image, "<f4").tobytes()
        tensor = {
            "name": "image",
            "datatype": "FP32",
            "shape": list(image.shape),
            "parameters": {"binary_data_size": len(raw)},
        }
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        length = {"Inference-Header-Content-Length": str(len(head))}
        return head + raw, {**self._headers, **length}


class GrpcClient:
    """The same over gRPC, by tritonclient."""

    def __init__(
        self, host: str, port: int, model: str, token: str | None = None, timeout_s: float = 30.0
    ) -> None:
        import tritonclient.grpc

        self._module = tritonclient.grpc
        self._client = tritonclient.grpc.InferenceServerClient(f"{host}:{port}")
        self._model, self._timeout_s = model, timeout_s
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}

    def infer(self, image: np.ndarray) -> np.ndarray:
        """See ``RestClient``."""
        tensor = self._module.InferInput("image", list(image.shape), "FP32")
        tensor.set_data_from_numpy(np.ascontiguousarray(image, np.float32))
        try:
            answer = self._client.infer(
                self._model, [tensor], headers=self._headers, client_timeout=self._timeout_s
            )
        except self._module.InferenceServerException as error:
            if str(error.status()).removeprefix("StatusCode.") in AGAIN_GRPC:
                raise AgainError(str(error)) from error
            raise ValueError(str(error)) from error
        logits: np.ndarray = answer.as_numpy("logits")
        return logits

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
