"""The Ray Serve application: the replica's class, bound to its settings."""

from __future__ import annotations

from typing import Any

from ray import serve

from .config import NAME
from .replica import Replica
from .settings import ReplicaSettings


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
