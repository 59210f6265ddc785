"""The client of serving_cost.py: it runs in the environment that has tritonclient.

Reads a JSON list of arms from its first line of stdin: name, protocol, address, model, npy files of
the input and of the expected output. Then each line ``<arm> <count>`` is answered by one line: the
milliseconds of every request, and the largest error of the last answer.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http


class Caller:
    """One connection to one model; the request is made once and sent many times."""

    def __init__(self, arm: dict[str, Any]) -> None:
        library = tritonclient.http if arm["protocol"] == "REST" else tritonclient.grpc
        image = np.load(arm["input"])
        self._expected = np.load(arm["expected"])
        self._model = arm["model"]
        self._server = library.InferenceServerClient(arm["address"])
        self._input = library.InferInput("image", list(image.shape), "FP32")
        self._input.set_data_from_numpy(image)
        self._outputs = [library.InferRequestedOutput("logits")]

    def measure(self, count: int) -> dict[str, Any]:
        """Send so many requests, one after the other."""
        samples, answer = [], None
        for _ in range(count):
            start = time.perf_counter_ns()
            result = self._server.infer(self._model, [self._input], outputs=self._outputs)
            answer = result.as_numpy("logits")
            samples.append((time.perf_counter_ns() - start) / 1e6)
        if answer is None or answer.shape != self._expected.shape:
            raise SystemExit(f"got an answer of shape {getattr(answer, 'shape', None)}")
        error = float(np.abs(answer - self._expected).max())
        return {"samples_ms": samples, "error": error}


def main() -> None:
    """Answer line by line until stdin ends."""
    callers = {arm["name"]: Caller(arm) for arm in json.loads(sys.stdin.readline())}
    for line in sys.stdin:
        name, _, count = line.strip().rpartition(" ")
        print(json.dumps(callers[name].measure(int(count))), flush=True)


if __name__ == "__main__":
    main()
