"""The TensorRT runtime, whole, over stand-ins for the driver and for TensorRT: true logits.

The same suite runs on real GPUs (tests/gpu/test_runtime_real.py). Here there are three devices, so
placements over several GPUs run too, and order that is left to chance shows as wrong logits.
"""

from __future__ import annotations

import gc
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
from cuda.bindings import driver

from parnet_deploy import Runtime
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import (
    BackendError,
    CheckFailedError,
    DeviceLostError,
    DeviceUnavailableError,
    ExecutionError,
    InputError,
    OutOfMemoryError,
)
from parnet_deploy.runtime.choose import read_plan
from parnet_deploy.runtime.cuda.device import CudaDevice
from parnet_deploy.runtime.tensorrt import log
from tests.builder.fake_gpu import FakeGpu
from tests.gpu.runtime_contract import (
    PLACEMENTS,
    SIZE,
    SPEC,
    Frames,
    Interface,
    RuntimeContract,
    batch,
    build,
    check,
)
from tests.stubs.cuda_stub import CudaStub
from tests.stubs.fake_tensorrt import fake_tensorrt
from tests.toy_deployments import export_toy

VERSIONS = ("8.6", "10.16", "11.4")


class Machine:
    """Three simulated GPUs and a version of TensorRT, in this process and in the builder's."""

    def __init__(self, cuda: CudaStub, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.cuda, self._patch = cuda, patch
        cuda.reset(devices=3)
        self._builder = FakeGpu(folder, patch)
        self.install("10.16")

    def install(self, version: str) -> None:
        """Another TensorRT."""
        self._builder.install(version)
        self.trt = fake_tensorrt(version, launch=self._launch)
        self._patch.setitem(sys.modules, "tensorrt", self.trt)

    def _launch(self, stream: int, work, touches: Sequence[int]) -> None:
        self.cuda.launch(stream, work, touches)


@pytest.fixture
def machine(cuda: CudaStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield Machine(cuda, tmp_path, monkeypatch)
    assert cuda.live() == {}, "something was not freed"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One deployment for all tests, so that each plan is built once."""
    return export_toy(tmp_path_factory.mktemp("engines") / "toy", SPEC, SIZE)


@pytest.fixture
def own_toy(machine: Machine, tmp_path: Path) -> Path:
    """A deployment for tests that build something of their own."""
    return export_toy(tmp_path / "toy", SPEC, SIZE)


class TestContract(RuntimeContract):
    lists = ((0,), (0, 0, 0), (0, 1), (0, 1, 2))
    runs = 300

    @pytest.fixture(autouse=True)
    def on_stand_ins(self, machine: Machine) -> None:
        self.machine = machine

    def free_bytes(self) -> int:
        return -self.machine.cuda.used_bytes(0)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_tensorrt(machine: Machine, own_toy: Path, version: str) -> None:
    machine.install(version)
    with Runtime.open(own_toy, plan=build(own_toy, "streams", (0, 1, 2)), slots=2) as rt:
        assert rt.describe()["facts"]["tensorrt"] == machine.trt.__version__
        for n in (1, 2, 3):
            check(rt(batch(n)), batch(n))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("gpus", [(0,), (0, 1), (0, 1, 2)])
def test_any_order_that_events_allow_gives_the_same_logits(
    machine: Machine, toy: Path, placement: str, gpus: tuple[int, ...]
) -> None:
    key, x = build(toy, placement, gpus), batch(2)
    for trace in (False, True):
        with Runtime.open(toy, plan=key, trace=trace) as rt:
            for seed in range(15):
                machine.cuda.seed(seed)
                check(rt(x), x)
    assert machine.cuda.overlaps == 0


def test_several_gpus_have_graphs_for_their_stretches(machine: Machine, toy: Path) -> None:
    with Runtime.open(toy, plan=build(toy, "recompute", (0, 1, 2))) as rt:
        about = rt.describe()
        assert (about["program"]["mode"], about["program"]["mode_reason"]) == ("graphs", "")
        launches = machine.cuda.calls("cuGraphLaunch")
        check(rt(batch()), batch())
        runs = len(about["placement"]["segments"])
        assert 0 < machine.cuda.calls("cuGraphLaunch") - launches <= runs


def test_a_refused_capture_is_reported_and_everything_runs_eagerly(
    machine: Machine, toy: Path
) -> None:
    key = build(toy, "streams")
    machine.cuda.fail("cuStreamBeginCapture", 900)
    with Runtime.open(toy, plan=key) as rt:
        program = rt.describe()["program"]
        assert program["mode"] == "eager"
        assert "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" in program["mode_reason"]
        for seed in range(5):
            machine.cuda.seed(seed)
            check(rt(batch(2)), batch(2))


def test_an_enqueue_that_is_refused_names_the_segment_and_quotes_the_log(
    machine: Machine, toy: Path
) -> None:
    with Runtime.open(toy, plan=build(toy, "streams"), trace=True) as rt:
        machine.trt._control.faults.enqueue_fails = True
        with pytest.raises(ExecutionError, match=r"segment stem0: .* enqueue failed: an injected"):
            rt(batch())
        machine.trt._control.faults.enqueue_fails = False
        check(rt(batch()), batch())


def test_wrong_engines_do_not_pass_the_canary(machine: Machine, toy: Path) -> None:
    key = build(toy, "one")
    machine.trt._control.faults.wrong_values = True
    with pytest.raises(CheckFailedError, match="The engines compute something else"):
        Runtime.open(toy, plan=key)


def test_a_build_whose_engine_is_wrong_is_not_published(machine: Machine, own_toy: Path) -> None:
    machine.trt._control.faults.wrong_values = True
    with pytest.raises(CheckFailedError, match="parity: engine all, logits"):
        build(own_toy, "one")
    assert not (own_toy / "plans").exists()


@pytest.mark.parametrize("fault", ["deserialize_says", "no_context"])
def test_what_tensorrt_says_is_in_the_error(machine: Machine, toy: Path, fault: str) -> None:
    key = build(toy, "one")
    setattr(machine.trt._control.faults, fault, "the moon is in the wrong place")
    with pytest.raises(BackendError, match="TensorRT says: error: the moon is in the wrong place"):
        Runtime.open(toy, plan=key)
    assert log.log_tail()


def test_a_lost_gpu_is_refused_from_then_on(machine: Machine, toy: Path) -> None:
    with Runtime.open(toy, plan=build(toy, "streams", (0, 1))) as rt:
        check(rt(batch()), batch())
        machine.cuda.lose(1)
        for _ in range(2):
            with pytest.raises(DeviceLostError, match="device 1"):
                rt(batch())
    machine.cuda.reset(devices=3)


def test_the_engines_move_to_the_gpus_that_are_left(machine: Machine, toy: Path) -> None:
    key = build(toy, "streams", (0, 1, 2))
    with Runtime.open(toy, plan=key, on_device_lost="replan") as rt:
        check(rt(batch()), batch())
        machine.cuda.lose(1)
        check(rt(batch(2)), batch(2))
        about = rt.describe()
        assert about["lost"][0]["now"] == {
            "plan": key,
            "backend": "tensorrt",
            "devices": [0, 2],
        }
        check(rt(batch(3)), batch(3))
    machine.cuda.reset(devices=3)


def test_too_little_memory_is_said_and_nothing_is_left(machine: Machine, toy: Path) -> None:
    key = build(toy, "streams")
    machine.cuda.reset(devices=3, memory_bytes=20_000)
    with pytest.raises(OutOfMemoryError, match="device 0"):
        Runtime.open(toy, plan=key)


ASKED_BY_FREEING = ("cuCtxGetCurrent", "cuCtxPushCurrent")
"""What cannot be freed, for want of a context, stays until the device is closed."""


def test_any_driver_call_may_fail_while_a_plan_is_opened(machine: Machine, toy: Path) -> None:
    """Whatever the driver refuses, the error is ours, and everything is freed."""
    key = build(toy, "streams", (0, 1))
    steps = [*range(100), *range(100, 10_000, 7)]
    for after in steps:
        machine.cuda.reset(devices=3)
        machine.cuda.fail("*", 2, after)
        with suppress(BackendError):
            Runtime.open(toy, plan=key).close()
        left = machine.cuda.live()
        if machine.cuda.failed in ASKED_BY_FREEING:
            left = {kind: count for kind, count in left.items() if kind in ("streams", "retained")}
        assert left == {}, (after, machine.cuda.failed)
        assert machine.cuda.depth == 0, (after, machine.cuda.failed)
        if not machine.cuda.failed:
            break
    else:
        raise AssertionError("opening never ends")
    assert after > 500
    machine.cuda.reset(devices=3)


def test_a_machine_without_a_gpu_says_so(machine: Machine, toy: Path) -> None:
    key = build(toy, "one")
    machine.cuda.reset(devices=0)
    with pytest.raises(DeviceUnavailableError, match="no usable GPU"):
        Runtime.open(toy, plan=key)
    machine.cuda.reset(devices=3)


def test_a_plan_for_gpus_that_are_gone(machine: Machine, toy: Path) -> None:
    key = build(toy, "streams", (0, 1, 2))
    machine.cuda.reset(devices=2)
    with pytest.raises(DeviceUnavailableError, match="2"):
        Runtime.open(toy, plan=key)


def test_the_program_of_the_documentation(
    machine: Machine, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(toy, "streams")
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "model").symlink_to(toy)
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    device = CudaDevice(0)
    frames = Frames(device, batch(1))
    given = {
        "frame": frames.array,
        "image_ptr": frames.image.address,
        "logits_ptr": frames.logits.address,
        "stream": frames.stream,
    }
    exec(compile(program, "docs/gpu.md", "exec"), given)
    check(given["logits"], frames.x)
    check(frames.read(), frames.x)
    assert given["output"].shape == (1, SPEC.num_classes)
    frames.close()
    device.close()


def two_of(frames: Frames) -> list:
    """The two ways in which another library may hand its frames over."""
    return [frames.array, Interface(frames)]


@pytest.mark.parametrize("current", [None, 0, 1, 2])
def test_an_array_on_another_gpu_of_the_plan_is_waited_for(
    machine: Machine, toy: Path, current: int | None
) -> None:
    """The logits are computed on GPU 2; frames are made on GPU 0, and any GPU may be current."""
    with Runtime.open(toy, plan=build(toy, "streams", (0, 1, 2))) as rt:
        devices = [CudaDevice(ordinal) for ordinal in range(3)]
        around = nullcontext() if current is None else devices[current].current()
        with around:
            for seed in range(12):
                machine.cuda.seed(seed)
                x = batch(2, seed=seed)
                for way in range(2):
                    frames = Frames(devices[0], x)
                    check(rt(two_of(frames)[way]), x)
                    frames.close()
            frames = Frames(devices[0], batch(1))
            with pytest.raises(InputError, match=r"on device 0, expected one on device 2, which"):
                rt.enqueue(frames.array, stream=frames.stream)
        frames.close()
        for device in devices:
            device.close()


def test_an_array_on_a_gpu_that_takes_no_part_is_refused(machine: Machine, toy: Path) -> None:
    device = CudaDevice(1)
    frames = Frames(device, batch(1))
    with Runtime.open(toy, plan=build(toy, "streams")) as rt:
        for array in two_of(frames):
            with pytest.raises(InputError, match=r"on device 1, expected one on one of the plan's"):
                rt(array)
    frames.close()
    device.close()


def test_logits_may_be_read_when_the_callers_stream_is_gone(machine: Machine, toy: Path) -> None:
    device = CudaDevice(0)
    frames, reader = Frames(device, batch(2)), device.create_stream(3)
    with Runtime.open(toy, plan=build(toy, "streams")) as rt:
        for seed in range(10):
            machine.cuda.seed(seed)
            stream = device.create_stream(1)
            found = rt.enqueue(frames.array, stream=stream)
            stream.close()
            found.__dlpack__(stream=reader.handle)  # orders the reader behind the logits
            device.upload(frames.logits, found.address, found.nbytes, reader)
            reader.synchronize()
            check(frames.read(), frames.x)
            del found
    frames.close()
    reader.close()
    device.close()


def test_outputs_do_not_pile_up_whatever_stream_they_are_in(machine: Machine, toy: Path) -> None:
    device = CudaDevice(0)
    frames = Frames(device, batch(1))
    with Runtime.open(toy, plan=build(toy, "streams")) as rt:
        for handle in (0, 1, 2):
            for _ in range(3):
                rt.enqueue(frames.array, stream=handle)
        streams = [device.create_stream(1) for _ in range(100)]
        for stream in streams:
            rt.enqueue(frames.array, stream=stream)
        assert len(rt._now.outputs._all) <= 65
        for stream in streams:
            stream.close()
    frames.close()
    device.close()


def test_close_while_others_enqueue_frees_everything(machine: Machine, toy: Path) -> None:
    device, stops = CudaDevice(0), []
    frames = Frames(device, batch(1))
    for _ in range(5):
        rt = Runtime.open(toy, plan=build(toy, "streams"), slots=2)
        begun = threading.Barrier(3)

        def work(rt: Runtime = rt, begun: threading.Barrier = begun) -> None:
            stream = device.create_stream(1)
            begun.wait()
            try:
                while True:
                    rt.enqueue(frames.array, stream=stream)
            except BackendError as error:
                stops.append("closed" in str(error))
            stream.close()

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        rt.close()
        for thread in threads:
            thread.join()
    assert stops == [True] * 10
    frames.close()
    device.close()


def test_one_that_nobody_closed_is_closed_when_the_next_is_opened(
    machine: Machine, toy: Path
) -> None:
    key = build(toy, "streams", (0, 1, 2))
    rt = Runtime.open(toy, plan=key)
    check(rt(batch(1)), batch(1))
    one = machine.cuda.live()
    del rt
    gc.collect()
    assert machine.cuda.live() == one
    with Runtime.open(toy, plan=key) as rt:
        check(rt(batch(1)), batch(1))
        assert machine.cuda.live() == one


def test_a_stream_that_is_being_captured_is_refused(machine: Machine, toy: Path) -> None:
    device = CudaDevice(0)
    frames = Frames(device, batch(1))
    frames.stream.synchronize()
    for gpus in ((0,), (0, 1)):
        with Runtime.open(toy, plan=build(toy, "streams", gpus)) as rt:
            home = rt._now.executor.home
            stream = home.create_stream(4)
            with home.current():
                mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
                driver.cuStreamBeginCapture(stream.raw, mode)
                with pytest.raises(InputError, match="got one that is being captured"):
                    rt.run_into(frames.image.address, frames.logits.address, stream=stream)
                driver.cuGraphDestroy(driver.cuStreamEndCapture(stream.raw)[1])
            stream.close()
            check(rt(batch(1)), batch(1))
    frames.close()
    device.close()


def test_a_refused_capture_of_either_kind_is_reported(machine: Machine, toy: Path) -> None:
    key = build(toy, "streams")
    machine.cuda.fail("cuStreamBeginCapture", 900, after=1)  # the second list, for device arrays
    with Runtime.open(toy, plan=key) as rt:
        program = rt.describe()["program"]
        assert program["mode"] == "eager"
        assert "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" in program["mode_reason"]
        check(rt(batch(2)), batch(2))


def test_new_batches_leave_the_launch_before_alone(machine: Machine, toy: Path) -> None:
    device = CudaDevice(0)
    many = [Frames(device, batch(n, seed=n)) for n in (1, 2, 3)]
    for placement in ("one", "streams"):
        key = build(toy, placement)
        for seed in range(10):
            machine.cuda.seed(seed)
            with Runtime.open(toy, plan=key) as rt:
                for frames in many:
                    addresses = frames.image.address, frames.logits.address
                    rt.run_into(*addresses, n=len(frames.x), stream=many[0].stream)
                many[0].stream.synchronize()
                for frames in many:
                    check(frames.read(), frames.x)
    for frames in many:
        frames.close()
    device.close()


def test_a_lost_gpu_is_replaced_whatever_call_finds_out(machine: Machine, toy: Path) -> None:
    key, x = build(toy, "streams", (0, 1)), batch(1)
    logits = np.empty((1, SPEC.num_classes), np.float32)
    for trace in (False, True):
        with Runtime.open(toy, plan=key, trace=trace, on_device_lost="replan") as rt:
            machine.cuda.lose(1)
            rt.run_into(x.ctypes.data, logits.ctypes.data)
            check(logits, x)
            assert len(rt.describe()["lost"]) == 1
        machine.cuda.reset(devices=3)


def test_a_plan_that_was_built_anew_meanwhile_takes_over_as_it_is(
    machine: Machine, own_toy: Path
) -> None:
    key = build(own_toy, "streams", (0, 1))
    with Runtime.open(own_toy, plan=key, on_device_lost="replan") as rt:
        other = build(own_toy, "one", (0,))
        files = read_plan(Deployment.open(own_toy), other)
        with Deployment.edit(own_toy) as txn:  # another placement under the same key
            for name in (*files.plan.engines.values(), "canary.npz", "build.json"):
                source = files.engines["all"].path.parent / name
                txn.stage(f"plans/{key}/{name}").write_bytes(source.read_bytes())
            txn.finish_step(f"build:{key}", key="0" * 64, plans={key: {"backend": "tensorrt"}})
        machine.cuda.lose(1)
        check(rt(batch(2)), batch(2))
        assert rt.describe()["placement"]["name"] == "one"
    machine.cuda.reset(devices=3)


@pytest.mark.parametrize("trace", [False, True])
def test_a_kernel_that_faults_on_another_gpu_gives_no_logits(
    machine: Machine, toy: Path, trace: bool
) -> None:
    """The GPU with the logits may well go on; what it then computes must not be handed over."""
    key, x = build(toy, "streams", (0, 1)), batch(1)
    for seed in range(10):
        machine.cuda.reset(devices=3, seed=seed)
        with Runtime.open(toy, plan=key, trace=trace) as rt:
            check(rt(x), x)
            stuck = rt._now.executor._slots[0]._elsewhere[0]
            with rt._now.executor._devices[stuck.device].current():
                machine.cuda.launch(stuck.handle, lambda: 1 / 0)
            with pytest.raises(DeviceLostError, match=f"device {stuck.device}"):
                rt(x)
    machine.cuda.reset(devices=3)
