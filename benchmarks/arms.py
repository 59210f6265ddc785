"""Check the output of each arm, then time them alternated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from parnet_deploy.compare import ENGINE_TOLERANCE, compare
from parnet_deploy.deployment import Deployment
from parnet_deploy.measure import Arm, Latency, alternate
from parnet_deploy.reference import Reference
from parnet_deploy.runtime.onnxruntime.cpu import open_session


def bare_session(deployment: Deployment, plan: str, threads: int) -> Arm:
    """``InferenceSession.run`` on the very engine file of a plan with one engine."""
    path: Path = deployment.verified_path(f"plans/{plan}/all.onnx")
    session = open_session(path, threads=threads)
    return Arm(
        name="bare session",
        run=lambda image: session.run(None, {"image": image})[0],
        load_ms=None,
        note="",
    )


def time_arms(
    arms: Sequence[Arm], reference: Reference, rounds: int
) -> tuple[dict[str, Latency], dict[str, float]]:
    """Latencies and errors by arm.

    Raises:
        CheckFailedError: An arm is wrong; nothing was timed.
    """
    errors = {}
    for arm in arms:
        got = arm.run(reference.image)
        check = compare(got, reference.logits, tolerance=ENGINE_TOLERANCE, what=arm.name)
        errors[arm.name] = float(np.float32(check.require().error))
    calls = {arm.name: partial(arm.run, reference.image) for arm in arms}
    return alternate(calls, rounds=rounds), errors
