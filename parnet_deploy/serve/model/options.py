"""Which deployment to serve, and how to open it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...runtime.failover import OnDeviceLost


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """One model of the server. ``name`` None: the deployment's own. The rest: ``Runtime.open``.

    Trusted keys are read anew each time that the deployment is opened.
    """

    path: str | Path
    name: str | None = None
    backend: str | None = None
    plan: str | None = None
    slots: int = 1
    threads: int | None = None
    on_device_lost: OnDeviceLost = "refuse"
    packed_devices: bool = False
    trusted_keys: tuple[str | Path, ...] | None = None
    timeout_s: float | None = None
    check_finite: bool = False
