"""What other backends are asked through: a stand-in that records the calls, and real names."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from parnet_deploy.builder.bisect.answers import answers_of
from parnet_deploy.errors import BackendError, MissingExtraError
from parnet_deploy.extras import import_for

FEEDS = {"image": np.ones((1, 3, 8, 8), np.float32)}


class Trt:
    """Stands for ``polygraphy.backend.trt``."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.config, self.typed = fails, {}, None

    class Profile:
        def __init__(self) -> None:
            self.shapes = {}

        def add(self, name, low, usual, high) -> None:
            self.shapes[name] = (low, usual, high)

    def NetworkFromOnnxBytes(self, model, strongly_typed):  # noqa: N802 (Polygraphy's name)
        self.typed = strongly_typed
        return model

    def CreateConfig(self, **options):  # noqa: N802
        self.config = options

    def EngineFromNetwork(self, network, config):  # noqa: N802
        return network

    def TrtRunner(self, engine):  # noqa: N802
        if self.fails:
            raise RuntimeError("no GPU")
        runner = SimpleNamespace(infer=lambda feeds: {"x0": feeds["image"] * 2})
        return _Context(runner)


class _Context:
    def __init__(self, value) -> None:
        self.value = value

    def __enter__(self):
        return self.value

    def __exit__(self, *error) -> None:
        pass


def plan(backend: str, precision: str = "fp32"):
    return SimpleNamespace(backend=backend, precision=precision)


@pytest.fixture
def polygraphy(monkeypatch):
    trt = Trt()
    monkeypatch.setitem(sys.modules, "polygraphy", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "polygraphy.backend", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "polygraphy.backend.trt", trt)
    return trt


@pytest.mark.parametrize(
    ("version", "typed"), [("8.6.1", False), ("10.16.1", True), ("11.4.0", True)]
)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_is_asked_as_its_version_wants(monkeypatch, polygraphy, version, typed, precision):
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version))
    found = answers_of(plan("tensorrt", precision), 0)(b"model", FEEDS)
    np.testing.assert_array_equal(found["x0"], FEEDS["image"] * 2)
    assert polygraphy.typed is typed
    assert polygraphy.config["tf32"] is False
    assert polygraphy.config["profiles"][0].shapes == {"image": ((1, 3, 8, 8),) * 3}
    flags = not typed and precision != "fp32"
    assert polygraphy.config.get("fp16", False) is flags
    assert polygraphy.config.get("int8", False) is (flags and precision == "int8")


def test_what_polygraphy_raises_is_ours(monkeypatch, polygraphy) -> None:
    polygraphy.fails = True
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.16.1"))
    with pytest.raises(BackendError, match="no GPU"):
        answers_of(plan("tensorrt"), 0)(b"model", FEEDS)


def test_without_polygraphy_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    with pytest.raises(MissingExtraError, match="verify"):
        answers_of(plan("tensorrt"), 0)


def test_the_names_are_those_of_polygraphy() -> None:
    """Against the real package where it is installed; it imports without TensorRT."""
    try:
        trt = import_for("polygraphy.backend.trt", "verify")
    except MissingExtraError:
        pytest.skip("needs the package polygraphy (pip install 'parnet-deploy[verify]')")
    assert "strongly_typed" in inspect.signature(trt.NetworkFromOnnxBytes.__init__).parameters
    makers = [each.__init__ for each in trt.CreateConfig.__mro__ if "__init__" in vars(each)]
    options = {name for make in makers for name in inspect.signature(make).parameters}
    assert {"profiles", "tf32", "fp16", "int8", "precision_constraints"} <= options
    assert hasattr(trt.TrtRunner, "infer")
    assert callable(trt.EngineFromNetwork)
    assert callable(trt.Profile().add)
