"""A process that keeps the application on the cluster: signals, and how it ends."""

from __future__ import annotations

import logging
import queue
import signal
import time
from collections.abc import Callable
from typing import Any

from ...errors import ParnetDeployError
from .serving import Plan, deploy, served

_LOG = logging.getLogger(__name__)
_STOP = (signal.SIGTERM, signal.SIGINT)
_REPEAT_S = 0.5  # GNU timeout signals a process and then its group, and means it once


def serve_until_stopped(
    make_plan: Callable[[], Plan], *, on_ready: Callable[[Plan], None], **more: Any
) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends it at once.

    SIGHUP makes the plan anew and deploys it if it is another one, as after a deployment was
    changed on disk: Ray replaces the replicas one by one, and no request is lost. To be called in
    the main thread.

    Args:
        make_plan: What to run, from what is on disk now.
        on_ready: Called when the replicas answer.
        more: For ``ray.init``.

    Returns: Whether it had time to drain.

    Raises:
        ParnetDeployError: It cannot start.
    """
    plan = make_plan()
    try:
        with served(plan, **more):
            signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put may interrupt its get
            for number in (*_STOP, signal.SIGHUP):
                signal.signal(number, lambda found, _: signals.put(found))
            on_ready(plan)
            while signals.get() == signal.SIGHUP:
                plan = _replace(plan, make_plan)
            _LOG.info("stopping: no new requests; another signal ends it at once")
            for number in _STOP:
                signal.signal(number, _at_once_from(time.monotonic() + _REPEAT_S))
    except KeyboardInterrupt:
        return False
    return True


def _at_once_from(start: float) -> Callable[..., None]:
    """A handler that ends the process from this time on."""

    def at_once(*_: object) -> None:
        if time.monotonic() >= start:
            raise KeyboardInterrupt

    return at_once


def _replace(plan: Plan, make_plan: Callable[[], Plan]) -> Plan:
    """The plan that runs now: another one, or the same if nothing changed or it does not start."""
    try:
        now = make_plan()
        if now == plan:
            _LOG.warning("reload: nothing has changed on disk; what was served goes on")
            return plan
        deploy(now)
    except ParnetDeployError as error:
        _LOG.error("reload: what was served goes on; %s", error)
        return plan
    _LOG.info("reload: the deployments of now answer")
    return now
