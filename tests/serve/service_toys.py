"""A small deployment with labels and preprocessing, and requests for it."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np

from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one
from parnet_deploy.preprocess import Preprocessing
from parnet_deploy.reference import Reference
from parnet_deploy.serve.protocol.contract import Arrival
from parnet_deploy.serve.protocol.request import InferInput, InferRequest
from tests.runtime.runtime_toys import (
    SPECS,
    fixed_size,
    images,
    make_plan,
    reference,
    write_engines,
)

SPEC = SPECS[3]
SIZE = fixed_size(SPEC)
SIDE = SIZE.low[0]
LABELS = ("ant", "bee", "cat", "dog")
PREPROCESSING = Preprocessing(height=SIDE, width=SIDE, crop_fraction=1.0, resize="stretch")


def publish(
    path: Path,
    *,
    spec=SPEC,
    size: InputSize = SIZE,
    backend: str = "onnxruntime",
    max_batch: int = 4,
    labels: tuple[str, ...] | None = LABELS,
    preprocessing: Preprocessing | None = PREPROCESSING,
    canary_off_by: float = 0.0,
) -> Path:
    """A deployment with one plan, ``only``, whose logits are ``runtime_toys.reference``."""
    plan = make_plan(one(spec), size, max_batch, backend=backend, threads=1)
    with Deployment.edit(path, create=True) as txn:
        txn.describe(
            spec=spec,
            input_size=size,
            labels=labels,
            preprocessing=None if preprocessing is None else preprocessing.to_json(),
        )
        first = txn.stage("plans/only/build.json")
        first.write_text(json.dumps(plan.to_json()))
        for name in plan.engines.values():
            txn.stage(f"plans/only/{name}")
        write_engines(spec, plan, first.parent)
        x = images(spec, 1, size=size.high)
        packed = Reference(image=x, logits=reference(spec, x) + np.float32(canary_off_by)).pack()
        txn.stage("plans/only/canary.npz").write_bytes(packed)
        about = {"backend": backend, "placement": "one", "built": "2026-01-01T00:00:00+00:00"}
        txn.finish_step("build:only", key=step_key(at=str(path)), plans={"only": about})
    return path


def image_input(x: np.ndarray, name: str = "image", datatype: str = "FP32") -> InferInput:
    return InferInput(name=name, datatype=datatype, shape=x.shape, data=x)


def encoded_input(*content: bytes) -> InferInput:
    return InferInput(
        name="encoded_image", datatype="BYTES", shape=(len(content),), data=list(content)
    )


def ask(*inputs: InferInput, model: str = "toy", **more: Any) -> InferRequest:
    return InferRequest(model=model, inputs=inputs, **more)


def arrived(left_s: float | None = None, wire: Any = "rest") -> Arrival:
    return Arrival(wire=wire, at_s=time.perf_counter(), left_s=left_s)


def picture(seed: int = 0, side: int = 20, kind: str = "PNG") -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine; nothing may be left behind on its loop."""
    return asyncio.run(work)
