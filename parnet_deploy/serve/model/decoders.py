"""Encoded images to network input, in a few threads of their own: the event loop never decodes."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...preprocess import Preprocessing, load_image
from ..clock import Clock
from ..protocol.refusal import DRAINING_RETRY_S, RefusedError

Images = NDArray[np.float32]  # (N, C, H, W)


class Decoders:
    """Decodes for all models. Lives on one event loop; nothing in it blocks that.

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
        ahead_s = self._waiting * self._each_s / self._threads
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
        answer: asyncio.Future[Images] = loop.create_future()
        left = threading.Event()
        work = self._pool.submit(self._prepare, encoded, preprocessing, deadline_s, left)
        self._waiting += len(encoded)

        def settle() -> None:
            self._waiting -= len(encoded)
            if not answer.done():
                _copy_outcome(work, answer)

        work.add_done_callback(lambda done: _tell(loop, settle))
        timer = self._clock.call_at(deadline_s, _refuse_late, answer)
        try:
            return await answer
        finally:
            timer.cancel()
            left.set()
            work.cancel()  # does nothing once it runs

    def _prepare(
        self,
        encoded: Sequence[bytes],
        preprocessing: Preprocessing,
        deadline_s: float,
        left: threading.Event,
    ) -> Images:
        start_s, begun = self._clock.now(), 0

        def begin() -> None:
            nonlocal begun
            if left.is_set() or self._clock.now() >= deadline_s:
                raise _late()
            begun += 1

        try:
            return prepare_images(
                encoded, preprocessing, max_pixels=self._max_image_pixels, begin=begin
            )
        finally:
            if begun:
                self._each_s = (self._clock.now() - start_s) / begun

    def close(self) -> None:
        """Decode nothing more. What is being decoded is finished, and nobody waits for it."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def prepare_images(
    encoded: Sequence[bytes],
    preprocessing: Preprocessing,
    *,
    max_pixels: int | None = None,
    begin: Callable[[], None] = lambda: None,
) -> Images:
    """Decode images into one batch.

    Args:
        encoded: Content of each.
        preprocessing: What to make of it.
        max_pixels: Of each; see ``load_image``.
        begin: Called before each; what it raises ends the work.

    Raises:
        RefusedError: invalid, with the index of the first that cannot be read.
    """
    found = []
    for index, content in enumerate(encoded):
        begin()
        try:
            found.append(load_image(content, preprocessing, max_pixels=max_pixels))
        except InputError as error:
            raise RefusedError("invalid", f"encoded_image[{index}]: {error}") from error
    return found[0][np.newaxis] if len(found) == 1 else np.stack(found)


def warm_up_decoders(preprocessing: Preprocessing) -> None:
    """Load what decodes the usual formats, or the first client would wait for it."""
    from PIL import Image

    for kind in ("PNG", "JPEG"):
        content = io.BytesIO()
        Image.new("RGB", (8, 8)).save(content, kind)
        prepare_images([content.getvalue()], preprocessing)


def _tell(loop: asyncio.AbstractEventLoop, settle: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return


def _copy_outcome(work: Future[Images], answer: asyncio.Future[Images]) -> None:
    if work.cancelled():
        answer.set_exception(
            RefusedError(
                "draining",
                "decoders: the server is stopping. Ask another one.",
                retry_after_s=DRAINING_RETRY_S,
            )
        )
    elif (error := work.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(work.result())


def _refuse_late(answer: asyncio.Future[Images]) -> None:
    if not answer.done():
        answer.set_exception(_late())
        answer.exception()  # seen: nobody need be there to take it


def _late() -> RefusedError:
    return RefusedError("late", "deadline: it passed while the images were decoded. Try again.")
