"""What C libraries print goes to standard error, held back by them or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import ctypes, os, sys
from parnet_deploy.runtime.quiet import stdout_to_stderr
libc = ctypes.CDLL(None)
libc.printf(b"before, ")
print("from Python")
with stdout_to_stderr():
    libc.printf(b"library, ")  # the C library holds it back when this is a pipe
    with stdout_to_stderr():
        os.write(1, b"at once, ")
    libc.printf(b"again")
print("after")
"""


def said(script: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=buffered,
        text=True,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=True,
    )


def test_only_the_block_is_turned_away() -> None:
    done = said(SCRIPT)
    assert sorted(done.stdout.split()) == sorted(["before,", "from", "Python", "after"])
    assert done.stderr == "library, at once, again"


def test_what_nobody_needs_is_dropped() -> None:
    done = said(SCRIPT.replace("stdout_to_stderr", "stdout_dropped"))
    assert sorted(done.stdout.split()) == sorted(["before,", "from", "Python", "after"])
    assert done.stderr == ""


def test_it_is_turned_back_after_an_error() -> None:
    script = """
from parnet_deploy.runtime.quiet import stdout_to_stderr
try:
    with stdout_to_stderr():
        raise KeyError
except KeyError:
    print("back")
"""
    assert said(script).stdout == "back\n"


def test_a_process_without_standard_output() -> None:
    script = """
import os, sys
from parnet_deploy.runtime.quiet import stdout_to_stderr
os.close(1)
with stdout_to_stderr():
    sys.stderr.write("in the block")
"""
    assert said(script, stdout=subprocess.DEVNULL).stderr == "in the block"
