from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy.builder import planner
from parnet_deploy.builder.candidates import Candidate, cpu_candidates, device_candidates
from parnet_deploy.builder.planner import (
    CLEARLY_FASTER,
    Built,
    LeftOut,
    choose_fastest,
    choose_predicted,
    pick,
)
from parnet_deploy.errors import OutOfMemoryError
from parnet_deploy.input_size import InputSize
from parnet_deploy.measure import Latency, compare_latency
from parnet_deploy.placement import one, streams
from parnet_deploy.spec import RELEASED
from tests.runtime.runtime_toys import SPECS, fixed_size, images, make_plan, write_engines

SPEC = RELEASED["parnet-s"]
SIZE = InputSize(low=(224, 224), high=(224, 224))


def arms(**samples: tuple[float, ...]) -> dict[str, Latency]:
    return {
        name: Latency(name=name, samples_ms=values, first_ms=1.0)
        for name, values in samples.items()
    }


@pytest.mark.parametrize(("later_ms", "winner"), [(0.99, "a"), (0.5, "b"), (1.5, "a")])
def test_a_complicated_candidate_must_be_clearly_faster(later_ms: float, winner: str) -> None:
    assert pick(arms(a=(1.0,) * 30, b=(later_ms,) * 30)) == winner


def test_a_gain_within_noise_does_not_count() -> None:
    noisy = (0.5, 1.6) * 15 + (0.5,)
    assert sorted(noisy)[15] < 0.98  # the median alone would have won
    assert pick(arms(a=(1.0,) * 31, b=noisy)) == "a"


def test_later_candidates_are_compared_with_the_best_so_far() -> None:
    assert pick(arms(a=(1.0,) * 30, b=(0.5,) * 30, c=(0.6,) * 30)) == "b"
    assert pick(arms(a=(1.0,) * 30, b=(0.5,) * 30, c=(0.3,) * 30)) == "c"
    assert pick(arms(only=(1.0,) * 3)) == "only"


CYCLE = arms(a=(3.0, 1.0, 2.0) * 21, b=(2.0, 3.0, 1.0) * 21, c=(1.0, 2.0, 3.0) * 21)
"""Paired medians like those dice of which each beats another: a, b, c are no line."""


def test_faster_than_the_fastest_is_not_faster_than_all() -> None:
    """c beats b, b beats a, and a beats c: without a look back the slower one would be taken."""
    assert compare_latency(CYCLE["b"], CYCLE["a"]).high < CLEARLY_FASTER
    assert compare_latency(CYCLE["c"], CYCLE["b"]).high < CLEARLY_FASTER
    assert compare_latency(CYCLE["c"], CYCLE["a"]).low > 1
    assert pick(CYCLE, {"a"}) == "b"


@settings(max_examples=200)
@given(
    scales=st.lists(st.floats(0.3, 3.0), min_size=2, max_size=5),
    spreads=st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    single=st.integers(1, 2),
    cycle=st.booleans(),
)
def test_auto_is_never_slower_than_the_best_single_engine_beyond_noise(
    scales, spreads, seed, single, cycle
) -> None:
    """Of the single engines ``pick`` takes the best; what it takes in the end is not slower."""
    rng = np.random.default_rng(seed)
    latencies = {}
    for index, scale in enumerate(scales):
        noise = np.exp(spreads[index] * rng.standard_normal(41))
        latencies[str(index)] = Latency(
            name=str(index), samples_ms=tuple(scale * noise), first_ms=1.0
        )
    if cycle:
        latencies = dict(CYCLE)
    names = list(latencies)
    singles = names[:single]
    best = pick({name: latencies[name] for name in singles}, singles)
    chosen = pick(latencies, singles)
    assert compare_latency(latencies[chosen], latencies[best]).low <= 1
    for name in singles:  # and the best of them is the best but for the margin of simplicity
        assert compare_latency(latencies[best], latencies[name]).low <= 1 / CLEARLY_FASTER + 1e-9


def test_simulated_devices_follow_the_prediction_and_say_so() -> None:
    chosen, measured = choose_predicted(SPEC, device_candidates(SPEC, "auto", (0, 1, 2)), SIZE)
    assert chosen.label == "streams, devices 0,1,2"  # as good as recompute, and simpler
    assert "nothing was measured" in measured["note"]
    assert [row["candidate"] for row in measured["candidates"] if row["chosen"]] == [chosen.label]
    assert measured["bound"]["speedup"] == pytest.approx(2.13, abs=0.01)
    assert "median_ms" not in measured


def test_a_single_candidate_is_not_called_the_best() -> None:
    _, measured = choose_predicted(SPEC, device_candidates(SPEC, "one", (0,)), SIZE)
    assert measured["note"] == planner.SIMULATED


class TestMeasured:
    spec = SPECS[3]
    measure = partial(planner.measure_together, image=images(SPECS[3]))

    def built(self, folder: Path, candidate: Candidate) -> Built:
        place = folder / candidate.label.replace(" ", "-")
        place.mkdir()
        plan = make_plan(candidate.placement, fixed_size(self.spec), threads=1)
        write_engines(self.spec, plan, place)
        return Built(candidate=candidate, plan=plan, folder=place)

    def test_what_fails_when_all_are_open_is_left_out_with_the_reason(self, tmp_path, monkeypatch):
        candidates = cpu_candidates(self.spec, "auto", threads=1, cores=2)
        candidates += (Candidate(placement=streams(self.spec), threads=1),)
        built = [self.built(tmp_path, candidate) for candidate in candidates]
        honest = planner.Runtime.from_plan

        def from_plan(spec, plan, files):
            if plan.placement.name == "streams":
                raise OutOfMemoryError("device 0 memory: none left.")
            return honest(spec, plan, files)

        monkeypatch.setattr(planner.Runtime, "from_plan", from_plan)
        winner, measured = choose_fastest(self.spec, built, self.measure, lambda text: None)
        assert winner.candidate.placement == one(self.spec)
        first, last = measured["candidates"]
        assert first["chosen"]
        assert first["median_ms"] == measured["median_ms"] > 0
        assert last["left_out"] == "device 0 memory: none left."
        assert not last["chosen"]
        assert "median_ms" not in last

    def test_if_none_runs_the_reason_is_raised(self, tmp_path, monkeypatch):
        (candidate,) = cpu_candidates(self.spec, "one", threads=1, cores=1)
        built = [self.built(tmp_path, candidate)]

        def from_plan(*args):
            raise OutOfMemoryError("device 0 memory: none left.")

        monkeypatch.setattr(planner.Runtime, "from_plan", from_plan)
        with pytest.raises(OutOfMemoryError, match="none left"):
            choose_fastest(self.spec, built, self.measure, lambda text: None)

    def test_what_was_not_built_stands_in_the_table(self, tmp_path):
        one_, *_ = candidates = device_candidates(self.spec, "auto", (0, 1))
        plan = make_plan(one_.placement, fixed_size(self.spec), backend="fake")
        write_engines(self.spec, plan, tmp_path)
        built = [Built(candidate=one_, plan=plan, folder=tmp_path)]
        left = [LeftOut(candidate=candidates[-1], error=OutOfMemoryError("too small."))]
        _, measured = choose_fastest(self.spec, built, self.measure, lambda text: None, left)
        assert [row.get("left_out") for row in measured["candidates"]] == [None, "too small."]
        assert measured["bound"]["ratio"] >= 0.5
