"""Input sizes: written and read, fixed and ranged, checked and refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.errors import SpecError
from parnet_deploy.input_size import InputSize
from tests.networks import SPEC

Sides = st.integers(1, 2000)


@given(a=Sides, b=Sides, more=st.tuples(st.integers(0, 500), st.integers(0, 500)))
def test_text_and_json_round_trips(a: int, b: int, more: tuple[int, int]) -> None:
    size = InputSize(low=(a, b), high=(a + more[0], b + more[1]))
    assert InputSize.parse(str(size)) == size
    assert InputSize.from_json(json.loads(json.dumps(size.to_json()))) == size
    assert size.fixed == (more == (0, 0)) == (":" not in str(size))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("224", (224, 224), (224, 224)),
        ("224x320", (224, 320), (224, 320)),
        ("224X320", (224, 320), (224, 320)),
        ("192:256", (192, 192), (256, 256)),
        ("192x64:256x128", (192, 64), (256, 128)),
        ("192:256x320", (192, 192), (256, 320)),
        ("64:64", (64, 64), (64, 64)),
    ],
)
def test_forms(text: str, low: tuple[int, int], high: tuple[int, int]) -> None:
    assert InputSize.parse(text) == InputSize(low=low, high=high)


@pytest.mark.parametrize(
    "text",
    ["", ":", "x", "224x", "x224", "224:", "a", "-32", "3.5", "1x2x3", "1:2:3", " 224", "224 ",
     "²", "٣٢", "1e3", "0x", "9" * 5000, "1000000", "\n"],
)  # fmt: skip
def test_text_that_is_no_size(text: str) -> None:
    with pytest.raises(SpecError, match=r"input size: got .*, expected"):
        InputSize.parse(text)


@given(text=st.text(alphabet="0123456789x:X -", max_size=12))
def test_any_text_is_a_size_or_an_error_of_ours(text: str) -> None:
    try:
        size = InputSize.parse(text)
    except SpecError:
        return
    assert InputSize.parse(str(size)) == size


@pytest.mark.parametrize(
    ("low", "high"), [((64, 64), (32, 32)), ((64, 32), (32, 64)), ((0, 32), (32, 32))]
)
def test_an_empty_range_cannot_be(low: tuple[int, int], high: tuple[int, int]) -> None:
    with pytest.raises(SpecError, match=r"input size: got \(.*\) to \(.*\), expected LOW <= HIGH"):
        InputSize(low=low, high=high)
    with pytest.raises(SpecError):
        InputSize.from_json({"low": list(low), "high": list(high)})


def test_an_empty_range_in_text() -> None:
    with pytest.raises(SpecError, match="expected LOW <= HIGH"):
        InputSize.parse("256:192")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"low": [32, 32]},
        {"low": [32, 32], "high": [32]},
        {"low": [32, 32], "high": [32, 32, 32]},
        {"low": [32, 32], "high": ["32", "32"]},
        {"low": [32, 32], "high": [32.5, 32.5]},
        {"low": [32, 32], "high": None},
        {"low": [32, 32], "high": [32, 32], "more": 1},
        [],
        "32",
    ],
)
def test_json_that_is_no_size(data: object) -> None:
    with pytest.raises(SpecError, match="input size: cannot read it"):
        InputSize.from_json(data)  # type: ignore[arg-type]


@given(height=st.integers(0, 200), width=st.integers(0, 200))
def test_accepted_are_multiples_inside_the_range(height: int, width: int) -> None:
    size = InputSize(low=(32, 64), high=(96, 160))
    inside = 32 <= height <= 96 and 64 <= width <= 160
    if inside and height % 32 == width % 32 == 0:
        size.check(SPEC, height, width)
        return
    with pytest.raises(SpecError) as caught:
        size.check(SPEC, height, width)
    expected = "expected multiples of 32" if inside else "expected 32x64:96x160. Resize the image"
    assert f"input size: got {height}x{width}, {expected}" in str(caught.value)


def test_the_next_step_is_a_command() -> None:
    with pytest.raises(SpecError, match="parnet-deploy export --input-size 64x64"):
        InputSize.parse("32").check(SPEC, 64, 64)
