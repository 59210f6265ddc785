"""The protocol's statistics."""

from __future__ import annotations

from parnet_deploy.serve.protocol.request import Timings
from parnet_deploy.serve.service import statistics as module
from parnet_deploy.serve.service.statistics import ModelStatistics


def test_counts_and_times_add_up(monkeypatch):
    monkeypatch.setattr(module.time, "time", lambda: 1_700_000_000.25)
    found = ModelStatistics()
    found.succeeded(0.010, Timings(prepare_s=0.001, queue_s=0.002, infer_s=0.003, batch=3))
    found.succeeded(0.020, Timings(queue_s=0.004, infer_s=0.006, batch=3))
    found.failed(0.5)
    found.ran(3, 0.003)
    found.ran(3, 0.005)
    found.ran(1, 0.001)
    data = found.to_json("toy", "1")
    assert (data["name"], data["version"]) == ("toy", "1")
    assert data["last_inference"] == 1_700_000_000_250
    assert (data["inference_count"], data["execution_count"]) == (7, 3)
    assert data["inference_stats"] == {
        "success": {"count": 2, "ns": 30_000_000},
        "fail": {"count": 1, "ns": 500_000_000},
        "queue": {"count": 2, "ns": 6_000_000},
        "compute_input": {"count": 2, "ns": 1_000_000},
        "compute_infer": {"count": 2, "ns": 9_000_000},
        "compute_output": {"count": 2, "ns": 14_000_000},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    assert [(b["batch_size"], b["compute_infer"]) for b in data["batch_stats"]] == [
        (1, {"count": 1, "ns": 1_000_000}),
        (3, {"count": 2, "ns": 8_000_000}),
    ]


def test_at_first_everything_is_nought():
    data = ModelStatistics().to_json("toy", "1")
    assert (data["last_inference"], data["inference_count"], data["batch_stats"]) == (0, 0, [])


def test_a_clock_that_was_read_late_makes_no_negative_time():
    found = ModelStatistics()
    found.succeeded(0.001, Timings(queue_s=0.002, infer_s=0.003))
    assert found.to_json("toy", "1")["inference_stats"]["compute_output"] == {"count": 1, "ns": 0}
