"""Bytes of all clients together."""

from __future__ import annotations

import pytest

from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.security.budget import Budget


def test_what_does_not_fit_is_busy_and_not_counted() -> None:
    budget = Budget(10)
    budget.take(6)
    with pytest.raises(RefusedError, match=r"got 11 bytes .* at most 10") as refused:
        budget.take(5)
    assert refused.value.kind == "busy"
    budget.take(4)
    budget.give_back(6)
    budget.take(6)
    assert budget.taken == 10
