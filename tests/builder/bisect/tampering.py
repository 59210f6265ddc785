"""Engines that are made wrong on purpose, in deployments whose hashes say that nothing happened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from parnet_deploy.storage.document import seal


def tamper(directory: Path, name: str, change: Callable[[onnx.GraphProto], None]) -> None:
    """Change an engine, and the deployment's hashes with it, as somebody might on purpose."""
    path = directory / name
    model = onnx.load(path)
    change(model.graph)
    data = model.SerializeToString()
    path.write_bytes(data)
    manifest = directory / "deployment.json"
    about = json.loads(manifest.read_bytes())
    del about["sha256"]
    about["artifacts"][name] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.write_bytes(seal(about))


def scale_weight(graph: onnx.GraphProto, node_name: str, index: int = 1) -> None:
    node = next(node for node in graph.node if node.name == node_name)
    weight = next(item for item in graph.initializer if item.name == node.input[index])
    values = numpy_helper.to_array(weight).copy()
    values.flat[7] += 40 * np.abs(values).max()
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def spoil_weight(graph: onnx.GraphProto, node_name: str) -> None:
    """One weight of a node becomes NaN."""
    node = next(node for node in graph.node if node.name == node_name)
    weight = next(item for item in graph.initializer if item.name == node.input[1])
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
