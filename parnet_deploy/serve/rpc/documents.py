"""The rpcs that answer from what is known at once: everything but inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..protocol import messages
from ..protocol.contract import Service
from ..protocol.grpc_codec import message_of
from ..protocol.refusal import RefusedError

Ask = Callable[[Service, Any], Any]
"""Service and request message to response message."""


def _live(service: Service, request: Any) -> Any:
    return messages.ServerLiveResponse(live=service.is_live())


def _ready(service: Service, request: Any) -> Any:
    return messages.ServerReadyResponse(ready=service.is_ready())


def _model_ready(service: Service, request: Any) -> Any:
    try:
        ready = service.is_model_ready(request.name, request.version)
    except RefusedError:  # a model that is not there is not ready: clients ask in a loop
        ready = False
    return messages.ModelReadyResponse(ready=ready)


def _server_metadata(service: Service, request: Any) -> Any:
    return message_of(messages.ServerMetadataResponse, service.server_metadata())


def _model_metadata(service: Service, request: Any) -> Any:
    document = service.model_metadata(request.name, request.version)
    return message_of(messages.ModelMetadataResponse, document)


def _model_config(service: Service, request: Any) -> Any:
    document = service.model_config(request.name, request.version)
    return message_of(messages.ModelConfigResponse, {"config": document})


def _statistics(service: Service, request: Any) -> Any:
    document = service.statistics(request.name, request.version)
    return message_of(messages.ModelStatisticsResponse, document)


def _index(service: Service, request: Any) -> Any:
    models = service.repository_index(ready_only=request.ready)
    return message_of(messages.RepositoryIndexResponse, {"models": models})


def _nothing(service: Service, request: Any) -> Any:
    """No region is registered, and after this none is."""
    return messages.Nothing()


def _fixed(service: Service, request: Any) -> Any:
    raise RefusedError(
        "fixed",
        "loading and unloading models: not offered to clients; asking again will not help. Whoever "
        "runs the server does it: build, then SIGHUP, or --watch.",
    )


def _not_offered(what: str) -> Ask:
    def answer(service: Service, request: Any) -> Any:
        raise RefusedError("not-offered", f"{what}: not offered by this server.")

    return answer


_MEMORY = _not_offered("shared memory")

DOCUMENTS: dict[str, Ask] = {
    "ServerLive": _live,
    "ServerReady": _ready,
    "ModelReady": _model_ready,
    "ServerMetadata": _server_metadata,
    "ModelMetadata": _model_metadata,
    "ModelConfig": _model_config,
    "ModelStatistics": _statistics,
    "RepositoryIndex": _index,
    "RepositoryModelLoad": _fixed,
    "RepositoryModelUnload": _fixed,
    "SystemSharedMemoryStatus": _nothing,
    "SystemSharedMemoryRegister": _MEMORY,
    "SystemSharedMemoryUnregister": _nothing,
    "CudaSharedMemoryStatus": _nothing,
    "CudaSharedMemoryRegister": _MEMORY,
    "CudaSharedMemoryUnregister": _nothing,
    "TraceSetting": _not_offered("trace settings"),
    "LogSettings": _not_offered("log settings"),
}
"""Each rpc with what answers it."""

OPEN = frozenset({"ServerLive", "ServerReady"})
"""What needs no token: an orchestrator's probe has none, and learns nothing but up or down."""
