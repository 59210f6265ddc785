"""ONNX Runtime sessions on a GPU: what they are made with, and why there is none.

Source: onnxruntime ``core/providers/cuda/cuda_execution_provider_info.cc`` (the options).
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import onnxruntime as ort

from ...errors import DeviceUnavailableError
from ..engine_file import EngineFile
from .sessions import CAUGHT, load_error, release_model, session_options

PROVIDER = "CUDAExecutionProvider"

_LOG = logging.getLogger(__name__)
_REINSTALL = (
    "Run: pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu "
    "(the second package also runs on the CPU)."
)


@dataclass(frozen=True, kw_only=True)
class OrtCudaOptions:
    """Options of the CUDA execution provider. ``memory_mib`` bounds each session's arena.

    ``graph`` switches ONNX Runtime's own CUDA graph on (see the module); ``nhwc`` lets it choose
    channels-last convolutions; ``tf32`` lets it round float32 operands to 10 bits.
    """

    memory_mib: int | None = None
    graph: bool = False
    nhwc: bool = False
    tf32: bool = False

    def for_session(self, device: int, stream: int) -> dict[str, str]:
        """What a session on this device and stream is made with."""
        options = {
            "device_id": str(device),
            "has_user_compute_stream": "1",
            "user_compute_stream": str(stream),
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "cudnn_conv_use_max_workspace": "1",
            "do_copy_in_default_stream": "1",
            "enable_cuda_graph": str(int(self.graph)),
            "prefer_nhwc": str(int(self.nhwc)),
            "use_tf32": str(int(self.tf32)),
        }
        if self.memory_mib is not None:
            options["gpu_mem_limit"] = str(self.memory_mib << 20)
        return options


def check_provider() -> None:
    """Refuse an ONNX Runtime that has no CUDA, and say how to get one that has.

    Raises:
        DeviceUnavailableError: With the reason and the command.
    """
    if PROVIDER in ort.get_available_providers():
        return
    there = " and ".join(installed()) or f"onnxruntime {ort.__version__}"
    why = "one overwrites files of the other" if len(installed()) > 1 else "it is the CPU's package"
    raise DeviceUnavailableError(
        f"onnxruntime: got {there} without the {PROVIDER} ({why}), expected onnxruntime-gpu "
        f"alone. {_REINSTALL}"
    )


def installed() -> list[str]:
    """The packages that bring a module onnxruntime, with their versions."""
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found


def open_session(model: EngineFile | bytes, options: Mapping[str, str]) -> Any:
    """An ``InferenceSession`` on a GPU, and on nothing else.

    Raises:
        EngineLoadError: The file is not an ONNX model that ONNX Runtime can run.
        OutOfMemoryError: The model does not fit into the GPU's memory.
        DeviceUnavailableError: CUDA's libraries cannot be loaded; ONNX Runtime would use the CPU.
    """
    said = _preload()
    what = "engine" if isinstance(model, bytes) else f"engine {model}"
    try:
        source = model if isinstance(model, bytes) else model.read_bytes()
        session = ort.InferenceSession(
            source,
            session_options(threads=1),
            providers=[(PROVIDER, dict(options))],
            enable_fallback=0,  # else it prints the error and takes the CPU
        )
    except CAUGHT as error:
        raise load_error(error, what) from error
    if PROVIDER not in session.get_providers():
        raise DeviceUnavailableError(
            f"{what}: got a session on {', '.join(session.get_providers())}, expected "
            f"{PROVIDER}: CUDA or cuDNN of the versions that onnxruntime {ort.__version__} is "
            f"made for cannot be loaded{said and f' ({said})'}. Run: pip install "
            "'onnxruntime-gpu[cuda,cudnn]'."
        )
    return release_model(session)


def _preload() -> str:
    """Load the CUDA libraries that pip installed; returns what could not be loaded.

    ONNX Runtime prints that to stdout, which belongs to the command line's answer.
    """
    preload = getattr(ort, "preload_dlls", None)  # from 1.21 on
    if preload is None:
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        preload()
    said = " ".join(printed.getvalue().split())
    if said:
        _LOG.debug("onnxruntime.preload_dlls: %s", said)
    return said[:200]
