"""``parnet-deploy serve --ray`` as a process: one cluster, its signals, and nothing left behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray
pytest.importorskip("ray", reason="needs Ray Serve: make test-ray")

from parnet_deploy.deployment import Deployment  # noqa: E402
from parnet_deploy.placement import one  # noqa: E402
from tests.runtime.runtime_toys import SPECS, fixed_size, make_plan  # noqa: E402
from tests.runtime.test_session import publish  # noqa: E402
from tests.serve.ray.cluster_toys import descendants, free_ports, is_of_ray  # noqa: E402

SPEC = SPECS[3]
LABELS = ("one", "two", "three", "four")


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    toy = make_plan(one(SPEC), fixed_size(SPEC), 4, threads=1)
    publish(tmp_path / "toy", {"cpu": (toy, None, "")})
    return tmp_path / "toy"


@pytest.fixture
def process(deployment: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The verb, ready, and its port."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "parnet_deploy", "serve", "--ray", str(deployment), "--json"]
    command += ["--no-grpc", "--port", str(port), "--drain-seconds", "5", "-v"]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    below: list[int] = []
    try:
        assert started.stdout is not None
        ready = next((line for line in started.stdout if line.startswith("{")), "")
        assert ready, started.stderr and started.stderr.read()
        said = json.loads(ready)
        assert said["url"] == f"http://127.0.0.1:{port}"
        assert (said["grpc"], said["models"], said["replicas"]) == (None, ["toy"], 1)
        yield started, port
    finally:
        below = descendants(started.pid)
        started.kill()
        started.communicate()
        for pid in below:
            if is_of_ray(pid):
                os.kill(pid, signal.SIGKILL)


def card(port: int) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/card")
    (found,) = json.loads(connection.getresponse().read())["models"]
    connection.close()
    return found


def test_it_takes_what_changed_and_ends_in_peace(
    process: tuple[subprocess.Popen[str], int], deployment: Path
) -> None:
    started, port = process
    assert card(port)["labels"] is None
    with Deployment.edit(deployment) as txn:
        txn.describe(labels=LABELS)
    started.send_signal(signal.SIGHUP)
    assert started.stderr is not None
    assert any("the deployments of now answer" in line for line in started.stderr)
    assert card(port)["labels"] == list(LABELS)

    below = [pid for pid in descendants(started.pid) if is_of_ray(pid)]
    assert below
    started.send_signal(signal.SIGTERM)
    started.communicate()
    assert started.returncode == 0
    assert [pid for pid in below if is_of_ray(pid)] == []
