from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.doctor.conflicts import CONFLICTS, GROUP, examine_conflicts
from parnet_deploy.doctor.versions import numbers, within


def examine(versions: Mapping[str, str]):
    return list(examine_conflicts(versions.get))


def test_nothing_known_is_said_once() -> None:
    (found,) = examine({"numpy": "2.4.6", "onnxruntime": "1.32.0", "uvicorn": "0.54.0"})
    assert (found.group, found.status, found.fix) == (GROUP, "ok", None)
    assert str(len(CONFLICTS)) in found.detail


BAD = [
    ({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}, "onnxruntime, twice"),
    ({"grpcio": "1.84.0"}, "grpcio"),
    ({"grpcio": "1.85.3"}, "grpcio"),
    ({"uvicorn": "0.40.0"}, "uvicorn, older"),
    ({"uvicorn": "0.55.0"}, "uvicorn, newer"),
    ({"ray": "2.60.0", "protobuf": "7.36.2"}, "protobuf beside Ray"),
    ({"tritonclient": "2.73.0", "protobuf": "7.0.0"}, "protobuf beside tritonclient"),
    ({"numpy": "2.0.0", "onnxruntime": "1.18.1"}, "numpy beside onnxruntime"),
    ({"tensorrt-cu12": "10.16.1", "tensorrt-cu13": "11.4"}, "TensorRT of two CUDA versions"),
]


@pytest.mark.parametrize(("versions", "name"), BAD)
def test_each_conflict_is_found_with_its_fix(versions: Mapping[str, str], name: str) -> None:
    (found,) = examine(versions)
    assert (found.name, found.status) == (name, "warning")
    assert found.fix
    for package, version in versions.items():
        assert f"{package} {version}" in found.detail


@pytest.mark.parametrize(
    "versions",
    [
        {"grpcio": "1.83.0"},
        {"grpcio": "1.86.0"},
        {"uvicorn": "0.53.0"},
        {"protobuf": "7.36.2"},
        {"ray": "2.60.0", "protobuf": "6.33.0"},
        {"numpy": "1.26.4", "onnxruntime": "1.17.0"},
        {"numpy": "2.0.0", "onnxruntime": "1.19.0"},
        {"tensorrt-cu12": "10.16.1"},
    ],
)
def test_what_goes_together_is_left_alone(versions: Mapping[str, str]) -> None:
    assert [found.status for found in examine(versions)] == ["ok"]


def test_every_conflict_is_tried_above_and_says_its_source() -> None:
    assert {conflict.name for conflict in CONFLICTS} == {name for _, name in BAD}
    assert all(c.source and c.happens and c.fix for c in CONFLICTS)


def test_suffixes_do_not_count() -> None:
    assert numbers("2.13.0+cpu") == (2, 13, 0)
    assert numbers("1.26.0rc1") == (1, 26, 0)
    assert numbers("dev") == ()
    assert within("1.84", "1.84.0", "1.85")


@given(st.lists(st.integers(0, 99), min_size=1, max_size=4))
def test_a_version_is_within_itself_and_the_next(parts: list[int]) -> None:
    text = ".".join(map(str, parts))
    later = ".".join(map(str, [*parts[:-1], parts[-1] + 1]))
    assert within(text, text, None)
    assert within(text, text, later)
    assert not within(text, later, None)
    assert not within(later, None, text)
