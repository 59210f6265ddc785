"""Encoded images to network input, in a few threads of their own: the event loop never decodes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...preprocess import Preprocessing, load_image
from ..clock import Clock
from ..protocol.refusal import DRAINING_RETRY_S, RefusedError

Images = NDArray[np.float32]  # (N, C, H, W)


class Decoders:
    """Decodes for all models. Lives on one event loop; nothing in it blocks that.

    Requests take turns, image by image: one of many images delays nobody by more than one.

    Args:
        threads: How many images are decoded at the same time.
        max_waiting: How many images may be decoded or wait for it; more are refused.
        max_image_bytes: Largest encoded image.
        max_image_pixels: Most pixels of an image; see ``load_image``.
        clock: Where deadlines are counted.

    Owns: its threads, until ``close``.
    """

    def __init__(
        self,
        *,
        threads: int,
        max_waiting: int,
        max_image_bytes: int,
        max_image_pixels: int,
        clock: Clock,
    ) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="parnet-decode")
        self._max_waiting, self._max_image_bytes = max_waiting, max_image_bytes
        self._max_image_pixels, self._clock, self._threads = max_image_pixels, clock, threads
        self._waiting = 0  # images
        self._requests = 0  # they are of
        self._each_s = 0.0  # how long one took lately

    async def decode(
        self, encoded: Sequence[bytes], preprocessing: Preprocessing, deadline_s: float
    ) -> Images:
        """Decode and prepare the images of one request.

        Raises:
            RefusedError: too-large, or invalid with the index of the image; busy; late.
        """
        for index, content in enumerate(encoded):
            if len(content) > self._max_image_bytes:
                raise RefusedError(
                    "too-large",
                    f"encoded_image[{index}]: got {len(content)} bytes, expected at most "
                    f"{self._max_image_bytes}. Make the image smaller.",
                )
        if self._waiting and self._waiting + len(encoded) > self._max_waiting:
            raise RefusedError(
                "busy",
                f"decoders: their queue is full: {self._waiting} of {self._max_waiting} images "
                f"wait, no room for {len(encoded)} more. Try again later.",
                retry_after_s=self._waiting * self._each_s / self._threads,
            )
        images = min(self._waiting, len(encoded) * self._requests)  # that come before its last
        ahead_s = images * self._each_s / self._threads
        left_s = deadline_s - self._clock.now()
        if ahead_s > left_s:
            raise RefusedError(
                "late",
                f"decoders: got {left_s * 1e3:.1f} ms until the deadline, expected at least "
                f"{ahead_s * 1e3:.1f} ms for the images before. Try again later, or give it more "
                "time.",
                retry_after_s=ahead_s,
            )
        loop = asyncio.get_running_loop()
        job = _Job(encoded, preprocessing, deadline_s, loop.create_future())
        self._waiting += len(encoded)
        self._requests += 1
        self._decode_next(job)
        timer = self._clock.call_at(deadline_s, _refuse_late, job.answer)
        try:
            return await job.answer
        finally:
            timer.cancel()
            job.left = True
            if job.step is not None:
                job.step.cancel()  # does nothing once it runs

    def _decode_next(self, job: _Job) -> None:
        """Put the next image of a request behind those of all others."""
        try:
            job.step = step = self._pool.submit(self._prepare, job)
        except RuntimeError:  # closed
            self._tell(job, None)
        else:
            step.add_done_callback(lambda done: self._stepped(job, done))

    def _stepped(self, job: _Job, step: Future[None]) -> None:
        if not step.cancelled() and step.exception() is None and job.images is None:
            self._decode_next(job)
        else:
            self._tell(job, step)

    def _tell(self, job: _Job, step: Future[None] | None) -> None:
        try:
            job.answer.get_loop().call_soon_threadsafe(self._settle, job, step)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _settle(self, job: _Job, step: Future[None] | None) -> None:
        """Hand out what came of a request. No step: it is closed."""
        self._waiting -= len(job.encoded)
        self._requests -= 1
        if job.answer.done():
            return
        if step is None or step.cancelled():
            error = RefusedError(
                "draining",
                "decoders: the server is stopping. Ask another one.",
                retry_after_s=DRAINING_RETRY_S,
            )
            job.answer.set_exception(error)
        elif (failure := step.exception()) is not None:
            job.answer.set_exception(failure)
        else:
            assert job.images is not None
            job.answer.set_result(job.images)

    def _prepare(self, job: _Job) -> None:
        """One image of a request, in a thread."""
        start_s = self._clock.now()
        if job.left or start_s >= job.deadline_s:
            raise _late()
        index = len(job.done)
        try:
            image = prepare_image(
                index, job.encoded[index], job.preprocessing, max_pixels=self._max_image_pixels
            )
        finally:
            self._each_s = self._clock.now() - start_s
        job.done.append(image)
        if len(job.done) == len(job.encoded):
            job.images = image[np.newaxis] if index == 0 else np.stack(job.done)

    def close(self) -> None:
        """Decode nothing more. What is being decoded is finished, and nobody waits for it."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(eq=False)
class _Job:
    """A request's images. ``left``: nobody waits for them any more. ``images``: all of them."""

    encoded: Sequence[bytes]
    preprocessing: Preprocessing
    deadline_s: float
    answer: asyncio.Future[Images]
    done: list[Images] = field(default_factory=list)  # (C, H, W) each
    images: Images | None = None
    step: Future[None] | None = None
    left: bool = False


def prepare_image(
    index: int, content: bytes, preprocessing: Preprocessing, *, max_pixels: int | None = None
) -> Images:
    """Decode one image of a request.

    Shapes: (C, H, W).

    Raises:
        RefusedError: invalid, with its index, if it cannot be read or has more pixels than may be.
    """
    try:
        return load_image(content, preprocessing, max_pixels=max_pixels)
    except InputError as error:
        raise RefusedError("invalid", f"encoded_image[{index}]: {error}") from error


def warm_up_decoders(preprocessing: Preprocessing) -> None:
    """Load what decodes the usual formats, or the first client would wait for it."""
    from PIL import Image

    for kind in ("PNG", "JPEG"):
        content = io.BytesIO()
        Image.new("RGB", (8, 8)).save(content, kind)
        prepare_image(0, content.getvalue(), preprocessing)


def _refuse_late(answer: asyncio.Future[Images]) -> None:
    if not answer.done():
        answer.set_exception(_late())
        answer.exception()  # seen: nobody need be there to take it


def _late() -> RefusedError:
    return RefusedError("late", "deadline: it passed while the images were decoded. Try again.")
