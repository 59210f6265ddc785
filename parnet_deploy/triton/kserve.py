"""A KServe ``InferenceService`` for a deployment, as YAML that ``kubectl apply`` takes.

Two forms: Triton on an exported repository, through KServe's own serving runtime; or our server
in a container. Both speak the Open Inference Protocol v2, so clients are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import SpecError

Server = Literal["triton", "parnet-deploy"]

SERVERS: tuple[Server, ...] = ("triton", "parnet-deploy")
MOUNT = "/mnt/models"
"""Where KServe's storage initializer puts what is at the storage URI."""

REST_PORT, GRPC_PORT = 8080, 8081

_SCHEMES = ("s3", "gs", "hf", "https", "http", "pvc", "oci", "hdfs", "webhdfs", "abfs", "wasbs")
_MAX_NAME = 63  # of a DNS label


@dataclass(frozen=True, kw_only=True)
class KserveOptions:
    """What the service needs to know beside the deployment.

    ``storage_uri``: the repository (form "triton"), or the deployment's own directory.
    ``image``: of the container; needed for "parnet-deploy", and for "triton" where the python
    backend needs an image with parnet_deploy in it.
    ``gpus``: of each replica.
    ``token_secret``: for "parnet-deploy", the secret whose key "token" clients must send.
    """

    server: Server = "triton"
    storage_uri: str
    image: str | None = None
    gpus: int = 0
    token_secret: str | None = None

    def __post_init__(self) -> None:
        scheme, separator, rest = self.storage_uri.partition("://")
        if not separator or scheme not in _SCHEMES or not rest:
            known = ", ".join(f"{name}://" for name in _SCHEMES)
            raise _refused("storage URI", self.storage_uri, f"one of {known}and a path")
        if self.server not in SERVERS:
            raise _refused("server", self.server, " or ".join(SERVERS))
        if self.server == "parnet-deploy" and not self.image:
            raise _refused("image", self.image, "a container image with parnet-deploy in it")
        if self.gpus < 0:
            raise _refused("gpus", self.gpus, "0 or more")
        if self.token_secret is not None and self.server != "parnet-deploy":
            raise _refused("token secret", self.token_secret, "none: Triton has no token")


def render_service(name: str, options: KserveOptions) -> str:
    """The YAML.

    Args:
        name: The deployment's. The service's name is made of it as Kubernetes wants names.
        options: Which form, and from where.

    Raises:
        SpecError: The name has no letter to make a name of.
    """
    predictor = _triton(options) if options.server == "triton" else _own(name, options)
    document = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": service_name(name)},
        "spec": {"predictor": predictor},
    }
    return "".join(f"# {line}\n" for line in _about(options)) + to_yaml(document)


def service_name(name: str) -> str:
    """A DNS label: lower-case letters, digits and dashes, a letter first.

    Raises:
        SpecError: Nothing is left of the name.
    """
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789")[:_MAX_NAME].rstrip("-")
    if not found:
        raise _refused("name", name, "a name with a letter a to z. Rename the deployment")
    return found


def to_yaml(value: Any, indent: int = 0) -> str:
    """Plain JSON types as block YAML. Strings are quoted as in JSON, which YAML reads alike."""
    pad = " " * indent
    if isinstance(value, Mapping):
        return "".join(_entry(f"{pad}{key}:", item, indent) for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "".join(f"{pad}- {to_yaml(item, indent + 2).lstrip()}" for item in value)
    return f"{pad}{_scalar(value)}\n"


def _entry(head: str, value: Any, indent: int) -> str:
    nested = isinstance(value, (Mapping, list)) and bool(value)
    return f"{head}\n{to_yaml(value, indent + 2)}" if nested else f"{head} {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    """As in JSON, but for characters that JSON spells as two halves, which YAML does not."""
    if not isinstance(value, str):
        return json.dumps(value)
    pieces = (json.dumps(c)[1:-1] if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in value)
    return '"' + "".join(pieces) + '"'


def _triton(options: KserveOptions) -> dict[str, Any]:
    model: dict[str, Any] = {
        "modelFormat": {"name": "triton"},
        "protocolVersion": "v2",
        "runtime": "kserve-tritonserver",
        "storageUri": options.storage_uri,
    }
    if options.image:
        model["image"] = options.image
    return {"model": {**model, **_resources(options)}}


def _own(name: str, options: KserveOptions) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/v2/health/ready", "port": REST_PORT}}
    container: dict[str, Any] = {
        "name": "kserve-container",
        "image": options.image,
        "command": ["parnet-deploy"],
        "args": [
            *("serve", f"{MOUNT}/{name}", "--host", "0.0.0.0"),
            *(() if options.token_secret else ("--insecure",)),
            *("--port", str(REST_PORT), "--grpc-port", str(GRPC_PORT)),
        ],
        "env": [{"name": "STORAGE_URI", "value": options.storage_uri}, *_token(options)],
        "ports": [{"name": "http1", "containerPort": REST_PORT, "protocol": "TCP"}],
        "readinessProbe": probe,
        **_resources(options),
    }
    return {"containers": [container]}


def _token(options: KserveOptions) -> list[dict[str, Any]]:
    if options.token_secret is None:
        return []
    key = {"name": options.token_secret, "key": "token"}
    return [{"name": "PARNET_DEPLOY_TOKEN", "valueFrom": {"secretKeyRef": key}}]


def _resources(options: KserveOptions) -> dict[str, Any]:
    if not options.gpus:
        return {}
    return {"resources": {"limits": {"nvidia.com/gpu": str(options.gpus)}}}


def _about(options: KserveOptions) -> list[str]:
    if options.server == "triton":
        return [
            "Triton on a model repository that parnet-deploy export-triton wrote.",
            "Upload the repository (the directory that holds the model's) to storageUri.",
        ]
    found = [
        "parnet-deploy serve in a container. Upload the directory that holds the deployment's to",
        "STORAGE_URI.",
    ]
    if options.token_secret is None:
        found += [
            "The server has no token (--insecure): whoever reaches the pod reaches the model, so",
            "leave access to the mesh or to a network policy, or name a secret: --token-secret.",
        ]
    return found


def _refused(what: str, got: object, expected: str) -> SpecError:
    return SpecError(f"kserve {what}: got {got!r}, expected {expected}. Correct the value.")
