"""The real executor over CUDA devices: right logits for any order, and nothing left behind."""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest
from cuda.bindings import driver

from parnet_deploy.errors import BackendError, DeviceLostError
from parnet_deploy.placement import streams
from parnet_deploy.runtime.cuda.device import open_devices
from parnet_deploy.runtime.device import Capture
from parnet_deploy.runtime.executor import Executor
from tests.runtime.runtime_toys import (
    PLACEMENTS,
    SPECS,
    fixed_size,
    images,
    random_placement,
    reference,
    run,
    segment_kernel,
)
from tests.runtime.test_program import waits, without_step
from tests.runtime_gpu.toys import KernelEngine, foreign_context, ok

SPEC = SPECS[3]


@contextmanager
def opened(cuda, placement, *, spec=SPEC, seed=0, trace=False, graphs=True, **more):
    """An executor; closes in the order that ``Runtime`` does, and frees everything."""
    cuda.seed(seed)
    with ExitStack() as parts:
        devices = open_devices(placement.devices, trace=trace)
        for device in devices.values():
            parts.callback(device.close)
            if not graphs:
                device.capture = no_graph
        kernels = segment_kernel(spec)
        engines = {
            segment.name: KernelEngine(cuda, devices[segment.device], segment, kernels(segment))
            for segment in placement.segments
        }
        executor = Executor(
            spec=spec,
            placement=placement,
            devices=devices,
            engines=engines,
            input_size=fixed_size(spec),
            **more,
        )
        parts.callback(executor.close)
        yield executor


def no_graph(work, stream):
    return Capture(None, "not wanted")


@pytest.fixture
def cuda(cuda):
    cuda.reset(devices=3)
    yield cuda
    assert cuda.live() == {}
    assert cuda.overlaps == 0


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_known_placements_give_the_right_logits_for_many_orders(cuda, name, graphs):
    placement = PLACEMENTS[name](SPEC)
    mode = ("graph" if len(placement.devices) == 1 else "graphs") if graphs else "eager"
    for seed in range(12):
        with opened(cuda, placement, seed=seed, graphs=graphs) as executor:
            assert executor.describe()["mode"] == mode
            for index in range(3):
                x = images(SPEC, seed=index)
                np.testing.assert_array_equal(run(executor, SPEC, x), reference(SPEC, x))


@pytest.mark.parametrize("seed", range(20))
def test_any_placement_gives_the_right_logits(cuda, seed):
    rng = random.Random(seed)
    spec = SPECS[rng.choice(sorted(SPECS))]
    placement = random_placement(spec, rng, rng.randint(1, 3), rng.randint(1, 4))
    with opened(cuda, placement, spec=spec, seed=seed, max_batch=3) as executor:
        for index, batch in enumerate((1, 3, 2)):
            x = images(spec, batch, seed=index)
            np.testing.assert_array_equal(run(executor, spec, x), reference(spec, x))


def back_to_back(cuda, placement, seed, program=None, *, graphs=True, context=None) -> bool:
    """Two launches one behind the other in the caller's stream; whether all logits are right."""
    with opened(cuda, placement, seed=seed, program=program, graphs=graphs) as executor:
        device = executor._devices[executor.program.main.device]
        if context is None:
            ok(driver.cuCtxPushCurrent(device.context.raw))
        raw = ok(driver.cuStreamCreate(1))
        x = [images(SPEC, seed=index) for index in range(2)]
        nbytes = x[0].nbytes
        memory = [ok(driver.cuMemAlloc(nbytes)) for _ in x]
        results = [np.full((1, SPEC.num_classes), np.nan, np.float32) for _ in x]
        try:
            for source, target, logits in zip(x, memory, results, strict=True):
                ok(driver.cuMemcpyAsync(target, source.ctypes.data, nbytes, raw))
                shape = (1, *source.shape[2:])
                executor.launch(int(target), logits.ctypes.data, shape, int(raw))
            ok(driver.cuStreamSynchronize(raw))
            copied = [logits.copy() for logits in results]
        finally:
            executor.close()
            for address in memory:
                ok(driver.cuMemFree(address))
            ok(driver.cuStreamDestroy(raw))
            if context is None:
                ok(driver.cuCtxPopCurrent())
    return all(
        np.array_equal(logits, reference(SPEC, source))
        for logits, source in zip(copied, x, strict=True)
    )


@pytest.mark.parametrize("name", PLACEMENTS)
def test_launches_in_the_callers_stream_need_no_wait_between_them(cuda, name):
    for seed in range(8):
        assert back_to_back(cuda, PLACEMENTS[name](SPEC), seed)


@pytest.mark.parametrize("name", ["one", "streams on one device", "streams on three devices"])
def test_launches_in_a_stream_of_a_foreign_context(cuda, name):
    placement = PLACEMENTS[name](SPEC)
    with opened(cuda, placement) as executor:
        main = executor.program.main.device
    for seed in range(8):
        context = foreign_context(main)
        assert back_to_back(cuda, placement, seed, context=context)
        assert int(ok(driver.cuCtxGetCurrent())) == int(context)
        ok(driver.cuCtxDestroy(context))


@pytest.mark.parametrize(
    "name", ["streams on one device", "streams on three devices", "recomputed on three devices"]
)
def test_a_forgotten_wait_is_caught(cuda, name):
    """The proof that these tests see: without any one wait, some order gives it away."""
    placement = PLACEMENTS[name](SPEC)
    with opened(cuda, placement, graphs=False) as executor:
        program = executor.program
    assert waits(program)
    for index in waits(program):
        broken = without_step(program, index)
        right = (back_to_back(cuda, placement, seed, broken, graphs=False) for seed in range(200))
        assert not all(right), f"nobody noticed that this is missing: {program.steps[index]}"


def test_a_join_that_is_forgotten_is_refused_by_the_capture_and_caught_without(cuda):
    placement = streams(SPEC)
    with opened(cuda, placement) as executor:
        program = executor.program
    joins = [i for i in waits(program) if program.steps[i].lane == program.main]
    broken = without_step(program, joins[-1])
    with opened(cuda, placement, program=broken) as executor:
        assert executor.describe()["mode"] == "eager"


def test_slots_run_at_the_same_time(cuda):
    failures = []
    with opened(cuda, streams(SPEC, (0, 1)), slots=3, max_batch=2) as executor:

        def call(thread: int) -> None:
            for index in range(6):
                x = images(SPEC, 1 + index % 2, seed=100 * thread + index)
                if not np.array_equal(run(executor, SPEC, x), reference(SPEC, x)):
                    failures.append((thread, index))

        threads = [threading.Thread(target=call, args=(thread,)) for thread in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_lost_device_is_refused_for_good_and_frees_everything(cuda):
    with opened(cuda, streams(SPEC, (0, 1, 2))) as executor:
        x = images(SPEC)
        run(executor, SPEC, x)
        cuda.lose(1)
        for _ in range(2):
            with pytest.raises(DeviceLostError, match="on device 1: got CUDA_ERROR_ILLEGAL"):
                run(executor, SPEC, x)


@pytest.mark.parametrize("devices", [(0,), (0, 1)])
@pytest.mark.parametrize("code", [2, 700])
def test_whichever_call_fails_everything_is_freed(cuda, devices, code):
    """Each driver call in turn, from open to close; those that free are left out."""
    placement, x = streams(SPEC, devices), images(SPEC)
    hit = []
    for after in range(10_000):
        cuda.reset(devices=2)
        cuda.fail("*", code, after)
        with suppress(BackendError), opened(cuda, placement) as executor:
            np.testing.assert_array_equal(run(executor, SPEC, x), reference(SPEC, x))
        assert cuda.live() == {}, f"call {after} ({cuda.failed}) left something behind"
        assert cuda.depth == 0
        if not cuda.failed:
            break
        hit.append(cuda.failed)
    assert len(hit) > 100
    assert {"cuInit", "cuMemAlloc", "cuEventRecord", "cuCtxPushCurrent"} <= set(hit)


def test_tracing_shows_what_ran(cuda):
    placement = streams(SPEC, (0, 1))
    with opened(cuda, placement, trace=True) as executor:
        x = images(SPEC)
        np.testing.assert_array_equal(run(executor, SPEC, x), reference(SPEC, x))
        assert executor.describe()["mode"] == "eager"
        entries = executor.timeline()
    runs = sorted(entry.name for entry in entries if entry.op == "run")
    assert runs == sorted(segment.name for segment in placement.segments)
    assert {entry.device for entry in entries} == {0, 1}
    assert not any(entry.simulated for entry in entries)
