"""What a run was made on: the machine, how it is run, and what happened to it meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ..machine.cpu_state import describe_cpu, read_counters
from ..machine.describe import describe_machine
from ..machine.gpu_state import read_gpu_states

DECISIVE = ("cpu", "isa", "cores_usable", "gpus", "gpu_driver")
"""Facts without which two runs are not of one machine. Others (versions, the governor, the kernel)
may change: that is what a comparison is for."""

_GPU_KIND = ("name", "compute_capability", "memory_mib", "multiprocessors")


def capture(digest: str | None = None) -> dict[str, Any]:
    """The machine now: ``machine.describe`` and more. Take one before a run and one after.

    The counters cover this process and those below it, so the arms' processes must be alive, or
    reaped, both times.

    Args:
        digest: Of the deployment.
    """
    about = describe_machine()
    cpu = describe_cpu()
    states = read_gpu_states([gpu["uuid"] for gpu in about["gpus"]]) if about["gpus"] else []
    return {
        **about,
        **cpu,
        "governor": cpu["governor"] or about["governor"],
        "gpu_states": states,
        "deployment": digest,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "counters": {"at_s": time.monotonic(), **read_counters()},
    }


def joined(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """One environment for the report: as it was before, and what changed under ``during``."""
    found = {name: value for name, value in before.items() if name != "counters"}
    return {**found, "during": during(before, after)}


def during(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What happened between two captures.

    ``foreign_cores`` is how many of the cores that this process may use others kept busy on
    average; ``steal_share`` the share of their time that a hypervisor gave to other guests.
    """
    then, now = before["counters"], after["counters"]
    seconds = max(now["at_s"] - then["at_s"], 1e-9)
    busy, own, steal, periods, stopped = (
        None if now[name] is None or then[name] is None else now[name] - then[name]
        for name in ("busy_s", "own_s", "steal_s", "throttled_periods", "throttled_s")
    )
    foreign = None if busy is None or own is None else max(0.0, busy - own)
    return {
        "seconds": round(seconds, 3),
        "own_cores": None if own is None else round(own / seconds, 3),
        "foreign_cores": None if foreign is None else round(foreign / seconds, 3),
        "steal_share": (
            None if steal is None else round(steal / seconds / len(before["affinity"]), 4)
        ),
        "throttled_periods": periods,
        "throttled_s": stopped,
        "load_average": after["load_average"],
        "mhz": after["mhz"],
        "gpu_states": after["gpu_states"],
    }


def same_machine(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs in what decides speed, as text; empty for one machine."""
    kinds = [{name: _kind(name, side.get(name)) for name in DECISIVE} for side in (old, new)]
    return [
        f"{name} {_text(kinds[0][name])} then, {_text(kinds[1][name])} now"
        for name in DECISIVE
        if kinds[0][name] != kinds[1][name]
    ]


def _kind(name: str, value: Any) -> Any:
    """Without what tells two cards of one kind apart."""
    if name != "gpus":
        return value
    return [{key: gpu.get(key) for key in _GPU_KIND} for gpu in value or ()]


def _text(value: Any) -> str:
    if isinstance(value, list):
        names = [str(v.get("name")) if isinstance(v, dict) else str(v) for v in value]
        return ", ".join(names) or "none"
    return "unknown" if value is None else str(value)
