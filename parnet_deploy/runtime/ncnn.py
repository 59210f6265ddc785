"""The ``ncnn`` backend: segments as ncnn networks on the CPU, in float32.

ncnn has no batch: images run one after the other. An input is read where it lies, without a copy,
if ncnn can: a channel must have a multiple of 4 pixels, and no layer may work in place on it (none
of ParNet's parts does). An output is copied once, from ncnn's memory into ours. Inside, ncnn packs
channels for its SIMD units, which costs it a copy of each input and output more.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

import ncnn
import numpy as np
from numpy.typing import NDArray

from ..errors import EngineLoadError, ExecutionError, OutOfMemoryError
from ..placement import Segment
from ..plan import Plan
from ..spec import ModelSpec
from .device import Tensor
from .engine_file import EngineFile
from .fork_guard import ForkGuard
from .host import HostStream
from .host_array import array_at
from .host_backend import HostBackend
from .ncnn_file import NcnnModel, unpack_model

_GUARD = ForkGuard("ncnn")

_NO_MEMORY = -100
"""What ncnn returns where it could not allocate."""

_ALIGNMENT_BYTES = 16
"""Between the channels of a map. Some layers compute the distance anew instead of asking for it."""

_OFF = (
    "use_vulkan_compute",
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)
"""Options that would leave the CPU or float32; the narrow types give NaN on our networks."""


class NcnnEngine:
    """See ``device.Engine``: one network, shared by the slots; each run has its extractor.

    ``copied`` are the inputs that ncnn must own, for it overwrites them.

    Owns: the network, and with it the weights.
    """

    def __init__(self, segment: Segment, net: Any, copied: Collection[str] = ()) -> None:
        self.inputs, self.outputs = segment.inputs, segment.outputs
        self._segment, self._net, self._copied = segment, net, copied

    def bind(self, tensors: Mapping[str, Tensor], slot: int) -> NcnnBinding:
        """See ``device.Engine``."""
        return NcnnBinding(self._net, self._segment, tensors, self._copied)

    def enqueue(self, binding: NcnnBinding, stream: HostStream) -> None:
        """See ``device.Engine``; ncnn takes its memory from a pool that it keeps."""
        stream.submit(binding.run, self._segment.name)

    def close(self) -> None:
        """See ``device.Engine``."""
        self._net = None


class NcnnBinding:
    """See ``device.Binding``. ``run`` is one inference on the bound memory."""

    def __init__(
        self,
        net: Any,
        segment: Segment,
        tensors: Mapping[str, Tensor],
        copied: Collection[str],
    ) -> None:
        self._net, self._name, self._copied = net, segment.name, copied
        self._inputs, self._outputs = segment.inputs, segment.outputs
        self._shapes = {key: tensor.shape for key, tensor in tensors.items()}
        self._arrays: dict[str, NDArray[np.float32]] = {}
        for key, tensor in tensors.items():
            self.set_address(key, tensor.buffer.address)

    def set_address(self, name: str, address: int) -> None:
        """See ``device.Binding``. Address 0: not known yet."""
        if address:
            self._arrays[name] = array_at(address, self._shapes[name])

    def run(self) -> None:
        """Run every image of the batch.

        Raises:
            ExecutionError: ncnn reported a failure.
            OutOfMemoryError: It got no memory.
        """
        for image in range(self._shapes[self._inputs[0]][0]):
            self._run_one(image)

    def close(self) -> None:
        """See ``device.Binding``. It lets go of the network and of the memory."""
        self._net = None
        self._arrays.clear()

    def _run_one(self, image: int) -> None:
        extractor = self._net.create_extractor()
        for name in self._inputs:
            mat = ncnn.Mat(self._arrays[name][image])
            if name in self._copied or self._arrays[name][image, 0].nbytes % _ALIGNMENT_BYTES:
                mat = mat.clone()
            self._check(extractor.input(name, mat), name)
        for name in self._outputs:
            status, found = extractor.extract(name)
            self._check(status, name)
            source, target = np.asarray(found), self._arrays[name][image]
            if source.size != target.size:
                raise ExecutionError(
                    f"segment {self._name}, tensor {name}: got shape {source.shape} from ncnn, "
                    f"expected {target.shape}. Run: parnet-deploy build."
                )
            np.copyto(target, source.reshape(target.shape))

    def _check(self, status: int, name: str) -> None:
        if status == _NO_MEMORY:
            raise OutOfMemoryError(f"segment {self._name}: ncnn got no memory for {name}.")
        if status != 0:
            raise ExecutionError(f"segment {self._name}: ncnn returned {status} for {name}.")


class NcnnBackend(HostBackend):
    """See ``host_backend.HostBackend``."""

    name = "ncnn"

    def open_engine(
        self, file: EngineFile, segment: Segment, spec: ModelSpec, plan: Plan, threads: int
    ) -> NcnnEngine:
        """See ``host_backend.HostBackend``."""
        _GUARD.use(threads)
        what = f"engine {file}"
        try:
            data = file.read_bytes()
        except OSError as error:
            raise EngineLoadError(f"{what}: cannot be read: {error}.") from error
        model = unpack_model(data, what)
        _check_segment(model, segment, spec, plan)
        net = open_net(model, what, threads=threads)
        return NcnnEngine(segment, net, model.overwritten())

    def facts(self, plan: Plan) -> Mapping[str, Any]:
        """See ``host_backend.HostBackend``."""
        return {"ncnn": ncnn.__version__}


def open_net(model: NcnnModel, what: str, *, threads: int) -> Any:
    """An ``ncnn.Net`` that may use so many cores. ``what`` names it in messages.

    Raises:
        EngineLoadError: ncnn refuses it.
        OutOfMemoryError: It does not fit into memory.
    """
    net = ncnn.Net()
    for option in _OFF:
        if hasattr(net.opt, option):  # some are younger than the oldest version that we allow
            setattr(net.opt, option, False)
    net.opt.num_threads = threads
    statuses = [net.load_param_mem(model.text())]
    if statuses == [0]:
        statuses.append(_load_weights(net, model.weights))
    if _NO_MEMORY in statuses:
        raise OutOfMemoryError(f"{what}: ncnn got no memory for it.")
    if any(statuses):
        raise EngineLoadError(f"{what}: ncnn cannot load it: it returned {statuses[-1]}.")
    return net


def _load_weights(net: Any, weights: bytes) -> int:
    """Let ncnn read a file in memory that has no name: reading from plain memory checks no end."""
    handle = os.memfd_create("parnet-ncnn", os.MFD_CLOEXEC)
    with open(handle, "wb") as file:
        file.write(weights)
        file.flush()
        status: int = net.load_model(f"/proc/self/fd/{handle}")
    return status


def _check_segment(model: NcnnModel, segment: Segment, spec: ModelSpec, plan: Plan) -> None:
    """Refuse a file that is not this segment: names, and shapes of what it reads."""
    inputs, outputs = model.inputs(), model.outputs()
    if set(inputs) != set(segment.inputs) or not set(segment.outputs) <= outputs:
        raise EngineLoadError(
            f"engine of segment {segment.name}: got {sorted(inputs)} -> {sorted(outputs)}, "
            f"expected {sorted(segment.inputs)} -> {sorted(segment.outputs)}. "
            "Run: parnet-deploy build."
        )
    for name, got in inputs.items():
        for size in (plan.input_size.low, plan.input_size.high):
            want = spec.tensors[name].shape(*size)
            if any(have not in (0, need) for have, need in zip(got, want, strict=True)):
                raise EngineLoadError(
                    f"engine of segment {segment.name}, tensor {name}: got {list(got)}, "
                    f"expected {list(want)}. Run: parnet-deploy build."
                )
