"""The page for Prometheus, read back by the library's own parser."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from parnet_deploy.serve.protocol.request import Timings
from parnet_deploy.serve.service.metrics import IMAGES, SECONDS, Histogram, Metrics


def samples(metrics: Metrics) -> dict:
    """Every sample of the page by name and labels."""
    page, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


REST = (("model", "toy"), ("wire", "rest"))


def test_requests_are_counted_by_model_and_wire():
    metrics = Metrics()
    metrics.answered("toy", "rest", 0.003, Timings(queue_s=0.0002, infer_s=0.002))
    metrics.answered("toy", "rest", 30.0, Timings(prepare_s=0.01, infer_s=0.002))
    metrics.answered("toy", "grpc", 0.001, Timings())
    found = samples(metrics)
    total = "parnet_serve_request_seconds"
    assert found[(f"{total}_count", *REST)] == 2
    assert found[(f"{total}_sum", *REST)] == 30.003
    assert found[(f"{total}_bucket", ("le", "0.0025"), *REST)] == 0
    assert found[(f"{total}_bucket", ("le", "0.005"), *REST)] == 1
    assert found[(f"{total}_bucket", ("le", "10.0"), *REST)] == 1
    assert found[(f"{total}_bucket", ("le", "+Inf"), *REST)] == 2
    assert found[f"{total}_count", ("model", "toy"), ("wire", "grpc")] == 1
    assert found[("parnet_serve_infer_seconds_count", *REST)] == 2
    assert found[("parnet_serve_queue_seconds_sum", *REST)] == 0.0002
    assert found[("parnet_serve_prepare_seconds_count", *REST)] == 1  # tensors are not prepared


def test_everything_else_that_is_counted():
    metrics = Metrics(lambda: {"toy": (3, 5, True), "other": (0, 0, False)})
    metrics.refused("toy", "rest", "busy")
    metrics.refused("toy", "rest", "busy")
    metrics.refused("", "grpc", "not-found")
    metrics.ran("toy", 4)
    metrics.swapped("toy", "done")
    metrics.runs("toy", {"digest": "abc", "plan": "p"})
    metrics.runs("toy", {"digest": "def", "plan": "q"})
    found = samples(metrics)
    refusals = "parnet_serve_refusals_total"
    assert found[refusals, ("model", "toy"), ("reason", "busy"), ("wire", "rest")] == 2
    assert found[refusals, ("model", ""), ("reason", "not-found"), ("wire", "grpc")] == 1
    assert found["parnet_serve_batch_images_bucket", ("le", "4.0"), ("model", "toy")] == 1
    assert found["parnet_serve_batch_images_bucket", ("le", "2.0"), ("model", "toy")] == 0
    assert found["parnet_serve_swaps_total", ("model", "toy"), ("outcome", "done")] == 1
    assert found["parnet_serve_waiting_images", ("model", "toy")] == 3
    assert found["parnet_serve_in_flight_requests", ("model", "toy")] == 5
    assert found["parnet_serve_ready", ("model", "other")] == 0
    infos = [key for key in found if key[0] == "parnet_serve_model_info"]
    assert infos == [
        ("parnet_serve_model_info", ("digest", "def"), ("model", "toy"), ("plan", "q"))
    ]


@given(st.lists(st.floats(0, 1000)), st.sampled_from([SECONDS, IMAGES]))
def test_a_histogram_counts_what_is_at_most_its_bound(values, bounds):
    histogram = Histogram(bounds)
    for value in values:
        histogram.add(value)
    buckets, total = histogram.buckets()
    assert math.isclose(total, math.fsum(values), abs_tol=1e-9)
    for bound, (_, count) in zip((*bounds, math.inf), buckets, strict=True):
        assert count == sum(value <= bound for value in values)
    assert buckets[-1][0] == "+Inf"


def test_the_librarys_global_registry_is_left_alone():
    metrics = Metrics()
    metrics.ran("toy", 1)
    metrics.render()
    assert b"parnet" not in generate_latest(REGISTRY)


def test_two_servers_in_a_process_count_apart():
    one, other = Metrics(), Metrics()
    one.ran("toy", 1)
    key = ("parnet_serve_batch_images_count", ("model", "toy"))
    assert samples(one)[key] == 1
    assert key not in samples(other)
