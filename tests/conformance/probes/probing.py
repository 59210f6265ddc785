"""What all probe programs share: they run in a client's own environment and print one document.

Each probe is a name and what came of it: ``{"answer": ...}``, or ``{"error": class,
"message": ...}`` where class tells errors apart for a program (an HTTP status, a gRPC code).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IMAGE, ENCODED, LOGITS = "image", "encoded_image", "logits"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the server is, its model, and what to send."""

    rest: str
    rpc: str
    model: str
    images: Any  # (4, 3, H, W) float32
    files: list[bytes]


def read_target() -> Target:
    """From the command line."""
    parser = argparse.ArgumentParser()
    for name in ("rest", "rpc", "model", "data"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    data = Path(given.data)
    return Target(
        rest=given.rest,
        rpc=given.rpc,
        model=given.model,
        images=np.load(data / "images.npy"),
        files=[path.read_bytes() for path in sorted(data.glob("*.png"))],
    )


class Probes:
    """Runs probes as they are declared and keeps what came of them."""

    def __init__(self, classify: Callable[[Exception], str]) -> None:
        self.found: dict[str, Any] = {}
        self._classify = classify

    def __call__(self, name: str) -> Callable[[Callable[[], Any]], None]:
        """Declare a probe: it runs at once; a coroutine function runs in a loop of its own."""

        def run(probe: Callable[[], Any]) -> None:
            if name in self.found:
                raise ValueError(f"two probes are called {name}")
            try:
                answer = probe()
                if asyncio.iscoroutine(answer):
                    answer = asyncio.run(answer)
                self.found[name] = {"answer": plain(answer)}
            except Exception as error:
                found = {"error": self._classify(error), "message": str(error)[:300]}
                self.found[name] = found

        return run

    def print(self) -> None:
        """The one document."""
        json.dump(self.found, sys.stdout)


def plain(value: Any) -> Any:
    """As JSON; an array with its type and shape, bytes as text."""
    if isinstance(value, np.ndarray):
        kind = "BYTES" if value.dtype.kind in "OSU" else str(value.dtype)
        values = [plain(item) for item in value.reshape(-1).tolist()]
        return {"dtype": kind, "shape": list(value.shape), "values": values}
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def tensors_of(metadata: Any) -> dict[str, Any]:
    """The part of a model's metadata that is its contract; platform and order are not."""
    return {
        "name": metadata["name"],
        "versions": list(metadata["versions"]),
        "inputs": {
            x["name"]: [x["datatype"], list(map(int, x["shape"]))] for x in metadata["inputs"]
        },
        "outputs": {
            x["name"]: [x["datatype"], list(map(int, x["shape"]))] for x in metadata["outputs"]
        },
    }


def of_config(config: Any) -> dict[str, Any]:
    """The part of a model's configuration that clients use."""
    return {
        "name": config["name"],
        "max_batch_size": int(config["max_batch_size"]),
        "input": {x["name"]: x["data_type"] for x in config["input"]},
        "output": {
            x["name"]: [x["data_type"], list(map(int, x["dims"]))] for x in config["output"]
        },
    }


def of_statistics(statistics: Any) -> dict[str, Any]:
    """Names and which counters there are; their values depend on what ran before."""
    (model,) = statistics["model_stats"]
    return {
        "name": model["name"],
        "version": model["version"],
        "counters": sorted(model["inference_stats"]),
    }


def counted(read: Callable[[], Any], run: Callable[[], Any]) -> dict[str, int]:
    """What a run adds to the statistics. An answer may be there before it is counted."""
    before = read()
    run()
    for _ in range(100):
        found = _between(before, read())
        if found["successes"]:
            break
    return found


def _between(before: Any, after: Any) -> dict[str, int]:
    (first,), (second,) = before["model_stats"], after["model_stats"]

    def count(model: Any, *path: str) -> int:
        for name in path:
            model = model.get(name, 0) if isinstance(model, dict) else 0
        return int(model)

    paths = {
        "inferences": ("inference_count",),
        "executions": ("execution_count",),
        "successes": ("inference_stats", "success", "count"),
    }
    return {name: count(second, *path) - count(first, *path) for name, path in paths.items()}


def encoded_shape(metadata: Any, count: int) -> list[int]:
    """The shape in which the server wants so many files: (N,), or (N, 1) where it batches."""
    (shape,) = (x["shape"] for x in metadata["inputs"] if x["name"] == ENCODED)
    return [count] + [1] * (len(shape) - 1)
