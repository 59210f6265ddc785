"""The verb serve with --ray: what is refused at once, and the file for a cluster."""

from __future__ import annotations

import importlib.util
import json
import re

import pytest

from parnet_deploy.serve.ray.settings import ReplicaSettings

SECRET = "s" * 32


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(SECRET)
    return path


@pytest.mark.parametrize(
    "options", [["--replicas", "2"], ["--gpus", "1"], ["--write-config", "x.yaml"]]
)
def test_options_of_a_cluster_need_one(built, invoke, options):
    result = invoke("serve", *options)
    assert result.exit_code == 2
    assert f"{options[0]} is for a Ray cluster. Add --ray." in result.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "gRPC: got no token, expected one"),
        (["--no-grpc", "--host", "0.0.0.0"], "neither a token nor TLS"),
        (["--no-grpc", "--port", "0"], "expected a number, the same on every node"),
        (["--no-grpc", "--replicas", "3", "--max-replicas", "2"], "expected 3 to"),
        (["--no-grpc", "--backend", "tensorrt"], "expected plan onnxruntime-fp32-one backend tens"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_started(
    built, invoke, workplace, options, reason
):
    plan = ("--plan", "onnxruntime-fp32-one")
    result = invoke("serve", "--ray", "--write-config", "x.yaml", *plan, *options)
    assert result.exit_code == 1
    assert reason in " ".join(result.stderr.split())
    assert not (workplace / "x.yaml").exists()


def test_watching_is_not_for_a_cluster(built, invoke):
    result = invoke("serve", "--ray", "--no-grpc", "--watch", "1")
    assert result.exit_code == 2
    assert "Send SIGHUP" in result.stderr


def test_the_file_for_a_cluster(built, invoke, token_file, workplace):
    yaml = pytest.importorskip("yaml")
    result = invoke(
        *("serve", "--ray", "--write-config", "ray.yaml", "--token-file", token_file, "--json"),
        *("--replicas", "2", "--max-replicas", "5", "--threads", "3", "--slots", "2"),
        *("--host", "0.0.0.0", "--grpc-port", "9001", "--max-queue", "10"),
    )
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["cpus"], said["gpus"]) == (6, 0)
    text = (workplace / "ray.yaml").read_text()
    assert SECRET not in text
    found = yaml.safe_load(text)
    assert found["http_options"] == {"host": "0.0.0.0", "port": 8000}
    assert found["grpc_options"]["port"] == 9001
    (application,) = found["applications"]
    settings = ReplicaSettings.from_json(application["args"])
    assert [model.path for model in settings.models] == said["models"]
    assert settings.models[0].plan == "onnxruntime-fp32-one"
    assert (settings.threads, settings.slots, settings.max_queue) == (3, 2, 10)
    assert (settings.token_file, settings.need_token) == (str(token_file), True)
    (deployment,) = application["deployments"]
    assert deployment["autoscaling_config"]["max_replicas"] == 5
    assert deployment["ray_actor_options"] == {"num_cpus": 6, "num_gpus": 0}


@pytest.mark.parametrize(
    "options", [["--engine-timeout-ms", "500"], ["--prove-every", "5"], ["--check-finite"]]
)
def test_what_watches_engines_is_not_for_a_cluster(built, invoke, options):
    result = invoke("serve", "--ray", "--no-grpc", *options)
    assert result.exit_code == 2
    assert "are not for a Ray cluster yet" in " ".join(result.stderr.split())


def test_a_file_that_cannot_be_written_is_named(built, invoke):
    result = invoke("serve", "--ray", "--no-grpc", "--write-config", "none/ray.yaml")
    assert result.exit_code == 1
    assert "file none/ray.yaml: got No such file" in " ".join(result.stderr.split())
    assert "Choose another one with --write-config." in " ".join(result.stderr.split())


def test_the_help_marks_what_is_for_a_cluster(invoke):
    text = invoke("serve", "--help").stdout
    helps = re.findall(r"^  (?:-\w, )?--([\w-]+)(.*?)(?=^  -|^$)", text, flags=re.M | re.S)
    marked = [name for name, rest in helps if "With --ray:" in " ".join(rest.split())]
    assert marked == [
        *("replicas", "max-replicas", "target-ongoing", "cpus", "gpus"),
        *("ray-address", "write-config"),
    ]


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(built, invoke):
    result = invoke("serve", "--ray", "--no-grpc")
    assert result.exit_code == 1
    assert "pip install 'parnet-deploy[ray]'" in result.stderr
