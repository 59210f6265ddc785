"""What C calls, called from Python: replies, never exceptions."""

from __future__ import annotations

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.capi import bridge
from parnet_deploy.capi.status import Status


@pytest.fixture
def handle(digits):
    status, message, opened = bridge.open_runtime(str(digits), None, None, 0, 0, 0)
    assert (status, message) == (Status.OK, b"")
    yield opened
    opened.close()


def test_it_runs_from_address_to_address(handle, digits) -> None:
    image = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    logits = np.empty((2, 10), np.float32)
    for size in ((0, 0), (32, 32)):
        logits[:] = 0
        reply = handle.run(image.ctypes.data, logits.ctypes.data, 2, *size)
        assert reply == (Status.OK, b"", None)
        with Runtime.open(digits) as runtime:
            assert np.array_equal(runtime(image), logits)


def test_the_description_is_the_runtimes(handle) -> None:
    status, _, members = handle.describe()
    assert status == Status.OK
    assert members == (3, 32, 32, 32, 32, 10, 4, "onnxruntime", "onnxruntime-fp32-one-1threads")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("/nowhere", None, None, 0, 0, 0), Status.DEPLOYMENT, b"/nowhere"),
        ((None, "abacus", None, 0, 0, 0), Status.BACKEND, b"abacus"),
        ((None, None, "no-plan", 0, 0, 0), Status.DEPLOYMENT, b"no-plan"),
        ((None, None, None, -1, 0, 0), Status.INPUT, b"slots: got -1"),
        ((None, None, None, 0, 2000, 0), Status.INPUT, b"threads: got 2000"),
    ],
)
def test_what_cannot_be_opened_is_a_reply(digits, arguments, status, words) -> None:
    path, *others = arguments
    got, message, result = bridge.open_runtime(path or str(digits), *others)
    assert (got, result) == (status, None)
    assert words in message


def test_options_reach_the_runtime(digits, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(Runtime, "open", lambda *args, **options: seen.append((args, options)))
    bridge.open_runtime("here", "b", "p", 3, 2, 1)
    bridge.open_runtime("here", None, None, 0, 0, 0)
    given = {"backend": "b", "plan": "p", "slots": 3, "threads": 2, "on_device_lost": "replan"}
    default = {"backend": None, "plan": None, "slots": 1, "threads": None}
    assert seen == [
        (("here",), given),
        (("here",), {**default, "on_device_lost": "refuse"}),
    ]


def test_a_closed_handle_refuses_and_lets_go(handle) -> None:
    assert handle.close()[0] == handle.close()[0] == Status.OK
    assert vars(handle) == {"_runtime": None}
    for status, message, _ in (handle.run(4, 4, 1, 0, 0), handle.describe()):
        assert status == Status.BACKEND
        assert message == b"runtime: it is closed. Open it again with parnet_open."


def test_ctrl_c_is_no_reply() -> None:
    @bridge.answered
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
