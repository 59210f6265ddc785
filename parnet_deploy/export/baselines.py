"""Other ways to run the same trained network, as arms of a benchmark."""

from __future__ import annotations

import io
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy as np
import torch
from numpy.typing import NDArray

from ..machine.cores import usable_cores
from ..measure import Arm
from ..runtime.onnxruntime.cpu import open_session
from .model import ParNet

Array = NDArray[np.float32]


def torch_arm(model: ParNet) -> Arm:
    """The training form in eager PyTorch, on every usable core."""
    torch.set_num_threads(usable_cores())

    def run(image: Array) -> Array:
        with torch.inference_mode():
            logits: Array = model(torch.from_numpy(image)).numpy()
        return logits

    note = f"training form, eager, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return Arm(name="torch", run=run, load_ms=None, note=note)


def unfused_arm(model: ParNet, image: Array) -> Arm:
    """What ``torch.onnx.export`` makes of the training form, on ONNX Runtime.

    Shapes: image (N, C, H, W); the batch stays fixed in this graph.
    """
    with _silence():
        program = torch.onnx.export(
            model, (torch.from_numpy(image),), dynamo=True, input_names=["image"], verbose=False
        )
        assert program is not None  # only without dynamo
        data = program.model_proto.SerializeToString()
    started = time.perf_counter_ns()
    session = open_session(data, threads=usable_cores())
    load_ms = (time.perf_counter_ns() - started) / 1e6

    def run(batch: Array) -> Array:
        logits: Array = session.run(None, {"image": batch})[0]
        return logits

    note = "torch.onnx.export of the training form, all optimisations, spinning off"
    return Arm(name="onnxruntime-unfused", run=run, load_ms=load_ms, note=note)


@contextmanager
def _silence() -> Iterator[None]:
    """The exporter reports to people who export by hand; here it is one arm of a benchmark."""
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            open(os.devnull, "w") as nowhere,
            redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
