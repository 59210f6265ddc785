"""Request ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.shells.request_id import RequestIds


@pytest.mark.parametrize("sent", ["a", b"a-1", "x" * 128, "{9f}~!"])
def test_what_can_be_logged_is_taken(sent) -> None:
    assert RequestIds().take(sent) == (sent.decode() if isinstance(sent, bytes) else sent)


@given(st.none() | st.text() | st.binary())
def test_everything_else_is_replaced_by_one_of_its_own(sent) -> None:
    ids = RequestIds()
    taken = ids.take(sent)
    assert taken.isascii()
    assert taken.isprintable()
    assert 0 < len(taken) <= 128
    assert ids.take(None) != ids.take(None)
