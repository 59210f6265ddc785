"""The protocol's paths and what each asks of the service, but for ``infer``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ..protocol.contract import Service
from ..protocol.refusal import RefusedError
from .answer import Answer, json_answer

Parameters = Mapping[str, str]
Ask = Callable[[Service, Parameters, bytes], Answer]
"""Service, path parameters and body (of POST) to answer."""

NOT_READY = 400
"""Status of a health question that is answered no: what Triton gives, and clients take for no."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """A path of the protocol. ``get`` also answers HEAD."""

    pattern: str
    get: Ask | None = None
    post: Ask | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """What may be sent to it."""
        found = ("GET", "HEAD") if self.get else ()
        return (*found, "POST") if self.post else found


def _live(service: Service, parameters: Parameters, body: bytes) -> Answer:
    return _health({"live": service.is_live()})


def _ready(service: Service, parameters: Parameters, body: bytes) -> Answer:
    return _health({"ready": service.is_ready()})


def _model_ready(service: Service, parameters: Parameters, body: bytes) -> Answer:
    ready = service.is_model_ready(*_model(parameters))
    return _health({"name": parameters["model"], "ready": ready})


def _health(document: dict[str, Any]) -> Answer:
    """Kserve's client reads the document, Triton's the status."""
    answers = (value for value in document.values() if isinstance(value, bool))
    return json_answer(document, status=200 if all(answers) else NOT_READY)


def _server(service: Service, parameters: Parameters, body: bytes) -> Answer:
    return json_answer(service.server_metadata())


def _metadata(service: Service, parameters: Parameters, body: bytes) -> Answer:
    return json_answer(service.model_metadata(*_model(parameters)))


def _config(service: Service, parameters: Parameters, body: bytes) -> Answer:
    return json_answer(service.model_config(*_model(parameters)))


def _statistics(service: Service, parameters: Parameters, body: bytes) -> Answer:
    return json_answer(service.statistics(*_model(parameters)))


def _index(service: Service, parameters: Parameters, body: bytes) -> Answer:
    try:
        wanted = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise RefusedError(
            "invalid", f"body: got no JSON ({error}), expected none, or an object with ready."
        ) from None
    ready_only = wanted.get("ready", False) if isinstance(wanted, dict) else None
    if not isinstance(ready_only, bool):
        raise RefusedError(
            "invalid", "body: got another document, expected an object in which ready is a bool."
        )
    return json_answer(service.repository_index(ready_only=ready_only))


def _model(parameters: Parameters) -> tuple[str, str]:
    return parameters.get("model", ""), parameters.get("version", "")


def _nothing(service: Service, parameters: Parameters, body: bytes) -> Answer:
    """No region is registered, and after this none is."""
    return json_answer([])


def _fixed(service: Service, parameters: Parameters, body: bytes) -> Answer:
    raise RefusedError(
        "fixed",
        "loading and unloading models: not offered to clients; asking again will not help. Whoever "
        "runs the server does it: build, then SIGHUP, or --watch.",
    )


def _not_offered(what: str) -> Ask:
    def answer(service: Service, parameters: Parameters, body: bytes) -> Answer:
        raise RefusedError("not-offered", f"{what}: not offered by this server.")

    return answer


_MODEL = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
_TRACE, _LOGGING = _not_offered("trace settings"), _not_offered("log settings")
_MEMORY = _not_offered("shared memory")


def _shared_memory(kind: str) -> list[Path]:
    found = []
    for where in ("", "/region/{region}"):
        base = f"/v2/{kind}{where}"
        found.append(Path(pattern=f"{base}/status", get=_nothing))
        found.append(Path(pattern=f"{base}/register", post=_MEMORY))
        found.append(Path(pattern=f"{base}/unregister", post=_nothing))
    return found


PATHS: tuple[Path, ...] = (
    Path(pattern="/v2/health/live", get=_live),
    Path(pattern="/v2/health/ready", get=_ready),
    Path(pattern="/v2", get=_server),
    Path(pattern="/v2/models/stats", get=_statistics),  # before a model of this name
    *(
        Path(pattern=base + end, get=ask)
        for base in _MODEL
        for end, ask in (
            ("", _metadata),
            ("/ready", _model_ready),
            ("/config", _config),
            ("/stats", _statistics),
        )
    ),
    Path(pattern="/v2/repository/index", post=_index),
    Path(pattern="/v2/repository/models/{model}/load", post=_fixed),
    Path(pattern="/v2/repository/models/{model}/unload", post=_fixed),
    Path(pattern="/v2/trace/setting", get=_TRACE, post=_TRACE),
    *(Path(pattern=f"{base}/trace/setting", get=_TRACE, post=_TRACE) for base in _MODEL),
    Path(pattern="/v2/logging", get=_LOGGING, post=_LOGGING),
    *_shared_memory("systemsharedmemory"),
    *_shared_memory("cudasharedmemory"),
)
"""In the order in which they are tried."""

INFER_PATTERNS = tuple(f"{base}/infer" for base in _MODEL)

OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})
"""What needs no token: an orchestrator's probe has none, and learns nothing but up or down."""
