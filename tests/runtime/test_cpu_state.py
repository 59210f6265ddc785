"""How the CPU is run, read from files that were made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parnet_deploy.machine import cpu_state
from parnet_deploy.machine.cpu_state import describe_cpu, read_counters

TICK = os.sysconf("SC_CLK_TCK")
ME = os.getpid()


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def two_cores(monkeypatch) -> None:
    monkeypatch.setattr(cpu_state, "_affinity", lambda: [0, 2])


def process(pid: int, parent: int, *times: int, name: str = "python") -> dict[str, str]:
    fields = f"{pid} ({name}) S {parent} " + "0 " * 9 + " ".join(map(str, times)) + " 20 0"
    return {f"proc/{pid}/stat": fields}


def test_nothing_is_known_of_an_empty_system(tmp_path) -> None:
    found = describe_cpu(tmp_path)
    assert found.pop("affinity") == [0, 2]
    assert found.pop("smt_siblings") == []
    assert found.pop("virtual") is False
    assert set(found.values()) == {None}
    assert set(read_counters(tmp_path).values()) == {None}


def test_a_laptop(tmp_path) -> None:
    cpu = "sys/devices/system/cpu"
    files = {
        f"{cpu}/cpu0/cpufreq/scaling_governor": "powersave\n",
        f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
        f"{cpu}/cpu2/cpufreq/scaling_cur_freq": "2200000\n",
        f"{cpu}/cpu0/cpufreq/cpuinfo_max_freq": "4000000\n",
        f"{cpu}/cpu0/topology/thread_siblings_list": "0,4\n",
        f"{cpu}/cpu2/topology/thread_siblings_list": "2\n",
        f"{cpu}/intel_pstate/no_turbo": "1\n",
    }
    found = describe_cpu(write(tmp_path, files))
    assert found["governor"] == "powersave"
    assert found["mhz"] == 2000.0
    assert found["max_mhz"] == 4000.0
    assert found["smt_siblings"] == ["0,4"]
    assert found["turbo"] is False


def test_a_container_in_a_virtual_machine(tmp_path) -> None:
    row = "cpu MHz\t\t: {}\nflags\t\t: fpu hypervisor\n"
    text = "".join(row.format(mhz) for mhz in (1000, 9999, 3000))
    found = describe_cpu(write(tmp_path, {".dockerenv": "", "proc/cpuinfo": text}))
    assert found["container"] == "docker"
    assert found["virtual"] is True
    assert found["mhz"] == 2000.0


def test_a_container_by_its_cgroup(tmp_path) -> None:
    root = write(tmp_path, {"proc/1/cgroup": "0::/kubepods/pod1\n"})
    assert describe_cpu(root)["container"] == "kubepods"


def test_only_our_cores_count(tmp_path) -> None:
    rows = [
        "cpu 9 9 9 9 9 9 9 9 9 9",
        f"cpu0 {TICK} {TICK} {TICK} 7 7 {TICK} {TICK} {2 * TICK} 5 5",
        f"cpu1 {TICK} 0 0 0 0 0 0 {TICK} 0 0",
        f"cpu2 {TICK} 0 0 0 0 0 0 0 0 0",
    ]
    found = read_counters(write(tmp_path, {"proc/stat": "\n".join(rows)}))
    assert found["busy_s"] == pytest.approx(6)
    assert found["steal_s"] == pytest.approx(2)


def test_the_tree_below_us_is_ours(tmp_path) -> None:
    files = {
        **process(ME, 1, TICK, TICK, TICK, TICK),
        **process(10**7, ME, TICK, 0, 0, 0, name="a) S 1 (b"),
        **process(10**7 + 1, 10**7, TICK, 0, 0, 0),
        **process(10**7 + 2, 1, 99 * TICK, 0, 0, 0),
        "proc/7/stat": "",
    }
    assert read_counters(write(tmp_path, files))["own_s"] == pytest.approx(6)


@pytest.mark.parametrize(
    ("files", "periods", "seconds"),
    [
        (
            {
                "proc/self/cgroup": "0::/pod\n",
                "sys/fs/cgroup/pod/cpu.stat": "nr_throttled 3\nthrottled_usec 500000\n",
            },
            3,
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu/a/cpu.stat": "nr_throttled 2\nthrottled_time 250000000\n",
            },
            2,
            0.25,
        ),
    ],
)
def test_throttling(tmp_path, files, periods, seconds) -> None:
    found = read_counters(write(tmp_path, files))
    assert found["throttled_periods"] == periods
    assert found["throttled_s"] == pytest.approx(seconds)
