"""ONNX Runtime on GPUs, over simulated ones: order, errors, what it asks for, what it frees."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as state

from parnet_deploy.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    EngineLoadError,
    ExecutionError,
    MissingExtraError,
    OutOfMemoryError,
)
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime.backend import backend_rank
from parnet_deploy.runtime.executor import Executor
from parnet_deploy.runtime.onnxruntime import cuda_session as backend
from parnet_deploy.runtime.onnxruntime.cuda import OnnxRuntimeCudaBackend
from parnet_deploy.runtime.onnxruntime.cuda_session import OrtCudaOptions
from tests.runtime.cuda_toys import ToyMachine
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
from tests.stubs.cuda_stub import missing_compiler

SPEC = SPECS[3]


@pytest.fixture
def machine(monkeypatch) -> ToyMachine:
    made = ToyMachine()
    made.install(monkeypatch)
    return made


def load(tmp_path, placement, *, max_batch=2, options=None, **more):
    plan = make_plan(placement, fixed_size(SPEC), max_batch, backend="onnxruntime-cuda")
    files = write_engines(SPEC, plan, tmp_path)
    return OnnxRuntimeCudaBackend(options).load(SPEC, plan, files, **more), plan


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


@pytest.mark.parametrize("name", PLACEMENTS)
def test_placements_equal_the_sequential_network(tmp_path, machine, name):
    loaded, plan = load(tmp_path, PLACEMENTS[name](SPEC))
    executor = open_executor(loaded, plan)
    for index in range(6):
        x = images(SPEC, 1 + index % 2, seed=index)
        np.testing.assert_allclose(run(executor, SPEC, x), reference(SPEC, x), rtol=1e-5, atol=1e-6)
    executor.close()
    loaded.close()


def test_slots_share_a_session_and_are_not_mixed_up(tmp_path, machine):
    loaded, plan = load(tmp_path, streams(SPEC, (0, 1)))
    executor = open_executor(loaded, plan, slots=3)

    def call(seed: int) -> bool:
        x = images(SPEC, 1 + seed % 2, seed=seed)
        return np.allclose(run(executor, SPEC, x), reference(SPEC, x), rtol=1e-5, atol=1e-6)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(call, range(24)))
    executor.close()


@pytest.mark.parametrize("dropped", ["before", "after"])
def test_either_order_that_is_left_out_shows(tmp_path, machine, dropped):
    """A session that does not wait reads NaN; one that is not waited for is overtaken."""
    loaded, plan = load(tmp_path, streams(SPEC))
    executor = open_executor(loaded, plan)
    for engine in loaded.engines.values():
        if dropped == "before":
            engine._stream.wait = lambda event: None
        else:
            engine._after = machine.devices[0].create_event()  # waited for, and never recorded
            engine._stream.record = lambda event: None
    wrong = 0
    for seed in range(8):
        x = images(SPEC, seed=seed)
        wrong += not np.allclose(run(executor, SPEC, x), reference(SPEC, x), rtol=1e-5, atol=1e-6)
    assert wrong > 0


def test_what_a_session_is_made_with(tmp_path, machine):
    load(tmp_path, streams(SPEC, (0, 1)), options=OrtCudaOptions(memory_mib=512))
    assert [int(session.options["device_id"]) for session in machine.sessions]
    for session in machine.sessions:
        assert session.options == {
            "device_id": str(session.device.ordinal),
            "has_user_compute_stream": "1",
            "user_compute_stream": str(session.stream.handle),
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "cudnn_conv_use_max_workspace": "1",
            "do_copy_in_default_stream": "1",
            "enable_cuda_graph": "0",
            "prefer_nhwc": "0",
            "use_tf32": "0",
            "gpu_mem_limit": str(512 << 20),
        }
    handles = [session.stream.handle for session in machine.sessions]
    assert len(set(handles)) == len(handles), "each has a stream of its own"


def test_runs_do_not_wait_and_the_first_is_at_open(tmp_path, machine):
    loaded, plan = load(tmp_path, one(SPEC))
    (session,) = machine.sessions
    executor = open_executor(loaded, plan)
    assert len(session.run_options) == 1, "algorithms are searched before the first call"
    run(executor, SPEC, images(SPEC))
    assert len(session.run_options) == 2
    for options in session.run_options:
        assert options == {"disable_synchronize_execution_providers": "1", "gpu_graph_id": None}


def test_its_own_graph_on_request(tmp_path, machine):
    options = OrtCudaOptions(graph=True, nhwc=True, tf32=True)
    loaded, plan = load(tmp_path, one(SPEC), options=options)
    (session,) = machine.sessions
    assert session.options["enable_cuda_graph"] == "1"
    assert session.options["prefer_nhwc"] == session.options["use_tf32"] == "1"
    executor = open_executor(loaded, plan, slots=2)
    ids = {options["gpu_graph_id"] for options in session.run_options}
    assert ids == {"1", "2"}, "one for each binding"
    assert loaded.facts["graph"] == "ONNX Runtime's own, one for each binding"
    executor.close()


def test_no_graph_from_outside_and_why(tmp_path, machine):
    loaded, plan = load(tmp_path, one(SPEC))
    assert machine.options.graphs, "the device itself could"
    capture = loaded.devices[0].capture(lambda: pytest.fail("it must not run"), None)
    assert capture.graph is None
    assert capture.why_not == "an ONNX Runtime session cannot be captured from outside: " + (
        "it may allocate in a run"
    )
    assert loaded.facts["graph"] == capture.why_not
    assert open_executor(loaded, plan).describe()["mode"] == "eager"


def test_runs_are_traced(tmp_path, machine):
    loaded, plan = load(tmp_path, one(SPEC), trace=True)
    assert machine.asked_trace is True
    executor = open_executor(loaded, plan)
    run(executor, SPEC, images(SPEC))
    assert [entry[:2] for entry in machine.devices[0].traced] == [("run", "all")]


def test_everything_is_freed_in_order(tmp_path, machine):
    loaded, plan = load(tmp_path, streams(SPEC, (0, 1)))
    executor = open_executor(loaded, plan)
    run(executor, SPEC, images(SPEC))
    executor.close()
    assert machine.streams
    loaded.close()
    loaded.close()
    assert machine.streams == {}
    assert all(engine.session is None for engine in loaded.engines.values())
    assert machine.devices[0].closed
    assert machine.devices[1].closed
    assert not machine.devices[2].closed


def test_the_context_is_left_on_every_path(tmp_path, machine):
    loaded, plan = load(tmp_path, one(SPEC))
    executor = open_executor(loaded, plan)
    machine.run_error = state.Fail("x")
    with pytest.raises(ExecutionError):
        run(executor, SPEC, images(SPEC))
    machine.run_error = None
    x = images(SPEC)
    np.testing.assert_allclose(run(executor, SPEC, x), reference(SPEC, x), rtol=1e-5, atol=1e-6)
    executor.close()
    loaded.close()
    assert machine.devices[0].entered == 0


def test_what_a_failed_run_has_enqueued_is_waited_for(tmp_path, machine):
    """The executor does not know the session's stream; its buffers could go under the work."""
    loaded, plan = load(tmp_path, one(SPEC))
    executor = open_executor(loaded, plan)
    engine = loaded.engines["all"]
    (session,) = machine.sessions
    run_session = session.run_with_iobinding

    def fail_late(binding, options) -> None:
        run_session(binding, options)
        raise state.Fail("the last node")

    session.run_with_iobinding = fail_late
    with pytest.raises(ExecutionError, match="the last node"):
        run(executor, SPEC, images(SPEC))
    assert engine._stream.queue.idle
    executor.close()


def test_close_goes_on_when_the_device_is_lost(tmp_path, machine):
    loaded, plan = load(tmp_path, one(SPEC))
    executor = open_executor(loaded, plan)
    executor.close()
    engine = loaded.engines["all"]

    def lost() -> None:
        raise DeviceLostError("device 0: lost")

    engine._stream.synchronize = lost
    loaded.close()
    assert engine.session is None
    assert machine.streams == {}
    assert machine.devices[0].closed


def test_a_closed_binding_lets_the_session_go(tmp_path, machine):
    loaded, plan = load(tmp_path, one(SPEC))
    executor = open_executor(loaded, plan)
    alive = weakref.ref(machine.sessions.pop())
    executor.close()
    loaded.close()
    gc.collect()
    assert alive() is None


class TestErrors:
    @pytest.mark.parametrize(
        ("said", "ours"),
        [
            ("CUDA failure 2: out of memory ; GPU=0", OutOfMemoryError),
            (
                "BFCArena: Failed to allocate memory for requested buffer of size 9",
                OutOfMemoryError,
            ),
            ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0", OutOfMemoryError),
            ("CUDA failure 700: an illegal memory access was encountered", DeviceLostError),
            ("CUDA failure 719: unspecified launch failure", DeviceLostError),
            ("CUDA failure 999: unknown error", DeviceLostError),
            ("CUDA failure 713: resource is not registered", ExecutionError),
            ("CUDA failure 20: driver", ExecutionError),
            ("anything else", ExecutionError),
        ],
    )
    def test_what_a_message_says(self, tmp_path, machine, said, ours):
        loaded, plan = load(tmp_path, one(SPEC))
        executor = open_executor(loaded, plan)
        machine.run_error = state.Fail(said + "\nmore")
        with pytest.raises(ours, match="segment all: ONNX Runtime: ") as caught:
            run(executor, SPEC, images(SPEC))
        assert type(caught.value) is ours
        assert isinstance(caught.value.__cause__, state.Fail)

    def test_a_session_that_cannot_be_made_frees_what_was_made_before(self, tmp_path, machine):
        machine.load_error = RuntimeError("CUDA failure 2: out of memory")
        with pytest.raises(OutOfMemoryError, match=r"engine .*stem0.onnx: ONNX Runtime cannot"):
            load(tmp_path, streams(SPEC, (0, 1)))
        assert machine.streams == {}
        assert machine.devices[0].closed
        assert machine.devices[1].closed

    def test_the_engine_of_another_segment(self, tmp_path, machine):
        plan = make_plan(streams(SPEC), fixed_size(SPEC))
        files = write_engines(SPEC, plan, tmp_path)
        with pytest.raises(EngineLoadError, match="engine of segment stem0: got"):
            OnnxRuntimeCudaBackend().load(SPEC, plan, {**files, "stem0": files["head"]})
        assert machine.streams == {}

    def test_the_provider_does_not_start(self, tmp_path, machine, monkeypatch):
        """ONNX Runtime would go on without a word on the CPU."""
        make = machine.session

        def fallen(*arguments, **options):
            session = make(*arguments, **options)
            session.on = ["CPUExecutionProvider"]
            return session

        monkeypatch.setattr(backend.ort, "InferenceSession", fallen)
        with pytest.raises(
            DeviceUnavailableError,
            match=r"got a session on CPUExecutionProvider, .*\(no libcudnn.so.9\).*cuda,cudnn",
        ):
            load(tmp_path, one(SPEC))

    def test_nothing_is_printed(self, tmp_path, machine, capsys):
        load(tmp_path, one(SPEC))
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("there", "message"),
        [
            ({"onnxruntime": "1.32.0"}, r"got onnxruntime 1\.32\.0 without .*CPU's package"),
            (
                {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"},
                r"got onnxruntime 1\.32\.0 and onnxruntime-gpu 1\.31\.1 without .*overwrites",
            ),
        ],
    )
    def test_the_wrong_package(self, tmp_path, machine, monkeypatch, there, message):
        def version(name):
            if name not in there:
                raise metadata.PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(backend.metadata, "version", version)
        machine.providers = ["CPUExecutionProvider"]
        with pytest.raises(DeviceUnavailableError, match=message) as caught:
            load(tmp_path, one(SPEC))
        fix = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        assert fix in str(caught.value)
        assert machine.asked_trace is None, "no device was opened"

    def test_cuda_bindings_are_missing(self, tmp_path, machine, monkeypatch):
        def missing(name):
            raise ModuleNotFoundError("No module named 'cuda'", name="cuda")

        monkeypatch.setattr("parnet_deploy.extras.import_module", missing)
        with pytest.raises(MissingExtraError, match=r"pip install 'parnet-deploy\[gpu\]'"):
            load(tmp_path, one(SPEC))


def test_here_it_says_why_not(tmp_path):
    """On a machine with the CPU's package, without any double."""
    if "CUDAExecutionProvider" in backend.ort.get_available_providers():
        pytest.skip("needs an onnxruntime without CUDA")
    with pytest.raises(DeviceUnavailableError, match=r"onnxruntime: got onnxruntime .*Run: pip un"):
        load(tmp_path, one(SPEC))


def test_one_enqueue_of_a_session_at_a_time(tmp_path, machine):
    """Its stream is one: what a run waits for must not get between the parts of another."""
    loaded, _ = load(tmp_path, one(SPEC))
    engine = loaded.engines["all"]
    stream = machine.devices[0].create_stream(0)
    inside, go_on = threading.Event(), threading.Event()

    class Slow:
        def run(self) -> None:
            inside.set()
            go_on.wait(timeout=60)

    order: list[str] = []

    class Quick:
        def run(self) -> None:
            order.append("second")

    first = threading.Thread(target=engine.enqueue, args=(Slow(), stream))
    first.start()
    assert inside.wait(timeout=60)
    second = threading.Thread(target=engine.enqueue, args=(Quick(), stream))
    second.start()
    assert order == []
    assert engine._lock.locked()
    go_on.set()
    first.join()
    second.join()
    assert order == ["second"]


def test_over_the_real_device_layer():
    """The stand-in for the driver runs in a process of its own, which never sees a real one."""
    missing = missing_compiler()
    if missing and os.environ.get("PARNET_REQUIRE_STUBS") == "1":
        pytest.fail(f"needs {missing}, and PARNET_REQUIRE_STUBS=1 forbids to skip", pytrace=False)
    if missing or importlib.util.find_spec("cuda") is None:
        pytest.skip(f"needs {missing or 'the package cuda-bindings'}")
    program = Path(__file__).with_name("ort_cuda_program.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "144 of 144 right, nothing left\n"


def test_it_ranks_behind_tensorrt_and_before_the_cpu():
    assert 0 < backend_rank("onnxruntime-cuda") < backend_rank("onnxruntime")
