"""Whether TensorRT engines were made for the GPUs that are here. Pure, asked before loading.

A plan file is bound to a TensorRT version and a kind of GPU. What it was built with stands in
``build.json`` beside it, under ``made.engines``; loading a plan elsewhere fails late and in
TensorRT's own words, or runs slowly and warns.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ...errors import DeviceUnavailableError, EngineLoadError
from ...plan import Plan

_LOG = logging.getLogger(__name__)

Facts = Mapping[str, Any]


def check_same_kind(devices: Mapping[int, Facts]) -> None:
    """Refuse GPUs of different kinds for one process.

    TensorRT's compiler takes the first device of the process for all of them (NVIDIA/TensorRT
    issue 4526: "Compiled assuming that device 0 was SM 75, but device 0 is SM 86").

    Args:
        devices: Ordinal -> facts with "name" and "compute_capability".

    Raises:
        DeviceUnavailableError: With what each device is.
    """
    kinds = {facts["compute_capability"] for facts in devices.values()}
    if len(kinds) > 1:
        shown = ", ".join(
            f"{ordinal} is {facts['name']} (compute capability {facts['compute_capability']})"
            for ordinal, facts in sorted(devices.items())
        )
        raise DeviceUnavailableError(
            f"GPUs of different kinds: {shown}, expected one kind, for TensorRT cannot use several "
            "in one process. Build with --gpus of one kind, or run a process for each kind."
        )


def check_engines(plan: Plan, version: str, devices: Mapping[int, Facts]) -> None:
    """Refuse engines of another TensorRT or another kind of GPU.

    Args:
        plan: The plan; its ``made["engines"]`` has a record for each segment.
        version: The TensorRT that is here.
        devices: Ordinal -> facts of the GPUs that are here.

    Raises:
        EngineLoadError: With both values; or a record is missing.
    """
    records = plan.made.get("engines")
    for segment in plan.placement.segments:
        record = records.get(segment.name) if isinstance(records, Mapping) else None
        where = f"engine {plan.engines[segment.name]}"
        if not isinstance(record, Mapping):
            raise EngineLoadError(
                f"{where}: got no record of how it was built, expected one in build.json. "
                "Run: parnet-deploy build."
            )
        _check_record(record, where, version, devices[segment.device], segment.device)


def _check_record(record: Facts, where: str, version: str, here: Facts, device: int) -> None:
    if record.get("tensorrt") != version:
        raise EngineLoadError(
            f"{where}: built by TensorRT {record.get('tensorrt')}, here is {version}. "
            "Run: parnet-deploy build."
        )
    built = _object(record.get("device"))
    level = _object(record.get("options")).get("hardware_compatibility")
    capability = here["compute_capability"]
    portable = level == "ampere_plus" and int(capability.partition(".")[0]) >= 8
    if built.get("compute_capability") != capability and not portable:
        raise EngineLoadError(
            f"{where}: built for {built.get('name')} with compute capability "
            f"{built.get('compute_capability')}, device {device} is {here['name']} with "
            f"{capability}. Run: parnet-deploy build."
        )
    if built.get("name") != here["name"] and not portable:
        _LOG.warning(
            "%s: built on %s, device %d is %s: it runs, but other kernels may be faster here. "
            "Run: parnet-deploy build.",
            *(where, built.get("name"), device, here["name"]),
        )


def _object(value: object) -> Facts:
    return value if isinstance(value, Mapping) else {}
