"""A program for a process of its own: the CUDA layer as it is, over the stand-in for the driver.

Sessions put their work into the stream that they were made with, as a kernel that computes with
ONNX Runtime on the CPU: memory of the stand-in is host memory. Prints how many runs were right.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.runtime.cuda_toys import ToyBinding
from tests.runtime.runtime_toys import (
    PLACEMENTS,
    SPECS,
    fixed_size,
    images,
    make_plan,
    reference,
    run,
    write_engines,
)
from tests.stubs.cuda_stub import load_stub

SPEC = SPECS[3]
RealSession = ort.InferenceSession
STUB = load_stub()


class Session:
    """A session whose runs are kernels of the stand-in."""

    def __init__(self, model, options, providers, enable_fallback) -> None:
        ((_, about),) = providers
        self.stream = int(about["user_compute_stream"])
        self.real = RealSession(model, options, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider"]

    def get_inputs(self) -> list:
        return self.real.get_inputs()

    def get_outputs(self) -> list:
        return self.real.get_outputs()

    def io_binding(self) -> ToyBinding:
        return ToyBinding()

    def run_with_iobinding(self, binding: ToyBinding, options: Any) -> None:
        reads, writes = dict(binding.inputs), dict(binding.outputs)

        def kernel() -> None:
            feeds = {name: np.array(view(*where)) for name, where in reads.items()}
            results = self.real.run(list(writes), feeds)
            for where, value in zip(writes.values(), results, strict=True):
                view(*where)[...] = value

        touched = [address for _, _, address in (*reads.values(), *writes.values())]
        STUB.launch(self.stream, kernel, touched)


def view(device: int, shape: tuple[int, ...], address: int) -> np.ndarray:
    """The tensor at an address of the stand-in."""
    memory = (ctypes.c_float * int(np.prod(shape))).from_address(address)
    return np.ctypeslib.as_array(memory).reshape(shape)


def main() -> None:
    """Every placement, plain and traced, on some seeds."""
    from parnet_deploy.runtime.executor import Executor
    from parnet_deploy.runtime.onnxruntime.cuda import OnnxRuntimeCudaBackend

    ort.InferenceSession = Session
    ort.get_available_providers = lambda: ["CUDAExecutionProvider"]
    right = 0
    for seed in range(3):
        for make in PLACEMENTS.values():
            for trace in (False, True):
                STUB.reset(devices=3, seed=seed)
                plan = make_plan(make(SPEC), fixed_size(SPEC), 2, backend="onnxruntime-cuda")
                with tempfile.TemporaryDirectory() as folder:
                    files = write_engines(SPEC, plan, Path(folder))
                    loaded = OnnxRuntimeCudaBackend().load(SPEC, plan, files, trace=trace)
                executor = Executor(
                    spec=SPEC,
                    placement=plan.placement,
                    devices=loaded.devices,
                    engines=loaded.engines,
                    input_size=plan.input_size,
                    max_batch=plan.max_batch,
                    slots=2,
                )
                for k in range(4):
                    x = images(SPEC, 1 + k % 2, seed=k)
                    got = run(executor, SPEC, x)
                    right += np.allclose(got, reference(SPEC, x), rtol=1e-5, atol=1e-6)
                if trace:
                    named = {entry.name for entry in executor.timeline() if entry.op == "run"}
                    assert named == {segment.name for segment in plan.placement.segments}
                executor.close()
                loaded.close()
                assert STUB.live() == {}, STUB.live()
                assert STUB.depth == 0, "the thread's contexts are as they were"
                assert STUB.errors == []
    print(f"{right} of {3 * len(PLACEMENTS) * 2 * 4} right, nothing left")


if __name__ == "__main__":
    main()
