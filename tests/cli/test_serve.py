"""The verb serve, as a process: what it prints, answers, logs, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parnet_deploy.preprocess import Preprocessing
from parnet_deploy.serve.server import process as serving
from tests.serve.security.certificates import make_authority, make_certificate
from tests.serve.service_toys import SIDE, publish
from tests.serve.wire import HANG_S

REPOSITORY = Path(__file__).parents[2]
SECRET = "correct-horse-battery"

Start = Callable[..., "Served"]


class Served:
    """A running ``parnet-deploy serve --json`` and what it said when it was ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        self.ready: dict[str, Any] = json.loads(line)

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        request = urllib.request.Request(self.ready["url"] + path, headers=headers)
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def post(self, path: str, document: Any) -> Any:
        data = json.dumps(document).encode()
        request = urllib.request.Request(self.ready["url"] + path, data=data)
        with urllib.request.urlopen(request) as reply:
            return json.loads(reply.read())

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and everything on stderr."""
        self.process.send_signal(number)
        rest, errors = self.process.communicate()
        assert rest == ""
        return self.process.returncode, errors


@pytest.fixture
def start(workplace: Path) -> Iterator[Start]:
    """Start a server on free ports; it is killed if the test leaves it running."""
    running: list[subprocess.Popen[str]] = []

    def run(*options: object, **environment: str) -> Served:
        command = [sys.executable, "-m", "parnet_deploy", "serve", "--json", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--grpc-port", "0", "--threads", "1", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | environment,
        )
        running.append(process)
        return Served(process)

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def refuse(*options: object) -> subprocess.CompletedProcess[str]:
    """Start a server that must not start; one that does is killed, and fails the test."""
    command = [sys.executable, "-m", "parnet_deploy", "serve", *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=HANG_S
    )


@pytest.fixture
def toy(workplace: Path) -> Path:
    """engines/toy, with one plan."""
    return publish(workplace / "engines" / "toy")


def test_what_watches_engines_reaches_the_models(toy, invoke, monkeypatch) -> None:
    made = []

    def serve(make_server, **_: Any) -> bool:
        made.append(make_server())
        return True

    monkeypatch.setattr(serving, "serve_until_stopped", serve)
    options = ["--engine-timeout-ms", "1500", "--prove-every", "5", "--check-finite"]
    for more in ([], options):
        assert invoke("serve", "--port", "0", "--grpc-port", "0", *more).exit_code == 0
    found = [(s._models[0], s.service.options.prove_every_s) for s in made]
    assert [(m.timeout_s, m.check_finite, every_s) for m, every_s in found] == [
        (None, False, 0.0),
        (1.5, True, 5.0),
    ]


def test_it_serves_the_only_deployment_until_sigterm(toy: Path, start: Start) -> None:
    served = start()
    assert set(served.ready) == {"url", "grpc", "metrics", "pid", "models", "warnings"}
    assert served.ready["models"] == ["toy"]
    assert served.ready["pid"] == served.process.pid
    assert served.ready["grpc"].startswith("127.0.0.1:")
    assert served.get("/v2/health/ready") == (200, {"ready": True})
    tensor = {"name": "image", "shape": [1, 3, SIDE, SIDE], "datatype": "FP32"}
    tensor["data"] = [0.5] * (3 * SIDE * SIDE)
    answer = served.post("/v2/models/toy/infer", {"inputs": [tensor]})
    assert answer["outputs"][0]["shape"] == [1, 4]
    assert served.get("/card")[1]["models"][0]["name"] == "toy"
    code, errors = served.stop()
    assert code == 0
    assert errors.splitlines()[0] == "using toy: the only deployment in engines"
    assert errors.splitlines()[-1] == "stopped"


def test_images_that_it_cannot_take_are_warned_of(workplace: Path, start: Start) -> None:
    wrong = Preprocessing(height=2 * SIDE, width=SIDE)
    publish(workplace / "engines" / "toy", preprocessing=wrong)
    served = start("--no-grpc")
    assert any("takes tensors, not images: its prep" in text for text in served.ready["warnings"])
    assert "takes tensors, not images: its prep" in served.stop()[1]


def test_sigint_ends_it_too_and_one_wire_is_enough(toy: Path, start: Start) -> None:
    served = start("--no-grpc")
    assert served.ready["grpc"] is None
    assert served.stop(signal.SIGINT)[0] == 0
    served = start("--no-rest", "--metrics-port", "0", "-q")
    assert served.ready["url"] is None
    with urllib.request.urlopen(served.ready["metrics"]) as reply:
        assert b"parnet_serve_ready" in reply.read()
    assert served.stop() == (0, "")


def test_several_deployments_and_json_logs(toy: Path, workplace: Path, start: Start) -> None:
    publish(workplace / "engines" / "other")
    served = start("toy", "other", "--log-format", "json", "-v")
    assert served.ready["models"] == ["toy", "other"]
    assert served.get("/v2/models/other/ready")[0] == 200
    assert served.get("/v2/models/none", **{"X-Request-ID": "mine"})[0] == 404
    errors = served.stop()[1]
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    (refused,) = [line for line in lines if line.get("id") == "mine"]
    assert refused["level"] == "warning"
    assert (refused["wire"], refused["status"]) == ("rest", "not-found")
    assert refused["what"] == "GET /v2/models/none"
    assert [line for line in lines if line.get("what") == "GET /v2/models/other/ready"]


def test_the_token_of_a_file_or_the_environment(toy: Path, workplace: Path, start: Start) -> None:
    file = workplace / "token"
    file.write_text(SECRET)
    file.chmod(0o644)
    for served in (start("--token-file", file), start(PARNET_DEPLOY_TOKEN=SECRET)):
        assert served.get("/v2")[0] == 401
        assert served.get("/v2", Authorization=f"Bearer {SECRET}")[0] == 200
        assert served.get("/v2/health/ready")[0] == 200
        said = "chmod 600" in " ".join(served.ready["warnings"])
        code, errors = served.stop()
        assert (code, SECRET in errors) == (0, False)
        assert said == ("chmod 600" in errors)


def test_grpc_itself_writes_nothing(toy: Path, workplace: Path, start: Start) -> None:
    make_certificate(workplace, "server", make_authority(workplace, "ours"))
    served = start("--tls-cert", "server.pem", "--tls-key", "server.key")
    port = int(served.ready["grpc"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.sendall(b"no TLS at all" * 10)
        while plain.recv(1000):
            pass
    code, errors = served.stop()
    assert code == 0
    assert "handshak" not in errors.lower()


def test_sighup_takes_a_changed_deployment(toy: Path, start: Start) -> None:
    served = start("--watch", "1000")
    before = served.get("/card")[1]["models"][0]
    publish(toy, labels=("one", "two", "three", "four"))
    served.process.send_signal(signal.SIGHUP)
    card = before
    while card["digest"] == before["digest"]:
        card = served.get("/card")[1]["models"][0]
    assert card["labels"] == ["one", "two", "three", "four"]
    code, errors = served.stop()
    assert code == 0
    assert "toy: the deployment of now answers" in errors


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--host", "0.0.0.0"], 1, "neither a token nor TLS"),
        (["--host", "no.such.host.invalid"], 1, "got a name that is not known"),
        (["--host", "192.0.2.1", "--insecure"], 1, "host 192.0.2.1: got Cannot assign"),
        (["--port", "7000", "--grpc-port", "7000"], 1, "expected different ones"),
        (["--no-rest", "--no-grpc"], 1, "neither REST nor gRPC"),
        (["--token-file", "none"], 1, "token file none: got No such file"),
        (["--tls-cert", "cert.pem"], 2, "TLS needs --tls-cert and --tls-key"),
        (["--tls-client-ca", "ca.pem"], 2, "TLS needs --tls-cert and --tls-key"),
        (
            ["--tls-cert", "cert.pem", "--tls-key", "key.pem"],
            1,
            "certificate cert.pem: got No such",
        ),
        (["--plan", "none"], 1, "got only (onnxruntime), expected plan none. Take one of those"),
        (["--backend", "onnx"], 1, "error: backend: got 'onnx', expected one of"),
        (["./engines/toy", "./other/toy"], 1, "engines/toy and other/toy, both named toy"),
        (["--backend", "tensorrt", "--plan", "only"], 1, "only"),
        (["nothing"], 1, "nothing"),
        (["toy", "toy"], 1, "got engines/toy twice"),
        (["--port", "-1"], 2, "--port"),
    ],
)
def test_what_cannot_start_says_why(toy: Path, options, code, message) -> None:
    publish(toy.parent.parent / "other" / "toy")
    done = refuse("--port", "0", "--grpc-port", "0", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    if code == 1:
        assert sum(line.startswith("error:") for line in done.stderr.splitlines()) == 1


def test_a_port_in_use_is_named(toy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for wires in (("--port", port, "--no-grpc"), ("--grpc-port", port, "--no-rest")):
            done = refuse(*wires)
            assert done.returncode == 1
            assert str(port) in done.stderr
            assert "0 for any" in " ".join(done.stderr.split())


def test_for_people_it_says_what_to_type_next(toy: Path, workplace: Path) -> None:
    file = workplace / "token"
    file.touch(0o600)
    file.write_text(SECRET)
    command = [sys.executable, "-m", "parnet_deploy", "serve", "--port", "0", "--no-grpc"]
    command += ["--host", "0.0.0.0", "--token-file", "token"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "curl" in line:
                break
        step = lines[-1].removeprefix("next").strip()
        asked = subprocess.run(["sh", "-c", step], capture_output=True, text=True, check=False)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate()[1]
    assert (errors + "".join(lines)).count("no TLS") == 1
    if shutil.which("curl") is not None:
        assert json.loads(asked.stdout)["name"] == "toy"
    text = "".join(lines)
    assert lines[0].split() == ["serving", "toy"]
    assert "REST     http://0.0.0.0:" in text
    assert "onnxruntime, plan only, fp32" in text
    assert step.startswith('curl -H "Authorization: Bearer $(cat token)" http://127.0.0.1:')
    assert process.returncode == 0


def test_missing_engines_are_built_first(place_deployment, start: Start) -> None:
    place_deployment("exported")
    served = start()
    assert served.get("/v2/models/digits/ready")[0] == 200
    assert "no engines yet: running build first" in served.stop()[1]
