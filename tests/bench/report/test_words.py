"""Figures as people read them."""

from __future__ import annotations

import pytest

from parnet_deploy.bench.report import words
from parnet_deploy.bench.result import Interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.2379, "0.238"),
        (9.999, "10.00"),
        (53.72, "53.7"),
        (145.2, "145"),
        (12345, "12,345"),
    ],
)
def test_number_text(value: float, text: str) -> None:
    assert words.number_text(value) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 ms"), (0.0123, "12.3 us"), (0.2, "0.200 ms"), (53.72, "53.7 ms"), (12500, "12.5 s")],
)
def test_ms_text(ms: float, text: str) -> None:
    assert words.ms_text(ms) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1e-4, "1e-4"), (2.57e-7, "2.6e-7"), (9.96e-8, "1e-7"), (0.05, "5e-2")],
)
def test_error_text(value: float, text: str) -> None:
    assert words.error_text(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.0004, "< 0.1 %"),
        (0.066, "6.6 %"),
        (0.0996, "10 %"),
        (0.621, "62 %"),
        (1, "100 %"),
    ],
)
def test_share_text(share: float, text: str) -> None:
    assert words.share_text(share) == text


def test_nearly_all_is_never_called_all() -> None:
    assert words.exact_share_text(0.99999) == "99.99 %"
    assert words.exact_share_text(1.0) == "100 %"


def test_a_ratio_is_turned_round_with_its_bounds() -> None:
    found = words.ours_of_it(Interval(value=2.0, low=1.6, high=2.5))
    assert found == {"value": 0.5, "low": 0.4, "high": 0.625}
    assert words.ratio_text(found) == "0.50 (0.40 to 0.62)"
    assert words.ratio_text(Interval(value=0.052, low=0.05, high=0.06)) == "0.052 (0.050 to 0.060)"


@pytest.mark.parametrize(
    ("name", "title", "resnet"),
    [
        ("resnet34", "ResNet-34", True),
        ("resnet-50", "ResNet-50", True),
        ("torch", "eager PyTorch", False),
        ("engines/resnet34-like", "engines/resnet34-like", False),
    ],
)
def test_names_of_arms(name: str, title: str, resnet: bool) -> None:
    assert words.arm_title(name) == title
    assert words.is_resnet(name) is resnet


def test_lists_and_counts() -> None:
    assert words.shortened("a/b", 5) == "a/b"
    assert words.shortened("engines/parnet-m", 9) == "…parnet-m"
    assert words.listed([]) == ""
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.count_text(18_400_000) == "18.4 M"
    assert words.count_text(4_730_000_000) == "4.73 G"
    assert words.count_text(12) == "12"
    assert words.size_text((224, 320)) == "224x320"
