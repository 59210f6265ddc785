"""What the TensorRT runtime must do: one suite, on real GPUs and on the stand-ins.

``tests/gpu/test_runtime_real.py`` runs it with NVIDIA's driver and TensorRT, and
``tests/runtime_gpu/test_runtime_stub.py`` with our stand-ins for both, so that every line of it is
known to run before a GPU is there. It needs numpy, onnx, TensorRT and cuda-bindings, nothing else.
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.builder.build import build_to_deployment
from parnet_deploy.builder.options import BuildOptions
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import (
    BackendError,
    CheckFailedError,
    DeviceUnavailableError,
    EngineLoadError,
    InputError,
)
from parnet_deploy.plan import Plan
from parnet_deploy.reference import Reference
from parnet_deploy.runtime.arrays.device_array import DeviceArray
from parnet_deploy.runtime.choose import read_plan
from parnet_deploy.runtime.cuda.device import CudaBuffer, CudaDevice
from parnet_deploy.runtime.opened import OpenOptions, open_proved
from tests.runtime.runtime_toys import SPECS, fixed_size, images, reference

SPEC = SPECS[3]
SIZE = fixed_size(SPEC, 2)
MAX_BATCH = 3
TOLERANCE = 1e-4  # float32 with TF32 off, of the largest logit
PLACEMENTS = ("one", "one-aux", "streams", "recompute")


def build(
    directory: Path, placement: str, gpus: Sequence[int] = (0,), backend: str = "tensorrt"
) -> str:
    """Build a plan and return its key."""
    options = BuildOptions(
        backend=backend, placement=placement, gpus=tuple(gpus), max_batch=MAX_BATCH
    )
    return str(build_to_deployment(directory, options).report["plan"])


def batch(n: int = 1, seed: int = 0) -> np.ndarray:
    """Images of the toy network."""
    return images(SPEC, n, seed=seed, size=SIZE.low)


def check(logits: np.ndarray, x: np.ndarray) -> None:
    """Hold logits against numpy's."""
    expected = reference(SPEC, x)
    assert logits.shape == expected.shape
    assert np.isfinite(logits).all()
    assert np.abs(logits - expected).max() <= TOLERANCE * np.abs(expected).max()


class Frames:
    """Images and logits in device memory, with a stream of their own, as a caller would have."""

    def __init__(self, device: CudaDevice, x: np.ndarray) -> None:
        self.device, self.x = device, x
        self.stream = device.create_stream(7)
        self.image: CudaBuffer = device.allocate(x.nbytes)
        self.logits: CudaBuffer = device.allocate(4 * len(x) * SPEC.num_classes)
        self.device.upload(self.image, x.ctypes.data, x.nbytes, self.stream)

    @property
    def array(self) -> DeviceArray:
        """The images as another library would hand them over."""
        return DeviceArray(
            address=self.image.address,
            shape=self.x.shape,
            device=self.device.ordinal,
            stream=self.stream.handle,
            owner=self,
            order=lambda consumer: self.stream.synchronize(),
        )

    def read(self) -> np.ndarray:
        """The logits, once the stream has come to its end."""
        found = np.full((len(self.x), SPEC.num_classes), np.nan, np.float32)
        self.device.download(found.ctypes.data, self.logits, found.nbytes, self.stream)
        self.stream.synchronize()
        return found

    def close(self) -> None:
        """Free everything."""
        self.stream.synchronize()
        for resource in (self.stream, self.image, self.logits):
            resource.close()


class RuntimeContract:
    """Subclasses say which GPUs there are, and how often to repeat.

    Their module has a fixture ``toy``: an exported deployment that all its tests share. ``lists``
    are values of ``--gpus``; ``runs`` is how many calls must leave no trace in memory.
    """

    lists: Sequence[tuple[int, ...]] = ((0,),)
    runs = 10_000
    threads = 8

    @pytest.fixture
    def frames(self) -> Iterator[Frames]:
        """Two images on GPU 0."""
        device = CudaDevice(0)
        made = Frames(device, batch(2, seed=5))
        yield made
        made.close()
        device.close()

    def plan(self, toy: Path, placement: str = "streams", gpus: Sequence[int] | None = None) -> str:
        """Key of a plan, built if need be; on one GPU unless told otherwise."""
        return build(toy, placement, gpus or self.lists[0])

    def test_every_placement_on_every_list_of_gpus(self, toy: Path) -> None:
        for gpus in self.lists:
            for placement in PLACEMENTS:
                with Runtime.open(toy, plan=self.plan(toy, placement, gpus)) as rt:
                    about = rt.describe()
                    assert about["backend"] == "tensorrt"
                    assert about["canary"]["passed"] is True
                    for n in (1, MAX_BATCH, 2, 1):
                        x = batch(n, seed=n)
                        check(rt(x), x)

    def test_one_gpu_runs_as_one_graph(self, toy: Path) -> None:
        for placement in PLACEMENTS:
            with Runtime.open(toy, plan=self.plan(toy, placement)) as rt:
                program = rt.describe()["program"]
                assert (program["mode"], program["mode_reason"]) == ("graph", "")

    def test_a_traced_run_is_eager_says_so_and_is_timed(self, toy: Path) -> None:
        with Runtime.open(toy, plan=self.plan(toy), trace=True) as rt:
            x = batch()
            check(rt(x), x)
            program = rt.describe()["program"]
            assert program["mode"] == "eager"
            assert "trac" in program["mode_reason"]
            entries = rt.timeline()
        names = {entry.name for entry in entries if entry.op == "run"}
        segments = {segment["name"] for segment in rt.describe()["placement"]["segments"]}
        assert names == segments
        assert all(entry.end_us >= entry.start_us for entry in entries)
        assert not any(entry.simulated for entry in entries)

    def test_auto_keeps_the_table_and_is_not_slower_than_one_engine(self, toy: Path) -> None:
        report = build_to_deployment(
            toy, BuildOptions(backend="tensorrt", gpus=self.lists[0], max_batch=1)
        ).report
        rows = report["measured"]["candidates"]
        assert len(rows) >= 4
        assert sum(row["chosen"] for row in rows) == 1
        chosen = next(row for row in rows if row["chosen"])
        single = [row for row in rows if row["placement"].startswith("one")]
        best = min(single, key=lambda row: row["median_ms"])
        assert chosen["placement"].startswith("one") or chosen["median_ms"] < best["median_ms"]

    def test_addresses_of_the_host(self, toy: Path) -> None:
        x, logits = batch(2), np.full((2, SPEC.num_classes), np.nan, np.float32)
        with Runtime.open(toy, plan=self.plan(toy)) as rt:
            rt.run_into(x.ctypes.data, logits.ctypes.data, n=2)
        check(logits, x)

    @pytest.mark.parametrize("placement", PLACEMENTS)
    def test_addresses_of_a_gpu_in_the_callers_stream(
        self, toy: Path, frames: Frames, placement: str
    ) -> None:
        with Runtime.open(toy, plan=self.plan(toy, placement)) as rt:
            addresses = frames.image.address, frames.logits.address
            for stream in (frames.stream.handle, frames.stream):  # raw, and an object that has it
                rt.run_into(*addresses, n=2, stream=stream)
                check(frames.read(), frames.x)

    def test_arrays_of_a_gpu(self, toy: Path, frames: Frames) -> None:
        with Runtime.open(toy, plan=self.plan(toy)) as rt:
            check(rt(frames.array), frames.x)
            check(rt(Interface(frames)), frames.x)
            check(rt(Interface(frames, stream=None), stream=frames.stream), frames.x)

    def test_logits_that_stay_on_the_gpu(self, toy: Path, frames: Frames) -> None:
        with Runtime.open(toy, plan=self.plan(toy)) as rt:
            for _ in range(3):
                found = rt.enqueue(frames.array, stream=frames.stream)
                assert found.shape == (2, SPEC.num_classes)
                nbytes, address = found.nbytes, found.address
                frames.device.upload(frames.logits, address, nbytes, frames.stream)
                check(frames.read(), frames.x)
            with pytest.raises(InputError, match="got host memory, expected an array on a GPU"):
                rt.enqueue(frames.x, stream=frames.stream)

    def test_device_memory_without_a_stream_is_refused(self, toy: Path, frames: Frames) -> None:
        logits = np.zeros((2, SPEC.num_classes), np.float32)
        with (
            Runtime.open(toy, plan=self.plan(toy)) as rt,
            pytest.raises(InputError, match="in_ptr: got memory of device 0, expected host memory"),
        ):
            rt.run_into(frames.image.address, logits.ctypes.data, n=2)

    def test_every_way_to_call_may_follow_any_other(self, toy: Path, frames: Frames) -> None:
        with Runtime.open(toy, plan=self.plan(toy)) as rt:
            for way in "hdahhddaadh":
                x = batch(2, seed=ord(way))
                if way == "h":
                    check(rt(x), x)
                elif way == "a":
                    check(rt(frames.array), frames.x)
                else:
                    addresses = frames.image.address, frames.logits.address
                    rt.run_into(*addresses, n=2, stream=frames.stream)
            check(frames.read(), frames.x)

    def test_many_threads_get_their_own_answers(self, toy: Path) -> None:
        errors: list[BaseException] = []
        each = max(self.runs // (10 * self.threads), 3)

        def work(rt: Runtime, seed: int) -> None:
            try:
                for index in range(each):
                    x = batch(1 + (seed + index) % MAX_BATCH, seed=seed)
                    check(rt(x), x)
            except BaseException as error:
                errors.append(error)

        with Runtime.open(toy, plan=self.plan(toy), slots=3) as rt:
            threads = [threading.Thread(target=work, args=(rt, i)) for i in range(self.threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert errors == []

    def test_many_runs_leave_nothing_behind(self, toy: Path) -> None:
        x = batch()
        expected = reference(SPEC, x)
        logits = np.empty_like(expected)
        with Runtime.open(toy, plan=self.plan(toy)) as rt:

            def repeat(count: int) -> None:
                for _ in range(count):
                    rt.run_into(x.ctypes.data, logits.ctypes.data)

            repeat(self.runs // 10)
            gc.collect()
            before = self.free_bytes(), _resident_kib()
            repeat(self.runs)
            gc.collect()
            after = self.free_bytes(), _resident_kib()
        check(logits, x)
        assert after[0] == before[0]
        assert after[1] - before[1] < 2048  # less than a byte in five runs of 10,000

    def test_opening_and_closing_leaves_nothing_behind(self, toy: Path) -> None:
        key, x = self.plan(toy), batch()

        def once() -> None:
            with Runtime.open(toy, plan=key, slots=2) as rt:
                check(rt(x), x)

        once()
        before = self.free_bytes()
        for _ in range(3):
            once()
        assert self.free_bytes() == before

    def test_a_plan_of_another_tensorrt_is_refused_before_it_is_loaded(self, toy: Path) -> None:
        files = read_plan(Deployment.open(toy), self.plan(toy, "one"))
        made = json.loads(json.dumps(dict(files.plan.made)))
        made["engines"]["all"]["tensorrt"] = "7.0.0"
        plan = Plan.from_json({**files.plan.to_json(), "made": made})
        with pytest.raises(EngineLoadError, match=r"built by TensorRT 7\.0\.0, here is"):
            Runtime.from_plan(SPEC, plan, files.engines)

    def test_a_file_that_is_no_plan_is_refused(self, toy: Path, tmp_path: Path) -> None:
        files = read_plan(Deployment.open(toy), self.plan(toy, "one"))
        broken = tmp_path / "all.plan"
        broken.write_bytes(files.engines["all"].read_bytes()[:1000])
        with pytest.raises(EngineLoadError, match=r"all\.plan: got a plan that TensorRT"):
            Runtime.from_plan(SPEC, files.plan, {"all": broken})

    def test_an_engine_of_another_segment_is_refused(self, toy: Path) -> None:
        files = read_plan(Deployment.open(toy), self.plan(toy, "streams"))
        swapped = {**files.engines, "stem0": files.engines["head"]}
        with pytest.raises(EngineLoadError, match="engine of segment stem0: got"):
            Runtime.from_plan(SPEC, files.plan, swapped)

    def test_a_canary_that_differs_is_caught(self, toy: Path) -> None:
        files = read_plan(Deployment.open(toy), self.plan(toy, "one"))
        other = Reference(image=batch(), logits=reference(SPEC, batch(seed=1))).pack()
        with pytest.raises(CheckFailedError, match="The engines compute something else"):
            open_proved(SPEC, replace(files, canary=other), OpenOptions(), "test")

    def test_a_gpu_that_is_not_there(self, toy: Path) -> None:
        with pytest.raises(DeviceUnavailableError, match=r"--gpus 7: got 7, expected 0"):
            build(toy, "one", (7,))

    def test_closed_means_closed(self, toy: Path) -> None:
        rt = Runtime.open(toy, plan=self.plan(toy))
        future = rt.submit(batch())
        rt.close()
        rt.close()
        check(future.result(), batch())
        with pytest.raises(BackendError, match="it is closed"):
            rt(batch())

    def free_bytes(self) -> int:
        """Device memory of GPU 0 that nobody has."""
        raise NotImplementedError


class Interface:
    """An array that speaks the CUDA array interface only, like numba's and pycuda's."""

    def __init__(self, frames: Frames, **changes: object) -> None:
        self._frames = frames
        self.__cuda_array_interface__ = {
            **frames.array.__cuda_array_interface__,
            **changes,
        }


def _resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS in /proc/self/status")
