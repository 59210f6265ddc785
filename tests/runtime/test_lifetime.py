"""How a runtime ends: closed during work, in a callback, as garbage; and dropped futures."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.errors import BackendError, DeviceLostError
from parnet_deploy.runtime.arrays.inputs import address_of
from parnet_deploy.runtime.fake.backend import FakeBackend
from parnet_deploy.runtime.fake.options import FakeOptions
from parnet_deploy.runtime.host import HostBuffer
from tests.chaos.callers import OnDevice
from tests.runtime.runtime_toys import segment_kernel, write_engines
from tests.runtime.test_session import EXPECTED, FAKE, SPEC, STREAMS, X, close_to

HANG_S = 60


class Gate:
    """Kernels that wait, in the head, until they are let through; counts those that began."""

    def __init__(self) -> None:
        self.open, self.began, self.runs = threading.Event(), threading.Event(), 0

    def __call__(self, segment):
        compute = segment_kernel(SPEC)(segment)

        def run(inputs):
            if segment.name == "head":
                self.runs += 1
                self.began.set()
                assert self.open.wait(HANG_S)
            return compute(inputs)

        return run


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def gated(gate):
    """A runtime with one slot whose calls wait at the gate."""
    backend = FakeBackend(FakeOptions(), gate)
    with Runtime.from_plan(SPEC, FAKE, {}, backend=backend) as rt:
        yield rt
        gate.open.set()


def fake_runtime(**more) -> Runtime:
    backend = FakeBackend(FakeOptions(jitter_us=50.0), segment_kernel(SPEC))
    return Runtime.from_plan(SPEC, FAKE, {}, backend=backend, **more)


@pytest.fixture(params=["onnxruntime", "fake"])
def opener(request, tmp_path):
    """Opens runtimes of one backend."""
    files = write_engines(SPEC, STREAMS, tmp_path)

    def opened(**more) -> Runtime:
        if request.param == "fake":
            return fake_runtime(**more)
        return Runtime.from_plan(SPEC, STREAMS, files, **more)

    return opened


def ours() -> list[str]:
    """Names of the threads of runtimes that are alive."""
    return [t.name for t in threading.enumerate() if t.name.startswith("parnet-")]


def join_ours() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("parnet-"):
            thread.join(HANG_S)
    assert ours() == []


class TestCancel:
    def test_a_future_that_has_not_begun_never_runs(self, gate, gated):
        first = gated.submit(X)
        assert gate.began.wait(HANG_S)
        waiting = [gated.submit(X) for _ in range(4)]
        assert [future.cancel() for future in waiting[:3]] == [True] * 3
        assert not first.cancel()
        gate.open.set()
        np.testing.assert_array_equal(first.result(HANG_S), EXPECTED)
        np.testing.assert_array_equal(waiting[3].result(HANG_S), EXPECTED)
        for future in waiting[:3]:
            with pytest.raises(CancelledError):
                future.result()
        assert gate.runs == 2
        np.testing.assert_array_equal(gated(X), EXPECTED)  # the slot is free

    def test_close_answers_what_was_not_cancelled(self, gate, gated):
        futures = [gated.submit(X) for _ in range(5)]
        assert gate.began.wait(HANG_S)
        assert futures[2].cancel()
        gate.open.set()
        gated.close()
        answered = [future.result(0) for future in futures if not future.cancelled()]
        assert len(answered) == gate.runs == 4
        assert all(np.array_equal(logits, EXPECTED) for logits in answered)

    def test_a_failed_future_leaks_no_slot(self):
        def broken(segment):
            def run(inputs):
                raise ValueError("no")

            return run

        with Runtime.from_plan(SPEC, FAKE, {}, backend=FakeBackend(None, broken)) as rt:
            assert all(rt.submit(X).exception(HANG_S) is not None for _ in range(5))
            assert rt._now.executor._free.qsize() == 1

    def test_asyncio_awaits_cancels_and_goes_on(self, gate, gated):
        async def main() -> np.ndarray:
            first = asyncio.wrap_future(gated.submit(X))
            second = asyncio.wrap_future(gated.submit(X))
            await asyncio.to_thread(gate.began.wait, HANG_S)
            second.cancel()
            await asyncio.sleep(0)  # the loop tells the runtime's future
            gate.open.set()
            with pytest.raises(asyncio.CancelledError):
                await second
            logits = await asyncio.gather(first, asyncio.to_thread(gated, X))
            assert np.array_equal(*logits)
            return logits[0]

        np.testing.assert_array_equal(asyncio.run(main()), EXPECTED)
        assert gate.runs == 2


class TestCloseInACallback:
    def test_it_is_refused_rather_than_waiting_for_itself(self, gate, gated):
        said: Future = Future()

        def close(future: Future) -> None:
            try:
                gated.close()
            except BackendError as error:
                said.set_result((str(error), future.result()))

        future = gated.submit(X)
        assert gate.began.wait(HANG_S)
        future.add_done_callback(close)
        gate.open.set()
        message, logits = said.result(HANG_S)
        assert "close was called in a callback of a future of its own" in message
        np.testing.assert_array_equal(logits, EXPECTED)
        np.testing.assert_array_equal(gated(X), EXPECTED)
        gated.close()

    def test_of_another_runtime_it_works(self, gate, gated):
        other, done = fake_runtime(), threading.Event()
        future = gated.submit(X)
        assert gate.began.wait(HANG_S)
        future.add_done_callback(lambda _: (other.close(), done.set()))
        gate.open.set()
        assert done.wait(HANG_S)
        with pytest.raises(BackendError, match="it is closed"):
            other(X)

    def test_in_the_thread_that_adds_it_to_a_done_future_it_works(self, opener):
        rt = opener()
        future = rt.submit(X)
        future.result(HANG_S)
        future.add_done_callback(lambda _: rt.close())
        with pytest.raises(BackendError, match="it is closed"):
            rt(X)
        join_ours()


class TestCloseDuringWork:
    @pytest.mark.parametrize("slots", [1, 3])
    def test_each_call_is_answered_or_refused(self, opener, slots):
        for _ in range(5):
            rt = opener(slots=slots)
            device, stops = rt._now.executor.home, []
            ready = threading.Barrier(7)
            threads = [
                threading.Thread(target=self.use, args=(way, rt, ready, stops))
                for way in (self.call, self.run_into, self.submit) * 2
            ]
            if device.simulated:
                stream = device.create_stream(7)
                threads[0] = threading.Thread(
                    target=self.use, args=(self.launch(stream), rt, ready, stops)
                )
            for thread in threads:
                thread.start()
            ready.wait(HANG_S)
            closers = [threading.Thread(target=rt.close) for _ in range(2)]
            for closer in closers:
                closer.start()
            for thread in (*closers, *threads):
                thread.join(HANG_S)
                assert not thread.is_alive()
            assert stops == ["closed"] * 6
            assert ours() == []
            if device.simulated:
                stream.close()
                assert [d.used_bytes for d in rt._now.loaded.devices.values()] == [0, 0, 0]

    @staticmethod
    def use(way, rt, ready, stops) -> None:
        """Call until it is refused."""
        ready.wait(HANG_S)
        try:
            while close_to(way(rt), EXPECTED):
                pass
            stops.append("wrong")
        except BackendError as error:
            stops.append("closed" if "it is closed" in str(error) else repr(error))

    @staticmethod
    def call(rt):
        return rt(X)

    @staticmethod
    def submit(rt):
        return rt.submit(X).result(HANG_S)

    @staticmethod
    def run_into(rt):
        out = np.full_like(EXPECTED, np.nan)
        rt.run_into(address_of(X), address_of(out), len(X))
        return out

    @staticmethod
    def launch(stream):
        def way(rt):
            out = np.full_like(EXPECTED, np.nan)
            rt.run_into(address_of(X), address_of(out), len(X), stream=stream)
            stream.synchronize()
            return out

        return way

    def test_enqueue_takes_no_memory_afterwards(self):
        rt = fake_runtime()
        device = rt._now.executor.home
        stream, image = device.create_stream(7), device.allocate(X.nbytes)
        device.upload(image, address_of(X), X.nbytes, stream)
        stops, wrong = [], []

        def work() -> None:
            try:
                while not stops:
                    found = rt.enqueue(OnDevice(image.address, X.shape), stream=stream)
                    assert found.shape == EXPECTED.shape
            except BackendError as error:
                stops.append(str(error))
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        rt.close()
        for thread in threads:
            thread.join(HANG_S)
        assert wrong == []
        assert all("closed" in why for why in stops)
        with pytest.raises(BackendError, match="the runtime is closed"):
            rt._now.outputs.take(stream.handle)
        image.close()
        stream.close()
        assert [d.used_bytes for d in rt._now.loaded.devices.values()] == [0, 0, 0]

    def test_an_output_without_an_event_is_freed(self):
        """Found by chaos-runs: the device was lost between the two."""

        def create_event():
            raise DeviceLostError("device 2: gone.", 2)

        with fake_runtime() as rt:
            device, pool = rt._now.executor.home, rt._now.outputs
            before, pool._create_event = device.used_bytes, create_event
            with pytest.raises(DeviceLostError):
                pool.take(1000)
            assert device.used_bytes == before


class TestGarbage:
    def test_on_the_cpu_threads_end_and_memory_is_freed(self, tmp_path, monkeypatch):
        made = []
        allocate = HostBuffer.__init__

        def watched(buffer, *arguments, **more):
            allocate(buffer, *arguments, **more)
            made.append(weakref.ref(buffer._memory))

        monkeypatch.setattr(HostBuffer, "__init__", watched)
        rt = Runtime.from_plan(SPEC, STREAMS, write_engines(SPEC, STREAMS, tmp_path), slots=2)
        rt.submit(X).result(HANG_S)
        sessions = [weakref.ref(engine._session) for engine in rt._now.loaded.engines.values()]
        assert ours()
        assert made
        gone = weakref.ref(rt)
        del rt
        gc.collect()
        join_ours()
        assert gone() is None
        assert [one() for one in (*made, *sessions)] == [None] * len((*made, *sessions))

    def test_where_a_driver_frees_it_is_closed_when_the_next_is_opened(self):
        rt = fake_runtime()
        devices = list(rt._now.loaded.devices.values())
        del rt
        gc.collect()
        assert all(device.used_bytes for device in devices)
        fake_runtime().close()
        assert [device.used_bytes for device in devices] == [0, 0, 0]

    def test_one_that_was_closed_is_garbage_and_nothing_else(self):
        rt = fake_runtime()
        rt.close()
        gone = weakref.ref(rt)
        del rt
        gc.collect()
        assert gone() is None

    def test_one_that_could_not_be_opened_leaves_nothing(self):
        with pytest.raises(TypeError):
            Runtime()
        gc.collect()

    def test_each_thread_may_have_its_own(self, opener):
        local, errors = threading.local(), []

        def work() -> None:
            local.rt = opener()
            if not close_to(local.rt(X), EXPECTED):
                errors.append("wrong")

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG_S)
        gc.collect()
        join_ours()
        assert errors == []


class TestSeveral:
    def test_of_several_plans_and_backends_at_once(self, tmp_path):
        """Each answers its own, whatever the others do; closing one closes no other."""
        files = write_engines(SPEC, STREAMS, tmp_path)
        runtimes = [
            Runtime.from_plan(SPEC, STREAMS, files),
            Runtime.from_plan(SPEC, STREAMS, files, slots=2),
            fake_runtime(slots=2),
            fake_runtime(),
        ]
        wrong = []

        def work(rt: Runtime) -> None:
            for _ in range(20):
                if not close_to(rt(X), EXPECTED):
                    wrong.append(rt)

        threads = [threading.Thread(target=work, args=(rt,)) for rt in runtimes for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            with fake_runtime() as short, Runtime.from_plan(SPEC, STREAMS, files) as other:
                assert close_to(short(X), EXPECTED)
                assert close_to(other(X), EXPECTED)
        for thread in threads:
            thread.join(HANG_S)
        assert wrong == []
        for index, rt in enumerate(runtimes):
            rt.close()
            for left in runtimes[index + 1 :]:
                assert close_to(left(X), EXPECTED)
