"""The comparison finds what it must, and nothing else."""

from __future__ import annotations

import copy
import math

import pytest

from tests.conformance.compare import difference
from tests.conformance.differences import KEPT, judge

TENSOR = {"dtype": "float32", "shape": [1, 3], "values": [4.0, -1.0, math.nan]}
CLASSES = {"dtype": "BYTES", "shape": [1, 2], "values": ["4.000000:0:cat", "-1.000000:1"]}
ANSWER = {"answer": {"id": "x", "logits": [TENSOR, CLASSES], "n": 1}}
ERROR = {"error": "status 404", "message": "one"}


def edited(edit):
    found = copy.deepcopy(ANSWER)
    edit(found["answer"])
    return found


def test_alike():
    assert difference(ANSWER, copy.deepcopy(ANSWER)) is None
    assert difference(ERROR, {**ERROR, "message": "other words"}) is None
    nearly = edited(lambda a: a["logits"][0]["values"].__setitem__(0, 4.0003))
    assert difference(nearly, ANSWER) is None
    nearly = edited(lambda a: a["logits"][1]["values"].__setitem__(0, "4.000300:0:cat"))
    assert difference(nearly, ANSWER) is None


@pytest.mark.parametrize(
    "edit",
    [
        lambda a: a.update(id="y"),
        lambda a: a.update(n=True),
        lambda a: a.update(more=1),
        lambda a: a["logits"].pop(),
        lambda a: a["logits"][0].update(shape=[3, 1]),
        lambda a: a["logits"][0].update(dtype="float64"),
        lambda a: a["logits"][0]["values"].__setitem__(0, 4.001),
        lambda a: a["logits"][0]["values"].__setitem__(0, math.nan),
        lambda a: a["logits"][0]["values"].__setitem__(2, 0.0),
        lambda a: a["logits"][0]["values"].__setitem__(2, math.inf),
        lambda a: a["logits"][1]["values"].reverse(),
        lambda a: a["logits"][1]["values"].__setitem__(0, "4.001000:0:cat"),
        lambda a: a["logits"][1]["values"].__setitem__(0, "4.0:0:cat"),
        lambda a: a["logits"][1]["values"].__setitem__(0, "4.000000:0:dog"),
        lambda a: a["logits"][1]["values"].__setitem__(0, "4.000000:0"),
        lambda a: a["logits"][1]["values"].__setitem__(0, "cat"),
    ],
)
def test_unlike(edit):
    assert difference(edited(edit), ANSWER)
    assert difference(ANSWER, edited(edit))


def test_errors_unlike():
    assert difference(ERROR, {**ERROR, "error": "status 400"})
    assert difference(ERROR, ANSWER)
    assert difference(ANSWER, ERROR)


def test_a_listed_difference_must_be_as_listed():
    theirs = {"answer": {"status": 500, "told": "error"}}
    ours = {"answer": {"status": 400, "told": "error"}}
    assert judge("raw_rest", "broken_json", ours, theirs) is None
    assert "remove it" in judge("raw_rest", "broken_json", theirs, theirs)
    assert "ours is" in judge("raw_rest", "broken_json", {"answer": {"status": 404}}, theirs)
    other = {"answer": {"status": 200, "shape": [1]}}
    assert "theirs is" in judge("raw_rest", "broken_json", ours, other)
    assert "answer.status" in judge("raw_rest", "get_infer", ours, theirs)
    assert judge("raw_rest", "get_infer", theirs, theirs) is None


def test_lists_differences_once():
    pairs = [(entry.suite, probe) for entry in KEPT for probe in entry.probes]
    assert len(pairs) == len(set(pairs))
