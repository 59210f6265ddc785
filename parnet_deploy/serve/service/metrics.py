"""What the server counts for Prometheus: by model and wire, in a registry of its own.

Counting is a search and an addition on the event loop; the library's own families, which lock and
look labels up, are only made when somebody asks for the page.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ..protocol.contract import Wire
from ..protocol.refusal import Kind
from ..protocol.request import Timings

SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
IMAGES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)

Gauges = Mapping[str, tuple[int, int, bool]]
"""Model -> images that wait, requests in flight, whether it is ready."""


class Histogram:
    """Counts of values by upper bound."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulated counts by upper bound, and the sum, as the library wants them."""
        total, found = 0, []
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            total += count
            found.append(("+Inf" if bound == math.inf else repr(bound), float(total)))
        return found, self._sum


class _Requests:
    """Histograms of one model on one wire."""

    __slots__ = ("infer", "prepare", "queue", "total")

    def __init__(self) -> None:
        self.total, self.queue = Histogram(SECONDS), Histogram(SECONDS)
        self.infer, self.prepare = Histogram(SECONDS), Histogram(SECONDS)


class Metrics:
    """All counts of one server. Lives on its event loop: not thread-safe.

    Args:
        gauges: What is now; asked when the page is.
    """

    def __init__(self, gauges: Callable[[], Gauges] = dict) -> None:
        self._gauges = gauges
        self._requests: dict[tuple[str, Wire], _Requests] = {}
        self._batches: dict[str, Histogram] = {}
        self._refusals: Counter[tuple[str, Wire, Kind]] = Counter()
        self._models: dict[str, dict[str, str]] = {}
        self._swaps: Counter[tuple[str, str]] = Counter()
        self._proofs: Counter[tuple[str, str]] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def answered(self, model: str, wire: Wire, total_s: float, timings: Timings) -> None:
        """A request was answered, so long after it had come."""
        found = self._requests.get((model, wire))
        if found is None:
            found = self._requests[model, wire] = _Requests()
        found.total.add(total_s)
        found.queue.add(timings.queue_s)
        found.infer.add(timings.infer_s)
        if timings.prepare_s:
            found.prepare.add(timings.prepare_s)

    def refused(self, model: str, wire: Wire, kind: Kind) -> None:
        """A request was refused. ``model``: one that is served, else empty: names are invented."""
        self._refusals[model, wire, kind] += 1

    def ran(self, model: str, images: int) -> None:
        """The engine has run a batch."""
        if model not in self._batches:
            self._batches[model] = Histogram(IMAGES)
        self._batches[model].add(images)

    def runs(self, model: str, about: Mapping[str, str]) -> None:
        """This deployment answers for a model from now on."""
        self._models[model] = dict(about)

    def swapped(self, model: str, outcome: str) -> None:
        """Another deployment was to take over: "done" or "failed"."""
        self._swaps[model, outcome] += 1

    def proved(self, model: str, outcome: str) -> None:
        """A model was to prove itself: "passed", "failed" or "error" (it could not be asked)."""
        self._proofs[model, outcome] += 1

    def render(self) -> tuple[bytes, str]:
        """The page, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Any]:
        """What the registry asks for."""
        yield from self._histograms()
        refused = CounterMetricFamily(
            "parnet_serve_refusals",
            "Requests refused or failed.",
            labels=["model", "wire", "reason"],
        )
        for labels, count in sorted(self._refusals.items()):
            refused.add_metric(labels, count)
        swapped = CounterMetricFamily(
            "parnet_serve_swaps", "Deployments that were to take over.", labels=["model", "outcome"]
        )
        for (model, outcome), count in sorted(self._swaps.items()):
            swapped.add_metric([model, outcome], count)
        proved = CounterMetricFamily(
            "parnet_serve_proofs",
            "Canaries run again while in service.",
            labels=["model", "outcome"],
        )
        for (model, outcome), count in sorted(self._proofs.items()):
            proved.add_metric([model, outcome], count)
        yield from (refused, swapped, proved, *self._now(), self._info())

    def describe(self) -> Iterable[Any]:
        """Nothing is promised before it is counted."""
        return ()

    def _histograms(self) -> Iterator[Any]:
        pages = {
            "total": ("request", "From a request's first byte to its answer, made."),
            "queue": ("queue", "Waiting for the engine."),
            "infer": ("infer", "The engine run, copies included."),
            "prepare": ("prepare", "Decoding and scaling of encoded images."),
        }
        for attribute, (name, text) in pages.items():
            family = HistogramMetricFamily(
                f"parnet_serve_{name}_seconds", text, labels=["model", "wire"]
            )
            for labels, requests in sorted(self._requests.items()):
                buckets, total = getattr(requests, attribute).buckets()
                family.add_metric(labels, buckets, total)
            yield family
        family = HistogramMetricFamily(
            "parnet_serve_batch_images", "Images that shared an engine run.", labels=["model"]
        )
        for model, batches in sorted(self._batches.items()):
            buckets, total = batches.buckets()
            family.add_metric([model], buckets, total)
        yield family

    def _now(self) -> tuple[Any, ...]:
        waiting = GaugeMetricFamily(
            "parnet_serve_waiting_images", "Images in the queue.", labels=["model"]
        )
        flying = GaugeMetricFamily(
            "parnet_serve_in_flight_requests", "Requests not answered yet.", labels=["model"]
        )
        ready = GaugeMetricFamily("parnet_serve_ready", "1 if it can answer.", labels=["model"])
        for model, (images, requests, is_ready) in sorted(self._gauges().items()):
            waiting.add_metric([model], images)
            flying.add_metric([model], requests)
            ready.add_metric([model], float(is_ready))
        return waiting, flying, ready

    def _info(self) -> InfoMetricFamily:
        family = InfoMetricFamily(
            "parnet_serve_model",
            "What answers.",
            labels=["model"],
        )
        for model, about in sorted(self._models.items()):
            family.add_metric([model], about)
        return family
