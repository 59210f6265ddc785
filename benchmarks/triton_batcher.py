"""How often a single client of Triton waits half a second, with the dynamic batcher and without.

make oracle && python benchmarks/triton_batcher.py [--rounds 20] [--requests 200]

The exported configurations differ in nothing but what their names say. Blocks alternate.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from report import save  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from serving_models import make_small, write_arrays  # noqa: E402

from parnet_deploy.machine.describe import describe_machine  # noqa: E402
from parnet_deploy.measure import Latency  # noqa: E402
from parnet_deploy.triton.export import export_to_repository  # noqa: E402
from parnet_deploy.triton.options import TritonOptions  # noqa: E402
from tests.conformance.oracle import missing_oracle, python_of, serve_triton  # noqa: E402

CLIENT = Path(__file__).with_name("serving_client.py")
CONFIGURATIONS = {
    "one instance": TritonOptions(),
    "one instance, batcher": TritonOptions(batching=True),
    "two instances, batcher": TritonOptions(replicas=2),
}
STALL_MS = 250.0
"""Far above any latency of a request here, far below the batcher's half second."""


def main() -> None:
    """Measure and write ``results/triton-batcher.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=200, help="of each arm in a round")
    args = parser.parse_args()
    missing = missing_oracle()
    if missing is not None:
        raise SystemExit(f"needs {missing}")
    environment = describe_machine()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as servers:
        samples = _measure(Path(scratch), servers, args.rounds, args.requests)
    _report(samples, environment, args.rounds, args.requests)


def _measure(
    folder: Path, servers: ExitStack, rounds: int, requests: int
) -> dict[str, list[float]]:
    directory = make_small(folder / "engines" / "small")
    arrays = write_arrays(directory, folder)
    arms: list[dict[str, Any]] = []
    for number, (name, options) in enumerate(CONFIGURATIONS.items()):
        place = folder / str(number)
        export_to_repository(directory, place / "models", options)
        served = servers.enter_context(serve_triton(place / "models", "small", place))
        arms += [
            {
                "name": f"{name}, {protocol}",
                "protocol": protocol,
                "address": f"127.0.0.1:{port}",
                "model": "small",
                "input": str(arrays["input"]),
                "expected": str(arrays["logits"]),
            }
            for protocol, port in (("REST", served.rest), ("gRPC", served.rpc))
        ]
    names = [arm["name"] for arm in arms]
    order = [
        f"{name} {requests}"
        for number in range(rounds)
        for name in (names if number % 2 == 0 else names[::-1])
    ]
    done = subprocess.run(
        [python_of("tritonclient"), CLIENT],
        input="\n".join([json.dumps(arms), *(f"{name} 20" for name in names), *order, ""]),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()][len(names) :]
    samples: dict[str, list[float]] = {name: [] for name in names}
    for line, answer in zip(order, answers, strict=True):
        samples[line.rpartition(" ")[0]] += answer["samples_ms"]
    return samples


def _report(
    samples: dict[str, list[float]], environment: dict[str, Any], rounds: int, requests: int
) -> None:
    latencies = {
        name: Latency(name=name, samples_ms=tuple(values), first_ms=values[0])
        for name, values in samples.items()
    }
    stalls = {name: sum(value > STALL_MS for value in values) for name, values in samples.items()}
    conditions = {
        "input": [1, 3, 224, 224],
        "clients": 1,
        "rounds": rounds,
        "requests a block": requests,
        "a stall is longer than, ms": STALL_MS,
    }
    arms = [{"stalls": stalls[name], **found.to_json()} for name, found in latencies.items()]
    path = save(
        "triton-batcher", arms=arms, ratios=[], conditions=conditions, environment=environment
    )
    table = Table(title=f"triton-batcher: {rounds * requests} requests of one client for each arm")
    for column in ("arm", "stalls", "p50 ms", "p99 ms", "longest ms"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for name, found in latencies.items():
        values = (found.quantile_ms(q) for q in (0.5, 0.99, 1.0))
        table.add_row(name, str(stalls[name]), *(f"{value:.2f}" for value in values))
    console = Console(width=100)
    console.print(table)
    console.print(str(path))


if __name__ == "__main__":
    main()
