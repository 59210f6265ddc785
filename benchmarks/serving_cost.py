"""CPU that a server spends on a request beyond the network: ours beside a real Triton.

make oracle && python benchmarks/serving_cost.py [--rounds 30] [--requests 100]

One client sends one request at a time. What is measured is CPU time of the server's whole process
tree, by the kernel's clock of each process; nothing is subtracted. Arms alternate in blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import save
from rich.console import Console
from rich.table import Table
from serving_models import NO_OP, engine_cpu_ms, make_small, write_arrays, write_no_op

from parnet_deploy.machine.describe import describe_machine
from parnet_deploy.measure import Latency, compare_latency
from parnet_deploy.triton.export import export_to_repository
from tests.conformance.oracle import Served, free_ports, missing_oracle, python_of, serve_triton
from tests.conformance.ours import serve_by, serve_ours

OURS_NO_OP = Path(__file__).with_name("serving_no_op.py")
CLIENT = Path(__file__).with_name("serving_client.py")
PROTOCOLS = ("REST", "gRPC")
TOLERANCE = 1e-4


@dataclass(kw_only=True)
class Arm:
    """A model behind a server over one protocol, and what was measured."""

    name: str
    protocol: str
    server: Served
    model: str
    expected: Path
    blocks_cpu_ms: list[float] = field(default_factory=list)
    samples_ms: list[float] = field(default_factory=list)
    error: float = 0.0

    def order(self, image: Path) -> dict[str, str]:
        """What the client needs to know."""
        port = self.server.rest if self.protocol == "REST" else self.server.rpc
        return {
            "name": self.name,
            "protocol": self.protocol,
            "address": f"127.0.0.1:{port}",
            "model": self.model,
            "input": str(image),
            "expected": str(self.expected),
        }

    @property
    def cpu(self) -> Latency:
        """CPU milliseconds a request, one sample a block."""
        return Latency(name=self.name, samples_ms=tuple(self.blocks_cpu_ms), first_ms=0.0)


def main() -> None:
    """Measure and write ``results/serving-cost.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--requests", type=int, default=100, help="of each arm in a round")
    args = parser.parse_args()
    missing = missing_oracle()
    if missing is not None:
        raise SystemExit(f"needs {missing}")
    environment = describe_machine()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as servers:
        folder = Path(scratch)
        directory = make_small(folder / "engines" / "small")
        arrays = write_arrays(directory, folder)
        arms = _start(directory, folder, arrays, servers)
        engine_ms = engine_cpu_ms(directory)
        idle = _measure(arms, arrays["input"], args.rounds, args.requests, servers)
    _report(arms, engine_ms, idle, environment, args.rounds, args.requests)


def _start(
    directory: Path, folder: Path, arrays: Mapping[str, Path], servers: ExitStack
) -> list[Arm]:
    """Both servers, and the arms on them."""
    repository = folder / "models"
    write_no_op(repository)
    export_to_repository(directory, repository)
    for place in ("triton", "ours"):
        (folder / place).mkdir()
    ports = tuple(free_ports(2))
    program = [str(OURS_NO_OP), str(directory), *map(str, ports)]
    triton = servers.enter_context(serve_triton(repository, "small", folder / "triton"))
    ours = servers.enter_context(serve_ours(directory, folder / "ours"))
    idle = servers.enter_context(serve_by(program, NO_OP, "small", ports, folder / "ours"))
    models = [
        ("ours", ours, "small", arrays["logits"]),
        ("ours, no-op", idle, "small", arrays["zeros"]),
        ("Triton, no-op", triton, NO_OP, arrays["zeros"]),
        ("Triton, the same network", triton, "small", arrays["logits"]),
    ]
    return [
        Arm(
            name=f"{name}, {protocol}",
            protocol=protocol,
            server=server,
            model=model,
            expected=expected,
        )
        for protocol in PROTOCOLS
        for name, server, model, expected in models
    ]


def _measure(
    arms: Sequence[Arm], image: Path, rounds: int, requests: int, servers: ExitStack
) -> dict[str, float]:
    """Blocks in an order that is reversed each round. Returns each server's idle CPU, ms a second.

    Idle is while the other server is asked.
    """
    client = servers.enter_context(
        subprocess.Popen(
            [python_of("tritonclient"), CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    )
    servers.callback(client.stdin.close)
    _tell(client, json.dumps([arm.order(image) for arm in arms]))
    for arm in arms:  # warm-up, and the check of what is answered
        arm.error = _ask(client, arm, requests)["error"]
        if arm.error > TOLERANCE:
            raise SystemExit(f"{arm.name}: its answer is off by {arm.error:.1e}")
    found = {arm.server.name: arm.server for arm in arms}
    idle_ms, idle_s = dict.fromkeys(found, 0.0), dict.fromkeys(found, 0.0)
    for number in range(rounds):
        for arm in arms if number % 2 == 0 else reversed(arms):
            before = {name: cpu_ms(server.process.pid) for name, server in found.items()}
            start = time.perf_counter()
            answered = _ask(client, arm, requests)
            wall_s = time.perf_counter() - start
            spent = {
                name: cpu_ms(server.process.pid) - before[name] for name, server in found.items()
            }
            arm.blocks_cpu_ms.append(spent.pop(arm.server.name) / requests)
            arm.samples_ms += answered["samples_ms"]
            for name, value in spent.items():
                idle_ms[name] += value
                idle_s[name] += wall_s
    return {name: idle_ms[name] / idle_s[name] for name in found}


def _tell(client: subprocess.Popen[str], line: str) -> None:
    client.stdin.write(line + "\n")
    client.stdin.flush()


def _ask(client: subprocess.Popen[str], arm: Arm, count: int) -> dict[str, Any]:
    _tell(client, f"{arm.name} {count}")
    line = client.stdout.readline()
    if not line:
        raise SystemExit(f"the client ended while it asked {arm.name}")
    answered: dict[str, Any] = json.loads(line)
    return answered


def cpu_ms(pid: int) -> float:
    """CPU time of a process and its descendants so far; threads that ended count too."""
    return sum(time.clock_gettime(_clock(each)) for each in (pid, *_descendants(pid))) * 1e3


def _clock(pid: int) -> int:
    """Number of the kernel's CPU clock of another process (clock_getcpuclockid)."""
    return (~pid << 3) | 2


def _descendants(pid: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except (OSError, ProcessLookupError):  # it has ended
            continue
        children.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    waiting = list(children.get(pid, ()))
    while waiting:
        each = waiting.pop()
        yield each
        waiting += children.get(each, ())


def _report(
    arms: Sequence[Arm],
    engine_ms: float,
    idle: Mapping[str, float],
    environment: Mapping[str, Any],
    rounds: int,
    requests: int,
) -> None:
    conditions = {
        "input": [1, 3, 224, 224],
        "input_bytes": 602112,
        "output_bytes": 4000,
        "clients": 1,
        "rounds": rounds,
        "requests a block": requests,
        "engine_cpu_ms": round(engine_ms, 4),
        "idle_cpu_ms_per_s": {name: round(value, 2) for name, value in idle.items()},
    }
    ratios = {}
    by_name = {arm.name: arm for arm in arms}
    for arm in arms:
        counterpart = "ours, no-op" if "no-op" in arm.name else "ours"
        ours = by_name[f"{counterpart}, {arm.protocol}"]
        ratios[arm.name] = (ours.name, compare_latency(ours.cpu, arm.cpu))
    path = save(
        "serving-cost",
        arms=[
            {
                "name": arm.name,
                "error_of_answer": arm.error,
                "cpu_ms_median": arm.cpu.median_ms,
                "cpu_ms_blocks": arm.blocks_cpu_ms,
                "latency": Latency(
                    name=arm.name, samples_ms=tuple(arm.samples_ms), first_ms=arm.samples_ms[0]
                ).to_json(),
            }
            for arm in arms
        ],
        ratios=[
            {"arm": ours, "base": base, **ratio.to_json()} for base, (ours, ratio) in ratios.items()
        ],
        conditions=conditions,
        environment=environment,
    )
    table = Table(title=f"serving-cost: {rounds} blocks of {requests} requests for each arm")
    for column in ("arm", "CPU ms/request", "ours / arm", "95 %", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm in arms:
        _, ratio = ratios[arm.name]
        wall = Latency(name=arm.name, samples_ms=tuple(arm.samples_ms), first_ms=0.0)
        table.add_row(
            arm.name,
            f"{arm.cpu.median_ms:.3f}",
            f"{ratio.median:.3f}",
            f"{ratio.low:.3f}-{ratio.high:.3f}",
            *(f"{wall.quantile_ms(q):.2f}" for q in (0.5, 0.99)),
        )
    console = Console(width=100)
    console.print(table)
    console.print(f"the engine alone: {engine_ms:.3f} ms of CPU a call; idle: {dict(idle)}")
    console.print(str(path))


if __name__ == "__main__":
    main()
