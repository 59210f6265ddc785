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

from ...errors import DeviceUnavailableError
from ...machine.cores import share_cores, usable_cores
from ...placement import Segment
from ...plan import Plan
from ...spec import ModelSpec
from ..backend import LoadedPlan
from ..device import Tensor
from ..engine_file import EngineFile
from ..host import HostDevice, HostStream
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


class OnnxRuntimeBackend:
    """See ``backend.Backend``."""

    name = "onnxruntime"

    def load(
        self,
        spec: ModelSpec,
        plan: Plan,
        files: Mapping[str, EngineFile],
        threads: int | None = None,
        *,
        trace: bool = False,
    ) -> LoadedPlan:
        """See ``backend.Backend``."""
        if plan.placement.devices != (0,):
            raise DeviceUnavailableError(
                f"placement {plan.placement.name}: got devices {plan.placement.devices}, "
                "expected 0, for the CPU is one device. Run: parnet-deploy build --backend "
                "onnxruntime without --gpus."
            )
        cores = threads or plan.threads or usable_cores()
        shares = share_cores(plan.placement, cores)
        engines = {}
        for segment in plan.placement.segments:
            session = open_session(files[segment.name], threads=shares[segment.name])
            check_session(session, segment, spec, plan)
            engines[segment.name] = OrtEngine(segment, session)
        facts = {"onnxruntime": ort.__version__, "cores": cores, "threads": shares}
        return LoadedPlan(devices={0: HostDevice(trace=trace)}, engines=engines, facts=facts)
