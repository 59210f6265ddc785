"""A small deployment with labels and preprocessing, and requests for it."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one
from parnet_deploy.preprocess import Preprocessing
from parnet_deploy.reference import Reference
from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.model.served_model import ServedModel
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


def arrived(left_s: float | None = None, wire: Any = "rest", at_s: float | None = None) -> Arrival:
    return Arrival(wire=wire, at_s=time.perf_counter() if at_s is None else at_s, left_s=left_s)


def picture(seed: int = 0, side: int = 20, kind: str = "PNG") -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine; nothing may be left behind on its loop."""
    return asyncio.run(work)


class Held:
    """Stands for a runtime: its runs wait until they are let, and say which deployment ran them."""

    def __init__(self, runtime, *, held: bool = True) -> None:
        self.runtime, self.closed, self.error = runtime, False, None
        self.stuck, self.proved, self.wrong = 0, 0, None
        self.done = threading.Event()
        self._free = threading.Event()
        self.entered = threading.Semaphore(0)
        if not held:
            self._free.set()

    def hold(self) -> None:
        self._free.clear()

    def let(self) -> None:
        self._free.set()

    def __call__(self, images):
        assert not self.closed
        self.entered.release()
        assert self._free.wait(60)
        if self.error is not None:
            raise self.error
        return self.runtime(images)

    def prove(self) -> None:
        self.proved += 1
        if self.wrong is not None:
            raise self.wrong
        self.runtime.prove()

    def close(self) -> None:
        self.closed = True
        self.runtime.close()
        self.done.set()


class Opener:
    """Opens deployments whose runtimes tests can hold; keeps them in the order of opening."""

    def __init__(self) -> None:
        self.opened: list[Held] = []
        self.count = threading.Semaphore(0)  # of those opened after the first
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, options: ModelOptions) -> ServedModel:
        assert self.gate.wait(60)
        model = ServedModel.open(options)
        held = Held(model.runtime, held=False)
        self.opened.append(held)
        if len(self.opened) > 1:
            self.count.release()
        return replace(model, runtime=held)
