"""The soak itself is ``make soak``; here, that it would see what must not be."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from parnet_deploy.errors import ExecutionError
from tests.soak.random_faults import RandomFaults
from tests.soak.soak import problems, slower

SPREAD = {"p50": 1.0, "p99": 2.0, "max": 3.0, "typical_p99": 2.0}
SERVED = {
    "ok": 100,
    "unexpected": 0,
    "unanswered": 0,
    "wrong": 0,
    "mixed": 0,
    "unhelpful": 0,
    "late_by_server": 0,
    "examples": [],
    "ok_ms_by_thirds": [SPREAD, SPREAD, SPREAD],
}
GROWTH = {"rss_bytes": 0.0, "fds": 0.0, "threads": 0.0}
GOOD = {
    "served": SERVED,
    "after": SERVED,
    "embedded": {
        "ends": {"ok": 50, "fail": 2, "bug": 1, "nan": 2, "timed out": 3},
        "injected": {"fail": 2, "bug": 1, "nan": 2, "hang": 1},
        "problems": [],
        "ok_ms_by_thirds": [SPREAD, SPREAD, SPREAD],
    },
    "vandals": {"acts": {}, "problems": []},
    "growth": {"server": GROWTH, "embedded": GROWTH},
    "proofs": 3.0,
    "swaps": 2.0,
    "metrics": {"parnet_serve_in_flight_requests": 0.0},
    "complaints": [],
}
BROKEN = [
    ("served/unanswered", 1, "1 unanswered"),
    ("served/wrong", 2, "2 wrong"),
    ("after/ok", 0, "nothing was answered"),
    ("embedded/problems", ["call: OSError()"], "embedded: call"),
    ("vandals/problems", ["a slow client got []"], "vandals: a slow"),
    ("embedded/ends/wrong", 1, "1 wrong"),
    ("embedded/ends/ok", 0, "0 right"),
    ("embedded/ends/timed out", 0, "nobody was told"),
    ("embedded/ends/fail", 3, "2 fail, 3 told"),
    ("embedded/injected/nan", 9, "9 nan, 2 told"),
    ("growth/server/rss_bytes", 1e9, "server: rss_bytes grew"),
    ("growth/embedded/threads", 5.0, "embedded: threads grew"),
    (
        "served/ok_ms_by_thirds",
        [SPREAD, SPREAD, {"p50": 1.0, "typical_p99": 21.0}],
        "served: typical_p99",
    ),
    ("embedded/ok_ms_by_thirds", [SPREAD, SPREAD, SPREAD | {"p50": 2.1}], "embedded: p50"),
    ("metrics/parnet_serve_in_flight_requests", 1.0, "in_flight_requests is 1"),
    ("proofs", 0.0, "0 proofs"),
    ("swaps", 0.0, "0 swaps"),
    ("complaints", ["Traceback"], "log: Traceback"),
]


def test_a_good_report_has_no_problems():
    assert problems(GOOD) == []


@pytest.mark.parametrize(("where", "value", "said"), BROKEN, ids=[where for where, _, _ in BROKEN])
def test_what_must_not_be_is_seen(where, value, said):
    found = copy.deepcopy(GOOD)
    *path, last = where.split("/")
    part = found
    for name in path:
        part = part[name]
    part[last] = value
    assert any(said in line for line in problems(found)), problems(found)


def test_slower_compares_the_ends():
    last = {"p50": 3.0, "typical_p99": 3.0}
    assert slower([SPREAD, {"typical_p99": 99.0}, last]) == {"p50": 3.0, "typical_p99": 1.5}
    assert slower([None, None, None]) == {}


def test_faults_happen_as_often_as_they_should_once_they_are_on():
    faults = RandomFaults(0, {"fail": 0.1, "nan": 0.2})
    seen = {"fail": 0, "nan": 0}
    for on in (False, True):
        faults.on = on
        for _ in range(1000):
            logits = np.zeros((1, 3), np.float32)
            try:
                faults.enter("head")
                faults.leave("head", [logits])
            except ExecutionError:
                seen["fail"] += 1
            seen["nan"] += bool(np.isnan(logits).any())
        assert faults.counts == {k: n for k, n in seen.items() if n}
    assert 50 < seen["fail"] < 150
    assert 120 < seen["nan"] < 280
