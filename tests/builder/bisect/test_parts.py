"""Engines that show no tensors inside: the part is found, each converted by itself.

ONNX Runtime stands for such a backend, with a converter that changes a weight of some parts.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest

from parnet_deploy.builder.bisect import bisect as module
from parnet_deploy.builder.bisect import parts
from parnet_deploy.builder.bisect.bisect import bisect_plan
from parnet_deploy.builder.bisect.parts import JOINED, PARTS_ALONE, first_wrong_part, shows_tensors
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.builder.options import CPU_BACKENDS
from parnet_deploy.cli.bisect import sentence
from parnet_deploy.deployment import Deployment
from tests.builder.bisect.tampering import scale_weight, tamper

KEY, NODE, PART = "onnxruntime-fp32-one", "streams.1.0/conv", "stream1"


@pytest.fixture
def built(exported: Path) -> Path:
    build_to_deployment(exported, BuildOptions(placement="one"))
    tamper(exported, f"plans/{KEY}/all.onnx", lambda graph: scale_weight(graph, NODE))
    return exported


def convert(graph: bytes, output: Path, *, wrong: str, name: str, **job: Any) -> None:
    """Change a weight of one part, if it is to be wrong."""
    assert job == {"backend": "onnxruntime", "precision": "fp32"}
    model = onnx.load_from_string(graph)
    if name == wrong:
        scale_weight(model.graph, NODE)
    output.write_bytes(model.SerializeToString())


def find(directory: Path, monkeypatch, wrong: str):
    """Bisect as if ONNX Runtime showed no tensors."""
    monkeypatch.setattr(parts, "CONVERTERS", {"onnxruntime": "a module"})
    search = partial(first_wrong_part, convert=partial(convert, wrong=wrong))
    monkeypatch.setattr(module, "first_wrong_part", search)
    return bisect_plan(Deployment.open(directory), KEY)


def test_which_backends_show_tensors() -> None:
    shown = {
        name for name in (*CPU_BACKENDS, "onnxruntime-cuda", "tensorrt") if shows_tensors(name)
    }
    assert shown == {"onnxruntime", "onnxruntime-cuda", "tensorrt"}


def test_the_part_is_found_and_no_layer_is_guessed(built: Path, monkeypatch) -> None:
    found = find(built, monkeypatch, PART)
    assert found
    assert (found.engine, found.part, found.layer) == ("all", PART, None)
    assert found.method == PARTS_ALONE
    assert found.error > found.limit
    assert sentence(found) == f"engine all is wrong, and {PART} is where it begins."


def test_parts_that_are_right_alone_leave_the_engine(built: Path, monkeypatch) -> None:
    found = find(built, monkeypatch, "none")
    assert found
    assert (found.engine, found.part, found.error) == ("all", None, None)
    assert found.method == JOINED
    assert found.to_json()["limit"] == found.limit
