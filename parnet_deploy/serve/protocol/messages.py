"""The gRPC messages of the protocol (``open_inference.proto``), in a descriptor pool of their own.

Protobuf keeps one global pool, in which a full name may be defined once: the generated modules of
tritonclient and of kserve both define ``inference.*`` and cannot be imported in one process
(kserve issue 3099). These live in a private pool, so a program may use this server and any one of
those clients together. They pickle, which Ray Serve needs, by their own name in that pool: protobuf
itself would look for nested messages in the global one.
"""

from __future__ import annotations

import copyreg
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
"""Full name of the gRPC service."""

_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    files(__package__).joinpath("open_inference.binpb").read_bytes()
).file:
    _POOL.Add(_file)


def restore(name: str, content: bytes) -> Any:
    """The message with this full name and content: what pickle calls."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name)).FromString(content)


def _reduce(message: Any) -> tuple[Any, tuple[str, bytes]]:
    return restore, (message.DESCRIPTOR.full_name, message.SerializeToString())


def _message(name: str) -> Any:
    """The class of a message, at home in this module."""
    found = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))
    _settle(found)
    return found


def _settle(found: Any) -> None:
    found.__module__ = __name__
    copyreg.pickle(found, _reduce)
    for nested in found.DESCRIPTOR.nested_types:
        if not nested.GetOptions().map_entry:
            _settle(getattr(found, nested.name))


Nothing = _message("Nothing")
ServerLiveRequest = _message("ServerLiveRequest")
ServerLiveResponse = _message("ServerLiveResponse")
ServerReadyRequest = _message("ServerReadyRequest")
ServerReadyResponse = _message("ServerReadyResponse")
ModelReadyRequest = _message("ModelReadyRequest")
ModelReadyResponse = _message("ModelReadyResponse")
ServerMetadataRequest = _message("ServerMetadataRequest")
ServerMetadataResponse = _message("ServerMetadataResponse")
ModelMetadataRequest = _message("ModelMetadataRequest")
ModelMetadataResponse = _message("ModelMetadataResponse")
ModelConfigRequest = _message("ModelConfigRequest")
ModelConfigResponse = _message("ModelConfigResponse")
ModelStatisticsRequest = _message("ModelStatisticsRequest")
ModelStatisticsResponse = _message("ModelStatisticsResponse")
RepositoryIndexRequest = _message("RepositoryIndexRequest")
RepositoryIndexResponse = _message("RepositoryIndexResponse")
InferParameter = _message("InferParameter")
InferTensorContents = _message("InferTensorContents")
ModelInferRequest = _message("ModelInferRequest")
ModelInferResponse = _message("ModelInferResponse")
ModelStreamInferResponse = _message("ModelStreamInferResponse")


def methods() -> Any:
    """Descriptors of the service's rpcs, in the order of the file."""
    return _POOL.FindServiceByName(SERVICE).methods


def request_class(rpc: str) -> Any:
    """The class of what an rpc is sent."""
    return message_factory.GetMessageClass(_method(rpc).input_type)


def response_class(rpc: str) -> Any:
    """The class of what an rpc answers."""
    return message_factory.GetMessageClass(_method(rpc).output_type)


def _method(rpc: str) -> Any:
    return _POOL.FindServiceByName(SERVICE).methods_by_name[rpc]
