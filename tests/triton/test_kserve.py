"""The InferenceService. KServe's own classes read it in tests/conformance."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.cli.main import VerbGroup, cli
from parnet_deploy.errors import SpecError
from parnet_deploy.serve.security.token import VARIABLE
from parnet_deploy.triton.kserve import KserveOptions, render_service, service_name, to_yaml

URI = "s3://bucket/models"


def test_triton_form():
    found = yaml.safe_load(render_service("Parnet_S", KserveOptions(storage_uri=URI, gpus=1)))
    assert found == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "parnet-s"},
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": "triton"},
                    "protocolVersion": "v2",
                    "runtime": "kserve-tritonserver",
                    "storageUri": URI,
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                }
            }
        },
    }


def test_own_form_runs_our_server_on_what_was_downloaded():
    options = KserveOptions(server="parnet-deploy", storage_uri=URI, image="me/parnet:1")
    (container,) = yaml.safe_load(render_service("s", options))["spec"]["predictor"]["containers"]
    assert container["args"][:2] == ["serve", "/mnt/models/s"]
    assert container["env"] == [{"name": "STORAGE_URI", "value": URI}]
    ports = {str(port["containerPort"]) for port in container["ports"]}
    assert ports <= set(container["args"])
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8080}
    assert "resources" not in container


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"storage_uri": "models/"}, "storage URI: got 'models/', expected one of s3://"),
        ({"storage_uri": "ftp://x"}, "storage URI: got 'ftp://x'"),
        ({"server": "parnet-deploy"}, "image: got None, expected a container image"),
        ({"server": "x"}, "server: got 'x'"),
        ({"gpus": -1}, "gpus: got -1"),
        ({"token_secret": "s"}, "token secret: got 's', expected none: Triton has no token"),
    ],
)
def test_options_that_cannot_be(more, text):
    with pytest.raises(SpecError, match=text):
        KserveOptions(**{"storage_uri": URI, **more})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a", "a"), ("ParNet_S.v2", "parnet-s-v2"), ("9lives-", "lives"), ("x" * 70, "x" * 63)],
)
def test_names_as_kubernetes_wants_them(name, expected):
    assert service_name(name) == expected


def test_a_name_without_a_letter_is_refused():
    with pytest.raises(SpecError, match="a name with a letter"):
        service_name("123")


KEYS = st.from_regex(r"[a-z]{1,8}Key", fullmatch=True)  # a bare "on" or "no" is a truth value
SCALARS = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3) | st.dictionaries(KEYS, inner, min_size=1)
    ),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, min_size=1))
def test_yaml_reads_back_what_was_written(document):
    assert yaml.safe_load(to_yaml(document)) == document


def test_the_container_starts_our_server_as_it_wants_to_be_started():
    options = KserveOptions(server="parnet-deploy", storage_uri=URI, image="me/parnet:1")
    (container,) = yaml.safe_load(render_service("s", options))["spec"]["predictor"]["containers"]
    verb, *arguments = container["args"]
    command = VerbGroup.get_command(cli, None, verb)
    parameters = command.make_context(verb, arguments).params
    assert parameters["host"] == "0.0.0.0"
    assert parameters["insecure"] is True
    assert (parameters["port"], parameters["grpc_port"]) == (8080, 8081)
    assert "--insecure):" in render_service("s", options)


def test_a_secret_takes_the_place_of_insecure():
    more = {"server": "parnet-deploy", "image": "me/parnet:1", "token_secret": "parnet"}
    text = render_service("s", KserveOptions(storage_uri=URI, **more))
    (container,) = yaml.safe_load(text)["spec"]["predictor"]["containers"]
    assert "--insecure" not in text
    secret = {"secretKeyRef": {"name": "parnet", "key": "token"}}
    assert container["env"][1] == {"name": VARIABLE, "valueFrom": secret}
