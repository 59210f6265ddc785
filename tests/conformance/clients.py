"""Runs the probe programs: each client in its own environment and process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conformance.oracle import Served, python_of

PROBES = Path(__file__).parent / "probes"
SUITES = {
    "triton_rest": "tritonclient",
    "triton_rpc": "tritonclient",
    "raw_rest": "tritonclient",
    "kserve_clients": "kserve",
}
"""Program -> the environment that it runs in."""

TIMEOUT_S = 300.0

Answers = dict[str, dict[str, Any]]


def ask(suite: str, server: Served, data: Path) -> Answers:
    """What a server answers to the probes of one program."""
    command = [
        *(python_of(SUITES[suite]), PROBES / f"{suite}.py"),
        *("--rest", f"127.0.0.1:{server.rest}", "--rpc", f"127.0.0.1:{server.rpc}"),
        *("--model", server.model, "--data", data),
    ]
    return run_json(command)


def run_json(command: list[Any]) -> Any:
    """Run a program that prints one JSON document on stdout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"{command[1]} failed:\n{done.stderr[-4000:]}")
    sys.stderr.write(done.stderr)
    return json.loads(done.stdout)
