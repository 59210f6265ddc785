"""What of Ray's insides is replaced while a cluster is used: it has no option for these."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import services, worker

_LOG = logging.getLogger(__name__)
_OF_EVERY_STOP = "ServeController.graceful_shutdown"  # the controller ends itself by being killed


@contextmanager
def groups_of_their_own() -> Iterator[None]:
    """Keep Ctrl-C, and what else goes to a process group, from the processes that Ray starts now.

    They would end before the application is taken down through them.
    """
    popen = services.ConsolePopen
    services.ConsolePopen = functools.partial(popen, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = popen


@contextmanager
def errors_in_the_log() -> Iterator[None]:
    """Have the cluster's errors in the log: Ray prints them, in colour, where the result goes."""
    printed = worker.print_to_stdstream
    worker.print_to_stdstream = _log
    try:
        yield
    finally:
        worker.print_to_stdstream = printed


def _log(data: dict[str, Any], ignore_prefix: bool) -> None:
    for line in data["lines"]:
        if _OF_EVERY_STOP not in line:
            _LOG.warning("Ray: %s", line.strip())
