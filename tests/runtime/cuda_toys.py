"""A machine with CUDA that is not there: simulated devices, and sessions that run on their streams.

Everything that is enqueued is put off, and an order that no event fixes gives NaN (see
``parnet_deploy.runtime.fake.simulator``).
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime as ort

from parnet_deploy.errors import BackendError
from parnet_deploy.runtime.fake.device import FakeDevice, FakeStream
from parnet_deploy.runtime.fake.memory import FakeBuffer
from parnet_deploy.runtime.fake.options import FakeOptions
from parnet_deploy.runtime.fake.simulator import Simulator, Work

RealSession = ort.InferenceSession


class ToyStream(FakeStream):
    """A stream of a device, with what the CUDA layer adds."""

    @contextmanager
    def traced(self, op: str, name: str) -> Iterator[None]:
        self.owner.traced.append((op, name, self.handle))
        yield


class ToyDevice(FakeDevice):
    """A simulated device with a context that can be current."""

    def __init__(self, ordinal: int, machine: ToyMachine) -> None:
        super().__init__(ordinal, machine.simulator, machine.options)
        self.machine = machine
        self.entered = 0
        self.closed = False
        self.traced: list[tuple[str, str, int]] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        self.entered += 1
        try:
            yield
        finally:
            self.entered -= 1

    def create_stream(self, lane: int, rank: int = 0) -> ToyStream:
        made = super().create_stream(lane, rank)
        stream = ToyStream(self, made.queue, made.handle, owned=True)
        self.machine.streams[stream.handle] = stream
        return stream

    def forget(self, stream: FakeStream) -> None:
        self.machine.streams.pop(stream.handle, None)
        super().forget(stream)

    def allocate(self, nbytes: int) -> FakeBuffer:
        buffer = super().allocate(nbytes)
        self.machine.buffers[buffer.address] = buffer
        return buffer

    def close(self) -> None:
        self.closed = True


class ToyMachine:
    """Stands for ``runtime.cuda.device`` and for an onnxruntime with the CUDA provider."""

    def __init__(self, devices: int = 3, options: FakeOptions | None = None) -> None:
        self.options = options or FakeOptions(jitter_us=50.0, graphs=True)
        faults = self.options.faults
        self.simulator = Simulator(seed=self.options.seed, jitter_us=50.0, faults=faults)
        self.devices = {ordinal: ToyDevice(ordinal, self) for ordinal in range(devices)}
        self.streams: dict[int, ToyStream] = {}
        self.buffers: dict[int, FakeBuffer] = {}
        self.sessions: list[ToySession] = []
        self.asked_trace: bool | None = None
        self.run_error: Exception | None = None
        self.load_error: Exception | None = None
        self.providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def open_devices(self, ordinals: Sequence[int], *, trace: bool = False) -> dict:
        self.asked_trace = trace
        return {ordinal: self.devices[ordinal] for ordinal in ordinals}

    def install(self, monkeypatch) -> None:
        """Be the machine that the backend finds."""
        import parnet_deploy.runtime.onnxruntime.cuda_session as backend

        module = types.ModuleType("parnet_deploy.runtime.cuda.device")
        module.open_devices = self.open_devices
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(backend.ort, "InferenceSession", self.session)
        monkeypatch.setattr(backend.ort, "get_available_providers", lambda: self.providers)
        monkeypatch.setattr(backend.ort, "preload_dlls", lambda: print("no libcudnn.so.9"))

    def session(self, *arguments: Any, **options: Any) -> ToySession:
        if self.load_error is not None:
            raise self.load_error
        session = ToySession(self, *arguments, **options)
        self.sessions.append(session)
        return session


class ToyBinding:
    """An IOBinding that takes addresses of simulated device memory."""

    def __init__(self) -> None:
        self.inputs: dict[str, tuple] = {}
        self.outputs: dict[str, tuple] = {}

    def bind_input(self, name, device_type, device_id, element_type, shape, buffer_ptr) -> None:
        assert (device_type, element_type) == ("cuda", np.float32)
        self.inputs[name] = (device_id, shape, buffer_ptr)

    def bind_output(self, name, device_type, device_id, element_type, shape, buffer_ptr) -> None:
        assert (device_type, element_type) == ("cuda", np.float32)
        self.outputs[name] = (device_id, shape, buffer_ptr)

    def clear_binding_inputs(self) -> None:
        self.inputs.clear()

    def clear_binding_outputs(self) -> None:
        self.outputs.clear()


class ToySession:
    """A session on a simulated GPU: a run puts the work into the stream that it was made with."""

    def __init__(self, machine: ToyMachine, model, options, providers, enable_fallback) -> None:
        assert enable_fallback == 0
        ((name, self.options),) = providers
        assert name == "CUDAExecutionProvider"
        self.machine = machine
        self.real = RealSession(model, options, providers=["CPUExecutionProvider"])
        self.device = machine.devices[int(self.options["device_id"])]
        assert self.device.entered, "a session is made in its device's context"
        self.stream = machine.streams[int(self.options["user_compute_stream"])]
        self.run_options: list[dict] = []
        self.on: list[str] = ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_providers(self) -> list[str]:
        return self.on

    def get_inputs(self) -> list:
        return self.real.get_inputs()

    def get_outputs(self) -> list:
        return self.real.get_outputs()

    def io_binding(self) -> ToyBinding:
        return ToyBinding()

    def run_with_iobinding(self, binding: ToyBinding, options: Any) -> None:
        entries = ("disable_synchronize_execution_providers", "gpu_graph_id")
        self.run_options.append({key: _entry(options, key) for key in entries})
        assert self.device.entered, "a session runs in its device's context"
        if self.machine.run_error is not None:
            raise self.machine.run_error
        reads = {name: self._find(*where) for name, where in binding.inputs.items()}
        writes = {name: self._find(*where) for name, where in binding.outputs.items()}

        def start():
            feeds = {name: np.array(view) for name, (_, view) in reads.items()}
            results = self.real.run(list(writes), feeds)

            def finish() -> None:
                for (_, view), value in zip(writes.values(), results, strict=True):
                    view[...] = value

            return finish

        self.stream.put(
            Work(
                op="run",
                name="session",
                duration_us=20.0,
                reads=tuple(memory for memory, _ in reads.values()),
                writes=tuple(memory for memory, _ in writes.values()),
                start=start,
            )
        )

    def _find(self, ordinal: int, shape: tuple[int, ...], address: int) -> tuple:
        buffer = self.machine.buffers[address]
        if buffer.device != ordinal:
            raise BackendError(f"bound to device {ordinal}, the memory is on {buffer.device}")
        return buffer.memory, buffer.view(shape)


def _entry(options: Any, key: str) -> str | None:
    try:
        return options.get_run_config_entry(key)
    except RuntimeError:
        return None
