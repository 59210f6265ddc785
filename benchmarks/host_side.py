"""What ``Runtime`` adds to one call of the bare session while 8 threads call.

python benchmarks/host_side.py [--rounds 15]

Each arm of ours has a bare one that does as much with ONNX Runtime alone: ``run_into`` beside a
binding to preallocated memory for each thread, the call beside ``InferenceSession.run``. With one
slot calls wait for each other, so the bare arms wait for a lock. An engine that computes nothing
shows what is left of a call without ONNX Runtime.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from crowd import Block, Call, added_by, alternate_blocks, quantiles
from numpy.typing import NDArray
from report import save
from rich.console import Console
from rich.table import Table
from tiny import INPUT, build_tiny

from parnet_deploy import Runtime
from parnet_deploy.compare import ENGINE_TOLERANCE, compare
from parnet_deploy.deployment import Deployment
from parnet_deploy.machine.describe import describe_machine
from parnet_deploy.reference import Reference
from parnet_deploy.runtime.backend import LoadedPlan
from parnet_deploy.runtime.choose import read_plan
from parnet_deploy.runtime.host import HostDevice
from parnet_deploy.runtime.onnxruntime.cpu import open_session
from parnet_deploy.steps import read_reference

THREADS = 8
CALLS = 150  # of each thread in a block: 1200 samples for each p99
PAUSE_MS = 3.0  # of each thread, on average: together they keep a quarter of one core busy
LIMIT_US = 50
PAIRS = {"run_into": "bare, bound memory", "call": "bare, fresh logits", "no engine": "nothing"}
"""Each of our arms and its bare one."""

Array = NDArray[np.float32]


def main() -> None:
    """Measure and write ``host-side.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    environment = describe_machine()
    results: dict[str, dict[str, list[Block]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory, plan = build_tiny(Path(scratch))
        deployment = Deployment.open(directory)
        reference = read_reference(deployment)
        memory = [(reference.image.copy(), np.empty_like(reference.logits)) for _ in range(THREADS)]
        for slots in (THREADS, 1):
            with (
                Runtime.open(directory, plan=plan, slots=slots) as runtime,
                open_without_engine(deployment, plan, slots) as idle,
            ):
                arms = make_arms(runtime, idle, bare(deployment, plan), memory, slots)
                check(arms, memory, reference)
                for pause_ms in (PAUSE_MS, 0.0):
                    results[_setting(slots, pause_ms)] = alternate_blocks(
                        arms, rounds=rounds, calls=CALLS, pause_ms=pause_ms
                    )
    _report(results, rounds, environment)


class NoEngine:
    """See ``device.Engine``: it computes nothing."""

    def __init__(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        self.inputs, self.outputs = inputs, outputs

    def bind(self, tensors: object, slot: int) -> NoEngine:
        """See ``device.Engine``."""
        return self

    def set_address(self, name: str, address: int) -> None:
        """See ``device.Binding``."""

    def enqueue(self, binding: object, stream: Any) -> None:
        """See ``device.Engine``."""
        stream.submit(_nothing, "nothing")

    def close(self) -> None:
        """Nothing to free."""


class NoEngines:
    """See ``backend.Backend``."""

    name = "onnxruntime"

    def load(self, spec: object, plan: Any, *rest: object, **options: object) -> LoadedPlan:
        """See ``backend.Backend``."""
        segments = plan.placement.segments
        engines = {s.name: NoEngine(s.inputs, s.outputs) for s in segments}
        return LoadedPlan(devices={0: HostDevice()}, engines=engines)


def open_without_engine(deployment: Deployment, plan: str, slots: int) -> Runtime:
    """The same plan over engines that compute nothing."""
    files = read_plan(deployment, plan)
    return Runtime.from_plan(
        deployment.spec, files.plan, files.engines, backend=NoEngines(), slots=slots
    )


def bare(deployment: Deployment, plan: str) -> Any:
    """A session on the very engine file of the plan."""
    return open_session(deployment.verified_path(f"plans/{plan}/all.onnx"), threads=1)


def make_arms(
    runtime: Runtime,
    idle: Runtime,
    session: Any,
    memory: Sequence[tuple[Array, Array]],
    slots: int,
) -> dict[str, list[Call]]:
    """A call for each thread of each arm, on the thread's own images and logits.

    Owns: the memory stays the caller's, and must outlive the calls, which know its addresses.
    """
    lock = threading.Lock() if slots == 1 else None
    makers: dict[str, Callable[[Array, Array], Call]] = {
        "run_into": lambda image, logits: partial(
            runtime.run_into, image.ctypes.data, logits.ctypes.data
        ),
        "bare, bound memory": lambda image, logits: _bind(session, image, logits, lock),
        "call": lambda image, logits: partial(_keep, runtime, image, logits),
        "bare, fresh logits": lambda image, logits: partial(
            _keep, _locked(partial(_run, session), lock), image, logits
        ),
        "no engine": lambda image, logits: partial(
            idle.run_into, image.ctypes.data, logits.ctypes.data
        ),
        "nothing": lambda image, logits: _nothing,
    }
    return {name: [make(*each) for each in memory] for name, make in makers.items()}


def check(
    arms: Mapping[str, Sequence[Call]],
    memory: Sequence[tuple[Array, Array]],
    reference: Reference,
) -> None:
    """Hold what each thread of each arm answers against the reference, before anything is timed.

    Raises:
        CheckFailedError: With the arm.
    """
    for name, calls in arms.items():
        for call, (_, logits) in zip(calls, memory, strict=True):
            logits[...] = np.nan
            call()
            if name not in ("no engine", "nothing"):
                compare(logits, reference.logits, tolerance=ENGINE_TOLERANCE, what=name).require()


def _bind(session: Any, image: Array, logits: Array, lock: threading.Lock | None) -> Call:
    binding = session.io_binding()
    for to, name, array in (
        (binding.bind_input, "image", image),
        (binding.bind_output, "logits", logits),
    ):
        to(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    return _locked(partial(session.run_with_iobinding, binding), lock)


def _locked(call: Callable[..., Any], lock: threading.Lock | None) -> Callable[..., Any]:
    if lock is None:
        return call

    def alone(*arguments: object) -> Any:
        with lock:
            return call(*arguments)

    return alone


def _run(session: Any, image: Array) -> Array:
    return session.run(None, {"image": image})[0]  # type: ignore[no-any-return]


def _keep(call: Callable[[Array], Array], image: Array, logits: Array) -> None:
    """Call, and keep the answer where it can be checked; the same work in either arm."""
    logits[...] = call(image)


def _nothing() -> None:
    pass


def _setting(slots: int, pause_ms: float) -> str:
    pace = "now and then" if pause_ms else "without a pause"
    return f"{THREADS} threads, {slots} slot{'s' * (slots > 1)}, {pace}"


def _report(
    results: Mapping[str, Mapping[str, Sequence[Block]]],
    rounds: int,
    environment: Mapping[str, Any],
) -> None:
    rows, added = [], []
    for setting, arms in results.items():
        for name, blocks in arms.items():
            row: dict[str, Any] = {"setting": setting, "name": name}
            for what in ("wall_us", "cpu_us"):
                for q in (0.5, 0.99):
                    key = f"p{round(100 * q)}_{what}"
                    row[key] = [round(float(v), 2) for v in quantiles(blocks, what, q)]
            rows.append(row)
        for ours, base in PAIRS.items():
            figures = {
                f"p{round(100 * q)}_{what}": added_by(arms[ours], arms[base], what, q)
                for what in ("wall_us", "cpu_us")
                for q in (0.5, 0.99)
            }
            added.append({"setting": setting, "arm": ours, "base": base, **figures})
    conditions = {
        "input": INPUT,
        "threads": THREADS,
        "calls of a thread in a block": CALLS,
        "rounds": rounds,
        "mean pause, ms": PAUSE_MS,
        "limit of p99_wall_us": LIMIT_US,
    }
    path = save(
        "host-side",
        arms=rows,
        ratios=[],
        conditions=conditions,
        environment=environment,
        added=added,
    )
    _print(rows, added)
    Console().print(f"raw: {path}")


def _print(rows: Sequence[Mapping[str, Any]], added: Sequence[Mapping[str, Any]]) -> None:
    p50 = {(r["setting"], r["name"]): float(np.median(r["p50_wall_us"])) for r in rows}
    p99 = {(r["setting"], r["name"]): float(np.median(r["p99_wall_us"])) for r in rows}
    for setting in dict.fromkeys(row["setting"] for row in rows):
        table = Table(title=f"{setting}: microseconds over the bare arm, with 95 % intervals")
        for column in (
            "arm",
            "p50",
            "bare",
            "p50 added",
            "p99",
            "bare",
            "p99 added",
            "CPU p50",
            "CPU p99",
        ):
            table.add_column(column, justify="left" if column == "arm" else "right")
        for row in (row for row in added if row["setting"] == setting):
            ours, base = (setting, row["arm"]), (setting, row["base"])
            cells = [f"{p50[ours]:.0f}", f"{p50[base]:.0f}", _text(row["p50_wall_us"])]
            cells += [f"{p99[ours]:.0f}", f"{p99[base]:.0f}", _text(row["p99_wall_us"])]
            table.add_row(row["arm"], *cells, _text(row["p50_cpu_us"]), _text(row["p99_cpu_us"]))
        Console(width=150).print(table)


def _text(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.1f} ({figure['low']:.1f} to {figure['high']:.1f})"


if __name__ == "__main__":
    main()
