from __future__ import annotations

import json
from pathlib import Path

import pytest

from parnet_deploy.errors import CheckFailedError
from parnet_deploy.quantize.convert import Layer
from parnet_deploy.quantize.gates import Check, Measured
from parnet_deploy.quantize.metrics import Score
from parnet_deploy.quantize.search import Search, rank, share
from parnet_deploy.quantize.search_log import SearchLog

LAYERS = tuple(
    Layer(name=name, part=part, macs=macs)
    for name, part, macs in (("a", "p", 100), ("b", "p", 100), ("c", "q", 10), ("d", "q", 200))
)
ALONE = {"a": 30.0, "b": 20.0, "c": 22.0, "d": 60.0}


class Network:
    """Its noise is the sum of that of the lowered layers."""

    def __init__(self, need: float) -> None:
        self.need = need
        self.tried: list[tuple[str, ...]] = []
        self.asked: list[str] = []

    def evaluate(self, keep) -> Measured:
        self.tried.append(tuple(keep))
        noise = sum(10 ** (-db / 10) for name, db in ALONE.items() if name not in keep)
        found = Score(images=10, agreement=1.0, sqnr_db=-noise * 1000, finite=True)
        return Measured(emulated={"clean": found}, kernel=None, gap=None, clipped=0.0)

    def judge(self, measured: Measured) -> tuple[Check, ...]:
        got = measured.served["clean"].sqnr_db
        return (Check(name="noise", got=got, limit=self.need, at_least=True, unit="dB"),)

    def sensitivity(self, log: SearchLog) -> dict[str, float]:
        for name, value in ALONE.items():
            if name not in log.sensitivity:
                self.asked.append(name)
                log.add_sensitivity(name, value)
        return log.sensitivity

    def search(self, log: SearchLog, **changes) -> Search:
        return Search(
            layers=LAYERS,
            fixed=changes.pop("fixed", ()),
            evaluate=self.evaluate,
            judge=self.judge,
            sensitivity=self.sensitivity,
            log=log,
            **changes,
        )


def memory() -> SearchLog:
    return SearchLog(None, "key")


def test_nothing_is_measured_if_everything_passes_at_once() -> None:
    network = Network(need=-100)
    found = network.search(memory()).run()
    assert found.keep == ()
    assert network.asked == []
    assert network.tried == [()]


def test_the_most_harmful_for_their_cost_go_back_first() -> None:
    """b is worse than c, but c costs a tenth."""
    assert [layer.name for layer in rank(LAYERS, ALONE)] == ["c", "b", "a", "d"]
    network = Network(need=-1.5)
    found = network.search(memory()).run()
    assert found.keep == ("c", "b")
    assert network.tried == [(), ("c",), ("c", "b")]
    assert [bool(step["failed"]) for step in found.steps] == [True, True, False]


def test_layers_that_must_stay_are_kept_from_the_start() -> None:
    network = Network(need=-100)
    assert network.search(memory(), fixed={"d"}).run().keep == ("d",)
    assert network.tried == [("d",)]


def test_it_gives_up_when_too_little_would_be_left() -> None:
    network = Network(need=-0.01)
    with pytest.raises(CheckFailedError, match=r"with 1 layer back .* 98% .*at least 80%"):
        network.search(memory(), min_share=0.8).run()
    assert ("c", "b") not in network.tried


def test_the_share_is_of_the_work() -> None:
    assert share(LAYERS, ()) == 1
    assert share(LAYERS, ("d",)) == pytest.approx(210 / 410)


def test_an_interrupted_search_measures_and_tries_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    first = Network(need=-1.5)
    evaluate = first.evaluate

    def interrupt(keep):
        if keep == ["c", "b"]:
            raise KeyboardInterrupt
        return evaluate(keep)

    first.evaluate = interrupt
    with pytest.raises(KeyboardInterrupt):
        first.search(SearchLog(path, "key")).run()
    second = Network(need=-1.5)
    log = SearchLog(path, "key")
    assert log.resumed
    assert second.search(log).run().keep == ("c", "b")
    assert second.asked == []
    assert second.tried == [("c", "b")]


def test_another_question_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    SearchLog(path, "key").add_sensitivity("a", 1.0)
    assert SearchLog(path, "key").sensitivity == {"a": 1.0}
    assert not SearchLog(path, "other").resumed


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"key": "key", "sensitivity": {"a": "x"}, "steps": [1]}'],
)
def test_a_damaged_log_is_no_log(tmp_path: Path, text) -> None:
    path = tmp_path / "log.json"
    path.write_text(text)
    log = SearchLog(path, "key")
    assert (log.sensitivity, log.steps, log.resumed) == ({}, [], False)


def test_a_disk_that_refuses_costs_the_log_and_not_the_search(tmp_path: Path) -> None:
    log = SearchLog(tmp_path / "nowhere" / "log.json", "key")
    log.add_sensitivity("a", 1.0)
    assert log.sensitivity == {"a": 1.0}
    log.remove()


def test_the_log_is_removed_at_the_end(tmp_path: Path) -> None:
    log = SearchLog.of(tmp_path, "int8-cpu", "key")
    log.add_step(keep=[], failed=["x"])
    (path,) = tmp_path.iterdir()
    assert path.name == ".search-int8-cpu.json"
    assert json.loads(path.read_text())["key"] == "key"
    log.remove()
    assert list(tmp_path.iterdir()) == []
