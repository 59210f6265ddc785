"""A stand-in for NVIDIA's driver: our own small ``libcuda.so.1``, for tests without a GPU.

Put tests that need it into ``tests/runtime_gpu/`` and take the fixture ``cuda``, a ``CudaStub`` on
a fresh machine of two devices. The folder runs in processes of its own (tests/test_cuda_stub.py
starts them): a process that loaded the stand-in never sees a real driver again. By hand:
``pytest tests/runtime_gpu/test_cuda_device.py``.

What it does:

- Device memory is host memory, filled with NaN when it is allocated and when it is freed.
- Streams are queues. Nothing runs before somebody synchronises or queries; then operations run one
  at a time, chosen by a seeded random number among the streams that can go on, some streams far
  ahead of others. So order that is left to chance gives NaN or old values for some seed.
- Kernels are Python functions (``launch``). They run in the thread that synchronises, must not call
  CUDA, and say which memory they touch: memory that was freed, or is of a device without peer
  access, loses the device (700), as on a GPU. A kernel that raises loses it too (719), and
  ``errors`` holds what it raised.
- Capture (thread-local, fork and join) makes graphs; a launch runs the nodes one by one in a random
  order that their edges allow, mixed with other streams.
- It is strict: a wrong or no current context, stale handles, handles of another context, unjoined
  forks, waits across the border of a capture, allocation or synchronisation while capturing give
  the error that CUDA documents. Where CUDA leaves something undefined it refuses.

It says nothing about time: event timing counts operations, one for a microsecond.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

FOLDER = Path(__file__).parent
LIVE = ("contexts", "streams", "events", "graphs", "execs", "device_memory", "host_memory")
"""What ``CudaStub.live`` counts, beside ``retained``: how often primary contexts are retained."""

Kernel = Callable[[], object]
_KERNEL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_LAUNCH_FAILED = 719


class CudaStubError(RuntimeError):
    """The stand-in refused an extra of its own; ``code`` is the CUresult."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what}: CUDA error {code}")
        self.code = code


def missing_compiler() -> str | None:
    """What is needed to build the stand-in and is not here; None if nothing."""
    return None if find_compiler() else "a C compiler (cc)"


def find_compiler() -> str | None:
    """The C compiler: ``$CC``, else cc, gcc or clang."""
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def build_stub(folder: Path | None = None) -> Path:
    """Compile the stand-in, once for each content of its sources, and say where it is.

    Args:
        folder: Where builds are kept; None: a private one among the temporary files.
    """
    sources = sorted(FOLDER.glob("cuda_*.c"))
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(FOLDER.glob("cuda_*.[ch]"))))
    if folder is None:
        folder = Path(tempfile.gettempdir()) / f"parnet-stubs-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise CudaStubError(f"{folder} belongs to somebody else", 0)
    target = folder / digest.hexdigest()[:16] / "libcuda.so.1"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        made = Path(work) / target.name
        options = ["-std=gnu11", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]
        command = [find_compiler() or "cc", *options, f"-Wl,-soname,{target.name}"]
        subprocess.run([*command, "-o", made, *sources, "-lpthread"], check=True)
        made.replace(target)  # whole, whoever else builds it at the same time
    return target


def stub_is_loaded() -> bool:
    """Whether the driver in this process is the stand-in."""
    library = _loaded_driver()
    return library is not None and hasattr(library, "stub_reset")


def load_stub() -> CudaStub:
    """Build and load the stand-in; later calls return another handle on the same.

    Raises:
        CudaStubError: This process has another driver already.
    """
    loaded = _loaded_driver()
    if loaded is not None and not hasattr(loaded, "stub_reset"):
        raise CudaStubError("a real libcuda.so.1 is loaded in this process", 0)
    path = build_stub()
    # cuda.bindings looks for a library of this name that is loaded, and asks it for every function.
    return CudaStub(ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL))


class CudaStub:
    """The extras of the stand-in. ``errors`` holds what kernels raised."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.errors: list[Exception] = []
        self._keep: list[object] = []  # callbacks of kernels, for as long as graphs may call them
        self._library = library
        size, word = ctypes.c_size_t, ctypes.c_uint64
        library.stub_reset.argtypes = [ctypes.c_int, size, word]
        library.stub_seed.argtypes = [word]
        library.stub_fail.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long]
        library.stub_failed.restype = ctypes.c_char_p
        library.stub_calls.argtypes = [ctypes.c_char_p]
        library.stub_calls.restype = library.stub_overlaps.restype = ctypes.c_long
        library.stub_used_bytes.restype = size
        pointers = ctypes.POINTER(word)
        library.stub_launch.argtypes = [word, _KERNEL, ctypes.c_void_p, ctypes.c_int, pointers]
        library.stub_close_gate.argtypes = [word]

    def reset(self, *, devices: int = 2, memory_bytes: int = 1 << 30, seed: int = 0) -> None:
        """A fresh machine. Nothing made before may be used again, by this or another thread."""
        self._library.stub_reset(devices, memory_bytes, seed)
        self.errors.clear()
        self._keep.clear()

    def seed(self, seed: int) -> None:
        """Begin another sequence of random choices."""
        self._library.stub_seed(seed)

    def fail(self, function: str, code: int, after: int = 0) -> None:
        """Let one call fail: the one that comes ``after`` so many others.

        Args:
            function: Name without version ("cuMemAlloc"); "*": any that does not free or pop.
            code: CUresult that it returns. The call does nothing else.
            after: How many calls still go well.
        """
        self._library.stub_fail(function.encode(), code, after)

    @property
    def failed(self) -> str:
        """The function that ``fail`` hit; empty if it has not yet."""
        return str(self._library.stub_failed().decode())

    def lose(self, device: int, code: int = 700) -> None:
        """From now on every call on this device returns this sticky error."""
        self._library.stub_lose(device, code)

    def prohibit(self, device: int) -> None:
        """Put the device into the compute mode that admits nobody."""
        self._library.stub_set_compute_mode(device, 2)

    def forbid_peer(self, device: int, other: int) -> None:
        """Let ``device`` not reach the memory of ``other``."""
        self._library.stub_forbid_peer(device, other)

    def calls(self, function: str) -> int:
        """How often a function was called since ``reset``; name without version."""
        return int(self._library.stub_calls(function.encode()))

    def live(self) -> dict[str, int]:
        """How many objects of each kind exist, leaving out kinds of which there are none."""
        counts = (ctypes.c_long * 8)()
        self._library.stub_live(counts)
        found = zip((*LIVE, "retained"), counts, strict=True)
        return {name: count for name, count in found if count}

    def used_bytes(self, device: int) -> int:
        """Device memory that is allocated."""
        return int(self._library.stub_used_bytes(device))

    @property
    def depth(self) -> int:
        """How many contexts are on the stack of this thread."""
        return int(self._library.stub_depth())

    @property
    def overlaps(self) -> int:
        """How many graph launches were not ordered behind the one before, of the same graph."""
        return int(self._library.stub_overlaps())

    def launch(self, stream: int, kernel: Kernel, touches: Iterable[int] = ()) -> None:
        """Enqueue a kernel, as cuLaunchKernel does: into the stream, or its capture.

        Args:
            stream: Raw handle; its context must be current.
            kernel: What runs on the "device": it reads and writes memory by address (ctypes, or
                ``numpy.ctypeslib``). Kept until ``reset``, because a graph may call it again.
            touches: An address in each piece of device or pinned memory that it uses.

        Raises:
            CudaStubError: The driver refused it, with the code that CUDA gives.
        """

        def run(_user: object) -> int:
            try:
                kernel()
            except Exception as error:
                self.errors.append(error)
                return _LAUNCH_FAILED
            return 0

        callback, addresses = _KERNEL(run), tuple(touches)
        self._keep.append(callback)
        array = (ctypes.c_uint64 * len(addresses))(*addresses)
        self._check("launch", self._library.stub_launch(stream, callback, 0, len(array), array))

    def close_gate(self, stream: int) -> None:
        """Enqueue an operation that blocks whoever runs it, in C, until ``open_gate``."""
        self._check("close_gate", self._library.stub_close_gate(stream))

    def open_gate(self) -> None:
        """Let the one go on that waits, or the next one."""
        self._library.stub_open_gate()

    @staticmethod
    def _check(what: str, code: int) -> None:
        if code:
            raise CudaStubError(what, code)


def _loaded_driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD)
    except OSError:
        return None
