"""What the protocol says about a model: its metadata and its configuration."""

from __future__ import annotations

from typing import Any

from ...spec import IMAGE, LOGITS
from ..protocol.contract import Document
from .signature import ENCODED, VERSION, Signature

PRIORITY_LEVELS = 10
DEFAULT_PRIORITY = 5

_GPU_BACKENDS = ("tensorrt", "onnxruntime-cuda")


def platform(backend: str) -> str:
    """What the protocol calls the platform."""
    return f"parnet_deploy_{backend.replace('-', '_')}"


def model_metadata(signature: Signature, backend: str) -> Document:
    """See ``contract.Service.model_metadata``."""
    height, width = _sides(signature)
    channels = signature.spec.in_channels
    inputs = [{"name": IMAGE, "datatype": "FP32", "shape": [-1, channels, height, width]}]
    if ENCODED in signature.inputs:
        inputs.append({"name": ENCODED, "datatype": "BYTES", "shape": [-1, 1]})
    classes = signature.spec.num_classes
    return {
        "name": signature.model,
        "versions": [VERSION],
        "platform": platform(backend),
        "inputs": inputs,
        "outputs": [{"name": LOGITS, "datatype": "FP32", "shape": [-1, classes]}],
    }


def model_config(
    signature: Signature,
    *,
    backend: str,
    devices: tuple[int, ...],
    slots: int,
    max_queue: int,
    max_delay_s: float,
    deadline_s: float,
    facts: dict[str, str],
) -> Document:
    """See ``contract.Service.model_config``. ``facts`` are its parameters, for people."""
    height, width = _sides(signature)
    optional = ENCODED in signature.inputs
    inputs: list[dict[str, Any]] = [
        {
            "name": IMAGE,
            "data_type": "TYPE_FP32",
            "dims": [signature.spec.in_channels, height, width],
            "optional": optional,
        }
    ]
    if optional:
        # One string an image; clients that batch want an axis beside that of the batch.
        inputs.append({"name": ENCODED, "data_type": "TYPE_STRING", "dims": [1], "optional": True})
    on_gpu = backend in _GPU_BACKENDS
    return {
        "name": signature.model,
        "platform": platform(backend),
        "backend": "parnet_deploy",
        "max_batch_size": signature.max_batch,
        "input": inputs,
        "output": [
            {
                "name": LOGITS,
                "data_type": "TYPE_FP32",
                "dims": [signature.spec.num_classes],
                "label_filename": "labels.txt" if signature.labels else "",
            }
        ],
        "instance_group": [
            {
                "name": f"{signature.model}_0",
                "count": slots,
                "kind": "KIND_GPU" if on_gpu else "KIND_CPU",
                "gpus": list(devices) if on_gpu else [],
            }
        ],
        "dynamic_batching": {
            "preferred_batch_size": [],
            "max_queue_delay_microseconds": round(max_delay_s * 1e6),
            "preserve_ordering": False,
            "priority_levels": PRIORITY_LEVELS,
            "default_priority_level": DEFAULT_PRIORITY,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": round(deadline_s * 1e6),
                "allow_timeout_override": True,
                "max_queue_size": max_queue,
            },
        },
        "parameters": {key: {"string_value": value} for key, value in facts.items()},
    }


def _sides(signature: Signature) -> tuple[int, int]:
    """Height and width; -1 where a range is accepted."""
    low, high = signature.size.low, signature.size.high
    return tuple(a if a == b else -1 for a, b in zip(low, high, strict=True))  # type: ignore[return-value]
