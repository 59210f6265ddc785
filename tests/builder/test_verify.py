"""Reference values of parts, with and without ONNX Runtime."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from parnet_deploy.builder.verify import part_values, run_graph
from parnet_deploy.deployment import Deployment
from parnet_deploy.steps import read_reference


def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "parnet_deploy.runtime.onnxruntime.cpu", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


def test_part_values_without_onnxruntime_are_the_same(exported, monkeypatch):
    deployment = Deployment.open(exported)
    reference = read_reference(deployment)
    fast = part_values(deployment, reference.image)
    without_onnxruntime(monkeypatch)
    slow = part_values(deployment, reference.image)
    assert sorted(slow) == sorted(fast)
    for name, value in fast.items():
        scale = np.abs(value).max()
        assert np.abs(slow[name] - value).max() <= 1e-5 * scale, name
    assert np.abs(slow["logits"] - reference.logits).max() <= 1e-5 * np.abs(fast["logits"]).max()


def test_another_missing_module_is_not_hidden(monkeypatch):
    monkeypatch.delitem(sys.modules, "parnet_deploy.runtime.onnxruntime.cpu", raising=False)
    monkeypatch.setitem(sys.modules, "parnet_deploy.runtime.onnxruntime.cpu", None)
    with pytest.raises(ModuleNotFoundError, match=r"parnet_deploy\.runtime\.onnxruntime"):
        run_graph(b"", {})
