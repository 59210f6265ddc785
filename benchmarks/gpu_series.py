"""Time arms alternated: device, enqueue, device to device, host to host, all in each round."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from gpu_arms import GpuArm
from gpu_clock import Clock

from parnet_deploy.measure import Latency

Key = TypeVar("Key", bound=Hashable)

WARM_UP = 10
_WARM_UP_CPU = 1
_KINDS = ("device", "enqueue", "through", "host")


@dataclass(frozen=True, kw_only=True)
class Series:
    """Samples of one arm; sample i of every arm and kind belongs to round i.

    ``device``: the device's own time. ``enqueue``: until the host is free again. ``through``: from
    static input to static output, waited for. ``host``: from a host array to a host array.
    """

    device: Latency
    enqueue: Latency
    through: Latency
    host: Latency


def measure(
    arms: Mapping[Key, GpuArm],
    image: np.ndarray,
    clock: Clock,
    *,
    rounds: int,
    deadline: float,
) -> dict[Key, Series]:
    """Run rounds until there are enough or the deadline (monotonic seconds) has passed.

    At least three rounds are run. The order of the arms turns round from one round to the next.
    """
    order = list(arms)
    calls = {key: _calls(arms[key], image, clock) for key in order}
    first = {key: {kind: call() for kind, call in calls[key].items()} for key in order}
    for _ in range(WARM_UP if clock.name == "cuda" else _WARM_UP_CPU):
        for key in order:
            for call in calls[key].values():
                call()
    samples: dict[Key, dict[str, list[float]]] = {k: {n: [] for n in _KINDS} for k in order}
    for done in range(rounds):
        if done >= 3 and time.monotonic() > deadline:
            break
        for key in order if done % 2 == 0 else reversed(order):
            for kind, call in calls[key].items():
                samples[key][kind].append(call())
    return {
        key: Series(
            **{
                kind: Latency(
                    name=str(kind), samples_ms=tuple(samples[key][kind]), first_ms=first[key][kind]
                )
                for kind in _KINDS
            }
        )
        for key in order
    }


def _calls(arm: GpuArm, image: np.ndarray, clock: Clock) -> dict[str, Callable[[], float]]:
    """Each kind of measurement as a call that returns milliseconds. None leaves work behind."""

    def device() -> float:
        clock.synchronize()
        return clock.device_ms(arm.enqueue)

    def enqueue() -> float:
        clock.synchronize()
        start = time.perf_counter_ns()
        arm.enqueue()
        taken = time.perf_counter_ns() - start
        clock.synchronize()
        return taken / 1e6

    def through() -> float:
        clock.synchronize()
        start = time.perf_counter_ns()
        arm.enqueue()
        clock.synchronize()
        return (time.perf_counter_ns() - start) / 1e6

    def host() -> float:
        clock.synchronize()
        start = time.perf_counter_ns()
        arm.answer(image)
        return (time.perf_counter_ns() - start) / 1e6

    return {"device": device, "enqueue": enqueue, "through": through, "host": host}
