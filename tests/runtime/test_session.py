"""``Runtime`` on real deployments of small networks."""

from __future__ import annotations

import copy
import gc
import io
import json
import logging
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import parnet_deploy
from parnet_deploy import Runtime
from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.errors import (
    BackendError,
    CheckFailedError,
    DeploymentCorruptError,
    DeploymentError,
    DeviceLostError,
    DeviceUnavailableError,
    ExecutionError,
    InputError,
    SpecError,
)
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime.choose import order_plans
from parnet_deploy.runtime.fake.backend import FakeBackend
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from tests.runtime.runtime_toys import (
    SPECS,
    fixed_size,
    images,
    make_plan,
    reference,
    segment_kernel,
    write_engines,
)

SPEC = SPECS[3]
SIZE = fixed_size(SPEC)
X = images(SPEC, 2)
EXPECTED = reference(SPEC, X)


def close_to(logits, expected) -> bool:
    return np.allclose(logits, expected, rtol=1e-5, atol=1e-6)


def publish(path, plans, canary=None) -> None:
    """A deployment with these plans: key -> (Plan, median_ms, built)."""
    with Deployment.edit(path, create=True) as txn:
        txn.describe(spec=SPEC, input_size=SIZE)
        for key, (plan, median, built) in plans.items():
            first = txn.stage(f"plans/{key}/build.json")
            first.write_text(json.dumps(plan.to_json()))
            for name in plan.engines.values():
                txn.stage(f"plans/{key}/{name}")
            write_engines(SPEC, plan, first.parent)
            if canary is not None:
                txn.stage(f"plans/{key}/canary.npz").write_bytes(canary)
            about = {
                "backend": plan.backend,
                "placement": plan.placement.name,
                "median_ms": median,
                "built": built,
            }
            txn.finish_step(f"build:{key}", key=step_key(name=key), plans={key: about})


def canary_of(x, logits) -> bytes:
    file = io.BytesIO()
    np.savez(file, x=x, logits=logits)
    return file.getvalue()


ONE = make_plan(one(SPEC), SIZE, 4, threads=1, made={"tolerance": 1e-4})
STREAMS = make_plan(streams(SPEC), SIZE, 4, threads=1)
FAKE = make_plan(streams(SPEC, (0, 1, 2)), SIZE, 4, backend="fake")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "toy"
    plans = {
        "fake": (FAKE, 0.001, "2030-01-01T00:00:00+00:00"),
        "older": (STREAMS, 2.0, "2026-01-01T00:00:00+00:00"),
        "quick": (ONE, 1.0, "2026-01-03T00:00:00+00:00"),
        "unmeasured": (ONE, None, "2026-01-04T00:00:00+00:00"),
        "newest": (STREAMS, 2.0, "2026-01-05T00:00:00+00:00"),
    }
    publish(path, plans, canary=canary_of(X, EXPECTED))
    return path


@pytest.fixture
def rt(deployment):
    with Runtime.open(deployment, slots=2) as runtime:
        yield runtime


class TestOpen:
    def test_the_newest_real_plan_is_chosen_and_named(self, deployment, caplog):
        with caplog.at_level(logging.INFO, "parnet_deploy"), Runtime.open(deployment) as rt:
            about = rt.describe()
        assert (about["plan"], about["backend"]) == ("newest", "onnxruntime")
        assert "running plan newest on onnxruntime" in caplog.text
        assert about["canary"]["passed"] is True
        assert json.loads(json.dumps(about))["plan"] == "newest"

    @pytest.mark.parametrize("key", ["quick", "older", "unmeasured", "fake"])
    def test_a_plan_by_its_key(self, deployment, key):
        with Runtime.open(deployment, plan=key) as rt:
            assert rt.describe()["plan"] == key
            assert close_to(rt(X), EXPECTED)

    def test_the_simulation_only_if_asked_for(self, deployment):
        with Runtime.open(deployment, backend="fake") as rt:
            about = rt.describe()
            rt(X)
            assert all(entry.simulated for entry in rt.timeline())
        assert (about["plan"], about["program"]["simulated"]) == ("fake", True)

    def test_the_simulation_if_there_is_nothing_else(self, tmp_path):
        publish(tmp_path / "toy", {"only": (FAKE, None, "")})
        with Runtime.open(tmp_path / "toy") as rt:
            assert close_to(rt(X), EXPECTED)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"plan": "none"}, DeploymentError, r"got fake \(fake\), newest .*expected plan none"),
            ({"backend": "onxruntime"}, BackendError, "Did you mean onnxruntime"),
            ({"plan": "fake", "backend": "onnxruntime"}, DeploymentError, "plan fake backend onnx"),
            ({"slots": 0}, SpecError, "slots: got 0"),
            ({"threads": 0}, SpecError, "threads: got 0"),
            ({"threads": 1025}, SpecError, "threads: got 1025, expected 1 to 1024"),
            ({"threads": "2"}, SpecError, "threads: got '2', expected an integer"),
            ({"slots": 1.5}, SpecError, "slots: got 1.5, expected an integer"),
            ({"slots": 1025}, SpecError, "slots: got 1025, expected 1 to 1024"),
            ({"backend": 5}, SpecError, "backend: got 5, expected a name"),
        ],
    )
    def test_what_cannot_be_opened(self, deployment, options, error, message):
        with pytest.raises(error, match=message):
            Runtime.open(deployment, **options)

    @pytest.mark.parametrize("name", [["onnxruntime"], {}, 5])
    def test_a_backend_that_is_no_name_ranks_last(self, name):
        plans = {
            "odd": {"backend": name, "step": "build:odd"},
            "cpu": {"backend": "onnxruntime", "step": "build:cpu"},
        }
        steps = {plan["step"]: {"finished": "2026-01-01"} for plan in plans.values()}
        found = SimpleNamespace(plans=plans, steps=steps, path="x")
        assert order_plans(found) == ("cpu", "odd")

    def test_a_deployment_without_plans(self, tmp_path):
        publish(tmp_path / "toy", {})
        with pytest.raises(
            DeploymentError, match=r"got no plans, expected one or more. Run: parnet"
        ):
            Runtime.open(tmp_path / "toy")

    def test_a_plan_for_another_machine_is_skipped_and_said_so(self, tmp_path, caplog):
        plans = {
            "cpu": (ONE, 3.0, "2026-01-01"),
            "gpus": (replace(ONE, placement=one(SPEC, device=1)), 0.5, "2026-01-02"),
        }
        publish(tmp_path / "toy", plans)
        with Runtime.open(tmp_path / "toy") as rt:
            about = rt.describe()
        assert about["plan"] == "cpu"
        assert "expected 0, for the CPU is one device" in about["skipped"]["gpus"]
        assert "plan gpus does not run on this machine" in caplog.text
        with pytest.raises(DeviceUnavailableError):
            Runtime.open(tmp_path / "toy", plan="gpus")

    def test_no_plan_for_this_machine(self, tmp_path):
        plans = {"gpus": (replace(ONE, placement=one(SPEC, device=1)), 0.5, "")}
        publish(tmp_path / "toy", plans)
        with pytest.raises(BackendError, match=r"no plan runs on this machine. \[gpus\] placement"):
            Runtime.open(tmp_path / "toy")

    def test_a_plan_of_a_newer_version_comes_last(self, tmp_path):
        plans = {
            "new": (replace(ONE, backend="quantum"), 0.5, "2026-01-02"),
            "cpu": (ONE, 3.0, ""),
        }
        publish(tmp_path / "toy", plans)
        with Runtime.open(tmp_path / "toy") as rt:
            assert rt.describe()["plan"] == "cpu"

    @pytest.mark.parametrize("name", ["plans/newest/build.json", "plans/newest/head.onnx"])
    def test_a_changed_file_is_refused(self, deployment, name):
        path = deployment / name
        before = path.read_bytes()
        try:
            path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
            with pytest.raises(DeploymentCorruptError, match=name):
                Runtime.open(deployment)
        finally:
            path.write_bytes(before)

    def test_a_build_file_that_is_no_json(self, tmp_path):
        publish(tmp_path / "toy", {"cpu": (ONE, 3.0, "")})
        with Deployment.edit(tmp_path / "toy") as txn:
            txn.stage("plans/cpu/build.json").write_text("{")
            for name in ONE.engines.values():
                txn.stage(f"plans/cpu/{name}").write_text("x")
            about = {"backend": "onnxruntime", "placement": "one"}
            txn.finish_step("build:cpu", key=step_key(a=1), plans={"cpu": about})
        with pytest.raises(DeploymentCorruptError, match=r"plans/cpu/build.json: got .* JSON"):
            Runtime.open(tmp_path / "toy")


class TestCanary:
    @pytest.mark.parametrize("logits", [EXPECTED + 0.01, EXPECTED * np.float32(np.nan)])
    def test_other_logits_are_refused(self, tmp_path, logits):
        publish(tmp_path / "toy", {"cpu": (ONE, 3.0, "")}, canary=canary_of(X, logits))
        with pytest.raises(
            CheckFailedError, match=r"canary of .*, plan cpu: .*parnet-deploy build"
        ):
            Runtime.open(tmp_path / "toy")

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", canary_of(X, X)[:200]])
    def test_a_file_that_is_no_canary(self, tmp_path, content):
        publish(tmp_path / "toy", {"cpu": (ONE, 3.0, "")}, canary=content)
        with pytest.raises(DeploymentCorruptError, match=r"reference .*expected x and logits"):
            Runtime.open(tmp_path / "toy")

    @pytest.mark.parametrize("tolerance", ["x", True, 0, -1.0, float("nan"), 10**400, [1]])
    def test_a_tolerance_that_is_none(self, tmp_path, tolerance):
        plan = replace(ONE, made={"tolerance": tolerance})
        publish(tmp_path / "toy", {"cpu": (plan, 3.0, "")}, canary=canary_of(X, EXPECTED))
        with pytest.raises(DeploymentCorruptError, match=r"tolerance .* expected a positive"):
            Runtime.open(tmp_path / "toy")

    def test_no_canary(self, tmp_path):
        publish(tmp_path / "toy", {"cpu": (ONE, 3.0, "")})
        with Runtime.open(tmp_path / "toy") as rt:
            assert "canary" not in rt.describe()


class TestCall:
    def test_the_logits_are_right_fresh_and_the_callers(self, rt):
        first = rt(X)
        kept = first.copy()
        assert close_to(first, EXPECTED)
        second = rt(images(SPEC, 1, seed=9))
        np.testing.assert_array_equal(first, kept)
        assert not np.shares_memory(first, second)
        assert first.flags.owndata
        assert (first.dtype, first.shape) == (np.float32, (2, 4))

    def test_other_strides_give_the_same(self, rt):
        channels_last = np.ascontiguousarray(X.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(rt(channels_last), rt(X))

    def test_input_is_not_changed(self, rt):
        x = X.copy()
        x.flags.writeable = False
        rt(x)
        np.testing.assert_array_equal(x, X)

    def test_another_address_every_time(self, rt):
        for seed in range(10):
            x = images(SPEC, 1, seed)
            assert close_to(rt(x), reference(SPEC, x))

    def test_nan_goes_through(self, rt):
        assert np.isnan(rt(np.full_like(X, np.nan))).all()
        assert close_to(rt(X), EXPECTED)

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (X[:0], "batch: got 0, expected 1 to 4"),
            (np.repeat(X, 3, axis=0), "batch: got 6, expected 1 to 4"),
            (images(SPEC, size=(64, 32)), "input size: got 64x32, expected 32x32"),
            (images(SPEC, size=(48, 48)), "input size: got 48x48"),
            (X.astype(np.float64), "got dtype float64"),
            (X[0], "got shape"),
            ([1, 2], "got a list"),
        ],
    )
    @pytest.mark.parametrize("how", ["call", "submit"])
    def test_bad_input_is_refused_and_the_next_call_is_right(self, rt, x, message, how):
        with pytest.raises(InputError, match=message):
            rt(x) if how == "call" else rt.submit(x)
        assert close_to(rt(X), EXPECTED)

    def test_properties(self, rt):
        assert (rt.spec, rt.max_batch, rt.input_size) == (SPEC, 4, SIZE)


class TestRunInto:
    def test_raw_addresses(self, rt):
        out = np.full((3, 4), 7, np.float32)
        rt.run_into(X.ctypes.data, out.ctypes.data, n=2)
        assert close_to(out[:2], EXPECTED)
        assert np.all(out[2] == 7)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"in_ptr": 0}, InputError, "in_ptr: got address 0x0"),
            ({"out_ptr": 3}, InputError, "out_ptr: got address 0x3"),
            ({"in_ptr": "x"}, InputError, "in_ptr: got 'x'"),
            ({"n": 0}, InputError, "batch: got 0"),
            ({"n": 5}, InputError, "batch: got 5"),
            ({"n": 1.0}, InputError, "n: got 1.0"),
            ({"size": (16, 16)}, InputError, "input size: got 16x16"),
            ({"size": 32}, InputError, "size: got 32"),
            ({"in_ptr": 1 << 64}, InputError, "in_ptr: got address 0x10000000000000000"),
            ({"stream": "a"}, InputError, "stream: got a str, expected an integer"),
            ({"stream": -1}, InputError, "stream: got -0x1, expected a raw handle"),
            ({"stream": 8}, DeviceUnavailableError, "stream 0x8: this runtime runs on the CPU"),
        ],
    )
    def test_bad_arguments_write_nothing(self, rt, change, error, message):
        out = np.full((4, 4), 7, np.float32)
        arguments = {"in_ptr": X.ctypes.data, "out_ptr": out.ctypes.data, "n": 2, **change}
        with pytest.raises(error, match=message):
            rt.run_into(**arguments)
        assert np.all(out == 7)

    def test_a_range_of_sizes_needs_the_size(self, tmp_path):
        plan = make_plan(one(SPEC), InputSize(low=(32, 32), high=(64, 64)), 2)
        files = write_engines(SPEC, plan, tmp_path)
        x, out = images(SPEC, size=(64, 32)), np.zeros((1, 4), np.float32)
        with Runtime.from_plan(SPEC, plan, files) as rt:
            with pytest.raises(InputError, match=r"size: got None, expected .* in 32x32:64x64"):
                rt.run_into(x.ctypes.data, out.ctypes.data)
            rt.run_into(x.ctypes.data, out.ctypes.data, size=(64, 32))
            assert close_to(out, reference(SPEC, x))
            assert close_to(rt(x), out)

    def test_a_stream_of_the_caller(self):
        backend = FakeBackend(FakeOptions(jitter_us=20.0), segment_kernel(SPEC))
        with Runtime.from_plan(SPEC, FAKE, {}, backend=backend) as rt:
            stream = rt._now.executor._devices[2].create_stream(0)
            out = np.full((2, 4), 7, np.float32)
            rt.run_into(X.ctypes.data, out.ctypes.data, 2, stream.handle)
            assert np.all(out == 7)  # nothing was waited for
            stream.synchronize()
            np.testing.assert_array_equal(out, EXPECTED)
            with pytest.raises(DeviceUnavailableError, match="has no such stream"):
                rt.run_into(X.ctypes.data, out.ctypes.data, 2, 12345)


class TestThreads:
    def test_eight_threads(self, rt):
        wrong = []

        def call(thread: int) -> None:
            for index in range(25):
                x = images(SPEC, 1 + (thread + index) % 4, seed=100 * thread + index)
                if not close_to(rt(x), reference(SPEC, x)):
                    wrong.append((thread, index))

        threads = [threading.Thread(target=call, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_futures(self, rt):
        x = [images(SPEC, 1, seed) for seed in range(20)]
        futures = [rt.submit(one_image) for one_image in x]
        for future, one_image in zip(futures, x, strict=True):
            assert close_to(future.result(), reference(SPEC, one_image))

    def test_close_during_work_answers_what_was_accepted(self, deployment):
        rt = Runtime.open(deployment)
        futures = [rt.submit(X) for _ in range(30)]
        closers = [threading.Thread(target=rt.close) for _ in range(2)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        assert all(close_to(future.result(timeout=0), EXPECTED) for future in futures)

    @pytest.mark.parametrize("clone", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_it_cannot_be_copied(self, rt, clone):
        with pytest.raises(TypeError, match="Open it in the other process"):
            clone(rt)

    def test_closed_is_closed(self, deployment):
        with Runtime.open(deployment) as rt:
            pass
        rt.close()
        for call in (
            lambda: rt(X),
            lambda: rt.submit(X),
            lambda: rt.run_into(X.ctypes.data, X.ctypes.data),
        ):
            with pytest.raises(BackendError, match=f"runtime {deployment}: it is closed"):
                call()

    def test_no_thread_stays_behind(self, deployment):
        before = threading.active_count()
        for _ in range(3):
            with Runtime.open(deployment, slots=2) as rt:
                rt.submit(X).result()
        forgotten = Runtime.open(deployment)
        del forgotten
        gc.collect()
        for thread in threading.enumerate():
            if thread.name.startswith("parnet-"):
                thread.join(timeout=20)
        assert threading.active_count() == before


class TestFaults:
    def open(self, **faults) -> Runtime:
        options = FakeOptions(faults=FaultPlan(**faults))
        backend = FakeBackend(options, segment_kernel(SPEC))
        return Runtime.from_plan(SPEC, FAKE, {}, backend=backend)

    def test_a_run_that_fails_and_the_next_that_does_not(self):
        with self.open(fail_once=frozenset({"stream1"})) as rt:
            with pytest.raises(ExecutionError, match="stream1"):
                rt(X)
            np.testing.assert_array_equal(rt(X), EXPECTED)

    def test_a_failure_is_in_the_future(self):
        with self.open(fail_once=frozenset({"stream1"})) as rt:
            assert isinstance(rt.submit(X).exception(), ExecutionError)

    def test_a_lost_device(self):
        with self.open(lose_device={1: 0}) as rt:
            for _ in range(3):
                with pytest.raises(DeviceLostError, match="device 1: it was lost"):
                    rt(X)


def test_runtime_is_imported_when_asked_for():
    assert parnet_deploy.Runtime is Runtime
    assert "Runtime" in parnet_deploy.__all__
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        parnet_deploy.Nothing  # noqa: B018


def test_running_a_model_imports_neither_torch_nor_onnx(deployment):
    program = f"""
import sys
import parnet_deploy
assert "numpy" not in sys.modules
from parnet_deploy import Runtime
assert "onnxruntime" not in sys.modules
import numpy as np
x = np.zeros((1, 3, 32, 32), np.float32)
for backend in ("onnxruntime", "fake"):
    with Runtime.open({str(deployment)!r}, backend=backend) as rt:
        assert rt(x).shape == (1, 4)
        rt.submit(x).result()
loaded = {{name.partition(".")[0] for name in sys.modules}}
print(sorted(loaded & {{"torch", "onnx", "polygraphy", "safetensors", "PIL", "click", "rich"}}))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
