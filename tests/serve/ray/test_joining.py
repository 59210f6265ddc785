"""A cluster started or joined: its token, its room, and what becomes of errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
pytest.importorskip("ray", reason="needs Ray Serve: make test-ray")

import grpc  # noqa: E402
import ray  # noqa: E402
from ray.serve.schema import ServeDeploySchema  # noqa: E402

from parnet_deploy.errors import ServeError  # noqa: E402
from parnet_deploy.placement import one  # noqa: E402
from parnet_deploy.serve.ray import serving  # noqa: E402
from parnet_deploy.serve.ray.application import build, make_application  # noqa: E402
from parnet_deploy.serve.ray.cluster import Room, is_open, joined_cluster  # noqa: E402
from parnet_deploy.serve.ray.config import config_file, deployment_options  # noqa: E402
from parnet_deploy.serve.ray.need import ModelNeed, Need, find_need  # noqa: E402
from parnet_deploy.serve.ray.options import ScaleOptions  # noqa: E402
from parnet_deploy.serve.ray.serving import Plan, served  # noqa: E402
from parnet_deploy.serve.ray.settings import ModelSettings, ReplicaSettings  # noqa: E402
from parnet_deploy.serve.server.options import ServerOptions  # noqa: E402
from tests.runtime.runtime_toys import SPECS, fixed_size, make_plan  # noqa: E402
from tests.runtime.test_session import publish  # noqa: E402
from tests.serve.ray.cluster_toys import descendants, free_ports, is_of_ray  # noqa: E402

SPEC = SPECS[3]
SMALL: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100_000_000}


@contextmanager
def answering(code: grpc.StatusCode) -> Iterator[str]:
    """A server that answers every call in the same way; its address."""

    def answer(content: bytes, context: Any) -> bytes:
        if code is not grpc.StatusCode.OK:
            context.abort(code, "as the test wants it")
        return b""

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(answer)

    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads, handlers=(Handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("code", "found"),
    [("OK", True), ("INVALID_ARGUMENT", True), ("UNIMPLEMENTED", True), ("UNAUTHENTICATED", False)],
)
def test_open_is_what_answers_without_a_token(code: str, found: bool) -> None:
    with answering(getattr(grpc.StatusCode, code)) as address:
        assert is_open(address) is found


def test_a_real_cluster_without_tokens_is_open() -> None:
    code = (
        "import os; os.environ['RAY_AUTH_MODE'] = 'disabled'\n"
        "import ray\n"
        "from parnet_deploy.serve.ray.cluster import is_open\n"
        "context = ray.init('local', include_dashboard=False, configure_logging=False,"
        " log_to_driver=False, num_cpus=1, object_store_memory=100_000_000)\n"
        "try: print('open:', is_open(context.address_info['gcs_address']))\n"
        "finally: ray.shutdown()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "open: True" in done.stdout


def test_one_that_is_started_here_is_closed_and_ends_with_the_block() -> None:
    with joined_cluster(None, insecure=False, **SMALL) as room:
        assert room.nodes == ((1.0, 0.0),)
        assert not is_open(ray.get_runtime_context().gcs_address)
    assert not ray.is_initialized()


def test_ray_is_not_told_to_go_without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with (
        pytest.raises(ServeError, match="RAY_AUTH_MODE: got disabled, expected token"),
        joined_cluster(None, insecure=False, **SMALL),
    ):
        pytest.fail("it was joined")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "127.0.0.1:999999"])
def test_what_is_not_there(address: str) -> None:
    with (
        pytest.raises(ServeError, match=f"Ray cluster {address}: got .*expected to connect"),
        joined_cluster(address, insecure=False),
    ):
        pytest.fail("it was joined")


def test_tokens_are_in_force_after_ray_was_imported_without() -> None:
    code = (
        "import os; os.environ.pop('RAY_AUTH_MODE', None)\n"
        "import ray\n"
        "from parnet_deploy.serve.ray.cluster import is_open, joined_cluster\n"
        "with joined_cluster(None, insecure=False, num_cpus=1, num_gpus=0,"
        " object_store_memory=100_000_000):\n"
        "    print('open:', is_open(ray.get_runtime_context().gcs_address))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "open: False" in done.stdout, done.stderr


def test_a_head_that_does_not_start_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logs = tmp_path / "session_1" / "logs"
    logs.mkdir(parents=True)
    (logs / "gcs_server.err").write_text(
        "[2026-11-25 04:45:00,396 C 7747 7747] (gcs_server) loader.cc:115:  no token\n*** Stack\n"
    )

    def fail(**_: Any) -> None:
        raise TimeoutError(f"Timed out waiting for file {tmp_path}/session_1/port")

    monkeypatch.setattr(ray, "init", fail)
    with (
        pytest.raises(ServeError, match=rf"\(gcs_server: no token\).*See {logs}\."),
        joined_cluster(None, insecure=False, **SMALL),
    ):
        pytest.fail("it was started")


def test_room() -> None:
    room = Room(nodes=((4.0, 2.0), (16.0, 1.0), (3.0, 0.0)))
    assert room.replicas(2, 1) == 3
    assert room.replicas(4, 0) == 5
    assert room.replicas(1, 2) == 1
    assert room.replicas(32, 0) == 0


def need(cpus: int = 1, gpus: int = 0) -> Need:
    model = ModelNeed(
        path=None, plan="cpu", digest="", backend="onnxruntime", gpus=0, threads=1, max_batch=4
    )
    return Need(models=(model,), cpus=cpus, gpus=gpus, threads=1)


SETTINGS = ReplicaSettings(models=(ModelSettings(path="/nowhere/toy", plan="cpu"),))


@pytest.mark.parametrize("scale", [ScaleOptions(replicas=2), ScaleOptions(max_replicas=3)])
def test_ray_takes_what_it_is_told(scale: ScaleOptions) -> None:
    yaml = pytest.importorskip("yaml")
    options = deployment_options(scale, need(), SETTINGS)
    make_application(SETTINGS.to_json(), options)
    text = config_file(ServerOptions(insecure=True), SETTINGS, options)
    found = ServeDeploySchema.model_validate(yaml.safe_load(text))
    (application,) = found.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    build(application.args)


def plan_of(settings: ReplicaSettings, **scale: int) -> Plan:
    return Plan(
        settings=settings,
        deployment=deployment_options(ScaleOptions(), need(**scale), settings),
        options=ServerOptions(port=free_ports(1)[0], grpc_port=None),
    )


@pytest.mark.parametrize(
    ("scale", "step"),
    [
        ({"cpus": 9}, "9 CPUs and 0 GPUs, expected 1. Take fewer --replicas or --cpus."),
        ({"gpus": 1}, "1 CPUs and 1 GPUs, expected 1. Take fewer --replicas, --cpus or --gpus."),
    ],
)
def test_no_room(scale: dict[str, int], step: str) -> None:
    with (
        pytest.raises(ServeError, match=f"got room for 0 replicas of {step}"),
        served(plan_of(SETTINGS, **scale), **SMALL),
    ):
        pytest.fail("it was served")


def test_no_room_for_gpus_names_the_option() -> None:
    plan = plan_of(SETTINGS)
    plan.deployment["ray_actor_options"]["num_gpus"] = 1
    with pytest.raises(ServeError, match=r"1 GPUs, expected 1\. Take fewer .* or --gpus"):
        serving._check_room(plan, Room(nodes=((4.0, 0.0),)))


def test_a_replica_that_would_answer_otherwise_does_not_start(tmp_path: Any) -> None:
    toy = make_plan(one(SPEC), fixed_size(SPEC), 4, threads=1)
    publish(tmp_path / "toy", {"cpu": (toy, None, "")})
    (model,) = find_need([tmp_path / "toy"], ScaleOptions()).models
    found = ModelSettings(path=str(model.path), plan=model.plan, digest="0" * 64)
    with (
        pytest.raises(ServeError, match=f"got digest {model.digest}, expected 0000"),
        served(plan_of(ReplicaSettings(models=(found,))), **SMALL),
    ):
        pytest.fail("it was served")
    assert [pid for pid in descendants(os.getpid()) if is_of_ray(pid)] == []
