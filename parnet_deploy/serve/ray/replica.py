"""One replica: a process on some node of the cluster, with a service and both shells of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any

from ...errors import BackendError, ServeError
from ..rest.app import RestApp
from ..rpc.documents import DOCUMENTS
from ..rpc.health import CHECK
from ..rpc.listener import Handlers
from ..security.limits import Limits
from ..security.token import VARIABLE, Token, read_token
from ..server.deployments import service_pages
from ..shells.shell import Shell
from .call import RayCalls, Serialized, method_path
from .open import open_service
from .rpcs import HEALTH_CHECK
from .settings import ReplicaSettings

Message = MutableMapping[str, Any]


class Replica:
    """What Ray makes one of in each process, and whose methods its proxies call by their names.

    Ray sends nothing before ``__init__`` is done, which includes the canary of every model.

    Args:
        settings: ``ReplicaSettings`` as JSON.
    """

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]
        self._settings = found = ReplicaSettings.from_json(settings)
        token, limits = _token(found), Limits(body_bytes=found.body_bytes)
        name = _replica_name()
        self._service = open_service(found)
        await self._service.start()
        metrics = self._service.metrics
        shell = Shell(self._service, on_refused=lambda wire, kind: metrics.refused("", wire, kind))
        handlers = Handlers(shell, token, limits)
        self._calls = RayCalls(handlers, body_bytes=found.body_bytes, replica=name)
        self._app = with_replica(
            RestApp(shell, token=token, limits=limits, pages=service_pages(self._service)),
            name.encode("latin-1"),
        )

    def __serve_build_asgi_app__(self) -> Any:
        """What answers REST: Ray asks once, after ``__init__``."""
        return self._app

    async def check_health(self) -> None:
        """Ray asks from time to time, and replaces a replica whose answer is an exception.

        Raises:
            BackendError: It cannot answer any more, as after the loss of a device.
        """
        if not (self._service.is_live() and self._service.is_ready()):
            raise BackendError("replica: it is not ready to answer. Ray starts another.")

    async def __del__(self) -> None:
        """Ray calls it when the replica is to end, once its requests are answered."""
        service = getattr(self, "_service", None)
        if service is not None:
            await service.close(self._settings.drain_s)

    async def ModelStreamInfer(  # noqa: N802 - the protocol's name
        self, requests: AsyncIterator[bytes], grpc_context: Any
    ) -> AsyncIterator[Serialized]:
        """See ``rpc.calls``: answers in the order of the requests."""
        path = method_path("ModelStreamInfer")
        async for answer in self._calls.stream(path, requests, grpc_context):
            yield answer


def _unary(path: str) -> Callable[[Replica, bytes, Any], Any]:
    """A method that Ray calls by the rpc's name."""

    async def answer(self: Replica, request: bytes, grpc_context: Any) -> Serialized:
        return await self._calls.unary(path, request, grpc_context)

    return answer


for _rpc in ("ModelInfer", *DOCUMENTS):
    setattr(Replica, _rpc, _unary(method_path(_rpc)))
setattr(Replica, HEALTH_CHECK, _unary(CHECK))


def with_replica(app: Any, name: bytes) -> Any:
    """An ASGI application that says which replica answered.

    Ray's proxy gives each request an id, which the application takes over, and adds it to the
    answer itself: so here the answer has none.
    """

    async def answer(scope: Message, receive: Any, send: Any) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [item for item in message["headers"] if item[0] != b"x-request-id"]
                message = {**message, "headers": [*headers, (b"x-parnet-replica", name)]}
            await send(message)

        await app(scope, receive, send_on)

    return answer


def _token(settings: ReplicaSettings) -> Token | None:
    token = read_token(settings.token_path)
    if token is None and settings.need_token:
        raise ServeError(
            f"token: got no variable {VARIABLE} in the replica, expected one. Set it on every node "
            "before `ray start`, or name a file that every node has with --token-file."
        )
    return token


def _replica_name() -> str:
    from ray import serve

    return str(serve.get_replica_context().replica_id.unique_id)
