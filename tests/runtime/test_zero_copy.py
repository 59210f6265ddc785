"""The contract of docs/embedding.md, by address and by allocation: what is copied and allocated."""

from __future__ import annotations

import mmap

import numpy as np
import onnxruntime as ort
import pytest
import torch

from parnet_deploy import Runtime
from parnet_deploy.errors import InputError
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime.host import HostBuffer
from parnet_deploy.spec import ModelSpec
from tests.runtime.host_toys import host_runtime
from tests.runtime.memory import SMALL_BYTES, peak_bytes
from tests.runtime.runtime_toys import (
    fixed_size,
    images,
    make_plan,
    reference,
    write_engines,
)

SPEC = ModelSpec(planes=(2, 4, 6), num_blocks=(2, 2, 1), num_classes=4000)
SIZE = fixed_size(SPEC, 4)  # 64x64: one image has 48 KiB, its logits have 16 KiB
BATCHES = (1, 4)


def batch(n: int = 4, seed: int = 0) -> np.ndarray:
    return images(SPEC, n, seed, SIZE.low)


class Foreign:
    """An array of another library, by DLPack alone."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)


WAYS_IN = {
    "numpy": lambda x: x,
    "torch": torch.from_numpy,
    "dlpack": Foreign,
}
"""Arrays over the memory of a numpy array."""

OTHER_STRIDES = {
    "fortran": np.asfortranarray,
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "every second": lambda x: np.repeat(x, 2, axis=0)[::2],
    "mirrored": lambda x: x[..., ::-1],
    "unaligned": lambda x: (
        np.frombuffer(b"x" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    ),
    "torch channels last": lambda x: torch.from_numpy(x.copy()).to(
        memory_format=torch.channels_last
    ),
}


class Bound:
    """Where ONNX Runtime was told to find tensors: by name and shape, and which were moved."""

    def __init__(self) -> None:
        self.latest: dict[tuple[str, tuple[int, ...]], int] = {}
        self.moved: set[str] = set()

    @property
    def image(self) -> int:
        """Where the batch of four images is read."""
        return self.latest["image", (4, 3, *SIZE.low)]

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for way in ("bind_input", "bind_output"):
            monkeypatch.setattr(ort.IOBinding, way, self._spy(getattr(ort.IOBinding, way)))

    def _spy(self, real):
        def bind(binding, name, kind, ordinal, dtype, shape, address) -> None:
            self.latest[name, shape] = address
            self.moved.add(name)
            real(binding, name, kind, ordinal, dtype, shape, address)

        return bind


@pytest.fixture(scope="module")
def bound():
    found = Bound()
    with pytest.MonkeyPatch.context() as monkeypatch:
        found.watch(monkeypatch)
        yield found


@pytest.fixture(scope="module", params=[one, streams], ids=["one engine", "an engine per stream"])
def rt(request, tmp_path_factory, bound):
    plan = make_plan(request.param(SPEC), SIZE, max(BATCHES), threads=1)
    files = write_engines(SPEC, plan, tmp_path_factory.mktemp("engines"))
    with Runtime.from_plan(SPEC, plan, files) as runtime:
        yield runtime


def into(rt: Runtime, x: np.ndarray, out: np.ndarray) -> None:
    rt.run_into(x.ctypes.data, out.ctypes.data, n=len(x))


def room(n: int) -> np.ndarray:
    return np.empty((n, SPEC.num_classes), np.float32)


class TestAddresses:
    @pytest.mark.parametrize("way", WAYS_IN)
    @pytest.mark.parametrize("call", ["call", "submit"])
    def test_the_engine_gets_the_address_of_the_callers_array(self, rt, bound, way, call):
        for seed in range(3):
            x = batch(seed=seed)
            given = WAYS_IN[way](x)
            logits = rt(given) if call == "call" else rt.submit(given).result()
            assert bound.image == x.ctypes.data
            np.testing.assert_allclose(logits, reference(SPEC, x), rtol=1e-4, atol=1e-6)

    def test_the_engine_gets_the_address_of_run_into(self, rt, bound):
        for seed in range(3):
            x, out = batch(seed=seed), room(4)
            into(rt, x, out)
            assert bound.image == x.ctypes.data
            np.testing.assert_allclose(out, reference(SPEC, x), rtol=1e-4, atol=1e-6)

    def test_nothing_but_the_image_moves_once_a_batch_was_seen(self, rt, bound):
        rt(batch())
        bound.moved.clear()
        for seed in range(3):
            rt(batch(seed=seed))
        assert bound.moved <= {"image"}

    def test_read_only_memory_is_read_in_place(self, rt, bound, tmp_path):
        """Pages that the kernel lets nobody write to: whoever tried would end the process."""
        x = batch()
        (tmp_path / "x").write_bytes(x.tobytes())
        with (tmp_path / "x").open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        mapped = np.frombuffer(pages, np.float32).reshape(x.shape)
        assert not mapped.flags.writeable
        for run in (rt, lambda x: rt.submit(x).result()):
            expected, logits = run(x), run(mapped)
            assert bound.image == mapped.ctypes.data
            np.testing.assert_array_equal(logits, expected)

    @pytest.mark.parametrize("strides", OTHER_STRIDES)
    def test_other_strides_are_not_read_in_place(self, rt, bound, strides):
        x = OTHER_STRIDES[strides](batch())
        same = np.ascontiguousarray(x)
        logits = rt(x)
        assert bound.image != (x.data_ptr() if torch.is_tensor(x) else x.ctypes.data)
        assert bound.image % 4 == 0
        np.testing.assert_array_equal(logits, rt(same))

    def test_every_answer_is_fresh(self, rt):
        kept = [rt(batch(seed=seed)) for seed in range(8)]
        assert len({logits.ctypes.data for logits in kept}) == 8
        assert all(logits.flags.owndata for logits in kept)


@pytest.mark.parametrize("placement", [one, streams])
def test_the_memory_is_read_when_the_engine_runs_and_not_before(placement):
    """Whatever stands in the caller's memory by then is what is computed: there is no copy."""
    spec = ModelSpec(planes=(2, 4, 6), num_blocks=(2, 2, 1), num_classes=3)
    x, other = images(spec, 2), images(spec, 2, seed=1)

    def change(segment: str) -> None:
        x[...] = other

    with host_runtime(spec, placement(spec), change) as rt:
        np.testing.assert_array_equal(rt(x), reference(spec, other))


class TestAllocations:
    @pytest.fixture(autouse=True)
    def warm(self, rt):
        for n in BATCHES:
            for _ in range(3):
                rt(batch(n))
                rt.submit(batch(n)).result()

    def test_the_measure_sees_an_array(self):
        assert peak_bytes(lambda: np.empty(100_000, np.uint8)) >= 100_000

    @pytest.mark.parametrize("n", BATCHES)
    def test_run_into_allocates_nothing(self, rt, n):
        x, out = batch(n), room(n)
        assert min(x.nbytes, out.nbytes) > SMALL_BYTES
        assert peak_bytes(lambda: into(rt, x, out)) < SMALL_BYTES
        np.testing.assert_allclose(out, reference(SPEC, x), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("n", BATCHES)
    @pytest.mark.parametrize("way", WAYS_IN)
    @pytest.mark.parametrize("call", ["call", "submit"])
    def test_a_call_allocates_its_logits(self, rt, n, way, call):
        given, logits = WAYS_IN[way](batch(n)), room(n).nbytes
        run = rt if call == "call" else lambda x: rt.submit(x).result()
        assert logits <= peak_bytes(lambda: run(given)) < logits + SMALL_BYTES

    @pytest.mark.parametrize("strides", OTHER_STRIDES)
    @pytest.mark.parametrize("call", ["call", "submit"])
    def test_other_strides_are_copied_once(self, rt, strides, call):
        given, needed = OTHER_STRIDES[strides](batch()), batch().nbytes + room(4).nbytes
        run = rt if call == "call" else lambda x: rt.submit(x).result()
        assert needed <= peak_bytes(lambda: run(given)) < needed + SMALL_BYTES

    @pytest.mark.parametrize("dtype", [">f4", "f8", "f2"])
    @pytest.mark.parametrize("call", ["call", "submit"])
    def test_another_dtype_is_refused_and_not_converted(self, rt, dtype, call):
        given = batch().astype(dtype)
        run = rt if call == "call" else rt.submit

        def refused() -> None:
            with pytest.raises(InputError, match="got dtype"):
                run(given)

        assert peak_bytes(refused) < batch().nbytes // 2

    def test_no_call_makes_a_buffer(self, rt, monkeypatch):
        made = []
        monkeypatch.setattr(HostBuffer, "__init__", lambda self, *rest: made.append(rest))
        for n in BATCHES:
            x, out = batch(n), room(n)
            into(rt, x, out)
            rt(x)
            rt.submit(x).result()
        assert made == []

    def test_many_calls_leave_nothing_behind(self, rt):
        x, out = batch(), room(4)

        def often() -> None:
            for _ in range(100):
                into(rt, x, out)

        assert peak_bytes(often) < 2 * SMALL_BYTES
