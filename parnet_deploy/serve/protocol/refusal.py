"""What a request may be refused for, and what that is called in HTTP and in gRPC.

One table for both wires, so that a client sees the same class of error on each. The codes are those
that Triton 2.51 answers, where it answers well; see docs/serving.md for where we differ and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import ParnetDeployError

Kind = Literal[
    "invalid",
    "unauthenticated",
    "not-found",
    "wrong-method",
    "too-slow",
    "too-large",
    "failed",
    "not-offered",
    "fixed",
    "busy",
    "late",
    "draining",
    "not-ready",
]


@dataclass(frozen=True, kw_only=True)
class Code:
    """A status in HTTP, a name in ``grpc.StatusCode``; ``retry``: the same may succeed later."""

    http: int
    grpc: str
    retry: bool = False


CODES: dict[Kind, Code] = {
    "invalid": Code(http=400, grpc="INVALID_ARGUMENT"),
    "unauthenticated": Code(http=401, grpc="UNAUTHENTICATED"),
    "not-found": Code(http=404, grpc="NOT_FOUND"),
    "wrong-method": Code(http=405, grpc="UNIMPLEMENTED"),
    "too-slow": Code(http=408, grpc="DEADLINE_EXCEEDED"),  # the client, in sending its request
    "too-large": Code(http=413, grpc="RESOURCE_EXHAUSTED"),
    "failed": Code(http=500, grpc="INTERNAL"),  # the engine
    "not-offered": Code(http=501, grpc="UNIMPLEMENTED"),
    "fixed": Code(http=503, grpc="UNAVAILABLE"),  # loading by a client; as Triton answers it
    "busy": Code(http=503, grpc="UNAVAILABLE", retry=True),  # the queue is full
    "late": Code(http=503, grpc="UNAVAILABLE", retry=True),  # the deadline cannot be met
    "draining": Code(http=503, grpc="UNAVAILABLE", retry=True),
    "not-ready": Code(http=503, grpc="UNAVAILABLE", retry=True),
}


DRAINING_RETRY_S = 5.0
"""When to ask again where a server is stopping: it will not answer, its successor starts first."""


class RefusedError(ParnetDeployError):
    """A request is not answered. The message is for the client: one line, nothing secret in it.

    Args:
        kind: Which code it gets, and the reason that metrics count it under.
        message: ``<what>: got <x>, expected <y>. <next step>.``
        retry_after_s: When to try again; None: not worth trying, or unknown.

    ``counted``: the service's metrics have it already.
    """

    def __init__(self, kind: Kind, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.retry_after_s = retry_after_s
        self.counted = False

    @property
    def code(self) -> Code:
        """What it is called on the wire."""
        return CODES[self.kind]
