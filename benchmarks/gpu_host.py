"""What a call costs the host beside the driver: our code and cuda.bindings over a stand-in driver.

No GPU is involved and nothing here is a latency of one: the stand-in enqueues into a list. What is
measured is the time until ``run_into`` with device addresses returns, in graph mode, and for each
call of the driver that it makes; a real driver adds its own time to every one of them.

python benchmarks/gpu_host.py [--rounds 5000]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402
from report import save  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from parnet_deploy.machine.describe import describe_machine  # noqa: E402
from parnet_deploy.measure import Latency  # noqa: E402
from tests.builder.fake_gpu import FakeGpu  # noqa: E402
from tests.stubs.cuda_stub import CudaStub, load_stub  # noqa: E402
from tests.stubs.fake_tensorrt import fake_tensorrt  # noqa: E402

CALLS = ("cuCtxGetCurrent", "cuCtxPushCurrent", "cuStreamGetCtx", "cuStreamWaitEvent")
CALLS += ("cuMemcpyAsync", "cuGraphLaunch", "cuEventRecord", "cuCtxPopCurrent")


def main() -> None:
    """Measure and write ``gpu-host-stand-in.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5000)
    args = parser.parse_args()
    environment = describe_machine()
    stub = load_stub()
    stub.reset(devices=1)
    patch = pytest.MonkeyPatch()
    with tempfile.TemporaryDirectory() as folder, patch.context():
        FakeGpu(Path(folder), patch)
        sys.modules["tensorrt"] = fake_tensorrt("10.16", launch=stub.launch)
        latencies, counts = measure(Path(folder), stub, args.rounds)
    patch.undo()
    us = {name: 1e3 * latency.median_ms for name, latency in latencies.items()}
    table = Table(title="host time until the call returns, no driver and no GPU behind it")
    for column in ("call", "p50 us", "p99 us", "driver calls"):
        table.add_column(column, justify="left" if column == "call" else "right")
    for name, latency in latencies.items():
        p99 = 1e3 * latency.quantile_ms(0.99)
        table.add_row(name, f"{us[name]:.1f}", f"{p99:.1f}", str(sum(counts[name].values())))
    Console(width=100).print(table)
    save(
        "gpu-host-stand-in",
        arms=[
            {**latency.to_json(), "driver_calls": counts[name]}
            for name, latency in latencies.items()
        ],
        ratios=[],
        conditions={"driver": "stand-in, enqueues only", "mode": "graph", "rounds": args.rounds},
        environment=environment,
    )


def measure(
    folder: Path, stub: CudaStub, rounds: int
) -> tuple[dict[str, Latency], dict[str, dict[str, int]]]:
    """Time enqueueing; the work itself is done between the samples and not counted."""
    from parnet_deploy import Runtime
    from parnet_deploy.runtime.cuda.device import CudaDevice
    from tests.gpu.runtime_contract import SIZE, SPEC, Frames, batch, build, check
    from tests.toy_deployments import export_toy

    toy = export_toy(folder / "toy", SPEC, SIZE)
    device = CudaDevice(0)
    frames = Frames(device, batch(1))
    latencies, counts = {}, {}
    for placement in ("one", "streams"):
        with Runtime.open(toy, plan=build(toy, placement)) as rt:
            assert rt.describe()["program"]["mode"] == "graph"
            addresses = frames.image.address, frames.logits.address
            call = partial(rt.run_into, *addresses, stream=frames.stream.handle)
            call()
            check(frames.read(), frames.x)  # the output first
            for current in (False, True):
                name = f"run_into, {placement}, context {'current' if current else 'not current'}"
                before = {function: stub.calls(function) for function in CALLS}
                with device.current() if current else nullcontext():
                    latencies[name] = sample(name, call, frames.stream.synchronize, rounds)
                counts[name] = {
                    function: round((stub.calls(function) - before[function]) / (rounds + 1))
                    for function in CALLS
                }
    frames.close()
    device.close()
    return latencies, counts


def sample(name: str, call: Callable, settle: Callable, rounds: int) -> Latency:
    """Time calls one by one; after each the queue is worked off, untimed."""
    samples = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - start) / 1e6)
        settle()
    return Latency(name=name, samples_ms=tuple(samples), first_ms=samples[0])


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
