"""The ``mnn`` backend: segments as MNN sessions on the CPU, whose convolutions are Winograd's.

MNN's tensors are its own memory: each call copies every input of a segment in and every output
out, once, and nothing else; MNN repacks them inside to the layout that it computes in. Its Python
interface cannot free one session alone, and sessions do not share their packed weights: an engine
has a session for each slot, which is made for the slot's first binding and lives as long as the
engine. Bindings of one slot share it, and what runs resizes it where another shape ran before.

A process has one pool of threads for all that MNN runs in it. It is as large as the cores of the
first plan that was opened with more than one, and never grows; it serves two sessions at a time,
and what comes in excess is computed in its calling thread alone. Its threads spin while a session
runs and sleep while none does.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, EngineLoadError, ExecutionError, OutOfMemoryError
from ..placement import Segment
from ..plan import Plan
from ..spec import ModelSpec
from .device import Tensor
from .engine_file import EngineFile
from .fork_guard import ForkGuard
from .host import HostStream
from .host_array import array_at
from .host_backend import HostBackend
from .quiet import stdout_dropped, stdout_to_stderr

with stdout_dropped():  # it prints the abilities of the CPU
    import MNN

_GUARD = ForkGuard("MNN")

Shapes = Mapping[str, tuple[int, ...]]

ERROR_CODES: Mapping[int, tuple[str, type[BackendError]]] = {
    # MNN's, its name, ours
    1: ("out of memory", OutOfMemoryError),
    2: ("not supported", ExecutionError),
    3: ("sizes cannot be computed", ExecutionError),
    4: ("no execution", ExecutionError),
    5: ("invalid value", ExecutionError),
    10: ("wrong input", ExecutionError),
    11: ("stopped by a callback", ExecutionError),
    20: ("tensor not supported", ExecutionError),
    21: ("tensor must be divided", ExecutionError),
}
"""What ``runSession`` returns when it fails."""

_HIGH = 1  # float32 everywhere; MNN prints when the precision is given by its name
_REBUILD = "Run: parnet-deploy build."


def check_code(code: int, what: str) -> None:
    """Raise what a code of MNN means; 0 is success.

    Raises:
        ExecutionError: It reported a failure.
        OutOfMemoryError: Of this one.
    """
    if code:
        name, ours = ERROR_CODES.get(code, ("unknown", ExecutionError))
        raise ours(f"{what}: MNN: error {code}, {name}.")


def open_interpreter(file: EngineFile) -> Any:
    """MNN's ``Interpreter`` of a file's checked bytes.

    MNN's Python interface reads paths alone, so it is given the path of anonymous memory. It
    verifies the structure of the file (a flatbuffer), which refuses what is cut or foreign, but
    not what is in it: single bits that are flipped there can end the process in ``createSession``.
    The sha256 of a deployment's artifacts is what keeps those away.

    Raises:
        EngineLoadError: The file cannot be read, or is no file of MNN.
        OutOfMemoryError: It does not fit into memory.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise EngineLoadError(f"engine {file}: cannot be read: {error}. {_REBUILD}") from error
    try:
        with anonymous_file(data) as path, stdout_to_stderr():
            return MNN.Interpreter(path)
    except MemoryError as error:
        raise OutOfMemoryError(f"engine {file}: it does not fit into memory.") from error
    except Exception as error:  # MNN raises bare Exceptions
        raise EngineLoadError(f"engine {file}: MNN cannot load it: {error}. {_REBUILD}") from error


@contextmanager
def anonymous_file(data: bytes) -> Iterator[str]:
    """A path, good within the block, that opens exactly these bytes and that no other can reach."""
    handle = os.memfd_create("parnet-engine", os.MFD_CLOEXEC)
    try:
        with os.fdopen(handle, "wb", closefd=False) as target:
            target.write(data)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


class MnnSession:
    """One session of an interpreter, resized to what runs next. Not thread-safe: a slot has one.

    Owns: working memory and packed weights, until the interpreter goes.
    """

    def __init__(self, interpreter: Any, segment: Segment, threads: int) -> None:
        self._interpreter, self._name = interpreter, segment.name
        self._session = interpreter.createSession(_config(threads))
        self._inputs: dict[str, Any] = interpreter.getSessionInputAll(self._session)
        self._outputs: dict[str, Any] = interpreter.getSessionOutputAll(self._session)
        self.inputs, self.outputs = tuple(self._inputs), tuple(self._outputs)
        self._shapes: Shapes = {}
        self._addresses: dict[str, int] = {}

    def resize(self, shapes: Shapes) -> Mapping[str, int]:
        """Where each tensor is in MNN's memory, dense and NCHW, now that they have these shapes.

        The same mapping is returned again while the shapes are the same.

        Raises:
            ExecutionError: The file's network gives other shapes.
            OutOfMemoryError: MNN could not allocate its working memory.
        """
        if shapes != self._shapes:
            self._shapes = {}
            for name in self.inputs:
                tensor = self._interpreter.getSessionInput(self._session, name)
                self._interpreter.resizeTensor(tensor, shapes[name])
            self._interpreter.resizeSession(self._session)
            self._addresses = {name: self._address(name, shape) for name, shape in shapes.items()}
            self._shapes = shapes
        return self._addresses

    def run(self) -> None:
        """Compute. The GIL is released.

        Raises:
            ExecutionError: MNN reported a failure.
            OutOfMemoryError: Working memory could not be allocated.
        """
        check_code(self._interpreter.runSession(self._session), f"segment {self._name}")

    def _address(self, name: str, shape: tuple[int, ...]) -> int:
        find = self._interpreter.getSessionInput
        if name in self._outputs:
            find = self._interpreter.getSessionOutput
        view = find(self._session, name).getNumpyData()
        if view.flags.owndata:  # it found no memory to show
            raise OutOfMemoryError(
                f"segment {self._name}: MNN has no memory for {name} {shape}. Lower the batch, the "
                "image size or the slots."
            )
        if view.shape != shape or view.dtype != np.float32:
            raise ExecutionError(
                f"segment {self._name}, tensor {name}: got {view.dtype} {view.shape}, expected "
                f"float32 {shape}. {_REBUILD}"
            )
        address: int = view.ctypes.data
        return address


class MnnBinding:
    """See ``device.Binding``. ``run`` copies in, computes and copies out."""

    def __init__(self, session: MnnSession, segment: Segment, tensors: Mapping[str, Tensor]):
        self._session: MnnSession | None = session
        self._segment = segment
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self._bytes = {name: 4 * int(np.prod(t.shape)) for name, t in tensors.items()}
        self._ours: dict[str, NDArray[np.float32]] = {}
        for name, tensor in tensors.items():
            self.set_address(name, tensor.buffer.address)

    def set_address(self, name: str, address: int) -> None:
        """See ``device.Binding``. Address 0: not known yet."""
        if address:
            self._ours[name] = array_at(address, self._shapes[name])

    def run(self) -> None:
        """Run the session on the bound memory.

        MNN makes plausible numbers of NaN and Inf. Here an image that has any gives NaN, as it does
        on every other backend; so does one whose values have no finite sum.

        Raises:
            ExecutionError: MNN reported a failure.
            OutOfMemoryError: Working memory could not be allocated.
        """
        if self._session is None:
            raise ExecutionError(f"segment {self._segment.name}: its binding is closed.")
        theirs, ours, nbytes = self._session.resize(self._shapes), self._ours, self._bytes
        spoiled = not_finite([ours[name] for name in self._segment.inputs])
        for name in self._segment.inputs:
            ctypes.memmove(theirs[name], ours[name].ctypes.data, nbytes[name])
        self._session.run()
        for name in self._segment.outputs:
            ctypes.memmove(ours[name].ctypes.data, theirs[name], nbytes[name])
            for image in spoiled:
                ours[name][image] = np.nan

    def close(self) -> None:
        """See ``device.Binding``. It lets go of the session."""
        self._session = None


def not_finite(tensors: Sequence[NDArray[np.float32]]) -> list[int]:
    """Which images, of tensors (N, ...), have a value that is NaN or Inf, or no finite sum."""
    with np.errstate(over="ignore", invalid="ignore"):
        if all(math.isfinite(tensor.sum()) for tensor in tensors):
            return []
        return [
            image
            for image in range(len(tensors[0]))
            if not all(math.isfinite(tensor[image].sum()) for tensor in tensors)
        ]


class MnnEngine:
    """See ``device.Engine``: one interpreter, a session for each slot.

    Owns: the interpreter, and with it the file's bytes and every session.
    """

    def __init__(self, interpreter: Any, segment: Segment, threads: int) -> None:
        self.inputs, self.outputs = segment.inputs, segment.outputs
        self._interpreter, self._segment, self._threads = interpreter, segment, threads
        self._sessions: dict[int, MnnSession] = {}
        self._lock = threading.Lock()

    def session(self, slot: int) -> MnnSession:
        """That of a slot, made at its first use.

        Raises:
            EngineLoadError: MNN cannot make it.
            OutOfMemoryError: It does not fit into memory.
        """
        with self._lock:
            if slot not in self._sessions:
                self._sessions[slot] = self._open()
            return self._sessions[slot]

    def bind(self, tensors: Mapping[str, Tensor], slot: int) -> MnnBinding:
        """See ``device.Engine``."""
        binding = MnnBinding(self.session(slot), self._segment, tensors)
        self.session(slot).resize({name: tensor.shape for name, tensor in tensors.items()})
        return binding

    def enqueue(self, binding: MnnBinding, stream: HostStream) -> None:
        """See ``device.Engine``."""
        stream.submit(binding.run, self._segment.name)

    def close(self) -> None:
        """See ``device.Engine``."""
        self._sessions.clear()
        self._interpreter = None

    def _open(self) -> MnnSession:
        what = f"engine of segment {self._segment.name}"
        try:
            with stdout_to_stderr():
                return MnnSession(self._interpreter, self._segment, self._threads)
        except MemoryError as error:
            raise OutOfMemoryError(f"{what}: it does not fit into memory.") from error
        except Exception as error:  # MNN raises bare Exceptions
            raise EngineLoadError(f"{what}: MNN makes no session: {error}. {_REBUILD}") from error


class MnnBackend(HostBackend):
    """See ``host_backend.HostBackend``."""

    name = "mnn"

    def prepare(self, plan: Plan, cores: int) -> None:
        """See ``host_backend.HostBackend``. Makes the pool, whose size the first session gives.

        A session of few threads would otherwise leave those after it no more.
        """
        _GUARD.use(cores)
        with stdout_to_stderr():
            MNN.nn.create_runtime_manager((_config(cores),))

    def open_engine(
        self, file: EngineFile, segment: Segment, spec: ModelSpec, plan: Plan, threads: int
    ) -> MnnEngine:
        """See ``host_backend.HostBackend``."""
        engine = MnnEngine(open_interpreter(file), segment, threads)
        with stdout_to_stderr():  # where MNN says what is wrong
            check_session(engine.session(0), segment, spec, plan)
        return engine

    def facts(self, plan: Plan) -> Mapping[str, Any]:
        """See ``host_backend.HostBackend``."""
        return {"mnn": MNN.version()}


def check_session(session: MnnSession, segment: Segment, spec: ModelSpec, plan: Plan) -> None:
    """Refuse a file that is not this segment: names, dtypes and shapes of what it reads and writes.

    Raises:
        EngineLoadError: With what differs.
        OutOfMemoryError: The largest shapes do not fit into memory.
    """
    if {*session.inputs} != {*segment.inputs} or not {*segment.outputs} <= {*session.outputs}:
        raise EngineLoadError(
            f"engine of segment {segment.name}: got {sorted(session.inputs)} -> "
            f"{sorted(session.outputs)}, expected {sorted(segment.inputs)} -> "
            f"{sorted(segment.outputs)}. {_REBUILD}"
        )
    names = (*segment.inputs, *segment.outputs)
    for size in sorted({plan.input_size.low, plan.input_size.high}):
        for batch in sorted({1, plan.max_batch}):
            shapes = {name: (batch, *spec.tensors[name].shape(*size)) for name in names}
            try:
                session.resize(shapes)
            except ExecutionError as error:
                raise EngineLoadError(f"engine of {error}") from error


def _config(threads: int) -> dict[str, object]:
    return {"backend": "CPU", "numThread": threads, "precision": _HIGH}
