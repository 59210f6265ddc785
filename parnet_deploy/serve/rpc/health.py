"""The standard gRPC health service (grpc.health.v1), which Kubernetes and load balancers ask.

Its messages are a string and an enumeration, so they are read and written here, without a package
and without a descriptor in a pool.
"""

from __future__ import annotations

from ..protocol.contract import Service
from ..protocol.messages import SERVICE
from ..protocol.refusal import RefusedError

CHECK = "/grpc.health.v1.Health/Check"

_SERVING = b"\x08\x01"  # field 1, an enumeration: SERVING
_NOT_SERVING = b"\x08\x02"


def check(service: Service, request: bytes) -> bytes:
    """Answer ``Check``: of the whole server, or of the inference service by its name.

    Raises:
        RefusedError: It asks for another service, or the message is none.
    """
    name = _service_name(request)
    if name not in ("", SERVICE):
        raise RefusedError("not-found", f"service {name}: not found, expected {SERVICE} or none.")
    return _SERVING if service.is_ready() else _NOT_SERVING


def _service_name(request: bytes) -> str:
    """Field 1 of ``HealthCheckRequest``, of at most 127 bytes; it has no other field."""
    if not request:
        return ""
    if len(request) < 2 or request[0] != 0x0A or request[1] != len(request) - 2:
        raise RefusedError("invalid", "message: got bytes that are no HealthCheckRequest.")
    return request[2:].decode("utf-8", "replace")
