"""Freed memory is kept, where the C library can be told so."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from parnet_deploy.serve.server.memory import keep_freed_memory

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        first = bytes(bytearray(600_000))
        second = bytes(bytearray(600_001))
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(3)
print(faults(100))
assert keep_freed_memory()
faults(3)
print(faults(100))
"""


def test_blocks_that_were_freed_are_not_cleared_by_the_kernel_again() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after * 10 < before


BURST = """
from parnet_deploy.serve.server.memory import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

assert keep_freed_memory()
before = resident()
bodies, small = [], []
for _ in range(30):
    bodies.append(bytearray(b"x") * (15 << 20))
    small.append(bytes(100_000))
print(resident() - before)
del bodies
print(resident() - before)
"""


def test_large_blocks_go_back_after_a_burst() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")
    done = subprocess.run([sys.executable, "-c", BURST], capture_output=True, text=True, check=True)
    during, after = map(int, done.stdout.split())
    assert during > 400 << 20
    assert after * 5 < during


def test_what_lives_on_is_not_collected_again() -> None:
    script = (
        "import gc; from parnet_deploy.serve.server.memory import spare_collector;"
        "import numpy; assert gc.get_freeze_count() == 0; spare_collector();"
        "assert gc.isenabled() and gc.get_freeze_count() > 10 * len(gc.get_objects())"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
