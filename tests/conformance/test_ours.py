"""Our server beside the real Triton: the same clients, the same model, the same answers."""

from __future__ import annotations

import pytest

from tests.conformance.clients import SUITES
from tests.conformance.differences import KEPT, judge

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize("suite", SUITES)
def test_our_server_answers_as_triton_does(triton, ours, asked, suite):
    theirs, mine = asked(suite, triton), asked(suite, ours)
    assert set(mine) == set(theirs)
    found = {name: judge(suite, name, mine[name], theirs[name]) for name in theirs}
    assert {name: text for name, text in found.items() if text} == {}


@pytest.mark.parametrize("suite", SUITES)
def test_our_server_never_fails_by_its_own_fault(ours, asked, suite):
    for name, outcome in asked(suite, ours).items():
        answer = outcome.get("answer")
        status = answer.get("status", 200) if isinstance(answer, dict) else 200
        assert status != 500, name
        assert outcome.get("error") not in {"status 500", "INTERNAL", "UNKNOWN"}, name
        if isinstance(answer, dict) and status != 200:
            assert answer["told"] == "error", f"{name}: an error that clients cannot read"


def test_every_listed_difference_is_of_a_probe(triton, asked):
    for entry in KEPT:
        assert entry.suite in SUITES
        assert set(entry.probes) <= set(asked(entry.suite, triton)), entry
        assert len(entry.why) > 10
