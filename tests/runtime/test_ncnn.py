"""ncnn engines: right answers in our buffers, slots at once, errors that are ours, no crash."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

pytest.importorskip("ncnn")

from parnet_deploy.builder.convert.to_ncnn import convert
from parnet_deploy.errors import EngineLoadError, ExecutionError, OutOfMemoryError
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import Segment, one, streams
from parnet_deploy.runtime import ncnn as backend
from parnet_deploy.runtime.device import Tensor
from parnet_deploy.runtime.host import HostDevice
from parnet_deploy.runtime.ncnn import NcnnBackend, NcnnBinding, open_net
from parnet_deploy.runtime.ncnn_file import NcnnLayer, NcnnModel, pack_model, unpack_model
from parnet_deploy.runtime.session import Runtime
from tests.builder.convert.ncnn_toys import engine_bytes, graph_of, run_engine
from tests.runtime.runtime_toys import (
    PLACEMENTS,
    SPECS,
    fixed_size,
    images,
    make_plan,
    reference,
    write_engines,
)


def normal(*shape: int, seed: int = 0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def conv_engine(channels: int = 4) -> bytes:
    nodes = [
        helper.make_node("Conv", "xwb", "c", pads=[1, 1, 1, 1]),
        helper.make_node("Mul", "cs", "y"),
    ]
    constants = {
        "w": normal(channels, channels, 3, 3),
        "b": normal(channels),
        "s": normal(channels, 1, 1),
    }
    return engine_bytes(graph_of(nodes, {"x": [channels, "h", "w"]}, {"y": 4}, constants))


def ncnn_engines(spec, plan, folder):
    """The engine file of every segment; returns where they are."""
    files = {}
    for name, graph in write_engines(spec, plan, folder).items():
        files[name] = folder / f"{name}.ncnn"
        convert(graph, files[name], precision="fp32")
    return files


@pytest.mark.parametrize("streams_", SPECS)
@pytest.mark.parametrize("name", ["one", "streams on one device", "recomputed on one device"])
def test_placements_equal_the_sequential_network(tmp_path, streams_, name) -> None:
    spec = SPECS[streams_]
    plan = make_plan(PLACEMENTS[name](spec), fixed_size(spec), max_batch=3, backend="ncnn")
    files = ncnn_engines(spec, plan, tmp_path)
    with Runtime.from_plan(spec, plan, files) as runtime:
        for index in range(6):
            x = images(spec, 1 + index % 3, seed=index)
            np.testing.assert_allclose(runtime(x), reference(spec, x), rtol=1e-5, atol=1e-5)


def test_sizes_of_a_range(tmp_path) -> None:
    spec = SPECS[2]
    size = InputSize(low=(16, 16), high=(48, 48))
    plan = make_plan(streams(spec), size, max_batch=2, backend="ncnn")
    with Runtime.from_plan(spec, plan, ncnn_engines(spec, plan, tmp_path)) as runtime:
        for side in ((16, 16), (48, 16), (32, 48), (16, 16)):
            x = images(spec, 2, size=side)
            np.testing.assert_allclose(runtime(x), reference(spec, x), rtol=1e-5, atol=1e-5)


def test_slots_at_once_give_what_they_give_alone() -> None:
    data = conv_engine(12)
    inputs = [normal(2, 12, 20, 20, seed=seed) for seed in range(4)]
    shapes = {"y": (2, 12, 20, 20)}
    alone = [run_engine(data, {"x": x}, shapes)["y"] for x in inputs]
    segment = Segment(name="toy", parts=("toy",), inputs=("x",), outputs=("y",))
    engine = backend.NcnnEngine(segment, open_net(unpack_model(data, "toy"), "toy", threads=1))
    device = HostDevice()

    def again(slot: int) -> None:
        memory = device.allocate(inputs[slot].nbytes), device.allocate(inputs[slot].nbytes)
        tensors = {
            name: Tensor(buffer=buffer, shape=inputs[slot].shape)
            for name, buffer in zip("xy", memory, strict=True)
        }
        binding = engine.bind(tensors, slot)
        binding._arrays["x"][:] = inputs[slot]
        barrier.wait(60)
        for _ in range(30):
            binding._arrays["y"][:] = np.nan
            binding.run()
            np.testing.assert_array_equal(binding._arrays["y"], alone[slot])
        binding.close()

    barrier = threading.Barrier(len(inputs))
    with ThreadPoolExecutor(len(inputs)) as pool:
        list(pool.map(again, range(len(inputs))))


def test_the_gil_is_free_while_it_computes() -> None:
    """Another thread that waits for the GIL, and is not given it otherwise, gets it in a run."""
    net = open_net(unpack_model(conv_engine(32), "toy"), "toy", threads=1)
    x = normal(32, 64, 64)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        assert any(_ran_meanwhile(net, x) for _ in range(200))
    finally:
        sys.setswitchinterval(before)


def _ran_meanwhile(net, x) -> bool:
    seen: list[bool] = []
    gate = threading.Lock()
    gate.acquire()

    def other() -> None:
        with gate:
            seen.append(True)

    thread = threading.Thread(target=other)
    thread.start()
    extractor = net.create_extractor()
    extractor.input("x", backend.ncnn.Mat(x))
    gate.release()
    status, _ = extractor.extract("y")
    meanwhile = bool(seen)
    thread.join()
    assert status == 0
    return meanwhile


class TestLoading:
    spec = SPECS[2]

    def plan(self, times: int = 1, placement=one):
        return make_plan(placement(self.spec), fixed_size(self.spec, times), backend="ncnn")

    def load(self, plan, files):
        return NcnnBackend().load(self.spec, plan, files)

    def test_closed_twice(self, tmp_path) -> None:
        plan = self.plan(placement=streams)
        loaded = self.load(plan, ncnn_engines(self.spec, plan, tmp_path))
        assert loaded.facts["ncnn"] == backend.ncnn.__version__
        loaded.close()
        loaded.close()

    def test_a_file_that_is_not_there(self, tmp_path) -> None:
        with pytest.raises(EngineLoadError, match="cannot be read"):
            self.load(self.plan(), {"all": tmp_path / "all.ncnn"})

    @pytest.mark.parametrize("content", [b"", b"no engine", b"PK\x05\x06" + bytes(18)])
    def test_a_file_that_is_no_engine(self, tmp_path, content) -> None:
        (tmp_path / "all.ncnn").write_bytes(content)
        with pytest.raises(EngineLoadError, match="not an ncnn engine of this toolkit"):
            self.load(self.plan(), {"all": tmp_path / "all.ncnn"})

    def test_the_engine_of_another_segment(self, tmp_path) -> None:
        plan = self.plan(placement=streams)
        files = ncnn_engines(self.spec, plan, tmp_path)
        with pytest.raises(EngineLoadError, match=r"segment stem0: got \['d0', 'y1'\]"):
            self.load(plan, {**files, "stem0": files["head"]})

    def test_the_engine_of_another_size(self, tmp_path) -> None:
        files = ncnn_engines(self.spec, self.plan(2), tmp_path)
        with pytest.raises(EngineLoadError, match=r"got \[3, 32, 32\], expected \[3, 16, 16\]"):
            self.load(self.plan(), files)

    def test_threads_and_float32(self) -> None:
        net = open_net(unpack_model(conv_engine(), "toy"), "toy", threads=3)
        assert net.opt.num_threads == 3
        assert not any(getattr(net.opt, name) for name in backend._OFF)


class TestDamage:
    data = conv_engine()
    model = unpack_model(data, "toy")

    @settings(deadline=None)
    @given(st.data())
    def test_a_changed_byte_or_a_cut_is_refused_or_changes_nothing(self, draw) -> None:
        changed = bytearray(self.data)
        at = draw.draw(st.integers(0, len(changed) - 1))
        if draw.draw(st.booleans()):
            changed[at] ^= draw.draw(st.integers(1, 255))
        else:
            del changed[at:]
        try:
            found = unpack_model(bytes(changed), "toy")
        except EngineLoadError:
            return
        assert found == self.model

    def test_every_header_byte(self) -> None:
        """Whatever is changed in the archive's own fields, what is read is what was written."""
        refused = 0
        for at in range(len(self.data)):
            changed = bytearray(self.data)
            changed[at] ^= 0xFF
            try:
                assert unpack_model(bytes(changed), "toy") == self.model
            except EngineLoadError:
                refused += 1
        assert refused > len(self.data) // 2

    def test_a_header_that_says_less(self) -> None:
        """NumPy alone would read a text without its last parameter, and not compare the sum."""
        length = len(self.model.text())
        old, new = (f"'shape': ({n},)".encode() for n in (length, length - 4))
        assert self.data.count(old) == 1
        assert len(old) == len(new)
        with pytest.raises(EngineLoadError, match=r"param\.npy is damaged"):
            unpack_model(self.data.replace(old, new), "toy")

    def edited(self, old: str, new: str) -> bytes:
        """An archive without damage, of a text that is wrong."""
        text = self.model.text()
        assert old in text
        arrays = {"param": text.replace(old, new, 1).encode(), "bin": self.model.weights}
        packed = io.BytesIO()
        np.savez(packed, **{key: np.frombuffer(v, np.uint8) for key, v in arrays.items()})
        return packed.getvalue()

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("7767517", "7767518"),
            ("4 4\n", "4 5\n"),
            ("4 4\n", "999999999 999999999\n"),
            ("6=144", "6=148"),
            ("6=144", "6=999999999"),
            ("6=144", "6=-144"),
            ("0=4 1=3", "0=0 1=3"),
            ("0=4 1=3", "0=5 1=3"),
            ("0=4 1=3", "0=x 1=3"),
            (" 5=1", " 5=2"),
            ("MemoryData s 0 1 s 0=4", "MemoryData s 0 1 s 0=-4"),
            ("MemoryData s 0 1 s", "MemoryData s 0 2 s"),
            ("Convolution c 1 1 x c", "Convolution c 1 1 q c"),
            ("Convolution c", "Reshape c"),
            ("BinaryOp y 2 1 c s y", "BinaryOp y 2 1 c c y"),
            ("BinaryOp y 2 1 c s y", "BinaryOp y 2 1 c s c"),
            ("BinaryOp", "\u00e9"),
        ],
    )
    def test_a_text_that_is_wrong(self, old, new) -> None:
        with pytest.raises(
            EngineLoadError, match=r"toy: not an ncnn engine .+ parnet-deploy build"
        ):
            unpack_model(self.edited(old, new), "toy")

    def test_weights_that_are_cut(self) -> None:
        cut = NcnnModel(layers=self.model.layers, weights=self.model.weights[:-4])
        with pytest.raises(EngineLoadError, match="bytes of weights, expected"):
            unpack_model(pack_model(cut), "toy")

    def test_ncnn_itself_is_asked_whether_it_took_it(self) -> None:
        """Past our own checks: ncnn's status is not overlooked."""
        cut = NcnnModel(layers=self.model.layers, weights=self.model.weights[:-4])
        with pytest.raises(EngineLoadError, match="ncnn cannot load it: it returned"):
            open_net(cut, "toy", threads=1)
        unknown = NcnnLayer(kind="Nothing", name="n", inputs=(), outputs=("n",))
        with pytest.raises(EngineLoadError, match="ncnn cannot load it: it returned"):
            open_net(NcnnModel(layers=(unknown,), weights=b""), "toy", threads=1)


class TestErrors:
    class Net:
        """Returns what it is told, in the place of a network."""

        def __init__(self, took: int = 0, status: int = 0, found=None) -> None:
            self.took, self.status, self.found = took, status, found

        def create_extractor(self):
            return self

        def input(self, name, mat) -> int:
            return self.took

        def extract(self, name):
            return self.status, self.found

    def run(self, net) -> None:
        segment = Segment(name="stem0", parts=("stem0",), inputs=("x",), outputs=("y",))
        buffer = HostDevice().allocate(64)
        tensor = Tensor(buffer=buffer, shape=(1, 1, 4, 4))
        NcnnBinding(net, segment, {"x": tensor, "y": tensor}, ()).run()

    @pytest.mark.parametrize("where", ["took", "status"])
    @pytest.mark.parametrize(("status", "ours"), [(-1, ExecutionError), (-100, OutOfMemoryError)])
    def test_a_status(self, where, status, ours) -> None:
        with pytest.raises(ours, match="segment stem0: ncnn "):
            self.run(self.Net(**{where: status}))

    def test_an_output_of_another_size(self) -> None:
        with pytest.raises(
            ExecutionError, match=r"tensor y: got shape \(15,\) from ncnn, expected"
        ):
            self.run(self.Net(found=np.zeros(15, np.float32)))


def test_importing_it_prints_and_writes_nothing(tmp_path) -> None:
    """And it imports none of the package's parts that fetch models from the network."""
    program = (
        "import sys, parnet_deploy.runtime.ncnn\n"
        "sys.exit(bool({'requests', 'ncnn.model_zoo', 'ncnn.utils', 'onnx'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, cwd=tmp_path, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert not list(tmp_path.iterdir())
