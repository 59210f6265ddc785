"""Cores from the affinity mask and the cgroup quota, versions 1 and 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parnet_deploy.machine.cores import share_cores, usable_cores
from parnet_deploy.placement import one, streams
from tests.runtime.runtime_toys import SPECS


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {"proc/self/cgroup": "0::/kube/pod\n"}
V1 = {"proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/docker/a\n1:name=systemd:/\n"}
GROUP = "sys/fs/cgroup/cpu,cpuacct/docker/a"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({**V2, "sys/fs/cgroup/kube/pod/cpu.max": "max 100000\n"}, 8),
        ({**V2, "sys/fs/cgroup/kube/pod/cpu.max": "300000 100000\n"}, 3),
        ({**V2, "sys/fs/cgroup/kube/cpu.max": "200000 100000\n"}, 2),  # a parent limits too
        ({**V2, "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1),  # as seen inside a container
        ({**V2, "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({**V2, "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),
        ({**V1, f"{GROUP}/cpu.cfs_quota_us": "-1\n", f"{GROUP}/cpu.cfs_period_us": "100000"}, 8),
        ({**V1, f"{GROUP}/cpu.cfs_quota_us": "400000", f"{GROUP}/cpu.cfs_period_us": "100000"}, 4),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "500000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            5,
        ),
        ({"proc/self/cgroup": "3:memory:/\n"}, 8),
    ],
)
def test_the_smallest_limit_counts(tmp_path, files, cores):
    assert usable_cores(write(tmp_path, files), affinity=8) == cores


def test_this_machine_has_at_least_one_core_and_no_more_than_the_mask():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_the_affinity_mask_counts(tmp_path):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_a_machine_without_masks(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores(tmp_path) == os.cpu_count()


def test_wide_segments_get_all_cores_and_lanes_a_share():
    assert share_cores(one(SPECS[3]), 8) == {"all": 8}
    shares = share_cores(streams(SPECS[3]), 8)
    assert (shares["stem0"], shares["head"], shares["stream0"], shares["stream2"]) == (8, 8, 2, 2)
    assert set(share_cores(streams(SPECS[4]), 2).values()) == {1, 2}
