"""The TensorRT runtime on a real GPU: the whole contract."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from tests.gpu.runtime_contract import SIZE, SPEC, RuntimeContract
from tests.toy_deployments import export_toy

pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_toy(tmp_path_factory.mktemp("engines") / "toy", SPEC, SIZE)


class TestReal(RuntimeContract):
    lists = ((0,), (0, 0, 0))
    runs = 10_000

    def free_bytes(self) -> int:
        from cuda.bindings import driver

        from parnet_deploy.runtime.cuda.device import CudaDevice

        gc.collect()
        device = CudaDevice(0)
        try:
            with device.current():
                status, free, _ = driver.cuMemGetInfo()
        finally:
            device.close()
        assert not status
        return int(free)
