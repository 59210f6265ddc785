"""The TensorRT runtime on a real GPU: the whole contract."""

from __future__ import annotations

import gc

import pytest

from tests.gpu.runtime_contract import RuntimeContract

pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]


class TestReal(RuntimeContract):
    lists = ((0,), (0, 0, 0))
    runs = 10_000

    def free_bytes(self) -> int:
        from cuda.bindings import driver

        from parnet_deploy.runtime.cuda import CudaDevice

        gc.collect()
        device = CudaDevice(0)
        try:
            with device.current():
                status, free, _ = driver.cuMemGetInfo()
        finally:
            device.close()
        assert not status
        return int(free)
