"""The application on a cluster: started, ready, and taken down again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve

from ...errors import ServeError
from ..server.options import ServerOptions
from .application import make_application
from .cluster import Room, joined_cluster
from .config import APPLICATION, NAME, check_wires, proxy_options
from .settings import ReplicaSettings

_LOG = logging.getLogger(__name__)
_CONTROLLER = "SERVE_CONTROLLER_ACTOR"
_ERROR_LINE = re.compile(r"^[\w.]+(?:Error|Exception): (.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is to run on the cluster. ``deployment``: ``config.deployment_options``."""

    settings: ReplicaSettings
    deployment: dict[str, Any]
    options: ServerOptions
    address: str | None = None  # of a cluster that is there; None: one on this machine

    @property
    def size(self) -> tuple[float, float]:
        """What Ray sets aside for each replica: (cpus, gpus)."""
        actor = self.deployment["ray_actor_options"]
        return actor["num_cpus"], actor["num_gpus"]

    @property
    def least(self) -> int:
        """The fewest replicas."""
        scaling = self.deployment.get("autoscaling_config")
        count: int = scaling["min_replicas"] if scaling else self.deployment["num_replicas"]
        return count


@contextmanager
def served(plan: Plan, **more: Any) -> Iterator[Room]:
    """Have the application run, every replica of it ready, while the block runs.

    Args:
        plan: What to run.
        more: For ``ray.init``.

    Raises:
        ServeError: The cluster cannot be used, Ray Serve runs there already, there is no room, or
            the replicas do not start.
    """
    check_wires(plan.options)
    with joined_cluster(plan.address, insecure=plan.options.insecure, **more) as room:
        if is_serving():
            raise ServeError(
                "Ray Serve: got one that runs on this cluster, with ports of its own, expected "
                "none. Write a file with --write-config and `serve deploy` it, or end the other "
                "with `serve shutdown`."
            )
        _check_room(plan, room)
        try:
            serve.start(**proxy_options(plan.options))
            deploy(plan)
            yield room
        finally:
            serve.shutdown()


def deploy(plan: Plan) -> None:
    """Run the application, or replace the one that runs; return when its replicas are ready.

    Ray replaces replicas one by one: the others answer meanwhile.

    Raises:
        ServeError: A replica does not start.
    """
    application = make_application(plan.settings.to_json(), plan.deployment)
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise ServeError(
            f"replicas: got {_reason(error)}, expected them to start. `serve status` says more."
        ) from error


def is_serving() -> bool:
    """Whether Ray Serve runs on the cluster already."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return any(actor["name"] == _CONTROLLER for actor in actors)


def _check_room(plan: Plan, room: Room) -> None:
    found = room.replicas(*plan.size)
    if found >= plan.least:
        return
    cpus, gpus = plan.size
    text = (
        f"cluster: got room for {found} replicas of {cpus:g} CPUs and {gpus:g} GPUs, expected "
        f"{plan.least}."
    )
    if plan.address is None:
        fewer = "--replicas, --cpus or --gpus" if gpus else "--replicas or --cpus"
        raise ServeError(f"{text} Take fewer {fewer}.")
    _LOG.warning("%s The rest waits until nodes with room join.", text)


def _reason(error: Exception) -> str:
    """What kept the replicas from starting: the error of the last one, else what Ray says."""
    application = serve.status().applications.get(APPLICATION)
    deployment = None if application is None else application.deployments.get(NAME)
    said = "" if deployment is None else deployment.message
    return replica_error(said) or " ".join(str(error).split())


def replica_error(message: str) -> str | None:
    """The error at the end of a replica's traceback, in a message of Ray's; None: there is none."""
    found = _ERROR_LINE.findall(message)
    return found[-1].strip().rstrip(".") if found else None
