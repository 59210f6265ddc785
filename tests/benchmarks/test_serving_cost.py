"""The CPU clock of a server's process tree, and what the benchmark serves."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

BURN = """
import sys, time
while time.process_time() < float(sys.argv[1]):
    pass
print(time.process_time(), flush=True)
sys.stdin.read()
"""


@contextmanager
def burnt(seconds):
    """A child that has used so much CPU, and then waits."""
    command = [sys.executable, "-c", BURN, str(seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert float(child.stdout.readline()) >= seconds
        yield child
        child.stdin.close()


def test_cpu_of_a_process_and_its_children(benchmarks):
    from serving_cost import cpu_ms

    before = cpu_ms(os.getpid())
    with burnt(0.2) as child:
        assert cpu_ms(child.pid) >= 200
        assert cpu_ms(os.getpid()) - before >= 200


def test_the_small_network_is_what_numpy_says(benchmarks, tmp_path):
    from serving_models import SPEC, make_small, write_arrays

    from parnet_deploy import Runtime

    directory = make_small(tmp_path / "small")
    arrays = write_arrays(directory, tmp_path)
    image, logits = (np.load(arrays[name]) for name in ("input", "logits"))
    assert image.nbytes == 602112
    assert logits.nbytes == 4000 == 4 * SPEC.num_classes
    with Runtime.open(directory) as runtime:
        limit = float(1e-5 * np.abs(logits).max())
        assert runtime(image) == pytest.approx(logits, abs=limit)
