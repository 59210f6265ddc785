"""A cluster of two nodes on this machine: what the wires say through Ray, and what a loss costs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.ray,
    # Ray's own, and what its processes leave to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
pytest.importorskip("ray", reason="needs Ray Serve: make test-ray")

import grpc  # noqa: E402
import ray  # noqa: E402

from parnet_deploy.placement import one  # noqa: E402
from parnet_deploy.serve.protocol import messages  # noqa: E402
from parnet_deploy.serve.ray.cluster import is_open  # noqa: E402
from parnet_deploy.serve.ray.config import deployment_options  # noqa: E402
from parnet_deploy.serve.ray.need import find_need  # noqa: E402
from parnet_deploy.serve.ray.options import ScaleOptions  # noqa: E402
from parnet_deploy.serve.ray.serving import Plan, deploy, served  # noqa: E402
from parnet_deploy.serve.ray.settings import ModelSettings, ReplicaSettings  # noqa: E402
from parnet_deploy.serve.security.token import Token  # noqa: E402
from parnet_deploy.serve.server.options import ServerOptions  # noqa: E402
from tests.examples.load import load_example  # noqa: E402
from tests.runtime.runtime_toys import SPECS, fixed_size, images, make_plan, reference  # noqa: E402
from tests.runtime.test_session import canary_of, publish  # noqa: E402
from tests.serve.ray.cluster_toys import (  # noqa: E402
    free_ports,
    replica_pids,
    started_cluster,
)

retry = load_example("clients/retry.py")

SPEC = SPECS[3]
SIZE = fixed_size(SPEC)
SECRET = "s" * 32
HOST = "127.0.0.1"


@dataclass
class Running:
    """The cluster that the tests share, and where it answers."""

    cluster: Any
    plan: Plan
    second: Any

    @property
    def ports(self) -> tuple[int, int]:
        options = self.plan.options
        assert options.port is not None
        assert options.grpc_port is not None
        return options.port, options.grpc_port


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two replicas, each of which takes up all that a node has."""
    folder = tmp_path_factory.mktemp("ray")
    x = images(SPEC, 2)
    toy = make_plan(one(SPEC), SIZE, 4, threads=1, made={"tolerance": 1e-4})
    publish(folder / "toy", {"cpu": (toy, None, "")}, canary=canary_of(x, reference(SPEC, x)))
    token_file = folder / "token"
    token_file.touch(0o600)
    token_file.write_text(SECRET)
    scale = ScaleOptions(replicas=2, cpus=2, gpus=2)
    need = find_need([folder / "toy"], scale)
    (model,) = need.models
    settings = ReplicaSettings(
        models=(ModelSettings(path=str(model.path), plan=model.plan, digest=model.digest),),
        threads=1,
        token_file=str(token_file),
        need_token=True,
    )
    port, grpc_port = free_ports(2)
    with started_cluster(2) as cluster:
        plan = Plan(
            settings=settings,
            deployment=deployment_options(scale, need, settings),
            options=ServerOptions(port=port, grpc_port=grpc_port, token=Token(SECRET)),
            address=cluster.address,
        )
        with served(plan):
            second = next(node for node in cluster.list_all_nodes() if not node.head)
            yield Running(cluster=cluster, plan=plan, second=second)


def ask(running: Running, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
    """Status, headers, and the JSON."""
    connection = http.client.HTTPConnection(HOST, running.ports[0], timeout=60)
    connection.request(method, path, body, {"Authorization": f"Bearer {SECRET}", **headers})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, json.loads(content) if content else None


def call(running: Running, rpc: str, request: Any, secret: str = SECRET) -> Any:
    """The answer, or the error."""
    with grpc.insecure_channel(f"{HOST}:{running.ports[1]}") as channel:
        stub = channel.unary_unary(
            f"/{messages.SERVICE}/{rpc}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages.response_class(rpc).FromString,
        )
        try:
            return stub(request, timeout=60, metadata=[("authorization", f"Bearer {secret}")])
        except grpc.RpcError as error:
            return error


def test_a_replica_has_all_its_gpus_and_cores_on_one_node(running: Running) -> None:
    left = ray.available_resources()
    assert (left.get("GPU", 0.0), left.get("CPU", 0.0)) == (0.0, 0.0)


class TestWires:
    def test_the_cluster_refuses_one_without_its_token(self, running: Running) -> None:
        assert not is_open(running.cluster.address)

    def test_documents_are_the_same_on_both(self, running: Running) -> None:
        status, headers, found = ask(running, "GET", "/v2/models/toy")
        assert status == 200
        assert headers["x-parnet-replica"]
        answer = call(running, "ModelMetadata", messages.ModelMetadataRequest(name="toy"))
        assert [list(tensor.shape) for tensor in answer.outputs] == [[-1, SPEC.num_classes]]
        assert found["outputs"] == [
            {"name": "logits", "datatype": "FP32", "shape": [-1, SPEC.num_classes]}
        ]
        assert ask(running, "GET", "/v2/health/ready")[0] == 200
        assert call(running, "ServerReady", messages.ServerReadyRequest()).ready

    def test_values_are_the_same_on_both_and_right(self, running: Running) -> None:
        x = images(SPEC, 3, seed=5)
        for client in clients(running):
            np.testing.assert_allclose(
                retry.retrying(lambda c=client: c.infer(x)),
                reference(SPEC, x),
                rtol=1e-5,
                atol=1e-6,
            )
            client.close()

    def test_refusals_keep_their_classes_and_words(self, running: Running) -> None:
        status, headers, found = ask(running, "GET", "/v2/models/other")
        assert status == 404
        assert "other" in found["error"]
        assert len(headers.get_all("x-request-id")) == 1
        error = call(running, "ModelMetadata", messages.ModelMetadataRequest(name="other"))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert "other" in error.details()
        assert ask(running, "POST", "/v2/models/toy/infer", b"{")[0] == 400
        assert ask(running, "PUT", "/v2")[0] == 405
        error = call(running, "ModelInfer", messages.ModelInferRequest(model_name="toy"))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT

    def test_what_is_not_offered_says_so(self, running: Running) -> None:
        error = call(running, "TraceSetting", messages.request_class("TraceSetting")())
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "not offered" in error.details()

    def test_nothing_without_the_token(self, running: Running) -> None:
        status, headers, found = ask(running, "GET", "/v2", Authorization="Bearer wrong")
        assert (status, headers["www-authenticate"] is not None) == (401, True)
        assert found["error"]
        error = call(running, "ServerMetadata", messages.ServerMetadataRequest(), secret="wrong")
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED

    def test_a_stream(self, running: Running) -> None:
        x = images(SPEC, 1, seed=9)
        requests = []
        for i, model in enumerate(("toy", "other", "toy")):
            message = messages.ModelInferRequest(model_name=model, id=str(i))
            message.inputs.add(name="image", datatype="FP32", shape=x.shape)
            message.raw_input_contents.append((x * i).tobytes())
            requests.append(message)
        with grpc.insecure_channel(f"{HOST}:{running.ports[1]}") as channel:
            stub = channel.stream_stream(
                f"/{messages.SERVICE}/ModelStreamInfer",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=messages.ModelStreamInferResponse.FromString,
            )
            metadata = [("authorization", f"Bearer {SECRET}")]
            answers = list(stub(iter(requests), timeout=60, metadata=metadata))
        assert [answer.infer_response.id for answer in answers] == ["0", "1", "2"]
        assert [bool(answer.error_message) for answer in answers] == [False, True, False]
        logits = np.frombuffer(answers[2].infer_response.raw_output_contents[0], "<f4")
        np.testing.assert_allclose(logits, reference(SPEC, x * 2)[0], rtol=1e-5, atol=1e-6)


def clients(running: Running) -> list[Any]:
    """One of each wire."""
    rest, rpc = running.ports
    return [
        retry.RestClient(HOST, rest, "toy", SECRET),
        retry.GrpcClient(HOST, rpc, "toy", SECRET),
    ]


@dataclass
class Load:
    """Four clients, two of each wire, that ask and ask again until they are told to stop."""

    running: Running
    stopping: threading.Event = field(default_factory=threading.Event)
    answered: int = 0
    asked_again: int = 0
    wrong: list[str] = field(default_factory=list)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=50))  # who answered REST
    _progress: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Load:
        found = [*clients(self.running), *clients(self.running)]
        self._threads = [
            threading.Thread(target=self._run, args=(i, client)) for i, client in enumerate(found)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def until(self, condition: Any, what: str) -> None:
        """Wait for more answers until a condition holds."""
        with self._progress:
            assert self._progress.wait_for(condition, timeout=120), f"never came: {what}"

    @property
    def replicas(self) -> set[str]:
        """Who gave the last answers."""
        return set(self.recent)

    def more(self, count: int) -> None:
        """Wait for so many more answers."""
        target = self.answered + count
        self.until(lambda: self.answered >= target, f"{count} more answers")

    def _run(self, number: int, client: Any) -> None:
        seed = 1000 * number
        while not self.stopping.is_set():
            seed += 1
            x = images(SPEC, 1 + seed % 3, seed=seed)
            try:
                logits = retry.retrying(lambda x=x: self._ask(client, x), attempts=12)
            except Exception as error:
                self.wrong.append(f"request {seed}: {error!r}")
                break
            close = np.allclose(logits, reference(SPEC, x), rtol=1e-5, atol=1e-6)
            with self._progress:
                self.answered += 1
                if not close:
                    self.wrong.append(f"request {seed}: other values")
                if getattr(client, "replica", ""):
                    self.recent.append(client.replica)
                self._progress.notify_all()
        client.close()

    def _ask(self, client: Any, x: Any) -> Any:
        try:
            return client.infer(x)
        except retry.AgainError:
            self.asked_again += 1
            raise


def show(what: str, load: Load) -> None:
    """How it went so far, for -s or -rP."""
    print(f"after the {what}: {load.answered} answered, {load.asked_again} times asked again")


def test_no_retried_request_is_lost_by_an_update_a_kill_or_the_loss_of_a_node(
    running: Running,
) -> None:
    with Load(running) as load:
        load.until(lambda: len(load.replicas) == 2, "answers of both replicas")

        before = load.replicas
        # Waiting for a batch makes it likely that a replica is lost with requests in it.
        settings = replace(running.plan.settings, max_delay_ms=50.0)
        deploy(replace(running.plan, settings=settings))
        load.until(
            lambda: len(load.replicas) == 2 and not load.replicas & before,
            "answers of both new replicas alone",
        )
        show("update", load)

        before = load.replicas
        killed, *_ = replica_pids()
        os.kill(killed, signal.SIGKILL)
        load.until(lambda: load.replicas - before, "answers of the replica that Ray started")
        show("kill", load)

        running.cluster.remove_node(running.second, allow_graceful=False)
        load.more(100)
        load.until(lambda: len(load.replicas) == 1, "answers of the one that is left alone")
        show("node", load)
    assert load.wrong == []
    assert killed not in replica_pids()
