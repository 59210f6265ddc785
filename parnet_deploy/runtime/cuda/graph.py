"""Work captured from the streams of one CUDA device, launched as one graph."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NoReturn

from cuda.bindings import driver

from ...errors import BackendError
from .context import ClosedContext, CudaContext
from .driver import CaptureFailed
from .stream import CudaStream

_launch = driver.cuGraphLaunch
_THREAD_LOCAL = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_KEEP_PRIORITIES = 8  # CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY


class CudaGraph:
    """See ``device.Graph``. ``handle`` is the raw cudaGraphExec_t, ``nodes`` how many it has."""

    __slots__ = ("_context", "_device", "_raw", "handle", "nodes")

    def __init__(self, context: CudaContext, raw: Any, nodes: int) -> None:
        self._context: CudaContext | ClosedContext = context
        self._device, self._raw = context.ordinal, raw
        self.handle, self.nodes = int(raw), nodes

    def launch(self, stream: CudaStream) -> None:
        """See ``device.Graph``."""
        if stream.device != self._device or not stream.launchable or self.closed:
            self._refuse(stream)
        stream.context.call(_launch, self._raw, stream.raw)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return isinstance(self._context, ClosedContext)

    def close(self) -> None:
        """See ``device.Graph``."""
        context = self._context
        if isinstance(context, CudaContext):
            self._context = ClosedContext("graph", self._device)
            context.free(driver.cuGraphExecDestroy, self._raw)

    def _refuse(self, stream: CudaStream) -> NoReturn:
        self._context.call(driver.cuCtxGetDevice)  # raises if the graph is closed
        raise BackendError(
            f"graph of device {self._device}: got a stream of device {stream.device}"
            f"{'' if stream.launchable else ' in a foreign context'}, expected one of its "
            "primary context. Launch it in a stream of ours that waits for theirs."
        )


def record_graph(context: CudaContext, work: Callable[[], None], stream: CudaStream) -> CudaGraph:
    """Capture ``work`` and make it ready to launch. Other threads may allocate meanwhile.

    Whatever happens, ``stream`` captures no more afterwards, and nothing is left behind.

    Raises:
        CaptureFailed: The work cannot be a graph.
        BackendError: What ``work`` raised, or the driver for other reasons.
    """
    template = _capture(context, work, stream)
    with ExitStack() as undo:
        with ExitStack() as spent:  # the executable graph does not need the template
            spent.callback(context.free, driver.cuGraphDestroy, template)
            nodes = int(context.call(driver.cuGraphGetNodes, template))
            if nodes == 0:
                raise CaptureFailed(
                    "capture: got no work in the stream, expected some. The engine enqueued it on "
                    "another device or stream."
                )
            raw = context.call(driver.cuGraphInstantiate, template, _KEEP_PRIORITIES)
            graph = CudaGraph(context, raw, nodes)
            undo.callback(graph.close)
        context.call(driver.cuGraphUpload, raw, stream.raw)
        stream.synchronize()
        undo.pop_all()
    return graph


def _capture(context: CudaContext, work: Callable[[], None], stream: CudaStream) -> Any:
    try:
        context.call(driver.cuStreamBeginCapture, stream.raw, _THREAD_LOCAL)
        work()
        return context.call(driver.cuStreamEndCapture, stream.raw)
    except BaseException:
        # Ends it for all streams that took part. It was spoilt, so mostly there is no graph.
        with context.guard():
            _, template = driver.cuStreamEndCapture(stream.raw)
            if template is not None and int(template):
                driver.cuGraphDestroy(template)
        raise
