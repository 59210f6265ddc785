"""Engines on the host that are numpy functions, and a backend of them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping

import numpy as np

from parnet_deploy import Runtime
from parnet_deploy.placement import Placement
from parnet_deploy.runtime.backend import LoadedPlan
from parnet_deploy.runtime.host import HostDevice
from parnet_deploy.spec import ModelSpec
from tests.runtime.runtime_toys import fixed_size, make_plan, segment_kernel

Hook = Callable[[str], object]


class Binding:
    def __init__(self, tensors: Mapping) -> None:
        self.where = {name: [t.buffer.address, t.shape] for name, t in tensors.items()}

    def set_address(self, name: str, address: int) -> None:
        self.where[name][0] = address

    def array(self, name: str):
        address, shape = self.where[name]
        count = int(np.prod(shape))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)

    def close(self) -> None:
        self.where.clear()


class Engine:
    """A numpy kernel on the host. ``before`` runs first and may fail or block."""

    def __init__(self, segment, kernel, before: Hook | None = None) -> None:
        self.inputs, self.outputs, self.name = segment.inputs, segment.outputs, segment.name
        self.kernel, self.before = kernel, before

    def bind(self, tensors, slot):
        return Binding(tensors)

    def enqueue(self, binding, stream) -> None:
        def work() -> None:
            if self.before is not None:
                self.before(self.name)
            results = self.kernel({name: binding.array(name) for name in self.inputs})
            for name in self.outputs:
                binding.array(name)[...] = results[name]

        stream.submit(work, self.name)

    def close(self) -> None:
        pass


class HostBackend:
    """See ``backend.Backend``: one such engine for each segment."""

    name = "onnxruntime"

    def __init__(self, before: Hook | None = None) -> None:
        self.before = before

    def load(self, spec, plan, files, threads=None, *, trace=False) -> LoadedPlan:
        kernels = segment_kernel(spec)
        engines = {
            segment.name: Engine(segment, kernels(segment), self.before)
            for segment in plan.placement.segments
        }
        return LoadedPlan(devices={0: HostDevice(trace=trace)}, engines=engines)


def host_runtime(spec: ModelSpec, placement: Placement, before: Hook | None = None) -> Runtime:
    """A runtime for up to two images of the one size."""
    plan = make_plan(placement, fixed_size(spec), 2)
    return Runtime.from_plan(spec, plan, {}, backend=HostBackend(before))
