"""What ``Runtime`` adds to the bare session, on an engine so small that it shows.

python benchmarks/overhead.py [--rounds 5000]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from arms import bare_session, time_arms
from report import write_results
from tiny import INPUT, build_tiny

from parnet_deploy import Runtime
from parnet_deploy.deployment import Deployment
from parnet_deploy.machine.describe import describe_machine
from parnet_deploy.measure import Arm
from parnet_deploy.steps import read_reference


def main() -> None:
    """Measure and write ``results/cpu-overhead.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory, plan = build_tiny(Path(scratch))
        deployment = Deployment.open(directory)
        environment = describe_machine()
        with Runtime.open(directory, plan=plan) as runtime:
            arms = [
                Arm(name="runtime", run=runtime, load_ms=None, note=""),
                bare_session(deployment, plan, 1),
            ]
            latencies, errors = time_arms(arms, read_reference(deployment), args.rounds)
    ours, bare = (np.array(latencies[name].samples_ms) for name in ("runtime", "bare session"))
    write_results(
        "cpu-overhead",
        latencies,
        ours="runtime",
        errors=errors,
        conditions={
            "input": INPUT,
            "threads": 1,
            "rounds": args.rounds,
            "added by the runtime, us p50": round(float(np.median(ours - bare)) * 1e3, 1),
        },
        environment=environment,
    )


if __name__ == "__main__":
    main()
