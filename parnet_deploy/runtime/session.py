"""``Runtime``: a deployment, opened and ready to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..deployment import Deployment
from ..errors import BackendError
from ..plan import Plan
from ..signing.trust import KeyPaths, find_trust
from ..spec import ModelSpec
from .arrays.device_array import DeviceArray
from .arrays.device_inputs import stream_handle
from .arrays.inputs import as_images, check_address, check_shape
from .backend import Backend
from .described import Described
from .device_calls import answer_array, enqueue_array, run_host
from .engine_file import EngineFile
from .failover import OnDeviceLost, Standby
from .lifetime import opening
from .opened import Logits, Opened, OpenOptions, open_best, open_plan
from .pool import CallPool

Answer = TypeVar("Answer")


class Runtime(Described):
    """Answers images with logits. Made by ``open`` or ``from_plan``, closed by ``with``.

    Thread-safe: any number of threads may call; ``slots`` calls run at once, the others wait. The
    GIL is released while engines run.

    Owns: engines, devices, buffers, worker threads; closed at the end of the interpreter, if by
        nobody before. A forked child must open its own: there every call is refused.
    """

    def __init__(self, opened: Opened, standby: Standby) -> None:
        self._now, self._standby = opened, standby
        self._spec, self._plan = opened.spec, opened.plan
        what = f"runtime {opened.about.get('path', opened.plan.placement.name)}"
        self._pool = CallPool(what, standby.options.slots)
        super().__init__(what)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: str | None = None,
        plan: str | None = None,
        slots: int = 1,
        threads: int | None = None,
        trace: bool = False,
        on_device_lost: OnDeviceLost = "refuse",
        packed_devices: bool = False,
        trusted_keys: KeyPaths | None = None,
        timeout_s: float | None = None,
        check_finite: bool = False,
    ) -> Runtime:
        """Open the best built plan that this machine can run; ``describe`` and the log say which.

        Args:
            path: The deployment directory.
            backend: Take plans of this backend only.
            plan: Take the plan with this key.
            slots: How many calls run at the same time; each has its own buffers and threads.
            threads: Cores for the engines; None: what the plan says, else every usable core.
            trace: Record the time of each operation for ``timeline``. Slower: no graphs.
            on_device_lost: "refuse": calls raise ``DeviceLostError``. "replan": go on with the
                engines on the devices that are left, else with another plan of the deployment,
                down to the CPU; the call in which it happens takes as long as opening that.
            packed_devices: Number each plan's devices from 0, in their order, whatever GPUs it was
                built on: for a process that sees only those it may use, as under Ray.
            trusted_keys: PEM files of public keys, or directories of them, one of which must have
                signed the deployment; None: those of ``PARNET_TRUSTED_KEYS``, where that is set.
            timeout_s: How long a call may take once its turn has come, from the canary on; the
                first of each shape takes longer. Beyond it the caller gets ``TimedOutError`` and
                his memory back, and the slot is out of use until its engines come back. Calls then
                run in threads of the runtime, on a copy of the image: about 0.1 ms more each. Not
                for work in a caller's stream (``enqueue``, ``run_into``): nobody waits for that.
            check_finite: Raise ``ExecutionError`` rather than hand over NaN or infinities, also
                those of a NaN in the input: a few us for each call. Not in a caller's stream.

        Raises:
            DeploymentUntrustedError: None of these keys has signed it. Nothing was loaded.
            SigningError: A key file cannot be used.
            DeploymentError: There is no deployment, no such plan, or a file was changed.
            BackendError: No plan runs on this machine; the message has the reason for each.
            CheckFailedError: The plan's canary input gave other logits than when it was built.
        """
        options = OpenOptions(
            slots=slots,
            threads=threads,
            trace=trace,
            packed_devices=packed_devices,
            trust=find_trust(trusted_keys),
            timeout_s=timeout_s,
            check_finite=check_finite,
        )
        standby = Standby(options, on_device_lost, path=Path(path).absolute())
        with opening():
            opened = Deployment.read(
                path, lambda found: open_best(found, options, backend=backend, key=plan)
            )
            return cls(opened, standby)

    @classmethod
    def from_plan(
        cls,
        spec: ModelSpec,
        plan: Plan,
        files: Mapping[str, EngineFile],
        *,
        backend: Backend | None = None,
        slots: int = 1,
        threads: int | None = None,
        trace: bool = False,
        on_device_lost: OnDeviceLost = "refuse",
        timeout_s: float | None = None,
        check_finite: bool = False,
    ) -> Runtime:
        """Open engines that are not in a deployment (yet), as the builder does to measure them.

        Args:
            spec: The network.
            plan: What was built.
            files: Engine file of each segment, for example a ``Path``.
            backend: An instance to use; None: the one that the plan names.
            slots: See ``open``.
            threads: See ``open``.
            trace: See ``open``.
            on_device_lost: See ``open``; there is no other plan than this one.
            timeout_s: See ``open``.
            check_finite: See ``open``.

        Raises:
            SpecError: The placement does not compute the network, or no slot or thread was given.
            BackendError: The plan does not run on this machine.
        """
        options = OpenOptions(
            slots=slots,
            threads=threads,
            trace=trace,
            timeout_s=timeout_s,
            check_finite=check_finite,
            loader=backend,
        )
        standby = Standby(options, on_device_lost)
        with opening():
            return cls(open_plan(spec, plan, files, options), standby)

    def __call__(self, x: object, *, stream: object = None) -> Logits:
        """Compute logits.

        A C-contiguous host array is read in place; one with other strides is copied first. An array
        on a GPU (torch, cupy, numba, pycuda; only with a GPU backend) is read there, behind what
        its producer has enqueued. NaN in the input is the caller's business: it comes out as NaN.

        Args:
            x: A numpy array, a DLPack object, or one with ``__cuda_array_interface__``.
            stream: The cuda_stream that writes ``x``, if ``x`` cannot say so itself: pycuda arrays
                never can. Anything that ``arrays.device_inputs.stream_handle`` accepts.

        Returns: A fresh host array, which the caller owns.

        Shapes: x (N, 3, H, W) float32; logits (N, K) float32.

        Raises:
            InputError: Shape, dtype, device or batch is not accepted.
            ExecutionError: This run failed; the next may succeed.
            TimedOutError: The engines did not come back in time, if there is a limit.
            DeviceLostError: The device is gone; open the runtime again.
            BackendError: The runtime is closed.
        """
        if self._closed:
            raise self._refusal()
        if isinstance(x, np.ndarray):
            return self._ask(Opened.answer, as_images(x, self._spec.in_channels))
        return self._ask(answer_array, x, stream)

    def enqueue(self, x: object, *, stream: object) -> DeviceArray:
        """Compute logits on the device, in the caller's cuda_stream, and return at once.

        ``torch.from_dlpack(runtime.enqueue(x, stream=torch.cuda.current_stream()))`` is a tensor
        that no host code has waited for. Read it in the same stream, or by DLPack, which orders.
        ``run_into`` does the same into memory of the caller.

        Args:
            x: An array on a GPU: DLPack, or ``__cuda_array_interface__``. Without DLPack it must be
                written in ``stream``.
            stream: The cuda_stream, of the device that computes the logits; see ``__call__``.

        Returns: (N, K) float32 on that device.

        Owns: its memory is the runtime's. It is used again when the last reader is garbage, and
            freed when the runtime is closed.

        Raises:
            InputError: ``x`` is on the host, or of the wrong shape, dtype or layout.
            DeviceUnavailableError: The backend has no streams.
            DeviceLostError: The device is gone. Nothing takes over in a caller's stream.
        """
        if self._closed:
            raise self._refusal()
        return enqueue_array(self._now, x, stream)

    def run_into(
        self,
        in_ptr: int,
        out_ptr: int,
        n: int = 1,
        stream: object = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Compute logits from memory at one address into memory at another. Allocates nothing.

        Without ``stream`` both are host memory, and the call returns when the logits are there.
        With it (GPU backends) both may be device memory; the work is enqueued behind what is in
        the stream, and the call returns at once.

        Args:
            in_ptr: Address of (n, 3, H, W) float32, C-contiguous.
            out_ptr: Address of (n, K) float32.
            n: Images.
            stream: A cuda_stream of the caller, of the device that computes the logits: its raw
                handle, or any object that ``__call__`` takes.
            size: (height, width); may be left out if the deployment has one size.

        Owns: the memory stays the caller's and must stay valid until the work is done.

        Raises:
            InputError: An argument is not accepted; nothing was read or written.
            DeviceUnavailableError: ``stream`` was given and the backend has no streams.
            ExecutionError: See ``__call__``, as for the others.
        """
        if self._closed:
            raise self._refusal()
        shape = check_shape(n, size, self._plan.input_size)
        image, logits = check_address("in_ptr", in_ptr), check_address("out_ptr", out_ptr)
        if stream is not None:
            handle = stream if type(stream) is int else stream_handle(stream)
            self._now.executor.launch(image, logits, shape, handle)
            return
        self._ask(run_host, image, logits, shape)

    def submit(self, x: object) -> Future[Logits]:
        """Compute logits in another thread.

        A future that has not begun can be cancelled, and is then never computed.

        Owns: the caller must not change ``x`` before the future is done.

        Raises:
            InputError: At once, as in ``__call__``.
            BackendError: The runtime is closed, or the system has no thread left. Everything else
                is in the future.
        """
        if self._closed:
            raise self._refusal()
        images = as_images(x, self._spec.in_channels)
        batch, _, height, width = images.shape
        self._now.executor.check((batch, height, width))
        return self._pool.submit(self._ask, Opened.answer, images)

    def prove(self) -> dict[str, Any]:
        """Run the canary again, the input stored when the plan was built, on the engines of now.

        It takes the time and the slot of one call.

        Returns: The error and the tolerance, as plain JSON types.

        Raises:
            CheckFailedError: They compute something else by now. Whether to go on is the caller's
                to decide: the runtime itself goes on.
            DeploymentError: The plan has no canary.
        """
        if self._closed:
            raise self._refusal()
        return self._ask(Opened.prove)

    def close(self) -> None:
        """Wait for the work in flight, then free everything. Idempotent; later calls are refused.

        What ``submit`` has accepted is answered first. In a forked child it does nothing.

        With ``timeout_s`` it waits for no call longer than that. If one is stuck, the log says what
        is left behind: engines, buffers and a thread, which are freed should it ever come back.

        Raises:
            BackendError: It was called in a callback of a future of ``submit``, for whose end it
                would wait. Nothing is closed then.
        """
        if self._inherited:
            return
        self._pool.check_thread()
        self._closed = True
        self._pool.close()
        self._standby.close(self._now)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _needs_driver(self) -> bool:
        return not self._now.executor.home.direct

    def _ask(self, call: Callable[..., Answer], *arguments: object) -> Answer:
        """Call with what is open; again with what takes over, if a device is lost and one may."""
        now = self._now
        while True:
            try:
                return call(now, *arguments)
            except BackendError as error:
                successor = self._standby.successor(now, error)
                if successor is None or self._closed:
                    raise
                self._now = now = successor  # if it fails too, its own successor is next
