"""OpenVINO engines: right answers in preallocated memory, errors that are ours, no telemetry."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("parnet_deploy.runtime.openvino.library", reason="needs openvino")

from parnet_deploy.errors import (
    DeviceUnavailableError,
    EngineLoadError,
    ExecutionError,
    OutOfMemoryError,
)
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime.device import Tensor
from parnet_deploy.runtime.host import HostBuffer
from parnet_deploy.runtime.openvino import backend, network
from parnet_deploy.runtime.openvino.backend import OpenVinoBackend, OpenVinoBinding
from parnet_deploy.runtime.openvino.engine_format import unpack_network, write_network
from parnet_deploy.runtime.openvino.failures import ERRORS, load_error, reason
from parnet_deploy.runtime.openvino.library import ov
from parnet_deploy.runtime.session import Runtime
from parnet_deploy.spec import ModelSpec
from tests.runtime.memory import SMALL_BYTES, peak_bytes
from tests.runtime.openvino_toys import open_executor, openvino_plan, write_model, write_openvino
from tests.runtime.runtime_toys import (
    PLACEMENTS,
    SPECS,
    fixed_size,
    images,
    onnx_segment,
    reference,
    run,
)

HAS_BF16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
MANY_CLASSES = ModelSpec(planes=(2, 4, 6), num_blocks=(2, 2, 1), num_classes=4000)


def worst(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("streams_", [2, 3])
@pytest.mark.parametrize("name", ["one", "streams on one device", "recomputed on one device"])
def test_placements_equal_the_sequential_network(tmp_path, streams_, name):
    spec = SPECS[streams_]
    plan = openvino_plan(PLACEMENTS[name](spec), fixed_size(spec), max_batch=3)
    executor = open_executor(spec, plan, write_openvino(spec, plan, tmp_path))
    for index in range(6):
        x = images(spec, 1 + index % 3, seed=index)
        np.testing.assert_allclose(run(executor, spec, x), reference(spec, x), rtol=1e-5, atol=1e-6)
    executor.close()


def test_sizes_of_a_range(tmp_path):
    spec = SPECS[2]
    plan = openvino_plan(streams(spec), InputSize(low=(16, 16), high=(48, 48)), max_batch=2)
    executor = open_executor(spec, plan, write_openvino(spec, plan, tmp_path))
    for size in ((16, 16), (48, 16), (32, 48), (16, 16)):
        x = images(spec, 2, size=size)
        np.testing.assert_allclose(run(executor, spec, x), reference(spec, x), rtol=1e-5, atol=1e-6)
    executor.close()


def test_threads_are_shared_out_and_named(tmp_path):
    spec = SPECS[3]
    plan = openvino_plan(streams(spec), fixed_size(spec), threads=6)
    loaded = OpenVinoBackend().load(spec, plan, write_openvino(spec, plan, tmp_path))
    assert loaded.facts["openvino"] == ov.__version__
    assert loaded.facts["cores"] == 6
    assert loaded.facts["threads"]["head"] == 6
    assert loaded.facts["threads"]["stream0"] == 2
    loaded.close()
    loaded.close()


@pytest.fixture
def toy(tmp_path):
    """The whole network as one: its plan, engine file, and ``openvino.Model``."""
    spec = MANY_CLASSES
    plan = openvino_plan(one(spec), fixed_size(spec, 4), max_batch=4)
    files = write_openvino(spec, plan, tmp_path)
    return SimpleNamespace(
        spec=spec, plan=plan, files=files, network=network.read_network(files["all"])
    )


class TestCompiling:
    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_what_is_asked_of_openvino(self, toy, precision):
        shapes = {"image": (2, 3, 64, 64)}
        compiled = network.compile_network(toy.network, shapes, precision=precision, threads=1)
        asked = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        assert {name: compiled.get_property(name) for name in asked} == asked
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f32
        assert compiled.input("image").get_shape() == [2, 3, 64, 64]
        assert toy.network.input("image").get_partial_shape()[0].is_dynamic

    @pytest.mark.skipif(not HAS_BF16, reason="needs a CPU with bfloat16")
    def test_bfloat16_is_computed_in_bfloat16(self, tmp_path):
        spec = SPECS[2]
        plan = openvino_plan(one(spec), fixed_size(spec), max_batch=3, precision="bf16")
        executor = open_executor(spec, plan, write_openvino(spec, plan, tmp_path))
        x = images(spec, 3)
        assert 1e-4 < worst(run(executor, spec, x), reference(spec, x)) < 2e-2
        executor.close()

    def test_a_cpu_without_bfloat16_is_refused(self, toy, monkeypatch):
        compiled = SimpleNamespace(get_property=lambda name: ov.Type.f32)
        core = SimpleNamespace(compile_model=lambda *arguments: compiled)
        stand_in = SimpleNamespace(Core=lambda: core)
        monkeypatch.setattr(network, "ov", stand_in)
        with pytest.raises(EngineLoadError, match=r"got f32 .*, expected bf16: .* no kernels"):
            network.compile_network(
                toy.network, {"image": (1, 3, 64, 64)}, precision="bf16", threads=1
            )

    def test_shapes_that_it_cannot_take(self, toy):
        with pytest.raises(EngineLoadError, match=r"network all: OpenVINO cannot load it: .+"):
            network.compile_network(
                toy.network, {"image": (1, 5, 64, 64)}, precision="fp32", threads=1
            )

    @pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2)])
    def test_slots_share_where_cores_are_few(self, toy, monkeypatch, cores, expected):
        made = counted(monkeypatch)
        monkeypatch.setattr(backend, "usable_cores", lambda: cores)
        engine = load_engine(toy)
        bindings = [engine.bind(tensors_for(toy, 1)[0], slot) for slot in (0, 1, 1)]
        assert len(made) == expected
        assert all(bindings)

    def test_one_for_each_shape_while_it_is_bound(self, toy, monkeypatch):
        made = counted(monkeypatch)
        engine = load_engine(toy)
        tensors = {n: tensors_for(toy, n)[0] for n in (1, 2)}
        engine.bind(tensors[1], 0).close()
        engine.bind(tensors[1], 0)
        assert [shapes["image"][0] for shapes in made] == [1]  # at load, and kept
        first, second = (engine.bind(tensors[2], 0) for _ in range(2))
        first.close()
        assert engine.bind(tensors[2], 0)
        assert [shapes["image"][0] for shapes in made] == [1, 2]
        second.close()
        del first, second
        engine.bind(tensors[2], 0)
        assert [shapes["image"][0] for shapes in made] == [1, 2, 2]
        engine.close()
        engine.close()


def counted(monkeypatch) -> list:
    """The shapes for which a network is compiled from now on."""
    made, honest = [], backend.compile_network

    def compile_network(model, shapes, **options):
        made.append(shapes)
        return honest(model, shapes, **options)

    monkeypatch.setattr(backend, "compile_network", compile_network)
    return made


def load_engine(toy):
    return OpenVinoBackend().load(toy.spec, toy.plan, toy.files, 1).engines["all"]


def tensors_for(toy, batch: int) -> tuple[dict[str, Tensor], dict[str, HostBuffer]]:
    shapes = {"image": (batch, 3, 64, 64), "logits": (batch, toy.spec.num_classes)}
    buffers = {name: HostBuffer(4 * int(np.prod(shape))) for name, shape in shapes.items()}
    tensors = {name: Tensor(buffer=buffers[name], shape=shape) for name, shape in shapes.items()}
    return tensors, buffers


class TestMemory:
    def where(self, binding: OpenVinoBinding) -> dict[str, int]:
        """Where OpenVINO reads and writes."""
        tensors = {name: binding._request.get_tensor(name) for name in ("image", "logits")}
        return {name: tensor.data.ctypes.data for name, tensor in tensors.items()}

    def test_it_reads_and_writes_the_memory_of_the_runtime(self, toy):
        tensors, buffers = tensors_for(toy, 2)
        addresses = {name: buffer.address for name, buffer in buffers.items()}
        binding = load_engine(toy).bind(tensors, 0)
        assert self.where(binding) == addresses
        x = images(toy.spec, 2, size=(64, 64))
        view(buffers["image"], x.shape)[:] = x
        binding.run()
        expected = reference(toy.spec, x)
        logits = view(buffers["logits"], expected.shape)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
        assert self.where(binding) == addresses

        moved, there = images(toy.spec, 2, seed=1, size=(64, 64)), np.full_like(logits, np.nan)
        logits[:] = np.nan
        binding.set_address("image", moved.ctypes.data)
        binding.set_address("logits", there.ctypes.data)
        binding.run()
        assert self.where(binding) == {
            "image": moved.ctypes.data,
            "logits": there.ctypes.data,
        }
        np.testing.assert_allclose(there, reference(toy.spec, moved), rtol=1e-5, atol=1e-6)
        assert np.isnan(logits).all()
        binding.close()
        binding.close()

    def test_a_run_allocates_nothing_of_the_size_of_a_tensor(self, toy):
        tensors, buffers = tensors_for(toy, 2)
        binding = load_engine(toy).bind(tensors, 0)
        view(buffers["image"], (2, 3, 64, 64))[:] = 0
        binding.run()
        assert buffers["logits"].nbytes > SMALL_BYTES
        assert peak_bytes(binding.run) < SMALL_BYTES

    def test_the_gil_is_released_in_a_run(self, toy):
        tensors, buffers = tensors_for(toy, 4)
        binding = load_engine(toy).bind(tensors, 0)
        view(buffers["image"], (4, 3, 64, 64))[:] = 0
        steps, stop = [0], threading.Event()

        def count() -> None:
            while not stop.is_set():
                steps[0] += 1
                time.sleep(0)  # gives the GIL up; nothing else makes this thread do so

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # from here on, a thread has the GIL until it lets go of it
        try:
            counter = threading.Thread(target=count)
            counter.start()
            before, end = steps[0], time.monotonic() + 30
            while steps[0] == before and time.monotonic() < end:
                binding.run()
            assert steps[0] > before
        finally:
            stop.set()
            sys.setswitchinterval(interval)
        counter.join()


def view(buffer: HostBuffer, shape: tuple[int, ...]) -> np.ndarray:
    flat = buffer._memory[buffer._offset : buffer._offset + buffer.nbytes]
    return flat.view(np.float32).reshape(shape)


def test_concurrent_calls_equal_sequential_ones(toy):
    batches = [images(toy.spec, 1 + i % 4, seed=i, size=(64, 64)) for i in range(16)]
    with (
        Runtime.from_plan(toy.spec, toy.plan, toy.files, slots=3) as runtime,
        ThreadPoolExecutor(6) as pool,
    ):
        for x, logits in zip(batches, pool.map(runtime, batches), strict=True):
            np.testing.assert_allclose(logits, reference(toy.spec, x), rtol=1e-5, atol=1e-6)


class TestLoading:
    spec = SPECS[2]

    def load(self, plan, files):
        return OpenVinoBackend().load(self.spec, plan, files)

    def test_only_one_device(self):
        plan = openvino_plan(streams(self.spec, (0, 1)), fixed_size(self.spec))
        with pytest.raises(DeviceUnavailableError, match=r"got devices \(0, 1\), expected 0"):
            self.load(plan, {})

    def test_the_file_gives_back_what_was_written(self, tmp_path):
        path = tmp_path / "all.openvino"
        write_network(path, xml=b"<net/>", weights=b"\x00\x01\xff")
        xml, weights = unpack_network(path.read_bytes())
        assert (xml, weights.tobytes()) == ("<net/>", b"\x00\x01\xff")

    @pytest.mark.parametrize(
        "weights", [np.zeros(3, np.float32), np.zeros((3, 1), np.uint8)], ids=["floats", "two axes"]
    )
    def test_weights_that_are_no_bytes(self, weights):
        file = io.BytesIO()
        np.savez(file, xml=np.zeros(3, np.uint8), weights=weights)
        with pytest.raises(ValueError, match=r"expected uint8 \(N,\)"):
            unpack_network(file.getvalue())

    @pytest.mark.parametrize("content", [None, b"", b"not a model", b"PK\x03\x04" * 100])
    def test_a_file_that_is_no_engine(self, tmp_path, content):
        plan = openvino_plan(one(self.spec), fixed_size(self.spec))
        path = tmp_path / "all.openvino"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EngineLoadError, match=r"all.openvino: OpenVINO cannot load it: .+"):
            self.load(plan, {"all": path})

    @pytest.mark.parametrize(
        "arrays",
        [
            {"xml": np.zeros(3, np.uint8)},
            {"xml": np.zeros(3, np.uint8), "weights": np.zeros(3, np.float32)},
            {"xml": np.array([object()]), "weights": np.zeros(3, np.uint8)},
            {"xml": np.full(3, 255, np.uint8), "weights": np.zeros(3, np.uint8)},
            {"xml": np.frombuffer(b"<net>", np.uint8), "weights": np.zeros(3, np.uint8)},
        ],
        ids=["one array", "floats", "objects", "no text", "no network"],
    )
    def test_a_file_with_other_arrays(self, tmp_path, arrays):
        file = io.BytesIO()
        np.savez(file, **arrays)
        plan = openvino_plan(one(self.spec), fixed_size(self.spec))
        path = tmp_path / "all.openvino"
        path.write_bytes(file.getvalue())
        with pytest.raises(EngineLoadError, match=r"all.openvino: OpenVINO cannot load it: .+"):
            self.load(plan, {"all": path})

    def test_weights_that_are_cut_off(self, tmp_path):
        plan = openvino_plan(one(self.spec), fixed_size(self.spec))
        path = write_openvino(self.spec, plan, tmp_path)["all"]
        xml, weights = unpack_network(path.read_bytes())
        write_network(path, xml=xml.encode(), weights=weights[:-8].tobytes())
        with pytest.raises(EngineLoadError, match=r"all.openvino: OpenVINO cannot load it: .+"):
            self.load(plan, {"all": path})

    def test_the_engine_of_another_segment(self, tmp_path):
        plan = openvino_plan(streams(self.spec), fixed_size(self.spec))
        files = write_openvino(self.spec, plan, tmp_path)
        with pytest.raises(EngineLoadError, match=r"segment stem0: got \['d0', 'y1'\]"):
            self.load(plan, {**files, "stem0": files["head"]})

    def test_an_engine_that_writes_something_else(self, tmp_path):
        plan = openvino_plan(one(self.spec), fixed_size(self.spec))
        model = onnx_segment(self.spec, plan.placement.segments[0], plan.input_size)
        model.graph.node[-1].output[0] = model.graph.output[0].name = "answers"
        path = write_model(model, tmp_path / "all.openvino")
        with pytest.raises(EngineLoadError, match=r"got \['image'\] -> \['answers'\], expected"):
            self.load(plan, {"all": path})

    def test_the_engine_of_another_size(self, tmp_path):
        plan = openvino_plan(one(self.spec), fixed_size(self.spec, 2))
        files = write_openvino(self.spec, plan, tmp_path)
        with pytest.raises(
            EngineLoadError, match=r"tensor image: got f32 .*32,32.*, expected f32 .*16, 16"
        ):
            self.load(openvino_plan(one(self.spec), fixed_size(self.spec)), files)

    def test_the_engine_of_one_batch(self, tmp_path):
        plan = openvino_plan(one(self.spec), fixed_size(self.spec), max_batch=2)
        model = onnx_segment(self.spec, plan.placement.segments[0], plan.input_size)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        path = write_model(model, tmp_path / "all.openvino")
        with pytest.raises(EngineLoadError, match=r"got f32 \[1,3,16,16\], expected"):
            self.load(plan, {"all": path})


class TestErrors:
    class Compiled:
        """Its requests fail as told."""

        def __init__(self, error: Exception) -> None:
            self.error = error

        def create_infer_request(self):
            return self

        def infer(self, **options: object) -> None:
            raise self.error

    @pytest.mark.parametrize("row", ERRORS, ids=lambda row: row[0].__name__)
    def test_every_row_of_the_table(self, row):
        theirs, loading, running = row
        error = theirs("Exception from src/core.cpp:1:\nfirst line\n second line")
        binding = OpenVinoBinding(self.Compiled(error), "stem0", {})
        with pytest.raises(running, match=r"segment stem0: OpenVINO: .*first line.*") as caught:
            binding.run()
        assert isinstance(caught.value.__cause__, theirs)
        assert isinstance(load_error(error, "engine"), loading)

    def test_out_of_memory_is_its_own_error(self):
        error = RuntimeError("Exception from src/core.cpp:1:\nstd::bad_alloc")
        assert type(load_error(error, "engine")) is OutOfMemoryError
        with pytest.raises(OutOfMemoryError):
            OpenVinoBinding(self.Compiled(error), "stem0", {}).run()
        with pytest.raises(ExecutionError):
            OpenVinoBinding(self.Compiled(RuntimeError("x")), "stem0", {}).run()

    def test_a_reason_is_one_line(self):
        text = "Exception from src/a.cpp:1:\nException from src/b.cpp:2:\nno such\n\nlayer"
        assert reason(RuntimeError(text)) == "no such layer"
        assert reason(RuntimeError()) == "RuntimeError"
        assert len(reason(RuntimeError("x" * 10_000))) < 1000


SILENT = """
import socket, sys

def refuse(*arguments):
    raise SystemExit("it wants to talk")

socket.socket.connect = socket.getaddrinfo = refuse
from pathlib import Path
from parnet_deploy.builder.convert.to_openvino import convert
from parnet_deploy.runtime.openvino.library import ov
from parnet_deploy.runtime.openvino.network import compile_network, read_network

folder = Path(sys.argv[1])
convert(folder / "all.onnx", folder / "again.openvino", precision="fp32")
network = read_network(folder / "again.openvino")
compiled = compile_network(network, {"image": (1, 3, 64, 64)}, precision="fp32", threads=1)
compiled.create_infer_request().infer()
assert "openvino_telemetry" not in sys.modules
import openvino_telemetry
"""


def test_nothing_is_sent_or_written(toy, tmp_path):
    """Without our import, OpenVINO leaves a client id in ~/intel and talks to a server."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):  # it is silent there
        environment.pop(name, None)
    folder = Path(toy.files["all"]).parent
    command = [sys.executable, "-c", SILENT, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []
