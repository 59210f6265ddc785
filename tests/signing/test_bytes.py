"""The bytes that were checked are the bytes that are loaded, and no others."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from parnet_deploy import Runtime, deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentCorruptError, EngineLoadError
from parnet_deploy.runtime.choose import read_plan
from parnet_deploy.runtime.onnxruntime.cpu import open_session
from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.model.served_model import ServedModel
from tests.runtime.runtime_toys import images, reference
from tests.serve.service_toys import SPEC

ENGINE = "plans/only/all.onnx"


def test_what_is_loaded_is_what_was_checked(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody swaps each file right after it was checked: nobody reads it again."""
    genuine, swapped = deployment._read_bytes, []

    def read(root: Path, name: str, record: Mapping[str, Any]) -> bytes:
        data = genuine(root, name, record)
        (root / name).write_bytes(b"something else")
        swapped.append(name)
        return data

    monkeypatch.setattr(deployment, "_read_bytes", read)
    x = images(SPEC, 2)
    with Runtime.open(signed) as runtime:
        np.testing.assert_allclose(runtime(x), reference(SPEC, x), rtol=1e-4, atol=1e-6)
    assert sorted(swapped) == [ENGINE, "plans/only/build.json", "plans/only/canary.npz"]


def test_nothing_is_opened_by_its_path(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, given = ort.InferenceSession, []

    def session(model: object, *args: Any, **more: Any) -> Any:
        given.append(type(model))
        return genuine(model, *args, **more)

    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr(Deployment, "verified_path", None)
    ServedModel.open(ModelOptions(path=signed)).close()
    assert given == [bytes]


def test_an_engine_that_was_changed_is_not_loaded(signed: Path) -> None:
    files = read_plan(Deployment.open(signed), "only").engines
    assert str(files["all"]) == str(signed / ENGINE) == str(files["all"].path)
    data = (signed / ENGINE).read_bytes()
    assert files["all"].read_bytes() == data
    (signed / ENGINE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DeploymentCorruptError, match=r"all\.onnx in .+: got sha256"):
        files["all"].read_bytes()
    with pytest.raises(DeploymentCorruptError):
        Runtime.open(signed)


def graph(location: str | None) -> bytes:
    """x + w, with w in another file; None: inside."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    if location is None:
        weight.raw_data = np.arange(4, dtype=np.float32).tobytes()
    else:
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "16")):
            entry = weight.external_data.add()
            entry.key, entry.value = key, value
    inputs, outputs = (helper.make_tensor_value_info(name, 1, [4]) for name in "xy")
    made = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", [inputs], [outputs], [weight]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("emulate", [False, True])
@pytest.mark.parametrize("location", ["near.bin", "./near.bin", "../near.bin", "a/../near.bin", ""])
def test_a_graph_reads_no_file_beside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str, emulate: bool
) -> None:
    """Such a file is in no manifest: nobody has checked it, and no signature covers it."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for place in (here, tmp_path):
        np.arange(4, dtype=np.float32).tofile(place / "near.bin")
    path = here / "model.onnx"
    for name in (location, str(here / "near.bin")):
        path.write_bytes(graph(name))
        for model in (path, path.read_bytes()):
            with pytest.raises(EngineLoadError, match=r"ONNX Runtime cannot load it"):
                open_session(model, threads=1, emulate=emulate)


def test_one_with_all_inside_is_read_and_not_kept() -> None:
    """ONNX Runtime would keep the serialized model as long as the session lives."""
    data = graph(None)
    gc.collect()
    before = sys.getrefcount(data)
    session = open_session(data, threads=1)
    assert session.run(None, {"x": np.ones(4, np.float32)})[0].tolist() == [1, 2, 3, 4]
    gc.collect()
    assert sys.getrefcount(data) == before
    assert onnx.load_from_string(data).graph.name == "g"
