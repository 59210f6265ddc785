"""The whole of a Ray Serve configuration: as data for ``serve.start``, or a file for a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...errors import ServeError
from ..security.bind import check_exposure, resolve_host
from ..server.options import ServerOptions
from . import rpcs
from .need import Need
from .options import ScaleOptions
from .settings import ReplicaSettings

AUTH_MODE = "RAY_AUTH_MODE"
"""The variable that Ray reads when it is imported: with ``token``, a cluster holds its token."""

APPLICATION, NAME = "parnet-deploy", "parnet"
"""What Ray calls the application, and the one deployment in it."""

# What `serve deploy` needs to import: with a literal, this module needs no Ray.
IMPORT_PATH = "parnet_deploy.serve.ray.application:build"

_CONSTRUCTIONS = 3  # a replica that cannot open its models will not by the twentieth time
_HEALTH_PERIOD_S = 5.0
_REFUSED_AT_A_TIME = 512  # requests that a replica takes in, or a proxy has, only to refuse them

_HEAD = """\
# A Ray Serve application of parnet-deploy: serve deploy FILE, on the head node of a Ray cluster.
#
# Every node needs: this version of parnet-deploy with [serve,ray] and the backend of the plans; the
# deployment directories under args.models, at these paths or, with relative paths, inside a
# working_dir that Ray copies to each node (runtime_env: {working_dir: URI} below args); and, if
# need_token is true, the file token_file, or the variable PARNET_DEPLOY_TOKEN where it is null.
# Start every node with RAY_AUTH_MODE=token and one Ray token: without it, whoever reaches Ray's
# ports can run code. Ray's gRPC proxies listen on every interface, whatever http_options.host says.
"""


def check_wires(options: ServerOptions) -> None:
    """Hold the bind rule as it is on Ray, whose gRPC proxies listen on every interface.

    Raises:
        ServeError: Other machines could ask and nothing protects it, or something is not offered.
    """
    protected = options.token is not None
    address = resolve_host(options.host)
    check_exposure(options.host, address, protected=protected, insecure=options.insecure)
    if options.port == 0 or options.grpc_port == 0:
        raise ServeError("port: got 0, expected a number, the same on every node. Choose one.")
    if options.port is None:
        raise ServeError("wires: got no REST, expected it: Ray Serve always speaks HTTP.")
    if options.tls is not None or options.metrics_port is not None:
        raise ServeError(
            "options: got TLS or a metrics port, expected neither with --ray. Put a proxy that "
            "ends TLS in front of the cluster; Ray exports metrics itself."
        )
    if options.grpc_port is not None and not protected and not options.insecure:
        raise ServeError(
            "gRPC: got no token, expected one: Ray listens for gRPC on every interface. Add "
            "--token-file, or --no-grpc, or --insecure if something else protects the machine."
        )


def wire_warnings(options: ServerOptions) -> list[str]:
    """What whoever starts it should know of its protection."""
    found = options.warnings(resolve_host(options.host))
    if options.grpc_port is not None:
        lack = "TLS" if options.token is not None else "TLS and without a token"
        found.append(f"Ray listens for gRPC on every interface, without {lack}")
    return found


def proxy_options(options: ServerOptions) -> dict[str, Any]:
    """Where Ray's proxies listen. ``serve.start`` and ``serve deploy`` take the same."""
    found: dict[str, Any] = {
        "proxy_location": "EveryNode",
        "http_options": {"host": resolve_host(options.host), "port": options.port},
    }
    if options.grpc_port is not None:
        found["grpc_options"] = {
            "port": options.grpc_port,
            "grpc_servicer_functions": [rpcs.IMPORT_PATH],
            "enable_reflection": False,  # the messages are in a pool of their own
        }
    return found


def deployment_options(
    scale: ScaleOptions, need: Need, settings: ReplicaSettings
) -> dict[str, Any]:
    """What Ray is told of the replicas, in its own words.

    A replica refuses what is more than its queue holds, in the protocol's words, which takes it no
    time. So Ray lets far more through to it than it answers. A proxy counts as queued whatever it
    has not handed on yet, and refuses the rest in Ray's words: so it may have as many.
    """
    at_a_time = settings.max_queue + settings.slots * need.max_batch
    return {
        "name": NAME,
        **scale.to_ray(),
        "max_ongoing_requests": at_a_time + _REFUSED_AT_A_TIME,
        "max_queued_requests": _REFUSED_AT_A_TIME,
        "ray_actor_options": {"num_cpus": need.cpus, "num_gpus": need.gpus},
        "graceful_shutdown_timeout_s": settings.drain_s + 1.0,
        "health_check_period_s": _HEALTH_PERIOD_S,
        "max_constructor_retry_count": _CONSTRUCTIONS,
    }


def config_file(
    options: ServerOptions, settings: ReplicaSettings, deployment: Mapping[str, Any]
) -> str:
    """The file for ``serve deploy``.

    Args:
        options: Where to listen.
        settings: What each replica is told.
        deployment: ``deployment_options``.
    """
    document = {
        **proxy_options(options),
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": settings.to_json(),
                "deployments": [dict(deployment)],
            }
        ],
    }
    return _HEAD + "".join(f"{line}\n" for line in _yaml(document))


def _yaml(value: Any, indent: str = "") -> list[str]:
    """Block style for what has something in it; every scalar is JSON, which YAML reads too."""
    lines = []
    entries = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
    for key, item in entries:
        lead = f"{indent}- " if key is None else f"{indent}{key}: "
        if not isinstance(item, Mapping | list | tuple) or not item:
            lines.append(lead + json.dumps(item))
        elif key is None:
            inside = _yaml(item, indent + "  ")
            lines += [lead + inside[0].removeprefix(indent + "  "), *inside[1:]]
        else:
            lines += [lead.rstrip(), *_yaml(item, indent + "  ")]
    return lines
