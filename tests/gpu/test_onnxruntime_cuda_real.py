"""ONNX Runtime on a real GPU: right logits, one and several slots, device memory, no leak."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from parnet_deploy.errors import EngineLoadError
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime.executor import Executor
from tests.runtime.runtime_toys import (
    SPECS,
    fixed_size,
    images,
    make_plan,
    reference,
    run,
    write_engines,
)

pytestmark = pytest.mark.gpu
SPEC = SPECS[3]


@pytest.fixture(scope="module")
def backend():
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime-gpu")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("needs onnxruntime-gpu (this onnxruntime has no CUDA)")
    from parnet_deploy.runtime.onnxruntime.cuda import OnnxRuntimeCudaBackend

    return OnnxRuntimeCudaBackend


def open_executor(loaded, plan, slots: int = 1) -> Executor:
    return Executor(
        spec=SPEC,
        placement=plan.placement,
        devices=loaded.devices,
        engines=loaded.engines,
        input_size=plan.input_size,
        max_batch=plan.max_batch,
        slots=slots,
    )


def close_to(got, x) -> bool:
    return np.allclose(got, reference(SPEC, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("placement", [one, streams], ids=["one", "streams"])
@pytest.mark.parametrize("trace", [False, True], ids=["plain", "traced"])
def test_logits(tmp_path, backend, placement, trace):
    plan = make_plan(placement(SPEC), fixed_size(SPEC), 2, backend="onnxruntime-cuda")
    loaded = backend().load(SPEC, plan, write_engines(SPEC, plan, tmp_path), trace=trace)
    executor = open_executor(loaded, plan)
    for seed in range(20):
        x = images(SPEC, 1 + seed % 2, seed=seed)
        assert close_to(run(executor, SPEC, x), x), seed
    if trace:
        runs = [entry.name for entry in executor.timeline() if entry.op == "run"]
        assert set(runs) == {segment.name for segment in plan.placement.segments}
    executor.close()
    loaded.close()


def test_many_callers(tmp_path, backend):
    plan = make_plan(streams(SPEC), fixed_size(SPEC), 2, backend="onnxruntime-cuda")
    loaded = backend().load(SPEC, plan, write_engines(SPEC, plan, tmp_path))
    executor = open_executor(loaded, plan, slots=3)

    def call(seed: int) -> bool:
        x = images(SPEC, 1 + seed % 2, seed=seed)
        return close_to(run(executor, SPEC, x), x)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(call, range(200)))
    executor.close()
    loaded.close()


def test_its_own_graph(tmp_path, backend):
    from parnet_deploy.runtime.onnxruntime.cuda_session import OrtCudaOptions

    plan = make_plan(one(SPEC), fixed_size(SPEC), 1, backend="onnxruntime-cuda")
    files = write_engines(SPEC, plan, tmp_path)
    loaded = backend(OrtCudaOptions(graph=True)).load(SPEC, plan, files)
    executor = open_executor(loaded, plan, slots=2)
    for seed in range(10):
        x = images(SPEC, seed=seed)
        assert close_to(run(executor, SPEC, x), x), seed
    executor.close()
    loaded.close()


def test_the_callers_context_and_memory_are_left_as_they_were(tmp_path, backend):
    driver = pytest.importorskip("cuda.bindings.driver")
    plan = make_plan(one(SPEC), fixed_size(SPEC), 1, backend="onnxruntime-cuda")
    files = write_engines(SPEC, plan, tmp_path)

    def once() -> None:
        loaded = backend().load(SPEC, plan, files)
        executor = open_executor(loaded, plan)
        run(executor, SPEC, images(SPEC))
        executor.close()
        loaded.close()
        gc.collect()

    before = driver.cuCtxGetCurrent()
    once()
    after = driver.cuCtxGetCurrent()
    assert [int(item) for item in before] == [int(item) for item in after]
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a torch with CUDA, to read the free memory")
    used = []
    for _ in range(6):
        once()
        free, total = torch.cuda.mem_get_info(0)
        used.append(total - free)
    assert used[-1] <= used[1] + (8 << 20), used


def test_no_model(tmp_path, backend):
    plan = make_plan(one(SPEC), fixed_size(SPEC), 1, backend="onnxruntime-cuda")
    path = tmp_path / "all.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(EngineLoadError, match="ONNX Runtime cannot load it"):
        backend().load(SPEC, plan, {"all": path})
