"""Engines for other GPUs, or another TensorRT, are refused before they are loaded."""

from __future__ import annotations

import logging

import pytest

from parnet_deploy.errors import DeviceUnavailableError, EngineLoadError
from parnet_deploy.placement import streams
from parnet_deploy.runtime.tensorrt.plan_fit import check_engines, check_same_kind
from tests.runtime.runtime_toys import SPECS, fixed_size, make_plan

SPEC = SPECS[3]
H100 = {"name": "NVIDIA H100", "compute_capability": "9.0"}
H200 = {"name": "NVIDIA H200", "compute_capability": "9.0"}
ORIN = {"name": "Orin", "compute_capability": "8.7"}
T4 = {"name": "Tesla T4", "compute_capability": "7.5"}


def plan(**changes):
    record = {"tensorrt": "10.16.1", "device": H100, "options": {}, **changes}
    placement = streams(SPEC)
    records = {segment.name: record for segment in placement.segments}
    return make_plan(placement, fixed_size(SPEC), backend="tensorrt", made={"engines": records})


def level(name: str) -> dict[str, str]:
    return {"hardware_compatibility": name}


def test_the_same_machine_is_fine(caplog):
    with caplog.at_level(logging.DEBUG, "parnet_deploy"):
        check_engines(plan(), "10.16.1", {0: H100})
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("made", "here", "message"),
    [
        ({"tensorrt": "10.9.0"}, H100, "stem0.onnx: built by TensorRT 10.9.0, here is 10.16.1. R"),
        ({}, ORIN, "for NVIDIA H100 with compute capability 9.0, device 0 is Orin with 8.7. Run"),
        ({"options": level("ampere_plus")}, T4, "device 0 is Tesla T4 with 7.5"),
        ({"options": level("same_compute_capability")}, ORIN, "device 0 is Orin"),
        ({"device": "text"}, H100, "built for None with compute capability None"),
        ({"options": None}, ORIN, "device 0 is Orin"),
    ],
)
def test_another_machine_is_refused_with_both_values(made, here, message):
    with pytest.raises(EngineLoadError, match=message):
        check_engines(plan(**made), "10.16.1", {0: here})


def test_an_engine_made_to_be_portable_runs_on_its_family():
    check_engines(plan(device=ORIN, options=level("ampere_plus")), "10.16.1", {0: H100})


def test_another_model_of_the_same_capability_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING, "parnet_deploy"):
        check_engines(plan(), "10.16.1", {0: H200})
    assert "built on NVIDIA H100, device 0 is NVIDIA H200" in caplog.text


@pytest.mark.parametrize("made", [{}, {"engines": []}, {"engines": {"stem0": 1}}])
def test_without_a_record_nothing_is_loaded(made):
    bare = make_plan(streams(SPEC), fixed_size(SPEC), backend="tensorrt", made=made)
    with pytest.raises(EngineLoadError, match=r"no record of how it was built.* parnet-deploy bui"):
        check_engines(bare, "10.16.1", {0: H100})


def test_gpus_of_one_kind_only():
    check_same_kind({0: H100, 1: H100})
    check_same_kind({})
    with pytest.raises(DeviceUnavailableError, match=r"0 is NVIDIA H100 \(.* 9.0\), 2 is Tesla T4"):
        check_same_kind({0: H100, 2: T4})
