"""How many cores this process may really use: the affinity mask and the cgroup's CPU quota."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..placement import Placement

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT, affinity: int | None = None) -> int:
    """Cores that this process may use at the same time, at least 1.

    A quota of 1.5 cores counts as 1: a second thread would be stopped for half of each period,
    which is worse for latency than not having it.

    Args:
        root: Where ``proc`` and ``sys`` are mounted; for tests.
        affinity: Cores of the affinity mask, if the caller knows it; for tests.
    """
    cores = affinity if affinity is not None else _affinity()
    quotas = [int(quota) for quota in _quotas(root)]
    return max(1, min([cores, *quotas]))


def share_cores(placement: Placement, cores: int) -> dict[str, int]:
    """Threads for each segment: all cores where it runs alone, else an equal share for each lane.

    Segments in one lane never run at the same time, so the share is one lane's.
    """
    lanes = {(segment.device, segment.lane) for segment in placement.segments}
    share = max(1, cores // len(lanes))
    return {segment.name: cores if segment.wide else share for segment in placement.segments}


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_groups(root: Path = _ROOT) -> Iterator[tuple[Path, int]]:
    """Folders of the cgroups that limit this process' CPU time, each with its version, 1 or 2.

    The process' own group first, then those above it.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            folders = [root / "sys/fs/cgroup"]
        elif "cpu" in controllers.split(","):
            folders = [root / "sys/fs/cgroup" / name for name in ("cpu", controllers)]
        else:
            continue
        # A container may see the path of the host; its own limit then stands at the mount's top.
        above = [PurePosixPath(group), *PurePosixPath(group).parents]
        for folder in folders:
            for path in above:
                yield folder / str(path).lstrip("/"), 1 if controllers else 2


def cpu_quota(root: Path = _ROOT) -> float | None:
    """The smallest CPU quota, in cores, that holds for this process; None: there is none."""
    return min(_quotas(root), default=None)


def _quotas(root: Path) -> Iterator[float]:
    for folder, version in cpu_groups(root):
        yield from _quota_v1(folder) if version == 1 else _quota_v2(folder)


def _quota_v2(folder: Path) -> Iterator[float]:
    fields = _read(folder / "cpu.max").split()
    if len(fields) == 2 and fields[0] != "max":
        yield int(fields[0]) / int(fields[1])


def _quota_v1(folder: Path) -> Iterator[float]:
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    if quota and period and int(quota) > 0:
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
