"""A Ray cluster of several nodes on this machine, small, and what can be done to it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

SMALL: dict[str, Any] = {
    "num_cpus": 2,
    "num_gpus": 2,  # Ray takes our word for them
    "object_store_memory": 100_000_000,
    "include_dashboard": False,
}
REPLICA = "ray::ServeReplica"


@contextmanager
def started_cluster(nodes: int) -> Iterator[Cluster]:
    """Nodes with two logical CPUs each; when the block ends, no process of theirs is left."""
    cluster = Cluster(initialize_head=True, head_node_args=SMALL)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**SMALL)
        yield cluster
    finally:
        started = descendants(os.getpid())
        ray.shutdown()
        cluster.shutdown()
        for pid in started:  # what cluster.shutdown has missed
            if is_of_ray(pid):
                os.kill(pid, signal.SIGKILL)


def replica_pids() -> list[int]:
    """Processes of replicas below this one."""
    return [pid for pid in descendants(os.getpid()) if command(pid).startswith(REPLICA)]


def is_of_ray(pid: int) -> bool:
    """Whether a process still runs and is one of Ray's."""
    return "ray" in command(pid) and state(pid) != "Z"


def command(pid: int) -> str:
    """Command line of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def state(pid: int) -> str:
    """State of a process as ps shows it; empty if it is gone."""
    return _stat(pid)[0]


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    parents = {int(p.name): _stat(int(p.name))[1] for p in Path("/proc").glob("[0-9]*")}
    found, newest = [], {pid}
    while newest:
        newest = {child for child, parent in parents.items() if parent in newest}
        found += sorted(newest)
    return found


def _stat(pid: int) -> tuple[str, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
