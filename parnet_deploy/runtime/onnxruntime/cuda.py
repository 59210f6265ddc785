"""The ``onnxruntime-cuda`` backend: segments as ONNX Runtime sessions on NVIDIA GPUs.

A session keeps for life the cuda_stream that it was made with. So each has one of its own, and
events order it against the executor's stream on both sides of a run; the run itself only enqueues
(``disable_synchronize_execution_providers``). Runs of one session follow one another, whatever slot
they belong to. Tensors are bound by address in device memory: nothing is copied.

No CUDA graph is captured around a run, for a session may allocate and synchronise in it. ONNX
Runtime's own graph (``enable_cuda_graph``) stays off unless asked for: before onnxruntime pull
request 28686 its replay waits for the stream on every run, which takes the overlap between segments
away, and it ties a binding to one shape.

Source: onnxruntime ``core/session/inference_session.cc`` (what a run waits for).
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, cast

import onnxruntime as ort

from ...errors import BackendError
from ...extras import import_for
from ...placement import Segment
from ...plan import Plan
from ...spec import ModelSpec
from ..backend import LoadedPlan
from ..device import Capture, Device, Event, Stream, Tensor
from ..engine_file import EngineFile
from .cuda_session import PROVIDER, OrtCudaOptions, check_provider, open_session
from .sessions import OrtBinding, check_session

NO_GRAPH = "an ONNX Runtime session cannot be captured from outside: it may allocate in a run"


class CudaStream(Stream, Protocol):
    """What is needed of a stream beside ``device.Stream``."""

    @property
    def handle(self) -> int:
        """The raw cudaStream_t."""

    def traced(self, op: str, name: str) -> AbstractContextManager[object]:
        """Record the time of what is enqueued inside, if the device traces."""


class OrtCudaEngine:
    """See ``device.Engine``: one session, with a stream and two events of its own.

    Owns: them. Borrows: the device.
    """

    def __init__(
        self,
        segment: Segment,
        device: Any,
        open_session: Callable[[int], Any],
        *,
        graph: bool = False,
    ) -> None:
        self.inputs, self.outputs = segment.inputs, segment.outputs
        self._name, self._device, self._graph = segment.name, device, graph
        self._lock = threading.Lock()
        self._graph_ids = itertools.count(1)
        with ExitStack() as undo:
            self._stream = device.create_stream(segment.lane, segment.lane)
            undo.callback(self._stream.close)
            self._before: Event = device.create_event()
            undo.callback(self._before.close)
            self._after: Event = device.create_event()
            undo.callback(self._after.close)
            with device.current():
                self._session: Any = open_session(self._stream.handle)
            self._resources = undo.pop_all()

    @property
    def session(self) -> Any:
        """The ``InferenceSession``; None once closed."""
        return self._session

    def bind(self, tensors: Mapping[str, Tensor], slot: int) -> OrtBinding:
        """See ``device.Engine``.

        Runs it once, so that memory is allocated and algorithms are searched now and not in a
        call.
        """
        options = ort.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self._graph:
            options.add_run_config_entry("gpu_graph_id", str(next(self._graph_ids)))
        where = ("cuda", self._device.ordinal)
        with self._lock, self._device.current(), ExitStack() as undo:
            binding = OrtBinding(self._session, self._name, self.inputs, where, options)
            undo.callback(binding.close)
            binding.bind_all(tensors)
            binding.run()
            self._stream.synchronize()
            undo.pop_all()
        return binding

    def enqueue(self, binding: OrtBinding, stream: CudaStream) -> None:
        """See ``device.Engine``."""
        with self._lock, stream.traced("run", self._name):
            stream.record(self._before)
            self._stream.wait(self._before)
            try:
                with self._device.current():  # ONNX Runtime makes its device current and leaves it
                    binding.run()
            except BaseException:
                self._settle()  # nobody waits for the part of the run that was enqueued
                raise
            self._stream.record(self._after)
            stream.wait(self._after)

    def close(self) -> None:
        """See ``device.Engine``."""
        if self._session is None:
            return
        with ExitStack() as last:
            last.callback(self._resources.close)
            last.callback(self._drop_session)
            self._settle()

    def _drop_session(self) -> None:
        session, self._session = self._session, None
        with self._device.current():
            del session

    def _settle(self) -> None:
        with contextlib.suppress(BackendError):  # it was raised before, or will be
            self._stream.synchronize()


class EagerDevice:
    """A device whose work is not captured. Everything else is the device's own.

    Owns: the device.
    """

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def capture(self, work: Callable[[], None], stream: Any) -> Capture:
        """See ``device.Device``. Runs nothing."""
        return Capture(None, NO_GRAPH)


class OnnxRuntimeCudaBackend:
    """See ``backend.Backend``."""

    name = "onnxruntime-cuda"

    def __init__(self, options: OrtCudaOptions | None = None) -> None:
        self._options = options or OrtCudaOptions()

    def load(
        self,
        spec: ModelSpec,
        plan: Plan,
        files: Mapping[str, EngineFile],
        threads: int | None = None,
        *,
        trace: bool = False,
    ) -> LoadedPlan:
        """See ``backend.Backend``. ``threads`` means nothing here: the work is the GPU's."""
        check_provider()
        cuda = import_for("parnet_deploy.runtime.cuda.device", "gpu")
        with ExitStack() as undo:
            found = cuda.open_devices(plan.placement.devices, trace=trace)
            devices = {ordinal: EagerDevice(device) for ordinal, device in found.items()}
            for device in devices.values():
                undo.callback(device.close)
            engines = {}
            for segment in plan.placement.segments:
                engine = self._open(segment, files[segment.name], devices[segment.device])
                undo.callback(engine.close)
                check_session(engine.session, segment, spec, plan)
                engines[segment.name] = engine
            undo.pop_all()
        facts = {"onnxruntime": ort.__version__, "provider": PROVIDER, "graph": NO_GRAPH}
        if self._options.graph:
            facts["graph"] = "ONNX Runtime's own, one for each binding"
        return LoadedPlan(devices=cast(Mapping[int, Device], devices), engines=engines, facts=facts)

    def _open(self, segment: Segment, file: EngineFile, device: EagerDevice) -> OrtCudaEngine:
        def session(stream: int) -> Any:
            options = self._options.for_session(device.ordinal, stream)
            return open_session(file, options)

        return OrtCudaEngine(segment, device, session, graph=self._options.graph)
