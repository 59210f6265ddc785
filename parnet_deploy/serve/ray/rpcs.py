"""What Ray's gRPC proxies are told of the protocol's rpcs: their names, and that they are bytes.

Ray calls ``add_inference_service`` in each proxy, by its import path, and puts its own behaviour in
place of every handler. Without a deserializer a proxy passes requests on as they came: it need not
read 602 kB of tensor, and what is no message is refused by the replica, in the protocol's words.
"""

from __future__ import annotations

from typing import Any

import grpc

from ..protocol.messages import SERVICE, methods

IMPORT_PATH = f"{__name__}.add_inference_service"

HEALTH = "grpc.health.v1.Health"
HEALTH_CHECK = "Check"


def add_inference_service(servicer: object, server: Any) -> None:
    """Add every rpc of the protocol, and the standard health check, to a server.

    Args:
        servicer: Not used: Ray answers.
        server: Ray's, or one of gRPC.
    """
    protocol = {
        method.name: grpc.stream_stream_rpc_method_handler(_replaced)
        if method.client_streaming
        else grpc.unary_unary_rpc_method_handler(_replaced)
        for method in methods()
    }
    health = {HEALTH_CHECK: grpc.unary_unary_rpc_method_handler(_replaced)}
    for service, handlers in ((SERVICE, protocol), (HEALTH, health)):
        generic = grpc.method_handlers_generic_handler(service, handlers)
        server.add_generic_rpc_handlers((generic,))


async def _replaced(request: object, context: Any) -> None:
    """Stands where Ray puts its own; called only by a server that is not Ray's."""
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "method: only a proxy of Ray's answers it.")
