"""The ``onnxruntime`` backend: segments as ONNX Runtime sessions on the CPU.

Sessions read and write preallocated memory (IOBinding by pointer): nothing is copied between
segments. Thread pools do not spin, so that sessions that run at the same time, and the rest of the
process, keep their cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ...machine.cores import usable_cores
from ...placement import Segment
from ...plan import Plan
from ...spec import ModelSpec
from ..device import Tensor
from ..engine_file import EngineFile
from ..host import HostStream
from ..host_backend import HostBackend
from .sessions import (
    CAUGHT,
    OrtBinding,
    check_session,
    load_error,
    release_model,
    session_options,
)


def run_once(
    model: bytes, feeds: Mapping[str, NDArray[np.float32]], *, emulate: bool = False
) -> dict[str, Any]:
    """Run a serialized ONNX model one time; every output by its name. For proofs, not for speed.

    ``emulate``: see ``open_session``.

    Raises:
        EngineLoadError: It is not an ONNX model that ONNX Runtime can run.
    """
    session = open_session(model, threads=usable_cores(), emulate=emulate)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def open_session(
    model: EngineFile | bytes, *, threads: int, emulate: bool = False, profile: Path | None = None
) -> Any:
    """An ``InferenceSession`` on the CPU with all graph optimisations and a pool that never spins.

    ``emulate`` turns the optimisations off: every node of a quantized graph is then computed as it
    is written, rounding and clipping included, but the sums in float32, where nothing overflows.
    ``profile`` is how the name of a file begins that ``end_profiling`` of the session writes.

    Raises:
        EngineLoadError: The file is not an ONNX model that ONNX Runtime can run.
        OutOfMemoryError: The model does not fit into memory.
    """
    try:
        source = model if isinstance(model, bytes) else model.read_bytes()
        providers = ["CPUExecutionProvider"]
        options = session_options(threads, emulate=emulate)
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        session = ort.InferenceSession(
            source,
            options,
            providers=providers,
            enable_fallback=0,  # else it prints the error on stdout and tries once more
        )
        return release_model(session)
    except CAUGHT as error:
        what = "engine" if isinstance(model, bytes) else f"engine {model}"
        raise load_error(error, what) from error


class OrtEngine:
    """See ``device.Engine``: one session.

    Owns: the session, and with it the weights and a thread pool.
    """

    def __init__(self, segment: Segment, session: Any) -> None:
        self.inputs, self.outputs = segment.inputs, segment.outputs
        self._name = segment.name
        self._session = session

    def bind(self, tensors: Mapping[str, Tensor], slot: int) -> OrtBinding:
        """See ``device.Engine``."""
        binding = OrtBinding(self._session, self._name, self.inputs)
        binding.bind_all(tensors)
        return binding

    def enqueue(self, binding: OrtBinding, stream: HostStream) -> None:
        """See ``device.Engine``."""
        stream.submit(binding.run, self._name)

    def close(self) -> None:
        """See ``device.Engine``."""
        self._session = None


class OnnxRuntimeBackend(HostBackend):
    """See ``host_backend.HostBackend``."""

    name = "onnxruntime"

    def open_engine(
        self, file: EngineFile, segment: Segment, spec: ModelSpec, plan: Plan, threads: int
    ) -> OrtEngine:
        """See ``host_backend.HostBackend``."""
        session = open_session(file, threads=threads)
        check_session(session, segment, spec, plan)
        return OrtEngine(segment, session)

    def facts(self, plan: Plan) -> Mapping[str, Any]:
        """See ``host_backend.HostBackend``."""
        return {"onnxruntime": ort.__version__}
