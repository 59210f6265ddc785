from __future__ import annotations

import pytest

from parnet_deploy.builder.candidates import cpu_candidates, device_candidates
from parnet_deploy.errors import SpecError
from parnet_deploy.spec import RELEASED

SPEC = RELEASED["parnet-s"]


def labels(name: str, threads: int | None, cores: int) -> list[str]:
    return [c.label for c in cpu_candidates(SPEC, name, threads=threads, cores=cores)]


def test_auto_tries_simple_candidates_first() -> None:
    assert labels("auto", None, 4) == ["one, all cores", "one, 1 core(s)", "streams, all cores"]


def test_auto_on_one_core_has_nothing_to_choose() -> None:
    assert labels("auto", None, 1) == ["one, all cores"]
    assert labels("auto", 1, 8) == ["one, 1 core(s)"]


def test_auto_keeps_the_threads_that_were_asked_for() -> None:
    assert labels("auto", 2, 8) == ["one, 2 core(s)", "streams, 2 core(s)"]


def test_a_named_placement_is_the_only_candidate() -> None:
    assert labels("streams", None, 1) == ["streams, all cores"]
    assert labels("one", 3, 8) == ["one, 3 core(s)"]


def test_devices_are_used_in_their_order() -> None:
    (candidate,) = device_candidates(SPEC, "auto", (0, 1, 2))
    assert candidate.placement.devices == (0, 1, 2)
    (candidate,) = device_candidates(SPEC, "one", (2,))
    assert candidate.placement.devices == (2,)


@pytest.mark.parametrize("make", [
    lambda: cpu_candidates(SPEC, "two", threads=None, cores=2),
    lambda: device_candidates(SPEC, "two", (0,)),
])  # fmt: skip
def test_an_unknown_placement_is_answered_with_the_names(make) -> None:
    with pytest.raises(SpecError, match="'two', expected one of auto, one, streams"):
        make()
