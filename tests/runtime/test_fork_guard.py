"""A child that was forked from a user of a library may use it with one thread only."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from parnet_deploy.errors import BackendError
from parnet_deploy.runtime.fork_guard import ForkGuard

guard = ForkGuard("MNN")
if sys.argv[1] == "used":
    guard.use(2)
if os.fork():
    guard.use(2)  # the parent goes on
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
guard.use(1)
try:
    guard.use(2)
except BackendError as error:
    assert "forked from one that had used it" in str(error)
    os._exit(3)
os._exit(0)
"""


@pytest.mark.parametrize(("before", "status"), [("used", 3), ("unused", 0)])
def test_a_child(before: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, before], check=False, timeout=60)
    assert done.returncode == status
