"""How long a body may take."""

from __future__ import annotations

from parnet_deploy.serve.security.limits import Limits


def test_a_body_that_keeps_coming_gets_more_time() -> None:
    limits = Limits(body_s=2.0, body_rate_bytes_s=1000.0)
    assert limits.body_time_s(0) == 2.0
    assert limits.body_time_s(5000) == 7.0
