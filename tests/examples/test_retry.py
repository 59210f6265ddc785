"""The client that asks again, where it needs no server."""

from __future__ import annotations

import pytest

from tests.examples.load import load_example

retry = load_example("clients/retry.py")


def failing(times: int, after_s: float = 0.0):
    left = [times]

    def ask() -> str:
        if left[0]:
            left[0] -= 1
            raise retry.AgainError("lost", after_s)
        return "answer"

    return ask


def test_it_asks_until_there_is_an_answer() -> None:
    waited: list[float] = []
    assert retry.retrying(failing(3), wait=waited.append) == "answer"
    for seconds, longest_s in zip(waited, (0.05, 0.1, 0.2), strict=True):
        assert longest_s / 2 <= seconds <= longest_s


def test_it_waits_as_long_as_the_server_says() -> None:
    waited: list[float] = []
    retry.retrying(failing(1, after_s=7.0), wait=waited.append)
    assert waited == [7.0]


def test_it_gives_up() -> None:
    waited: list[float] = []
    with pytest.raises(retry.AgainError):
        retry.retrying(failing(5), attempts=5, wait=waited.append)
    assert len(waited) == 4


def test_a_refusal_is_not_tried_again() -> None:
    def ask() -> None:
        raise ValueError("400")

    with pytest.raises(ValueError, match="400"):
        retry.retrying(ask, wait=pytest.fail)


def test_nobody_answers() -> None:
    client = retry.RestClient("127.0.0.1", 1, "toy")
    with pytest.raises(retry.AgainError, match="connection"):
        client.infer(retry.np.zeros((1, 3, 8, 8), "f4"))
