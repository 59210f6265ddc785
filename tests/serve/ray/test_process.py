"""``parnet-deploy serve --ray`` as a process: one cluster, its signals, and nothing left behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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


@contextmanager
def started_verb(
    deployment: Path, *, options: Sequence[str] = (), **more: Any
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The verb, ready, and its port; no process of it is left in the end."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "parnet_deploy", "serve", "--ray", str(deployment), "--json"]
    command += ["--no-grpc", "--port", str(port), "--drain-seconds", "5", *options]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", **more
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


@pytest.fixture
def process(deployment: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """One where a request may wait, and for a while."""
    options = ("-v", "--max-queue", "1", "--max-delay-ms", "1000")
    with started_verb(deployment, options=options) as found:
        yield found


def ask_at_once(port: int, count: int) -> list[tuple[int, Any, str | None]]:
    """Status, what kind of content, and Retry-After of requests sent at the same time."""
    side = SPEC.size_multiple
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 3, side, side]}
    data = [0.5] * (3 * side * side)
    body = json.dumps({"inputs": [{**tensor, "data": data}]}).encode()
    together = threading.Barrier(count)

    def ask(_: int) -> tuple[int, Any, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        together.wait()
        connection.request("POST", "/v2/models/toy/infer", body)
        response = connection.getresponse()
        (kind,) = set(json.loads(response.read())) & {"outputs", "error"}
        connection.close()
        return response.status, kind, response.headers["Retry-After"]

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(ask, range(count)))


def card(port: int) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/card")
    (found,) = json.loads(connection.getresponse().read())["models"]
    connection.close()
    return found


def test_it_takes_what_changed_refuses_in_json_and_ends_in_peace(
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

    answers = ask_at_once(port, 24)
    assert {(status, kind) for status, kind, _ in answers} == {(200, "outputs"), (503, "error")}
    assert all(int(after or 0) >= 1 for status, _, after in answers if status == 503)

    below = [pid for pid in descendants(started.pid) if is_of_ray(pid)]
    assert below
    started.send_signal(signal.SIGTERM)
    started.communicate()
    assert started.returncode == 0
    assert [pid for pid in below if is_of_ray(pid)] == []


def test_it_starts_where_nothing_is_set_and_makes_a_token_for_its_owner_alone(
    deployment: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with started_verb(deployment, env={**kept, "HOME": str(home)}, umask=0o022) as (started, port):
        ((status, kind, _),) = ask_at_once(port, 1)
        assert (status, kind) == (200, "outputs")
        token = home / ".ray" / "auth_token"
        assert len(token.read_text()) == 64
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        started.send_signal(signal.SIGTERM)
        _, said = started.communicate()
    assert started.returncode == 0
    assert said.startswith("starting a Ray cluster")


def test_a_signal_to_the_whole_process_group_stops_it_as_one_to_the_process_does(
    deployment: Path,
) -> None:
    with started_verb(deployment, process_group=0) as (started, _):
        below = [pid for pid in descendants(started.pid) if is_of_ray(pid)]
        assert below
        assert started.pid not in {os.getpgid(pid) for pid in below}
        started.send_signal(signal.SIGTERM)  # as GNU timeout does it
        os.killpg(started.pid, signal.SIGTERM)
        more, said = started.communicate()
    assert (started.returncode, more) == (0, "")
    last = said.splitlines()[-1]
    assert last == "stopped", said
    assert [pid for pid in below if is_of_ray(pid)] == []
