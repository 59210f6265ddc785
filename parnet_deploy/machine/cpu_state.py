"""How the CPU is right now, and counters whose growth says what happened to a run.

What the system does not tell is None.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from .cores import cpu_groups, cpu_quota

_ROOT = Path("/")
_CPUS = "sys/devices/system/cpu"
_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq; guests are part of user
_STEAL = 7
_CONTAINER_FILES = {".dockerenv": "docker", "run/.containerenv": "podman"}
_CONTAINER_WORDS = re.compile(r"docker|kubepods|containerd|libpod|lxc")


def describe_cpu(root: Path = _ROOT) -> dict[str, Any]:
    """Which cores this process may use, and how they are run.

    Args:
        root: Where ``proc`` and ``sys`` are mounted; for tests.
    """
    cpus = _affinity()
    frequencies = [root / _CPUS / f"cpu{cpu}/cpufreq" for cpu in cpus]
    siblings = (_read(root / _CPUS / f"cpu{cpu}/topology/thread_siblings_list") for cpu in cpus)
    return {
        "affinity": cpus,
        "quota_cores": cpu_quota(root),
        "smt_siblings": sorted({text for text in siblings if re.search("[,-]", text)}),
        "governor": _read(frequencies[0] / "scaling_governor") or None,
        "mhz": _mean_mhz([path / "scaling_cur_freq" for path in frequencies]) or _mhz(root, cpus),
        "max_mhz": _mean_mhz([path / "cpuinfo_max_freq" for path in frequencies]),
        "turbo": _turbo(root),
        "container": _container(root),
        "virtual": bool(re.search(r"^flags\s*:.*\bhypervisor\b", _cpuinfo(root), re.MULTILINE)),
    }


def read_counters(root: Path = _ROOT) -> dict[str, float | None]:
    """Seconds and counts since some beginning; only differences mean anything.

    ``busy_s`` and ``steal_s`` are of the cores that this process may use, ``own_s`` is of this
    process and all below it, alive or ended.

    Args:
        root: Where ``proc`` and ``sys`` are mounted; for tests.
    """
    tick = 1 / os.sysconf("SC_CLK_TCK")
    cores = list(_core_times(root, set(_affinity())))
    own = _tree_ticks(root, os.getpid())
    throttled = list(_throttling(root))
    return {
        "busy_s": tick * sum(times[i] for times in cores for i in _BUSY) if cores else None,
        "steal_s": tick * sum(times[_STEAL] for times in cores) if cores else None,
        "own_s": None if own is None else tick * own,
        "throttled_periods": sum(count for count, _ in throttled) if throttled else None,
        "throttled_s": sum(seconds for _, seconds in throttled) if throttled else None,
    }


def _affinity() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _core_times(root: Path, cpus: set[int]) -> Iterator[list[int]]:
    """Ticks of each core by kind, as /proc/stat has them."""
    for row in _read(root / "proc/stat").splitlines():
        found = re.match(r"cpu(\d+) (.+)", row)
        if found and int(found[1]) in cpus:
            yield [*map(int, found[2].split()), *[0] * (_STEAL + 1)]


def _tree_ticks(root: Path, top: int) -> int | None:
    """CPU time of a process and of all below it. What a process reaped is part of its own."""
    rows = {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        fields = _read(path).rpartition(")")[2].split()  # a name may hold anything
        if len(fields) > 14:
            rows[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    if top not in rows:
        return None
    total = 0
    for pid in rows:
        above, seen = pid, set[int]()
        while above in rows and above != top and above not in seen:
            seen.add(above)
            above = rows[above][0]
        total += rows[pid][1] if above == top else 0
    return total


def _throttling(root: Path) -> Iterator[tuple[int, float]]:
    """(periods, seconds) for which each cgroup of this process was stopped by its quota."""
    for folder, version in cpu_groups(root):
        pairs = (row.split() for row in _read(folder / "cpu.stat").splitlines())
        found = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
        if "nr_throttled" in found:
            spent = found.get("throttled_time", 0) / 1e9  # nanoseconds in version 1
            spent = spent if version == 1 else found.get("throttled_usec", 0) / 1e6
            yield found["nr_throttled"], spent


def _mean_mhz(paths: list[Path]) -> float | None:
    found = [int(text) / 1e3 for text in map(_read, paths) if text.isdigit()]
    return round(fmean(found), 1) if found else None


def _mhz(root: Path, cpus: list[int]) -> float | None:
    """What /proc/cpuinfo says; in a virtual machine that is often the nominal frequency."""
    rows = re.findall(r"^cpu MHz\s*:\s*([0-9.]+)", _cpuinfo(root), re.MULTILINE)
    found = [float(rows[cpu]) for cpu in cpus if cpu < len(rows)]
    return round(fmean(found), 1) if found else None


def _turbo(root: Path) -> bool | None:
    off = _read(root / _CPUS / "intel_pstate/no_turbo")
    boost = _read(root / _CPUS / "cpufreq/boost")
    return off == "0" if off else boost == "1" if boost else None


def _container(root: Path) -> str | None:
    for name, kind in _CONTAINER_FILES.items():
        if (root / name).exists():
            return kind
    found = _CONTAINER_WORDS.search(_read(root / "proc/1/cgroup"))
    return found[0] if found else None


def _cpuinfo(root: Path) -> str:
    return _read(root / "proc/cpuinfo")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):  # a process may have ended, or have a strange name
        return ""
