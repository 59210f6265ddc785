"""Every error has a status, and C and Python agree on it."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy import errors
from parnet_deploy.capi import CMAKE_DIR, bridge
from parnet_deploy.capi.status import MESSAGE_BYTES, Status, explain

HEADER = (CMAKE_DIR / "include" / "parnet_deploy.h").read_text(encoding="utf-8")
SOURCE = (CMAKE_DIR / "parnet_deploy.c").read_text(encoding="utf-8")

EXPECTED = {
    errors.InputError: Status.INPUT,
    errors.SpecError: Status.INPUT,
    errors.DeploymentError: Status.DEPLOYMENT,
    errors.BackendError: Status.BACKEND,
    errors.DeviceLostError: Status.DEVICE_LOST,
    errors.CheckFailedError: Status.CHECK_FAILED,
    # no runtime raises these
    errors.ParnetDeployError: Status.INTERNAL,
    errors.CheckpointError: Status.INTERNAL,
    errors.ServeError: Status.INTERNAL,
}


@pytest.mark.parametrize(
    "kind", [thing for thing in vars(errors).values() if inspect.isclass(thing)]
)
def test_an_error_has_the_status_of_its_branch(kind) -> None:
    error = kind("pillow", "images") if kind is errors.MissingExtraError else kind("what: why.")
    branch = next(base for base in kind.__mro__ if base in EXPECTED)
    status, message = explain(error)
    assert status == EXPECTED[branch]
    assert str(error).encode() in message
    if status != Status.INTERNAL:
        assert message == str(error).encode()


def test_a_bug_keeps_its_traceback_behind_its_name() -> None:
    try:
        _ = {}["no key"]
    except KeyError as error:
        status, message = explain(error)
    assert status == Status.INTERNAL
    assert message.startswith(b"KeyError: 'no key'\nTraceback")
    assert b"test_a_bug_keeps_its_traceback" in message


def test_the_header_has_the_same_statuses_and_version() -> None:
    listed = re.findall(r"^    PARNET_(\w+) = (\d+)", HEADER, re.MULTILINE)
    assert {name: int(value) for name, value in listed} == {s.name: s.value for s in Status}
    (version,) = re.findall(r"^#define PARNET_ABI_VERSION (\d+)$", HEADER, re.MULTILINE)
    assert int(version) == bridge.ABI_VERSION


def test_the_buffer_of_the_library_holds_the_longest_message() -> None:
    (size,) = re.findall(r"char last_error\[(\d+)\]", SOURCE)
    assert int(size) > MESSAGE_BYTES
    assert f"{MESSAGE_BYTES} bytes at most" in HEADER


@given(st.text(st.characters(codec=None), min_size=1, max_size=8), st.integers(0, 4010))
def test_a_message_is_utf8_and_never_too_long(text: str, length: int) -> None:
    _, message = explain(errors.InputError(text * length))
    whole = (text * length).encode("utf-8", "backslashreplace")
    assert whole.startswith(message)
    assert min(len(whole), MESSAGE_BYTES - 3) <= len(message) <= MESSAGE_BYTES
    message.decode("utf-8")
