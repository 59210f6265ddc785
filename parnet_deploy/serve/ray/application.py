"""The Ray Serve application: the replica's class, its settings, and what Ray is told of both."""

from __future__ import annotations

from typing import Any

from ray import serve

from .need import Need
from .options import ScaleOptions
from .replica import NAME, Replica
from .settings import ReplicaSettings

_CONSTRUCTIONS = 3  # a replica that cannot open its models will not by the twentieth time
_HEALTH_PERIOD_S = 5.0


def build(args: dict[str, Any]) -> Any:
    """The application for ``serve deploy``, whose file has the deployment's options itself.

    Ray finds this function by ``config.IMPORT_PATH``.

    Args:
        args: ``ReplicaSettings`` as JSON.

    Raises:
        SpecError: They are no settings.
    """
    return make_application(args, {"name": NAME})


def make_application(args: dict[str, Any], options: dict[str, Any]) -> Any:
    """The application.

    Args:
        args: ``ReplicaSettings`` as JSON.
        options: ``deployment_options``.

    Raises:
        SpecError: They are no settings.
    """
    settings = ReplicaSettings.from_json(args)
    deployment = serve.deployment(**options)(serve.ingress()(Replica))
    return deployment.bind(settings.to_json())


def deployment_options(
    scale: ScaleOptions, need: Need, settings: ReplicaSettings
) -> dict[str, Any]:
    """What Ray is told of the replicas, in its own words.

    A replica refuses what is more than its queue holds, in the protocol's words. Ray lets twice as
    much through to it, so that this is how overload is answered; what is more waits in Ray's
    proxies, up to ``max_queue`` in each, and is then refused in Ray's words.
    """
    at_a_time = settings.max_queue + settings.slots * need.max_batch
    return {
        "name": NAME,
        **scale.to_ray(),
        "max_ongoing_requests": 2 * at_a_time,
        "max_queued_requests": max(1, settings.max_queue),
        "ray_actor_options": {"num_cpus": need.cpus, "num_gpus": need.gpus},
        "graceful_shutdown_timeout_s": settings.drain_s + 1.0,
        "health_check_period_s": _HEALTH_PERIOD_S,
        "max_constructor_retry_count": _CONSTRUCTIONS,
    }
