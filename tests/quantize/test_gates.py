from __future__ import annotations

import numpy as np
import pytest

from parnet_deploy.errors import SpecError
from parnet_deploy.quantize.gates import Gap, Gates, Measured, check_gates
from parnet_deploy.quantize.metrics import MAX_DB, MIN_DB, Score, score, sqnr_db


def scored(**changes) -> Score:
    good = {
        "images": 1000,
        "agreement": 0.99,
        "sqnr_db": 30.0,
        "finite": True,
        "accuracy": 0.9,
        "reference_accuracy": 0.905,
    }
    return Score(**(good | changes))


def failed(clean=None, noisy=None, gap=None, clipped=0.0, gates=None) -> list[str]:
    scores = {"clean": clean or scored(), "noisy": noisy or scored()}
    gaps = {name: gap or Gap(images=256, agreement=1.0, lost_db=0.0) for name in scores}
    measured = Measured(emulated=scores, kernel=scores, gap=gaps, clipped=clipped)
    return [check.name for check in check_gates(measured, gates or Gates()) if not check]


def test_a_good_network_passes() -> None:
    assert failed() == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"clean": scored(accuracy=0.894)}, "clean accuracy drop"),
        ({"noisy": scored(accuracy=0.889)}, "noisy accuracy drop"),
        ({"clean": scored(sqnr_db=19.9)}, "clean logit SQNR"),
        ({"noisy": scored(sqnr_db=14.9)}, "noisy logit SQNR"),
        ({"clean": scored(agreement=0.96)}, "clean agreement"),
        ({"noisy": scored(agreement=0.96)}, "noisy agreement"),
        (
            {"gap": Gap(images=9, agreement=1.0, lost_db=3.1)},
            "clean SQNR lost by the kernels (saturation)",
        ),
        (
            {"gap": Gap(images=9, agreement=0.99, lost_db=0.0)},
            "clean agreement of kernels and emulation",
        ),
        ({"clipped": 0.06}, "values clipped on held-out images"),
        ({"clean": scored(finite=False)}, "clean logits that are NaN or Inf"),
    ],
)
def test_each_gate_fails_by_itself(changes, name) -> None:
    assert name in failed(**changes)
    assert len(failed(**changes)) <= 2  # a gap shows on both sets


def test_an_image_or_two_is_no_failure_on_a_small_set() -> None:
    small = {"images": 60, "reference_accuracy": 1.0}
    assert failed(clean=scored(accuracy=58 / 60, **small)) == []
    assert failed(clean=scored(accuracy=57 / 60, **small)) == ["clean accuracy drop"]
    assert failed(noisy=scored(images=15, agreement=13 / 15)) == []
    assert failed(noisy=scored(images=15, agreement=12 / 15)) == ["noisy agreement"]


def test_accuracy_that_rises_never_fails() -> None:
    assert failed(clean=scored(accuracy=0.99)) == []


def test_without_labels_there_is_no_accuracy_gate() -> None:
    nameless = scored(accuracy=None, reference_accuracy=None)
    measured = Measured(emulated={"clean": nameless}, kernel=None, gap=None, clipped=0.0)
    names = [check.name for check in check_gates(measured, Gates())]
    assert names == [
        "clean agreement",
        "clean logit SQNR",
        "values clipped on held-out images",
    ]


def test_without_kernels_the_emulation_counts() -> None:
    measured = Measured(emulated={"clean": scored(sqnr_db=5.0)}, kernel=None, gap=None, clipped=0.0)
    assert not all(check_gates(measured, Gates()))


def test_limits_can_be_moved() -> None:
    assert failed(clean=scored(sqnr_db=10), gates=Gates(min_sqnr_db=9)) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "20", True, 1e9])
def test_a_limit_that_is_no_number_is_refused(value) -> None:
    with pytest.raises(SpecError, match="gate min_sqnr_db: got"):
        Gates(min_sqnr_db=value)


def test_sqnr_is_that_of_a_known_noise() -> None:
    reference = np.ones((10, 10), np.float32)
    assert sqnr_db(reference * 1.1, reference) == pytest.approx(20, abs=0.01)
    assert sqnr_db(reference, reference) == MAX_DB
    assert sqnr_db(reference, 0 * reference) == MIN_DB
    assert sqnr_db(reference * np.nan, reference) == MIN_DB


def test_a_score_counts_answers() -> None:
    reference = np.eye(4, dtype=np.float32)
    got = reference[[0, 1, 3, 3]]
    found = score(got, reference, np.array([0, 1, 2, 0]))
    assert found.agreement == 0.75
    assert found.reference_accuracy == 0.75
    assert found.accuracy == 0.5
    assert found.drop_points == 25


def test_a_limit_of_the_user_has_no_allowance_for_small_sets() -> None:
    small = scored(images=40, agreement=0.95, accuracy=0.86, reference_accuracy=0.905)
    assert failed(clean=small, noisy=small) == []
    exact = Gates(
        min_agreement=1,
        min_noisy_agreement=1,
        max_drop_points=0,
        max_noisy_drop_points=0,
        exact=("min_agreement", "min_noisy_agreement", "max_drop_points", "max_noisy_drop_points"),
    )
    assert failed(clean=small, noisy=small, gates=exact) == [
        "clean accuracy drop",
        "clean agreement",
        "noisy accuracy drop",
        "noisy agreement",
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_clipped", 2, "0 to 1"),
        ("min_agreement", 97, "0 to 1"),
        ("max_drop_points", -1, "0 to"),
    ],
)
def test_a_limit_that_would_switch_its_gate_off_is_refused(name, value, expected) -> None:
    with pytest.raises(SpecError, match=f"gate {name}: got {value}, expected {expected}"):
        Gates(**{name: value})
