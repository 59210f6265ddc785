"""ONNX Runtime engines: right answers in preallocated memory, errors that are ours."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as state

from parnet_deploy.errors import (
    DeviceUnavailableError,
    EngineLoadError,
    ExecutionError,
    OutOfMemoryError,
)
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime.executor import Executor
from parnet_deploy.runtime.fake.backend import FakeBackend
from parnet_deploy.runtime.onnxruntime.cpu import OnnxRuntimeBackend, open_session
from parnet_deploy.runtime.onnxruntime.sessions import ERRORS, OrtBinding
from tests.runtime.runtime_toys import (
    PLACEMENTS,
    SPECS,
    fixed_size,
    images,
    make_plan,
    onnx_segment,
    reference,
    run,
    write_engines,
)


def executor_of(loaded, spec, plan) -> Executor:
    return Executor(
        spec=spec,
        placement=plan.placement,
        devices=loaded.devices,
        engines=loaded.engines,
        input_size=plan.input_size,
        max_batch=plan.max_batch,
    )


@pytest.mark.parametrize("streams_", SPECS)
@pytest.mark.parametrize("name", ["one", "streams on one device", "recomputed on one device"])
def test_placements_equal_the_sequential_network(tmp_path, streams_, name):
    spec = SPECS[streams_]
    plan = make_plan(PLACEMENTS[name](spec), fixed_size(spec), max_batch=3)
    files = write_engines(spec, plan, tmp_path)
    executor = executor_of(OnnxRuntimeBackend().load(spec, plan, files), spec, plan)
    for index in range(6):
        x = images(spec, 1 + index % 3, seed=index)
        np.testing.assert_allclose(run(executor, spec, x), reference(spec, x), rtol=1e-5, atol=1e-6)
    executor.close()


def test_sizes_of_a_range(tmp_path):
    spec = SPECS[2]
    plan = make_plan(streams(spec), InputSize(low=(16, 16), high=(48, 48)), max_batch=2)
    files = write_engines(spec, plan, tmp_path)
    executor = executor_of(OnnxRuntimeBackend().load(spec, plan, files), spec, plan)
    for size in ((16, 16), (48, 16), (32, 48), (16, 16)):
        x = images(spec, 2, size=size)
        np.testing.assert_allclose(run(executor, spec, x), reference(spec, x), rtol=1e-5, atol=1e-6)
    executor.close()


def test_the_fake_backend_computes_with_the_same_files(tmp_path):
    spec = SPECS[3]
    plan = make_plan(streams(spec, (0, 1, 2)), fixed_size(spec), backend="fake")
    files = write_engines(spec, plan, tmp_path)
    executor = executor_of(FakeBackend().load(spec, plan, files), spec, plan)
    x = images(spec)
    np.testing.assert_allclose(run(executor, spec, x), reference(spec, x), rtol=1e-5, atol=1e-6)


def test_threads_are_shared_out_and_named(tmp_path):
    spec = SPECS[3]
    plan = make_plan(streams(spec), fixed_size(spec), threads=6)
    files = write_engines(spec, plan, tmp_path)
    loaded = OnnxRuntimeBackend().load(spec, plan, files)
    assert loaded.facts["cores"] == 6
    assert loaded.facts["threads"]["head"] == 6
    assert loaded.facts["threads"]["stream0"] == 2
    assert OnnxRuntimeBackend().load(spec, plan, files, threads=1).facts["cores"] == 1
    loaded.close()
    loaded.close()


def test_pools_do_not_spin(tmp_path):
    spec = SPECS[2]
    files = write_engines(spec, make_plan(one(spec), fixed_size(spec)), tmp_path)
    options = open_session(files["all"], threads=2).get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)


class TestLoading:
    spec = SPECS[2]

    def load(self, plan, files):
        return OnnxRuntimeBackend().load(self.spec, plan, files)

    def test_only_one_device(self):
        plan = make_plan(streams(self.spec, (0, 1)), fixed_size(self.spec))
        with pytest.raises(DeviceUnavailableError, match=r"got devices \(0, 1\), expected 0"):
            self.load(plan, {})

    @pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x08\x07" * 100])
    def test_a_file_that_is_no_model(self, tmp_path, content):
        plan = make_plan(one(self.spec), fixed_size(self.spec))
        path = tmp_path / "all.onnx"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EngineLoadError, match=r"ONNX Runtime cannot load it: .+"):
            self.load(plan, {"all": path})

    def test_the_engine_of_another_segment(self, tmp_path):
        plan = make_plan(streams(self.spec), fixed_size(self.spec))
        files = write_engines(self.spec, plan, tmp_path)
        with pytest.raises(EngineLoadError, match=r"segment stem0: got \['d0', 'y1'\]"):
            self.load(plan, {**files, "stem0": files["head"]})

    def test_the_engine_of_another_size(self, tmp_path):
        plan = make_plan(one(self.spec), fixed_size(self.spec, 2))
        files = write_engines(self.spec, plan, tmp_path)
        with pytest.raises(
            EngineLoadError, match=r"tensor image: got .*32, 32.*, expected .*16, 16"
        ):
            self.load(make_plan(one(self.spec), fixed_size(self.spec)), files)

    def test_the_engine_of_one_batch(self, tmp_path):
        plan = make_plan(one(self.spec), fixed_size(self.spec), max_batch=2)
        model = onnx_segment(self.spec, plan.placement.segments[0], plan.input_size)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(model, tmp_path / "all.onnx")
        with pytest.raises(
            EngineLoadError, match=r"got tensor\(float\) \[1, 3, 16, 16\], expected"
        ):
            self.load(plan, {"all": tmp_path / "all.onnx"})


class TestErrors:
    class Session:
        """Fails as told, in the place of a session."""

        def __init__(self, error: Exception) -> None:
            self.error = error

        def io_binding(self) -> None:
            return None

        def run_with_iobinding(self, binding: object, options: object) -> None:
            raise self.error

    @pytest.mark.parametrize("row", ERRORS, ids=lambda row: row[0].__name__)
    def test_every_row_of_the_table(self, row):
        theirs, _, ours = row
        binding = OrtBinding(self.Session(theirs("first line\nsecond line")), "stem0", ("image",))
        with pytest.raises(ours, match=r"segment stem0: ONNX Runtime: first line$") as caught:
            binding.run()
        assert isinstance(caught.value.__cause__, theirs)

    def test_the_table_knows_every_exception_of_onnx_runtime(self):
        """Those that are left out belong to other uses of it (compiling, cancelling)."""
        exceptions = {
            name
            for name, value in vars(state).items()
            if isinstance(value, type) and issubclass(value, Exception)
        }
        known = {row[0].__name__ for row in ERRORS}
        rest = {"DeviceReset", "ModelLoadCanceled", "ModelLoaded", "ModelRequiresCompilation"}
        assert exceptions - known <= rest | {"NotFound"}

    def test_an_engine_that_fails_in_a_run(self, tmp_path):
        """The session loads, two images are fine, and with one there is no second row to take."""
        spec = SPECS[2]
        plan = make_plan(one(spec), fixed_size(spec), max_batch=2)
        model = onnx_segment(spec, plan.placement.segments[0], plan.input_size)
        for name, value in (("second", np.array([1])), ("zero", np.float32([0]))):
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        model.graph.node[-1].output[0] = "flat"
        for op, inputs, output in (
            ("Gather", ["flat", "second"], "row"),
            ("Mul", ["row", "zero"], "nothing"),
            ("Add", ["flat", "nothing"], "logits"),
        ):
            model.graph.node.append(onnx.helper.make_node(op, inputs, [output]))
        onnx.save(model, tmp_path / "all.onnx")
        loaded = OnnxRuntimeBackend().load(spec, plan, {"all": tmp_path / "all.onnx"})
        executor = executor_of(loaded, spec, plan)
        x = images(spec, 2)
        logits = np.full((1, 3), 7, np.float32)
        with pytest.raises(ExecutionError, match="segment all: ONNX Runtime: "):
            executor.run(x.ctypes.data, logits.ctypes.data, (1, 16, 16))
        assert np.all(logits == 7)
        np.testing.assert_allclose(run(executor, spec, x), reference(spec, x), rtol=1e-5, atol=1e-6)

    def test_out_of_memory_is_its_own_error(self):
        assert ERRORS[0][1:] == (OutOfMemoryError, OutOfMemoryError)


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_telemetry_is_off_before_the_library_is_loaded(given, expected):
    program = "import parnet_deploy.runtime.onnxruntime.cpu, os; print(os.environ[NAME])"
    environment = {
        key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"
    }
    if given is not None:
        environment["ORT_DISABLE_TELEMETRY"] = given
    command = [sys.executable, "-c", program.replace("NAME", "'ORT_DISABLE_TELEMETRY'")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
