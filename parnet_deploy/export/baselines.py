"""Other ways to run the same trained network, as arms of a benchmark."""

from __future__ import annotations

import io
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import BackendError, DeviceUnavailableError
from ..machine.cores import usable_cores
from ..measure import Arm
from .model import ParNet

Array = NDArray[np.float32]
Network = Callable[[Array], Array]


def torch_arm(model: ParNet, *, threads: int | None = None, gpu: int | None = None) -> Arm:
    """The training form in eager PyTorch, on every usable core or on a GPU.

    Raises:
        DeviceUnavailableError: This PyTorch has no such GPU.
    """
    device = _prepare(threads, gpu)
    return Arm(
        name="torch",
        run=_caller(model.to(device), device),
        load_ms=None,
        note=f"training form, eager, {_place_text(device)}",
    )


def compiled_arm(
    model: ParNet, image: Array, *, threads: int | None = None, gpu: int | None = None
) -> Arm:
    """The training form under ``torch.compile`` in its default mode, already compiled.

    Shapes: image (N, C, H, W); another batch would be compiled again.

    Raises:
        DeviceUnavailableError: This PyTorch has no such GPU.
        BackendError: The compiler failed; without a C++ compiler it does on the CPU.
    """
    device = _prepare(threads, gpu)
    run = _caller(torch.compile(model.to(device)), device)
    started = time.perf_counter_ns()
    try:
        with _silence():
            run(image)
    except Exception as error:  # whatever a compiler raises; its classes are private
        said = (str(error).strip().splitlines() or [""])[0]
        raise BackendError(
            f"torch.compile: {type(error).__name__}: {said}. On the CPU it needs a C++ compiler."
        ) from error
    load_ms = (time.perf_counter_ns() - started) / 1e6
    note = f"training form, torch.compile, {_place_text(device)}"
    return Arm(name="torch-compile", run=run, load_ms=load_ms, note=note)


def unfused_graph(model: ParNet, image: Array) -> bytes:
    """What ``torch.onnx.export`` makes of the training form: a serialized ONNX model.

    Shapes: image (N, C, H, W); the batch stays fixed in this graph.
    """
    with _silence():
        program = torch.onnx.export(
            model, (torch.from_numpy(image),), dynamo=True, input_names=["image"], verbose=False
        )
        assert program is not None  # only without dynamo
        data: bytes = program.model_proto.SerializeToString()
    return data


def _prepare(threads: int | None, gpu: int | None) -> torch.device:
    """Set PyTorch's threads, and on a GPU float32 without TF32, as our engines have it."""
    torch.set_num_threads(threads or usable_cores())
    if gpu is None:
        return torch.device("cpu")
    if gpu >= torch.cuda.device_count():
        raise DeviceUnavailableError(
            f"torch {torch.__version__}: got {torch.cuda.device_count()} GPUs, expected GPU {gpu}, "
            "on which the plan runs; on the CPU it would compare devices"
        )
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda", gpu)


def _caller(model: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> Network:
    def run(image: Array) -> Array:
        with torch.inference_mode():
            logits: Array = model(torch.from_numpy(image).to(device)).cpu().numpy()
        return logits

    return run


def _place_text(device: torch.device) -> str:
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else f"{device}, TF32 off"
    return f"{where}, torch {torch.__version__}"


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
