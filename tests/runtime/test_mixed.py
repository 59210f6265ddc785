"""Segments on different backends of the CPU in one plan."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from parnet_deploy.errors import BackendError, DeviceUnavailableError, EngineLoadError
from parnet_deploy.placement import streams
from parnet_deploy.runtime import mixed
from parnet_deploy.runtime.mixed import MixedBackend
from parnet_deploy.runtime.onnxruntime.cpu import OnnxRuntimeBackend
from parnet_deploy.runtime.session import Runtime
from tests.runtime.runtime_toys import (
    SPECS,
    fixed_size,
    images,
    make_plan,
    reference,
    write_engines,
)

SPEC = SPECS[3]


class Other(OnnxRuntimeBackend):
    """A second backend, which counts what it opens."""

    name = "other"

    def __init__(self) -> None:
        self.opened: list[str] = []

    def prepare(self, plan, cores):
        self.opened.append(f"{cores} cores")

    def open_engine(self, file, segment, *others):
        self.opened.append(segment.name)
        return super().open_engine(file, segment, *others)

    def facts(self, plan):
        return {"other": "1.0"}


def mixed_plan(**homes: str):
    placement = streams(SPEC)
    names = [segment.name for segment in placement.segments]
    backends = {name: homes.get(name, "onnxruntime") for name in names}
    return make_plan(placement, fixed_size(SPEC), backend="mixed", backends=backends)


def test_each_segment_runs_on_its_own_backend(tmp_path, monkeypatch) -> None:
    other = Other()
    found = {"onnxruntime": OnnxRuntimeBackend(), "other": other}
    monkeypatch.setattr(mixed, "load_backend", found.__getitem__)
    plan = mixed_plan(stream1="other", head="other")
    files = write_engines(SPEC, plan, tmp_path)
    with Runtime.from_plan(SPEC, plan, files, threads=2) as runtime:
        x = images(SPEC)
        np.testing.assert_allclose(runtime(x), reference(SPEC, x), rtol=1e-5, atol=1e-6)
        about = runtime.describe()
    assert other.opened == ["2 cores", "stream1", "head"]
    assert about["backend"] == "mixed"


def test_only_the_backends_of_the_plan_are_loaded(tmp_path, monkeypatch) -> None:
    asked = []

    def load(name):
        asked.append(name)
        return OnnxRuntimeBackend()

    monkeypatch.setattr(mixed, "load_backend", load)
    plan = mixed_plan()
    loaded = MixedBackend().load(SPEC, plan, write_engines(SPEC, plan, tmp_path))
    loaded.close()
    assert asked == ["onnxruntime"]
    assert loaded.facts["backends"] == dict(plan.backends)


@pytest.mark.parametrize("name", ["fake", "mixed"])
def test_what_is_no_backend_of_the_cpu_is_refused(tmp_path, name) -> None:
    plan = mixed_plan(head=name)
    with pytest.raises(BackendError, match=f"got a segment on {name}, expected a backend of the"):
        MixedBackend().load(SPEC, plan, write_engines(SPEC, plan, tmp_path))


def test_engines_that_were_opened_are_closed_when_a_later_one_fails(tmp_path, monkeypatch) -> None:
    closed = []

    class Closing(OnnxRuntimeBackend):
        def open_engine(self, file, segment, *others):
            if segment.name == "head":
                raise EngineLoadError("engine head: no engine.")
            return SimpleNamespace(close=lambda: closed.append(segment.name))

    monkeypatch.setattr(mixed, "load_backend", lambda name: Closing())
    plan = mixed_plan()
    with pytest.raises(EngineLoadError, match="no engine"):
        MixedBackend().load(SPEC, plan, write_engines(SPEC, plan, tmp_path))
    before = [s.name for s in plan.placement.segments if s.name != "head"]
    assert closed == before[::-1]


def test_the_cpu_is_one_device() -> None:
    plan = mixed_plan()
    plan = replace(plan, placement=streams(SPEC, (0, 1)))
    with pytest.raises(DeviceUnavailableError, match="the CPU is one device"):
        MixedBackend().load(SPEC, plan, {})
