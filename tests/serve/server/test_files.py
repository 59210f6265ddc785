"""The limit of open files."""

from __future__ import annotations

import resource
import subprocess
import sys

from parnet_deploy.serve.server.files import too_few_files

RAISE = """
import resource
from parnet_deploy.serve.server.files import raise_file_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard if hard > 0 else 4000))
print(raise_file_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_process_takes_what_it_may_have() -> None:
    done = subprocess.run([sys.executable, "-c", RAISE], capture_output=True, text=True, check=True)
    told, soft, hard = map(int, done.stdout.split())
    assert told == soft == hard
    assert soft > 200


def test_too_few_are_told() -> None:
    assert too_few_files(10_000, 1000) is None
    assert too_few_files(resource.RLIM_INFINITY, 1000) is None
    assert "limit of 1024" in too_few_files(1024, 1000)
