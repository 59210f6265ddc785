"""What the shells ask for and the service answers: the one seam between the wires and the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from .request import InferRequest, InferResponse

Wire = Literal["rest", "grpc"]

Document = Mapping[str, Any]
"""A JSON document of the protocol; gRPC's messages are its images (protobuf's JSON mapping)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """How a request came in.

    ``at_s``: ``time.perf_counter()`` when its first byte was there. ``left_s``: what the wire
    itself says of the time left (a gRPC deadline); None: nothing.
    """

    wire: Wire
    at_s: float
    left_s: float | None = None


class Service(Protocol):
    """Everything that can be asked. All of it runs on the event loop and none of it blocks it.

    Every method raises ``RefusedError`` for what cannot be answered, and nothing else.
    """

    def is_live(self) -> bool:
        """Whether the process works at all."""
        ...

    def is_ready(self) -> bool:
        """Whether every model has passed its canary and the server is not draining."""
        ...

    def is_model_ready(self, name: str, version: str = "") -> bool:
        """Whether this model can answer; unknown ones are a ``RefusedError`` (not-found)."""
        ...

    def server_metadata(self) -> Document:
        """Keys: name, version, extensions."""
        ...

    def model_metadata(self, name: str, version: str = "") -> Document:
        """Keys: name, versions, platform, inputs and outputs (name, datatype, shape)."""
        ...

    def model_config(self, name: str, version: str = "") -> Document:
        """Triton's model configuration, as ``ModelConfig`` in open_inference.proto has it."""
        ...

    def statistics(self, name: str = "", version: str = "") -> Document:
        """Key model_stats: of this model, or of all."""
        ...

    def repository_index(self, *, ready_only: bool = False) -> list[Document]:
        """Each model: name, version, state, reason."""
        ...

    async def infer(self, request: InferRequest, arrival: Arrival) -> InferResponse:
        """Answer a request. Cancelling the call takes it out of the queue."""
        ...
