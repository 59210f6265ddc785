"""The yardstick computes what it computed when its answer was stored."""

from __future__ import annotations

import numpy as np
import pytest

from parnet_deploy.bench.arms import yardstick
from parnet_deploy.bench.arms.yardstick import (
    LIMIT,
    MACS,
    MAX_REPEATS,
    open_yardstick,
    yardstick_error,
    yardstick_input,
    yardstick_layers,
    yardstick_repeats,
    yardstick_weights,
)

IMAGES = np.zeros((3, 3, 8, 8), np.float32)


def convolve(x, weight, stride):
    """(C, H, W) in float64, as the definition has it."""
    kernel = weight.shape[-1]
    x = np.pad(x, ((0, 0), *[(kernel // 2, kernel // 2)] * 2))
    side = (x.shape[1] - kernel) // stride + 1
    found = np.zeros((len(weight), side, side))
    for i in range(kernel):
        for k in range(kernel):
            seen = x[:, i : i + stride * side : stride, k : k + stride * side : stride]
            seen = seen[:, :side, :side]
            found += np.tensordot(weight[:, :, i, k].astype(np.float64), seen, 1)
    return found


def test_the_stored_answer_is_that_of_float64() -> None:
    flow, weights = yardstick_input()[0].astype(np.float64), yardstick_weights()
    for name, _, _, _, stride in yardstick_layers():
        if name == "head":
            flow = flow.mean(axis=(1, 2), keepdims=True)
        flow = convolve(flow, weights[name], stride)
        flow = flow if name == "head" else flow / (1 + np.exp(-flow))
    assert yardstick_error(flow.reshape(1, -1)) < 1e-8


def test_every_image_has_the_same_answer_and_it_is_checked() -> None:
    arm = open_yardstick(threads=1, repeats=2, directory="unused")
    answers = arm.run(IMAGES)
    assert answers.shape == (3, 8)
    assert (answers == answers[0]).all()
    assert arm.self_check is not None
    assert arm.self_check.error <= LIMIT == arm.self_check.limit
    assert arm.facts == {"version": 1, "threads": 1, "repeats": 2}
    assert arm.macs == 2 * MACS


def test_another_answer_is_found_out(monkeypatch) -> None:
    other = (*yardstick.ANSWER[:-1], yardstick.ANSWER[-1] + 0.01)
    monkeypatch.setattr(yardstick, "ANSWER", other)
    check = open_yardstick(threads=1).self_check
    assert check is not None
    assert check.error > check.limit


def test_the_arithmetic_is_what_it_says() -> None:
    side, macs = yardstick_input().shape[-1], 0
    for name, inputs, outputs, kernel, stride in yardstick_layers():
        side = 1 if name == "head" else side // stride
        macs += inputs * outputs * (kernel * side) ** 2
    assert macs == MACS


@pytest.mark.parametrize(
    ("macs", "repeats"), [(1, 1), (MACS, 1), (4_730_793_984, 4), (10**15, MAX_REPEATS)]
)
def test_a_call_takes_about_as_much_as_one_of_the_deployment(macs, repeats) -> None:
    assert yardstick_repeats(macs) == repeats
