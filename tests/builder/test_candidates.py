from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.builder.candidates import (
    CPU_PLACEMENTS,
    PLACEMENTS,
    cpu_candidates,
    device_candidates,
    spread,
)
from parnet_deploy.builder.predict import predict
from parnet_deploy.errors import SpecError
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import check_placement, recompute, streams
from parnet_deploy.spec import RELEASED, ModelSpec

SPEC = RELEASED["parnet-s"]


def labels(name: str, threads: int | None, cores: int) -> list[str]:
    return [c.label for c in cpu_candidates(SPEC, name, threads=threads, cores=cores)]


def device_labels(name: str, devices: tuple[int, ...], aux: int | None = None) -> list[str]:
    return [c.label for c in device_candidates(SPEC, name, devices, aux_streams=aux)]


def test_auto_tries_simple_candidates_first() -> None:
    assert labels("auto", None, 4) == ["one, all cores", "one, 1 core", "streams, all cores"]


def test_auto_on_one_core_has_nothing_to_choose() -> None:
    assert labels("auto", None, 1) == ["one, all cores"]
    assert labels("auto", 1, 8) == ["one, 1 core"]


def test_auto_keeps_the_threads_that_were_asked_for() -> None:
    assert labels("auto", 2, 8) == ["one, 2 cores", "streams, 2 cores"]


def test_a_named_placement_is_the_only_candidate() -> None:
    assert labels("streams", None, 1) == ["streams, all cores"]
    assert labels("one", 3, 8) == ["one, 3 cores"]


def test_auto_on_devices_grows_from_one_engine_to_all_of_them() -> None:
    assert device_labels("auto", (0, 1, 2)) == [
        "one, device 0",
        "one, device 0, 2 auxiliary stream(s)",
        "streams, device 0",
        "recompute, device 0",
        "streams, devices 0,0,1",
        "recompute, devices 0,0,1",
        "streams, devices 0,1,2",
        "recompute, devices 0,1,2",
    ]


def test_lanes_on_one_device_are_asked_for_by_naming_it_again() -> None:
    alone = device_candidates(SPEC, "auto", (0,))
    assert device_candidates(SPEC, "auto", (0, 0, 0)) == alone
    (candidate,) = device_candidates(SPEC, "streams", (0, 0, 0))
    homes = {(s.device, s.lane) for s in candidate.placement.segments}
    assert homes == {(0, 0), (0, 1), (0, 2)}


def test_a_device_may_have_two_streams_of_three() -> None:
    assert device_labels("auto", (0, 1, 1))[4:] == [
        "streams, devices 0,0,1",
        "recompute, devices 0,0,1",
        "streams, devices 0,1,1",
        "recompute, devices 0,1,1",
    ]


def test_more_devices_than_streams_add_nothing() -> None:
    assert device_labels("auto", (0, 1, 2, 3, 4)) == device_labels("auto", (0, 1, 2))


def test_a_name_means_all_devices_that_were_asked_for() -> None:
    assert device_labels("streams", (2, 0)) == ["streams, devices 2,2,0"]
    (candidate,) = device_candidates(SPEC, "streams", (2, 0))
    homes = {name: s.device for s in candidate.placement.segments for name in s.parts}
    assert (homes["stream0"], homes["stream1"], homes["stream2"]) == (2, 2, 0)
    assert device_labels("recompute", (0, 1)) == ["recompute, devices 0,0,1"]
    assert device_labels("one", (2, 1)) == ["one, device 2"]


def test_auxiliary_streams_are_those_of_one_engine() -> None:
    (candidate,) = device_candidates(SPEC, "one-aux", (1,))
    assert (candidate.name, candidate.aux_streams) == ("one-aux", SPEC.streams - 1)
    (candidate,) = device_candidates(SPEC, "one-aux", (1,), aux_streams=5)
    assert candidate.aux_streams == 5
    assert [c.aux_streams for c in device_candidates(SPEC, "auto", (0,))] == [0, 2, 0, 0]


def test_without_auxiliary_streams_their_candidate_is_left_out() -> None:
    assert device_labels("auto", (0,), 0) == ["one, device 0", "streams, device 0",
                                              "recompute, device 0"]  # fmt: skip
    with pytest.raises(SpecError, match="without auxiliary streams: got 'one-aux', expected one"):
        device_candidates(SPEC, "one-aux", (0,), aux_streams=0)


@given(
    network=st.sampled_from(sorted(RELEASED)),
    devices=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    aux=st.none() | st.integers(0, 3),
)
def test_candidates_are_valid_different_and_start_with_one_engine(network, devices, aux) -> None:
    spec = RELEASED[network]
    found = device_candidates(spec, "auto", devices, aux_streams=aux)
    for candidate in found:
        check_placement(candidate.placement, spec)
        assert set(candidate.placement.devices) <= set(devices)
    assert len({candidate.label for candidate in found}) == len(found)
    singles = [candidate.single for candidate in found]
    assert singles == sorted(singles, reverse=True)  # the single engines come first
    assert found[0].placement.devices == (devices[0],)


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (lambda: cpu_candidates(SPEC, "two", threads=None, cores=2), CPU_PLACEMENTS),
        (lambda: device_candidates(SPEC, "two", (0,)), PLACEMENTS),
    ],
)
def test_an_unknown_placement_is_answered_with_the_names(make, known) -> None:
    with pytest.raises(SpecError, match=f"'two', expected one of {', '.join(known)}"):
        make()


@pytest.mark.parametrize("name", ["one-aux", "recompute"])
def test_what_only_gpus_can_do_is_refused_on_the_cpu(name: str) -> None:
    with pytest.raises(SpecError, match=f"placement on the CPU: got '{name}', expected one of"):
        cpu_candidates(SPEC, name, threads=None, cores=2)


def test_streams_share_devices_so_that_the_longest_way_is_shortest() -> None:
    spec = RELEASED["parnet-s"]
    size = InputSize.parse("224")
    for make in (streams, recompute):
        assert spread(make, spec, (0, 1, 2)) == (0, 1, 2)
        assert spread(make, spec, (4, 7)) == (4, 4, 7)
        assert spread(make, spec, (0, 1, 0)) == (0, 1, 0)  # the user has said which goes where
        assert spread(make, spec, (3,)) == (3, 3, 3)
        best = predict(make(spec, spread(make, spec, (0, 1))), spec, size)
        for way in ((0, 1, 0), (0, 1, 1), (0, 0, 1)):
            assert best.path_macs <= predict(make(spec, way), spec, size).path_macs
    four = ModelSpec(planes=(64, 128, 256, 512, 1280), num_blocks=(5, 6, 6, 6, 1), num_classes=10)
    assert spread(streams, four, (0, 1, 2)) == (0, 1, 0, 2)
