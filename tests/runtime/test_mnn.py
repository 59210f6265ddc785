"""MNN engines: right answers in our memory, one session for each slot, errors that are ours."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from parnet_deploy.builder.convert.convert import convert_graph
from parnet_deploy.errors import (
    DeviceUnavailableError,
    EngineLoadError,
    ExecutionError,
    OutOfMemoryError,
)
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime.executor import Executor
from tests.runtime.runtime_toys import (
    PLACEMENTS,
    SPECS,
    fixed_size,
    images,
    make_plan,
    onnx_segment,
    reference,
    run,
)

pytest.importorskip("MNN")
from parnet_deploy.runtime import mnn
from parnet_deploy.runtime.mnn import ERROR_CODES, MnnBackend, MnnSession

ROOT = Path(__file__).parents[2]
RANGE = InputSize(low=(16, 16), high=(512, 512))
HANG_S = 120.0


@pytest.fixture(scope="module")
def convert(tmp_path_factory):
    """A plan -> its engine files, each made once."""

    @cache
    def made(streams_: int, name: str, size: InputSize) -> dict[str, Path]:
        spec, folder, files = SPECS[streams_], tmp_path_factory.mktemp("mnn"), {}
        for segment in PLACEMENTS[name](spec).segments:
            path = files[segment.name] = folder / f"{segment.name}.mnn"
            graph = onnx_segment(spec, segment, size).SerializeToString()
            convert_graph(graph, path, backend="mnn", precision="fp32", name=segment.name)
        return files

    return made


def plan_of(streams_: int, name: str = "one", size: InputSize | None = None, max_batch: int = 3):
    spec = SPECS[streams_]
    size = size or fixed_size(spec)
    return make_plan(PLACEMENTS[name](spec), size, max_batch, backend="mnn")


def executor_of(loaded, spec, plan, slots: int = 1) -> Executor:
    return Executor(
        spec=spec,
        placement=plan.placement,
        devices=loaded.devices,
        engines=loaded.engines,
        input_size=plan.input_size,
        max_batch=plan.max_batch,
        slots=slots,
    )


def check(executor: Executor, spec, x) -> None:
    np.testing.assert_allclose(run(executor, spec, x), reference(spec, x), rtol=1e-5, atol=1e-6)


def in_child(script: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, in which the C library holds back what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("streams_", SPECS)
@pytest.mark.parametrize("name", ["one", "streams on one device"])
def test_placements_equal_the_sequential_network(convert, streams_, name):
    spec, plan = SPECS[streams_], plan_of(streams_, name)
    loaded = MnnBackend().load(spec, plan, convert(streams_, name, plan.input_size))
    executor = executor_of(loaded, spec, plan)
    for index in range(6):
        check(executor, spec, images(spec, 1 + index % 3, seed=index))
    executor.close()
    loaded.close()
    loaded.close()


def test_sizes_of_a_range(convert):
    spec, name = SPECS[2], "streams on one device"
    plan = plan_of(2, name, InputSize(low=(16, 16), high=(48, 48)))
    executor = executor_of(MnnBackend().load(spec, plan, convert(2, name, RANGE)), spec, plan)
    for size in ((16, 16), (48, 16), (32, 48), (16, 16)):
        for batch in (1, 2):
            check(executor, spec, images(spec, batch, size=size))
    executor.close()


@pytest.mark.parametrize("name", ["one", "streams on one device"])
def test_slots_at_once_from_many_threads(convert, name):
    """Five threads on three slots, each with shapes of its own: every answer is its own."""
    spec, plan = SPECS[2], plan_of(2, name, InputSize(low=(16, 16), high=(64, 64)))
    loaded = MnnBackend().load(spec, plan, convert(2, name, RANGE), threads=2)
    executor = executor_of(loaded, spec, plan, slots=3)
    start = threading.Barrier(5)

    def call(index: int) -> None:
        start.wait(HANG_S)
        for turn in range(12):
            side = 16 * (1 + (index + turn) % 4)
            check(executor, spec, images(spec, 1 + turn % 3, seed=index, size=(side, 64)))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(call, range(5), timeout=HANG_S))
    executor.close()
    loaded.close()


def test_the_gil_is_released_while_mnn_computes(convert, monkeypatch):
    """Python hands the GIL over only where it is let go: so who runs here sees it let go there."""
    spec, plan = SPECS[2], plan_of(2, "one", RANGE)
    executor = executor_of(MnnBackend().load(spec, plan, convert(2, "one", RANGE)), spec, plan)
    x, inside, stage = images(spec, 3, size=(512, 512)), threading.Event(), []
    run(executor, spec, x)
    compute = MnnSession.run

    def noted(session) -> None:
        inside.set()
        compute(session)
        stage.append("out")

    monkeypatch.setattr(MnnSession, "run", noted)
    interval = sys.getswitchinterval()
    thread = threading.Thread(target=run, args=(executor, spec, x))
    try:
        sys.setswitchinterval(HANG_S)
        thread.start()
        inside.wait()
        before = list(stage)
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert (before, stage) == ([], ["out"])
    executor.close()


def test_a_slot_has_one_session_and_resizes_it_only_for_another_shape(convert, monkeypatch):
    spec, plan = SPECS[2], plan_of(2)
    loaded = MnnBackend().load(spec, plan, convert(2, "one", plan.input_size))
    engine = loaded.engines["all"]
    assert engine.session(0) is engine.session(0) is not engine.session(1)
    sized = []
    monkeypatch.setattr(MnnSession, "_address", lambda self, name, shape: sized.append(shape))
    session = engine.session(1)
    for batch in (1, 1, 2, 2, 1):
        session.resize({"image": (batch, 3, 16, 16)})
    assert [shape[0] for shape in sized] == [1, 2, 1]


def test_a_binding_reads_and_writes_only_its_own_memory(convert):
    """The image may lie elsewhere in each call; what stands beside the logits stays."""
    spec, plan = SPECS[2], plan_of(2)
    loaded = MnnBackend().load(spec, plan, convert(2, "one", plan.input_size))
    executor = executor_of(loaded, spec, plan)
    around = np.full((3, spec.num_classes), 7, np.float32)
    for seed in range(3):
        x = images(spec, seed=seed)
        executor.run(x.ctypes.data, around[1:].ctypes.data, (1, *x.shape[2:]))
        np.testing.assert_allclose(around[1:2], reference(spec, x), rtol=1e-5, atol=1e-6)
        assert (around[[0, 2]] == 7).all()
    executor.close()


def test_a_closed_binding_says_so(convert):
    spec, plan = SPECS[2], plan_of(2)
    engine = MnnBackend().load(spec, plan, convert(2, "one", plan.input_size)).engines["all"]
    binding = mnn.MnnBinding(engine.session(0), plan.placement.segments[0], {})
    binding.close()
    binding.close()
    with pytest.raises(ExecutionError, match="segment all: its binding is closed"):
        binding.run()


def test_standard_output_stays_clean(convert):
    """MNN prints when it is imported and when a file is damaged, through the C library's buffer."""
    plan = plan_of(2)
    path = convert(2, "one", plan.input_size)["all"]
    script = f"""
import sys
from pathlib import Path
from parnet_deploy.errors import EngineLoadError
from parnet_deploy.runtime.mnn import MnnBackend, open_interpreter
from tests.runtime.runtime_toys import *
spec = SPECS[2]
plan = make_plan(PLACEMENTS["one"](spec), fixed_size(spec), 3, backend="mnn")
loaded = MnnBackend().load(spec, plan, {{"all": Path({str(path)!r})}})
try:
    open_interpreter(Path({__file__!r}))
except EngineLoadError:
    loaded.close()
    assert not {{"MNN.tools", "requests", "_tools"}} & set(sys.modules)
    print("ours")
"""
    done = in_child(script)
    assert (done.returncode, done.stdout) == (0, "ours\n"), done.stderr
    assert "device supports" not in done.stderr


def test_the_pool_is_as_large_as_the_cores_of_the_plan(convert):
    """MNN makes it for the first session that wants threads, and never lets it grow."""
    path = convert(2, "one", fixed_size(SPECS[2]))["all"]
    done = in_child(f"""
import os
def threads(): return len(os.listdir("/proc/self/task"))
from parnet_deploy.runtime.mnn import MnnBackend
from tests.runtime.runtime_toys import *
spec = SPECS[2]
plan = make_plan(PLACEMENTS["one"](spec), fixed_size(spec), backend="mnn")
before, backend = threads(), MnnBackend()
backend.prepare(plan, 4)
engine = backend.open_engine(Path({str(path)!r}), plan.placement.segments[0], spec, plan, 2)
print(threads() - before)
""")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


class TestLoading:
    spec = SPECS[2]

    def load(self, files, plan=None):
        return MnnBackend().load(self.spec, plan or plan_of(2), files)

    def test_only_one_device(self):
        plan = make_plan(streams(self.spec, (0, 1)), fixed_size(self.spec), backend="mnn")
        with pytest.raises(DeviceUnavailableError, match=r"got devices \(0, 1\), expected 0"):
            self.load({}, plan)

    @pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x08\x07" * 500])
    def test_a_file_that_is_no_engine(self, tmp_path, content):
        path = tmp_path / "all.mnn"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EngineLoadError, match=r"all\.mnn: .+ Run: parnet"):
            self.load({"all": path})

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_a_file_that_was_cut(self, tmp_path, convert, share):
        data = convert(2, "one", fixed_size(self.spec))["all"].read_bytes()
        (tmp_path / "all.mnn").write_bytes(data[: int(share * len(data))])
        with pytest.raises(EngineLoadError, match="MNN cannot load it"):
            self.load({"all": tmp_path / "all.mnn"})

    def test_a_graph_of_another_library(self, tmp_path):
        graph = onnx_segment(self.spec, one(self.spec).segments[0], fixed_size(self.spec))
        (tmp_path / "all.mnn").write_bytes(graph.SerializeToString())
        with pytest.raises(EngineLoadError, match="MNN cannot load it"):
            self.load({"all": tmp_path / "all.mnn"})

    def test_the_engine_of_another_segment(self, convert):
        name, size = "streams on one device", fixed_size(self.spec)
        files = convert(2, name, size)
        with pytest.raises(EngineLoadError, match=r"segment stem0: got \['d0', 'y1'\]"):
            self.load({**files, "stem0": files["head"]}, plan_of(2, name))

    def test_the_engine_of_another_network(self, convert):
        files = convert(3, "one", fixed_size(SPECS[3]))
        with pytest.raises(
            EngineLoadError, match=r"engine of segment all, tensor logits: got float32 \(1, 4\), "
        ):
            self.load(files)

    def test_threads_and_version_are_named(self, convert):
        plan = plan_of(3, "streams on one device")
        files = convert(3, "streams on one device", plan.input_size)
        loaded = MnnBackend().load(SPECS[3], plan, files, threads=6)
        assert loaded.facts["mnn"]
        assert (loaded.facts["threads"]["head"], loaded.facts["threads"]["stream0"]) == (6, 2)
        loaded.close()

    def test_the_library_opens_the_bytes_that_were_checked(self):
        with mnn.anonymous_file(b"checked") as path:
            assert Path(path).read_bytes() == b"checked"


class TestErrors:
    """A stand-in for the interpreter, which fails as told."""

    segment = one(SPECS[2]).segments[0]

    def session(self, code: int = 0, view=None) -> MnnSession:
        tensor = SimpleNamespace(getNumpyData=lambda: view)
        return MnnSession(
            SimpleNamespace(
                createSession=lambda config: object(),
                getSessionInputAll=lambda session: {"image": tensor},
                getSessionOutputAll=lambda session: {"logits": tensor},
                getSessionInput=lambda session, name: tensor,
                getSessionOutput=lambda session, name: tensor,
                resizeTensor=lambda tensor, shape: None,
                resizeSession=lambda session: True,
                runSession=lambda session: code,
            ),
            self.segment,
            1,
        )

    @pytest.mark.parametrize("code", [*ERROR_CODES, 99])
    def test_every_code(self, code):
        ours = OutOfMemoryError if code == 1 else ExecutionError
        with pytest.raises(ours, match=f"segment all: MNN: error {code}, "):
            self.session(code).run()

    def test_no_code(self):
        self.session(0).run()

    def test_no_memory_after_a_resize(self):
        """NumPy then allocates what it shows, for there is nothing to look at."""
        with pytest.raises(OutOfMemoryError, match=r"MNN has no memory for image \(1, 3, 16, 16\)"):
            self.session(view=np.zeros((1, 3, 16, 16), np.float32)).resize(
                {"image": (1, 3, 16, 16)}
            )

    @pytest.mark.parametrize(
        ("shape", "dtype"), [((1, 4), np.float32), ((1, 3, 1), np.float32), ((1, 3), np.int32)]
    )
    def test_another_shape_or_dtype(self, shape, dtype):
        view = np.zeros(12, dtype)[: np.prod(shape)].reshape(shape)
        with pytest.raises(ExecutionError, match=r"tensor logits: got .+, expected float32 \(1, 3"):
            self.session(view=view).resize({"logits": (1, 3), "image": (1, 3)})
